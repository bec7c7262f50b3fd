//! `revoked.jsonl`: what has been revoked, one JSON line each, only ever appended to.
//!
//! What a line says is `capability`'s business; here are its bytes, safe on disk before anybody is told.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::StoreError;

/// The list is not read beyond this, in bytes (some 500 000 revocations).
pub const REVOKED_BYTES_MAX: u64 = 64 * 1024 * 1024;

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
    // Shared with other readers; keeps a writer's half line out of sight.
    file.lock_shared().map_err(|source| StoreError::io("lock", path, source))?;
    let mut bytes = read_all(&mut file, path)?;
    if let Some(tail) = torn_tail(&bytes).filter(|&tail| !is_json(&bytes[tail..])) {
        bytes.truncate(tail);
    }
    let text = str::from_utf8(&bytes);
    let text = text.map_err(|_| StoreError::Format { path: path.to_owned(), why: "it is not UTF-8" })?;
    Ok(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect())
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
