//! The forwarder: the loopback hop that `capctl run` puts in front of an agent, and that holds the holder's key.
//!
//! The agent gets a proxy URL with a password of the forwarder's own. For each CONNECT and each absolute-form request
//! the forwarder makes a fresh proof, so the agent sees neither capability nor key, and every client works, also those
//! that can sign nothing. [`Forwarder::start`] accepts → `serve` checks the password → `connect` or `request` asks the
//! proxy → bytes are copied. `respond` makes the forwarder's own answers.
//!
//! Deliberately absent: TLS, policy, and any look into a tunnel. What is allowed is the proxy's decision alone.

mod connect;
mod password;
mod prover;
mod request;
mod respond;
mod serve;
mod upstream;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use crate::capability::{Capability, PrivateKey, SealError};
use crate::proxy::Drain;
use crate::store::StoreError;

use password::Password;
use prover::Prover;
use upstream::Dialled;

pub use upstream::{ParseUpstreamError, Upstream};

/// When the command has ended, what it left open gets this long.
const DRAIN_WITHIN: Duration = Duration::from_millis(200);

/// How a forwarder asks whoever started it to bring the proxy back. The answer says that it was tried.
pub type Revival = mpsc::Sender<oneshot::Sender<()>>;

/// What a forwarder is made of.
pub struct Parts {
    /// The proxy.
    pub upstream: Upstream,
    /// Presented sealed, so that nobody who reads it on the way can append to it.
    pub capability: Capability,
    /// The key of the capability's last holder.
    pub key: PrivateKey,
    /// The proxy's configured name, never learned from the proxy.
    pub audience: Arc<str>,
    /// Whom to ask when the proxy is gone; it is then dialled once more.
    pub revival: Option<Revival>,
    /// Tells a person what they should know: a clock that is wrong, a proxy that is gone.
    pub notify: fn(&str),
    /// Where to listen: a bound socket, of another network namespace perhaps. Else a free port of 127.0.0.1.
    pub listener: Option<std::net::TcpListener>,
}

/// Names no part: some are secret.
impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("upstream", &self.upstream).finish_non_exhaustive()
    }
}

/// Why a forwarder does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The capability cannot be sealed: it is not one.
    #[error("the capability does not hold")]
    Capability(#[source] SealError),
    /// No loopback port.
    #[error("cannot listen on 127.0.0.1")]
    Listen(#[source] io::Error),
    /// No randomness for the password.
    #[error(transparent)]
    Random(#[from] StoreError),
}

/// A forwarder that runs.
#[derive(Debug)]
pub struct Forwarder {
    address: SocketAddr,
    url: String,
    drain: Drain,
}

/// What all connections of one forwarder share.
pub(crate) struct Shared {
    own_port: u16,
    password: Password,
    prover: Prover,
    dialled: Dialled,
    drain: Drain,
    notify: fn(&str),
}

impl Forwarder {
    /// Listens, and serves on tasks of the current runtime.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub async fn start(parts: Parts) -> Result<Self, StartError> {
        let Parts { upstream, capability, key, audience, revival, notify, listener } = parts;
        let prover = Prover::new(&capability, key, audience).map_err(StartError::Capability)?;
        let password = Password::generate()?;
        let listener = match listener {
            Some(bound) => bound.set_nonblocking(true).and_then(|()| TcpListener::from_std(bound)),
            None => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await,
        };
        let listener = listener.map_err(StartError::Listen)?;
        let address = listener.local_addr().map_err(StartError::Listen)?;
        let drain = Drain::default();
        let url = format!("http://{}@{address}", password.userinfo());
        let shared = Shared {
            own_port: address.port(),
            password,
            prover,
            dialled: Dialled::new(upstream, revival),
            drain: drain.clone(),
            notify,
        };
        tokio::spawn(serve::accept(listener, Arc::new(shared)));
        Ok(Self { address, url, drain })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The text for `HTTPS_PROXY`, with the password in it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Takes no new clients and cuts the open ones after a moment.
    pub async fn stop(self) {
        self.drain.run(DRAIN_WITHIN).await;
    }
}
