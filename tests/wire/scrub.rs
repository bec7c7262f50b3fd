//! An upstream that says the secret back: wherever and however it does, the agent does not get it. Beside each echo
//! stands a twin one byte away, which passes.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use compression_codecs::brotli::params::EncoderParams;
use compression_codecs::core::util::{PartialBuffer, WriteBuffer};
use compression_codecs::{BrotliEncoder, DeflateEncoder, EncodeV2, GzipEncoder, ZlibEncoder, ZstdEncoder};

use crate::support::agent::Answer;
use crate::support::ca::Alpn;
use crate::support::daemon::TestEnv;
use crate::support::handlers::pattern;
use crate::support::origin::Origin;
use crate::support::raw::{RawOrigin, Step};
use crate::{HOST, SECRET, World};

const PATIENCE: Duration = Duration::from_secs(20);

/// One character away from [`SECRET`].
const TWIN: &str = "sk-real-3kf9QmZx71TtPw0aVb5Lr8Yt";

pub(crate) fn masked(length: usize) -> String {
    "*".repeat(length)
}

/// An origin that gives these answers one after the other, each in so many writes, on each connection.
pub(crate) fn origin_of(answers: impl IntoIterator<Item = Vec<Vec<u8>>>) -> World<RawOrigin> {
    World::raw(steps(answers))
}

pub(crate) fn steps(answers: impl IntoIterator<Item = Vec<Vec<u8>>>) -> Vec<Step> {
    let answer = |writes: Vec<Vec<u8>>| std::iter::once(Step::Head).chain(writes.into_iter().map(Step::Send));
    answers.into_iter().flat_map(answer).chain([Step::UntilClosed]).collect()
}

/// With a length.
pub(crate) fn plain(headers: &str, body: &[u8]) -> Vec<Vec<u8>> {
    let head = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    vec![[head.as_bytes(), body].concat()]
}

/// In chunks, each a write of its own.
pub(crate) fn chunked(headers: &str, parts: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut writes = vec![format!("HTTP/1.1 200 OK\r\n{headers}Transfer-Encoding: chunked\r\n\r\n").into_bytes()];
    for part in parts.iter().filter(|part| !part.is_empty()) {
        writes.push([format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat());
    }
    writes.push(b"0\r\n\r\n".to_vec());
    writes
}

/// Asks for one answer after the other in one tunnel.
pub(crate) fn answers(world: &World<RawOrigin>, count: usize) -> Vec<Answer> {
    let mut tunnel = world.agent.tunnel(HOST);
    let mut answer = || {
        tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        tunnel.answer(false)
    };
    (0..count).map(|_| answer()).collect()
}

/// What upstreams do to a text that they repeat.
fn forms(text: &str) -> Vec<String> {
    let each = |spell: &dyn Fn(char) -> String| text.chars().map(spell).collect::<String>();
    vec![
        text.to_owned(),
        each(&|c| if c.is_ascii_alphanumeric() { c.to_string() } else { format!("%{:02x}", c as u32) }),
        each(&|c| format!("%{:02X}", c as u32)),
        hex::encode(text),
        hex::encode_upper(text),
        each(&|c| format!("\\u{:04x}", c as u32)),
        each(&|c| if c == '-' { "\\u002D".to_owned() } else { c.to_string() }),
        each(&|c| format!("&#{};", c as u32)),
        each(&|c| format!("&#x{:X};", c as u32)),
        each(&|c| format!("{c}\0")).trim_end_matches('\0').to_owned(),
    ]
}

#[test]
fn every_form_is_taken_out_of_a_body_wherever_it_is_split() {
    for (form, twin) in forms(SECRET).into_iter().zip(forms(TWIN)) {
        let body = |form: &str| format!("{{\"you\": \"{form}\"}}\n");
        let text = body(&form);
        let splits = (0..=text.len()).map(|split| {
            let (before, after) = text.as_bytes().split_at(split);
            chunked("", &[before, after])
        });
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        let all = splits.chain([chunked("", &bytes), plain("", text.as_bytes())]);
        let all = all.chain([plain("", body(&twin).as_bytes())]);
        let count = text.len() + 4;
        let mut answers = answers(&origin_of(all), count);
        assert_eq!(answers.pop().unwrap().text(), body(&twin));
        for (split, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.text(), body(&masked(form.len())), "{form} split at {split}");
        }
    }
}

#[test]
fn base64_is_taken_out_at_every_alignment() {
    let bodies: Vec<String> = ["", "u", "me"]
        .iter()
        .flat_map(|before| {
            let text = format!("{before}{SECRET}, and more");
            [STANDARD.encode(&text), URL_SAFE_NO_PAD.encode(&text)]
        })
        .collect();
    let world = origin_of(bodies.iter().map(|body| plain("", body.as_bytes())));
    for (answer, body) in answers(&world, bodies.len()).iter().zip(&bodies) {
        assert_eq!(answer.text().len(), body.len());
        // Only digits that the secret decides alone are masked: all but the one at either end.
        assert!(answer.text().contains(&masked(SECRET.len() * 8 / 6 - 1)), "{}", answer.text());
    }
}

#[test]
fn every_field_is_scrubbed_and_digests_are_removed() {
    let head = |secret: &str| {
        format!(
            "HTTP/1.1 201 Made {secret}\r\nX-Echo: Bearer {secret}\r\nLocation: https://x.test/?t={}&u={secret}\r\n\
             Set-Cookie: t={}; Path=/\r\nWWW-Authenticate: Bearer error=\"{secret}\"\r\nETag: \"{secret}\"\r\n\
             X-{secret}: 1\r\nX-{}: 1\r\nContent-Digest: sha-256=:abc=:\r\nContent-MD5: abc\r\nDigest: sha-256=abc\r\n\
             Unencoded-Digest: sha-256=:abc=:\r\nX-Amz-Checksum-Crc64nvme: abc\r\nX-Goog-Hash: crc32c=abc\r\n\
             X-Ms-Content-Crc64: abc\r\nX-Ms-Content-MD5: abc\r\n\
             Trailer: x-sum, repr-digest\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\
             X-Sum: {secret}\r\nRepr-Digest: sha-256=:abc=:\r\n\r\n",
            secret.replace('-', "%2D"),
            hex::encode(secret),
            hex::encode_upper(secret),
        )
        .into_bytes()
    };
    let whole = |secret| {
        let world = origin_of([vec![head(secret)]]);
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\nTE: trailers\r\nConnection: TE\r\n\r\n"));
        let head = tunnel.head();
        tunnel.until("0\r\n");
        (head.to_ascii_lowercase(), tunnel.until("\r\n\r\n").to_ascii_lowercase())
    };
    let (head, trailers) = whole(SECRET);
    let gone = masked(SECRET.len());
    for field in [
        format!("x-echo: bearer {gone}\r\n"),
        format!("location: https://x.test/?t={}&u={gone}\r\n", masked(SECRET.len() + 4)),
        format!("set-cookie: t={}; path=/\r\n", masked(2 * SECRET.len())),
        format!("www-authenticate: bearer error=\"{gone}\"\r\n"),
        format!("etag: \"{gone}\"\r\n"),
    ] {
        assert!(head.contains(&field), "{field} in {head}");
    }
    assert!(trailers.contains(&format!("x-sum: {gone}")), "{trailers}");
    let all = format!("{head}{trailers}");
    assert!(!all.contains(&SECRET.to_ascii_lowercase()) && !all.contains("digest: ") && !all.contains("md5"), "{all}");
    assert!(!all.contains("checksum") && !all.contains("crc"), "{all}");
    assert!(!all.contains(&hex::encode(SECRET)), "{all}");
    let (head, trailers) = whole(TWIN);
    let twin = TWIN.to_ascii_lowercase();
    for field in [
        format!("x-echo: bearer {twin}\r\n"),
        format!("etag: \"{twin}\"\r\n"),
        format!("x-{twin}: 1\r\n"),
        format!("x-{}: 1\r\n", hex::encode(TWIN)),
    ] {
        assert!(head.contains(&field), "{field} in {head}");
    }
    assert!(trailers.contains(&format!("x-sum: {twin}")), "{trailers}");
}

#[test]
fn what_the_upstream_asks_a_client_for_is_only_what_can_be_scanned() {
    let sent = "Range: bytes=0-9\r\nx-ms-range: bytes=0-9\r\nIf-Range: \"a\"\r\nAccept-Encoding: gzip, br\r\ngrpc-accept-encoding: gzip\r\n\
        connect-accept-encoding: gzip\r\nAccept-Charset: utf-16\r\nAccept: text/html;charset=utf-16, */*\r\n";
    let seen = |extra: &str| {
        let mut env = TestEnv::new();
        let origin = Origin::https(&env.ca, &[HOST], Alpn::H1);
        env.acme(SECRET, &origin);
        env.setting("");
        env.service(&format!(
            "name = \"other\"\n{extra}\ncredential = \"acme-key\"\nhosts = [\"other.acme.test\"]\n\
             inject = \"Authorization: Bearer {{secret}}\""
        ));
        let origin = Origin::https(&env.ca, &["other.acme.test"], Alpn::H1);
        env.dial("other.acme.test", &origin);
        origin.put("/v1/items", "text/plain", "items");
        let world = World::started(env, origin, &["other"]);
        assert_eq!(world.agent.request("GET", "other.acme.test", "/v1/items", sent, b"").status(), 200);
        world.origin.only()
    };
    let strict = seen("");
    for name in ["range", "x-ms-range", "if-range", "grpc-accept-encoding", "connect-accept-encoding", "accept-charset"]
    {
        assert_eq!(strict.header(name), None, "{name}");
    }
    assert_eq!(strict.header("accept-encoding"), Some("identity"));
    assert_eq!(strict.header("accept"), Some("text/html, */*"));
    let lenient = seen("ranges = true");
    assert_eq!(lenient.header("range"), Some("bytes=0-9"));
    assert_eq!(lenient.header("accept-encoding"), Some("identity"));
}

#[test]
fn nothing_is_touched_where_no_credential_goes() {
    let mut env = TestEnv::new();
    let body = plain("Content-Encoding: x-unheard-of\r\nContent-MD5: abc\r\n", SECRET.as_bytes());
    let origin = RawOrigin::https(&env.ca, &["open.test"], steps([body]));
    env.dial_at("open.test:443", origin.addr);
    env.secret("acme-key", SECRET);
    env.service("name = \"open\"\nhosts = [\"open.test\"]");
    let world = World::started(env, origin, &["open"]);
    let sent = "Range: bytes=0-9\r\nAccept-Encoding: gzip, br\r\n";
    let answer = world.agent.request("GET", "open.test", "/v1/items", sent, b"");
    assert_eq!((answer.text(), answer.header("content-md5")), (SECRET.to_owned(), Some("abc")));
    let read = world.origin.read().concat().to_ascii_lowercase();
    assert!(read.contains("range: bytes=0-9") && read.contains("accept-encoding: gzip, br"), "{read}");
}

fn encoded(encoder: &mut dyn EncodeV2, text: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 2 * text.len() + 1000];
    let mut output = WriteBuffer::new_initialized(&mut out);
    let mut input = PartialBuffer::new(text);
    while !input.unwritten().is_empty() {
        encoder.encode(&mut input, &mut output).unwrap();
    }
    while !encoder.finish(&mut output).unwrap() {}
    let written = output.written_len();
    out.truncate(written);
    out
}

pub(crate) fn in_every_coding(text: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let level = flate2::Compression::default();
    let gzip = |text: &[u8]| encoded(&mut GzipEncoder::new(level.into()), text);
    let (half, rest) = text.split_at(text.len() / 2);
    vec![
        ("gzip", gzip(text)),
        ("gzip", [gzip(half), gzip(rest)].concat()),
        ("deflate", encoded(&mut ZlibEncoder::new(level.into()), text)),
        ("deflate", encoded(&mut DeflateEncoder::new(level.into()), text)),
        ("br", encoded(&mut BrotliEncoder::new(EncoderParams::default()), text)),
        ("zstd", encoded(&mut ZstdEncoder::new(3), text)),
    ]
}

#[test]
fn a_coding_that_was_not_asked_for_comes_off() {
    let text = |secret: &str| format!("{{\"you\": \"{secret}\", \"and\": \"{}\"}}\n", "more ".repeat(500));
    for (secret, expected) in [(SECRET, &*masked(SECRET.len())), (TWIN, TWIN)] {
        let codings = in_every_coding(text(secret).as_bytes());
        let all = codings.iter().flat_map(|(name, coded)| {
            let headers = format!("Content-Encoding: {name}\r\n");
            let bytes: Vec<&[u8]> = coded.chunks(1).collect();
            [plain(&headers, coded), chunked(&headers, &bytes)]
        });
        let world = origin_of(all);
        for (at, answer) in answers(&world, 2 * codings.len()).iter().enumerate() {
            let name = codings[at / 2].0;
            assert_eq!(answer.text(), text(expected), "{name}");
            assert_eq!((answer.header("content-encoding"), answer.header("content-length")), (None, None), "{name}");
        }
    }
}

#[test]
fn what_cannot_be_read_is_refused_unless_the_service_lets_it_pass() {
    let unreadable = [
        "Content-Encoding: x-unheard-of\r\n",
        "Content-Encoding: gzip, br\r\n",
        // Of messages that are none, in a coding that nobody knows, one in another.
        "grpc-encoding: gzip\r\n",
        "Content-Type: application/grpc\r\ngrpc-encoding: snappy\r\n",
        "Content-Type: application/grpc+proto\r\nContent-Encoding: gzip\r\n",
        "Content-Type: application/connect+json\r\nConnect-Content-Encoding: lz4\r\n",
        "Content-Type: application/json;charset=utf-16\r\n",
    ];
    for headers in unreadable {
        let world = origin_of([plain(headers, SECRET.as_bytes())]);
        let answer = &answers(&world, 1)[0];
        assert_eq!((answer.status(), &*answer.code()), (502, "body_unreadable"), "{headers}");
        let status = answer.header("proxy-status").unwrap_or_default();
        assert!(status.contains("error=http_response_content_coding;"), "the answer's fault: {status}");
        assert!(!answer.text().contains(SECRET));
        let line = world.env.journal_line(|line| line["path"] == "/v1/items");
        assert_eq!((&line["outcome"], &line["code"]), (&"failed".into(), &"body_unreadable".into()), "{line}");
    }
    for headers in unreadable {
        let mut env = TestEnv::new();
        let origin = RawOrigin::https(&env.ca, &[HOST], steps([plain(headers, b"opaque")]));
        env.secret("acme-key", SECRET);
        env.dial_at(&format!("{HOST}:443"), origin.addr);
        env.service(&format!(
            "name = \"acme\"\ncredential = \"acme-key\"\nhosts = [\"{HOST}\"]\nunreadable = \"pass\"\n\
             inject = \"Authorization: Bearer {{secret}}\""
        ));
        let world = World::started(env, origin, &["acme"]);
        let answer = &answers(&world, 1)[0];
        assert_eq!((answer.status(), answer.text()), (200, "opaque".to_owned()), "{headers}");
    }
    let coded = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n".to_vec();
    let answer = &answers(&origin_of([vec![coded]]), 1)[0];
    assert_eq!(answer.status(), 502, "{answer:?}");
}

#[test]
fn what_is_compressed_without_saying_so_ends_where_it_holds_the_secret() {
    let text = |secret: &str| format!("{}{{\"you\": \"{secret}\"}}\n", "0123456789".repeat(5000));
    // Without brotli and bare deflate, which nobody can tell from anything else.
    let told = |text: &str| {
        let all = in_every_coding(text.as_bytes()).into_iter().enumerate();
        all.filter(|(at, (name, _))| *name != "br" && *at != 3).map(|(_, coded)| coded).collect::<Vec<_>>()
    };
    for (name, coded) in told(&text(SECRET)) {
        for part in [1, usize::MAX] {
            let parts: Vec<&[u8]> = coded.chunks(part).collect();
            let world = origin_of([chunked("", &parts)]);
            let mut tunnel = world.agent.tunnel(HOST);
            tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
            assert!(!tunnel.rest().ends_with(b"0\r\n\r\n"), "{name} in parts of {part}");
            let line = world.env.journal_line(|line| line["path"] == "/v1/items");
            assert_eq!(line["code"], "body_unreadable", "{line}");
        }
    }
    for (name, archive) in told(&text(TWIN)) {
        let bytes: Vec<&[u8]> = archive.chunks(1).collect();
        for answer in answers(&origin_of([plain("", &archive), chunked("", &bytes)]), 2) {
            assert!(answer.body == archive, "{name}: {} of {} bytes", answer.body.len(), archive.len());
        }
    }
    // What only looks like it is passed too, and so is much in little.
    let mut archive = told(&text(TWIN)).swap_remove(0).1;
    archive.truncate(20);
    archive.extend([0xff; 20]);
    let zeros = told(&"\0".repeat(8 << 20)).swap_remove(0).1;
    let all: [&[u8]; 8] = [&archive, &zeros, b"\x1f", b"x", b"x^2 + 1", b"(", b"\x28\xb5\x2f", b"\x28\xb5\x2f\xfe"];
    for (answer, body) in answers(&origin_of(all.map(|body| plain("", body))), all.len()).iter().zip(all) {
        assert!(answer.body == body, "{body:?}");
    }
}

/// How the only answer of this origin ended: what came of it, and what the journal says.
fn broken_off(world: &World<RawOrigin>) -> (Vec<u8>, serde_json::Value) {
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"));
    let rest = tunnel.rest();
    (rest, world.env.journal_line(|line| line["path"] == "/v1/items"))
}

#[test]
fn a_coding_in_another_is_refused() {
    let text = |secret: &str| format!("{{\"you\": \"{secret}\", \"access_token\": \"{secret}\"}}\n");
    let coding = |at: usize, text: &[u8]| in_every_coding(text).swap_remove(at);
    // gzip, br and zstd around gzip and zstd: in the head, in what says nothing, in messages.
    for inner in [0, 5] {
        let inner = coding(inner, text(TWIN).as_bytes()).1;
        for outer in [0, 4, 5] {
            let (name, coded) = coding(outer, &inner);
            let labelled = format!("Content-Encoding: {name}\r\n");
            let json = format!("{labelled}Content-Type: application/json\r\n");
            let grpc = format!("Content-Type: application/grpc\r\ngrpc-encoding: {name}\r\n");
            let message = message(1, &coded);
            let mut all = vec![(&*labelled, &coded), (&*json, &coded), (&*grpc, &message)];
            if name != "br" {
                all.push(("Content-Type: application/octet-stream\r\n", &coded));
            }
            for (headers, body) in all {
                for part in [1, usize::MAX] {
                    let parts: Vec<&[u8]> = body.chunks(part).collect();
                    let (rest, line) = broken_off(&origin_of([chunked(headers, &parts)]));
                    assert_eq!(line["code"], "body_unreadable", "{headers} {line}");
                    assert!(!rest.ends_with(b"0\r\n\r\n"), "{headers}");
                }
            }
        }
        // A message that says that it is not compressed is looked into as any body.
        let headers = "Content-Type: application/grpc\r\n";
        let answer = &answers(&origin_of([plain(headers, &message(0, &inner))]), 1)[0];
        assert!(answer.body == message(0, &inner));
    }
    let inner = coding(0, text(SECRET).as_bytes()).1;
    let (_, line) = broken_off(&origin_of([chunked("Content-Type: application/grpc\r\n", &[&message(0, &inner)])]));
    assert_eq!(line["code"], "body_unreadable", "{line}");
    // What only begins as zlib does.
    let (name, coded) = coding(0, b"x^2 + y^2 = z^2");
    let answer = &answers(&origin_of([plain(&format!("Content-Encoding: {name}\r\n"), &coded)]), 1)[0];
    assert_eq!(answer.text(), "x^2 + y^2 = z^2");
}

#[test]
fn an_archive_that_goes_on_after_zeros_or_has_a_small_window_is_looked_into() {
    let gzip = |text: &str| in_every_coding(text.as_bytes()).swap_remove(0).1;
    let small = |text: &str| {
        let mut encoder = flate2::Compress::new_with_window_bits(flate2::Compression::default(), true, 14);
        let mut out = Vec::with_capacity(1000);
        encoder.compress_vec(text.as_bytes(), &mut out, flate2::FlushCompress::Finish).unwrap();
        out
    };
    for (secret, passes) in [(SECRET, false), (TWIN, true)] {
        for archive in [[gzip("first"), vec![0; 100], gzip(secret)].concat(), small(secret)] {
            let (rest, line) = broken_off(&origin_of([plain("", &archive)]));
            assert_eq!(rest.ends_with(&archive), passes, "{line}");
            assert_eq!(line["code"] == "body_unreadable", !passes, "{line}");
        }
    }
}

#[test]
fn what_is_no_message_is_refused_and_heads_are_a_part_of_the_text() {
    // Without a head; with the first characters in the length of the message; and one byte away.
    let spanning = |secret: &str| [&[0, 0], secret.as_bytes()].concat();
    for content_type in ["application/grpc", "application/grpc-web+proto", "application/connect+json"] {
        let headers = format!("Content-Type: {content_type}\r\n");
        for body in [SECRET.as_bytes().to_vec(), format!("\"{SECRET}\"").into(), spanning(SECRET)] {
            for part in [1, usize::MAX] {
                let parts: Vec<&[u8]> = body.chunks(part).collect();
                let (rest, line) = broken_off(&origin_of([chunked(&headers, &parts)]));
                let rest = String::from_utf8_lossy(&rest).into_owned();
                assert!(!rest.contains(&SECRET[4..]) && !rest.ends_with("0\r\n\r\n"), "{rest}");
                assert_eq!(line["code"], "body_unreadable", "{line}");
            }
        }
        let (rest, _) = broken_off(&origin_of([plain(&headers, &spanning(TWIN))]));
        assert!(rest.ends_with(&spanning(TWIN)));
    }
}

/// A message of gRPC.
pub(crate) fn message(flags: u8, text: &[u8]) -> Vec<u8> {
    [&[flags][..], &u32::try_from(text.len()).unwrap().to_be_bytes(), text].concat()
}

#[test]
fn messages_are_scanned_each_and_compressed_ones_decoded() {
    let text = |secret: &str| format!("\n\x2b{secret} and {}", "more ".repeat(50)).into_bytes();
    for (secret, clean) in [(SECRET, &*masked(SECRET.len())), (TWIN, TWIN)] {
        let (half, rest) = secret.as_bytes().split_at(9);
        for (name, coded) in in_every_coding(&text(secret)) {
            // Two messages are two texts: what is in one is not taken for the end of what is in another.
            let sent = [message(1, &coded), message(0, &text(secret)), message(0, half), message(0, rest)].concat();
            let expected = [&text(clean), &text(clean), half, rest].map(|text| message(0, text)).concat();
            let headers = format!("Content-Type: application/grpc+proto\r\ngrpc-encoding: {name}\r\n");
            let bytes: Vec<&[u8]> = sent.chunks(1).collect();
            for answer in answers(&origin_of([chunked(&headers, &bytes), plain(&headers, &sent)]), 2) {
                assert!(answer.body == expected, "{name}: {}", answer.text());
                assert_eq!((answer.header("grpc-encoding"), answer.header("content-length")), (None, None));
            }
        }
    }
}

#[test]
fn a_message_that_is_compressed_without_a_coding_ends_the_answer() {
    let coded = &in_every_coding(b"two")[0].1;
    let sent = |flags: u8| [message(0, b"one"), message(flags, if flags == 0 { b"two" } else { coded })].concat();
    for content_type in ["application/grpc", "application/grpc-web+proto", "application/connect+json"] {
        let headers = format!("Content-Type: {content_type}\r\n");
        let world = origin_of([plain(&headers, &sent(0)), chunked(&headers, &[&sent(1)])]);
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        assert_eq!(tunnel.answer(false).body, sent(0));
        tunnel.send(&format!("GET /v1/coded HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        assert!(!tunnel.rest().ends_with(b"0\r\n\r\n"), "{content_type}");
        let line = world.env.journal_line(|line| line["path"] == "/v1/coded");
        assert_eq!(line["code"], "body_unreadable", "{line}");
    }
}

#[test]
fn a_whole_message_is_not_held_for_the_next() {
    let (half, rest) = SECRET.split_at(20);
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let chunk = |text: &[u8]| Step::Send([format!("{:x}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat());
    let first = message(0, half.as_bytes());
    let steps = vec![Step::Head, Step::Send(head), chunk(&first), Step::Wait, chunk(&message(0, rest.as_bytes()))];
    let world = World::raw([steps, vec![Step::Send(b"0\r\n\r\n".to_vec()), Step::UntilClosed]].concat());
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    tunnel.until(half);
    world.origin.go();
    let (begins, _) = rest.split_at(5);
    assert!(tunnel.until("0\r\n\r\n").contains(begins));
}

#[test]
fn an_answer_that_takes_too_many_steps_is_broken_off() {
    let secret = "ab".repeat(1500);
    for (body, whole) in [("ab".repeat(5000), false), ("a b".repeat(5000), true)] {
        let mut env = TestEnv::new();
        let origin = RawOrigin::https(&env.ca, &[HOST], steps([chunked("", &[body.as_bytes()])]));
        env.acme_at(&secret, origin.addr);
        let world = World::started(env, origin, &["acme"]);
        let mut tunnel = world.agent.tunnel(HOST);
        tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"));
        let rest = String::from_utf8(tunnel.rest()).unwrap();
        assert_eq!(rest.ends_with("0\r\n\r\n"), whole);
        assert!(!rest.contains(&"ab".repeat(10)), "{rest}");
        let line = world.env.journal_line(|line| line["path"] == "/v1/items");
        assert_eq!(line["code"] == "body_unreadable", !whole, "{line}");
    }
}

#[test]
fn what_is_refused_for_what_it_begins_with_is_an_answer_and_no_cut() {
    let gzip = |text: &str| in_every_coding(text.as_bytes()).swap_remove(0).1;
    let broken = &gzip("some text")[..10];
    let archive = "Content-Type: application/octet-stream\r\n";
    let labelled = "Content-Encoding: gzip\r\n";
    for (headers, body, code) in [
        (archive, &*gzip(SECRET), "body_unreadable"),
        (labelled, broken, "upstream_protocol"),
        (labelled, &gzip("x")[..1], "upstream_protocol"),
    ] {
        let answer = &answers(&origin_of([plain(headers, body)]), 1)[0];
        assert_eq!((answer.status(), &*answer.code()), (502, code), "{headers}");
    }
    for (headers, body) in [(archive, gzip(TWIN)), (archive, Vec::new()), (labelled, Vec::new())] {
        let answer = &answers(&origin_of([plain(headers, &body)]), 1)[0];
        assert!(answer.status() == 200 && answer.body == body, "{headers}");
    }
    let text = "an event\n\n";
    for answer in answers(&origin_of([plain(labelled, &gzip(text)), chunked(labelled, &[&gzip(text)])]), 2) {
        assert_eq!(answer.text(), text);
    }
}

#[test]
fn a_broken_coding_is_an_error_and_not_an_end() {
    let (_, mut coded) = in_every_coding(&pattern(0, 100_000)).swap_remove(0);
    coded.truncate(coded.len() / 2);
    let world = origin_of([plain("Content-Encoding: gzip\r\n", &coded)]);
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert!(!tunnel.rest().ends_with(b"0\r\n\r\n"));
    let line = world.env.journal_line(|line| line["path"] == "/v1/items");
    assert_eq!((&line["outcome"], &line["code"]), (&"failed".into(), &"upstream_protocol".into()), "{line}");
}

#[test]
fn large_answers_pass_byte_for_byte() {
    let body = pattern(7, 3 << 20);
    let (_, gzip) = in_every_coding(&body).swap_remove(0);
    let parts: Vec<&[u8]> = body.chunks(10_007).collect();
    let all = [plain("", &body), chunked("", &parts), plain("Content-Encoding: gzip\r\n", &gzip)];
    for (at, answer) in answers(&origin_of(all), 3).iter().enumerate() {
        assert!(answer.body == body, "{at}: {} of {} bytes", answer.body.len(), body.len());
    }
}

#[test]
fn an_event_is_not_held_whatever_it_ends_with() {
    // What ends a line, and a line that ends an event (WHATWG HTML §9.2.6).
    for end in ["\n\n", "\r\r", "\r\n\r\n"] {
        event_is_not_held(end);
    }
}

fn event_is_not_held(end: &str) {
    let (half, rest) = SECRET.split_at(20);
    let event = format!("data: {half}{end}");
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let chunk = |text: &str| Step::Send(format!("{:x}\r\n{text}\r\n", text.len()).into_bytes());
    let world = World::raw(vec![
        Step::Head,
        Step::Send(head),
        chunk(&event),
        Step::Wait,
        chunk(&format!("data: {half}")),
        chunk(&format!("{rest}{end}")),
        Step::Wait,
        Step::Send(b"0\r\n\r\n".to_vec()),
        Step::UntilClosed,
    ]);
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    tunnel.until(&event);
    world.origin.go();
    let masked = tunnel.until(end);
    assert_eq!(masked.matches('*').count(), SECRET.len(), "{masked}");
    world.origin.go();
    tunnel.until("0\r\n\r\n");
}

#[test]
fn a_websocket_is_scrubbed_across_fragments() {
    let (half, rest) = SECRET.split_at(10);
    let frame = |first: u8, text: &str| [&[first, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let frames = |texts: [&str; 4]| {
        let [whole, half, ping, rest] = texts;
        [frame(0x81, whole), frame(0x01, half), frame(0x89, ping), frame(0x80, rest)].concat()
    };
    let head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let sent = frames([SECRET, half, SECRET, rest]);
    let bytes = sent.iter().map(|&byte| Step::Send(vec![byte]));
    let twin = frames([TWIN, half, TWIN, "0aVb5Lr8Yt"]);
    let mut steps = vec![Step::Head, Step::Send(head.to_vec())];
    steps.extend(bytes);
    steps.extend([Step::Send(twin.clone()), Step::Wait, Step::Send(frame(0xc1, "deflated")), Step::UntilClosed]);
    let world = World::raw(steps);
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!(
        "GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ));
    assert!(tunnel.head().starts_with("HTTP/1.1 101 "));
    assert!(!world.origin.read()[0].to_ascii_lowercase().contains("extensions"));
    let clean = [SECRET, half, SECRET, rest].map(|text| masked(text.len()));
    let clean = frames([&*clean[0], &clean[1], &clean[2], &clean[3]]);
    assert_eq!(tunnel.exactly(sent.len()), clean);
    assert_eq!(tunnel.exactly(twin.len()), twin);
    world.origin.go();
    assert!(tunnel.rest().is_empty());
    let line = world.env.journal_line(|line| line["path"] == "/ws");
    assert_eq!(line["outcome"], "failed", "{line}");
}

#[test]
fn a_value_that_was_replaced_is_looked_for_still() {
    let body = format!("{SECRET} and sk-real-the-second");
    let world = origin_of(std::iter::repeat_n(plain("", body.as_bytes()), 10_000));
    let mut tunnel = world.agent.tunnel(HOST);
    let mut get = || {
        tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        tunnel.answer(false).text()
    };
    assert_eq!(get(), format!("{} and sk-real-the-second", masked(SECRET.len())));
    world.env.secret("acme-key", "sk-real-the-second");
    let began = Instant::now();
    loop {
        let text = get();
        assert!(text.starts_with(&masked(SECRET.len())), "{text}");
        if text.ends_with(&masked(18)) {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "the new secret is not looked for");
    }
}

#[test]
fn an_open_websocket_learns_a_value_that_replaces_another() {
    let second = "sk-real-the-second";
    let world = World::new(Alpn::H1);
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!(
        "GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ));
    assert!(tunnel.head().starts_with("HTTP/1.1 101 "));
    let mut echo = |text: &str| {
        let length = u8::try_from(text.len()).unwrap();
        tunnel.send_bytes(&[&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat());
        String::from_utf8(tunnel.exactly(2 + text.len()).split_off(2)).unwrap()
    };
    assert_eq!((echo(SECRET), echo(second)), (masked(SECRET.len()), second.to_owned()));
    world.env.secret("acme-key", second);
    let began = Instant::now();
    while echo(second) != masked(second.len()) {
        assert!(began.elapsed() < PATIENCE, "the new secret is not looked for");
    }
    assert_eq!(echo(SECRET), masked(SECRET.len()));
}

#[test]
fn a_value_is_looked_for_after_its_service_got_another_credential_or_place() {
    let second = "sk-real-the-second";
    let whole = STANDARD.encode(format!("bot:{SECRET}"));
    let body = format!("{SECRET} {whole} {second}");
    let mut env = TestEnv::new();
    let origin = RawOrigin::https(&env.ca, &[HOST], steps(std::iter::repeat_n(plain("", body.as_bytes()), 10_000)));
    env.secret("acme-key", SECRET);
    env.secret("other-key", second);
    env.dial_at(&format!("{HOST}:443"), origin.addr);
    let service = |credential: &str, inject: &str| {
        format!("name = \"acme\"\ncredential = \"{credential}\"\nhosts = [\"{HOST}\"]\ninject = {inject}")
    };
    let first = service("acme-key", "{ basic = \"bot\" }");
    env.service(&first);
    let world = World::started(env, origin, &["acme"]);
    let mut tunnel = world.agent.tunnel(HOST);
    let mut get = || {
        tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        tunnel.answer(false).text()
    };
    let known = |text: &str| !text.contains(SECRET) && !text.contains(&whole[..whole.len() - 2]);
    assert!(known(&get()) && get().ends_with(second));
    let file = world.env.home().join("narrows.toml");
    let toml = std::fs::read_to_string(&file).unwrap();
    let next = service("other-key", "\"Authorization: Bearer {secret}\"");
    std::fs::write(&file, toml.replace(&first, &next)).unwrap();
    let began = Instant::now();
    loop {
        let text = get();
        assert!(known(&text), "{text}");
        if text.ends_with(&masked(second.len())) {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "the new secret is not looked for");
    }
}

#[test]
fn http2_is_scrubbed_too() {
    for alpn in [Alpn::H2, Alpn::H1] {
        let world = World::new(alpn);
        world.origin.put("/echo.json", "application/json", format!("{{\"t\": \"{SECRET}\", \"u\": \"{TWIN}\"}}"));
        let answer = world.agent.get(HOST, "/echo.json");
        assert_eq!(answer.text(), format!("{{\"t\": \"{}\", \"u\": \"{TWIN}\"}}", masked(SECRET.len())));
        assert_eq!(answer.header("content-length"), Some(&*answer.text().len().to_string()));
    }
}
