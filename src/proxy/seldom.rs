//! What others can bring about as often as they like is said once a second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One thing that may be said.
#[derive(Debug)]
pub(super) struct Seldom {
    since: Instant,
    /// In which second it was said last, the first being 1.
    said: AtomicU64,
}

impl Seldom {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), said: AtomicU64::new(0) }
    }

    /// Whether it may be said now.
    pub(super) fn may_say(&self) -> bool {
        self.may_say_after(self.since.elapsed())
    }

    fn may_say_after(&self, elapsed: Duration) -> bool {
        let second = elapsed.as_secs() + 1;
        self.said.swap(second, Ordering::Relaxed) != second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_bring_about_is_said_once_a_second() {
        let (one, other) = (Seldom::new(), Seldom::new());
        assert!(one.may_say_after(Duration::ZERO) && other.may_say_after(Duration::ZERO));
        assert!(!one.may_say_after(Duration::from_millis(999)) && one.may_say_after(Duration::from_secs(1)));
    }
}
