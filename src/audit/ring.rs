//! The slots of entries that have no line yet, in a mapped file that outlives the process.
//!
//! A slot's way, and who may touch it:
//!
//! ```text
//! free ──claim──▶ (words of the intent) ──OPEN──▶ (words of the outcome) ──DONE──▶ (its line is written) ──FREE──▶ free
//!       one bit in memory     the claimer                the same entry                    the writer
//! ```
//!
//! The state word is stored with release ordering after the words it stands for, so a dead process leaves no doubt:
//! FREE never reached the upstream, OPEN was begun, DONE has its outcome. A claim is a bit in memory, not in the file:
//! nobody else can have a slot until the writer clears its bit, so there is no ABA. Every slot is at most once in the
//! queue of completions, which has a place for each, so that the queue cannot overflow. Two sizes of slots keep the file
//! small: most intents take less than 2 KiB, the longest path and chain some 20 KiB.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::sync::atomic::AtomicUsize;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

// `tests/models` runs this file through all interleavings, with a mapping of its own.
#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::mapping::Mapping;
use super::record::{Ended, Intent, OUTCOME_WORDS, Recorded, WordSink};

/// The file's first word: its name and version.
const MAGIC: u64 = u64::from_le_bytes(*b"narrows\x01");
/// The file's first page describes it.
const HEADER_WORDS: usize = if cfg!(loom) { 8 } else { 512 };
/// A slot of the first class, in words (2 KiB): a path of some hundred bytes and a chain of some hops.
const SMALL_WORDS: usize = if cfg!(loom) { 32 } else { 256 };
/// A slot of the second class, in words (24 KiB): the longest path (8 KiB) and the longest chain of sane names.
const LARGE_WORDS: usize = 3072;
/// For so many small slots there is one large one.
const SMALL_PER_LARGE: usize = 16;

/// A slot's head: state, ticket, the intent's length and sum, then the outcome and its sum.
const STATE: usize = 0;
const TICKET: usize = 1;
const INTENT_WORDS: usize = 2;
const INTENT_SUM: usize = 3;
const OUTCOME: usize = 4;
const OUTCOME_SUM: usize = OUTCOME + OUTCOME_WORDS;
const INTENT: usize = 16;
const _: () = assert!(OUTCOME_SUM < INTENT);

const FREE: u64 = 0;
const OPEN: u64 = 1;
const DONE: u64 = 2;

/// Of one size, one after the other.
#[derive(Debug)]
struct Class {
    first_slot: u32,
    first_word: usize,
    slot_words: usize,
    slots: usize,
    /// One bit a slot: claimed.
    taken: Box<[AtomicU64]>,
}

/// Why an intent found no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoSlot {
    Full,
    TooLarge,
}

/// The mapped file and who has which slot.
#[derive(Debug)]
pub(super) struct Ring {
    mapping: Mapping,
    classes: [Class; 2],
    /// Slots that are done, as slot + 1, in the order of their tickets.
    completions: Box<[AtomicU32]>,
    /// Entries finished so far.
    tickets: OwnLine,
    /// Entries that have their lines.
    written: OwnLine,
}

/// On a cache line of its own: requests write the one, the writer the other.
#[derive(Debug, Default)]
#[repr(align(64))]
struct OwnLine(AtomicU64);

/// How big a ring is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    small: usize,
    large: usize,
}

impl Shape {
    /// For so many requests at once (at least 16), and a sixteenth of it with long paths or chains.
    pub(super) fn for_requests(in_flight_max: usize) -> Self {
        let small = in_flight_max.clamp(16, 1 << 20);
        Self { small, large: small / SMALL_PER_LARGE }
    }

    /// As few slots as a model can have.
    #[cfg(loom)]
    pub(super) fn of_slots(small: usize) -> Self {
        Self { small, large: 0 }
    }

    fn words(self) -> usize {
        HEADER_WORDS + self.small * SMALL_WORDS + self.large * LARGE_WORDS
    }

    fn classes(self) -> [Class; 2] {
        let first_large = HEADER_WORDS + self.small * SMALL_WORDS;
        [
            Class::new(0, HEADER_WORDS, SMALL_WORDS, self.small),
            Class::new(self.small, first_large, LARGE_WORDS, self.large),
        ]
    }
}

impl Class {
    fn new(first_slot: usize, first_word: usize, slot_words: usize, slots: usize) -> Self {
        let taken: Box<[AtomicU64]> = (0..slots.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        if let Some(last) = taken.last().filter(|_| !slots.is_multiple_of(64)) {
            // Bits past the end are never free.
            last.store(u64::MAX << (slots % 64), Ordering::Relaxed);
        }
        Self { first_slot: u32::try_from(first_slot).unwrap_or(u32::MAX), first_word, slot_words, slots, taken }
    }

    /// Sets a free bit and returns its slot, in a bounded number of steps. Every thread looks in a place of its own first.
    fn claim(&self) -> Option<u32> {
        // Nine is odd, so that threads spread over all words, and more than the eight words of a cache line.
        let start = place_of_this_thread().wrapping_mul(9);
        for step in 0..self.taken.len() {
            let place = start.wrapping_add(step) % self.taken.len();
            let word = self.taken.get(place)?;
            let mut seen = word.load(Ordering::Relaxed);
            // No bit is tried twice: at most 64 steps a word, whatever others do meanwhile.
            while seen != u64::MAX {
                let number = seen.trailing_ones();
                let bit = 1 << number;
                // Acquire: what the writer read from this slot, it read before we write.
                if word.fetch_or(bit, Ordering::Acquire) & bit == 0 {
                    return Some(self.first_slot + u32::try_from(place * 64).ok()? + number);
                }
                seen |= bit;
            }
        }
        None
    }

    /// Of the claimed slots in a word of 64, those whose intent is whole.
    fn begun(&self, ring: &Ring, group: usize, claimed: u64) -> u64 {
        let slot = |bit: usize| self.first_slot + u32::try_from(group * 64 + bit).unwrap_or(u32::MAX);
        let is_begun = |bit: &usize| {
            let is_claimed = claimed >> bit & 1 == 1 && group * 64 + bit < self.slots;
            is_claimed && ring.slot(slot(*bit)).first().is_some_and(|state| state.load(Ordering::Acquire) != FREE)
        };
        if claimed == 0 { 0 } else { (0..64).filter(is_begun).fold(0, |begun, bit| begun | 1 << bit) }
    }

    fn release(&self, slot: usize) {
        if let Some(word) = self.taken.get(slot / 64) {
            word.fetch_and(!(1 << (slot % 64)), Ordering::Release);
        }
    }
}

fn place_of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static PLACE: Cell<Option<usize>> = const { Cell::new(None) });
    PLACE.with(|place| {
        place.get().unwrap_or_else(|| {
            let new = NEXT.fetch_add(1, Ordering::Relaxed);
            place.set(Some(new));
            new
        })
    })
}

impl Ring {
    /// Makes the ring in a new, empty file.
    pub(super) fn create(file: &File, shape: Shape, boot: u128) -> io::Result<Self> {
        let mapping = Mapping::preallocate(file, shape.words() * size_of::<u64>())?;
        let classes = shape.classes();
        let completions = (0..(shape.small + shape.large).next_power_of_two()).map(|_| AtomicU32::new(0)).collect();
        let ring = Self { mapping, classes, completions, tickets: OwnLine::default(), written: OwnLine::default() };
        let boot = boot.to_le_bytes();
        let (halves, _) = boot.as_chunks::<8>();
        let described = [shape.small as u64, shape.large as u64].into_iter();
        let described = described.chain(halves.iter().map(|half| u64::from_le_bytes(*half)));
        for (word, value) in ring.mapping.words().iter().skip(1).zip(described) {
            word.store(value, Ordering::Relaxed);
        }
        if let Some(magic) = ring.mapping.words().first() {
            magic.store(MAGIC, Ordering::Release);
        }
        Ok(ring)
    }

    /// Copies an intent into a slot of its own. From here on it outlives a kill.
    pub(super) fn begin(&self, intent: &Intent<'_>) -> Result<u32, NoSlot> {
        let needed = intent.words().ok_or(NoSlot::TooLarge)? + INTENT;
        let mut fits = self.classes.iter().filter(|class| needed <= class.slot_words).peekable();
        if fits.peek().is_none() {
            return Err(NoSlot::TooLarge);
        }
        let slot = fits.find_map(Class::claim).ok_or(NoSlot::Full)?;
        let words = self.slot(slot);
        let mut sink = Sink { words: words.get(INTENT..).unwrap_or_default(), at: 0, sum: Sum::default() };
        intent.encode(&mut sink);
        let (length, sum) = (sink.at as u64, sink.sum.finish());
        store(words, INTENT_WORDS, length);
        store(words, INTENT_SUM, sum);
        store_state(words, OPEN);
        Ok(slot)
    }

    /// Adds the outcome, takes the next ticket, and tells the writer, without waking it.
    pub(super) fn finish(&self, slot: u32, ended: &Ended) {
        // AcqRel: whoever takes the ticket that reuses a place in the queue sees that the writer has left it.
        let ticket = self.tickets.0.fetch_add(1, Ordering::AcqRel);
        let words = self.slot(slot);
        let outcome = ended.encode();
        let mut sum = Sum::default();
        sum.add(ticket);
        for (place, word) in outcome.into_iter().enumerate() {
            store(words, OUTCOME + place, word);
            sum.add(word);
        }
        store(words, TICKET, ticket);
        store(words, OUTCOME_SUM, sum.finish());
        store_state(words, DONE);
        self.completion(ticket).store(slot + 1, Ordering::Release);
    }

    /// True for a slot of the second class.
    pub(super) fn is_large(&self, slot: u32) -> bool {
        slot >= self.classes[1].first_slot
    }

    /// How many slots of either class there are.
    pub(super) fn slots(&self) -> [usize; 2] {
        [self.classes[0].slots, self.classes[1].slots]
    }

    /// The slot that finished `nth` (from 0), once it has. For the writer alone, in order.
    pub(super) fn completed(&self, nth: u64) -> Option<u32> {
        self.completion(nth).load(Ordering::Acquire).checked_sub(1)
    }

    /// Gives the slot that finished `nth` back. For the writer alone, when the line is written.
    pub(super) fn release(&self, nth: u64, slot: u32) {
        self.completion(nth).store(0, Ordering::Relaxed);
        store_state(self.slot(slot), FREE);
        for class in &self.classes {
            let place = (slot as usize).wrapping_sub(class.first_slot as usize);
            if slot >= class.first_slot && place < class.slots {
                class.release(place);
            }
        }
    }

    /// What a slot holds; `None` when it is free, or is not what was written (after a power cut, pages can be of
    /// different ages).
    pub(super) fn read(&self, slot: u32) -> Option<(Recorded, Option<(u64, Ended)>)> {
        let words = self.slot(slot);
        let state = words.get(STATE)?.load(Ordering::Acquire);
        if state != OPEN && state != DONE {
            return None;
        }
        let length = usize::try_from(load(words, INTENT_WORDS)).ok()?;
        let intent: Vec<u64> =
            words.get(INTENT..)?.get(..length)?.iter().map(|word| word.load(Ordering::Relaxed)).collect();
        let mut sum = Sum::default();
        for word in &intent {
            sum.add(*word);
        }
        if sum.finish() != load(words, INTENT_SUM) {
            return None;
        }
        let intent = Recorded::decode(&intent)?;
        let outcome = if state == DONE { outcome_of(words) } else { None };
        Some((intent, outcome))
    }

    /// How many entries are begun and have no line yet.
    pub(super) fn in_use(&self) -> usize {
        let taken = |class: &Class| {
            let bits: usize = class.taken.iter().map(|word| word.load(Ordering::Relaxed).count_ones() as usize).sum();
            bits - (class.taken.len() * 64 - class.slots)
        };
        self.classes.iter().map(taken).sum()
    }

    /// Whether entries are begun that were not in `known`, a bit for each slot, which is brought up to date.
    pub(super) fn has_begun(&self, known: &mut Vec<u64>) -> bool {
        let (mut changed, mut place) = (false, 0);
        for class in &self.classes {
            for (group, word) in class.taken.iter().enumerate() {
                let begun = class.begun(self, group, word.load(Ordering::Acquire));
                if place == known.len() {
                    known.push(0);
                }
                if let Some(known) = known.get_mut(place) {
                    changed |= begun & !std::mem::replace(known, begun) != 0;
                }
                place += 1;
            }
        }
        changed
    }

    /// How many entries are finished and have no line yet.
    pub(super) fn finished(&self) -> u64 {
        let written = self.written.0.load(Ordering::Acquire);
        self.tickets.0.load(Ordering::Acquire).saturating_sub(written)
    }

    /// The writer's word that the first `entries` that finished have their lines, and their slots are free.
    pub(super) fn set_written(&self, entries: u64) {
        self.written.0.store(entries, Ordering::Release);
    }

    fn completion(&self, nth: u64) -> &AtomicU32 {
        // The length is a power of two.
        let place = usize::try_from(nth & (self.completions.len() as u64 - 1)).unwrap_or(0);
        &self.completions[place]
    }

    fn slot(&self, slot: u32) -> &[AtomicU64] {
        &self.mapping.words()[self.place(slot)]
    }

    /// Whether the file is long enough for a slot.
    fn has(&self, slot: u32) -> bool {
        self.place(slot).end <= self.mapping.words().len()
    }

    fn place(&self, slot: u32) -> std::ops::Range<usize> {
        let [small, large] = &self.classes;
        let class = if slot < large.first_slot { small } else { large };
        let first = class.first_word + (slot - class.first_slot) as usize * class.slot_words;
        first..first + class.slot_words
    }
}

/// What a dead process left: read only, nothing is claimed.
pub(super) struct Remains {
    ring: Ring,
    slots: u32,
    /// The machine's boot at which the process ran.
    pub(super) boot: u128,
    /// Slots whose place in the file is gone: it was cut short.
    pub(super) slots_missing: u32,
}

/// What a file that is named like a ring turned out to be.
pub(super) enum Found {
    /// Never completely made, so that nothing was begun in it.
    NeverMade,
    /// Of another version, or not a ring: what it holds is not ours to drop.
    Strange,
    Remains(Box<Remains>),
}

impl Remains {
    /// Opens a ring that nobody uses.
    pub(super) fn open(file: &File) -> io::Result<Found> {
        if file.metadata()?.len() < size_of::<u64>() as u64 {
            return Ok(Found::NeverMade);
        }
        let mapping = Mapping::of(file)?;
        let mut head = mapping.words().iter().map(|word| word.load(Ordering::Acquire));
        let mut next = || head.next().unwrap_or(0);
        let (magic, small, large, low, high) = (next(), next(), next(), next(), next());
        if magic == 0 {
            return Ok(Found::NeverMade);
        }
        let count = |slots: u64| usize::try_from(slots).ok().filter(|slots| *slots <= 1 << 20);
        let (Some(small), Some(large)) = (count(small), count(large)) else { return Ok(Found::Strange) };
        if magic != MAGIC || small == 0 {
            return Ok(Found::Strange);
        }
        let ring = Ring {
            mapping,
            classes: Shape { small, large }.classes(),
            completions: Box::new([AtomicU32::new(0)]),
            tickets: OwnLine::default(),
            written: OwnLine::default(),
        };
        let slots = u32::try_from(small + large).unwrap_or(0);
        let there = (0..slots).take_while(|slot| ring.has(*slot)).count();
        let there = u32::try_from(there).unwrap_or(slots);
        let boot = u128::from(high) << 64 | u128::from(low);
        Ok(Found::Remains(Box::new(Self { ring, slots: there, boot, slots_missing: slots - there })))
    }

    /// The entries without a line, in the order in which they finished; then those that never did, oldest first.
    pub(super) fn entries(&self) -> Vec<(Recorded, Option<Ended>)> {
        let mut found: Vec<_> = (0..self.slots).filter_map(|slot| self.ring.read(slot)).collect();
        found.sort_by_key(|(intent, outcome)| match outcome {
            Some((ticket, _)) => (false, *ticket, intent.id),
            None => (true, intent.time_ms, intent.id),
        });
        found.into_iter().map(|(intent, outcome)| (intent, outcome.map(|(_, ended)| ended))).collect()
    }
}

struct Sink<'a> {
    words: &'a [AtomicU64],
    at: usize,
    sum: Sum,
}

impl WordSink for Sink<'_> {
    fn push(&mut self, word: u64) {
        // The length was checked; a word too many would be dropped, and show in the sum.
        if let Some(place) = self.words.get(self.at) {
            place.store(word, Ordering::Relaxed);
        }
        self.at += 1;
        self.sum.add(word);
    }
}

/// Two running sums (after Fletcher): tells pages of different ages apart, at two additions a word.
#[derive(Debug, Clone, Copy)]
struct Sum {
    sum: u64,
    of_sums: u64,
}

impl Default for Sum {
    /// Not zero, so that words which were never written do not sum up by chance.
    fn default() -> Self {
        Self { sum: MAGIC, of_sums: 0 }
    }
}

impl Sum {
    fn add(&mut self, word: u64) {
        self.sum = self.sum.wrapping_add(word);
        self.of_sums = self.of_sums.wrapping_add(self.sum);
    }

    fn finish(self) -> u64 {
        self.sum ^ self.of_sums.rotate_left(32)
    }
}

/// The ticket and the outcome in a slot, if they are what was written.
fn outcome_of(words: &[AtomicU64]) -> Option<(u64, Ended)> {
    let ticket = load(words, TICKET);
    let mut sum = Sum::default();
    sum.add(ticket);
    let mut outcome = [0; OUTCOME_WORDS];
    for (place, word) in outcome.iter_mut().enumerate() {
        *word = load(words, OUTCOME + place);
        sum.add(*word);
    }
    if sum.finish() != load(words, OUTCOME_SUM) {
        return None;
    }
    Some((ticket, Ended::decode(outcome)?))
}

fn store(words: &[AtomicU64], place: usize, value: u64) {
    if let Some(word) = words.get(place) {
        word.store(value, Ordering::Relaxed);
    }
}

/// Release: whoever sees the state sees the words that it stands for.
fn store_state(words: &[AtomicU64], state: u64) {
    if let Some(word) = words.get(STATE) {
        word.store(state, Ordering::Release);
    }
}

fn load(words: &[AtomicU64], place: usize) -> u64 {
    words.get(place).map_or(0, |word| word.load(Ordering::Relaxed))
}
