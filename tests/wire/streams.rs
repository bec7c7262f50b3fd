//! Bodies: they pass as they come, both ways, and end when either side does.

use crate::support::ca::Alpn;
use crate::support::handlers::pattern;
use crate::support::raw::Step;
use crate::support::record::{End, sha256_hex};
use crate::{HOST, SECRET, World};

#[test]
fn an_event_arrives_before_the_next_is_made() {
    for alpn in [Alpn::H1, Alpn::H2] {
        let world = World::new(alpn);
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&format!("GET /sse HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        world.origin.wait_for("/sse");
        assert!(tunnel.head().starts_with("HTTP/1.1 200 "));
        for event in ["data: 1\n\n", "data: 2\n\n"] {
            world.origin.tick(event);
            tunnel.until(event);
        }
        world.origin.end_streams();
        tunnel.until("0\r\n\r\n");
    }
}

#[test]
fn an_agent_that_goes_takes_its_upstream_request_with_it() {
    for alpn in [Alpn::H1, Alpn::H2] {
        for path in ["/hang", "/sse"] {
            let world = World::new(alpn);
            let mut tunnel = world.agent.tunnel(HOST);
            tunnel.send(&format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
            world.origin.wait_for(path);
            drop(tunnel);
            world.origin.shared.record.wait("the end of the request", |seen| seen[0].end == End::Aborted);
            let line = world.env.journal_line(|line| line["path"] == path);
            assert_eq!(line["outcome"], "aborted", "{line}");
        }
    }
}

#[test]
fn trailers_pass_to_whoever_asked_for_them() {
    for alpn in [Alpn::H1, Alpn::H2] {
        let world = World::new(alpn);
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&format!("GET /trailers HTTP/1.1\r\nHost: {HOST}\r\nTE: trailers\r\nConnection: TE\r\n\r\n"));
        let head = tunnel.head();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        tunnel.until("with trailers\n");
        let trailers = tunnel.until("\r\n\r\n");
        assert!(trailers.contains("x-checksum: abc123"), "{alpn:?}: {head}{trailers}: {:#?}", world.origin.only());
    }
}

#[test]
fn the_body_is_asked_for_when_the_upstream_asks() {
    for alpn in [Alpn::H1, Alpn::H2] {
        let world = World::new(alpn);
        let mut tunnel = world.agent.tunnel(HOST);
        let body = pattern(0, 1000);
        tunnel.send(&format!(
            "POST /upload HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ));
        assert!(tunnel.head().starts_with("HTTP/1.1 100 "));
        tunnel.send_bytes(&body);
        let answer = tunnel.answer(false);
        assert_eq!(answer.status(), 200, "{answer:?}");
        assert!(answer.text().contains(&sha256_hex(&body)), "{answer:?}");
    }
}

#[test]
fn a_refused_expectation_costs_no_body() {
    let refusal = b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno".to_vec();
    let world = World::raw(vec![Step::Head, Step::Send(refusal), Step::UntilClosed]);
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!("POST /x HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"));
    assert_eq!(tunnel.answer(false).status(), 417);
}

#[test]
fn an_upstream_that_never_says_continue_gets_its_body_all_the_same() {
    let done = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone".to_vec();
    let world = World::raw(vec![Step::Head, Step::Read(9), Step::Send(done), Step::UntilClosed]);
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!("POST /x HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"));
    assert!(tunnel.head().starts_with("HTTP/1.1 100 "));
    tunnel.send("the body!");
    assert_eq!(tunnel.answer(false).text(), "done");
    assert!(world.origin.read()[0].ends_with("the body!"));
}

#[test]
fn an_early_refusal_reaches_an_agent_that_is_still_sending() {
    let body = pattern(0, 2_000_000);
    let world = World::new(Alpn::H2);
    assert_eq!(world.agent.request("POST", HOST, "/early-413", "", &body).status(), 413);
    // On HTTP/1.1 a server that closes at once loses its answer to the reset; a careful one reads on.
    let refusal = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
    let world = World::raw(vec![Step::Head, Step::Send(refusal), Step::UntilClosed]);
    assert_eq!(world.agent.request("POST", HOST, "/x", "", &body).status(), 413);
}

#[test]
fn a_body_that_comes_after_its_refusal_does_not_reset_the_answer() {
    let world = World::new(Alpn::Both);
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!("POST /denied HTTP/1.1\r\nHost: {HOST}:1\r\nContent-Length: 5\r\n\r\n"));
    // The proxy has answered and closed its half before a byte of the body is sent.
    let answer = tunnel.rest();
    assert!(answer.starts_with(b"HTTP/1.1 421 "), "{}", String::from_utf8_lossy(&answer));
    tunnel.send("late!");
    tunnel.finish();
}

#[test]
fn an_upload_ends_with_the_answer() {
    let answers = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(), 200, ""),
        (b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n".to_vec(), 417, "Expect: 100-continue\r\n"),
    ];
    for (answer, status, expect) in answers {
        let world = World::raw(vec![Step::Head, Step::Send(answer), Step::UntilClosed]);
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&format!("POST /x HTTP/1.1\r\nHost: {HOST}\r\n{expect}Content-Length: 1000000\r\n\r\n"));
        assert_eq!(tunnel.answer(false).status(), status);
        // Nobody asks policy about the rest any more, so there is no rest: the connection ends.
        assert!(tunnel.rest().is_empty());
        let line = world.env.journal_line(|line| line["path"] == "/x");
        assert_eq!((&line["outcome"], &line["bytes_up"]), (&"allowed".into(), &0.into()), "{line}");
    }
}

#[test]
fn answers_without_a_body_have_none() {
    let world = World::new(Alpn::Both);
    let mut tunnel = world.agent.tunnel(HOST);
    // On one connection: a body where none belongs would be read as the next answer's head.
    for (method, path, status) in [
        ("HEAD", "/bytes/1000", 200),
        ("GET", "/status/204", 204),
        ("GET", "/status/304", 304),
        ("GET", "/v1/items", 200),
    ] {
        tunnel.send(&format!("{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        let answer = tunnel.answer(method == "HEAD");
        assert_eq!(answer.status(), status, "{answer:?}");
        if method == "HEAD" {
            assert_eq!(answer.header("content-length"), Some("1000"), "{answer:?}");
        }
    }
}

#[test]
fn a_websocket_is_one_journal_line_with_its_bytes() {
    let world = World::new(Alpn::Both);
    let mut tunnel = world.agent.tunnel(HOST);
    // On a connection that has served a request before.
    tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert_eq!(tunnel.answer(false).text(), "items");
    tunnel.send(&format!(
        "GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ));
    let head = tunnel.head();
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    // "Hello", masked; RFC 6455 §5.7.
    tunnel.send_bytes(&[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    assert_eq!(tunnel.exactly(7), [0x81, 0x05, b'H', b'e', b'l', b'l', b'o']);
    // A masked byte may be a line feed: frames are no heads.
    tunnel.send_bytes(&[0x81, 0x81, 0x0a, 0x0d, 0x0a, 0x0a, b'x' ^ 0x0a]);
    assert_eq!(tunnel.exactly(3), [0x81, 0x01, b'x']);
    drop(tunnel);
    let line = world.env.journal_line(|line| line["path"] == "/ws");
    assert_eq!((&line["operation"], &line["status"]), (&"write".into(), &101.into()), "{line}");
    assert!(line["bytes_up"].as_u64() >= Some(18) && line["bytes_down"].as_u64() >= Some(10), "{line}");
    assert_eq!(world.origin.seen()[1].header("authorization"), Some(&*format!("Bearer {SECRET}")));
}

#[test]
fn any_other_upgrade_is_removed() {
    let world = World::new(Alpn::H1);
    let answer = world.agent.request("GET", HOST, "/v1/items", "Upgrade: h2c\r\nConnection: Upgrade\r\n", b"");
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_eq!(world.origin.only().header("upgrade"), None);
}
