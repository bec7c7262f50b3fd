//! The end of one chain: where the next line goes, and what it must point back to.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sys::statvfs::fstatvfs;

use super::line::{Head, sha256};
use super::{Durability, files};

/// With less room on the disk than this, in bytes, no request is begun.
const ROOM_BYTES_MIN: u64 = 64 * 1024;

/// A chain open for appending. Lines are written at a known offset, so that a line half-written is written again.
#[derive(Debug)]
pub(super) struct Chain {
    dir: PathBuf,
    stem: String,
    index: u32,
    file: File,
    offset: u64,
    pub(super) head: Head,
    pub(super) lines: u64,
    durability: Durability,
    rotate_bytes: u64,
    /// The last line lacks its newline and nothing else.
    unended: bool,
}

impl Chain {
    /// Starts a chain in a file that must not exist yet.
    pub(super) fn create(dir: &Path, stem: &str, durability: Durability, rotate_bytes: u64) -> io::Result<Self> {
        let file = new_file(&files::path(dir, stem, 0))?;
        if durability.is_synced() {
            File::open(dir)?.sync_all()?;
        }
        let (dir, stem) = (dir.to_owned(), stem.to_owned());
        let (head, unended) = ([0; 32], false);
        Ok(Self { dir, stem, index: 0, file, offset: 0, head, lines: 0, durability, rotate_bytes, unended })
    }

    /// Opens a dead process's chain where its last whole line ends. What is torn after it stays until
    /// [`Self::append_last`], so that a recovery which is cut off itself still finds it. A line that lacks only its newline
    /// is whole.
    ///
    /// Also returns the lines of the last `tail_bytes` of the chain, in which a line may already be that a ring still
    /// holds, and how many bytes are torn.
    pub(super) fn resume(dir: &Path, stem: &str, tail_bytes: u64) -> io::Result<(Self, Vec<u8>, u64)> {
        let found = files::of_chain(dir, stem)?;
        let Some(last) = found.last() else {
            return Ok((Self::create(dir, stem, Durability::Disk, u64::MAX)?, Vec::new(), 0));
        };
        let mut tail = Vec::new();
        for file in found.iter().rev() {
            let room = tail_bytes.saturating_sub(tail.len() as u64);
            if room == 0 {
                break;
            }
            let mut before = read_end(&file.path, room)?;
            before.append(&mut tail);
            tail = before;
        }
        let file = open_file(&last.path)?;
        let length = file.metadata()?.len();
        // A torn line is in the last file: a file is full before the next one begins.
        let torn = (tail.iter().rev().take_while(|&&byte| byte != b'\n').count() as u64).min(length);
        let last_line = tail.split_off(tail.len() - usize::try_from(torn).unwrap_or(0));
        let unended = is_next(&last_line, &last_head(&tail));
        let torn = if unended { 0 } else { torn };
        if unended {
            tail.extend_from_slice(&last_line);
            tail.push(b'\n');
        }
        let head = last_head(&tail);
        let chain = Self {
            dir: dir.to_owned(),
            stem: stem.to_owned(),
            index: last.index,
            file,
            offset: length - torn,
            head,
            lines: 0,
            durability: Durability::Disk,
            rotate_bytes: u64::MAX,
            unended,
        };
        Ok((chain, tail, torn))
    }

    /// Appends what a recovery has for a chain, in place of what was torn, and waits until all of it is on the disk.
    pub(super) fn append_last(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.unended {
            self.file.write_all_at(b"\n", self.offset)?;
            self.offset += 1;
            self.unended = false;
        }
        self.append(lines)?;
        self.file.set_len(self.offset)?;
        self.sync()
    }

    /// Appends whole lines, all of them or none. On an error the same call can be made again.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.offset >= self.rotate_bytes || !self.in_place()? {
            self.next_file()?;
        }
        // After a failed sync the kernel may drop what was written: then the lines are written again, not only synced
        // again.
        let is_synced = self.durability.is_synced();
        let sync = |()| if is_synced { self.file.sync_data() } else { Ok(()) };
        let written = self.file.write_all_at(lines, self.offset).and_then(sync);
        if let Err(error) = written {
            // If this fails too, the next try overwrites what is torn, or recovery cuts it.
            let _ = self.file.set_len(self.offset);
            return Err(error);
        }
        self.offset += lines.len() as u64;
        Ok(())
    }

    /// Waits until everything is on the disk.
    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()?;
        File::open(&self.dir)?.sync_all()
    }

    /// `START-PID`.
    pub(super) fn stem(&self) -> &str {
        &self.stem
    }

    /// Removes a chain that never got a line.
    pub(super) fn remove_if_empty(&self) {
        if self.lines == 0 && self.index == 0 && self.offset == 0 {
            // An empty file left behind is untidy, not wrong.
            let _ = std::fs::remove_file(files::path(&self.dir, &self.stem, 0));
        }
    }

    /// Goes on in the next file of the chain; its first line points back to the last of this one.
    fn next_file(&mut self) -> io::Result<()> {
        if self.durability.is_synced() {
            self.file.sync_data()?;
        }
        let mut index = self.index;
        let file = loop {
            index = index.checked_add(1).ok_or(io::ErrorKind::FileTooLarge)?;
            match new_file(&files::path(&self.dir, &self.stem, index)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => break made?,
            }
        };
        if self.durability.is_synced()
            && let Err(error) = File::open(&self.dir).and_then(|dir| dir.sync_all())
        {
            // Else every further try would leave an empty file.
            let _ = std::fs::remove_file(files::path(&self.dir, &self.stem, index));
            return Err(error);
        }
        self.file = file;
        self.index = index;
        self.offset = 0;
        Ok(())
    }

    /// Whether the disk has room for some lines. Not every limit shows here (quotas do not); those show when writing.
    pub(super) fn has_room(&self) -> bool {
        let Ok(disk) = fstatvfs(&self.file) else { return true };
        // The superuser may use what is kept back for it.
        let free = if nix::unistd::geteuid().is_root() { disk.blocks_free() } else { disk.blocks_available() };
        wide(free).saturating_mul(wide(disk.fragment_size())) >= ROOM_BYTES_MIN
    }

    /// Whether the file is still found under its name: lines in a removed file are lost.
    fn in_place(&self) -> io::Result<bool> {
        is_at(&self.file, &files::path(&self.dir, &self.stem, self.index))
    }
}

/// Whether `path` still leads to the open `file`.
///
/// # Errors
/// When the disk does not say.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let named = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        found => found?,
    };
    let open = file.metadata()?;
    Ok((open.dev(), open.ino()) == (named.dev(), named.ino()))
}

/// Counts of blocks are narrower on some systems.
fn wide(count: impl Into<u64>) -> u64 {
    count.into()
}

fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// A file of a chain is where it seems to be: no link leads a recovery elsewhere.
fn open_file(path: &Path) -> io::Result<File> {
    let no_link = nix::libc::O_NOFOLLOW;
    OpenOptions::new().read(true).write(true).custom_flags(no_link).open(path)
}

/// Whether a chain's file ends in half a line.
pub(super) fn is_torn(path: &Path) -> io::Result<bool> {
    Ok(read_end(path, 1)?.last().is_some_and(|&byte| byte != b'\n'))
}

/// The last `bytes_max` bytes of a file.
fn read_end(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let from = length.saturating_sub(bytes_max);
    let mut bytes = vec![0; usize::try_from(length - from).map_err(|_| io::ErrorKind::FileTooLarge)?];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}

/// Whether it is a line as it was written, which follows the line with that hash.
fn is_next(line: &[u8], head: &Head) -> bool {
    super::verify::split(line).is_some_and(|parts| parts.hashes && parts.prev == *head)
}

/// The hash of the last whole line. Of none, zeros; of a line that is not ours, what it hashes to: the next line then
/// still points back to something, and `verify` names the stranger.
fn last_head(lines: &[u8]) -> Head {
    let Some(end) = lines.iter().rposition(|&byte| byte == b'\n') else { return [0; 32] };
    let line = lines[..end].rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
    super::verify::split(line).map_or_else(|| sha256(line), |parts| parts.hash)
}
