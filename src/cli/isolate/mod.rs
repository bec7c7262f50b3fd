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
//! Every step that the kernel refuses ends the run: half an isolation is none.

pub(super) mod door;
mod enter;
mod filter;
mod hide;
mod init;
mod leave;
mod loopback;
mod refused;
mod sockets;
pub(super) mod trial;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use refused::Refused;

/// The hidden subcommand's arguments. Made by `capctl run` and by the stages alone.
#[derive(Debug, clap::Args)]
pub(super) struct Isolated {
    stage: Stage,
    /// Where the door is, and the list of what to hide.
    folder: PathBuf,
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
}

impl Isolated {
    /// Returns when the command has ended, or cannot be started.
    pub(super) fn run(self) -> ExitCode {
        let done = match self.stage {
            Stage::Leave => leave::leave(&self),
            Stage::Init => init::init(&self),
            Stage::Enter => enter::enter(&self),
        };
        done.unwrap_or_else(|refused: Refused| {
            let mut stderr = std::io::stderr();
            let _ = writeln!(stderr, "capctl: error: --isolate: {}", refused.why);
            for hint in refused.hints {
                let _ = writeln!(stderr, "capctl: hint: {hint}");
            }
            ExitCode::FAILURE
        })
    }

    /// This program again for the next stage, under whatever the binary's own path shows by then.
    fn next(&self, stage: &str) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.args([super::ISOLATED, stage]).arg(&self.folder);
        if let (Some(user), Some(group)) = (self.user, self.group) {
            command.args(["--user", &user.to_string(), "--group", &group.to_string()]);
        }
        with_rest(&mut command, self.core, &self.say, &self.command);
        command
    }
}

/// The command that `capctl run` starts: the first stage.
pub(super) fn command(program: &Path, folder: &Path, core: Option<u64>, say: &[String], of: &[OsString]) -> Command {
    let mut command = Command::new(program);
    command.args([super::ISOLATED, "leave"]).arg(folder);
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
