//! What a span says, by the semantic conventions for HTTP (stable since version 1.23): names, attributes, status.
//!
//! Every value is of a closed set, of the configuration or made here, but for the two ids that an agent gives and the host
//! that policy let it go to.

use std::borrow::Cow;
use std::time::SystemTime;

use http::{Method, StatusCode};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::{Ended, Spans};
use crate::audit::Ending;
use crate::policy::Code;

/// The request as the agent sees it.
pub(super) fn server(spans: &Spans, ended: &Ended<'_>, scope: &InstrumentationScope) -> SpanData {
    let parent = spans.parent.map_or(SpanId::INVALID, |parent| parent.span_id);
    let between = (spans.began, spans.began + ended.took);
    let mut span = Span::new(spans, spans.server, SpanKind::Server, ended.method.map_or("HTTP", name), between);
    span.say("http.request.method", ended.method.map_or(OTHER, known));
    if let Some(scheme) = ended.scheme {
        span.say("url.scheme", scheme.as_str());
    }
    span.say_where(ended);
    if let Some(status) = ended.status {
        span.say("http.response.status_code", i64::from(status.as_u16()));
    }
    // An answer of the 4xx kind is as it should be on this side.
    span.fail(ended, ended.status.filter(StatusCode::is_server_error));
    if let Some(service) = ended.service {
        span.say("narrows.service", service.to_owned());
    }
    if let Some(operation) = ended.operation {
        span.say("narrows.operation", operation.to_owned());
    }
    span.say("narrows.outcome", ended.ending.as_str());
    span.say("narrows.request_id", ended.id.to_string());
    span.done(parent, spans.parent.is_some(), scope)
}

/// The upstream's part in it, if it was turned to.
pub(super) fn client(spans: &Spans, ended: &Ended<'_>, scope: &InstrumentationScope) -> Option<SpanData> {
    let between = (spans.began + ended.turned?, spans.began + ended.took);
    let mut span = Span::new(spans, spans.client, SpanKind::Client, ended.method.map_or("HTTP", name), between);
    // The upstream of a tunnel is asked for nothing.
    if let Some(method) = ended.method.filter(|method| *method != Method::CONNECT) {
        span.say("http.request.method", known(method));
    }
    span.say_where(ended);
    if let Some(status) = spans.answered {
        span.say("http.response.status_code", i64::from(status.as_u16()));
    }
    span.fail(ended, spans.answered.filter(|status| status.is_client_error() || status.is_server_error()));
    Some(span.done(spans.server, false, scope))
}

/// A span that is being written.
struct Span {
    context: SpanContext,
    kind: SpanKind,
    name: &'static str,
    between: (SystemTime, SystemTime),
    attributes: Vec<KeyValue>,
    status: Status,
}

impl Span {
    fn new(spans: &Spans, id: SpanId, kind: SpanKind, name: &'static str, between: (SystemTime, SystemTime)) -> Self {
        // What the agent's `tracestate` says is for the upstream.
        let context = SpanContext::new(spans.trace_id, id, TraceFlags::SAMPLED, false, TraceState::NONE);
        Self { context, kind, name, between, attributes: Vec::with_capacity(ATTRIBUTES_MAX), status: Status::Unset }
    }

    fn say(&mut self, key: &'static str, value: impl Into<Value>) {
        self.attributes.push(KeyValue::new(key, value));
    }

    fn say_where(&mut self, ended: &Ended<'_>) {
        if let Some(target) = ended.target {
            self.say("server.address", target.host.as_str().trim_matches(['[', ']']).to_owned());
            self.say("server.port", i64::from(target.port));
        }
    }

    /// Says what went wrong: our own code, or else a status that means it.
    fn fail(&mut self, ended: &Ended<'_>, status: Option<StatusCode>) {
        if let Some(code) = ended.code.map(Code::as_str) {
            self.say("error.type", code);
        } else if let Some(status) = status {
            self.say("error.type", status.as_str().to_owned());
        }
        if ended.ending == Ending::Failed || status.is_some() {
            self.status = Status::Error { description: Cow::Borrowed("") };
        }
    }

    fn done(self, parent_span_id: SpanId, parent_span_is_remote: bool, scope: &InstrumentationScope) -> SpanData {
        SpanData {
            span_context: self.context,
            parent_span_id,
            parent_span_is_remote,
            span_kind: self.kind,
            name: Cow::Borrowed(self.name),
            start_time: self.between.0,
            end_time: self.between.1,
            attributes: self.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: self.status,
            instrumentation_scope: scope.clone(),
        }
    }
}

/// The most that one span says.
const ATTRIBUTES_MAX: usize = 10;

/// An agent may write any word as a method; the conventions have these.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
const OTHER: &str = "_OTHER";

fn known(method: &Method) -> &'static str {
    METHODS.into_iter().find(|known| *known == method.as_str()).unwrap_or(OTHER)
}

fn name(method: &Method) -> &'static str {
    let known = known(method);
    if known == OTHER { "HTTP" } else { known }
}
