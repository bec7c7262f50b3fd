//! Work that takes milliseconds, done beside the threads that serve requests, by turns of those who want it.
//!
//! Whoever wants a lot of it waits behind themselves: one piece of each asker's is done before anybody's second. And all of it
//! gives way to the threads that serve, where they need the same core (`NICE`).
#![expect(
    clippy::disallowed_types,
    reason = "not on the path of a request: a chain that is not known yet waits for its turn"
)]

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::capability::BlockId;

/// What a working thread's priority is lowered by, of 19: beside a thread that serves without a pause it still gets about a
/// tenth of a core (`sched(7)`). That alone does not make it give way at once: see [`pauses`].
const NICE: i32 = 10;

/// So long somebody may have to wait for a thread that works.
const WITHOUT_PAUSE: Duration = Duration::from_micros(200);
/// As short as the system has one: some tens of microseconds.
const PAUSE: Duration = Duration::from_nanos(1);

/// As many threads as there are cores, as long as there is work.
pub(super) struct Turns<T>(Arc<Inner<T>>);

struct Inner<T> {
    queue: Mutex<Queue<T>>,
    threads_max: usize,
    /// As many can want something at once.
    waiting_max: usize,
}

struct Queue<T> {
    threads: usize,
    waiting: usize,
    /// Those who have work here, the one whose turn is next first.
    order: VecDeque<BlockId>,
    work: HashMap<BlockId, VecDeque<Work<T>>>,
}

struct Work<T> {
    work: Box<dyn FnOnce() -> T + Send>,
    done: oneshot::Sender<T>,
}

impl<T: Send + 'static> Turns<T> {
    pub(super) fn new(waiting_max: usize) -> Self {
        Self::of(std::thread::available_parallelism().map_or(1, usize::from), waiting_max)
    }

    fn of(threads_max: usize, waiting_max: usize) -> Self {
        let queue = Queue { threads: 0, waiting: 0, order: VecDeque::new(), work: HashMap::new() };
        Self(Arc::new(Inner { queue: Mutex::new(queue), threads_max, waiting_max }))
    }

    /// Does the work when it is `whose` turn; `None` when that was not done within this time, when there is no room or no
    /// thread for it, or when the work panicked.
    pub(super) async fn take(
        &self,
        whose: BlockId,
        within: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (done, result) = oneshot::channel();
        let needs_thread = self.0.lock().push(whose, Work { work: Box::new(work), done }, &self.0)?;
        if needs_thread {
            let inner = Arc::clone(&self.0);
            let started = std::thread::Builder::new().name("narrows-turns".to_owned()).spawn(move || inner.work());
            if started.is_err() {
                self.0.lock().threads -= 1;
            }
        }
        tokio::time::timeout(within, result).await.ok()?.ok()
    }
}

impl<T> Inner<T> {
    /// Works until there is nothing left to do.
    fn work(&self) {
        give_way();
        loop {
            // Not in the loop's head, where the lock would last as long as the work.
            let Some(Work { work, done }) = self.lock().pop() else { return };
            if let Ok(result) = catch_unwind(AssertUnwindSafe(work)) {
                let _ = done.send(result);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Queue<T> {
    /// Whether a thread has to be started for it; `None` where there is no room.
    fn push(&mut self, whose: BlockId, work: Work<T>, bounds: &Inner<T>) -> Option<bool> {
        if self.waiting >= bounds.waiting_max {
            self.forget_abandoned();
        }
        if self.waiting >= bounds.waiting_max {
            return None;
        }
        let own = self.work.entry(whose).or_default();
        if own.is_empty() {
            self.order.push_back(whose);
        }
        own.push_back(work);
        self.waiting += 1;
        let needs_thread = self.threads < bounds.threads_max;
        self.threads += usize::from(needs_thread);
        Some(needs_thread)
    }

    /// The next work that somebody still waits for. Where there is none, a thread has ended.
    fn pop(&mut self) -> Option<Work<T>> {
        while let Some(whose) = self.order.pop_front() {
            let Some(own) = self.work.get_mut(&whose) else { continue };
            let next = own.pop_front();
            if own.is_empty() {
                self.work.remove(&whose);
            } else {
                self.order.push_back(whose);
            }
            self.waiting -= usize::from(next.is_some());
            if let Some(wanted) = next.filter(|next| !next.done.is_closed()) {
                return Some(wanted);
            }
        }
        self.threads -= 1;
        None
    }

    fn forget_abandoned(&mut self) {
        for own in self.work.values_mut() {
            own.retain(|work| !work.done.is_closed());
        }
        self.work.retain(|_, own| !own.is_empty());
        self.order.retain(|whose| self.work.contains_key(whose));
        self.waiting = self.work.values().map(VecDeque::len).sum();
    }
}

/// Lowers the priority of this thread alone (`setpriority(2)`, "C library/kernel differences"). Where that is refused, or
/// elsewhere, threads are equal.
fn give_way() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE) {
        tracing::debug!(%error, "what is verified takes turns with what is served");
    }
}

/// To be called between the steps of some work: pauses for a moment whenever so much has been done, so that a thread that
/// wants the core has it. Whatever its priority, a thread may end the slice that the system has given it, which is milliseconds.
/// `sched_yield(2)` would also give up what this thread may have later: beside threads that never pause, each call took 10 ms.
pub(super) fn pauses() -> impl FnMut() {
    let mut since = Instant::now();
    move || {
        if since.elapsed() >= WITHOUT_PAUSE {
            std::thread::sleep(PAUSE);
            since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use futures_util::FutureExt as _;

    use super::*;

    const LONG: Duration = Duration::from_mins(1);
    const MANY: usize = 1000;

    fn asker(number: u8) -> BlockId {
        BlockId([number; 32])
    }

    #[tokio::test]
    async fn no_more_run_at_once_than_there_are_turns_and_all_run_in_the_end() {
        let turns = Arc::new(Turns::of(2, MANY));
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
                    turns.take(asker(number % 3), LONG, work).await
                })
            })
            .collect();
        for (number, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.expect("it ends").map(usize::from), Some(number));
        }
        assert!((1..=2).contains(&most.load(Ordering::SeqCst)));
        let queue = turns.0.lock();
        assert_eq!((queue.waiting, queue.order.len(), queue.work.len()), (0, 0, 0));
    }

    /// One thread that does nothing before it is told to, and what is asked of it meanwhile.
    fn held() -> (Turns<u8>, impl Future<Output = Option<u8>>, mpsc::Sender<()>) {
        let turns = Turns::of(1, 8);
        let (go_on, wait) = mpsc::channel::<()>();
        let (begins, begun) = mpsc::channel::<()>();
        let inner = Turns(Arc::clone(&turns.0));
        let mut first = Box::pin(async move {
            let work = move || {
                let _ = begins.send(());
                let _ = wait.recv();
                0
            };
            inner.take(asker(0), LONG, work).await
        });
        assert!(first.as_mut().now_or_never().is_none());
        begun.recv().expect("it begins");
        (turns, first, go_on)
    }

    #[tokio::test]
    async fn whoever_asks_for_a_lot_waits_behind_themselves() {
        let (turns, first, go_on) = held();
        let order = Arc::new(Mutex::new(Vec::new()));
        let ask = |whose, number: u8| {
            let order = Arc::clone(&order);
            turns.take(asker(whose), LONG, move || {
                order.lock().expect("nobody panics").push(number);
                number
            })
        };
        let mut asked = [Box::pin(ask(1, 10)), Box::pin(ask(1, 11)), Box::pin(ask(1, 12)), Box::pin(ask(2, 20))];
        for one in &mut asked {
            assert!(one.now_or_never().is_none());
        }
        drop(go_on);
        assert_eq!(first.await, Some(0));
        futures_util::future::join_all(asked).await;
        assert_eq!(*order.lock().expect("nobody panics"), [10, 20, 11, 12]);
    }

    #[tokio::test]
    async fn work_that_panics_gives_its_turn_back() {
        let turns = Turns::of(1, MANY);
        let failed = turns.take(asker(1), LONG, || {
            assert_eq!(1, 2, "on purpose");
            1
        });
        assert_eq!(failed.await, None);
        assert_eq!(turns.take(asker(1), LONG, || 3).await, Some(3));
    }

    #[tokio::test]
    async fn nobody_waits_for_ever_and_what_nobody_waits_for_is_not_done() {
        let (turns, first, go_on) = held();
        let done = Arc::new(AtomicUsize::new(0));
        let work = {
            let done = Arc::clone(&done);
            move || {
                done.fetch_add(1, Ordering::SeqCst);
                1
            }
        };
        assert_eq!(turns.take(asker(1), Duration::from_millis(1), work).await, None);
        drop(go_on);
        assert_eq!(first.await, Some(0));
        assert_eq!(turns.take(asker(1), LONG, || 3).await, Some(3));
        assert_eq!(done.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn there_is_room_for_so_many_who_wait_and_the_abandoned_take_none() {
        let (turns, first, go_on) = held();
        let _ = turns.take(asker(1), LONG, || 1).now_or_never();
        let mut waiting: Vec<_> = (0..8).map(|number| Box::pin(turns.take(asker(2), LONG, move || number))).collect();
        assert!(waiting.iter_mut().all(|one| one.now_or_never().is_none()));
        assert_eq!(turns.take(asker(3), LONG, || 3).await, None, "eight wait");
        drop(go_on);
        assert_eq!(first.await, Some(0));
        let done = futures_util::future::join_all(waiting).await;
        assert_eq!(done, (0..8).map(Some).collect::<Vec<_>>());
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_work_gives_way_to_what_is_served() {
        let nice = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("Linux tells");
            let after_name = stat.rsplit_once(')').expect("a name").1;
            // `proc_pid_stat(5)`: the nineteenth field; the third is the first after the name.
            after_name.split_whitespace().nth(16).expect("a nice value").parse::<i32>().expect("a number")
        };
        let own = nice();
        assert_eq!(Turns::of(1, 1).take(asker(1), LONG, nice).await, Some((own + NICE).min(19)));
        assert_eq!(nice(), own, "and nobody else does");
    }
}
