//! Upstreams that break framing: the agent's connection stays in step, and nothing that an upstream says too much is an
//! answer to anybody.

use crate::support::agent::Agent;
use crate::support::daemon::TestEnv;
use crate::support::raw::{RawOrigin, Step};
use crate::{HOST, SECRET, World};

/// An answer that nobody asked for.
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-Poison: 1\r\n\r\npoison";

fn says(answer: &str) -> Vec<Step> {
    vec![Step::Head, Step::Send(answer.as_bytes().to_vec()), Step::UntilClosed]
}

/// One proxy, one service, and an origin for each of these plays: the one of number `n` is at `host(n)`.
fn at_each_host(plays: impl IntoIterator<Item = Vec<Step>>) -> World<Vec<RawOrigin>> {
    let mut env = TestEnv::new();
    env.secret("acme-key", SECRET);
    env.service(
        "name = \"acme\"\ncredential = \"acme-key\"\nhosts = [\"*.acme.test\"]\ninject = \"Authorization: Bearer {secret}\"",
    );
    let origins: Vec<_> = plays
        .into_iter()
        .enumerate()
        .map(|(number, steps)| {
            let origin = RawOrigin::https(&env.ca, &[&host(number)], steps);
            env.dial_at(&format!("{}:443", host(number)), origin.addr);
            origin
        })
        .collect();
    World::started(env, origins, &["acme"])
}

fn host(number: usize) -> String {
    format!("case{number}.acme.test")
}

/// What an agent gets for two requests in one tunnel.
fn twice(agent: &Agent, host: &str) -> [(u16, String, String); 2] {
    let mut tunnel = agent.tunnel(host);
    [(); 2].map(|()| {
        tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let answer = tunnel.answer(false);
        (answer.status(), answer.text(), answer.head)
    })
}

#[test]
fn what_follows_an_answer_is_no_answer() {
    let cases = [
        format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{POISON}"),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{POISON}"),
        format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n{POISON}"),
        format!("HTTP/1.1 204 No Content\r\nContent-Length: {}\r\n\r\n{POISON}", POISON.len()),
        format!(
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{POISON}\r\n0\r\n\r\n",
            POISON.len()
        ),
        format!("HTTP/1.1 304 Not Modified\r\nContent-Length: {}\r\n\r\n{POISON}", POISON.len()),
        format!("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{POISON}"),
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{POISON}"
        ),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n{POISON}"),
        format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok{POISON}"),
        format!("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok{POISON}"),
    ];
    let world = at_each_host(cases.iter().map(|case| says(case)));
    for (number, case) in cases.iter().enumerate() {
        for (status, text, head) in twice(&world.agent, &host(number)) {
            assert!(matches!(status, 200 | 204 | 304 | 502), "{case:?}: {head}");
            assert!(!text.contains("poison") && !head.contains("x-poison"), "{case:?}: {head}{text}");
            let lengths = head.to_ascii_lowercase().matches("content-length:").count();
            let chunked = head.to_ascii_lowercase().matches("transfer-encoding:").count();
            assert!(lengths + chunked <= 1 && !head.contains("2, 2"), "{case:?}: {head}");
            assert!(status != 204 || lengths + chunked == 0, "{case:?}: {head}");
        }
        assert_eq!(world.origin[number].read().len(), 2, "{case:?}: a connection out of step was used again");
    }
}

#[test]
fn an_answer_framed_in_two_ways_costs_its_connection_though_nothing_follows_yet() {
    let doubtful = [
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        "Content-Length: 2, 2\r\n\r\nok",
    ];
    let world = at_each_host(doubtful.map(|case| says(&format!("HTTP/1.1 200 OK\r\n{case}"))));
    for (number, case) in doubtful.iter().enumerate() {
        twice(&world.agent, &host(number));
        assert_eq!(world.origin[number].read().len(), 2, "{case:?}: used again");
    }
    // The twin: the same answer framed once, and the connection serves the next request.
    let one = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let world = World::raw([says(one)[..2].to_vec(), says(one)].concat());
    for _ in 0..2 {
        assert_eq!(world.agent.get(HOST, "/v1/items").text(), "ok");
    }
    assert_eq!(world.origin.read().len(), 1, "a sound connection is kept");
}

#[test]
fn what_is_no_answer_is_an_upstream_error() {
    let cases = [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX: y\r\n folded\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\n: y\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "ICY 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "<html>",
        "\0\0\0\0\r\n\r\n",
        // What lax readers take.
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok",
        "HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok",
        "\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\n\r\n",
    ];
    let world = at_each_host(cases.map(|case| vec![Step::Head, Step::Send(case.into())]));
    for (number, case) in cases.iter().enumerate() {
        let answer = world.agent.request("POST", &host(number), "/v1/items", "", b"{}");
        assert_eq!((answer.status(), &*answer.code()), (502, "upstream_protocol"), "{case:?}: {answer:?}");
        assert_eq!(world.origin[number].read().len(), 1, "{case:?}: a POST was sent again");
        let line = world.env.journal_line(|line| line["host"] == host(number));
        assert_eq!((&line["outcome"], &line["code"]), (&"failed".into(), &"upstream_protocol".into()), "{line}");
    }
}

#[test]
fn a_transfer_coding_that_nobody_asked_for_is_refused_with_a_credential_and_without() {
    let codings = ["gzip, chunked", "gzip", "identity", "cow, chunked", "chunked, gzip"];
    let play = |coding| {
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n2\r\nok\r\n0\r\n\r\n");
        vec![Step::Head, Step::Send(answer.into())]
    };
    let world = at_each_host(codings.map(play));
    for (number, coding) in codings.iter().enumerate() {
        let answer = world.agent.get(&host(number), "/v1/items");
        assert_eq!((answer.status(), &*answer.code()), (502, "body_unreadable"), "{coding}: {answer:?}");
    }
    let mut env = TestEnv::new();
    let origin = RawOrigin::https(&env.ca, &["elsewhere.test"], play("gzip, chunked"));
    env.dial_at("elsewhere.test:443", origin.addr);
    let world = World::started(env, origin, &["web"]);
    let answer = world.agent.get("elsewhere.test", "/v1/items");
    assert_eq!((answer.status(), &*answer.code()), (502, "upstream_protocol"), "{answer:?}");
}

#[test]
fn an_answer_cut_off_looks_cut_off_however_it_is_framed() {
    let cases = [
        "Content-Length: 10\r\n\r\nhalf",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "Transfer-Encoding: chunked\r\n\r\na\r\nhalf",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
    ];
    let cut = cases.map(|case| says(&format!("HTTP/1.1 200 OK\r\n{case}"))[..2].to_vec());
    // What breaks when the head is through; with it, there would be no head.
    let broken =
        ["4\r\nhalf\r\nzz\r\n", "4\r\nhalfXX0\r\n\r\n", "4 \r\nhalf\r\n0\r\n\r\n", "4\r\nhalf\r\n0\r\nX: y\n\r\n"];
    let broken_plays = broken.map(|body| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        vec![Step::Head, Step::Send(head.into()), Step::Wait, Step::Send(body.into())]
    });
    let world = at_each_host(cut.into_iter().chain(broken_plays));
    for (number, case) in cases.iter().chain(&broken).enumerate() {
        let host = host(number);
        let mut tunnel = world.agent.tunnel(&host);
        tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let head = tunnel.head();
        world.origin[number].go();
        let body = tunnel.rest();
        assert!(head.starts_with("HTTP/1.1 200"), "{case:?}: {head}");
        assert!(!body.ends_with(b"0\r\n\r\n") && body.len() < 10, "{case:?}: {head}{}", body.escape_ascii());
        let line = world.env.journal_line(|line| line["host"] == *host);
        assert_eq!(line["outcome"], "failed", "{case:?}: {line}");
    }
}

#[test]
fn an_answer_that_ends_with_tls_without_goodbye_looks_cut_off() {
    // Up to the close: whole only where the close was said, which an attacker on the way cannot.
    let body = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf";
    for (rude, outcome) in [(false, "allowed"), (true, "failed")] {
        let mut steps = vec![Step::Head, Step::Send(body.into())];
        steps.extend(rude.then_some(Step::Drop));
        let world = World::raw(steps);
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"));
        let (_, body) = (tunnel.head(), tunnel.rest());
        assert_eq!(body.ends_with(b"0\r\n\r\n"), !rude, "{}", body.escape_ascii());
        let line = world.env.journal_line(|line| line["path"] == "/v1/items");
        assert_eq!(line["outcome"], outcome, "{line}");
    }
}

#[test]
fn no_connection_is_shared_by_two_agents() {
    // What is said too much on one authority's connection has no second authority to go to.
    let one = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let again = [Step::Head, Step::Send(one.into())];
    let world = World::raw([&again[..], &again, &again, &[Step::UntilClosed]].concat());
    let other = world.env.mint("other", &["acme"]);
    let other = Agent::new(&world.env, &world.daemon, Some(&other.presentation()));
    for agent in [&world.agent, &other, &world.agent, &other] {
        assert_eq!(agent.get(HOST, "/v1/items").text(), "ok");
    }
    let requests: Vec<_> = world.origin.read().iter().map(|read| read.matches("GET ").count()).collect();
    assert_eq!(requests, [2, 2]);
}

/// What a late second answer is for: the next who uses the connection. Two sub-agents of one person are two agents.
#[test]
fn no_connection_is_shared_by_two_holders_below_one_authority() {
    let one = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let again = [Step::Head, Step::Send(one.into())];
    let world = World::raw([&again[..], &again, &again, &[Step::UntilClosed]].concat());
    let sub_agents = ["one", "two"].map(|name| {
        let holder = world.env.delegate(&world.holder, name);
        Agent::new(&world.env, &world.daemon, Some(&holder.presentation()))
    });
    for agent in [&sub_agents[0], &sub_agents[1], &world.agent, &sub_agents[0], &sub_agents[1]] {
        assert_eq!(agent.get(HOST, "/v1/items").text(), "ok");
    }
    let requests: Vec<_> = world.origin.read().iter().map(|read| read.matches("GET ").count()).collect();
    assert_eq!(requests, [2, 2, 1]);
}

#[test]
fn trailers_of_an_answer_neither_frame_nor_set() {
    let fields = "Set-Cookie: a=b\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\nProxy-Authenticate: Basic\r\n\
                  Connection: x\r\nHost: a\r\nX-Sum: 1\r\n";
    let names = "Set-Cookie, Content-Length, Transfer-Encoding, Proxy-Authenticate, Connection, Host, X-Sum";
    let answer = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: {names}\r\n\r\n2\r\nok\r\n0\r\n{fields}\r\n{POISON}"
    );
    let world = World::raw(says(&answer));
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n"));
    tunnel.head();
    let rest = String::from_utf8_lossy(&tunnel.rest()).to_ascii_lowercase();
    assert_eq!(rest, "2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n");
}

#[test]
fn a_head_of_64_kib_passes_and_a_longer_one_does_not() {
    let of = |bytes: usize| {
        let field = format!("X-Long: {}\r\n", "a".repeat(bytes / 64 - "X-Long: \r\n".len()));
        says(&format!("HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\nok", field.repeat(64)))
    };
    let world = at_each_host([of(64 * 1024), of(67 * 1024)]);
    assert_eq!(world.agent.get(&host(0), "/v1/items").text(), "ok");
    assert_eq!(world.agent.get(&host(1), "/v1/items").code(), "upstream_protocol");
}

#[test]
fn a_connection_on_which_something_comes_unasked_is_not_used_again() {
    let one = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let world = World::raw([&says(one)[..2], &[Step::Wait, Step::Send(POISON.into()), Step::UntilClosed]].concat());
    let mut tunnel = world.agent.tunnel(HOST);
    for connections in 1..=3 {
        tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        assert_eq!(tunnel.answer(false).text(), "ok");
        world.origin.go();
        while world.origin.closed() < connections {
            std::thread::yield_now();
        }
    }
    assert_eq!(world.origin.read().len(), 3);
}
