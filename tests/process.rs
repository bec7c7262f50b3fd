//! What must not leave the processes that hold secrets: no other process of the user reads their memory, no core is
//! written, nothing secret is in their arguments or variables, and what they start is as it would be without them.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod support;

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::chown;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use support::ca::Alpn;
use support::client::{clean, skip};
use support::daemon::TestEnv;
use support::origin::Origin;

const SECRET: &str = "acme-live-0123456789abcdef";
/// An ordinary user, for tests that root runs: root may read everything.
const NOBODY: u32 = 65534;
/// What another process would look into.
const MEMORY: [&str; 4] = ["environ", "mem", "maps", "auxv"];

fn acme() -> (TestEnv, Origin) {
    let mut env = TestEnv::new();
    let origin = Origin::https(&env.ca, &["api.acme.test"], Alpn::Both);
    env.acme(SECRET, &origin);
    env.write_config();
    (env, origin)
}

/// The home and a copy of the programs belong to an ordinary user now, who is returned.
fn ordinary(env: &TestEnv) -> u32 {
    let programs = env.file("bin");
    std::fs::create_dir(&programs).unwrap();
    for (name, from) in [("narrows", env!("CARGO_BIN_EXE_narrows")), ("capctl", env!("CARGO_BIN_EXE_capctl"))] {
        if std::fs::hard_link(from, programs.join(name)).is_err() {
            std::fs::copy(from, programs.join(name)).unwrap();
        }
    }
    if !geteuid().is_root() {
        return geteuid().as_raw();
    }
    give(&env.file(""), NOBODY);
    NOBODY
}

fn give(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).unwrap();
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path(), user);
        }
    }
}

/// A program of that user on this home, once it has said a line.
struct Running(Child);

impl Running {
    fn start(env: &TestEnv, user: u32, program: &str, arguments: &[&str], limits: &str) -> Self {
        let program = env.file("bin").join(program).display().to_string();
        let script = format!("{limits}; exec '{program}' \"$@\"");
        let mut command = clean(Path::new("/bin/sh"));
        command.env("NARROWS_HOME", env.home()).env("HOME", env.file("")).uid(user).gid(user);
        command.args(["-c", &script, "sh"]).args(arguments).current_dir(env.file(""));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        if program.ends_with("narrows") {
            BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        } else {
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        }
        assert!(!line.is_empty(), "{program} said nothing");
        Self(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// What a process of `user` can read of this one.
    fn open_to(&self, user: u32) -> Vec<&'static str> {
        let readable = |file: &&str| {
            let mut cat = Command::new("head");
            cat.args(["-c", "0", &format!("/proc/{}/{file}", self.pid())]).uid(user).gid(user);
            cat.stderr(Stdio::null()).status().unwrap().success()
        };
        MEMORY.into_iter().filter(readable).collect()
    }

    fn limits(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/limits", self.pid())).unwrap()
    }

    fn status(&self, name: &str) -> String {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim_matches([':', '\t', ' ']).to_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command that ends with whoever started it.
const ASKS: &[&str] = &["run", "--allow", "acme", "--", "sh", "-c", "echo ready; read -r line"];

#[test]
fn another_process_of_the_user_cannot_read_their_memory() {
    let (env, _origin) = acme();
    let user = ordinary(&env);
    for (program, arguments) in [("narrows", &[][..]), ("capctl", ASKS)] {
        let running = Running::start(&env, user, program, arguments, ":");
        assert_eq!(running.open_to(user), Vec::<&str>::new(), "{program}");
    }
    // The twin: a program that does not conceal itself.
    let mut plain = Command::new("sh");
    plain.args(["-c", "echo ready; read -r line"]).uid(user).gid(user).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut plain = Running(plain.spawn().unwrap());
    BufReader::new(plain.0.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    assert_eq!(plain.open_to(user), MEMORY);
}

#[test]
fn neither_writes_a_core() {
    let (env, _origin) = acme();
    let user = ordinary(&env);
    let cores = || {
        let names = std::fs::read_dir(env.file("")).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with("core")).count()
    };
    for (program, arguments) in [("narrows", &[][..]), ("capctl", ASKS)] {
        let mut running = Running::start(&env, user, program, arguments, "ulimit -S -c unlimited");
        let row = running.limits().lines().find(|line| line.starts_with("Max core file size")).unwrap().to_owned();
        assert_eq!(row.split_whitespace().nth(4), Some("0"), "{program}: {row}");
        kill(Pid::from_raw(i32::try_from(running.pid()).unwrap()), Signal::SIGABRT).unwrap();
        let status = running.0.wait().unwrap();
        assert_eq!((status.signal(), status.core_dumped()), (Some(6), false), "{program}");
        assert_eq!(cores(), 0, "{program}");
    }
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if pattern.trim() != "core" || getrlimit(Resource::RLIMIT_CORE).unwrap().1 != RLIM_INFINITY {
        return skip("neither_writes_a_core", "its twin needs cores to be files here");
    }
    let mut twin = Command::new("sh");
    twin.args(["-c", "ulimit -c unlimited; kill -ABRT $$"]).uid(user).gid(user).current_dir(env.file(""));
    assert!(twin.status().unwrap().core_dumped());
    assert_eq!(cores(), 1);
}

#[test]
fn the_commands_own_cores_are_as_before() {
    let (env, _origin) = acme();
    let user = ordinary(&env);
    let capctl = env.file("bin/capctl").display().to_string();
    let mut shell = clean(Path::new("/bin/sh"));
    shell.env("NARROWS_HOME", env.home()).env("HOME", env.file("")).uid(user).gid(user).current_dir("/");
    shell.args(["-c", &format!("ulimit -S -c 7; '{capctl}' run --allow acme -- sh -c 'ulimit -S -c'")]);
    assert_eq!(support::client::run(&mut shell, b"").succeeded().stdout, "7\n");
}

#[test]
fn memory_is_locked_where_that_is_allowed() {
    let (env, _origin) = acme();
    let locked = |daemon: u32| {
        let text = std::fs::read_to_string(format!("/proc/{daemon}/status")).unwrap();
        text.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap().trim() != "0 kB"
    };
    let unlimited = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap().1 == RLIM_INFINITY;
    let daemon = env.start();
    if geteuid().is_root() || unlimited {
        assert!(locked(daemon.pid()));
    }
    drop(daemon);
    // Too little may be locked: it runs all the same.
    let user = ordinary(&env);
    let running = Running::start(&env, user, "narrows", &[], "ulimit -l 64");
    assert_eq!(running.status("VmLck"), "0 kB");
}

#[test]
fn no_argument_and_no_variable_holds_anything_secret() {
    let (env, _origin) = acme();
    let root = std::fs::read_to_string(env.home().join("root.key")).unwrap();
    let user = ordinary(&env);
    let running = Running::start(&env, user, "capctl", ASKS, ":");
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", running.pid())).unwrap_or_default();
    let pids: Vec<String> =
        [running.pid().to_string()].into_iter().chain(children.split_whitespace().map(str::to_owned)).collect();
    assert!(pids.len() > 1, "the command is one of them");
    for pid in pids {
        for file in ["cmdline", "environ"] {
            let Ok(bytes) = std::fs::read(format!("/proc/{pid}/{file}")) else { continue };
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.is_empty());
            for secret in [SECRET, root.trim(), "ed25519-private"] {
                assert!(!text.contains(secret), "{file}: {text}");
            }
        }
    }
}
