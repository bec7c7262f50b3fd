//! A home made of mounted files: a Secret of Kubernetes, a folder of a service manager.
//!
//! A mounted folder belongs to whoever mounts it, cannot be written, and is replaced as a whole by a link. So the home
//! stays a folder of our own, with a link to each file: what is mounted anew is seen through it, and the watcher takes
//! it up.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::{Home, StoreError};

/// A home has a dozen files; a folder with more entries than this is another one.
const ENTRIES_MAX: usize = 256;

/// Makes the home, unless it is there, and links each file of `folder` into it. Names that begin with a dot are the
/// mount's own. Files that come later are linked the next time.
///
/// A home outlives the process in it: what has left `folder` since the last time is not linked any more. Returns those
/// names. A list of revocations that has left is an error, for without it what was revoked would count again.
///
/// # Errors
/// [`StoreError::Missing`] without `folder`, [`StoreError::Dangling`] for `revoked.jsonl`, [`StoreError::Exists`] where the
/// home has a file of its own in the place, [`StoreError::Format`] for more than 256 entries, [`StoreError::Io`];
/// [`StoreError::Exposed`].
pub fn link(home: &Home, folder: &Path) -> Result<Vec<OsString>, StoreError> {
    home.make()?;
    let failed = |source| StoreError::io("read", folder, source);
    let folder = std::path::absolute(folder).map_err(failed)?;
    link_each(home, &folder)?;
    let stale = stale(home, &folder)?;
    if let Some((path, target)) = stale.iter().find(|(path, _)| *path == home.revoked()) {
        return Err(StoreError::Dangling { path: path.clone(), target: target.clone() });
    }
    for (path, _) in &stale {
        fs::remove_file(path).map_err(|source| StoreError::io("remove", path, source))?;
    }
    Ok(stale.iter().filter_map(|(path, _)| path.file_name().map(ToOwned::to_owned)).collect())
}

/// The home's links to files of `folder` that are not there, and where they lead.
fn stale(home: &Home, folder: &Path) -> Result<Vec<(PathBuf, PathBuf)>, StoreError> {
    let failed = |source| StoreError::io("read", home.dir(), source);
    let mut stale = Vec::new();
    for entry in fs::read_dir(home.dir()).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if let Ok(target) = path.read_link()
            && target.parent() == Some(folder)
            && !target.is_file()
        {
            stale.push((path, target));
        }
    }
    Ok(stale)
}

fn link_each(home: &Home, folder: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::io("read", folder, source);
    for (count, entry) in fs::read_dir(folder).map_err(failed)?.enumerate() {
        if count == ENTRIES_MAX {
            return Err(StoreError::Format { path: folder.to_owned(), why: "it has too many files for a home" });
        }
        let name = entry.map_err(failed)?.file_name();
        let target = folder.join(&name);
        if !name.as_encoded_bytes().starts_with(b".") && target.is_file() {
            link_one(&home.dir().join(name), &target)?;
        }
    }
    Ok(())
}

fn link_one(place: &Path, target: &Path) -> Result<(), StoreError> {
    match symlink(target, place) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            // A restart, of a home that outlived the process.
            let is_ours = fs::read_link(place).is_ok_and(|there| there == target);
            if is_ours { Ok(()) } else { Err(StoreError::Exists { path: place.to_owned() }) }
        }
        linked => linked.map_err(|source| StoreError::io("link", place, source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_linked_and_nothing_else() {
        let place = tempfile::tempdir().expect("a folder");
        let (folder, home) = (place.path().join("mounted"), Home::at(&place.path().join("home")).expect("a home"));
        assert!(matches!(link(&home, &folder), Err(StoreError::Missing { .. })));
        fs::create_dir_all(folder.join("..data")).expect("a folder");
        fs::write(folder.join("..data/ca.key"), "x").expect("written");
        symlink("..data/ca.key", folder.join("ca.key")).expect("a link");
        for _ in 0..2 {
            link(&home, &folder).expect("linked");
        }
        assert_eq!(fs::read(home.ca_key()).expect("read"), b"x");
        assert!(!home.dir().join("..data").exists());

        fs::write(home.secrets(), "of its own").expect("written");
        fs::write(folder.join("secrets.json"), "mounted").expect("written");
        assert!(matches!(link(&home, &folder), Err(StoreError::Exists { path }) if path == home.secrets()));
        assert_eq!(fs::read(home.secrets()).expect("read"), b"of its own");
    }

    #[test]
    fn what_has_left_is_not_linked_any_more_but_a_list_of_revocations_is_missed() {
        let place = tempfile::tempdir().expect("a folder");
        let (folder, home) = (place.path().join("mounted"), Home::at(&place.path().join("home")).expect("a home"));
        fs::create_dir(&folder).expect("a folder");
        for name in ["ca.key", "ca-next.key", "revoked.jsonl"] {
            fs::write(folder.join(name), "").expect("written");
        }
        assert!(link(&home, &folder).expect("linked").is_empty());
        // Nobody's business but its owner's.
        symlink("/nowhere/of/its/own", home.dir().join("own")).expect("a link");
        fs::remove_file(folder.join("ca-next.key")).expect("removed");
        assert_eq!(link(&home, &folder).expect("linked"), ["ca-next.key"]);
        assert!(home.ca_next_key().symlink_metadata().is_err());
        assert!(home.dir().join("own").symlink_metadata().is_ok());

        fs::remove_file(folder.join("revoked.jsonl")).expect("removed");
        assert!(matches!(link(&home, &folder), Err(StoreError::Dangling { path, .. }) if path == home.revoked()));
        fs::write(folder.join("revoked.jsonl"), "").expect("written");
        assert!(link(&home, &folder).expect("linked").is_empty());
    }
}
