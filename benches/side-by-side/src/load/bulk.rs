//! Large bodies, one after the other on one connection.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use http::header::{AUTHORIZATION, HeaderValue};
use http::{Method, Request};
use http_body_util::BodyExt as _;

use super::route::{H1, Route, get};
use super::{Figures, Settings};
use crate::body;
use crate::measure::{Tree, Waits};
use crate::rows::Running;
use crate::stage::HOST;

/// Which way the bodies go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Down,
    Up,
}

/// Carries bodies of this size until the window is over; CPU is in seconds for 10⁹ bytes, memory the process's peak.
pub(crate) async fn carry(running: &Rc<Running>, settings: Settings, way: Way, bytes: u64) -> anyhow::Result<Figures> {
    let route = Route::new(running, false)?;
    let mut connection = route.h1(HOST).await?;
    one(&mut connection, &route, way, bytes.min(1 << 20)).await?;
    running.tree().inspect(|tree| tree.forget_peak());
    let cpu = running.tree().map(Tree::cpu);
    let since = Instant::now();
    let (mut waits, mut carried) = (Waits::default(), 0);
    while since.elapsed() < settings.window {
        let began = Instant::now();
        one(&mut connection, &route, way, bytes).await?;
        waits.add(began.elapsed().as_nanos() as u64);
        carried += bytes;
    }
    let gigabytes = carried as f64 / 1e9;
    let spent = running.tree().map(Tree::cpu).zip(cpu).map(|(after, before)| after.saturating_sub(before));
    let waits = waits.percentiles_us([0.5, 0.99]);
    Ok(Figures {
        rate: Some(gigabytes / since.elapsed().as_secs_f64()),
        p50_us: waits.map(|waits| waits[0]),
        p99_us: waits.map(|waits| waits[1]),
        cpu: spent.as_ref().map(Duration::as_secs_f64).map(|seconds| seconds / gigabytes),
        memory: running.tree().map(|tree| tree.peak_kib() as f64),
        ..Figures::default()
    })
}

async fn one(connection: &mut H1, route: &Route, way: Way, bytes: u64) -> anyhow::Result<()> {
    match way {
        Way::Down => down(connection, HOST, &route.authorization(), bytes).await,
        Way::Up => up(connection, HOST, &route.authorization(), bytes).await,
    }
}

pub(crate) async fn down(
    connection: &mut H1,
    host: &str,
    authorization: &HeaderValue,
    bytes: u64,
) -> anyhow::Result<()> {
    let request = get(&format!("https://{host}/v1/items/bytes/{bytes}"), authorization)?;
    let mut body = connection.send(request).await?.into_body();
    let mut came = 0;
    while let Some(frame) = body.frame().await {
        came += frame?.data_ref().map_or(0, bytes::Bytes::len) as u64;
    }
    ensure!(came == bytes, "{came} bytes came of {bytes}");
    Ok(())
}

pub(crate) async fn up(connection: &mut H1, host: &str, authorization: &HeaderValue, bytes: u64) -> anyhow::Result<()> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("https://{host}/v1/items/sink"))
        .header(AUTHORIZATION, authorization)
        .body(body::repeated(bytes))?;
    let answer = connection.send(request).await?.into_body().collect().await?.to_bytes();
    ensure!(answer == bytes.to_string(), "the origin got other than {bytes} bytes");
    Ok(())
}
