//! `capctl forward`: the forwarder by itself, beside an agent that somebody else starts.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::capability::{Capability, PrivateKey};
use crate::config::{AUDIENCE_DEFAULT, Config, Listen};
use crate::forward::{Forwarder, Guests, Parts, Upstream};
use crate::net::listener::Listener;
use crate::process;
use crate::store::watch::Watcher;
use crate::store::{Home, keys};

use super::capability::{chain, read};
use super::channel::ChannelArgs;
use super::failure::Failure;
use super::output::{print, say};
use super::probe::{FEW_BYTES, exchange};

/// Where the agent connects, unless told otherwise.
pub(super) const LISTEN_DEFAULT: &str = "127.0.0.1:7080";
/// Tunnels may go on for so long after a signal to stop: as long as those of a proxy by default.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);
/// Modes of a socket's file. Where users are named, they are told apart when they connect.
const OWNER_ONLY: u32 = 0o600;
const EVERYBODY: u32 = 0o666;

/// Put a capability's holder key beside an agent, and prove for it to a proxy elsewhere.
///
///   capctl forward --cap agent.cap --key agent.key --proxy https://narrows.internal:7080 --audience prod \
///     --ca proxy-ca.pem --cert sidecar.pem --cert-key sidecar.key --no-password
///
/// Prints the text for HTTPS_PROXY, one line, when it listens, and serves until SIGTERM or SIGINT;
/// then it drains and exits 0. Neither home nor root key nor secret is needed here. Each CONNECT
/// has a fresh proof and, over TLS, one that is worth nothing on any other connection. Renewed files
/// are taken up without a restart.
///
///   capctl forward probe
///
/// asks one that runs whether it is alive, for probes of containers.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Args {
    #[command(flatten)]
    serving: Option<Serving>,
    // Not inside: clap does not see that a struct is given that has another flattened in it.
    #[command(flatten)]
    channel: ChannelArgs,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Whether a forwarder answers: exit status 0, else 1. It says nothing of the proxy behind it
    #[command(before_help = "Example:\n  capctl forward probe --listen 127.0.0.1:7080")]
    Probe {
        /// Where the forwarder listens: ADDRESS:PORT or unix:PATH
        #[arg(long, value_name = "AT", default_value = LISTEN_DEFAULT)]
        listen: Listen,
    },
}

/// What a forwarder is started with.
#[derive(Debug, clap::Args)]
struct Serving {
    /// The capability
    #[arg(long, value_name = "FILE")]
    cap: PathBuf,
    /// The private key of its last holder
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The proxy: https://HOST:PORT; on this machine also http://HOST:PORT or unix:PATH
    #[arg(long, value_name = "URL")]
    proxy: Upstream,
    #[arg(skip)]
    channel: ChannelArgs,
    /// Where the agent connects: ADDRESS:PORT or unix:PATH
    #[arg(long, value_name = "AT", default_value = LISTEN_DEFAULT)]
    listen: Listen,
    /// The name that the proxy's configuration gives it; for a proxy on this machine, else the home's
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
    /// Whoever reaches the address acts under the capability: for loopback that only the agent shares, as in a pod
    #[arg(long)]
    no_password: bool,
    /// Accepts to listen on an address that is not loopback
    #[arg(long)]
    exposed: bool,
    /// At a Unix socket, a user whose processes may connect; may be repeated [default: the own user]
    #[arg(long = "uid", value_name = "N")]
    uids: Vec<u32>,
}

impl Args {
    pub(super) fn run(self, home: Option<&Home>) -> Result<ExitCode, Failure> {
        match (self.verb, self.serving) {
            (Some(Verb::Probe { listen }), _) => probe(&listen),
            (None, Some(serving)) => Serving { channel: self.channel, ..serving }.run(home),
            (None, None) => Err(Failure::usage("--cap, --key and --proxy are needed")),
        }
    }
}

/// Asks for what no proxy serves: a forwarder refuses it itself, and its refusal says whose it is.
fn probe(listen: &Listen) -> Result<ExitCode, Failure> {
    let answer = exchange(listen, "/", FEW_BYTES);
    let answer = answer.map_err(|error| Failure::new(format_args!("{listen} does not answer: {error}")))?;
    let head = answer.split("\r\n\r\n").next().unwrap_or_default();
    let is_ours = |line: &str| line.to_ascii_lowercase().starts_with("proxy-status: narrows-forwarder");
    if !head.lines().any(is_ours) {
        return Err(Failure::new(format_args!("what answers at {listen} is no forwarder")));
    }
    print("ok")?;
    Ok(ExitCode::SUCCESS)
}

impl Serving {
    fn run(self, home: Option<&Home>) -> Result<ExitCode, Failure> {
        self.check()?;
        let audience = self.audience(home)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.map_err(|error| Failure::of(&error))?.block_on(self.serve(audience))
    }

    /// What would give the capability, or its proofs, to others.
    fn check(&self) -> Result<(), Failure> {
        if matches!(self.proxy, Upstream::Tcp(_)) && !self.proxy.is_local() {
            let failure = Failure::usage(format_args!(
                "{} is not this machine, and clear text shows the capability on the way",
                self.proxy
            ));
            return Err(failure.hint(format!(
                "give the proxy a certificate ([tls] in its narrows.toml), and: --proxy {}",
                self.proxy.to_string().replacen("http", "https", 1)
            )));
        }
        match &self.listen {
            Listen::Tcp(_) if !self.uids.is_empty() => {
                Err(Failure::usage("--uid is for Unix sockets: nobody says whose process a TCP connection is from"))
            }
            Listen::Tcp(address) if !address.ip().to_canonical().is_loopback() && !self.exposed => {
                let failure = Failure::usage(format_args!("whoever reaches {address} may act under the capability"));
                Err(failure.hint("listen on 127.0.0.1 or unix:PATH, or accept it with --exposed".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Everybody's name is for this machine: a proxy that others reach has its own, and is not asked for it.
    fn audience(&self, home: Option<&Home>) -> Result<Arc<str>, Failure> {
        if let Some(given) = &self.audience {
            return Ok(given.as_str().into());
        }
        if !self.proxy.is_local() {
            return Err(Failure::usage("what is the proxy called?")
                .hint("--audience NAME, the `audience` of its narrows.toml".to_owned()));
        }
        let configured = home.and_then(|home| Config::load(home).ok());
        Ok(configured.map_or_else(|| AUDIENCE_DEFAULT.into(), |config| config.audience))
    }

    async fn serve(self, audience: Arc<str>) -> Result<ExitCode, Failure> {
        let failed = |error: std::io::Error| Failure::of(&error);
        process::survive_file_limit().map_err(failed)?;
        let mut term = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        // First, so that nothing that changes while the files are read is missed.
        let files = [self.cap.clone(), self.key.clone()].into_iter().chain(self.channel.files());
        let watcher = Watcher::start(files.collect()).map_err(failed)?;
        let forwarder = self.start(audience).await?;
        // The holder's key has its place.
        let _ = process::lock_memory();
        print(forwarder.url())?;
        tokio::select! {
            () = self.follow(&forwarder, &watcher) => {}
            () = either(&mut term, &mut interrupt) => {}
        }
        tokio::select! {
            in_time = forwarder.stop_within(DRAIN_WITHIN) => if !in_time {
                warn("tunnels that were still open have been cut");
            },
            () = either(&mut term, &mut interrupt) => {}
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn start(&self, audience: Arc<str>) -> Result<Forwarder, Failure> {
        let (capability, key) = self.holding()?;
        let mode = if self.uids.is_empty() { OWNER_ONLY } else { EVERYBODY };
        let bound = match &self.listen {
            Listen::Tcp(address) => Listener::tcp(*address).await,
            Listen::Unix(path) => Listener::unix(path, mode).await,
        };
        let at = &self.listen;
        let listener = bound.map_err(|error| Failure::new(format_args!("cannot listen on {at}: {error}")))?;
        let open = self.no_password || matches!(self.listen, Listen::Unix(_));
        let parts = Parts {
            upstream: self.proxy.clone(),
            capability,
            key,
            audience,
            revival: None,
            notify: warn,
            client_end: self.channel.read()?,
            listener: Some(listener),
            guests: if open { Guests::Open { uids: self.uids.clone() } } else { Guests::Password },
        };
        Forwarder::start(parts).await.map_err(|error| Failure::of(&error))
    }

    fn holding(&self) -> Result<(Capability, PrivateKey), Failure> {
        let (capability, key) = (read(&self.cap)?, keys::read_private(&self.key)?);
        let chain = chain(&capability)?;
        if chain.holder() != key.public() {
            let failure =
                Failure::new(format_args!("the key is not that of the capability's holder, {}", chain.holder()));
            return Err(failure.hint(format!("capctl inspect {}", self.cap.display())));
        }
        Ok((capability, key))
    }

    /// Takes up files that change, all of them or none. What is wrong with them is said once.
    async fn follow(&self, forwarder: &Forwarder, watcher: &Watcher) {
        let mut changes = watcher.subscribe();
        let mut said = String::new();
        while changes.changed().await.is_ok() {
            match self.renew(forwarder) {
                Ok(()) => {
                    said.clear();
                    say("capctl: the renewed files are in use");
                }
                Err(failure) if failure.to_string() == said => {}
                Err(failure) => {
                    said = failure.to_string();
                    warn(&format!("{said}: what was read before stays in use"));
                }
            }
        }
    }

    fn renew(&self, forwarder: &Forwarder) -> Result<(), Failure> {
        let (capability, key) = self.holding()?;
        let client_end = self.channel.read()?;
        forwarder.renew(&capability, key).map_err(|error| Failure::of(&error))?;
        if let Some(client_end) = client_end {
            forwarder.replace_client_end(client_end);
        }
        Ok(())
    }
}

fn warn(line: &str) {
    say(format_args!("capctl: warning: {line}"));
}

async fn either(first: &mut Signal, second: &mut Signal) {
    tokio::select! { _ = first.recv() => {}, _ = second.recv() => {} }
}
