//! The one table: a line for each row in each mode.

use serde::Serialize;

use crate::load::{Figures, Mode};
use crate::rows::Row;

/// One line.
pub(crate) struct Line {
    pub(crate) mode: Mode,
    pub(crate) row: Row,
    /// Over all rounds, or why there are none.
    pub(crate) figures: Result<Figures, String>,
}

/// The same for machines.
#[derive(Serialize)]
struct Record<'a> {
    mode: String,
    row: String,
    rate_unit: &'static str,
    cpu_unit: &'static str,
    #[serde(flatten)]
    figures: Option<&'a Figures>,
    cpu_ratio: Option<f64>,
    p50_ratio: Option<f64>,
    memory_unit: &'static str,
    memory_ratio: Option<f64>,
    error: Option<&'a str>,
}

/// CPU is the least of the rounds, which is what others disturbed least; all else is the median.
pub(crate) fn merge(rounds: &[Figures]) -> Figures {
    let all = |field: fn(&Figures) -> Option<f64>| {
        let mut values: Vec<f64> = rounds.iter().filter_map(field).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let median = |field| {
        let values = all(field);
        let middle = values.len() / 2;
        let upper = values.get(middle)?;
        let lower = if values.len() % 2 == 0 { values.get(middle.checked_sub(1)?)? } else { upper };
        Some(f64::midpoint(*lower, *upper))
    };
    Figures {
        rate: median(|figures| figures.rate),
        p50_us: median(|figures| figures.p50_us),
        p99_us: median(|figures| figures.p99_us),
        p999_us: median(|figures| figures.p999_us),
        cpu: all(|figures| figures.cpu).first().copied(),
        memory: median(|figures| figures.memory),
    }
}

/// What stands over the table, which is Markdown.
pub(crate) fn print_head() {
    println!("| mode | row | rate | p50 µs | × base | p99 µs | p99.9 µs | CPU | × base | memory | × base |");
    println!("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
}

/// All rows of one mode or more.
pub(crate) fn print(lines: &[Line]) {
    for line in lines {
        let (mode, row) = (line.mode, line.row.name());
        let figures = match &line.figures {
            Ok(figures) => figures,
            Err(why) => {
                println!("| {} | {row} | {why} | | | | | | | | |", mode.name());
                continue;
            }
        };
        println!(
            "| {} | {row} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            mode.name(),
            with(figures.rate, mode.rate_unit()),
            number(figures.p50_us),
            ratio(lines, line, |figures| figures.p50_us).map(times).unwrap_or_default(),
            number(figures.p99_us),
            number(figures.p999_us),
            with(figures.cpu, mode.cpu_unit()),
            ratio(lines, line, |figures| figures.cpu).map(times).unwrap_or_default(),
            with(figures.memory, mode.memory_unit()),
            ratio(lines, line, |figures| figures.memory).map(times).unwrap_or_default(),
        );
    }
}

/// As JSON.
pub(crate) fn json(lines: &[Line]) -> serde_json::Result<String> {
    let records: Vec<Record<'_>> = lines.iter().map(|line| record(lines, line)).collect();
    serde_json::to_string_pretty(&records)
}

fn record<'a>(lines: &[Line], line: &'a Line) -> Record<'a> {
    Record {
        mode: line.mode.name(),
        row: line.row.name(),
        rate_unit: line.mode.rate_unit(),
        cpu_unit: line.mode.cpu_unit(),
        figures: line.figures.as_ref().ok(),
        cpu_ratio: ratio(lines, line, |figures| figures.cpu),
        p50_ratio: ratio(lines, line, |figures| figures.p50_us),
        memory_unit: line.mode.memory_unit(),
        memory_ratio: ratio(lines, line, |figures| figures.memory),
        error: line.figures.as_ref().err().map(String::as_str),
    }
}

/// To the pass-through that speaks to the origin as this row does.
fn ratio(lines: &[Line], line: &Line, field: fn(&Figures) -> Option<f64>) -> Option<f64> {
    let base = lines.iter().find(|other| other.mode == line.mode && other.row == line.row.base())?;
    let ratio = field(line.figures.as_ref().ok()?)? / field(base.figures.as_ref().ok()?)?;
    // A difference of two visits can be nothing, or less.
    (ratio.is_finite() && ratio > 0.0).then_some(ratio)
}

fn times(ratio: f64) -> String {
    format!("{ratio:.2}")
}

fn with(value: Option<f64>, unit: &str) -> String {
    value.map(|value| format!("{} {unit}", number(Some(value)))).unwrap_or_default()
}

/// Three digits that mean something.
pub(crate) fn number(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(value) if value < 10.0 => format!("{value:.2}"),
        Some(value) if value < 100.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.0}"),
    }
}
