//! The product in one test: a person, an orchestrator and a sub-agent, each with less than the one before, all with
//! `capctl` and curl.

use std::path::{Path, PathBuf};

use crate::support::ca::Alpn;
use crate::support::client::{Ran, program, run, skip};
use crate::support::daemon::Holder;
use crate::{MARKER, SECRET, World, refused};

/// A sub-agent of the world's holder, made as the orchestrator would: a new key, and a signed delegation to it.
fn delegate(world: &World, allow: &str) -> Holder {
    let (key, capability) = (world.env.file("sub.key"), world.env.file("sub.cap"));
    let public = run(world.env.command().args(["key", "new"]).arg(&key), b"").succeeded().stdout;
    let mut attenuate = world.env.command();
    attenuate.arg("attenuate").arg("--cap").arg(&world.holder.capability).arg("--key").arg(&world.holder.key);
    attenuate.args(["--to", public.trim(), "--name", "sub-agent", "--allow", allow, "--expires", "10m", "--out"]);
    run(attenuate.arg(&capability), b"").succeeded();
    Holder { capability, key }
}

fn get(world: &World, holder: &Holder, curl: &Path, arguments: &[&str]) -> Ran {
    let mut command = world.env.command();
    command.arg("run").arg("--cap").arg(&holder.capability).arg("--key").arg(&holder.key).arg("--").arg(curl);
    run(command.args(["-q", "-sS", "--max-time", "30"]).args(arguments), b"").succeeded().never_says(SECRET)
}

fn curl(test: &str) -> Option<PathBuf> {
    let found = program("curl");
    if found.is_none() {
        skip(test, "there is no curl");
    }
    found
}

#[test]
fn each_hop_has_less_than_the_one_before() {
    let Some(curl) = curl("story") else { return };
    let world = World::with(Alpn::Both, &["acme path=/v1"], |env, origin| env.acme(SECRET, origin));
    world.origin.put("/v1/other", "text/plain", MARKER);
    let sub = delegate(&world, "acme:read path=/v1/items");
    let (items, other) = ("https://api.acme.test/v1/items", "https://api.acme.test/v1/other");

    get(&world, &world.holder, &curl, &[other]).says(MARKER);
    get(&world, &sub, &curl, &[items]).says(MARKER);
    refused(get(&world, &sub, &curl, &[other]));
    refused(get(&world, &sub, &curl, &["-d", "{}", items]));

    // The journal names the chain, and explain says beforehand what the proxy then does.
    let line = world.env.journal_line(|line| line["path"] == "/v1/items" && line["outcome"] == "allowed");
    assert_eq!(line["user"], "alice@example.com");
    assert_eq!(line["chain"].as_array().map(Vec::len), Some(2), "{line}");
    assert_eq!(line["chain"][1]["name"], "sub-agent");
    for (method, url, code) in [("GET", items, 0), ("GET", other, 3), ("POST", items, 3)] {
        let ran = run(world.env.command().args(["explain", "--cap"]).arg(&sub.capability).args([method, url]), b"");
        assert_eq!(ran.code, Some(code), "{method} {url}: {}", ran.said());
    }
    world.env.capctl(&["audit", "verify"]).succeeded();
}

#[test]
fn a_sub_agents_wider_grant_gives_it_no_more() {
    let Some(curl) = curl("wider_grant") else { return };
    let world = World::with(Alpn::Both, &["acme:read path=/v1"], |env, origin| env.acme(SECRET, origin));
    world.origin.put("/v2/private", "text/plain", "never");
    let sub = delegate(&world, "acme");
    get(&world, &sub, &curl, &["https://api.acme.test/v1/items"]).says(MARKER);
    refused(get(&world, &sub, &curl, &["https://api.acme.test/v2/private"]));
    refused(get(&world, &sub, &curl, &["-d", "{}", "https://api.acme.test/v1/items"]));
}

#[test]
fn revoking_the_parent_stops_the_child() {
    let Some(curl) = curl("revoking") else { return };
    let world = World::with(Alpn::Both, &["acme path=/v1"], |env, origin| env.acme(SECRET, origin));
    let sub = delegate(&world, "acme:read path=/v1/items");
    let items = "https://api.acme.test/v1/items";
    get(&world, &sub, &curl, &[items]).says(MARKER);
    run(world.env.command().args(["revoke", "--cap"]).arg(&world.holder.capability), b"").succeeded();
    let began = std::time::Instant::now();
    while !get(&world, &sub, &curl, &[items]).said().contains("capability_revoked") {
        assert!(began.elapsed() < crate::support::PATIENCE, "the child goes on");
    }
}

#[test]
fn the_agents_own_login_passes_where_no_credential_is_kept() {
    let Some(curl) = curl("own_login") else { return };
    let world = World::with(Alpn::Both, &["plain"], |env, origin| {
        env.dial("other.acme.test", origin);
        env.service("name = \"plain\"\nhosts = [\"other.acme.test\"]");
    });
    let url = "https://other.acme.test/v1/items";
    get(&world, &world.holder, &curl, &["-H", "Authorization: Bearer agents-own", url]).says(MARKER);
    assert_eq!(world.origin.only().header("authorization"), Some("Bearer agents-own"));
}

#[test]
fn credentials_for_one_request_in_absolute_form() {
    let Some(curl) = curl("absolute_form") else { return };
    let plain = crate::support::origin::Origin::http();
    plain.put("/v1/items", "text/plain", MARKER);
    let world = World::with(Alpn::Both, &["plain:read path=/v1"], |env, _| {
        env.dial_at("plain.acme.test:80", plain.addr);
        env.service("name = \"plain\"\nhosts = [\"http://plain.acme.test\"]");
    });
    let url = "http://plain.acme.test/v1/items";
    let mut prove = world.env.command();
    prove.arg("prove").arg("--cap").arg(&world.holder.capability).arg("--key").arg(&world.holder.key);
    let credentials = run(prove.args(["--request", "GET", url]), b"").succeeded().stdout;
    let header = format!("Proxy-Authorization: Cap {}", credentials.trim());
    let once = || {
        let mut command = crate::support::client::clean(&curl);
        command.args(["-q", "-sS", "-i", "--max-time", "30", "-x", &format!("http://{}", world.daemon.addr)]);
        run(command.args(["-H", &header, url]), b"")
    };
    once().says(MARKER);
    once().says("proof_replayed").never_says(MARKER);
}
