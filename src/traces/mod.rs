//! Traces: spans of requests for an OpenTelemetry collector, over OTLP/HTTP (`docs/traces.md`).
//!
//! A request that has ended hands its spans to a queue that drops what it has no room for; a thread of the library's own
//! takes them from there. No request waits for that thread or for the collector.
//!
//! Deliberately absent from a span: paths, queries, values of fields, persons, capabilities. Absent here: metrics and logs,
//! and sampling that others decide.

mod client;
mod exporter;
mod parent;
mod span;
mod told;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::HeaderName;
use http::{HeaderMap, StatusCode};
use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_otlp::ExporterBuildError;
use rustls::RootCertStore;

use crate::config;
use crate::net::dial::Dialer;
use crate::net::trust::TrustError;
use exporter::Exporter;
use parent::Parent;

pub use told::Counts;
pub(crate) use told::Ended;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// How long the last spans may take to reach the collector at the end.
const FINISH_WITHIN: Duration = Duration::from_secs(3);

/// Why no spans can be exported.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// TLS towards the collector cannot be set up.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The library does not take the endpoint.
    #[error("[traces]: the exporter cannot be made")]
    Exporter(#[from] ExporterBuildError),
}

/// Where the spans of a proxy go: to a collector, or nowhere.
#[derive(Debug)]
pub struct Traces(Option<Arc<Exporter>>);

impl Traces {
    /// Exports as the configuration says. The runtime of this moment carries the connections to the collector.
    ///
    /// # Errors
    /// [`TracesError`].
    pub fn start(
        config: Option<&config::Traces>,
        dialer: &Arc<Dialer>,
        trusted: &Arc<RootCertStore>,
    ) -> Result<Self, TracesError> {
        let exporter = config.map(|config| Exporter::start(config, dialer, trusted)).transpose()?;
        Ok(Self(exporter.map(Arc::new)))
    }

    /// From now on the collector's certificate is held against these roots.
    ///
    /// # Errors
    /// [`TrustError`]; the roots before stay.
    pub fn trust(&self, trusted: &Arc<RootCertStore>) -> Result<(), TrustError> {
        self.0.as_ref().map_or(Ok(()), |exporter| exporter.trust(trusted))
    }

    /// What became of spans so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.as_ref().map(|exporter| exporter.counts()).unwrap_or_default()
    }

    /// Hands over what is left, for a few seconds at most. Spans that come later are lost.
    pub async fn finish(&self) {
        let Some(exporter) = self.0.clone() else { return };
        // It waits for the thread that exports.
        let finished = tokio::task::spawn_blocking(move || exporter.finish(FINISH_WITHIN)).await;
        if !finished.unwrap_or(false) {
            tracing::warn!("the last spans have not reached the collector in time");
        }
    }

    /// Begins the spans of a request that came with these fields, if they are to be recorded.
    pub(crate) fn begin(&self, headers: &HeaderMap) -> Trace {
        let Some(exporter) = &self.0 else { return Trace::default() };
        let parent = Parent::of(headers);
        let trace_id = match &parent {
            // What the agent does not record is not recorded here, and its header stays as it is: whoever records
            // further on then finds a parent that there may be.
            Some(parent) => parent.is_sampled().then_some(parent.trace_id),
            None => exporter.new_trace(),
        };
        let spans = trace_id.map(|trace_id| Spans {
            trace_id,
            parent,
            server: exporter.new_span(),
            client: exporter.new_span(),
            began: SystemTime::now(),
            answered: None,
        });
        Trace(spans.map(Box::new))
    }

    /// Hands over the spans of a request that has ended.
    pub(crate) fn end<'a>(&self, trace: Trace, ended: impl FnOnce() -> Ended<'a>) {
        if let (Some(exporter), Trace(Some(spans))) = (&self.0, trace) {
            exporter.export(&spans, &ended());
        }
    }
}

/// The spans of one request, while it is under way; nothing where they are not recorded.
#[derive(Debug, Default)]
pub(crate) struct Trace(Option<Box<Spans>>);

#[derive(Debug)]
struct Spans {
    trace_id: TraceId,
    /// What the agent calls its own span.
    parent: Option<Parent>,
    /// Of the whole request.
    server: SpanId,
    /// Of the upstream's part in it.
    client: SpanId,
    began: SystemTime,
    /// What the upstream answered.
    answered: Option<StatusCode>,
}

impl Trace {
    /// Puts the upstream's part in the place of the agent's span, where the request still says it. Nothing is said that the
    /// agent did not say: upstreams are not told what stands in front of it.
    pub(crate) fn pass_on(&self, headers: &mut HeaderMap) {
        let Some(spans) = &self.0 else { return };
        if let (Some(parent), true) = (&spans.parent, headers.contains_key(TRACEPARENT)) {
            headers.insert(TRACEPARENT, parent.replaced_by(spans.client));
        }
    }

    /// The upstream has answered.
    pub(crate) fn answered(&mut self, status: Option<StatusCode>) {
        if let Some(spans) = &mut self.0 {
            spans.answered = status;
        }
    }
}
