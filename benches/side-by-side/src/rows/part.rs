//! The parts that this program plays itself, each in a process of its own.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Subcommand;
use tokio::net::TcpListener;

#[cfg(feature = "hudsucker")]
use super::hudsucker;
use super::{bare, narrows, tunnel};
use crate::counted::capability;
use crate::measure;
use crate::origin;

/// What a process of this program is, when it is not the bench itself.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Part {
    /// The origin
    Origin {
        folder: PathBuf,
        #[arg(long)]
        h2: bool,
        /// Gives way to whoever else needs its core
        #[arg(long)]
        patient: bool,
    },
    /// A CONNECT tunnel
    Tunnel { origin: SocketAddr },
    /// A pass-through that ends TLS
    Bare {
        folder: PathBuf,
        origin: SocketAddr,
        bulk: SocketAddr,
        #[arg(long)]
        h2: bool,
    },
    /// Narrows on a home
    Narrows { home: PathBuf },
    /// hudsucker
    #[cfg(feature = "hudsucker")]
    Hudsucker { folder: PathBuf, origin: SocketAddr },
    /// Authorizes a request of a capability of four blocks so many times between two marks
    Authorize { times: u64 },
    /// Verifies a chain of four blocks likewise
    Verify { times: u64 },
}

/// What [`mark`] says.
pub(crate) const MARK: &str = "marked";

/// Begins or ends a count: callgrind writes its counts down before a function of this name, and strace shows the write.
#[inline(never)]
pub(crate) fn mark() {
    println!("{MARK}");
}

impl Part {
    /// Plays it until standard input ends, which it does when the bench does.
    pub(crate) fn play(self) -> anyhow::Result<()> {
        match self {
            Self::Authorize { times } => return capability::authorize(times),
            Self::Verify { times } => return capability::verify(times),
            Self::Origin { patient: true, .. } => measure::give_way()?,
            _ => {}
        }
        std::thread::spawn(|| {
            while std::io::stdin().read(&mut [0]).is_ok_and(|read| read > 0) {
                mark();
            }
            std::process::exit(0);
        });
        // As many threads as there are cores to run on: one, when this process is pinned.
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(self.serve())
    }

    async fn serve(self) -> anyhow::Result<()> {
        if let Self::Narrows { home } = self {
            let (_daemon, address) = narrows::start(&home).await?;
            announce(address);
            return std::future::pending().await;
        }
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        announce(listener.local_addr()?);
        match self {
            Self::Origin { folder, h2, .. } => origin::serve(&folder, h2, listener).await,
            Self::Tunnel { origin } => tunnel::serve(origin, listener).await,
            Self::Bare { folder, origin, bulk, h2 } => bare::serve(&folder, [origin, bulk], h2, listener).await,
            #[cfg(feature = "hudsucker")]
            Self::Hudsucker { folder, origin } => hudsucker::serve(&folder, origin, listener).await,
            Self::Narrows { .. } | Self::Authorize { .. } | Self::Verify { .. } => Ok(()),
        }
    }
}

/// Tells the bench where this process listens.
fn announce(address: SocketAddr) {
    println!("{address}");
}
