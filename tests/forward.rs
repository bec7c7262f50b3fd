//! The forwarder against a proxy that is played here, byte by byte: what the agent sends and gets, and what the proxy
//! is asked.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use narrows::capability::{
    Algorithm, AuthorityBlock, Capability, Context, Credentials, PrivateKey, ProofError, ProofLimits, Purpose, mint,
};
use narrows::clock::UnixSeconds;
use narrows::forward::{Forwarder, Guests, Parts};
use narrows::request::Target;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// No wait is longer; met only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// How the played proxy answers one connection.
#[derive(Clone)]
enum Play {
    /// This answer, and then the connection closes.
    Answer(String),
    /// This answer, then every byte back, then `bye` when the other side has ended its half.
    Echo(String),
    /// A challenge that says the proxy's clock is so many seconds ahead.
    Skewed(i64),
}

struct Proxy {
    address: std::net::SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    async fn start(plays: Vec<Play>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        tokio::spawn({
            let heads = Arc::clone(&heads);
            async move {
                for play in plays {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(perform(stream, play, Arc::clone(&heads)));
                }
            }
        });
        Self { address, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn perform(mut stream: TcpStream, play: Play, heads: Arc<Mutex<Vec<String>>>) {
    let head = head(&mut stream).await;
    heads.lock().unwrap().push(head);
    match play {
        Play::Answer(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
        Play::Skewed(ahead_s) => {
            let now = UnixSeconds::now().get().saturating_add_signed(ahead_s);
            stream.write_all(challenge("proof_expired", now).as_bytes()).await.unwrap();
        }
        Play::Echo(answer) => {
            stream.write_all(answer.as_bytes()).await.unwrap();
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            write.write_all(b"bye").await.unwrap();
        }
    }
}

fn challenge(code: &str, now: u64) -> String {
    format!(
        "HTTP/1.1 407 Proxy Authentication Required\r\n\
         Proxy-Authenticate: Cap realm=\"narrows\", aud=\"elsewhere\", error=\"{code}\", now={now}\r\n\
         Proxy-Authenticate: Basic realm=\"narrows\"\r\nContent-Length: 0\r\n\r\n"
    )
}

async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(PATIENCE, stream.read_u8()).await.expect("in time").expect("a head"));
    }
    String::from_utf8(head).unwrap()
}

async fn body(stream: &mut TcpStream, head: &str) -> String {
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or_else(|| panic!("{head}"))];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut body)).await.unwrap().unwrap();
    String::from_utf8(body).unwrap()
}

async fn read_some(stream: &mut TcpStream, count: usize) -> String {
    let mut bytes = vec![0; count];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    String::from_utf8(bytes).unwrap()
}

/// A holder's key and a capability for it.
fn holder() -> (PrivateKey, Capability) {
    let key = PrivateKey::from_seed(Algorithm::Ed25519, [2; 32]).unwrap();
    let root = PrivateKey::from_seed(Algorithm::Ed25519, [1; 32]).unwrap();
    let block = AuthorityBlock {
        holder: *key.public(),
        user: None,
        rights: vec![("acme".to_owned(), "*".to_owned())],
        caveats: Vec::new(),
        budgets: Vec::new(),
        rates: Vec::new(),
    };
    (key, mint(&root, 1, &block, [3; 32]).unwrap())
}

struct Agent {
    forwarder: Forwarder,
    proxy: Proxy,
    basic: String,
}

impl Agent {
    async fn new(plays: Vec<Play>) -> Self {
        let proxy = Proxy::start(plays).await;
        let (key, capability) = holder();
        let parts = Parts {
            upstream: proxy.address.into(),
            capability,
            key,
            audience: Arc::from("local"),
            revival: None,
            notify: |_| {},
            client_end: None,
            listener: None,
            guests: Guests::Password,
        };
        let forwarder = Forwarder::start(parts).await.unwrap();
        let userinfo = forwarder.url().strip_prefix("http://").unwrap().split('@').next().unwrap();
        let basic = format!("Proxy-Authorization: Basic {}\r\n", BASE64_STANDARD.encode(userinfo));
        Self { forwarder, proxy, basic }
    }

    async fn dial(&self) -> TcpStream {
        TcpStream::connect(self.forwarder.address().unwrap()).await.unwrap()
    }

    /// Sends these bytes on a new connection: the answer's head, and the connection.
    async fn send(&self, bytes: &str) -> (String, TcpStream) {
        let mut stream = self.dial().await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        (head(&mut stream).await, stream)
    }

    async fn connect(&self, target: &str) -> (String, TcpStream) {
        self.send(&format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{}\r\n", self.basic)).await
    }
}

/// Checks the proof of a head that the proxy got, at a clock that is so many seconds ahead.
fn check(head: &str, purpose: Purpose<'_>, ahead_s: i64) -> Result<(), ProofError> {
    let value = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("proxy-authorization").then_some(value)
    });
    let credentials = Credentials::from_proxy_authorization(value.expect("credentials").as_bytes()).unwrap();
    assert!(credentials.capability.is_sealed());
    let (key, _) = holder();
    let now = UnixSeconds(UnixSeconds::now().get().saturating_add_signed(ahead_s));
    let context = Context::new("local", purpose);
    let limits = ProofLimits::since(UnixSeconds(0));
    credentials.proof.check(key.public(), &credentials.capability.sha256(), &context, now, &limits).map(|_| ())
}

const OPENED: &str = "HTTP/1.1 200 OK\r\nNarrows-Request-Id: 01J\r\n\r\n";
const HOST: &str = "Api.Acme.test:443";

#[tokio::test]
async fn without_the_password_there_is_a_challenge_and_the_connection_stays() {
    let agent = Agent::new(vec![Play::Echo(OPENED.to_owned())]).await;
    let wrong = BASE64_STANDARD.encode("cap:AAAAAAAAAAAAAAAAAAAAAA");
    let mut stream = agent.dial().await;
    for line in [String::new(), format!("Proxy-Authorization: Basic {wrong}\r\n")] {
        stream.write_all(format!("CONNECT {HOST} HTTP/1.1\r\nHost: {HOST}\r\n{line}\r\n").as_bytes()).await.unwrap();
        let refused = head(&mut stream).await;
        assert!(refused.starts_with("HTTP/1.1 407 "), "{refused}");
        assert!(refused.contains("proxy-authenticate: Basic realm=\"narrows\"\r\n"), "{refused}");
        body(&mut stream, &refused).await;
    }
    assert_eq!(agent.proxy.heads().len(), 0, "nothing reaches the proxy");
    let right = format!("CONNECT {HOST} HTTP/1.1\r\nHost: {HOST}\r\n{}\r\n", agent.basic);
    stream.write_all(right.as_bytes()).await.unwrap();
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200 "));
    stream.write_all(b"ping").await.unwrap();
    assert_eq!(read_some(&mut stream, 4).await, "ping");
}

#[tokio::test]
async fn a_connect_is_proved_as_received_and_halves_close_alone() {
    let agent = Agent::new(vec![Play::Echo(OPENED.to_owned())]).await;
    let (opened, mut stream) = agent.connect(HOST).await;
    assert!(opened.starts_with("HTTP/1.1 200 "), "{opened}");
    assert!(opened.contains("narrows-request-id: 01J\r\n"), "{opened}");
    let [asked] = agent.proxy.heads().try_into().unwrap();
    assert!(asked.starts_with(&format!("CONNECT {HOST} HTTP/1.1\r\n")), "{asked}");
    assert!(!asked.contains("Basic"), "{asked}");
    check(&asked, Purpose::Connect { target: HOST }, 0).unwrap();
    assert_eq!(check(&asked, Purpose::Connect { target: "api.acme.test:444" }, 0), Err(ProofError::Signature));

    stream.write_all(b"last words").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, "last wordsbye");
}

#[tokio::test]
async fn every_connect_has_a_proof_of_its_own() {
    let agent = Agent::new(vec![Play::Echo(OPENED.to_owned()); 2]).await;
    for _ in 0..2 {
        agent.connect(HOST).await;
    }
    let [first, second] = agent.proxy.heads().try_into().unwrap();
    assert_ne!(first, second);
}

#[tokio::test]
async fn http_1_0_and_bytes_right_behind_the_head_pass() {
    let agent = Agent::new(vec![Play::Echo(format!("{OPENED}early")); 2]).await;
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let (opened, mut stream) = agent.send(&format!("CONNECT {HOST} {version}\r\n{}\r\nhello", agent.basic)).await;
        assert!(opened.contains(" 200 "), "{opened}");
        assert_eq!(read_some(&mut stream, 10).await, "earlyhello");
    }
}

#[tokio::test]
async fn a_clock_is_corrected_once_by_at_most_ten_minutes() {
    let agent = Agent::new(vec![
        Play::Skewed(300),
        Play::Echo(OPENED.to_owned()),
        Play::Echo(OPENED.to_owned()),
        Play::Skewed(500),
        Play::Skewed(300),
    ])
    .await;
    assert!(agent.connect(HOST).await.0.starts_with("HTTP/1.1 200 "));
    assert!(agent.connect(HOST).await.0.starts_with("HTTP/1.1 200 "), "the correction stays");
    let heads = agent.proxy.heads();
    let purpose = Purpose::Connect { target: HOST };
    assert!(check(&heads[0], purpose, 300).is_err());
    check(&heads[1], purpose, 300).unwrap();
    check(&heads[2], purpose, 300).unwrap();
    let (refused, mut stream) = agent.connect(HOST).await;
    assert!(refused.starts_with("HTTP/1.1 502 Bad Gateway by narrows: proof_expired\r\n"), "{refused}");
    // By this machine's clock, not by the one that was corrected.
    let apart = |said: &str| {
        let said = said.split(" s ahead of this machine's").next().unwrap().rsplit(' ').next().unwrap().to_owned();
        said.parse::<u32>().unwrap()
    };
    let said = body(&mut stream, &refused).await;
    assert!((495..=505).contains(&apart(&said)), "{said}");
    let (refused, mut stream) = agent.connect(HOST).await;
    let said = body(&mut stream, &refused).await;
    assert!((295..=305).contains(&apart(&said)) && said.contains("set the one that is wrong"), "{said}");

    for ahead_s in [601 + 30, -700] {
        let agent = Agent::new(vec![Play::Skewed(ahead_s)]).await;
        let (refused, _) = agent.connect(HOST).await;
        assert!(refused.starts_with("HTTP/1.1 502 "), "{refused}");
        assert_eq!(agent.proxy.heads().len(), 1);
    }
}

#[tokio::test]
async fn a_challenge_of_the_proxy_never_reaches_the_agent() {
    for (code, status) in [("capability_invalid", "403 Forbidden"), ("proof_invalid", "502 Bad Gateway")] {
        let agent = Agent::new(vec![Play::Answer(challenge(code, 1))]).await;
        let (refused, mut stream) = agent.connect(HOST).await;
        assert!(refused.starts_with(&format!("HTTP/1.1 {status} by narrows: {code}\r\n")), "{refused}");
        assert!(!refused.contains("proxy-authenticate"), "{refused}");
        let problem: serde_json::Value = serde_json::from_str(&body(&mut stream, &refused).await).unwrap();
        assert_eq!(problem["code"], code);
        assert_eq!(agent.proxy.heads().len(), 1, "asked once");
    }
}

#[tokio::test]
async fn a_refusal_of_the_proxy_is_passed_whole() {
    let answer = "HTTP/1.1 403 Forbidden by narrows: service_unknown\r\nProxy-Status: narrows; details=\"x\"\r\n\
                  Narrows-Request-Id: 01J\r\nContent-Length: 4\r\n\r\nbody";
    let agent = Agent::new(vec![Play::Answer(answer.to_owned())]).await;
    let (refused, mut stream) = agent.connect("api.acme.test:22").await;
    assert!(refused.starts_with("HTTP/1.1 403 Forbidden by narrows: service_unknown\r\n"), "{refused}");
    assert!(refused.contains("proxy-status: narrows; details=\"x\"\r\n"), "{refused}");
    assert!(refused.contains("narrows-request-id: 01J\r\n"), "{refused}");
    assert_eq!(body(&mut stream, &refused).await, "body");
}

#[tokio::test]
async fn nothing_goes_round_in_a_circle() {
    let agent = Agent::new(vec![]).await;
    for port in [agent.forwarder.address().unwrap().port(), agent.proxy.address.port()] {
        for target in [format!("127.0.0.1:{port}"), format!("localhost:{port}")] {
            let (refused, _) = agent.connect(&target).await;
            assert!(refused.starts_with("HTTP/1.1 502 Bad Gateway by narrows: address_forbidden\r\n"), "{refused}");
        }
    }
}

#[tokio::test]
async fn a_proxy_that_is_gone_is_a_502() {
    let agent = Agent::new(vec![]).await;
    // The play is over: the listener is closed with its task, sooner or later.
    let (mut refused, _) = agent.connect(HOST).await;
    if !refused.contains("upstream_refused") {
        refused = agent.connect(HOST).await.0;
    }
    assert!(refused.starts_with("HTTP/1.1 502 Bad Gateway by narrows: upstream_"), "{refused}");
}

#[tokio::test]
async fn a_407_of_an_upstream_is_not_taken_for_the_proxys() {
    let request = |agent: &Agent| format!("GET http://plain.test/ HTTP/1.1\r\nHost: plain.test\r\n{}\r\n", agent.basic);
    let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 2\r\nX-Here: 1\r\n\r\nok";
    let agent = Agent::new(vec![Play::Answer(answer.to_owned())]).await;
    let (passed, mut stream) = agent.send(&request(&agent)).await;
    assert!(passed.starts_with("HTTP/1.1 407 ") && passed.contains("x-here: 1\r\n"), "{passed}");
    assert_eq!(body(&mut stream, &passed).await, "ok");
    // The twin has the proxy's challenge, and is not for the agent.
    let agent = Agent::new(vec![Play::Answer(challenge("capability_invalid", 1))]).await;
    let (refused, _) = agent.send(&request(&agent)).await;
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
}

#[tokio::test]
async fn an_absolute_request_is_proved_and_streams() {
    let answer = "HTTP/1.1 201 Created\r\nContent-Length: 2\r\nX-Here: 1\r\n\r\nok";
    let agent = Agent::new(vec![Play::Skewed(200), Play::Answer(answer.to_owned())]).await;
    let request = format!("GET http://Plain.test/a?b HTTP/1.1\r\nHost: plain.test\r\n{}\r\n", agent.basic);
    let (created, mut stream) = agent.send(&request).await;
    assert!(created.starts_with("HTTP/1.1 201 Created\r\n"), "{created}");
    assert!(created.contains("x-here: 1\r\n"), "{created}");
    assert_eq!(body(&mut stream, &created).await, "ok");
    let heads = agent.proxy.heads();
    assert!(heads[1].starts_with("GET http://Plain.test/a?b HTTP/1.1\r\n"), "{}", heads[1]);
    assert!(!heads[1].contains("Basic"));
    let target = Target::parse("plain.test:80").unwrap();
    check(&heads[1], Purpose::Request { method: "GET", target: &target }, 200).unwrap();
    let wrong = check(&heads[1], Purpose::Request { method: "PUT", target: &target }, 200);
    assert_eq!(wrong, Err(ProofError::Signature));
}

#[tokio::test]
async fn a_websocket_in_clear_text_passes() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let agent = Agent::new(vec![Play::Echo(switch.to_owned())]).await;
    let request = format!(
        "GET http://plain.test/ws HTTP/1.1\r\nHost: plain.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n{}\r\n",
        agent.basic
    );
    let (switched, mut stream) = agent.send(&request).await;
    assert!(switched.starts_with("HTTP/1.1 101 "), "{switched}");
    stream.write_all(b"frame").await.unwrap();
    assert_eq!(read_some(&mut stream, 5).await, "frame");
}

#[tokio::test]
async fn what_is_no_proxy_request_is_refused() {
    let agent = Agent::new(vec![]).await;
    let (refused, _) = agent.send(&format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", agent.basic)).await;
    assert!(refused.starts_with("HTTP/1.1 400 Bad Request by narrows: framing\r\n"), "{refused}");
}

#[tokio::test]
async fn stopping_ends_open_tunnels() {
    let agent = Agent::new(vec![Play::Echo(OPENED.to_owned())]).await;
    let (_, mut stream) = agent.connect(HOST).await;
    agent.forwarder.stop().await;
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the tunnel ends");
}

#[tokio::test]
async fn a_proxy_that_is_gone_is_asked_for_and_dialled_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("narrows.sock");
    let (key, capability) = holder();
    let (revival, mut asked) = tokio::sync::mpsc::channel::<tokio::sync::oneshot::Sender<()>>(1);
    let parts = Parts {
        upstream: format!("unix:{}", path.display()).parse().unwrap(),
        capability,
        key,
        audience: Arc::from("local"),
        revival: Some(revival),
        notify: |_| {},
        client_end: None,
        listener: None,
        guests: Guests::Password,
    };
    let forwarder = Forwarder::start(parts).await.unwrap();
    let back = tokio::spawn(async move {
        let tried = asked.recv().await.unwrap();
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        tried.send(()).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        head(&mut stream).await;
        stream.write_all(OPENED.as_bytes()).await.unwrap();
    });
    let userinfo = forwarder.url().strip_prefix("http://").unwrap().split('@').next().unwrap();
    let basic = BASE64_STANDARD.encode(userinfo);
    let mut stream = TcpStream::connect(forwarder.address().unwrap()).await.unwrap();
    let connect = format!("CONNECT {HOST} HTTP/1.1\r\nHost: {HOST}\r\nProxy-Authorization: Basic {basic}\r\n\r\n");
    stream.write_all(connect.as_bytes()).await.unwrap();
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200 "));
    back.await.unwrap();
}
