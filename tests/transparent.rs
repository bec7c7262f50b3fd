//! Transparent listeners, in a network of the test's own: a client that knows no proxy, real rules, and a proxy that it
//! cannot go around.
//!
//! The pod is a namespace with the proxy and the agent, as two users, and one way out; the origin is in the world, which
//! is another (`support/world.rs`).

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod support;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use support::ca::Alpn;
use support::client::{Ran, run};
use support::daemon::{Daemon, Holder, TestEnv};
use support::origin::Origin;
use support::world::{ELSEWHERE, ELSEWHERE_6, WORLD, connect, in_the_world, inside, relay};

const SECRET: &str = "acme-live-0123456789abcdef";
/// Whom the proxy and the agent run as.
const PROXY: u32 = 27080;
const AGENT: u32 = 1000;

/// The pod's namespace lives as long as a process in it.
struct Pod {
    keeper: Child,
    env: TestEnv,
    holder: Holder,
    origin: Origin,
    plain: Origin,
    /// Where the world has the origin.
    secure: SocketAddr,
    /// What the agent may read and run.
    shared: tempfile::TempDir,
}

impl Pod {
    /// A pod with rules for a proxy that runs as `exempt`.
    fn new(exempt: u32) -> Self {
        let env = TestEnv::new();
        let origin = Origin::https(&env.ca, &["api.acme.test"], Alpn::Both);
        let plain = Origin::http();
        for origin in [&origin, &plain] {
            origin.put("/v1/items", "text/plain", "items");
        }
        let shared = tempfile::tempdir().unwrap();
        open_to_all(shared.path());
        let holder = env.mint("pod", &["acme", "open"]);
        let mut keeper = Command::new("unshare");
        let keeper = keeper.args(["--net", "--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        while namespace(&keeper.id().to_string()) == namespace("self") {
            std::thread::yield_now();
        }
        connect(keeper.id());
        let secure = relay(&format!("{WORLD}:0"), origin.addr);
        let open = relay(&format!("{WORLD}:80"), plain.addr);
        let mut pod = Self { keeper, env, holder, origin, plain, secure, shared };
        pod.env.acme_at(SECRET, secure);
        pod.env.dial_at("open.acme.test:80", open);
        pod.env.service("name = \"open\"\nhosts = [\"http://open.acme.test\"]");
        let (capability, key) = (pod.holder.capability.display(), pod.holder.key.display());
        for (name, listen) in [("pod", "127.0.0.1:7090"), ("pod-6", "[::1]:7090")] {
            pod.env.setting(&format!(
                "[[listener]]\nname = \"{name}\"\nlisten = \"{listen}\"\ntransparent = true\ncapability = \"{capability}\"\nkey = \"{key}\"\n"
            ));
        }
        pod.env.write_config();
        for (from, name) in [(env!("CARGO_BIN_EXE_narrows"), "narrows"), (env!("CARGO_BIN_EXE_capctl"), "capctl")] {
            std::fs::copy(from, pod.shared.path().join(name)).unwrap();
        }
        std::fs::copy(pod.env.home().join("ca.pem"), pod.ca()).unwrap();
        std::fs::set_permissions(pod.ca(), std::fs::Permissions::from_mode(0o644)).unwrap();
        pod.rules(exempt, &[]);
        pod
    }

    /// Puts rules in place, with more options.
    fn rules(&self, exempt: u32, more: &[&str]) {
        let mut print = self.env.command();
        print.args(["transparent", "print", "--port", "7090", "--dns", "192.0.2.53"]).args(more);
        let rules = run(print.arg("--uid").arg(exempt.to_string()), b"");
        run(&mut self.inside(None, Path::new("nft"), &["-f", "-"]), rules.succeeded().stdout.as_bytes()).succeeded();
    }

    /// Listens in the pod on all its addresses.
    fn listener(&self, port: u16) -> TcpListener {
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", self.keeper.id())).unwrap();
        let listening = std::thread::spawn(move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            TcpListener::bind(("::", port)).unwrap()
        });
        listening.join().unwrap()
    }

    fn ca(&self) -> PathBuf {
        self.shared.path().join("ca.pem")
    }

    /// A program in the pod, as this user.
    fn inside(&self, user: Option<u32>, program: &Path, arguments: &[&str]) -> Command {
        inside(self.keeper.id(), user, program, arguments)
    }

    fn start(&self) -> Daemon {
        let folder = self.env.file("");
        run(Command::new("chown").arg("-R").arg(PROXY.to_string()).arg(&folder), b"").succeeded();
        self.env.start_traced(|narrows| {
            let program = self.shared.path().join("narrows");
            let mut command = self.inside(Some(PROXY), &program, &[]);
            command
                .envs(narrows.get_envs().filter_map(|(name, value)| Some((name, value?))))
                .env("NARROWS_LOG", "info");
            command
        })
    }

    /// curl as the agent has it: no proxy, and a name that leads elsewhere.
    fn curl(&self, arguments: &[&str]) -> Ran {
        let ca = self.ca();
        let mut all = vec!["-q", "-sS", "-m", "10", "--cacert", ca.to_str().unwrap()];
        let named: Vec<String> = [443, 80, 8443]
            .iter()
            .flat_map(|port| ["api.acme.test", "open.acme.test"].map(|name| format!("{name}:{port}:{ELSEWHERE}")))
            .collect();
        all.extend(named.iter().flat_map(|named| ["--resolve", named.as_str()]));
        all.extend(arguments);
        run(&mut self.inside(Some(AGENT), Path::new("curl"), &all), b"")
    }

    fn capctl(&self, user: u32, arguments: &[&str]) -> Ran {
        let program = self.shared.path().join("capctl");
        run(self.inside(Some(user), &program, arguments).env("NARROWS_HOME", "/nonexistent"), b"")
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

fn open_to_all(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_client_that_knows_no_proxy_is_served_and_has_no_other_way() {
    if !in_the_world("a_client_that_knows_no_proxy_is_served_and_has_no_other_way", &[]) {
        return;
    }
    let pod = Pod::new(PROXY);
    let daemon = pod.start();

    // TLS, by its name, whatever address the client dialled; HTTP/1.1 and HTTP/2; both families.
    for version in ["--http1.1", "--http2"] {
        assert_eq!(pod.curl(&[version, "https://api.acme.test/v1/items"]).succeeded().stdout, "items");
    }
    assert!(pod.origin.seen().iter().all(|seen| seen.headers["authorization"] == format!("Bearer {SECRET}").as_str()));
    let line = pod.env.journal_line(|line| line["path"] == "/v1/items");
    assert_eq!((&line["listener"], &line["service"]), (&"pod".into(), &"acme".into()), "{line}");
    let six = format!("api.acme.test:443:[{ELSEWHERE_6}]");
    pod.curl(&["-6", "--resolve", &six, "https://api.acme.test/v1/items"]).says("items");
    pod.env.journal_line(|line| line["listener"] == "pod-6");
    // Plain HTTP, by its Host.
    pod.curl(&["http://open.acme.test/v1/items"]).says("items");
    assert_eq!(pod.plain.seen().len(), 1);

    // What the capability does not allow is told so, inside.
    pod.curl(&["--resolve", &format!("other.test:443:{ELSEWHERE}"), "https://other.test/"]).says("service_unknown");
    pod.curl(&["-H", "Host: api.acme.test", "http://open.acme.test/"]).says("service_unknown");
    pod.curl(&["-H", "Host: open.acme.test:8080", "http://open.acme.test/"]).says("misdirected");
    // A name that is none, and TLS without one.
    pod.curl(&["-k", &format!("https://{ELSEWHERE}/")]).failed().says("unrecognized name");
    // Each has a line, under the listener's name.
    let deadline = Instant::now() + support::PATIENCE;
    let misdirected = |line: &&serde_json::Value| line["code"] == "misdirected" && line["listener"] == "pod";
    while pod.env.journal().iter().filter(misdirected).count() < 2 {
        assert!(Instant::now() < deadline, "{:#?}", pod.env.journal());
        std::thread::yield_now();
    }

    // The ways around: the origin itself, other ports, the listener as if it were a proxy.
    let origin = pod.secure.port();
    for way in [format!("https://{WORLD}:{origin}/v1/items"), "https://api.acme.test:8443/".to_owned()] {
        pod.curl(&["-k", &way]).failed().never_says("items");
    }
    pod.curl(&["-x", "http://127.0.0.1:7090", "https://api.acme.test/v1/items"]).failed();
    pod.capctl(AGENT, &["transparent", "check"]).succeeded().says("in place");
    // The proxy's own user is not led back, so it sees that the rules are not for it.
    pod.capctl(PROXY, &["transparent", "check"]).failed();

    // A capability that is not accepted has its line, as it has where clients bring one.
    let elsewhere = TestEnv::new();
    let stranger = elsewhere.mint("stranger", &["acme"]);
    for (from, to) in [(&stranger.key, &pod.holder.key), (&stranger.capability, &pod.holder.capability)] {
        run(Command::new("chown").arg(PROXY.to_string()).arg(from), b"").succeeded();
        std::fs::rename(from, to).unwrap();
    }
    let deadline = Instant::now() + support::PATIENCE;
    while pod.curl(&["https://api.acme.test/v1/items"]).stdout == "items" {
        assert!(Instant::now() < deadline, "it is served still");
    }
    let line = pod.env.journal_line(|line| line["event"] == "auth" && line["code"] == "capability_invalid");
    assert_eq!(line["listener"], "pod", "{line}");
    assert!(pod.env.journal_is_sound());
    drop(daemon);
}

#[test]
fn without_rules_the_check_says_what_is_open() {
    if !in_the_world("without_rules_the_check_says_what_is_open", &[]) {
        return;
    }
    let pod = Pod::new(PROXY);
    let _daemon = pod.start();
    run(&mut pod.inside(None, Path::new("nft"), &["flush", "ruleset"]), b"").succeeded();
    // A router that says at once that there is no way; where it cannot be had, there is no answer, which is as bad.
    for forwards in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        let _ = std::fs::write(format!("/proc/sys/net/{forwards}"), "1");
    }
    pod.curl(&["-k", &format!("https://{WORLD}:{}/v1/items", pod.secure.port())]).says("items");
    let said = pod.capctl(AGENT, &["transparent", "check"]).failed().stdout;
    assert!(said.lines().count() == 8 && said.lines().all(|line| line.starts_with("wrong")), "{said}");
}

#[test]
fn the_world_cannot_connect_to_an_agent_but_where_the_rules_say_so() {
    if !in_the_world("the_world_cannot_connect_to_an_agent_but_where_the_rules_say_so", &[]) {
        return;
    }
    let pod = Pod::new(PROXY);
    let (_listening, _other) = (pod.listener(8080), pod.listener(8081));
    let reached = |at: &str| {
        let at: SocketAddr = at.parse().unwrap();
        TcpStream::connect_timeout(&at, support::PATIENCE).map_err(|error| error.kind())
    };
    for at in ["10.7.0.2:8080", "[fd07::2]:8080"] {
        assert_eq!(reached(at).unwrap_err(), std::io::ErrorKind::ConnectionRefused, "{at}");
    }
    pod.rules(PROXY, &["--probe", "8080"]);
    for (at, other) in [("10.7.0.2:8080", "10.7.0.2:8081"), ("[fd07::2]:8080", "[fd07::2]:8081")] {
        assert!(reached(at).is_ok(), "{at}");
        assert_eq!(reached(other).unwrap_err(), std::io::ErrorKind::ConnectionRefused, "{other}");
    }
}

#[test]
fn a_proxy_whose_own_connections_come_back_to_it_ends_them() {
    if !in_the_world("a_proxy_whose_own_connections_come_back_to_it_ends_them", &[]) {
        return;
    }
    // The rules exempt somebody else.
    let pod = Pod::new(PROXY + 1);
    let mut daemon = pod.start();
    let answer = pod.curl(&["http://open.acme.test/v1/items"]);
    assert!(answer.stdout.contains("upstream_"), "{}", answer.said());
    daemon.wait_for_log("was redirected to it");
    assert_eq!(pod.plain.seen().len(), 0);
}
