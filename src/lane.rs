//! Which of several copies of a thing a thread uses, so that threads on different cores write different cache lines.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of this thread: 0, 1, 2 and so on, in the order in which threads asked first. Whoever has `n` copies uses
/// number modulo `n`.
pub(crate) fn of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static MINE: Cell<Option<usize>> = const { Cell::new(None) });
    MINE.with(|mine| {
        mine.get().unwrap_or_else(|| {
            let new = NEXT.fetch_add(1, Ordering::Relaxed);
            mine.set(Some(new));
            new
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_its_number_and_shares_it_with_none() {
        let first = of_this_thread();
        let others: Vec<usize> = (0..3).map(|_| std::thread::spawn(of_this_thread).join().expect("a number")).collect();
        assert_eq!(of_this_thread(), first);
        let mut all = [vec![first], others].concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 4);
    }
}
