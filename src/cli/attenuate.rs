//! `capctl attenuate`: less than before, for the next holder or for the same.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::capability::{DelegationBlock, NarrowingBlock, PublicKey, delegate, narrow};
use crate::clock::UnixSeconds;
use crate::store::{Home, keys, random};

use super::capability::{OutArgs, chain, read};
use super::failure::Failure;
use super::output::say;
use super::terms::{TermArgs, names};

/// Narrows a capability: with --to for the next holder, signed by this one; without, for the same. Works offline.
#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  capctl attenuate --cap alice.cap --key alice.key --to ed25519/… --name agent-1 --allow 'github:read repo=acme/widgets' --expires 30m --out agent.cap\n  capctl attenuate --cap agent.cap --key agent.key --calls 100"
)]
pub(super) struct Args {
    /// The capability to narrow
    #[arg(long, value_name = "F")]
    cap: PathBuf,
    /// Its holder's private key
    #[arg(long, value_name = "F")]
    key: PathBuf,
    /// The next holder's public key
    #[arg(long, value_name = "PUBKEY")]
    to: Option<PublicKey>,
    /// What to call the next holder; it is in every journal line
    #[arg(long, value_name = "LABEL", requires = "to")]
    name: Option<String>,
    #[command(flatten)]
    terms: TermArgs,
    #[command(flatten)]
    out: OutArgs,
}

impl Args {
    pub(super) fn run(self, home: Option<&Home>) -> Result<ExitCode, Failure> {
        let capability = read(&self.cap)?;
        let chain = chain(&capability)?;
        let key = keys::read_private(&self.key)?;
        if key.public() != chain.holder() {
            return Err(Failure::new("this key is not the capability's holder")
                .hint(format!("the holder is {}; capctl inspect shows the chain", chain.holder())));
        }
        if capability.is_sealed() {
            return Err(Failure::new("the capability is sealed: nothing can be added to it")
                .hint("attenuate the file that mint or attenuate wrote; only what is presented is sealed".to_owned()));
        }
        if self.to.is_none() && !self.terms.says_something() {
            return Err(Failure::usage("nothing to take away")
                .hint("as in --allow github:read, --expires 10m, --calls 100".to_owned()));
        }
        let terms = self.terms.terms(&names(home), UnixSeconds::now())?;
        let hop = chain.hop() + u32::from(self.to.is_some());
        let caveats = terms.caveats(hop).map_err(Failure::usage)?;
        let (budgets, rates, seed) = (self.terms.budgets(), self.terms.rates(), random::bytes()?);
        let narrowed = match self.to {
            Some(holder) => {
                let block = DelegationBlock { holder, agent: self.name, caveats, budgets, rates };
                delegate(&capability, &key, &block, seed)
            }
            None => narrow(&capability, &NarrowingBlock { caveats, budgets, rates }, seed),
        };
        self.out.write(&narrowed.map_err(|error| Failure::of(&error))?)?;
        if let Some(path) = &self.out.out {
            say(format_args!("next: capctl inspect {}", super::output::shell(path)));
        }
        Ok(ExitCode::SUCCESS)
    }
}
