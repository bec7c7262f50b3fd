//! Stands for a mapped file: words that are zero at first.

use std::fs::File;
use std::io;

use loom::sync::atomic::AtomicU64;

#[derive(Debug)]
pub(super) struct Mapping(Vec<AtomicU64>);

#[expect(clippy::unnecessary_wraps, reason = "as the mapping of a file has it")]
impl Mapping {
    pub(super) fn preallocate(_: &File, bytes: usize) -> io::Result<Self> {
        Ok(Self((0..bytes / size_of::<u64>()).map(|_| AtomicU64::new(0)).collect()))
    }

    pub(super) fn of(file: &File) -> io::Result<Self> {
        Self::preallocate(file, 0)
    }

    pub(super) fn words(&self) -> &[AtomicU64] {
        &self.0
    }
}
