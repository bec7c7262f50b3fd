//! Finds every spelling of every needle in a text that comes in parts.

use super::patterns::Patterns;
use super::spelling::Thread;

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
    /// In order, none overlapping another.
    pub(super) found: Vec<Found>,
    /// Bytes read so far.
    pub(super) read: u64,
    /// More readings were under way than may be: from there on nothing is known of the text.
    pub(super) overrun: bool,
    #[cfg(test)]
    pub(super) steps: u64,
}

impl Matcher {
    /// Reads the next part. `last`: nothing comes after it.
    pub(super) fn read(&mut self, patterns: &Patterns, part: &[u8], last: bool) {
        let mut search = patterns.prefilter.search(part, last);
        let base = self.read;
        let mut at = 0;
        while at < part.len() && !self.overrun {
            if self.threads.is_empty() {
                at = patterns.prefilter.next(&mut search, at);
            }
            if let Some(&byte) = part.get(at) {
                self.byte(patterns, base + at as u64, byte);
                at += 1;
            }
        }
        self.read = base + part.len() as u64;
    }

    /// The same without looking ahead: what the prefilter must not change.
    #[cfg(test)]
    pub(super) fn read_slowly(&mut self, patterns: &Patterns, part: &[u8]) {
        for &byte in part {
            self.byte(patterns, self.read, byte);
            self.read += 1;
        }
    }

    fn byte(&mut self, patterns: &Patterns, at: u64, byte: u8) {
        self.next.clear();
        let fresh = patterns.beginning_with(byte).iter().map(|&needle| Thread::new(at, needle));
        for thread in self.threads.drain(..).chain(fresh) {
            #[cfg(test)]
            {
                self.steps += 1;
            }
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
