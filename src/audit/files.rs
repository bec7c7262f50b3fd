//! The journal's files: `START-PID.jsonl`, `START-PID.1.jsonl`, … one chain; `START-PID.ring` while its process lives.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// A line is never longer than this, in bytes, its newline among them; readers keep no more of one.
pub(super) const LINE_BYTES_MAX: usize = 256 * 1024;

/// One file of a chain. The order is that of their starts, then of their places in the chain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChainFile {
    /// `START-PID`: which process wrote it, and from when on.
    pub stem: String,
    /// 0 for the first, then counting rotations.
    pub index: u32,
    /// Where it is.
    pub path: PathBuf,
}

impl ChainFile {
    /// Reads a file's name; `None` for what is not one of the journal's.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(".jsonl")?;
        let (stem, index) = match name.split_once('.') {
            Some((stem, index)) => (stem, index.parse().ok().filter(|index| *index > 0)?),
            None => (name, 0),
        };
        let (start, pid) = stem.split_once('-')?;
        let known = !start.is_empty() && !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
        known.then(|| Self { stem: stem.to_owned(), index, path: path.to_owned() })
    }
}

/// Every file of every chain in a folder, in order.
pub(super) fn list(dir: &Path) -> io::Result<Vec<ChainFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        files.extend(ChainFile::of(&entry?.path()));
    }
    files.sort();
    Ok(files)
}

/// The files of one chain, in order.
pub(super) fn of_chain(dir: &Path, stem: &str) -> io::Result<Vec<ChainFile>> {
    let mut files = list(dir)?;
    files.retain(|file| file.stem == stem);
    Ok(files)
}

/// The rings in a folder, with the stems of their chains.
pub(super) fn rings(dir: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut rings = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let stem = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".ring"));
        if let Some(stem) = stem.filter(|stem| stem.contains('-') && !stem.contains('.')) {
            rings.push((stem.to_owned(), path));
        }
    }
    rings.sort();
    Ok(rings)
}

/// The lines of a file, read one by one.
#[derive(Debug)]
pub(super) struct Lines {
    reader: BufReader<File>,
    buffer: Vec<u8>,
    /// Lines read so far.
    pub(super) number: u64,
}

/// What the next piece of a file is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A whole line, without its newline.
    Line(&'a [u8]),
    /// A last line without a newline.
    Torn,
    /// A line that is too long to be ours, with or without a newline.
    Overlong,
}

impl Lines {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { reader: BufReader::with_capacity(256 * 1024, File::open(path)?), buffer: Vec::new(), number: 0 })
    }

    pub(super) fn next(&mut self) -> io::Result<Option<Piece<'_>>> {
        self.buffer.clear();
        let read = self.reader.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut self.buffer)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        if read == LINE_BYTES_MAX && !self.buffer.ends_with(b"\n") {
            // What comes after it counts, however long it is.
            self.reader.skip_until(b'\n')?;
            return Ok(Some(Piece::Overlong));
        }
        Ok(Some(self.buffer.strip_suffix(b"\n").map_or(Piece::Torn, Piece::Line)))
    }
}

/// The path of a chain's file.
pub(super) fn path(dir: &Path, stem: &str, index: u32) -> PathBuf {
    match index {
        0 => dir.join(format!("{stem}.jsonl")),
        _ => dir.join(format!("{stem}.{index}.jsonl")),
    }
}

/// The path of a chain's ring.
pub(super) fn ring_path(dir: &Path, stem: &str) -> PathBuf {
    dir.join(format!("{stem}.ring"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_strangers_do_not() {
        for index in [0, 1, 17] {
            let path = path(Path::new("/a"), "20270115T154012Z-7", index);
            let file = ChainFile::of(&path).expect("one of ours");
            assert_eq!((file.stem.as_str(), file.index), ("20270115T154012Z-7", index));
        }
        for name in ["x.jsonl", "a-b.jsonl", "a-7.0.jsonl", "a-7.x.jsonl", "a-7.ring", "a-7.1.2.jsonl", ".jsonl"] {
            assert_eq!(ChainFile::of(Path::new(name)), None, "{name}");
        }
    }
}
