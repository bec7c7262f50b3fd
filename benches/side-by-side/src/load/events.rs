//! Server-sent events: how late one is at the client.

use std::rc::Rc;

use anyhow::{Context as _, ensure};
use http_body_util::BodyExt as _;

use super::Figures;
use super::route::{Route, get};
use crate::measure::{Tree, Waits, monotonic_ns};
use crate::rows::Running;
use crate::stage::HOST;

/// So many events, so far apart.
const EVENTS: usize = 300;
const APART_MS: usize = 3;

/// One stream. An event carries the moment of its making, by a clock that both processes read.
pub(crate) async fn stream(running: &Rc<Running>) -> anyhow::Result<Figures> {
    let route = Route::new(running, false)?;
    let mut connection = route.h1(HOST).await?;
    connection.ask(HOST, &route.authorization()).await?;
    let cpu = running.tree().map(Tree::cpu);
    let request = get(&format!("https://{HOST}/v1/items/ticks/{EVENTS}/{APART_MS}"), &route.authorization())?;
    let mut body = connection.send(request).await?.into_body();
    let (mut waits, mut pending) = (Waits::default(), String::new());
    while let Some(frame) = body.frame().await {
        let now = monotonic_ns();
        pending.push_str(std::str::from_utf8(frame?.data_ref().map(AsRef::as_ref).unwrap_or_default())?);
        while let Some((event, rest)) = pending.split_once("\n\n") {
            let made: u64 = event.strip_prefix("data: ").context("not an event of the origin's")?.parse()?;
            waits.add(now.saturating_sub(made));
            pending = rest.to_owned();
        }
    }
    ensure!(waits.count() == EVENTS, "{} events came of {EVENTS}", waits.count());
    let spent = running.tree().map(Tree::cpu).zip(cpu).map(|(after, before)| after.saturating_sub(before));
    let waits = waits.percentiles_us([0.5, 0.99]);
    Ok(Figures {
        p50_us: waits.map(|waits| waits[0]),
        p99_us: waits.map(|waits| waits[1]),
        cpu: spent.map(|spent| spent.as_secs_f64() * 1e6 / EVENTS as f64),
        ..Figures::default()
    })
}
