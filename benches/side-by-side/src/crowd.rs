//! Many idle tunnels beside active ones.
//!
//! Compared at the same offered rate. With as many requests as answers allow, ten times the connections would have ten
//! times the queue, and waits would say that alone.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::home::Shape;
use crate::load::route::{H1, Route};
use crate::load::{Figures, Settings, paced};
use crate::measure::{Tree, raise_open_files};
use crate::rows::{Row, Running, Stage};
use crate::stage::HOST;
use crate::table;

/// Files of a process beside its connections.
const OTHER_FILES: usize = 100;

/// How many, and how thoroughly.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The rows to measure
    #[arg(long, value_delimiter = ',', value_name = "ROW,ROW", default_values = ["bare", "narrows"])]
    only: Vec<Row>,
    /// Tunnels that stay open after one request
    #[arg(long, default_value_t = 5000)]
    idle: usize,
    /// Connections that go on asking
    #[arg(long, default_value_t = 500)]
    active: usize,
    /// The active connections that these are compared with
    #[arg(long, default_value_t = 50)]
    alone: usize,
    /// Requests offered in a second, on all active connections together
    #[arg(long, default_value_t = 5000.0)]
    rate: f64,
    /// How long a window is
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How often each figure is taken, each time on fresh instances
    #[arg(long, default_value_t = 2)]
    rounds: usize,
}

/// One line of the table, over all rounds.
struct Line {
    row: Row,
    idle: usize,
    active: usize,
    rounds: Vec<Figures>,
}

/// Measures and prints one table. The first wrong or missing answer ends it.
pub(crate) async fn measured(args: &Args, stage: &Stage) -> anyhow::Result<()> {
    let most = args.idle + args.active.max(args.alone);
    // A proxy may have a connection to the origin for each active one.
    let needed = most + args.active.max(args.alone) + OTHER_FILES;
    let allowed = raise_open_files()?;
    ensure!(allowed >= needed as u64, "{needed} open files are needed and {allowed} allowed: raise `ulimit -Hn`");
    let mut lines = Vec::new();
    for &row in &args.only {
        for (idle, active) in [(0, args.alone), (0, args.active), (args.idle, args.alone), (args.idle, args.active)] {
            lines.push(Line { row, idle, active, rounds: Vec::new() });
        }
    }
    for _ in 0..args.rounds.max(1) {
        for &row in &args.only {
            let shape = Shape { connections_max: most + OTHER_FILES, ..Shape::default() };
            let running = Rc::new(row.start_shaped(stage, &shape)?);
            round(args, &running, lines.iter_mut().filter(|line| line.row == row)).await?;
        }
    }
    print(&lines);
    Ok(())
}

async fn round<'l>(
    args: &Args,
    running: &Rc<Running>,
    lines: impl Iterator<Item = &'l mut Line>,
) -> anyhow::Result<()> {
    let settings = Settings { window: Duration::from_secs_f64(args.seconds), bulk_bytes: 0 };
    let tree = running.tree().context("a row without a process")?;
    let route = Rc::new(Route::new(running, false)?);
    let mut idle: Vec<H1> = Vec::new();
    for line in lines {
        idle.extend(paced::opened(&route, line.idle.saturating_sub(idle.len())).await?);
        let active = paced::opened(&route, line.active).await?;
        let figures = paced::offer(running, settings, &route, active, args.rate).await?;
        line.rounds.push(Figures { memory: Some(Tree::resident_kib(tree) as f64 / 1024.0), ..figures });
    }
    // They have to have been there all the time.
    for connection in &mut idle {
        connection.ask(HOST, &route.authorization()).await.context("an idle tunnel did not stay")?;
    }
    Ok(())
}

fn print(lines: &[Line]) {
    println!("| row | idle | active | req/s | p50 µs | p99 µs | × alone | p99.9 µs | CPU µs/req | resident MiB |");
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for line in lines {
        let figures = table::merge(&line.rounds);
        let alone = lines.iter().find(|other| other.row == line.row).map(|other| table::merge(&other.rounds));
        let ratio = figures.p99_us.zip(alone.and_then(|alone| alone.p99_us)).map(|(p99, alone)| p99 / alone);
        let cells = [figures.rate, figures.p50_us, figures.p99_us, ratio, figures.p999_us, figures.cpu, figures.memory];
        let cells = cells.map(table::number).join(" | ");
        println!("| {} | {} | {} | {cells} |", line.row.name(), line.idle, line.active);
    }
    println!("\nNo request failed: the first that does ends this.");
}
