//! `capctl inspect`: a capability as people read it.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::capability::inspect;
use crate::clock::UnixSeconds;

use super::capability::{chain, read};
use super::failure::Failure;
use super::output::{print, print_json, say};

/// Shows who gave what to whom, and what each took away. Signatures are not checked: that needs a root.
#[derive(Debug, clap::Args)]
#[command(before_help = "Example:\n  capctl inspect agent.cap")]
pub(super) struct Args {
    /// The capability
    file: PathBuf,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let chain = chain(&read(&self.file)?)?;
        if self.json {
            print_json(&inspect::json(&chain))?;
            return Ok(ExitCode::SUCCESS);
        }
        print(inspect::tree(&chain, Some(UnixSeconds::now())).trim_end())?;
        say("signatures are not checked here; capctl explain checks them");
        Ok(ExitCode::SUCCESS)
    }
}
