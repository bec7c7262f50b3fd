//! `capctl admin`: the operator's listener.

use std::process::ExitCode;

use crate::store::{Home, bearer};

use super::failure::Failure;
use super::output::{print_one, say};
use super::probe;

/// The operator's listener (`admin` in narrows.toml): its token, and what it says.
#[derive(Debug, clap::Subcommand)]
#[command(
    before_help = "Example:\n  curl -H \"Authorization: Bearer $(capctl admin token)\" http://127.0.0.1:7081/status"
)]
pub(super) enum Verb {
    /// Prints the token, which is made if there is none
    #[command(before_help = "Example:\n  capctl admin token --new")]
    Token {
        /// Makes a new one; the one before counts no more
        #[arg(long)]
        new: bool,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Whether the running proxy is alive: exit status 0, else 1. For probes of containers
    #[command(before_help = "Example:\n  capctl admin alive")]
    Alive,
    /// Whether the running proxy is ready, and if not, why not: exit status 0, else 1. For probes of containers
    #[command(before_help = "Example:\n  capctl admin ready")]
    Ready,
    /// Prints the counts of the running proxy, in the text format of Prometheus; also where nothing else reaches them
    #[command(
        before_help = "Example:\n  capctl admin metrics\n  kubectl exec POD -c narrows -- /bin/capctl admin metrics"
    )]
    Metrics,
}

impl Verb {
    pub(super) fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        let (new, json) = match self {
            Self::Token { new, json } => (new, json),
            Self::Alive => return probe::ask(home, "/healthz", probe::FEW_BYTES),
            Self::Ready => return probe::ask(home, "/readyz", probe::FEW_BYTES),
            Self::Metrics => return probe::ask(home, "/metrics", probe::METRICS_BYTES_MAX),
        };
        home.check()?;
        let token = if new { bearer::replace(home)? } else { bearer::read_or_make(home)? };
        print_one("token", &*token, json)?;
        if new {
            say("the token before counts no more");
        }
        Ok(ExitCode::SUCCESS)
    }
}
