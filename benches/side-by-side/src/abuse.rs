//! One authority that takes what it can beside another that asks at a steady rate.
//!
//! Each abuser offers so much work a second and no more: a proxy on one core that is asked for more than a core can do
//! makes everybody wait, and that would say nothing of how it shares. It has a thread and an origin of its own, which give
//! way to the victim's on the core that they share, so that what the victim waits for is the proxy.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::ValueEnum;
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep_until};

use crate::home::{Agent, Deep, Shape};
use crate::load::route::{H2, Route};
use crate::load::{Figures, Settings, bulk, paced};
use crate::measure;
use crate::rows::{Row, Running, Stage};
use crate::stage::BULK_HOST;
use crate::table;

/// What an abuser does over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Abuse {
    /// Nothing: the victim alone
    None,
    /// A tunnel and its handshake, for one name
    Tunnels,
    /// The same, each time for a name that nobody has met: a leaf to mint
    Names,
    /// A tunnel with a chain of 33 blocks that nobody has met
    Chains,
    /// A request, on one of sixteen connections of HTTP/1.1
    Requests,
    /// A request, each a stream of one connection of HTTP/2
    Streams,
    /// An upload of 4 MiB, on one of sixteen connections
    Uploads,
    /// A download of 4 MiB, likewise
    Downloads,
}

/// Who, and how much.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The abusers to measure beside
    #[arg(long, value_delimiter = ',', value_name = "ABUSE,ABUSE")]
    only: Vec<Abuse>,
    /// The proxy: that of Narrows, or a bare pass-through, which shows what the machine and the stack do by themselves
    #[arg(long, default_value = "narrows")]
    row: Row,
    /// Requests of the victim in a second, on eight connections
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// How long a window is
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// How often each figure is taken, each time on fresh instances
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

const VICTIM_CONNECTIONS: usize = 8;
/// How many an abuser has under way: a proxy that is behind is not given more.
const WORKERS: usize = 16;
const BULK_BYTES: u64 = 4 << 20;
/// As many as a capability may have.
const BLOCKS: u8 = 33;

impl Abuse {
    /// How many in a second: each a third of a core or so.
    const fn rate(self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Uploads | Self::Downloads => 100.0,
            Self::Tunnels | Self::Names => 800.0,
            Self::Chains => 100.0,
            Self::Requests | Self::Streams => 8000.0,
        }
    }
}

/// Measures and prints one table.
pub(crate) async fn measured(args: &Args, stage: &Stage) -> anyhow::Result<()> {
    let all = if args.only.is_empty() { Abuse::value_variants() } else { &args.only };
    let mut lines: Vec<(Abuse, Vec<Figures>, f64)> = all.iter().map(|abuse| (*abuse, Vec::new(), 0.0)).collect();
    for _ in 0..args.rounds.max(1) {
        for (abuse, rounds, rates) in &mut lines {
            let (figures, rate) = round(args, *abuse, stage).await.with_context(|| format!("beside {abuse:?}"))?;
            rounds.push(figures);
            *rates += rate;
        }
    }
    println!(
        "| beside | so many a second | p50 µs | p99 µs | × alone | p99.9 µs | CPU of the proxy, µs for each of the victim's requests |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|");
    let alone = table::merge(&lines[0].1).p99_us;
    for (abuse, rounds, rates) in &lines {
        let figures = table::merge(rounds);
        let rate = Some(rates / rounds.len() as f64).filter(|rate| *rate > 0.0);
        let ratio = figures.p99_us.zip(alone).map(|(p99, alone)| p99 / alone);
        let cells = [rate, figures.p50_us, figures.p99_us, ratio, figures.p999_us, figures.cpu];
        println!("| {abuse:?} | {} |", cells.map(table::number).join(" | "));
    }
    println!("\nNo request of the victim failed: the first that does ends this.");
    Ok(())
}

/// What the victim waited, and how many the abuser was served in a second.
async fn round(args: &Args, abuse: Abuse, stage: &Stage) -> anyhow::Result<(Figures, f64)> {
    let running = Rc::new(args.row.start_shaped(stage, &Shape::default())?);
    let agents = agents(args, abuse, &running)?;
    let settings = Settings { window: Duration::from_secs_f64(args.seconds), bulk_bytes: 0 };
    let victim = Rc::new(Route::new(&running, false)?);
    let connections = paced::opened(&victim, VICTIM_CONNECTIONS).await?;
    let abuser = Abuser::start(abuse, agents, running.elsewhere());
    let figures = paced::offer(&running, settings, &victim, connections, args.rate).await;
    let rate = abuser.stop()?;
    Ok((figures?, rate))
}

/// Abuses on a thread of its own.
struct Abuser {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<anyhow::Result<f64>>,
}

impl Abuser {
    fn start(abuse: Abuse, agents: Vec<Agent>, running: Running) -> Self {
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            measure::give_way()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let (done, began) = (Rc::new(Cell::new(0)), Instant::now());
                tokio::select! {
                    gave_up = abuse_of(abuse, agents, Rc::new(running), &done) => gave_up.and_then(|()| bail!("it gave up")),
                    _ = stopped => Ok(f64::from(done.get()) / began.elapsed().as_secs_f64()),
                }
            })
        });
        Self { stop, thread }
    }

    /// How many it was served in a second; an error, when it did not abuse to the end.
    fn stop(self) -> anyhow::Result<f64> {
        // Where it has ended, nobody hears this.
        let _ = self.stop.send(());
        self.thread.join().map_err(|_| anyhow!("the abuser panicked"))?.context("the abuser")
    }
}

/// The abuser's, who is not the victim. To make a long chain takes longer than to verify it, and would keep the victim's
/// own load waiting: they are made before.
fn agents(args: &Args, abuse: Abuse, running: &Running) -> anyhow::Result<Vec<Agent>> {
    anyhow::ensure!(args.row == Row::Narrows || abuse != Abuse::Chains, "only Narrows has chains");
    if args.row != Row::Narrows {
        return Ok(Vec::new());
    }
    let home = running.ca.parent().context("no home")?;
    let (blocks, count) = match abuse {
        Abuse::Chains => (BLOCKS, (abuse.rate() * (args.seconds + 2.0)) as usize),
        _ => (1, 1),
    };
    let deep = Deep::new(home, blocks)?;
    (0..count).map(|_| deep.fresh()).collect()
}

/// Goes on until it is dropped; an error, when the proxy refuses it.
async fn abuse_of(
    abuse: Abuse,
    mut agents: Vec<Agent>,
    running: Rc<Running>,
    done: &Rc<Cell<u32>>,
) -> anyhow::Result<()> {
    let route = match agents.pop() {
        Some(agent) => Route::of(&running, agent)?,
        None => Route::new(&running, false)?,
    };
    let route = Rc::new(route);
    let agents = Rc::new(RefCell::new(agents));
    let shared = if abuse == Abuse::Streams { Some(route.h2(BULK_HOST).await?) } else { None };
    let every = Duration::from_secs_f64(WORKERS as f64 / abuse.rate().max(1.0));
    if abuse == Abuse::None {
        return pending().await;
    }
    let local = LocalSet::new();
    let workers: Vec<_> = (0..WORKERS)
        .map(|number| {
            let (route, running, agents) = (Rc::clone(&route), Rc::clone(&running), Rc::clone(&agents));
            let worker = Worker { number, route, running, agents, done: Rc::clone(done) };
            local.spawn_local(worker.work(abuse, every, shared.clone()))
        })
        .collect();
    local.await;
    for worker in workers {
        worker.await??;
    }
    Ok(())
}

struct Worker {
    number: usize,
    route: Rc<Route>,
    running: Rc<Running>,
    /// With chains that nobody has met.
    agents: Rc<RefCell<Vec<Agent>>>,
    /// What all of them were served.
    done: Rc<Cell<u32>>,
}

impl Worker {
    async fn work(self, abuse: Abuse, every: Duration, mut shared: Option<H2>) -> anyhow::Result<()> {
        let authorization = self.route.authorization();
        let mut kept = match abuse {
            Abuse::Requests | Abuse::Uploads | Abuse::Downloads => Some(self.route.h1(BULK_HOST).await?),
            _ => None,
        };
        let mut due = Instant::now() + every.mul_f64(self.number as f64 / WORKERS as f64);
        for turn in 0_usize.. {
            sleep_until(due).await;
            match (abuse, &mut kept, &mut shared) {
                (Abuse::Requests, Some(kept), _) => kept.ask(BULK_HOST, &authorization).await?,
                (Abuse::Uploads, Some(kept), _) => bulk::up(kept, BULK_HOST, &authorization, BULK_BYTES).await?,
                (Abuse::Downloads, Some(kept), _) => bulk::down(kept, BULK_HOST, &authorization, BULK_BYTES).await?,
                (Abuse::Streams, _, Some(shared)) => shared.ask(BULK_HOST, &authorization).await?,
                (Abuse::Names, ..) => drop(self.route.h1(&format!("w{}-{turn}.acme.test", self.number)).await?),
                (Abuse::Chains, ..) => {
                    let agent = self.agents.borrow_mut().pop().context("more chains were wanted than made")?;
                    drop(Route::of(&self.running, agent)?.h1(BULK_HOST).await?);
                }
                _ => drop(self.route.h1(BULK_HOST).await?),
            }
            self.done.set(self.done.get() + 1);
            due = (due + every).max(Instant::now());
        }
        Ok(())
    }
}
