//! Running somebody else's program: found or skipped, bounded in time, in an environment that we know.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::PATIENCE;

/// How often a running client is looked at.
const POLL: Duration = Duration::from_millis(5);

/// What a program said and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Both streams, for what must or must not be said anywhere.
    pub(crate) fn said(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }

    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.said());
        self
    }

    #[track_caller]
    pub(crate) fn failed(self) -> Self {
        assert_ne!(self.code, Some(0), "{}", self.said());
        self
    }

    #[track_caller]
    pub(crate) fn says(self, words: &str) -> Self {
        assert!(self.said().contains(words), "expected to read {words:?} in:\n{}", self.said());
        self
    }

    #[track_caller]
    pub(crate) fn never_says(self, words: &str) -> Self {
        assert!(!self.said().contains(words), "did not expect to read {words:?} in:\n{}", self.said());
        self
    }
}

/// Runs `command` to its end with `input`; kills it, and fails, when it takes too long.
#[track_caller]
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Ran {
    run_within(command, input, PATIENCE * 3)
}

#[track_caller]
pub(crate) fn run_within(command: &mut Command, input: &[u8], limit: Duration) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A program may end without having read its input.
    let feeder = thread::spawn(move || drop(stdin.write_all(&input)));
    let (stdout, stderr) = (collect(child.stdout.take().unwrap()), collect(child.stderr.take().unwrap()));
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        thread::sleep(POLL);
    };
    feeder.join().unwrap();
    let ran = Ran {
        code: status.and_then(|status| status.code()),
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    };
    assert!(status.is_some(), "{command:?} did not end in {limit:?}:\n{}", ran.said());
    ran
}

fn collect(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Says that `test` cannot run here; a failure where the clients were promised (`NARROWS_REQUIRE_CLIENTS=1`).
pub(crate) fn skip(test: &str, why: &str) {
    assert!(std::env::var_os("NARROWS_REQUIRE_CLIENTS").is_none(), "{test}: {why}");
    // Not `eprintln!`, which the test harness swallows when the test passes.
    let _ = writeln!(std::io::stderr(), "SKIP {test}: {why}");
}

/// The program's path, `None` when it is not on this machine.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// Where `tests/clients/install` puts the clients that no distribution packages in a fitting version.
pub(crate) fn installed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients")
}

/// A Python that can import `modules`: the installed one, else the machine's.
pub(crate) fn python(modules: &str) -> Option<PathBuf> {
    let candidates = [Some(installed().join("venv/bin/python")), program("python3")];
    candidates.into_iter().flatten().find(|python| {
        let script = if modules.is_empty() { String::new() } else { format!("import {modules}") };
        let status = Command::new(python).args(["-c", &script]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    })
}

/// A node that can require `package` from the installed ones, and the `NODE_PATH` for it.
pub(crate) fn node(package: &str) -> Option<(PathBuf, PathBuf)> {
    let modules = installed().join("node/node_modules");
    let present = package.is_empty() || modules.join(package).is_dir();
    Some((program("node").filter(|_| present)?, modules))
}

/// A command that inherits nothing but where programs are.
pub(crate) fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LANG", "C.UTF-8");
    for kept in ["PATH", "LD_LIBRARY_PATH", "TMPDIR"] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    command
}
