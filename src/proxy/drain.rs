//! Going down in good order: no new clients, what runs may end, and at the deadline the rest is cut.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

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

    /// Ends when the deadline has passed: cut what still runs.
    pub async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Runs a task that the drain waits for.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task);
    }

    /// How many tasks run: clients and their tunnels.
    #[must_use]
    pub fn running(&self) -> usize {
        self.tasks.len()
    }

    /// Drives a connection to its end: its own, `end`, or the drain's, for which it is first asked to finish what runs.
    pub(super) async fn finish<C: Future>(
        &self,
        mut connection: Pin<&mut C>,
        ask: impl FnOnce(Pin<&mut C>),
        end: impl Future<Output = ()>,
    ) {
        let mut end = std::pin::pin!(end);
        tokio::select! {
            _ = connection.as_mut() => {}
            () = end.as_mut() => {}
            () = self.started() => {
                ask(connection.as_mut());
                tokio::select! { _ = connection => {}, () = end => {}, () = self.over() => {} }
            }
        }
    }

    /// Begins the drain, waits for the tasks at most until the deadline, then cuts the rest. True when
    /// nothing had to be cut.
    pub async fn run(&self, deadline: Duration) -> bool {
        self.started.cancel();
        self.tasks.close();
        let in_time = tokio::time::timeout(deadline, self.tasks.wait()).await.is_ok();
        self.over.cancel();
        if !in_time {
            let _ = tokio::time::timeout(CUT_WITHIN, self.tasks.wait()).await;
        }
        in_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tasks_may_end_and_those_that_do_not_are_cut() {
        let drain = Drain::default();
        let polite = drain.clone();
        drain.spawn(async move { polite.started().await });
        assert!(drain.run(Duration::from_secs(5)).await);
        let drain = Drain::default();
        let stubborn = drain.clone();
        drain.spawn(async move { stubborn.over().await });
        assert!(!drain.run(Duration::ZERO).await);
        assert_eq!(drain.running(), 0);
    }
}
