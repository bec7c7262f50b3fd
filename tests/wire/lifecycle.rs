//! Starting, changing, ending and crashing; and that the journal tells the truth of each.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::support::PATIENCE;
use crate::support::agent::Agent;
use crate::support::ca::Alpn;
use crate::support::client::{clean, run};
use crate::support::daemon::TestEnv;
use crate::support::frames::{END_STREAM, Flooder, HEADERS, get};
use crate::support::origin::Origin;
use crate::support::record::End;
use crate::{HOST, SECRET, World};

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_crash_loses_no_intent_and_the_chain_still_holds() {
    let world = World::new(Alpn::H1);
    assert_eq!(world.agent.get(HOST, "/v1/items").status(), 200);
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!("POST /hang HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\n"));
    world.origin.wait_for("/hang");
    let World { daemon, env, .. } = world;
    daemon.crash();
    drop(env.start());
    let lines = env.journal();
    let of = |path: &str| lines.iter().filter(|line| line["path"] == path).collect::<Vec<_>>();
    assert_eq!((of("/v1/items").len(), of("/hang").len()), (1, 1), "{lines:#?}");
    assert_eq!(of("/hang")[0]["outcome"], "aborted");
    assert!(env.journal_is_sound());
}

#[test]
fn one_line_for_each_request_whatever_came_of_it() {
    let world = World::with(Alpn::Both, &["acme path=/v1"]);
    for path in ["/v1/items", "/v1/absent", "/v2/private", "/v1//x"] {
        world.agent.get(HOST, path);
    }
    world.agent.get("unknown.acme.test", "/");
    let World { daemon, env, .. } = world;
    daemon.stop();
    let outcomes: Vec<_> = env
        .journal()
        .iter()
        .filter(|line| line["event"] == "request")
        .map(|line| (line["outcome"].clone(), line["code"].clone(), line["status"].clone()))
        .collect();
    let wanted = [
        ("allowed", None, 200),
        ("allowed", None, 404),
        ("denied", Some("capability_denied"), 403),
        ("denied", Some("path_ambiguous"), 400),
        ("denied", Some("service_unknown"), 403),
    ];
    let wanted = wanted.map(|(outcome, code, status)| (outcome.into(), code.into(), status.into()));
    assert_eq!(outcomes, wanted);
    assert!(env.journal_is_sound());
}

#[test]
fn a_changed_line_does_not_verify() {
    let world = World::new(Alpn::Both);
    world.agent.get(HOST, "/v1/items");
    world.agent.get(HOST, "/v1/absent");
    let World { daemon, env, .. } = world;
    daemon.stop();
    assert!(env.journal_is_sound());
    let is_lines = |path: &std::path::PathBuf| path.extension().is_some_and(|extension| extension == "jsonl");
    let file = env.journal_files().into_iter().find(is_lines).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    for (from, to) in [("/v1/items", "/v1/other"), ("\"status\":404", "\"status\":200")] {
        assert!(text.contains(from), "{text}");
        std::fs::write(&file, text.replacen(from, to, 1)).unwrap();
        assert!(!env.journal_is_sound());
    }
    let without_first: String = text.split_inclusive('\n').skip(1).collect();
    std::fs::write(&file, without_first).unwrap();
    assert!(!env.journal_is_sound());
}

#[test]
fn a_check_of_the_journal_writes_nothing_and_says_what_is_torn() {
    let world = World::new(Alpn::Both);
    world.agent.get(HOST, "/v1/items");
    world.agent.get(HOST, "/v1/absent");
    let World { daemon, env, .. } = world;
    daemon.stop();
    let is_lines = |path: &std::path::PathBuf| path.extension().is_some_and(|extension| extension == "jsonl");
    let file = env.journal_files().into_iter().find(is_lines).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let whole = text.trim_end();
    for cut in [whole.to_owned(), format!("{whole}X"), whole[..whole.len() - 200].to_owned()] {
        std::fs::write(&file, &cut).unwrap();
        env.capctl(&["audit", "verify"]).failed().says("the last line is not whole").never_says("nothing removed");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), cut, "it was changed");
    }
    // The next start repairs it, and says so in the chain.
    drop(env.start_as_written());
    env.capctl(&["audit", "verify"]).succeeded().says("1 repairs");
    // Without its newline alone, the line is whole.
    std::fs::write(&file, whole).unwrap();
    drop(env.start_as_written());
    env.capctl(&["audit", "verify"]).succeeded().never_says("repairs");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}

#[test]
fn an_end_waits_for_the_request_that_runs() {
    let world = World::new(Alpn::H1);
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!("GET /stream HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    world.origin.wait_for("/stream");
    tunnel.head();
    world.daemon.ask_to_end();
    // Whole: what may still become the secret, such as a last `s`, is held until more comes.
    world.origin.tick("the last words.");
    tunnel.until("the last words.");
    world.origin.end_streams();
    tunnel.until("0\r\n\r\n");
    drop(tunnel);
    world.origin.shared.record.wait("a whole answer", |seen| seen[0].end == End::Complete);
    let (_, code) = world.daemon.stop();
    assert_eq!(code, Some(0));
}

#[test]
fn a_second_signal_ends_the_drain_at_once_and_loses_no_line() {
    let mut env = TestEnv::new();
    let origin = Origin::https(&env.ca, &[HOST], Alpn::H1);
    env.acme(SECRET, &origin);
    env.setting("[limits]\ndrain = \"10m\"\n");
    let world = World::started(env, origin, &["acme"]);
    let mut tunnel = world.agent.tunnel(HOST);
    tunnel.send(&format!("GET /stream HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    world.origin.wait_for("/stream");
    tunnel.head();
    world.daemon.ask_to_end();
    wait_until("it takes nobody new", || TcpStream::connect(world.daemon.addr).is_err());
    world.daemon.tell(Signal::SIGINT);
    let World { daemon, env, .. } = world;
    assert_eq!(daemon.ended(), Some(0));
    tunnel.rest();
    let lines = env.journal();
    let line = lines.iter().find(|line| line["path"] == "/stream").expect("its line");
    assert_eq!(line["outcome"], "aborted");
    assert!(!env.journal_files().iter().any(|path| path.extension().is_some_and(|it| it == "ring")), "all is written");
    assert!(env.journal_is_sound());
}

#[test]
fn an_end_waits_for_nobody_who_asks_for_nothing() {
    let mut env = TestEnv::new();
    let origin = Origin::https(&env.ca, &[HOST], Alpn::Both);
    env.acme(SECRET, &origin);
    env.setting("[limits]\ndrain = \"10m\"\nhandshake = \"10m\"\nhead_read = \"10m\"\nauthenticate = \"10m\"\n");
    let world = World::started(env, origin, &["acme"]);
    let open = || world.agent.connect(&format!("{HOST}:443")).1;
    let (stranger, mut half_head) = (world.agent.dial(), world.agent.dial());
    half_head.send(&format!("CONNECT {HOST}:443 HTTP/1.1\r\nHo"));
    let (silent, mut half_hello, idle) = (open(), open(), world.agent.tunnel(HOST));
    half_hello.send_bytes(b"\x16\x03\x01\x02\x00\x01\x00");
    // Two that answer no PING: one that never asked, and one whose answer has come.
    let (quiet, mut asked) = (Flooder::new(&world.agent, HOST), Flooder::new(&world.agent, HOST));
    asked.wire.send_bytes(&get(1, HOST, "/v1/absent"));
    asked.until(|kind, flags, stream| stream == 1 && kind <= HEADERS && flags & END_STREAM != 0).expect("an answer");
    world.daemon.ask_to_end();
    let World { daemon, .. } = world;
    assert_eq!(daemon.ended(), Some(0));
    drop((stranger, half_head, silent, half_hello, idle, quiet, asked));
}

#[test]
fn a_hangup_has_the_files_read_again_and_signals_without_a_meaning_do_nothing() {
    let mut env = TestEnv::new();
    let origin = Origin::https(&env.ca, &[HOST], Alpn::Both);
    env.acme(SECRET, &origin);
    origin.put("/v1/items", "text/plain", "items");
    let mut daemon = env.start_with(&[("NARROWS_LOG", "info")]);
    let holder = env.mint("holder", &["acme"]);
    let agent = Agent::new(&env, &daemon, Some(&holder.presentation()));
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGHUP] {
        daemon.tell(signal);
    }
    daemon.wait_for_log("the configuration was read again");
    assert_eq!(agent.get(HOST, "/v1/items").status(), 200);
    assert_eq!(daemon.stop().1, Some(0));
}

#[test]
fn a_bad_configuration_is_refused_whole_and_the_running_one_stays() {
    let mut world = World::new(Alpn::Both);
    let path = world.env.home().join("narrows.toml");
    let good = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, good.replace("api.acme.test\"]", "elsewhere.acme.test\"]\ninjekt = \"x\"")).unwrap();
    let line = world.daemon.wait_for_log("injekt");
    assert!(line.contains("inject"), "the nearest valid key is named: {line}");
    assert_eq!(world.agent.get(HOST, "/v1/items").status(), 200);
    // The twin: a good change is taken up.
    std::fs::write(&path, good.replace("hosts = [\"api.acme.test\"]", "hosts = [\"elsewhere.acme.test\"]")).unwrap();
    let began = Instant::now();
    while world.agent.get(HOST, "/v1/items").status() == 200 {
        assert!(began.elapsed() < PATIENCE, "the change was never taken up");
    }
    assert_eq!(world.agent.get(HOST, "/v1/items").code(), "service_unknown");
}

#[test]
fn a_start_that_cannot_work_says_why() {
    let env = TestEnv::new();
    env.write_config();
    let narrows = |arguments: &[&str]| {
        let mut command = clean(std::path::Path::new(env!("CARGO_BIN_EXE_narrows")));
        run(command.env("NARROWS_HOME", env.home()).args(arguments), b"")
    };
    narrows(&["--check"]).succeeded();
    let path = env.home().join("narrows.toml");
    let good = std::fs::read_to_string(&path).unwrap();

    // Every problem, not the first.
    std::fs::write(&path, format!("lissen = 1\n{good}\n[[service]]\nname = \"x\"\nhosts = []\nstripp = []\n")).unwrap();
    narrows(&["--check"]).failed().says("lissen").says("listen").says("stripp").says("strip");
    narrows(&[]).failed().says("lissen");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    std::fs::write(&path, good.replace("127.0.0.1:0", &taken.local_addr().unwrap().to_string())).unwrap();
    narrows(&[]).failed().says(&taken.local_addr().unwrap().to_string());
    std::fs::write(&path, &good).unwrap();

    let key = env.home().join("ca.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    narrows(&[]).failed().says("chmod").says("ca.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();

    let ca = env.home().join("origin-ca.pem");
    std::fs::write(&ca, "nothing of the kind").unwrap();
    narrows(&[]).failed().says("origin-ca.pem");
    std::fs::remove_file(&ca).unwrap();
    narrows(&[]).failed().says("origin-ca.pem");
}

#[test]
fn a_check_reports_all_that_a_start_would_refuse() {
    let mut env = TestEnv::new();
    let (one, two) = (env.mint("one", &["acme"]), env.mint("two", &["acme"]));
    for (name, capability, key, listen) in [
        ("crossed", &one.capability, &two.key, "127.0.0.1:0"),
        ("empty", &env.file("nothing.cap"), &one.key, "unix:gone/pod.sock"),
    ] {
        env.setting(&format!(
            "[[listener]]\nname = \"{name}\"\nlisten = \"{listen}\"\ncapability = \"{}\"\nkey = \"{}\"",
            capability.display(),
            key.display()
        ));
    }
    env.secret("acme-key", SECRET);
    env.write_config();
    let home = env.home();
    let mode = |name: &str, mode| std::fs::set_permissions(home.join(name), std::fs::Permissions::from_mode(mode));
    std::fs::write(home.join("revoked.jsonl"), "nonsense\n").unwrap();
    std::fs::write(home.join("ca.pem"), "nonsense").unwrap();
    mode("revoked.jsonl", 0o600).unwrap();
    mode("root.key", 0o644).unwrap();
    mode("secrets.json", 0o640).unwrap();
    std::fs::write(home.join("store.key"), format!("aes-256-gcm/{}\n", "00".repeat(32))).unwrap();
    let check = || run(env.narrows(&[]).arg("--check"), b"").failed();
    let said = check();
    assert_eq!(said.code, Some(1));
    for words in [
        "root.key is private",
        "secrets.json is private",
        "revoked.jsonl: line 1",
        "ca.pem",
        "listener \"crossed\": the key is not that of the capability's holder",
        "listener \"empty\"",
        "cannot listen on unix:",
    ] {
        assert_eq!(said.stderr.matches(words).count().min(1), 1, "{words}: {}", said.stderr);
    }
    assert_eq!(said.stderr.matches("secrets.json is private").count(), 1, "said once: {}", said.stderr);
    assert!(said.stderr.contains(&format!("chmod 600 {}", home.join("root.key").display())), "{}", said.stderr);
    // What was behind the mode of the store.
    mode("secrets.json", 0o600).unwrap();
    check().says("is not the key that");
}

#[test]
fn the_proxy_listens_on_a_unix_socket_too() {
    use std::io::{Read, Write};
    let env = TestEnv::new();
    env.write_config();
    let path = env.home().join("narrows.toml");
    let toml = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, toml.replace("127.0.0.1:0", "unix:proxy.sock")).unwrap();
    let daemon = env.start_as_written();
    let mut stream = std::os::unix::net::UnixStream::connect(env.home().join("proxy.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"CONNECT api.acme.test:443 HTTP/1.1\r\nHost: api.acme.test:443\r\n\r\n").unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 407");
    drop(daemon);
}
