//! `capctl` through the front door: what it prints where, its exit statuses, and what it refuses.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const SECRET: &str = "canary-of-a-secret";

struct TestHome {
    folder: tempfile::TempDir,
}

/// What a command said, and how it ended.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl TestHome {
    fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn new() -> Self {
        let home = Self::empty();
        home.ok(&["init"]);
        home
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn feed(&self, arguments: &[&str], input: &str) -> Said {
        let mut child = Command::new(env!("CARGO_BIN_EXE_capctl"))
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("NARROWS_HOME", self.dir())
            .env("CANARY", SECRET)
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that reads nothing may be gone already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { code: status.code().unwrap(), out: text(stdout), err: text(stderr) }
    }

    fn run(&self, arguments: &[&str]) -> Said {
        self.feed(arguments, "")
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {}", said.err);
        said.out
    }

    fn fails(&self, code: i32, arguments: &[&str], with: &[&str]) {
        let said = self.run(arguments);
        assert_eq!(said.code, code, "{arguments:?}: {}{}", said.out, said.err);
        assert!(said.err.starts_with("capctl: error: "), "{}", said.err);
        for part in with {
            assert!(said.err.contains(part), "{arguments:?} does not say {part:?}: {}", said.err);
        }
    }

    /// A service of one's own, a key pair and a capability for it.
    fn with_capability() -> Self {
        let home = Self::new();
        home.ok(&["service", "add", "acme", "--host", "api.acme.test"]);
        home.ok(&["key", "new", "a.key"]);
        home.ok(&["key", "new", "b.key"]);
        let a = home.ok(&["key", "show", "a.key"]);
        home.ok(&[
            "mint",
            "--to",
            a.trim(),
            "--user",
            "alice",
            "--allow",
            "acme path=/v1",
            "--expires",
            "1h",
            "--out",
            "a.cap",
        ]);
        home
    }
}

fn narrows(home: &TestHome) -> Command {
    let mut narrows = Command::new(env!("CARGO_BIN_EXE_narrows"));
    narrows.env_clear().env("NARROWS_HOME", home.dir());
    narrows
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Every command, with the verbs of those that have some.
const COMMANDS: [&[&str]; 37] = [
    &["init"],
    &["secret"],
    &["secret", "set"],
    &["secret", "list"],
    &["secret", "rm"],
    &["service"],
    &["service", "add"],
    &["service", "list"],
    &["service", "show"],
    &["service", "rm"],
    &["key"],
    &["key", "new"],
    &["key", "show"],
    &["mint"],
    &["attenuate"],
    &["inspect"],
    &["explain"],
    &["prove"],
    &["revoke"],
    &["audit"],
    &["audit", "verify"],
    &["audit", "tail"],
    &["audit", "search"],
    &["doctor"],
    &["completions"],
    &["man"],
    &["run"],
    &["env"],
    &["admin"],
    &["admin", "token"],
    &["admin", "alive"],
    &["admin", "ready"],
    &["admin", "metrics"],
    &["forward"],
    &["forward", "probe"],
    &["demo"],
    &[],
];

#[test]
fn the_help_of_every_command_begins_with_an_example() {
    let home = TestHome::empty();
    for command in COMMANDS {
        let help = home.ok(&[command, &["--help"]].concat());
        let usage = help.find("Usage:").unwrap();
        let example = help.find("capctl ").unwrap_or(usize::MAX);
        assert!(example < usage, "{command:?}: {help}");
    }
}

#[test]
fn init_makes_a_private_home_and_keeps_it() {
    let home = TestHome::new();
    let wanted = [
        ("", 0o700),
        ("narrows.toml", 0o600),
        ("ca.pem", 0o644),
        ("ca.key", 0o600),
        ("root.pub", 0o644),
        ("root.key", 0o600),
        ("services.d", 0o700),
        ("audit", 0o700),
    ];
    for (name, bits) in wanted {
        assert_eq!(mode(&home.dir().join(name)), bits, "{name}");
    }
    let files = ["narrows.toml", "ca.pem", "ca.key", "root.pub", "root.key"];
    let read = || files.map(|name| fs::read(home.dir().join(name)).unwrap());
    let before = read();
    home.ok(&["init"]);
    assert_eq!(read(), before);
    let doctor = home.run(&["doctor", "--json"]);
    assert_eq!(doctor.code, 0, "{}", doctor.out);
}

#[test]
fn a_home_that_verifies_holds_no_root_key_and_never_gets_one() {
    let signs = TestHome::with_capability();
    let root = fs::read_to_string(signs.dir().join("root.pub")).unwrap();
    let (first, second) = (format!("1={}", root.trim()), format!("7={}", signs.ok(&["key", "show", "a.key"]).trim()));
    let home = TestHome::empty();
    let init = ["init", "--verifier", "--root", &first, "--root", &second];
    home.ok(&init);
    let text = fs::read_to_string(home.dir().join("narrows.toml")).unwrap();
    home.ok(&init);
    home.ok(&["init"]);
    let has = |name: &str| home.dir().join(name).exists();
    assert_eq!(["ca.key", "ca.pem", "narrows.toml", "root.key", "root.pub"].map(has), [true, true, true, false, false]);
    assert_eq!(fs::read_to_string(home.dir().join("narrows.toml")).unwrap(), text);
    let doctor = home.run(&["doctor"]);
    assert_eq!((doctor.code, doctor.out.contains("this home verifies")), (0, true), "{}", doctor.out);
    let check = narrows(&home).arg("--check").output().unwrap();
    assert!(check.status.success(), "{check:?}");
    // It signs nothing, and says so; what was signed elsewhere is good.
    let a = signs.ok(&["key", "show", "a.key"]);
    home.fails(
        1,
        &["mint", "--to", a.trim(), "--allow", "web", "--expires", "1h"],
        &["holds no root key", "capctl mint"],
    );
    home.fails(1, &["run", "--allow", "web", "--", "true"], &["holds no root key", "--cap FILE --key FILE"]);
    home.fails(2, &["run", "--", "true"], &["makes none", "capctl run --cap FILE --key FILE -- true"]);
    let (cap, key) = (signs.file("a.cap"), signs.file("a.key"));
    home.ok(&["run", "--cap", &cap, "--key", &key, "--", "true"]);
}

#[test]
fn what_a_home_is_it_stays() {
    let signs = TestHome::new();
    let root = format!("1={}", fs::read_to_string(signs.dir().join("root.pub")).unwrap().trim());
    let other = format!("2={}", &root[2..]);
    signs.fails(1, &["init", "--verifier", "--root", &root], &["a home with a root key"]);
    // A root key that was lost is no verifier.
    fs::remove_file(signs.dir().join("root.key")).unwrap();
    assert_eq!(signs.run(&["doctor"]).code, 1);
    signs.fails(1, &["init", "--verifier", "--root", &root], &["a home with a root key"]);
    let home = TestHome::empty();
    for wrong in
        [&["init", "--verifier"][..], &["init", "--root", &root], &["init", "--verifier", "--root", "ed25519/00"]]
    {
        assert_eq!(home.run(wrong).code, 2, "{wrong:?}");
    }
    assert!(!home.dir().exists());
    home.ok(&["init", "--verifier", "--root", &root]);
    home.fails(1, &["init", "--verifier", "--root", &other], &["[roots]"]);
    home.ok(&["init", "--verifier", "--root", &root]);
}

#[test]
fn a_key_that_others_can_read_is_refused_with_the_chmod_to_type() {
    let home = TestHome::with_capability();
    let key = home.dir().join("root.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let a = home.ok(&["key", "show", "a.key"]);
    let chmod = format!("capctl: hint: chmod 600 {}", key.display());
    home.fails(1, &["mint", "--to", a.trim(), "--allow", "acme", "--expires", "1h"], &[&chmod]);
    let doctor = home.run(&["doctor"]);
    assert_eq!(doctor.code, 1);
    assert!(doctor.out.contains(&format!("chmod 600 {}", key.display())), "{}", doctor.out);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    home.ok(&["mint", "--to", a.trim(), "--allow", "acme", "--expires", "1h"]);
}

#[test]
fn keys_are_never_overwritten_and_capabilities_only_with_force() {
    let home = TestHome::with_capability();
    let key = fs::read(home.file("a.key")).unwrap();
    home.fails(1, &["key", "new", "a.key"], &["a.key"]);
    assert_eq!(fs::read(home.file("a.key")).unwrap(), key);
    assert_eq!(mode(Path::new(&home.file("a.key"))), 0o600);
    assert_eq!(mode(Path::new(&home.file("a.cap"))), 0o600);
    let narrow = ["attenuate", "--cap", "a.cap", "--key", "a.key", "--calls", "3", "--out", "a.cap"];
    home.fails(1, &narrow, &["is there already", "--force"]);
    home.ok(&[&narrow[..], &["--force"]].concat());
}

#[test]
fn minted_attenuated_inspected_explained() {
    let home = TestHome::with_capability();
    let b = home.ok(&["key", "show", "b.key"]);
    home.ok(&[
        "attenuate",
        "--cap",
        "a.cap",
        "--key",
        "a.key",
        "--to",
        b.trim(),
        "--name",
        "agent-1",
        "--allow",
        "acme:read path=/v1/items",
        "--expires",
        "10m",
        "--no-delegate",
        "--out",
        "b.cap",
    ]);
    let tree = home.ok(&["inspect", "b.cap"]);
    assert!(tree.contains("agent-1") && tree.contains("alice"), "{tree}");
    let json: serde_json::Value = serde_json::from_str(&home.ok(&["inspect", "b.cap", "--json"])).unwrap();
    assert_eq!(json["blocks"].as_array().unwrap().len(), 2);

    home.ok(&["explain", "--cap", "b.cap", "GET", "https://api.acme.test/v1/items/1"]);
    for (url, option, column) in [
        ("https://api.acme.test/v1/itemss", None, "path"),
        ("https://api.acme.test/v1/items", Some(["--at", "11m"]), "time"),
    ] {
        let mut arguments = vec!["explain", "--cap", "b.cap", "--json", "GET", url];
        arguments.extend(option.into_iter().flatten());
        let said = home.run(&arguments);
        assert_eq!(said.code, 3, "{url}: {}{}", said.out, said.err);
        let answer: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!((&answer["allowed"], &answer["block"]), (&false.into(), &1.into()), "{answer}");
        assert_eq!(answer["failures"][0]["rows"][0][0]["columns"][0], column, "{answer}");
    }
    // The next holder may not hand it on, the one before may.
    let c = home.ok(&["key", "new", "c.key"]);
    let on = ["attenuate", "--cap", "b.cap", "--key", "b.key", "--to", c.trim(), "--out", "c.cap"];
    home.ok(&on);
    assert_eq!(home.run(&["explain", "--cap", "c.cap", "GET", "https://api.acme.test/v1/items"]).code, 3);
    home.fails(1, &["attenuate", "--cap", "b.cap", "--key", "a.key", "--calls", "1"], &["not the capability's holder"]);
}

#[test]
fn explain_agrees_with_the_proxy_on_hosts_that_nobody_names_and_on_paths_with_two_readings() {
    let home = TestHome::with_capability();
    home.ok(&["attenuate", "--cap", "a.cap", "--key", "a.key", "--calls", "9", "--out", "b.cap"]);
    home.ok(&["revoke", "--cap", "b.cap"]);
    for (cap, url, code) in [
        ("a.cap", "https://example.com/", "service_unknown"),
        ("a.cap", "https://localhost/", "service_unknown"),
        ("a.cap", "https://api.acme.test/v1/../v2", "path_ambiguous"),
        // The capability's own death comes first.
        ("b.cap", "https://localhost/", "capability_revoked"),
        ("a.cap", "https://api.acme.test/v2", "capability_denied"),
    ] {
        let said = home.run(&["explain", "--cap", cap, "--json", "GET", url]);
        assert_eq!(said.code, 3, "{url}: {}", said.err);
        let answer: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(answer["code"], code, "{url}: {answer}");
    }
}

#[test]
fn explain_refuses_the_methods_that_the_proxy_serves_to_nobody() {
    let home = TestHome::with_capability();
    let explain = |method: &str| home.run(&["explain", "--cap", "a.cap", "--json", method, "https://api.acme.test/v1"]);
    for (method, code) in [("TRACE", "capability_denied"), ("trace", "capability_denied"), ("CONNECT", "framing")] {
        let said = explain(method);
        assert_eq!(said.code, 3, "{method}: {}", said.err);
        let answer: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!((&answer["code"], &answer["block"]), (&code.into(), &serde_json::Value::Null), "{method}: {answer}");
    }
    // Any other token is a method.
    for method in ["GET", "TRACES"] {
        assert_eq!(explain(method).code, 0, "{method}");
    }
    home.fails(2, &["explain", "--cap", "a.cap", "GE T", "https://api.acme.test/v1"], &["METHOD"]);
}

#[test]
fn a_revoked_block_is_denied_and_the_block_above_it_is_not() {
    let home = TestHome::with_capability();
    home.ok(&["attenuate", "--cap", "a.cap", "--key", "a.key", "--calls", "9", "--out", "b.cap"]);
    home.ok(&["revoke", "--cap", "b.cap"]);
    let get = |cap: &str| home.run(&["explain", "--cap", cap, "GET", "https://api.acme.test/v1"]).code;
    assert_eq!((get("a.cap"), get("b.cap")), (0, 3));
    home.fails(2, &["revoke", "--cap", "a.cap", "--block", "1"], &["0 to 0"]);
    home.fails(2, &["revoke"], &["--holder"]);
}

#[test]
fn what_is_typed_wrong_names_the_nearest_right_word() {
    let home = TestHome::with_capability();
    let a = home.ok(&["key", "show", "a.key"]);
    let mint = |grant: &str, with: &[&str]| {
        home.fails(2, &["mint", "--to", a.trim(), "--allow", grant, "--expires", "1h"], with);
    };
    mint("acme pth=/v1", &["did you mean path?"]);
    mint("acmee:read", &["did you mean acme?"]);
    home.fails(2, &["atenuate"], &["attenuate"]);
    home.fails(2, &["mint", "--alow", "x"], &["--allow"]);
    home.fails(2, &["mint", "--to", a.trim()], &["--allow is needed"]);
    home.fails(2, &["mint", "--to", a.trim(), "--allow", "acme", "--expires", "1 hour"], &["1h or 7d"]);
    home.fails(2, &["service", "add", "githb"], &["github"]);
    home.fails(2, &["explain", "--cap", "a.cap", "GET", "api.acme.test"], &["https://"]);
}

#[test]
fn a_secret_comes_from_stdin_a_variable_or_a_file_and_is_never_said() {
    let home = TestHome::new();
    fs::write(home.file("value"), format!("{SECRET}\n")).unwrap();
    let commands: [&[&str]; 6] = [
        &["secret", "set", "one"],
        &["secret", "set", "two", "--from-env", "CANARY"],
        &["secret", "set", "three", "--from-file", "value"],
        &["secret", "set", "four", SECRET],
        &["secret", "list", "--json"],
        &["secret", "rm", "one"],
    ];
    for (at, command) in commands.into_iter().enumerate() {
        let said = home.feed(command, &format!("{SECRET}\n"));
        // A value as an argument is a usage error; clap names the argument, which is the person's own screen.
        assert_eq!(said.code, if at == 3 { 2 } else { 0 }, "{command:?}: {}", said.err);
        assert!(at == 3 || !said.out.contains(SECRET) && !said.err.contains(SECRET), "{command:?}");
    }
    assert_eq!(home.ok(&["secret", "list"]), "three\ntwo\n");
    for file in ["secrets.json", "store.key"] {
        let text = fs::read_to_string(home.dir().join(file)).unwrap();
        assert!(!text.contains(SECRET), "{file}");
    }
    home.fails(1, &["secret", "set", "empty"], &["the secret is empty"]);
    home.fails(1, &["secret", "rm", "four"], &["capctl secret list"]);
    assert_eq!(home.feed(&["secret", "set", "x"], "two\nlines\n").code, 1);
    assert_eq!(home.feed(&["secret", "set", "x"], "1234567\n").code, 1);
    assert_eq!(home.feed(&["secret", "set", "x"], "12345678\n").code, 0);
}

#[test]
fn what_is_no_capability_is_refused_without_being_repeated() {
    let home = TestHome::with_capability();
    let good = fs::read_to_string(home.file("a.cap")).unwrap();
    let cut = good.get(..good.len() / 2).unwrap();
    for (at, text) in ["", "not base64!", "AAAA", cut].into_iter().enumerate() {
        fs::write(home.file("bad.cap"), text).unwrap();
        for command in [&["inspect", "bad.cap"][..], &["explain", "--cap", "bad.cap", "GET", "https://api.acme.test/"]]
        {
            let said = home.run(command);
            assert_eq!(said.code, 1, "{at}: {}", said.err);
            assert!(text.is_empty() || !said.err.contains(text), "{}", said.err);
        }
    }
    // One of another root is well-formed, and not accepted here.
    let other = TestHome::with_capability();
    home.ok(&["inspect", &other.file("a.cap")]);
    home.fails(1, &["explain", "--cap", &other.file("a.cap"), "GET", "https://api.acme.test/v1"], &["does not hold"]);
}

#[test]
fn a_wrong_key_of_the_configuration_is_named_with_its_line_and_the_nearest() {
    let home = TestHome::new();
    let path = home.dir().join("narrows.toml");
    let text = fs::read_to_string(&path).unwrap().replace("audience =", "audiense =");
    let line = text.lines().position(|line| line.starts_with("audiense")).unwrap() + 1;
    fs::write(&path, text).unwrap();
    let at = format!("narrows.toml:{line}");
    home.fails(1, &["service", "list"], &[&at, "audiense", "audience"]);
    let doctor = home.run(&["doctor"]);
    assert_eq!(doctor.code, 1);
    assert!(doctor.out.contains(&at), "{}", doctor.out);
}

#[test]
fn doctor_finds_a_configuration_that_accepts_nobody() {
    let home = TestHome::new();
    let path = home.dir().join("narrows.toml");
    let text = fs::read_to_string(&path).unwrap();
    let without: Vec<&str> = text.lines().filter(|line| !line.starts_with("1 =")).collect();
    fs::write(&path, without.join("\n")).unwrap();
    let doctor = home.run(&["doctor"]);
    assert_eq!(doctor.code, 1, "{}", doctor.out);
    assert!(doctor.out.contains("[roots]"), "{}", doctor.out);
}

#[test]
fn services_come_and_go_and_comments_stay() {
    let home = TestHome::new();
    let path = home.dir().join("narrows.toml");
    let before = fs::read_to_string(&path).unwrap();
    home.ok(&["service", "add", "github"]);
    assert!(home.ok(&["service", "list"]).contains("api.github.com"));
    home.fails(1, &["service", "add", "github"], &["already"]);
    // What would not be a sound configuration is not written.
    let now = fs::read(&path).unwrap();
    home.fails(1, &["service", "add", "other", "--host", "api.github.com"], &["api.github.com"]);
    assert_eq!(fs::read(&path).unwrap(), now);
    home.ok(&["service", "rm", "github"]);
    let after = fs::read_to_string(&path).unwrap();
    assert_eq!(after.trim_end(), before.trim_end());
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn credentials_are_for_one_purpose_and_parse() {
    let home = TestHome::with_capability();
    let prove = ["prove", "--cap", "a.cap", "--key", "a.key"];
    for (purpose, kind) in [
        (&["--target", "api.acme.test:443"][..], "connect"),
        (&["--request", "GET", "http://api.acme.test/"], "request"),
        (&["--presentation", "5m"], "presentation"),
    ] {
        let text = home.ok(&[&prove, purpose].concat());
        let credentials = narrows::capability::Credentials::parse(text.trim()).expect("credentials");
        assert_eq!(credentials.proof.kind().as_str(), kind);
        assert!(credentials.capability.is_sealed());
    }
    home.fails(2, &prove, &["--target"]);
    home.fails(
        1,
        &["prove", "--cap", "a.cap", "--key", "b.key", "--presentation", "5m"],
        &["not the capability's holder"],
    );
}

#[test]
fn the_journal_of_a_new_home_is_empty_and_sound() {
    let home = TestHome::new();
    let report: serde_json::Value = serde_json::from_str(&home.ok(&["audit", "verify", "--json"])).unwrap();
    assert_eq!(report["chains"].as_array().map(Vec::len), Some(0), "{report}");
    let head = "0".repeat(64);
    assert_eq!(home.run(&["audit", "verify", "--head", &head]).code, 1);
    home.ok(&["audit", "tail", "--no-follow"]);
    home.ok(&["audit", "search", "--outcome", "denied", "--since", "1h"]);
    home.fails(2, &["audit", "search", "--outcome", "denyed"], &["denied"]);
}

#[test]
fn what_is_printed_is_printed_as_json_too() {
    let home = TestHome::with_capability();
    let json = |arguments: &[&str]| serde_json::from_str::<serde_json::Value>(&home.ok(arguments)).unwrap();
    let public = json(&["key", "new", "j.key", "--json"])["public"].as_str().unwrap().to_owned();
    assert_eq!(json(&["key", "show", "j.key", "--json"])["public"], public);
    let mint = ["mint", "--to", &public, "--allow", "web", "--expires", "1h", "--json"];
    assert!(json(&mint)["capability"].is_string());
    assert_eq!(json(&[&mint[..], &["--out", "j.cap"]].concat())["out"], "j.cap");
    let prove = ["prove", "--presentation", "1m", "--key", "j.key", "--cap", "j.cap", "--json"];
    assert!(json(&prove)["credentials"].as_str().unwrap().contains('.'));
}

#[test]
fn what_to_type_next_is_for_this_home_and_not_there_already() {
    let home = TestHome::new();
    let other = home.file("other");
    let next = |arguments: &[&str]| {
        let said = home.feed(&[&["--home", &other], arguments].concat(), SECRET);
        assert_eq!(said.code, 0, "{}", said.err);
        said.err.lines().last().unwrap().to_owned()
    };
    assert!(next(&["init"]).contains(&format!("capctl --home {other} run")));
    assert_eq!(next(&["secret", "set", "github"]), format!("next: capctl --home {other} service add github"));
    assert_eq!(
        next(&["service", "add", "github"]),
        format!("next: capctl --home {other} run --allow github:read -- COMMAND")
    );
    assert_eq!(
        next(&["secret", "set", "github"]),
        format!("next: capctl --home {other} run --allow github:read -- COMMAND")
    );
    assert_eq!(next(&["service", "add", "stripe"]), format!("next: capctl --home {other} secret set stripe"));
    assert!(next(&["secret", "set", "unheard-of"]).ends_with("service add NAME --credential unheard-of"));
    let again = home.run(&["--home", &other, "service", "add", "stripe", "--no-credential"]);
    assert_eq!(again.code, 1, "{}", again.err);
    assert!(again.err.contains(&format!("hint: capctl --home {other} service rm stripe")), "{}", again.err);
    // One that cannot mint.
    let (verifier, root) = (home.file("verifier"), fs::read_to_string(home.dir().join("root.pub")).unwrap());
    home.ok(&["--home", &verifier, "init", "--verifier", "--root", &format!("1={}", root.trim())]);
    home.ok(&["--home", &verifier, "service", "add", "github"]);
    let said = home.feed(&["--home", &verifier, "secret", "set", "github"], SECRET);
    assert!(said.err.contains("run --cap FILE --key FILE"), "{}", said.err);
    // The home that is found without it.
    home.ok(&["service", "add", "github"]);
    let said = home.feed(&["secret", "set", "github"], SECRET);
    assert!(said.err.contains("next: capctl run --allow github:read"), "{}", said.err);
}

/// Rules are printed for a home with these listeners, or the reason is given why not.
#[cfg(target_os = "linux")]
#[test]
fn rules_lead_to_the_port_that_the_listeners_share_and_a_reason_is_the_real_one() {
    let home = TestHome::new();
    let path = home.dir().join("narrows.toml");
    let starter = fs::read_to_string(&path).unwrap();
    let print = ["transparent", "print", "--uid", "27080", "--dns", "192.0.2.53"];
    let listeners = |all: &[&str]| {
        let tables = all.iter().enumerate().map(|(number, at)| {
            format!("\n[[listener]]\nname = \"l{number}\"\nlisten = \"{at}\"\ntransparent = true\ncapability = \"a.cap\"\nkey = \"a.key\"\n")
        });
        fs::write(&path, starter.clone() + &tables.collect::<String>()).unwrap();
    };
    for one_port in [&["127.0.0.1:7090"][..], &["127.0.0.1:7090", "[::1]:7090"]] {
        listeners(one_port);
        assert!(home.ok(&print).contains("redirect to :7090"), "{one_port:?}");
    }
    listeners(&["127.0.0.1:7090", "[::1]:7091"]);
    home.fails(2, &print, &["several ports: {7090, 7091}", "--port 7090"]);
    listeners(&["127.0.0.1:0"]);
    home.fails(2, &print, &["port 0"]);
    listeners(&[]);
    home.fails(2, &print, &["no [[listener]]"]);
    fs::write(&path, format!("bogus = 1\n{starter}")).unwrap();
    home.fails(2, &print, &["unknown key \"bogus\"", "--port 7090"]);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    home.fails(2, &print, &["narrows.toml is private"]);
    let nowhere = home.file("nowhere");
    home.fails(2, &[&["--home", &nowhere], &print[..]].concat(), &["nowhere does not exist"]);
    // With the port given no home is looked at.
    assert!(home.ok(&[&print[..], &["--port", "7099"]].concat()).contains("redirect to :7099"));
    for (option, value) in [
        ("--port", "0"),
        ("--port", "65536"),
        ("--redirect", "0"),
        ("--redirect", "80,0"),
        ("--probe", "0"),
        ("--dns", "0.0.0.0"),
        ("--dns", "224.0.0.1"),
        ("--dns", "ff02::1"),
    ] {
        home.fails(2, &[&print[..], &[option, value]].concat(), &[option]);
    }
    home.fails(2, &["transparent", "print", "--port", "7090", "--uid", "4294967295"], &["--uid"]);
}
