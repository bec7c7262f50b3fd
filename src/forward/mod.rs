//! The forwarder: the hop that `capctl run` and `capctl forward` put in front of an agent, and that holds the holder's key.
//!
//! The agent gets a proxy URL, with a password of the forwarder's own where others could come too. For each CONNECT and each absolute-form request
//! the forwarder makes a fresh proof, so the agent sees neither capability nor key, and every client works, also those
//! that can sign nothing. Over TLS the proof is bound to the connection that it is sent on. [`Forwarder::start`] accepts →
//! `serve` checks who comes → `connect` or `request` asks the proxy → bytes are copied. `respond` makes the forwarder's
//! own answers.
//!
//! Deliberately absent: policy, and any look into a tunnel. What is allowed is the proxy's decision alone.

mod connect;
mod password;
mod prover;
mod request;
mod respond;
mod serve;
mod upstream;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::capability::{Capability, PrivateKey, SealError};
use crate::net::channel::{BadTls, ClientEnd};
use crate::net::listener::Listener;
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

/// Who may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guests {
    /// Whoever has the password that the forwarder makes up.
    Password,
    /// Whoever reaches the address; at a Unix socket, processes of these users. Where none is named, our own.
    Open {
        /// Their numbers.
        uids: Vec<u32>,
    },
}

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
    /// How it speaks TLS to a proxy at `https://`. Without it the platform's authorities are trusted, and no certificate is
    /// shown.
    pub client_end: Option<ClientEnd>,
    /// Where to listen: a bound socket, of another network namespace perhaps. Else a free port of 127.0.0.1.
    pub listener: Option<Listener>,
    /// Who may come in there.
    pub guests: Guests,
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
    /// TLS towards the proxy.
    #[error(transparent)]
    Tls(#[from] BadTls),
    /// No randomness for the password.
    #[error(transparent)]
    Random(#[from] StoreError),
}

/// A forwarder that runs.
pub struct Forwarder {
    url: String,
    shared: Arc<Shared>,
}

/// Shows no password.
impl std::fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forwarder").field("address", &self.shared.own).finish_non_exhaustive()
    }
}

/// What all connections of one forwarder share.
pub(crate) struct Shared {
    /// Where it listens, on TCP.
    own: Option<SocketAddr>,
    /// None where whoever gets there may come in.
    password: Option<Password>,
    /// At a Unix socket: whose processes.
    uids: Vec<u32>,
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
        let Parts { upstream, capability, key, audience, revival, notify, client_end, listener, guests } = parts;
        let prover = Prover::new(&capability, key, audience).map_err(StartError::Capability)?;
        let (password, uids) = match guests {
            Guests::Password => (Some(Password::generate()?), Vec::new()),
            Guests::Open { uids } => (None, uids),
        };
        let listener = match listener {
            Some(bound) => bound,
            None => Listener::tcp(([127, 0, 0, 1], 0).into()).await.map_err(StartError::Listen)?,
        };
        let own = listener.local_address();
        let url = match (own, &password) {
            (Some(address), Some(password)) => format!("http://{}@{address}", password.userinfo()),
            (Some(address), None) => format!("http://{address}"),
            (None, _) => listener.to_string(),
        };
        let dialled = Dialled::new(upstream, revival, client_end)?;
        let shared = Arc::new(Shared { own, password, uids, prover, dialled, drain: Drain::default(), notify });
        tokio::spawn(serve::accept(listener, Arc::clone(&shared)));
        Ok(Self { url, shared })
    }

    /// Where it listens, on TCP.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.shared.own
    }

    /// Proves with these from the next request on.
    ///
    /// # Errors
    /// [`StartError::Capability`]; those before stay.
    pub fn renew(&self, capability: &Capability, key: PrivateKey) -> Result<(), StartError> {
        self.shared.prover.renew(capability, key).map_err(StartError::Capability)
    }

    /// Speaks TLS to the proxy in this way from the next connection on.
    pub fn replace_client_end(&self, client_end: ClientEnd) {
        self.shared.dialled.replace_client_end(client_end);
    }

    /// The text for `HTTPS_PROXY`, with the password in it; `unix:PATH` for a Unix socket.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Takes no new clients and cuts the open ones after a moment.
    pub async fn stop(self) {
        self.stop_within(DRAIN_WITHIN).await;
    }

    /// Takes no new clients and cuts the open ones after this long. True when none had to be.
    pub async fn stop_within(&self, deadline: Duration) -> bool {
        self.shared.drain.run(tokio::time::sleep(deadline)).await
    }
}
