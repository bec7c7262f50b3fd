//! A file mapped into memory, seen as atomic words. The only unsafe code of the journal, two lines of it.
//!
//! Words are atomics, so that no use of them from safe code, not even by another process, is undefined; which thread
//! may write where is `ring`'s business and a question of correctness, not of memory safety. The file is preallocated:
//! a full disk is met when it is made, not when a page is first touched, where it would be a `SIGBUS`. What is left
//! that could raise one: somebody cuts the file short (it is 0600 in a 0700 folder), the disk fails to give a page back,
//! or a copy-on-write filesystem finds no room for the copy.
#![expect(unsafe_code, reason = "one mapped file, measured against a write(2) per request: benches/journal.rs")]

use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::AtomicU64;

use memmap2::{MmapOptions, MmapRaw};

/// A whole file, shared with the page cache.
#[derive(Debug)]
pub(super) struct Mapping {
    raw: MmapRaw,
}

impl Mapping {
    /// Gives `file` exactly `bytes` bytes on the disk, all zero, and maps it.
    pub(super) fn preallocate(file: &File, bytes: usize) -> io::Result<Self> {
        reserve(file, bytes)?;
        Self::of(file)
    }

    /// Maps the file as it is.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        Ok(Self { raw: MmapOptions::new().map_raw(file)? })
    }

    /// The file's words; what is left over at its end is not seen.
    pub(super) fn words(&self) -> &[AtomicU64] {
        #[expect(clippy::cast_ptr_alignment, reason = "a mapping starts on a page")]
        let first = self.raw.as_mut_ptr().cast::<AtomicU64>();
        // SAFETY: the mapping starts on a page, so it is aligned for words; it is `len` bytes long, readable and
        // writable, and lives as long as `self`, whose lifetime the slice has; any bytes are a valid word; everything
        // that touches it does so through these atomics.
        unsafe { std::slice::from_raw_parts(first.cast_const(), self.raw.len() / size_of::<AtomicU64>()) }
    }
}

/// So many signals may interrupt the reservation.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
const INTERRUPTED_MAX: usize = 100;

/// Blocks on the disk, not a hole.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn reserve(file: &File, bytes: usize) -> io::Result<()> {
    use nix::errno::Errno;
    let length = i64::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let reserve = || match nix::fcntl::posix_fallocate(file, 0, length) {
        Err(Errno::EINTR) => None,
        reserved => Some(reserved),
    };
    // A signal is no reason not to start; one that never lets up is.
    let reserved = (0..INTERRUPTED_MAX).find_map(|_| reserve()).unwrap_or(Err(Errno::EINTR));
    match reserved {
        // Not every filesystem can, and not every C library makes up for it.
        Err(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOSYS) => write_zeros(file, bytes),
        reserved => reserved.map_err(io::Error::from),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn reserve(file: &File, bytes: usize) -> io::Result<()> {
    write_zeros(file, bytes)
}

fn write_zeros(mut file: &File, bytes: usize) -> io::Result<()> {
    let zeros = [0; 16 * 1024];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(zeros.len());
        file.write_all(&zeros[..now])?;
        left -= now;
    }
    Ok(())
}
