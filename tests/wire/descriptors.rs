//! A table of descriptors that is full: what runs goes on, nothing spins, and the proxy serves again when there is room.

use std::io::Read as _;
use std::process::Command;

use crate::support::agent::Agent;
use crate::support::ca::Alpn;
use crate::support::daemon::TestEnv;
use crate::support::origin::Origin;
use crate::support::vitals::Vitals;
use crate::{HOST, SECRET, World};

/// Descriptors that the proxy may have: its own few, and some connections.
const DESCRIPTORS: u32 = 64;
const OTHER: &str = "other.acme.test";

#[test]
fn a_full_table_passes() {
    let mut env = TestEnv::new();
    let origin = Origin::https(&env.ca, &[HOST, OTHER], Alpn::H1);
    env.acme(SECRET, &origin);
    env.dial(OTHER, &origin);
    env.service(&format!("name = \"other\"\nhosts = [\"{OTHER}\"]"));
    env.setting("[limits]\nauthenticate = \"20s\"\n");
    origin.put("/v1/items", "text/plain", "items");
    env.write_config();
    let mut daemon = env.start_traced(|narrows| {
        let mut limited = Command::new("/bin/sh");
        limited.args(["-c", &format!("ulimit -n {DESCRIPTORS} && exec \"$0\"")]).arg(narrows.get_program());
        limited.env_clear();
        limited.envs(narrows.get_envs().filter_map(|(name, value)| Some((name, value?))));
        limited
    });
    let holder = env.mint("holder", &["acme", "other"]);
    let agent = Agent::new(&env, &daemon, Some(&holder.presentation()));
    let get = |host: &str| format!("GET /v1/items HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let (mut served, mut unserved) = (agent.tunnel(HOST), agent.tunnel(OTHER));
    served.send(&get(HOST));
    assert_eq!(served.answer(false).status(), 200);

    let mut held: Vec<_> = (0..2 * DESCRIPTORS).map(|_| agent.dial()).collect();
    daemon.wait_for_log("could not be accepted");
    Vitals::of(daemon.pid()).assert_idle("a full table");
    assert_eq!(daemon.log().matches("could not be accepted").count(), 1, "said once:\n{}", daemon.log());
    // What has its descriptors goes on; what needs one more is told that it is us who have none.
    served.send(&get(HOST));
    assert_eq!(served.answer(false).status(), 200);
    unserved.send(&get(OTHER));
    let answer = unserved.answer(false);
    assert_eq!((answer.status(), &*answer.code()), (503, "overloaded"), "{answer:?}");
    let line = env.journal_line(|line| line["host"] == OTHER);
    assert_eq!((&line["outcome"], &line["code"]), (&"failed".into(), &"overloaded".into()), "{line}");

    drop(held.split_off(1));
    let world = World { daemon, env, origin, holder, agent };
    assert_eq!(world.agent.get(HOST, "/v1/items").status(), 200);
    unserved.send(&get(OTHER));
    assert_eq!(unserved.answer(false).status(), 200);
    let mut first = held.remove(0).into_inner();
    first.set_nonblocking(true).unwrap();
    assert!(first.read(&mut [0; 1]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "held still");
}
