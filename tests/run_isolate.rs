//! `capctl run --isolate`: the forwarder is reached and nothing else, and the command is what it is without.
//!
//! The one inside is this test binary itself, as `inside`: it tries what a hostile command would and says what was open.
//! Each thing that must be closed has its twin without `--isolate`, where it is open.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "these are tests")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use support::ca::Alpn;
use support::client::{Ran, clean, program, skip};
use support::daemon::TestEnv;
use support::origin::Origin;

const SECRET: &str = "acme-live-0123456789abcdef";
const CURL: &str = "curl -q -sS -m 20 -o /dev/null -w 'code %{http_code}\\n'";
/// What the one inside is told to try; without it, it tries nothing.
const TRY: &str = "NARROWS_TEST_TRY";
/// What the one outside binds, and whether it goes away from there.
const BIND: &str = "NARROWS_TEST_BIND";
const LEAVE: &str = "NARROWS_TEST_LEAVE";
const NOT_ISOLATED: &str = "capctl: note: the command is not isolated";
/// An ordinary user, for tests that root runs.
const NOBODY: u32 = 65534;
/// A loopback port answers at once or never.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// A home with one service, and whom to be.
struct Place {
    env: TestEnv,
    origin: Origin,
    user: Option<u32>,
    programs: PathBuf,
}

impl Place {
    /// As whoever runs the tests.
    fn new() -> Self {
        let mut env = TestEnv::new();
        let origin = Origin::https(&env.ca, &["api.acme.test"], Alpn::Both);
        origin.put("/v1/items", "application/json", "[]");
        env.acme(SECRET, &origin);
        env.write_config();
        let programs = env.file("bin");
        std::fs::create_dir(&programs).unwrap();
        for (from, name) in [(capctl(), "capctl"), (std::env::current_exe().unwrap(), "inside")] {
            if std::fs::hard_link(&from, programs.join(name)).is_err() {
                std::fs::copy(&from, programs.join(name)).unwrap();
            }
        }
        Self { env, origin, user: None, programs }
    }

    /// As an ordinary user, also when root runs the tests.
    fn of_an_ordinary_user() -> Self {
        let mut place = Self::new();
        if geteuid().is_root() {
            place.user = Some(NOBODY);
            give(&place.env.file(""), NOBODY);
        }
        place
    }

    fn both() -> [Self; 2] {
        [Self::new(), Self::of_an_ordinary_user()]
    }

    fn command(&self, options: &[&str], script: &str) -> Command {
        let mut command = clean(&self.programs.join("capctl"));
        command.env("NARROWS_HOME", self.env.home()).env("HOME", self.env.file("")).env("USER", "tester");
        command.env("XDG_RUNTIME_DIR", "").current_dir("/");
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command.args(["run", "--allow", "acme:read"]).args(options).args(["--", "sh", "-c", script]);
        command.arg(self.programs.join("inside"));
        command
    }

    fn run(&self, options: &[&str], script: &str) -> Ran {
        support::client::run(&mut self.command(options, script), b"")
    }

    /// Has the one inside try all of these, `KIND:WHAT` each, and `pid:` and the number of `capctl run`.
    fn try_all(&self, options: &[&str], what: &[String]) -> String {
        let script = format!(
            "read -r pid; export {TRY}=\"{} pid:$pid\"; exec \"$0\" --exact inside --nocapture",
            what.join(" ")
        );
        let mut command = self.command(options, &script);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        writeln!(child.stdin.take().unwrap(), "{}", child.id()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
        said
    }
}

fn capctl() -> PathBuf {
    env!("CARGO_BIN_EXE_capctl").into()
}

fn give(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).unwrap();
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path(), user);
        }
    }
}

/// Where the kernel gives no namespaces there is nothing to test but the refusal.
fn possible(test: &str) -> bool {
    let ran = Place::of_an_ordinary_user().run(&["--isolate"], "true");
    if ran.code == Some(0) {
        return true;
    }
    skip(test, ran.stderr.lines().next().unwrap_or_default());
    false
}

/// Not a test: what runs inside.
#[test]
fn inside() {
    let Ok(tries) = std::env::var(TRY) else { return };
    for attempt in tries.split_whitespace() {
        let (kind, what) = attempt.split_once(':').unwrap();
        if kind == "pid" {
            process(what);
            continue;
        }
        let open = match kind {
            "tcp" => TcpStream::connect_timeout(&what.parse().unwrap(), CONNECT_WITHIN).is_ok(),
            "udp" => sent(what.parse().unwrap()),
            "unix" => UnixStream::connect(what).is_ok(),
            "abstract" => UnixStream::connect_addr(&UnixAddr::from_abstract_name(what).unwrap()).is_ok(),
            "file" => std::fs::File::open(what).and_then(|mut file| file.read(&mut [0])).is_ok(),
            "write" => std::fs::File::create(what).is_ok(),
            "listen" => TcpListener::bind(what).is_ok(),
            "fast" => connected_by_sending(what.parse().unwrap()),
            "mptcp" => {
                let protocol = rustix::net::Protocol::from_raw(262.try_into().unwrap());
                rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, Some(protocol))
                    .is_ok()
            }
            "family" => {
                let family = what.parse().unwrap();
                let opened = rustix::net::socket(
                    rustix::net::AddressFamily::from_raw(family),
                    rustix::net::SocketType::STREAM,
                    None,
                );
                opened.is_ok()
            }
            _ => panic!("{attempt}"),
        };
        println!("\n{kind} {}", if open { "open" } else { "closed" });
    }
}

fn sent(to: SocketAddr) -> bool {
    UdpSocket::bind(("0.0.0.0", 0)).and_then(|socket| socket.send_to(b"x", to)).is_ok()
}

/// TCP Fast Open: no call of `connect`.
fn connected_by_sending(to: SocketAddr) -> bool {
    use rustix::net::{AddressFamily, SendFlags, SocketType, sendto, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sendto(&socket, b"x", SendFlags::from_bits_retain(0x2000_0000), &to).is_ok()
}

/// Not a test: what listens outside, by a name that does not say where.
#[test]
fn bound() {
    let Ok(name) = std::env::var(BIND) else { return };
    let _listener = UnixListener::bind(&name).unwrap();
    std::fs::set_permissions(&name, std::fs::Permissions::from_mode(0o777)).unwrap();
    if std::env::var_os(LEAVE).is_some() {
        std::env::set_current_dir("/").unwrap();
    }
    println!("\nbound");
    // Until the test is over.
    let _ = std::io::stdin().read(&mut [0]);
}

/// Everything that leads into another process.
fn process(number: &str) {
    for file in ["environ", "mem", "maps", "fd/0", "root", "cwd", "cmdline"] {
        let path = format!("/proc/{number}/{file}");
        let open =
            std::fs::read_link(&path).is_ok() || std::fs::read_dir(&path).is_ok() || std::fs::File::open(&path).is_ok();
        println!("\nproc/{file} {}", if open { "open" } else { "closed" });
    }
    let pid = Pid::from_raw(number.parse().unwrap());
    println!("\nsignal {}", if kill(pid, None).is_ok() { "open" } else { "closed" });
    let limit = rustix::process::prlimit(
        rustix::process::Pid::from_raw(pid.as_raw()),
        rustix::process::Resource::Core,
        rustix::process::Rlimit { current: Some(0), maximum: None },
    );
    println!("\nprlimit {}", if limit.is_ok() { "open" } else { "closed" });
    println!("\nptrace {}", if nix::sys::ptrace::attach(pid).is_ok() { "open" } else { "closed" });
}

#[track_caller]
fn all_say(said: &str, word: &str, kinds: &[&str]) {
    for kind in kinds {
        let lines: Vec<&str> = said.lines().filter(|line| line.split(' ').next() == Some(kind)).collect();
        assert!(!lines.is_empty(), "{kind} was not tried:\n{said}");
        assert!(lines.iter().all(|line| *line == format!("{kind} {word}")), "{kind} is not {word}:\n{said}");
    }
}

#[test]
fn the_forwarder_is_reached_and_nothing_else() {
    if !possible("the_forwarder_is_reached_and_nothing_else") {
        return;
    }
    for place in Place::both() {
        // The machine outside: a port, one of IPv6, a name server, sockets with a name and without a file.
        let four = TcpListener::bind("127.0.0.1:0").unwrap();
        let six = TcpListener::bind("[::1]:0").ok();
        let names = UdpSocket::bind("127.0.0.1:0").unwrap();
        names.set_nonblocking(true).unwrap();
        // Renamed, as ssh does with its own: the kernel's table has the name before.
        let path = place.env.file("agent.sock");
        let _named = UnixListener::bind(place.env.file("agent.new")).unwrap();
        std::fs::rename(place.env.file("agent.new"), &path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        let name = format!("narrows-test-{}", four.local_addr().unwrap().port());
        let _abstract = UnixListener::bind_addr(&UnixAddr::from_abstract_name(&name).unwrap()).unwrap();
        let mut tries = vec![
            format!("tcp:{}", place.origin.addr),
            format!("tcp:{}", four.local_addr().unwrap()),
            format!("udp:{}", names.local_addr().unwrap()),
            format!("unix:{}", path.display()),
            format!("abstract:{name}"),
        ];
        tries.extend(six.iter().map(|six| format!("tcp:{}", six.local_addr().unwrap())));
        for file in ["ca.key", "root.key", "secrets.json", "store.key", "narrows.toml", "narrows.sock"] {
            tries.push(format!("file:{}", place.env.home().join(file).display()));
        }
        tries.push(format!("unix:{}", place.env.home().join("narrows.sock").display()));

        let said = place.try_all(&["--isolate"], &tries);
        all_say(&said, "closed", &["tcp", "unix", "abstract", "file", "signal", "prlimit", "ptrace"]);
        all_say(&said, "closed", &["proc/environ", "proc/mem", "proc/maps", "proc/fd/0", "proc/root", "proc/cwd"]);
        assert!(names.recv_from(&mut [0; 8]).is_err(), "a datagram came out");

        // The twin: the same, and the doors are open, so the test can see an open one.
        let tries: Vec<String> =
            tries.into_iter().filter(|it| !it.starts_with("file:") && !it.contains("narrows.sock")).collect();
        let said = place.try_all(&[], &tries);
        all_say(&said, "open", &["tcp", "udp", "unix", "abstract", "signal", "proc/cmdline"]);
        names.set_nonblocking(false).unwrap();
        names.set_read_timeout(Some(CONNECT_WITHIN)).unwrap();
        names.recv_from(&mut [0; 8]).expect("a datagram of the twin");

        let ran =
            place.run(&["--isolate"], &format!("{CURL} https://api.acme.test/v1/items")).succeeded().says("code 200");
        ran.never_says(SECRET);
        let seen = place.origin.seen();
        assert_eq!(seen.last().unwrap().header("authorization"), Some(&*format!("Bearer {SECRET}")));
    }
}

#[test]
fn what_no_namespace_holds_is_refused() {
    if !possible("what_no_namespace_holds_is_refused") {
        return;
    }
    let place = Place::new();
    calls(&place);
    // AF_UNIX, AF_INET, AF_NETLINK; then AF_ALG and AF_VSOCK, which know no network namespace.
    let said = place.try_all(&["--isolate"], &["1", "2"].map(|family| format!("family:{family}")));
    all_say(&said, "open", &["family"]);
    let said = place.try_all(&["--isolate"], &["38", "40"].map(|family| format!("family:{family}")));
    all_say(&said, "closed", &["family"]);
    let status =
        place.run(&["--isolate"], "cat /proc/self/status").succeeded().says("NoNewPrivs:\t1").says("Seccomp:\t2");
    status.says("Seccomp_filters:\t1");
    place.run(&[], "cat /proc/self/status").succeeded().says("NoNewPrivs:\t0").says("Seccomp:\t0");
}

/// System calls by number, with arguments that do nothing: what each says inside and without `--isolate`.
fn calls(place: &Place) {
    use nix::libc;
    let Some(python) = support::client::python("") else { return skip("calls", "no Python") };
    let mut calls = vec![
        (libc::SYS_keyctl, [0, 0, 0]),
        (libc::SYS_request_key, [0, 0, 0]),
        (libc::SYS_add_key, [0, 0, 0]),
        (libc::SYS_io_uring_setup, [0, 0, 0]),
        (libc::SYS_ioctl, [-1, 0x5412, 0]),
        (libc::SYS_ioctl, [-1, 0x541c, 0]),
        // The upper half of a request is nothing to the kernel.
        (libc::SYS_ioctl, [-1, 0x1_0000_5412, 0]),
        (libc::SYS_socket, [40, 1, 0]),
    ];
    if cfg!(target_arch = "x86_64") {
        calls.push((0x4000_0000 + libc::SYS_socket, [2, 1, 40]));
        calls.push((0x4000_0000 + libc::SYS_socket, [40, 1, 0]));
        calls.push((0x4000_0000 + 514, [-1, 0x5412, 0]));
    }
    let script = calls.iter().fold(
        "import ctypes\nl = ctypes.CDLL(None, use_errno=True)\n".to_owned(),
        |script, (call, with)| {
            let arguments = with.map(|it: i64| format!("ctypes.c_long({it})")).join(", ");
            script
                + &format!(
                    "ctypes.set_errno(0)\nl.syscall(ctypes.c_long({call}), {arguments})\nprint(ctypes.get_errno())\n"
                )
        },
    );
    let script = format!("{} -c '{script}'", python.display());
    let said = |options: &[&str]| {
        let ran = place.run(options, &script).succeeded();
        ran.stdout.lines().map(|line| line.parse::<i32>().unwrap()).collect::<Vec<_>>()
    };
    let (apart, beside) = (said(&["--isolate"]), said(&[]));
    for ((call, apart), beside) in calls.iter().zip(apart).zip(beside) {
        let open = *call == (0x4000_0000 + libc::SYS_socket, [2, 1, 40]);
        assert_eq!(apart == libc::EPERM, !open, "{call:?}: {apart} ({beside} without)");
        assert_ne!(beside, libc::EPERM, "{call:?}: refused without --isolate too");
    }
}

#[test]
fn nothing_of_it_can_be_undone_from_inside() {
    if !possible("nothing_of_it_can_be_undone_from_inside") {
        return;
    }
    for place in Place::both() {
        let home = place.env.home().display().to_string();
        let script = format!(
            "umount '{home}'; umount -l '{home}'; umount -l /proc; umount -l /dev; mount -o remount,rw /sys; \
             mount -o remount,rw /proc/sys; unshare -Urm umount -l '{home}'; unshare -Urm ls -A '{home}'; ls -A '{home}'; ls /proc | grep -c '^[0-9]'; ls -d /dev/sd* /dev/vd* /dev/mem; \
             touch /sys/x /proc/sys/x '{home}/x' && echo written; exec 2>&-; \
             echo x > /proc/sysrq-trigger && echo written; echo x > /proc/sys/kernel/core_pattern && echo written; true"
        );
        let ran = place.run(&["--isolate"], &script).succeeded();
        let count: u32 = ran.stdout.trim().parse().unwrap_or_else(|_| panic!("{}", ran.said()));
        assert!(count < 10, "only these processes are seen: {}", ran.said());
    }
}

#[test]
fn the_command_is_what_it_is_without() {
    if !possible("the_command_is_what_it_is_without") {
        return;
    }
    for place in Place::both() {
        let status = |script: &str| place.run(&["--isolate"], script).code;
        assert_eq!(status("exit 0"), Some(0));
        assert_eq!(status("exit 37"), Some(37));
        assert_eq!(status("kill -KILL $$"), Some(128 + 9));
        let who = "id -u; id -g; pwd; cat; env | grep -c ^SSL_CERT_FILE=; echo x > /dev/null; test -t 0 || echo no tty";
        let mut plain = place.command(&[], who);
        let mut apart = place.command(&["--isolate"], who);
        let (plain, apart) =
            (support::client::run(&mut plain, b"typed\n"), support::client::run(&mut apart, b"typed\n"));
        assert_eq!(apart.stdout, plain.stdout, "{apart:?}");
        assert!(apart.stdout.contains("typed"));
        let mut missing = place.command(&["--isolate"], "");
        let missing = missing.env("PATH", "/nowhere");
        let missing = support::client::run(missing, b"");
        assert_eq!(missing.code, Some(127), "{missing:?}");
        assert!(missing.stderr.contains("capctl: error: cannot run sh"), "{missing:?}");
    }
}

#[test]
fn signals_reach_the_command_and_its_end_is_the_end_of_all() {
    if !possible("signals_reach_the_command_and_its_end_is_the_end_of_all") {
        return;
    }
    for place in Place::both() {
        for (signal, name, code) in
            [(Signal::SIGTERM, "TERM", 3), (Signal::SIGUSR1, "USR1", 4), (Signal::SIGHUP, "HUP", 5)]
        {
            // The sleeper keeps standard output open: a reader sees its end only when the sleeper is gone.
            let script = format!("sleep 600 & trap 'exit {code}' {name}; echo ready; while :; do wait; done");
            let mut child = place.command(&["--isolate"], &script).stdout(Stdio::piped()).spawn().unwrap();
            let mut said = BufReader::new(child.stdout.take().unwrap());
            let mut line = String::new();
            said.read_line(&mut line).unwrap();
            assert_eq!(line, "ready\n");
            kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(code), "{name}");
            assert_eq!(said.read_line(&mut line).unwrap(), 0);
        }
    }
}

#[test]
fn an_open_socket_is_no_way_out() {
    if !possible("an_open_socket_is_no_way_out") {
        return;
    }
    let place = Place::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let number = port.local_addr().unwrap().port();
    let Some(bash) = program("bash") else { return skip("an_open_socket_is_no_way_out", "no bash") };
    let capctl = place.programs.join("capctl").display().to_string();
    let closed = [
        format!("7<>/dev/tcp/127.0.0.1/{number}"),
        "7</".to_owned(),
        "7</proc/self/ns/net".to_owned(),
        format!("7<{}/ca.key", place.env.home().display()),
    ];
    let all = closed.map(|redirect| (redirect, 1)).into_iter().chain([("7</dev/null".to_owned(), 0)]);
    for (redirect, code) in all {
        let mut shell = clean(&bash);
        shell.env("NARROWS_HOME", place.env.home()).env("HOME", place.env.file(""));
        shell.args(["-c", &format!("exec {redirect}; '{capctl}' run --isolate --allow acme -- echo ran")]);
        let ran = support::client::run(&mut shell, b"");
        assert_eq!(ran.code, Some(code), "{}", ran.said());
        assert_eq!(ran.stdout.contains("ran"), code == 0, "{}", ran.said());
        assert_eq!(ran.stderr.contains("7>&-"), code != 0, "{}", ran.said());
    }
}

#[test]
fn a_kernel_that_refuses_is_told_and_nothing_runs() {
    let Some(unshare) = program("unshare") else { return skip("a_kernel_that_refuses", "no unshare") };
    if !possible("a_kernel_that_refuses_is_told_and_nothing_runs") {
        return;
    }
    let place = Place::new();
    let capctl = place.programs.join("capctl").display().to_string();
    for limit in ["max_net_namespaces", "max_pid_namespaces", "max_user_namespaces"] {
        let script =
            format!("echo 0 > /proc/sys/user/{limit} && exec '{capctl}' run --isolate --allow acme -- echo ran");
        let mut shell = clean(&unshare);
        shell.env("NARROWS_HOME", place.env.home()).env("HOME", place.env.file(""));
        shell.args(["--user", "--map-root-user", "sh", "-c", &script]);
        let ran = support::client::run(&mut shell, b"");
        assert_eq!(ran.code, Some(1), "{limit}: {}", ran.said());
        assert!(ran.stderr.starts_with("capctl: error: --isolate: "), "{limit}: {}", ran.said());
        assert!(ran.stderr.contains("capctl: hint: "), "{limit}: {}", ran.said());
        assert_eq!(ran.stdout, "", "{limit}");

        let script = format!("echo 0 > /proc/sys/user/{limit} && exec '{capctl}' doctor");
        let mut shell = clean(&unshare);
        shell.env("NARROWS_HOME", place.env.home()).env("HOME", place.env.file(""));
        shell.args(["--user", "--map-root-user", "sh", "-c", &script]);
        support::client::run(&mut shell, b"").says("capctl run --isolate is impossible");
    }
}

#[test]
fn doctor_says_what_this_kernel_allows() {
    let place = Place::new();
    let ran = support::client::run(place.env.command().arg("doctor"), b"");
    let works = place.run(&["--isolate"], "true").code == Some(0);
    assert_eq!(ran.stdout.contains("capctl run --isolate works"), works, "{}", ran.said());
    assert_eq!(ran.stdout.contains("capctl run --isolate is impossible"), !works, "{}", ran.said());
}

#[test]
fn without_it_a_sentence_says_what_is_not_protected() {
    let place = Place::new();
    place.run(&[], "true").succeeded().says(NOT_ISOLATED);
    if possible("without_it_a_sentence_says_what_is_not_protected") {
        place.run(&["--isolate"], "true").succeeded().never_says(NOT_ISOLATED);
    }
}

const LANDLOCK: &[&str] = &["--isolate=landlock"];

/// Where the kernel has no Landlock there is nothing to test but the refusal.
fn landlocked(test: &str) -> bool {
    let ran = Place::of_an_ordinary_user().run(LANDLOCK, "true");
    if ran.code == Some(0) {
        return true;
    }
    assert!(ran.stderr.contains("capctl: error: --isolate=landlock: "), "{ran:?}");
    skip(test, ran.stderr.lines().find(|line| line.contains("error")).unwrap_or_default());
    false
}

#[test]
fn landlock_holds_files_sockets_and_other_processes() {
    if !landlocked("landlock_holds_files_sockets_and_other_processes") {
        return;
    }
    for place in Place::both() {
        let four = TcpListener::bind("127.0.0.1:0").unwrap();
        let four = four.local_addr().unwrap();
        let six = TcpListener::bind("[::1]:0").ok();
        let names = UdpSocket::bind("127.0.0.1:0").unwrap();
        let path = place.env.file("agent.sock");
        let _named = UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        let name = format!("narrows-landlock-{}", four.port());
        let _abstract = UnixListener::bind_addr(&UnixAddr::from_abstract_name(&name).unwrap()).unwrap();
        let mut tries = vec![
            format!("tcp:{}", place.origin.addr),
            format!("tcp:{four}"),
            format!("fast:{}", place.origin.addr),
            "listen:127.0.0.1:0".to_owned(),
            format!("udp:{}", names.local_addr().unwrap()),
            format!("unix:{}", path.display()),
            format!("abstract:{name}"),
            "family:1".to_owned(),
        ];
        tries.extend(six.iter().map(|six| format!("tcp:{}", six.local_addr().unwrap())));
        if Path::new("/proc/sys/net/mptcp").exists() {
            tries.push("mptcp:1".to_owned());
        }
        let kinds: Vec<String> = tries.iter().map(|it| it.split(':').next().unwrap().to_owned()).collect();
        let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
        let twin = tries.clone();
        for file in ["ca.key", "root.key", "secrets.json", "store.key", "narrows.toml"] {
            tries.push(format!("file:{}", place.env.home().join(file).display()));
        }
        // In the home, on the way to it, and where root would change the machine.
        for file in [
            place.env.home().join("services.d/new.toml"),
            place.env.file("new"),
            "/proc/sys/kernel/core_pattern".into(),
        ] {
            tries.push(format!("write:{}", file.display()));
        }
        let said = place.try_all(LANDLOCK, &tries);
        all_say(&said, "closed", &kinds);
        all_say(&said, "closed", &["file", "write", "signal", "prlimit", "ptrace"]);
        all_say(&said, "closed", &["proc/environ", "proc/mem", "proc/fd/0", "proc/root", "proc/cwd"]);
        let said = place.try_all(&[], &twin);
        all_say(&said, "open", &kinds);
        all_say(&said, "open", &["signal", "prlimit"]);

        let ran = place.run(LANDLOCK, &format!("{CURL} https://api.acme.test/v1/items")).succeeded().says("code 200");
        ran.never_says(SECRET);
        // What is no way to anything is as before.
        let bin = place.programs.display();
        let usual = format!(
            "echo x > '{bin}/new' && rm '{bin}/new' && ls / >/dev/null && cat /etc/passwd >/dev/null && echo x >/dev/null"
        );
        place.run(LANDLOCK, &usual).succeeded().says("capctl: note: --isolate=landlock holds less");
        assert_eq!(place.run(LANDLOCK, "exit 37").code, Some(37));
        let status =
            place.run(LANDLOCK, "cat /proc/self/status").succeeded().says("NoNewPrivs:\t1").says("Seccomp:\t2");
        status.says("CapPrm:\t0000000000000000").says("CapEff:\t0000000000000000");
    }
}

#[test]
fn landlock_is_never_what_isolate_falls_back_to() {
    let Some(unshare) = program("unshare") else { return skip("landlock_is_never_what", "no unshare") };
    if !possible("landlock_is_never_what") || !landlocked("landlock_is_never_what") {
        return;
    }
    let place = Place::new();
    let capctl = place.programs.join("capctl").display().to_string();
    let run = |option: &str| {
        let script = format!(
            "echo 0 > /proc/sys/user/max_user_namespaces && exec '{capctl}' run {option} --allow acme -- echo ran"
        );
        let mut shell = clean(&unshare);
        shell.env("NARROWS_HOME", place.env.home()).env("HOME", place.env.file(""));
        shell.args(["--user", "--map-root-user", "sh", "-c", &script]);
        support::client::run(&mut shell, b"")
    };
    let refused = run("--isolate");
    assert_eq!((refused.code, &*refused.stdout), (Some(1), ""), "{refused:?}");
    assert!(refused.stderr.contains("capctl run --isolate=landlock"), "{refused:?}");
    // Asked for by its name, it works in the same place.
    assert_eq!(run("--isolate=landlock").succeeded().stdout, "ran\n");
}

#[test]
fn a_home_that_is_mounted_a_second_time_is_hidden_there_too() {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    let test = "a_home_that_is_mounted_a_second_time";
    // The mounts are this thread's own, and of what it starts.
    let none = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    if unshare(CloneFlags::CLONE_NEWNS).is_err() || mount(none, "/", none, private, none).is_err() {
        return skip(test, "no mount namespace: run it as root");
    }
    for place in Place::both() {
        let second = tempfile::tempdir().unwrap();
        std::fs::set_permissions(second.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        mount(Some(&place.env.file("")), second.path(), none, MsFlags::MS_BIND, none).unwrap();
        let (alias, plain) = (second.path().join("home/ca.key"), second.path().join("bin/inside"));
        assert!(alias.exists());
        let script = format!("test -r '{}' && ! head -c 1 '{}'", plain.display(), alias.display());
        let mut hows = vec![&[][..]];
        if possible(test) {
            hows.push(&["--isolate"]);
        }
        if landlocked(test) {
            hows.push(LANDLOCK);
        }
        for how in hows {
            let ran = place.run(how, &script);
            assert!(ran.code == Some(0) || ran.stderr.contains("the agent can read"), "{how:?}: {}", ran.said());
        }
        // The twin: without capctl it is there.
        assert!(std::fs::read(&alias).is_ok());
        nix::mount::umount(second.path()).unwrap();
    }
}

/// Every way to run a command that this kernel allows.
fn every_how(test: &str) -> Vec<&'static [&'static str]> {
    let mut hows: Vec<&[&str]> = Vec::new();
    if possible(test) {
        hows.extend([&[][..], &["--isolate"]]);
    }
    if landlocked(test) {
        hows.push(LANDLOCK);
    }
    hows
}

/// The same home, deeper: what is above it is the user's own.
fn deeper(place: &Place) -> PathBuf {
    let folder = place.env.file("local/share");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::rename(place.env.home(), folder.join("narrows")).unwrap();
    if let Some(user) = place.user {
        give(&place.env.file("local"), user);
    }
    folder.join("narrows")
}

#[test]
fn no_folder_above_the_home_can_be_put_aside_for_another() {
    for how in every_how("no_folder_above_the_home") {
        for place in Place::both() {
            let home = deeper(&place);
            let above: Vec<String> = home.ancestors().take(4).map(|folder| folder.display().to_string()).collect();
            assert!(above[3].len() > "/tmp".len(), "the last is the test's own: {above:?}");
            let script = format!(
                "for it in '{}'; do mv -T \"$it\" \"$it.orig\" && echo moved \"$it\"; rm -rf \"$it\" && echo gone \"$it\"; done; \
                 cd '{}' && mv -T local new && echo moved by its name alone; true",
                above[..3].join("' '"),
                above[3],
            );
            let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
            let before = inode(&home);
            let mut command = place.command(how, &script);
            let ran = support::client::run(command.env("NARROWS_HOME", &home), b"").succeeded();
            assert_eq!(ran.stdout, "", "{how:?}: {}", ran.said());
            assert_eq!(inode(&home), before);
            ran.never_says("is not the folder that it was");

            let mut command = place.command(how, &format!("mv -T '{0}' '{0}.orig' && echo moved; true", above[3]));
            let ran = support::client::run(command.env("NARROWS_HOME", &home), b"").succeeded();
            assert_eq!(ran.stdout, "", "{how:?}: {}", ran.said());
            // The twin: what is beside the way can be moved, where Landlock does not hold it.
            std::fs::create_dir(place.env.file("bin/beside")).unwrap();
            if let Some(user) = place.user {
                give(&place.env.file("bin/beside"), user);
            }
            let bin = place.programs.display();
            let mut command = place.command(how, &format!("cd '{bin}' && mv -T beside new && echo moved"));
            let ran = support::client::run(command.env("NARROWS_HOME", &home), b"").succeeded();
            assert_eq!(ran.stdout, "moved\n", "{how:?}: {}", ran.said());
        }
    }
}

#[test]
fn the_home_is_hidden_from_a_folder_that_the_command_starts_in() {
    for how in every_how("the_home_is_hidden_from_a_folder") {
        for place in Place::both() {
            let home = deeper(&place);
            let own = if how == LANDLOCK { place.programs.clone() } else { place.env.file("local") };
            // What is held is no border for rename(2) and link(2), under whichever name.
            let across = if how == LANDLOCK { own.clone() } else { own.join("share") };
            let script = format!(
                "! cat share/narrows/ca.key && ! cat '{}/ca.key' && echo x > one && ln one '{}/two' && rm one && pwd",
                home.display(),
                across.display()
            );
            let mut command = place.command(how, &script);
            let ran = support::client::run(command.env("NARROWS_HOME", &home).current_dir(&own), b"").succeeded();
            assert_eq!(ran.stdout.trim(), own.canonicalize().unwrap().to_str().unwrap(), "{how:?}: {}", ran.said());
        }
    }
}

#[test]
fn a_link_on_the_way_to_the_home_cannot_be_turned() {
    for how in every_how("a_link_on_the_way_to_the_home") {
        for place in Place::both() {
            let way = place.env.file("links/way");
            std::fs::create_dir(place.env.file("links")).unwrap();
            std::os::unix::fs::symlink(place.env.file(""), &way).unwrap();
            if let Some(user) = place.user {
                chown(place.env.file("links"), Some(user), Some(user)).unwrap();
            }
            let script = format!("rm -f '{0}'; mv '{0}' '{0}.orig'; ln -sfn / '{0}'; echo ran", way.display());
            let mut command = place.command(how, &script);
            let ran = support::client::run(command.env("NARROWS_HOME", way.join("home")), b"");
            let real = place.env.home().canonicalize().unwrap();
            match *how {
                [] => {
                    let said = format!("NARROWS_HOME={}", real.display());
                    let ran = ran.succeeded().says("can put another home in the place of").says(&said);
                    ran.says("is not the folder that it was before the command");
                }
                ["--isolate"] => {
                    assert_eq!((ran.code, &*ran.stdout), (Some(1), ""), "{}", ran.said());
                    ran.says("capctl: error: --isolate: the way to")
                        .says(&format!("here and in variables: {}", real.display()));
                }
                _ => {
                    assert_eq!(ran.succeeded().stdout, "ran\n");
                    assert_eq!(std::fs::read_link(&way).unwrap(), place.env.file(""));
                }
            }
        }
    }
}

#[test]
fn a_link_that_only_root_can_turn_is_no_matter_to_others() {
    if !possible("a_link_that_only_root_can_turn") {
        return;
    }
    let place = Place::of_an_ordinary_user();
    if place.user.is_none() {
        return skip("a_link_that_only_root_can_turn", "not root");
    }
    let roots = tempfile::tempdir().unwrap();
    std::fs::set_permissions(roots.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let way = roots.path().join("way");
    std::os::unix::fs::symlink(place.env.file(""), &way).unwrap();
    for how in [&[][..], &["--isolate"]] {
        let mut command = place.command(how, "echo ran");
        let ran = support::client::run(command.env("NARROWS_HOME", way.join("home")), b"").succeeded();
        assert_eq!(ran.stdout, "ran\n");
        ran.never_says("can put another home");
    }
    // By a folder of root's that lies in one of theirs, they can.
    let inner = place.env.file("roots");
    std::fs::create_dir(&inner).unwrap();
    std::os::unix::fs::symlink(place.env.file(""), inner.join("way")).unwrap();
    let mut command = place.command(&["--isolate"], "echo ran");
    let ran = support::client::run(command.env("NARROWS_HOME", inner.join("way/home")), b"");
    assert_eq!((ran.code, &*ran.stdout), (Some(1), ""), "{}", ran.said());
    // Theirs in everybody's folder with the sticky bit is theirs to turn.
    std::fs::set_permissions(roots.path(), std::fs::Permissions::from_mode(0o1777)).unwrap();
    let mut command = place.command(&["--isolate"], "echo ran");
    support::client::run(command.env("NARROWS_HOME", way.join("home")), b"").succeeded();
    std::os::unix::fs::lchown(&way, Some(NOBODY), None).unwrap();
    let mut command = place.command(&["--isolate"], "echo ran");
    let ran = support::client::run(command.env("NARROWS_HOME", way.join("home")), b"");
    assert_eq!((ran.code, &*ran.stdout), (Some(1), ""), "{}", ran.said());
}

#[test]
fn doctor_says_that_a_link_on_the_way_can_be_turned() {
    let place = Place::new();
    let way = place.env.file("way");
    std::os::unix::fs::symlink(place.env.file(""), &way).unwrap();
    let real = place.env.home().canonicalize().unwrap();
    let hint = format!("type: NARROWS_HOME={}", real.display());
    let mut doctor = place.env.command();
    support::client::run(doctor.env("NARROWS_HOME", way.join("home")).arg("doctor"), b"").says(&hint);
    let mut doctor = place.env.command();
    support::client::run(doctor.env("NARROWS_HOME", &real).arg("doctor"), b"").never_says(&hint);
}

#[test]
fn what_of_the_home_lies_elsewhere_is_hidden_and_held_too() {
    for how in every_how("what_of_the_home_lies_elsewhere") {
        for place in Place::both() {
            let (home, elsewhere) = (place.env.home(), place.env.file("else/where"));
            std::fs::create_dir_all(&elsewhere).unwrap();
            for name in ["store.key", "origin-ca.pem"] {
                std::fs::rename(home.join(name), elsewhere.join(name)).unwrap();
                std::os::unix::fs::symlink(elsewhere.join(name), home.join(name)).unwrap();
            }
            if let Some(user) = place.user {
                give(&place.env.file("else"), user);
                std::os::unix::fs::lchown(home.join("store.key"), Some(user), None).unwrap();
            }
            // A certificate is nobody's secret.
            let script = format!(
                "cat '{0}/store.key'; cd '{0}' && rm -f store.key; mv -T store.key new; mv -T '{0}' '{0}.orig'; \
                 grep -c BEGIN origin-ca.pem",
                elsewhere.display()
            );
            let ran = place.run(how, &script).succeeded();
            assert_eq!(ran.stdout, "1\n", "{how:?}: {}", ran.said());
            assert!(elsewhere.join("store.key").exists(), "{how:?}");
        }
    }
}

#[test]
fn a_socket_that_was_bound_by_a_relative_name_is_closed_or_told() {
    if !possible("a_socket_that_was_bound_by_a_relative_name") {
        return;
    }
    for place in Place::both() {
        // Deeper than what is looked through.
        let folder = place.env.file("a/b/c/d");
        std::fs::create_dir_all(&folder).unwrap();
        if let Some(user) = place.user {
            give(&place.env.file("a"), user);
        }
        for (name, leaves) in [("rel.sock", false), ("./dot.sock", false), ("left.sock", true)] {
            let mut outside = clean(&place.programs.join("inside"));
            outside.args(["--exact", "bound", "--nocapture"]).env(BIND, name).current_dir(&folder);
            if leaves {
                outside.env(LEAVE, "");
            }
            if let Some(user) = place.user {
                outside.uid(user).gid(user);
            }
            let mut outside = outside.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let mut said = BufReader::new(outside.stdout.take().unwrap()).lines();
            assert!(said.any(|line| line.unwrap() == "bound"));
            let attempt = [format!("unix:{}", folder.join(name).display())];
            let told = format!("capctl: warning: some process has a Unix socket {name} in a folder");
            // On a full disk the search for what was left may end before it is found.
            if !leaves || !place.run(&["--isolate"], "true").succeeded().said().contains(&told) {
                all_say(&place.try_all(&["--isolate"], &attempt), "closed", &["unix"]);
            }
            all_say(&place.try_all(&[], &attempt), "open", &["unix"]);
            drop(outside.stdin.take());
            outside.wait().unwrap();
        }
    }
}

#[test]
fn a_variable_that_holds_a_stored_secret_is_not_passed_on() {
    let place = Place::new();
    let mut hows = vec![&[][..]];
    if possible("a_variable_that_holds_a_stored_secret") {
        hows.push(&["--isolate"]);
    }
    if landlocked("a_variable_that_holds_a_stored_secret") {
        hows.push(LANDLOCK);
    }
    for how in hows {
        let mut command = place.command(how, "env; cat /proc/$$/environ");
        command.env("ACME_LOGIN", format!("user:{SECRET}")).env("ACME_OTHER", &SECRET[1..]);
        let ran = support::client::run(&mut command, b"").succeeded();
        assert!(!ran.stdout.contains(SECRET), "{how:?}: {}", ran.said());
        assert!(ran.stdout.contains(&format!("ACME_OTHER={}", &SECRET[1..])), "one byte less is no secret");
        ran.says("capctl: warning: ACME_LOGIN holds the secret acme-key: it is not passed to the command");
    }
}

#[test]
fn what_is_named_is_hidden_too() {
    let test = "what_is_named_is_hidden_too";
    let mut hows = Vec::new();
    if possible(test) {
        hows.push("--isolate");
    }
    if landlocked(test) {
        hows.push("--isolate=landlock");
    }
    for place in Place::both() {
        let (keys, beside) = (place.env.file("keys"), place.env.file("beside"));
        for folder in [&keys, &beside] {
            std::fs::create_dir(folder).unwrap();
            std::fs::write(folder.join("id"), "private").unwrap();
            if let Some(user) = place.user {
                give(folder, user);
            }
        }
        let link = place.env.file("link");
        std::os::unix::fs::symlink(&keys, &link).unwrap();
        let script = format!(
            "! cat '{}/id' && ! cat '{}/id' && ! touch '{}/new' && cat '{}/id'",
            keys.display(),
            link.display(),
            keys.display(),
            beside.display()
        );
        for how in &hows {
            // By another name, also: what counts is what it names.
            for named in [&keys, &link] {
                let ran = place.run(&[how, "--hide", named.to_str().unwrap()], &script).succeeded();
                assert_eq!(ran.stdout, "private", "{how}: {}", ran.said());
                // Which namespaces cannot hold, and Landlock does.
                let told = ran.stderr.contains("the command can turn the link");
                assert_eq!(told, *how == "--isolate" && *named == link, "{how}: {}", ran.said());
            }
            let twin = place.run(&[how], &format!("cat '{}/id'", keys.display()));
            assert_eq!(twin.stdout, "private", "{how}: {}", twin.said());
        }
        assert_eq!(place.run(&["--isolate", "--hide", "/nowhere/at/all"], "true").code, Some(2));
        let own = place.run(&["--isolate", "--hide", "/"], "true");
        assert_eq!((own.code, own.stderr.contains("needs the certificates")), (Some(2), true), "{own:?}");
        assert_eq!(place.run(&["--hide", "/tmp"], "true").code, Some(2), "without --isolate nothing would be hidden");
    }
}
