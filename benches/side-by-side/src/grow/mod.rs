//! How cost grows: the same load again and again with more of one thing, for Narrows and the bare pass-through in turns.

mod plot;
mod subject;

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use clap::ValueEnum as _;

use crate::load::Settings;
use crate::rows::{Row, Running, Stage};
use plot::Series;
use subject::{Panel, Point, Sample, Subject};

/// What the journal's thread in Narrows is called.
const JOURNAL_THREAD: &str = "journal";

/// Which of it, and how thoroughly.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where a plot of each subject is written, as SVG
    #[arg(long, value_name = "FOLDER")]
    plot: Option<PathBuf>,
    /// What grows
    #[arg(long, value_delimiter = ',', value_name = "SUBJECT,SUBJECT")]
    only: Vec<Subject>,
    /// One short round: shows that it works, and little more
    #[arg(long)]
    quick: bool,
    /// How long a window is
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// How often each figure is taken, in turns; the least counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// Measures, prints a table for each panel, and draws.
pub(crate) async fn measured(args: &Args, stage: &Stage) -> anyhow::Result<()> {
    let seconds = if args.quick { 0.2 } else { args.seconds };
    let settings = Settings { window: Duration::from_secs_f64(seconds), bulk_bytes: 0 };
    let rounds = if args.quick { 1 } else { args.rounds.max(1) };
    let subjects = if args.only.is_empty() { Subject::value_variants() } else { &args.only };
    for subject in subjects {
        let mut drawn = Vec::new();
        for panel in subject.panels() {
            let series = taken(&panel, stage, settings, rounds).await?;
            plot::print(&panel, &series);
            drawn.push((panel, series));
        }
        if let Some(folder) = &args.plot {
            std::fs::create_dir_all(folder)?;
            std::fs::write(folder.join(format!("{}.svg", subject.name())), plot::svg(&drawn))?;
        }
    }
    Ok(())
}

/// A point, with who is asked at it and the best that was seen of each.
struct At {
    point: Point,
    rows: Vec<(Rc<Running>, Option<Sample>)>,
}

async fn taken(panel: &Panel, stage: &Stage, settings: Settings, rounds: usize) -> anyhow::Result<Vec<Series>> {
    let bare = Rc::new(Row::Bare.start(stage)?);
    let mut narrows: Option<(Point, Rc<Running>)> = None;
    let mut all = Vec::new();
    for point in panel.points.iter().copied() {
        let same = narrows.as_ref().filter(|(other, _)| other.shape == point.shape);
        let started = match same {
            Some((_, started)) => Rc::clone(started),
            None => Rc::new(Row::Narrows.start_shaped(stage, &point.shape)?),
        };
        narrows = Some((point, Rc::clone(&started)));
        all.push(At { point, rows: vec![(Rc::clone(&bare), None), (started, None)] });
    }
    for _ in 0..rounds {
        for At { point, rows } in &mut all {
            for (running, best) in rows {
                let sample = point.sample(running, settings).await?;
                if best.is_none_or(|best| sample.cpu < best.cpu) {
                    *best = Some(sample);
                }
            }
        }
    }
    Ok(series(panel, &all))
}

fn series(panel: &Panel, all: &[At]) -> Vec<Series> {
    let line = |name, row: usize, y: fn(&Sample) -> f64| {
        let points = all.iter().filter_map(|at| {
            let sample = at.rows.get(row)?.1?;
            Some((sample.offered.unwrap_or(at.point.x), y(&sample)))
        });
        Series { name, points: points.collect() }
    };
    let mut series = vec![line("bare pass-through", 0, |sample| sample.cpu), line("Narrows", 1, |sample| sample.cpu)];
    if panel.journal {
        series.push(line("of which the journal's thread", 1, |sample| sample.journal));
    }
    series
}
