//! Tells when files change, by looking.
//!
//! Looking works on every filesystem, on mounts, and through the swapped links of a mounted ConfigMap, which change
//! notification does not; a handful of `stat` calls five times a second costs nothing that can be measured.
#![expect(clippy::disallowed_types, reason = "not on the path of a request: the watcher's thread and whoever reloads")]

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::libc;
use tokio::sync::watch;

/// How often the watcher looks.
pub const INTERVAL: Duration = Duration::from_millis(200);

/// Of a watched folder, this many files are looked at.
const FOLDER_FILES_MAX: usize = 1024;

/// Watches a set of files and folders until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    generation: watch::Sender<u64>,
    paths: Arc<Mutex<Vec<PathBuf>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts to watch. A path that does not exist is watched for its coming; of a folder, the files in it count too.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(paths: Vec<PathBuf>) -> std::io::Result<Self> {
        let mut seen = stamps(&paths, &[]);
        let paths = Arc::new(Mutex::new(paths));
        let generation = watch::Sender::new(0);
        let sender = generation.clone();
        let stop = Arc::new(AtomicBool::new(false));
        let (watched, stopped) = (Arc::clone(&paths), Arc::clone(&stop));
        let look = move || {
            while !stopped.load(Ordering::Relaxed) {
                thread::park_timeout(INTERVAL);
                let paths = watched.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let now = stamps(&paths, &seen);
                if now != seen {
                    seen = now;
                    sender.send_modify(|generation| *generation += 1);
                }
            }
        };
        let thread = thread::Builder::new().name("watch".to_owned()).spawn(look)?;
        Ok(Self { generation, paths, stop, thread: Some(thread) })
    }

    /// The number of changes seen so far; `changed().await` on it waits for the next.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Where somebody else can say that something has changed.
    #[must_use]
    pub fn generation(&self) -> watch::Sender<u64> {
        self.generation.clone()
    }

    /// Watches another set from now on, for a configuration may name other files than before. Counts as a change if the
    /// set differs.
    pub fn set_paths(&self, paths: Vec<PathBuf>) {
        *self.paths.lock().unwrap_or_else(PoisonError::into_inner) = paths;
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread has no way to panic that matters here.
            let _ = thread.join();
        }
    }
}

/// What changes when a file changes: which file it is, its size, and when its content or its inode last changed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    identity: Option<(u64, u64, u64, [i64; 4])>,
}

/// What there is now. To look into a folder takes a descriptor: where there is none, what was `seen` in it stands.
fn stamps(paths: &[PathBuf], seen: &[Stamp]) -> Vec<Stamp> {
    let mut all = Vec::with_capacity(paths.len());
    for path in paths {
        let found = fs::metadata(path).ok();
        let folder = found.as_ref().is_some_and(Metadata::is_dir);
        all.push(stamp(path, found.as_ref()));
        if folder {
            let before = || seen.iter().filter(|stamp| stamp.path.parent() == Some(path)).cloned().collect();
            all.extend(files_of(path).unwrap_or_else(before));
        }
    }
    all
}

/// `None` when this process, or the system, can open nothing.
fn files_of(folder: &Path) -> Option<Vec<Stamp>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => return None,
        Err(_) => return Some(Vec::new()),
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).take(FOLDER_FILES_MAX).collect();
    files.sort();
    Some(files.iter().map(|path| stamp(path, fs::metadata(path).ok().as_ref())).collect())
}

fn stamp(path: &Path, found: Option<&Metadata>) -> Stamp {
    let identity = found.map(|found| {
        let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
        (found.dev(), found.ino(), found.len(), times)
    });
    Stamp { path: path.to_owned(), identity }
}
