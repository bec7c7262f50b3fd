//! A client over HTTP/2 that takes nothing of its answers: it is waited for no longer than one over HTTP/1.1, and what it
//! leaves counts as its requests.

use std::time::Duration;

use crate::support::ca::Alpn;
use crate::support::daemon::TestEnv;
use crate::support::frames::{DATA, Flooder, GOAWAY, HEADERS, RST_STREAM, get, initial_window, stream, window};
use crate::support::origin::Origin;
use crate::support::record::End;
use crate::{HOST, SECRET, World};

const STALL: Duration = Duration::from_millis(300);
const CANCEL: &[u8] = &8_u32.to_be_bytes();

fn world(alpn: Alpn, limits: &str) -> World {
    let mut env = TestEnv::new();
    let origin = Origin::https(&env.ca, &[HOST], alpn);
    env.acme(SECRET, &origin);
    env.setting(limits);
    World::started(env, origin, &["acme"])
}

#[test]
fn a_stream_without_window_is_reset_and_its_neighbours_are_not() {
    for alpn in [Alpn::H1, Alpn::H2] {
        let world = world(alpn, "[limits]\nunread = \"1s\"\n");
        let mut flooder = Flooder::with(&world.agent, HOST, &initial_window(0));
        // One larger than any buffer on the way, and one that is recorded before a byte of it can leave.
        let asked = [get(1, HOST, "/bytes/100000000"), get(3, HOST, "/bytes/9")].concat();
        assert!(flooder.pour(&asked, STALL));
        for _ in 0..2 {
            let reset = flooder.until(|kind, _, _| kind == RST_STREAM).expect("a reset");
            assert_eq!(reset.3, CANCEL);
        }
        let line = world.env.journal_line(|line| line["path"] == "/bytes/100000000");
        assert_eq!(line["outcome"], "aborted", "{line}");
        world.origin.shared.record.wait("the end of the large one", |seen| {
            seen.iter().any(|seen| seen.path == "/bytes/100000000" && seen.end == End::Aborted)
        });
        // The twin: with window the same is served, on the same connection.
        assert!(flooder.pour(&[get(5, HOST, "/bytes/9"), window(5, 9)].concat(), STALL));
        let data = flooder.until(|kind, _, stream| kind == DATA && stream == 5).expect("an answer");
        assert_eq!(data.3.len(), 9);
    }
}

#[test]
fn the_end_of_an_answer_that_nobody_takes_ends_the_connection() {
    let world = world(Alpn::H2, "[limits]\nunread = \"1s\"\n");
    let mut flooder = Flooder::with(&world.agent, HOST, &initial_window(10));
    assert!(flooder.pour(&get(1, HOST, "/bytes/1000"), STALL));
    let data = flooder.until(|kind, _, _| kind == DATA).expect("what there is room for");
    assert_eq!(data.3.len(), 10);
    assert!(flooder.until(|_, _, _| false).is_none());
    let line = world.env.journal_line(|line| line["path"] == "/bytes/1000");
    assert_eq!(line["outcome"], "allowed", "all was handed over to be sent: {line}");
}

#[test]
fn what_a_client_leaves_counts_as_its_requests() {
    let world = world(Alpn::H2, "[limits]\nauthority_requests_max = 16\nunread = \"20s\"\n");
    let mut flooder = Flooder::with(&world.agent, HOST, &initial_window(10));
    let asked = |numbers: std::ops::Range<usize>| numbers.flat_map(|n| get(stream(n), HOST, "/bytes/1000"));
    assert!(flooder.pour(&asked(0..17).collect::<Vec<_>>(), STALL));
    for _ in 0..17 {
        flooder.until(|kind, _, _| kind == DATA).expect("the beginning of an answer");
    }
    let status = |flooder: &mut Flooder, number: usize| {
        assert!(flooder.pour(&get(stream(number), HOST, "/bytes/1"), STALL));
        let head = flooder.until(|kind, _, at| kind == HEADERS && at == stream(number)).expect("an answer");
        head.3[0]
    };
    assert_ne!(status(&mut flooder, 17), 0x88, "one more than the share");
    let line = world.env.journal_line(|line| line["path"] == "/bytes/1");
    assert_eq!(line["code"], "overloaded", "{line}");
    // The twin: what was taken does not count.
    for number in 0..17 {
        assert!(flooder.pour(&window(stream(number), 1000), STALL));
        flooder.until(|kind, flags, at| kind == DATA && flags == 1 && at == stream(number)).expect("the end");
    }
    assert_eq!(status(&mut flooder, 18), 0x88, "`:status 200` in the static table");
}

#[test]
fn an_idle_connection_is_said_goodbye_to_and_a_waiting_one_is_not() {
    let world = world(Alpn::H2, "[limits]\nclient_idle = \"500ms\"\n");
    let mut waiting = Flooder::new(&world.agent, HOST);
    assert!(waiting.pour(&get(1, HOST, "/stream"), STALL));
    world.origin.wait_for("/stream");
    let mut idle = Flooder::new(&world.agent, HOST);
    assert!(idle.until(|kind, _, _| kind == GOAWAY).is_some());
    world.origin.tick("still here.");
    assert!(waiting.until(|kind, _, _| kind == DATA).is_some());
}
