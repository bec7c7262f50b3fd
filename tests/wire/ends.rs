//! How an exchange ends is told as it was: to the agent, to the upstream, and in the journal.

use std::os::fd::AsFd as _;

use http::Request;
use http_body_util::{BodyExt as _, Full};

use crate::support::agent::{Tls, Wire};
use crate::support::ca::Alpn;
use crate::support::daemon::TestEnv;
use crate::support::frames::{
    ACK, DATA, END_HEADERS, END_STREAM, Flooder, GOAWAY, HEADERS, RST_STREAM, SETTINGS, field, frame, request,
};
use crate::support::h2_agent::H2Agent;
use crate::support::raw::{RawOrigin, Step};
use crate::support::record::{End, Seen};
use crate::{HOST, SECRET, World};

/// `:status 200` (RFC 7541, appendix A).
const OK: &[u8] = &[0x88];
/// Error codes of RFC 9113 §7.
const NO_ERROR: u32 = 0;
const CANCEL: u32 = 8;

const WITH_TRAILERS: &str =
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_with_trailers_is_an_answer_that_ended_and_its_connection_is_kept() {
    let once = [Step::Head, Step::Send(WITH_TRAILERS.into())];
    let world = World::raw([&once[..], &once, &once, &[Step::UntilClosed]].concat());
    for headers in ["", "TE: trailers\r\nConnection: TE\r\n"] {
        assert_eq!(world.agent.request("GET", HOST, "/v1/h1", headers, b"").text(), "ok");
        let line = world.env.journal_line(|line| line["path"] == "/v1/h1");
        assert_eq!((&line["outcome"], &line["status"]), (&"allowed".into(), &200.into()), "{line}");
    }
    let agent = H2Agent::connect(&world.agent, HOST).await;
    let asked = Request::get(format!("https://{HOST}/v1/h2")).header("te", "trailers");
    let answer = agent.send(asked.body(Full::default()).unwrap()).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().trailers().unwrap()["x-sum"], "1");
    let line = world.env.journal_line(|line| line["path"] == "/v1/h2");
    assert_eq!((&line["outcome"], &line["status"]), (&"allowed".into(), &200.into()), "{line}");
    assert_eq!(world.origin.read().len(), 1, "one connection served all");
}

/// An answer of an upstream over HTTP/2: its head, these frames, and the connection stays.
fn answered_with(fields: &[u8], frames: &[Vec<u8>]) -> World<RawOrigin> {
    let mut env = TestEnv::new();
    let settings = [frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, ACK, 0, &[])].concat();
    let head = frame(HEADERS, END_HEADERS, 1, &[OK, fields].concat());
    let mut steps = vec![Step::Frame(HEADERS), Step::Send([settings, head].concat())];
    // A write for each: what ends the stream must not be met before what it ends.
    for frame in frames {
        steps.extend([Step::Wait, Step::Send(frame.clone())]);
    }
    steps.push(Step::UntilClosed);
    let origin = RawOrigin::https_h2(&env.ca, &[HOST], steps);
    env.acme_at(SECRET, origin.addr);
    World::started(env, origin, &["acme"])
}

/// What an agent that speaks HTTP/1.1 gets of it after the head.
fn asked(world: &World<RawOrigin>) -> Vec<u8> {
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"));
    let head = tunnel.head();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    world.origin.go();
    if head.to_ascii_lowercase().contains("chunked") {
        assert_eq!(tunnel.exactly(9), b"4\r\nhalf\r\n");
    } else {
        assert_eq!(tunnel.exactly(4), b"half");
    }
    world.origin.go();
    tunnel.rest()
}

#[test]
fn a_stream_that_is_reset_without_an_error_is_no_whole_answer() {
    let half = frame(DATA, 0, 1, b"half");
    let reset = |code: u32| frame(RST_STREAM, 0, 1, &code.to_be_bytes());
    let goaway = frame(GOAWAY, 0, 0, &[[0; 4], NO_ERROR.to_be_bytes()].concat());
    let length = field("content-length", b"9");
    for (what, fields, end) in [
        ("NO_ERROR", &[][..], reset(NO_ERROR)),
        ("CANCEL", &[], reset(CANCEL)),
        ("GOAWAY", &[], goaway),
        ("of known length", &length, reset(NO_ERROR)),
    ] {
        let world = answered_with(fields, &[half.clone(), end]);
        let rest = asked(&world);
        assert_eq!(rest.escape_ascii().to_string(), "", "{what}");
        let line = world.env.journal_line(|line| line["path"] == "/v1/items");
        assert_eq!(
            (&line["outcome"], &line["code"]),
            (&"failed".into(), &"upstream_protocol".into()),
            "{what}: {line}"
        );
    }
}

#[test]
fn a_stream_that_has_ended_is_whole_and_so_is_one_of_its_length_that_is_reset_after_it() {
    let half = frame(DATA, 0, 1, b"half");
    let world = answered_with(&[], &[half.clone(), frame(DATA, END_STREAM, 1, b"")]);
    assert_eq!(asked(&world), b"0\r\n\r\n");
    let line = world.env.journal_line(|line| line["path"] == "/v1/items");
    assert_eq!(line["outcome"], "allowed", "{line}");
    let length = field("content-length", b"4");
    let world = answered_with(&length, &[half, frame(RST_STREAM, 0, 1, &NO_ERROR.to_be_bytes())]);
    assert_eq!(asked(&world), b"");
    let line = world.env.journal_line(|line| line["path"] == "/v1/items");
    assert_eq!(line["outcome"], "allowed", "{line}");
}

/// Over HTTP/1.1 the last chunk says that a body is whole. (Over HTTP/2 hyper's own server would take our reset for an end.)
#[test]
fn an_upload_that_its_agent_resets_is_never_whole_for_the_upstream() {
    let (world, mut met) = (World::new(Alpn::H1), Vec::new());
    for round in 1..=8 {
        let mut agent = Flooder::new(&world.agent, HOST);
        let head = frame(HEADERS, END_HEADERS, 1, &request("POST", HOST, "/upload"));
        agent.wire.send_bytes(&[head, frame(DATA, 0, 1, b"half")].concat());
        let there = |seen: &[Seen]| seen.len() == round && seen[round - 1].body_len == 4;
        world.origin.shared.record.wait("the upload", there);
        agent.wire.send_bytes(&frame(RST_STREAM, 0, 1, &NO_ERROR.to_be_bytes()));
        let ended = |seen: &Seen| seen.end != End::Open || seen.body_sha256.is_some();
        let seen = world.origin.shared.record.wait("its end", |seen| ended(&seen[round - 1]));
        assert_eq!(seen[round - 1].body_sha256, None);
        // By which of its two ends the proxy learns it first is nobody's to say.
        let told = |line: &serde_json::Value| line["outcome"] == "aborted" || line["code"] == "body_unreadable";
        let line = world.env.journal_line(|line| line["path"] == "/upload" && !met.contains(&line["id"]));
        assert!(told(&line), "{line}");
        met.push(line["id"].clone());
    }
}

/// A WebSocket that has echoed a message.
fn websocket(world: &World) -> Wire<Tls> {
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!(
        "GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ));
    let head = tunnel.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    tunnel.send_bytes(&[0x81, 0x81, 0, 0, 0, 0, b'x']);
    assert_eq!(tunnel.exactly(3), [0x81, 0x01, b'x']);
    tunnel
}

#[test]
fn a_websocket_whose_ends_have_closed_is_allowed_and_one_that_its_agent_breaks_off_is_aborted() {
    let world = World::new(Alpn::H1);
    let ends = |outcome: &str| world.env.journal_line(|line| line["path"] == "/ws" && line["outcome"] == outcome);
    // Its closing handshake (RFC 6455 §7.1.2), and no goodbye of TLS.
    let mut tunnel = websocket(&world);
    tunnel.send_bytes(&[0x88, 0x82, 0, 0, 0, 0, 3, 232]);
    assert_eq!(tunnel.exactly(4), [0x88, 0x02, 3, 232]);
    drop(tunnel);
    ends("allowed");
    // A reset.
    let tunnel = websocket(&world);
    let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(&tunnel.stream.sock.as_fd(), nix::sys::socket::sockopt::Linger, &at_once).unwrap();
    drop(tunnel);
    ends("aborted");
}
