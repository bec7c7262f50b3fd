//! Grants: the check and the rights that a text becomes.

use serde_json::{Value, json};

const KEY: &str = "ed25519/d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

pub(super) fn file() -> Value {
    let approval = format!("acme:write approval={KEY}");
    let approved = format!(
        r#"check if service("acme"), operation("write"), approved_by(hex:{})"#,
        KEY.trim_start_matches("ed25519/")
    );
    let with_approval = [approval.as_str()];
    let accepted: Vec<(&[&str], &str, Value)> = vec![
        (&["github"], r#"check if service("github")"#, json!([["github", "*"]])),
        (&["github:read"], r#"check if service("github"), operation("read")"#, json!([["github", "read"]])),
        (
            &["acme:read,write path=/v1/items method=GET,POST"],
            r#"check if service("acme"), operation($operation), path($path), method($method), {"read", "write"}.contains($operation), $path == "/v1/items" || $path.starts_with("/v1/items/"), {"GET", "POST"}.contains($method)"#,
            json!([["acme", "read"], ["acme", "write"]]),
        ),
        (
            &["github:read repo=acme/widgets", "github:write repo=acme/* action=issues.*"],
            r#"check if service("github"), operation("read"), param("repo", "acme/widgets") or service("github"), operation("write"), param("repo", $p0), action($action), $p0.starts_with("acme/"), $action.starts_with("issues.")"#,
            json!([["github", "read"], ["github", "write"]]),
        ),
        (
            &["web host=*.example.com,Example.org port=443"],
            r#"check if service("web"), host($host), port(443), $host.ends_with(".example.com") || $host == "example.org""#,
            json!([["web", "*"]]),
        ),
        (
            &["acme:write body<=64k"],
            r#"check if service("acme"), operation("write"), body_size($body), $body <= 65536"#,
            json!([["acme", "write"]]),
        ),
        (&with_approval, &approved, json!([["acme", "write"]])),
        (&["acme path=/"], r#"check if service("acme"), path($path), $path.starts_with("/")"#, json!([["acme", "*"]])),
        (
            &[r#"acme zone="a, \"b\" \\""#],
            r#"check if service("acme"), param("zone", "a, \"b\" \\")"#,
            json!([["acme", "*"]]),
        ),
    ];
    let mut cases: Vec<Value> = accepted
        .into_iter()
        .map(|(grants, check, rights)| {
            json!({ "name": grants.join(" + "), "grants": grants, "verdict": "accepted", "check": check, "rights": rights })
        })
        .collect();
    for grant in [
        "",
        "github:",
        "github path",
        "github path=",
        "github path=v1",
        "github path=/v1/*",
        "github path=/v1/../x",
        "github repo=a repo=b",
        "github repo=a*b",
        "github repo=\"a",
        "github body=64k",
        "github repo<=1",
        "github port=0",
        "github scheme=ftp",
        "github host=a..b",
        "github approval=ed25519/00",
    ] {
        cases.push(json!({
            "name": format!("refused: {grant}"), "grants": [grant], "verdict": "refused", "check": null, "rights": null,
        }));
    }
    json!({
        "about": "The check and the rights of some --allow options, for services that declare every param. Grants are a convenience of our tools: a capability carries only the check.",
        "cases": cases,
    })
}
