//! What the way of a request may not allocate for its service: finding it, and looking for what to strip.
#![expect(clippy::expect_used, reason = "helpers of tests fail the test")]

use std::hint::black_box;
use std::path::Path;

use http::HeaderMap;
use http::uri::PathAndQuery;
use narrows::config::Config;
use narrows::request::{Host, Scheme};
use narrows::service::Route;
use narrows::store::Home;

/// A configuration with as many hosts as a large installation has.
fn config() -> Config {
    let hosts: Vec<String> = (0..5_000).map(|n| format!("\"h{n}.acme.test\", \"*.s{n}.acme.test\"")).collect();
    let hosts = hosts.join(", ");
    let text = format!(
        "[[service]]\nname = \"acme\"\ncredential = \"k\"\ninject = {{ query = \"key\" }}\nhosts = [{hosts}]\n"
    );
    let home = Home::at(Path::new("/nonexistent/narrows")).expect("an absolute path");
    Config::parse(&text, &home).expect("a sound configuration")
}

#[test]
fn finding_the_service_allocates_nothing() {
    let config = config();
    for name in ["h4999.acme.test", "a.b.c.s4999.acme.test", "www.example.com", "192.0.2.1", "localhost"] {
        let host = Host::parse(name).expect("a host");
        let found = allocation_counter::measure(|| {
            black_box(config.services.route(Scheme::Https, black_box(&host), 443));
            black_box(config.services.scheme_of(black_box(&host), 443));
        });
        assert_eq!(found.count_total, 0, "{name}");
    }
}

#[test]
fn a_request_with_nothing_to_strip_allocates_nothing() {
    let config = config();
    let host = Host::parse("h1.acme.test").expect("a host");
    let Route::Named(named) = config.services.route(Scheme::Https, &host, 443) else { panic!("it is served") };
    let pairs = [("accept", "*/*"), ("content-type", "application/json"), ("traceparent", "00-1-2-01"), ("x-a", "b")];
    let mut headers: HeaderMap = pairs
        .into_iter()
        .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
        .collect();
    let mut target: PathAndQuery = "/v1/items".parse().expect("a target");
    let found = allocation_counter::measure(|| {
        let _ = black_box(named.endpoint.slots().strip(&mut headers, &mut target));
    });
    assert_eq!((found.count_total, headers.len()), (0, 4));
}
