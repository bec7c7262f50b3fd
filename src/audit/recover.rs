//! Completes the chains of processes that died.
//!
//! A ring whose lock nobody holds belongs to a dead process. What it holds and the chain does not have yet is appended:
//! finished entries with their outcomes, then the others as `aborted`. A line may be in both when the process died
//! between writing it and freeing its slot; ids tell.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

use super::chain::Chain;
use super::files::{self, LINE_BYTES_MAX};
use super::line;
use super::record::Ended;
use super::ring::Remains;
use super::writer::BATCH_BYTES_MAX;
use crate::store::{StoreError, private};

/// Of a chain's end, so much can be in the ring as well: one batch, of which the last entry may exceed the limit, and
/// what of it was torn. What an interrupted recovery wrote comes on top.
const OVERLAP_BYTES: u64 = (2 * BATCH_BYTES_MAX + 2 * LINE_BYTES_MAX) as u64;
/// After a power cut the pages of the ring may be older than those of the chain: then so much is looked through.
const OVERLAP_BYTES_MAX: u64 = 256 << 20;

/// What was completed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// Processes that had died.
    pub processes: usize,
    /// Lines written for them.
    pub lines: usize,
    /// Of these, requests that had no outcome.
    pub aborted: usize,
}

/// Completes the chains in `dir` of processes that died; chains of living ones are not touched. [`super::Journal::open`]
/// does this too.
///
/// # Errors
/// [`StoreError`] when the folder cannot be read or locked.
pub fn recover(dir: &Path) -> Result<Recovery, StoreError> {
    private::check_folder(dir)?;
    let failed = |source| StoreError::io("recover", dir, source);
    let turn = File::open(dir).map_err(failed)?;
    turn.lock().map_err(failed)?;
    all(dir).map_err(failed)
}

/// [`recover`], for who has the folder's lock.
pub(super) fn all(dir: &Path) -> io::Result<Recovery> {
    let mut total = Recovery::default();
    for (stem, path) in files::rings(dir)? {
        match one(dir, &stem, &path) {
            Ok(Some(done)) => {
                total.processes += 1;
                total.lines += done.lines;
                total.aborted += done.aborted;
            }
            Ok(None) => {}
            // Kept for the next time: a full disk now must not cost the lines.
            Err(error) => tracing::error!(chain = stem, %error, "the journal of a dead process is still incomplete"),
        }
    }
    Ok(total)
}

fn one(dir: &Path, stem: &str, ring_path: &Path) -> io::Result<Option<Recovery>> {
    let file = OpenOptions::new().read(true).write(true).open(ring_path)?;
    match file.try_lock() {
        Ok(()) => {}
        // Its process lives.
        Err(fs::TryLockError::WouldBlock) => return Ok(None),
        Err(fs::TryLockError::Error(error)) => return Err(error),
    }
    let mut done = Recovery { processes: 1, ..Recovery::default() };
    if let Some(remains) = Remains::open(&file)? {
        let same_boot = remains.boot == boot_id() && remains.boot != 0;
        complete(dir, stem, &remains, same_boot, &mut done)?;
    }
    fs::remove_file(ring_path)?;
    Ok(Some(done))
}

fn complete(dir: &Path, stem: &str, remains: &Remains, same_boot: bool, done: &mut Recovery) -> io::Result<()> {
    let entries = remains.entries();
    let again: usize = entries.iter().map(|(intent, _)| intent.line_bytes_max()).sum();
    let overlap = if same_boot { OVERLAP_BYTES + again as u64 } else { OVERLAP_BYTES_MAX };
    let (mut chain, tail) = Chain::resume(dir, stem, overlap)?;
    let written: HashSet<u128> = tail.split(|&byte| byte == b'\n').filter_map(id_of).collect();
    let mut lines = Vec::new();
    for (intent, ended) in entries {
        if written.contains(&intent.id) {
            continue;
        }
        done.aborted += usize::from(ended.is_none());
        done.lines += 1;
        chain.head = line::entry(&mut lines, &intent, &ended.unwrap_or(Ended::aborted(None)), &chain.head);
    }
    // All in one, or nothing: what is written of a failed try is cut off again.
    chain.append(&lines)?;
    chain.sync()?;
    chain.remove_if_empty();
    Ok(())
}

/// The id of a line, without reading all of it: it is the second member.
fn id_of(line: &[u8]) -> Option<u128> {
    const BEFORE: &[u8] = b"\",\"id\":\"";
    let head = line.get(..line.len().min(96))?;
    let at = head.windows(BEFORE.len()).position(|window| window == BEFORE)? + BEFORE.len();
    let id = str::from_utf8(head.get(at..at + ulid::ULID_LEN)?).ok()?;
    ulid::Ulid::from_string(id).ok().map(|id| id.0)
}

/// Which boot of the machine this is; 0 where nobody says.
pub(super) fn boot_id() -> u128 {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    u128::from_str_radix(&id.trim().replace('-', ""), 16).unwrap_or(0)
}
