//! The beat of a client's connection: what its requests wait for instead of a timer of their own.
//!
//! A timer of the runtime's is set and taken back under one lock of all cores. So a connection has one (`keep`), and a
//! request that waits only asks for a beat, in its connection's memory. The beat comes [`EVERY`] after the first has
//! asked; whoever waits then is woken, looks at its own clock, and asks for the next. Where nobody waits nobody asks.
//!
//! On HTTP/1.1 the requests are polled by the task that keeps the beat, which wakes itself. On HTTP/2 each has a task of
//! its own, and leaves its waker in a place.
//!
//! Why no beat is missed. Who waits first makes its waker known (takes a place, fence, registers), then reads the
//! number of the last beat, then asks. The keeper first takes back what was asked, then counts the beat, then (fence)
//! wakes the places. So either the keeper sees the place and the waker, or the other sees the new number: the fences
//! decide it for the place, and [`AtomicWaker`] for the waker. Whoever has read the number of the last beat also sees
//! that what was asked before it is taken back, and does not take it for the next. `tests/models` runs this.

use std::sync::Arc;
#[cfg(not(loom))]
use std::sync::OnceLock;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

#[cfg(not(loom))]
use futures_util::task::AtomicWaker;
#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};

#[cfg(loom)]
use super::{once::OnceLock, waker::AtomicWaker};

/// How long after it was asked for a beat comes.
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// A value of [`Beat::idle_since_ms`]: a request is under way.
const BUSY: u64 = u64::MAX;
/// Requests that wait at once on one HTTP/2 connection, for whom there is room before there has to be more.
const PLACES: u32 = if cfg!(loom) { 1 } else { 16 };

/// See the module.
pub(super) struct Beat {
    /// Whether somebody has asked since the last beat.
    asked: AtomicBool,
    /// Of the last beat.
    number: AtomicU32,
    keeper: AtomicWaker,
    /// Where requests have tasks of their own.
    places: Option<OnceLock<Box<Places>>>,
    began: Instant,
    /// Milliseconds after `began` at which the last request ended, or [`BUSY`]. Kept where one comes after the other.
    idle_since_ms: AtomicU64,
}

/// Places are never taken away: the most requests that a connection had at once decide how many there are.
struct Places {
    /// A bit for each place.
    taken: AtomicU32,
    wakers: [AtomicWaker; PLACES as usize],
    more: OnceLock<Box<Self>>,
}

impl Beat {
    /// Of a connection whose requests are polled by the task that keeps the beat.
    pub(super) fn alone(now: Instant) -> Arc<Self> {
        Arc::new(Self::new(None, now))
    }

    /// Of a connection whose requests have tasks of their own.
    pub(super) fn shared(now: Instant) -> Arc<Self> {
        Arc::new(Self::new(Some(OnceLock::new()), now))
    }

    fn new(places: Option<OnceLock<Box<Places>>>, began: Instant) -> Self {
        Self {
            asked: AtomicBool::new(false),
            number: AtomicU32::new(0),
            keeper: AtomicWaker::new(),
            places,
            began,
            idle_since_ms: AtomicU64::new(0),
        }
    }

    /// For the keeper, which is woken when this becomes true: whether a beat has to come.
    pub(super) fn is_asked(&self, cx: &Context<'_>) -> bool {
        self.keeper.register(cx.waker());
        self.asked.load(Ordering::Acquire)
    }

    /// For the keeper: the beat that was coming is here.
    pub(super) fn strike(&self) {
        self.asked.swap(false, Ordering::AcqRel);
        self.number.fetch_add(1, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        let mut next = self.places.as_ref().and_then(OnceLock::get);
        while let Some(places) = next {
            places.wake();
            next = places.more.get();
        }
    }

    /// Asks for the next beat. Seldom writes: most find that somebody has asked.
    fn ask(&self) {
        if !self.asked.load(Ordering::Relaxed) && !self.asked.swap(true, Ordering::AcqRel) {
            self.keeper.wake();
        }
    }

    /// A request has begun.
    pub(super) fn begin(&self) {
        if self.places.is_none() {
            self.idle_since_ms.store(BUSY, Ordering::Relaxed);
        }
    }

    /// The request has ended, or something else was heard of the client.
    pub(super) fn rest(&self, now: Instant) {
        if self.places.is_none() {
            let elapsed = u64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(0);
            self.idle_since_ms.store(elapsed, Ordering::Relaxed);
        }
    }

    /// When the last request ended; none while one is under way.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let since_ms = self.idle_since_ms.load(Ordering::Relaxed);
        (since_ms != BUSY).then(|| self.began + Duration::from_millis(since_ms))
    }
}

impl Places {
    fn new() -> Box<Self> {
        let wakers = std::array::from_fn(|_| AtomicWaker::new());
        Box::new(Self { taken: AtomicU32::new(0), wakers, more: OnceLock::new() })
    }

    fn take(&self) -> Option<u32> {
        let mut taken = self.taken.load(Ordering::Relaxed);
        loop {
            let place = taken.trailing_ones();
            if place >= PLACES {
                return None;
            }
            taken = self.taken.fetch_or(1 << place, Ordering::AcqRel);
            if taken & (1 << place) == 0 {
                return Some(place);
            }
        }
    }

    fn wake(&self) {
        let taken = self.taken.load(Ordering::Acquire);
        for (place, waker) in self.wakers.iter().enumerate() {
            if taken & (1 << place) != 0 {
                waker.wake();
            }
        }
    }
}

/// What one request waits with.
pub(super) struct Wait {
    beat: Arc<Beat>,
    /// Of the last beat that it has seen.
    number: u32,
    /// Its place on an HTTP/2 connection, from when it first waits.
    place: Option<u32>,
}

impl Wait {
    pub(super) fn new(beat: &Arc<Beat>) -> Self {
        Self { beat: Arc::clone(beat), number: beat.number.load(Ordering::Relaxed), place: None }
    }

    /// Ready at each beat, or once when some have passed since the last look; pending lets the next one come, within
    /// [`EVERY`].
    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        if let Some(first) = &self.beat.places {
            let place = *self.place.get_or_insert_with(|| take_place(first));
            if let Some(waker) = waker(first, place) {
                waker.register(cx.waker());
            }
        }
        let number = self.beat.number.load(Ordering::Acquire);
        if number != self.number {
            self.number = number;
            return Poll::Ready(());
        }
        self.beat.ask();
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let (Some(first), Some(place)) = (&self.beat.places, self.place)
            && let Some((places, place)) = find(first, place)
        {
            // What it would wake is over.
            drop(places.wakers.get(place).and_then(AtomicWaker::take));
            places.taken.fetch_and(!(1 << place), Ordering::Release);
        }
    }
}

/// A lock is taken only by who makes room for more, and by who comes in that moment.
fn take_place(first: &OnceLock<Box<Places>>) -> u32 {
    let (mut places, mut before) = (first.get_or_init(Places::new), 0);
    loop {
        if let Some(place) = places.take() {
            fence(Ordering::SeqCst);
            return before + place;
        }
        places = places.more.get_or_init(Places::new);
        before += PLACES;
    }
}

fn find(first: &OnceLock<Box<Places>>, place: u32) -> Option<(&Places, usize)> {
    let (mut places, mut place) = (first.get()?, place);
    while place >= PLACES {
        (places, place) = (places.more.get()?, place - PLACES);
    }
    Some((places, place as usize))
}

fn waker(first: &OnceLock<Box<Places>>, place: u32) -> Option<&AtomicWaker> {
    find(first, place).and_then(|(places, place)| places.wakers.get(place))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::{Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Calls(AtomicUsize);

    impl Wake for Calls {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Calls {
        fn take(&self) -> usize {
            self.0.swap(0, Ordering::Relaxed)
        }
    }

    fn task() -> (Arc<Calls>, Waker) {
        let calls = Arc::new(Calls::default());
        (Arc::clone(&calls), Waker::from(calls))
    }

    #[test]
    fn the_keeper_is_called_by_the_first_alone_that_asks() {
        let (keeper_calls, keeper) = task();
        let (_, requests) = task();
        let cx = Context::from_waker(&requests);
        for beat in [Beat::alone(Instant::now()), Beat::shared(Instant::now())] {
            assert!(!beat.is_asked(&Context::from_waker(&keeper)));
            let mut waits = [(); 3].map(|()| Wait::new(&beat));
            assert!(waits.iter_mut().all(|wait| wait.poll(&cx).is_pending()));
            assert_eq!(keeper_calls.take(), 1);
            assert!(beat.is_asked(&Context::from_waker(&keeper)));
            beat.strike();
            assert!(!beat.is_asked(&Context::from_waker(&keeper)), "each beat has to be asked for");
            let [first, second, _] = &mut waits;
            assert!(first.poll(&cx).is_ready() && first.poll(&cx).is_pending());
            assert_eq!(keeper_calls.take(), 1);
            assert!(second.poll(&cx).is_ready() && second.poll(&cx).is_pending());
            assert_eq!(keeper_calls.take(), 0);
        }
    }

    #[test]
    fn a_beat_calls_whoever_has_a_place_however_many_and_nobody_else() {
        let beat = Beat::shared(Instant::now());
        let tasks = [(); 2 * PLACES as usize + 1].map(|()| task());
        let mut waits: Vec<Wait> = tasks.iter().map(|_| Wait::new(&beat)).collect();
        for (wait, (_, waker)) in waits.iter_mut().zip(&tasks) {
            assert!(wait.poll(&Context::from_waker(waker)).is_pending());
        }
        beat.strike();
        assert!(tasks.iter().all(|(calls, _)| calls.take() == 1));
        for (wait, (_, waker)) in waits.iter_mut().zip(&tasks) {
            let cx = Context::from_waker(waker);
            assert!(wait.poll(&cx).is_ready() && wait.poll(&cx).is_pending());
        }
        waits.remove(PLACES as usize);
        beat.strike();
        let called: Vec<usize> = tasks.iter().map(|(calls, _)| calls.take()).collect();
        assert_eq!(called.iter().sum::<usize>(), tasks.len() - 1);
        assert_eq!(called[PLACES as usize], 0, "it has gone");
    }

    #[test]
    fn a_place_that_was_given_back_is_taken_again() {
        let beat = Beat::shared(Instant::now());
        let (_, waker) = task();
        for _ in 0..3 * PLACES {
            let mut waits = [(); PLACES as usize].map(|()| Wait::new(&beat));
            assert!(waits.iter_mut().all(|wait| wait.poll(&Context::from_waker(&waker)).is_pending()));
        }
        let places = beat.places.as_ref().and_then(OnceLock::get).expect("there are some");
        assert!(places.more.get().is_none());
        assert_eq!(places.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_connection_idles_from_the_end_of_its_last_request() {
        let began = Instant::now();
        let later = began + Duration::from_secs(5);
        let beat = Beat::alone(began);
        assert_eq!(beat.idle_since(), Some(began));
        beat.begin();
        assert_eq!(beat.idle_since(), None);
        beat.rest(later);
        assert_eq!(beat.idle_since(), Some(later));
    }
}
