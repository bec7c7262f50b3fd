//! HTTP/2 on the agent's side, frame by frame: what RFC 9113 §8 calls malformed reaches nobody, and a body is never a
//! request to an upstream of either version.

use crate::support::ca::Alpn;
use crate::support::daemon::TestEnv;
use crate::support::frames::{DATA, END_HEADERS, END_STREAM, Flooder, GOAWAY, HEADERS, RST_STREAM, field, frame};
use crate::support::origin::Origin;
use crate::{HOST, SECRET, World};

const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: api.acme.test\r\n\r\n";
const WEB: &str = "elsewhere.test";
/// `:status: 200` in HPACK's static table: the first field, after sizes of the table, which are below 64.
const STATUS_OK: u8 = 0x88;

type Field<'a> = (&'a str, &'a str);

/// How one stream ended.
#[derive(Debug, PartialEq)]
enum Said {
    /// `:status: 200`.
    Ok,
    /// Any other answer.
    Other,
    Reset,
    /// The connection ended.
    Closed,
}

/// A connection on which frames are written by hand.
struct Frames(Flooder);

impl Frames {
    fn open(world: &World, host: &str) -> Self {
        Self(Flooder::new(&world.agent, host))
    }

    fn fields(&mut self, stream: u32, fields: &[Field<'_>], end: bool) {
        let block: Vec<u8> = fields.iter().flat_map(|(name, value)| field(name, value.as_bytes())).collect();
        let flags = END_HEADERS | if end { END_STREAM } else { 0 };
        self.0.wire.send_bytes(&frame(HEADERS, flags, stream, &block));
    }

    fn data(&mut self, stream: u32, data: &str, end: bool) {
        self.0.wire.send_bytes(&frame(DATA, if end { END_STREAM } else { 0 }, stream, data.as_bytes()));
    }

    /// Reads until the stream is answered or ends, and no body.
    fn said(&mut self, stream: u32) -> Said {
        let of_ours = |kind, _, of| kind == GOAWAY || of == stream && matches!(kind, HEADERS | RST_STREAM);
        match self.0.until(of_ours) {
            Some((HEADERS, _, _, block)) if block.iter().find(|byte| **byte >= 64) == Some(&STATUS_OK) => Said::Ok,
            Some((HEADERS, ..)) => Said::Other,
            Some((RST_STREAM, ..)) => Said::Reset,
            _ => Said::Closed,
        }
    }
}

fn pseudo<'a>(method: &'a str, authority: &'a str, path: &'a str) -> Vec<Field<'a>> {
    vec![(":method", method), (":scheme", "https"), (":authority", authority), (":path", path)]
}

/// A GET with these fields after the pseudo-fields.
fn get<'a>(more: &[Field<'a>]) -> Vec<Field<'a>> {
    let mut fields = pseudo("GET", HOST, "/v1/items");
    fields.extend_from_slice(more);
    fields
}

#[test]
fn malformed_requests_reach_nobody() {
    let world = World::new(Alpn::H1);
    let path = |path: &'static str| pseudo("GET", HOST, path);
    let method = |method: &'static str| pseudo(method, HOST, "/v1/items");
    let without = |name: &str| get(&[]).into_iter().filter(|(field, _)| *field != name).collect::<Vec<_>>();
    let mut late = get(&[]);
    late.insert(1, ("x", "y"));
    let mut in_clear = get(&[]);
    in_clear[1].1 = "http";
    let mut strange = get(&[]);
    strange[1].1 = "ftp";
    let cases: Vec<Vec<Field<'_>>> = vec![
        get(&[("connection", "close")]),
        get(&[("connection", "authorization")]),
        get(&[("keep-alive", "1")]),
        get(&[("proxy-connection", "keep-alive")]),
        get(&[("transfer-encoding", "chunked")]),
        get(&[("upgrade", "h2c")]),
        get(&[("X-Upper", "1")]),
        get(&[("x y", "1")]),
        get(&[("x:y", "1")]),
        get(&[("x\r\ny", "1")]),
        get(&[("x\0", "1")]),
        get(&[("", "1")]),
        get(&[("x", "a\r\nhost: other.acme.test")]),
        get(&[("x", "a\nb")]),
        get(&[("x", "a\rb")]),
        get(&[("x", "a\0b")]),
        get(&[(":path", "/smuggled")]),
        get(&[(":method", "GET")]),
        get(&[(":authority", "other.acme.test")]),
        get(&[(":scheme", "https")]),
        get(&[(":unknown", "1")]),
        get(&[(":status", "200")]),
        get(&[(":protocol", "websocket")]),
        get(&[("host", "other.acme.test")]),
        get(&[("host", "api.acme.test"), ("host", "other.acme.test")]),
        get(&[("host", "api.acme.test"), ("host", "api.acme.test")]),
        get(&[("host", "api.acme.test:8443")]),
        get(&[("host", "user@api.acme.test")]),
        get(&[("host", "")]),
        get(&[("content-length", "5")]),
        get(&[("content-length", "+0")]),
        get(&[("content-length", "0, 0")]),
        get(&[("content-length", "0"), ("content-length", "1")]),
        without(":path"),
        without(":method"),
        without(":scheme"),
        without(":authority"),
        late,
        in_clear,
        strange,
        path(""),
        path("*"),
        path("v1/items"),
        path("@other.acme.test/"),
        path("//other.acme.test/"),
        path("http://other.acme.test/v1/items"),
        path("https://api.acme.test/v1/items"),
        path("/v1/items HTTP/1.1\r\nX: y"),
        path("/v1/items\0"),
        path("/v1 /items"),
        path("/v1\t/items"),
        path("/v1/../v2"),
        method(""),
        method("GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\nGET"),
        method("GE T"),
        method("TRACE"),
        method("CONNECT"),
        pseudo("GET", "other.acme.test", "/v1/items"),
        pseudo("GET", "api.acme.test:8443", "/v1/items"),
        pseudo("GET", "user@api.acme.test", "/v1/items"),
        pseudo("GET", "api.acme.test.", "/v1/items"),
        pseudo("GET", "api.acme.test:0443", "/v1/items"),
        pseudo("GET", "api.acme.test,other.acme.test", "/v1/items"),
        pseudo("GET", "", "/v1/items"),
        vec![(":method", "CONNECT"), (":authority", "other.acme.test:443")],
        vec![(":method", "CONNECT"), (":authority", "api.acme.test:443")],
    ];
    for fields in &cases {
        let mut frames = Frames::open(&world, HOST);
        frames.fields(1, fields, true);
        let said = frames.said(1);
        assert_ne!(said, Said::Ok, "{fields:?}");
        assert_eq!(world.origin.seen().len(), 0, "{fields:?}");
    }
    // The twins.
    for (served, more) in
        [&[][..], &[("host", HOST)], &[("te", "trailers")], &[("content-length", "0")]].into_iter().enumerate()
    {
        let mut frames = Frames::open(&world, HOST);
        frames.fields(1, &get(more), true);
        assert_eq!(frames.said(1), Said::Ok, "{more:?}");
        assert_eq!(world.origin.seen().len(), served + 1, "{more:?}");
    }
}

#[test]
fn on_the_web_too_a_path_is_a_path() {
    let mut env = TestEnv::new();
    let origin = Origin::https(&env.ca, &[HOST, WEB], Alpn::H1);
    env.acme(SECRET, &origin);
    env.dial(WEB, &origin);
    origin.put("/v1/items", "text/plain", "items");
    let world = World::started(env, origin, &["web"]);
    for path in ["http://api.acme.test/v1/items", "api.acme.test:443", "@api.acme.test/", "v1/items", ""] {
        let mut frames = Frames::open(&world, WEB);
        frames.fields(1, &pseudo("GET", WEB, path), true);
        assert_ne!(frames.said(1), Said::Ok, "{path:?}");
        assert_eq!(world.origin.seen().len(), 0, "{path:?}: {:#?}", world.origin.seen());
    }
    let mut frames = Frames::open(&world, WEB);
    frames.fields(1, &pseudo("GET", WEB, "/v1/items"), true);
    assert_eq!(frames.said(1), Said::Ok);
}

#[test]
fn a_second_authority_on_one_connection_is_misdirected_and_the_first_goes_on() {
    let world = World::new(Alpn::H1);
    let mut frames = Frames::open(&world, HOST);
    for (stream, authority, said) in [
        (1, HOST, Said::Ok),
        (3, "other.acme.test", Said::Other),
        (5, HOST, Said::Ok),
        (7, "other.acme.test", Said::Other),
    ] {
        frames.fields(stream, &pseudo("GET", authority, "/v1/items"), true);
        assert_eq!(frames.said(stream), said, "{authority}");
    }
    assert_eq!(world.origin.seen().len(), 2);
    world.env.journal_line(|line| line["code"] == "misdirected");
}

#[test]
fn a_body_is_never_a_request() {
    for alpn in [Alpn::H1, Alpn::H2] {
        let world = World::new(alpn);
        let length = HIDDEN.len().to_string();
        let methods: [&str; 8] = ["GET", "HEAD", "DELETE", "OPTIONS", "POST", "PUT", "PATCH", "PROPFIND"];
        let mut frames = Frames::open(&world, HOST);
        let mut stream = 1;
        for method in methods {
            for announced in [None, Some(())] {
                let mut fields = pseudo(method, HOST, "/upload");
                fields.extend(announced.map(|()| ("content-length", &*length)));
                frames.fields(stream, &fields, false);
                frames.data(stream, HIDDEN, true);
                assert_eq!(frames.said(stream), Said::Ok, "{method} {announced:?} {alpn:?}");
                stream += 2;
            }
        }
        for seen in world.origin.seen() {
            assert_eq!((&*seen.path, seen.body_len), ("/upload", HIDDEN.len() as u64), "{alpn:?}: {seen:#?}");
        }
        assert_eq!(world.origin.seen().len(), 2 * methods.len());
    }
}

#[test]
fn a_length_that_is_not_the_bodys_completes_no_request() {
    for alpn in [Alpn::H1, Alpn::H2] {
        let world = World::new(alpn);
        for length in ["5", "3", "0", "+4", "4, 4", "4x", "99999999999999999999", "-1"] {
            let mut frames = Frames::open(&world, HOST);
            let mut fields = pseudo("POST", HOST, "/upload");
            fields.push(("content-length", length));
            frames.fields(1, &fields, false);
            frames.data(1, "four", true);
            let said = frames.said(1);
            assert_ne!(said, Said::Ok, "{length} {alpn:?}");
            assert!(world.origin.seen().iter().all(|seen| seen.body_sha256.is_none()), "{length} {alpn:?}");
        }
        // The twin, also said twice and with zeros in front: the origin reads it once.
        for lengths in [&["4"][..], &["4", "4"], &["004"]] {
            let mut frames = Frames::open(&world, HOST);
            let mut fields = pseudo("POST", HOST, "/upload");
            fields.extend(lengths.iter().map(|length| ("content-length", *length)));
            frames.fields(1, &fields, false);
            frames.data(1, "four", true);
            assert_eq!(frames.said(1), Said::Ok, "{lengths:?} {alpn:?}");
            let seen = world.origin.seen().pop().unwrap();
            assert_eq!((seen.header("content-length"), seen.body_len), (Some("4"), 4), "{lengths:?} {alpn:?}");
        }
    }
}

#[test]
fn trailers_are_fields_and_carry_nothing_of_ours() {
    for alpn in [Alpn::H1, Alpn::H2] {
        let world = World::new(alpn);
        let upload = |trailers: &[Field<'_>]| {
            let mut frames = Frames::open(&world, HOST);
            let mut fields = pseudo("POST", HOST, "/upload");
            fields.push(("trailer", "authorization, host, content-length, x-api-key, x-kept"));
            frames.fields(1, &fields, false);
            frames.data(1, "four", false);
            frames.fields(1, trailers, true);
            frames.said(1)
        };
        for trailer in [("X", "y"), ("x", "a\r\nb: c"), ("x", "a\0"), ("connection", "close")] {
            assert_ne!(upload(&[trailer]), Said::Ok, "{trailer:?} {alpn:?}");
        }
        assert!(world.origin.seen().iter().all(|seen| seen.body_sha256.is_none()));
        // h2 drops these without a word, and they change nothing.
        for trailer in [(":path", "/smuggled"), (":method", "DELETE"), (":authority", "other.acme.test")] {
            upload(&[trailer]);
        }
        assert!(world.origin.seen().iter().all(|seen| seen.path == "/upload" && seen.method == "POST"));
        let doomed: [Field<'_>; 6] = [
            ("authorization", "Bearer mine"),
            ("x-api-key", "mine"),
            ("host", "other.acme.test"),
            ("content-length", "9"),
            ("x-http-method-override", "DELETE"),
            ("x-kept", "1"),
        ];
        assert_eq!(upload(&doomed), Said::Ok);
        let seen = world.origin.seen().pop().unwrap();
        let trailers = seen.trailers.clone().unwrap_or_default();
        assert_eq!(trailers.keys().map(http::HeaderName::as_str).collect::<Vec<_>>(), ["x-kept"], "{seen:#?}");
    }
}
