//! More of what a hostile agent or upstream tries: odd authorities, odd request lines, nominated headers, early bytes,
//! floods, half-finished exchanges. After each the proxy still serves.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::support::PATIENCE;
use crate::support::ca::Alpn;
use crate::support::raw::Step;
use crate::support::record::End;
use crate::{HOST, SECRET, World};

/// How long a write may make no progress before we take the peer to have stopped reading.
const STALL: Duration = Duration::from_millis(300);

#[test]
fn an_authority_has_one_spelling_or_none() {
    let world = World::new(Alpn::Both);
    let refused = [
        "api.acme.test",
        "api.acme.test:",
        "api.acme.test:0",
        "api.acme.test:+443",
        "api.acme.test:0443",
        "api.acme.test:65979",
        "api.acme.test:443:443",
        "user@api.acme.test:443",
        "api.acme.test@evil.test:443",
        "api.acme.test%2eevil.test:443",
        "api.acme.test\\.evil.test:443",
        "api.acme.test#.evil.test:443",
        "api.acme.test/:443",
        "https://api.acme.test:443",
        "api..acme.test:443",
        ".api.acme.test:443",
        "аpi.acme.test:443",
        "api.acme\u{ad}.test:443",
        "*:443",
        "[::1:443",
        "",
    ];
    for authority in refused {
        let (answer, _) = world.agent.connect(authority);
        assert!(matches!(answer.status(), 400 | 403 | 421), "{authority:?}: {answer:?}");
    }
    assert_eq!(world.origin.connections(), 0);
    for authority in ["api.acme.test:443", "API.Acme.Test:443"] {
        assert_eq!(world.agent.connect(authority).0.status(), 200, "{authority}");
    }
}

#[test]
fn the_connects_own_host_header_decides_nothing() {
    let world = World::new(Alpn::Both);
    let mut wire = world.agent.dial();
    let authorization = world.agent.authorization();
    wire.send(&format!("CONNECT other.acme.test:443 HTTP/1.1\r\nHost: {HOST}:443\r\n{authorization}\r\n"));
    let answer = wire.answer(true);
    // Refused, or a tunnel to the name on the request line, which nothing here serves.
    assert!(matches!(answer.status(), 200 | 400 | 403), "{answer:?}");
    assert!(world.agent.tunnel_with("other.acme.test", 443, HOST, &[]).is_err());
    assert_eq!(world.origin.connections(), 0);
}

#[test]
fn odd_request_lines_reach_nobody() {
    let world = World::new(Alpn::H1);
    let lines = [
        "GET  /v1/items HTTP/1.1",
        "GET /v1/items  HTTP/1.1",
        "GET\t/v1/items HTTP/1.1",
        "GET /v1/items\0 HTTP/1.1",
        "GET /v1/items HTTP/2.0",
        "GET /v1/items HTTP/1.9",
        "GET /v1/items",
        "GET v1/items HTTP/1.1",
        "GET /v1/it ems HTTP/1.1",
        "GET /v1/items#x HTTP/1.1",
        "GET //other.acme.test/ HTTP/1.1",
        "GET @other.acme.test/ HTTP/1.1",
        "GET http://api.acme.test/v1/items HTTP/1.1",
        "GET https://user@api.acme.test/v1/items HTTP/1.1",
        "GET https://api.acme.test:8443/v1/items HTTP/1.1",
        "PRI * HTTP/2.0",
        " GET /v1/items HTTP/1.1",
    ];
    for line in lines {
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&format!("{line}\r\nHost: {HOST}\r\n\r\n"));
        let answer = tunnel.answer(false);
        assert!(matches!(answer.status(), 400 | 421), "{line:?}: {answer:?}");
        assert_eq!(world.origin.seen().len(), 0, "{line:?}: {answer:?}");
    }
}

#[test]
fn odd_headers_reach_nobody() {
    let world = World::new(Alpn::H1);
    let many = "X-Many: 1\r\n".repeat(5_000);
    let long = format!("X-Long: {}\r\n", "a".repeat(100 * 1024));
    let fields = [
        "X: a\r\n b\r\n",
        "X : a\r\n",
        ": a\r\n",
        "no colon\r\n",
        "X: a\0b\r\n",
        "X: a\rb\r\n",
        "Host: other.acme.test\r\n",
        "Host: api.acme.test\r\n",
        &many,
        &long,
    ];
    for field in fields {
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n{field}\r\n"));
        let answer = tunnel.answer(false);
        let shown = field.get(..20).unwrap_or(field);
        assert_eq!((answer.status(), &*answer.code()), (400, "framing"), "{shown:?}: {answer:?}");
        assert_eq!(world.origin.seen().len(), 0, "{shown:?}");
    }
    assert_eq!(world.agent.get(HOST, "/v1/items").status(), 200);
}

#[test]
fn a_nominated_credential_is_still_there_once() {
    let world = World::new(Alpn::H1);
    for nominated in ["authorization", "host", "Authorization, Host, content-length", "close, authorization"] {
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&format!(
            "POST /v1/items HTTP/1.1\r\nHost: {HOST}\r\nConnection: {nominated}\r\nAuthorization: Bearer mine\r\n\
             AUTHORIZATION: Bearer mine-too\r\nContent-Length: 2\r\n\r\n{{}}"
        ));
        assert_eq!(tunnel.answer(false).status(), 200, "{nominated}");
        let seen = world.origin.seen().pop().unwrap();
        assert_eq!(seen.header("authorization"), Some(&*format!("Bearer {SECRET}")), "{nominated}");
        assert_eq!((&*seen.host, seen.body_len), (HOST, 2), "{nominated}");
    }
}

#[test]
fn a_credential_in_a_trailer_is_removed() {
    for alpn in [Alpn::H1, Alpn::H2] {
        let world = World::new(alpn);
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&format!(
            "POST /upload HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\nTrailer: Authorization, X-Sum\r\n\r\n\
             2\r\n{{}}\r\n0\r\nAuthorization: Bearer mine\r\nX-Api-Key: mine\r\nX-Sum: 1\r\n\r\n"
        ));
        assert_eq!(tunnel.answer(false).status(), 200);
        let seen = world.origin.only();
        let trailers = seen.trailers.clone().unwrap_or_default();
        assert!(!trailers.contains_key("authorization") && !trailers.contains_key("x-api-key"), "{seen:#?}");
    }
}

#[test]
fn bytes_that_come_before_the_upgrade_are_not_a_request() {
    let world = World::new(Alpn::H1);
    let mut tunnel = world.agent.tunnel(HOST);
    // The origin refuses this upgrade: what follows must not be read as anything it was not checked as.
    tunnel.send(&format!(
        "GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\
         GET /v2/private HTTP/1.1\r\nHost: other.acme.test\r\n\r\n"
    ));
    assert_eq!(tunnel.answer(false).status(), 200);
    let rest = String::from_utf8_lossy(&tunnel.rest_within_one_answer()).into_owned();
    assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 421") || rest.starts_with("HTTP/1.1 400"), "{rest}");
    assert!(world.origin.seen().iter().all(|seen| seen.path == "/v1/items"));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let world = World::new(Alpn::Both);
    let mut tunnel = world.agent.tunnel(HOST);
    let sizes: Vec<usize> = (0..50).map(|turn| turn * 37 % 1000).collect();
    let request = |size: &usize| format!("GET /bytes/{size} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    tunnel.send(&sizes.iter().map(request).collect::<Vec<_>>().concat());
    for size in sizes {
        assert_eq!(tunnel.answer(false).body.len(), size);
    }
}

#[test]
fn an_upload_cut_off_is_not_a_whole_request_upstream() {
    for alpn in [Alpn::H1, Alpn::H2] {
        for fields in ["Content-Length: 100\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
            let world = World::new(alpn);
            let mut tunnel = world.agent.tunnel(HOST);
            tunnel.send(&format!("POST /upload HTTP/1.1\r\nHost: {HOST}\r\n{fields}"));
            world.origin.shared.record.wait("half a body", |seen| seen.first().is_some_and(|seen| seen.body_len == 4));
            drop(tunnel);
            let seen = world.origin.shared.record.wait("its end", |seen| seen[0].end != End::Open);
            assert_eq!(seen[0].body_sha256, None, "half a body was passed on as whole: {seen:#?}");
            let line = world.env.journal_line(|line| line["path"] == "/upload");
            assert_ne!(line["outcome"], "allowed", "{line}");
        }
    }
}

#[test]
fn an_upload_waits_for_an_upstream_that_does_not_read() {
    let world = World::raw(vec![Step::Head, Step::Wait]);
    let mut tunnel = world.agent.tunnel(HOST);
    let total = 200 * 1024 * 1024_usize;
    tunnel.send(&format!("POST /x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {total}\r\n\r\n"));
    let chunk = vec![b'x'; 256 * 1024];
    let mut sent = 0;
    tunnel.stall_after(STALL);
    let mut took = Duration::ZERO;
    // A write that took as long as a stall was taken by buffers on our own side, and no further.
    while sent < total && took < STALL {
        let began = Instant::now();
        sent += tunnel.send_some(&chunk);
        took = began.elapsed();
    }
    assert!(sent < 40 * 1024 * 1024, "{sent} bytes were taken in for nobody");
}

#[test]
fn an_upstream_that_floods_or_lies_harms_only_its_own_answer() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n".repeat(20_000);
    let bomb = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-Bomb: 1\r\n".repeat(50_000));
    let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nraw";
    let cases =
        [("hints", &*hints), ("bomb", &*bomb), ("an unasked 101", switching), ("half a head", "HTTP/1.1 200 O")];
    for (name, case) in cases {
        let world = World::raw(vec![Step::Head, Step::Send(case.as_bytes().to_vec())]);
        let began = Instant::now();
        let answer = world.agent.request("POST", HOST, "/v1/items", "", b"{}");
        assert_eq!((answer.status(), &*answer.code()), (502, "upstream_protocol"), "{name}: {answer:?}");
        assert!(began.elapsed() < PATIENCE / 2, "{name} took {:?}", began.elapsed());
    }
}

#[test]
fn a_204_with_a_body_does_not_shift_the_next_answer() {
    let lie =
        "HTTP/1.1 204 No Content\r\nContent-Length: 46\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled";
    let world = World::raw(vec![Step::Head, Step::Send(lie.into()), Step::UntilClosed]);
    let mut tunnel = world.agent.tunnel(HOST);
    for _ in 0..2 {
        tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        let answer = tunnel.answer(false);
        assert!(matches!(answer.status(), 204 | 502) && !answer.text().contains("smuggled"), "{answer:?}");
    }
}

#[test]
fn nothing_but_tls_goes_into_a_tunnel() {
    let world = World::new(Alpn::Both);
    for bytes in
        [&b"SSH-2.0-x\r\n"[..], b"*1\r\n$4\r\nPING\r\n", b"\0\0\0\0", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03"]
    {
        let (answer, mut wire) = world.agent.connect(&format!("{HOST}:443"));
        assert_eq!(answer.status(), 200);
        wire.send_bytes(bytes);
        wire.finish();
        let rest = wire.rest();
        let quiet = rest.is_empty() || rest.starts_with(b"HTTP/1.1 400") || rest[0] == 0x15;
        assert!(quiet, "{bytes:?}: {:?}", String::from_utf8_lossy(&rest));
    }
    assert_eq!(world.origin.connections(), 0);
}

#[test]
fn a_client_hello_in_single_bytes_is_still_one() {
    let world = World::new(Alpn::Both);
    let (answer, wire) = world.agent.connect(&format!("{HOST}:443"));
    assert_eq!(answer.status(), 200);
    let mut tcp = wire.into_inner();
    let name = rustls::pki_types::ServerName::try_from(HOST).unwrap();
    let mut tls = rustls::ClientConnection::new(std::sync::Arc::new(world.agent.tls(&[])), name).unwrap();
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).unwrap();
    for byte in hello {
        tcp.write_all(&[byte]).unwrap();
    }
    let mut stream = rustls::StreamOwned::new(tls, tcp);
    write!(stream, "GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[test]
fn absolute_form_https_serves_a_loopback_client_as_a_tunnel_would() {
    let world = World::with(Alpn::Both, &["acme:read path=/v1"]);
    let authorization = world.agent.authorization();
    let get = |url: &str, host: &str| {
        let mut wire = world.agent.dial();
        wire.send(&format!("GET {url} HTTP/1.1\r\nHost: {host}\r\n{authorization}\r\n"));
        wire.answer(false)
    };
    assert_eq!(get(&format!("https://{HOST}/v1/items"), HOST).status(), 200);
    assert_eq!(world.origin.only().header("authorization"), Some(&*format!("Bearer {SECRET}")));
    assert_eq!(get(&format!("https://{HOST}/v2/private"), HOST).code(), "capability_denied");
    assert!(matches!(get(&format!("https://{HOST}/v1/items"), "other.acme.test").status(), 200 | 400 | 421));
    // A credential never goes in clear.
    let clear = get(&format!("http://{HOST}/v1/items"), HOST);
    assert!(matches!(clear.status(), 400 | 403), "{clear:?}");
    let last = world.origin.seen();
    assert!(last.iter().all(|seen| seen.host == HOST && seen.path == "/v1/items"), "{last:#?}");
    // Without credentials there is no request.
    let mut wire = world.agent.dial();
    wire.send(&format!("GET https://{HOST}/v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert_eq!(wire.answer(false).status(), 407);
}

#[test]
fn many_idle_connections_do_not_stop_the_next() {
    let world = World::new(Alpn::Both);
    let held: Vec<_> = (0..100).map(|_| world.agent.dial()).collect();
    let half: Vec<_> = (0..100)
        .map(|_| {
            let mut wire = world.agent.dial();
            wire.send("CONNECT api.acme.test:443 HTTP/1.1\r\nHo");
            wire
        })
        .collect();
    assert_eq!(world.agent.get(HOST, "/v1/items").status(), 200);
    drop((held, half));
}
