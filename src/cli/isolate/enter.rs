//! enter: the last doors close, and this process becomes the command.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::SigSet;

use super::filter::{self, Beside};
use super::refused::Refused;
use super::{Isolated, door};
use crate::cli::child::{environment::UNSET, hide};

pub(super) fn enter(this: &Isolated) -> Result<ExitCode, Refused> {
    match (this.user, this.group) {
        (Some(user), Some(group)) => go_deeper(user, group)?,
        _ => hide::namespace::lock().map_err(|_| Refused::undoable())?,
    }
    // A program with set-uid powers would be somebody else.
    prctl::set_no_new_privs().map_err(|error| Refused::of("no_new_privs", error))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| Refused::of("127.0.0.1", error))?;
    let variables = door::knock(&this.folder, &listener).map_err(|error| Refused::of("the forwarder", error))?;
    drop(listener);
    filter::apply(Beside::Namespaces)?;
    SigSet::empty().thread_set_mask().map_err(|error| Refused::of("signals", error))?;
    Ok(become_command(this, variables))
}

/// Returns only when the command cannot be executed.
pub(super) fn become_command(this: &Isolated, variables: Vec<(OsString, OsString)>) -> ExitCode {
    this.core.into_iter().for_each(crate::process::allow_core);
    this.say.iter().for_each(|line| hide::say(line));
    let Some((program, arguments)) = this.command.split_first() else { return ExitCode::from(2) };
    let mut command = Command::new(program);
    command.args(arguments).envs(variables);
    for name in UNSET {
        command.env_remove(name);
    }
    let error = command.exec();
    hide::cannot_run(program, &error)
}

/// Into a user namespace inside the one that made all this, under the name that the user has outside: what is mounted
/// stays mounted (`mount_namespaces(7)`), and no process of the outer one can be traced.
fn go_deeper(user: u32, group: u32) -> Result<(), Refused> {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).map_err(Refused::namespaces)?;
    fs::write("/proc/self/uid_map", format!("{user} 0 1"))
        .and_then(|()| fs::write("/proc/self/gid_map", format!("{group} 0 1")))
        .map_err(|error| Refused::inside("the user cannot be named in the inner namespace", error))
}
