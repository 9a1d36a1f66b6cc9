//! What the wire costs: messages read and written, and their conversion to and from the rules' types.

use divan::{Bencher, black_box};
use prost::Message;
use weir_benches::{application, metrics, now, plan, service, usage};
use weir_core::decide::limit_statuses;
use weir_core::{AlertBins, Credentials, Decision, Service, Usage, increments};
use weir_proto::Acceptance;
use weir_proto::v1;

fn question(credentials: &Credentials, usage: &Usage) -> v1::AuthRepRequest {
    v1::AuthRepRequest {
        request_id: vec![7; 16],
        attempt: 0,
        service_id: "api".into(),
        credentials: Some(credentials.into()),
        usage: v1::UsageEntry::list(usage),
        referrer: None,
        trace_context: None,
    }
}

fn admission() -> Decision {
    let metrics = metrics();
    let wanted =
        increments(&usage(), &metrics, &plan(&metrics), AlertBins::ALL).expect("metrics of the tree");
    Decision::Allow(limit_statuses(&wanted, &[9; 3], &[], now()))
}

fn accepted() -> Acceptance<'static> {
    Acceptance {
        application_id: "app-0",
        records_version: 1 << 63,
        for_ms: None,
        for_any_referrer: true,
        free_answers: None,
    }
}

#[divan::bench]
fn question_is_written(bencher: Bencher<'_, '_>) {
    let (credentials, usage) = (application(0).1, usage());
    bencher.bench(|| question(black_box(&credentials), black_box(&usage)).encode_to_vec());
}

#[divan::bench]
fn question_is_read(bencher: Bencher<'_, '_>) {
    let bytes = question(&application(0).1, &usage()).encode_to_vec();
    bencher.bench(|| {
        let message = v1::AuthRepRequest::decode(black_box(&bytes[..])).expect("as written");
        let credentials = v1::Credentials::read(message.credentials.as_ref()).expect("as written");
        (credentials, v1::UsageEntry::read(&message.usage).expect("as written"))
    });
}

#[divan::bench]
fn decision_is_written(bencher: Bencher<'_, '_>) {
    let decision = admission();
    bencher.bench(|| v1::Decision::new(black_box(&decision), accepted(), now()).encode_to_vec());
}

#[divan::bench]
fn decision_is_read(bencher: Bencher<'_, '_>) {
    let bytes = v1::Decision::new(&admission(), accepted(), now()).encode_to_vec();
    bencher.bench(|| {
        let message = v1::Decision::decode(black_box(&bytes[..])).expect("as written");
        Decision::try_from(&message).expect("as written")
    });
}

#[divan::bench(args = [10, 1_000], sample_count = 20)]
fn service_is_read(bencher: Bencher<'_, '_>, rules: usize) {
    let bytes = v1::Service::from(&service(rules)).encode_to_vec();
    bencher.bench(|| {
        let message = v1::Service::decode(black_box(&bytes[..])).expect("as written");
        Service::try_from(&message).expect("as written")
    });
}
