//! One name, in all its spellings: CONNECT, SNI, `Host` and absolute targets of one request name one destination, or
//! nothing reaches anybody, and no credential goes to the other.

use std::io::Write;
use std::sync::Arc;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use crate::support::agent::{Agent, Wire};
use crate::support::ca::Alpn;
use crate::support::daemon::TestEnv;
use crate::support::origin::Origin;
use crate::{HOST, SECRET, World};

const SECOND: &str = "second.acme.test";
const SECOND_SECRET: &str = "sk-real-second-8fk2mDq0vN";
const WEB: &str = "elsewhere.test";

/// Two services with a secret each and a host of the open web, all at one origin: as behind a CDN, which looks at
/// `Host` alone. The holder may do everything.
fn shared_origin(alpn: Alpn) -> World {
    let mut env = TestEnv::new();
    let origin = Origin::https(&env.ca, &[HOST, SECOND, WEB], alpn);
    env.acme(SECRET, &origin);
    env.secret("second-key", SECOND_SECRET);
    env.service(&format!(
        "name = \"second\"\ncredential = \"second-key\"\nhosts = [\"{SECOND}\"]\ninject = \"X-Api-Key: {{secret}}\""
    ));
    env.dial(SECOND, &origin);
    env.dial(WEB, &origin);
    origin.put("/v1/items", "text/plain", "items");
    World::started(env, origin, &["acme", "second", "web"])
}

/// What the ClientHello says of the server's name.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sni {
    None,
    Name(&'static str),
    /// An address as text, which RFC 6066 §3 forbids and TLS libraries pass over in silence.
    Address(&'static str),
}

/// One request in a tunnel to `connect`: the status of its answer, 0 where there is none.
fn status(agent: &Agent, connect: &str, sni: Sni, host: Option<&str>) -> u16 {
    let (answer, wire) = agent.connect(&format!("{connect}:443"));
    if answer.status() != 200 {
        return answer.status();
    }
    let mut tcp = wire.into_inner();
    let mut config = agent.tls(&[]);
    config.enable_sni = sni != Sni::None;
    let name = match sni {
        Sni::None => connect.to_owned(),
        Sni::Name(name) => name.to_owned(),
        // As long as the address that is written over it.
        Sni::Address(address) => format!("{}.t", "n".repeat(address.len() - 2)),
    };
    let mut tls = ClientConnection::new(Arc::new(config), ServerName::try_from(name.clone()).unwrap()).unwrap();
    if let Sni::Address(address) = sni {
        let mut hello = Vec::new();
        tls.write_tls(&mut hello).unwrap();
        let at = hello.windows(name.len()).position(|window| window == name.as_bytes()).unwrap();
        hello[at..at + name.len()].copy_from_slice(address.as_bytes());
        tcp.write_all(&hello).unwrap();
        let first = Wire { stream: tcp, ahead: Vec::new() }.exactly(7);
        // A ServerHello, or the alert `unrecognized_name`.
        return if first[0] == 0x16 { 200 } else { u16::from(first[6]) };
    }
    while tls.is_handshaking() {
        if tls.complete_io(&mut tcp).is_err() {
            return 0;
        }
    }
    let mut wire = Wire { stream: rustls::StreamOwned::new(tls, tcp), ahead: Vec::new() };
    let host = host.map(|host| format!("Host: {host}\r\n")).unwrap_or_default();
    wire.send(&format!("GET /v1/items HTTP/1.1\r\n{host}Connection: close\r\n\r\n"));
    wire.answer(false).status()
}

#[test]
fn every_combination_of_connect_sni_and_host_is_one_name_or_refused() {
    let world = shared_origin(Alpn::H1);
    let connects = [HOST, SECOND, WEB, "127.0.0.1"];
    let snis = [Sni::None, Sni::Name(HOST), Sni::Name(SECOND), Sni::Name(WEB)];
    let hosts = [Some(HOST), Some(SECOND), Some(WEB), Some("127.0.0.1"), None];
    let mut served = 0;
    for connect in connects {
        for sni in snis {
            for host in hosts {
                let agrees = host == Some(connect) && (sni == Sni::None || sni == Sni::Name(connect));
                let allowed = agrees && connect != "127.0.0.1";
                let status = status(&world.agent, connect, sni, host);
                let case = format!("CONNECT {connect}, SNI {sni:?}, Host {host:?}: {status}");
                served += usize::from(allowed);
                assert_eq!(status == 200, allowed, "{case}");
                assert!(allowed || matches!(status, 0 | 400 | 403 | 421 | 502), "{case}");
                assert_eq!(world.origin.seen().len(), served, "{case}");
            }
        }
    }
    for seen in world.origin.seen() {
        let (bearer, key) = match &*seen.host {
            HOST => (Some(format!("Bearer {SECRET}")), None),
            SECOND => (None, Some(SECOND_SECRET)),
            _ => (None, None),
        };
        assert_eq!((seen.header("authorization"), seen.header("x-api-key")), (bearer.as_deref(), key), "{seen:#?}");
    }
}

#[test]
fn an_address_as_sni_is_another_name() {
    let world = shared_origin(Alpn::H1);
    for address in ["127.0.0.1", "203.0.113.7", "2001:db8::1"] {
        assert_eq!(status(&world.agent, HOST, Sni::Address(address), None), 112, "{address}");
    }
    // Nobody serves the address; its own name is no reason to refuse the handshake.
    assert_eq!(status(&world.agent, "127.0.0.1", Sni::Address("127.0.0.1"), None), 200);
    assert_eq!(status(&world.agent, "127.0.0.1", Sni::Address("127.0.0.2"), None), 112);
    world.env.journal_line(|line| line["host"] == HOST && line["code"] == "misdirected");
    assert_eq!(world.origin.connections(), 0);
}

#[test]
fn a_second_request_for_another_host_ends_a_kept_tunnel() {
    let world = shared_origin(Alpn::H1);
    for other in [SECOND, WEB, "api.acme.test:8443", "", "api.acme.test, second.acme.test"] {
        let mut tunnel = world.agent.tunnel(HOST);
        let before = world.origin.seen().len();
        tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        assert_eq!(tunnel.answer(false).status(), 200);
        tunnel.send(&format!(
            "GET /v1/items HTTP/1.1\r\nHost: {other}\r\n\r\nGET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
        ));
        assert_eq!(tunnel.answer(false).status(), 421, "{other:?}");
        assert_eq!(tunnel.rest(), b"", "{other:?}: the tunnel goes on");
        assert_eq!(world.origin.seen().len(), before + 1, "{other:?}");
    }
}

#[test]
fn a_target_in_a_tunnel_is_a_path_or_names_the_tunnel() {
    let world = shared_origin(Alpn::H1);
    for (served, host) in [HOST, WEB].into_iter().enumerate() {
        let refused = [
            format!("https://{SECOND}/v1/items"),
            format!("http://{host}/v1/items"),
            format!("HTTP://{host}:443/v1/items"),
            format!("ftp://{host}/v1/items"),
            format!("wss://{host}/v1/items"),
            format!("https://{host}:8443/v1/items"),
            format!("https://{host}:0443/v1/items"),
            format!("https://{host}:/v1/items"),
            format!("https://user@{host}/v1/items"),
            format!("https://{SECOND}@{host}/v1/items"),
            format!("https://{host}@{SECOND}/v1/items"),
            format!("https://{host}./v1/items"),
            format!("https://{host}%2e{SECOND}/v1/items"),
            format!("https://{host}\\@{SECOND}/v1/items"),
            format!("https:///{host}/v1/items"),
            "https:/v1/items".to_owned(),
            format!("{host}:443"),
            format!("{SECOND}:443"),
            format!("@{SECOND}/v1/items"),
            "v1/items".to_owned(),
            "*".to_owned(),
            "http://".to_owned(),
        ];
        for target in refused {
            let mut tunnel = world.agent.tunnel(host);
            tunnel.send(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            let answer = tunnel.answer(false);
            assert!(matches!(answer.status(), 400 | 421), "{target}: {answer:?}");
            assert!(answer.header("narrows-request-id").is_some(), "{target}: {answer:?}");
            assert_eq!(world.origin.seen().len(), served, "{target}: {:#?}", world.origin.seen());
        }
        // The twin.
        let mut tunnel = world.agent.tunnel(host);
        tunnel.send(&format!("GET HTTPS://{}:443/v1/items HTTP/1.1\r\nHost: {host}\r\n\r\n", host.to_uppercase()));
        assert_eq!(tunnel.answer(false).status(), 200);
        assert_eq!(world.origin.seen()[served].path, "/v1/items");
    }
}

#[test]
fn a_connect_names_a_plain_host_and_port_or_nothing() {
    let world = shared_origin(Alpn::H1);
    let hosts = [
        "api.acme.test.",
        "api.acme.test\0",
        "api.acme.test%00",
        "api.acme.test%2f",
        "api%2eacme.test",
        "api.acme.test\t",
        "api.acme.test\n",
        "api.acme.test\r\nX: y",
        "api.acme.test ",
        "\tapi.acme.test",
        "api.acme.test,second.acme.test",
        "api.acme.test;x",
        "api.acme.test#",
        "api.acme.test?",
        "api.acme.test/",
        "api.acme.test\\",
        "second.acme.test#@api.acme.test",
        "api.acme.test\\@second.acme.test",
        "@api.acme.test",
        "user:pass@api.acme.test",
        "http://api.acme.test",
        "//api.acme.test",
        "[api.acme.test]",
        "[::ffff:127.0.0.1",
        "[::1%25lo]",
        "[::1%lo]",
        "::1",
        "api\u{3002}acme.test",
        "ａpi.acme.test",
        "api.\u{200d}acme.test",
        "api.acme\u{ad}.test",
        "аpi.acme.test",
        "-api.acme.test",
        "api..acme.test",
        "127.1",
        "127.0.1",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "0x7f000001",
        "2130706433",
        "017700000001",
        "127.0.0.1.",
        "127.0.0.01",
        "127.0.0.1.1",
        "256.0.0.1",
        "",
    ];
    let odd_hosts = hosts.iter().map(|host| format!("{host}:443"));
    let ports = ["", ":", ":0", ":00443", ":0443", ":+443", ":-1", ":4 43", ":443 ", ":443\t", ":443a", ":0x1bb"];
    let more = [":65536", ":65979", ":4294967739", ":443:443", ":443/", ":443#", ":443?", ":443@second.acme.test:443"];
    let odd_ports = ports.iter().chain(&more).map(|port| format!("{HOST}{port}"));
    for authority in odd_hosts.chain(odd_ports) {
        let mut wire = world.agent.dial();
        let authorization = world.agent.authorization();
        wire.send(&format!("CONNECT {authority} HTTP/1.1\r\nHost: {HOST}:443\r\n{authorization}\r\n"));
        let answer = wire.answer(false);
        assert!(matches!(answer.status(), 400 | 403 | 421), "{authority:?}: {answer:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{authority:?}: {answer:?}");
        let id = answer.header("narrows-request-id").unwrap();
        // A head that cannot be read shows no credentials either: of it there is a count.
        let unreadable = authority.contains(['\0', '\t', '\n', ' ']);
        let line = world.env.journal_line(|line| {
            if unreadable { line["event"] == "auth" && line["code"] == "framing" } else { line["id"] == *id }
        });
        let user = if unreadable { serde_json::Value::Null } else { "alice@example.com".into() };
        assert_eq!(line["user"], user, "{authority:?}: {line}");
    }
    assert_eq!(world.origin.connections(), 0);
}

#[test]
fn what_cannot_be_a_destination_is_said_to_whoever_authenticates_and_has_its_line() {
    let world = shared_origin(Alpn::H1);
    let stranger = Agent::new(&world.env, &world.daemon, None);
    let targets = [
        (format!("https://user:pass@{HOST}/v1/items"), 421, "misdirected"),
        (format!("https://{HOST}:0443/v1/items"), 421, "misdirected"),
        (format!("ftp://{HOST}/v1/items"), 400, "framing"),
        (format!("http://{HOST}/v1#items"), 400, "framing"),
    ];
    for (target, status, code) in &targets {
        let send = |agent: &Agent| {
            let mut wire = agent.dial();
            wire.send(&format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n{}\r\n", agent.authorization()));
            wire.answer(false)
        };
        let answer = send(&world.agent);
        assert_eq!((answer.status(), &*answer.code()), (*status, *code), "{target}: {answer:?}");
        let line = world.env.journal_line(|line| line["id"] == answer.header("narrows-request-id").unwrap());
        let whose = (&line["user"], &line["event"], &line["method"], &line["code"]);
        assert_eq!(whose, (&"alice@example.com".into(), &"request".into(), &"GET".into(), &(*code).into()), "{line}");
        let before = world.env.journal().len();
        let unknown = send(&stranger);
        // What is wrong with the bytes themselves is said to anybody.
        assert_eq!(unknown.status(), if target.contains('#') { 400 } else { 407 }, "{target}: {unknown:?}");
        assert_eq!(world.env.journal().len(), before, "{target}: a stranger has no line");
    }
    assert_eq!(world.origin.connections(), 0);
}

#[test]
fn a_connect_that_is_denied_closes_and_what_came_behind_it_is_no_request() {
    let world = shared_origin(Alpn::H1);
    let mut wire = world.agent.dial();
    let authorization = world.agent.authorization();
    wire.send(&format!(
        "CONNECT {HOST}:22 HTTP/1.1\r\nHost: {HOST}:22\r\n{authorization}\r\n\
         GET https://{HOST}/v1/items HTTP/1.1\r\nHost: {HOST}\r\n{authorization}\r\n"
    ));
    let answer = wire.answer(false);
    assert_eq!((answer.status(), &*answer.code()), (403, "service_unknown"), "{answer:?}");
    assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
    assert_eq!(wire.rest(), b"");
    assert_eq!(world.origin.connections(), 0);
}

#[test]
fn a_tunnel_with_neither_tls_nor_http_is_told_so_with_its_lines_id() {
    let world = shared_origin(Alpn::H1);
    let (answer, mut wire) = world.agent.connect(&format!("{HOST}:443"));
    assert_eq!(answer.status(), 200, "{answer:?}");
    wire.send("GET /v1/items HTTP/1.1\r\n");
    let refused = wire.answer(false);
    assert_eq!((refused.status(), &*refused.code()), (400, "framing"), "{refused:?}");
    assert!(refused.head.starts_with("HTTP/1.1 400 Bad Request by narrows: framing\r\n"), "{refused:?}");
    assert_eq!(refused.header("connection"), Some("close"), "{refused:?}");
    assert!(refused.header("proxy-status").is_some_and(|status| status.contains("framing")), "{refused:?}");
    assert_eq!(wire.rest(), b"");
    let line = world.env.journal_line(|line| line["id"] == refused.header("narrows-request-id").unwrap());
    assert_eq!((&line["event"], &line["code"], &line["host"]), (&"tunnel".into(), &"framing".into(), &HOST.into()));
}

#[test]
fn addresses_have_one_spelling_and_no_service_of_a_name() {
    let world = shared_origin(Alpn::H1);
    // These are addresses, spelled as such: a tunnel, and inside it nobody who serves them.
    for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[::FFFF:7f00:1]", "[0:0:0:0:0:0:0:1]", "169.254.169.254"]
    {
        let (answer, _) = world.agent.connect(&format!("{host}:443"));
        assert_eq!(answer.status(), 200, "{host}: {answer:?}");
        let line =
            format!("GET https://{host}/v1/items HTTP/1.1\r\nHost: {host}\r\n{}\r\n", world.agent.authorization());
        let mut wire = world.agent.dial();
        wire.send(&line);
        assert_eq!(wire.answer(false).code(), "address_forbidden", "{host}");
    }
    assert_eq!(world.origin.connections(), 0);
}

#[test]
fn plain_requests_to_the_proxy_carry_no_credential_and_one_name() {
    let world = shared_origin(Alpn::H1);
    let authorization = world.agent.authorization();
    let send = |line: &str, host: &str| {
        let mut wire = world.agent.dial();
        wire.send(&format!("{line} HTTP/1.1\r\nHost: {host}\r\n{authorization}\r\n"));
        wire.answer(false)
    };
    let refused = [
        (format!("GET http://{HOST}/v1/items"), HOST.to_owned()),
        (format!("GET http://{HOST}:443/v1/items"), format!("{HOST}:443")),
        (format!("GET https://{HOST}/v1/items"), SECOND.to_owned()),
        (format!("GET https://{HOST}/v1/items"), format!("{HOST}:80")),
        (format!("GET https://user@{HOST}/v1/items"), HOST.to_owned()),
        (format!("GET https://{HOST}./v1/items"), HOST.to_owned()),
        (format!("GET https://{HOST}:0443/v1/items"), HOST.to_owned()),
        (format!("GET ws://{HOST}/v1/items"), HOST.to_owned()),
        (format!("GET ftp://{HOST}/v1/items"), HOST.to_owned()),
        ("GET /v1/items".to_owned(), HOST.to_owned()),
        ("GET //api.acme.test/v1/items".to_owned(), HOST.to_owned()),
        (format!("GET {HOST}:443"), HOST.to_owned()),
        ("OPTIONS *".to_owned(), HOST.to_owned()),
        (format!("TRACE https://{HOST}/v1/items"), HOST.to_owned()),
        (format!("connect {HOST}:443"), format!("{HOST}:443")),
    ];
    for (line, host) in refused {
        let answer = send(&line, &host);
        assert!(matches!(answer.status(), 400 | 403 | 407 | 421), "{line}, Host {host}: {answer:?}");
        assert_eq!(world.origin.connections(), 0, "{line}, Host {host}: {answer:?}");
    }
    assert_eq!(send(&format!("GET https://{HOST}/v1/items"), HOST).status(), 200);
}

#[test]
fn what_makes_a_server_act_on_another_request_stays_behind_where_a_credential_goes() {
    let names = [
        "Forwarded: host=second.acme.test",
        "X-Forwarded-Host: second.acme.test",
        "X_Forwarded_Host: second.acme.test",
        "X-Forwarded-Server: second.acme.test",
        "X-Host: second.acme.test",
        "X-HTTP-Host-Override: second.acme.test",
        "X-Original-Host: second.acme.test",
        "X-Original-URL: /v2/private",
        "X-Rewrite-URL: /v2/private",
        "X-Original-URI: /v2/private",
        "X-Forwarded-Uri: /v2/private",
        "X-Forwarded-Prefix: /v2",
        "X-Forwarded-Path: /v2",
        "X-HTTP-Method-Override: DELETE",
        "X-HTTP-Method: DELETE",
        "X-Method-Override: DELETE",
        "X-Http_Method.Override: DELETE",
        "X-Forwarded-Method: DELETE",
        "X-Original-Method: DELETE",
        "_method: DELETE",
    ];
    let fields = names.join("\r\n") + "\r\n";
    let world = shared_origin(Alpn::H1);
    let path = "/v1/items?a=1&_method=DELETE&%5FMETHOD=PUT&_HttpMethod=PATCH&b=2&x-http-method-override=DELETE";
    let body = b"a=1";
    assert_eq!(world.agent.request("POST", HOST, path, &fields, body).status(), 200);
    let seen = world.origin.only();
    for field in names {
        let name = field.split(':').next().unwrap().to_ascii_lowercase();
        assert_eq!(seen.header(&name), None, "{name}");
    }
    assert_eq!(seen.path, "/v1/items?a=1&b=2");
    let line = world.env.journal_line(|line| line["path"] == "/v1/items");
    assert!(line["foreign_credential"].is_null() || line["foreign_credential"] == false, "{line}");
    // The web has no credential to turn against its host; what the agent says to it is the agent's own.
    assert_eq!(
        world.agent.request("POST", WEB, "/v1/items?_method=PUT", "X-Forwarded-Host: x\r\n", body).status(),
        200
    );
    let seen = world.origin.seen().pop().unwrap();
    assert_eq!((&*seen.path, seen.header("x-forwarded-host")), ("/v1/items?_method=PUT", Some("x")));
}
