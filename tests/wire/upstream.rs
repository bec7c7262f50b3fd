//! Upstreams that fail, lie, or close.

use std::time::Instant;

use crate::support::PATIENCE;
use crate::support::ca::Alpn;
use crate::support::daemon::TestEnv;
use crate::support::origin::Origin;
use crate::support::raw::Step;
use crate::support::vitals::Vitals;
use crate::{HOST, SECRET, World};

fn says(answer: &str) -> Vec<Step> {
    vec![Step::Head, Step::Send(answer.as_bytes().to_vec())]
}

#[test]
fn what_an_upstream_breaks_is_an_upstream_error() {
    let cases = [
        "",
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 999999 OK\r\n\r\n",
    ];
    for case in cases {
        let world = World::raw(says(case));
        let answer = world.agent.request("POST", HOST, "/v1/items", "", b"{}");
        assert_eq!((answer.status(), &*answer.code()), (502, "upstream_protocol"), "{case:?}: {answer:?}");
        assert_eq!(world.origin.read().len(), 1, "a POST was sent again");
    }
}

#[test]
fn an_answer_with_two_framings_is_reframed_as_one_and_its_connection_not_used_again() {
    // To a parser that believes the length, a second answer follows.
    let hidden = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhidden";
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let world = World::raw(vec![Step::Head, Step::Send(format!("{both}{hidden}").into()), Step::UntilClosed]);
    let mut tunnel = world.agent.tunnel(HOST);
    for _ in 0..2 {
        tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        let answer = tunnel.answer(false);
        assert!(!answer.text().contains("hidden"), "{answer:?}");
        if answer.status() == 200 {
            assert!(answer.body.is_empty() && answer.header("content-length").is_none(), "{answer:?}");
        } else {
            assert_eq!(answer.code(), "upstream_protocol");
        }
    }
    assert_eq!(world.origin.read().len(), 2, "a connection out of step was used again");
}

#[test]
fn an_answer_that_is_cut_off_does_not_look_whole() {
    for cut in ["Content-Length: 10\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let world = World::raw(says(&format!("HTTP/1.1 200 OK\r\n{cut}")));
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        let head = tunnel.head();
        let body = String::from_utf8_lossy(&tunnel.rest()).into_owned();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(!body.ends_with("0\r\n\r\n") && body.len() < 14, "{head}{body}");
        let line = world.env.journal_line(|line| line["path"] == "/v1/items");
        assert_ne!(line["outcome"], "allowed", "{line}");
    }
}

#[test]
fn a_connection_that_closed_while_idle_costs_nobody_a_request() {
    let world = World::raw(says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
    let mut tunnel = world.agent.tunnel(HOST);
    let open = Vitals::of(world.daemon.pid()).descriptors();
    for turn in 1..=3 {
        tunnel.send(&format!("POST /v1/items HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2\r\n\r\n{{}}"));
        assert_eq!(tunnel.answer(false).text(), "ok", "request {turn}");
        // Whoever asks while the end is on its way cannot know of it.
        let deadline = Instant::now() + PATIENCE;
        while Vitals::of(world.daemon.pid()).descriptors() > open {
            assert!(Instant::now() < deadline, "the connection is kept though its peer has closed it");
            std::thread::yield_now();
        }
    }
    let posts = world.origin.read().iter().filter(|read| read.starts_with("POST ")).count();
    assert_eq!(posts, 3, "each request is sent once");
}

#[test]
fn an_early_hint_does_not_disturb_the_answer() {
    let hint = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
    let world = World::raw(says(&format!("{hint}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")));
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    let mut answer = tunnel.answer(false);
    if answer.status() == 103 {
        answer = tunnel.answer(false);
    }
    assert_eq!((answer.status(), &*answer.text()), (200, "ok"));
}

#[test]
fn nobody_there_is_upstream_refused() {
    let mut env = TestEnv::new();
    env.acme_at(SECRET, "127.0.0.1:1".parse().unwrap());
    let lonely = World::<()>::started(env, (), &["acme"]);
    let answer = lonely.agent.get(HOST, "/v1/items");
    assert_eq!((answer.status(), &*answer.code()), (502, "upstream_refused"), "{answer:?}");
    assert!(answer.header("proxy-status").is_some() && answer.header("narrows-request-id").is_some(), "{answer:?}");
}

#[test]
fn a_certificate_for_another_name_is_not_trusted_with_a_secret() {
    let mut env = TestEnv::new();
    let stranger = Origin::https(&env.ca, &["other.acme.test"], Alpn::Both);
    env.acme(SECRET, &stranger);
    let world = World::started(env, stranger, &["acme"]);
    let answer = world.agent.get(HOST, "/v1/items");
    assert_eq!((answer.status(), &*answer.code()), (502, "upstream_tls"), "{answer:?}");
    assert_eq!(world.origin.seen().len(), 0);
}

#[test]
fn why_an_upstream_was_not_reached_is_the_operators_to_know() {
    let mut env = TestEnv::new();
    let other = Origin::https(&env.ca, &["other.acme.test"], Alpn::Both);
    env.acme_at(SECRET, other.addr);
    let mut world = World::started(env, other, &["acme"]);
    let answer = world.agent.get(HOST, "/v1/items");
    assert_eq!(answer.code(), "upstream_tls", "{answer:?}");
    assert!(!format!("{answer:?}").contains("other.acme.test"), "{answer:?}");
    let line = world.daemon.wait_for_log("an upstream was not reached");
    assert!(line.contains(HOST) && line.contains("other.acme.test"), "the certificate's name is the cause: {line}");
}

#[test]
fn addresses_inside_are_forbidden_unless_listed() {
    // A service that names an address of the inside, with nothing that allows it.
    let mut env = TestEnv::new();
    let inside = Origin::https(&env.ca, &["127.0.0.1"], Alpn::Both);
    env.service(&format!("name = \"inside\"\nhosts = [\"127.0.0.1:{}\"]", inside.port()));
    let port = inside.port();
    let world = World::started(env, inside, &["inside"]);
    let mut tunnel = world.agent.tunnel_with("127.0.0.1", port, "127.0.0.1", &[]).unwrap();
    tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"));
    let answer = tunnel.answer(false);
    assert_eq!((answer.status(), &*answer.code()), (502, "address_forbidden"), "{answer:?}");
    assert_eq!(world.origin.connections(), 0);
}
