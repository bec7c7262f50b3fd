//! Any bytes as what a dead process left, chain and ring: the recovery takes what holds and ends, whole lines are not
//! touched, no line is torn afterwards, and a second recovery finds nothing to do.
//!
//! The first two bytes are the length of the chain's file; what follows that is the ring after its first page.
#![no_main]

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use narrows::audit::{ProblemKind, recover, verify};

/// A folder in memory where there is one.
static DIR: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let dir = parent.join(format!("narrows-fuzz-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    DirBuilder::new().mode(0o700).create(&dir).unwrap();
    dir
});

/// The first page of a ring of so many slots of 2 KiB: name and version, small slots, large slots, boot.
fn first_page(slots: usize) -> Vec<u8> {
    let mut page = vec![0; 4096];
    let words = [u64::from_le_bytes(*b"narrows\x01"), slots as u64, 0, 7, 7];
    page.iter_mut().zip(words.into_iter().flat_map(u64::to_le_bytes)).for_each(|(to, from)| *to = from);
    page
}

fuzz_target!(|bytes: &[u8]| {
    let Some((length, bytes)) = bytes.split_first_chunk::<2>() else { return };
    let (lines, slots) = bytes.split_at(usize::from(u16::from_be_bytes(*length)).min(bytes.len()));
    let (chain, ring) = (DIR.join("20270115T080000Z-1.jsonl"), DIR.join("20270115T080000Z-1.ring"));
    let mut words = first_page(slots.len().div_ceil(2048).max(1));
    words.extend_from_slice(slots);
    fs::write(&chain, lines).unwrap();
    fs::write(&ring, words).unwrap();

    let done = recover(&DIR).expect("the folder is ours");
    assert_eq!(done.processes, 1, "a ring of this version is completed");
    assert!(!ring.exists());
    let after = fs::read(&chain).unwrap_or_default();
    let whole = lines.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    assert_eq!(after.get(..whole), Some(&lines[..whole]), "whole lines stay");
    assert!(after.is_empty() || after.ends_with(b"\n"));
    let report = verify(&DIR, None).unwrap();
    assert!(!report.problems().any(|problem| problem.kind == ProblemKind::Torn));
    assert_eq!(recover(&DIR).expect("ours").lines, 0);
    assert_eq!(fs::read(&chain).unwrap_or_default(), after);
    let _ = fs::remove_file(chain);
});
