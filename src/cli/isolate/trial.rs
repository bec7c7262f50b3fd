//! What this kernel allows, found by trying it: for `capctl doctor`.

use std::io;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

use super::door::{Door, List};
use crate::cli::ISOLATED;

/// A kernel answers at once; this is for a machine that is very busy.
const TRIED_WITHIN: Duration = Duration::from_secs(10);

/// One kind of namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum Kind {
    /// In which an ordinary user may make the others.
    User,
    /// In which the home can be hidden.
    Mount,
    /// In which nothing but the forwarder can be reached.
    Network,
    /// In which no process outside can be seen.
    Process,
}

pub(in crate::cli) const KINDS: [Kind; 4] = [Kind::User, Kind::Mount, Kind::Network, Kind::Process];

/// The hidden subcommand's arguments: a process that leaves cannot come back.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Probe {
    kind: Kind,
}

impl Probe {
    pub(in crate::cli) fn run(&self) -> ExitCode {
        let flag = match self.kind {
            Kind::User => CloneFlags::CLONE_NEWUSER,
            Kind::Mount => CloneFlags::CLONE_NEWNS,
            Kind::Network => CloneFlags::CLONE_NEWNET,
            Kind::Process => CloneFlags::CLONE_NEWPID,
        };
        let left = geteuid().is_root() && unshare(flag).is_ok() || unshare(flag | CloneFlags::CLONE_NEWUSER).is_ok();
        let none = None::<&str>;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        let useful = left && (self.kind != Kind::Mount || mount(none, "/", none, private, none).is_ok());
        if useful { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Whether a namespace of this kind can be had.
pub(in crate::cli) fn allows(kind: Kind) -> bool {
    use clap::ValueEnum as _;
    let Some(name) = kind.to_possible_value() else { return false };
    let Ok(own) = std::env::current_exe() else { return false };
    let mut command = Command::new(own);
    command.args([crate::cli::PROBE, name.get_name()]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Isolates a command that does nothing; what was in the way, and what to type about it.
pub(in crate::cli) fn isolate() -> Result<(), (String, Option<String>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let tried = runtime.and_then(|runtime| {
        runtime.block_on(async { tokio::time::timeout(TRIED_WITHIN, attempt()).await.map_err(io::Error::from)? })
    });
    match tried {
        Ok((true, _)) => Ok(()),
        Ok((false, said)) => Err(told(&said, "--isolate")),
        Err(error) => Err((error.to_string(), None)),
    }
}

/// The same with Landlock.
pub(in crate::cli) fn landlock() -> Result<(), (String, Option<String>)> {
    let tried = || -> io::Result<std::process::Output> {
        let folder = tempfile::tempdir()?;
        let list = List::write(folder.path(), &[], &[])?;
        let own = std::env::current_exe()?;
        let mut command = super::restricted(&own, (folder.path(), &list), 1, None, &[], &["true".into()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).current_dir("/").output()
    };
    match tried() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(told(&String::from_utf8_lossy(&output.stderr), "--isolate=landlock")),
        Err(error) => Err((error.to_string(), None)),
    }
}

/// What a stage that failed said.
fn told(said: &str, how: &str) -> (String, Option<String>) {
    let line = |prefix: &str| said.lines().find_map(|line| line.strip_prefix(prefix)).map(str::to_owned);
    let why = line(&format!("capctl: error: {how}: ")).unwrap_or_else(|| said.trim().to_owned());
    (why, line("capctl: hint: "))
}

async fn attempt() -> io::Result<(bool, String)> {
    let folder = tempfile::tempdir()?;
    let door = Door::open(folder.path(), &[])?;
    let mut command = super::command(&std::env::current_exe()?, &door, None, &[], &["true".into()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).current_dir(Path::new("/"));
    let mut command = tokio::process::Command::from(command);
    let child = command.kill_on_drop(true).spawn()?;
    let pid = child.id().unwrap_or_default();
    let ended = child.wait_with_output();
    let mut ended = std::pin::pin!(ended);
    let output = tokio::select! {
        guest = door.meet(pid) => {
            guest?.equip(&[(ISOLATED.to_owned(), String::new())]).await?;
            ended.await?
        }
        output = &mut ended => output?,
    };
    Ok((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()))
}
