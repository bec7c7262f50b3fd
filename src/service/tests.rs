use std::sync::Arc;

use proptest::prelude::*;

use super::document::{Document, Table};
use super::*;
use crate::credential::Secret;
use crate::request::{CanonicalPath, Scheme};

/// The services of a text, each with its problems as a test's failure.
fn services(text: &str) -> Vec<Service> {
    let document = Document::new("test.toml", text);
    let root = document.parse();
    let mut top = Table::new(&document, root.get_ref(), String::new(), root.span());
    let file: Arc<str> = "test.toml".into();
    let overlays: Vec<Overlay> =
        top.tables("service", "[[service]]").into_iter().filter_map(|t| Overlay::read(t, &file)).collect();
    top.finish();
    assert_eq!(document.into_problems(), []);
    overlays.into_iter().map(|overlay| overlay.alone().build().expect("a service")).collect()
}

fn service(text: &str) -> Service {
    services(&format!("[[service]]\nname = \"acme\"\n{text}")).remove(0)
}

fn host(text: &str) -> Host {
    Host::parse(text).expect("a host")
}

/// `service` or `web` or nothing, for `https://host:port`.
fn routed(router: &Router, name: &str, port: u16) -> String {
    let scheme = if port == 80 || port == 8080 { Scheme::Http } else { Scheme::Https };
    match router.route(scheme, &host(name), port) {
        Route::Named(named) => format!("{}{}", named.service.name(), if named.exact { "!" } else { "" }),
        Route::Web(web) => web.name().to_string(),
        Route::None => String::new(),
    }
}

const SEVERAL: &str = r#"
[[service]]
name = "exact"
hosts = ["api.a.test", "b.test:8443", "http://c.test:8080"]
[[service]]
name = "wide"
hosts = ["*.a.test", "*.b.test:8443"]
[[service]]
name = "deep"
hosts = ["*.x.a.test"]
"#;

#[test]
fn exact_hosts_win_then_the_longest_suffix() {
    let router = Router::new(services(SEVERAL)).expect("a router");
    for (name, port, expected) in [
        ("api.a.test", 443, "exact!"),
        ("API.A.test", 443, "exact!"),
        ("www.a.test", 443, "wide"),
        ("x.a.test", 443, "wide"),
        ("y.x.a.test", 443, "deep"),
        ("z.y.x.a.test", 443, "deep"),
        ("b.test", 8443, "exact!"),
        ("www.b.test", 8443, "wide"),
        ("c.test", 8080, "exact!"),
        ("other.test", 443, "web"),
        ("other.test", 80, "web"),
        ("192.0.2.1", 443, "web"),
        ("a.test", 443, "web"),
        ("aa.test", 443, "web"),
        // Served on no such port, so it is nobody's: never `web` beside its own service.
        ("api.a.test", 80, ""),
        ("www.a.test", 80, ""),
        ("b.test", 443, ""),
        ("c.test", 443, ""),
        ("other.test", 8443, ""),
        ("localhost", 443, ""),
    ] {
        assert_eq!(routed(&router, name, port), expected, "{name}:{port}");
    }
}

#[test]
fn the_scheme_belongs_to_the_destination() {
    let router = Router::new(services(SEVERAL)).expect("a router");
    assert!(matches!(router.route(Scheme::Http, &host("api.a.test"), 443), Route::None));
    assert!(matches!(router.route(Scheme::Https, &host("c.test"), 8080), Route::None));
    assert!(matches!(router.route(Scheme::Http, &host("other.test"), 443), Route::None));
    assert!(matches!(router.route(Scheme::Https, &host("other.test"), 80), Route::None));
    for (name, port, scheme) in [
        ("api.a.test", 443, Some(Scheme::Https)),
        ("c.test", 8080, Some(Scheme::Http)),
        ("other.test", 443, Some(Scheme::Https)),
        ("other.test", 80, Some(Scheme::Http)),
        ("other.test", 22, None),
        ("c.test", 80, None),
    ] {
        assert_eq!(router.scheme_of(&host(name), port), scheme, "{name}:{port}");
    }
    assert!([443, 80, 8443, 8080].into_iter().all(|port| router.serves_port(port)));
    assert!(![22, 444, 25].into_iter().any(|port| router.serves_port(port)));
}

#[test]
fn a_plain_tunnel_has_one_operation() {
    let service = service("hosts = [\"a.test\"]\nterminate = false\n");
    let call =
        Call { method: "CONNECT", host: &host("a.test"), path: None, query: None, websocket: false, body: false };
    let found = service.classify(&call);
    assert_eq!((found.operation, found.action, found.params.len()), ("tunnel", None, 0));
    assert_eq!(service.operations(), ["tunnel"]);
}

/// Operation, action and params for one request.
fn classified(service: &Service, method: &str, path: &str, websocket: bool) -> String {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let path = CanonicalPath::parse(path, service.encoded_slash()).expect("a path");
    let call = Call { method, host: &host("a.test"), path: Some(&path), query, websocket, body: false };
    let found = service.classify(&call);
    let params: Vec<String> = found.params.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{} {} {}", found.operation, found.action.unwrap_or("-"), params.join(","))
}

#[test]
fn operations_follow_the_method_unless_a_route_says_otherwise() {
    let service = service(
        r#"
hosts = ["a.test"]
[[service.route]]
path = "/search"
operation = "read"
action = "search"
[[service.route]]
method = ["GET", "WEBSOCKET"]
path = "/events"
operation = "read"
action = "events"
"#,
    );
    for (method, path, websocket, expected) in [
        ("GET", "/", false, "read - "),
        ("HEAD", "/", false, "read - "),
        ("OPTIONS", "/", false, "read - "),
        ("DELETE", "/", false, "delete - "),
        ("POST", "/", false, "write - "),
        ("get", "/", false, "write - "),
        ("PURGE", "/", false, "write - "),
        ("GET", "/", true, "write - "),
        ("POST", "/search", false, "read search "),
        ("get", "/events", false, "read events "),
        ("GET", "/search", true, "write search "),
        ("GET", "/events", true, "read events "),
        ("HEAD", "/events", false, "read events "),
        ("POST", "/events", false, "write - "),
    ] {
        assert_eq!(classified(&service, method, path, websocket), expected, "{method} {path} {websocket}");
    }
}

#[test]
fn params_are_total_or_absent() {
    let service = service(
        r#"
hosts = ["a.test"]
encoded_slash = "opaque"
ignore_case = ["item"]
[[service.route]]
path = "/items/{_box}/{_item}/**"
params = { item = "{_box}/{_item}" }
[[service.route]]
path = "/items/{box}/**"
[[service.route]]
path = "/find"
query = { item = "{item}" }
[[service.route]]
path = "/find"
query = { mode = "deep" }
action = "deep"
"#,
    );
    for (path, expected) in [
        ("/items/A/B/c", "read - item=a/b,box=A"),
        ("/items/A", "read - box=A"),
        ("/items/a%2Fb/c", "read - box=a/b"),
        ("/items/a%20b/c%C3%A4", "read - item=a b/c\u{e4},box=a b"),
        ("/items/a%FF/c", "read - "),
        ("/find?item=X", "read - item=x"),
        ("/find?item=X&mode=deep", "read deep item=x"),
        ("/find?item=X&item=Y", "read - "),
        ("/find?item=X&ITEM=Y", "read - "),
        ("/find?item=X&%69tem=Y", "read - "),
        ("/find?item=X;item=Y", "read - "),
        ("/find?%69tem=X", "read - item=x"),
        ("/find?item=", "read - "),
        ("/find?item=a%00b", "read - "),
        ("/find?mode=deep&mode=flat", "read - "),
        ("/find", "read - "),
    ] {
        assert_eq!(classified(&service, "GET", path, false), expected, "{path}");
    }
    let path = CanonicalPath::parse("/find", EncodedSlash::Refuse).expect("a path");
    let named = host("a.test");
    let with_body =
        Call { method: "GET", host: &named, path: Some(&path), query: Some("item=x"), websocket: false, body: true };
    assert!(service.classify(&with_body).params.is_empty(), "a form in the body could say otherwise");
}

#[test]
fn an_injector_belongs_to_its_own_router() {
    let text = r#"
[[service]]
name = "acme"
credential = "k"
hosts = ["a.test"]
inject = "X-Key: {secret}"
[[service]]
name = "free"
hosts = ["b.test"]
"#;
    let (router, other) =
        (Router::new(services(text)).expect("a router"), Router::new(services(text)).expect("another"));
    let secret = Arc::new(Secret::new(b"s3cret-value".to_vec()).expect("a secret"));
    let injectors = Injectors::new(&router, |_| Some(Arc::clone(&secret)));
    let endpoint = |router: &Router, name: &str| Arc::clone(&router.service(name).expect("named").endpoints()[0]);
    assert!(matches!(injectors.binding(&endpoint(&router, "acme")), Some(Binding::Ready(_))));
    assert!(matches!(injectors.binding(&endpoint(&router, "free")), Some(Binding::Nothing)));
    assert!(injectors.binding(&endpoint(&other, "acme")).is_none());
    let empty = Injectors::new(&router, |_| None);
    assert!(matches!(empty.binding(&endpoint(&router, "acme")), Some(Binding::Missing(name)) if name.as_str() == "k"));
}

#[test]
fn a_header_of_one_endpoint_is_stripped_at_every_other() {
    let service = service(
        r#"
credential = "k"
[[service.endpoint]]
hosts = ["api.a.test"]
inject = "X-Acme-Key: {secret}"
strip = ["X-Acme-Old", "query:sig"]
[[service.endpoint]]
hosts = ["files.a.test"]
"#,
    );
    let sent = [("x_acme_key", "a"), ("x-acme-old", "b"), ("x-acme-other", "c")];
    let header = |(name, value): (&str, &str)| (name.parse().expect("a name"), value.parse().expect("a value"));
    for (endpoint, left) in service.endpoints().iter().zip(["/", "/?sig=1"]) {
        let mut headers: http::HeaderMap = sent.into_iter().map(header).collect();
        let mut target = "/?sig=1".parse().expect("a target");
        assert!(endpoint.slots().strip(&mut headers, &mut target).expect("writable").foreign());
        let names: Vec<&str> = headers.keys().map(http::HeaderName::as_str).collect();
        assert_eq!((names, target.as_str()), (vec!["x-acme-other"], left));
    }
}

/// What the router must say, by looking at every pattern.
fn naive(services: &[Arc<Service>], name: &Host, port: u16) -> Option<(String, bool)> {
    let patterns = services.iter().flat_map(|service| {
        let hosts = service.endpoints().iter().flat_map(|endpoint| endpoint.hosts());
        hosts.map(move |pattern| (service.name().to_string(), pattern))
    });
    let matching = patterns.filter(|(_, pattern)| pattern.port == port && pattern.names(name));
    matching
        .max_by_key(|(_, pattern)| (!pattern.suffix, pattern.host.as_str().len()))
        .map(|(service, pattern)| (service, !pattern.suffix))
}

proptest! {
    #[test]
    fn the_router_agrees_with_a_look_at_every_pattern(
        patterns in proptest::collection::btree_set("(\\*\\.)?([abc]\\.){0,3}[ab](:8443)?", 1..12),
        names in proptest::collection::vec("([abc]\\.){0,4}[ab]", 1..12),
        port in prop_oneof![Just(443), Just(8443), Just(80)],
    ) {
        let table = |(n, pattern)| format!("[[service]]\nname = \"s{n}\"\nhosts = [\"{pattern}\"]\n");
        let tables: Vec<String> = patterns.iter().enumerate().map(table).collect();
        let router = Router::new(services(&tables.concat())).expect("distinct patterns");
        for name in names.iter().map(|name| host(name)) {
            let found = match router.route(Scheme::Https, &name, port) {
                Route::Named(named) => Some((named.service.name().to_string(), named.exact)),
                Route::Web(_) | Route::None => None,
            };
            prop_assert_eq!(found, naive(router.services(), &name, port), "{}", name);
        }
    }

    #[test]
    fn classifying_never_panics_and_gives_each_param_once(path in "/[a-z%0-9/.]{0,24}", query in "[a-z=&;%+0-9]{0,24}") {
        for definition in catalogue().iter() {
            let service = definition.build().expect("a service");
            let Ok(path) = CanonicalPath::parse(&path, service.encoded_slash()) else { continue };
            let name = host("api.github.com");
            let call =
                Call { method: "GET", host: &name, path: Some(&path), query: Some(&query), websocket: false, body: false };
            for (method, websocket) in [("GET", false), ("GET", true), ("POST", false), ("DELETE", false), ("X", false)] {
                let found = service.classify(&Call { method, websocket, ..call }).operation;
                prop_assert!(service.operations().contains(&found), "{} does not count {}", service.name(), found);
            }
            let mut names: Vec<Text> = service.classify(&call).params.into_iter().map(|(name, _)| name).collect();
            let all = names.len();
            names.sort();
            names.dedup();
            prop_assert_eq!(names.len(), all);
        }
    }
}
