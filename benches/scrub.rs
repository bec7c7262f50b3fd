//! What it costs to scan answers for secrets: text without any, text full of near-misses, one secret and four.

#![expect(clippy::expect_used, reason = "a bench")]

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
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

criterion_group!(benches, bodies, headers, compile);
criterion_main!(benches);
