//! Checks chains: every line hashes to what it says, and points back to the line before.
//!
//! Deliberately absent: anything that writes. Whoever looks for what was changed changes nothing.
//!
//! What a chain cannot show by itself is that its end was cut off, or that all of it was written anew: for that, its head
//! must be kept elsewhere and given here.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::IgnoredAny;

use super::files::{self, ChainFile, Lines, Piece};
use super::line::{Head, IS_REPAIR, sha256};

/// So many problems of one chain are told; one is enough to distrust it.
const PROBLEMS_MAX: usize = 16;

/// What a check found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Every chain, in the order of their starts.
    pub chains: Vec<ChainReport>,
    /// Whether the head that was asked for is the hash of some line; `None` when none was asked for.
    pub head_found: Option<bool>,
}

/// What a check found in one chain.
#[derive(Debug, Serialize)]
pub struct ChainReport {
    /// `START-PID`.
    pub chain: String,
    /// Its files, in order.
    pub files: Vec<PathBuf>,
    /// How many lines it has.
    pub lines: u64,
    /// The hash of its last line, lower hex; zeros when it has none.
    pub head: String,
    /// How many of them say what a recovery could not keep (`event` is `repair`).
    pub repairs: u64,
    /// Its process lives, or died and its last lines wait to be written.
    pub open: bool,
    /// It is open, and its last line is not whole: it is being written, or its process died over it.
    pub torn: bool,
    /// What is wrong, the first problems of it.
    pub problems: Vec<Problem>,
}

/// Something wrong in a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// In which file.
    pub file: PathBuf,
    /// At which line of it, from 1; 0 for the file as a whole.
    pub line: u64,
    /// What is wrong.
    pub kind: ProblemKind,
}

/// What is wrong at a place of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// A file of the chain is not there.
    Missing,
    /// Not a line that the journal writes.
    NotALine,
    /// The line was changed: it does not hash to what it says.
    Changed,
    /// The line does not point back to the one before: a line was removed, added or moved here.
    Unlinked,
    /// The last line is not whole, and nobody is writing it.
    Torn,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match self.kind {
            ProblemKind::Missing => "this file of the chain is missing",
            ProblemKind::NotALine => "not a line of the journal",
            ProblemKind::Changed => "the line was changed",
            ProblemKind::Unlinked => "does not follow the line before: a line was removed, added or moved",
            ProblemKind::Torn => "the last line is not whole",
        };
        match self.line {
            0 => write!(f, "{}: {what}", self.file.display()),
            line => write!(f, "{}:{line}: {what}", self.file.display()),
        }
    }
}

impl Report {
    /// Nothing is wrong, and the head that was asked for was found.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.head_found != Some(false) && self.problems().next().is_none()
    }

    /// Everything that is wrong.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.chains.iter().flat_map(|chain| &chain.problems)
    }

    /// How many lines say what a recovery could not keep.
    #[must_use]
    pub fn repairs(&self) -> u64 {
        self.chains.iter().map(|chain| chain.repairs).sum()
    }

    /// How many lines there are in all.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.chains.iter().map(|chain| chain.lines).sum()
    }
}

/// Checks every chain in a folder, or one file by itself (of which the first line may then point anywhere, unless it is
/// its chain's first file).
///
/// `head`, lower or upper hex, must be the hash of a line.
///
/// # Errors
/// When a folder or file cannot be read.
pub fn verify(path: &Path, head: Option<&str>) -> io::Result<Report> {
    let mut check = Check { wanted: head.map(str::to_ascii_lowercase), found: false };
    let mut chains = Vec::new();
    if path.is_dir() {
        let files = files::list(path)?;
        for files in files.chunk_by(|one, next| one.stem == next.stem) {
            let open = files.first().is_some_and(|file| files::ring_path(path, &file.stem).exists());
            chains.push(check.chain(files, open, true)?);
        }
    } else {
        // Any name will do for a copy that somebody sent.
        let file = ChainFile::of(path).unwrap_or_else(|| ChainFile {
            stem: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            index: u32::MAX,
            path: path.to_owned(),
        });
        let open = path.parent().is_some_and(|dir| files::ring_path(dir, &file.stem).exists());
        chains.push(check.chain(&[file], open, false)?);
    }
    let head_found = check.wanted.is_some().then_some(check.found);
    Ok(Report { chains, head_found })
}

struct Check {
    wanted: Option<String>,
    found: bool,
}

impl Check {
    fn chain(&mut self, files: &[ChainFile], open: bool, whole: bool) -> io::Result<ChainReport> {
        let mut report = ChainReport {
            chain: files.first().map(|file| file.stem.clone()).unwrap_or_default(),
            files: files.iter().map(|file| file.path.clone()).collect(),
            lines: 0,
            repairs: 0,
            head: String::new(),
            open,
            torn: false,
            problems: Vec::new(),
        };
        let starts_at_zero = whole || files.first().is_some_and(|file| file.index == 0);
        let mut head = starts_at_zero.then_some([0; 32]);
        let mut expected = if whole { 0 } else { files.first().map_or(0, |file| file.index) };
        for (place, file) in files.iter().enumerate() {
            while expected < file.index {
                let dir = file.path.parent().unwrap_or(Path::new(""));
                report.add(&files::path(dir, &file.stem, expected), 0, ProblemKind::Missing);
                // The link across the gap cannot be checked; the missing file has been told.
                head = None;
                expected = if report.problems.len() < PROBLEMS_MAX { expected + 1 } else { file.index };
            }
            expected = file.index.saturating_add(1);
            self.file(&mut report, file, &mut head, open && place + 1 == files.len())?;
        }
        report.head = hex::encode(head.unwrap_or([0; 32]));
        Ok(report)
    }

    fn file(
        &mut self,
        report: &mut ChainReport,
        file: &ChainFile,
        head: &mut Option<Head>,
        growing: bool,
    ) -> io::Result<()> {
        let mut lines = Lines::open(&file.path)?;
        loop {
            let at = lines.number + 1;
            let (parts, is_repair) = match lines.next()? {
                None => return Ok(()),
                Some(Piece::Torn) => {
                    report.torn = growing;
                    if !growing {
                        report.add(&file.path, at, ProblemKind::Torn);
                    }
                    return Ok(());
                }
                Some(Piece::Overlong) => (None, false),
                Some(Piece::Line(line)) => (split(line), is_repair(line)),
            };
            report.lines += 1;
            report.repairs += u64::from(is_repair);
            let Some(parts) = parts else {
                report.add(&file.path, at, ProblemKind::NotALine);
                *head = None;
                continue;
            };
            if head.is_some_and(|head| head != parts.prev) {
                report.add(&file.path, at, ProblemKind::Unlinked);
            }
            if !parts.hashes {
                report.add(&file.path, at, ProblemKind::Changed);
            }
            *head = Some(parts.hash);
            self.found |= self.wanted.as_ref().is_some_and(|wanted| *wanted == hex::encode(parts.hash));
        }
    }
}

impl ChainReport {
    fn add(&mut self, file: &Path, line: u64, kind: ProblemKind) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem { file: file.to_owned(), line, kind });
        }
    }
}

/// Where a line says what it is of, after its time and its id.
fn is_repair(line: &[u8]) -> bool {
    line.get(..line.len().min(120)).is_some_and(|head| head.windows(IS_REPAIR.len()).any(|at| at == IS_REPAIR))
}

/// The links of a line, and whether it hashes to what it says.
pub(super) struct Parts {
    pub(super) prev: Head,
    pub(super) hash: Head,
    pub(super) hashes: bool,
}

/// Reads the last two members of a line by their exact bytes; `None` when they are not there or the line is no JSON
/// object.
pub(super) fn split(line: &[u8]) -> Option<Parts> {
    const HASH: &[u8] = b",\"hash\":\"";
    const PREV: &[u8] = b",\"prev\":\"";
    let (body, hash) = last_member(line.strip_suffix(b"}")?, HASH)?;
    let (_, prev) = last_member(body, PREV)?;
    if line.first() != Some(&b'{') || serde_json::from_slice::<IgnoredAny>(line).is_err() {
        return None;
    }
    Some(Parts { prev, hash, hashes: sha256(body) == hash })
}

fn last_member<'a>(text: &'a [u8], name: &[u8]) -> Option<(&'a [u8], Head)> {
    let rest = text.strip_suffix(b"\"")?;
    let (before, digits) = rest.split_at_checked(rest.len().checked_sub(64)?)?;
    let mut head = [0; 32];
    let lower = digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    if !lower || hex::decode_to_slice(digits, &mut head).is_err() {
        return None;
    }
    Some((before.strip_suffix(name)?, head))
}
