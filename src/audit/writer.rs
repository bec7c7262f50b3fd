//! The thread that turns finished entries into lines.
//!
//! It is never woken by a request: it looks, often when there is work and seldom when there is none. A batch is one
//! `write`, and it is kept until that has succeeded: after an error the same bytes are written at the same offset, so
//! that no line is lost or doubled, and meanwhile no new request is begun.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::Durability;
use super::chain::{Chain, is_at};
use super::journal::{Shared, Unavailable};
use super::line;
use super::ring::Due;
use crate::clock::UnixSeconds;
use crate::store::random;

/// One `write` is not (much) larger than this, in bytes. Recovery relies on it: no more than this, and one line, can be
/// in the file and in the ring at once.
pub(super) const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// How long it sleeps after there was something to do.
const BUSY: Duration = Duration::from_millis(2);
/// How long it sleeps at most: `tail` follows within this.
const IDLE: Duration = Duration::from_millis(50);
/// How long it waits after an error.
const AFTER_ERROR: Duration = Duration::from_millis(100);
/// An entry that seems to end later than this from now, in nanoseconds, never does.
const FAR_NS: u64 = 1_000_000_000;
/// How long a journal that is closed tries to write its last lines; then they stay in the ring for the next process.
const CLOSE_MAX: Duration = Duration::from_secs(2);

pub(super) struct Writer {
    shared: Arc<Shared>,
    chain: Chain,
    batch: Batch,
    /// Used by [`Self::collect`] alone; kept for its memory.
    due: Vec<Due>,
    auth_second: UnixSeconds,
    durability: Durability,
    /// How long the ring's file is, in bytes, when nobody has cut it.
    ring_bytes: u64,
    /// Which entries were begun when the ring was last synced, a bit for each slot.
    synced: Vec<u64>,
}

/// Lines on their way, and the slots that they came from.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    slots: Vec<u32>,
    lines: u64,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.slots.is_empty()
    }
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, chain: Chain, durability: Durability) -> Self {
        let (batch, auth_second, synced) = (Batch::default(), UnixSeconds::now(), Vec::new());
        let ring_bytes = shared.ring_file.metadata().map_or(0, |ring| ring.len());
        Self { shared, chain, batch, due: Vec::new(), auth_second, durability, ring_bytes, synced }
    }

    pub(super) fn run(mut self) {
        let mut pause = BUSY;
        let mut closing: Option<Instant> = None;
        loop {
            let stop = self.shared.stop.load(Ordering::Acquire);
            if stop && closing.is_none() {
                closing = Some(Instant::now());
            }
            match self.round(stop) {
                Round::Idle if stop => break,
                Round::Failed if closing.is_some_and(|since| since.elapsed() > CLOSE_MAX) => return,
                Round::More => continue,
                Round::Wrote => pause = BUSY,
                Round::Idle => pause = (pause * 2).min(IDLE),
                Round::Failed => pause = AFTER_ERROR,
            }
            thread::park_timeout(pause);
        }
        self.close();
    }

    fn round(&mut self, stop: bool) -> Round {
        if self.shared.ring_file.metadata().is_ok_and(|ring| ring.len() < self.ring_bytes) {
            // Whoever touches what is gone gets a SIGBUS, this thread too.
            self.shared.refuse(Some(Unavailable::Failing), "the journal's ring was cut short: a restart is needed");
            return Round::Failed;
        }
        if self.durability.is_synced()
            && let Err(error) = self.sync_ring()
        {
            self.shared.refuse(Some(Unavailable::Failing), &error.to_string());
            return Round::Failed;
        }
        let lack = match is_at(&self.shared.ring_file, &self.shared.ring_path) {
            Ok(true) if self.chain.has_room() => None,
            Ok(true) => Some("the disk is full".to_owned()),
            Ok(false) => Some("the journal's folder or its ring was removed: a restart is needed".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(lack) = &lack {
            self.shared.refuse(Some(Unavailable::Failing), lack);
        }
        if self.batch.is_empty() {
            self.collect(stop);
        }
        let idle = self.batch.is_empty();
        if !idle {
            if let Err(error) = self.chain.append(&self.batch.bytes) {
                self.shared.refuse(Some(Unavailable::Failing), &error.to_string());
                return Round::Failed;
            }
            self.commit();
        }
        if lack.is_none() {
            self.shared.refuse(None, "");
        }
        match (self.shared.ring.ended_count(), idle) {
            (0, true) => Round::Idle,
            (1.., false) => Round::More,
            // What ended a moment ago is due at the next look.
            (0, false) | (1.., true) => Round::Wrote,
        }
    }

    /// Brings what was begun since the last time to the disk, and tells who waits for it.
    ///
    /// Outcomes that nobody waits for need no sync of the ring: their lines are synced.
    fn sync_ring(&mut self) -> std::io::Result<()> {
        let wanted = self.shared.settling.wanted();
        let begun = self.shared.ring.has_begun(&mut self.synced);
        if wanted.is_none() && !begun {
            return Ok(());
        }
        let synced = self.shared.ring_file.sync_data();
        if let Some(asked) = wanted {
            self.shared.settling.tried(asked, synced.is_ok());
        }
        if synced.is_err() {
            // The kernel may take the pages for clean now: everything is looked at again.
            self.synced.clear();
        }
        synced
    }

    /// Fills the batch with what has ended, in the order in which it ended.
    ///
    /// What ended while this looks waits for the next time: something that ended before it may not have been seen.
    fn collect(&mut self, everything: bool) {
        let now = self.shared.moment(Instant::now());
        // A moment that cannot be is not waited for: the entry is damaged.
        let is_due = |due: &Due| due.ended_at < now || due.ended_at > now.saturating_add(FAR_NS);
        self.shared.ring.ended(&mut self.due);
        self.due.sort_unstable();
        for Due { slot, .. } in self.due.drain(..).filter(is_due) {
            if self.batch.bytes.len() >= BATCH_BYTES_MAX {
                break;
            }
            if let Some((intent, Some((_, ended)))) = self.shared.ring.read(slot) {
                self.chain.head = line::entry(&mut self.batch.bytes, &intent, &ended, &self.chain.head);
                self.batch.lines += 1;
            } else {
                // Only if somebody wrote into the file: the memory is not what this process put there.
                tracing::error!(slot, "a journal entry is damaged and was dropped");
            }
            self.batch.slots.push(slot);
        }
        let now = UnixSeconds::now();
        if everything || now != self.auth_second {
            self.auth_second = now;
            self.collect_auth((!everything).then_some(now));
        }
    }

    fn collect_auth(&mut self, before: Option<UnixSeconds>) {
        for failures in self.shared.failures.take(before) {
            let Ok(id) = random::id(failures.second.saturating_mul(1000)) else {
                tracing::error!("no randomness for the id of a journal line");
                continue;
            };
            self.chain.head = line::auth(&mut self.batch.bytes, id, &failures, &self.chain.head);
            self.batch.lines += 1;
        }
    }

    /// The lines are in the file: their slots are free.
    fn commit(&mut self) {
        if let Some(mirror) = &self.shared.mirror {
            mirror.take(&self.batch.bytes, self.batch.lines);
        }
        // A slot given back may be taken again before the next look: then nobody can tell the entries apart.
        self.synced.clear();
        for slot in self.batch.slots.drain(..) {
            self.shared.ring.release(slot);
        }
        self.chain.lines += self.batch.lines;
        self.shared.wrote(self.batch.lines, &self.chain.head);
        self.batch.lines = 0;
        self.batch.bytes.clear();
        // One long burst must not keep its memory for ever.
        self.batch.bytes.shrink_to(BATCH_BYTES_MAX);
    }

    /// Nothing is left to write. If nobody holds an entry any more, the ring has done its work.
    fn close(self) {
        if self.shared.ring.in_use() == 0 {
            // If it stays, the next process finds it empty and removes it.
            let _ = std::fs::remove_file(&self.shared.ring_path);
            self.chain.remove_if_empty();
        }
    }
}

impl Drop for Writer {
    /// Whoever waits is told; after a panic nothing more is begun, and the next process writes what is in the ring.
    fn drop(&mut self) {
        self.shared.settling.give_up();
        if thread::panicking() {
            self.shared.refuse(Some(Unavailable::Failing), "the writer's thread panicked: a restart is needed");
        }
    }
}

enum Round {
    Idle,
    Wrote,
    More,
    Failed,
}
