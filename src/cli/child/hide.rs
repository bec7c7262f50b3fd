//! Between `capctl run` and its command: hide the home, then become the command.
//!
//! On Linux this process leaves for a mount namespace of its own, puts an empty read-only folder over the home, and
//! executes the command. The folders above are held in their places, and a user namespace goes with it: without it an
//! ordinary user may not mount, and with it the command can neither undo the mount nor reach the home through another
//! process (`/proc/PID/root`, `ptrace`).

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// The hidden subcommand's arguments. Made by `capctl run` alone.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Become {
    /// The home, which is hidden, and what of it lies elsewhere.
    #[arg(long)]
    hide: Vec<PathBuf>,
    /// What to say on stderr before the command starts.
    #[arg(long)]
    say: Vec<String>,
    /// How large a core of the command may be.
    #[arg(long)]
    core: Option<u64>,
    /// Says on standard input when the process whose number this is waits for its user map.
    #[arg(long)]
    map: Option<u32>,
    /// The command.
    #[arg(last = true)]
    command: Vec<OsString>,
}

impl Become {
    /// Returns only when the command cannot be executed.
    pub(in crate::cli) fn run(self) -> ExitCode {
        #[cfg(target_os = "linux")]
        if let Some(pid) = self.map {
            return namespace::map(pid);
        }
        if let Some(home) = self.hide.first() {
            #[cfg(target_os = "linux")]
            let hidden = namespace::hide(&self.hide);
            #[cfg(not(target_os = "linux"))]
            let hidden = Err("this system has no mount namespaces");
            if let Err(why) = hidden {
                let home = home.display();
                say(&format!("warning: the agent can read {home} and the keys in it: {why}"));
            }
        }
        self.core.into_iter().for_each(crate::process::allow_core);
        self.say.iter().for_each(|line| say(line));
        let Some((program, arguments)) = self.command.split_first() else { return ExitCode::from(2) };
        let error = Command::new(program).args(arguments).exec();
        cannot_run(program, &error)
    }
}

/// Says so, and gives the status that shells give.
pub(in crate::cli) fn cannot_run(program: &OsStr, error: &std::io::Error) -> ExitCode {
    let mut stderr = std::io::stderr();
    let _ = writeln!(stderr, "capctl: error: cannot run {}: {error}", program.display());
    ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 })
}

/// A line that begins with what it is: `warning: …`, `note: …`.
pub(in crate::cli) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "capctl: {line}");
}

#[cfg(target_os = "linux")]
pub(in crate::cli) mod namespace {
    use std::env;
    use std::fs;
    use std::io::Read as _;
    use std::path::{Path, PathBuf};
    use std::process::{Command, ExitCode, Stdio};

    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    use nix::unistd::{getegid, geteuid};

    use super::super::mounts;

    /// Puts nothing over these for this process and what it becomes.
    pub(super) fn hide(paths: &[PathBuf]) -> Result<(), &'static str> {
        let paths = paths.iter().map(|path| path.canonicalize());
        let paths = paths.collect::<Result<Vec<_>, _>>().map_err(|_| "it cannot be found")?;
        let current = env::current_dir();
        let root = geteuid().is_root();
        if root {
            unshare(CloneFlags::CLONE_NEWNS).map_err(|_| "this system forbids mount namespaces")?;
        } else {
            leave()?;
        }
        // Before the first of them is covered and no longer what it was.
        let names: Vec<_> = paths.iter().flat_map(|path| mounts::everywhere(path)).collect();
        private()?;
        names.iter().try_for_each(|name| cover(name))?;
        mounts::hold_above(&names).map_err(|_| "it is hidden, but another can be put in its place")?;
        // A working directory stays what it was, also when something is mounted over its path.
        if current.is_ok_and(|current| !current.ancestors().any(|folder| env::set_current_dir(folder).is_ok())) {
            return Err("the working directory is in it");
        }
        if root { lock() } else { Ok(()) }
    }

    /// What is mounted here stays here.
    fn private() -> Result<(), &'static str> {
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
            .map_err(|_| "the mounts cannot be made private")
    }

    /// A folder becomes an empty one, a file `/dev/null`.
    fn cover(path: &Path) -> Result<(), &'static str> {
        let none = None::<&str>;
        if !path.is_dir() {
            return mount(Some("/dev/null"), path, none, MsFlags::MS_BIND, none)
                .map_err(|_| "nothing can be mounted over a file of it");
        }
        mounts::cover(path).map_err(|_| "nothing can be mounted over it")
    }

    const BOTH: CloneFlags = CloneFlags::CLONE_NEWUSER.union(CloneFlags::CLONE_NEWNS);

    /// An ordinary user into namespaces of their own. Executing the command takes their powers there away again.
    fn leave() -> Result<(), &'static str> {
        let (user, group) = (geteuid(), getegid());
        unshare(BOTH).map_err(|_| "this system forbids user namespaces")?;
        fs::write("/proc/self/setgroups", "deny")
            .and_then(|()| fs::write("/proc/self/uid_map", format!("{user} {user} 1")))
            .and_then(|()| fs::write("/proc/self/gid_map", format!("{group} {group} 1")))
            .map_err(|_| "this system forbids user namespaces")
    }

    /// root into a second pair of namespaces, which inherits the mounts and may not undo them. All users of the machine
    /// stay who they are, which only a process outside may say.
    pub(in crate::cli) fn lock() -> Result<(), &'static str> {
        const OPEN: &str = "it is hidden, but the agent is root and can undo that";
        let mut mapper = mapper().map_err(|_| OPEN)?;
        if unshare(BOTH).is_err() {
            let _ = mapper.kill();
            let _ = mapper.wait();
            return Err(OPEN);
        }
        drop(mapper.stdin.take());
        match mapper.wait() {
            Ok(status) if status.success() => Ok(()),
            _ => Err(OPEN),
        }
    }

    fn mapper() -> std::io::Result<std::process::Child> {
        let mut command = Command::new(env::current_exe()?);
        command.args([super::super::super::CHILD, "--map", &std::process::id().to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    }

    /// The helper: waits until standard input ends, then maps every user of this namespace into that of `pid`.
    pub(super) fn map(pid: u32) -> ExitCode {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let own = |file: &str| fs::read_to_string(format!("/proc/self/{file}"));
        let mapped = ["uid_map", "gid_map"].iter().try_for_each(|file| {
            // Ours says how our users are called outside; the new one keeps our names.
            let rows: Vec<String> = own(file)?
                .lines()
                .filter_map(|row| {
                    let mut columns = row.split_whitespace();
                    let (first, _, count) = (columns.next()?, columns.next()?, columns.next()?);
                    Some(format!("{first} {first} {count}\n"))
                })
                .collect();
            fs::write(format!("/proc/{pid}/{file}"), rows.concat())
        });
        if mapped.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
