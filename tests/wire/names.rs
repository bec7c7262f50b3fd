//! One destination per tunnel: CONNECT, SNI and Host name the same, or the request is refused.

use crate::support::ca::Alpn;
use crate::{HOST, World};

#[test]
fn another_host_inside_the_tunnel_is_misdirected() {
    let world = World::new(Alpn::Both);
    for host in ["other.acme.test", "api.acme.test:8443", "api.acme.test.evil.test", "127.0.0.1"] {
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let answer = tunnel.answer(false);
        assert_eq!((answer.status(), &*answer.code()), (421, "misdirected"), "{host}: {answer:?}");
    }
    assert_eq!(world.origin.connections(), 0);
    // The twins: the same name, spelt otherwise.
    for host in ["API.acme.test", "api.acme.test:443"] {
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(tunnel.answer(false).status(), 200, "{host}");
    }
}

#[test]
fn another_sni_is_an_unrecognized_name() {
    let world = World::new(Alpn::Both);
    let error = world.agent.tunnel_with(HOST, 443, "other.acme.test", &[]).unwrap_err();
    assert!(error.to_string().contains("UnrecognisedName"), "{error}");
    world.env.journal_line(|line| line["host"] == HOST && line["outcome"] == "denied");
    assert!(world.agent.tunnel_with(HOST, 443, HOST, &["h2", "http/1.1"]).is_ok());
}

#[test]
fn a_port_that_nobody_serves_is_refused_on_the_connect() {
    let world = World::new(Alpn::Both);
    let (answer, _) = world.agent.connect(&format!("{HOST}:22"));
    assert_eq!(answer.status(), 403, "{answer:?}");
    let reason = answer.head.lines().next().unwrap().splitn(3, ' ').nth(2).unwrap();
    assert!(reason.len() > "Forbidden".len(), "the reason phrase tells nothing: {reason:?}");
    assert_eq!(world.agent.connect(&format!("{HOST}:443")).0.status(), 200);
}

#[test]
fn what_is_not_tls_is_refused_where_tls_is_spoken() {
    let world = World::new(Alpn::Both);
    let (answer, mut wire) = world.agent.connect(&format!("{HOST}:443"));
    assert_eq!(answer.status(), 200);
    wire.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert_eq!(wire.answer(false).status(), 400);
    assert!(wire.rest().is_empty());
    assert_eq!(world.origin.connections(), 0);
}

#[test]
fn no_connect_and_no_trace_inside_a_tunnel() {
    let world = World::new(Alpn::Both);
    for (method, target) in
        [("CONNECT", "other.acme.test:443"), ("TRACE", "/v1/items"), ("TRACK", "/v1/items"), ("tRACE", "/v1/items")]
    {
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&format!("{method} {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        let head = tunnel.head();
        assert!(head.starts_with("HTTP/1.1 4"), "{method}: {head}");
    }
    assert_eq!(world.origin.connections(), 0);
}

#[test]
fn absolute_form_in_a_tunnel_names_the_same_host_or_nothing() {
    let world = World::new(Alpn::H1);
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!("GET https://other.acme.test/v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert!(matches!(tunnel.answer(false).status(), 400 | 421));
    assert_eq!(world.origin.connections(), 0);
}
