//! How often a request makes the proxy allocate, beside the least that any proxy of hyper's parts does.
//!
//! Client and origin run on threads of their own, so only the proxy's thread is counted; the journal's writer has its
//! own too.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "support/mod.rs"]
mod support;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use http::Request;
use http::header::{AUTHORIZATION, HeaderValue};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use narrows::daemon::{Daemon, Serve};
use narrows::store::Home;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Mutex, mpsc};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use support::agent::{Agent, Tls, Wire};
use support::ca::Alpn;
use support::daemon::TestEnv;
use support::origin::Origin;

const HOST: &str = "api.acme.test";
const SECRET: &str = "sk-real-3kf9QmZx71TtPw0aVb5Lr8Ys";
/// Caches are filled and buffers grown after so many.
const WARM_UP: u64 = 50;
const REQUESTS: u64 = 40;
const BATCHES: usize = 9;
/// What Narrows may add to a request.
const ADDED_MAX: u64 = 9;

#[test]
fn a_request_adds_few_allocations_to_a_bare_pass_through() {
    let mut env = TestEnv::new();
    let origin = Origin::https(&env.ca, &[HOST], Alpn::H1);
    origin.put("/v1/items", "text/plain", "items");
    env.acme(SECRET, &origin);
    env.write_config();
    let holder = env.mint("holder", &["acme"]);

    let runtime = runtime();
    let home = Home::at(&env.home()).unwrap();
    let daemon = runtime.block_on(Daemon::start(&home, Serve::Everything)).unwrap();
    let agent = Agent::at(daemon.address().unwrap(), &env.home().join("ca.pem"), Some(&holder.presentation()));
    let narrows = per_request(&runtime, agent);
    runtime.block_on(daemon.stop());
    let seen = origin.seen();
    assert!(seen.iter().all(|seen| seen.header("authorization") == Some(&*format!("Bearer {SECRET}"))));

    let runtime = self::runtime();
    let address = runtime.block_on(bare(&env, origin.addr));
    let bare = per_request(&runtime, Agent::at(address, &env.ca.pem_path(), None));

    println!("allocations for each request: {narrows} in Narrows, {bare} in a bare pass-through");
    assert!(narrows <= bare + ADDED_MAX, "{narrows} allocations for each request, and {bare} without Narrows");
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Allocations on this thread, which runs the proxy, for each of many requests in one tunnel: the median of some batches,
/// for on a busy machine one may hold a second handshake with the origin.
fn per_request(runtime: &Runtime, agent: Agent) -> u64 {
    let (done, mut batches_done) = mpsc::unbounded_channel();
    let (go, gone) = std::sync::mpsc::channel();
    let client = std::thread::spawn(move || {
        let mut tunnel = agent.tunnel(HOST);
        (0..WARM_UP).for_each(|_| get(&mut tunnel));
        done.send(()).unwrap();
        for () in gone {
            (0..REQUESTS).for_each(|_| get(&mut tunnel));
            done.send(()).unwrap();
        }
    });
    runtime.block_on(batches_done.recv()).unwrap();
    let mut counts = [0; BATCHES].map(|_: u64| {
        let counted = allocation_counter::measure(|| {
            go.send(()).unwrap();
            runtime.block_on(batches_done.recv()).unwrap();
        });
        counted.count_total / REQUESTS
    });
    drop(go);
    client.join().unwrap();
    counts.sort_unstable();
    counts[BATCHES / 2]
}

fn get(tunnel: &mut Wire<Tls>) {
    tunnel.send(&format!(
        "GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\nAccept: */*\r\nUser-Agent: test/1\r\n\
         Authorization: Bearer placeholder\r\n\r\n"
    ));
    assert_eq!(tunnel.answer(false).text(), "items");
}

/// Ends TLS, sets one header, and sends the request on one kept connection. One client at a time.
async fn bare(env: &TestEnv, origin: SocketAddr) -> SocketAddr {
    let acceptor = TlsAcceptor::from(env.ca.server(&[HOST], Alpn::H1));
    let tls = TlsConnector::from(Arc::new(Agent::at(origin, &env.ca.pem_path(), None).tls(&[])));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let stream = acceptor.accept(stream).await.unwrap();
        let upstream = tls.connect(HOST.try_into().unwrap(), TcpStream::connect(origin).await.unwrap()).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(upstream)).await.unwrap();
        tokio::spawn(connection);
        let sender = Arc::new(Mutex::new(sender));
        let service = service_fn(move |request| pass(Arc::clone(&sender), request));
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    });
    address
}

async fn pass(
    sender: Arc<Mutex<SendRequest<Incoming>>>,
    mut request: Request<Incoming>,
) -> Result<http::Response<Incoming>, Infallible> {
    request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static("Bearer INJECTED"));
    let mut sender = sender.lock().await;
    sender.ready().await.unwrap();
    Ok(sender.send_request(request).await.unwrap())
}
