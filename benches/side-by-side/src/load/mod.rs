//! What clients do to a row, and what is counted meanwhile.

mod route;
mod requests;
mod window;

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

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
}

/// How long each figure is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) window: Duration,
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
        }
    }

    pub(crate) const fn cpu_unit(self) -> &'static str {
        match self {
            Self::H1Many | Self::H1One | Self::H2 => "µs/req",
        }
    }

    /// Of [`Figures::memory`].
    pub(crate) const fn memory_unit(self) -> &'static str {
        "KiB"
    }

    /// Puts the load on a row. Every answer is checked; a wrong one fails the mode.
    pub(crate) async fn run(self, running: &Running, _stage: &Stage, settings: Settings) -> anyhow::Result<Figures> {
        match self {
            Self::H1Many => requests::h1(running, settings, 32).await,
            Self::H1One => requests::h1(running, settings, 1).await,
            Self::H2 => requests::h2(running, settings, 2, 16).await,
        }
    }
}
