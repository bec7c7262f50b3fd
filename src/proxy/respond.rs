//! The one place that turns a refusal into an answer.
//!
//! A refusal has one body that every client shows: `application/problem+json` (RFC 9457) with the members
//! that SDKs print. git gets text, gRPC its trailers. The peer learns a stable code and what to do, never
//! an internal cause.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode, Version};
use hyper::ext::ReasonPhrase;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::json;

use super::body::Reply;
use crate::policy::{Code, Denial};

/// The request's id, on every answer that the proxy makes itself.
const REQUEST_ID: HeaderName = HeaderName::from_static("narrows-request-id");
/// RFC 9209.
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// gRPC over HTTP/2, "Percent-Encoded": everything outside 0x20 to 0x7e, and `%`.
const GRPC_MESSAGE_SET: &AsciiSet = &CONTROLS.add(b'%');
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Why a request is not served, and what its sender can do.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: Code,
    detail: String,
    hint: Option<String>,
    denial: Option<Box<Denial>>,
    /// Where it is not the code's own: what cannot be read may be a request or an answer.
    status: Option<StatusCode>,
    /// The connection cannot be used after this.
    pub(super) close: bool,
}

impl Refusal {
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), hint: None, denial: None, status: None, close: false }
    }

    /// An answer that cannot be scanned for the secret.
    pub(super) fn unreadable_answer(detail: impl Into<String>) -> Self {
        Self { status: Some(StatusCode::BAD_GATEWAY), ..Self::new(Code::BodyUnreadable, detail) }
    }

    /// A capability that the client does not bring itself: other credentials would not help.
    pub(super) fn not_accepted(code: Code) -> Self {
        let detail = "the capability that this listener holds is not accepted";
        Self { status: Some(StatusCode::FORBIDDEN), ..Self::new(code, detail) }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) const fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// As `docs/errors.md` has it.
    pub(super) fn status(&self) -> StatusCode {
        self.status.unwrap_or(status(self.code))
    }

    fn message(&self) -> String {
        let hint = self.hint.as_ref().map(|hint| format!(" To allow it: {hint}")).unwrap_or_default();
        format!("narrows: {}: {}.{hint}", self.code.as_str(), self.detail)
    }
}

impl From<Box<Denial>> for Refusal {
    fn from(denial: Box<Denial>) -> Self {
        Self {
            code: denial.code,
            detail: denial.detail.clone(),
            hint: denial.hint.clone(),
            denial: Some(denial),
            status: None,
            close: false,
        }
    }
}

/// How this client shows errors to its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// JSON, for nearly all.
    Problem,
    /// Plain text: git prints it as `remote: …`.
    Text,
    /// Status and message in the trailers of an answer without body.
    Grpc,
}

impl Style {
    /// Chosen by what the request says of itself.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let value = |name| headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
        if value(header::CONTENT_TYPE).starts_with(b"application/grpc") {
            Self::Grpc
        } else if value(header::USER_AGENT).starts_with(b"git/") {
            Self::Text
        } else {
            Self::Problem
        }
    }
}

/// The answer to a refused request.
pub(super) fn refusal(refusal: &Refusal, request_id: &str, style: Style, version: Version) -> Response<Reply> {
    let mut response = match style {
        Style::Grpc => grpc(refusal),
        Style::Text => text(refusal),
        Style::Problem => problem(refusal, request_id),
    };
    let headers = response.headers_mut();
    mark(headers, refusal.code, refusal.status(), request_id);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = refusal.denial.as_ref().and_then(|denial| denial.retry_after_s) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if version < Version::HTTP_2 {
        if refusal.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        set_reason(&mut response, refusal.code);
    }
    response
}

/// A refusal as bytes of HTTP/1.1, for a connection on which no server of ours runs.
pub(super) fn written(response: Response<Reply>) -> Vec<u8> {
    let (parts, reply) = response.into_parts();
    let Reply::Own(body) = reply else { return Vec::new() };
    let body = body.unwrap_or_default();
    let reason = parts.extensions.get().map(ReasonPhrase::as_bytes).unwrap_or_default();
    let mut out = [b"HTTP/1.1 ", parts.status.as_str().as_bytes(), b" ", reason, b"\r\n"].concat();
    for (name, value) in &parts.headers {
        out.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    out.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    out.extend_from_slice(&body);
    out
}

/// What every answer of the proxy's own carries: its code as `Proxy-Status`, and the request's id.
pub(super) fn mark(headers: &mut HeaderMap, code: Code, status: StatusCode, request_id: &str) {
    insert(headers, REQUEST_ID, request_id);
    insert(headers, PROXY_STATUS, &proxy_status(code, status));
}

/// Puts the code where clients that hide a body still show it.
pub(super) fn set_reason(response: &mut Response<Reply>, code: Code) {
    let reason = response.status().canonical_reason().unwrap_or("Refused");
    if let Ok(reason) = ReasonPhrase::try_from(format!("{reason} by narrows: {}", code.as_str()).into_bytes()) {
        response.extensions_mut().insert(reason);
    }
}

fn problem(refusal: &Refusal, request_id: &str) -> Response<Reply> {
    let status = refusal.status();
    let message = refusal.message();
    let denial = refusal.denial.as_deref();
    let body = json!({
        "type": format!("urn:narrows:error:{}", refusal.code.as_str()),
        "title": status.canonical_reason().unwrap_or("Refused"),
        "status": status.as_u16(),
        "detail": refusal.detail,
        "code": refusal.code.as_str(),
        "request_id": request_id,
        "block": denial.and_then(|denial| denial.block),
        "caveat": denial.and_then(|denial| denial.caveat.as_deref()),
        "needed": denial.and_then(|denial| denial.needed.as_deref()),
        "hint": refusal.hint,
        "message": message,
        "error": { "type": "permission_error", "code": refusal.code.as_str(), "message": message },
    });
    whole(status, "application/problem+json", body.to_string())
}

fn text(refusal: &Refusal) -> Response<Reply> {
    whole(refusal.status(), "text/plain; charset=utf-8", refusal.message() + "\n")
}

/// A trailers-only answer (gRPC over HTTP/2, "Responses").
fn grpc(refusal: &Refusal) -> Response<Reply> {
    let mut response = Response::new(Reply::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from_static(grpc_status(refusal.status())));
    insert(headers, GRPC_MESSAGE, &utf8_percent_encode(&refusal.message(), GRPC_MESSAGE_SET).to_string());
    response
}

fn grpc_status(status: StatusCode) -> &'static str {
    match status {
        StatusCode::TOO_MANY_REQUESTS => "8", // RESOURCE_EXHAUSTED
        StatusCode::GATEWAY_TIMEOUT => "4",   // DEADLINE_EXCEEDED
        StatusCode::BAD_REQUEST => "3",       // INVALID_ARGUMENT
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => "14", // UNAVAILABLE
        _ => "7",                             // PERMISSION_DENIED
    }
}

fn whole(status: StatusCode, media_type: &'static str, body: String) -> Response<Reply> {
    let mut response = Response::new(Reply::own(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// The status of each code. Never 401: clients would start a login of their own.
pub(super) const fn status(code: Code) -> StatusCode {
    match code {
        Code::Missing
        | Code::Malformed
        | Code::CapabilityInvalid
        | Code::ProofInvalid
        | Code::ProofExpired
        | Code::ProofReplayed => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
        Code::CapabilityRevoked
        | Code::CapabilityExpired
        | Code::ServiceUnknown
        | Code::CapabilityDenied
        | Code::ApprovalRequired
        | Code::BudgetExhausted => StatusCode::FORBIDDEN,
        Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Code::Misdirected => StatusCode::MISDIRECTED_REQUEST,
        Code::Framing | Code::PathAmbiguous | Code::BodyUnreadable => StatusCode::BAD_REQUEST,
        Code::JournalUnavailable | Code::SecretUnavailable | Code::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        Code::UpstreamTls | Code::UpstreamRefused | Code::UpstreamProtocol | Code::AddressForbidden => {
            StatusCode::BAD_GATEWAY
        }
        Code::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// RFC 9209 §2.3: the error type that fits each code, with the code as its details.
fn proxy_status(code: Code, status: StatusCode) -> String {
    let error = match code {
        // The answer's, not the request's.
        Code::BodyUnreadable if status == StatusCode::BAD_GATEWAY => "http_response_content_coding",
        Code::Framing | Code::PathAmbiguous | Code::Misdirected | Code::BodyUnreadable => "http_request_error",
        Code::JournalUnavailable | Code::SecretUnavailable | Code::Overloaded => "proxy_internal_error",
        Code::UpstreamTls => "tls_certificate_error",
        Code::UpstreamRefused => "connection_refused",
        Code::UpstreamProtocol => "http_protocol_error",
        Code::AddressForbidden => "destination_ip_prohibited",
        Code::UpstreamTimeout => "http_response_timeout",
        _ => "http_request_denied",
    };
    format!("narrows; error={error}; details=\"{}\"", code.as_str())
}
