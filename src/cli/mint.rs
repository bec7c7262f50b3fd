//! `capctl mint`: a new chain, signed by the root key.

use std::process::ExitCode;

use crate::capability::{AuthorityBlock, PublicKey, mint, rights_of};
use crate::clock::UnixSeconds;
use crate::store::{Home, random};

use super::capability::{OutArgs, config};
use super::failure::Failure;
use super::output::say;
use super::root;
use super::terms::TermArgs;

/// Signs an authority block with the root key: who holds it, for whom, what it allows at most.
#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  capctl mint --to \"$(capctl key new alice.key)\" --user alice@example.com --allow github:read --expires 8h --out alice.cap\n  capctl mint --to ed25519/… --user alice --allow 'acme:read,write path=/v1/items' --expires 1h"
)]
pub(super) struct Args {
    /// The first holder's public key
    #[arg(long, value_name = "PUBKEY")]
    to: PublicKey,
    /// The person on whose behalf everything happens; it is in every journal line
    #[arg(long, value_name = "U")]
    user: Option<String>,
    /// Which root key of the configuration signs
    #[arg(long, value_name = "KID", default_value_t = 1)]
    kid: u32,
    #[command(flatten)]
    terms: TermArgs,
    #[command(flatten)]
    out: OutArgs,
}

impl Args {
    pub(super) fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        let (allow, expires) = (!self.terms.allow.is_empty(), self.terms.expires.is_some());
        if !allow || !expires {
            let missing = if allow { "--expires" } else { "--allow" };
            return Err(Failure::usage(format_args!(
                "{missing} is needed: a capability without it would allow nothing, or for ever"
            ))
            .hint("as in --allow github:read --expires 1h".to_owned()));
        }
        let config = config(home)?;
        let root = root::read(home, Some(&config))?;
        if config.roots.get(&self.kid) != Some(root.public()) {
            return Err(Failure::new(format_args!("root.key is not the root {} of narrows.toml", self.kid))
                .hint(format!("set `{} = \"{}\"` under [roots]", self.kid, root.public())));
        }
        let names = config.services.param_names();
        let terms = self.terms.terms(&names, UnixSeconds::now())?;
        let block = AuthorityBlock {
            holder: self.to,
            user: self.user,
            rights: rights_of(&terms.allow),
            caveats: terms.caveats(0).map_err(Failure::usage)?,
            budgets: self.terms.budgets(),
            rates: self.terms.rates(),
        };
        let capability = mint(&root, self.kid, &block, random::bytes()?).map_err(|error| Failure::of(&error))?;
        self.out.write(&capability)?;
        if let Some(path) = &self.out.out {
            let file = super::output::shell(path);
            say(format_args!("next: capctl inspect {file}, or: capctl run --cap {file} --key KEYFILE -- COMMAND"));
        }
        Ok(ExitCode::SUCCESS)
    }
}
