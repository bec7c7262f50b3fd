//! Small requests on connections that are kept.

use std::rc::Rc;
use std::time::Instant;

use http::header::HeaderValue;

use super::route::{H1, H2, Route};
use super::window::{Seen, Window, watch};
use super::{Figures, Settings};
use crate::rows::Running;
use crate::stage::HOST;

/// As many HTTP/1.1 connections, each with one request at a time.
pub(crate) async fn h1(running: &Rc<Running>, settings: Settings, connections: usize) -> anyhow::Result<Figures> {
    let route = Route::new(running, false)?;
    let window = Rc::new(Window::default());
    let mut workers = Vec::new();
    for _ in 0..connections {
        let connection = route.h1(HOST).await?;
        workers.push(ask_h1(connection, route.authorization(), Rc::clone(&window)));
    }
    watch(running.tree(), settings, &window, workers).await?.try_into()
}

/// As many HTTP/2 connections with as many streams each.
pub(crate) async fn h2(
    running: &Rc<Running>,
    settings: Settings,
    connections: usize,
    streams: usize,
) -> anyhow::Result<Figures> {
    let route = Route::new(running, false)?;
    let window = Rc::new(Window::default());
    let mut workers = Vec::new();
    for _ in 0..connections {
        let connection = route.h2(HOST).await?;
        for _ in 0..streams {
            workers.push(ask_h2(connection.clone(), route.authorization(), Rc::clone(&window)));
        }
    }
    watch(running.tree(), settings, &window, workers).await?.try_into()
}

async fn ask_h1(mut connection: H1, authorization: HeaderValue, window: Rc<Window>) -> anyhow::Result<()> {
    while !window.is_over() {
        let since = Instant::now();
        connection.ask(HOST, &authorization).await?;
        window.count(since);
    }
    Ok(())
}

async fn ask_h2(mut connection: H2, authorization: HeaderValue, window: Rc<Window>) -> anyhow::Result<()> {
    while !window.is_over() {
        let since = Instant::now();
        connection.ask(HOST, &authorization).await?;
        window.count(since);
    }
    Ok(())
}

impl TryFrom<Seen> for Figures {
    type Error = anyhow::Error;

    /// CPU in microseconds for each thing that was waited for.
    fn try_from(seen: Seen) -> anyhow::Result<Self> {
        let count = seen.waits.count() as f64;
        let waits = seen.waits.percentiles_us([0.5, 0.99, 0.999]);
        Ok(Self {
            rate: Some(count / seen.lasted.as_secs_f64()),
            p50_us: waits.map(|waits| waits[0]),
            p99_us: waits.map(|waits| waits[1]),
            p999_us: waits.map(|waits| waits[2]),
            cpu: seen.cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / count),
            memory: None,
        })
    }
}
