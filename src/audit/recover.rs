//! Completes the chains of processes that died.
//!
//! A ring whose lock nobody holds belongs to a dead process. What it holds and the chain does not have yet is appended:
//! finished entries with their outcomes, then the others as `aborted`. A line may be in both when the process died between
//! writing it and freeing its slot; ids tell. What cannot be kept, a torn last line or a part of the ring that is gone,
//! leaves a line of its own (`event` is `repair`); a last line that lacks only its newline gets that. A ring of another
//! version is left for that version.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::chain::{Chain, is_torn};
use super::files::{self, LINE_BYTES_MAX};
use super::line::{self, Repair};
use super::record::Ended;
use super::ring::{Found, Remains};
use super::writer::BATCH_BYTES_MAX;
use crate::clock::UnixSeconds;
use crate::handoff::Handoff;
use crate::store::{StoreError, private, random};

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
    all(dir, None).map_err(failed)
}

/// [`recover`], for who has the folder's lock. What is written goes to the mirror too.
pub(super) fn all(dir: &Path, mirror: Option<&Handoff>) -> io::Result<Recovery> {
    let mut total = Recovery::default();
    let mut with_ring = HashSet::new();
    for (stem, path) in files::rings(dir)? {
        match one(dir, &stem, &path, mirror) {
            Ok(Some(done)) => {
                total.processes += 1;
                total.lines += done.lines;
                total.aborted += done.aborted;
            }
            Ok(None) => {}
            // Kept for the next time: a full disk now must not cost the lines.
            Err(error) => tracing::error!(chain = stem, %error, "the journal of a dead process is still incomplete"),
        }
        with_ring.insert(stem);
    }
    mend_torn(dir, &with_ring, mirror)?;
    Ok(total)
}

/// After a power cut a chain can be torn whose ring is gone.
fn mend_torn(dir: &Path, with_ring: &HashSet<String>, mirror: Option<&Handoff>) -> io::Result<()> {
    let files = files::list(dir)?;
    for chain in files.chunk_by(|one, next| one.stem == next.stem) {
        let Some(last) = chain.last().filter(|file| !with_ring.contains(&file.stem)) else { continue };
        let mended = is_torn(&last.path).and_then(|torn| {
            if !torn {
                return Ok(());
            }
            let (mut chain, _, bytes) = Chain::resume(dir, &last.stem, OVERLAP_BYTES)?;
            let mut lines = Vec::new();
            if bytes > 0 {
                note(&mut lines, &mut chain, Repair::TornLine { bytes })?;
            }
            chain.append_last(&lines)?;
            show(&lines, mirror);
            Ok(())
        });
        if let Err(error) = mended {
            tracing::error!(chain = last.stem, %error, "a torn line is still there");
        }
    }
    Ok(())
}

fn one(dir: &Path, stem: &str, ring_path: &Path, mirror: Option<&Handoff>) -> io::Result<Option<Recovery>> {
    let no_link = nix::libc::O_NOFOLLOW;
    let file = OpenOptions::new().read(true).write(true).custom_flags(no_link).open(ring_path)?;
    match file.try_lock() {
        Ok(()) => {}
        // Its process lives.
        Err(fs::TryLockError::WouldBlock) => return Ok(None),
        Err(fs::TryLockError::Error(error)) => return Err(error),
    }
    let mut done = Recovery { processes: 1, ..Recovery::default() };
    match Remains::open(&file)? {
        Found::NeverMade => {}
        Found::Strange => {
            return Err(io::Error::other(
                "its ring is of another version, or damaged: let the version that wrote it complete it, or remove it",
            ));
        }
        Found::Remains(remains) => show(&complete(dir, stem, &remains, &mut done)?, mirror),
    }
    fs::remove_file(ring_path)?;
    Ok(Some(done))
}

/// The lines that were missing, which are in the file now.
fn complete(dir: &Path, stem: &str, remains: &Remains, done: &mut Recovery) -> io::Result<Vec<u8>> {
    let same_boot = remains.boot == boot_id() && remains.boot != 0;
    let entries = remains.entries();
    let again: usize = entries.iter().map(|(intent, _)| intent.line_bytes_max()).sum();
    let overlap = if same_boot { OVERLAP_BYTES + again as u64 } else { OVERLAP_BYTES_MAX };
    let (mut chain, tail, torn) = Chain::resume(dir, stem, overlap)?;
    let written: HashSet<u128> = tail.split(|&byte| byte == b'\n').filter_map(id_of).collect();
    let mut lines = Vec::new();
    if torn > 0 {
        note(&mut lines, &mut chain, Repair::TornLine { bytes: torn })?;
    }
    for (intent, ended) in entries {
        if written.contains(&intent.id) {
            continue;
        }
        done.aborted += usize::from(ended.is_none());
        done.lines += 1;
        chain.head = line::entry(&mut lines, &intent, &ended.unwrap_or(Ended::aborted(None)), &chain.head);
    }
    if remains.slots_missing > 0 {
        note(&mut lines, &mut chain, Repair::RingCut { slots: remains.slots_missing.into() })?;
    }
    // All in one, or nothing: what is written of a failed try is cut off again.
    chain.append_last(&lines)?;
    chain.remove_if_empty();
    Ok(lines)
}

/// Lines of a recovery on stdout: their process is dead and cannot.
fn show(lines: &[u8], mirror: Option<&Handoff>) {
    if let Some(mirror) = mirror.filter(|_| !lines.is_empty()) {
        mirror.take(lines, lines.split(|&byte| byte == b'\n').skip(1).count() as u64);
    }
}

/// Whoever reads the chain later learns what was not there to be kept.
fn note(lines: &mut Vec<u8>, chain: &mut Chain, repair: Repair) -> io::Result<()> {
    let now_ms = UnixSeconds::now().get().saturating_mul(1000);
    let id = random::id(now_ms).map_err(io::Error::other)?;
    tracing::warn!(chain = chain.stem(), ?repair, "the journal of a dead process was repaired");
    chain.head = line::repair(lines, id, now_ms, repair, &chain.head);
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
