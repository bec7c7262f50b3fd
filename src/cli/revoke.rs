//! `capctl revoke`: ends a block's or a holder's whole subtree.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::capability::{BlockId, PublicKey, Revocation, Subject};
use crate::clock::UnixSeconds;
use crate::store::{Home, revoked};

use super::capability::{chain, read};
use super::failure::Failure;
use super::output::say;

/// Revokes a block, or a holder's key, and everything that was delegated below it. A running proxy takes it on within a
/// second, for open tunnels too.
#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  capctl revoke --cap agent.cap                 the last block of the chain\n  capctl revoke --cap agent.cap --block 0       the whole tree\n  capctl revoke --holder ed25519/…"
)]
#[command(group(clap::ArgGroup::new("what").required(true)))]
pub(super) struct Args {
    /// A block of this capability
    #[arg(long, group = "what", value_name = "F")]
    cap: Option<PathBuf>,
    /// Which one, as capctl inspect numbers them [default: the last]
    #[arg(long, value_name = "N", requires = "cap")]
    block: Option<usize>,
    /// The block of this id, as the journal has it
    #[arg(long, group = "what", value_name = "HEX")]
    block_id: Option<BlockId>,
    /// Every capability in whose chain this key holds
    #[arg(long, group = "what", value_name = "PUBKEY")]
    holder: Option<PublicKey>,
    /// Why, for whoever reads the list later
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Args {
    pub(super) fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        home.check()?;
        let subject = match (self.block_id, self.holder, &self.cap) {
            (Some(id), _, _) => Subject::Block(id),
            (_, Some(holder), _) => Subject::Holder(holder),
            (_, _, Some(path)) => {
                let chain = chain(&read(path)?)?;
                let last = chain.blocks().len().saturating_sub(1);
                let block = chain.blocks().get(self.block.unwrap_or(last));
                let missing = || Failure::usage(format_args!("the chain has the blocks 0 to {last}"));
                Subject::Block(block.ok_or_else(missing)?.id())
            }
            (None, None, None) => return Err(Failure::usage("one of --cap, --block-id, --holder is needed")),
        };
        let by = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.name);
        let revocation = Revocation::new(subject, UnixSeconds::now(), self.reason, by);
        revoked::append(&home.revoked(), &revocation.to_line())?;
        match subject {
            Subject::Block(id) => say(format_args!("revoked the block {id} and everything below it")),
            Subject::Holder(holder) => say(format_args!("revoked the holder {holder} and everything below it")),
        }
        say("a running proxy takes it on within a second");
        Ok(ExitCode::SUCCESS)
    }
}
