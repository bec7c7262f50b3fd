//! Counting what budgets and rates allow: by block, so that all who hold a block's descendants share what it has left.
//!
//! A tunnel resolves its capability's counters once ([`Ledger::account`]); its requests then touch only atomics. Amounts
//! are reserved before they are used, from all blocks or from none, and the sum of what was given out never exceeds a
//! limit. Deliberately absent: persistence. Counters live as long as the process, and as long as a capability with
//! their block can be valid.
#![expect(
    clippy::disallowed_types,
    reason = "not on the path of a request: a tunnel resolves its counters once, and requests touch atomics"
)]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{BlockId, BudgetKind, Chain, Rate, Verified};
use crate::clock::UnixSeconds;

/// Blocks with counters under one authority block, at most. New blocks of its tree are refused beyond.
pub const COUNTED_BLOCKS_PER_AUTHORITY_MAX: usize = 4096;
/// Blocks with counters altogether, at most: about 200 MB of memory.
pub const COUNTED_BLOCKS_MAX: usize = 1024 * 1024;
/// Counters outlive their block by this much, in case the clock is set back.
const GRACE_S: u64 = 3600;

/// Why a request that every check allows is not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    /// A block's budget has no room.
    #[error("the {} budget of block {block} is used up", .kind.as_str())]
    Exhausted {
        /// The block's index.
        block: usize,
        /// What is used up.
        kind: BudgetKind,
        /// The limit that the block states.
        limit: u64,
    },
    /// A block's rate is reached.
    #[error("the rate of block {block} is reached for another {retry_after_s} s")]
    RateLimited {
        /// The block's index.
        block: usize,
        /// The rate that the block states.
        rate: Rate,
        /// When the window ends, seconds from now, at least 1.
        retry_after_s: u64,
    },
    /// The tree of this capability has more blocks with budgets than are counted.
    #[error("too many blocks of this capability's tree have budgets")]
    TooManyBlocks,
}

/// All counters of a process.
pub struct Ledger {
    books: Mutex<Books>,
    per_authority_max: usize,
    max: usize,
}

#[derive(Default)]
struct Books {
    trees: HashMap<BlockId, Tree>,
    /// Counted blocks in all trees.
    blocks: usize,
    /// When all trees were last searched for dead blocks: at most once a second, whoever asks.
    swept_at: Option<UnixSeconds>,
}

/// The counters below one authority block.
#[derive(Default)]
struct Tree {
    blocks: HashMap<BlockId, Counted>,
    swept_at: Option<UnixSeconds>,
}

struct Counted {
    counters: Arc<Counters>,
    /// From when on no capability with this block passes; `None` for never.
    dead_at: Option<UnixSeconds>,
}

/// What one block has given out so far.
#[derive(Default)]
struct Counters {
    calls: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    /// The number of the current window, and in the lower half how many requests it has had.
    window: AtomicU64,
}

impl Counters {
    const fn of(&self, kind: BudgetKind) -> &AtomicU64 {
        match kind {
            BudgetKind::Calls => &self.calls,
            BudgetKind::BytesUp => &self.bytes_up,
            BudgetKind::BytesDown => &self.bytes_down,
        }
    }
}

impl Ledger {
    /// No counters yet, and the default bounds.
    #[must_use]
    pub fn new() -> Self {
        Self::with_bounds(COUNTED_BLOCKS_PER_AUTHORITY_MAX, COUNTED_BLOCKS_MAX)
    }

    /// Bounds of your own: counted blocks below one authority block, and altogether.
    #[must_use]
    pub fn with_bounds(per_authority_max: usize, max: usize) -> Self {
        Self { books: Mutex::default(), per_authority_max, max }
    }

    /// The counters of a capability's blocks, made where there are none yet. Once per tunnel.
    ///
    /// A capability without budgets and rates takes no lock. Where a bound is met, every request on the account is
    /// refused, and other trees go on.
    #[must_use]
    pub fn account(&self, verified: &Verified, now: UnixSeconds) -> Account {
        let counted = counted_blocks(verified);
        let entries = if counted.is_empty() { Some(counted) } else { self.resolve(verified, counted, now) };
        Account(Arc::new(Lines { entries }))
    }

    /// Fills in the counters of all entries, or says that there is no room for them.
    fn resolve(&self, verified: &Verified, mut entries: Vec<Entry>, now: UnixSeconds) -> Option<Vec<Entry>> {
        let authority = verified.blocks().first()?.id();
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let new = |books: &Books| match books.trees.get(&authority) {
            Some(tree) => entries.iter().filter(|entry| !tree.blocks.contains_key(&entry.id)).count(),
            None => entries.len(),
        };
        if books.blocks + new(&books) > self.max {
            books.forget_dead(now);
        }
        if books.tree_len(authority) + new(&books) > self.per_authority_max {
            books.forget_dead_of(authority, now);
        }
        let new = new(&books);
        if books.blocks + new > self.max || books.tree_len(authority) + new > self.per_authority_max {
            return None;
        }
        books.blocks += new;
        let tree = books.trees.entry(authority).or_default();
        for entry in &mut entries {
            let dead_at = dead_at(verified, entry.block);
            let counted = tree.blocks.entry(entry.id).or_insert_with(|| Counted { counters: Arc::default(), dead_at });
            entry.counters = Arc::clone(&counted.counters);
        }
        Some(entries)
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

impl Books {
    fn tree_len(&self, authority: BlockId) -> usize {
        self.trees.get(&authority).map_or(0, |tree| tree.blocks.len())
    }

    fn forget_dead(&mut self, now: UnixSeconds) {
        if self.swept_at >= Some(now) {
            return;
        }
        self.swept_at = Some(now);
        self.trees.retain(|_, tree| {
            tree.forget_dead(now);
            !tree.blocks.is_empty()
        });
        self.blocks = self.trees.values().map(|tree| tree.blocks.len()).sum();
    }

    fn forget_dead_of(&mut self, authority: BlockId, now: UnixSeconds) {
        if let Some(tree) = self.trees.get_mut(&authority) {
            self.blocks -= tree.forget_dead(now);
        }
    }
}

impl Tree {
    /// Returns how many blocks were forgotten. Searches at most once a second.
    fn forget_dead(&mut self, now: UnixSeconds) -> usize {
        if self.swept_at >= Some(now) {
            return 0;
        }
        self.swept_at = Some(now);
        let before = self.blocks.len();
        self.blocks.retain(|_, counted| counted.dead_at.is_none_or(|dead_at| dead_at + GRACE_S > now));
        before - self.blocks.len()
    }
}

/// When every capability that contains this block has expired: a block's id stands for the whole chain up to it, so
/// what those blocks plainly say holds for all of them.
fn dead_at(chain: &Chain, block: usize) -> Option<UnixSeconds> {
    let blocks = chain.blocks().iter().take(block + 1);
    blocks.flat_map(super::Block::caveats).filter_map(super::Caveat::expires_at).min()
}

/// The counters that a capability's requests draw on, resolved. Cheap to clone.
#[derive(Clone)]
pub struct Account(Arc<Lines>);

struct Lines {
    /// One for each block with a budget or rate; `None` where a bound was met.
    entries: Option<Vec<Entry>>,
}

struct Entry {
    block: usize,
    id: BlockId,
    counters: Arc<Counters>,
    /// Indexed by [`KINDS`].
    limits: [Option<u64>; 3],
    rate: Option<Rate>,
}

const KINDS: [BudgetKind; 3] = [BudgetKind::Calls, BudgetKind::BytesUp, BudgetKind::BytesDown];

fn counted_blocks(verified: &Verified) -> Vec<Entry> {
    let counted = verified.blocks().iter().enumerate();
    let counted = counted.filter(|(_, block)| !block.budgets().is_empty() || !block.rates().is_empty());
    counted
        .map(|(at, block)| Entry {
            block: at,
            id: block.id(),
            counters: Arc::default(),
            limits: KINDS.map(|kind| block.budgets().iter().find(|b| b.kind == kind).map(|b| b.limit)),
            rate: block.rates().first().copied(),
        })
        .collect()
}

impl Entry {
    fn limit(&self, kind: BudgetKind) -> Option<u64> {
        KINDS.iter().zip(self.limits).find(|(other, _)| **other == kind).and_then(|(_, limit)| limit)
    }

    /// Takes `amount`, or says that there is no room for it.
    fn take(&self, kind: BudgetKind, amount: u64) -> Result<(), BudgetError> {
        let Some(limit) = self.limit(kind) else { return Ok(()) };
        let exhausted = BudgetError::Exhausted { block: self.block, kind, limit };
        let add = |used: u64| used.checked_add(amount).filter(|sum| *sum <= limit);
        let taken = self.counters.of(kind).fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        taken.map(|_| ()).map_err(|_| exhausted)
    }

    fn give_back(&self, kind: BudgetKind, amount: u64) {
        if self.limit(kind).is_some() && amount > 0 {
            self.counters.of(kind).fetch_sub(amount, Ordering::Relaxed);
        }
    }

    /// Says whether there is room for `amount`, taking nothing.
    fn check(&self, kind: BudgetKind, amount: u64) -> Result<(), BudgetError> {
        let Some(limit) = self.limit(kind) else { return Ok(()) };
        let used = self.counters.of(kind).load(Ordering::Relaxed);
        let room = used.checked_add(amount).is_some_and(|sum| sum <= limit);
        if room { Ok(()) } else { Err(BudgetError::Exhausted { block: self.block, kind, limit }) }
    }

    fn take_rate(&self, now: UnixSeconds) -> Result<(), BudgetError> {
        let Some(rate) = self.rate else { return Ok(()) };
        let window = &self.counters.window;
        let next = |packed: u64| Window::unpack(packed).after_one_more(rate, now).map(Window::pack);
        match window.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
            Ok(_) => Ok(()),
            Err(packed) => Err(self.rate_limited(rate, Window::unpack(packed), now)),
        }
    }

    fn check_rate(&self, now: UnixSeconds) -> Result<(), BudgetError> {
        let Some(rate) = self.rate else { return Ok(()) };
        let window = Window::unpack(self.counters.window.load(Ordering::Relaxed));
        match window.after_one_more(rate, now) {
            Some(_) => Ok(()),
            None => Err(self.rate_limited(rate, window, now)),
        }
    }

    fn rate_limited(&self, rate: Rate, window: Window, now: UnixSeconds) -> BudgetError {
        let current = window.number.max(Window::number_at(rate, now));
        let ends = u64::from(current).saturating_add(1).saturating_mul(rate.window_s.max(1));
        let retry_after_s = ends.saturating_sub(now.get()).max(1);
        BudgetError::RateLimited { block: self.block, rate, retry_after_s }
    }

    /// Gives one request back to its window, if that is still the current one.
    fn give_back_rate(&self, now: UnixSeconds) {
        let Some(rate) = self.rate else { return };
        let undo = |packed: u64| {
            let window = Window::unpack(packed);
            let same = window.number == Window::number_at(rate, now);
            same.then(|| Window { used: window.used.saturating_sub(1), ..window }.pack())
        };
        // Err means that a new window has begun, where nothing was taken.
        let _ = self.counters.window.fetch_update(Ordering::Relaxed, Ordering::Relaxed, undo);
    }
}

/// A fixed window of a rate, both halves of one atomic.
#[derive(Clone, Copy)]
struct Window {
    number: u32,
    used: u32,
}

impl Window {
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of what pack() made")]
    const fn unpack(packed: u64) -> Self {
        Self { number: (packed >> 32) as u32, used: packed as u32 }
    }

    fn pack(self) -> u64 {
        u64::from(self.number) << 32 | u64::from(self.used)
    }

    /// Windows are counted from 1970; until the year 2106 for a window of one second.
    fn number_at(rate: Rate, now: UnixSeconds) -> u32 {
        u32::try_from(now.get() / rate.window_s.max(1)).unwrap_or(u32::MAX)
    }

    /// The window with one more request in it, if the rate allows one. Time does not run backwards: an earlier `now`
    /// counts in the latest window. More than 2³² − 1 requests are never allowed in one.
    fn after_one_more(self, rate: Rate, now: UnixSeconds) -> Option<Self> {
        let number = Self::number_at(rate, now);
        let used = if number > self.number { 0 } else { self.used };
        let used = used.checked_add(1).filter(|used| u64::from(*used) <= rate.limit)?;
        Some(Self { number: number.max(self.number), used })
    }
}

impl Account {
    /// Whether a request draws on any counter.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.0.entries.as_ref().is_none_or(|entries| !entries.is_empty())
    }

    /// Reserves one request with a body of that size, from all blocks or none. Budgets are looked at before rates.
    ///
    /// A body of unknown size (`None`) needs some room, and is metered as it flows. A response needs room for one byte.
    ///
    /// # Errors
    /// [`BudgetError`], the first block that refuses; nothing was taken then.
    pub fn reserve(&self, body_size: Option<u64>, now: UnixSeconds) -> Result<Reservation, BudgetError> {
        let entries = self.entries()?;
        // Looking first keeps a block that has room untouched by requests that another block refuses anyway.
        for entry in entries {
            entry.check(BudgetKind::Calls, 1)?;
            entry.check(BudgetKind::BytesUp, body_size.unwrap_or(1))?;
            entry.check(BudgetKind::BytesDown, 1)?;
        }
        entries.iter().try_for_each(|entry| entry.check_rate(now))?;
        let announced = body_size.unwrap_or(0);
        let mut taken = 0;
        let refused = loop {
            let Some(entry) = entries.get(taken) else { break None };
            if let Err(error) = take_all(entry, announced, now) {
                break Some(error);
            }
            taken += 1;
        };
        if let Some(error) = refused {
            for entry in entries.iter().take(taken) {
                entry.give_back_rate(now);
                entry.give_back(BudgetKind::Calls, 1);
                entry.give_back(BudgetKind::BytesUp, announced);
            }
            return Err(error);
        }
        Ok(Reservation { lines: Arc::clone(&self.0), announced, up: AtomicU64::new(0), down: AtomicU64::new(0) })
    }

    fn entries(&self) -> Result<&[Entry], BudgetError> {
        self.0.entries.as_deref().ok_or(BudgetError::TooManyBlocks)
    }
}

/// Takes a call, its announced bytes and its place in the window from one block, or nothing.
fn take_all(entry: &Entry, announced: u64, now: UnixSeconds) -> Result<(), BudgetError> {
    entry.take(BudgetKind::Calls, 1)?;
    if let Err(error) = entry.take(BudgetKind::BytesUp, announced) {
        entry.give_back(BudgetKind::Calls, 1);
        return Err(error);
    }
    entry.take_rate(now).inspect_err(|_| {
        entry.give_back(BudgetKind::Calls, 1);
        entry.give_back(BudgetKind::BytesUp, announced);
    })
}

/// What one request has taken. The call stays counted whatever becomes of the request; dropped, it gives back what was
/// announced and not sent, so it lives as long as either body of the request.
#[must_use = "a request is counted from now on: meter its bytes"]
pub struct Reservation {
    lines: Arc<Lines>,
    /// Bytes up that were taken in advance.
    announced: u64,
    /// Bytes that flowed so far.
    up: AtomicU64,
    down: AtomicU64,
}

impl Reservation {
    /// Meters `bytes` of the request's body before they are sent on. False: there is no room for them, the exchange
    /// must end.
    #[must_use]
    pub fn add_up(&self, bytes: u64) -> bool {
        let before = self.up.fetch_add(bytes, Ordering::Relaxed);
        let after = before.saturating_add(bytes);
        // Only what goes beyond the announced size is still to be paid for.
        let unpaid = after.saturating_sub(self.announced.max(before));
        self.take(BudgetKind::BytesUp, unpaid)
    }

    /// Meters `bytes` of the response's body before they are passed on. False: the exchange must end.
    #[must_use]
    pub fn add_down(&self, bytes: u64) -> bool {
        self.down.fetch_add(bytes, Ordering::Relaxed);
        self.take(BudgetKind::BytesDown, bytes)
    }

    /// The bytes that were metered, up and down.
    #[must_use]
    pub fn metered(&self) -> (u64, u64) {
        (self.up.load(Ordering::Relaxed), self.down.load(Ordering::Relaxed))
    }

    /// Takes from all blocks or none.
    fn take(&self, kind: BudgetKind, bytes: u64) -> bool {
        if bytes == 0 {
            return true;
        }
        let entries = self.entries();
        for (at, entry) in entries.iter().enumerate() {
            if entry.take(kind, bytes).is_err() {
                entries.iter().take(at).for_each(|entry| entry.give_back(kind, bytes));
                return false;
            }
        }
        true
    }

    fn entries(&self) -> &[Entry] {
        self.lines.entries.as_deref().unwrap_or_default()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let unsent = self.announced.saturating_sub(self.up.load(Ordering::Relaxed));
        for entry in self.entries() {
            entry.give_back(BudgetKind::BytesUp, unsent);
        }
    }
}

#[cfg(test)]
mod tests;
