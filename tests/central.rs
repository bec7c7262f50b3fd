//! A central proxy, reached over TLS, and forwarders beside the agents: `narrows`, `capctl forward`, an origin.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "these are tests")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use narrows::capability::{Capability, Context, Credentials, Proof, Purpose};
use narrows::clock::UnixSeconds;
use narrows::store::{keys, random};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

use support::PATIENCE;
use support::agent::{Agent, Answer, Wire};
use support::ca::{Alpn, TestCa};
use support::client::{Ran, program, skip};
use support::daemon::{Daemon, Holder, TestEnv};
use support::origin::Origin;

const SECRET: &str = "acme-live-0123456789abcdef";
const HOST: &str = "api.acme.test";
const TARGET: &str = "api.acme.test:443";

/// A proxy with `[tls]`, an origin behind it, and the authority of both ends' certificates.
struct Central {
    env: TestEnv,
    origin: Origin,
    _plain: Origin,
    ends: TestCa,
    daemon: Daemon,
}

impl Central {
    /// Clients must show a certificate.
    fn mutual() -> Self {
        Self::new("client_ca = \"clients-ca.pem\"")
    }

    fn new(more: &str) -> Self {
        let mut env = TestEnv::new();
        let origin = Origin::https(&env.ca, &[HOST], Alpn::Both);
        origin.put("/v1/items", "application/json", "[]");
        env.acme(SECRET, &origin);
        let plain = Origin::http();
        plain.put("/news", "text/plain", "rain");
        env.dial_at("plain.acme.test:80", plain.addr);
        env.service("name = \"plain\"\nhosts = [\"http://plain.acme.test\"]");
        let ends = TestCa::new();
        std::fs::write(env.home().join("clients-ca.pem"), ends.pem()).unwrap();
        show(&env.home(), "tls", &ends, "127.0.0.1");
        env.setting(&format!("[tls]\ncertificate = \"tls.pem\"\nkey = \"tls.key\"\n{more}"));
        let daemon = env.start_with(&[("NARROWS_LOG", "info")]);
        let central = Self { env, origin, _plain: plain, ends, daemon };
        show(central.env.home().parent().unwrap(), "side", &central.ends, "sidecar");
        std::fs::write(central.env.file("ends-ca.pem"), central.ends.pem()).unwrap();
        central
    }

    fn proxy(&self) -> String {
        format!("https://{}", self.daemon.addr)
    }

    fn file(&self, name: &str) -> String {
        self.env.file(name).display().to_string()
    }

    /// The usual options, and others in the place of some.
    fn options(&self, holder: &Holder) -> Vec<String> {
        let mut options: Vec<String> =
            ["--no-password", "--audience", "local", "--proxy", &self.proxy(), "--ca", &self.file("ends-ca.pem")]
                .map(ToOwned::to_owned)
                .into();
        options.extend(["--cap", &holder.capability.display().to_string()].map(ToOwned::to_owned));
        options.extend(["--key", &holder.key.display().to_string()].map(ToOwned::to_owned));
        options
    }

    fn forward(&self, holder: &Holder) -> Forward {
        self.forward_with(holder, &["--cert", &self.file("side.pem"), "--cert-key", &self.file("side.key")])
    }

    fn forward_with(&self, holder: &Holder, more: &[&str]) -> Forward {
        let mut command = self.env.command();
        // No home at all: flags suffice.
        command.env("NARROWS_HOME", self.env.file("nowhere"));
        command.arg("forward").args(self.options(holder)).args(more);
        if !more.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        Forward::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn agent(&self, forward: &Forward) -> Agent {
        Agent::at(forward.address(), &self.env.home().join("ca.pem"), None)
    }

    /// A connection to the proxy, TLS inside, by hand.
    fn by_hand(&self, tls: &Arc<ClientConfig>) -> StreamOwned<ClientConnection, TcpStream> {
        let mut tcp = TcpStream::connect(self.daemon.addr).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = ServerName::from(self.daemon.addr.ip());
        let mut connection = ClientConnection::new(Arc::clone(tls), name).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut tcp).unwrap();
        }
        StreamOwned::new(connection, tcp)
    }

    /// TLS settings that trust the proxy's certificate and show the sidecar's.
    fn tls(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ends.pem().as_bytes()).unwrap()).unwrap();
        let chain = vec![CertificateDer::from_pem_file(self.file("side.pem")).unwrap()];
        let key = PrivateKeyDer::from_pem_file(self.file("side.key")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Arc::new(builder.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap())
    }
}

/// Writes a certificate for this name and its key.
fn show(folder: &Path, file: &str, ca: &TestCa, name: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let (certificate, key) = ca.issue(name);
    for (end, text, mode) in [("key", key, 0o600), ("pem", certificate, 0o644)] {
        let new = folder.join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(mode)).unwrap();
        std::fs::rename(&new, folder.join(format!("{file}.{end}"))).unwrap();
    }
}

/// A running `capctl forward`, which has said where it listens.
struct Forward {
    child: Child,
    url: String,
    said: Receiver<String>,
    heard: Mutex<Vec<String>>,
}

impl Forward {
    #[track_caller]
    fn start(mut child: Child) -> Self {
        let mut url = String::new();
        let stderr = child.stderr.take().unwrap();
        let (say, said) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = say.send(line);
            }
        });
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let forward = Self { child, url: url.trim().to_owned(), said, heard: Mutex::default() };
        assert!(!forward.url.is_empty(), "{:?}", forward.said.recv_timeout(PATIENCE));
        forward
    }

    fn address(&self) -> SocketAddr {
        self.url.rsplit(['/', '@']).next().unwrap().parse().unwrap_or_else(|error| panic!("{}: {error}", self.url))
    }

    /// Waits for a line on stderr with these words.
    #[track_caller]
    fn says(&self, words: &str) {
        loop {
            let line = self.said.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{words:?}: {:?}", self.heard));
            let found = line.contains(words);
            self.heard.lock().unwrap().push(line);
            if found {
                return;
            }
        }
    }

    fn ask_to_end(&self) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGTERM).unwrap();
    }

    fn code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::yield_now();
        }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_request_passes_and_the_secret_is_put_in_at_the_centre() {
    let mut central = Central::new("client_ca = \"clients-ca.pem\"\n\n[limits]\nhandshake = \"3s\"");
    let holder = central.env.mint("agent", &["acme:read"]);
    // A client that never begins its handshake keeps nobody waiting.
    let mut silent = TcpStream::connect(central.daemon.addr).unwrap();
    let forward = central.forward(&holder);
    let agent = central.agent(&forward);
    let answer = agent.get(HOST, "/v1/items");
    assert_eq!((answer.status(), answer.text()), (200, "[]".to_owned()));
    let seen = central.origin.only();
    assert_eq!(seen.header("authorization"), Some(&*format!("Bearer {SECRET}")));
    let line = central.env.journal_line(|line| line["outcome"] == "allowed");
    assert_eq!((&line["proof"], &line["user"]), (&"connect".into(), &"alice@example.com".into()));
    let key = keys::read_private(&holder.key).unwrap();
    assert_eq!(line["chain"][0]["holder"], key.public().to_string());
    assert!(line["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    let denied = agent.request("DELETE", HOST, "/v1/items", "", b"");
    assert_eq!(denied.code(), "capability_denied");

    if let Some(curl) = program("curl") {
        let mut curl = support::client::clean(&curl);
        curl.args(["-q", "-sS", "--cacert"]).arg(central.env.home().join("ca.pem"));
        curl.args(["-x", &forward.url, "https://api.acme.test/v1/items"]);
        assert_eq!(support::client::run(&mut curl, b"").succeeded().stdout, "[]");
    } else {
        skip("a_request_passes", "no curl");
    }
    // The silent one is cut off when a handshake's time is over.
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    central.daemon.wait_for_log("no TLS with a client");
}

#[test]
fn an_absolute_form_request_is_bound_too() {
    let central = Central::mutual();
    let forward = central.forward(&central.env.mint("agent", &["plain:read", "acme:read"]));
    for (url, body) in [("http://plain.acme.test/news", "rain"), ("https://api.acme.test/v1/items", "[]")] {
        let mut wire = central.agent(&forward).dial();
        let host = url.split('/').nth(2).unwrap();
        wire.send(&format!("GET {url} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        assert_eq!(wire.answer(false).text(), body);
    }
    assert_eq!(central.env.journal_line(|line| line["service"] == "plain")["proof"], "request");
    assert_eq!(central.env.journal_line(|line| line["service"] == "acme")["proof"], "request");
}

#[test]
fn certificates_that_do_not_belong_are_refused_in_clear_words() {
    let central = Central::mutual();
    let holder = central.env.mint("agent", &["acme:read"]);
    let others = TestCa::new();
    show(central.env.home().parent().unwrap(), "other", &others, "sidecar");
    std::fs::write(central.env.file("others-ca.pem"), others.pem()).unwrap();
    let (other, other_key, other_ca) =
        (central.file("other.pem"), central.file("other.key"), central.file("others-ca.pem"));
    let (side, side_key) = (central.file("side.pem"), central.file("side.key"));
    let elsewhere = format!("https://localhost:{}", central.daemon.addr.port());
    let cases: [(&[&str], &str); 4] = [
        (&[], "it wants a certificate of ours (--cert FILE --cert-key FILE)"),
        (&["--cert", &other, "--cert-key", &other_key], "it does not accept our certificate"),
        (&["--cert", &side, "--cert-key", &side_key, "--ca", &other_ca], "not from an authority that is trusted here"),
        (&["--cert", &side, "--cert-key", &side_key, "--proxy", &elsewhere], "its certificate is not accepted"),
    ];
    for (options, words) in cases {
        let mut usual = central.options(&holder);
        for name in ["--ca", "--proxy"].iter().filter(|name| options.contains(name)) {
            let at = usual.iter().position(|option| option == name).unwrap();
            usual.drain(at..at + 2);
        }
        let mut command = central.env.command();
        command.arg("forward").args(usual).args(options).args(["--listen", "127.0.0.1:0"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let forward = Forward::start(child);
        let (refused, _) = central.agent(&forward).connect(TARGET);
        assert_eq!((refused.status(), refused.code()), (502, "upstream_tls".to_owned()), "{words}");
        forward.says(words);
    }
    assert_eq!(central.origin.seen().len(), 0);
    assert_eq!(central.env.journal().len(), 0);
}

/// Credentials for one CONNECT, or for ten minutes, with this binding.
fn credentials(holder: &Holder, purpose: Purpose<'_>, binding: &[u8]) -> String {
    let capability = Capability::from_text(std::fs::read_to_string(&holder.capability).unwrap().trim()).unwrap();
    let capability = capability.seal().unwrap();
    let key = keys::read_private(&holder.key).unwrap();
    let context = Context { binding, ..Context::new("local", purpose) };
    let (now, nonce) = (UnixSeconds::now(), random::bytes().unwrap());
    let proof = Proof::sign(&key, &capability.sha256(), now, 60, nonce, &context).unwrap();
    Credentials { capability, proof }.to_text()
}

/// The exporter of RFC 9266, asked for here and not by the code under test.
fn exporter(stream: &StreamOwned<ClientConnection, TcpStream>) -> [u8; 32] {
    stream.conn.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b"")).unwrap()
}

fn connect(stream: StreamOwned<ClientConnection, TcpStream>, credentials: &str) -> Answer {
    let mut wire = Wire { stream, ahead: Vec::new() };
    wire.send(&format!(
        "CONNECT {TARGET} HTTP/1.1\r\nHost: {TARGET}\r\nProxy-Authorization: Cap {credentials}\r\n\r\n"
    ));
    Answer { head: wire.head(), body: Vec::new() }
}

#[track_caller]
fn refused(answer: &Answer) {
    assert_eq!(answer.status(), 407, "{answer:?}");
    assert!(answer.header("proxy-authenticate").unwrap().contains("error=\"proof_invalid\""), "{answer:?}");
}

#[test]
fn a_proof_is_good_on_its_own_connection_alone() {
    let central = Central::mutual();
    let holder = central.env.mint("agent", &["acme:read"]);
    let tls = central.tls();
    let (one, another) = (central.by_hand(&tls), central.by_hand(&tls));
    let (its, others) = (exporter(&one), exporter(&another));
    assert_ne!(its, others);
    let purpose = Purpose::Connect { target: TARGET };
    let for_one = credentials(&holder, purpose, &its);
    refused(&connect(another, &for_one));
    assert_eq!(connect(one, &for_one).status(), 200);

    refused(&connect(central.by_hand(&tls), &credentials(&holder, purpose, b"")));
    let last = central.by_hand(&tls);
    let mut bit_away = exporter(&last);
    bit_away[31] ^= 1;
    refused(&connect(last, &credentials(&holder, purpose, &bit_away)));
    // A presentation is bound to no connection; one that claims to be is none.
    let presentation = |binding: &[u8]| credentials(&holder, Purpose::Presentation, binding);
    assert_eq!(connect(central.by_hand(&tls), &presentation(b"")).status(), 200);
    let last = central.by_hand(&tls);
    let bound = presentation(&exporter(&last));
    refused(&connect(last, &bound));
}

#[test]
fn a_resumed_session_has_a_binding_of_its_own() {
    let central = Central::mutual();
    let holder = central.env.mint("agent", &["acme:read"]);
    let tls = central.tls();
    let purpose = Purpose::Connect { target: TARGET };
    let first = central.by_hand(&tls);
    let its = exporter(&first);
    // The answer comes behind the session's ticket.
    assert_eq!(connect(first, &credentials(&holder, purpose, &its)).status(), 200);
    let second = central.by_hand(&tls);
    assert_eq!(second.conn.handshake_kind(), Some(HandshakeKind::Resumed));
    let fresh = exporter(&second);
    assert_ne!(its, fresh);
    assert_eq!(connect(second, &credentials(&holder, purpose, &fresh)).status(), 200);
    let third = central.by_hand(&tls);
    refused(&connect(third, &credentials(&holder, purpose, &its)));
}

#[test]
fn where_no_certificate_is_asked_for_a_proof_may_be_bound_or_not() {
    let central = Central::new("");
    let holder = central.env.mint("agent", &["acme:read"]);
    let tls = central.tls();
    let purpose = Purpose::Connect { target: TARGET };
    assert_eq!(connect(central.by_hand(&tls), &credentials(&holder, purpose, b"")).status(), 200);
    let (one, another) = (central.by_hand(&tls), central.by_hand(&tls));
    let for_one = credentials(&holder, purpose, &exporter(&one));
    refused(&connect(another, &for_one));
    assert_eq!(connect(one, &for_one).status(), 200);
    let forward = central.forward_with(&holder, &[]);
    assert_eq!(central.agent(&forward).get(HOST, "/v1/items").status(), 200);
}

#[test]
fn a_person_is_told_why_nothing_is_accepted_and_told_once() {
    let central = Central::mutual();
    let holder = central.env.mint("agent", &["acme:read"]);
    let (side, side_key) = (central.file("side.pem"), central.file("side.key"));
    let mut command = central.env.command();
    let usual = central.options(&holder).into_iter().map(|option| option.replace("local", "another-proxy"));
    command.arg("forward").args(usual).args(["--cert", &side, "--cert-key", &side_key, "--listen", "127.0.0.1:0"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut forward = Forward::start(child);
    for _ in 0..2 {
        assert_eq!(central.agent(&forward).connect(TARGET).0.code(), "proof_invalid");
    }
    forward.says("is --audience the proxy's own");
    forward.ask_to_end();
    assert_eq!(forward.code(), Some(0));
    assert_eq!(forward.said.iter().count(), 0, "said once");
    central.env.journal_line(|line| line["event"] == "auth" && line["code"] == "proof_invalid");
}

#[test]
fn the_wrong_scheme_is_named() {
    let central = Central::mutual();
    let other = TestEnv::new();
    let plain = other.start();
    let holder = central.env.mint("agent", &["acme:read"]);
    for (proxy, words) in [
        (format!("http://{}", central.daemon.addr), "if the proxy has [tls], it is at https://"),
        (format!("https://{}", plain.addr), "a proxy without [tls] is at http://"),
    ] {
        let mut command = central.env.command();
        command.args(["forward", "--no-password", "--audience", "local", "--listen", "127.0.0.1:0", "--proxy", &proxy]);
        command.arg("--cap").arg(&holder.capability).arg("--key").arg(&holder.key);
        if proxy.starts_with("https") {
            command.args(["--ca", &central.file("ends-ca.pem")]);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let forward = Forward::start(child);
        assert_eq!(central.agent(&forward).connect(TARGET).0.status(), 502);
        forward.says(words);
    }
}

#[test]
fn a_forwarder_is_asked_whether_it_is_alive() {
    let central = Central::mutual();
    let holder = central.env.mint("agent", &["acme:read"]);
    let socket = format!("unix:{}", central.file("forward.sock"));
    let (side, side_key) = (central.file("side.pem"), central.file("side.key"));
    for listen in ["127.0.0.1:0", &socket] {
        let mut forward =
            central.forward_with(&holder, &["--cert", &side, "--cert-key", &side_key, "--listen", listen]);
        let at = forward.url.trim_start_matches("http://").to_owned();
        let probe = || central.env.capctl(&["forward", "probe", "--listen", &at]);
        assert_eq!(probe().succeeded().stdout, "ok\n");
        forward.ask_to_end();
        assert_eq!(forward.code(), Some(0));
        probe().failed().says("does not answer");
    }
    let other = TestEnv::new();
    let proxy = other.start();
    central.env.capctl(&["forward", "probe", "--listen", &proxy.addr.to_string()]).failed().says("is no forwarder");
    assert_eq!(central.origin.seen().len(), 0);
    central.env.capctl(&["forward"]).failed().says("--cap");
}

/// The strings of a list in a manifest, as `args: ["a", "b"]` or one beneath the other.
fn listed(manifest: &str, key: &str) -> Vec<String> {
    let at = manifest.lines().position(|line| line.trim_start().starts_with(&format!("{key}:"))).unwrap();
    let mut lines = manifest.lines().skip(at);
    let rest = lines.next().unwrap().split_once(':').unwrap().1.trim();
    let quoted = |text: &str| text.trim().trim_matches('"').to_owned();
    match rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inline) => inline.split(',').map(quoted).collect(),
        None => lines.map_while(|line| line.trim().strip_prefix("- ")).map(quoted).collect(),
    }
}

#[test]
fn the_pod_of_the_forwarder_runs_what_its_manifest_says() {
    let central = Central::mutual();
    let holder = central.env.mint("agent", &["acme:read"]);
    let manifest = include_str!("../deploy/pod-forwarder.yaml");
    let folder = central.env.file("etc");
    std::fs::create_dir(&folder).unwrap();
    for (from, to) in [
        (central.file("side.pem"), "sidecar.pem"),
        (central.file("side.key"), "sidecar.key"),
        (central.file("ends-ca.pem"), "proxy-ca.pem"),
        (holder.capability.display().to_string(), "agent.cap"),
        (holder.key.display().to_string(), "agent.key"),
    ] {
        std::fs::copy(from, folder.join(to)).unwrap();
    }
    assert_eq!(listed(manifest, "command")[0], "/bin/capctl");
    let arguments = listed(manifest, "args").into_iter().map(|argument| match argument.as_str() {
        // The test's own addresses and name.
        "https://narrows.internal:7080" => central.proxy(),
        "narrows.prod" => "local".to_owned(),
        argument => argument.replace("/etc/narrows", folder.to_str().unwrap()),
    });
    let mut command = central.env.command();
    command.args(arguments).args(["--listen", "127.0.0.1:0"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let forward = Forward::start(child);
    assert_eq!(central.agent(&forward).get(HOST, "/v1/items").text(), "[]");
    let probe = manifest.lines().find(|line| line.contains("\"probe\"")).unwrap();
    assert!(probe.contains("[\"/bin/capctl\", \"forward\", \"probe\"]"), "{probe}");
}

#[test]
fn an_agent_beside_a_forwarder_gets_its_files_where_the_proxy_is() {
    let central = Central::mutual();
    let holder = central.env.mint("agent", &["acme:read"]);
    let (cap, out) = (holder.capability.display().to_string(), central.file("share"));
    central.env.capctl(&["env", "--forwarder", &cap, "--out", &out, "--at", "/narrows"]).succeeded();
    let variables = std::fs::read_to_string(format!("{out}/env")).unwrap();
    for line in ["HTTPS_PROXY=http://127.0.0.1:7080", "SSL_CERT_FILE=/narrows/bundle.pem"] {
        assert!(variables.lines().any(|it| it == line), "{variables}");
    }
    let capability = std::fs::read_to_string(&holder.capability).unwrap();
    assert!(!variables.contains(capability.trim()) && !variables.contains(SECRET));
    let ca = std::fs::read_to_string(central.env.home().join("ca.pem")).unwrap();
    assert_eq!(std::fs::read_to_string(format!("{out}/ca.pem")).unwrap(), ca);
    central.env.capctl(&["env", "--out", &out]).failed().says("--forwarder FILE");
    central.env.capctl(&["env", "--forwarder", &cap]).failed().says("--out");
}

#[test]
fn what_would_show_the_capability_to_others_is_refused() {
    let env = TestEnv::bare();
    let run = |options: &[&str]| -> Ran {
        let mut command = env.command();
        command.args(["forward", "--cap", "c", "--key", "k"]).args(options);
        let ran = support::client::run(&mut command, b"").failed();
        assert_eq!(ran.code, Some(2), "{ran:?}");
        ran
    };
    for proxy in ["http://192.0.2.1:7080", "narrows.example.com:7080", "http://[2001:db8::1]:7080"] {
        run(&["--audience", "a", "--proxy", proxy])
            .says("clear text shows the capability")
            .says("hint: give the proxy");
    }
    let secure = ["--proxy", "https://192.0.2.1:7080"];
    run(&secure).says("--audience NAME");
    let exposed = |listen: &str| run(&[&secure[..], &["--audience", "a", "--listen", listen]].concat());
    for listen in ["0.0.0.0:0", "192.0.2.9:7080", "[::]:0"] {
        exposed(listen).says("may act under the capability");
    }
    exposed("nowhere").says("expected an address and port");
    run(&[&secure[..], &["--audience", "a", "--uid", "7"]].concat()).says("--uid is for Unix sockets");
    run(&[&secure[..], &["--cert", "x"]].concat()).says("--cert-key");
    run(&["--proxy", "ftp://192.0.2.1:7080"]).says("not https://HOST:PORT");
}

#[test]
fn renewed_files_are_taken_up_and_bad_ones_are_not() {
    let mut central = Central::mutual();
    let holder = central.env.mint("agent", &["acme:write"]);
    let forward = central.forward(&holder);
    let agent = central.agent(&forward);
    assert_eq!(agent.get(HOST, "/v1/items").code(), "capability_denied");
    let renewed = central.env.mint("renewed", &["acme:read"]);
    std::fs::rename(&renewed.key, &holder.key).unwrap();
    std::fs::rename(&renewed.capability, &holder.capability).unwrap();
    forward.says("the renewed files are in use");
    assert_eq!(agent.get(HOST, "/v1/items").status(), 200);

    std::fs::write(&holder.capability, "nonsense").unwrap();
    forward.says("what was read before stays in use");
    assert_eq!(agent.get(HOST, "/v1/items").status(), 200);

    // The proxy's certificate, to one of another authority; then a key that is not its own.
    let shown = |central: &Central| {
        let stream = central.by_hand(&central.tls());
        stream.conn.peer_certificates().unwrap()[0].clone()
    };
    let before = shown(&central);
    show(&central.env.home(), "tls", &central.ends, "127.0.0.1");
    let deadline = Instant::now() + PATIENCE;
    let after = loop {
        let now = shown(&central);
        if now != before {
            break now;
        }
        assert!(Instant::now() < deadline, "the certificate before is still shown");
        std::thread::yield_now();
    };
    assert_eq!(agent.get(HOST, "/v1/items").status(), 200);
    std::fs::write(central.env.home().join("tls.pem"), TestCa::new().issue("127.0.0.1").0).unwrap();
    central.daemon.wait_for_log("the key is not that of the certificate");
    assert_eq!(shown(&central), after);
}

#[test]
fn a_signal_drains() {
    let central = Central::mutual();
    let mut forward = central.forward(&central.env.mint("agent", &["acme:read"]));
    let mut tunnel = central.agent(&forward).tunnel(HOST);
    forward.ask_to_end();
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(forward.address()).is_ok() {
        assert!(Instant::now() < deadline, "it still listens");
    }
    tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"));
    assert_eq!(tunnel.answer(false).text(), "[]");
    drop(tunnel);
    assert_eq!(forward.code(), Some(0));
}

#[test]
fn at_a_unix_socket_the_user_counts() {
    let central = Central::mutual();
    let holder = central.env.mint("agent", &["acme:read"]);
    let (own, stranger) = (geteuid().as_raw(), geteuid().as_raw() + 1);
    for (uid, comes_in) in [(own, true), (stranger, false)] {
        let path = central.env.file(&format!("{uid}.sock"));
        let (listen, uid) = (format!("unix:{}", path.display()), uid.to_string());
        let (side, side_key) = (central.file("side.pem"), central.file("side.key"));
        let options = ["--cert", &side, "--cert-key", &side_key, "--listen", &listen, "--uid", &uid];
        let forward = central.forward_with(&holder, &options);
        assert_eq!(forward.url, listen);
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(format!("CONNECT {TARGET} HTTP/1.1\r\nHost: {TARGET}\r\n\r\n").as_bytes());
        let mut start = [0; 12];
        let read = stream.read_exact(&mut start);
        assert_eq!(read.is_ok() && &start == b"HTTP/1.1 200", comes_in, "{read:?}");
    }
}

#[test]
fn with_a_password_only_who_has_it_comes_in() {
    let central = Central::new("");
    let holder = central.env.mint("agent", &["acme:read"]);
    let mut options = central.options(&holder);
    options.retain(|option| option != "--no-password");
    let mut command = central.env.command();
    command.arg("forward").args(options).args(["--listen", "127.0.0.1:0"]);
    let forward =
        Forward::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    assert_eq!(central.agent(&forward).connect(TARGET).0.status(), 407);
    let password = forward.url.strip_prefix("http://cap:").unwrap().split('@').next().unwrap().to_owned();
    let agent = Agent::at(forward.address(), &central.env.home().join("ca.pem"), Some(&password));
    assert_eq!(agent.get(HOST, "/v1/items").status(), 200);
}

#[test]
fn a_command_may_go_by_a_central_proxy_too() {
    let Some(_) = program("curl") else { return skip("a_command_may_go_by_a_central_proxy_too", "no curl") };
    let central = Central::mutual();
    let holder = central.env.mint("agent", &["acme:read"]);
    let mut options = central.options(&holder);
    options.retain(|option| option != "--no-password");
    let mut command = central.env.command();
    command.arg("run").args(options);
    command.args(["--cert", &central.file("side.pem"), "--cert-key", &central.file("side.key")]);
    command.args(["--", "sh", "-c", "curl -q -sS https://api.acme.test/v1/items"]);
    assert_eq!(support::client::run(&mut command, b"").succeeded().stdout, "[]");
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let central = Central::mutual();
    let key = central.env.home().join("tls.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut check = central.env.narrows(&[]);
    support::client::run(check.arg("--check"), b"").failed().says("tls.key").says("chmod");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut check = central.env.narrows(&[]);
    support::client::run(check.arg("--check"), b"").succeeded();
}
