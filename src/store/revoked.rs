//! `revoked.jsonl`: what has been revoked, one JSON line each, only ever appended to.
//!
//! What a line says is `capability`'s business; here are its bytes, safe on disk before anybody is told.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;

use super::StoreError;

/// The list is not read beyond this, in bytes (some 500 000 revocations).
pub const REVOKED_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Holds the place of a list that is not there.
const PLACEHOLDER: &str = "/dev/null";

/// Appends one line (without its newline) and waits until it is on the disk.
///
/// A line that a crash left half-written is completed if it is whole JSON, else cut: it was never acknowledged.
///
/// # Errors
/// [`StoreError::Io`]; [`StoreError::Format`] for a line with a newline in it.
pub fn append(path: &Path, line: &str) -> Result<(), StoreError> {
    if line.is_empty() || line.bytes().any(|byte| byte == b'\n' || byte == b'\r') {
        return Err(StoreError::Format { path: path.to_owned(), why: "a revocation is one line" });
    }
    let failed = |source| StoreError::io("write", path, source);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    file.lock().map_err(|source| StoreError::io("lock", path, source))?;
    let kept = read_all(&mut file, path)?;
    let (end, mut bytes) = match torn_tail(&kept) {
        Some(tail) if is_json(&kept[tail..]) => (kept.len(), b"\n".to_vec()),
        Some(tail) => (tail, Vec::new()),
        None => (kept.len(), Vec::new()),
    };
    bytes.extend_from_slice(line.as_bytes());
    bytes.push(b'\n');
    file.set_len(end as u64).map_err(failed)?;
    file.seek(SeekFrom::End(0)).map_err(failed)?;
    file.write_all(&bytes).map_err(failed)?;
    file.sync_all().map_err(failed)
}

/// The whole list, line by line; a file that is not there is an empty list, and a link that leads nowhere is none.
///
/// A half-written last line is left out, for it was never acknowledged.
///
/// # Errors
/// [`StoreError::Dangling`], [`StoreError::Io`], [`StoreError::TooLarge`], [`StoreError::Format`] when it is not UTF-8.
pub fn load(path: &Path) -> Result<Vec<String>, StoreError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(source) => {
            return match StoreError::io("read", path, source) {
                StoreError::Missing { .. } => Ok(Vec::new()),
                error => Err(error),
            };
        }
    };
    let bytes = read_whole_lines(&mut file, path)?;
    let text = str::from_utf8(&bytes);
    let text = text.map_err(|_| StoreError::Format { path: path.to_owned(), why: "it is not UTF-8" })?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// The list of a process that follows it.
///
/// It has a descriptor of its own all the time: what clients do with the others keeps no revocation from being read.
#[derive(Debug)]
pub struct Followed {
    path: PathBuf,
    /// The list as it was opened last, or a file that is always there.
    held: Option<File>,
}

impl Followed {
    /// Follows the list at `path`, which need not be there yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        let held = File::open(&path).or_else(|_| File::open(PLACEHOLDER)).ok();
        Self { path, held }
    }

    /// The bytes of the list as it is now, whole lines; of a file that is not there, none.
    ///
    /// # Errors
    /// [`StoreError::Dangling`], [`StoreError::Io`], [`StoreError::TooLarge`].
    pub fn read(&mut self) -> Result<Vec<u8>, StoreError> {
        let Self { path, held } = self;
        match open(path, held).and_then(|file| file.rewind().map(|()| file)) {
            Ok(file) => read_whole_lines(file, path),
            Err(source) => match StoreError::io("read", path, source) {
                StoreError::Missing { .. } => Ok(Vec::new()),
                error => Err(error),
            },
        }
    }
}

/// The file that is at `path` now: the held one, if it is that.
fn open<'a>(path: &Path, held: &'a mut Option<File>) -> io::Result<&'a mut File> {
    let named = std::fs::metadata(path)?;
    let known = held.as_ref().and_then(|held| held.metadata().ok());
    if known.is_none_or(|known| (known.dev(), known.ino()) != (named.dev(), named.ino())) {
        let opened = match File::open(path) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                *held = None;
                File::open(path)
            }
            opened => opened,
        };
        *held = Some(opened?);
    }
    held.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn read_whole_lines(file: &mut File, path: &Path) -> Result<Vec<u8>, StoreError> {
    // Shared with other readers; keeps a writer's half line out of sight.
    file.lock_shared().map_err(|source| StoreError::io("lock", path, source))?;
    let read = read_all(file, path);
    file.unlock().map_err(|source| StoreError::io("unlock", path, source))?;
    let mut bytes = read?;
    if let Some(tail) = torn_tail(&bytes).filter(|&tail| !is_json(&bytes[tail..])) {
        bytes.truncate(tail);
    }
    Ok(bytes)
}

fn read_all(file: &mut File, path: &Path) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    file.take(REVOKED_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|source| StoreError::io("read", path, source))?;
    if bytes.len() as u64 > REVOKED_BYTES_MAX {
        return Err(StoreError::TooLarge { path: path.to_owned(), bytes_max: REVOKED_BYTES_MAX });
    }
    Ok(bytes)
}

/// Where the last line starts, if it has no newline.
fn torn_tail(bytes: &[u8]) -> Option<usize> {
    let start = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
    (start < bytes.len()).then_some(start)
}

fn is_json(line: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(line).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_torn_line_is_cut_and_an_unterminated_whole_one_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("revoked.jsonl");
        assert!(load(&path).expect("an empty list").is_empty());
        append(&path, r#"{"block":"a"}"#).expect("appended");
        fs::write(&path, "{\"block\":\"a\"}\n{\"blo").expect("torn");
        assert_eq!(load(&path).expect("a list"), [r#"{"block":"a"}"#]);
        append(&path, r#"{"block":"b"}"#).expect("appended");
        assert_eq!(load(&path).expect("a list"), [r#"{"block":"a"}"#, r#"{"block":"b"}"#]);
        fs::write(&path, r#"{"block":"a"}"#).expect("by hand");
        append(&path, r#"{"block":"b"}"#).expect("appended");
        assert_eq!(load(&path).expect("a list"), [r#"{"block":"a"}"#, r#"{"block":"b"}"#]);
        assert!(append(&path, "{}\n{}").is_err());
    }
}
