//! The stretch of time in which a load is looked at.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::task::LocalSet;

use super::Settings;
use crate::measure::{Tree, Waits};

/// Connections settle and caches fill before a window opens; each worker may make its proxy open another connection.
const WARM_UP: Duration = Duration::from_millis(250);
const WARM_UP_EACH: Duration = Duration::from_millis(1);

/// What the workers of a load share.
#[derive(Default)]
pub(crate) struct Window {
    open: Cell<bool>,
    over: Cell<bool>,
    waits: RefCell<Waits>,
}

impl Window {
    /// Whether there is no need for another round.
    pub(crate) fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Counts what began at `since`, if the window is open.
    pub(crate) fn count(&self, since: Instant) {
        if self.open.get() {
            self.waits.borrow_mut().add(since.elapsed().as_nanos() as u64);
        }
    }
}

/// What happened while a window was open.
pub(crate) struct Seen {
    pub(crate) waits: Waits,
    pub(crate) lasted: Duration,
    /// The proxy's CPU time.
    pub(crate) cpu: Option<Duration>,
}

/// Runs the workers until the window has closed.
///
/// # Errors
/// The first that a worker met; then nothing was measured.
pub(crate) async fn watch<W>(
    tree: Option<Tree>,
    settings: Settings,
    window: &Rc<Window>,
    workers: Vec<W>,
) -> anyhow::Result<Seen>
where
    W: Future<Output = anyhow::Result<()>> + 'static,
{
    let local = LocalSet::new();
    let warm_up = WARM_UP + WARM_UP_EACH * u32::try_from(workers.len()).unwrap_or(u32::MAX);
    let running: Vec<_> = workers.into_iter().map(|worker| local.spawn_local(worker)).collect();
    let (lasted, cpu) = local
        .run_until(async {
            tokio::time::sleep(warm_up).await;
            let cpu = tree.map(Tree::cpu);
            let since = Instant::now();
            window.open.set(true);
            tokio::time::sleep(settings.window).await;
            window.open.set(false);
            let lasted = since.elapsed();
            let cpu = tree.map(Tree::cpu).zip(cpu).map(|(after, before)| after.saturating_sub(before));
            window.over.set(true);
            (lasted, cpu)
        })
        .await;
    local.await;
    for worker in running {
        worker.await??;
    }
    let waits = window.waits.take();
    ensure!(waits.count() > 0, "nothing was done within the window");
    Ok(Seen { waits, lasted, cpu })
}
