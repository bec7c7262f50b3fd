//! System calls that fail because strace says so.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::PATIENCE;
use crate::support::client::{clean, program, skip};
use crate::support::daemon::Daemon;

/// strace, attached to the journal's thread of a running proxy.
pub(crate) struct Injected {
    strace: Child,
}

impl Injected {
    /// Makes system calls of the writer fail from now on: `pwrite64:error=EIO`. Other threads are not touched.
    #[track_caller]
    pub(crate) fn into_writer(daemon: &Daemon, faults: &[&str]) -> Self {
        let mut command = clean(&program("strace").unwrap());
        command.arg("-p").arg(journal_thread(daemon).to_string());
        for fault in faults {
            command.arg("-e").arg(format!("inject={fault}"));
        }
        let calls: Vec<&str> = faults.iter().map(|fault| fault.split(':').next().unwrap()).collect();
        command.args(["-e", &format!("trace={}", calls.join(",")), "-o", "/dev/null"]);
        let mut strace = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(strace.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert!(line.contains("attached"), "{line}");
        Self { strace }
    }

    /// Lets the calls through again.
    pub(crate) fn end(mut self) {
        self.detach();
    }

    fn detach(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.strace.id()).unwrap());
        if self.strace.try_wait().unwrap().is_none() {
            kill(pid, Signal::SIGINT).unwrap();
            self.strace.wait().unwrap();
        }
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        self.detach();
    }
}

/// The writer's thread, which names itself once it runs.
fn journal_thread(daemon: &Daemon) -> i32 {
    let is_journal = |path: &Path| std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name == "journal\n");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut threads =
            std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap().map(|thread| thread.unwrap());
        if let Some(found) = threads.find(|thread| is_journal(&thread.path())) {
            return found.file_name().to_string_lossy().parse().unwrap();
        }
        assert!(Instant::now() < deadline, "no thread of the journal");
        std::thread::yield_now();
    }
}

/// `command` under strace, with these faults in all its threads, in calls on `paths` alone if there are any.
pub(crate) fn under_strace(command: &Command, faults: &[&str], paths: &[&Path]) -> Command {
    let mut traced = clean(&program("strace").unwrap());
    // -D: the traced program is our child, and strace its companion.
    traced.args(["-D", "-f", "-q", "--seccomp-bpf", "-o", "/dev/null"]);
    let calls: Vec<&str> = faults.iter().map(|fault| fault.split(':').next().unwrap()).collect();
    traced.args(["-e", &format!("trace={}", calls.join(","))]);
    for fault in faults {
        traced.arg("-e").arg(format!("inject={fault}"));
    }
    for path in paths {
        traced.arg("-P").arg(path);
    }
    traced.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            traced.env(name, value);
        }
    }
    traced
}

/// Whether strace is here and may look into a hardened process; says why not.
pub(crate) fn may_inject(test: &str) -> bool {
    if program("strace").is_none() {
        skip(test, "strace is not installed");
        return false;
    }
    if !nix::unistd::geteuid().is_root() {
        skip(test, "only root may trace a process that is not dumpable");
        return false;
    }
    true
}
