//! rewrite: what belongs to the client's connection is taken off, the secret is put in.

use std::sync::Arc;

use http::Request;
use http::header;
use http::uri::PathAndQuery;
use http_body::Body;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::authorize::Authorized;
use super::body::{ExpectGate, Uplink};
use super::exchange::{Exchange, Refused};
use super::forward::open_on_continue;
use super::hop;
use super::inbound::Inbound;
use super::respond::Refusal;
use super::scrub;
use crate::credential::Stripped;
use crate::policy::Code;
use crate::service::Binding;

/// A request as the upstream will see it, but for the form of its destination, which depends on the
/// connection's protocol.
#[must_use]
pub(super) struct Outgoing {
    pub(super) exchange: Box<Exchange>,
    pub(super) request: Request<Uplink>,
    pub(super) path_and_query: PathAndQuery,
    pub(super) gate: Option<Arc<ExpectGate>>,
    /// The client's side of a WebSocket that is asked for.
    pub(super) upgrade: Option<OnUpgrade>,
}

impl Authorized {
    pub(super) fn rewrite(self) -> Result<Outgoing, Refused> {
        let Inbound { exchange, mut request, mut path_and_query, stripped, websocket } = self.into_inbound();
        let upgrade = websocket.then(|| hyper::upgrade::on(&mut request));
        hop::strip_request(request.headers_mut());
        exchange.trace.pass_on(request.headers_mut());
        if let Err(refusal) = inject(&exchange, &mut request, &mut path_and_query, stripped) {
            return Err(exchange.refuse(refusal));
        }
        if let Some(scrubbing) = exchange.view().scrubbing() {
            scrub::ask_readable(scrubbing, request.headers_mut());
        }
        let gate = expects_continue(&request).then(Arc::<ExpectGate>::default);
        let mut request = with_uplink(request, &exchange, gate.clone());
        request.extensions_mut().clear();
        if let Some(gate) = &gate {
            open_on_continue(&mut request, gate);
        }
        Ok(Outgoing { exchange, request, path_and_query, gate, upgrade })
    }
}

fn with_uplink(request: Request<Incoming>, exchange: &Exchange, gate: Option<Arc<ExpectGate>>) -> Request<Uplink> {
    let meter = Arc::clone(&exchange.meter);
    let (parts, body) = request.into_parts();
    if body.is_end_stream() {
        return Request::from_parts(parts, Uplink::empty(meter));
    }
    let view = Arc::clone(exchange.view());
    let body = (body, parts.version);
    Request::from_parts(parts, Uplink::new(body, meter, gate, exchange.reservation(), view))
}

fn expects_continue(request: &Request<Incoming>) -> bool {
    let expect = request.headers().get(header::EXPECT);
    expect.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
        && !request.body().is_end_stream()
}

fn inject(
    exchange: &Exchange,
    request: &mut Request<Incoming>,
    path_and_query: &mut PathAndQuery,
    stripped: Stripped,
) -> Result<(), Refusal> {
    match exchange.view().snapshot().binding(exchange.view().served()) {
        Some(Binding::Nothing) => Ok(()),
        Some(Binding::Ready(injector)) => injector
            .apply(&stripped, request.headers_mut(), path_and_query)
            .map_err(|_| Refusal::new(Code::Framing, "the request's target is too long")),
        Some(Binding::Missing(name)) => {
            let detail = format!("the secret {:?} is not in the store", name.as_str());
            Err(Refusal::new(Code::SecretUnavailable, detail).hint(format!("capctl secret set {}", name.as_str())))
        }
        // The endpoint is of another snapshot: it cannot be, and nothing is sent without its secret.
        None => Err(Refusal::new(Code::SecretUnavailable, "the configuration changed; try again")),
    }
}
