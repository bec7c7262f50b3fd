//! Requests that are due at given moments, whether or not the ones before them are answered.

use std::rc::Rc;
use std::time::Duration;

use http::header::HeaderValue;
use tokio::time::{Instant, sleep_until};

use super::route::{H1, Route};
use super::window::{Window, watch};
use super::{Figures, Settings};
use crate::rows::Running;
use crate::stage::HOST;

/// The first is due this long after its connection is given.
const START_IN: Duration = Duration::from_millis(20);

/// Opens as many HTTP/1.1 connections, eight at a time, each of which has had one answer.
pub(crate) async fn opened(route: &Rc<Route>, count: usize) -> anyhow::Result<Vec<H1>> {
    const AT_ONCE: usize = 8;
    let mut open = Vec::with_capacity(count);
    while open.len() < count {
        let some = (0..AT_ONCE.min(count - open.len())).map(|_| {
            let route = Rc::clone(route);
            async move {
                let mut connection = route.h1(HOST).await?;
                connection.ask(HOST, &route.authorization()).await?;
                anyhow::Ok(connection)
            }
        });
        let local = tokio::task::LocalSet::new();
        let some: Vec<_> = some.map(|opening| local.spawn_local(opening)).collect();
        local.await;
        for connection in some {
            open.push(connection.await??);
        }
    }
    Ok(open)
}

/// Offers `rate` requests a second, evenly on `connections` in turn.
///
/// A wait is counted from when its request was due, if the answer before it was late, and else from when the load got
/// round to it: how late a client's timer is, is not the proxy's.
pub(crate) async fn offer(
    running: &Rc<Running>,
    settings: Settings,
    route: &Route,
    connections: Vec<H1>,
    rate: f64,
) -> anyhow::Result<Figures> {
    let window = Rc::new(Window::default());
    let first = Instant::now() + START_IN;
    let every = Duration::from_secs_f64(connections.len() as f64 / rate);
    let workers = connections.into_iter().enumerate().map(|(number, connection)| {
        let due = first + Duration::from_secs_f64(number as f64 / rate);
        ask(connection, route.authorization(), Rc::clone(&window), due, every)
    });
    watch(running.tree(), settings, &window, workers.collect()).await?.try_into()
}

async fn ask(
    mut connection: H1,
    authorization: HeaderValue,
    window: Rc<Window>,
    first: Instant,
    every: Duration,
) -> anyhow::Result<()> {
    let mut due = first;
    loop {
        let late = Instant::now() > due;
        sleep_until(due).await;
        if window.is_over() {
            return Ok(());
        }
        let since = if late { due } else { Instant::now() };
        connection.ask(HOST, &authorization).await?;
        window.count(since.into_std());
        due += every;
    }
}
