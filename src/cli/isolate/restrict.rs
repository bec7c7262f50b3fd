//! restrict: a command held by Landlock, for machines that give no namespaces.
//!
//! Landlock only ever allows: to leave the home out, everything beside the way to it is listed, and nothing on the way.
//! What comes into being on the way later is not allowed either. It knows ports and no addresses, and nothing of the
//! modes and owners of files; `docs/run.md` says what follows from that.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, NetPort, PathBeneath, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError, Scope,
};
use nix::libc;
use nix::sys::prctl;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set, remove_capability_from_bounding_set, set_capabilities,
};

use super::filter::{self, Beside};
use super::refused::Refused;
use super::{Isolated, descriptors, door, enter};

/// Files of this and TCP are held, or nothing runs (Linux 6.7).
const NEEDED: ABI = ABI::V4;
/// Held where the kernel can: devices (6.10), signals and abstract sockets (6.12).
const WANTED: ABI = ABI::V6;
/// What is left of `/dev`. The terminals there are other commands' and the user's own.
const DEVICES: [&str; 7] = ["null", "zero", "full", "random", "urandom", "tty", "shm"];
/// May be read, not written: what root writes there changes the machine.
const READ_ONLY: [&str; 2] = ["/proc", "/sys"];

pub(super) fn restrict(this: &Isolated) -> Result<ExitCode, Refused> {
    let port = this.port.ok_or_else(|| Refused::new("no port of the forwarder"))?;
    let list = door::hidden(&this.folder, &this.list)?;
    descriptors::check(&list)?;
    prctl::set_no_new_privs().map_err(|error| Refused::of("no_new_privs", error))?;
    let mut hidden: Vec<PathBuf> = list.all().cloned().collect();
    // A user's own services listen to what lies there.
    hidden.push(format!("/run/user/{}", nix::unistd::geteuid()).into());
    hold(port, &hidden).map_err(|error| {
        Refused::of("Landlock", error).hint("Linux 6.7 or later, with `landlock` in the kernel's list of `lsm=`")
    })?;
    filter::apply(Beside::Landlock)?;
    Ok(enter::become_command(this, Vec::new()))
}

fn hold(port: u16, hidden: &[PathBuf]) -> Result<(), Box<dyn std::error::Error>> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(NEEDED))?
        .handle_access(AccessNet::ConnectTcp)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WANTED))?
        .scope(Scope::from_all(WANTED))?
        .create()?
        .add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
    // Names can be listed everywhere, as they can be asked for one by one: a `/` that does not list breaks much.
    let mut rules = Rules { ruleset: Some(ruleset) };
    rules.allow(Path::new("/"), AccessFs::ReadDir.into())?;
    rules.beside(Path::new("/"), hidden)?;
    for name in DEVICES {
        rules.allow(&Path::new("/dev").join(name), AccessFs::from_all(WANTED))?;
    }
    for number in 0..3 {
        // The terminal it runs in, under its own name.
        let Ok(own) = fs::read_link(format!("/proc/self/fd/{number}")) else { continue };
        if own.starts_with("/dev/pts") {
            rules.allow(&own, AccessFs::from_all(WANTED))?;
        }
    }
    // Afterwards: what is looked up above may need them.
    drop_powers()?;
    if let Some(ruleset) = rules.ruleset {
        ruleset.restrict_self()?;
    }
    Ok(())
}

struct Rules {
    ruleset: Option<RulesetCreated>,
}

impl Rules {
    /// Allows everything below `folder` but what is hidden, and nothing to make or remove on the way to that.
    fn beside(&mut self, folder: &Path, hidden: &[PathBuf]) -> Result<(), RulesetError> {
        let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path == Path::new("/dev") || hidden.contains(&path) {
                continue;
            }
            if hidden.iter().any(|hidden| hidden.starts_with(&path)) {
                self.beside(&path, hidden)?;
            } else if READ_ONLY.iter().any(|kept| path == Path::new(kept)) {
                self.allow(&path, AccessFs::from_read(WANTED))?;
            } else {
                self.allow(&path, AccessFs::from_all(WANTED))?;
            }
        }
        Ok(())
    }

    /// What is not there, or may not be reached anyway, needs no rule; a link is no place, and what it names has its own.
    fn allow(&mut self, path: &Path, access: BitFlags<AccessFs>) -> Result<(), RulesetError> {
        let Some((file, is_folder)) = place(path) else { return Ok(()) };
        let access = if is_folder { access } else { access & AccessFs::from_file(WANTED) };
        if let Some(ruleset) = self.ruleset.take() {
            self.ruleset = Some(ruleset.add_rule(PathBeneath::new(file, access))?);
        }
        Ok(())
    }
}

fn place(path: &Path) -> Option<(File, bool)> {
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let kind = file.metadata().ok()?.file_type();
    (!kind.is_symlink()).then_some((file, kind.is_dir()))
}

/// root without powers is an owner of files like any other.
fn drop_powers() -> Result<(), rustix::io::Errno> {
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        // A number that the kernel does not know is an error, and what is gone already need not go.
        if capability_is_in_bounding_set(one).unwrap_or(false) {
            remove_capability_from_bounding_set(one).or_else(|error| {
                // An ordinary user may not, and gains nothing by them: no program gives powers any more (no_new_privs).
                if nix::unistd::geteuid().is_root() { Err(error) } else { Ok(()) }
            })?;
        }
    }
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
}
