//! What is refused after authentication and before there is a tunnel: its line in the journal, and its answer.

use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Response, Version};
use ulid::Ulid;

use super::Proxy;
use super::authenticate::Authenticated;
use super::body::Reply;
use super::exchange::unix_ms;
use super::inbound::Served;
use super::respond::{self, Refusal, Style};
use crate::audit::{Ending, Event, Intent, Outcome};
use crate::request::Target;
use crate::traces::Ended;

/// What is refused after authentication and before there is a tunnel, as far as it is known.
#[derive(Clone, Copy)]
pub(super) struct Unserved<'a> {
    pub(super) event: Event,
    pub(super) method: Option<&'a Method>,
    pub(super) target: Option<&'a Target>,
    pub(super) style: Style,
    pub(super) version: Version,
}

impl<'a> Unserved<'a> {
    /// A CONNECT. Most clients hide what is said of it.
    pub(super) const fn connect(target: Option<&'a Target>) -> Self {
        Self { event: Event::Tunnel, method: None, target, style: Style::Problem, version: Version::HTTP_11 }
    }

    pub(super) const fn request(style: Style, version: Version) -> Self {
        Self { event: Event::Request, method: None, target: None, style, version }
    }

    pub(super) fn is_connect(&self) -> bool {
        self.event == Event::Tunnel
    }
}

/// A CONNECT that is refused after authentication: its line, and its answer.
pub(super) fn refuse_connect(
    authenticated: &Authenticated,
    target: Option<&Target>,
    refusal: &Refusal,
) -> Response<Reply> {
    refuse(authenticated, &Unserved::connect(target), refusal)
}

/// The line of what is not served, and its answer.
pub(super) fn refuse(authenticated: &Authenticated, unserved: &Unserved<'_>, refusal: &Refusal) -> Response<Reply> {
    let &Unserved { event, method, target, style, version } = unserved;
    let proxy: &Proxy = &authenticated.proxy;
    let trace = proxy.traces.begin(&HeaderMap::new());
    let time_ms = unix_ms();
    let id = Ulid::from_parts(time_ms, authenticated.id_base);
    let entry = proxy.journal.begin(&Intent {
        id,
        time_ms,
        event,
        identity: Some(&authenticated.identity),
        service: None,
        operation: None,
        action: None,
        method: method.map(Method::as_str),
        host: target.map(|target| target.host.as_str()),
        port: target.map(|target| target.port),
        path: None,
        credential: None,
        client: Some(&authenticated.client),
        foreign_credential: false,
    });
    if let Ok(entry) = entry {
        let outcome = Outcome {
            ending: Ending::Denied,
            code: Some(refusal.code.as_str()),
            status: Some(refusal.status().as_u16()),
            bytes_up: 0,
            bytes_down: 0,
            duration_ms: 0,
            upstream_ms: None,
            foreign_credential: false,
        };
        entry.finish(&outcome, Instant::now());
    }
    proxy.traces.end(trace, || Ended {
        id,
        method: method.or(unserved.is_connect().then_some(&Method::CONNECT)),
        scheme: None,
        target: None,
        service: None,
        operation: None,
        ending: Ending::Denied,
        code: Some(refusal.code),
        status: Some(refusal.status()),
        took: Duration::ZERO,
        turned: None,
    });
    proxy.metrics.refused(refusal.code);
    proxy.metrics.of(&Served::Nobody).of("").ended(Ending::Denied, Some(refusal.code), None);
    respond::refusal(refusal, &id.to_string(), style, version)
}
