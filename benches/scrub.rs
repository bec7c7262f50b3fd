//! What it costs to scan answers for secrets: text without any, text full of near-misses, one secret and four.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a bench")]

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use compression_codecs::brotli::params::EncoderParams;
use compression_codecs::core::Level;
use compression_codecs::core::util::{PartialBuffer, WriteBuffer};
use compression_codecs::{
    BrotliDecoder, BrotliEncoder, DecodeV2, EncodeV2, GzipDecoder, GzipEncoder, ZstdDecoder, ZstdEncoder,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::HeaderMap;
use narrows::credential::{Injection, Patterns, Scrubber, Secret};

const PART_BYTES: usize = 16 * 1024;
const PARTS: usize = 64;

fn patterns(secrets: usize, injection: Option<&Injection>) -> Arc<Patterns> {
    let secrets: Vec<Secret> = (0..secrets)
        .map(|n| Secret::new(format!("sk-proj-{n}kf9QmZx71TtPw0aVb5Lr8Ys{n}Hd").into_bytes()).expect("a secret"))
        .collect();
    let secrets: Vec<&Secret> = secrets.iter().collect();
    Arc::new(Patterns::new(&secrets, injection, None).expect("secrets"))
}

fn parts(line: &str) -> Vec<Bytes> {
    let text = Bytes::from(line.repeat(PARTS * PART_BYTES / line.len() + 1));
    (0..PARTS).map(|part| text.slice(part * PART_BYTES..(part + 1) * PART_BYTES)).collect()
}

fn random() -> Vec<Bytes> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..PARTS).map(|_| (0..PART_BYTES).map(|_| next()).collect::<Vec<u8>>().into()).collect()
}

fn bodies(c: &mut Criterion) {
    let json =
        "{\"id\":7001,\"name\":\"widgets\",\"full_name\":\"acme/widgets\",\"private\":false,\"description\":null},\n";
    let events = "data: {\"delta\":\"He said: \\\"one\\\", then\\n\\u00e9t\\u00e9 & 100% of it\"}\n\n";
    let html = "<p class=\"a\">Caf&eacute;&nbsp;&amp;&#160;bar</p><a href=\"/x?y=%2Fz%20a&amp;b=%5B1%5D\">\n";
    let misses = "sk-proj-0kf9QmZx71TtPw0aVb5Lr8Ysx sk-proj-0kf sk-proj-\n";
    let texts = [
        ("json", parts(json)),
        ("events", parts(events)),
        ("html", parts(html)),
        ("random", random()),
        ("near-misses", parts(misses)),
    ];
    for secrets in [1, 4] {
        let patterns = patterns(secrets, None);
        let mut group = c.benchmark_group(format!("scrub 1 MiB, secrets: {secrets}"));
        group.throughput(Throughput::Bytes((PARTS * PART_BYTES) as u64));
        for (name, parts) in &texts {
            group.bench_function(*name, |b| {
                b.iter(|| {
                    let mut scrubber = Scrubber::new(Arc::clone(&patterns));
                    for part in parts {
                        let mut next = scrubber.push(part.clone());
                        while let Some(bytes) = next {
                            black_box(bytes);
                            next = scrubber.ready();
                        }
                    }
                    black_box(scrubber.finish())
                });
            });
        }
        group.finish();
    }
}

/// A text of words that repeat about as often as those of an API's answer do.
fn words() -> Vec<u8> {
    let random = random().concat();
    let rows = random.chunks_exact(6).map(|six| {
        let [a, b, c, ..] = *six else { unreachable!("six bytes") };
        format!(
            "{{\"id\":{},\"login\":\"user-{a:x}{b:x}\",\"node_id\":\"MDQ6{}=\",\"type\":\"User\",\"site_admin\":false}},\n",
            u32::from(a) * 70_001 + u32::from(b),
            hex::encode(&six[c as usize % 3..])
        )
    });
    let mut text = Vec::new();
    rows.take_while(|row| {
        text.extend_from_slice(row.as_bytes());
        text.len() < PARTS * PART_BYTES
    })
    .for_each(drop);
    text.truncate(PARTS * PART_BYTES);
    text
}

fn encoded(encoder: &mut dyn EncodeV2, text: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 2 * text.len()];
    let mut output = WriteBuffer::new_initialized(&mut out);
    let mut input = PartialBuffer::new(text);
    while !input.unwritten().is_empty() {
        encoder.encode(&mut input, &mut output).expect("encoded");
    }
    while !encoder.finish(&mut output).expect("finished") {}
    let written = output.written_len();
    out.truncate(written);
    out
}

fn decode(decoder: &mut dyn DecodeV2, coded: &[u8], room: &mut [u8]) {
    let mut input = PartialBuffer::new(coded);
    loop {
        let mut output = WriteBuffer::new_initialized(room);
        let done = decoder.decode(&mut input, &mut output).expect("decoded");
        black_box(output.written());
        if done {
            break;
        }
    }
}

/// What reading an answer costs that comes in a coding, and what putting the coding on again would.
fn codings(c: &mut Criterion) {
    let text = words();
    let gzip = |level: u32| GzipEncoder::new(flate2::Compression::new(level).into());
    let brotli = || BrotliEncoder::new(EncoderParams::default().quality(Level::Precise(4)));
    let coded = [encoded(&mut gzip(6), &text), encoded(&mut brotli(), &text), encoded(&mut ZstdEncoder::new(3), &text)];
    let mut room = vec![0; PART_BYTES];
    let mut group = c.benchmark_group("codings, 1 MiB");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("decode gzip", |b| b.iter(|| decode(&mut GzipDecoder::new(), &coded[0], &mut room)));
    group.bench_function("decode br", |b| b.iter(|| decode(&mut BrotliDecoder::new(), &coded[1], &mut room)));
    group.bench_function("decode zstd", |b| b.iter(|| decode(&mut ZstdDecoder::new(), &coded[2], &mut room)));
    group.sample_size(10);
    group.bench_function("encode gzip 1", |b| b.iter(|| encoded(&mut gzip(1), &text)));
    group.bench_function("encode gzip 6", |b| b.iter(|| encoded(&mut gzip(6), &text)));
    group.bench_function("encode br 4", |b| b.iter(|| encoded(&mut brotli(), &text)));
    group.bench_function("encode zstd 3", |b| b.iter(|| encoded(&mut ZstdEncoder::new(3), &text)));
    group.finish();
    let sizes = coded.map(|coded| coded.len());
    println!("bytes coded of {}: {sizes:?} (gzip, br, zstd)", text.len());
}

fn headers(c: &mut Criterion) {
    let patterns = patterns(1, None);
    let headers: HeaderMap = [
        ("content-type", "application/json; charset=utf-8"),
        ("date", "Fri, 15 Jan 2027 15:40:12 GMT"),
        ("etag", "W/\"7f3c0a52cb2f2b4c5ad71d3a5ac8f4d2a1b0\""),
        ("cache-control", "private, max-age=60, s-maxage=60"),
        ("x-ratelimit-remaining", "4987"),
        ("x-request-id", "C0DE:1F2A3B:4C5D6E:7F8A9B:65A5B0CC"),
        ("strict-transport-security", "max-age=31536000; includeSubdomains; preload"),
        ("content-security-policy", "default-src 'none'"),
    ]
    .into_iter()
    .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
    .collect();
    c.bench_function("scrub the headers of an answer", |b| {
        b.iter(|| {
            headers.iter().any(|(name, value)| {
                patterns.is_in_name(name.as_str()) || patterns.scrub(black_box(value.as_bytes())).is_some()
            })
        });
    });
}

fn compile(c: &mut Criterion) {
    let basic = Injection::basic("x-access-token").expect("a user");
    c.bench_function("make the patterns of a secret", |b| b.iter(|| patterns(1, Some(&basic))));
}

criterion_group!(benches, bodies, codings, headers, compile);
criterion_main!(benches);
