//! What one tree of capabilities may take of the proxy, and what a stranger may: never the others' part.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::agent::Agent;
use crate::support::ca::Alpn;
use crate::support::daemon::TestEnv;
use crate::support::h2_agent::H2Agent;
use crate::support::origin::Origin;
use crate::{HOST, SECRET, World};

fn world(limits: &str) -> World {
    let mut env = TestEnv::new();
    let origin = Origin::https(&env.ca, &[HOST], Alpn::Both);
    env.acme(SECRET, &origin);
    env.setting(limits);
    origin.put("/v1/items", "text/plain", "items");
    World::started(env, origin, &["acme"])
}

fn another_authority(world: &World) -> Agent {
    let holder = world.env.mint("another", &["acme"]);
    Agent::new(&world.env, &world.daemon, Some(&holder.presentation()))
}

#[test]
fn an_authority_that_has_all_its_tunnels_gets_no_more_and_others_do() {
    let world = world("[limits]\nauthority_tunnels_max = 2\n");
    let authority = format!("{HOST}:443");
    let (first, second) = (world.agent.connect(&authority), world.agent.connect(&authority));
    assert_eq!((first.0.status(), second.0.status()), (200, 200));
    let full = world.agent.connect(&authority).0;
    assert_eq!(
        (full.status(), &*full.code(), full.header("connection")),
        (503, "overloaded", Some("close")),
        "{full:?}"
    );
    assert_eq!(another_authority(&world).get(HOST, "/v1/items").status(), 200);
    drop(first);
    // The proxy notices the end of a tunnel by itself.
    while world.agent.connect(&authority).0.status() != 200 {
        std::thread::yield_now();
    }
    let refused = world.env.journal_line(|line| line["event"] == "auth" && line["code"] == "overloaded");
    assert!(refused["user"].is_null(), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_has_all_its_requests_under_way_begins_no_more_and_others_do() {
    let world = world("[limits]\nauthority_requests_max = 16\n");
    let greedy = H2Agent::connect(&world.agent, HOST).await;
    let url = |path: &str| format!("https://{HOST}{path}");
    let hanging: Vec<_> = (0..17)
        .map(|number| {
            let (greedy, url) = (greedy.clone(), url(&format!("/hang/{number}")));
            tokio::spawn(async move { greedy.get(&url).await })
        })
        .collect();
    for number in 0..17 {
        world.origin.wait_for(&format!("/hang/{number}"));
    }
    assert_eq!(greedy.get(&url("/v1/items")).await.status(), 503);
    let line = world.env.journal_line(|line| line["path"] == "/v1/items");
    assert_eq!(line["code"], "overloaded");
    assert_eq!(another_authority(&world).get(HOST, "/v1/items").status(), 200);
    assert_eq!(world.agent.get(HOST, "/v1/items").status(), 200, "each tunnel has room for one");
    for request in hanging {
        request.abort();
    }
}

#[test]
fn a_stranger_is_not_waited_for_and_who_has_authenticated_is() {
    let world = world("[limits]\nauthenticate = \"1s\"\n");
    let mut stranger = world.agent.dial().into_inner();
    let (answer, known) = world.agent.connect(&format!("{HOST}:443"));
    assert_eq!(answer.status(), 200);
    stranger.set_read_timeout(Some(crate::support::PATIENCE)).expect("a timeout");
    assert_eq!(stranger.read(&mut [0; 1]).expect("the end"), 0);
    let mut known = known.into_inner();
    known.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let waiting = known.read(&mut [0; 1]).expect_err("open still");
    assert!(matches!(waiting.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{waiting}");
}

/// What a CONNECT is answered, and its connection; 0 for one that is closed.
fn asked(agent: &Agent) -> (u16, TcpStream) {
    let mut stream = agent.dial().into_inner();
    stream.set_read_timeout(Some(crate::support::PATIENCE)).expect("a timeout");
    let _ = write!(stream, "CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n");
    let mut head = [0; 12];
    let _ = stream.read_exact(&mut head);
    (String::from_utf8_lossy(&head[9..]).parse().unwrap_or_default(), stream)
}

#[test]
fn silent_clients_of_one_listener_do_not_shut_out_those_of_another() {
    const MOST: usize = 16;
    let mut env = TestEnv::new();
    let origin = Origin::https(&env.ca, &[HOST], Alpn::Both);
    env.acme(SECRET, &origin);
    origin.put("/v1/items", "text/plain", "items");
    let pod = env.mint("pod", &["acme"]);
    let (capability, key) = (pod.capability.display(), pod.key.display());
    env.setting(&format!(
        "[[listener]]\nname = \"pod\"\nlisten = \"127.0.0.1:0\"\ncapability = \"{capability}\"\nkey = \"{key}\"\n\
         [limits]\nconnections_max = {MOST}\nauthority_tunnels_max = {MOST}\n"
    ));
    let mut daemon = env.start_with(&[("NARROWS_LOG", "info")]);
    let holder = env.mint("holder", &["acme"]);
    let agent = Agent::new(&env, &daemon, Some(&holder.presentation()));
    let line = daemon.wait_for_log(" for pod");
    let address = line.split(" for pod").next().and_then(|line| line.rsplit(' ').next()).expect("an address");
    let bound = Agent::at(address.parse().expect("an address"), &env.home().join("ca.pem"), None);

    // More than the whole proxy has room for, and none of them says a word.
    let mut silent: Vec<_> = (0..2 * MOST).map(|_| bound.dial().into_inner()).collect();
    assert_eq!(asked(&agent).0, 407, "another listener has room");
    assert_eq!(silent.remove(0).read(&mut [0; 1]).expect("the end"), 0, "the first makes room for who comes after");
    // Those who make room are gone in a moment.
    while asked(&bound).0 != 200 {
        std::thread::yield_now();
    }
    assert_eq!(agent.get(HOST, "/v1/items").status(), 200);
    drop(silent);
    // Those who are known hold the rest of what one listener may have, and no more.
    let known: Vec<_> = (0..MOST).map(|_| asked(&bound)).take_while(|(status, _)| *status == 200).collect();
    assert!((1..=MOST / 2).contains(&known.len()), "{}", known.len());
    assert_eq!(agent.get(HOST, "/v1/items").status(), 200);
}
