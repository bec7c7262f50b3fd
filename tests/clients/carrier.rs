//! The carriers themselves: which variables the child finds, and what it cannot reach.

use std::collections::BTreeMap;
use std::path::Path;

use crate::support::ca::Alpn;
use crate::support::client::run;
use crate::{CARRIERS, Carrier, MARKER, SECRET, World, refused};

/// Each client reads another one, in another case.
const PROXY_VARIABLES: [&str; 7] =
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "grpc_proxy"];

const CA_VARIABLES: [&str; 17] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "PIP_CERT",
    "AWS_CA_BUNDLE",
    "DENO_CERT",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HTTPLIB2_CA_CERTS",
    "NIX_SSL_CERT_FILE",
    "npm_config_cafile",
    "PERL_LWP_SSL_CA_FILE",
    "CODEX_CA_CERTIFICATE",
    "BUNDLE_SSL_CA_CERT",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "NODE_EXTRA_CA_CERTS",
];

fn variables(world: &World, carrier: Carrier, inherited: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut command = world.under(carrier, Path::new("/usr/bin/env"));
    let ran = run(command.envs(inherited.iter().copied()), b"").succeeded().never_says(SECRET);
    let split = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    ran.stdout.lines().filter_map(split).collect()
}

#[test]
fn the_child_finds_every_variable_that_a_client_reads() {
    let world = World::new(Alpn::Both);
    let ours = std::fs::read_to_string(world.env.home().join("ca.pem")).unwrap();
    let ours = ours.lines().nth(1).unwrap();
    for carrier in CARRIERS {
        let found = variables(&world, carrier, &[]);
        let proxy = &found["HTTPS_PROXY"];
        assert!(proxy.starts_with("http://") && proxy.contains("@127.0.0.1:"), "{proxy}");
        // User and password are both there, of letters that no client re-encodes.
        let userinfo = proxy["http://".len()..].split('@').next().unwrap();
        let (user, password) = userinfo.split_once(':').unwrap();
        assert!(!user.is_empty() && !password.is_empty());
        assert!(password.chars().all(|c| c.is_ascii_alphanumeric() || "._~-".contains(c)), "{password}");
        for name in PROXY_VARIABLES {
            assert_eq!(found.get(name), Some(proxy), "{carrier:?} {name}");
        }
        // The files may go with the child, so it looks itself.
        let script = r#"for name in $NAMES; do eval "file=\$$name"; grep -qF "$OURS" "$file" || echo "no CA by $name"; done; true"#;
        let mut command = world.under(carrier, Path::new("/bin/sh"));
        command.args(["-c", script]).env("OURS", ours).env("NAMES", CA_VARIABLES.join(" "));
        assert_eq!(run(&mut command, b"").succeeded().stdout, "", "{carrier:?}");
        assert_eq!(found.get("NODE_USE_ENV_PROXY").map(String::as_str), Some("1"));
        assert_eq!(found.get("GIT_HTTP_PROXY_AUTHMETHOD").map(String::as_str), Some("basic"));
    }
}

#[test]
fn the_childs_own_no_proxy_opens_no_hole() {
    let world = World::new(Alpn::Both);
    for carrier in CARRIERS {
        let found = variables(&world, carrier, &[("NO_PROXY", "api.acme.test,*"), ("no_proxy", ".acme.test")]);
        for name in ["NO_PROXY", "no_proxy"] {
            let value = found.get(name).map_or("", String::as_str);
            assert!(!value.contains("acme.test") && !value.contains('*'), "{carrier:?} {name}={value}");
        }
    }
}

#[test]
fn the_childs_status_is_capctls() {
    let world = World::new(Alpn::Both);
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143)] {
        let ran = run(world.under(Carrier::Run, Path::new("/bin/sh")).args(["-c", script]), b"");
        assert_eq!(ran.code, Some(code), "{script}: {}", ran.said());
    }
}

#[test]
fn what_the_child_reads_and_writes_is_its_own() {
    let world = World::new(Alpn::Both);
    let ran = run(world.under(Carrier::Run, Path::new("/bin/sh")).args(["-c", "cat; echo err >&2"]), b"from stdin");
    assert_eq!(ran.succeeded().stdout, "from stdin");
}

/// Where namespaces are not to be had, the first line on stderr says what the agent can then read.
#[test]
fn the_child_cannot_read_the_home_or_is_said_to() {
    let world = World::new(Alpn::Both);
    let home = world.env.home();
    let script = format!("cat {0}/root.key {0}/secrets.json {0}/store.key {0}/narrows.toml", home.display());
    let ran = run(world.under(Carrier::Run, Path::new("/bin/sh")).args(["-c", &script]), b"");
    let hidden = ran.code != Some(0) && !ran.stdout.contains("ed25519-private");
    let said = ran.stderr.lines().next().is_some_and(|line| line.contains("read"));
    assert!(hidden || said, "{}", ran.said());
}

#[test]
fn the_forwarder_wants_its_password() {
    let Some(curl) = crate::support::client::program("curl") else {
        return crate::support::client::skip("forwarder_password", "there is no curl");
    };
    let world = World::new(Alpn::Both);
    // The child asks as another local process would: it knows the port and not the password.
    let script = r#"port=${HTTPS_PROXY##*:}; port=${port%/}
        "$0" -q -sS -o /dev/null -w '%{http_connect}' --max-time 20 -x "http://127.0.0.1:$port" https://api.acme.test/v1/items;
        "$0" -q -sS -o /dev/null -w '%{http_connect}' --max-time 20 -x "http://cap:guess@127.0.0.1:$port" https://api.acme.test/v1/items"#;
    let ran = run(world.under(Carrier::Run, Path::new("/bin/sh")).args(["-c", script]).arg(curl), b"");
    assert_eq!(ran.stdout, "407407", "{}", ran.said());
    assert_eq!(world.origin.connections(), 0);
}

#[test]
fn with_no_capability_an_ephemeral_one_is_made_for_the_grants() {
    let Some(curl) = crate::support::client::program("curl") else {
        return crate::support::client::skip("ephemeral", "there is no curl");
    };
    let world = World::new(Alpn::Both);
    let get = |path: &str| {
        let mut command = world.env.command();
        command.args(["run", "--allow", "acme:read path=/v1", "--"]).arg(&curl).args(["-q", "-sS", "--max-time", "30"]);
        run(command.arg(format!("https://api.acme.test{path}")), b"").succeeded()
    };
    get("/v1/items").says(MARKER).never_says(SECRET);
    refused(get("/v2/private"));
    let line = world.env.journal_line(|line| line["path"] == "/v1/items");
    assert_eq!(line["proof"], "connect", "{line}");
    // Neither a capability nor grants: a usage error with lines to type.
    let ran = run(world.env.command().args(["run", "--", "true"]), b"");
    assert_eq!(ran.code, Some(2));
    ran.says("--allow");
}

#[test]
fn grants_beside_a_capability_narrow_it() {
    let Some(curl) = crate::support::client::program("curl") else {
        return crate::support::client::skip("narrowing", "there is no curl");
    };
    let world = World::with(Alpn::Both, &["acme"], |env, origin| env.acme(SECRET, origin));
    let get = |path: &str| {
        let mut command = world.env.command();
        command.arg("run").arg("--cap").arg(&world.holder.capability).arg("--key").arg(&world.holder.key);
        command.args(["--allow", "acme:read path=/v1", "--"]).arg(&curl).args(["-q", "-sS", "--max-time", "30"]);
        run(command.arg(format!("https://api.acme.test{path}")), b"").succeeded()
    };
    get("/v1/items").says(MARKER);
    refused(get("/v2/private"));
}
