//! The row `narrows`: the daemon as the binary runs it, with everything on: proof and chain, policy, stripping,
//! injection, the journal.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use narrows::daemon::{Daemon, Serve};
use narrows::store::Home;

/// Runs on tasks of this runtime for as long as what it returns lives.
pub(crate) async fn start(home: &Path) -> anyhow::Result<(Daemon, SocketAddr)> {
    let daemon = Daemon::start(&Home::at(home)?, Serve::Everything).await?;
    let address = daemon.address().context("the daemon has no TCP address")?;
    Ok((daemon, address))
}
