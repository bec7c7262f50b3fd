//! Any request against the whole catalogue and services that overlap: the router finds what a look at every pattern finds,
//! and no params or operations come of nothing.
//!
//! Four lines: scheme, authority, method, path with query.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use narrows::config::Config;
use narrows::request::{CanonicalPath, Scheme, Target};
use narrows::service::{Call, HostPattern, Route, Router};
use narrows::store::Home;

/// What overlaps: exact and suffix, a suffix below a suffix, ports, schemes, an opaque slash.
const OVERLAPPING: &str = r#"
[[service]]
name = "exact"
hosts = ["api.a.test", "a.test:8443", "http://c.test:8080"]
[[service.route]]
path = "/items/{item}/**"
action = "item"
[[service]]
name = "wide"
hosts = ["*.a.test", "*.a.test:8443"]
encoded_slash = "opaque"
ignore_case = ["owner"]
[[service.route]]
method = ["GET", "WEBSOCKET"]
path = "/{owner}/{_name}/events"
params = { repo = "{owner}/{_name}" }
operation = "read"
action = "events"
[[service.route]]
path = "/find"
query = { owner = "{owner}" }
[[service]]
name = "deep"
hosts = ["*.x.a.test"]
[[service]]
name = "plain"
hosts = ["plain.test"]
terminate = false
"#;

static ROUTER: LazyLock<Router> = LazyLock::new(|| {
    let names = narrows::service::catalogue().names();
    let catalogue: String = names.map(|name| format!("[[service]]\nname = \"{name}\"\n")).collect();
    let home = Home::at(Path::new("/nonexistent/narrows")).unwrap();
    Config::parse(&format!("{OVERLAPPING}{catalogue}"), &home).expect("sound").services
});

/// The pattern that names the target best: exact before suffix, then the longest.
fn slowly(target: &Target) -> Option<(&'static str, &'static HostPattern)> {
    let all = ROUTER.services().iter().flat_map(|service| {
        let patterns = service.endpoints().iter().flat_map(|endpoint| endpoint.hosts());
        patterns.map(|pattern| (&**service.name(), pattern))
    });
    let naming = all.filter(|(_, pattern)| pattern.port == target.port && pattern.names(&target.host));
    naming.max_by_key(|(_, pattern)| (!pattern.suffix, pattern.host.as_str().len()))
}

fuzz_target!(|text: &str| {
    let mut lines = text.splitn(4, '\n');
    let mut next = || lines.next().unwrap_or_default();
    let scheme = if next() == "http" { Scheme::Http } else { Scheme::Https };
    let Ok(target) = Target::parse_or(next(), scheme.default_port()) else { return };
    let (method, asked) = (next(), next());
    let best = slowly(&target);
    let service = match ROUTER.route(scheme, &target.host, target.port) {
        Route::Named(named) => {
            let (name, pattern) = best.expect("a pattern that names it");
            assert_eq!((&**named.service.name(), pattern.scheme, !pattern.suffix), (name, scheme, named.exact));
            assert!(named.endpoint.hosts().contains(pattern));
            named.service
        }
        Route::Web(web) => {
            let mut patterns = ROUTER.services().iter().flat_map(|service| service.endpoints()).flat_map(|e| e.hosts());
            assert!(!patterns.any(|pattern| pattern.names(&target.host)), "a named host is nobody else's");
            assert_eq!(target.port, scheme.default_port());
            web
        }
        Route::None => {
            assert!(best.is_none_or(|(_, pattern)| pattern.scheme != scheme));
            return;
        }
    };
    assert_eq!(ROUTER.scheme_of(&target.host, target.port), Some(scheme));
    assert!(ROUTER.serves_port(target.port));

    let (path, query) = asked.split_once('?').map_or((asked, None), |(path, query)| (path, Some(query)));
    let Ok(path) = CanonicalPath::parse(path, service.encoded_slash()) else { return };
    let call = Call { method, host: &target.host, path: Some(&path), query, websocket: false, body: method == "POST" };
    let found = service.classify(&call);
    assert!(service.terminate() || found.operation == "tunnel");
    assert!(found.action.is_none_or(|action| service.actions().contains(&action)));
    for (place, (name, value)) in found.params.iter().enumerate() {
        assert!(service.params().contains(&&**name), "an undeclared param");
        assert!(!found.params[..place].iter().any(|(other, _)| other == name), "a param twice");
        assert_eq!(service.canonical_param(name, value), **value);
    }
});
