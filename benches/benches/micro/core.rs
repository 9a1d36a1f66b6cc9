//! What the rules cost: everything that core does for one call, each step by itself.

use divan::{Bencher, black_box};
use weir_benches::{application, compiled_rules, hasher, mapping_rules, metrics, now, plan, service, usage};
use weir_core::authenticate::authenticate;
use weir_core::counter::{ceilings, first_exceeded};
use weir_core::decide::limit_statuses;
use weir_core::path::RequestPath;
use weir_core::period::window_names;
use weir_core::{AlertBins, MappingRules, Secret, increments};

/// From a handful of rules to more than anyone has.
const RULES: [usize; 4] = [10, 100, 1_000, 10_000];

#[divan::bench]
fn windows_are_named() -> [String; 7] {
    window_names(black_box(now()))
}

#[divan::bench]
fn path_is_read(bencher: Bencher<'_, '_>) {
    bencher.bench(|| RequestPath::parse(black_box("/v3/resource42/3f2c9a71/part0")).map(drop));
}

#[divan::bench]
fn usage_is_expanded(bencher: Bencher<'_, '_>) {
    let (metrics, usage) = (metrics(), usage());
    bencher.bench(|| black_box(&usage).expand(black_box(&metrics)));
}

#[divan::bench]
fn increments_are_computed(bencher: Bencher<'_, '_>) {
    let (metrics, usage) = (metrics(), usage());
    let plan = plan(&metrics);
    bencher.bench(|| increments(black_box(&usage), &metrics, black_box(&plan), AlertBins::ALL));
}

#[divan::bench]
fn limits_are_judged(bencher: Bencher<'_, '_>) {
    let metrics = metrics();
    let wanted =
        increments(&usage(), &metrics, &plan(&metrics), AlertBins::ALL).expect("metrics of the tree");
    let used = vec![9; ceilings(&wanted).count()];
    bencher.bench(|| first_exceeded(black_box(&wanted), black_box(&used), &[]));
}

/// All of it but the store's part: who calls, what that adds to which counter, whether it fits.
#[divan::bench]
fn call_is_decided(bencher: Bencher<'_, '_>) {
    let (service, (application, credentials), hasher) = (service(10), application(0), hasher());
    let usage = usage();
    let used = [9; 3];
    let (found_by, presented) = (application.user_key.clone(), credentials.into());
    bencher.bench(|| {
        let found_by = found_by.as_ref();
        authenticate(&service, &application, black_box(&presented), found_by, None, &hasher, now())?;
        let wanted = increments(&usage, &service.metrics, &service.plans[0], AlertBins::ALL)?;
        Ok::<_, weir_core::Denial>(first_exceeded(&wanted, black_box(&used), &[]))
    });
}

#[divan::bench]
fn limits_are_told(bencher: Bencher<'_, '_>) {
    let metrics = metrics();
    let wanted =
        increments(&usage(), &metrics, &plan(&metrics), AlertBins::ALL).expect("metrics of the tree");
    let used = vec![9; ceilings(&wanted).count()];
    bencher.bench(|| limit_statuses(black_box(&wanted), black_box(&used), &[], now()));
}

#[divan::bench]
fn key_is_hashed(bencher: Bencher<'_, '_>) {
    let hasher = hasher();
    let key = Secret::new("3d3a41c1f4b9e0a6c2d8");
    bencher.bench(|| hasher.hash(black_box(&key)));
}

#[divan::bench(args = RULES)]
fn rules_match(bencher: Bencher<'_, '_>, count: usize) {
    let (rules, path) = compiled_rules(count);
    bencher.bench(|| rules.matches("GET", black_box(path.as_bytes()), &|_| None));
}

#[divan::bench(args = RULES)]
fn no_rule_matches(bencher: Bencher<'_, '_>, count: usize) {
    let (rules, _) = compiled_rules(count);
    bencher.bench(|| rules.matches("GET", black_box(b"/v3/resources/3f2c9a71/part0"), &|_| None));
}

#[divan::bench(args = RULES, sample_count = 10)]
fn rules_are_compiled(bencher: Bencher<'_, '_>, count: usize) {
    bencher.with_inputs(|| mapping_rules(count)).bench_values(MappingRules::new);
}
