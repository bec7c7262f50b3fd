//! Any fields of a request: after stripping no spelling of a slot is left, and injection leaves exactly one.
//!
//! One field a line.
#![no_main]

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use narrows::credential::{Injection, Injector, Secret, Slot, Slots};

/// What some server takes a name for: marks are all the same.
fn folded(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

/// The standard headers, the injection's own, and the one that `strip` names.
const SLOTS: [&str; 9] = [
    "authorization",
    "cookie",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "private-token",
    "job-token",
    "x-own-key",
    "x-too",
];
/// What is in every name that makes a server act on another request.
const OVERRIDES: [&str; 8] = ["method", "url", "uri", "path", "prefix", "forwarded", "server", "host"];

fuzz_target!(|bytes: &[u8]| {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|&byte| byte == b'\n') {
        let (name, value) = line.split_at(line.iter().position(|&byte| byte == b':').unwrap_or(line.len()));
        let name = HeaderName::from_bytes(name);
        let value = HeaderValue::from_bytes(value.get(1..).unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let sent = headers.clone();
    let injection = Injection::header("X-Own-Key: key {secret}").unwrap();
    let slots = Slots::new(Some(&injection), &[Slot::parse("X-Too").unwrap()]);
    let mut target = PathAndQuery::from_static("/");
    let stripped = slots.strip(&mut headers, &mut target).unwrap();
    let is_slot = |name: &HeaderName| SLOTS.contains(&&*folded(name.as_str()));
    assert!(!headers.keys().any(is_slot), "a slot is left");
    for name in sent.keys() {
        if headers.contains_key(name) {
            assert!(headers.get_all(name).iter().eq(sent.get_all(name)), "a field lost a value");
        } else {
            assert!(is_slot(name) || OVERRIDES.iter().any(|word| name.as_str().contains(word)), "{name} is no slot");
            let same = |other: &HeaderName| folded(other.as_str()) == folded(name.as_str());
            assert!(!headers.keys().any(same), "another spelling of {name} is left");
        }
    }
    let injector = Injector::new(&injection, &Secret::new(b"canary-1".to_vec()).unwrap()).unwrap();
    injector.apply(&stripped, &mut headers, &mut target).unwrap();
    let own: Vec<_> = headers.iter().filter(|(name, _)| is_slot(name)).collect();
    assert_eq!(own.len(), 1);
    assert_eq!(own[0].1, "key canary-1");
});
