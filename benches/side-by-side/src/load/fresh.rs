//! What shows only on an instance that has done nothing yet: idle tunnels, and names that it has not met.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::Figures;
use super::route::Route;
use crate::measure::{Tree, Waits};
use crate::rows::{Running, Stage};
use crate::stage::{COLD_NAMES, HOST, cold_name};

/// So many tunnels are left open.
const IDLE_TUNNELS: usize = 500;
/// What an instance still does after a request, it does within this.
const SETTLE: Duration = Duration::from_millis(300);

/// Resident memory of one open tunnel that has had one request.
pub(crate) async fn idle(running: &Running, stage: &Stage) -> anyhow::Result<Figures> {
    let fresh = Rc::new(running.row.start(stage)?);
    let tree = fresh.tree().context("no proxy, no memory of one")?;
    let route = Route::new(&fresh, false)?;
    let authorization = route.authorization();
    route.h1(HOST).await?.ask(HOST, &authorization).await?;
    tokio::time::sleep(SETTLE).await;
    let before = tree.resident_kib();
    let mut open = Vec::with_capacity(IDLE_TUNNELS);
    for _ in 0..IDLE_TUNNELS {
        let mut connection = route.h1(HOST).await?;
        connection.ask(HOST, &authorization).await?;
        open.push(connection);
    }
    tokio::time::sleep(SETTLE).await;
    let grown = tree.resident_kib().saturating_sub(before);
    drop(open);
    Ok(Figures { memory: Some(grown as f64 / IDLE_TUNNELS as f64), ..Figures::default() })
}

/// What the first visit of a name costs beyond the second: the leaf, and the first connection to the origin.
pub(crate) async fn cold(running: &Running, stage: &Stage) -> anyhow::Result<Figures> {
    let fresh = Rc::new(running.row.start(stage)?);
    let tree = fresh.tree().context("no proxy, no leaf")?;
    let route = Route::new(&fresh, false)?;
    route.h1(HOST).await?.ask(HOST, &route.authorization()).await?;
    let first = visit(&route, tree).await?;
    let second = visit(&route, tree).await?;
    Ok(Figures {
        p50_us: Some(first.p50_us - second.p50_us),
        cpu: Some((first.cpu.as_secs_f64() - second.cpu.as_secs_f64()) * 1e6 / COLD_NAMES as f64),
        ..Figures::default()
    })
}

struct Visit {
    cpu: Duration,
    p50_us: f64,
}

async fn visit(route: &Route, tree: Tree) -> anyhow::Result<Visit> {
    let before = tree.cpu();
    let mut waits = Waits::default();
    for name in (0..COLD_NAMES).map(cold_name) {
        let since = Instant::now();
        route.h1(&name).await?.ask(&name, &route.authorization()).await?;
        waits.add(since.elapsed().as_nanos() as u64);
    }
    let [p50_us] = waits.percentiles_us([0.5]).context("no name was visited")?;
    Ok(Visit { cpu: tree.cpu().saturating_sub(before), p50_us })
}
