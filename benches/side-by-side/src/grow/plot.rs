//! Plots as SVG, a few kilobytes each, with colours of their own for light and dark.

use std::fmt::Write as _;

use super::subject::{Panel, Scales};

/// One line.
pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// A panel's size, and the room around where its lines are.
const WIDTH: f64 = 430.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 62.0;
const BOTTOM: f64 = 48.0;

const STYLE: &str = "\
.back{fill:#fff}.grid{stroke:#d8dee4}text{font:12px system-ui,sans-serif;fill:#424a53}.title{font-weight:600;fill:#1f2328}\
.value{font-size:10px}path{fill:none}.line{stroke-width:2}.s0{stroke:#6e7781}.s1{stroke:#0969da}.s2{stroke:#bc4c00}\
.f0{fill:#6e7781}.f1{fill:#0969da}.f2{fill:#bc4c00}@media(prefers-color-scheme:dark){.back{fill:#0d1117}\
.grid{stroke:#30363d}text{fill:#9da7b3}.title{fill:#e6edf3}.s0{stroke:#8b949e}.s1{stroke:#58a6ff}.s2{stroke:#f0883e}\
.f0{fill:#8b949e}.f1{fill:#58a6ff}.f2{fill:#f0883e}}";

/// The panels side by side.
pub(crate) fn svg(panels: &[(Panel, Vec<Series>)]) -> String {
    let width = WIDTH * panels.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" width=\"{width}\" \
         height=\"{HEIGHT}\" role=\"img\">\n<style>{STYLE}</style>\n\
         <rect class=\"back\" width=\"{width}\" height=\"{HEIGHT}\" rx=\"6\"/>\n"
    );
    for (number, (panel, series)) in panels.iter().enumerate() {
        let _ = writeln!(svg, "<g transform=\"translate({} 0)\">", WIDTH * number as f64);
        draw(&mut svg, panel, series);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

/// The same as a table in Markdown.
pub(crate) fn print(panel: &Panel, series: &[Series]) {
    let names: Vec<String> = series.iter().map(|series| format!("{}, {}", series.name, panel.y)).collect();
    println!("\n{}\n\n| {} | {} |", panel.title, panel.x, names.join(" | "));
    println!("|--:|{}", "--:|".repeat(series.len()));
    for (number, point) in panel.points.iter().enumerate() {
        let values = series.iter().filter_map(|series| Some(digits(series.points.get(number)?.1)));
        println!("| {} | {} |", amount(panel, point.x), values.collect::<Vec<_>>().join(" | "));
    }
}

/// Where a value is on an axis, as a share of its length.
struct Axis {
    from: f64,
    to: f64,
    log: bool,
}

impl Axis {
    fn share(&self, value: f64) -> f64 {
        let on = |value: f64| if self.log { value.ln() } else { value };
        (on(value) - on(self.from)) / (on(self.to) - on(self.from))
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + self.share(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.share(value) * (HEIGHT - TOP - BOTTOM)
    }
}

fn draw(svg: &mut String, panel: &Panel, series: &[Series]) {
    let all = || series.iter().flat_map(|series| &series.points);
    let x = across(panel, all().map(|point| point.0).fold(0.0, f64::max));
    let (y, ticks) = up(panel, all().map(|point| point.1));
    let _ = writeln!(svg, "<text class=\"title\" x=\"12\" y=\"22\">{}, {}</text>", panel.title, panel.y);
    for tick in ticks {
        let at = y.y(tick);
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{:.1}\"/>", WIDTH - RIGHT);
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>", LEFT - 6.0, at + 4.0);
    }
    for value in panel.points.iter().map(|point| point.x).step_by(panel.label_every) {
        let (at, bottom) = (x.x(value), HEIGHT - BOTTOM + 16.0);
        let label = amount(panel, value);
        let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"{bottom}\" text-anchor=\"middle\">{label}</text>");
    }
    let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
    let _ = writeln!(svg, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>", HEIGHT - 12.0, panel.x);
    let mut key = 12.0;
    for (number, series) in series.iter().enumerate() {
        let _ = writeln!(svg, "<rect class=\"f{number}\" x=\"{key}\" y=\"35\" width=\"12\" height=\"4\"/>");
        let _ = writeln!(svg, "<text x=\"{}\" y=\"42\">{}</text>", key + 17.0, series.name);
        key += 32.0 + 6.4 * series.name.len() as f64;
        line(svg, series, &x, &y, number);
    }
}

/// The line, its points, and what they are worth: above them, but for the first series below.
fn line(svg: &mut String, series: &Series, x: &Axis, y: &Axis, number: usize) {
    let places: Vec<(f64, f64)> = series.points.iter().map(|point| (x.x(point.0), y.y(point.1))).collect();
    let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
    let _ = writeln!(svg, "<path class=\"line s{number}\" d=\"M{}\"/>", path.join("L"));
    for ((at_x, at_y), (_, value)) in places.iter().zip(&series.points) {
        let _ = writeln!(svg, "<circle class=\"f{number}\" cx=\"{at_x:.1}\" cy=\"{at_y:.1}\" r=\"3\"/>");
        let text_y = if number == 0 { at_y + 15.0 } else { at_y - 8.0 };
        let value = digits(*value);
        let _ = writeln!(
            svg,
            "<text class=\"value\" x=\"{at_x:.1}\" y=\"{text_y:.1}\" text-anchor=\"middle\">{value}</text>"
        );
    }
}

fn across(panel: &Panel, most: f64) -> Axis {
    let xs = panel.points.iter().map(|point| point.x);
    let least = xs.clone().fold(f64::INFINITY, f64::min);
    // Room for the values at either end.
    Axis { from: least / 1.2, to: xs.fold(most, f64::max) * 1.2, log: true }
}

/// From zero in even steps, or by 1, 2 and 5.
fn up(panel: &Panel, values: impl Iterator<Item = f64>) -> (Axis, Vec<f64>) {
    let (least, most) = values.fold((f64::INFINITY, 0.0), |(least, most), y| (f64::min(least, y), f64::max(most, y)));
    if panel.scales == Scales::LogBoth {
        let decades = [0.1, 1.0, 10.0, 100.0];
        let steps = decades.iter().flat_map(|decade| [1.0, 2.0, 5.0].map(|step| step * decade));
        let ticks: Vec<f64> = steps.filter(|tick| *tick > least / 1.6 && *tick < most * 1.4).collect();
        return (Axis { from: least / 1.6, to: most * 1.4, log: true }, ticks);
    }
    (Axis { from: 0.0, to: most * 1.15, log: false }, even(most * 1.15))
}

fn even(to: f64) -> Vec<f64> {
    let rough = to / 5.0;
    let decade = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|step| step * decade).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(rough);
    (0..).map(|number| f64::from(number) * step).take_while(|tick| *tick <= to).collect()
}

/// Across: bytes in their units, and thousands apart.
fn amount(panel: &Panel, value: f64) -> String {
    let number = value.round() as u64;
    if panel.scales == Scales::LogBoth {
        return if number >= 1 << 20 { format!("{} MiB", number >> 20) } else { format!("{} KiB", number >> 10) };
    }
    if number >= 1000 { format!("{},{:03}", number / 1000, number % 1000) } else { number.to_string() }
}

fn digits(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}
