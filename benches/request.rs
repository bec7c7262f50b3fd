//! What a request costs on its way: a leaf certificate, and a whole request through a running proxy.
//!
//! The whole request runs over loopback in one process, so its time is that of client, proxy and origin together; the
//! difference between two versions is what it is good for. In absolute form over a Unix socket it has no TLS of the
//! client's, and a presentation that is checked each time.

#![expect(clippy::expect_used, reason = "a bench that cannot be set up must stop")]

use std::convert::Infallible;
use std::hint::black_box;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::http::request::Builder;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use narrows::capability::{
    Algorithm, AuthorityBlock, Capability, Context, Credentials, DelegationBlock, PrivateKey, Proof, Purpose, delegate,
    mint,
};
use narrows::clock::UnixSeconds;
use narrows::credential::Secret;
use narrows::daemon::{Daemon, Serve};
use narrows::net::leaf::LeafCache;
use narrows::request::Host;
use narrows::store::{Home, SecretStore, ca::Ca, keys, random};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::runtime::Runtime;

const HOST: &str = "api.acme.test";
/// As many ask for leaves at once.
const THREADS: usize = 4;

fn leaf(criterion: &mut Criterion) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).expect("a CA");
    let cache = LeafCache::new(&certificate.pem(), &key.serialize_pem()).expect("a cache");
    let now = UnixSeconds(1_800_000_000);
    let warm = Host::parse(HOST).expect("a host");
    criterion
        .bench_function("leaf/cached", |bench| bench.iter(|| cache.config(black_box(&warm), now).expect("a leaf")));
    let mut number = 0_u64;
    criterion.bench_function("leaf/minted", |bench| {
        bench.iter(|| {
            number += 1;
            cache.config(&Host::parse(&format!("h{number}.test")).expect("a host"), now).expect("a leaf")
        });
    });
    // What one iteration is: each of the threads has asked once.
    let mut round = 0_u64;
    let mut contended = |what: &str, name: fn(u64, u64, u64) -> String| {
        criterion.bench_function(&format!("leaf/{THREADS} threads, {what}"), |bench| {
            bench.iter_custom(|iterations| {
                round += 1;
                each_on_its_thread(|thread| {
                    for number in 0..iterations {
                        let host = Host::parse(&name(round, number, thread)).expect("a host");
                        cache.config(black_box(&host), now).expect("a leaf");
                    }
                })
            });
        });
    };
    contended("one cached name", |_, _, _| HOST.to_owned());
    contended("one new name", |round, number, _| format!("r{round}.n{number}.test"));
    contended("a new name each", |round, number, thread| format!("t{thread}.r{round}.n{number}.test"));
}

/// How long it takes until all threads are done.
fn each_on_its_thread(work: impl Fn(u64) + Sync) -> Duration {
    let together = Barrier::new(THREADS + 1);
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..THREADS as u64)
            .map(|thread| {
                let (work, together) = (&work, &together);
                scope.spawn(move || {
                    together.wait();
                    work(thread);
                })
            })
            .collect();
        together.wait();
        let since = Instant::now();
        for thread in asking {
            thread.join().expect("a thread ends");
        }
        since.elapsed()
    })
}

fn whole_request(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let (daemon, mut client) = runtime.block_on(async {
        let origin = origin(folder.path()).await;
        let (home, credentials) = home(folder.path(), "127.0.0.1:0", origin);
        let daemon = Daemon::start(&home, Serve::Everything).await.expect("a proxy");
        let client = tunnel(&daemon, &home, &credentials).await;
        (daemon, client)
    });
    criterion.bench_function("request/keep-alive, two hops", |bench| {
        bench.iter(|| runtime.block_on(get(&mut client, Request::get("/v1/items/7"))));
    });
    drop(client);
    runtime.block_on(daemon.stop());
}

fn absolute_request(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("bench.sock");
    let (daemon, mut client, credentials) = runtime.block_on(async {
        let origin = origin(folder.path()).await;
        let (home, credentials) = home(folder.path(), &format!("unix:{}", socket.display()), origin);
        let daemon = Daemon::start(&home, Serve::Everything).await.expect("a proxy");
        let stream = UnixStream::connect(&socket).await.expect("a connection");
        let (sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(driver);
        (daemon, sender, format!("Cap {credentials}"))
    });
    criterion.bench_function("request/absolute form, no TLS of the client's", |bench| {
        bench.iter(|| {
            let request = Request::get(format!("https://{HOST}/v1/items/7"));
            runtime.block_on(get(&mut client, request.header("proxy-authorization", &credentials)));
        });
    });
    drop(client);
    runtime.block_on(daemon.stop());
}

async fn get(client: &mut SendRequest<Empty<Bytes>>, request: Builder) {
    client.ready().await.expect("a live connection");
    let request = request
        .header("host", HOST)
        .header("authorization", "Bearer placeholder")
        .body(Empty::new())
        .expect("a request");
    let response = client.send_request(request).await.expect("an answer");
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.expect("a body");
}

/// An origin that answers 111 bytes to everything, over TLS.
async fn origin(folder: &Path) -> SocketAddr {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
    std::fs::write(folder.join("origin-ca.pem"), issuer.pem()).expect("written");
    let key = KeyPair::generate().expect("a key");
    let certificate =
        CertificateParams::new([HOST.to_owned()]).expect("a name").signed_by(&key, &issuer).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).expect("a key"))
        .expect("a configuration");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper::service::service_fn(|_| async {
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(&[b'x'; 111]))))
                });
                let io = TokioIo::new(stream);
                let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                    .serve_connection(io, service)
                    .await;
            });
        }
    });
    address
}

/// A home whose one service is that origin, and the credentials of a sub-agent.
fn home(folder: &Path, listen: &str, origin: SocketAddr) -> (Home, String) {
    let home = Home::at(&folder.join("home")).expect("a home");
    home.create().expect("a folder");
    let now = UnixSeconds::now();
    Ca::create(&home, &[], now).expect("a CA");
    let (root, _) = keys::create_root(&home).expect("a root");
    let config = format!(
        "listen = '{listen}'\nadmin = 'off'\n[roots]\n1 = '{root}'\n[upstream]\nextra_ca = '{ca}'\n\
         connect_to = {{ '{HOST}:443' = '{origin}' }}\n[[service]]\nname = 'acme'\ncredential = 'acme'\n\
         hosts = ['{HOST}']\ninject = 'Authorization: Bearer {{secret}}'\n",
        ca = folder.join("origin-ca.pem").display(),
    );
    std::fs::write(home.config(), config).expect("written");
    std::fs::set_permissions(home.config(), std::fs::Permissions::from_mode(0o600)).expect("private");
    let secret = Secret::new(b"sk-real-0123".to_vec()).expect("a secret");
    SecretStore::new(&home).set(&"acme".parse().expect("a name"), &secret).expect("stored");
    let root = keys::read_private(&home.root_key()).expect("a key");
    (home, credentials(&root, now))
}

fn credentials(root: &PrivateKey, now: UnixSeconds) -> String {
    let person = keys::generate(Algorithm::Ed25519).expect("a key");
    let agent = keys::generate(Algorithm::Ed25519).expect("a key");
    let authority = AuthorityBlock {
        holder: *person.public(),
        user: Some("alice@example.com".to_owned()),
        rights: vec![("acme".to_owned(), "read".to_owned())],
        caveats: vec![format!("check if time($time), $time < {}", now + 3600)],
        budgets: Vec::new(),
        rates: Vec::new(),
    };
    let minted = mint(root, 1, &authority, random::bytes().expect("a seed")).expect("a capability");
    let narrowed: Capability = delegate(
        &minted,
        &person,
        &DelegationBlock {
            holder: *agent.public(),
            agent: Some("agent-1".to_owned()),
            caveats: vec!["check if service(\"acme\"), path($path), $path.starts_with(\"/v1/items/\")".to_owned()],
            budgets: Vec::new(),
            rates: Vec::new(),
        },
        random::bytes().expect("a seed"),
    )
    .expect("a delegation");
    let context = Context::new("local", Purpose::Presentation);
    let nonce = random::bytes().expect("a nonce");
    let proof = Proof::sign(&agent, &narrowed.sha256(), now, 3600, nonce, &context).expect("a proof");
    Credentials { capability: narrowed, proof }.to_text()
}

/// One tunnel through the proxy, up to HTTP/1.1 inside its TLS.
async fn tunnel(daemon: &Daemon, home: &Home, credentials: &str) -> SendRequest<Empty<Bytes>> {
    let mut stream = TcpStream::connect(daemon.address().expect("an address")).await.expect("a connection");
    stream.set_nodelay(true).expect("nodelay");
    let connect =
        format!("CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\nProxy-Authorization: Cap {credentials}\r\n\r\n");
    stream.write_all(connect.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.expect("an answer"));
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    let mut roots = rustls::RootCertStore::empty();
    let ca = std::fs::read(home.ca_certificate()).expect("a CA");
    roots.add(CertificateDer::from_pem_slice(&ca).expect("a certificate")).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(HOST).expect("a name");
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS");
    let (sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(driver);
    sender
}

criterion_group!(benches, leaf, whole_request, absolute_request);
criterion_main!(benches);
