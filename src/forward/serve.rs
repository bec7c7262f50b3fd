//! serve: accept, check the password, and hand over to `connect` or `request`.
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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::respond::{Refusal, Reply};
use super::{Shared, connect, request};
use crate::request::Target;

/// A command's connections at once, tunnels among them; more wait in the system's backlog.
const CONNECTIONS_MAX: usize = 256;
/// A head must be whole within this; also how long a connection may idle between requests.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// A head has at most so many fields and bytes.
const HEADERS_MAX: usize = 256;
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// When the descriptor table is full, accepting is tried again after this long.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Accepts until the drain begins.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
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
        if !peer.ip().is_loopback() {
            continue;
        }
        let _ = stream.set_nodelay(true);
        let place = Arc::new(place);
        shared.drain.spawn(connection(Arc::clone(&shared), stream, place));
    }
}

/// A connection's place among [`CONNECTIONS_MAX`]; a tunnel that it became keeps it.
pub(super) type Place = Arc<Option<tokio::sync::OwnedSemaphorePermit>>;

async fn connection(shared: Arc<Shared>, stream: TcpStream, place: Place) {
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
    if !shared.password.is_in(request.headers()) {
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
    let own = target.port == shared.own_port && super::upstream::is_loopback(target);
    own || shared.dialled.is(target)
}
