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
//! nobody else can have a slot until the writer clears its bit, so there is no ABA. That an entry has ended is a second
//! bit beside it, which the writer looks for: there is no queue and no counter that all requests write, and threads
//! claim in places of their own. Two sizes of slots keep the file small: most intents take less than 2 KiB, the longest
//! path and chain some 20 KiB.

use std::fs::File;
use std::io;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

// `tests/models` runs this file through all interleavings, with a mapping of its own.
#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};

use super::mapping::Mapping;
use super::record::{Ended, Intent, OUTCOME_WORDS, Recorded, WordSink};
use crate::lane;

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

/// A slot's head: state, when it ended, the intent's length and sum, then the outcome and its sum.
const STATE: usize = 0;
const ENDED_AT: usize = 1;
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
    groups: Box<[Group]>,
}

/// What memory knows of 64 slots, one bit for each.
#[derive(Debug)]
struct Group {
    claimed: AtomicU64,
    /// Claimed, and DONE.
    ended: AtomicU64,
}

/// An entry that has ended, and has no line yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    /// When it ended, as [`Ring::finish`] was told.
    pub(super) ended_at: u64,
    pub(super) slot: u32,
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
}

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
        let group = |_| Group { claimed: AtomicU64::new(0), ended: AtomicU64::new(0) };
        let groups: Box<[Group]> = (0..slots.div_ceil(64)).map(group).collect();
        if let Some(last) = groups.last().filter(|_| !slots.is_multiple_of(64)) {
            // Bits past the end are never free.
            last.claimed.store(u64::MAX << (slots % 64), Ordering::Relaxed);
        }
        Self { first_slot: u32::try_from(first_slot).unwrap_or(u32::MAX), first_word, slot_words, slots, groups }
    }

    /// Sets a free bit and returns its slot, in a bounded number of steps. Every thread looks in a place of its own first.
    fn claim(&self) -> Option<u32> {
        // Nine is odd, so that threads spread over all groups, and more than the four groups of a cache line.
        let start = lane::of_this_thread().wrapping_mul(9);
        for step in 0..self.groups.len() {
            let place = start.wrapping_add(step) % self.groups.len();
            let word = &self.groups.get(place)?.claimed;
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

    /// Of the claimed slots of a group, those whose intent is whole.
    fn begun(&self, ring: &Ring, group: usize, claimed: u64) -> u64 {
        let is_begun = |bit: &usize| {
            let is_claimed = claimed >> bit & 1 == 1 && group * 64 + bit < self.slots;
            let state = || ring.slot(self.slot_at(group, *bit)).first();
            is_claimed && state().is_some_and(|state| state.load(Ordering::Acquire) != FREE)
        };
        if claimed == 0 { 0 } else { (0..64).filter(is_begun).fold(0, |begun, bit| begun | 1 << bit) }
    }

    /// The slots whose entries have ended.
    fn ended(&self) -> impl Iterator<Item = u32> {
        let groups = self.groups.iter().enumerate();
        // Acquire: whoever sees the bit sees the words of the slot.
        let groups = groups.map(|(number, group)| (number, group.ended.load(Ordering::Acquire)));
        groups.filter(|(_, ended)| *ended != 0).flat_map(move |(number, ended)| {
            let bits = (0..64).filter(move |bit| ended >> bit & 1 == 1);
            bits.map(move |bit| self.slot_at(number, bit))
        })
    }

    fn slot_at(&self, group: usize, bit: usize) -> u32 {
        self.first_slot + u32::try_from(group * 64 + bit).unwrap_or(u32::MAX)
    }

    /// The group of a slot, and its bit there; `None` for a slot of the other class.
    fn group_of(&self, slot: u32) -> Option<(&Group, u64)> {
        let place = usize::try_from(slot.checked_sub(self.first_slot)?).ok().filter(|place| *place < self.slots)?;
        Some((self.groups.get(place / 64)?, 1 << (place % 64)))
    }
}

impl Ring {
    /// Makes the ring in a new, empty file.
    pub(super) fn create(file: &File, shape: Shape, boot: u128) -> io::Result<Self> {
        let mapping = Mapping::preallocate(file, shape.words() * size_of::<u64>())?;
        let ring = Self { mapping, classes: shape.classes() };
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

    /// Adds the outcome and says that the entry has ended, without waking the writer. `ended_at` counts nanoseconds from
    /// a moment that all entries have in common; lines are in its order.
    pub(super) fn finish(&self, slot: u32, ended: &Ended, ended_at: u64) {
        let words = self.slot(slot);
        let outcome = ended.encode();
        let mut sum = Sum::default();
        sum.add(ended_at);
        for (place, word) in outcome.into_iter().enumerate() {
            store(words, OUTCOME + place, word);
            sum.add(word);
        }
        store(words, ENDED_AT, ended_at);
        store(words, OUTCOME_SUM, sum.finish());
        store_state(words, DONE);
        if let Some((group, bit)) = self.group_of(slot) {
            group.ended.fetch_or(bit, Ordering::Release);
        }
    }

    /// True for a slot of the second class.
    pub(super) fn is_large(&self, slot: u32) -> bool {
        slot >= self.classes[1].first_slot
    }

    /// How many slots of either class there are.
    pub(super) fn slots(&self) -> [usize; 2] {
        [self.classes[0].slots, self.classes[1].slots]
    }

    /// Adds to `due` the entries that have ended. For the writer alone.
    pub(super) fn ended(&self, due: &mut Vec<Due>) {
        let slots = self.classes.iter().flat_map(Class::ended);
        due.extend(slots.map(|slot| Due { ended_at: load(self.slot(slot), ENDED_AT), slot }));
    }

    /// How many entries have ended and have no line yet.
    pub(super) fn ended_count(&self) -> usize {
        let groups = self.classes.iter().flat_map(|class| &class.groups);
        groups.map(|group| group.ended.load(Ordering::Acquire).count_ones() as usize).sum()
    }

    /// Gives a slot back whose entry has ended. For the writer alone, when the line is written.
    pub(super) fn release(&self, slot: u32) {
        store_state(self.slot(slot), FREE);
        if let Some((group, bit)) = self.group_of(slot) {
            // Before the claim: whoever claims the slot next ends it, and that bit must stay. Release: whoever sees no
            // bit finds the line.
            group.ended.fetch_and(!bit, Ordering::Release);
            group.claimed.fetch_and(!bit, Ordering::Release);
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
        let claimed = |class: &Class| {
            let words = class.groups.iter().map(|group| group.claimed.load(Ordering::Relaxed));
            let bits: usize = words.map(|word| word.count_ones() as usize).sum();
            bits - (class.groups.len() * 64 - class.slots)
        };
        self.classes.iter().map(claimed).sum()
    }

    /// Whether entries are begun that were not in `known`, a bit for each slot, which is brought up to date.
    pub(super) fn has_begun(&self, known: &mut Vec<u64>) -> bool {
        let (mut changed, mut place) = (false, 0);
        for class in &self.classes {
            for (number, group) in class.groups.iter().enumerate() {
                let begun = class.begun(self, number, group.claimed.load(Ordering::Acquire));
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

    fn group_of(&self, slot: u32) -> Option<(&Group, u64)> {
        self.classes.iter().find_map(|class| class.group_of(slot))
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
        let ring = Ring { mapping, classes: Shape { small, large }.classes() };
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
            Some((ended_at, _)) => (false, *ended_at, intent.id),
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

/// When a slot's entry ended and how, if that is what was written.
fn outcome_of(words: &[AtomicU64]) -> Option<(u64, Ended)> {
    let ended_at = load(words, ENDED_AT);
    let mut sum = Sum::default();
    sum.add(ended_at);
    let mut outcome = [0; OUTCOME_WORDS];
    for (place, word) in outcome.iter_mut().enumerate() {
        *word = load(words, OUTCOME + place);
        sum.add(*word);
    }
    if sum.finish() != load(words, OUTCOME_SUM) {
        return None;
    }
    Some((ended_at, Ended::decode(outcome)?))
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
