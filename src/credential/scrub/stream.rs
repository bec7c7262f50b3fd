//! A text that is scrubbed as it passes.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::matcher::Matcher;
use super::patterns::Patterns;

/// Takes the secrets out of one text that comes in parts. What it gives out is as long as what it takes in, in the same
/// order, and the same wherever the parts were split. Untouched parts are passed on, never copied.
pub struct Scrubber {
    patterns: Arc<Patterns>,
    matcher: Matcher,
    held: VecDeque<Piece>,
    ready: VecDeque<Bytes>,
    /// Bytes of the text that have left `held`.
    passed: u64,
    hits: u64,
}

/// What came and has not left, in its order.
enum Piece {
    /// Of the text.
    Text(Bytes),
    /// Between parts of the text, and not of it.
    Between(Bytes),
}

impl Scrubber {
    /// At the beginning of a text.
    #[must_use]
    pub fn new(patterns: Arc<Patterns>) -> Self {
        Self {
            patterns,
            matcher: Matcher::default(),
            held: VecDeque::new(),
            ready: VecDeque::new(),
            passed: 0,
            hits: 0,
        }
    }

    /// Takes the next part of the text; gives what is ready, after which [`Self::ready`] gives the rest.
    pub fn push(&mut self, part: Bytes) -> Option<Bytes> {
        self.matcher.read(&self.patterns, &part, false);
        self.take(part)
    }

    /// Takes the last part of the text, and holds nothing.
    pub fn push_last(&mut self, part: Bytes) -> Option<Bytes> {
        self.matcher.read(&self.patterns, &part, true);
        self.matcher.end();
        self.take(part)
    }

    fn take(&mut self, part: Bytes) -> Option<Bytes> {
        if self.matcher.overrun {
            self.held.clear();
            return self.ready();
        }
        if self.is_idle() && self.matcher.undecided_from() == self.matcher.read && self.matcher.found.is_empty() {
            self.passed = self.matcher.read;
            return Some(part).filter(|part| !part.is_empty());
        }
        self.held.push_back(Piece::Text(part));
        self.release(self.decided());
        self.ready()
    }

    /// Takes what stands between parts of the text, such as a frame's head: passed in its place, as it is.
    pub fn push_between(&mut self, bytes: Bytes) -> Option<Bytes> {
        if self.matcher.overrun {
            return self.ready();
        }
        if self.is_idle() {
            return Some(bytes);
        }
        self.held.push_back(Piece::Between(bytes));
        self.release(self.decided());
        self.ready()
    }

    /// The text has ended, and another may begin: what is held was no secret, and gets ready.
    pub fn finish(&mut self) -> Option<Bytes> {
        self.matcher.end();
        if !self.matcher.overrun {
            self.release(self.matcher.read);
        }
        self.ready()
    }

    /// The next bytes that are ready.
    pub fn ready(&mut self) -> Option<Bytes> {
        self.ready.pop_front()
    }

    /// Whether nothing is held or ready.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.held.is_empty() && self.ready.is_empty()
    }

    /// Whether the text cannot be read within bounds: what was held is dropped, and nothing more comes out. It must be
    /// broken off.
    #[must_use]
    pub fn is_overrun(&self) -> bool {
        self.matcher.overrun
    }

    /// How many secrets were taken out so far.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits
    }

    /// The longest of what was found and has not passed.
    #[cfg(test)]
    pub(super) fn longest_find(&self) -> u64 {
        self.matcher.found.iter().map(|found| found.end - found.start).max().unwrap_or(0)
    }

    /// Up to where nothing that comes can change what passes.
    fn decided(&self) -> u64 {
        let undecided = self.matcher.undecided_from();
        let found = &self.matcher.found;
        let mut open = found[found.partition_point(|found| found.end <= undecided)..].iter();
        // Another spelling may still overlap one that the placeholder stands for, and then the mask stands there instead.
        let placeholder = open.find(|found| self.patterns.may_be_placeholder(**found));
        placeholder.map_or(undecided, |found| undecided.min(found.start))
    }

    /// Gets everything ready that stands before `end`.
    fn release(&mut self, end: u64) {
        while let Some(piece) = self.held.front_mut() {
            let text = match piece {
                Piece::Between(bytes) => {
                    self.ready.push_back(std::mem::take(bytes));
                    self.held.pop_front();
                    continue;
                }
                Piece::Text(text) if self.passed >= end && !text.is_empty() => break,
                Piece::Text(text) => text,
            };
            let length = text.len().min(usize::try_from(end - self.passed).unwrap_or(usize::MAX));
            let part = text.split_to(length);
            if text.is_empty() {
                self.held.pop_front();
            }
            self.pass(part);
        }
        let passed = self.passed;
        let gone = self.matcher.found.partition_point(|found| found.end <= passed);
        self.matcher.found.drain(..gone);
        self.hits += gone as u64;
        // What has passed of one that more may join is over: nothing reaches farther back than what is held.
        if let Some(found) = self.matcher.found.first_mut().filter(|found| found.start < passed) {
            (found.start, found.several) = (passed, true);
        }
    }

    /// Gets one part ready, without what was found in it.
    fn pass(&mut self, mut part: Bytes) {
        let (start, end) = (self.passed, self.passed + part.len() as u64);
        let mut at = start;
        self.passed = end;
        let found = &self.matcher.found;
        let found = &found[found.partition_point(|found| found.end <= start)..];
        for &found in found.iter().take_while(|found| found.start < end) {
            let (from, to) = (found.start.max(at), found.end.min(end));
            let before = part.split_to(offset(from, at));
            let instead = Bytes::from(self.patterns.instead_of(found, from..to));
            drop(part.split_to(offset(to, from)));
            self.ready.extend([before, instead].into_iter().filter(|bytes| !bytes.is_empty()));
            at = to;
        }
        self.ready.extend(Some(part).filter(|part| !part.is_empty()));
    }
}

/// How far `at` is from `from`, which is not after it.
fn offset(at: u64, from: u64) -> usize {
    usize::try_from(at - from).unwrap_or(usize::MAX)
}

/// Shows nothing of the text.
impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrubber").field("passed", &self.passed).field("hits", &self.hits).finish_non_exhaustive()
    }
}
