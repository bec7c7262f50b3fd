//! Narrows beside a bare pass-through and other proxies: the same load, the same minute, the same machine.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a table is what this program is for")]

mod abuse;
mod body;
mod counted;
mod crowd;
mod grow;
mod home;
mod load;
mod measure;
mod origin;
mod rows;
mod stage;
mod table;

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use clap::{Parser, ValueEnum as _};

use load::{Figures, Mode, Settings};
use measure::{Cores, Others};
use rows::part::Part;
use rows::{Row, Running, Stage};
use table::Line;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A row that hangs in a mode has none of its figures.
const MODE_WITHIN: Duration = Duration::from_secs(30);

/// Measures proxies side by side and prints one table.
#[derive(Debug, Parser)]
struct Args {
    /// `bare` and `narrows` in the modes that say most: a minute or two
    #[arg(long)]
    quick: bool,
    /// The rows to measure
    #[arg(long, value_delimiter = ',', value_name = "ROW,ROW")]
    only: Vec<Row>,
    /// The modes to measure them in
    #[arg(long, value_delimiter = ',', value_name = "MODE,MODE")]
    modes: Vec<Mode>,
    /// How long a window is
    #[arg(long, default_value_t = 1.2)]
    seconds: f64,
    /// How often each figure is taken, in turns
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// The size of the bodies in `down` and `up`, in MiB
    #[arg(long, default_value_t = 256)]
    bulk_mib: u64,
    /// Where the figures also go, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Counts user-space instructions under callgrind, and fails where they are not those of the baseline
    Instructions(counted::Instructions),
    /// Counts system calls under strace, and fails where a request makes one too many
    Calls,
    /// Measures how cost grows with the number or the size of things, and plots it
    Grow(grow::Args),
    /// Measures active connections beside many idle tunnels
    Crowd(crowd::Args),
    /// Measures one authority's requests beside another that takes what it can
    Abuse(abuse::Args),
    /// One process of the bench
    #[command(hide = true)]
    Part {
        #[command(subcommand)]
        part: Part,
    },
}

fn main() -> anyhow::Result<()> {
    let mut args = Args::parse();
    let cores = Cores::choose()?;
    let command = args.command.take();
    match command {
        Some(Command::Part { part }) => return part.play(),
        Some(Command::Instructions(wanted)) => return wanted.count(cores),
        Some(Command::Calls) => return counted::calls(cores),
        Some(Command::Grow(_) | Command::Crowd(_) | Command::Abuse(_)) | None => {}
    }
    if cores.shared() {
        eprintln!("only one core may be used: everything shares it, and rates and waits say little");
    }
    measure::pin(cores.load)?;
    let others = Others::watch();
    measure::raise_open_files()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stage = Stage::set(cores)?;
    match &command {
        Some(Command::Grow(grow)) => runtime.block_on(grow::measured(grow, &stage))?,
        Some(Command::Crowd(crowd)) => runtime.block_on(crowd::measured(crowd, &stage))?,
        Some(Command::Abuse(abuse)) => runtime.block_on(abuse::measured(abuse, &stage))?,
        _ => {
            let lines = runtime.block_on(measured(&args, &stage));
            if let Some(file) = &args.json {
                std::fs::write(file, table::json(&lines)?)?;
            }
        }
    }
    println!("\nOther programs kept {:.2} cores busy meanwhile.", others.cores());
    Ok(())
}

async fn measured(args: &Args, stage: &Stage) -> Vec<Line> {
    let settings = Settings { window: Duration::from_secs_f64(args.seconds), bulk_bytes: args.bulk_mib << 20 };
    let mut running = Vec::new();
    for row in args.rows() {
        match row.start(stage) {
            Ok(started) => running.push(Rc::new(started)),
            Err(error) => eprintln!("{}: skipped: {error:#}", row.name()),
        }
    }
    table::print_head();
    let mut lines = Vec::new();
    for mode in args.modes() {
        let taken = in_turns(mode, &running, stage, settings, args.rounds).await;
        table::print(&taken);
        lines.extend(taken);
    }
    lines
}

/// One mode for all rows, round by round, so that what disturbs this machine disturbs them alike.
async fn in_turns(mode: Mode, rows: &[Rc<Running>], stage: &Stage, settings: Settings, rounds: usize) -> Vec<Line> {
    let mut taken: Vec<Result<Vec<Figures>, String>> = rows.iter().map(|_| Ok(Vec::new())).collect();
    for _ in 0..rounds.max(1) {
        for (running, taken) in rows.iter().zip(&mut taken) {
            let Ok(figures) = taken else { continue };
            match tokio::time::timeout(MODE_WITHIN, mode.run(running, stage, settings)).await {
                Ok(Ok(round)) => figures.push(round),
                Ok(Err(error)) => *taken = Err(format!("{error:#}")),
                Err(_) => *taken = Err(format!("not done within {} s", MODE_WITHIN.as_secs())),
            }
        }
    }
    let line = |(running, taken): (&Rc<Running>, Result<Vec<Figures>, String>)| {
        let figures = taken.map(|rounds| table::merge(&rounds));
        Line { mode, row: running.row, figures }
    };
    rows.iter().zip(taken).map(line).collect()
}

impl Args {
    fn rows(&self) -> Vec<Row> {
        if !self.only.is_empty() {
            return self.only.clone();
        }
        if self.quick {
            return vec![Row::Bare, Row::BareH2, Row::Narrows, Row::NarrowsH2];
        }
        Row::value_variants().to_vec()
    }

    fn modes(&self) -> Vec<Mode> {
        if !self.modes.is_empty() {
            return self.modes.clone();
        }
        if self.quick {
            return vec![Mode::H1Many, Mode::H1One, Mode::H2, Mode::Connect, Mode::Down, Mode::Sse, Mode::Idle];
        }
        Mode::value_variants().to_vec()
    }
}
