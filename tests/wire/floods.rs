//! Floods from a hostile agent over HTTP/2, frame by frame. After each its connection has ended or costs nothing, memory
//! has a bound, and another authority's agent is served.

use std::time::Duration;

use crate::support::agent::Agent;
use crate::support::ca::Alpn;
use crate::support::daemon::TestEnv;
use crate::support::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Fate, Flooder, GOAWAY, HEADERS, PING, PREFACE, PRIORITY,
    RST_STREAM, SETTINGS, UNKNOWN, cancel, field, frame, get, initial_window, integer, request, stream, window,
};
use crate::support::origin::Origin;
use crate::support::vitals::Vitals;
use crate::{HOST, SECRET, World};

/// How long a write may make no progress before we take the proxy to read no more.
const STALL: Duration = Duration::from_millis(300);
/// What a flood may add to the proxy's memory, all that the allocator keeps included. What is sent is a multiple of it,
/// or would be when it is unpacked.
const GROWTH_KIB_MAX: u64 = 48 * 1024;

/// A proxy with a hostile agent and another authority's.
pub(crate) struct Siege {
    pub(crate) world: World,
    pub(crate) innocent: Agent,
    pub(crate) vitals: Vitals,
    peak_kib: u64,
}

impl Siege {
    fn new(limits: &str) -> Self {
        let mut env = TestEnv::new();
        let origin = Origin::https(&env.ca, &[HOST], Alpn::H2);
        env.acme(SECRET, &origin);
        env.setting(limits);
        origin.put("/v1/items", "text/plain", "items");
        Self::of(World::started(env, origin, &["acme"]))
    }

    fn of(world: World) -> Self {
        let innocent = world.env.mint("innocent", &["acme"]);
        let innocent = Agent::new(&world.env, &world.daemon, Some(&innocent.presentation()));
        assert_eq!(innocent.get(HOST, "/v1/items").status(), 200);
        let vitals = Vitals::of(world.daemon.pid());
        let peak_kib = vitals.peak_kib();
        Self { world, innocent, vitals, peak_kib }
    }

    fn flooder(&self) -> Flooder {
        Flooder::new(&self.world.agent, HOST)
    }

    /// What must hold after, and during, every attack.
    #[track_caller]
    fn holds(&self, what: &str) {
        assert_eq!(self.innocent.get(HOST, "/v1/items").status(), 200, "{what}");
        let grown = self.vitals.peak_kib().saturating_sub(self.peak_kib);
        assert!(grown < GROWTH_KIB_MAX, "{what}: the proxy grew by {grown} KiB");
    }

    /// Floods one connection, and looks while it is still held.
    #[track_caller]
    fn flood(&self, what: &str, bytes: &[u8]) -> Fate {
        let mut flooder = self.flooder();
        let fate = flooder.flood(bytes, STALL);
        self.holds(what);
        self.vitals.assert_idle(what);
        fate
    }

    #[track_caller]
    fn ends(&self, what: &str, bytes: &[u8]) {
        let fate = self.flood(what, bytes);
        assert!(matches!(fate, Fate::Ended(_)), "{what}: {fate:?}");
    }
}

fn many(count: usize, each: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    (0..count).flat_map(each).collect()
}

#[test]
fn resets_of_either_side_end_the_connection() {
    let siege = Siege::new("");
    siege.ends("rapid reset", &many(5_000, |n| [get(stream(n), HOST, "/hang"), cancel(stream(n))].concat()));
    // MadeYouReset: it is the server that resets, for what it must (RFC 9113 §5.1, §6.9).
    let overflow = |n| [get(stream(n), HOST, "/hang"), window(stream(n), 0x7fff_ffff)].concat();
    siege.ends("window overflow", &many(5_000, overflow));
    siege.ends(
        "a window update of nothing",
        &many(5_000, |n| [get(stream(n), HOST, "/hang"), window(stream(n), 0)].concat()),
    );
    let late = |n| [get(stream(n), HOST, "/hang"), frame(DATA, 0, stream(n), b"late")].concat();
    siege.ends("data after the end", &many(5_000, late));
    let lying = [request("POST", HOST, "/hang"), field("content-length", b"1")].concat();
    let short = |n| {
        let head = frame(HEADERS, END_HEADERS, stream(n), &lying);
        [head, frame(DATA, END_STREAM, stream(n), b"more than one byte")].concat()
    };
    siege.ends("content longer than promised", &many(5_000, short));
}

#[test]
fn heads_that_never_end_or_unpack_to_much_end_the_connection_or_are_refused() {
    let siege = Siege::new("");
    let open = frame(HEADERS, 0, 1, &request("GET", HOST, "/v1/items"));
    let more = field("x-more", &[b'a'; 1000]);
    let full = many(20_000, |_| frame(CONTINUATION, 0, 1, &more));
    siege.ends("CONTINUATION", &[open.clone(), full].concat());
    let empty = many(100_000, |_| frame(CONTINUATION, 0, 1, &[]));
    siege.ends("empty CONTINUATION", &[open, empty].concat());
    siege.ends("junk", &frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 1000]));

    // An entry of 4 kB in the dynamic table, then a byte for each further copy (RFC 7541 §2.3).
    let mut bomb = request("GET", HOST, "/v1/items");
    bomb.push(0x40);
    for text in [&b"x-bomb"[..], &[b'a'; 3900]] {
        bomb.extend(integer(text.len(), 7));
        bomb.extend_from_slice(text);
    }
    bomb.resize(16_000, 0x80 | 0x3e);
    siege.flood("HPACK bomb", &many(100, |n| frame(HEADERS, END_HEADERS | END_STREAM, stream(n), &bomb)));

    // 1.5 MB of fields in whole frames.
    let part = field("x-part", &[b'a'; 15_000]);
    let head = frame(HEADERS, END_STREAM, 1, &request("GET", HOST, "/v1/items"));
    let middle = many(99, |_| frame(CONTINUATION, 0, 1, &part));
    siege.flood("1.5 MB of fields", &[head, middle, frame(CONTINUATION, END_HEADERS, 1, &part)].concat());
    let seen = siege.world.origin.seen();
    assert!(seen.iter().all(|seen| seen.header("x-bomb").or(seen.header("x-part")).is_none()), "{seen:#?}");
}

#[test]
fn frames_that_cost_nothing_to_send_cost_little_to_read() {
    let siege = Siege::new("");
    let count = 100_000;
    let open = frame(HEADERS, END_HEADERS, 1, &request("POST", HOST, "/upload"));
    let floods = [
        ("SETTINGS", frame(SETTINGS, 0, 0, &[])),
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("PING that was never asked", frame(PING, ACK, 0, &[0; 8])),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1])),
        ("unknown", frame(UNKNOWN, 0, 0, b"what")),
        ("WINDOW_UPDATE", window(0, 1)),
        ("WINDOW_UPDATE of a stream", window(1, 1)),
    ];
    for (what, flood) in floods {
        siege.flood(what, &[open.clone(), flood.repeat(count)].concat());
    }
    siege.ends("empty DATA", &[open, frame(DATA, 0, 1, &[]).repeat(count)].concat());
    let (said, _) = siege.world.daemon.stop();
    assert!(said.lines().count() < 10, "a flood of the log, too:\n{said:.1000}");
}

#[test]
fn streams_beyond_the_bound_are_refused_and_the_others_go_on() {
    let siege = Siege::new("");
    let mut flooder = siege.flooder();
    assert!(flooder.pour(&many(1_500, |n| get(stream(n), HOST, &format!("/hang/{n}"))), STALL));
    let refused = flooder.until(|kind, _, _| matches!(kind, RST_STREAM | GOAWAY)).expect("an answer");
    assert_eq!((refused.0, &*refused.3), (RST_STREAM, &7_u32.to_be_bytes()[..]), "REFUSED_STREAM");
    siege.holds("1,500 streams");
    siege.vitals.assert_idle("1,500 streams");
    let seen = siege.world.origin.seen().iter().filter(|seen| seen.path.starts_with("/hang")).count();
    assert!(seen <= 128, "{seen} requests of one connection are under way");
}

#[test]
fn half_of_anything_held_does_not_spin() {
    let siege = Siege::new("[limits]\nhandshake = \"2s\"\n");
    let head = frame(HEADERS, 0, 1, &request("GET", HOST, "/v1/items"));
    let settings = frame(SETTINGS, 0, 0, &[]);
    let halves = [
        ("half a preface", PREFACE[..20].to_vec()),
        ("half a PING", [PREFACE, &settings, &frame(PING, 0, 0, &[0; 8])[..12]].concat()),
        ("half a HEADERS", [PREFACE, &settings, &head[..20]].concat()),
        ("HEADERS without its end", [PREFACE, &settings, &head].concat()),
        ("half a DATA", [PREFACE, &settings, &frame(DATA, 0, 1, &[0; 9000])[..5000]].concat()),
    ];
    let mut held: Vec<_> = halves
        .iter()
        .map(|(what, bytes)| {
            let mut flooder = Flooder::silent(&siege.world.agent, HOST);
            assert!(flooder.pour(bytes, STALL), "{what}");
            flooder
        })
        .collect();
    siege.holds("halves");
    siege.vitals.assert_idle("halves");
    assert!(held[0].until(|_, _, _| false).is_none(), "half a preface is not waited for");
}

/// What the agent says that it has room for, from nothing to a byte at a time.
#[test]
fn an_agent_that_gives_no_window_is_not_read_ahead_for() {
    let siege = Siege::new("");
    // One connection to the origin for all of them, whose window bounds what comes: as many that come before there is one
    // dial each, and each may hold a stream's window (`docs/hardening.md`).
    assert_eq!(siege.world.agent.get(HOST, "/v1/items").status(), 200);
    let mut flooder = Flooder::with(&siege.world.agent, HOST, &initial_window(0));
    assert!(flooder.pour(&many(100, |n| get(stream(n), HOST, "/bytes/10000000")), STALL));
    let heads = |flooder: &mut Flooder, count: usize| {
        for _ in 0..count {
            flooder.until(|kind, _, _| kind == HEADERS).expect("an answer");
        }
    };
    heads(&mut flooder, 100);
    siege.holds("no window");
    siege.vitals.assert_idle("no window");
    for turn in 0..200 {
        assert!(flooder.pour(&window(stream(turn % 100), 1), STALL));
        let data = flooder.until(|kind, _, _| kind == DATA).expect("a byte");
        assert_eq!(data.3.len(), 1);
    }
    siege.holds("a byte at a time");
    drop(flooder);
    let ended = |line: &serde_json::Value| line["outcome"] == "aborted" && line["path"] == "/bytes/10000000";
    siege.world.env.journal_line(ended);
}
