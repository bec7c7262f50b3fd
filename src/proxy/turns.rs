//! Work that takes milliseconds, done beside the threads that serve requests.
#![expect(
    clippy::disallowed_types,
    reason = "not on the path of a request: a chain that is not known yet waits for its turn"
)]

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

/// As many at once as there are cores; the rest wait, in the order in which they came.
pub(super) struct Turns(Arc<Semaphore>);

impl Turns {
    pub(super) fn new() -> Self {
        Self::of(std::thread::available_parallelism().map_or(1, usize::from))
    }

    fn of(turns: usize) -> Self {
        Self(Arc::new(Semaphore::new(turns)))
    }

    /// Does the work when there is a turn for it; `None` when there was none within this time, or the work panicked.
    ///
    /// The turn is the work's own: whoever stops waiting for work that runs does not give it back.
    pub(super) async fn take<T: Send + 'static>(
        &self,
        within: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let turn = tokio::time::timeout(within, Arc::clone(&self.0).acquire_owned()).await.ok()?.ok()?;
        let work = move || {
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(work).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn no_more_run_at_once_than_there_are_turns_and_all_run_in_the_end() {
        let turns = Arc::new(Turns::of(2));
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..16)
            .map(|number| {
                let (turns, running, most) = (Arc::clone(&turns), Arc::clone(&running), Arc::clone(&most));
                tokio::spawn(async move {
                    let work = move || {
                        most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        running.fetch_sub(1, Ordering::SeqCst);
                        number
                    };
                    turns.take(LONG, work).await
                })
            })
            .collect();
        for (number, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.expect("it ends"), Some(number));
        }
        assert!((1..=2).contains(&most.load(Ordering::SeqCst)));
    }

    #[tokio::test]
    async fn work_that_panics_gives_its_turn_back() {
        let turns = Turns::of(1);
        assert_eq!(turns.take(LONG, || assert_eq!(1, 2, "on purpose")).await, None);
        assert_eq!(turns.take(LONG, || 3).await, Some(3));
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_any_more_keeps_its_turn() {
        let turns = Turns::of(1);
        let (go_on, wait) = mpsc::channel::<()>();
        let abandoned = turns.take(LONG, move || wait.recv());
        // Begun, and dropped.
        assert!(futures_util::FutureExt::now_or_never(abandoned).is_none());
        assert_eq!(turns.0.available_permits(), 0);
        assert_eq!(turns.take(Duration::from_millis(1), || 3).await, None, "nobody waits for ever");
        drop(go_on);
        assert_eq!(turns.take(LONG, || 3).await, Some(3));
    }
}
