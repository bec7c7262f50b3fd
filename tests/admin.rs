//! The operator's listener: health for everybody on the machine, the rest for who has the token, nothing for a page of a
//! website, and nothing of it through the proxy.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;

use support::agent::Agent;
use support::client::run;
use support::daemon::TestEnv;
use support::operator::{ask, start, status};

fn token(env: &TestEnv, options: &[&str]) -> String {
    run(env.command().args(["admin", "token"]).args(options), b"").succeeded().stdout.trim().to_owned()
}

#[test]
fn health_is_open_and_the_rest_needs_the_token() {
    for admin in ["127.0.0.1:0", "unix:admin.sock"] {
        let env = TestEnv::new();
        let (_daemon, at) = start(&env, admin);
        let get = |path: &str, more: &str| ask(&at, &format!("GET {path} HTTP/1.1\r\nHost: localhost{more}"));
        for open in ["/healthz", "/readyz", "/metrics"] {
            assert_eq!(status(&get(open, "")), 200, "{open}");
        }
        // No token was ever made: nobody has it, also not who shows an empty one.
        for shown in ["", "\r\nAuthorization: Bearer ", "\r\nAuthorization: Bearer x"] {
            assert_eq!(status(&get("/status", shown)), 401, "{shown}");
        }
        let first = token(&env, &[]);
        assert_eq!(token(&env, &[]), first, "it stays");
        let mode = std::fs::metadata(env.home().join("admin.token")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let with = |token: &str| get("/status", &format!("\r\nAuthorization: Bearer {token}"));
        let answer = with(&first);
        assert_eq!(status(&answer), 200, "{answer}");
        assert!(answer.contains("\"journal\""), "{answer}");
        assert!(!answer.contains(&first));
        // One bit, another scheme, a path that is not there.
        let mut wrong = first.clone().into_bytes();
        wrong[0] ^= 1;
        assert_eq!(status(&with(&String::from_utf8(wrong).unwrap())), 401);
        assert_eq!(status(&get("/status", &format!("\r\nAuthorization: Basic {first}"))), 401);
        assert_eq!(status(&get("/nothing", "")), 401);
        assert_eq!(status(&get("/nothing", &format!("\r\nAuthorization: Bearer {first}"))), 404);
        // A new one counts at once, the one before no more.
        let second = token(&env, &["--new"]);
        assert_eq!((status(&with(&first)), status(&with(&second))), (401, 200));
        // A file that others can read is no token.
        let path = env.home().join("admin.token");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(status(&with(&second)), 401);
        run(env.command().args(["admin", "token"]), b"").failed().says("chmod 600");
    }
}

#[test]
fn connections_that_ask_for_nothing_keep_nobody_out() {
    let env = TestEnv::new();
    let (_daemon, at) = start(&env, "127.0.0.1:0");
    // More than there are places, all alive: silent, in the midst of a head, and after an answer.
    let mut held = Vec::new();
    for number in 0..48 {
        let mut stream = TcpStream::connect(&at).unwrap();
        match number % 3 {
            0 => {}
            1 => stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: local").unwrap(),
            _ => {
                stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
                assert_ne!(stream.read(&mut [0; 64]).unwrap(), 0);
            }
        }
        held.push(stream);
    }
    assert_eq!(status(&ask(&at, "GET /healthz HTTP/1.1\r\nHost: localhost")), 200);
    // The first was ended for it.
    assert_eq!(held[0].read(&mut [0; 64]).unwrap_or(0), 0);
}

#[test]
fn no_page_of_a_website_is_answered() {
    let env = TestEnv::new();
    let (_daemon, at) = start(&env, "127.0.0.1:0");
    let token = token(&env, &[]);
    let port = at.parse::<SocketAddr>().unwrap().port();
    let get = |host: &str, more: &str| {
        status(&ask(&at, &format!("GET /status HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}{more}")))
    };
    for ours in [format!("127.0.0.1:{port}"), format!("localhost:{port}"), "[::1]".to_owned()] {
        assert_eq!(get(&ours, ""), 200, "{ours}");
        assert_eq!(get(&ours, &format!("\r\nOrigin: http://{ours}")), 200, "{ours}");
    }
    // A name that was rebound to this machine, and addresses that mean it to a browser or nothing at all.
    for other in ["evil.test", "localhost.evil.test", "0.0.0.0", "[::]", "192.0.2.1", ""] {
        assert_eq!(get(other, ""), 421, "{other}");
    }
    for other in [format!("127.0.0.1:{}", port ^ 1), format!("localhost:{}", port ^ 1), "localhost:80".to_owned()] {
        assert_eq!(get(&other, ""), 421, "{other}");
    }
    // The target of a request to a proxy: it says whom the client means, whatever Host says.
    let absolute = |target: &str| status(&ask(&at, &format!("GET http://{target}/metrics HTTP/1.1\r\nHost: {at}")));
    assert_eq!((absolute(&at), absolute("evil.test"), absolute(&format!("evil.test:{port}"))), (200, 421, 421));
    assert_eq!(absolute(&format!("127.0.0.1:{}", port ^ 1)), 421);
    for second in [at.as_str(), "evil.test"] {
        assert_eq!(get(&at, &format!("\r\nHost: {second}")), 400, "{second}");
    }
    for origin in ["http://evil.test", "null", "https://127.0.0.1", &format!("http://127.0.0.1:{}", port ^ 1)] {
        assert_eq!(get(&at, &format!("\r\nOrigin: {origin}")), 403, "{origin}");
    }
    for (site, wanted) in [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)] {
        assert_eq!(get(&at, &format!("\r\nSec-Fetch-Site: {site}")), wanted, "{site}");
    }
    let answer = ask(&at, &format!("GET /healthz HTTP/1.1\r\nHost: {at}\r\nOrigin: http://evil.test"));
    assert_eq!(status(&answer), 403, "health neither");
    assert!(!answer.to_ascii_lowercase().contains("access-control-allow"), "{answer}");
}

#[test]
fn it_is_not_reached_through_the_proxy() {
    let mut env = TestEnv::new();
    // The port is known before the services that name it are written.
    let (first, at) = start(&env, "127.0.0.1:0");
    drop(first);
    let port = at.parse::<SocketAddr>().unwrap().port();
    let plain = support::origin::Origin::http();
    plain.put("/healthz", "text/plain", "another\n");
    let spellings = [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("0.0.0.0:{port}"),
    ];
    let hosts: Vec<String> = spellings.iter().map(|it| format!("\"http://{it}\"")).collect();
    env.service(&format!("name = \"own\"\nhosts = [{}, \"http://named.acme.test\"]", hosts.join(", ")));
    env.service(&format!("name = \"other\"\nhosts = [\"http://{}\"]", plain.addr));
    env.dial_at("named.acme.test:80", at.parse().unwrap());
    env.setting("allow_addresses = [\"127.0.0.0/8\", \"0.0.0.0/8\", \"::/0\"]");
    let (daemon, again) = start(&env, &at);
    assert_eq!(again, at);
    assert_eq!(status(&ask(&at, "GET /healthz HTTP/1.1\r\nHost: localhost")), 200, "it is there");
    let credentials = env.mint("holder", &["own", "other"]).presentation();
    let agent = Agent::new(&env, &daemon, Some(&credentials));
    let through = |host: &str| {
        let mut wire = agent.dial();
        wire.send(&format!("GET http://{host}/healthz HTTP/1.1\r\nHost: {host}\r\n{}\r\n", agent.authorization()));
        let answer = wire.answer(false);
        (answer.status(), if answer.status() == 200 { String::new() } else { answer.code() })
    };
    for host in spellings.iter().map(String::as_str).chain(["named.acme.test"]) {
        assert_eq!(through(host), (502, "address_forbidden".to_owned()), "{host}");
    }
    assert_eq!(through(&plain.addr.to_string()).0, 200, "the twin: another listener of this machine");
}

#[test]
fn probes_ask_by_exit_status_wherever_the_listener_is() {
    for admin in ["127.0.0.1:0", "unix:admin.sock"] {
        let env = TestEnv::new();
        let (daemon, _) = start(&env, admin);
        assert_eq!(env.capctl(&["admin", "alive"]).succeeded().stdout, "ok\n");
        env.capctl(&["admin", "ready"]).succeeded().says("\"ready\": true");
        let counts = env.capctl(&["admin", "metrics"]).succeeded().stdout;
        let said = support::exposition::parse(&counts);
        assert!((said.value("narrows_ready{check=\"serving\"}") - 1.0).abs() < f64::EPSILON);
        daemon.stop();
        for ask in ["alive", "ready", "metrics"] {
            env.capctl(&["admin", ask]).failed().says("does not answer");
        }
    }
    let env = TestEnv::new();
    env.write_config();
    env.capctl(&["admin", "ready"]).failed().says("`admin` is \"off\"");
}

#[test]
fn a_bad_configuration_is_no_reason_to_take_a_proxy_for_dead() {
    let env = TestEnv::new();
    let (mut daemon, _) = start(&env, "unix:admin.sock");
    let path = env.home().join("narrows.toml");
    let good = std::fs::read_to_string(&path).unwrap();
    let moved = good.replace("unix:admin.sock", "unix:elsewhere.sock");
    for bad in ["bogus = 1\n", "[[[ no TOML", &moved] {
        std::fs::write(&path, bad).unwrap();
        daemon.wait_for_log("the running configuration stays");
        assert_eq!(env.capctl(&["admin", "alive"]).succeeded().stdout, "ok\n", "{bad}");
    }
    std::fs::write(&path, "bogus = 1\n").unwrap();
    let deadline = std::time::Instant::now() + support::PATIENCE;
    while env.capctl(&["admin", "ready"]).code == Some(0) {
        assert!(std::time::Instant::now() < deadline, "it is ready still");
    }
    env.capctl(&["admin", "ready"]).failed().says("narrows --check");
    // One that is not alive is taken for dead, also after a crash.
    daemon.crash();
    env.capctl(&["admin", "alive"]).failed().says("does not answer");
    // One without a listener leaves nothing behind that another has noted.
    std::fs::write(&path, good.replace("admin = \"unix:admin.sock\"", "admin = \"off\"")).unwrap();
    let _daemon = env.start_as_written();
    env.capctl(&["admin", "alive"]).failed().says("`admin` is \"off\"");
}
