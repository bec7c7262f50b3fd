//! A text that is scrubbed as it passes.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::matcher::Matcher;
use super::patterns::Patterns;
use super::turn::Turn;

/// Takes the secrets out of one text that comes in parts. What it gives out is as long as what it takes in, in the same
/// order, and the same wherever the parts were split. Untouched parts are passed on, never copied.
pub struct Scrubber {
    patterns: Arc<Patterns>,
    matcher: Matcher,
    held: VecDeque<Piece>,
    ready: VecDeque<Bytes>,
    /// Bytes of the text that have left `held`.
    passed: u64,
    /// Up to here the text must stay as it is.
    fixed: u64,
    spoiled: bool,
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
            fixed: 0,
            spoiled: false,
            hits: 0,
        }
    }

    /// Takes the next part of the text; gives what is ready, after which [`Self::ready`] gives the rest.
    pub fn push(&mut self, part: Bytes) -> Option<Bytes> {
        self.matcher.read(&self.patterns, &part, false);
        self.take(part)
    }

    /// Takes of the next part what one turn has time for, and says what is ready as [`Self::push`] does. `last`: nothing comes
    /// after the part. The rest of it is taken in the next turns.
    pub fn push_some(&mut self, part: &mut Bytes, last: bool, turn: &mut Turn) -> Option<Bytes> {
        let before = self.matcher.steps;
        let length = self.matcher.read_some(&self.patterns, part, last, turn.left().max(1));
        turn.take(length as u64 + (self.matcher.steps - before));
        if last && length == part.len() {
            self.matcher.end();
        }
        let taken = part.split_to(if self.matcher.overrun { part.len() } else { length });
        self.take(taken)
    }

    /// Takes what must go on as it is and is read as a part of the text: a secret that reaches into it cannot be taken out, and
    /// the text must be broken off ([`Self::is_spoiled`]).
    pub fn push_fixed(&mut self, part: Bytes) -> Option<Bytes> {
        let next = self.push(part);
        self.fixed = self.matcher.read;
        next
    }

    /// Takes the last part of the text, and holds nothing.
    pub fn push_last(&mut self, part: Bytes) -> Option<Bytes> {
        self.matcher.read(&self.patterns, &part, true);
        self.matcher.end();
        self.take(part)
    }

    fn take(&mut self, part: Bytes) -> Option<Bytes> {
        self.spoiled |= self.matcher.found.first().is_some_and(|found| found.start < self.fixed);
        if self.is_broken() {
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
        if self.is_broken() {
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
        if !self.is_broken() {
            self.release(self.matcher.read);
        }
        self.ready()
    }

    /// What it looks for.
    #[must_use]
    pub fn patterns(&self) -> &Arc<Patterns> {
        &self.patterns
    }

    /// Goes on with other patterns at the beginning of another text, if nothing is held; whether it does.
    pub fn renew(&mut self, patterns: &Arc<Patterns>) -> bool {
        let renews = !Arc::ptr_eq(&self.patterns, patterns) && self.is_idle() && !self.is_broken();
        if renews {
            *self = Self::new(Arc::clone(patterns));
        }
        renews
    }

    /// How many bytes of the text are given out or ready.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.passed
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

    /// Whether a secret was found where nothing may be changed. Nothing more comes out; the text must be broken off.
    #[must_use]
    pub fn is_spoiled(&self) -> bool {
        self.spoiled
    }

    /// How many steps it has taken, one for each reading of a byte; those that a search passes over are none.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.matcher.steps
    }

    /// How many secrets were taken out so far.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits
    }

    /// Whether nothing more comes out.
    fn is_broken(&self) -> bool {
        self.matcher.overrun || self.spoiled
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
