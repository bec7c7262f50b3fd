//! Finds every spelling of every needle in a text that comes in parts.

use super::patterns::Patterns;
use super::spelling::{LEADS, Thread};

/// So many readings may be under way at once. An ordinary text keeps a handful of them for each needle; only a text that
/// repeats itself as a needle does keeps more, and each costs a step for every byte.
pub(super) const THREADS_MAX: usize = 512;

/// Where a spelling stands: `start..end`, in bytes from the text's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) start: u64,
    pub(super) end: u64,
    /// More than one spelling, one into the other.
    pub(super) several: bool,
}

/// The readings that are under way, and what was found and not yet taken.
#[derive(Default)]
pub(super) struct Matcher {
    threads: Vec<Thread>,
    next: Vec<Thread>,
    /// The needles that an escape may begin.
    escaped: Vec<u16>,
    /// In order, none overlapping another.
    pub(super) found: Vec<Found>,
    /// Bytes read so far.
    pub(super) read: u64,
    /// More readings were under way than may be: from there on nothing is known of the text.
    pub(super) overrun: bool,
    /// How many bytes readings have read.
    pub(super) steps: u64,
}

impl Matcher {
    /// Reads the next part. `last`: nothing comes after it.
    pub(super) fn read(&mut self, patterns: &Patterns, part: &[u8], last: bool) {
        self.read_some(patterns, part, last, u64::MAX);
    }

    /// Reads of the next part as much as may be read in so many steps, of which a byte counts one and each reading of it
    /// another; how much.
    pub(super) fn read_some(&mut self, patterns: &Patterns, part: &[u8], last: bool, steps: u64) -> usize {
        let whole = part.len();
        let part = &part[..whole.min(usize::try_from(steps).unwrap_or(usize::MAX))];
        let mut search = patterns.prefilter.search(part, last && part.len() == whole);
        let (base, began) = (self.read, self.steps);
        let mut at = 0;
        while at < part.len() && !self.overrun && (self.steps - began).saturating_add(at as u64) <= steps {
            if self.threads.is_empty() {
                at = patterns.prefilter.next(&mut search, at);
            }
            if at < part.len() {
                self.byte(patterns, base + at as u64, &part[at..]);
                at += 1;
            }
        }
        self.read = base + at as u64;
        at
    }

    /// The same without looking ahead: what the prefilter must not change.
    #[cfg(test)]
    pub(super) fn read_slowly(&mut self, patterns: &Patterns, part: &[u8]) {
        for byte in part.chunks(1) {
            self.byte(patterns, self.read, byte);
            self.read += 1;
        }
    }

    /// Reads the first byte; what follows it tells which needles an escape may begin.
    fn byte(&mut self, patterns: &Patterns, at: u64, text: &[u8]) {
        self.next.clear();
        let byte = text[0];
        self.escaped.clear();
        if LEADS.contains(&byte) {
            patterns.beginning_escaped(text, &mut self.escaped);
        }
        let goes_on =
            |&&needle: &&u16| text.get(1).is_none_or(|&next| patterns.needles[usize::from(needle)].goes_on(next));
        let plain = patterns.beginning_with(byte).iter().filter(goes_on);
        let fresh = plain.chain(&self.escaped).map(|&needle| Thread::new(at, needle));
        for thread in self.threads.drain(..).chain(fresh) {
            self.steps += 1;
            if self.next.len() > THREADS_MAX {
                self.overrun = true;
                break;
            }
            let needle = &patterns.needles[usize::from(thread.needle)];
            if needle.read(thread, byte, &mut self.next) {
                join(&mut self.found, Found { start: thread.start, end: at + 1, several: false });
            }
        }
        std::mem::swap(&mut self.threads, &mut self.next);
        if self.overrun {
            self.threads.clear();
        }
    }

    /// From where on something may still become a spelling; the end of what was read when nothing may.
    pub(super) fn undecided_from(&self) -> u64 {
        // Readings stay in the order in which they began.
        self.threads.first().map_or(self.read, |thread| thread.start)
    }

    /// The text has ended: what was under way becomes nothing.
    pub(super) fn end(&mut self) {
        self.threads.clear();
    }
}

/// Spellings end in the order in which they are found; one that begins inside others makes one of all of them.
fn join(found: &mut Vec<Found>, mut new: Found) {
    while let Some(last) = found.last().filter(|last| last.end > new.start) {
        new.several = last.several || *last != new;
        new.start = new.start.min(last.start);
        found.pop();
    }
    found.push(new);
}
