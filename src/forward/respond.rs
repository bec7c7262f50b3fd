//! The one place that makes the forwarder's own answers, and cleans the proxy's before they go to the agent.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use serde_json::json;

use super::prover::SHIFT_MAX_S;
use super::upstream::Unanswered;
use crate::policy::Code;

/// The proxy's body, streamed; or one of our own.
pub(super) type Reply = Either<Incoming, Full<Bytes>>;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// Why the forwarder itself refuses.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: Code,
    /// RFC 9209 §2.3.
    error: &'static str,
    detail: String,
    hint: Option<&'static str>,
}

impl Refusal {
    /// No or a wrong local password. git and Java send it only when asked.
    pub(super) fn password() -> Self {
        Self {
            status: StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            code: Code::Missing,
            error: "http_request_denied",
            detail: "this proxy serves one command, which has its password in HTTPS_PROXY".to_owned(),
            hint: None,
        }
    }

    /// The destination is the forwarder or the proxy, or no destination at all.
    pub(super) fn destination(detail: &str) -> Self {
        Self {
            status: StatusCode::BAD_GATEWAY,
            code: Code::AddressForbidden,
            error: "destination_ip_prohibited",
            detail: detail.to_owned(),
            hint: None,
        }
    }

    /// What was sent is not a request to a proxy.
    pub(super) fn framing(detail: &str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: Code::Framing,
            error: "http_request_error",
            detail: detail.to_owned(),
            hint: None,
        }
    }

    pub(super) fn no_proof() -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: Code::Overloaded,
            error: "proxy_internal_error",
            detail: "no proof could be made".to_owned(),
            hint: None,
        }
    }

    pub(super) fn unanswered(why: &Unanswered) -> Self {
        let (status, code, error, detail) = match why {
            Unanswered::Refused => (
                StatusCode::BAD_GATEWAY,
                Code::UpstreamRefused,
                "connection_refused",
                "the narrows proxy behind this forwarder is not running",
            ),
            Unanswered::Late => (
                StatusCode::GATEWAY_TIMEOUT,
                Code::UpstreamTimeout,
                "connection_timeout",
                "the narrows proxy behind this forwarder does not answer in time",
            ),
            Unanswered::Tls => (
                StatusCode::BAD_GATEWAY,
                Code::UpstreamTls,
                "tls_certificate_error",
                "this forwarder and the narrows proxy behind it do not accept one another's certificates",
            ),
            Unanswered::Broken => (
                StatusCode::BAD_GATEWAY,
                Code::UpstreamProtocol,
                "http_protocol_error",
                "the narrows proxy behind this forwarder ended the connection",
            ),
        };
        let hint = Some("the person who started this command can check it with: capctl doctor");
        Self { status, code, error, detail: detail.to_owned(), hint }
    }

    /// A 407 of the proxy. It is not for the agent, which has no credentials and would try for ever.
    pub(super) fn challenged(code: Option<Code>, skew: Option<String>) -> Self {
        let code = code.unwrap_or(Code::CapabilityInvalid);
        let status = if code == Code::CapabilityInvalid { StatusCode::FORBIDDEN } else { StatusCode::BAD_GATEWAY };
        let detail = skew.unwrap_or_else(|| "the narrows proxy does not accept this command's capability".to_owned());
        Self { status, code, error: "http_request_denied", detail, hint: None }
    }

    /// The clock is right now, but the request's body went with the first try.
    pub(super) fn clock_corrected() -> Self {
        let detail = "this machine's clock differed from the proxy's and has been corrected: send the request again";
        Self::challenged(Some(Code::ProofExpired), Some(detail.to_owned()))
    }

    /// The answer: the code also stands in the reason phrase, which is all that most clients show of a refused CONNECT.
    pub(super) fn answer(&self) -> Response<Reply> {
        let code = self.code.as_str();
        let hint = self.hint.map(|hint| format!(" To mend it: {hint}")).unwrap_or_default();
        let message = format!("narrows: {code}: {}.{hint}", self.detail);
        let body = json!({
            "type": format!("urn:narrows:error:{code}"),
            "title": self.status.canonical_reason().unwrap_or("Refused"),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": code,
            "hint": self.hint,
            "message": message,
            "error": { "type": "permission_error", "code": code, "message": message },
        });
        let mut response = Response::new(Either::Right(Full::new(Bytes::from(body.to_string()))));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Ok(value) = HeaderValue::try_from(format!("narrows-forwarder; error={}; details=\"{code}\"", self.error))
        {
            headers.insert(PROXY_STATUS, value);
        }
        if self.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            headers.insert(header::PROXY_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"narrows\""));
        } else {
            let reason = self.status.canonical_reason().unwrap_or("Refused");
            if let Ok(reason) = ReasonPhrase::try_from(format!("{reason} by narrows: {code}").into_bytes()) {
                response.extensions_mut().insert(reason);
            }
        }
        response
    }
}

/// How the clocks are apart, and what a person can do about it.
pub(super) fn clocks(ahead_s: i64) -> String {
    let apart_s = ahead_s.unsigned_abs();
    let direction = if ahead_s < 0 { "behind" } else { "ahead of" };
    let said = format!("the proxy says proof_expired, and its clock is {apart_s} s {direction} this machine's");
    if apart_s > SHIFT_MAX_S {
        return format!("{said}: set the one that is wrong, for no more than {SHIFT_MAX_S} s are made up for");
    }
    format!("{said}: set the one that is wrong, for a proxy is believed once, and only over TLS or on this machine")
}

/// What a person can do about a challenge. The agent cannot do anything.
pub(super) const fn why_not(code: Option<Code>) -> &'static str {
    match code {
        Some(Code::CapabilityInvalid) => {
            "it does not accept the capability: is its root among the proxy's [roots]? (capctl inspect FILE)"
        }
        Some(Code::ProofInvalid) => {
            "it does not accept the proof: is --audience the proxy's own, and does nothing between the two end TLS?"
        }
        _ => "it does not accept the credentials",
    }
}

/// The proxy's own answer, as the agent gets it: all of it but what belongs to the connection behind us.
pub(super) fn passed(answer: Response<Incoming>) -> Response<Reply> {
    let mut answer = answer.map(Either::Left);
    drop_own_connection(answer.headers_mut());
    answer
}

/// What the agent is told about a tunnel that is open.
pub(super) fn opened(answer: &Response<Incoming>) -> Response<Reply> {
    let mut response = Response::new(Either::Right(Full::default()));
    for (name, value) in answer.headers() {
        if name == PROXY_STATUS || name.as_str().starts_with("narrows-") {
            response.headers_mut().append(name.clone(), value.clone());
        }
    }
    response
}

/// Fields of one connection (RFC 9110 §7.6.1); an upgrade keeps its two.
pub(super) fn drop_own_connection(headers: &mut HeaderMap) {
    for name in ["proxy-authenticate", "proxy-authorization", "proxy-connection", "keep-alive"] {
        headers.remove(name);
    }
    if !headers.contains_key(header::UPGRADE) {
        headers.remove(header::CONNECTION);
    }
}

/// Whether there is a challenge of the proxy's own.
pub(super) fn is_challenged(headers: &HeaderMap) -> bool {
    parameters(headers).is_some()
}

fn parameters(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::PROXY_AUTHENTICATE).iter();
    values.find_map(|value| value.to_str().ok()?.strip_prefix("Cap "))
}

/// The `error` and `now` of the proxy's own challenge, `Cap realm="narrows", …, error="CODE", now=UNIX`.
pub(super) fn challenge(headers: &HeaderMap) -> (Option<Code>, Option<u64>) {
    let Some(parameters) = parameters(headers) else { return (None, None) };
    let parameter = |name: &str| {
        let rest = parameters.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))?;
        Some(rest.trim_matches('"'))
    };
    let code = parameter("error").and_then(|text| Code::ALL.into_iter().find(|code| code.as_str() == text));
    (code, parameter("now").and_then(|text| text.parse().ok()))
}
