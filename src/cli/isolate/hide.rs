//! What is mounted over what: an empty folder over the home, nothing over sockets, a `/proc` of these processes alone, a
//! `/dev` without devices.

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use super::door::Hidden;
use super::refused::Refused;
use crate::cli::child::mounts;

/// What every program may expect, and no disk among it.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
/// Writing there changes the machine, and for root outside any namespace too.
const READ_ONLY: [&str; 10] = [
    "/proc/sys",
    "/proc/sysrq-trigger",
    "/proc/irq",
    "/proc/bus",
    "/proc/fs",
    "/proc/acpi",
    "/proc/asound",
    "/proc/driver",
    "/proc/scsi",
    "/sys",
];

const NONE: Option<&str> = None;

/// Mounts it all. The private is held in its place, too: the next command finds what this one left there. `folder` is
/// outside everything hidden and may be written to.
pub(super) fn hide(folder: &Path, hidden: &Hidden) -> Result<(), Refused> {
    let current = env::current_dir().unwrap_or_else(|_| "/".into());
    // What is mounted here stays here.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .map_err(|error| Refused::inside("the mounts cannot be made private", error))?;
    devices(folder)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, NONE).map_err(|error| {
        Refused::inside("no /proc of its own can be mounted", error)
            .hint("in a container, /proc must not be masked: --security-opt systempaths=unconfined")
    })?;
    for path in READ_ONLY {
        read_only(Path::new(path))?;
    }
    for path in &hidden.private {
        cover(path)?;
    }
    mounts::hold_above(&hidden.private).map_err(|(folder, error)| {
        Refused::inside(&format!("{} cannot be held in its place", folder.display()), error)
    })?;
    for path in &hidden.beside {
        cover(path)?;
    }
    // A working directory stays what it was, also when something is mounted over its path.
    let stayed = current.ancestors().any(|folder| env::set_current_dir(folder).is_ok());
    if stayed { Ok(()) } else { Err(Refused::new("the working directory is hidden")) }
}

/// A folder becomes an empty one, which may be written to where programs expect that; a file or a socket becomes
/// `/dev/null`.
fn cover(path: &Path) -> Result<(), Refused> {
    let failed = |error| Refused::inside(&format!("{} cannot be hidden", path.display()), error);
    // It may be in something hidden already, or gone.
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if !found.is_dir() {
        return match mount(Some("/dev/null"), path, NONE, MsFlags::MS_BIND, NONE) {
            Err(Errno::ENOENT) => Ok(()),
            mounted => mounted.map_err(failed),
        };
    }
    if path.starts_with("/run") || path.starts_with("/tmp") && path.ends_with("-unix") {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        return mount(Some("narrows"), path, Some("tmpfs"), flags, Some("mode=0700,size=16m")).map_err(failed);
    }
    mounts::cover(path).map_err(failed)
}

/// The folder and every mount in it.
fn read_only(path: &Path) -> Result<(), Refused> {
    if !path.exists() {
        return Ok(());
    }
    let failed = |error| Refused::inside(&format!("{} cannot be made read-only", path.display()), error);
    mount(Some(path), path, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE).map_err(failed)?;
    for (at, flags) in mounts_in(path) {
        let flags = flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(NONE, &at, NONE, flags, NONE).map_err(failed)?;
    }
    Ok(())
}

/// Mount points from `path` downwards, each with the flags that it has and that may not be taken away here.
fn mounts_in(path: &Path) -> Vec<(PathBuf, MsFlags)> {
    let inside = mounts::all().into_iter().filter(|mount| mount.at.starts_with(path));
    let flags = |options: &str| options.split(',').filter_map(flag).fold(MsFlags::empty(), MsFlags::union);
    inside.map(|mount| (mount.at, flags(&mount.options))).collect()
}

fn flag(option: &str) -> Option<MsFlags> {
    Some(match option {
        "nosuid" => MsFlags::MS_NOSUID,
        "nodev" => MsFlags::MS_NODEV,
        "noexec" => MsFlags::MS_NOEXEC,
        "noatime" => MsFlags::MS_NOATIME,
        "nodiratime" => MsFlags::MS_NODIRATIME,
        "relatime" => MsFlags::MS_RELATIME,
        _ => return None,
    })
}

/// A `/dev` with the harmless ones: made aside, then moved over the old one.
fn devices(folder: &Path) -> Result<(), Refused> {
    let aside = folder.join("dev");
    let make = || -> std::io::Result<()> {
        fs::create_dir(&aside)?;
        mount(
            Some("narrows"),
            &aside,
            Some("tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
            Some("mode=0755,size=4m"),
        )?;
        for name in DEVICES {
            let old = Path::new("/dev").join(name);
            if old.exists() {
                File::create(aside.join(name))?;
                mount(Some(&old), &aside.join(name), NONE, MsFlags::MS_BIND, NONE)?;
            }
        }
        for name in ["pts", "shm"] {
            fs::create_dir(aside.join(name))?;
        }
        // Terminals of its own. Those outside, in which the same user types, are not for it; the one it runs in is
        // `/dev/tty`.
        let terminals = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        mount(
            Some("devpts"),
            &aside.join("pts"),
            Some("devpts"),
            terminals,
            Some("newinstance,ptmxmode=0666,mode=0620"),
        )?;
        let shared = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("narrows"), &aside.join("shm"), Some("tmpfs"), shared, Some("mode=1777"))?;
        for (name, to) in LINKS {
            symlink(to, aside.join(name))?;
        }
        mount(Some(&aside), "/dev", NONE, MsFlags::MS_MOVE, NONE)?;
        Ok(())
    };
    make().map_err(|error| Refused::inside("/dev cannot be replaced", error))
}
