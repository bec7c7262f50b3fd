//! Request smuggling, agent's side: whatever the head says about the body, the origin sees one request or none, and
//! never the one that was hidden in a body.

use crate::support::ca::Alpn;
use crate::{HOST, World};

/// What would be a request of its own to a parser that is fooled.
const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: api.acme.test\r\n\r\n";

#[test]
fn ambiguous_framing_hides_no_request() {
    let world = World::new(Alpn::H1);
    let length = HIDDEN.len();
    let chunked = format!("{length:x}\r\n{HIDDEN}\r\n0\r\n\r\n");
    let cases = [
        (format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", chunked.len()), chunked.clone()),
        ("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n".to_owned(), format!("0\r\n\r\n{HIDDEN}")),
        (format!("Content-Length: 0\r\nContent-Length: {length}\r\n"), HIDDEN.to_owned()),
        (format!("Content-Length: {length}\r\nContent-Length: 0\r\n"), HIDDEN.to_owned()),
        (format!("Content-Length: {length}, {length}\r\n"), HIDDEN.to_owned()),
        (format!("Content-Length: +{length}\r\n"), HIDDEN.to_owned()),
        (format!("Content-Length: 0x{length:x}\r\n"), HIDDEN.to_owned()),
        (format!("Content-Length : {length}\r\n"), HIDDEN.to_owned()),
        (format!("Content-Length:\r\n {length}\r\n"), HIDDEN.to_owned()),
        ("Transfer-Encoding: chunked, chunked\r\n".to_owned(), chunked.clone()),
        ("Transfer-Encoding: cow, chunked\r\n".to_owned(), chunked.clone()),
        ("Transfer-Encoding: chunked, identity\r\n".to_owned(), chunked.clone()),
        ("Transfer-Encoding: xchunked\r\n".to_owned(), chunked.clone()),
        ("Transfer-Encoding : chunked\r\n".to_owned(), chunked.clone()),
        ("Transfer-Encoding:\u{b}chunked\r\n".to_owned(), chunked.clone()),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n".to_owned(), chunked.clone()),
        ("X: y\nTransfer-Encoding: chunked\r\n".to_owned(), chunked.clone()),
        ("Transfer-Encoding: chunked\r\n".to_owned(), format!("0x{length:x}\r\n{HIDDEN}\r\n0\r\n\r\n")),
        ("Transfer-Encoding: chunked\r\n".to_owned(), format!("{length:x}\n{HIDDEN}\n0\n\n")),
    ];
    for (fields, body) in cases {
        let before = world.origin.seen().len();
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&format!("POST /v1/items HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n{body}"));
        let answers = String::from_utf8_lossy(&tunnel.rest()).into_owned();
        let seen = &world.origin.seen()[before..];
        assert!(seen.len() <= 1 && seen.iter().all(|seen| seen.path == "/v1/items"), "{fields:?}: {seen:#?}");
        assert!(answers.starts_with("HTTP/1.1 400 "), "{fields:?}: {answers}");
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{fields:?}: {answers}");
    }
}

#[test]
fn the_same_request_framed_once_passes() {
    let world = World::new(Alpn::H1);
    let length = HIDDEN.len();
    for (fields, body) in [
        (format!("Content-Length: {length}\r\n"), HIDDEN.to_owned()),
        ("Transfer-Encoding: chunked\r\n".to_owned(), format!("{length:x}\r\n{HIDDEN}\r\n0\r\n\r\n")),
    ] {
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&format!("POST /v1/items HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n{body}"));
        assert_eq!(tunnel.answer(false).status(), 200);
        let seen = world.origin.seen().pop().unwrap();
        assert_eq!((&*seen.path, seen.body_len), ("/v1/items", length as u64));
    }
}

#[test]
fn ambiguous_paths_are_refused() {
    let world = World::new(Alpn::Both);
    let refused = [
        "/v1/../v2",
        "/v1/./items",
        "/v1//items",
        "/v1\\items",
        "/v1%2fitems",
        "/v1/%69tems",
        "/v1/%2e%2e/v2",
        "/v1/%25",
        "/v1/%zz",
        "/v1/%00",
    ];
    for path in refused {
        let answer = world.agent.get(HOST, path);
        assert_eq!((answer.status(), &*answer.code()), (400, "path_ambiguous"), "{path}: {answer:?}");
    }
    assert_eq!(world.origin.connections(), 0);
    for path in ["/v1/items", "/v1/%20", "/v1/items/"] {
        let answer = world.agent.get(HOST, path);
        assert!(matches!(answer.status(), 200 | 404), "{path}: {answer:?}");
    }
}

#[test]
fn headers_for_the_proxy_and_for_one_hop_go_no_further() {
    let world = World::new(Alpn::H1);
    let fields = "Proxy-Authorization: Basic eHg6eXk=\r\nProxy-Connection: keep-alive\r\nKeep-Alive: 5\r\n\
                  Connection: x-hop\r\nX-Hop: 1\r\nX-End: 1\r\n";
    assert_eq!(world.agent.request("GET", HOST, "/v1/items", fields, b"").status(), 200);
    let seen = world.origin.only();
    for name in ["proxy-authorization", "proxy-connection", "keep-alive", "x-hop"] {
        assert_eq!(seen.header(name), None, "{seen:#?}");
    }
    assert_eq!(seen.header("x-end"), Some("1"));
}

#[test]
fn the_path_that_goes_upstream_is_the_one_that_policy_matched() {
    let world = World::new(Alpn::H1);
    world.agent.get(HOST, "/v1/caf%c3%a9?next=%c3%a9");
    assert_eq!(world.origin.only().path, "/v1/caf%C3%A9?next=%c3%a9");
}

/// A head, and a body that breaks in the bytes that come with it.
const BROKEN: &str =
    "DELETE /v1/items/7?all HTTP/1.1\r\nHost: api.acme.test\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\nab\r\n";

#[test]
fn a_body_that_breaks_with_its_head_is_refused_and_has_its_line() {
    let world = World::new(Alpn::H1);
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(BROKEN);
    let answer = tunnel.answer(false);
    assert_eq!((answer.status(), &*answer.code()), (400, "framing"), "{answer:?}");
    assert_eq!(tunnel.rest(), b"", "closed");
    assert_eq!(world.origin.connections(), 0);
    let line = world.env.journal_line(|line| line["id"] == answer.header("narrows-request-id").unwrap());
    assert_eq!((&line["outcome"], &line["code"]), (&"denied".into(), &"framing".into()), "{line}");
}

#[test]
fn a_body_that_breaks_takes_no_request_in_front_of_it_along() {
    let world = World::new(Alpn::H1);
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n{BROKEN}"));
    assert_eq!(tunnel.answer(false).text(), "items");
    assert_eq!(tunnel.answer(false).code(), "framing");
    assert_eq!(tunnel.rest(), b"", "closed");
    assert_eq!(world.origin.only().path, "/v1/items");
    let served = world.env.journal_line(|line| line["path"] == "/v1/items");
    assert_eq!(served["outcome"], "allowed", "{served}");
}

#[test]
fn the_line_of_a_refused_message_says_what_was_sent_and_guesses_nothing() {
    let world = World::new(Alpn::H1);
    let lengths = "Content-Length: 3\r\nContent-Length: 4";
    let cases = [
        // What was sent, and the method and path that its line has.
        (BROKEN.to_owned(), Some(("DELETE", Some("/v1/items/7")))),
        (
            format!("PUT /v1/caf%c3%a9 HTTP/1.1\r\nHost: {HOST}\r\n{lengths}\r\n\r\n"),
            Some(("PUT", Some("/v1/caf%C3%A9"))),
        ),
        (format!("PUT /v1/../v2 HTTP/1.1\r\nHost: {HOST}\r\n{lengths}\r\n\r\n"), Some(("PUT", None))),
        (format!("GET https://{HOST}/v1 HTTP/1.1\r\nHost: {HOST}\r\n{lengths}\r\n\r\n"), Some(("GET", None))),
        (format!("POST /v1/a#b HTTP/1.1\r\nHost: {HOST}\r\n\r\n"), Some(("POST", None))),
        (format!("POST /v1/items HTTP/1.1\nHost: {HOST}\n\n"), None),
        (format!("POST /v1/items HTTP/1.1\r\nHost : {HOST}\r\n\r\n"), None),
        (format!("POST /v1/items HTTP/1.1\r\nHost: {HOST}\r\nX: {}\r\n\r\n", "x".repeat(100 * 1024)), None),
    ];
    for (sent, known) in cases {
        let shown = &sent[..40];
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&sent);
        let answer = tunnel.answer(false);
        assert_eq!((answer.status(), &*answer.code()), (400, "framing"), "{shown:?}: {answer:?}");
        let line = world.env.journal_line(|line| line["id"] == answer.header("narrows-request-id").unwrap());
        let (method, path) = known.map_or((None, None), |(method, path)| (Some(method), path));
        assert_eq!((line["method"].as_str(), line["path"].as_str()), (method, path), "{shown:?}: {line}");
        assert!(line["operation"].is_null() && line["action"].is_null(), "{line}");
        assert_eq!(
            (&line["event"], &line["service"], &line["host"]),
            (&"request".into(), &"acme".into(), &HOST.into())
        );
    }
}

#[test]
fn a_refused_message_is_answered_in_its_senders_style() {
    let world = World::new(Alpn::H1);
    let lengths = "Content-Length: 3\r\nContent-Length: 4";
    for (field, media_type) in [
        ("User-Agent: git/2.47", "text/plain; charset=utf-8"),
        ("Content-Type: application/grpc", "application/grpc"),
        ("User-Agent: curl/8", "application/problem+json"),
    ] {
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&format!("POST /v1/items HTTP/1.1\r\nHost: {HOST}\r\n{field}\r\n{lengths}\r\n\r\n"));
        assert_eq!(tunnel.answer(false).header("content-type"), Some(media_type), "{field}");
    }
}
