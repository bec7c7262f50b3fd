//! Waiting for the disk, where the configuration asks for it.
//!
//! Whoever waits takes a number and wakes the writer, which syncs the ring once for all numbers taken by then. Without
//! [`Durability::Always`] nobody waits and nothing here is touched.

use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Thread;

use tokio::sync::watch;

use super::{Durability, Unavailable};

/// Ends when the disk has what was recorded, or has failed to take it.
pub type Settle = Pin<Box<dyn Future<Output = Result<(), Unavailable>> + Send>>;

/// Up to which number the disk has what was recorded, and up to which it has been asked.
#[derive(Debug, Clone, Copy, Default)]
struct Synced {
    done: u64,
    tried: u64,
}

#[derive(Debug)]
pub(super) struct Settling {
    waits: bool,
    asked: AtomicU64,
    synced: watch::Sender<Synced>,
    writer: OnceLock<Thread>,
}

impl Settling {
    pub(super) fn new(durability: Durability) -> Self {
        let waits = durability == Durability::Always;
        let synced = watch::Sender::new(Synced::default());
        Self { waits, asked: AtomicU64::new(0), synced, writer: OnceLock::new() }
    }

    /// Whom to wake.
    pub(super) fn wakes(&self, writer: Thread) {
        let _ = self.writer.set(writer);
    }

    pub(super) fn waits(&self) -> bool {
        self.waits
    }

    pub(super) fn settle(&self) -> Option<Settle> {
        if !self.waits {
            return None;
        }
        let mut synced = self.synced.subscribe();
        // Release: the writer that sees the number sees what was recorded before it.
        let number = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
        Some(Box::pin(async move {
            let seen = synced.wait_for(|synced| synced.tried >= number).await;
            if seen.is_ok_and(|seen| seen.done >= number) { Ok(()) } else { Err(Unavailable::Failing) }
        }))
    }

    /// For the writer: the last number taken, when nobody has tried to sync for it yet.
    pub(super) fn wanted(&self) -> Option<u64> {
        let asked = self.asked.load(Ordering::Acquire);
        (asked > self.synced.borrow().tried).then_some(asked)
    }

    /// For the writer: how the sync for all numbers up to `asked` ended.
    pub(super) fn tried(&self, asked: u64, is_synced: bool) {
        self.synced.send_modify(|synced| {
            synced.tried = synced.tried.max(asked);
            if is_synced {
                synced.done = synced.done.max(asked);
            }
        });
    }

    /// For the writer's end: nobody will sync any more.
    pub(super) fn give_up(&self) {
        self.tried(u64::MAX, false);
    }
}
