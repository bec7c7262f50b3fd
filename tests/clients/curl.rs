//! curl, in each of the shapes in which a request can come to a forward proxy.

use std::path::PathBuf;
use std::process::Command;

use crate::support::ca::Alpn;
use crate::support::client::{Ran, clean, program, run, skip};
use crate::support::handlers::{is_h2, pattern};
use crate::support::origin::Origin;
use crate::support::record::sha256_hex;
use crate::{CARRIERS, Carrier, MARKER, SECRET, World, refused};

fn curl(test: &str) -> Option<PathBuf> {
    let found = program("curl");
    if found.is_none() {
        skip(test, "there is no curl");
    }
    found
}

/// Larger than every buffer on the way, so that a body which is kept whole or cut off shows.
const SIZE: usize = 3_000_000;

/// Never the user's own `.curlrc`; silent but for errors; bounded.
const QUIET: [&str; 4] = ["-q", "-sS", "--max-time", "30"];

#[test]
fn either_version_to_an_origin_of_either_version() {
    let Some(curl) = curl("curl_versions") else { return };
    for alpn in [Alpn::H1, Alpn::H2, Alpn::Absent] {
        let world = World::new(alpn);
        for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2"), ("--no-alpn", "1.1")] {
            for carrier in CARRIERS {
                let before = world.origin.seen().len();
                let mut command = world.under(carrier, &curl);
                command.args(QUIET).args([flag, "-w", " over %{http_version}", "https://api.acme.test/v1/items"]);
                run(&mut command, b"").succeeded().says(MARKER).says(&format!("over {version}")).never_says(SECRET);
                world.saw_bearer(before, "/v1/items");
                assert_eq!(world.origin.seen().last().map(is_h2), Some(alpn == Alpn::H2));
            }
        }
    }
}

#[test]
fn a_denial_is_read_by_who_reads_curl() {
    let Some(curl) = curl("curl_denial") else { return };
    let world = World::new(Alpn::Both);
    for carrier in CARRIERS {
        for flag in ["--http1.1", "--http2"] {
            let denied = |arguments: &[&str]| {
                run(world.under(carrier, &curl).args(QUIET).arg(flag).args(["-i"]).args(arguments), b"").succeeded()
            };
            refused(denied(&["https://api.acme.test/v2/private"]).says("403").says("application/problem+json"));
            refused(denied(&["-d", "{}", "https://api.acme.test/v1/items"]));
            denied(&["https://unknown.acme.test/"]).says("service_unknown").never_says(SECRET);
        }
    }
    assert_eq!(world.origin.seen().len(), 0, "a denied request reached the origin");
    assert_eq!(world.origin.connections(), 0, "something was dialled for a denied request");
}

#[test]
fn what_the_agent_sends_in_the_secrets_place_never_arrives() {
    let Some(curl) = curl("curl_foreign_credential") else { return };
    let world = World::new(Alpn::Both);
    let mut command = world.under(Carrier::Run, &curl);
    command.args(QUIET).args(["-H", "Authorization: Bearer mine", "-H", "Cookie: me=1", "-H", "X-Api-Key: mine"]);
    run(command.arg("https://api.acme.test/v1/items"), b"").succeeded().says(MARKER);
    world.saw_bearer(0, "/v1/items");
    let seen = world.origin.only();
    assert_eq!((seen.header("cookie"), seen.header("x-api-key")), (None, None));
    let line = world.env.journal_line(|line| line["path"] == "/v1/items");
    assert_eq!(line["foreign_credential"], true, "{line}");
}

#[test]
fn large_bodies_pass_both_ways() {
    let Some(curl) = curl("curl_bodies") else { return };
    for alpn in [Alpn::H1, Alpn::H2] {
        let world = World::with(alpn, &["acme"], |env, origin| env.acme(SECRET, origin));
        let (up, down) = (world.env.file("up"), world.env.file("down"));
        std::fs::write(&up, pattern(0, SIZE)).unwrap();
        for flag in ["--http1.1", "--http2"] {
            let transfer = |arguments: &[&str]| {
                run(world.under(Carrier::Run, &curl).args(QUIET).arg(flag).args(arguments), b"").succeeded()
            };
            for path in ["bytes", "chunked"] {
                let to = down.display().to_string();
                transfer(&["-o", &to, &format!("https://api.acme.test/{path}/{SIZE}")]);
                assert!(std::fs::read(&down).unwrap() == pattern(0, SIZE), "{path} over {flag} came damaged");
            }
            // curl asks to continue before a body of this size.
            let data = format!("@{}", up.display());
            transfer(&["--data-binary", &data, "https://api.acme.test/upload"]).says(&sha256_hex(&pattern(0, SIZE)));
            let chunked = ["-H", "Transfer-Encoding: chunked", "--data-binary", &data, "https://api.acme.test/upload"];
            transfer(&chunked).says(&sha256_hex(&pattern(0, SIZE)));
        }
    }
}

#[test]
fn clear_text_in_absolute_form_and_inside_a_connect() {
    let Some(curl) = curl("curl_http") else { return };
    let plain = Origin::http();
    plain.put("/v1/items", "text/plain", MARKER);
    let world = World::with(Alpn::Both, &["plain:read path=/v1"], |env, _| {
        env.dial_at("plain.acme.test:80", plain.addr);
        env.service("name = \"plain\"\nhosts = [\"http://plain.acme.test\"]");
    });
    for carrier in CARRIERS {
        for flags in [&[][..], &["--proxytunnel"]] {
            let get = |path: &str| {
                let url = format!("http://plain.acme.test{path}");
                run(world.under(carrier, &curl).args(QUIET).args(flags).arg(url), b"").succeeded()
            };
            get("/v1/items").says(MARKER);
            let last = plain.seen().pop().unwrap();
            assert_eq!(last.host, "plain.acme.test");
            assert!(!last.headers.keys().any(|name| name.as_str().starts_with("proxy-")), "{last:#?}");
            let before = plain.seen().len();
            refused(get("/v2/private"));
            assert_eq!(plain.seen().len(), before);
        }
    }
}

#[test]
fn connect_in_http_1_0() {
    let Some(curl) = curl("curl_proxy_1_0") else { return };
    let world = World::new(Alpn::Both);
    let credentials = world.holder.presentation();
    let get = |path: &str| -> Ran {
        let mut command = direct(&curl, &world);
        command.args(["--proxy1.0", &world.daemon.addr.to_string(), "--proxy-user", &format!("cap:{credentials}")]);
        run(command.arg(format!("https://api.acme.test{path}")), b"").succeeded()
    };
    get("/v1/items").says(MARKER).never_says(SECRET);
    world.saw_bearer(0, "/v1/items");
    refused(get("/v2/private"));
}

#[test]
fn without_credentials_there_is_a_407_and_no_way_on() {
    let Some(curl) = curl("curl_407") else { return };
    let world = World::new(Alpn::Both);
    let mut command = direct(&curl, &world);
    command.args(["-v", "--proxy", &format!("http://{}", world.daemon.addr), "https://api.acme.test/v1/items"]);
    let said = run(&mut command, b"").failed().said().to_ascii_lowercase();
    for challenge in ["cap realm=\"narrows\", aud=\"local\", error=\"missing\", now=", "basic realm=\"narrows\""] {
        assert!(said.contains(&format!("proxy-authenticate: {challenge}")), "{said}");
    }
    assert_eq!(world.origin.connections(), 0);
}

/// curl with no carrier: it is told the proxy, and trusts the home's CA.
fn direct(curl: &std::path::Path, world: &World) -> Command {
    let mut command = clean(curl);
    command.args(QUIET).arg("--cacert").arg(world.env.home().join("ca.pem"));
    command
}
