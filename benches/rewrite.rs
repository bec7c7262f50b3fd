//! What a request inside a tunnel costs between its head and the upstream, apart from policy: to find its service, to
//! say what it means, to strip what the agent sent and to inject the secret.

#![expect(clippy::expect_used, reason = "a bench")]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use http::HeaderMap;
use http::uri::PathAndQuery;
use narrows::config::Config;
use narrows::credential::Secret;
use narrows::request::{CanonicalPath, EncodedSlash, Host, Scheme};
use narrows::service::{Binding, Call, Injectors, Named, Route, Router};
use narrows::store::Home;

/// Every built-in service that these benches use, and as many others as a large installation has.
fn config(others: usize) -> Config {
    let mut text = String::from("[[service]]\nname = \"github\"\ncredential = \"github\"\n");
    text.push_str("[[service]]\nname = \"gemini\"\ncredential = \"gemini\"\n");
    text.push_str(
        "[[service]]\nname = \"query\"\ncredential = \"q\"\nhosts = [\"query.test\"]\ninject = { query = \"key\" }\n",
    );
    let hosts: Vec<String> = (0..others).map(|n| format!("\"*.s{n}.acme.test\"")).collect();
    if !hosts.is_empty() {
        text = format!("{text}[[service]]\nname = \"acme\"\nhosts = [{}]\n", hosts.join(", "));
    }
    let home = Home::at(Path::new("/nonexistent/narrows")).expect("an absolute path");
    Config::parse(&text, &home).expect("a sound configuration")
}

fn named<'r>(router: &'r Router, host: &Host) -> Named<'r> {
    let Route::Named(named) = router.route(Scheme::Https, host, 443) else { unreachable!("the host is served") };
    named
}

fn headers() -> HeaderMap {
    let pairs = [
        ("accept", "application/vnd.github+json"),
        ("accept-encoding", "gzip"),
        ("authorization", "Bearer ghp_0123456789abcdef0123456789abcdef0123"),
        ("content-type", "application/json"),
        ("user-agent", "agent/1.0"),
        ("x-github-api-version", "2022-11-28"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("x-request-id", "7"),
    ];
    pairs.into_iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))).collect()
}

fn route(c: &mut Criterion) {
    let config = config(10_000);
    let exact = Host::parse("api.github.com").expect("a host");
    let below = Host::parse("a.b.s9999.acme.test").expect("a host");
    let other = Host::parse("www.example.com").expect("a host");
    let mut group = c.benchmark_group("route among 10000");
    for (name, host) in [("exact", &exact), ("suffix", &below), ("web", &other)] {
        group
            .bench_function(name, |b| b.iter(|| black_box(config.services.route(Scheme::Https, black_box(host), 443))));
    }
    group.finish();
}

fn classify(c: &mut Criterion) {
    let config = config(0);
    let host = Host::parse("api.github.com").expect("a host");
    let service = named(&config.services, &host).service;
    let path = CanonicalPath::parse("/repos/acme/widgets/issues/7/comments", EncodedSlash::Refuse).expect("a path");
    let call =
        Call { method: "GET", host: &host, path: Some(&path), query: Some("page=2"), websocket: false, body: false };
    c.bench_function("classify, every github route", |b| b.iter(|| black_box(service.classify(black_box(&call)))));
}

fn strip_and_inject(c: &mut Criterion) {
    let config = config(0);
    let secret = Arc::new(Secret::new(b"ghp_real0123456789abcdef0123456789abcdef".to_vec()).expect("a secret"));
    let injectors = Injectors::new(&config.services, |_| Some(Arc::clone(&secret)));
    let mut group = c.benchmark_group("strip and inject");
    for (name, host, target) in [
        ("header", "api.github.com", "/repos/acme/widgets/issues?page=2"),
        ("header, query slots", "generativelanguage.googleapis.com", "/v1beta/models/m:generateContent?alt=sse&key=x"),
        ("query", "query.test", "/v1/items?page=2&key=x"),
    ] {
        let host = Host::parse(host).expect("a host");
        let endpoint = named(&config.services, &host).endpoint;
        let Some(Binding::Ready(injector)) = injectors.binding(endpoint) else { unreachable!("the secret is there") };
        let target: PathAndQuery = target.parse().expect("a target");
        group.bench_function(name, |b| {
            b.iter_batched(
                || (headers(), target.clone()),
                |(mut headers, mut target)| {
                    let stripped = endpoint.slots().strip(&mut headers, &mut target).expect("writable");
                    injector.apply(&stripped, &mut headers, &mut target).expect("writable");
                    (headers, target)
                },
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, route, classify, strip_and_inject);
criterion_main!(benches);
