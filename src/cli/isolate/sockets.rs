//! Unix sockets in the file system: doors to other processes that no network namespace closes (a container daemon, an
//! ssh agent, a session bus, a terminal multiplexer).

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use crate::cli::child::mounts;

/// Folders that sockets are usually in, looked through as deep as this, and the user's own folder with them: a socket that
/// was renamed after it was bound (ssh does that) is nowhere else.
const LOOKED_THROUGH: [&str; 3] = ["/run", "/tmp", "/var/lib"];
const DEPTH_MAX: u32 = 3;
/// So many entries are looked at in each, so that a full /tmp does not hold up a command.
const ENTRIES_MAX: usize = 20_000;
/// Folders whose sockets may come later: the command gets an empty one of its own.
const FOLDERS: [&str; 2] = ["/tmp/.X11-unix", "/tmp/.ICE-unix"];

/// Sockets and folders of sockets as they are now, but for what is in `ours`.
pub(super) fn found(ours: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = FOLDERS.into_iter().map(PathBuf::from).collect();
    folders.extend(env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.starts_with("/run")));
    folders.push(format!("/run/user/{}", nix::unistd::geteuid()).into());
    folders.retain(|folder| folder.is_dir());

    let mut sockets = named();
    let own = env::var_os("HOME").map(PathBuf::from).filter(|own| own.is_absolute());
    for folder in LOOKED_THROUGH.into_iter().map(PathBuf::from).chain(own) {
        look(&folder, DEPTH_MAX, &mut ENTRIES_MAX.clone(), &mut sockets);
    }
    let is_socket = |path: &PathBuf| fs::metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let all: BTreeSet<PathBuf> =
        sockets.into_iter().filter(is_socket).chain(folders).filter_map(|path| path.canonicalize().ok()).collect();
    all.into_iter().filter(|path| !path.starts_with(ours)).collect()
}

/// What the kernel says is bound, what is mounted, and what variables name.
fn named() -> Vec<PathBuf> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let bound = read("/proc/net/unix");
    // The path is the eighth column and the last; an abstract name begins with @.
    let bound = bound.lines().filter_map(|line| line.split_once('/').map(|(_, path)| format!("/{path}")));
    let mounts = mounts::all().into_iter().map(|mount| mount.at);
    let variables = ["SSH_AUTH_SOCK", "DOCKER_HOST", "CONTAINER_HOST", "DBUS_SESSION_BUS_ADDRESS", "TMUX"];
    let variables = variables.into_iter().filter_map(|name| env::var(name).ok()).filter_map(|value| {
        let path = value.get(value.find('/')?..)?;
        let path = path.trim_start_matches("//");
        let path = path.split([',', ';']).next()?;
        Some(format!("/{}", path.trim_start_matches('/')))
    });
    bound.chain(variables).map(PathBuf::from).chain(mounts).collect()
}

fn look(folder: &Path, depth: u32, left: &mut usize, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if *left == 0 {
            return;
        }
        *left -= 1;
        match entry.file_type() {
            Ok(kind) if kind.is_socket() => found.push(entry.path()),
            Ok(kind) if kind.is_dir() && depth > 1 => look(&entry.path(), depth - 1, left, found),
            _ => {}
        }
    }
}
