//! A known secret appears in nothing that Narrows itself produces: no answer, log, journal, error, Debug, panic, command
//! output or child's environment, verbatim or encoded. What an upstream echoes is another subject.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod support;

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use narrows::credential::Secret;

use support::agent::Agent;
use support::ca::Alpn;
use support::client::run;
use support::daemon::TestEnv;
use support::origin::Origin;
use support::raw::{RawOrigin, Step};

/// Has letters of both cases, digits, and signs that each encoding treats differently.
const SECRET: &str = "cAnAry-7Zq/9+xW~Lk3==_vT&8 h\"J%2d";

/// Fewer bytes than this of an encoding could be chance.
const TELLING_BYTES: usize = 12;

/// The secret as it could be hidden in bytes.
struct Canary {
    forms: Vec<(String, Vec<u8>)>,
}

impl Canary {
    fn new(secret: &[u8]) -> Self {
        let mut forms = vec![
            ("verbatim".to_owned(), secret.to_vec()),
            ("hex".to_owned(), hex::encode(secret).into_bytes()),
            ("upper-case hex".to_owned(), hex::encode_upper(secret).into_bytes()),
            (
                "percent, each byte".to_owned(),
                secret.iter().flat_map(|byte| format!("%{byte:02X}").into_bytes()).collect(),
            ),
            ("bytes as numbers".to_owned(), format!("{secret:?}").trim_matches(['[', ']']).as_bytes().to_vec()),
            ("JSON or Debug".to_owned(), format!("{:?}", String::from_utf8_lossy(secret)).trim_matches('"').into()),
        ];
        for space in ["%20", "+"] {
            forms.push((format!("query, space as {space}"), form(secret, space)));
        }
        // Wherever in a longer text the secret begins: the middle of its base64 depends on the place modulo 3 alone.
        for before in 0..3 {
            let text = [&b"xyz"[..before], secret].concat();
            for (name, engine) in [("base64", STANDARD_NO_PAD), ("base64url", URL_SAFE_NO_PAD)] {
                let encoded = engine.encode(&text);
                let middle = &encoded[4.min(before * 4)..encoded.len() - 4];
                forms.push((format!("{name} at {before}"), middle.as_bytes().to_vec()));
            }
        }
        for (name, bytes) in &forms {
            assert!(bytes.len() >= TELLING_BYTES, "{name}");
        }
        Self { forms }
    }

    /// Which form of the secret is in there.
    fn found_in(&self, bytes: &[u8]) -> Option<&str> {
        let hit = |form: &[u8]| bytes.windows(form.len()).any(|window| window.eq_ignore_ascii_case(form));
        self.forms.iter().find(|(_, form)| hit(form)).map(|(name, _)| name.as_str())
    }

    #[track_caller]
    fn absent(&self, what: &str, bytes: impl AsRef<[u8]>) {
        let found = self.found_in(bytes.as_ref());
        assert_eq!(found, None, "the secret is in {what}: {}", String::from_utf8_lossy(bytes.as_ref()));
    }

    fn absent_below(&self, dir: &Path) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
            if kind.is_dir() {
                self.absent_below(&path);
            } else if kind.is_file() {
                let bytes = std::fs::read(&path).unwrap();
                assert_eq!(self.found_in(&bytes), None, "the secret is in {}", path.display());
            }
        }
    }
}

fn form(secret: &[u8], space: &str) -> Vec<u8> {
    let escape = |byte: &u8| match byte {
        b' ' => space.to_owned(),
        b'-' | b'.' | b'_' | b'~' => char::from(*byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(*byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    secret.iter().map(escape).collect::<String>().into_bytes()
}

#[test]
fn the_search_itself_finds_what_it_should() {
    let canary = Canary::new(SECRET.as_bytes());
    let basic = STANDARD.encode(format!("x-access-token:{SECRET}"));
    let planted = [
        format!("a {SECRET} b"),
        basic,
        STANDARD.encode(format!("1{SECRET}2")),
        STANDARD.encode(format!("12{SECRET}")),
        hex::encode(format!("..{SECRET}..")),
        String::from_utf8(form(SECRET.as_bytes(), "+")).unwrap(),
        format!("{:?}", SECRET.as_bytes()),
        serde_json::json!({ "a": SECRET }).to_string(),
    ];
    for text in planted {
        assert!(canary.found_in(text.as_bytes()).is_some(), "{text}");
    }
    assert_eq!(canary.found_in(b"cAnAry-7Zq and nothing more of it"), None);
}

#[test]
fn debug_and_panic_show_nothing() {
    let canary = Canary::new(SECRET.as_bytes());
    let secret = Secret::new(SECRET.as_bytes().to_vec()).unwrap();
    canary.absent("Debug", format!("{secret:?} {secret:#?}"));
    let panic = std::panic::catch_unwind(|| {
        let secret = Secret::new(SECRET.as_bytes().to_vec());
        secret.unwrap_err();
    });
    let words = panic.unwrap_err().downcast::<String>().unwrap();
    canary.absent("a panic", &*words);
    let refused = Secret::new(format!("{SECRET}\r\n{SECRET}").into_bytes());
    canary.absent("an error", format!("{refused:?} {}", refused.as_ref().unwrap_err()));
}

/// A level alone is that of Narrows' own words; libraries have to be named.
const EVERYTHING: &str =
    "trace,h2=trace,hickory_net=trace,hickory_resolver=trace,hyper=trace,hyper_util=trace,rustls=trace";

#[test]
fn nothing_that_narrows_writes_or_answers_has_the_secret() {
    searched("", &[("RUST_LOG", EVERYTHING), ("RUST_BACKTRACE", "1")]);
}

#[test]
fn nor_has_a_log_in_json_or_the_journal_on_stdout() {
    let settings = format!("[log]\nformat = \"json\"\nlevel = \"{EVERYTHING}\"\n\n[journal]\nstdout = true");
    let said = searched(&settings, &[("RUST_BACKTRACE", "1")]);
    for line in said.lines() {
        assert!(!line.contains(char::is_control), "{line:?}");
        let object: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(object["time"].is_string(), "{line}");
    }
    assert!(said.contains("\"level\":\"TRACE\"") && said.contains("\"prev\":"), "{said}");
}

/// What was said on both streams, after the secret was looked for everywhere.
fn searched(settings: &str, variables: &[(&str, &str)]) -> String {
    let canary = Canary::new(SECRET.as_bytes());
    let mut env = TestEnv::new();
    let origin = Origin::https(&env.ca, &["api.acme.test", "basic.acme.test", "query.acme.test"], Alpn::Both);
    let stranger = Origin::https(&env.ca, &["somebody.else.test"], Alpn::Both);
    let broken =
        RawOrigin::https(&env.ca, &["broken.acme.test"], vec![Step::Head, Step::Send(b"no HTTP\r\n\r\n".to_vec())]);
    origin.put("/v1/items", "text/plain", "items");
    env.acme(SECRET, &origin);
    for (name, inject) in [("basic", "{ basic = \"x-access-token\" }"), ("query", "{ query = \"key\" }")] {
        env.dial(&format!("{name}.acme.test"), &origin);
        env.service(&format!(
            "name = \"{name}\"\ncredential = \"acme-key\"\nhosts = [\"{name}.acme.test\"]\ninject = {inject}"
        ));
    }
    env.dial("stranger.acme.test", &stranger);
    env.dial_at("broken.acme.test:443", broken.addr);
    env.dial_at("nobody.acme.test:443", "127.0.0.1:1".parse().unwrap());
    for name in ["stranger", "broken", "nobody"] {
        env.service(&format!(
            "name = \"{name}\"\ncredential = \"acme-key\"\nhosts = [\"{name}.acme.test\"]\n\
             inject = \"Authorization: Bearer {{secret}}\""
        ));
    }
    env.setting(settings);
    let mut daemon = env.start_with(variables);
    let allow = ["acme path=/v1", "basic", "query", "stranger", "broken", "nobody"];
    let holder = env.mint("holder", &allow);
    let credentials = holder.presentation();
    let agent = Agent::new(&env, &daemon, Some(&credentials));

    // Every kind of answer. Redirects and echoes are the upstream's own words, and none of these origins repeats it.
    let requests = [
        ("api.acme.test", "/v1/items", 200),
        ("api.acme.test", "/v2/private", 403),
        ("api.acme.test", "/v1/../v1/items", 400),
        ("api.acme.test", "/v1/absent?key=agents-own", 404),
        ("basic.acme.test", "/v1/items", 200),
        ("query.acme.test", "/v1/items?a=1&key=agents-own", 200),
        ("unknown.acme.test", "/", 403),
        ("stranger.acme.test", "/v1/items", 502),
        ("broken.acme.test", "/v1/items", 502),
        ("nobody.acme.test", "/v1/items", 502),
    ];
    for (host, path, status) in requests {
        let answer = agent.request("GET", host, path, "Authorization: Bearer agents-own\r\n", b"");
        assert_eq!(answer.status(), status, "{host}{path}: {answer:?}");
        canary.absent("an answer's head", &answer.head);
        canary.absent("an answer's body", &answer.body);
    }
    for wrong in [None, Some("cap.proof"), Some(&credentials[1..])] {
        let (answer, _) = Agent::new(&env, &daemon, wrong).connect("api.acme.test:443");
        assert_eq!(answer.status(), 407, "{answer:?}");
        canary.absent("a 407", answer.head);
    }
    origin_saw_it_all(&origin);

    // A secret that went, and a configuration that is bad.
    env.forget("acme-key");
    let without =
        std::iter::repeat_with(|| agent.get("api.acme.test", "/v1/items")).find(|answer| answer.status() == 503);
    canary.absent("the answer without a secret", without.unwrap().body);
    let toml = std::fs::read_to_string(env.home().join("narrows.toml")).unwrap();
    std::fs::write(env.home().join("narrows.toml"), format!("{toml}\nnonsense = \"here\"\n")).unwrap();
    daemon.wait_for_log("nonsense");

    for file in ["environ", "cmdline"] {
        if let Ok(bytes) = std::fs::read(format!("/proc/{}/{file}", daemon.pid())) {
            canary.absent(file, bytes);
        }
    }
    let (log, _) = daemon.stop();
    assert!(log.len() > 1_000, "trace level says more than this: {log}");
    canary.absent("the log", &log);
    assert!(!env.journal().is_empty());
    // The encrypted store among them, and the ring.
    canary.absent_below(&env.home());
    log
}

/// Else the test would show nothing.
fn origin_saw_it_all(origin: &Origin) {
    let seen = origin.seen();
    let saw = |host: &str| seen.iter().rfind(|seen| seen.host == host).unwrap_or_else(|| panic!("{host}"));
    assert_eq!(saw("api.acme.test").header("authorization"), Some(&*format!("Bearer {SECRET}")));
    let basic = format!("Basic {}", STANDARD.encode(format!("x-access-token:{SECRET}")));
    assert_eq!(saw("basic.acme.test").header("authorization"), Some(&*basic));
    let path = &saw("query.acme.test").path;
    assert_eq!(Canary::new(SECRET.as_bytes()).found_in(path.as_bytes()), Some("query, space as %20"), "{path}");
    assert!(!path.contains("agents-own"), "{path}");
}
#[test]
fn no_command_shows_it() {
    let canary = Canary::new(SECRET.as_bytes());
    let mut env = TestEnv::by_capctl();
    let origin = Origin::https(&env.ca, &["api.acme.test"], Alpn::Both);
    env.acme("not-yet-the-secret", &origin);
    env.secret_by_capctl("acme-key", SECRET);
    let _daemon = env.start();
    let holder = env.mint_by_capctl("holder", &["acme path=/v1"]);
    let capability = holder.capability.display().to_string();
    let key = holder.key.display().to_string();
    let commands: [&[&str]; 14] = [
        &["secret", "list"],
        &["secret", "list", "--json"],
        &["service", "list"],
        &["service", "show", "acme"],
        &["inspect", &capability],
        &["inspect", &capability, "--json"],
        &["explain", "--cap", &capability, "GET", "https://api.acme.test/v2/private"],
        &["env", "--cap", &capability, "--key", &key],
        &["run", "--cap", &capability, "--key", &key, "--", "env"],
        &["audit", "verify"],
        &["audit", "search"],
        &["doctor"],
        &["secret", "rm", "no-such-secret"],
        &["init"],
    ];
    for arguments in commands {
        let ran = run(env.command().env("RUST_LOG", "trace").env("RUST_BACKTRACE", "1").args(arguments), b"");
        assert!(!ran.said().trim().is_empty(), "{arguments:?} says nothing");
        canary.absent(&format!("{arguments:?}"), ran.said());
    }
    // A value that no header can carry is refused, and not repeated.
    let refused = run(env.command().args(["secret", "set", "bad"]), format!("{SECRET}\r\nX: {SECRET}").as_bytes());
    canary.absent("the refusal of a bad value", refused.failed().said());
}
