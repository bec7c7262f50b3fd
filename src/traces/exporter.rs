//! The queue of finished spans and what becomes of them.
//!
//! The library's queue is a bounded channel whose reader never sleeps on it: handing over a span takes no lock. Its thread
//! wakes once a second, or when a batch is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use opentelemetry::trace::{SpanId, SpanKind, TraceId};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, IdGenerator as _, RandomIdGenerator, Sampler, SamplingDecision,
    ShouldSample as _, SpanData, SpanExporter, SpanProcessor as _,
};
use rustls::RootCertStore;

use super::client::Client;
use super::{Counts, Ended, Spans, TracesError, span};
use crate::config;
use crate::net::dial::Dialer;
use crate::net::trust::TrustError;

/// Spans that wait, at most: one takes about a kilobyte. As many again as a batch has are under way.
const QUEUE_SPANS_MAX: usize = 4096;
/// Spans in one message to the collector.
const BATCH_SPANS_MAX: usize = 512;
/// Fewer spans than a batch wait no longer than this.
const EXPORT_EVERY: Duration = Duration::from_secs(1);
/// A collector that takes spans by fits and starts is spoken of no more often than this.
const SAY_AGAIN_AFTER: Duration = Duration::from_mins(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Exporter {
    ids: RandomIdGenerator,
    sampler: Sampler,
    queue: BatchSpanProcessor,
    scope: InstrumentationScope,
    client: Client,
    tally: Arc<Tally>,
}

impl Exporter {
    pub(super) fn start(
        config: &config::Traces,
        dialer: &Arc<Dialer>,
        trusted: &Arc<RootCertStore>,
    ) -> Result<Self, TracesError> {
        let client = Client::new(config, dialer, trusted)?;
        // All is said here that a variable of the environment could say instead.
        let mut otlp = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(client.clone())
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(config.endpoint.to_string())
            .with_timeout(config.timeout)
            .build()?;
        otlp.set_resource(&resource(config));
        let tally = Arc::new(Tally::new());
        let counted = Counted { otlp, client: client.clone(), tally: Arc::clone(&tally) };
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_SPANS_MAX)
            .with_max_export_batch_size(BATCH_SPANS_MAX)
            .with_scheduled_delay(EXPORT_EVERY)
            .build();
        Ok(Self {
            ids: RandomIdGenerator::default(),
            sampler: Sampler::TraceIdRatioBased(config.ratio),
            queue: BatchSpanProcessor::new(counted, batches),
            scope: InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
            client,
            tally,
        })
    }

    pub(super) fn trust(&self, trusted: &Arc<RootCertStore>) -> Result<(), TrustError> {
        self.client.trust(trusted)
    }

    pub(super) fn counts(&self) -> Counts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts { sent: of(&self.tally.sent), failed: of(&self.tally.failed), dropped: of(&self.tally.dropped) }
    }

    /// A trace of our own; `None` where it is not among those that are recorded.
    pub(super) fn new_trace(&self) -> Option<TraceId> {
        let id = self.ids.new_trace_id();
        let sampled = self.sampler.should_sample(None, id, "", &SpanKind::Server, &[], &[]);
        (sampled.decision == SamplingDecision::RecordAndSample).then_some(id)
    }

    pub(super) fn new_span(&self) -> SpanId {
        self.ids.new_span_id()
    }

    /// Queues the spans of one request, all or none.
    pub(super) fn export(&self, spans: &Spans, ended: &Ended<'_>) {
        let count = 1 + usize::from(ended.turned.is_some());
        if !self.tally.enter(count) {
            return;
        }
        // The upstream's part ends first.
        if let Some(client) = span::client(spans, ended, &self.scope) {
            self.queue.on_end(client);
        }
        self.queue.on_end(span::server(spans, ended, &self.scope));
    }

    /// Exports what is queued and ends. Waits for it; false when it took too long.
    pub(super) fn finish(&self, within: Duration) -> bool {
        self.queue.shutdown_with_timeout(within).is_ok()
    }
}

/// Who sends: this process of this service, and where it runs as far as the environment says
/// (`OTEL_RESOURCE_ATTRIBUTES`).
fn resource(config: &config::Traces) -> Resource {
    let ours = [
        KeyValue::new("service.name", config.service_name.clone()),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", RandomIdGenerator::default().new_trace_id().to_string()),
        KeyValue::new("telemetry.sdk.language", "rust"),
        KeyValue::new("telemetry.sdk.name", "opentelemetry"),
    ];
    Resource::builder_empty().with_detector(Box::new(EnvResourceDetector::new())).with_attributes(ours).build()
}

/// The library's exporter, and what becomes of what it is given.
#[derive(Debug)]
struct Counted {
    otlp: opentelemetry_otlp::SpanExporter,
    client: Client,
    tally: Arc<Tally>,
}

impl SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        self.tally.leave(count);
        let exported = self.otlp.export(batch).await;
        if exported.is_ok() {
            self.tally.sent(count);
        } else {
            self.tally.failed(count, &self.client.trouble());
        }
        exported
    }
}

/// Counts spans, and lets no more in than the queue holds.
#[derive(Debug)]
struct Tally {
    waiting: AtomicUsize,
    sent: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    /// Spans are being lost, and somebody has been told if it was time.
    losing: AtomicBool,
    began: Instant,
    /// When somebody was told last, in milliseconds since the beginning; 0 is never.
    told_ms: AtomicU64,
}

impl Tally {
    fn new() -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            sent: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            losing: AtomicBool::new(false),
            began: Instant::now(),
            told_ms: AtomicU64::new(0),
        }
    }

    /// Takes places in the queue. False, and counted, when there are not so many.
    fn enter(&self, count: usize) -> bool {
        if self.waiting.fetch_add(count, Ordering::Relaxed) + count <= QUEUE_SPANS_MAX {
            return true;
        }
        self.leave(count);
        self.dropped.fetch_add(count as u64, Ordering::Relaxed);
        self.lose("the collector takes fewer than there are");
        false
    }

    fn leave(&self, count: usize) {
        self.waiting.fetch_sub(count, Ordering::Relaxed);
    }

    fn sent(&self, count: usize) {
        self.sent.fetch_add(count as u64, Ordering::Relaxed);
        if self.losing.swap(false, Ordering::Relaxed) {
            tracing::info!("the collector takes spans again");
        }
    }

    fn failed(&self, count: usize, why: &str) {
        self.failed.fetch_add(count as u64, Ordering::Relaxed);
        self.lose(why);
    }

    fn lose(&self, why: &str) {
        if self.losing.load(Ordering::Relaxed) || self.losing.swap(true, Ordering::Relaxed) {
            return;
        }
        let (now, told) = (self.began.elapsed(), self.told_ms.load(Ordering::Relaxed));
        if told == 0 || now.saturating_sub(Duration::from_millis(told)) >= SAY_AGAIN_AFTER {
            self.told_ms.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
            tracing::warn!(why, "spans are lost; requests are served without them");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_enter_than_the_queue_holds_and_the_rest_is_counted() {
        let tally = Tally::new();
        for _ in 0..QUEUE_SPANS_MAX / 2 {
            assert!(tally.enter(2));
        }
        assert!(!tally.enter(1) && !tally.enter(2));
        assert_eq!(tally.dropped.load(Ordering::Relaxed), 3);
        tally.leave(1);
        assert!(!tally.enter(2) && tally.enter(1));
    }
}
