//! leave: into namespaces of our own.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{getegid, geteuid};

use super::refused::Refused;
use super::{Isolated, descriptors, door};

pub(super) fn leave(this: &Isolated) -> Result<ExitCode, Refused> {
    descriptors::check(&door::hidden(&this.folder, &this.list)?)?;
    // Signals are for the command alone. Until it takes them, they wait.
    SigSet::all().thread_block().map_err(|error| Refused::of("signals", error))?;
    // What cannot be reached any more should not stay.
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    let (user, group) = (geteuid(), getegid());
    let own = unshared()?;
    let mut next = Isolated {
        stage: this.stage,
        folder: this.folder.clone(),
        list: this.list.clone(),
        port: None,
        user: own.then_some(user.as_raw()),
        group: own.then_some(group.as_raw()),
        core: this.core,
        say: this.say.clone(),
        command: this.command.clone(),
    }
    .next("init");
    let status = next.status().map_err(|error| Refused::of("process 1 cannot be started", error))?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// Leaves; true when a user namespace was needed for it, in which this user is root.
fn unshared() -> Result<bool, Refused> {
    let apart =
        CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC;
    let (user, group) = (geteuid(), getegid());
    // root keeps all users of the machine; root of a container may have the name and not the power.
    if user.is_root() {
        match unshare(apart) {
            Ok(()) => return Ok(false),
            Err(Errno::EPERM) => {}
            Err(error) => return Err(Refused::namespaces(error)),
        }
    }
    unshare(apart | CloneFlags::CLONE_NEWUSER).map_err(Refused::namespaces)?;
    fs::write("/proc/self/setgroups", "deny")
        .and_then(|()| fs::write("/proc/self/uid_map", format!("0 {user} 1")))
        .and_then(|()| fs::write("/proc/self/gid_map", format!("0 {group} 1")))
        .map_err(|error| Refused::inside("no user can be named in the new namespace", error))?;
    Ok(true)
}
