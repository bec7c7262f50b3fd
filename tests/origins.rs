//! The test origins themselves, driven by a real client with no proxy between: what a later test finds wrong is then
//! the proxy's fault.

mod support;

use support::ca::{Alpn, TestCa};
use support::client::{Ran, clean, program, run, skip};
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
