//! Files that are there whole or not at all: written beside their place, synced, then renamed into it.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::NamedTempFile;

use super::StoreError;

/// How files are called that are not in their place yet.
const BESIDE: &str = ".narrows-";
/// Nobody writes for so long at one file.
const WRITTEN_WITHIN: Duration = Duration::from_hours(1);

/// Puts `bytes` at `path`, in place of what is there. Whoever has the old file open keeps reading the old one.
///
/// A symbolic link is followed: the file behind it is replaced, the link stays.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    let place = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let file = written(&place, bytes, mode)?;
    file.persist(&place).map_err(|failed| StoreError::io("write", &place, failed.error))?;
    sync_folder(&place)
}

/// Puts `bytes` at `path`, where nothing may be yet.
pub(super) fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    let file = written(path, bytes, mode)?;
    file.persist_noclobber(path).map_err(|failed| StoreError::io("create", path, failed.error))?;
    sync_folder(path)
}

/// Moves `from` over `to`, in the same folder.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    std::fs::rename(from, to).map_err(|source| StoreError::io("write", to, source))?;
    sync_folder(to)
}

fn written(path: &Path, bytes: &[u8], mode: u32) -> Result<NamedTempFile, StoreError> {
    let failed = |source| StoreError::io("write", path, source);
    sweep(&folder(path));
    let mut file = tempfile::Builder::new()
        .prefix(BESIDE)
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(folder(path))
        .map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    // A umask may have taken bits of a public file away.
    file.as_file().set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    Ok(file)
}

/// Removes what killed writes left behind: a key in there would be a key too many. One that stays is untidy, not wrong.
fn sweep(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(BESIDE));
        let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        if is_ours && age().is_some_and(|age| age > WRITTEN_WITHIN) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// The rename itself is safe only once the folder is.
fn sync_folder(path: &Path) -> Result<(), StoreError> {
    let folder = folder(path);
    File::open(&folder).and_then(|open| open.sync_all()).map_err(|source| StoreError::io("sync", &folder, source))
}

fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
