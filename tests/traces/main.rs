//! Traces, from an agent's request to a collector: what is linked to what, what is said and what is not, and that no
//! collector holds up a request.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "these are tests")]

mod collector;
mod otlp;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use http::{Request, StatusCode};
use http_body_util::Full;

use collector::{Collector, Manner};
use otlp::{CLIENT, SERVER, Span};
use support::PATIENCE;
use support::agent::Agent;
use support::ca::{Alpn, TestCa};
use support::client::run;
use support::daemon::{Daemon, TestEnv};
use support::exposition::{OPEN, parse};
use support::h2_agent::H2Agent;
use support::operator::{ask, start};
use support::origin::Origin;

const HOST: &str = "api.acme.test";
const PINNED: &str = "pinned.acme.test";
const SECRET: &str = "sk-real-3kf9QmZx71TtPw0aVb5Lr8Ys";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A proxy with two services, the origin behind one of them, and an agent that may read at it.
struct World {
    env: TestEnv,
    origin: Origin,
    daemon: Daemon,
    agent: Agent,
}

impl World {
    fn new(settings: &str) -> Self {
        Self::over(Alpn::H1, settings)
    }

    fn over(alpn: Alpn, settings: &str) -> Self {
        let (env, origin) = home(alpn, settings);
        Self::started(env, origin)
    }

    fn started(env: TestEnv, origin: Origin) -> Self {
        let daemon = env.start();
        let credentials =
            env.mint("holder", &["acme:read,write path=/v1", "acme:write path=/ws", "gone", "pinned:tunnel"]);
        let agent = Agent::new(&env, &daemon, Some(&credentials.presentation()));
        Self { env, origin, daemon, agent }
    }

    fn get(&self, headers: &str) {
        assert_eq!(self.agent.request("GET", HOST, "/v1/items", headers, b"").status(), 200);
    }
}

fn home(alpn: Alpn, settings: &str) -> (TestEnv, Origin) {
    let mut env = TestEnv::new();
    let origin = Origin::https(&env.ca, &[HOST, PINNED], alpn);
    origin.put("/v1/items", "text/plain", "items");
    env.acme(SECRET, &origin);
    env.dial_at("gone.test:443", nobody());
    env.service("name = \"gone\"\nhosts = [\"gone.test\"]");
    env.dial(PINNED, &origin);
    env.service(&format!("name = \"pinned\"\nhosts = [\"{PINNED}\"]\nterminate = false"));
    env.setting(settings);
    (env, origin)
}

/// An address at which nobody listens.
fn nobody() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn traceparent(flags: &str) -> String {
    format!("traceparent: 00-{TRACE}-{PARENT}-{flags}\r\n")
}

/// The span of the request and the one of the upstream's part in it, of two.
#[track_caller]
fn pair(spans: &[Span]) -> (&Span, &Span) {
    let of = |kind| spans.iter().find(|span| span.kind == kind).unwrap_or_else(|| panic!("{spans:#?}"));
    assert_eq!(spans.len(), 2, "{spans:#?}");
    (of(SERVER), of(CLIENT))
}

#[track_caller]
fn says(span: &Span, wanted: &[(&str, &str)]) {
    let wanted: BTreeMap<_, _> = wanted.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let mut said = span.attributes.clone();
    if span.kind == SERVER {
        assert_eq!(said.remove("narrows.request_id").unwrap().len(), 26, "a ULID");
    }
    assert_eq!(said, wanted, "{span:#?}");
}

const EXCHANGE: [(&str, &str); 7] = [
    ("http.request.method", "GET"),
    ("http.response.status_code", "200"),
    ("narrows.operation", "read"),
    ("narrows.outcome", "allowed"),
    ("narrows.service", "acme"),
    ("server.address", HOST),
    ("server.port", "443"),
];

#[test]
fn a_request_is_a_span_of_the_agents_trace_and_the_upstreams_part_one_below_it() {
    for alpn in [Alpn::H1, Alpn::H2] {
        let collector = Collector::new(Manner::Takes);
        let world = World::over(alpn, &collector.setting(""));
        world.get(&format!("{}tracestate: a=1,b=2\r\n", traceparent("01")));
        let spans = collector.wait_for(2);
        let (server, client) = pair(&spans);
        assert_eq!((&*server.trace, &*server.parent, &*server.name, server.status), (TRACE, PARENT, "GET", 0));
        assert_eq!((&*client.trace, &client.parent, &*client.name, client.status), (TRACE, &server.id, "GET", 0));
        says(server, &[&EXCHANGE[..], &[("url.scheme", "https")]].concat());
        says(client, &[EXCHANGE[0], EXCHANGE[1], EXCHANGE[5], EXCHANGE[6]]);
        assert!(server.start_ns <= client.start_ns && client.start_ns < client.end_ns, "{spans:#?}");
        assert_eq!(client.end_ns, server.end_ns);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
        assert!(now - u128::from(server.start_ns) < PATIENCE.as_nanos(), "{server:#?}");
        // Upstream it is as if Narrows were the agent's callee.
        let seen = world.origin.only();
        assert_eq!(seen.header("traceparent"), Some(&*format!("00-{TRACE}-{}-01", client.id)));
        assert_eq!(seen.header("tracestate"), Some("a=1,b=2"));
        // The journal has it under the same id.
        let line = world.env.journal_line(|line| line["path"] == "/v1/items");
        assert_eq!(line["id"], *server.attributes["narrows.request_id"], "{line}");
        assert_eq!(server.resource["service.name"], "narrows");
        assert_eq!(server.resource["service.version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(server.resource["service.instance.id"].len(), 32);
        assert_eq!(server.scope, ("narrows".to_owned(), env!("CARGO_PKG_VERSION").to_owned()));
        let message = &collector.messages()[0];
        assert_eq!((&*message.method, &*message.uri), ("POST", "/v1/traces"));
        assert_eq!(message.headers["content-type"], "application/x-protobuf");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http2_it_is_the_same() {
    let collector = Collector::new(Manner::Takes);
    let world = World::over(Alpn::H2, &collector.setting(""));
    let agent = H2Agent::connect(&world.agent, HOST).await;
    let request =
        Request::get(format!("https://{HOST}/v1/items")).header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
    assert_eq!(agent.send(request.body(Full::default()).unwrap()).await.unwrap().status(), 200);
    let spans = collector.wait_for(2);
    let (server, client) = pair(&spans);
    assert_eq!((&*server.trace, &*server.parent, &client.parent), (TRACE, PARENT, &server.id));
    assert_eq!(world.origin.only().header("traceparent"), Some(&*format!("00-{TRACE}-{}-01", client.id)));
}

#[test]
fn without_a_parent_that_counts_the_trace_is_our_own_and_upstream_sees_what_the_agent_sent() {
    let collector = Collector::new(Manner::Takes);
    let world = World::new(&collector.setting("service_name = \"proxy-7\""));
    let valid = traceparent("01");
    let none = [
        String::new(),
        format!("{valid}{valid}"),
        traceparent("1"),
        valid.to_ascii_uppercase().replace("TRACEPARENT", "traceparent"),
    ];
    for headers in &none {
        world.get(headers);
    }
    // A field that the agent takes back is not put there.
    world.get(&format!("Connection: traceparent\r\n{valid}"));
    let spans = collector.wait_for(10);
    let mut traces: Vec<_> = spans.iter().filter(|span| span.kind == SERVER).collect();
    assert_eq!(traces.len(), 5);
    traces.sort_by_key(|span| span.start_ns);
    let continued = traces.pop().unwrap();
    assert_eq!((&*continued.trace, &*continued.parent), (TRACE, PARENT), "it said so to us");
    for server in &traces {
        assert_eq!(&*server.parent, "", "{server:#?}");
        assert!(server.trace.len() == 32 && server.trace != TRACE);
        assert_eq!(server.resource["service.name"], "proxy-7");
        let below: Vec<_> = spans.iter().filter(|span| span.parent == server.id).collect();
        assert!(below.len() == 1 && below[0].trace == server.trace, "{below:#?}");
    }
    for (seen, headers) in world.origin.seen().iter().zip(none.iter().map(String::as_str).chain([""])) {
        let sent: Vec<_> = headers.lines().map(|line| line.split_once(": ").unwrap().1).collect();
        let came: Vec<_> = seen.headers.get_all("traceparent").iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(came, sent);
    }
}

#[test]
fn who_begins_a_trace_says_whether_it_is_recorded() {
    // What the agent does not record goes by, and its header with it.
    let collector = Collector::new(Manner::Takes);
    let world = World::new(&collector.setting("ratio = 1"));
    world.get(&traceparent("00"));
    assert_eq!(world.origin.only().header("traceparent"), Some(&*format!("00-{TRACE}-{PARENT}-00")));
    world.get("");
    let (_, code) = world.daemon.stop();
    assert_eq!(code, Some(0));
    assert_ne!(pair(&collector.spans()).0.trace, TRACE);

    // The twin: none of our own, and one of the agent's.
    let collector = Collector::new(Manner::Takes);
    let world = World::new(&collector.setting("ratio = 0.0"));
    world.get("");
    world.get(&traceparent("01"));
    world.get("");
    world.daemon.stop();
    assert_eq!(pair(&collector.spans()).0.trace, TRACE);
    assert_eq!(world.origin.seen()[0].header("traceparent"), None);

    // And some of many.
    let collector = Collector::new(Manner::Takes);
    let world = World::new(&collector.setting("ratio = 0.5"));
    let mut tunnel = world.agent.tunnel(HOST);
    for _ in 0..200 {
        tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        assert_eq!(tunnel.answer(false).status(), 200);
    }
    drop(tunnel);
    world.daemon.stop();
    let recorded = collector.spans().len() / 2;
    assert!((40..160).contains(&recorded), "{recorded} of 200");
}

#[test]
fn a_refusal_has_its_code_and_no_name_that_an_agent_made_up() {
    let collector = Collector::new(Manner::Takes);
    let world = World::new(&collector.setting(""));
    let refused = |count: usize, method: &str, host: &str, path: &str, code: &str| {
        let answer = world.agent.request(method, host, path, "", b"");
        assert_eq!(answer.code(), code, "{answer:?}");
        let spans = collector.wait_for(count);
        spans.into_iter().find(|span| span.kind == SERVER && span.attributes["error.type"] == code).unwrap()
    };
    let denied = refused(1, "FROB", HOST, "/v2", "capability_denied");
    let named =
        [("narrows.service", "acme"), ("server.address", HOST), ("server.port", "443"), ("url.scheme", "https")];
    let of = |outcome, status, code| {
        [("narrows.outcome", outcome), ("http.response.status_code", status), ("error.type", code)]
    };
    let method = [("http.request.method", "_OTHER"), ("narrows.operation", "write")];
    says(&denied, &[&named[..], &method, &of("denied", "403", "capability_denied")].concat());
    assert_eq!((&*denied.name, denied.status), ("HTTP", 0), "a denial is as it should be");
    // A host that no service names.
    let unknown = refused(2, "GET", "made-up.test", "/", "service_unknown");
    let method = [("http.request.method", "GET"), ("narrows.service", "web"), ("narrows.operation", "read")];
    says(&unknown, &[&method[..], &named[3..], &of("denied", "403", "service_unknown")].concat());
    // An upstream that is not there.
    let failed = refused(4, "GET", "gone.test", "/", "upstream_refused");
    assert_eq!((failed.status, &*failed.attributes["narrows.outcome"]), (2, "failed"));
    let spans = collector.spans();
    let below: Vec<_> = spans.iter().filter(|span| span.parent == failed.id).collect();
    assert_eq!((below.len(), below[0].status), (1, 2), "{below:#?}");
    says(below[0], &[method[0], ("server.address", "gone.test"), named[2], ("error.type", "upstream_refused")]);
    // A CONNECT of somebody who is known, to a port that nothing is on.
    assert_eq!(world.agent.connect("made-up.test:1").0.status(), 403);
    let spans = collector.wait_for(5);
    let connect = spans.iter().find(|span| span.name == "CONNECT").unwrap();
    says(connect, &[&[("http.request.method", "CONNECT")][..], &of("denied", "403", "service_unknown")].concat());
    // A head that nobody can read.
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send("CONNECT / HTTP/1.1\nHost: made-up.test\n\n");
    assert_eq!(tunnel.answer(false).code(), "framing");
    let spans = collector.wait_for(6);
    let unread = spans.iter().find(|span| span.attributes["error.type"] == "framing").unwrap();
    says(unread, &[&named[..], &[("http.request.method", "_OTHER")], &of("denied", "400", "framing")].concat());
    assert!(world.origin.seen().is_empty());
}

#[test]
fn an_answer_that_means_an_error_is_one_on_the_side_that_it_concerns() {
    let collector = Collector::new(Manner::Takes);
    let mut env = TestEnv::new();
    let origin = Origin::https(&env.ca, &[HOST], Alpn::H1);
    env.acme(SECRET, &origin);
    env.setting(&collector.setting(""));
    let daemon = env.start();
    let agent = Agent::new(&env, &daemon, Some(&env.mint("holder", &["acme"]).presentation()));
    for (count, status, server_is_one) in [(2, "404", false), (4, "503", true)] {
        assert_eq!(agent.get(HOST, &format!("/status/{status}")).status().to_string(), status);
        let spans = collector.wait_for(count);
        let (server, client) = pair(&spans[count - 2..]);
        let kind = |span: &Span| (span.status, span.attributes.get("error.type").cloned());
        assert_eq!(kind(client), (2, Some(status.to_owned())));
        assert_eq!(kind(server), if server_is_one { (2, Some(status.to_owned())) } else { (0, None) });
        assert_eq!(server.attributes["narrows.outcome"], "allowed");
    }
}

#[test]
fn a_websocket_and_a_plain_tunnel_are_spans_of_their_whole_lives() {
    let collector = Collector::new(Manner::Takes);
    let world = World::new(&collector.setting(""));
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!(
        "GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{}\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        traceparent("01")
    ));
    assert!(tunnel.head().starts_with("HTTP/1.1 101 "));
    let opened = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    tunnel.send_bytes(&[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    assert_eq!(tunnel.exactly(7), [0x81, 0x05, b'H', b'e', b'l', b'l', b'o']);
    assert!(collector.messages().is_empty(), "it has not ended");
    drop(tunnel);
    let spans = collector.wait_for(2);
    let (server, client) = pair(&spans);
    assert_eq!((&*server.trace, &*server.parent, &client.parent), (TRACE, PARENT, &server.id));
    assert_eq!(server.attributes["http.response.status_code"], "101");
    assert!(u128::from(server.end_ns) > opened && u128::from(client.end_ns) > opened, "{spans:#?}");
    assert_eq!(world.origin.only().header("traceparent"), Some(&*format!("00-{TRACE}-{}-01", client.id)));

    let (answer, wire) = world.agent.connect(&format!("{PINNED}:443"));
    assert_eq!(answer.status(), 200);
    drop(wire);
    let spans = collector.wait_for(4);
    let (server, client) = pair(&spans[2..]);
    assert_eq!((&*server.name, &*client.name, &client.parent), ("CONNECT", "CONNECT", &server.id));
    assert_eq!(
        (&*server.attributes["narrows.operation"], &*server.attributes["narrows.service"]),
        ("tunnel", "pinned")
    );
    says(client, &[("server.address", PINNED), ("server.port", "443"), ("error.type", "misdirected")]);
}

#[test]
fn a_collector_over_tls_is_the_one_that_the_roots_vouch_for() {
    for vouched in [true, false] {
        let (mut env, origin) = home(Alpn::H1, "");
        let stranger = TestCa::new();
        let collector = Collector::https(if vouched { &env.ca } else { &stranger }, &["localhost"]);
        let port = collector.addr.port();
        env.setting(&format!("[traces]\nendpoint = \"https://localhost:{port}/v1/traces\"\ntimeout = \"500ms\""));
        let mut world = World::started(env, origin);
        world.get("");
        if vouched {
            assert_eq!(pair(&collector.wait_for(2)).0.name, "GET");
        } else {
            let line = world.daemon.wait_for_log("spans are lost");
            assert!(line.contains("TLS with the collector failed"), "{line}");
            assert!(collector.messages().is_empty());
            // Roots that are added count without a restart.
            let both = format!("{}{}", world.env.ca.pem(), stranger.pem());
            std::fs::write(world.env.home().join("origin-ca.pem"), both).unwrap();
            let deadline = Instant::now() + PATIENCE;
            while collector.messages().is_empty() {
                assert!(Instant::now() < deadline, "{}", world.daemon.log());
                world.get("");
            }
        }
    }
}

#[test]
fn no_collector_holds_up_a_request_or_the_end() {
    let elsewhere = Collector::new(Manner::Takes);
    for manner in [
        None,
        Some(Manner::Hangs),
        Some(Manner::Says(StatusCode::INTERNAL_SERVER_ERROR)),
        Some(Manner::Says(StatusCode::UNAUTHORIZED)),
        Some(Manner::Redirects(elsewhere.addr)),
        Some(Manner::Endless),
        Some(Manner::Lies),
    ] {
        let takes = matches!(manner, Some(Manner::Lies));
        let collector = manner.clone().map(Collector::new);
        let to = collector.as_ref().map_or_else(nobody, |collector| collector.addr);
        let mut world = World::new(&format!("[traces]\nendpoint = \"http://{to}/v1/traces\"\ntimeout = \"300ms\""));
        world.get("");
        if !takes {
            world.daemon.wait_for_log("spans are lost; requests are served without them");
        }
        for _ in 0..20 {
            world.get(&traceparent("01"));
        }
        if let Some(collector) = &collector {
            collector.wait_for_messages(if takes { 1 } else { 2 });
        }
        let began = Instant::now();
        let (log, code) = world.daemon.stop();
        assert_eq!(code, Some(0), "{manner:?}: {log}");
        assert!(began.elapsed() < Duration::from_secs(10), "{manner:?}: {:?}", began.elapsed());
        assert_eq!(log.matches("spans are lost").count(), usize::from(!takes), "{manner:?}: {log}");
        assert!(!log.contains("canary"), "{manner:?}: {log}");
        assert_eq!(world.origin.seen().len(), 21);
    }
    assert!(elsewhere.messages().is_empty(), "a redirect was followed");
}

#[test]
fn a_collector_that_is_busy_for_a_moment_gets_each_span_in_the_end() {
    let collector = Collector::new(Manner::BusyFor(2));
    let world = World::new(&collector.setting(""));
    world.get("");
    collector.wait_for_messages(3);
    let (log, _) = world.daemon.stop();
    assert_eq!(collector.messages().len(), 3);
    assert_eq!(pair(&otlp::spans(&collector.messages()[2].body)).0.name, "GET");
    assert!(!log.contains("lost"), "{log}");
}

#[test]
fn what_a_collector_does_not_take_is_bounded_and_counted() {
    let collector = Collector::new(Manner::Hangs);
    let (env, _origin) = home(Alpn::H1, &collector.setting("timeout = \"60s\""));
    let (daemon, at) = start(&env, "127.0.0.1:0");
    let agent = Agent::new(&env, &daemon, Some(&env.mint("holder", &["acme"]).presentation()));
    let dropped = || {
        let answer = ask(&at, &format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {OPEN}"));
        let scrape = parse(answer.split_once("\r\n\r\n").unwrap().1);
        let count = |result| scrape.value(&format!("narrows_trace_spans_total{{result=\"{result}\"}}"));
        (count("sent"), count("failed"), count("dropped"))
    };
    assert_eq!(dropped(), (0.0, 0.0, 0.0));
    let mut tunnel = agent.tunnel(HOST);
    // Two spans each: more than a queue and a batch hold.
    for _ in 0..2400 {
        tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        assert_eq!(tunnel.answer(false).status(), 200);
    }
    let (sent, failed, lost) = dropped();
    assert_eq!((sent, failed), (0.0, 0.0));
    assert!((192.0..=704.0).contains(&lost), "{lost} of 4800");
    let began = Instant::now();
    let (log, code) = daemon.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!(log.matches("spans are lost").count(), 1, "{log}");
    assert!(log.contains("the last spans have not reached the collector in time"), "{log}");
}

#[test]
fn the_last_spans_go_out_before_the_process_ends() {
    let collector = Collector::new(Manner::Takes);
    let world = World::new(&collector.setting(""));
    let mut tunnel = world.agent.tunnel(HOST);
    for _ in 0..5 {
        tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        assert_eq!(tunnel.answer(false).status(), 200);
    }
    let (_, code) = world.daemon.stop();
    assert_eq!((code, collector.spans().len()), (Some(0), 10));
}

#[test]
fn no_byte_that_is_exported_is_secret_or_of_an_agents_writing() {
    let collector = Collector::new(Manner::Takes);
    let (env, origin) = home(Alpn::H1, &collector.setting(""));
    let variables = [("OTEL_EXPORTER_OTLP_HEADERS", "x-canary=canary-7f3a"), ("OTEL_SERVICE_NAME", "canary-7f3a")];
    let daemon = env.start_with(&variables);
    let holder = env.mint("holder", &["acme"]);
    let credentials = holder.presentation();
    let agent = Agent::new(&env, &daemon, Some(&credentials));
    let canary = "canary-7f3a";
    origin.put(&format!("/{canary}"), "text/plain", canary);
    let headers = format!(
        "User-Agent: {canary}\r\nAuthorization: Bearer {canary}\r\nX-{canary}: {canary}\r\ntracestate: a={canary}\r\n\
         baggage: {canary}=1\r\ntraceparent: 01-{TRACE}-{PARENT}-01-{canary}\r\nCookie: {canary}\r\n"
    );
    let path = format!("/{canary}?{canary}={canary}");
    assert_eq!(agent.request("GET", HOST, &path, &headers, b"").status(), 200);
    assert_eq!(agent.request("CANARY-7F3A", HOST, &path, &headers, canary.as_bytes()).status(), 200);
    assert_eq!(agent.request("GET", HOST, &path, &format!("traceparent: {canary}\r\n"), b"").status(), 200);
    assert_eq!(agent.get(&format!("{canary}.test"), "/").status(), 403);
    assert_eq!(agent.connect(&format!("{canary}.test:1")).0.status(), 403);
    daemon.stop();
    assert_eq!(collector.spans().len(), 8);
    let mut said = Vec::new();
    for message in collector.messages() {
        said.extend(format!("{} {} {:?}", message.method, message.uri, message.headers).into_bytes());
        said.extend(message.body);
    }
    let said = String::from_utf8_lossy(&said).to_ascii_lowercase();
    let capability = std::fs::read_to_string(&holder.capability).unwrap();
    for word in [canary, SECRET, "alice", "acme-key", "/v1/items", credentials.trim(), capability.trim(), "holder"] {
        assert!(!said.contains(&word.to_ascii_lowercase()), "{word}");
    }
    assert!(said.contains(HOST) && said.contains("narrows.operation"), "what is said can be read");
}

#[test]
fn where_nothing_is_configured_nothing_is_changed() {
    let world = World::new("");
    let said = format!("{}tracestate: a=1\r\n", traceparent("01"));
    world.get(&said);
    assert_eq!(world.origin.only().header("traceparent"), Some(&*format!("00-{TRACE}-{PARENT}-01")));
}

#[test]
fn an_endpoint_is_a_whole_url_and_in_clear_text_on_this_machine_only() {
    let check = |settings: &str| {
        let (env, _origin) = home(Alpn::H1, settings);
        env.write_config();
        run(env.narrows(&[]).arg("--check"), b"")
    };
    let with = |endpoint: &str| format!("[traces]\nendpoint = \"{endpoint}\"");
    for endpoint in [
        "http://127.0.0.1:4318/v1/traces",
        "http://[::1]:4318/v1/traces",
        "http://localhost/v1/traces",
        "https://collector.acme.test/v1/traces",
        "https://10.0.0.1:4318/api/otlp",
    ] {
        check(&with(endpoint)).succeeded();
    }
    for (settings, words) in [
        (with("http://collector.acme.test/v1/traces"), "others take https://"),
        (with("http://10.0.0.1:4318/v1/traces"), "others take https://"),
        (with("http://127.0.0.1.acme.test/v1/traces"), "others take https://"),
        (with("http://127.0.0.1:4318"), "the path is missing"),
        (with("https://collector.acme.test/"), "the path is missing"),
        (with("https://user:key@collector.acme.test/v1/traces"), "expected a URL"),
        (with("https://collector.acme.test/v1/traces?key=1"), "expected a URL"),
        (with("grpc://collector.acme.test/v1/traces"), "expected a URL"),
        (with("127.0.0.1:4318"), "expected a URL"),
        ("[traces]\nratio = 0.1".to_owned(), "[traces] needs `endpoint`"),
        (with("https://a.test/t") + "\nratio = 1.5", "expected a number from 0 to 1"),
        (with("https://a.test/t") + "\nratio = \"all\"", "expected a number from 0 to 1, found string"),
        (with("https://a.test/t") + "\nratio = nan", "expected a number from 0 to 1"),
        (with("https://a.test/t") + "\nservice_name = \"\"", "1 to 128 bytes"),
        (with("https://a.test/t") + "\ntimeout = \"0s\"", "more than zero"),
        (with("https://a.test/t") + "\nendpont = 1", "did you mean \"endpoint\"?"),
    ] {
        check(&settings).failed().says(words);
    }
}
