//! upgrade: a WebSocket, the one protocol that a request may switch to (RFC 6455, HTTP/1.1 only).

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::body::Reply;
use super::carry::carry;
use super::exchange::{Exchange, Refused};
use super::forward::{self, Answered};
use super::frames::Scrubbed;
use super::respond::Refusal;
use super::rewrite::Outgoing;
use super::{Drain, hop, scrub};
use crate::credential::Patterns;
use crate::net::guard::GuardState;
use crate::net::trust::Offer;
use crate::policy::Code;

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");

impl Outgoing {
    /// Asks the upstream for the WebSocket, on a connection of its own. What it says other than yes is an
    /// answer like any other.
    pub(super) async fn upgrade(
        self,
        client: OnUpgrade,
        guard: &Arc<GuardState>,
        drain: &Drain,
    ) -> Result<Response<Reply>, Refused> {
        let Self { mut exchange, mut request, path_and_query, .. } = self;
        let mut connection = match forward::dial(&mut exchange, Offer::Http1).await {
            Ok(connection) => connection,
            Err(error) => return Err(exchange.refuse(forward::unreachable(&error))),
        };
        forward::address(&mut request, exchange.view(), &path_and_query, false);
        request.headers_mut().insert(header::CONNECTION, UPGRADE);
        request.headers_mut().insert(header::UPGRADE, WEBSOCKET);
        let mut response = match forward::send_once(&mut exchange, &mut connection, request).await {
            Ok(response) => response,
            Err(refusal) => return Err(exchange.refuse(refusal)),
        };
        exchange.upstream_answered(Some(response.status()));
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            if response.status().is_informational() {
                return Err(exchange.refuse(not_websocket()));
            }
            return Answered { exchange, response, connection: None }.relay().await;
        }
        if !response.headers().get(header::UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket")) {
            return Err(exchange.refuse(not_websocket()));
        }
        let upstream = hyper::upgrade::on(&mut response);
        let scrubbing = exchange.view().scrubbing();
        let mut switched = switching(response.into_parts().0.headers);
        if let Some(scrubbing) = scrubbing {
            scrub::switching(scrubbing, switched.headers_mut(), exchange.tokens());
        }
        let patterns = scrubbing.map(|scrubbing| Arc::new(ArcSwap::new(Arc::clone(&scrubbing.patterns))));
        guard.leave();
        drain.spawn(run(exchange, client, upstream, patterns, drain.clone()));
        Ok(switched)
    }
}

fn not_websocket() -> Refusal {
    Refusal::new(Code::UpstreamProtocol, "the upstream switched to another protocol than a WebSocket")
}

fn switching(mut headers: http::HeaderMap) -> Response<Reply> {
    hop::strip_answer(&mut headers);
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONNECTION, UPGRADE);
    headers.insert(header::UPGRADE, WEBSOCKET);
    let mut response = Response::new(Reply::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.version_mut() = Version::HTTP_11;
    *response.headers_mut() = headers;
    response
}

async fn run(
    mut exchange: Box<Exchange>,
    client: OnUpgrade,
    upstream: OnUpgrade,
    patterns: Option<Arc<ArcSwap<Patterns>>>,
    drain: Drain,
) {
    let (Ok(client), Ok(upstream)) = (client.await, upstream.await) else {
        return exchange.cut(Code::UpstreamProtocol, StatusCode::SWITCHING_PROTOCOLS);
    };
    let upstream = Scrubbed::new(TokioIo::new(upstream), patterns.clone());
    match carry(&mut exchange, TokioIo::new(client), upstream, patterns, &drain).await {
        Ok(()) => exchange.allowed(StatusCode::SWITCHING_PROTOCOLS),
        Err(ended) => ended.close(exchange, StatusCode::SWITCHING_PROTOCOLS),
    }
}
