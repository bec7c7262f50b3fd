//! Request smuggling, class by class: every spelling of a framing field, every oddity of chunks, heads and trailers, and
//! upgrades. The origin sees the one request that was judged, or none.

use crate::support::agent::{Answer, Tls, Wire};
use crate::support::ca::Alpn;
use crate::support::raw::Step;
use crate::{HOST, SECRET, World};

/// A request of its own to whoever takes a body for the next message.
const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: api.acme.test\r\n\r\n";

/// How a tunnel ended: its first answer, if any, and what came after it.
fn ending(mut tunnel: Wire<Tls>) -> (Option<Answer>, String) {
    let all = tunnel.rest();
    let text = String::from_utf8_lossy(&all).into_owned();
    let Some((head, rest)) = text.split_once("\r\n\r\n") else {
        assert!(text.is_empty(), "half an answer: {text}");
        return (None, String::new());
    };
    let answer = Answer { head: format!("{head}\r\n\r\n"), body: Vec::new() };
    let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
    (Some(answer), rest.get(length..).unwrap_or_default().to_owned())
}

/// Sends a POST with these fields and this body; the connection must end after at most one answer, which is 400, and
/// the origin see nothing.
#[track_caller]
fn refused(world: &World, fields: &str, body: &str) {
    let before = world.origin.seen().len();
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!("POST /v1/items HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n{body}"));
    let (answer, rest) = ending(tunnel);
    let answer = answer.unwrap_or_else(|| panic!("{fields:?}: no answer"));
    assert_eq!((answer.status(), &*rest), (400, ""), "{fields:?}: {answer:?}");
    assert_eq!(world.origin.seen().len(), before, "{fields:?}");
}

#[test]
fn one_spelling_of_transfer_encoding() {
    let world = World::new(Alpn::H1);
    let chunked = format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len());
    let values = [
        "",
        " ",
        ",",
        "chunked,",
        ",chunked",
        ", chunked",
        "chunked, chunked",
        "chunked,identity",
        "identity",
        "identity, chunked",
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
        "deflate",
        "compress, chunked",
        "x-chunked",
        "xchunked",
        "chunkedx",
        "chunke",
        "chunked;q=1",
        "chunked ;a=b",
        "chunked; ",
        "\"chunked\"",
        "'chunked'",
        "chunked\u{b}",
        "\u{b}chunked",
        "\u{c}chunked",
        "\u{a0}chunked",
        "chunked\u{0}",
        "\u{0}chunked",
        "chunked\u{7f}",
        "chunked\u{85}",
        "chunked\rchunked",
        "chun ked",
        "cow",
        "cow, chunked",
        "chunked, cow",
        "null",
        "trailers, chunked",
        "chunked\r\n\tchunked",
        "\r\n chunked",
        "ｃhunked",
        "chunKed, chunked",
        "{chunked}",
        "chunked/1.0",
        "chunked:chunked",
    ];
    for value in values {
        refused(&world, &format!("Transfer-Encoding: {value}\r\n"), &chunked);
    }
    let lines = [
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "\tTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding:chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\nX: y\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "Transfer\0-Encoding: chunked\r\n",
        "Transfer-Encoding\u{85}: chunked\r\n",
        "Transfer-Encoding\r\n: chunked\r\n",
        "Transfer-Encoding\r\n chunked\r\n",
        "Transfer Encoding: chunked\r\n",
    ];
    for line in lines {
        refused(&world, line, &chunked);
    }
    // The twins: the one coding, its case and the white space around it.
    for value in ["chunked", "Chunked", "CHUNKED", "chunked ", "\tchunked\t"] {
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&format!(
            "POST /upload HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: {value}\r\nConnection: close\r\n\r\n{chunked}"
        ));
        assert_eq!(tunnel.answer(false).status(), 200, "{value:?}");
        let seen = world.origin.seen().pop().unwrap();
        assert_eq!((seen.body_len, seen.header("content-length")), (HIDDEN.len() as u64, None));
    }
    assert!(world.origin.seen().iter().all(|seen| seen.path == "/upload"));
}

#[test]
fn one_spelling_of_content_length() {
    let world = World::new(Alpn::H1);
    let n = HIDDEN.len();
    let values = [
        String::new(),
        " ".to_owned(),
        format!("+{n}"),
        format!("-{n}"),
        "-1".to_owned(),
        format!("{n}.0"),
        format!("{n},"),
        format!(",{n}"),
        format!("{n},{n}"),
        format!("{n}, {n}"),
        format!("0, {n}"),
        format!("{n}, 0"),
        format!("{n} {n}"),
        format!("{n};"),
        format!("{n}abc"),
        format!("abc{n}"),
        format!("0x{n:x}"),
        format!("0X{n:x}"),
        format!("0o{n:o}"),
        format!("0b{n:b}"),
        format!("{n}e0"),
        format!("\"{n}\""),
        format!("'{n}'"),
        format!("{n}_0"),
        format!("{n}\u{0}"),
        format!("\u{b}{n}"),
        format!("{n}\u{c}"),
        format!("\u{a0}{n}"),
        "４９".to_owned(),
        "٤٩".to_owned(),
        "18446744073709551616".to_owned(),
        "18446744073709551615".to_owned(),
        "9223372036854775808".to_owned(),
        format!("{}", (1_u128 << 64) + n as u128),
        format!("{}{n}", "0".repeat(40)),
        "9".repeat(400),
        "chunked".to_owned(),
        "NaN".to_owned(),
        format!("\r\n {n}"),
        format!("{n}\r\n 0"),
    ];
    for value in &values {
        refused(&world, &format!("Content-Length: {value}\r\n"), HIDDEN);
    }
    let lines = [
        format!("Content-Length : {n}\r\n"),
        format!(" Content-Length: {n}\r\n"),
        format!("Content-Length: {n}\r\nContent-Length: {n}\r\n"),
        format!("Content-Length: {n}\r\ncontent-length: 0\r\n"),
        format!("Content-Length: 0\r\nX: y\r\nContent-Length: {n}\r\n"),
        format!("Content-Length: {n}\nX: y\r\n"),
        format!("Content\0Length: {n}\r\n"),
        format!("Content-Length\u{a0}: {n}\r\n"),
    ];
    for line in &lines {
        refused(&world, line, HIDDEN);
    }
    // The twins; whatever zeros are in front, the origin reads the one spelling.
    for value in [format!("{n}"), format!("  {n}\t"), format!("00{n}")] {
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&format!("POST /upload HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {value}\r\n\r\n{HIDDEN}"));
        assert_eq!(tunnel.answer(false).status(), 200, "{value:?}");
        let seen = world.origin.seen().pop().unwrap();
        assert_eq!((&*seen.path, seen.header("content-length")), ("/upload", Some(&*n.to_string())), "{value:?}");
    }
}

#[test]
fn a_framing_field_in_another_spelling_frames_nothing_and_goes_nowhere() {
    let world = World::new(Alpn::H1);
    for field in ["Transfer_Encoding: chunked", "Transfer.Encoding: chunked", "Content_Length: 3", "CONTENT_length: 0"]
    {
        let answer = world.agent.request("POST", HOST, "/upload", &format!("{field}\r\n"), HIDDEN.as_bytes());
        assert_eq!(answer.status(), 200, "{field}: {answer:?}");
        let seen = world.origin.seen().pop().unwrap();
        let name = field.split(':').next().unwrap();
        assert_eq!((seen.body_len, seen.header(name)), (HIDDEN.len() as u64, None), "{field}");
    }
    assert!(world.origin.seen().iter().all(|seen| seen.path == "/upload"));
}

#[test]
fn a_broken_chunk_ends_the_connection_and_no_request_is_whole() {
    let world = World::new(Alpn::H1);
    let n = HIDDEN.len();
    let long = format!("{n:x};{}\r\n{HIDDEN}\r\n0\r\n\r\n", "x".repeat(64 * 1024));
    let many = format!("{n:x}\r\n{HIDDEN}\r\n0\r\n{}\r\n", "X: y\r\n".repeat(5000));
    let bodies = [
        format!("+{n:x}\r\n{HIDDEN}\r\n0\r\n\r\n"),
        format!("-{n:x}\r\n{HIDDEN}\r\n0\r\n\r\n"),
        format!("0x{n:x}\r\n{HIDDEN}\r\n0\r\n\r\n"),
        format!(" {n:x}\r\n{HIDDEN}\r\n0\r\n\r\n"),
        format!("{n:x} \r\n{HIDDEN}\r\n0\r\n\r\n"),
        format!("\t{n:x}\r\n{HIDDEN}\r\n0\r\n\r\n"),
        format!("{n:x}\n{HIDDEN}\r\n0\r\n\r\n"),
        format!("{n:x}\r{HIDDEN}\r\n0\r\n\r\n"),
        format!("{n:x}\r\r\n{HIDDEN}\r\n0\r\n\r\n"),
        format!("{n:x}\0\r\n{HIDDEN}\r\n0\r\n\r\n"),
        format!("{n:x},\r\n{HIDDEN}\r\n0\r\n\r\n"),
        format!("{n:x}h\r\n{HIDDEN}\r\n0\r\n\r\n"),
        format!("{n:x};a\nb\r\n{HIDDEN}\r\n0\r\n\r\n"),
        format!("{n:x};a\rb\r\n{HIDDEN}\r\n0\r\n\r\n"),
        format!("{n:x};a\0b\r\n{HIDDEN}\r\n0\r\n\r\n"),
        format!("{n:x}\r\n{HIDDEN}0\r\n\r\n"),
        format!("{n:x}\r\n{HIDDEN}\n0\r\n\r\n"),
        format!("{n:x}\r\n{HIDDEN}\r0\r\n\r\n"),
        format!("{n:x}\r\n{HIDDEN}XX0\r\n\r\n"),
        format!("{n:x}\r\n{HIDDEN}\r\n0\n\n"),
        format!("{n:x}\r\n{HIDDEN}\r\n0\r\n\n"),
        format!("{n:x}\r\n{HIDDEN}\r\n0\r\nX: a\nY: b\r\n\r\n"),
        format!("{n:x}\r\n{HIDDEN}\r\n0\r\n folded: a\r\n\r\n"),
        format!("{n:x}\r\n{HIDDEN}\r\n0\r\nX: a\0\r\n\r\n"),
        format!("10000000000000000{n:x}\r\n{HIDDEN}\r\n0\r\n\r\n"),
        format!("ffffffffffffffff\r\n{HIDDEN}\r\n0\r\n\r\n"),
        format!("{}{n:x}\r\n{HIDDEN}\r\n0\r\n\r\n", "0".repeat(64)),
        format!("\r\n{n:x}\r\n{HIDDEN}\r\n0\r\n\r\n"),
        format!(";a\r\n{HIDDEN}\r\n0\r\n\r\n"),
        format!("\u{ff11}\r\n{HIDDEN}\r\n0\r\n\r\n"),
        long,
        many,
    ];
    for body in &bodies {
        let shown = body.get(..40.min(body.len())).unwrap_or(body);
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&format!("POST /upload HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
        let (answer, rest) = ending(tunnel);
        assert!(answer.is_none_or(|answer| answer.status() == 400) && rest.is_empty(), "{shown:?}: {rest}");
    }
    let seen = world.origin.seen();
    assert!(seen.iter().all(|seen| seen.path == "/upload" && seen.body_sha256.is_none()), "{seen:#?}");
    // The twins: extensions and trailers within bounds; the extensions stay behind.
    for body in [
        format!("{n:X};a=b\r\n{HIDDEN}\r\n0;c\r\nX-Sum: 1\r\n\r\n"),
        format!("000{n:x}\r\n{HIDDEN}\r\n000\r\n\r\n"),
        HIDDEN.chars().map(|one| format!("1\r\n{one}\r\n")).collect::<Vec<_>>().concat() + "0\r\n\r\n",
    ] {
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&format!("POST /upload HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
        assert_eq!(tunnel.answer(false).status(), 200);
        let seen = world.origin.seen().pop().unwrap();
        assert!(seen.body_len == n as u64 && seen.body_sha256.is_some(), "{seen:#?}");
    }
}

#[test]
fn a_head_has_one_reading_or_none() {
    let world = World::new(Alpn::H1);
    let fields = [
        "X: a\r\n b\r\n",
        "X: a\r\n\tb\r\n",
        "X : a\r\n",
        "X\t: a\r\n",
        " X: a\r\n",
        ": a\r\n",
        "no colon\r\n",
        "X: a\0b\r\n",
        "X: a\rb\r\n",
        "X: a\nb: c\r\n",
        "X: a\u{7f}\r\n",
        "X: a\u{1}\r\n",
        "X\0: a\r\n",
        "X Y: a\r\n",
        "X(Y): a\r\n",
        "X,Y: a\r\n",
        "X/Y: a\r\n",
        "X[0]: a\r\n",
        "\u{e9}: a\r\n",
        "X\r\n",
        "Host: api.acme.test\r\n",
        "host:api.acme.test\r\n",
        "Host : other.acme.test\r\n",
        "HOST: other.acme.test\r\n",
    ];
    for field in fields {
        refused(&world, &format!("{field}Content-Length: 0\r\n"), "");
    }
    refused(&world, &format!("X: {}\r\n", "a".repeat(100 * 1024)), "");
    refused(&world, &"X: a\r\n".repeat(600), "");
    refused(&world, &format!("{}: a\r\n", "X".repeat(70_000)), "");
    assert_eq!(world.agent.get(HOST, "/v1/items").status(), 200);
}

#[test]
fn trailers_carry_no_credential_no_host_and_no_framing() {
    let doomed = [
        "Authorization: Bearer mine",
        "Proxy-Authorization: Basic eHg6eXk=",
        "X-Api-Key: mine",
        "Cookie: a=b",
        "Host: other.acme.test",
        "Content-Length: 3",
        "Transfer-Encoding: chunked",
        "Connection: x-sum",
        "X-HTTP-Method-Override: DELETE",
        "X-Forwarded-Host: other.acme.test",
        "Content-Type: text/html",
        "Trailer: x",
    ];
    let names: Vec<&str> = doomed.iter().map(|field| field.split(':').next().unwrap()).collect();
    for alpn in [Alpn::H1, Alpn::H2] {
        let world = World::new(alpn);
        let mut tunnel = world.agent.tunnel(HOST);
        for announced in [names.join(", ") + ", X-Kept", "X-Kept".to_owned()] {
            tunnel.send(&format!(
                "POST /upload HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\nTrailer: {announced}\r\n\r\n\
                 2\r\n{{}}\r\n0\r\n{}\r\nX-Kept: 1\r\n\r\n",
                doomed.join("\r\n")
            ));
            assert_eq!(tunnel.answer(false).status(), 200);
            let seen = world.origin.seen().pop().unwrap();
            let trailers = seen.trailers.clone().unwrap_or_default();
            assert_eq!(trailers.keys().map(http::HeaderName::as_str).collect::<Vec<_>>(), ["x-kept"], "{seen:#?}");
            assert_eq!(seen.header("authorization"), Some(&*format!("Bearer {SECRET}")));
        }
        let line = world.env.journal_line(|line| line["path"] == "/upload");
        assert_eq!(line["foreign_credential"], true, "{line}");
    }
}

#[test]
fn what_is_nominated_for_one_hop_is_never_ours() {
    let world = World::new(Alpn::H1);
    let secret = format!("Bearer {SECRET}");
    let websocket =
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for nominated in ["authorization", "Authorization, host", "host, content-length, transfer-encoding", "te, trailer"]
    {
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&format!(
            "GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade, {nominated}\r\nConnection: authorization\r\n\
             Authorization: Bearer mine\r\n{websocket}\r\n"
        ));
        assert!(tunnel.head().starts_with("HTTP/1.1 101 "), "{nominated}");
        let seen = world.origin.seen().pop().unwrap();
        assert_eq!((seen.header("authorization"), &*seen.host), (Some(&*secret), HOST), "{nominated}: {seen:#?}");
        assert_eq!(seen.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("upgrade"), "{seen:#?}");
    }
    for framing in ["Content-Length: 2\r\n\r\n{}", "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"] {
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&format!(
            "POST /upload HTTP/1.1\r\nHost: {HOST}\r\nConnection: host, authorization, content-length, transfer-encoding\r\n\
             {framing}"
        ));
        assert_eq!(tunnel.answer(false).status(), 200, "{framing}");
        let seen = world.origin.seen().pop().unwrap();
        assert_eq!((seen.header("authorization"), &*seen.host, seen.body_len), (Some(&*secret), HOST, 2), "{seen:#?}");
    }
}

#[test]
fn an_upgrade_is_a_websocket_or_none() {
    let world = World::new(Alpn::H1);
    for upgrade in ["h2c", "foo", "TLS/1.0", "websocket, h2c", "h2c, websocket", "web socket", "websocketx", "HTTP/2.0"]
    {
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&format!(
            "GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\n\
             HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n{HIDDEN}"
        ));
        let first = tunnel.answer(false);
        assert_eq!(first.status(), 200, "{upgrade}: {first:?}");
        let (seen, judged) = (world.origin.seen(), tunnel.answer(false));
        // What came early is a request of its own, judged as one.
        assert_eq!(judged.status(), 404, "{upgrade}: {judged:?}");
        let asked = &seen[seen.iter().rposition(|seen| seen.path == "/v1/items").unwrap()];
        for name in ["upgrade", "connection", "http2-settings"] {
            assert_eq!(asked.header(name), None, "{upgrade}: {asked:#?}");
        }
    }
    assert!(world.origin.seen().iter().all(|seen| seen.header("authorization").is_some()));
}

#[test]
fn what_comes_before_the_101_is_held_until_it() {
    let accepted = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let steps = vec![Step::Head, Step::Wait, Step::Send(accepted.into()), Step::Read(6), Step::UntilClosed];
    let world = World::raw(steps);
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!(
        "GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\u{1}early"
    ));
    let read = || world.origin.read().pop().unwrap_or_default();
    while !read().ends_with("\r\n\r\n") {
        std::thread::yield_now();
    }
    let head = read();
    assert!(!head.contains("early"), "{head}");
    world.origin.go();
    assert!(tunnel.head().starts_with("HTTP/1.1 101 "));
    while read().len() < head.len() + 6 {
        std::thread::yield_now();
    }
    assert_eq!(read().strip_prefix(&*head), Some("\u{1}early"));
}

#[test]
fn an_expectation_hides_no_request() {
    let world = World::new(Alpn::H1);
    let n = HIDDEN.len();
    for expect in ["100-continue", "100-Continue", "200-ok", "100-continue, x", "", "x\r\nExpect: 100-continue"] {
        let before = world.origin.seen().len();
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&format!(
            "POST /upload HTTP/1.1\r\nHost: {HOST}\r\nExpect: {expect}\r\nContent-Length: {n}\r\n\r\n{HIDDEN}\
             GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
        ));
        let mut first = tunnel.answer(false);
        if first.status() == 100 {
            first = tunnel.answer(false);
        }
        assert!(matches!(first.status(), 200 | 417), "{expect:?}: {first:?}");
        let _ = tunnel.rest();
        for seen in &world.origin.seen()[before..] {
            assert!(matches!(&*seen.path, "/upload" | "/v1/items"), "{expect:?}: {seen:#?}");
        }
    }
}

#[test]
fn the_body_of_a_refused_request_is_no_request() {
    let world = World::with(Alpn::H1, &["acme:read path=/v1", "acme:write path=/v1"]);
    let n = HIDDEN.len();
    for (path, status) in [("/v2/private", 403), ("/v1//x", 400)] {
        for framing in [
            format!("Content-Length: {n}\r\n\r\n{HIDDEN}"),
            format!("Transfer-Encoding: chunked\r\n\r\n{n:x}\r\n{HIDDEN}\r\n0\r\n\r\n"),
        ] {
            let mut tunnel = world.agent.tunnel(HOST);
            let last = format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
            tunnel.send(&format!("POST {path} HTTP/1.1\r\nHost: {HOST}\r\n{framing}{last}"));
            assert_eq!(tunnel.answer(false).status(), status, "{path}");
            let rest = String::from_utf8_lossy(&tunnel.rest()).into_owned();
            assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 200"), "{path}: {rest}");
        }
    }
    assert!(world.origin.seen().iter().all(|seen| seen.path == "/v1/items"));
    let lines = world.env.journal();
    assert!(lines.iter().all(|line| line["path"] != "/smuggled"), "{lines:#?}");
}
