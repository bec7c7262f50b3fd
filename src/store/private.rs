//! A private file is for its owner alone; one that is not is refused, with what to type.
//!
//! A symbolic link is followed (mounted secrets are links to links), if it is ours or the system's, and the file behind
//! it is held to the same rule. `root` counts as ours: it can read everything anyway. A credential of systemd
//! (`LoadCredential=`) belongs to root and is opened to this process's user by an access list, which shows as a mode of its
//! group: in the folder that `CREDENTIALS_DIRECTORY` names, root's group may read what is root's.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::StoreError;

/// No key file or sealed store is larger than this, in bytes.
pub const PRIVATE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Where systemd puts a service's credentials.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// What a home is known by.
pub(super) const CONFIG: &str = "narrows.toml";

const OTHERS: u32 = 0o077;
const GROUP_READS: u32 = 0o040;
const STICKY: u32 = 0o1000;
const EVERYBODY_WRITES: u32 = 0o002;

/// Refuses a private file that others can read, replace, or have put there.
///
/// # Errors
/// [`StoreError::Exposed`] (its hint is the `chmod` to type), [`StoreError::Owner`], [`StoreError::OpenFolder`],
/// [`StoreError::Borrowed`], [`StoreError::NotAFile`], [`StoreError::Missing`], [`StoreError::Io`].
pub fn check_private(path: &Path) -> Result<(), StoreError> {
    check_way(path)?;
    let found = path.metadata().map_err(|source| StoreError::io("read", path, source))?;
    check_file(path, &found)
}

/// Refuses a private folder that others can use.
///
/// # Errors
/// As [`check_private`].
pub fn check_folder(path: &Path) -> Result<(), StoreError> {
    let found = path.metadata().map_err(|source| StoreError::io("read", path, source))?;
    check_owner(path, &found)?;
    let mode = found.mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(StoreError::Exposed { path: path.to_owned(), mode, wanted: 0o700 });
    }
    Ok(())
}

/// Reads a private file: the handle that is read is the one that was checked.
///
/// # Errors
/// As [`check_private`]; [`StoreError::TooLarge`] above [`PRIVATE_BYTES_MAX`].
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    check_way(path)?;
    let file = File::open(path).map_err(|source| StoreError::io("read", path, source))?;
    let found = file.metadata().map_err(|source| StoreError::io("read", path, source))?;
    check_file(path, &found)?;
    // Room for all of it at once, so that no half-grown copy is left behind in freed memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(found.len()).unwrap_or(0).saturating_add(1)));
    let limit = found.len().min(PRIVATE_BYTES_MAX);
    file.take(limit).read_to_end(&mut bytes).map_err(|source| StoreError::io("read", path, source))?;
    Ok(bytes)
}

/// The links and the folders on the way: whoever can replace the file can choose what we read.
fn check_way(path: &Path) -> Result<(), StoreError> {
    let link = path.symlink_metadata().map_err(|source| StoreError::io("read", path, source))?;
    check_parent(path)?;
    if link.is_symlink() {
        check_owner(path, &link)?;
        let behind = path.canonicalize().map_err(|source| StoreError::io("read", path, source))?;
        check_parent(&behind)?;
        check_borrowed(path, &behind)?;
    }
    Ok(())
}

/// A home has its own configuration for its own keys. One that borrows another's keys is how somebody who can write
/// beside a home, and not in it, would have them used otherwise.
fn check_borrowed(path: &Path, behind: &Path) -> Result<(), StoreError> {
    let config = |path: &Path| {
        let found = path.parent()?.join(CONFIG).metadata().ok()?;
        Some((found.dev(), found.ino()))
    };
    match (config(path), config(behind)) {
        (Some(own), Some(other)) if own != other => {
            // Mounted files are swapped as a whole, perhaps just now.
            if path.canonicalize().is_ok_and(|now| now == behind) {
                return Err(StoreError::Borrowed { path: path.to_owned(), behind: behind.to_owned() });
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn check_parent(path: &Path) -> Result<(), StoreError> {
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    check_around(parent)
}

/// Refuses a folder in which everybody can put something else in the place of ours.
pub(super) fn check_around(path: &Path) -> Result<(), StoreError> {
    let folder = path.metadata().map_err(|source| StoreError::io("read", path, source))?;
    // With the sticky bit, as in /tmp, others can add files but not replace ours.
    if folder.mode() & EVERYBODY_WRITES != 0 && folder.mode() & STICKY == 0 {
        return Err(StoreError::OpenFolder { path: path.to_owned() });
    }
    Ok(())
}

fn check_file(path: &Path, found: &Metadata) -> Result<(), StoreError> {
    if !found.is_file() {
        return Err(StoreError::NotAFile { path: path.to_owned() });
    }
    check_owner(path, found)?;
    let mode = found.mode() & 0o7777;
    let shown = mode & forbidden(found.uid(), found.gid(), &Us::now()) != 0;
    let is_credential = || {
        is_credential((found.uid(), found.gid(), mode))
            && std::env::var_os(CREDENTIALS).is_some_and(|dir| is_in(path, &dir))
    };
    if shown && !is_credential() {
        return Err(StoreError::Exposed { path: path.to_owned(), mode, wanted: 0o600 });
    }
    if found.len() > PRIVATE_BYTES_MAX {
        return Err(StoreError::TooLarge { path: path.to_owned(), bytes_max: PRIVATE_BYTES_MAX });
    }
    Ok(())
}

/// Whether a file of this owner, group and mode may be a credential that systemd made.
fn is_credential((owner, group, mode): (u32, u32, u32)) -> bool {
    owner == 0 && group == 0 && mode & (OTHERS & !GROUP_READS) == 0
}

/// Whether the file, behind its links, is in that folder itself.
fn is_in(path: &Path, dir: &OsStr) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    real(path).is_some_and(|file| file.parent().map(Path::to_owned) == real(Path::new(dir)))
}

fn check_owner(path: &Path, found: &Metadata) -> Result<(), StoreError> {
    let (owner, us) = (found.uid(), nix::unistd::geteuid().as_raw());
    if owner == us || owner == 0 {
        return Ok(());
    }
    Err(StoreError::Owner { path: path.to_owned(), owner })
}

/// Who this process is.
struct Us {
    user: u32,
    groups: Vec<u32>,
}

impl Us {
    fn now() -> Self {
        let mut groups = vec![nix::unistd::getegid().as_raw()];
        // macOS has no such call for more groups than it likes; there the first is all.
        #[cfg(not(target_vendor = "apple"))]
        groups.extend(nix::unistd::getgroups().unwrap_or_default().iter().map(|group| group.as_raw()));
        Self { user: nix::unistd::geteuid().as_raw(), groups }
    }
}

/// The permission bits that a private file of this owner and group must not have.
fn forbidden(owner: u32, group: u32, us: &Us) -> u32 {
    let is_lent = owner == 0 && us.user != 0 && us.groups.contains(&group);
    if is_lent { OTHERS & !GROUP_READS } else { OTHERS }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NARROWS: u32 = 65_532;

    /// Whether a file of this owner, group and mode may be read by this user, whose groups are 65532 and 7.
    fn is_private(owner: u32, group: u32, mode: u32, user: u32) -> bool {
        mode & forbidden(owner, group, &Us { user, groups: vec![NARROWS, 7] }) == 0
    }

    #[test]
    fn what_root_lends_to_a_group_of_ours_for_reading_is_private() {
        assert!(is_private(0, NARROWS, 0o440, NARROWS));
        assert!(is_private(0, 7, 0o640, NARROWS));
        assert!(is_private(0, 0, 0o400, NARROWS), "what the group cannot read is no matter");
    }

    #[test]
    fn one_bit_away_it_is_not() {
        for mode in [0o441, 0o442, 0o444, 0o450, 0o460] {
            assert!(!is_private(0, NARROWS, mode, NARROWS), "{mode:o}");
        }
        assert!(!is_private(NARROWS, NARROWS, 0o440, NARROWS), "our own file needs no group");
        assert!(!is_private(0, 8, 0o440, NARROWS), "a group of others");
        assert!(!is_private(0, NARROWS, 0o440, 0), "root reads it without the group");
    }

    #[test]
    fn a_credential_is_roots_and_for_no_other_to_write() {
        assert!(is_credential((0, 0, 0o440)) && is_credential((0, 0, 0o400)));
        for other in [(1, 0, 0o440), (0, 1, 0o440), (0, 0, 0o444), (0, 0, 0o460), (0, 0, 0o450), (0, 0, 0o441)] {
            assert!(!is_credential(other), "{other:?}");
        }
    }

    #[test]
    fn a_credential_is_in_its_folder_also_behind_a_link_and_not_below_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("credentials/deeper")).expect("folders");
        for file in ["credentials/key", "credentials/deeper/key", "key"] {
            std::fs::write(at(file), "").expect("a file");
        }
        std::os::unix::fs::symlink(at("credentials/key"), at("link")).expect("a link");
        let dir = at("credentials");
        let is_in = |name: &str| is_in(&at(name), dir.as_os_str());
        assert_eq!(["credentials/key", "link", "credentials/deeper/key", "key"].map(is_in), [true, true, false, false]);
    }
}
