//! What records metrics, and writes them down for a scraper.
//!
//! Counters and gauges are the exporter's. Histograms are our own: it keeps each value until somebody folds them, with
//! the time beside it, and requests have several. Here a value is counted where it falls.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Label, Metadata, Recorder, SharedString, Unit,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use parking_lot::Mutex;

/// Upper ends of the buckets of every other `…_seconds`: from a decision in memory to a slow upstream.
const SECONDS_BUCKETS: [f64; 17] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0,
];
/// Those of the gateway's own part, which is short: from a call that is refused at once to one in trouble.
const OWN_BUCKETS: [f64; 13] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1,
];

/// What was recorded, to be read.
#[derive(Clone)]
pub(crate) struct Metrics {
    rest: PrometheusHandle,
    histograms: Arc<Histograms>,
}

impl Metrics {
    /// Makes the process record metrics.
    ///
    /// # Errors
    /// When something else records them already.
    pub(crate) fn install() -> anyhow::Result<Self> {
        let (recorder, metrics) = Self::build();
        metrics::set_global_recorder(recorder).ok().context("metrics are recorded already")?;
        Ok(metrics)
    }

    fn build() -> (Both, Self) {
        let rest = PrometheusBuilder::new().build_recorder();
        let histograms = Arc::<Histograms>::default();
        let metrics = Self { rest: rest.handle(), histograms: Arc::clone(&histograms) };
        (Both { rest, histograms }, metrics)
    }

    /// All of it, in the text format of Prometheus.
    pub(crate) fn render(&self) -> String {
        let mut text = self.rest.render();
        self.histograms.render(&mut text);
        text
    }

    /// Some that nothing is recorded in.
    #[cfg(test)]
    pub(super) fn for_tests() -> Self {
        Self::build().1
    }
}

struct Both {
    rest: PrometheusRecorder,
    histograms: Arc<Histograms>,
}

impl Recorder for Both {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.rest.describe_counter(name, unit, text);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.rest.describe_gauge(name, unit, text);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, text: SharedString) {
        self.histograms.0.lock().entry(name.as_str().to_owned()).or_default().help = text;
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.rest.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.rest.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let mut families = self.histograms.0.lock();
        let family = families.entry(key.name().to_owned()).or_default();
        let buckets =
            family.buckets.entry(labels(key.labels())).or_insert_with(|| Buckets::of(key.name()).into());
        Histogram::from_arc(Arc::clone(buckets))
    }
}

/// All histograms, by name: as many as there are handles.
#[derive(Default)]
struct Histograms(Mutex<BTreeMap<String, Family>>);

#[derive(Default)]
struct Family {
    help: SharedString,
    /// By their labels as they are written.
    buckets: BTreeMap<String, Arc<Buckets>>,
}

impl Histograms {
    fn render(&self, text: &mut String) {
        for (name, family) in &*self.0.lock() {
            if family.buckets.is_empty() {
                continue;
            }
            // A string takes whatever is written.
            let _ = write!(text, "# HELP {name} {}\n# TYPE {name} histogram\n", family.help);
            for (labels, buckets) in &family.buckets {
                let _ = buckets.render(text, name, labels);
            }
            text.push('\n');
        }
    }
}

/// `name="value"`, with commas between them.
fn labels<'a>(labels: impl Iterator<Item = &'a Label>) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let labels = labels.map(|label| format!("{}=\"{}\"", label.key(), escaped(label.value())));
    labels.collect::<Vec<_>>().join(",")
}

/// How many values were up to which end, and what all of them make together.
struct Buckets {
    ends: &'static [f64],
    /// One more than there are ends.
    counts: Box<[AtomicU64]>,
    /// Bits of a floating-point number.
    sum: AtomicU64,
}

impl Buckets {
    fn of(name: &str) -> Self {
        let ends: &'static [f64] =
            if name == "weir_gateway_own_seconds" { &OWN_BUCKETS } else { &SECONDS_BUCKETS };
        let counts = (0..=ends.len()).map(|_| AtomicU64::new(0)).collect();
        Self { ends, counts, sum: AtomicU64::new(0) }
    }

    fn render(&self, text: &mut String, name: &str, labels: &str) -> std::fmt::Result {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut count = 0;
        let ends = self.ends.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (end, within) in ends.zip(&self.counts) {
            count += within.load(Ordering::Relaxed);
            writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{end}\"}} {count}")?;
        }
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let sum = f64::from_bits(self.sum.load(Ordering::Relaxed));
        writeln!(text, "{name}_sum{labels} {sum}\n{name}_count{labels} {count}")
    }
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        let at = self.ends.iter().position(|end| value <= *end).unwrap_or(self.ends.len());
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        let add = |sum| Some((f64::from_bits(sum) + value).to_bits());
        // It always adds.
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_where_they_fall() {
        let (recorder, metrics) = Metrics::build();
        metrics::with_local_recorder(&recorder, || {
            metrics::describe_histogram!("a_seconds", "What it is");
            metrics::describe_histogram!("unused_seconds", "Nothing");
            for value in [0.000_1, 0.000_2, 31.0] {
                // The same histogram, whoever asks for it.
                metrics::histogram!("a_seconds", "service" => "a\"b\\").record(value);
            }
            metrics::counter!("c_total").increment(2);
        });
        let text = metrics.render();
        let label = "service=\"a\\\"b\\\\\"";
        for line in [
            "# HELP a_seconds What it is".to_owned(),
            "# TYPE a_seconds histogram".to_owned(),
            format!("a_seconds_bucket{{{label},le=\"0.0001\"}} 1"),
            format!("a_seconds_bucket{{{label},le=\"0.00025\"}} 2"),
            format!("a_seconds_bucket{{{label},le=\"30\"}} 2"),
            format!("a_seconds_bucket{{{label},le=\"+Inf\"}} 3"),
            format!("a_seconds_sum{{{label}}} 31.0003"),
            format!("a_seconds_count{{{label}}} 3"),
            "c_total 2".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("unused"));
    }

    #[test]
    fn each_has_its_buckets() {
        let (recorder, metrics) = Metrics::build();
        metrics::with_local_recorder(&recorder, || {
            metrics::histogram!("weir_gateway_own_seconds").record(0.000_01);
        });
        let text = metrics.render();
        assert!(text.contains("weir_gateway_own_seconds_bucket{le=\"0.00001\"} 1\n"));
        assert!(text.contains("weir_gateway_own_seconds_count 1\n"));
    }
}
