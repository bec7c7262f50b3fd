//! How many connections may be inside, by the door they came in by, and how many of those nobody has shown who is.
//!
//! Each bound is what is still free, so whoever takes leaves the others as much: one listener alone gets half, two get
//! a third each, and there is always room for the next. Listeners accept at the same time without a lock between them,
//! so a bound may be passed by as many as there are listeners.
//!
//! One stranger too many ends the one who has been silent longest: whoever wants to keep others out has to be quicker than
//! they show who they are, and not only there first.

#![expect(clippy::disallowed_types, reason = "touched by whoever accepts, and by no request")]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::seldom::Seldom;

/// A queue of strangers is cleared of those who are none any more when it has so many entries, or twice as many as were left
/// the last time.
const TIDY_AT: usize = 64;
/// Who was ended leaves at once, unless all threads that serve are busy.
const LEAVES_WITHIN: Duration = Duration::from_millis(50);
/// How often it is looked whether they have.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// One listener's door.
#[derive(Debug)]
pub(super) struct Door {
    /// Clients act under the capability of the listener.
    bound: bool,
    inside: AtomicUsize,
    strangers: AtomicUsize,
    /// Strangers inside by whatever door.
    all_strangers: Arc<AtomicUsize>,
    said: Seldom,
}

/// The strangers of one door, as they came. Whoever accepts has it alone.
#[derive(Debug)]
pub(super) struct Queue {
    strangers: VecDeque<(Weak<Place>, AbortHandle)>,
    tidy_at: usize,
    /// Who was ended last, and is inside until their task has run.
    ended: Option<AbortHandle>,
}

/// Where one listener tells all others that there is no descriptor left, and that it has no stranger to end.
#[derive(Debug, Default)]
pub(super) struct Crowd(Notify);

impl Crowd {
    pub(super) fn ring(&self) {
        self.0.notify_waiters();
    }

    pub(super) async fn rings(&self) {
        self.0.notified().await;
    }
}

/// A connection's place inside; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    door: Arc<Door>,
    stranger: AtomicBool,
}

impl Door {
    pub(super) fn new(bound: bool, all_strangers: Arc<AtomicUsize>) -> Self {
        let [inside, strangers] = [(); 2].map(|()| AtomicUsize::new(0));
        Self { bound, inside, strangers, all_strangers, said: Seldom::new() }
    }

    /// A place for one more connection, of `most`, where `running` are inside already; `None` where there is no room.
    pub(super) fn enter(self: &Arc<Self>, queue: &mut Queue, running: usize, most: usize) -> Option<Arc<Place>> {
        let free = most.saturating_sub(running);
        let strangers_free = (most / 2).max(1).saturating_sub(self.all_strangers.load(Ordering::Relaxed));
        let own = if self.bound { self.inside.load(Ordering::Relaxed) } else { 0 };
        if own >= free {
            return None;
        }
        if self.strangers.load(Ordering::Relaxed) >= strangers_free {
            if !queue.end_first() {
                return None;
            }
            if self.may_say() {
                tracing::warn!("too many connections on which nobody has authenticated: the oldest was closed");
            }
        }
        for count in [&self.inside, &self.strangers, &self.all_strangers] {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Some(Arc::new(Place { door: Arc::clone(self), stranger: AtomicBool::new(true) }))
    }

    /// Whether something may be said now that clients can bring about as often as they like: once a second.
    pub(super) fn may_say(&self) -> bool {
        self.said.may_say()
    }
}

impl Queue {
    pub(super) const fn new() -> Self {
        Self { strangers: VecDeque::new(), tidy_at: TIDY_AT, ended: None }
    }

    /// Notes who has come, and the task that serves them.
    pub(super) fn push(&mut self, stranger: Weak<Place>, task: AbortHandle) {
        if self.strangers.len() >= self.tidy_at {
            let is_one = |place: &Weak<Place>| place.upgrade().is_some_and(|it| it.stranger.load(Ordering::Relaxed));
            self.strangers.retain(|(place, _)| is_one(place));
            self.tidy_at = (2 * self.strangers.len()).max(TIDY_AT);
        }
        self.strangers.push_back((stranger, task));
    }

    /// Lets who was ended leave, before the next one is let in.
    pub(super) async fn settle(&mut self) {
        if self.ended.take().is_some() {
            tokio::task::yield_now().await;
        }
    }

    /// Waits until who was ended has left, and their descriptor is free: else another would be ended for the same one. Of a
    /// task that does not come to its turn for longer than [`LEAVES_WITHIN`], nobody waits for the end.
    pub(super) async fn vacate(&mut self) {
        let Some(ended) = self.ended.take() else { return };
        let deadline = Instant::now() + LEAVES_WITHIN;
        while !ended.is_finished() && Instant::now() < deadline {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Ends the stranger who came first; false where there is none.
    pub(super) fn end_first(&mut self) -> bool {
        while let Some((place, task)) = self.strangers.pop_front() {
            if place.upgrade().is_some_and(|place| place.known()) {
                task.abort();
                self.ended = Some(task);
                return true;
            }
        }
        false
    }
}

impl Place {
    /// Its holder is not counted among strangers any more: somebody has authenticated, or it ends. Whether it was till now.
    pub(super) fn known(&self) -> bool {
        // Every request asks; only the first one writes.
        let was_stranger = self.stranger.load(Ordering::Relaxed) && self.stranger.swap(false, Ordering::Relaxed);
        if was_stranger {
            self.door.strangers.fetch_sub(1, Ordering::Relaxed);
            self.door.all_strangers.fetch_sub(1, Ordering::Relaxed);
        }
        was_stranger
    }

    /// See [`Door::may_say`].
    pub(super) fn may_say(&self) -> bool {
        self.door.may_say()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.known();
        self.door.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    const MOST: usize = 32;

    /// Enters by a door until there is no room, without a queue.
    fn fill(door: &Arc<Door>, others: usize, known: bool) -> Vec<Arc<Place>> {
        let mut inside = Vec::new();
        while let Some(place) = door.enter(&mut Queue::new(), others + inside.len(), MOST) {
            if known {
                place.known();
            }
            inside.push(place);
        }
        inside
    }

    fn doors() -> [Arc<Door>; 3] {
        let all = Arc::<AtomicUsize>::default();
        [false, true, true].map(|bound| Arc::new(Door::new(bound, Arc::clone(&all))))
    }

    #[test]
    fn a_bound_listener_leaves_as_much_as_it_takes_and_the_main_one_may_have_all() {
        let [main, first, second] = doors();
        let one = fill(&first, 0, true);
        assert_eq!(one.len(), MOST / 2);
        let two = fill(&second, one.len(), true);
        assert_eq!(two.len(), MOST / 4);
        let rest = fill(&main, one.len() + two.len(), true);
        assert_eq!(one.len() + two.len() + rest.len(), MOST);
        drop(one);
        assert!(first.enter(&mut Queue::new(), two.len() + rest.len(), MOST).is_some());
    }

    #[test]
    fn strangers_leave_room_for_strangers_of_other_listeners_and_for_who_is_known() {
        let [main, first, second] = doors();
        let one = fill(&first, 0, false);
        assert_eq!(one.len(), MOST / 4);
        let two = fill(&second, one.len(), false);
        let three = fill(&main, one.len() + two.len(), false);
        assert!(!two.is_empty() && !three.is_empty());
        assert!(one.len() + two.len() + three.len() <= MOST / 2);
        // One who has become known makes room for the next.
        let mut queue = Queue::new();
        assert!(main.enter(&mut queue, 0, MOST).is_none());
        assert!(three[0].known() && !three[0].known());
        let next = main.enter(&mut queue, 0, MOST);
        assert!(next.is_some() && main.enter(&mut queue, 0, MOST).is_none());
        drop((one, two, three, next));
        assert_eq!(main.all_strangers.load(Ordering::Relaxed), 0);
        assert_eq!([&main, &first, &second].map(|door| door.inside.load(Ordering::Relaxed)), [0; 3]);
    }

    #[tokio::test]
    async fn one_stranger_too_many_ends_the_first_and_nobody_who_is_known() {
        let [main, ..] = doors();
        let (mut queue, mut tasks, mut known) = (Queue::new(), Vec::new(), Vec::new());
        for number in 0..MOST {
            let place = main.enter(&mut queue, 0, MOST).expect("room");
            let weak = Arc::downgrade(&place);
            if number % 4 == 0 {
                place.known();
                known.push(number);
            }
            let task = tokio::spawn(async move {
                let _place = place;
                std::future::pending::<()>().await;
            });
            queue.push(weak, task.abort_handle());
            tasks.push(task);
        }
        // Every fourth is known, and of the others the last ones are left.
        let strangers = main.strangers.load(Ordering::Relaxed);
        assert_eq!(strangers, MOST / 4);
        let ended = MOST - known.len() - strangers;
        for (number, task) in tasks.into_iter().enumerate() {
            if known.contains(&number) || number - number / 4 > ended {
                assert!(!task.is_finished(), "{number}");
                task.abort();
            }
            assert!(task.await.expect_err("it waits for ever").is_cancelled());
        }
        assert_eq!((main.inside.load(Ordering::Relaxed), main.strangers.load(Ordering::Relaxed)), (0, 0));
    }

    #[tokio::test]
    async fn who_is_ended_for_their_descriptor_has_left_before_another_is() {
        let [main, ..] = doors();
        let mut queue = Queue::new();
        let place = main.enter(&mut queue, 0, MOST).expect("room");
        let weak = Arc::downgrade(&place);
        let task = tokio::spawn(async move {
            let _place = place;
            std::future::pending::<()>().await;
        });
        queue.push(weak.clone(), task.abort_handle());
        assert!(queue.end_first() && weak.strong_count() == 1);
        queue.vacate().await;
        assert!(weak.strong_count() == 0 && task.is_finished());
    }

    #[tokio::test]
    async fn who_is_known_or_gone_is_taken_out_of_the_queue() {
        let [main, ..] = doors();
        let mut queue = Queue::new();
        for _ in 0..100 * TIDY_AT {
            let place = main.enter(&mut queue, 0, MOST).expect("room");
            place.known();
            queue.push(Arc::downgrade(&place), tokio::spawn(async {}).abort_handle());
        }
        assert!(queue.strangers.len() <= TIDY_AT);
    }

    #[test]
    fn the_smallest_proxy_lets_one_in() {
        let [main, bound, _] = doors();
        let one = bound.enter(&mut Queue::new(), 0, 1).expect("room");
        assert!(main.enter(&mut Queue::new(), 1, 1).is_none());
        drop(one);
        assert!(main.enter(&mut Queue::new(), 0, 1).is_some());
    }
}
