//! `capctl run` with everything behind it: forwarder, embedded proxy, a real origin, a real client.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use support::ca::Alpn;
use support::client::Ran;
use support::daemon::TestEnv;
use support::origin::Origin;

const SECRET: &str = "acme-live-0123456789abcdef";
const CURL: &str = "curl -q -sS -o /dev/null -w '%{http_code}\\n'";

fn acme() -> (TestEnv, Origin) {
    let mut env = TestEnv::new();
    let origin = Origin::https(&env.ca, &["api.acme.test"], Alpn::Both);
    origin.put("/v1/items", "application/json", "[]");
    env.acme(SECRET, &origin);
    env.write_config();
    (env, origin)
}

fn run(env: &TestEnv, options: &[&str], script: &str) -> Ran {
    let mut command = env.command();
    command.arg("run").args(options).args(["--", "sh", "-c", script]);
    support::client::run(&mut command, b"")
}

#[test]
fn a_real_client_gets_what_is_granted_and_is_told_what_is_not() {
    let (env, origin) = acme();
    let script = format!("{CURL} https://api.acme.test/v1/items; curl -q -sS -X DELETE https://api.acme.test/v1/items");
    let ran = run(&env, &["--allow", "acme:read path=/v1/items"], &script).succeeded();
    assert!(ran.stdout.starts_with("200\n"), "{ran:?}");
    assert!(ran.stdout.contains("capability_denied"), "{ran:?}");
    let seen = origin.only();
    assert_eq!(seen.header("authorization"), Some(&*format!("Bearer {SECRET}")));
    assert_eq!(seen.header("proxy-authorization"), None);
    let line = env.journal_line(|line| line["outcome"] == "allowed");
    assert_eq!(line["proof"], "connect");
    assert_eq!(line["client"], "unix");
    assert_eq!(env.journal_line(|line| line["outcome"] == "denied")["method"], "DELETE");
}

#[test]
fn the_commands_environment_holds_neither_secret_nor_capability() {
    let (env, _origin) = acme();
    let ran = run(&env, &["--allow", "acme"], "env; cat /proc/$PPID/environ 2>&1; true").succeeded();
    ran.never_says(SECRET).never_says("ed25519-private");
}

#[test]
fn an_absolute_form_request_is_proved_by_itself() {
    let (mut env, _origin) = acme();
    let plain = Origin::http();
    plain.put("/news", "text/plain", "rain");
    env.dial_at("plain.acme.test:80", plain.addr);
    env.service("name = \"plain\"\nhosts = [\"http://plain.acme.test\"]");
    env.write_config();
    let ran = run(&env, &["--allow", "plain:read"], "curl -q -sS http://plain.acme.test/news").succeeded();
    assert_eq!(ran.stdout, "rain", "{ran:?}");
    assert_eq!(plain.only().header("proxy-authorization"), None);
    assert_eq!(env.journal_line(|line| line["service"] == "plain")["proof"], "request");
}

/// A command that does one request for each line that it is told.
struct Asking {
    child: Child,
    lines: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Asking {
    fn start(env: &TestEnv) -> Self {
        let script = format!("while read -r line; do {CURL} https://api.acme.test/v1/items; done");
        let mut command = env.command();
        command.args(["run", "--allow", "acme:read", "--", "sh", "-c", &script]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (lines, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, lines, answers }
    }

    fn ask(&mut self) -> String {
        writeln!(self.lines, "go").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer.trim().to_owned()
    }

    fn end(mut self) {
        drop(self.lines);
        assert!(self.child.wait().unwrap().success());
    }
}

#[test]
fn commands_of_one_home_share_a_proxy_and_outlive_the_one_that_brought_it() {
    let (env, _origin) = acme();
    let mut first = Asking::start(&env);
    assert_eq!(first.ask(), "200");
    let mut second = Asking::start(&env);
    assert_eq!(second.ask(), "200");
    let chains = || env.journal_files().iter().filter(|path| path.extension().is_some_and(|e| e == "jsonl")).count();
    assert_eq!(chains(), 1, "one proxy for both");
    first.end();
    assert_eq!(second.ask(), "200", "the second takes over");
    assert_eq!(chains(), 2);
    second.end();
}
