//! How many connections may be inside, by the door they came in by, and how many of those nobody has shown who is.
//!
//! Each bound is what is still free, so whoever takes leaves the others as much: one listener alone gets half, two get
//! a third each, and there is always room for the next. Listeners accept at the same time without a lock between them,
//! so a bound may be passed by as many as there are listeners.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// One listener's door.
#[derive(Debug)]
pub(super) struct Door {
    /// Clients act under the capability of the listener.
    bound: bool,
    inside: AtomicUsize,
    strangers: AtomicUsize,
    /// Strangers inside by whatever door.
    all_strangers: Arc<AtomicUsize>,
    opened: Instant,
    /// In which second since it was opened something was said last, the first being 1.
    said: AtomicU64,
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
        Self { bound, inside, strangers, all_strangers, opened: Instant::now(), said: AtomicU64::new(0) }
    }

    /// A place for one more connection, of `most`, where `running` are inside already; `None` where there is no room.
    pub(super) fn enter(self: &Arc<Self>, running: usize, most: usize) -> Option<Arc<Place>> {
        let free = most.saturating_sub(running);
        let strangers_free = (most / 2).max(1).saturating_sub(self.all_strangers.load(Ordering::Relaxed));
        let own = if self.bound { self.inside.load(Ordering::Relaxed) } else { 0 };
        if own >= free || self.strangers.load(Ordering::Relaxed) >= strangers_free {
            return None;
        }
        for count in [&self.inside, &self.strangers, &self.all_strangers] {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Some(Arc::new(Place { door: Arc::clone(self), stranger: AtomicBool::new(true) }))
    }

    /// Whether something may be said now that clients can bring about as often as they like: once a second.
    pub(super) fn may_say(&self) -> bool {
        self.may_say_at(Instant::now())
    }

    fn may_say_at(&self, now: Instant) -> bool {
        let second = now.saturating_duration_since(self.opened).as_secs() + 1;
        self.said.swap(second, Ordering::Relaxed) != second
    }
}

impl Place {
    /// Somebody has authenticated on the connection.
    pub(super) fn known(&self) {
        // Every request asks; only the first one writes.
        if self.stranger.load(Ordering::Relaxed) && self.stranger.swap(false, Ordering::Relaxed) {
            self.door.strangers.fetch_sub(1, Ordering::Relaxed);
            self.door.all_strangers.fetch_sub(1, Ordering::Relaxed);
        }
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
    use std::time::Duration;

    use super::*;

    const MOST: usize = 32;

    /// Enters until there is no room.
    fn fill(door: &Arc<Door>, others: usize, known: bool) -> Vec<Arc<Place>> {
        let mut inside = Vec::new();
        while let Some(place) = door.enter(others + inside.len(), MOST) {
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
        assert!(first.enter(two.len() + rest.len(), MOST).is_some());
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
        assert!(main.enter(0, MOST).is_none());
        three[0].known();
        three[0].known();
        let next = main.enter(0, MOST);
        assert!(next.is_some() && main.enter(0, MOST).is_none());
        drop((one, two, three, next));
        assert_eq!(main.all_strangers.load(Ordering::Relaxed), 0);
        assert_eq!([&main, &first, &second].map(|door| door.inside.load(Ordering::Relaxed)), [0; 3]);
    }

    #[test]
    fn the_smallest_proxy_lets_one_in() {
        let [main, bound, _] = doors();
        let one = bound.enter(0, 1).expect("room");
        assert!(main.enter(1, 1).is_none());
        drop(one);
        assert!(main.enter(0, 1).is_some());
    }

    #[test]
    fn what_clients_bring_about_is_said_once() {
        let [main, bound, _] = doors();
        let (first, last) = (main.opened, main.opened + Duration::from_millis(999));
        assert!(main.may_say_at(first) && bound.may_say_at(first));
        assert!(!main.may_say_at(last) && main.may_say_at(first + Duration::from_secs(1)));
    }
}
