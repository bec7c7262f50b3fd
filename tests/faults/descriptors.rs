//! A proxy that cannot open anything: what it has to learn all the same, and what it learns as soon as it can.

use std::time::Instant;

use crate::support::PATIENCE;
use crate::support::agent::{Agent, Answer, Tls, Wire};
use crate::support::ca::Alpn;
use crate::support::client::{clean, program, run, skip};
use crate::support::daemon::Daemon;
use crate::{HOST, World};

/// The proxy may have so many descriptors: below what it has already, it opens nothing.
fn limit(daemon: &Daemon, most: &str) {
    let mut prlimit = clean(&program("prlimit").unwrap());
    run(prlimit.args(["--pid", &daemon.pid().to_string(), &format!("--nofile={most}:")]), b"").succeeded();
}

/// Asks in an open tunnel, which needs no descriptor, until it is refused.
#[track_caller]
fn until_refused(tunnel: &mut Wire<Tls>) -> Answer {
    let deadline = Instant::now() + PATIENCE;
    loop {
        tunnel.send(&format!("GET /bytes/10/1 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        let answer = tunnel.answer(false);
        if answer.status() != 200 {
            return answer;
        }
        assert!(Instant::now() < deadline, "still allowed");
        std::thread::yield_now();
    }
}

#[test]
fn without_descriptors_revocations_are_read_and_the_rest_as_soon_as_there_are_some() {
    if program("prlimit").is_none() {
        return skip("a proxy without descriptors", "prlimit is not installed");
    }
    let world = World::new(Alpn::H1);
    let [first, second, third] = ["first", "second", "third"].map(|name| world.env.mint(name, &["acme"]));
    world.env.revoke(&third);
    let mut daemon = world.env.start_as_written();
    let open = |holder: &crate::support::daemon::Holder| {
        let mut tunnel = Agent::new(&world.env, &daemon, Some(&holder.presentation())).tunnel(HOST);
        tunnel.send(&format!("GET /bytes/10/1 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        assert_eq!(tunnel.answer(false).status(), 200);
        tunnel
    };
    let (mut first_tunnel, mut second_tunnel) = (open(&first), open(&second));
    limit(&daemon, "3");
    world.env.revoke(&first);
    assert_eq!(until_refused(&mut first_tunnel).code(), "capability_revoked");

    // What has to be opened waits, and no change of a file tells when it can be.
    let path = world.env.home().join("narrows.toml");
    let toml = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, toml.replace(&format!("hosts = [\"{HOST}\"]"), "hosts = [\"elsewhere.acme.test\"]")).unwrap();
    daemon.wait_for_log("the running configuration stays");
    second_tunnel.send(&format!("GET /bytes/10/1 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert_eq!(second_tunnel.answer(false).status(), 200);
    limit(&daemon, "1024");
    assert_eq!(until_refused(&mut second_tunnel).code(), "service_unknown");
    let (said, _) = daemon.stop();
    assert!(said.matches("the running configuration stays").count() < 5, "said again with every try:\n{said}");
}
