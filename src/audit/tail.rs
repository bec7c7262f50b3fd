//! Follows a journal: the last lines, then every new one, across rotations and new processes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::files::{self, ChainFile, LINE_BYTES_MAX};

/// Of each file, so much is read at once, in bytes.
const READ_BYTES: usize = 1024 * 1024;
/// For the last lines, so many of the newest files are looked at.
const RECENT_FILES: usize = 16;

/// A place in every file of a journal. [`Tail::poll`] returns what has been written since.
#[derive(Debug)]
pub struct Tail {
    dir: PathBuf,
    offsets: BTreeMap<ChainFile, u64>,
    first: Vec<Value>,
}

impl Tail {
    /// Starts at the end; the first [`Tail::poll`] returns the last `last` lines, in the order of their times.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn open(dir: &Path, last: usize) -> io::Result<Self> {
        let found = files::list(dir)?;
        let recent = found.len().saturating_sub(RECENT_FILES);
        let mut tail = Self { dir: dir.to_owned(), offsets: BTreeMap::new(), first: Vec::new() };
        for (place, file) in found.into_iter().enumerate() {
            let length = file.path.metadata()?.len();
            if last == 0 || place < recent {
                tail.offsets.insert(file, length);
                continue;
            }
            let from = length.saturating_sub(READ_BYTES as u64);
            let (bytes, end) = read(&file.path, from)?;
            // The first line may have begun before what was read.
            let lines = if from == 0 { &bytes[..] } else { after_newline(&bytes) };
            tail.first.extend(values(lines));
            tail.offsets.insert(file, end);
        }
        tail.first.sort_by(|one, other| time(one).cmp(time(other)));
        tail.first.drain(..tail.first.len().saturating_sub(last));
        Ok(tail)
    }

    /// What has been written since the last call, as far as it is whole; nothing, if nothing was. Call it again after a
    /// pause (the journal's writer itself pauses up to 50 ms).
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn poll(&mut self) -> io::Result<Vec<Value>> {
        let mut new = std::mem::take(&mut self.first);
        let found = files::list(&self.dir)?;
        self.offsets.retain(|file, _| found.binary_search(file).is_ok());
        for file in found {
            let offset = self.offsets.get(&file).copied().unwrap_or(0);
            let (bytes, end) = match read(&file.path, offset) {
                Ok(read) => read,
                // An empty chain is removed when its process ends.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            new.extend(values(&bytes));
            self.offsets.insert(file, end);
        }
        Ok(new)
    }
}

/// The whole lines from `offset` on, and where they end. A file that is shorter than that is about to be written again.
fn read(path: &Path, offset: u64) -> io::Result<(Vec<u8>, u64)> {
    let file = File::open(path)?;
    let more = file.metadata()?.len().saturating_sub(offset);
    if more == 0 {
        return Ok((Vec::new(), offset));
    }
    let mut bytes = vec![0; usize::try_from(more).unwrap_or(READ_BYTES).min(READ_BYTES)];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset + filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    bytes.truncate(filled);
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
    if whole == 0 && filled >= LINE_BYTES_MAX {
        // Not a line of ours: go past it.
        return Ok((Vec::new(), offset + filled as u64));
    }
    bytes.truncate(whole);
    Ok((bytes, offset + whole as u64))
}

fn after_newline(bytes: &[u8]) -> &[u8] {
    let newline = bytes.iter().position(|&byte| byte == b'\n');
    newline.map_or(&[], |newline| &bytes[newline + 1..])
}

/// What is not JSON is left to `verify` to name.
fn values(lines: &[u8]) -> impl Iterator<Item = Value> {
    lines.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
}

fn time(line: &Value) -> &str {
    line.get("time").and_then(Value::as_str).unwrap_or_default()
}
