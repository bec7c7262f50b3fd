//! What a request costs, counted and not timed: the counts of two runs are alike on a machine on which their times are
//! not, so that a small change is seen.
//!
//! A part is warm before its first mark; only what it does between two marks is counted.

mod baseline;
mod callgrind;
pub(crate) mod capability;
mod strace;
mod work;

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::measure::{self, Cores};
use crate::rows::{Row, Stage};
use baseline::Baseline;
use work::Work;

/// What is counted, and what becomes of it.
#[derive(Debug, Args)]
pub(crate) struct Instructions {
    /// The counts to compare with
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Write the counts to that file instead
    #[arg(long, requires = "baseline")]
    write: bool,
    /// How many are counted, of each kind
    #[arg(long, default_value_t = 1000)]
    requests: u64,
}

/// Instructions for one piece of work. Those of Narrows are the threads that serve; its journal's thread is apart.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    bare: Option<u64>,
    narrows: u64,
    journal: Option<u64>,
}

impl Cost {
    fn ratio(self) -> Option<f64> {
        self.bare.map(|bare| self.narrows as f64 / bare as f64)
    }
}

impl Instructions {
    /// Counts, prints, and compares.
    pub(crate) fn count(self, cores: Cores) -> anyhow::Result<()> {
        ensure!(self.requests > 0, "nothing to count");
        let counted = runtime()?.block_on(self.counted(cores))?;
        print(&counted);
        match &self.baseline {
            Some(file) if self.write => Baseline::of(&counted).write(file),
            Some(file) => Baseline::read(file)?.holds(&counted, file),
            None => Ok(()),
        }
    }

    async fn counted(&self, cores: Cores) -> anyhow::Result<Vec<(String, Cost)>> {
        measure::pin(cores.load)?;
        let stage = Stage::set(cores)?;
        let mut counted = Vec::new();
        for work in [Work::Http1, Work::Http2, Work::Tunnel] {
            let (bare, narrows) = work.rows();
            let (bare, _) = callgrind::count(bare, work, self.requests, &stage).await?;
            let (narrows, journal) = callgrind::count(narrows, work, self.requests, &stage).await?;
            // A tunnel without a request has no line.
            let journal = journal.filter(|_| work != Work::Tunnel);
            counted.push((work.name().to_owned(), Cost { bare: Some(bare), narrows, journal }));
        }
        for (name, part) in [("authorization, 4 blocks", "authorize"), ("verification of a chain, 4 blocks", "verify")]
        {
            let narrows = callgrind::count_part(part, self.requests, &stage)?;
            counted.push((name.to_owned(), Cost { narrows, ..Cost::default() }));
        }
        Ok(counted)
    }
}

fn print(counted: &[(String, Cost)]) {
    let cell = |count: Option<u64>| count.map_or_else(String::new, |count| count.to_string());
    println!("| instructions for one | bare | Narrows | × bare | and its journal's thread |");
    println!("|---|--:|--:|--:|--:|");
    for (name, cost) in counted {
        let ratio = cost.ratio().map_or_else(String::new, |ratio| format!("{ratio:.3}"));
        println!("| {name} | {} | {} | {ratio} | {} |", cell(cost.bare), cost.narrows, cell(cost.journal));
    }
}

/// System calls for each request, of a bare pass-through and of Narrows.
pub(crate) fn calls(cores: Cores) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        measure::pin(cores.load)?;
        let stage = Stage::set(cores)?;
        for (bare, narrows, work) in [
            (Row::Bare, Row::Narrows, Work::Http1),
            (Row::Bare, Row::Narrows, Work::Http1Many),
            (Row::BareH2, Row::NarrowsH2, Work::Http2),
        ] {
            let bare = strace::count(bare, work, &stage).await?;
            let narrows = strace::count(narrows, work, &stage).await?;
            println!("\n{}, {} requests", work.name(), strace::REQUESTS);
            strace::print(&[("bare", &bare), ("Narrows", &narrows)]);
            narrows.holds(&bare).with_context(|| work.name().to_owned())?;
        }
        Ok(())
    })
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
