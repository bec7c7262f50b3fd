//! The table of mounts: what is mounted where, and under which other names a folder can be reached.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

const NONE: Option<&str> = None;

/// One row of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
pub(in crate::cli) struct Mount {
    /// `major:minor` of the filesystem.
    device: String,
    /// What of the filesystem is mounted.
    root: PathBuf,
    /// Where.
    pub(in crate::cli) at: PathBuf,
    /// With which options, separated by commas.
    pub(in crate::cli) options: String,
}

impl Mount {
    /// Whether a device of blocks is behind it, and no network and no program, which may never answer.
    pub(in crate::cli) fn is_disk(&self) -> bool {
        !self.device.starts_with("0:")
    }
}

/// Every mount of this namespace, in the order in which they were made.
pub(in crate::cli) fn all() -> Vec<Mount> {
    rows(&fs::read("/proc/self/mountinfo").unwrap_or_default())
}

/// Bytes, and not text: one name that is none must not take the others away.
fn rows(table: &[u8]) -> Vec<Mount> {
    table.split(|byte| *byte == b'\n').filter_map(row).collect()
}

fn row(line: &[u8]) -> Option<Mount> {
    let mut columns = line.split(|byte| *byte == b' ').skip(2);
    let text = |column: &[u8]| String::from_utf8_lossy(column).into_owned();
    let device = text(columns.next()?);
    let (root, at) = (unescaped(columns.next()?), unescaped(columns.next()?));
    Some(Mount { device, root, at, options: text(columns.next()?) })
}

/// mountinfo writes blanks, line feeds and backslashes as `\040`: three octal digits.
fn unescaped(mut field: &[u8]) -> PathBuf {
    let octal = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok();
    let mut path = Vec::with_capacity(field.len());
    while let Some((first, rest)) = field.split_first() {
        let escaped = rest.get(..3).filter(|_| *first == b'\\').and_then(octal);
        path.push(escaped.unwrap_or(*first));
        field = if escaped.is_some() { &rest[3..] } else { rest };
    }
    OsString::from_vec(path).into()
}

/// `path`, which is canonical, under all the names that mounts give it or a part of it: a folder that is bound to a
/// second place is not hidden by what hides the first.
pub(in crate::cli) fn everywhere(path: &Path) -> Vec<PathBuf> {
    names(path, &all(), |name, other| match (fs::symlink_metadata(name), fs::symlink_metadata(other)) {
        (Ok(name), Ok(other)) => (name.dev(), name.ino()) == (other.dev(), other.ino()),
        _ => false,
    })
}

fn names(path: &Path, mounts: &[Mount], same: impl Fn(&Path, &Path) -> bool) -> Vec<PathBuf> {
    let mut names = vec![path.to_owned()];
    let Some(own) =
        mounts.iter().filter(|mount| path.starts_with(&mount.at)).max_by_key(|mount| mount.at.as_os_str().len())
    else {
        return names;
    };
    let Ok(inside) = path.strip_prefix(&own.at) else { return names };
    let place = own.root.join(inside);
    for mount in mounts.iter().filter(|mount| mount.device == own.device) {
        let (name, real) = if let Ok(below) = place.strip_prefix(&mount.root) {
            (mount.at.join(below), path.to_owned())
        } else if let Ok(part) = mount.root.strip_prefix(&place) {
            (mount.at.clone(), path.join(part))
        } else {
            continue;
        };
        // Another mount may lie over it.
        if !names.contains(&name) && !name.starts_with(path) && same(&name, &real) {
            names.push(name);
        }
    }
    names
}

/// Holds the folders above these in their places; nothing can be put there that the next command would find instead.
///
/// A folder that something is mounted on, anywhere in this namespace, can be neither renamed nor removed in it (`rename(2)`,
/// `EBUSY`). So the whole tree is mounted a second time, out of sight below one of the hidden folders, and something is
/// mounted on each of these folders there. Where the command sees them they stay one filesystem, across which it may rename
/// and link as before. Comes after `hidden` has been covered, so that the second tree shows nothing either.
pub(in crate::cli) fn hold_above(hidden: &[PathBuf]) -> Result<(), (PathBuf, Errno)> {
    let Some(first) = hidden.first() else { return Ok(()) };
    // One may lie in another, and is not there any more.
    let aside = hidden.iter().find(|path| path.is_dir()).ok_or((first.clone(), Errno::ENOENT))?;
    let failed = |error| (aside.clone(), error);
    mount(Some("/"), aside, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE).map_err(failed)?;
    let above: BTreeSet<&Path> = hidden.iter().flat_map(|path| path.ancestors().skip(1)).collect();
    // The deepest first: afterwards there is no way through what is above it.
    for folder in above.into_iter().rev().filter(|folder| folder.parent().is_some()) {
        let Ok(inside) = folder.strip_prefix("/") else { continue };
        match cover(&aside.join(inside)) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => return Err((folder.to_owned(), error)),
        }
    }
    cover(aside).map_err(failed)
}

/// Puts an empty folder over this one, in which nothing can be made.
pub(in crate::cli) fn cover(folder: &Path) -> nix::Result<()> {
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("narrows"), folder, Some("tmpfs"), flags, Some("mode=0555,size=4k"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 8:2 / /home rw,relatime shared:2 - ext4 /dev/sda2 rw
23 21 8:2 /ann /mnt/with\\040blank rw,relatime shared:2 - ext4 /dev/sda2 rw
24 21 8:2 /ann/data/home/audit /srv/audit rw,relatime - ext4 /dev/sda2 rw
25 21 8:2 /bob /srv/bob rw,relatime - ext4 /dev/sda2 rw
26 21 8:3 /ann /srv/other rw,relatime - ext4 /dev/sda3 rw
";

    #[test]
    fn a_folder_is_found_under_every_name_that_mounts_give_it() {
        let mounts = rows(TABLE.as_bytes());
        let found = |same: fn(&Path, &Path) -> bool| names(Path::new("/home/ann/data/home"), &mounts, same);
        let all = ["/home/ann/data/home", "/mnt/with blank/data/home", "/srv/audit"];
        assert_eq!(found(|_, _| true), all.map(PathBuf::from));
        // What is covered by something else is another file.
        assert_eq!(found(|_, _| false), [PathBuf::from(all[0])]);
    }

    #[test]
    fn a_name_that_is_no_text_hides_no_other() {
        let table = b"22 21 8:2 / /mnt/\xff\\134x rw - ext4 x rw\n23 21 8:2 / /mnt/b\\012c\\9 rw - ext4 x rw\n";
        let at: Vec<_> = rows(table).into_iter().map(|mount| mount.at.into_os_string().into_vec()).collect();
        assert_eq!(at, [&b"/mnt/\xff\\x"[..], b"/mnt/b\nc\\9"]);
    }
}
