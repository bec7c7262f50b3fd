//! Listeners that hold a capability: whoever connects there acts under it, and brings nothing.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use crate::support::PATIENCE;
use crate::support::agent::Agent;
use crate::support::ca::Alpn;
use crate::support::daemon::{Daemon, Holder, TestEnv};
use crate::support::origin::Origin;
use crate::{HOST, SECRET};

/// A proxy with one listener, on this address, whose clients may read `/v1/**`.
struct Sidecar {
    daemon: Daemon,
    env: TestEnv,
    origin: Origin,
    holder: Holder,
}

impl Sidecar {
    fn new(listen: &str, more: &str) -> Self {
        let mut env = TestEnv::new();
        let origin = Origin::https(&env.ca, &[HOST], Alpn::Both);
        env.acme(SECRET, &origin);
        origin.put("/v1/items", "text/plain", "items");
        let holder = env.mint("pod", &["acme:read path=/v1"]);
        let (capability, key) = (holder.capability.display(), holder.key.display());
        env.setting(&format!(
            "[[listener]]\nname = \"pod\"\nlisten = \"{listen}\"\ncapability = \"{capability}\"\nkey = \"{key}\"\n{more}"
        ));
        env.write_config();
        let daemon = env.start_as_written_with(&[("NARROWS_LOG", "info")]);
        Self { daemon, env, origin, holder }
    }

    fn tcp() -> Self {
        Self::new("127.0.0.1:0", "")
    }

    /// Where the listener is.
    fn address(&mut self) -> SocketAddr {
        let line = self.daemon.wait_for_log(" for pod");
        let before = line.split(" for pod").next().unwrap();
        before.rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn agent(&mut self, credentials: Option<&str>) -> Agent {
        let address = self.address();
        Agent::at(address, &self.env.home().join("ca.pem"), credentials)
    }

    /// Replaces what the listener holds.
    fn hold(&self, next: &Holder) {
        std::fs::rename(&next.key, &self.holder.key).unwrap();
        std::fs::rename(&next.capability, &self.holder.capability).unwrap();
    }
}

/// A change of files is taken up in a moment.
#[track_caller]
fn until(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it never was");
    }
}

#[test]
fn a_client_that_brings_nothing_acts_under_what_the_listener_holds_and_no_further() {
    let mut sidecar = Sidecar::tcp();
    let agent = sidecar.agent(None);
    assert_eq!(agent.get(HOST, "/v1/items").text(), "items");
    let seen = sidecar.origin.wait_for("/v1/items");
    assert_eq!(seen.headers["authorization"], format!("Bearer {SECRET}").as_str());
    let line = sidecar.env.journal_line(|line| line["path"] == "/v1/items");
    assert_eq!((&line["listener"], &line["proof"]), (&"pod".into(), &"connect".into()), "{line}");
    assert_eq!(line["user"], "alice@example.com");

    assert_eq!(agent.get(HOST, "/v2/items").code(), "capability_denied");
    assert_eq!(agent.request("POST", HOST, "/v1/items", "", b"x").code(), "capability_denied");
    // Where nothing is held, nothing is given.
    let main = Agent::new(&sidecar.env, &sidecar.daemon, None);
    assert_eq!(main.connect(&format!("{HOST}:443")).0.status(), 407);
    assert!(sidecar.env.journal_is_sound());
}

#[test]
fn credentials_of_a_clients_own_are_not_looked_at() {
    let mut sidecar = Sidecar::tcp();
    let wide = sidecar.env.mint("wide", &["acme"]).presentation();
    for credentials in ["garbage", wide.as_str()] {
        let agent = sidecar.agent(Some(credentials));
        assert_eq!(agent.get(HOST, "/v1/items").status(), 200);
        assert_eq!(agent.get(HOST, "/v2/items").code(), "capability_denied");
    }
    // The same capability is worth more where clients bring their own.
    let main = Agent::new(&sidecar.env, &sidecar.daemon, Some(&wide));
    assert_eq!(main.get(HOST, "/v2/items").status(), 404, "the origin's answer");
}

#[test]
fn a_revoked_capability_ends_at_the_listener_too() {
    let mut sidecar = Sidecar::tcp();
    let agent = sidecar.agent(None);
    assert_eq!(agent.get(HOST, "/v1/items").status(), 200);
    sidecar.env.revoke(&sidecar.holder);
    until(|| agent.get(HOST, "/v1/items").status() == 403);
    assert_eq!(agent.get(HOST, "/v1/items").code(), "capability_revoked");
}

#[test]
fn a_renewed_capability_is_taken_up_and_a_bad_one_is_not() {
    let mut sidecar = Sidecar::tcp();
    let agent = sidecar.agent(None);
    assert_eq!(agent.get(HOST, "/v2/items").code(), "capability_denied");
    let other = sidecar.env.mint("other", &["acme"]);
    std::fs::copy(&other.capability, &sidecar.holder.capability).unwrap();
    sidecar.daemon.wait_for_log("not that of the capability's holder");
    assert_eq!(agent.get(HOST, "/v1/items").status(), 200, "the one before stays");
    sidecar.hold(&other);
    until(|| agent.get(HOST, "/v2/items").status() == 404);
}

#[test]
fn a_capability_of_another_root_is_refused_without_a_challenge() {
    let mut sidecar = Sidecar::tcp();
    let agent = sidecar.agent(None);
    let elsewhere = TestEnv::new();
    sidecar.hold(&elsewhere.mint("stranger", &["acme"]));
    let mut answer = agent.connect(&format!("{HOST}:443")).0;
    until(|| {
        answer = agent.connect(&format!("{HOST}:443")).0;
        answer.status() == 403
    });
    assert_eq!(answer.header("proxy-authenticate"), None);
    assert!(answer.head.lines().next().unwrap().ends_with("capability_invalid"), "{answer:?}");
}

/// What a CONNECT over a Unix socket is answered; nothing where it is not let in.
fn connect_by_socket(sidecar: &Sidecar) -> String {
    let mut stream = UnixStream::connect(sidecar.env.home().join("pod.sock")).unwrap();
    let _ = write!(stream, "CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n");
    let mut head = [0; 12];
    let _ = stream.read_exact(&mut head);
    String::from_utf8_lossy(&head).trim_end_matches('\0').to_owned()
}

#[test]
fn a_socket_lets_in_its_own_user_or_those_that_are_named() {
    let own = nix::unistd::geteuid().as_raw();
    assert_eq!(connect_by_socket(&Sidecar::new("unix:pod.sock", "")), "HTTP/1.1 200");
    let named = format!("uids = [{}, {own}]", own + 1);
    assert_eq!(connect_by_socket(&Sidecar::new("unix:pod.sock", &named)), "HTTP/1.1 200");
    let others = format!("uids = [{}]", own + 1);
    assert_eq!(connect_by_socket(&Sidecar::new("unix:pod.sock", &others)), "");
}
