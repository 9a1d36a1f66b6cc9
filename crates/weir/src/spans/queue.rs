//! The queue of spans, and the task that hands them to the collector.
//!
//! Ours instead of the SDK's, which keeps to itself how many spans it drops. One batch is under way at a time. A
//! collector that is away is logged once a minute, whatever the load.

use std::time::Duration;

use anyhow::Context;
use metrics::{Counter, counter, describe_counter};
use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::{RetryPolicy, SpanExporter, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    Sampler, SdkTracerProvider, Span, SpanData, SpanExporter as _, SpanProcessor,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tracing::{info, warn};

use crate::config::TracingConfig;

/// Most spans that wait; further ones are lost.
const WAITING_MAX: usize = 8_192;
/// Most spans in one batch.
const BATCH_MAX: usize = 512;
/// Longest wait for a batch to fill.
const FILL_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for the collector to take a batch.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long what still waits may take to be exported when the role ends.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a collector that does not take spans is logged.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// Makes the process export spans as `config` says; `name` is what they are under.
///
/// # Errors
/// When the exporter cannot be set up.
pub(super) fn start(config: &TracingConfig, name: &'static str) -> anyhow::Result<Running> {
    describe_counter!("weir_spans_exported_total", "Spans that the collector has taken");
    describe_counter!("weir_spans_lost_total", "Spans that no collector got, by reason");
    let endpoint = Endpoint::from_shared(config.endpoint.clone()).context("tracing.endpoint")?;
    let mut exporter = SpanExporter::builder()
        .with_tonic()
        .with_channel(endpoint.connect_timeout(EXPORT_TIMEOUT).connect_lazy())
        // What waits meanwhile is bounded; the next batch is as good as this one.
        .with_retry_policy(RetryPolicy::disabled())
        .build()
        .context("the exporter of spans")?;
    let resource = Resource::builder()
        .with_service_name(name)
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    exporter.set_resource(&resource);
    let (spans, waiting) = mpsc::channel(WAITING_MAX);
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample_ratio)));
    let provider = SdkTracerProvider::builder()
        .with_sampler(sampler)
        .with_resource(resource)
        .with_span_processor(Queue { spans, lost: lost("queue_full") })
        .build();
    global::set_tracer_provider(provider);
    let stop = CancellationToken::new();
    let sender = Sender::new(exporter, config.endpoint.clone());
    Ok(Running { task: tokio::spawn(sender.run(waiting, stop.clone())), stop })
}

fn lost(reason: &'static str) -> Counter {
    counter!("weir_spans_lost_total", "reason" => reason)
}

/// The export as it runs.
pub(super) struct Running {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Running {
    /// Exports what still waits, and ends.
    pub(super) async fn finish(self) {
        self.stop.cancel();
        // What a collector does not take in time is lost; the role has ended.
        let _ = timeout(FINISH_TIMEOUT, self.task).await;
    }
}

/// The near end of the queue: called where spans end, so it never waits.
#[derive(Debug)]
struct Queue {
    spans: mpsc::Sender<SpanData>,
    lost: Counter,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.spans.try_send(span).is_err() {
            self.lost.increment(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The far end.
struct Sender {
    exporter: SpanExporter,
    endpoint: String,
    exported: Counter,
    lost: Counter,
    /// When trouble was logged last; `None`: there is none.
    reported: Option<Instant>,
}

impl Sender {
    fn new(exporter: SpanExporter, endpoint: String) -> Self {
        let exported = counter!("weir_spans_exported_total");
        Self { exporter, endpoint, exported, lost: lost("not_taken"), reported: None }
    }

    async fn run(mut self, mut waiting: mpsc::Receiver<SpanData>, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            tokio::select! {
                () = fill(&mut batch, &mut waiting) => self.send(std::mem::take(&mut batch)).await,
                () = stop.cancelled() => break,
            }
        }
        waiting.close();
        loop {
            let left = BATCH_MAX - batch.len();
            waiting.recv_many(&mut batch, left).await;
            if batch.is_empty() {
                return;
            }
            self.send(std::mem::take(&mut batch)).await;
        }
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let count = batch.len() as u64;
        let problem = match timeout(EXPORT_TIMEOUT, self.exporter.export(batch)).await {
            Ok(Ok(())) => {
                self.exported.increment(count);
                if self.reported.take().is_some() {
                    info!(endpoint = self.endpoint, "spans are exported again");
                }
                return;
            }
            Ok(Err(problem)) => problem.to_string(),
            Err(_) => "it does not answer in time".to_owned(),
        };
        self.lost.increment(count);
        if self.reported.is_none_or(|last| last.elapsed() >= REPORT_EVERY) {
            self.reported = Some(Instant::now());
            warn!(endpoint = self.endpoint, problem, "the collector does not take spans: they are lost");
        }
    }
}

/// Fills a batch until it is full, or for a while after its first span. Can be dropped: the batch keeps what it has.
async fn fill(batch: &mut Vec<SpanData>, waiting: &mut mpsc::Receiver<SpanData>) {
    if waiting.recv_many(batch, BATCH_MAX).await == 0 {
        // Nobody makes spans any more.
        return std::future::pending().await;
    }
    let due = Instant::now() + FILL_TIMEOUT;
    while batch.len() < BATCH_MAX {
        let left = BATCH_MAX - batch.len();
        if !matches!(timeout_at(due, waiting.recv_many(batch, left)).await, Ok(1..)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use opentelemetry::trace::{Tracer, TracerProvider};

    use super::*;

    /// Ends some spans in front of a queue for two; says how many wait and how many are lost.
    fn queued(spans: usize, sampler: Sampler) -> (usize, u64) {
        let (sender, waiting) = mpsc::channel(2);
        let lost = Arc::new(AtomicU64::new(0));
        let queue = Queue { spans: sender, lost: Counter::from_arc(Arc::clone(&lost)) };
        let provider = SdkTracerProvider::builder().with_sampler(sampler).with_span_processor(queue).build();
        let tracer = provider.tracer("test");
        (0..spans).for_each(|_| drop(tracer.start("span")));
        (waiting.len(), lost.load(Ordering::Relaxed))
    }

    #[test]
    fn a_full_queue_loses_spans_and_counts_them() {
        assert_eq!(queued(0, Sampler::AlwaysOn), (0, 0));
        assert_eq!(queued(2, Sampler::AlwaysOn), (2, 0));
        assert_eq!(queued(5, Sampler::AlwaysOn), (2, 3));
        assert_eq!(queued(5, Sampler::AlwaysOff), (0, 0));
    }
}
