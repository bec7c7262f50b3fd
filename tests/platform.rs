//! What a platform expects of a service: the journal on stdout, a log in the format that it collects, readiness and
//! listeners by systemd's protocols.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod support;

use std::fs::{File, OpenOptions, Permissions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, geteuid, mkfifo};
use support::PATIENCE;
use support::agent::Agent;
use support::ca::Alpn;
use support::client::{clean, program, run, skip};
use support::daemon::{Daemon, TestEnv};
use support::origin::Origin;

const SECRET: &str = "acme-live-0123456789abcdef";

fn acme(settings: &str) -> (TestEnv, Origin) {
    let mut env = TestEnv::new();
    let origin = Origin::https(&env.ca, &["api.acme.test"], Alpn::Both);
    origin.put("/v1/items", "text/plain", "items");
    env.acme(SECRET, &origin);
    env.setting(settings);
    (env, origin)
}

/// The program under a shell that runs `script`, in which it is `"$0"`.
fn under(script: &str, narrows: &Command) -> Command {
    let mut shell = clean(Path::new("/bin/sh"));
    shell.args(["-c", script]).arg(narrows.get_program());
    shell.envs(narrows.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
}

/// The whole journal, as its files have it.
fn journal(env: &TestEnv) -> String {
    let files = env.journal_files();
    let lines = files.iter().filter(|path| path.extension().is_some_and(|it| it == "jsonl"));
    lines.map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

fn served(env: &TestEnv, daemon: &Daemon, requests: usize) {
    static AGENTS: AtomicU32 = AtomicU32::new(0);
    let name = format!("agent-{}", AGENTS.fetch_add(1, Ordering::Relaxed));
    let credentials = env.mint(&name, &["acme"]).presentation();
    let agent = Agent::new(env, daemon, Some(&credentials));
    for _ in 0..requests {
        assert_eq!(agent.get("api.acme.test", "/v1/items").status(), 200);
    }
}

/// The lines of the journal among what a proxy said.
fn shown(said: &str) -> Vec<&str> {
    said.lines().filter(|line| line.starts_with('{')).collect()
}

#[test]
fn stdout_has_the_journals_lines_as_the_file_has_them() {
    let (env, _origin) = acme("[journal]\nstdout = true");
    let daemon = env.start();
    served(&env, &daemon, 40);
    let (said, code) = daemon.stop();
    let file = journal(&env);
    assert_eq!((code, file.lines().count()), (Some(0), 40));
    assert_eq!(shown(&said), file.lines().collect::<Vec<_>>());
    assert!(file.ends_with('\n') && env.journal_is_sound());
}

#[test]
fn what_a_dead_process_left_is_shown_by_the_next() {
    let (env, _origin) = acme("[journal]\nstdout = true");
    let daemon = env.start();
    served(&env, &daemon, 40);
    daemon.crash();
    let before = journal(&env);
    let daemon = env.start_as_written();
    served(&env, &daemon, 3);
    let (said, _) = daemon.stop();
    let after = journal(&env);
    let mut new: Vec<&str> = after.lines().filter(|line| !before.contains(line)).collect();
    assert!(env.journal_is_sound() && new.len() >= 3 && after.lines().count() >= 43);
    let mut shown = shown(&said);
    shown.sort_unstable();
    new.sort_unstable();
    assert_eq!(shown, new);
}

#[test]
fn without_the_key_stdout_has_nothing() {
    let (env, _origin) = acme("");
    let daemon = env.start();
    served(&env, &daemon, 2);
    let (said, _) = daemon.stop();
    assert_eq!((said.contains("\"prev\""), journal(&env).lines().count()), (false, 2), "{said}");
}

/// A pipe with a name; whoever opens it for both never waits.
fn pipe(env: &TestEnv) -> File {
    let path = env.file("stdout");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

#[test]
fn a_stdout_that_nobody_reads_holds_nothing_up() {
    let (env, _origin) = acme("[journal]\nstdout = true");
    let mut reader = pipe(&env);
    // A page: a few lines fill it.
    nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    env.write_config();
    let daemon = env.start_traced(|narrows| {
        let mut shell = under("exec \"$0\" >\"$STDOUT\"", narrows);
        shell.env("STDOUT", env.file("stdout"));
        shell
    });
    served(&env, &daemon, 40);
    let (_, code) = daemon.stop();
    assert_eq!(code, Some(0));
    let written = journal(&env);
    assert_eq!(written.lines().count(), 40);
    assert!(written.len() > 8192 && env.journal_is_sound());
    let mut shown = vec![0; 4096];
    let length = reader.read(&mut shown).unwrap();
    assert!(length > 0 && written.as_bytes().starts_with(&shown[..length]));
}

#[test]
fn a_stdout_that_somebody_closes_holds_nothing_up() {
    let (env, _origin) = acme("[journal]\nstdout = true");
    let reader = pipe(&env);
    env.write_config();
    let mut daemon = env.start_traced(|narrows| {
        let mut shell = under("exec \"$0\" >\"$STDOUT\"", narrows);
        shell.env("STDOUT", env.file("stdout"));
        shell
    });
    drop(reader);
    served(&env, &daemon, 5);
    daemon.wait_for_log("stdout takes no lines of the journal");
    served(&env, &daemon, 5);
    let (said, code) = daemon.stop();
    assert_eq!((code, said.matches("stdout takes no lines").count()), (Some(0), 1), "{said}");
    assert_eq!(journal(&env).lines().count(), 10);
}

#[test]
fn a_log_that_nobody_reads_holds_nothing_up() {
    let (env, _origin) = acme("[log]\nlevel = \"trace\"");
    let reader = pipe(&env);
    nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    env.write_config();
    let mut shell = under("exec \"$0\" 2>\"$STDERR\"", &env.narrows(&[]));
    let mut child = shell.env("STDERR", env.file("stdout")).stdin(Stdio::null()).spawn().unwrap();
    // A reader that stops once it has the line that it waits for.
    let mut lines = BufReader::with_capacity(1, &reader).lines();
    let first = lines.find_map(|line| line.unwrap().strip_prefix("listening on ").map(str::to_owned)).unwrap();
    let credentials = env.mint("agent", &["acme"]).presentation();
    let agent = Agent::at(first.parse().unwrap(), &env.home().join("ca.pem"), Some(&credentials));
    drop(lines);
    for _ in 0..20 {
        assert_eq!(agent.get("api.acme.test", "/v1/items").status(), 200);
    }
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(journal(&env).lines().count(), 20);
}

#[test]
fn the_logs_level_and_format_change_without_a_restart_and_a_variable_wins() {
    let (mut env, _origin) = acme("");
    let mut daemon = env.start();
    env.setting("[log]\nlevel = \"info\"");
    env.write_config();
    let line = daemon.wait_for_log("the configuration was read again");
    assert!(line.contains(" INFO "), "{line}");
    let text = std::fs::read_to_string(env.home().join("narrows.toml")).unwrap();
    rewrite(&env, &text.replace("level = \"info\"", "level = \"debug\"\nformat = \"json\""));
    let line = daemon.wait_for_log("\"message\":\"the configuration was read again\"");
    let object: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&object["level"], &object["target"]), (&"INFO".into(), &"narrows::daemon::reload".into()));
    // What does not read changes nothing, and is said with its line.
    rewrite(&env, &text.replace("level = \"info\"", "level = \"loud\""));
    let line = daemon.wait_for_log("is no level");
    assert!(line.contains("narrows.toml:") && serde_json::from_str::<serde_json::Value>(&line).is_ok(), "{line}");
    drop(daemon);
    rewrite(&env, &text.replace("level = \"info\"", "level = \"trace\"\nformat = \"json\""));
    let (said, _) = env.start_as_written_with(&[("NARROWS_LOG", "info")]).stop();
    assert!(said.contains("\"message\":\"draining\"") && !said.contains("TRACE"), "{said}");
}

fn rewrite(env: &TestEnv, text: &str) {
    let (path, new) = (env.home().join("narrows.toml"), env.home().join("narrows.new"));
    std::fs::write(&new, text).unwrap();
    std::fs::set_permissions(&new, Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(&new, &path).unwrap();
}

/// That stdout is the command's.
#[test]
fn a_proxy_inside_capctl_run_shows_no_line() {
    let Some(curl) = program("curl") else { return skip("a proxy inside capctl run", "curl is not installed") };
    let (env, _origin) = acme("[journal]\nstdout = true");
    env.write_config();
    let url = "https://api.acme.test/v1/items";
    let ran = env.capctl(&["run", "--allow", "acme", "--", curl.to_str().unwrap(), "-sS", url]).succeeded();
    assert_eq!((ran.stdout.as_str(), journal(&env).lines().count()), ("items", 1), "{}", ran.stderr);
}

#[test]
fn a_key_among_the_services_credentials_may_have_the_mode_that_systemd_gives_it() {
    if !geteuid().is_root() {
        return skip("a key among the service's credentials", "only root makes files of root");
    }
    let (mut env, _origin) = acme("");
    let held = env.mint("held", &["acme"]);
    let folder = env.file("credentials");
    std::fs::create_dir(&folder).unwrap();
    let key = folder.join("agent.key");
    std::fs::rename(&held.key, &key).unwrap();
    std::fs::set_permissions(&key, Permissions::from_mode(0o440)).unwrap();
    env.setting(&format!(
        "[[listener]]\nname = \"held\"\nlisten = \"127.0.0.1:0\"\ncapability = \"{}\"\nkey = \"{}\"",
        held.capability.display(),
        key.display()
    ));
    env.write_config();
    let check = |credentials: &Path| {
        let mut narrows = env.narrows(&[("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap())]);
        run(narrows.arg("--check"), b"")
    };
    check(&folder).succeeded();
    check(&env.file("")).failed().says("chmod 600");
    std::fs::set_permissions(&key, Permissions::from_mode(0o444)).unwrap();
    check(&folder).failed().says("chmod 600");
}

/// What the service manager is told next.
fn told(manager: &UnixDatagram) -> String {
    let mut bytes = [0; 512];
    let length = manager.recv(&mut bytes).unwrap();
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

#[test]
fn the_service_manager_is_told_when_it_is_ready_when_it_reads_again_and_when_it_ends() {
    let (mut env, _origin) = acme("");
    let path = env.file("notify");
    let name = format!("narrows-test-{}", std::process::id());
    let file = UnixDatagram::bind(&path).unwrap();
    let nameless = UnixDatagram::bind_addr(&UnixAddr::from_abstract_name(&name).unwrap()).unwrap();
    for (manager, variable) in [(file, path.to_str().unwrap().to_owned()), (nameless, format!("@{name}"))] {
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let daemon = env.start_with(&[("NOTIFY_SOCKET", &variable)]);
        assert_eq!(told(&manager), format!("READY=1\nSTATUS=listening on {}", daemon.addr));
        let text = std::fs::read_to_string(env.home().join("narrows.toml")).unwrap();
        rewrite(&env, &format!("{text}\n[log]\nlevel = \"error\"\n"));
        assert_eq!(told(&manager), "RELOADING=1");
        assert_eq!(told(&manager), "READY=1\nSTATUS=the configuration was read again");
        rewrite(&env, &format!("{text}\n[log]\nlevel = \"loud\"\n"));
        assert_eq!(told(&manager), "RELOADING=1");
        assert_eq!(told(&manager), "READY=1\nSTATUS=a change was refused: the log says why");
        daemon.ask_to_end();
        assert!(told(&manager).starts_with("STOPPING=1\n"));
        assert_eq!(daemon.stop().1, Some(0));
        env.setting("");
    }
    // Nobody there, or no address: it serves.
    for variable in [env.file("gone").to_str().unwrap(), "nonsense", ""] {
        let daemon = env.start_with(&[("NOTIFY_SOCKET", variable)]);
        served(&env, &daemon, 1);
    }
}

/// The program with a socket as its fourth descriptor, for this process's number or another's.
struct Started(Child, BufReader<std::process::ChildStderr>);

impl Started {
    fn with(env: &TestEnv, socket: impl Into<OwnedFd>, for_whom: &str) -> Self {
        env.write_config();
        // `exec` keeps the number of the process.
        let script = format!("exec 3<&0 </dev/null; LISTEN_PID={for_whom} LISTEN_FDS=1 exec \"$0\"");
        let mut shell = under(&script, &env.narrows(&[]));
        let mut child = shell.stdin(Stdio::from(socket.into())).stderr(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        Self(child, said)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// Asks for a tunnel without credentials.
fn refused(mut stream: impl std::io::Read + std::io::Write) -> bool {
    stream.write_all(b"CONNECT api.acme.test:443 HTTP/1.1\r\nHost: api.acme.test:443\r\n\r\n").unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    start == *b"HTTP/1.1 407"
}

#[test]
fn a_listener_that_was_passed_is_the_one_that_the_configuration_names() {
    let (env, _origin) = acme("");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // A client that is there before the proxy waits for it.
    let early = TcpStream::connect(address).unwrap();
    let mut started = Started::with(&env, listener.try_clone().unwrap(), "$$");
    assert_eq!(started.line(), format!("listening on {address}"));
    assert!(refused(&early));
    drop(early);
    drop(started);
    // The variables of another process are not ours.
    let mut started = Started::with(&env, listener, "1");
    let said = started.line();
    assert!(said.starts_with("listening on 127.0.0.1:") && !said.ends_with(&address.to_string()), "{said}");
}

#[test]
fn a_unix_listener_that_was_passed_keeps_its_file() {
    let (mut env, _origin) = acme("");
    let path = env.file("agents.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let key = env.mint("held", &["acme"]);
    env.setting(&format!(
        "[[listener]]\nname = \"held\"\nlisten = \"unix:{}\"\ncapability = \"{}\"\nkey = \"{}\"",
        path.display(),
        key.capability.display(),
        key.key.display()
    ));
    let mut started = Started::with(&env, listener, "$$");
    assert!(started.line().starts_with("listening on "));
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    stream.write_all(b"CONNECT api.acme.test:443 HTTP/1.1\r\nHost: api.acme.test:443\r\n\r\n").unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    // Else the drain would wait for it.
    drop(stream);
    drop(started);
    assert!(path.exists(), "who bound it removes it");
}

#[test]
fn what_was_passed_and_is_not_asked_for_is_refused() {
    let (env, _origin) = acme("");
    let elsewhere = TcpListener::bind("127.0.0.2:0").unwrap();
    let address = elsewhere.local_addr().unwrap();
    let connected = TcpStream::connect(address).unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let wrong: [(OwnedFd, String); 4] = [
        (elsewhere.into(), format!("a socket was passed that is not used: {address}")),
        (connected.into(), "a socket was passed that does not listen".to_owned()),
        (datagrams.into(), "what was passed is no stream socket".to_owned()),
        (File::open("/dev/null").unwrap().into(), "what was passed is no stream socket".to_owned()),
    ];
    for (socket, problem) in wrong {
        let mut started = Started::with(&env, socket, "$$");
        assert_eq!(started.line(), format!("narrows: error: {problem}"));
        assert_eq!(started.0.wait().unwrap().code(), Some(1), "{problem}");
    }
}

/// systemd's own opinion of `deploy/`, where its program is; it is no client that anybody promised.
#[test]
fn the_units_are_good_units() {
    let Some(analyze) = program("systemd-analyze") else {
        let _ = writeln!(std::io::stderr(), "SKIP the_units_are_good_units: systemd-analyze is not installed");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let [service, socket] = ["narrows.service", "narrows.socket"].map(|unit| {
        let text = std::fs::read_to_string(deploy.join(unit)).unwrap();
        let path = folder.path().join(unit);
        // It looks for the program.
        std::fs::write(&path, text.replace("/usr/local/bin/narrows", env!("CARGO_BIN_EXE_narrows"))).unwrap();
        path
    });
    // It says what it does not know and ends well.
    let ran = run(Command::new(&analyze).arg("verify").args([&service, &socket]), b"").succeeded();
    assert!(!ran.said().contains("narrows."), "{}", ran.said());
    let exposure = |service: &Path| {
        let mut security = Command::new(&analyze);
        run(security.args(["security", "--no-pager", "--offline=true", "--threshold=20"]).arg(service), b"")
    };
    exposure(&service).succeeded();
    let bare = folder.path().join("bare.service");
    std::fs::write(&bare, "[Service]\nExecStart=/bin/true\n").unwrap();
    exposure(&bare).failed();
}
