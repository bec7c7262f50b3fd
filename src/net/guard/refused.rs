//! What is known of a message that was refused: for its answer and its journal line, and for nothing that acts on it.

use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use http::{HeaderName, Method};

use super::Violation;
use super::head::HEADERS_MAX;

/// A refusal of the guard.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub violation: Violation,
    /// The message's head, where it can be read.
    pub read: Option<ReadHead>,
}

/// A head that has one reading, though its message has not one framing, or its target is none.
#[derive(Debug)]
pub struct ReadHead {
    /// As sent.
    pub method: Method,
    /// The request-target, as sent.
    pub target: Box<str>,
    /// What tells who asks, and how errors are shown to them: no other field is kept.
    pub headers: HeaderMap,
}

/// The fields that are kept.
const KEPT: [HeaderName; 3] = [PROXY_AUTHORIZATION, USER_AGENT, CONTENT_TYPE];

impl ReadHead {
    /// Reads a whole head; `None` for what is no request's.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut fields);
        // White space in front of a request line is skipped by some.
        let begins = head.first().is_some_and(u8::is_ascii_alphabetic);
        if !begins || request.parse(head) != Ok(httparse::Status::Complete(head.len())) {
            return None;
        }
        let mut headers = HeaderMap::new();
        for field in &*request.headers {
            let kept = KEPT.into_iter().find(|kept| field.name.eq_ignore_ascii_case(kept.as_str()));
            if let Some((name, mut value)) = kept.zip(HeaderValue::from_bytes(field.value).ok()) {
                value.set_sensitive(name == PROXY_AUTHORIZATION);
                headers.append(name, value);
            }
        }
        let method = request.method?.parse().ok()?;
        Some(Self { method, target: request.path?.into(), headers })
    }
}
