//! `capctl env`: variables with a short-lived presentation, for what cannot be wrapped.

use std::fs;
use std::io::Write as _;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::capability::{Context, Credentials, Proof, Purpose, parse_duration_s};
use crate::clock::UnixSeconds;
use crate::config::{Config, Listen};
use crate::forward::Upstream;
use crate::request::{Scheme, Target};
use crate::store::{Home, StoreError, random};

use super::child::bundle::{merged, write_public};
use super::child::environment::{Environment, UNSET};
use super::failure::Failure;
use super::holding::{Holding, HoldingArgs};
use super::share::{Format, Share, Via};

/// A proxy on this machine answers within this.
const LOOK_WITHIN: Duration = Duration::from_millis(300);

/// Print the variables that make other programs use a running proxy.
///
///   eval "$(capctl env --allow github:read)"
///
/// They hold a presentation, which anyone who reads it can use until it expires. Prefer
/// `capctl run`, which gives the command nothing that could be copied.
///
///   capctl env --listener agent --out share --at /narrows
///
/// writes files without any credential, for an agent that shares loopback with a [[listener]]:
/// env (all variables), ca.pem and bundle.pem, in a folder that the agent sees at --at.
///
///   capctl env --forwarder agent.cap --out share --at /narrows
///
/// writes the same for an agent beside a `capctl forward` that holds this capability.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Env {
    #[command(flatten)]
    holding: HoldingArgs,
    /// How long the presentation is good for
    #[arg(long, value_name = "TTL", default_value = "15m")]
    ttl: String,
    /// The proxy, http://HOST:PORT or https://HOST:PORT; else the `listen` of the configuration
    #[arg(long, value_name = "URL")]
    proxy: Option<Upstream>,
    /// The name that the proxy's configuration gives it; else the configuration's own
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
    /// One JSON object instead of shell lines
    #[arg(long)]
    json: bool,
    /// The files for an agent that shares loopback with this [[listener]]
    #[arg(long, value_name = "NAME", requires = "out")]
    listener: Option<String>,
    /// The files for an agent beside a forwarder (`capctl forward`) that holds the capability in this file
    #[arg(long, value_name = "FILE", requires = "out", conflicts_with = "listener")]
    forwarder: Option<PathBuf>,
    /// The folder that they are written to
    #[arg(long, value_name = "DIR", conflicts_with_all = ["cap", "key", "allow", "ttl", "audience", "json"])]
    out: Option<PathBuf>,
    /// Where the agent sees that folder; else the same
    #[arg(long, value_name = "DIR", requires = "out")]
    at: Option<PathBuf>,
    /// How the file `env` is written
    #[arg(long, value_enum, default_value = "dotenv", requires = "out")]
    format: Format,
}

impl Env {
    pub(super) fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        let config = Config::load(home).map_err(|problems| {
            let first = problems.first().map(ToString::to_string).unwrap_or_default();
            Failure::new(first).hint("capctl init makes a home; narrows --check lists every problem".to_owned())
        })?;
        home.check()?;
        if let Some(out) = &self.out {
            let via = match (&self.listener, &self.forwarder) {
                (Some(listener), _) => Via::Listener(listener),
                (None, Some(capability)) => Via::Forwarder(capability),
                (None, None) => {
                    return Err(Failure::usage("--out is for an agent beside a listener or a forwarder")
                        .hint("--listener NAME, or --forwarder FILE with the capability that it holds".to_owned()));
                }
            };
            return self.share(home, &config, via, out);
        }
        let ttl_s = self.ttl_s(&config)?;
        let (scheme, proxy) = self.proxy(&config)?;
        let holding = self.holding.hold(home, Some(&config), "env", "")?;
        let services = holding.ready_services(home, &config);
        let audience = self.audience.as_deref().unwrap_or(&config.audience);
        let url = format!("{scheme}://cap:{}@{proxy}", presentation(&holding, audience, ttl_s)?);
        let (bundle, ca) = write_bundle(home)?;
        let environment = Environment { proxy_url: Some(&url), bundle: &bundle, ca: &ca, services: &services };
        self.print(&environment.variables()).map_err(|error| Failure::of(&error))?;
        if !answers(&proxy) {
            let _ = writeln!(std::io::stderr(), "capctl: warning: nobody serves {proxy} yet: start it with `narrows`");
        }
        Ok(ExitCode::SUCCESS)
    }

    fn share(&self, home: &Home, config: &Config, via: Via<'_>, out: &Path) -> Result<ExitCode, Failure> {
        let absolute = std::path::absolute(out).map_err(|error| Failure::of(&error))?;
        let proxy = self.proxy.is_some().then(|| self.proxy(config)).transpose()?;
        let share = Share {
            via,
            out,
            at: self.at.as_deref().unwrap_or(&absolute),
            format: self.format,
            proxy: proxy.map(|(scheme, proxy)| format!("{scheme}://{proxy}")),
        };
        share.run(home, config)
    }

    fn ttl_s(&self, config: &Config) -> Result<u32, Failure> {
        let ttl_s =
            parse_duration_s(&self.ttl).map_err(|error| Failure::usage(format!("--ttl {}: {error}", self.ttl)))?;
        let max_s = config.limits.presentation_ttl_max.as_secs();
        if ttl_s > max_s {
            let failure = Failure::usage(format!("--ttl {}: the proxy accepts at most {max_s} s", self.ttl));
            return Err(failure.hint("capctl run has no such limit".to_owned()));
        }
        u32::try_from(ttl_s).map_err(|_| Failure::usage("--ttl is too long"))
    }

    /// Other programs know proxies as a host and a port.
    fn proxy(&self, config: &Config) -> Result<(Scheme, Target), Failure> {
        let needed = |why: &str| Failure::usage(why).hint("capctl env --proxy http://127.0.0.1:7080".to_owned());
        match (&self.proxy, &config.listen) {
            (Some(Upstream::Tcp(target)), _) => Ok((Scheme::Http, target.clone())),
            (Some(Upstream::Tls(target)), _) => Ok((Scheme::Https, target.clone())),
            (Some(Upstream::Unix(_)), _) => Err(needed("--proxy must be http://HOST:PORT here")),
            (None, Some(Listen::Tcp(address))) if address.port() != 0 => {
                let scheme = if config.tls.is_some() { Scheme::Https } else { Scheme::Http };
                let target = Target::parse(&address.to_string());
                target.map(|target| (scheme, target)).map_err(|_| needed("`listen` has no usable address"))
            }
            (None, Some(Listen::Tcp(_))) => {
                Err(needed("`listen` says port 0: which port the proxy got is not known here"))
            }
            (None, None) => Err(needed("`listen` is \"off\"")),
            (None, Some(Listen::Unix(_))) => Err(needed("`listen` is a Unix socket, which other programs cannot use")),
        }
    }

    fn print(&self, variables: &[(String, String)]) -> std::io::Result<()> {
        let mut stdout = std::io::stdout().lock();
        if self.json {
            let object: serde_json::Map<String, serde_json::Value> =
                variables.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
            return writeln!(stdout, "{}", serde_json::Value::Object(object));
        }
        for (name, value) in variables {
            writeln!(stdout, "export {name}='{}'", value.replace('\'', r"'\''"))?;
        }
        for name in UNSET {
            writeln!(stdout, "unset {name}")?;
        }
        Ok(())
    }
}

fn presentation(holding: &Holding, audience: &str, ttl_s: u32) -> Result<String, Failure> {
    let capability = holding.capability.to_sealed().map_err(|error| Failure::of(&error))?;
    let context = Context::new(audience, Purpose::Presentation);
    let now = UnixSeconds::now();
    let proof = Proof::sign(&holding.key, &capability.sha256(), now, ttl_s, random::bytes()?, &context)
        .map_err(|error| Failure::of(&error))?;
    Ok(Credentials { capability, proof }.to_text())
}

/// The bundle stays as long as the home does: nobody knows when a shell that uses it ends.
fn write_bundle(home: &Home) -> Result<(PathBuf, PathBuf), Failure> {
    let ca = home.ca_certificate();
    let pem = fs::read_to_string(&ca).map_err(|source| StoreError::io("read", &ca, source))?;
    let folder = home.dir().join("run");
    let bundle = folder.join("bundle.pem");
    let new = folder.join(format!("bundle.{}", std::process::id()));
    let written = fs::create_dir_all(&folder)
        .and_then(|()| fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)))
        .and_then(|()| write_public(&new, merged(&pem).as_bytes()))
        // Replaced whole: another shell's programs may be reading it.
        .and_then(|()| fs::rename(&new, &bundle));
    written.map_err(|source| StoreError::io("write", &bundle, source))?;
    Ok((bundle, ca))
}

fn answers(proxy: &Target) -> bool {
    let addresses = proxy.to_string().to_socket_addrs();
    addresses.is_ok_and(|mut all| all.any(|address| TcpStream::connect_timeout(&address, LOOK_WITHIN).is_ok()))
}
