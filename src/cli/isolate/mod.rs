//! `capctl run --isolate`: a command that reaches its forwarder and nothing else.
//!
//! Three processes, each this program again, stand between `capctl run` and the command, because a process can be in only
//! one place at a time and no `fork` is used:
//!
//! 1. `leave` goes into network, process, mount and IPC namespaces of its own, and for an ordinary user into a user
//!    namespace that allows the others.
//! 2. `init` is process 1 in there: it puts loopback up, hides what must not be seen, and ends when the command ends, which
//!    ends everything that the command started.
//! 3. `enter` goes into a user namespace inside that one, so that nothing of it can be undone, passes a listening socket
//!    out to the forwarder (`door`), forbids what leads around namespaces (`filter`), and becomes the command.
//!
//! `--isolate=landlock` is one stage, `restrict`, which holds less and needs no namespaces.
//!
//! Every step that the kernel refuses ends the run: half an isolation is none, and neither kind stands in for the other.

mod descriptors;
pub(super) mod door;
mod enter;
mod filter;
mod hide;
mod init;
mod leave;
mod loopback;
mod refused;
mod restrict;
mod sockets;
pub(super) mod trial;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use door::{Door, List};
use refused::Refused;

/// The hidden subcommand's arguments. Made by `capctl run` and by the stages alone.
#[derive(Debug, clap::Args)]
pub(super) struct Isolated {
    stage: Stage,
    /// Where the door is, and the list of what to hide.
    folder: PathBuf,
    /// The digest of that list.
    #[arg(long)]
    list: String,
    /// The forwarder's, where there is no network of its own.
    #[arg(long)]
    port: Option<u16>,
    /// The user and the group outside, when a user namespace was needed to leave.
    #[arg(long, requires = "group")]
    user: Option<u32>,
    #[arg(long, requires = "user")]
    group: Option<u32>,
    /// How large a core of the command may be.
    #[arg(long)]
    core: Option<u64>,
    /// What to say on stderr before the command starts.
    #[arg(long)]
    say: Vec<String>,
    /// The command.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Stage {
    Leave,
    Init,
    Enter,
    Restrict,
}

impl Isolated {
    /// Returns when the command has ended, or cannot be started.
    pub(super) fn run(self) -> ExitCode {
        let done = match self.stage {
            Stage::Leave => leave::leave(&self),
            Stage::Init => init::init(&self),
            Stage::Enter => enter::enter(&self),
            Stage::Restrict => restrict::restrict(&self),
        };
        done.unwrap_or_else(|refused: Refused| {
            let mut stderr = std::io::stderr();
            let how = if self.port.is_some() { "--isolate=landlock" } else { "--isolate" };
            let _ = writeln!(stderr, "capctl: error: {how}: {}", refused.why);
            for hint in refused.hints {
                let _ = writeln!(stderr, "capctl: hint: {hint}");
            }
            ExitCode::FAILURE
        })
    }

    /// This program again for the next stage, under whatever the binary's own path shows by then.
    fn next(&self, stage: &str) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.args([super::ISOLATED, stage, "--list", &self.list]).arg(&self.folder);
        if let (Some(user), Some(group)) = (self.user, self.group) {
            command.args(["--user", &user.to_string(), "--group", &group.to_string()]);
        }
        with_rest(&mut command, self.core, &self.say, &self.command);
        command
    }
}

/// The command that `capctl run` starts: the first stage.
pub(super) fn command(program: &Path, door: &Door, core: Option<u64>, say: &[String], of: &[OsString]) -> Command {
    let mut command = Command::new(program);
    command.args([super::ISOLATED, "leave", "--list", &door.list().sha256]).arg(door.folder());
    with_rest(&mut command, core, say, of);
    command
}

/// The same for Landlock: the list is in `folder`, and the forwarder listens already.
pub(super) fn restricted(
    program: &Path,
    (folder, list): (&Path, &List),
    port: u16,
    core: Option<u64>,
    say: &[String],
    of: &[OsString],
) -> Command {
    let mut command = Command::new(program);
    command.args([super::ISOLATED, "restrict", "--list", &list.sha256, "--port", &port.to_string()]).arg(folder);
    with_rest(&mut command, core, say, of);
    command
}

/// What every stage passes to the next.
fn with_rest(command: &mut Command, core: Option<u64>, say: &[String], of: &[OsString]) {
    if let Some(core) = core {
        command.args(["--core", &core.to_string()]);
    }
    for line in say {
        command.arg("--say").arg(line);
    }
    command.arg("--").args(of);
}
