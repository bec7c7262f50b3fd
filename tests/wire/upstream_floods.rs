//! Floods from a hostile upstream over HTTP/2. Its own answer is lost at most; memory has a bound, nothing spins, and
//! other hosts are served.

use crate::support::agent::{Agent, Tls, Wire};
use crate::support::ca::Alpn;
use crate::support::daemon::TestEnv;
use crate::support::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY, PUSH_PROMISE, RST_STREAM,
    SETTINGS, UNKNOWN, field, frame, request, window,
};
use crate::support::origin::Origin;
use crate::support::raw::{RawOrigin, Step};
use crate::support::vitals::Vitals;
use crate::{HOST, SECRET, World};

/// What a flood may add to the proxy's memory.
const GROWTH_KIB_MAX: u64 = 48 * 1024;
const OTHER: &str = "other.acme.test";
/// `:status 200`, and `:status 103`.
const OK: &[u8] = &[0x88];
const EARLY_HINTS: &[u8] = &[0x08, 3, b'1', b'0', b'3'];

/// A proxy between an agent and `HOST`, which floods and then answers 200. Meanwhile `OTHER` must be served to others.
struct Siege {
    world: World,
    hostile: RawOrigin,
    innocent: Agent,
    vitals: Vitals,
    peak_kib: u64,
}

impl Siege {
    fn new(flood: Vec<u8>) -> Self {
        let mut env = TestEnv::new();
        let settings = [frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, ACK, 0, &[])].concat();
        let last = frame(HEADERS, END_HEADERS | END_STREAM, 1, OK);
        let flood = vec![Step::Frame(HEADERS), Step::Send(settings), Step::Send(flood)];
        let end = vec![Step::Wait, Step::Send(last), Step::UntilClosed];
        let hostile = RawOrigin::https_h2(&env.ca, &[HOST], [flood, end].concat());
        let other = Origin::https(&env.ca, &[OTHER], Alpn::Both);
        env.acme_at(SECRET, hostile.addr);
        env.dial(OTHER, &other);
        env.service(&format!("name = \"other\"\nhosts = [\"{OTHER}\"]"));
        other.put("/v1/items", "text/plain", "items");
        let world = World::started(env, other, &["acme", "other"]);
        let innocent = world.env.mint("innocent", &["other"]);
        let innocent = Agent::new(&world.env, &world.daemon, Some(&innocent.presentation()));
        assert_eq!(innocent.get(OTHER, "/v1/items").status(), 200);
        let vitals = Vitals::of(world.daemon.pid());
        Self { peak_kib: vitals.peak_kib(), world, hostile, innocent, vitals }
    }

    /// A tunnel that has asked the hostile upstream.
    fn asked(&self) -> Wire<Tls> {
        let mut tunnel = self.world.agent.tunnel(HOST);
        tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        tunnel
    }

    #[track_caller]
    fn holds(&self, what: &str) {
        assert_eq!(self.innocent.get(OTHER, "/v1/items").status(), 200, "{what}");
        self.vitals.assert_idle(what);
        let grown = self.vitals.peak_kib().saturating_sub(self.peak_kib);
        assert!(grown < GROWTH_KIB_MAX, "{what}: the proxy grew by {grown} KiB");
    }
}

/// The status of the answer that follows a flood.
#[track_caller]
fn flooded(what: &str, flood: Vec<u8>) -> u16 {
    let siege = Siege::new(flood);
    let mut tunnel = siege.asked();
    assert_eq!(siege.innocent.get(OTHER, "/v1/items").status(), 200, "{what}");
    siege.hostile.go();
    let status = tunnel.answer(false).status();
    siege.holds(what);
    status
}

#[test]
fn what_means_nothing_is_read_past_or_ends_the_connection() {
    let count = 100_000;
    let floods = [
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[])),
        ("WINDOW_UPDATE", window(0, 1)),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1])),
        ("unknown", frame(UNKNOWN, 0, 0, b"what")),
        ("GOAWAY", frame(GOAWAY, 0, 0, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0])),
    ];
    for (what, flood) in floods {
        let status = flooded(what, flood.repeat(count));
        assert!(matches!(status, 200 | 502), "{what}: {status}");
    }
}

#[test]
fn heads_that_never_end_are_an_upstream_error() {
    let open = frame(HEADERS, 0, 1, OK);
    let more = frame(CONTINUATION, 0, 1, &field("x-more", &[b'a'; 1000]));
    assert_eq!(flooded("CONTINUATION", [open.clone(), more.repeat(20_000)].concat()), 502);
    let empty = frame(CONTINUATION, 0, 1, &[]).repeat(100_000);
    assert_eq!(flooded("empty CONTINUATION", [open.clone(), empty].concat()), 502);
    let long = frame(CONTINUATION, 0, 1, &field("x-long", &[b'a'; 15_000]));
    let end = frame(CONTINUATION, END_HEADERS, 1, &[]);
    assert_eq!(flooded("endless fields", [open, long.repeat(100), end].concat()), 502);
    assert_eq!(flooded("junk", frame(HEADERS, END_HEADERS, 1, &[0xff; 1000])), 502);
}

#[test]
fn hints_are_read_past_however_many_come() {
    let hint = frame(HEADERS, END_HEADERS, 1, &[EARLY_HINTS, &field("link", &[b'a'; 1000])].concat());
    assert_eq!(flooded("early hints", hint.repeat(100_000)), 200);
}

#[test]
fn resets_and_pushes_are_an_upstream_error() {
    let reset = frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes());
    assert_eq!(flooded("RST_STREAM", reset.repeat(100_000)), 502);
    let push = [&2_u32.to_be_bytes()[..], &request("GET", HOST, "/pushed")].concat();
    assert_eq!(flooded("PUSH_PROMISE", frame(PUSH_PROMISE, END_HEADERS, 1, &push).repeat(10_000)), 502);
}

#[test]
fn empty_frames_of_an_answer_cut_it() {
    let head = frame(HEADERS, END_HEADERS, 1, OK);
    let flood = [head, frame(DATA, 0, 1, &[]).repeat(100_000)].concat();
    let siege = Siege::new(flood);
    let mut tunnel = siege.asked();
    let rest = String::from_utf8_lossy(&tunnel.rest()).into_owned();
    assert!(!rest.ends_with("0\r\n\r\n"), "an answer that was cut looks whole: {rest}");
    let line = siege.world.env.journal_line(|line| line["host"] == HOST);
    assert_eq!(line["code"], "upstream_protocol", "{line}");
    siege.holds("empty DATA");
}
