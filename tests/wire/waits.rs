//! Every wait has an end, for an agent that stops half-way and for an upstream that does.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::support::PATIENCE;
use crate::support::agent::{Agent, Ends, Wire};
use crate::support::ca::Alpn;
use crate::support::daemon::TestEnv;
use crate::support::frames::{Flooder, GOAWAY};
use crate::support::origin::Origin;
use crate::support::raw::{RawOrigin, Step};
use crate::{HOST, SECRET, World};

/// Waits short enough to see their ends; all others stay long, so that each row meets its own.
fn world(limits: &str) -> World {
    let mut env = TestEnv::new();
    let origin = Origin::https(&env.ca, &[HOST], Alpn::H1);
    env.acme(SECRET, &origin);
    env.setting(&format!("[limits]\n{limits}\n"));
    origin.put("/v1/items", "text/plain", "items");
    World::started(env, origin, &["acme"])
}

/// The same before an upstream that plays `steps`, with waits for it.
fn before(waits: &str, steps: Vec<Step>) -> World<RawOrigin> {
    let mut env = TestEnv::new();
    let origin = RawOrigin::https(&env.ca, &[HOST], steps);
    env.acme_at(SECRET, origin.addr);
    env.upstream(waits);
    World::started(env, origin, &["acme"])
}

fn post(fields: &str) -> String {
    format!("POST /upload HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n\r\n")
}

/// Sends a byte from time to time: what never stops is not waited for either.
fn drips<S: Read + Write + Ends>(mut wire: Wire<S>, byte: &[u8]) {
    wire.stream.tcp().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let sent = wire.stream.write_all(byte).and_then(|()| wire.stream.flush());
        match wire.some() {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
        if sent.is_err() {
            return;
        }
    }
    panic!("a byte at a time is taken for ever");
}

#[test]
fn half_a_head_is_not_waited_for_outside_a_tunnel_nor_inside() {
    let world = world("head_read = \"400ms\"");
    let half = format!("CONNECT {HOST}:443 HTTP/1.1\r\nHo");
    let mut outer = world.agent.dial();
    outer.send(&half);
    let mut inner = world.agent.tunnel(HOST);
    inner.send("GET /v1/items HTTP/1.1\r\nHo");
    assert!(outer.rest().is_empty());
    assert!(inner.rest().is_empty());
    let mut dripping = world.agent.dial();
    dripping.send(&half);
    drips(dripping, b"o");
    let mut dripping = world.agent.tunnel(HOST);
    dripping.send("GET /v1/items HTTP/1.1\r\nX: ");
    drips(dripping, b"x");
    assert_eq!(world.agent.get(HOST, "/v1/items").status(), 200);
}

#[test]
fn a_tunnel_in_which_no_handshake_begins_or_ends_is_closed() {
    let world = world("handshake = \"400ms\"");
    let open = || {
        let (answer, wire) = world.agent.connect(&format!("{HOST}:443"));
        assert_eq!(answer.status(), 200);
        wire
    };
    let (mut silent, mut half) = (open(), open());
    half.send_bytes(b"\x16\x03\x01\x02\x00\x01\x00");
    assert!(silent.rest().is_empty());
    half.rest();
    // A record that never ends, then a hello of endless records.
    let mut long = open();
    long.send_bytes(b"\x16\x03\x01\x40\x00\x01\x00\xff\xff");
    drips(long, b"\0");
    drips(open(), b"\x16\x03\x01\x00\x01\x01");
}

#[test]
fn a_connection_that_idles_between_requests_is_closed() {
    let world = world("client_idle = \"400ms\"");
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert_eq!(tunnel.answer(false).status(), 200);
    assert!(tunnel.rest().is_empty());
    let mut nothing_asked = world.agent.tunnel(HOST);
    assert!(nothing_asked.rest().is_empty());
    // One that does not even answer a PING.
    let mut quiet = Flooder::new(&world.agent, HOST);
    assert!(quiet.until(|_, _, _| false).is_none());
}

#[test]
fn a_body_that_stops_coming_is_refused_and_its_request_aborted_upstream() {
    let world = world("upload_idle = \"400ms\"");
    let bodies = [
        post("Content-Length: 100") + "half",
        post("Transfer-Encoding: chunked") + "4\r\nhalf\r\n",
        post("Transfer-Encoding: chunked") + "4000",
        post("Expect: 100-continue\r\nContent-Length: 100"),
    ];
    for body in bodies {
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&body);
        let mut answer = tunnel.answer(false);
        if answer.status() == 100 {
            answer = tunnel.answer(false);
        }
        assert_eq!((answer.status(), &*answer.code()), (400, "body_unreadable"), "{body:?}: {answer:?}");
    }
    let whole = world.origin.seen().iter().filter(|seen| seen.body_sha256.is_some()).count();
    assert_eq!(whole, 0, "half a body was passed on as whole");
}

#[test]
fn an_answer_without_end_ends_with_its_tunnel() {
    let world = world("tunnel_age_max = \"2s\"");
    let mut one = world.agent.tunnel(HOST);
    let mut two = Flooder::new(&world.agent, HOST);
    one.send(&format!("GET /stream HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    two.wire.send_bytes(&crate::support::frames::get(1, HOST, "/sse"));
    world.origin.wait_for("/stream");
    world.origin.wait_for("/sse");
    let rest = one.rest();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "an answer that was cut looks whole");
    two.until(|kind, _, _| kind == GOAWAY);
    for path in ["/stream", "/sse"] {
        let line = world.env.journal_line(|line| line["path"] == path);
        assert_ne!(line["outcome"], "allowed", "{line}");
    }
}

#[test]
fn an_upstream_that_stops_half_way_is_not_waited_for() {
    let get = |world: &World<RawOrigin>| world.agent.get(HOST, "/v1/items");
    let head = |text: &str| vec![Step::Head, Step::Send(text.into()), Step::UntilClosed];
    for silent in ["", "HTTP/1.1 200 OK\r\nContent-Le"] {
        let answer = get(&before("answer_head = \"400ms\"", head(silent)));
        assert_eq!((answer.status(), &*answer.code()), (504, "upstream_timeout"), "{silent:?}: {answer:?}");
    }
    let world = before("answer_idle = \"400ms\"", head("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"));
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert!(tunnel.rest().ends_with(b"half"));
    let line = world.env.journal_line(|line| line["path"] == "/v1/items");
    assert_eq!(line["code"], "upstream_timeout", "{line}");
    // Nobody reads the request: it stops on its way, and that is not the agent's fault.
    let world = before("answer_head = \"400ms\"", vec![Step::Wait]);
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&post("Content-Length: 100000000"));
    tunnel.stall_after(Duration::from_millis(300));
    let chunk = vec![b'x'; 1 << 20];
    while tunnel.send_some(&chunk) > 0 {}
    let line = world.env.journal_line(|line| line["path"] == "/upload");
    assert_eq!(line["code"], "upstream_timeout", "{line}");
}

/// The agent of a proxy whose upstream accepts and says nothing.
#[test]
fn an_upstream_that_never_shakes_hands_is_not_waited_for() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut env = TestEnv::new();
    env.acme_at(SECRET, silent.local_addr().unwrap());
    env.upstream("dial = \"400ms\"");
    let world = World::<()>::started(env, (), &["acme"]);
    let agent: &Agent = &world.agent;
    let answer = agent.get(HOST, "/v1/items");
    assert_eq!((answer.status(), &*answer.code()), (504, "upstream_timeout"), "{answer:?}");
}

#[test]
fn a_websocket_that_is_silent_is_closed() {
    let world = world("tunnel_idle = \"1s\"");
    let mut silent = world.agent.tunnel(HOST);
    silent.send(&format!(
        "GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ));
    assert!(silent.head().contains(" 101 "));
    silent.rest();
    let line = world.env.journal_line(|line| line["path"] == "/ws");
    assert_eq!(line["code"], "upstream_timeout", "{line}");
}
