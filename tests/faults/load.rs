//! Clients that ask as fast as they are answered until the proxy is gone, and what the journal must say of them.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use http_body_util::BodyExt as _;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde_json::Value;

use crate::support::PATIENCE;
use crate::support::agent::Agent;
use crate::support::client::clean;
use crate::support::daemon::Daemon;
use crate::support::h2_agent::H2Agent;
use crate::{HOST, World};

/// Clients of each kind.
const HTTP1_CLIENTS: usize = 4;
const HTTP2_CLIENTS: usize = 2;
/// Streams at once on an HTTP/2 connection.
const STREAMS: usize = 4;
/// What one curl asks for.
const CURL_URLS: usize = 60;

/// An answer that a client has whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delivered {
    pub(crate) path: String,
    pub(crate) status: u16,
    pub(crate) body_len: u64,
}

/// What the clients have so far.
#[derive(Default)]
pub(crate) struct Harvest {
    delivered: Mutex<Vec<Delivered>>,
    pub(crate) count: AtomicU64,
    pub(crate) stop: AtomicBool,
}

impl Harvest {
    pub(crate) fn add(&self, path: String, status: u16, body_len: usize) {
        self.delivered.lock().unwrap().push(Delivered { path, status, body_len: body_len as u64 });
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn take(&self) -> Vec<Delivered> {
        std::mem::take(&mut *self.delivered.lock().unwrap())
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// The `number`th path of a client: every one is asked for once, ever.
fn path(client: &str, number: u64) -> String {
    let kind = match number % 8 {
        0 => "bytes/0",
        1 => "status/204",
        2 => "bytes/100",
        3 => "chunked/3000",
        4 => "denied",
        5 => "bytes/70000",
        6 => "status/404",
        _ => "chunked/40000",
    };
    format!("/{kind}/{client}-{number}")
}

/// Runs clients of every kind while `meanwhile` runs, then lets them see that the proxy is gone.
pub(crate) fn under_load<T>(
    world: &World,
    daemon: Daemon,
    name: &str,
    meanwhile: impl FnOnce(&Harvest, Daemon) -> T,
) -> (T, Vec<Delivered>) {
    let harvest = Arc::new(Harvest::default());
    let agent = world.agent(&daemon);
    let curl = Curl::start(world, &daemon, name);
    let result = std::thread::scope(|scope| {
        for client in 0..HTTP1_CLIENTS {
            let (agent, harvest, client) = (agent.clone(), harvest.clone(), format!("{name}-one{client}"));
            scope.spawn(move || http1(&agent, &client, &harvest));
        }
        let (agent, harvest_h2, name) = (agent.clone(), harvest.clone(), name.to_owned());
        scope.spawn(move || http2(&agent, &name, &harvest_h2));
        let result = meanwhile(&harvest, daemon);
        harvest.stop.store(true, Ordering::Relaxed);
        result
    });
    for delivered in curl.into_iter().flat_map(Curl::delivered) {
        harvest.add(delivered.path, delivered.status, usize::try_from(delivered.body_len).unwrap());
    }
    (result, harvest.take())
}

/// Tunnels with kept connections, one after the other; every third connection ends after a few requests.
fn http1(agent: &Agent, client: &str, harvest: &Harvest) {
    let mut number = 0_u64;
    while !harvest.is_over() {
        let Some(mut tunnel) = tunnel(agent) else { continue };
        let last = number + if number.is_multiple_of(3) { 5 } else { 200 };
        while number < last && !harvest.is_over() {
            let path = path(client, number);
            number += 1;
            let Some((status, body_len)) = ask(&mut tunnel, &path) else { break };
            harvest.add(path, status, body_len);
        }
    }
}

pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A tunnel with TLS inside; `None` when the proxy is not there (any more).
pub(crate) fn tunnel(agent: &Agent) -> Option<Tls> {
    let mut tcp = TcpStream::connect(agent.proxy).ok()?;
    tcp.set_read_timeout(Some(PATIENCE)).ok()?;
    let head = format!("CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n{}\r\n", agent.authorization());
    std::io::Write::write_all(&mut tcp, head.as_bytes()).ok()?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tcp.read_exact(&mut byte).ok()?;
        answer.extend(byte);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    let name = ServerName::try_from(HOST).unwrap();
    let mut connection = ClientConnection::new(Arc::new(agent.tls(&[])), name).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut tcp).ok()?;
    }
    Some(StreamOwned::new(connection, tcp))
}

/// One request: the status and the length of a whole answer; `None` when less than that came.
pub(crate) fn ask(tunnel: &mut Tls, path: &str) -> Option<(u16, usize)> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    std::io::Write::write_all(tunnel, request.as_bytes()).ok()?;
    let mut ahead = Vec::new();
    let end = loop {
        let (mut headers, mut some) = ([httparse::EMPTY_HEADER; 32], [0; 16 * 1024]);
        let mut answer = httparse::Response::new(&mut headers);
        if let Ok(httparse::Status::Complete(end)) = answer.parse(&ahead) {
            let value = |name: &str| answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
            let length = value("content-length").map(|found| str::from_utf8(found.value).unwrap().parse().unwrap());
            let length = if answer.code == Some(204) { Some(0) } else { length };
            break (answer.code?, end, length);
        }
        let count = tunnel.read(&mut some).ok().filter(|count| *count > 0)?;
        ahead.extend_from_slice(&some[..count]);
    };
    let (status, head, length): (u16, usize, Option<usize>) = end;
    let mut body = ahead.split_off(head);
    loop {
        let whole = match length {
            Some(length) => (body.len() >= length).then_some(length),
            None => unchunked(&body),
        };
        if let Some(whole) = whole {
            return Some((status, whole));
        }
        let mut some = [0; 16 * 1024];
        let count = tunnel.read(&mut some).ok().filter(|count| *count > 0)?;
        body.extend_from_slice(&some[..count]);
    }
}

/// The length of a whole chunked body.
fn unchunked(mut body: &[u8]) -> Option<usize> {
    let mut total = 0;
    loop {
        let line = body.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(str::from_utf8(&body[..line]).unwrap(), 16).unwrap();
        body = body.get(line + 2 + size + 2..)?;
        if size == 0 {
            return Some(total);
        }
        total += size;
    }
}

fn http2(agent: &Agent, name: &str, harvest: &Arc<Harvest>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let clients = (0..HTTP2_CLIENTS).map(|client| {
        let (agent, harvest, client) = (agent.clone(), harvest.clone(), format!("{name}-two{client}"));
        async move {
            // A connection that fails while it is made panics in there, and ends this client alone.
            let connected = tokio::spawn(async move { H2Agent::connect(&agent, HOST).await }).await;
            let Ok(agent) = connected else { return };
            let streams = (0..STREAMS).map(|stream| {
                let (agent, harvest, client) = (agent.clone(), harvest.clone(), format!("{client}-{stream}"));
                async move {
                    for number in 0.. {
                        let path = path(&client, number);
                        let url = format!("https://{HOST}{path}");
                        let request = http::Request::get(url).body(http_body_util::Full::default()).unwrap();
                        let Ok(response) = agent.send(request).await else { return };
                        let status = response.status().as_u16();
                        let Ok(body) = response.into_body().collect().await else { return };
                        harvest.add(path, status, body.to_bytes().len());
                        if harvest.is_over() {
                            return;
                        }
                    }
                }
            });
            futures_util::future::join_all(streams).await;
        }
    });
    runtime.block_on(async {
        let all = futures_util::future::join_all(clients);
        tokio::time::timeout(PATIENCE, all).await.expect("the clients did not see the end");
    });
}

/// A real client, from another process.
struct Curl {
    child: Child,
}

impl Curl {
    fn start(world: &World, daemon: &Daemon, name: &str) -> Option<Self> {
        let program = crate::support::client::program("curl")?;
        let mut command = clean(&program);
        command.args(["-q", "-sS", "--cacert"]).arg(world.env.home().join("ca.pem"));
        command.args(["--proxy", &daemon.proxy_url(&world.credentials), "--max-time", "10"]);
        command.args(["-w", "%{exitcode} %{http_code} %{size_download} %{url}\\n"]);
        for number in 0..CURL_URLS {
            let path = path(&format!("{name}-curl"), number as u64);
            command.args(["-o", "/dev/null"]).arg(format!("https://{HOST}{path}"));
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        Some(Self { child })
    }

    /// What came whole. curl goes through the rest of its list when the proxy is gone, and ends.
    fn delivered(self) -> Vec<Delivered> {
        let said = self.child.wait_with_output().unwrap();
        let said = String::from_utf8(said.stdout).unwrap();
        let whole = said.lines().filter_map(|line| line.strip_prefix("0 "));
        let read = whole.map(|line| {
            let mut words = line.split(' ');
            let mut next = || words.next().unwrap();
            let (status, body_len, url) = (next().parse().unwrap(), next().parse().unwrap(), next());
            let path = url.strip_prefix(&format!("https://{HOST}")).unwrap().to_owned();
            Delivered { path, status, body_len }
        });
        read.collect()
    }
}

/// Every request in the journal, by its path; none may be there twice.
#[track_caller]
pub(crate) fn lines_by_path(world: &World) -> BTreeMap<String, Value> {
    let mut lines = BTreeMap::new();
    for line in world.env.journal() {
        let Some(path) = line["path"].as_str().map(ToOwned::to_owned) else { continue };
        if let Some(other) = lines.insert(path, line.clone()) {
            panic!("two lines of one request:\n{other}\n{line}");
        }
    }
    lines
}

/// The whole promise: a line for each answer that somebody has, with its outcome; a line for each request that the
/// origin saw.
#[track_caller]
pub(crate) fn assert_nothing_lost(world: &World, delivered: &[Delivered]) {
    let lines = lines_by_path(world);
    for answer in delivered {
        let line = lines.get(&answer.path).unwrap_or_else(|| panic!("no line for {answer:?}"));
        let outcome = if answer.status == 403 { "denied" } else { "allowed" };
        assert_eq!(line["outcome"], outcome, "{answer:?}: {line}");
        assert_eq!(line["status"], answer.status, "{answer:?}: {line}");
        if outcome == "allowed" {
            assert_eq!(line["bytes_down"], answer.body_len, "{answer:?}: {line}");
        }
    }
    for seen in world.origin.seen() {
        assert!(lines.contains_key(&seen.path), "{} reached the origin and has no line", seen.path);
    }
}
