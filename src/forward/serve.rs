//! serve: accept, check who comes, and hand over to `connect` or `request`.
#![expect(
    clippy::disallowed_types,
    reason = "not on the path of a request inside a tunnel: bounds the connections of the loopback forwarder"
)]

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;

use super::respond::{Refusal, Reply};
use super::{Shared, connect, request};
use crate::net::listener::{Listener, Peer, Stream};
use crate::request::Target;

/// An agent's connections at once, tunnels among them; more wait in the system's backlog.
const CONNECTIONS_MAX: usize = 1024;
/// A head must be whole within this; also how long a connection may idle between requests.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// A head has at most so many fields and bytes.
const HEADERS_MAX: usize = 256;
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// When the descriptor table is full, accepting is tried again after this long.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Accepts until the drain begins.
pub(super) async fn accept(listener: Listener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            () = shared.drain.started() => return,
        };
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            continue;
        };
        if !is_guest(&shared, &stream, peer) {
            continue;
        }
        let place = Arc::new(place);
        shared.drain.spawn(connection(Arc::clone(&shared), stream, place));
    }
}

/// A connection's place among [`CONNECTIONS_MAX`]; a tunnel that it became keeps it.
pub(super) type Place = Arc<Option<tokio::sync::OwnedSemaphorePermit>>;

/// A loopback address is reached by this machine alone, whatever the system's routes say; a Unix socket's file may be
/// open to more users than are meant.
fn is_guest(shared: &Shared, stream: &Stream, peer: Peer) -> bool {
    match shared.own {
        Some(own) => peer.is_local() || !own.ip().is_loopback(),
        None => stream.is_from(&shared.uids),
    }
}

async fn connection(shared: Arc<Shared>, stream: Stream, place: Place) {
    let service = hyper::service::service_fn(|request| {
        let (shared, place) = (Arc::clone(&shared), Arc::clone(&place));
        async move { Ok::<_, Infallible>(answer(&shared, request, place).await) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => {}
        () = shared.drain.started() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! { _ = connection => {}, () = shared.drain.over() => {} }
        }
    }
}

async fn answer(shared: &Arc<Shared>, request: Request<Incoming>, place: Place) -> Response<Reply> {
    if shared.password.as_ref().is_some_and(|password| !password.is_in(request.headers())) {
        return Refusal::password().answer();
    }
    if request.method() == Method::CONNECT {
        connect::connect(shared, request, place).await
    } else {
        request::pass(shared, request, place).await
    }
}

/// Whether a target is the forwarder or the proxy: no request may go round in a circle.
pub(super) fn is_our_own(shared: &Shared, target: &Target) -> bool {
    let own = shared.own.is_some_and(|own| own.port() == target.port);
    own && super::upstream::is_loopback(target) || shared.dialled.is(target)
}
