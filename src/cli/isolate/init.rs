//! init: process 1 of the new namespaces.

use std::process::ExitCode;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, wait};

use super::refused::Refused;
use super::{Isolated, door, hide, loopback};

pub(super) fn init(this: &Isolated) -> Result<ExitCode, Refused> {
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    loopback::up().map_err(|error| Refused::inside("loopback cannot be put up", error))?;
    hide::hide(&this.folder, &door::hidden(&this.folder, &this.list)?)?;
    let command = this.next("enter").spawn().map_err(|error| Refused::of("the command's process", error))?;
    let command = i32::try_from(command.id()).unwrap_or(0);
    // Whatever loses its parent in here is ours to bury. When this process ends, so does everything here.
    let code = loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, code)) if pid.as_raw() == command => break code,
            // As shells have it.
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() == command => break 128 + signal as i32,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(Refused::of("the command cannot be waited for", error)),
        }
    };
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
