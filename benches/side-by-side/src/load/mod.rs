//! What clients do to a row, and what is counted meanwhile.

pub(crate) mod bulk;
mod events;
mod fresh;
pub(crate) mod paced;
pub(crate) mod requests;
pub(crate) mod route;
pub(crate) mod tunnels;
mod window;

use std::rc::Rc;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use bulk::Way;

use crate::rows::{Running, Stage};

/// A kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Requests on 32 kept HTTP/1.1 connections
    #[value(name = "h1-32")]
    H1Many,
    /// Requests on one kept HTTP/1.1 connection
    #[value(name = "h1-1")]
    H1One,
    /// Requests on two HTTP/2 connections with 16 streams each
    H2,
    /// New tunnels with a full handshake and one request
    Connect,
    /// The same, with a client that resumes its TLS sessions
    Resume,
    /// Downloads of 1 MiB
    #[value(name = "down-1m")]
    DownSmall,
    /// Downloads of --bulk-mib
    Down,
    /// Uploads of 1 MiB
    #[value(name = "up-1m")]
    UpSmall,
    /// Uploads of --bulk-mib
    Up,
    /// The delay of server-sent events, one way
    Sse,
    /// The memory of open tunnels that have had one request; on a fresh instance
    Idle,
    /// First visits of a name, less second ones; on a fresh instance
    Cold,
}

/// How long each figure is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) window: Duration,
    pub(crate) bulk_bytes: u64,
}

/// What one mode says of one row. What a mode does not measure is absent.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Figures {
    /// In [`Mode::rate_unit`].
    pub(crate) rate: Option<f64>,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) p999_us: Option<f64>,
    /// In [`Mode::cpu_unit`]; the proxy's own.
    pub(crate) cpu: Option<f64>,
    /// In [`Mode::memory_unit`]; the proxy's own.
    pub(crate) memory: Option<f64>,
}

impl Mode {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub(crate) const fn rate_unit(self) -> &'static str {
        match self {
            Self::H1Many | Self::H1One | Self::H2 => "req/s",
            Self::Connect | Self::Resume => "conn/s",
            Self::DownSmall | Self::Down | Self::UpSmall | Self::Up => "GB/s",
            Self::Sse | Self::Idle | Self::Cold => "",
        }
    }

    pub(crate) const fn cpu_unit(self) -> &'static str {
        match self {
            Self::H1Many | Self::H1One | Self::H2 => "µs/req",
            Self::Connect | Self::Resume => "µs/conn",
            Self::DownSmall | Self::Down | Self::UpSmall | Self::Up => "s/GB",
            Self::Sse => "µs/event",
            Self::Idle => "",
            Self::Cold => "µs/name",
        }
    }

    /// Of [`Figures::memory`].
    pub(crate) const fn memory_unit(self) -> &'static str {
        match self {
            Self::Idle => "KiB/tunnel",
            _ => "KiB peak",
        }
    }

    /// Puts the load on a row. Every answer is checked; a wrong one fails the mode.
    pub(crate) async fn run(self, running: &Rc<Running>, stage: &Stage, settings: Settings) -> anyhow::Result<Figures> {
        let bulk = settings.bulk_bytes;
        match self {
            Self::H1Many => requests::h1(running, settings, 32).await,
            Self::H1One => requests::h1(running, settings, 1).await,
            Self::H2 => requests::h2(running, settings, 2, 16).await,
            Self::Connect => tunnels::open(running, settings, false).await,
            Self::Resume => tunnels::open(running, settings, true).await,
            Self::DownSmall => bulk::carry(running, settings, Way::Down, 1 << 20).await,
            Self::Down => bulk::carry(running, settings, Way::Down, bulk).await,
            Self::UpSmall => bulk::carry(running, settings, Way::Up, 1 << 20).await,
            Self::Up => bulk::carry(running, settings, Way::Up, bulk).await,
            Self::Sse => events::stream(running).await,
            Self::Idle => fresh::idle(running, stage).await,
            Self::Cold => fresh::cold(running, stage).await,
        }
    }
}
