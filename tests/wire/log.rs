//! What clients and upstreams can make the log say: little in a second, and nothing of what libraries think of them.

use std::time::Instant;

use crate::support::agent::Agent;
use crate::support::ca::Alpn;
use crate::support::daemon::TestEnv;
use crate::support::origin::Origin;
use crate::{HOST, SECRET};

#[test]
fn what_a_client_can_repeat_is_said_so_often_in_a_second_and_then_counted() {
    let mut env = TestEnv::new();
    let origin = Origin::https(&env.ca, &[HOST], Alpn::Both);
    env.acme(SECRET, &origin);
    let mut daemon = env.start_with(&[("NARROWS_LOG", "info")]);
    let agent = Agent::new(&env, &daemon, Some("no.credentials"));
    let (began, count) = (Instant::now(), 500);
    let mut wire = agent.dial();
    for _ in 0..count {
        let authorization = agent.authorization();
        wire.send(&format!("CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n{authorization}\r\n"));
        assert_eq!(wire.answer(false).status(), 407);
    }
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
    daemon.wait_for_log("lines of the log are missing");
    let (said, _) = daemon.stop();
    let said_of_it = said.matches("refused credentials").count();
    assert!((1..=20 * seconds).contains(&said_of_it), "{said_of_it} in {seconds} s");
    let left_out = said.lines().filter(|line| line.contains("lines of the log are missing"));
    let left_out: usize =
        left_out.map(|line| line.rsplit("lines=").next().unwrap().trim().parse::<usize>().unwrap()).sum();
    assert_eq!(said_of_it + left_out, count, "{said}");
}
