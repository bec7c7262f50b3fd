//! Fresh tokens in an OAuth answer of a service with a credential: the agent gets placeholders.

use narrows::credential::is_placeholder;
use serde_json::Value;

use crate::scrub::{answers, chunked, in_every_coding, masked, message, origin_of, plain, steps};
use crate::support::agent::Answer;
use crate::support::ca::Alpn;
use crate::support::daemon::TestEnv;
use crate::support::raw::RawOrigin;
use crate::{HOST, SECRET, World};

const TOKEN: &str = "ya29.a0AfH6SMBx3kf9QmZx71TtPw0aVb5Lr8Ys";
const JSON: &str = "Content-Type: application/json;charset=UTF-8\r\n";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

fn oauth(name: &str) -> String {
    format!("{{\"token_type\": \"Bearer\", \"{name}\": \"{TOKEN}\", \"expires_in\": 3600}}\n")
}

/// One answer, of a service that is defined so.
fn answer_of(definition: &str, path: &str, answer: Vec<Vec<u8>>) -> Answer {
    let mut env = TestEnv::new();
    let origin = RawOrigin::https(&env.ca, &[HOST], steps([answer]));
    env.secret("acme-key", SECRET);
    env.dial_at(&format!("{HOST}:443"), origin.addr);
    env.service(&format!("name = \"acme\"\nhosts = [\"{HOST}\"]\n{definition}"));
    World::started(env, origin, &["acme"]).agent.get(HOST, path)
}

const CREDENTIAL: &str = "credential = \"acme-key\"\ninject = \"Authorization: Bearer {secret}\"\n";

#[test]
fn an_oauth_answer_is_sealed_wherever_it_is_split_and_its_twin_passes() {
    for name in ["access_token", "refresh_token", "id_token", "accessToken"] {
        let text = oauth(name);
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        let twin = oauth(&format!("{name}s"));
        let world = origin_of([plain(JSON, text.as_bytes()), chunked(JSON, &bytes), plain(JSON, twin.as_bytes())]);
        let answers = answers(&world, 3);
        for answer in &answers[..2] {
            assert_eq!(answer.text().len(), text.len());
            let json: Value = serde_json::from_str(&answer.text()).unwrap();
            assert!(is_placeholder(json[name].as_str().unwrap().as_bytes()), "{json}");
            assert_eq!((&json["token_type"], &json["expires_in"]), (&"Bearer".into(), &3600.into()));
        }
        assert_eq!(answers[0].header("content-length"), Some(&*text.len().to_string()));
        assert_eq!(answers[2].text(), twin);
    }
}

#[test]
fn a_form_and_an_answer_without_a_type_are_sealed_and_other_types_pass() {
    let form = format!("access_token={TOKEN}&scope=repo&token_type=bearer");
    let json = oauth("access_token");
    let other = "Content-Type: text/plain\r\n";
    let raw = "Content-Type: application/vnd.github.raw+json\r\n";
    let all = [plain(FORM, form.as_bytes()), plain("", form.as_bytes()), plain("", json.as_bytes())];
    let said = format!("see {json}");
    let passing = [plain(other, form.as_bytes()), plain(other, said.as_bytes())];
    // Whatever it says that it is, what begins as JSON does is read as JSON.
    let types =
        ["text/plain", "text/html", "application/javascript", "application/x-ndjson", "application/json, text/html"];
    let more = types.map(|other| plain(&format!("Content-Type: {other}\r\n"), json.as_bytes()));
    let mut answers = answers(&origin_of(all.into_iter().chain(passing).chain(more)), 5 + types.len());
    for answer in answers.split_off(5) {
        assert!(!answer.text().contains(TOKEN) && answer.body.len() == json.len(), "{answer:?}");
    }
    for answer in &answers[..2] {
        let text = answer.text();
        let value = text.strip_prefix("access_token=").unwrap().strip_suffix("&scope=repo&token_type=bearer").unwrap();
        assert!(is_placeholder(value.as_bytes()) && value.len() == TOKEN.len(), "{text}");
    }
    assert!(!answers[2].text().contains(TOKEN));
    assert!(answers[3].text() == form && answers[4].text() == said);
    for (definition, sealed) in [(CREDENTIAL.to_owned(), true), (format!("{CREDENTIAL}raw_json = \"pass\"\n"), false)] {
        let text = answer_of(&definition, "/file", plain(raw, json.as_bytes())).text();
        assert_eq!(!text.contains(TOKEN), sealed, "{definition}");
    }
}

#[test]
fn a_token_is_looked_for_in_the_rest_of_its_answer() {
    let body = format!("{{\"access_token\": \"{TOKEN}\", \"also\": \"{}\"}}", hex::encode(TOKEN));
    let whole = format!(
        "HTTP/1.1 200 OK\r\n{JSON}Trailer: x-echo\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\
         X-Echo: {TOKEN}\r\n\r\n",
        body.len()
    );
    let world = origin_of([vec![whole.into_bytes()]]);
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\nTE: trailers\r\nConnection: TE\r\n\r\n"));
    let body = tunnel.until("0\r\n");
    assert!(body.contains(&masked(2 * TOKEN.len())) && !body.contains(TOKEN), "{body}");
    let trailers = tunnel.until("\r\n\r\n").to_ascii_lowercase();
    assert!(trailers.contains(&format!("x-echo: {}", masked(TOKEN.len()))), "{trailers}");
}

#[test]
fn a_head_that_carries_tokens_is_sealed() {
    let fields = |name: &str| {
        format!(
            "Location: https://app.test/cb#{name}={TOKEN}&token_type=bearer\r\nSet-Cookie: {name}={TOKEN}; Path=/\r\n\
             {}: {TOKEN}\r\nX-Echo: {TOKEN}\r\nContent-Type: text/plain\r\n",
            name.replace('_', "-")
        )
    };
    let all = [plain(&fields("access_token"), TOKEN.as_bytes()), plain(&fields("access_tokens"), TOKEN.as_bytes())];
    let answers = answers(&origin_of(all), 2);
    let location = answers[0].header("location").unwrap();
    assert!(location.ends_with("&token_type=bearer"), "{location}");
    for name in ["location", "set-cookie", "access-token", "x-echo"] {
        assert!(!answers[0].header(name).unwrap().contains(TOKEN), "{name}");
        let twin = if name == "access-token" { "access-tokens" } else { name };
        assert!(answers[1].header(twin).unwrap().contains(TOKEN), "{twin}");
    }
    assert_eq!((answers[0].text(), answers[1].text()), (masked(TOKEN.len()), TOKEN.to_owned()));
}

#[test]
fn a_route_names_members_and_marks_an_endpoint() {
    let json = oauth("token");
    let route = "[[service.route]]\nmethod = \"GET\"\npath = \"/token\"\ntokens = [\"token\"]\n";
    for (definition, path, headers, sealed) in [
        (format!("{CREDENTIAL}{route}"), "/token", JSON, true),
        (format!("{CREDENTIAL}{route}"), "/token", "Content-Type: text/html\r\n", true),
        (format!("{CREDENTIAL}tokens = \"routes\"\n{route}"), "/token", JSON, true),
        (format!("{CREDENTIAL}tokens = \"pass\"\n{route}"), "/token", JSON, false),
        (format!("{CREDENTIAL}{route}"), "/tokens", JSON, false),
        (CREDENTIAL.to_owned(), "/token", JSON, false),
    ] {
        let text = answer_of(&definition, path, plain(headers, json.as_bytes())).text();
        assert_eq!(!text.contains(TOKEN), sealed, "{definition} {path} {headers}");
        assert_eq!(text.len(), json.len());
    }
}

#[test]
fn a_service_may_let_tokens_pass_and_one_without_a_credential_does() {
    let json = oauth("access_token");
    for (definition, sealed) in [
        (CREDENTIAL.to_owned(), true),
        (format!("{CREDENTIAL}tokens = \"seal\""), true),
        (format!("{CREDENTIAL}tokens = \"routes\""), false),
        (format!("{CREDENTIAL}tokens = \"pass\""), false),
        (String::new(), false),
    ] {
        let text = answer_of(&definition, "/token", plain(JSON, json.as_bytes())).text();
        assert_eq!(!text.contains(TOKEN), sealed, "{definition}");
    }
}

#[test]
fn a_coded_answer_is_decoded_and_sealed_and_one_that_hides_its_coding_is_refused() {
    let text = oauth("access_token");
    let codings = in_every_coding(text.as_bytes());
    let all = codings.iter().map(|(name, coded)| plain(&format!("{JSON}Content-Encoding: {name}\r\n"), coded));
    for (answer, (name, _)) in answers(&origin_of(all), codings.len()).iter().zip(&codings) {
        assert_eq!(answer.text().len(), text.len(), "{name}");
        assert!(!answer.text().contains(TOKEN), "{name}");
    }
    let world = origin_of([chunked(JSON, &[&codings[0].1])]);
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert!(!tunnel.rest().ends_with(b"0\r\n\r\n"));
    let line = world.env.journal_line(|line| line["path"] == "/v1/items");
    assert_eq!(line["code"], "body_unreadable", "{line}");
}

#[test]
fn messages_of_json_are_sealed_each_whatever_their_length() {
    // The last byte of the first one's length is a quotation mark.
    let padded = |name: &str| format!("{:1$}", oauth(name), 0x122);
    let texts = |name: &str| [padded(name), oauth(name), "{\"open".to_owned(), oauth(name)];
    let sent = |name: &str| texts(name).map(|text| message(0, text.as_bytes())).concat();
    for headers in ["Content-Type: application/connect+json\r\n", "Content-Type: application/grpc+json\r\n"] {
        let (sealed, twin) = (sent("access_token"), sent("access_tokens"));
        let bytes: Vec<&[u8]> = sealed.chunks(1).collect();
        let world = origin_of([plain(headers, &sealed), chunked(headers, &bytes), plain(headers, &twin)]);
        let answers = answers(&world, 3);
        for answer in &answers[..2] {
            assert_eq!(answer.body.len(), sealed.len(), "{headers}");
            let mut rest = &*answer.body;
            for text in texts("access_token") {
                let (head, after) = rest.split_at(5);
                assert_eq!(head, &message(0, text.as_bytes())[..5], "{headers}");
                let (message, after) = after.split_at(text.len());
                rest = after;
                if let Ok(json) = serde_json::from_slice::<Value>(message) {
                    assert!(is_placeholder(json["access_token"].as_str().unwrap().as_bytes()), "{headers} {json}");
                }
            }
        }
        assert!(answers[2].body == twin, "{headers}");
    }
}

#[test]
fn trailers_and_the_head_of_a_websocket_are_sealed() {
    let fields = format!("Access-Token: {TOKEN}\r\nAccess-Tokens: x{}\r\n", &TOKEN[1..]);
    let whole = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTrailer: access-token, access-tokens\r\nTransfer-Encoding: chunked\r\n\r\n\
         2\r\nok\r\n0\r\n{fields}\r\n"
    );
    let world = origin_of([vec![whole.into_bytes()]]);
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!("GET /v1/items HTTP/1.1\r\nHost: {HOST}\r\nTE: trailers\r\nConnection: TE\r\n\r\n"));
    tunnel.until("0\r\n");
    let trailers = tunnel.until("\r\n\r\n");

    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n{fields}\r\n"
    );
    let world = origin_of([vec![head.into_bytes()]]);
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!(
        "GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ));
    for fields in [trailers, tunnel.head()] {
        assert!(fields.to_ascii_lowercase().contains("access-token: "), "{fields}");
        assert!(!fields.contains(TOKEN) && fields.contains(&format!("x{}", &TOKEN[1..])), "{fields}");
    }
}

#[test]
fn the_placeholder_is_no_foreign_credential_where_the_agent_sends_it() {
    let world = World::with(Alpn::H2, &["acme"]);
    world.origin.put("/token", "application/json", oauth("access_token"));
    let json: Value = serde_json::from_str(&world.agent.get(HOST, "/token").text()).unwrap();
    let sent = format!("Authorization: Bearer {}\r\n", json["access_token"].as_str().unwrap());
    assert_eq!(world.agent.request("GET", HOST, "/v1/items", &sent, b"").status(), 200);
    let line = world.env.journal_line(|line| line["path"] == "/v1/items");
    assert_ne!(line["foreign_credential"], true, "{line}");
}
