//! New tunnels, each with a handshake and one request.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::route::Route;
use super::window::{Window, watch};
use super::{Figures, Settings};
use crate::rows::Running;
use crate::stage::HOST;

/// So many at once, for the rate and the CPU; waits are those of one at a time.
const AT_ONCE: usize = 8;
/// Of a resuming client's handshakes, at least this share has to be resumed.
const RESUMED_MIN: f64 = 0.9;

/// What the workers count of their handshakes.
#[derive(Default)]
struct Handshakes {
    all: Cell<u32>,
    resumed: Cell<u32>,
}

/// Opens tunnels; a client that is to resume has to be let.
pub(crate) async fn open(running: &Rc<Running>, settings: Settings, resuming: bool) -> anyhow::Result<Figures> {
    let many = some(running, settings, resuming, AT_ONCE).await?;
    let half = Settings { window: settings.window.max(Duration::from_secs(1)) / 2, ..settings };
    let one = some(running, half, resuming, 1).await?;
    Ok(Figures { rate: many.rate, cpu: many.cpu, ..one })
}

/// CPU in microseconds for each new tunnel with a full handshake.
pub(crate) async fn cpu(running: &Rc<Running>, settings: Settings) -> anyhow::Result<Figures> {
    some(running, settings, false, AT_ONCE).await
}

async fn some(running: &Rc<Running>, settings: Settings, resuming: bool, at_once: usize) -> anyhow::Result<Figures> {
    let route = Rc::new(Route::new(running, resuming)?);
    let window = Rc::new(Window::default());
    let handshakes = Rc::new(Handshakes::default());
    // The first has nothing to resume.
    route.h1(HOST).await?.ask(HOST, &route.authorization()).await?;
    let worker = |_| one_by_one(Rc::clone(&route), Rc::clone(&window), Rc::clone(&handshakes));
    let seen = watch(running.tree(), settings, &window, (0..at_once).map(worker).collect()).await?;
    let share = f64::from(handshakes.resumed.get()) / f64::from(handshakes.all.get());
    ensure!(!resuming || share >= RESUMED_MIN, "only {:.0} % of the handshakes were resumed", share * 100.0);
    seen.try_into()
}

async fn one_by_one(route: Rc<Route>, window: Rc<Window>, handshakes: Rc<Handshakes>) -> anyhow::Result<()> {
    while !window.is_over() {
        let since = Instant::now();
        let mut connection = route.h1(HOST).await?;
        connection.ask(HOST, &route.authorization()).await?;
        window.count(since);
        handshakes.all.set(handshakes.all.get() + 1);
        handshakes.resumed.set(handshakes.resumed.get() + u32::from(connection.resumed));
    }
    Ok(())
}
