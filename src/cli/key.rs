//! `capctl key`: holder keys.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::capability::Algorithm;
use crate::store::keys;

use super::failure::Failure;
use super::output::{print_one, say, shell};

/// Key pairs of holders: make one, show its public half.
#[derive(Debug, clap::Subcommand)]
#[command(before_help = "Examples:\n  capctl key new agent.key\n  capctl key show agent.key")]
pub(super) enum Verb {
    /// Makes a key pair, writes the private half (0600) and prints the public one
    #[command(before_help = "Example:\n  PUBLIC=$(capctl key new agent.key)")]
    New {
        /// Where the private half goes; never overwritten
        file: PathBuf,
        /// Makes a P-256 key, as hardware holds them, instead of an Ed25519 one
        #[arg(long)]
        p256: bool,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Prints the public half of a key file
    #[command(before_help = "Example:\n  capctl key show agent.key")]
    Show {
        /// A private or a public key
        file: PathBuf,
        /// For programs
        #[arg(long)]
        json: bool,
    },
}

impl Verb {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::New { file, p256, json } => {
                let key = keys::generate(if p256 { Algorithm::P256 } else { Algorithm::Ed25519 })?;
                keys::write_private(&file, &key)?;
                print_one("public", key.public(), json)?;
                say(format_args!("wrote the private half to {}", file.display()));
                say(format_args!(
                    "next: capctl mint --to {} --user YOU --allow GRANT --expires 8h --out agent.cap",
                    key.public()
                ));
                Ok(ExitCode::SUCCESS)
            }
            Self::Show { file, json } => {
                match keys::read_public(&file) {
                    Ok(public) => print_one("public", public, json)?,
                    Err(_) => print_one("public", keys::read_private(&file)?.public(), json)?,
                }
                say(format_args!("the public half of {}", shell(&file)));
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}
