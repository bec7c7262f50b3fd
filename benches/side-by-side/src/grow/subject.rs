//! What grows, how far, and what load shows it.

use std::rc::Rc;

use anyhow::Context as _;
use clap::ValueEnum;

use super::JOURNAL_THREAD;
use crate::home::Shape;
use crate::load::bulk::{self, Way};
use crate::load::route::Route;
use crate::load::{Figures, Settings, paced, requests, tunnels};
use crate::measure::Tree;
use crate::rows::Running;

/// As many kept connections as the table's `h1-32` has.
const CONNECTIONS: usize = 32;
/// The journal has one slot in seventeen for the intent of a long chain, and here one core for its thread and the requests:
/// with the default, a load without a pause found no slot for some of these chains, and was refused.
const LONG_CHAINS_IN_FLIGHT_MAX: usize = 1 << 16;
/// The rates that are offered; one core does more of either row.
const RATES: [f64; 6] = [500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0, 20_000.0];

/// One plot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Subject {
    /// Blocks of the capability
    Blocks,
    /// Services of the configuration
    Services,
    /// Rows of a check, and checks
    Rows,
    /// Connections that all have a request under way
    Connections,
    /// Bytes of a body
    Body,
    /// Requests offered in a second, which is lines of the journal
    Rate,
}

/// One picture of a plot.
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    pub(crate) scales: Scales,
    pub(crate) points: Vec<Point>,
    /// Which points have a label under the axis.
    pub(crate) label_every: usize,
    /// Whether to show what the journal's thread takes of it.
    pub(crate) journal: bool,
}

/// How a panel's axis runs upwards; across it is always the logarithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scales {
    /// From zero.
    LogX,
    /// By the logarithm too; across are bytes.
    LogBoth,
}

/// One load on Narrows of one shape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) shape: Shape,
    load: Load,
}

#[derive(Debug, Clone, Copy)]
enum Load {
    /// On as many kept connections, each with one request at a time.
    Requests(usize),
    /// New tunnels with a full handshake and one request.
    Tunnels,
    /// One body after the other on one connection.
    Body(Way, u64),
    /// So many a second.
    Offered(f64),
}

/// What was seen at a point.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// In the unit of the panel.
    pub(crate) cpu: f64,
    /// The same, of the journal's thread alone.
    pub(crate) journal: f64,
    /// Where the point really was, if the load could not keep it exactly.
    pub(crate) offered: Option<f64>,
}

impl Point {
    pub(crate) async fn sample(&self, running: &Rc<Running>, settings: Settings) -> anyhow::Result<Sample> {
        let tree = running.tree().context("a row without a process")?;
        let plain = |figures: Figures| sample(figures.cpu, 0.0, None);
        match self.load {
            Load::Requests(connections) => plain(requests::h1(running, settings, connections).await?),
            Load::Tunnels => plain(tunnels::cpu(running, settings).await?),
            // Seconds for 10⁹ bytes are nanoseconds for one.
            Load::Body(way, bytes) => plain(bulk::carry(running, settings, way, bytes).await?),
            Load::Offered(rate) => offered(running, tree, settings, rate).await,
        }
    }
}

async fn offered(running: &Rc<Running>, tree: Tree, settings: Settings, rate: f64) -> anyhow::Result<Sample> {
    let route = Rc::new(Route::new(running, false)?);
    let open = paced::opened(&route, CONNECTIONS).await?;
    let (cpu, journal) = (tree.cpu(), tree.threads_cpu(JOURNAL_THREAD));
    let figures = paced::offer(running, settings, &route, open, rate).await?;
    // The shares hold for warming up and the window alike.
    let all = tree.cpu().saturating_sub(cpu).as_secs_f64();
    let share = tree.threads_cpu(JOURNAL_THREAD).saturating_sub(journal).as_secs_f64() / all;
    sample(figures.cpu, figures.cpu.unwrap_or_default() * share, figures.rate)
}

fn sample(cpu: Option<f64>, journal: f64, offered: Option<f64>) -> anyhow::Result<Sample> {
    Ok(Sample { cpu: cpu.context("the CPU of a row is not known")?, journal, offered })
}

impl Subject {
    /// As the command line and the plot's file have it.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub(crate) fn panels(self) -> Vec<Panel> {
        match self {
            Self::Blocks => both("blocks of the capability", &[1, 2, 4, 8, 16, 32], |number| Shape {
                blocks: number as u8,
                in_flight_max: LONG_CHAINS_IN_FLIGHT_MAX,
                ..Shape::default()
            }),
            Self::Services => {
                both("services configured", &[1, 100, 10_000], |number| Shape { services: number, ..Shape::default() })
            }
            Self::Rows => vec![
                requests_panel("rows of one check", &[1, 2, 4, 8, 16], |rows| Shape { rows, ..Shape::default() }),
                requests_panel("checks of one row", &[1, 2, 4, 8, 16], |checks| Shape { checks, ..Shape::default() }),
            ],
            Self::Connections => vec![Panel {
                points: points(&[1, 32, 256, 1000], |_| Shape::default(), Load::Requests),
                ..requests_panel("open connections, all active", &[], |_| Shape::default())
            }],
            Self::Body => vec![body(Way::Down), body(Way::Up)],
            Self::Rate => vec![Panel {
                title: "CPU for a request",
                x: "requests a second, each a line of the journal",
                y: "µs",
                scales: Scales::LogX,
                points: RATES.map(|x| Point { x, shape: Shape::default(), load: Load::Offered(x) }).into(),
                label_every: 1,
                journal: true,
            }],
        }
    }
}

fn points(numbers: &[usize], shape: fn(usize) -> Shape, load: fn(usize) -> Load) -> Vec<Point> {
    let point = |number| Point { x: number as f64, shape: shape(number), load: load(number) };
    numbers.iter().copied().map(point).collect()
}

fn both(x: &'static str, numbers: &[usize], shape: fn(usize) -> Shape) -> Vec<Panel> {
    let requests = requests_panel(x, numbers, shape);
    let tunnels = points(numbers, shape, |_| Load::Tunnels);
    let tunnels = Panel { title: "CPU for a new tunnel", points: tunnels, ..requests_panel(x, &[], shape) };
    vec![requests, tunnels]
}

fn requests_panel(x: &'static str, numbers: &[usize], shape: fn(usize) -> Shape) -> Panel {
    let points = points(numbers, shape, |_| Load::Requests(CONNECTIONS));
    Panel { title: "CPU for a request", x, y: "µs", scales: Scales::LogX, points, label_every: 1, journal: false }
}

fn body(way: Way) -> Panel {
    let sizes = (0..=8).map(|step| 1_u64 << (10 + 2 * step));
    let points = sizes.map(|bytes| Point { x: bytes as f64, shape: Shape::default(), load: Load::Body(way, bytes) });
    Panel {
        title: if way == Way::Down { "CPU for a byte of a download" } else { "CPU for a byte of an upload" },
        x: "size of the body",
        y: "ns",
        scales: Scales::LogBoth,
        points: points.collect(),
        // Two of them beside each other have no room.
        label_every: 2,
        journal: false,
    }
}
