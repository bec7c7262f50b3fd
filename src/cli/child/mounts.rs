//! The table of mounts: what is mounted where, and under which other names a folder can be reached.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

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

/// Every mount of this namespace, in the order in which they were made.
pub(in crate::cli) fn all() -> Vec<Mount> {
    fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines().filter_map(row).collect()
}

fn row(line: &str) -> Option<Mount> {
    let mut columns = line.split(' ').skip(2);
    let device = columns.next()?.to_owned();
    let (root, at) = (PathBuf::from(unescaped(columns.next()?)), PathBuf::from(unescaped(columns.next()?)));
    Some(Mount { device, root, at, options: columns.next()?.to_owned() })
}

/// mountinfo writes blanks as `\040`.
fn unescaped(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
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
        let mounts: Vec<_> = TABLE.lines().filter_map(row).collect();
        let found = |same: fn(&Path, &Path) -> bool| names(Path::new("/home/ann/data/home"), &mounts, same);
        let all = ["/home/ann/data/home", "/mnt/with blank/data/home", "/srv/audit"];
        assert_eq!(found(|_, _| true), all.map(PathBuf::from));
        // What is covered by something else is another file.
        assert_eq!(found(|_, _| false), [PathBuf::from(all[0])]);
    }
}
