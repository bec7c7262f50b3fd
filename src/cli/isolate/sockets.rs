//! Unix sockets in the file system: doors to other processes that no network namespace closes (a container daemon, an
//! ssh agent, a session bus, a terminal multiplexer).

use std::collections::{BTreeSet, VecDeque};
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use crate::cli::child::mounts;

/// Folders that sockets are usually in, looked through as deep as this, and the user's own folder with them: a socket that
/// was renamed after it was bound (ssh does that) is nowhere else.
const LOOKED_THROUGH: [&str; 3] = ["/run", "/tmp", "/var/lib"];
const DEPTH_MAX: u32 = 3;
/// So many entries are looked at in each, so that a full /tmp does not hold up a command.
const ENTRIES_MAX: usize = 20_000;
/// Columns of `/proc/net/unix` before the name.
const NAME_COLUMN: usize = 7;
/// When a socket is bound by a name that says no folder, so many entries of the file system are looked at for it, those near the
/// root first: about a second.
const EVERYWHERE_MAX: usize = 300_000;
/// No files are in there.
const NOT_FILES: [&str; 3] = ["/dev", "/proc", "/sys"];
/// Folders whose sockets may come later: the command gets an empty one of its own.
const FOLDERS: [&str; 2] = ["/tmp/.X11-unix", "/tmp/.ICE-unix"];

/// What was found.
pub(super) struct Sockets {
    /// Sockets and folders of sockets.
    pub(super) found: Vec<PathBuf>,
    /// Names of the kernel's table that say no folder, and lead to no socket that was found.
    pub(super) lost: Vec<String>,
}

/// Sockets and folders of sockets as they are now, but for what is in `ours`.
pub(super) fn look(ours: &Path) -> Sockets {
    let mut folders: Vec<PathBuf> = FOLDERS.into_iter().map(PathBuf::from).collect();
    folders.extend(env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.starts_with("/run")));
    folders.push(format!("/run/user/{}", nix::unistd::geteuid()).into());
    folders.retain(|folder| folder.is_dir());

    let table = fs::read("/proc/net/unix").unwrap_or_default();
    let mut sockets = named(&table);
    let own = env::var_os("HOME").map(PathBuf::from).filter(|own| own.is_absolute());
    for folder in LOOKED_THROUGH.into_iter().map(PathBuf::from).chain(own) {
        walk(&folder, DEPTH_MAX, &mut ENTRIES_MAX.clone(), &mut sockets);
    }
    let is_socket = |path: &PathBuf| fs::metadata(path).is_ok_and(|found| found.file_type().is_socket());
    // A name that was bound as it stood then starts in a folder that its process was in, and mostly still is.
    let folders_of_processes = folders_of_processes();
    let mut lost = Vec::new();
    for name in relative(&table) {
        let before = sockets.len();
        sockets.extend(folders_of_processes.iter().map(|folder| folder.join(name)).filter(is_socket));
        let may_be_abstract = name.as_bytes().starts_with(b"@");
        if sockets.len() == before && !may_be_abstract {
            lost.push(name.to_string_lossy().into_owned());
        }
    }
    if !lost.is_empty() {
        let before = sockets.len();
        walk_everywhere(&mut sockets);
        let is_found = |name: &String| {
            let name = Path::new(name).file_name();
            sockets.get(before..).is_some_and(|found| found.iter().any(|path| path.file_name() == name))
        };
        lost.retain(|name| !is_found(name));
    }
    let all: BTreeSet<PathBuf> =
        sockets.into_iter().filter(is_socket).chain(folders).filter_map(|path| path.canonicalize().ok()).collect();
    Sockets { found: all.into_iter().filter(|path| !path.starts_with(ours)).collect(), lost }
}

/// The names in the kernel's table, of whatever kind: the eighth column and the last. They are bytes: one that is no text must
/// not take the others away.
fn names(table: &[u8]) -> impl Iterator<Item = &OsStr> {
    table.split(|byte| *byte == b'\n').skip(1).filter_map(|line| {
        let mut rest = line;
        for _ in 0..NAME_COLUMN {
            // Numbers stand to the right; a name begins after one blank, and may begin with another.
            let column = rest.trim_ascii_start();
            rest = column.get(column.iter().position(|byte| *byte == b' ')? + 1..)?;
        }
        (!rest.is_empty()).then(|| OsStr::from_bytes(rest))
    })
}

/// Those that start in the folder that a process was in, and abstract ones, which look like a file whose name begins with @.
fn relative(table: &[u8]) -> BTreeSet<&OsStr> {
    names(table).filter(|name| !name.as_bytes().starts_with(b"/")).collect()
}

/// The folders that processes are in, as far as this user may ask.
fn folders_of_processes() -> BTreeSet<PathBuf> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|process| fs::read_link(process.path().join("cwd")).ok()).collect()
}

/// What the kernel says is bound, what is mounted, and what variables name.
fn named(table: &[u8]) -> Vec<PathBuf> {
    let bound = names(table).map(PathBuf::from).filter(|name| name.is_absolute());
    let mounts = mounts::all().into_iter().map(|mount| mount.at);
    let variables = ["SSH_AUTH_SOCK", "DOCKER_HOST", "CONTAINER_HOST", "DBUS_SESSION_BUS_ADDRESS", "TMUX"];
    let variables = variables.into_iter().filter_map(|name| env::var(name).ok()).filter_map(|value| {
        let path = value.get(value.find('/')?..)?;
        let path = path.trim_start_matches("//");
        let path = path.split([',', ';']).next()?;
        Some(format!("/{}", path.trim_start_matches('/')))
    });
    bound.chain(variables.map(PathBuf::from)).chain(mounts).collect()
}

fn walk(folder: &Path, depth: u32, left: &mut usize, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if *left == 0 {
            return;
        }
        *left -= 1;
        match entry.file_type() {
            Ok(kind) if kind.is_socket() => found.push(entry.path()),
            Ok(kind) if kind.is_dir() && depth > 1 => walk(&entry.path(), depth - 1, left, found),
            _ => {}
        }
    }
}

/// Every socket near the root, on disks and on what the root is on.
fn walk_everywhere(found: &mut Vec<PathBuf>) {
    let elsewhere = mounts::all().into_iter().filter(|mount| !mount.is_disk()).map(|mount| mount.at);
    let skipped: BTreeSet<PathBuf> =
        elsewhere.chain(NOT_FILES.map(PathBuf::from)).filter(|at| at.parent().is_some()).collect();
    let mut left = EVERYWHERE_MAX;
    let mut folders = VecDeque::from([PathBuf::from("/")]);
    while let Some(folder) = folders.pop_front() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            if left == 0 {
                return;
            }
            left -= 1;
            match entry.file_type() {
                Ok(kind) if kind.is_socket() => found.push(entry.path()),
                Ok(kind) if kind.is_dir() && !skipped.contains(&entry.path()) => folders.push_back(entry.path()),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let table = b"\
Num       RefCount Protocol Flags    Type St Inode Path
ffff8f3d: 00000002 00000000 00010000 0001 01 123 /run/a b.sock
ffff8f3d: 00000002 00000000 00010000 0001 01  45 rel/b.sock
ffff8f3d: 00000002 00000000 00010000 0001 01 45678 ./c d.sock
ffff8f3d: 00000002 00000000 00010000 0001 01 9 @abstract/e
ffff8f3d: 00000002 00000000 00010000 0001 01 9 @\xff
ffff8f3d: 00000003 00000000 00000000 0001 03 10
";
        let absolute = [Path::new("/run/a b.sock")];
        assert_eq!(names(table).filter(|name| Path::new(name).is_absolute()).collect::<Vec<_>>(), absolute);
        assert_eq!(names(table).count(), 5);
        assert_eq!(
            relative(table).into_iter().collect::<Vec<_>>(),
            [
                OsStr::new("./c d.sock"),
                OsStr::new("@abstract/e"),
                OsStr::from_bytes(b"@\xff"),
                OsStr::new("rel/b.sock")
            ]
        );
    }
}
