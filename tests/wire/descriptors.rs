//! A table of descriptors that is full: what runs goes on, nothing spins, and the proxy serves again when there is room.

use std::collections::VecDeque;
use std::process::Command;
use std::time::Instant;

use crate::support::PATIENCE;
use crate::support::agent::Agent;
use crate::support::ca::Alpn;
use crate::support::daemon::TestEnv;
use crate::support::frames::{Flooder, get, stream};
use crate::support::origin::Origin;
use crate::support::vitals::Vitals;
use crate::{HOST, SECRET, World};

/// Descriptors that the proxy may have: its own few, and some connections.
const DESCRIPTORS: u32 = 64;
const OTHER: &str = "other.acme.test";

/// A proxy with that many, with these limits.
fn world(limits: &str) -> World {
    let mut env = TestEnv::new();
    let origin = Origin::https(&env.ca, &[HOST, OTHER], Alpn::H1);
    env.acme(SECRET, &origin);
    env.dial(OTHER, &origin);
    env.service(&format!("name = \"other\"\nhosts = [\"{OTHER}\"]"));
    env.setting(&format!("[limits]\nauthenticate = \"10m\"\n{limits}\n"));
    origin.put("/v1/items", "text/plain", "items");
    env.write_config();
    let daemon = env.start_traced(|narrows| {
        let mut limited = Command::new("/bin/sh");
        limited.args(["-c", &format!("ulimit -n {DESCRIPTORS} && exec \"$0\"")]).arg(narrows.get_program());
        limited.env_clear();
        limited.envs(narrows.get_envs().filter_map(|(name, value)| Some((name, value?))));
        limited
    });
    let holder = env.mint("holder", &["acme", "other"]);
    let agent = Agent::new(&env, &daemon, Some(&holder.presentation()));
    World { daemon, env, origin, holder, agent }
}

/// Has the proxy dial until it has no descriptor left: one connection whose every request needs one of its own. Drop it,
/// and they are free again.
fn fill(world: &World) -> Flooder {
    let mut hungry = Flooder::new(&world.agent, HOST);
    let requests = (0..DESCRIPTORS as usize).flat_map(|number| get(stream(number), HOST, "/hang"));
    hungry.wire.send_bytes(&requests.collect::<Vec<u8>>());
    // None of them is still to come by its own: each hangs at the origin, or found none.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let hanging = world.origin.seen().iter().filter(|seen| seen.path == "/hang").count();
        let refused = world.env.journal().iter().filter(|line| line["path"] == "/hang").count();
        if refused > 0 && hanging + refused == DESCRIPTORS as usize {
            return hungry;
        }
        assert!(Instant::now() < deadline, "{hanging} hang and {refused} were refused");
        std::thread::yield_now();
    }
}

#[test]
fn silent_clients_leave_room_for_others_whatever_the_table_holds() {
    let mut world = world("");
    world.daemon.wait_for_log("RLIMIT_NOFILE");
    // Those who are ended come again at once.
    let mut held: VecDeque<_> = (0..4 * DESCRIPTORS).map(|_| world.agent.dial()).collect();
    for _ in 0..5 {
        assert_eq!(world.agent.get(HOST, "/v1/items").status(), 200);
        for _ in 0..DESCRIPTORS {
            held.pop_front();
            held.push_back(world.agent.dial());
        }
    }
}

#[test]
fn when_nothing_is_left_a_stranger_makes_room_for_who_comes() {
    let world = world("authority_requests_max = 1000");
    let strangers: Vec<_> = (0..4).map(|_| world.agent.dial()).collect();
    let _hungry = fill(&world);
    // There is a descriptor for whoever asks, and for an upstream what others may have left.
    for _ in 0..4 {
        let answer = world.agent.get(OTHER, "/v1/items");
        assert!(answer.status() == 200 || answer.code() == "overloaded", "{answer:?}");
    }
    drop(strangers);
}

#[test]
fn a_full_table_passes() {
    let mut world = world("authority_requests_max = 1000");
    let get = |host: &str| format!("GET /v1/items HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let (mut served, mut unserved) = (world.agent.tunnel(OTHER), world.agent.tunnel(HOST));
    served.send(&get(OTHER));
    assert_eq!(served.answer(false).status(), 200);

    let hungry = fill(&world);
    let held: Vec<_> = (0..8).map(|_| world.agent.dial()).collect();
    world.daemon.wait_for_log("could not be accepted");
    Vitals::of(world.daemon.pid()).assert_idle("a full table");
    // What has its descriptors goes on; what needs one more is told that it is us who have none.
    served.send(&get(OTHER));
    assert_eq!(served.answer(false).status(), 200);
    unserved.send(&get(HOST));
    let answer = unserved.answer(false);
    assert_eq!((answer.status(), &*answer.code()), (503, "overloaded"), "{answer:?}");
    let line = world.env.journal_line(|line| line["host"] == HOST && line["path"] == "/v1/items");
    assert_eq!((&line["outcome"], &line["code"]), (&"failed".into(), &"overloaded".into()), "{line}");

    drop((hungry, held));
    // The upstreams of those who have gone are let go of in a moment.
    let deadline = Instant::now() + PATIENCE;
    loop {
        unserved.send(&get(HOST));
        match unserved.answer(false).status() {
            200 => break,
            status => assert!(status == 503 && Instant::now() < deadline, "{status}"),
        }
    }
    assert_eq!(world.agent.get(HOST, "/v1/items").status(), 200);
}
