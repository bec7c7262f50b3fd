//! The journal as a process has it open.
#![expect(
    clippy::disallowed_types,
    reason = "not on the path of a request: the writer says how far it is, and health and shutdown ask"
)]

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ulid::Ulid;

use super::auth::Tally;
use super::chain::Chain;
use super::files;
use super::line::Head;
use super::mirror;
use super::record::{Ended, Intent, Outcome};
use super::recover::{self, boot_id};
use super::ring::{NoSlot, Ring, Shape};
use super::settle::{Settle, Settling};
use super::writer::Writer;
use crate::clock::UnixSeconds;
use crate::handoff::Handoff;
use crate::store::{StoreError, private};

/// When a line counts as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// When the kernel has it: it survives the death of the process, however sudden. What the kernel had not written out
    /// yet (by default up to some 30 s) is lost with the power.
    #[default]
    Kernel,
    /// When the disk has it, in groups: the writer syncs lines and the ring whenever it looks, every 2 to 50 ms. A power cut
    /// loses what began or ended since.
    Disk,
    /// When the disk has it, always: a request waits until its intent is synced before the upstream sees it, and again
    /// for its outcome before the agent has the end of the answer. Requests of the same moment share a sync.
    Always,
}

impl Durability {
    /// Whether lines are synced.
    pub(super) const fn is_synced(self) -> bool {
        !matches!(self, Self::Kernel)
    }
}

/// How a journal is kept.
#[derive(Debug, Clone, Copy)]
pub struct JournalOptions {
    /// When a line counts as written.
    pub durability: Durability,
    /// A file that has reached this size, in bytes, is followed by the next.
    pub rotate_bytes: u64,
    /// So many requests can be begun and without a line at once (from 16 to 1 048 576); a sixteenth of it again is for
    /// requests with long paths or chains. One takes 3.5 KiB on the disk.
    pub in_flight_max: usize,
    /// Whether lines go to stdout too, once they are in the file. What is not read there is left out there, and holds up
    /// nothing.
    pub stdout: bool,
}

impl Default for JournalOptions {
    /// The kernel's word, 64 MiB a file, 8192 requests at once (28 MiB).
    fn default() -> Self {
        Self { durability: Durability::Kernel, rotate_bytes: 64 << 20, in_flight_max: 8192, stdout: false }
    }
}

/// Why the journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The folder is not private, or not there and cannot be made.
    #[error(transparent)]
    Folder(#[from] StoreError),
    /// A file in it cannot be made: a full disk, no permission.
    #[error("the journal in {} cannot be {action}", dir.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The journal's folder.
        dir: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl JournalError {
    /// The line that a person would type to put it right, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Folder(error) => error.hint(),
            Self::Io { .. } => None,
        }
    }
}

/// Why a request cannot be begun: it must be refused (`journal_unavailable`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// Lines cannot be written at the moment.
    #[error("the journal cannot be written")]
    Failing,
    /// Too many requests are in flight, or the disk is too slow for them.
    #[error("the journal has no room for another request in flight")]
    Full,
    /// This request's texts do not fit the largest slot.
    #[error("the request is too large to be journalled")]
    TooLarge,
}

/// How the journal does, for readiness and metrics.
#[derive(Debug, Clone, Copy)]
pub struct Health {
    /// Why new requests are refused; `None` when they are not.
    pub refusing: Option<Unavailable>,
    /// Lines written by this process.
    pub lines: u64,
    /// Requests begun and without a line.
    pub in_flight: usize,
    /// The hash of the last line; zeros before the first.
    pub head: [u8; 32],
    /// Lines left out on stdout, for nobody read them there.
    pub stdout_left_out: u64,
}

/// What requests, the writer and open entries share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) ring: Ring,
    /// Open, and locked, as long as anybody can write into the ring.
    pub(super) ring_file: File,
    pub(super) ring_path: PathBuf,
    pub(super) failures: Tally,
    pub(super) stop: AtomicBool,
    pub(super) settling: Settling,
    pub(super) mirror: Option<Handoff>,
    /// What [`Shared::moment`] counts from.
    opened: Instant,
    refusing: AtomicU8,
    written: Mutex<Written>,
    progress: Condvar,
}

#[derive(Debug)]
struct Written {
    lines: u64,
    head: Head,
}

/// How long the end waits for who reads stdout.
const STDOUT_WITHIN: Duration = Duration::from_secs(1);

const ACCEPTING: u8 = 0;
const REFUSING: u8 = 1;

impl Shared {
    /// The writer's word on whether requests may begin. Said to the log when it changes.
    pub(super) fn refuse(&self, why: Option<Unavailable>, cause: &str) {
        let now = if why.is_some() { REFUSING } else { ACCEPTING };
        if self.refusing.swap(now, Ordering::AcqRel) == now {
            return;
        }
        if why.is_some() {
            tracing::error!(cause, "the journal cannot be written: requests are refused");
        } else {
            tracing::info!("the journal can be written again");
        }
    }

    /// A moment as nanoseconds, by which entries are put in the order in which they ended.
    pub(super) fn moment(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.opened).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Gives stdout the time to take what is meant for it.
    fn settle_mirror(&self) {
        if let Some(mirror) = &self.mirror {
            mirror.settle(Instant::now() + STDOUT_WITHIN);
        }
    }

    pub(super) fn wrote(&self, lines: u64, head: &Head) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.lines += lines;
        written.head = *head;
        drop(written);
        self.progress.notify_all();
    }
}

/// The journal of this process: a chain of its own in a folder that it may share.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    recorder: Recorder,
    writer: Option<JoinHandle<()>>,
}

impl Journal {
    /// Opens a journal: completes the chains of processes that died, then starts a chain of its own.
    ///
    /// The folder is made if it is missing (0700). Chains that cannot be completed now are left for the next time, with
    /// a word to the log.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(dir: &Path, options: JournalOptions) -> Result<Self, JournalError> {
        let dir = prepare(dir)?;
        Self::open_in(&dir, options).map_err(|source| JournalError::Io { action: "opened", dir, source })
    }

    fn open_in(dir: &Path, options: JournalOptions) -> io::Result<Self> {
        // Held until our ring is locked: nobody may take it for a dead process's.
        let turn = File::open(dir)?;
        turn.lock()?;
        let mirror = if options.stdout { Some(mirror::to_stdout()?) } else { None };
        recover::all(dir, mirror.as_ref())?;
        let (stem, chain) = start_chain(dir, options)?;
        let ring_path = files::ring_path(dir, &stem);
        let made = make_ring(&ring_path, options);
        let (ring_file, ring) = match made {
            Ok(made) => made,
            Err(error) => {
                let _ = fs::remove_file(&ring_path);
                chain.remove_if_empty();
                return Err(error);
            }
        };
        if options.durability.is_synced() {
            turn.sync_all()?;
        }
        drop(turn);
        let shared = Arc::new(Shared {
            ring,
            ring_file,
            ring_path,
            failures: Tally::default(),
            stop: AtomicBool::new(false),
            settling: Settling::new(options.durability),
            mirror,
            opened: Instant::now(),
            refusing: AtomicU8::new(ACCEPTING),
            written: Mutex::new(Written { lines: 0, head: [0; 32] }),
            progress: Condvar::new(),
        });
        let writer = Writer::new(Arc::clone(&shared), chain, options.durability);
        let writer = thread::Builder::new().name("journal".to_owned()).spawn(move || writer.run())?;
        shared.settling.wakes(writer.thread().clone());
        Ok(Self { recorder: Recorder::new(&shared), shared, writer: Some(writer) })
    }

    /// [`Recorder::begin`], for whoever begins few.
    ///
    /// # Errors
    /// [`Unavailable`]: the request must be refused.
    pub fn begin(&self, intent: &Intent<'_>) -> Result<Entry, Unavailable> {
        self.recorder.begin(intent)
    }

    /// A recorder of its own for whoever begins many entries, such as a tunnel.
    #[must_use]
    pub fn recorder(&self) -> Recorder {
        Recorder::new(&self.shared)
    }

    /// How many requests can be begun and without a line at once, beside those with large entries.
    #[must_use]
    pub fn in_flight_max(&self) -> usize {
        self.shared.ring.slots()[0]
    }

    /// The same for requests with large entries.
    #[must_use]
    pub fn large_in_flight_max(&self) -> usize {
        self.shared.ring.slots()[1]
    }

    /// Counts a failure to authenticate: one line per client, listener, code and second, on nobody's name. A client of `None` is
    /// one on a Unix socket; a listener is one that holds a capability. Counts of the running second die with a killed
    /// process.
    pub fn auth_failure(&self, client: Option<IpAddr>, listener: Option<&Arc<str>>, code: &'static str) {
        self.shared.failures.add(client, listener, code, UnixSeconds::now());
    }

    /// How it does.
    #[must_use]
    pub fn health(&self) -> Health {
        let written = self.shared.written.lock().unwrap_or_else(PoisonError::into_inner);
        let refusing = self.shared.refusing.load(Ordering::Acquire) == REFUSING;
        Health {
            refusing: refusing.then_some(Unavailable::Failing),
            lines: written.lines,
            in_flight: self.shared.ring.in_use(),
            head: written.head,
            stdout_left_out: self.shared.mirror.as_ref().map_or(0, Handoff::left_out),
        }
    }

    /// Waits until every entry that is finished has its line, at most `wait_max`. Blocks the thread.
    ///
    /// Returns whether that is so. Dropping the journal does this too, and waits up to 2 s for a disk that refuses. Stdout,
    /// if lines go there too, has a second for them.
    #[must_use]
    pub fn flush(&self, wait_max: Duration) -> bool {
        let deadline = Instant::now() + wait_max;
        let mut written = self.shared.written.lock().unwrap_or_else(PoisonError::into_inner);
        while self.shared.ring.ended_count() > 0 {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            if let Some(writer) = &self.writer {
                writer.thread().unpark();
            }
            let waited = self.shared.progress.wait_timeout(written, left).unwrap_or_else(PoisonError::into_inner);
            written = waited.0;
        }
        drop(written);
        self.shared.settle_mirror();
        true
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(writer) = self.writer.take() {
            writer.thread().unpark();
            // A writer that panicked left its lines in the ring; the next process completes the chain.
            let _ = writer.join();
        }
        self.shared.settle_mirror();
    }
}

/// Begins entries. Its entries share its own count of references, so that tunnels on different cores share none.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<SharedHandle>);

#[derive(Debug)]
struct SharedHandle(Arc<Shared>);

impl Recorder {
    fn new(shared: &Arc<Shared>) -> Self {
        Self(Arc::new(SharedHandle(Arc::clone(shared))))
    }

    fn ring(&self) -> &Ring {
        &self.0.0.ring
    }

    /// Records what a request is about to do. When this returns, the record outlives a kill of the process; only then
    /// may the upstream see a byte.
    ///
    /// No system call, no lock, no allocation; nobody is woken.
    ///
    /// # Errors
    /// [`Unavailable`]: the request must be refused.
    pub fn begin(&self, intent: &Intent<'_>) -> Result<Entry, Unavailable> {
        if self.0.0.refusing.load(Ordering::Acquire) == REFUSING {
            return Err(Unavailable::Failing);
        }
        let slot = self.ring().begin(intent).map_err(|why| match why {
            NoSlot::Full => Unavailable::Full,
            NoSlot::TooLarge => Unavailable::TooLarge,
        })?;
        Ok(Entry { recorder: self.clone(), id: intent.id, slot, finished: false })
    }
}

impl Recorder {
    /// True when [`Self::settle`] must be asked before an upstream or an agent learns what was recorded.
    #[must_use]
    pub fn waits_for_disk(&self) -> bool {
        self.0.0.settling.waits()
    }

    /// What to wait for so that everything recorded so far outlives a power cut; `None` unless that was asked for
    /// ([`Durability::Always`]).
    #[must_use]
    pub fn settle(&self) -> Option<Settle> {
        self.0.0.settling.settle()
    }
}

/// A request that is begun. Dropped without [`Entry::finish`], it ends as `aborted`.
#[derive(Debug)]
#[must_use = "dropping an entry ends it as aborted"]
pub struct Entry {
    recorder: Recorder,
    id: Ulid,
    slot: u32,
    finished: bool,
}

impl Entry {
    /// The id of the request.
    #[must_use]
    pub fn id(&self) -> Ulid {
        self.id
    }

    /// True when it takes one of the few large slots, for its path or chain is long.
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.recorder.ring().is_large(self.slot)
    }

    /// Records how it ended. When this returns, the record outlives a kill; only then may the agent have the end of the
    /// answer.
    ///
    /// `at` is when it ended, for lines are in that order: the caller has looked at the clock.
    pub fn finish(mut self, outcome: &Outcome, at: Instant) {
        self.end(&Ended::from(outcome), at);
    }

    fn end(&mut self, ended: &Ended, at: Instant) {
        self.finished = true;
        let shared = &self.recorder.0.0;
        shared.ring.finish(self.slot, ended, shared.moment(at));
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.finished {
            // How long it took nobody measured; two readings of the system's clock do not say.
            self.end(&Ended::aborted(None), Instant::now());
        }
    }
}

/// The journal's folder, absolute and private.
fn prepare(dir: &Path) -> Result<PathBuf, JournalError> {
    let failed = |source| JournalError::Io { action: "made", dir: dir.to_owned(), source };
    let absolute = std::path::absolute(dir).map_err(failed)?;
    match DirBuilder::new().mode(0o700).create(&absolute) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    private::check_folder(&absolute)?;
    Ok(absolute)
}

/// `START-PID`. A container's first process has the same number every time: if the name is taken, the next second's is
/// used.
fn start_chain(dir: &Path, options: JournalOptions) -> io::Result<(String, Chain)> {
    let mut start = UnixSeconds::now();
    for _ in 0..3600 {
        let stem = format!("{}-{}", start.to_string().replace(['-', ':'], ""), std::process::id());
        let taken = files::ring_path(dir, &stem).exists() || !files::of_chain(dir, &stem)?.is_empty();
        if !taken {
            let chain = Chain::create(dir, &stem, options.durability, options.rotate_bytes)?;
            return Ok((stem, chain));
        }
        start = start + 1;
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn make_ring(path: &Path, options: JournalOptions) -> io::Result<(File, Ring)> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    file.try_lock()?;
    let ring = Ring::create(&file, Shape::for_requests(options.in_flight_max), boot_id())?;
    Ok((file, ring))
}
