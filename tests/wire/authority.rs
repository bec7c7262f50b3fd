//! Proofs, revocation and budgets, as an agent meets them.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use futures_util::future::join_all;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use narrows::capability::{Budget, BudgetKind, Rate};

use crate::support::PATIENCE;
use crate::support::agent::{Agent, Answer};
use crate::support::ca::Alpn;
use crate::support::daemon::Holder;
use crate::support::h2_agent::H2Agent;
use crate::{HOST, World};

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// More than a connection has room for before it makes more (`proxy::beat`).
const WAITING: usize = 20;

#[test]
fn a_proof_for_one_connect_serves_once_and_there_alone() {
    let world = World::new(Alpn::Both);
    let target = format!("{HOST}:443");
    let credentials = world.holder.proof(&target);
    let agent = Agent::new(&world.env, &world.daemon, Some(&credentials));
    let elsewhere = agent.connect("other.acme.test:443").0;
    assert!(elsewhere.head.contains("error=\"proof_invalid\""), "{elsewhere:?}");
    assert_eq!(agent.get(HOST, "/v1/items").status(), 200);
    let again = agent.connect(&target).0;
    assert_eq!(again.status(), 407);
    assert!(again.head.contains("error=\"proof_replayed\""), "{again:?}");
    let line = world.env.journal_line(|line| line["path"] == "/v1/items");
    assert_eq!((&line["proof"], &line["user"]), (&"connect".into(), &"alice@example.com".into()), "{line}");
}

#[test]
fn of_many_that_show_one_proof_at_once_one_gets_in() {
    let world = World::new(Alpn::Both);
    let target = format!("{HOST}:443");
    let agent = Agent::new(&world.env, &world.daemon, Some(&world.holder.proof(&target)));
    let shown: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| agent.connect(&target).0)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let replayed = |answer: &&Answer| answer.status() == 407 && answer.head.contains("error=\"proof_replayed\"");
    assert_eq!(shown.iter().filter(|answer| answer.status() == 200).count(), 1, "{shown:#?}");
    assert_eq!(shown.iter().filter(replayed).count(), 7, "{shown:#?}");
}

#[test]
fn somebody_elses_key_proves_nothing() {
    let world = World::new(Alpn::Both);
    let mut thief = world.env.mint("thief", &["acme:read path=/nothing"]);
    thief.capability.clone_from(&world.holder.capability);
    let stolen = thief.presentation();
    let answer = Agent::new(&world.env, &world.daemon, Some(&stolen)).connect(&format!("{HOST}:443")).0;
    assert!(answer.head.contains("error=\"proof_invalid\""), "{answer:?}");
}

#[test]
fn a_407_keeps_the_connection() {
    let world = World::new(Alpn::Both);
    let mut wire = Agent::new(&world.env, &world.daemon, None).dial();
    wire.send(&format!("CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n"));
    let answer = wire.answer(false);
    assert!(answer.status() == 407 && answer.head.contains("error=\"missing\""), "{answer:?}");
    let authorization = world.agent.authorization();
    wire.send(&format!("CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n{authorization}\r\n"));
    assert!(wire.head().starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_revoked_capability_ends_within_a_second_also_in_an_open_tunnel() {
    let world = World::new(Alpn::Both);
    let mut tunnel = world.agent.tunnel(HOST);
    let mut get = || {
        tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        tunnel.answer(false)
    };
    assert_eq!(get().status(), 200);
    world.env.revoke(&world.holder);
    let began = Instant::now();
    let denied = loop {
        let answer = get();
        if answer.status() != 200 {
            break answer;
        }
        assert!(began.elapsed() < PATIENCE, "still allowed");
    };
    assert!(began.elapsed().as_millis() < 1_500, "it took {:?}", began.elapsed());
    assert_eq!((denied.status(), &*denied.code()), (403, "capability_revoked"), "{denied:?}");
    // A new tunnel gets its CONNECT, and the reason inside.
    assert_eq!(world.agent.get(HOST, "/v1/items").code(), "capability_revoked");
}

#[test]
fn whoever_revokes_is_told_when_it_counts() {
    let world = World::new(Alpn::Both);
    let others = ["one", "two", "three"].map(|name| world.env.mint(name, &["acme"]));
    let capctl = |cap: &Path| world.env.capctl(&["revoke", "--cap", cap.to_str().unwrap()]);
    for holder in &others {
        let agent = Agent::new(&world.env, &world.daemon, Some(&holder.presentation()));
        let mut tunnel = agent.tunnel(HOST);
        let mut get = || {
            tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
            tunnel.answer(false)
        };
        assert_eq!(get().status(), 200);
        capctl(&holder.capability).succeeded().says("the proxy that runs refuses it from now on");
        assert_eq!(get().code(), "capability_revoked", "the first request after the command");
    }
    assert_eq!(world.agent.get(HOST, "/v1/items").status(), 200);
    // Nobody else is told what is revoked: not at an address, and no name that is none.
    let ask = |stream: &mut dyn ReadWrite, name: &str| {
        write!(stream, "GET /revocations/{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    let list = std::fs::read_to_string(world.env.home().join("revoked.jsonl")).unwrap();
    let block = list.split("\"block\":\"").nth(1).unwrap().split('"').next().unwrap();
    let socket = || UnixStream::connect(world.env.home().join("narrows.sock")).unwrap();
    assert_eq!(ask(&mut socket(), block), 204);
    assert_eq!(ask(&mut socket(), &"0".repeat(64)), 404);
    assert_eq!(ask(&mut socket(), "everything"), 400);
    assert_eq!(ask(&mut TcpStream::connect(world.daemon.addr).unwrap(), block), 400);

    let World { daemon, env, holder, .. } = world;
    daemon.stop();
    let cap = holder.capability.to_str().unwrap();
    env.capctl(&["revoke", "--cap", cap]).succeeded().says("no proxy at this home's socket");
}

#[test]
fn a_line_that_is_none_turns_no_other_revocation_off() {
    let mut world = World::new(Alpn::Both);
    let [early, late, last] = ["early", "late", "last"].map(|name| world.env.mint(name, &["acme"]));
    let code = |world: &World, holder: &Holder| {
        let answer = Agent::new(&world.env, &world.daemon, Some(&holder.presentation())).get(HOST, "/v1/items");
        if answer.status() == 200 { String::new() } else { answer.code() }
    };
    let revoke = |holder: &Holder| world.env.capctl(&["revoke", "--cap", holder.capability.to_str().unwrap()]);
    revoke(&early).succeeded();
    let path = world.env.home().join("revoked.jsonl");
    let mut list = OpenOptions::new().append(true).open(&path).unwrap();
    list.write_all(b"# why: \xff\n").unwrap();
    revoke(&late).failed().says("line 2").says("revoked.jsonl");
    assert_eq!((code(&world, &early), code(&world, &late)), ("capability_revoked".into(), "capability_revoked".into()));
    world.daemon.wait_for_log("line 2 of the revocation list");
    assert_eq!(world.agent.get(HOST, "/v1/items").status(), 200);
    // Mended, it is what it was.
    let good: Vec<u8> = std::fs::read(&path)
        .unwrap()
        .split_inclusive(|&byte| byte == b'\n')
        .filter(|line| line[0] == b'{')
        .flatten()
        .copied()
        .collect();
    std::fs::write(&path, good).unwrap();
    revoke(&last).succeeded();
    assert_eq!(code(&world, &last), "capability_revoked");
}

#[test]
fn a_live_stream_ends_when_its_capability_is_revoked() {
    let world = World::new(Alpn::Both);
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!("GET /sse HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    world.origin.wait_for("/sse");
    tunnel.head();
    world.env.revoke(&world.holder);
    assert!(!String::from_utf8_lossy(&tunnel.rest()).ends_with("0\r\n\r\n"), "an aborted stream looks whole");
    let line = world.env.journal_line(|line| line["path"] == "/sse");
    assert_eq!(line["code"], "capability_revoked", "{line}");
    assert_ne!(line["outcome"], "allowed", "{line}");
}

#[test]
fn calls_are_counted_and_denied_ones_are_not() {
    let world = World::new(Alpn::Both);
    let spender = world.env.mint_with(
        "spender",
        &["acme:read path=/v1"],
        vec![Budget { kind: BudgetKind::Calls, limit: 2 }],
        vec![],
    );
    let agent = Agent::new(&world.env, &world.daemon, Some(&spender.presentation()));
    assert_eq!(agent.get(HOST, "/v2").code(), "capability_denied");
    assert_eq!(agent.get(HOST, "/v1/items").status(), 200);
    assert_eq!(agent.get(HOST, "/v1/items").status(), 200);
    let third = agent.get(HOST, "/v1/items");
    assert_eq!((third.status(), &*third.code()), (403, "budget_exhausted"), "{third:?}");
}

#[test]
fn a_rate_says_when_to_come_back() {
    let world = World::new(Alpn::Both);
    let hasty = world.env.mint_with("hasty", &["acme:read path=/v1"], vec![], vec![Rate { limit: 1, window_s: 3600 }]);
    let agent = Agent::new(&world.env, &world.daemon, Some(&hasty.presentation()));
    assert_eq!(agent.get(HOST, "/v1/items").status(), 200);
    let second = agent.get(HOST, "/v1/items");
    assert_eq!((second.status(), &*second.code()), (429, "rate_limited"), "{second:?}");
    assert!(second.header("retry-after").and_then(|seconds| seconds.parse::<u32>().ok()).is_some(), "{second:?}");
}

#[test]
fn a_secret_that_changes_is_used_by_the_next_request_of_an_open_tunnel() {
    let world = World::new(Alpn::H1);
    let mut tunnel = world.agent.tunnel(HOST);
    world.env.secret("acme-key", "sk-real-the-second");
    let began = Instant::now();
    loop {
        tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        assert_eq!(tunnel.answer(false).status(), 200);
        if world.origin.seen().last().unwrap().header("authorization") == Some("Bearer sk-real-the-second") {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "the old secret is still used");
    }
}

#[test]
fn a_denial_tells_what_would_allow_it() {
    let world = World::with(Alpn::Both, &["acme:read path=/v1"]);
    let answer = world.agent.get(HOST, "/v2/private");
    assert_eq!((answer.status(), &*answer.code()), (403, "capability_denied"), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    for member in ["type", "title", "status", "detail", "request_id", "hint", "message"] {
        assert!(!problem[member].is_null(), "no {member} in {problem}");
    }
    assert_eq!(problem["error"]["message"], problem["message"]);
    assert_eq!(Some(problem["request_id"].as_str().unwrap()), answer.header("narrows-request-id"));
    assert!(problem["hint"].as_str().unwrap().contains("capctl"), "{problem}");
    let line = world.env.journal_line(|line| line["path"] == "/v2/private");
    assert_eq!((&line["outcome"], &line["code"]), (&"denied".into(), &"capability_denied".into()), "{line}");
    assert_eq!(line["id"], problem["request_id"]);
}

#[test]
fn every_answer_of_the_proxys_own_has_an_id_and_a_status() {
    let world = World::new(Alpn::Both);
    let stranger = Agent::new(&world.env, &world.daemon, None);
    let (challenge, _) = stranger.connect(&format!("{HOST}:443"));
    let denied = world.agent.get("nobody.test", "/");
    for answer in [&challenge, &denied] {
        let id = answer.header("narrows-request-id").unwrap_or_default();
        assert_eq!(id.len(), 26, "{answer:?}");
        assert!(
            answer.header("proxy-status").is_some_and(|status| status.starts_with("narrows; error=")),
            "{answer:?}"
        );
    }
    assert_eq!(challenge.status(), 407);
}

#[test]
fn a_dead_capability_is_said_before_what_else_is_wrong() {
    let world = World::new(Alpn::Both);
    world.env.revoke(&world.holder);
    let dead = loop {
        let answer = world.agent.get(HOST, "/v1/../v2");
        if answer.code() != "path_ambiguous" {
            break answer;
        }
    };
    assert_eq!((dead.status(), &*dead.code()), (403, "capability_revoked"), "{dead:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_wait_in_one_http2_tunnel_end_when_their_capability_is_revoked() {
    let world = World::new(Alpn::H2);
    let agent = H2Agent::connect(&world.agent, HOST).await;
    let url = |path: &str| format!("https://{HOST}{path}");
    let ask = |path| agent.send(Request::get(url(path)).body(Full::default()).unwrap());
    let sse = url("/sse");
    let streams = join_all((0..WAITING).map(|_| agent.get(&sse))).await;
    let revoked = async {
        world.origin.shared.record.wait("all requests", |seen| seen.len() == 2 * WAITING);
        world.env.revoke(&world.holder);
    };
    // Some wait for the head of their answer, some for the rest of it.
    let refused = join_all((0..WAITING).map(|_| ask("/hang")));
    let cut = join_all(streams.into_iter().map(|answer| answer.into_body().collect()));
    let ended = async { tokio::join!(refused, cut, revoked) };
    let (refused, cut, ()) = tokio::time::timeout(PATIENCE, ended).await.expect("all of them end");
    for answer in refused {
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 403);
        let status = answer.headers()["proxy-status"].to_str().unwrap();
        assert!(status.ends_with("details=\"capability_revoked\""), "{status}");
    }
    assert!(cut.iter().all(Result::is_err), "an aborted stream looks whole");
}
