//! What is not terminated, what has no credential, and what ends while it runs.

use std::sync::Arc;

use narrows::capability::{Budget, BudgetKind};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConnection, RootCertStore, StreamOwned};

use super::support::agent::{Agent, Tls, Wire};
use super::support::ca::Alpn;
use super::support::daemon::TestEnv;
use super::support::origin::Origin;
use super::{HOST, SECRET, World};

const PINNED: &str = "pinned.acme.test";

/// A service that is carried unread, and an agent that may open tunnels to it.
fn pinned(allow: &[&str]) -> (World, Origin) {
    let mut env = TestEnv::new();
    let origin = Origin::https(&env.ca, &[HOST, PINNED], Alpn::H1);
    let other = Origin::https(&env.ca, &[HOST], Alpn::H1);
    env.acme(SECRET, &other);
    env.dial(PINNED, &origin);
    env.service(&format!("name = \"pinned\"\nhosts = [\"{PINNED}\"]\nterminate = false"));
    origin.put("/v1/items", "text/plain", "items");
    (World::started(env, other, allow), origin)
}

/// TLS through a plain tunnel, up to the origin itself, whose certificate a pinning client would know.
fn through(world: &World, mut wire: Wire<std::net::TcpStream>, sni: &str) -> std::io::Result<Wire<Tls>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(world.env.ca.pem().as_bytes()).unwrap()).unwrap();
    let mut config = world.agent.tls(&[]);
    config = {
        let provider = Arc::clone(config.crypto_provider());
        rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    };
    let mut connection =
        ClientConnection::new(Arc::new(config), ServerName::try_from(sni.to_owned()).unwrap()).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut wire.stream)?;
    }
    Ok(Wire { stream: StreamOwned::new(connection, wire.stream), ahead: Vec::new() })
}

#[test]
fn a_plain_tunnel_is_carried_unread_and_has_one_line() {
    let (world, origin) = pinned(&["pinned:tunnel"]);
    let (answer, wire) = world.agent.connect(&format!("{PINNED}:443"));
    assert_eq!(answer.status(), 200, "{answer:?}");
    let mut tls = through(&world, wire, PINNED).unwrap();
    tls.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {PINNED}\r\nAuthorization: own\r\nConnection: close\r\n\r\n"));
    assert_eq!(tls.answer(false).text(), "items");
    assert_eq!(origin.only().header("authorization"), Some("own"), "nothing is stripped, nothing injected");
    // Read to its end: a connection that is closed with bytes unread is reset.
    assert!(tls.rest().is_empty());
    drop(tls);
    let line = world.env.journal_line(|line| line["host"] == PINNED);
    assert_eq!(
        (&line["event"], &line["operation"], &line["outcome"]),
        (&"tunnel".into(), &"tunnel".into(), &"allowed".into())
    );
    assert!(line["bytes_up"].as_u64() > Some(0) && line["bytes_down"].as_u64() > Some(0), "{line}");
    assert!(line["method"].is_null() && line["path"].is_null(), "{line}");
}

#[test]
fn a_denied_plain_tunnel_is_denied_on_the_connect() {
    // `read` is not `tunnel`: one word away.
    let (world, origin) = pinned(&["pinned:read"]);
    let (answer, _) = world.agent.connect(&format!("{PINNED}:443"));
    assert_eq!((answer.status(), &*answer.code()), (403, "capability_denied"), "{answer:?}");
    assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
    assert_eq!(origin.connections(), 0);
}

#[test]
fn a_plain_tunnel_takes_a_client_hello_for_its_own_name_and_nothing_else() {
    let (world, origin) = pinned(&["pinned:tunnel"]);
    let (_, wire) = world.agent.connect(&format!("{PINNED}:443"));
    assert!(through(&world, wire, HOST).is_err(), "another name in the ClientHello");
    let (_, mut wire) = world.agent.connect(&format!("{PINNED}:443"));
    wire.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(wire.rest(), b"", "bytes that are no ClientHello");
    assert!(origin.seen().is_empty());
}

#[test]
fn a_revoked_capability_ends_a_plain_tunnel() {
    let (world, _origin) = pinned(&["pinned:tunnel"]);
    let (_, wire) = world.agent.connect(&format!("{PINNED}:443"));
    let mut tls = through(&world, wire, PINNED).unwrap();
    world.env.revoke(&world.holder);
    let _ = tls.rest();
    let line = world.env.journal_line(|line| line["host"] == PINNED);
    assert_eq!((&line["code"], &line["outcome"]), (&"capability_revoked".into(), &"denied".into()), "{line}");
}

#[test]
fn a_budget_of_bytes_cuts_an_answer_that_has_no_room() {
    let world = World::new(Alpn::H1);
    world.origin.put("/v1/big", "application/octet-stream", vec![b'x'; 64 * 1024]);
    let agent = with_budget(&world, 32 * 1024);
    let mut tunnel = agent.tunnel(HOST);
    tunnel.send(&format!("GET /v1/big HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    tunnel.head();
    assert!(tunnel.rest().len() <= 32 * 1024, "more came than the budget holds");
    let line = world.env.journal_line(|line| line["path"] == "/v1/big");
    assert_eq!((&line["code"], &line["outcome"]), (&"budget_exhausted".into(), &"denied".into()), "{line}");
}

#[test]
fn a_budget_of_bytes_that_is_used_up_refuses_the_next_request() {
    let world = World::new(Alpn::H1);
    let agent = with_budget(&world, "items".len() as u64);
    assert_eq!(agent.get(HOST, "/v1/items").text(), "items");
    assert_eq!(agent.get(HOST, "/v1/items").code(), "budget_exhausted");
}

#[test]
fn announced_bytes_that_were_not_sent_are_given_back() {
    // The host refuses connections: nothing of the body goes anywhere.
    let mut env = TestEnv::new();
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    env.acme_at(SECRET, unused);
    let daemon = env.start();
    let budget = Budget { kind: BudgetKind::BytesUp, limit: 100 };
    let holder = env.mint_with("thrifty", &["acme"], vec![budget], vec![]);
    let agent = Agent::new(&env, &daemon, Some(&holder.presentation()));
    for _ in 0..3 {
        assert_eq!(agent.request("POST", HOST, "/x", "", &[b'x'; 80]).code(), "upstream_refused");
    }
    assert_eq!(agent.request("POST", HOST, "/x", "", &[b'x'; 101]).code(), "budget_exhausted");
}

fn with_budget(world: &World, bytes_down: u64) -> Agent {
    let budget = Budget { kind: BudgetKind::BytesDown, limit: bytes_down };
    let holder = world.env.mint_with("thrifty", &["acme"], vec![budget], vec![]);
    Agent::new(&world.env, &world.daemon, Some(&holder.presentation()))
}

#[test]
fn a_host_that_no_service_names_needs_a_grant_of_web_and_gets_no_credential() {
    let mut env = TestEnv::new();
    let origin = Origin::https(&env.ca, &[HOST, "elsewhere.test"], Alpn::H1);
    env.acme(SECRET, &origin);
    env.dial("elsewhere.test", &origin);
    origin.put("/page", "text/plain", "a page");
    let world = World::started(env, origin, &["acme"]);
    let refused = world.agent.get("elsewhere.test", "/page");
    assert_eq!((refused.status(), &*refused.code()), (403, "service_unknown"), "{refused:?}");
    assert!(world.origin.seen().is_empty());
    let browsing = world.env.mint("browsing", &["web:read"]);
    let agent = Agent::new(&world.env, &world.daemon, Some(&browsing.presentation()));
    assert_eq!(agent.get("elsewhere.test", "/page").text(), "a page");
    assert_eq!(world.origin.only().header("authorization"), None);
    assert_eq!(agent.get(HOST, "/page").code(), "capability_denied", "a named host is never web");
}

#[test]
fn a_secret_that_is_missing_is_said_and_nothing_is_sent() {
    let world = World::new(Alpn::H1);
    world.env.forget("acme-key");
    let answer = loop {
        let answer = world.agent.get(HOST, "/v1/items");
        if answer.status() != 200 {
            break answer;
        }
    };
    assert_eq!((answer.status(), &*answer.code()), (503, "secret_unavailable"), "{answer:?}");
    assert!(answer.text().contains("capctl secret set acme-key"), "{answer:?}");
}
