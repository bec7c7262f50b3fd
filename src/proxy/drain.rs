//! Going down in good order: no new clients, what runs may end, and at the deadline the rest is cut.
#![expect(
    clippy::disallowed_types,
    reason = "not on the path of a request: polled once for each connection, then only when it calls"
)]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Who has come in when the drain begins and is not served yet gets this long for it: a moment, for nobody's request runs.
const ARRIVE_WITHIN: Duration = Duration::from_secs(1);
/// After the deadline, tasks get this long to notice it.
const CUT_WITHIN: Duration = Duration::from_secs(1);

/// Shared by everything that serves a client. Cloning shares.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    started: CancellationToken,
    over: CancellationToken,
    tasks: TaskTracker,
}

impl Drain {
    /// Ends when the drain begins: finish what runs, take nothing new.
    pub async fn started(&self) {
        self.started.cancelled().await;
    }

    /// True from the moment at which the drain begins.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.started.is_cancelled()
    }

    /// Ends when the deadline has passed: cut what still runs.
    pub async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Runs a task that the drain waits for.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let _ = self.start(task);
    }

    /// The same, with a handle that ends it.
    pub(super) fn start<F>(&self, task: F) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task).abort_handle()
    }

    /// How many tasks run: clients and their tunnels.
    #[must_use]
    pub fn running(&self) -> usize {
        self.tasks.len()
    }

    /// What comes of a connection's beginning; `None` when nothing has a moment after the drain began.
    pub(super) async fn arrive<T>(&self, beginning: impl Future<Output = Option<T>>) -> Option<T> {
        let late = async {
            self.started().await;
            tokio::time::sleep(ARRIVE_WITHIN).await;
        };
        tokio::select! { biased; begun = beginning => begun, () = late => None }
    }

    /// Drives a connection to its end: its own, `end`, or the drain's. For the drain's, and when it is `tired`, it is
    /// first asked to finish what runs; `finished` is when nothing does any more, also where the client has not agreed.
    pub(super) async fn finish<C: Future>(
        &self,
        mut connection: Pin<&mut C>,
        ask: impl FnOnce(Pin<&mut C>),
        tired: impl Future<Output = ()>,
        finished: impl Future<Output = ()>,
        end: impl Future<Output = ()>,
    ) {
        let mut end = std::pin::pin!(end);
        let asked = {
            let waiting = async {
                tokio::select! { () = end.as_mut() => false, () = tired => true, () = self.started() => true }
            };
            let waiting = std::pin::pin!(waiting);
            let waiting = Quiet::new(waiting);
            tokio::select! { biased; _ = connection.as_mut() => false, asked = waiting => asked }
        };
        if asked {
            ask(connection.as_mut());
            tokio::select! { _ = connection => {}, () = finished => {}, () = end => {}, () = self.over() => {} }
        }
    }

    /// Begins the drain, waits for the tasks at most until `deadline` ends, then cuts the rest. True when
    /// nothing had to be cut.
    pub async fn run(&self, deadline: impl Future<Output = ()>) -> bool {
        self.started.cancel();
        self.tasks.close();
        let in_time = tokio::select! { biased; () = self.tasks.wait() => true, () = deadline => false };
        self.over.cancel();
        if !in_time {
            let _ = tokio::time::timeout(CUT_WITHIN, self.tasks.wait()).await;
        }
        in_time
    }
}

/// Polls a future only when it has called: what waits for hours beside a busy connection costs the connection nothing.
struct Quiet<F> {
    future: F,
    bell: Arc<Bell>,
}

/// The waker of a [`Quiet`] future, which passes the call on to the task.
struct Bell {
    rang: AtomicBool,
    task: AtomicWaker,
}

impl<F: Future + Unpin> Quiet<F> {
    fn new(future: F) -> Self {
        // It rings once by itself, for the first poll.
        Self { future, bell: Arc::new(Bell { rang: AtomicBool::new(true), task: AtomicWaker::new() }) }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rang.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl<F: Future + Unpin> Future for Quiet<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // The task first, then the bell: whoever rings in between wakes the task.
        self.bell.task.register(cx.waker());
        if !self.bell.rang.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let waker = Waker::from(Arc::clone(&self.bell));
        Pin::new(&mut self.future).poll(&mut Context::from_waker(&waker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_quiet_future_is_polled_when_it_calls_and_not_else() {
        let polls = std::cell::Cell::new(0);
        let (call, called) = tokio::sync::oneshot::channel();
        let mut called = std::pin::pin!(called);
        let counted = std::future::poll_fn(|cx| {
            polls.set(polls.get() + 1);
            called.as_mut().poll(cx)
        });
        let mut quiet = Quiet::new(counted);
        for _ in 0..3 {
            assert!(futures_util::poll!(&mut quiet).is_pending());
        }
        assert_eq!(polls.get(), 1);
        call.send(7).expect("it listens");
        assert_eq!(quiet.await, Ok(7));
        assert_eq!(polls.get(), 2);
    }

    #[tokio::test]
    async fn tasks_may_end_and_those_that_do_not_are_cut() {
        let drain = Drain::default();
        let polite = drain.clone();
        drain.spawn(async move { polite.started().await });
        assert!(drain.run(std::future::pending()).await);
        let drain = Drain::default();
        let stubborn = drain.clone();
        drain.spawn(async move { stubborn.over().await });
        assert!(!drain.run(std::future::ready(())).await);
        assert_eq!(drain.running(), 0);
    }
}
