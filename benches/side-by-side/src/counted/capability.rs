//! What runs under callgrind without a load: a capability of four blocks.

use std::hint::black_box;

use anyhow::{Context as _, ensure};
use narrows::capability::Limits;

use crate::rows::part::mark;

#[expect(clippy::expect_used, reason = "shared with a bench, which stops when it cannot be set up")]
#[path = "../../../capability_chain/mod.rs"]
mod capability_chain;

use capability_chain::{Request, chain, roots};

const BLOCKS: u8 = 4;
/// What is only there at first has happened after so many.
const WARM_UP: u64 = 10;

/// Authorizes one request again and again.
pub(crate) fn authorize(times: u64) -> anyhow::Result<()> {
    let verified = narrows::capability::verify(&chain(BLOCKS), &roots(), &Limits::default())?;
    let request = Request::new();
    let facts = request.facts();
    counted(times, || ensure_that(verified.permits(black_box(&facts))))
}

/// Verifies one chain again and again.
pub(crate) fn verify(times: u64) -> anyhow::Result<()> {
    let (capability, roots, limits) = (chain(BLOCKS).seal()?, roots(), Limits::default());
    counted(times, || {
        black_box(narrows::capability::verify(black_box(&capability), &roots, &limits)).map(drop).context("it holds")
    })
}

fn counted(times: u64, mut once: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    (0..WARM_UP).try_for_each(|_| once())?;
    mark();
    (0..times).try_for_each(|_| once())?;
    mark();
    Ok(())
}

fn ensure_that(permitted: bool) -> anyhow::Result<()> {
    ensure!(permitted, "the request is refused");
    Ok(())
}
