//! Requests: what a capability allows, and one step aside what it does not.

use serde_json::{Map, Value, json};

use super::NOW;

pub(super) fn file() -> Value {
    let mut cases = Vec::new();
    for (capability, base, requests) in [
        ("alice", acme(0), alice()),
        ("bob", acme(1), bob()),
        ("carol", acme(2), carol()),
        ("bob-narrowed", acme(1), narrowed()),
        ("columns", acme(0), columns()),
        ("least", acme(0), vec![("nothing", json!({}), Some(("capability_denied", 0)))]),
        ("approval", acme(0), approval()),
        ("no-calls", acme(0), vec![("any", json!({}), Some(("budget_exhausted", 0)))]),
        ("no-rate", acme(0), vec![("any", json!({}), Some(("rate_limited", 0)))]),
        ("few-bytes", acme(0), few_bytes()),
    ] {
        for (name, changes, denied) in requests {
            let mut facts = base.clone();
            facts.extend(changes.as_object().expect("changes").clone());
            cases.push(json!({
                "name": format!("{capability}: {name}"),
                "capability": capability,
                "facts": facts,
                "verdict": if denied.is_some() { "denied" } else { "allowed" },
                "code": denied.map(|(code, _)| code),
                "block": denied.map(|(_, block)| block),
            }));
        }
    }
    json!({
        "about": "decide(capability, facts), with nothing revoked and every counter at zero, gives this verdict; code is the public code and block the index of the block that refuses. A fact that is null is absent; params is the set of param facts.",
        "cases": cases,
    })
}

type Case = (&'static str, Value, Option<(&'static str, usize)>);

/// `GET https://api.acme.test/v1/items` by the holder of that hop.
fn acme(hop: u32) -> Map<String, Value> {
    let facts = json!({
        "time": NOW, "service": "acme", "operation": "read", "action": null, "scheme": "https",
        "host": "api.acme.test", "port": 443, "method": "GET", "path": "/v1/items", "params": {}, "body_size": 0,
        "audience": "local", "proof": "connect", "hop": hop,
    });
    facts.as_object().expect("an object").clone()
}

const fn denied(block: usize) -> (&'static str, usize) {
    ("capability_denied", block)
}

const EXPIRY: u64 = NOW + 8 * 3600;

fn alice() -> Vec<Case> {
    vec![
        ("read", json!({}), None),
        ("any operation", json!({ "operation": "delete", "method": "DELETE" }), None),
        ("github read", json!({ "service": "github", "host": "api.github.com" }), None),
        (
            "github write",
            json!({ "service": "github", "host": "api.github.com", "operation": "write" }),
            Some(denied(0)),
        ),
        ("another service", json!({ "service": "web" }), Some(denied(0))),
        ("last second", json!({ "time": EXPIRY - 1 }), None),
        ("expired", json!({ "time": EXPIRY }), Some(("capability_expired", 0))),
        ("expired, and no right", json!({ "time": EXPIRY, "service": "web" }), Some(("capability_expired", 0))),
        ("deep enough", json!({ "hop": 2 }), None),
        ("too deep", json!({ "hop": 3 }), Some(denied(0))),
        ("too deep and expired", json!({ "hop": 3, "time": EXPIRY }), Some(denied(0))),
        ("second audience", json!({ "audience": "proxy.example.com" }), None),
        ("another audience", json!({ "audience": "proxy.example.org" }), Some(denied(0))),
        ("a presentation", json!({ "proof": "presentation" }), None),
        ("a tunnel", json!({ "operation": "tunnel", "method": null, "path": null, "body_size": null }), None),
    ]
}

fn bob() -> Vec<Case> {
    let github = |repo: Value| json!({ "service": "github", "host": "api.github.com", "path": "/x", "params": repo });
    vec![
        ("items", json!({}), None),
        ("below items", json!({ "path": "/v1/items/7" }), None),
        ("items with a slash", json!({ "path": "/v1/items/" }), None),
        ("write", json!({ "operation": "write", "method": "POST", "body_size": 10 }), None),
        ("beside items", json!({ "path": "/v1/itemsevil" }), Some(denied(1))),
        ("above items", json!({ "path": "/v1" }), Some(denied(1))),
        ("letter case", json!({ "path": "/v1/Items" }), Some(denied(1))),
        ("no path", json!({ "path": null }), Some(denied(1))),
        ("delete", json!({ "operation": "delete", "method": "DELETE" }), Some(denied(1))),
        ("repository", github(json!({ "repo": "acme/widgets" })), None),
        ("another repository", github(json!({ "repo": "acme/gadgets" })), Some(denied(1))),
        ("longer repository", github(json!({ "repo": "acme/widgets2" })), Some(denied(1))),
        ("unknown repository", github(json!({})), Some(denied(1))),
        ("another param", github(json!({ "org": "acme/widgets" })), Some(denied(1))),
        ("expired for bob", json!({ "time": NOW + 3600 }), Some(("capability_expired", 1))),
    ]
}

fn carol() -> Vec<Case> {
    vec![
        ("read", json!({}), None),
        ("write", json!({ "operation": "write", "method": "POST" }), Some(denied(2))),
        ("largest body", json!({ "body_size": 1024 }), None),
        ("larger body", json!({ "body_size": 1025 }), Some(denied(2))),
        ("body of unknown size", json!({ "body_size": null }), Some(denied(2))),
        ("absolute-form request", json!({ "proof": "request" }), None),
        ("presentation", json!({ "proof": "presentation" }), Some(denied(2))),
        ("outside bob's", json!({ "path": "/v2" }), Some(denied(1))),
    ]
}

fn narrowed() -> Vec<Case> {
    vec![
        ("GET", json!({}), None),
        ("HEAD", json!({ "method": "HEAD" }), Some(denied(2))),
        ("method in lower case", json!({ "method": "get" }), Some(denied(2))),
    ]
}

fn columns() -> Vec<Case> {
    let base = |changes: Value| {
        let mut facts = json!({ "action": "dns.list" });
        let object = facts.as_object_mut().expect("an object");
        object.extend(changes.as_object().expect("changes").clone());
        facts
    };
    vec![
        ("all hold", base(json!({})), None),
        ("other action", base(json!({ "action": "zones.list" })), Some(denied(0))),
        ("no action", base(json!({ "action": null })), Some(denied(0))),
        ("second row", base(json!({ "action": null, "path": "/plain" })), None),
        ("host below", base(json!({ "host": "eu.acme.test" })), None),
        ("suffix itself", base(json!({ "host": "acme.test" })), Some(denied(0))),
        ("host beside", base(json!({ "host": "evilacme.test" })), Some(denied(0))),
        ("second port", base(json!({ "port": 8443 })), None),
        ("other port", base(json!({ "port": 80 })), Some(denied(0))),
        ("not that method", base(json!({ "method": "DELETE" })), Some(denied(0))),
        ("no method", base(json!({ "method": null })), Some(denied(0))),
        ("longest path", base(json!({ "path": "/234567890123456789a" })), None),
        ("longer path", base(json!({ "path": "/234567890123456789ab" })), Some(denied(0))),
        ("cleartext", base(json!({ "scheme": "http" })), Some(denied(0))),
        ("not yet", base(json!({ "time": NOW - 3601 })), Some(("capability_expired", 0))),
        ("just now", base(json!({ "time": NOW - 3600 })), None),
    ]
}

fn approval() -> Vec<Case> {
    vec![
        ("read", json!({}), None),
        ("write", json!({ "operation": "write" }), Some(("approval_required", 0))),
        ("delete", json!({ "operation": "delete" }), Some(denied(0))),
    ]
}

fn few_bytes() -> Vec<Case> {
    let post = |size: Value| json!({ "operation": "write", "method": "POST", "body_size": size });
    vec![
        ("fits", post(json!(1024)), None),
        ("too large", post(json!(1025)), Some(("budget_exhausted", 0))),
        ("unknown size", post(Value::Null), None),
    ]
}
