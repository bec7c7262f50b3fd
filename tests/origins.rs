//! The test origins themselves, driven by a real client with no proxy between: what a later test finds wrong is then
//! the proxy's fault.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::ca::{Alpn, TestCa};
use support::client::{Ran, clean, node, program, python, run, skip};
use support::handlers::pattern;
use support::origin::Origin;
use support::raw::{RawOrigin, Step};
use support::record::{End, sha256_hex};

#[test]
fn curl_sees_each_protocol_that_an_origin_offers() {
    let ca = TestCa::new();
    for (alpn, wanted) in [(Alpn::H1, "1.1"), (Alpn::H2, "2"), (Alpn::Both, "2"), (Alpn::Absent, "1.1")] {
        let origin = Origin::https(&ca, &["api.acme.test"], alpn);
        let Some(ran) = curl(&ca, origin.port(), &["-sS", "-w", "%{http_version}", "-o", "/dev/null"], "/echo") else {
            return;
        };
        assert_eq!(ran.stdout, wanted, "{alpn:?}");
        assert_eq!(origin.only().host, format!("api.acme.test:{}", origin.port()));
    }
}

#[test]
fn bodies_arrive_whole_in_both_directions() {
    let ca = TestCa::new();
    let origin = Origin::https(&ca, &["api.acme.test"], Alpn::Both);
    for path in ["/bytes/100000", "/chunked/100000"] {
        let down = tempfile::NamedTempFile::new().unwrap();
        let to = down.path().display().to_string();
        let Some(_) = curl(&ca, origin.port(), &["-sS", "-o", &to], path) else { return };
        assert!(std::fs::read(down.path()).unwrap() == pattern(0, 100_000), "{path} came damaged");
    }
    let up = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(up.path(), pattern(0, 100_000)).unwrap();
    let data = format!("@{}", up.path().display());
    curl(&ca, origin.port(), &["-sS", "--data-binary", &data], "/upload");
    let seen = origin.wait_for("/upload");
    assert_eq!((seen.body_len, seen.body_sha256), (100_000, Some(sha256_hex(&pattern(0, 100_000)))));
    assert_eq!(seen.end, End::Complete);
}

#[test]
fn a_raw_origin_sends_bytes_as_they_are() {
    let ca = TestCa::new();
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
    let origin = RawOrigin::https(&ca, &["api.acme.test"], vec![Step::Head, Step::Send(answer)]);
    let Some(ran) = curl(&ca, origin.addr.port(), &["-sS"], "/x") else { return };
    assert_eq!(ran.stdout, "ok");
    assert!(origin.read()[0].starts_with("GET /x HTTP/1.1\r\n"), "{:?}", origin.read());
}

/// `None` where there is no curl.
fn curl(ca: &TestCa, port: u16, arguments: &[&str], path: &str) -> Option<Ran> {
    let Some(curl) = program("curl") else {
        skip("origins", "there is no curl");
        return None;
    };
    let mut command = clean(&curl);
    command
        .args(["-q", "--max-time", "20", "--noproxy", "*", "--cacert"])
        .arg(ca.pem_path())
        .args(["--resolve", &format!("api.acme.test:{port}:127.0.0.1")])
        .args(arguments)
        .arg(format!("https://api.acme.test:{port}{path}"));
    Some(run(&mut command, b"").succeeded())
}

#[test]
fn the_client_scripts_work_with_no_proxy_between() {
    let ca = TestCa::new();
    let origin = Origin::https(&ca, &["localhost"], Alpn::Both);
    origin.put("/v1/items", "text/plain", "from the origin");
    let cases = [
        ("", "python/urllib_client.py", "GET", "/v1/items", "from the origin"),
        ("requests", "python/requests_client.py", "GET", "/v1/items", "from the origin"),
        ("httpx", "python/httpx_client.py", "GET", "/v1/items", "from the origin"),
        ("aiohttp", "python/aiohttp_client.py", "GET", "/v1/items", "from the origin"),
        ("websockets", "python/websockets_client.py", "GET", "/ws", "101 hello"),
        ("grpc", "python/grpc_client.py", "Unary", "/grpc/Unary", "OK hello"),
        ("grpc", "python/grpc_client.py", "Stream", "/grpc/Stream", "OK hello hello hello"),
        ("grpc", "python/grpc_client.py", "Unary", "/grpc/Fail", "not today"),
    ];
    for (modules, script, method, path, wanted) in cases {
        let Some(python) = python(modules) else {
            skip(script, "no Python with what it imports");
            continue;
        };
        direct(&ca, &python, script, method, &format!("https://localhost:{}{path}", origin.port())).says(wanted);
    }
    let cases = [
        ("undici", "node/undici_client.cjs", "GET", "/v1/items", "from the origin"),
        ("axios", "node/axios_client.cjs", "GET", "/v1/items", "from the origin"),
        ("@grpc/grpc-js", "node/grpc_client.cjs", "Unary", "/grpc/Unary", "OK hello"),
        ("@grpc/grpc-js", "node/grpc_client.cjs", "Stream", "/grpc/Stream", "OK hello hello hello"),
        ("@grpc/grpc-js", "node/grpc_client.cjs", "Unary", "/grpc/Fail", "not today"),
    ];
    for (package, script, method, path, wanted) in cases {
        let Some((node, modules)) = node(package) else {
            skip(script, "no node with its package");
            continue;
        };
        let url = format!("https://localhost:{}{path}", origin.port());
        let mut command = clean(&node);
        trust(&mut command, &ca).env("NODE_PATH", modules).arg(client_script(script)).args([method, &url]);
        run(&mut command, b"").says(wanted);
    }
}

#[test]
fn git_clones_from_the_smart_http_origin() {
    let Some(git) = program("git") else { return skip("origin_git", "there is no git") };
    let ca = TestCa::new();
    let origin = Origin::https(&ca, &["localhost"], Alpn::Both);
    let dir = tempfile::tempdir().unwrap();
    let bare = dir.path().join("acme/widgets.git");
    let command = || {
        let mut command = clean(&git);
        trust(&mut command, &ca).env("HOME", dir.path());
        command
    };
    run(command().args(["init", "--quiet", "--bare"]).arg(&bare), b"").succeeded();
    origin.serve_git(dir.path().to_owned());
    let url = format!("https://localhost:{}/acme/widgets.git", origin.port());
    run(command().args(["clone", &url]).arg(dir.path().join("tree")), b"").succeeded();
    assert!(origin.seen().iter().all(|seen| seen.path.starts_with("/acme/widgets.git/")));
}

fn direct(ca: &TestCa, program: &Path, script: &str, method: &str, url: &str) -> Ran {
    let mut command = clean(program);
    run(trust(&mut command, ca).arg(client_script(script)).args([method, url]), b"")
}

fn client_script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// Clients agree on no one variable.
fn trust<'a>(command: &'a mut Command, ca: &TestCa) -> &'a mut Command {
    let variables = [
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
        "NODE_EXTRA_CA_CERTS",
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
        "GIT_SSL_CAINFO",
    ];
    command.envs(variables.map(|name| (name, ca.pem_path())))
}
