//! `capctl run`: a command behind a forwarder of its own.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::iter;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::Arc;

use crate::config::{AUDIENCE_DEFAULT, Config};
use crate::credential::SecretName;
use crate::forward::{Forwarder, Guests, Parts, Upstream};
#[cfg(target_os = "linux")]
use crate::net::listener::Listener;
use crate::process;
use crate::service::Service;
use crate::store::{Home, SecretStore};

use super::CHILD;
use super::channel::ChannelArgs;
use super::child::bundle::Bundle;
use super::child::environment::{Environment, UNSET, bypassed};
#[cfg(target_os = "linux")]
use super::child::mounts;
use super::child::signals::Signals;
#[cfg(target_os = "linux")]
use super::child::turnable::Turnable;
use super::failure::Failure;
use super::holding::HoldingArgs;
#[cfg(target_os = "linux")]
use super::isolate;
#[cfg(target_os = "linux")]
use super::isolate::door::{Door, List};
use super::keeper::{Keeper, warn};
#[cfg(target_os = "linux")]
use super::output::shell;

/// What is not protected without `--isolate`.
const NOT_ISOLATED: &str = "note: the command is not isolated: a program in it that ignores HTTPS_PROXY reaches every network and \
                            every service of this machine past the proxy (--isolate prevents that)";
/// What `--isolate=landlock` does not hold.
const LANDLOCK: &str = "note: --isolate=landlock holds less than --isolate: the command reaches the forwarder's port on every machine, \
                        sees which processes run, and may change modes of files that it cannot read (docs/run.md)";
/// Sockets that could not be found and are told by name; whoever makes more than that is not worth more lines.
#[cfg(target_os = "linux")]
const LOST_TOLD_MAX: usize = 8;

/// Run a command that holds a capability, never a key.
///
///   capctl run --allow 'github:read repo=acme/widgets' -- claude
///
/// The command gets proxy, certificate and placeholder variables; a forwarder on a loopback
/// port proves for it that it holds the capability. Without --cap, a capability for 8 hours is
/// made in memory from --allow. On Linux the home is hidden from the command, and with --isolate
/// nothing but the forwarder can be reached.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Run {
    #[command(flatten)]
    holding: HoldingArgs,
    /// The proxy: https://HOST:PORT, http://HOST:PORT or unix:PATH. Else the one that serves this home, else one inside
    /// this process
    #[arg(long, value_name = "URL")]
    proxy: Option<Upstream>,
    #[command(flatten)]
    channel: ChannelArgs,
    /// The name that the proxy's configuration gives it
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
    /// Cuts the command off from every network and service but its forwarder (Linux); an error where the kernel cannot
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "namespaces")]
    isolate: Option<Isolation>,
    /// A file or folder that an isolated command cannot see either, such as ~/.ssh; may be repeated
    #[arg(long, value_name = "PATH", requires = "isolate")]
    hide: Vec<PathBuf>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// What cuts the command off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Isolation {
    /// A network, processes and a view of the files of its own
    Namespaces,
    /// Where namespaces are forbidden: holds less, and says what
    Landlock,
}

impl Run {
    pub(super) fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        // What is not there now, and may come later, cannot be hidden.
        if let Some(missing) = self.hide.iter().find(|path| path.canonicalize().is_err()) {
            return Err(Failure::usage(format!("--hide {}: it is not there", missing.display())));
        }
        let core = process::conceal();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.map_err(|error| Failure::of(&error))?.block_on(self.supervise(home, core))
    }

    async fn supervise(self, home: &Home, core: Option<u64>) -> Result<ExitCode, Failure> {
        let config = self.config(home)?;
        #[cfg(target_os = "linux")]
        self.refuse_links(home, config.as_ref())?;
        let holding = self.holding.hold(home, config.as_ref(), "run", &self.rest())?;
        let ready: Vec<&Service> = config.as_ref().map(|c| holding.ready_services(home, c)).unwrap_or_default();
        let granted: Vec<&Service> = config.as_ref().map(|c| holding.services(c)).unwrap_or_default();
        let mut say = self.warnings(home, &granted);
        let withheld = withheld(home, &ready);
        say.extend(withheld.iter().map(|(name, secret)| {
            format!("warning: {} holds the secret {secret}: it is not passed to the command", name.display())
        }));
        let ca_pem = fs::read_to_string(home.ca_certificate())
            .map_err(|_| Failure::new(format!("{} cannot be read", home.ca_certificate().display())))
            .map_err(|failure| failure.hint("capctl init".to_owned()))?;
        let bundle = Bundle::write(&ca_pem, home.dir()).map_err(|error| Failure::of(&error))?;
        if let Some(hide) = self.hide.iter().find(|hide| bundle.is_in(hide)) {
            let why = format!("--hide {}: the command needs the certificates in it", hide.display());
            return Err(Failure::usage(why).hint("another TMPDIR puts them elsewhere".to_owned()));
        }

        process::survive_file_limit().map_err(|error| Failure::of(&error))?;
        let mut signals = Signals::catch().map_err(|error| Failure::of(&error))?;
        let (upstream, keeper) = match self.proxy.clone() {
            Some(proxy) => (proxy, None),
            None => (Upstream::Unix(home.socket()), Some(Keeper::start(home).await?)),
        };
        let audience = self.audience.as_deref().or(config.as_ref().map(|config| &*config.audience));
        let audience = Arc::from(audience.unwrap_or(AUDIENCE_DEFAULT));
        let revival = keeper.as_ref().map(Keeper::revival);
        let parts = Parts {
            upstream,
            capability: holding.capability.clone(),
            key: holding.key,
            audience,
            revival,
            notify: warn,
            client_end: self.channel.read()?,
            listener: None,
            guests: Guests::Password,
        };
        let mut hidden = self.private(home, config.as_ref());
        hidden.extend(self.hide.iter().cloned());
        let before = identity(home);
        let outfit = Outfit { bundle: &bundle, services: &ready, say: &say, core, withheld };
        // The holder's key has its place.
        let _ = process::lock_memory();
        let Running { forwarder, mut child, pid } = match self.isolate {
            Some(Isolation::Namespaces) => self.apart(&hidden, parts, &outfit).await?,
            Some(Isolation::Landlock) => self.restricted(&hidden, parts, &outfit).await?,
            None => self.beside(home, parts, &outfit).await?,
        };
        let ended = tokio::select! {
            ended = child.wait() => ended,
            () = signals.pass_to(pid) => child.wait().await,
        };
        if identity(home) != before {
            let home = home.dir().display();
            warn(&format!("{home} is not the folder that it was before the command: do not use it until you know why"));
        }
        if let Some(forwarder) = forwarder {
            forwarder.stop().await;
        }
        if let Some(keeper) = keeper {
            keeper.stop(&mut signals).await;
        }
        Ok(exit_code(ended.map_err(|error| Failure::of(&error))?))
    }

    /// What an isolated command must never see: the home, and what belongs to it and lies elsewhere.
    fn private(&self, home: &Home, config: Option<&Config>) -> Vec<PathBuf> {
        let mut hidden = vec![home.dir().to_owned()];
        hidden.extend(home.links_outside());
        if let Some(config) = config {
            hidden.push(config.journal_dir.clone());
            hidden.extend(config.listeners.iter().flat_map(|it| [it.capability.clone(), it.key.clone()]));
            hidden.extend(config.tls.iter().map(|tls| tls.key.clone()));
        }
        hidden.extend(self.holding.files().chain(self.channel.private()));
        hidden
    }

    /// A link that the command could turn elsewhere would have the next command find another home. Landlock holds it.
    #[cfg(target_os = "linux")]
    fn refuse_links(&self, home: &Home, config: Option<&Config>) -> Result<(), Failure> {
        if self.isolate != Some(Isolation::Namespaces) {
            return Ok(());
        }
        let Some(met) = Turnable::among(&self.private(home, config)).into_iter().next() else { return Ok(()) };
        let (path, link, real) = (met.path.display(), met.link.display(), met.real());
        let why =
            format!("--isolate: the way to {path} leads over the link {link}, which the command could turn elsewhere");
        Err(Failure::new(why).hint(format!("name it without the link, here and in variables: {}", shell(&real))))
    }

    /// The command in the machine's own network, with the home hidden where that is possible.
    async fn beside(&self, home: &Home, parts: Parts, outfit: &Outfit<'_>) -> Result<Running, Failure> {
        let forwarder = Forwarder::start(parts).await.map_err(|error| Failure::of(&error))?;
        Running::start(self.child(home, outfit)?, forwarder, outfit)
    }

    /// The command in the machine's own network, held by Landlock.
    #[cfg(target_os = "linux")]
    async fn restricted(&self, hidden: &[PathBuf], parts: Parts, outfit: &Outfit<'_>) -> Result<Running, Failure> {
        let failed = |error: io::Error| Failure::of(&error);
        let folder = outfit.bundle.folder();
        // No Unix socket is made in there: those of the machine may be seen. What is left out beside the hidden cannot be
        // changed, a link not turned.
        let links = Turnable::among(hidden).into_iter().flat_map(|met| mounts::everywhere(&met.link));
        let list = List::write(folder, hidden, &links.collect::<Vec<_>>()).map_err(failed)?;
        let forwarder = Forwarder::start(parts).await.map_err(|error| Failure::of(&error))?;
        let (own, port) =
            (std::env::current_exe().map_err(failed)?, forwarder.address().map_or(0, |address| address.port()));
        let command = isolate::restricted(&own, (folder, &list), port, outfit.core, outfit.say, &self.command);
        Running::start(command, forwarder, outfit)
    }

    /// The command in namespaces of its own, from which only the forwarder can be reached.
    #[cfg(target_os = "linux")]
    async fn apart(&self, hidden: &[PathBuf], mut parts: Parts, outfit: &Outfit<'_>) -> Result<Running, Failure> {
        let failed = |error: io::Error| Failure::of(&error);
        let door = Door::open(outfit.bundle.folder(), hidden).map_err(failed)?;
        let own = std::env::current_exe().map_err(failed)?;
        let lost = door.lost().iter().take(LOST_TOLD_MAX).map(|name| {
            let name = name.escape_debug();
            format!("warning: some process has a Unix socket {name} in a folder that is not known: it is not hidden")
        });
        let say: Vec<String> = outfit.say.iter().cloned().chain(lost).collect();
        let mut command = isolate::command(&own, &door, outfit.core, &say, &self.command);
        outfit.strip(&mut command);
        let mut child = tokio::process::Command::from(command).spawn().map_err(failed)?;
        let number = child.id().unwrap_or_default();
        let guest = tokio::select! {
            guest = door.meet(number) => guest.map_err(failed)?,
            // It has said why.
            _ = child.wait() => return Ok(Running { forwarder: None, child, pid: 0 }),
        };
        let pid = guest.pid;
        parts.listener = Some(guest.listener.try_clone().and_then(Listener::inherited).map_err(failed)?);
        let forwarder = Forwarder::start(parts).await.map_err(|error| Failure::of(&error))?;
        guest.equip(&outfit.variables(&forwarder)).await.map_err(failed)?;
        Ok(Running { forwarder: Some(forwarder), child, pid })
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unused_async, reason = "as on Linux")]
    async fn apart(&self, _: &[PathBuf], _: Parts, _: &Outfit<'_>) -> Result<Running, Failure> {
        Err(Failure::new("--isolate needs Linux").hint("without it the command may go past the proxy".to_owned()))
    }

    #[cfg(not(target_os = "linux"))]
    async fn restricted(&self, hidden: &[PathBuf], parts: Parts, outfit: &Outfit<'_>) -> Result<Running, Failure> {
        self.apart(hidden, parts, outfit).await
    }

    /// The command as it is typed after the grants.
    fn rest(&self) -> String {
        let words: Vec<_> = self.command.iter().map(|word| word.to_string_lossy()).collect();
        format!(" -- {}", words.join(" "))
    }

    /// The home's configuration. A capability for another proxy needs none.
    fn config(&self, home: &Home) -> Result<Option<Config>, Failure> {
        if home.config().exists() {
            home.check()?;
        }
        match Config::load(home) {
            Ok(config) => Ok(Some(config)),
            Err(_) if self.proxy.is_some() && !home.config().exists() => Ok(None),
            Err(_) if !home.config().exists() => {
                let at = home.dir().display();
                Err(Failure::new(format!("there is no home at {at}")).hint("capctl init".to_owned()))
            }
            Err(problems) => {
                let first = problems.first().map(ToString::to_string).unwrap_or_default();
                Err(Failure::new(first).hint("narrows --check lists every problem".to_owned()))
            }
        }
    }

    /// What a person should know before the command fills their screen.
    fn warnings(&self, home: &Home, granted: &[&Service]) -> Vec<String> {
        let mut say = Vec::new();
        if let Some(key) = self.holding.exposed_key(home).filter(|_| self.isolate.is_none()) {
            let key = key.display();
            say.push(format!(
                "warning: the agent can read the holder's key {key}: keep it in {}",
                home.dir().display()
            ));
        }
        #[cfg(target_os = "linux")]
        if self.isolate == Some(Isolation::Namespaces) {
            say.extend(Turnable::among(&self.hide).iter().map(|met| {
                let (path, link, real) = (met.path.display(), met.link.display(), met.real());
                format!(
                    "warning: --hide {path}: the command can turn the link {link}, and the next one would not be kept from {0}: name {0}",
                    shell(&real)
                )
            }));
        }
        #[cfg(target_os = "linux")]
        if self.isolate.is_none() {
            say.extend(Turnable::among(&[home.dir().to_owned()]).first().map(|met| {
                let (home, link, real) = (met.path.display(), met.link.display(), met.real());
                format!(
                    "warning: the agent can put another home in the place of {home} by the link {link}: NARROWS_HOME={}",
                    shell(&real)
                )
            }));
        }
        if self.isolate.is_some() && nix::unistd::geteuid().is_root() {
            say.push(
                "warning: the command runs as root: files that it changes may be run outside, by cron for one"
                    .to_owned(),
            );
        }
        let mut passed: Vec<String> = ["NO_PROXY", "no_proxy"]
            .iter()
            .filter_map(std::env::var_os)
            .flat_map(|inherited| bypassed(&inherited, granted))
            .collect();
        passed.dedup();
        if !passed.is_empty() {
            say.push(format!("warning: NO_PROXY named {}: it is replaced for this command", passed.join(", ")));
        }
        match self.isolate {
            None => say.push(NOT_ISOLATED.to_owned()),
            Some(Isolation::Landlock) => say.push(LANDLOCK.to_owned()),
            Some(Isolation::Namespaces) => {}
        }
        say
    }

    /// This program again, which hides the home and then becomes the command.
    fn child(&self, home: &Home, outfit: &Outfit<'_>) -> Result<Command, Failure> {
        let own = std::env::current_exe().map_err(|error| Failure::of(&error))?;
        let mut command = Command::new(own);
        command.arg(CHILD);
        if home.dir().exists() {
            for path in iter::once(home.dir().to_owned()).chain(home.links_outside()) {
                command.arg("--hide").arg(path);
            }
        }
        for line in outfit.say {
            command.arg("--say").arg(line);
        }
        if let Some(core) = outfit.core {
            command.args(["--core", &core.to_string()]);
        }
        command.arg("--").args(&self.command);
        Ok(command)
    }
}

/// What the command gets.
struct Outfit<'a> {
    bundle: &'a Bundle,
    services: &'a [&'a Service],
    /// What is said on stderr before it starts.
    say: &'a [String],
    /// How large its core may be.
    core: Option<u64>,
    /// Variables that it does not get, for the secrets in them.
    withheld: Vec<(OsString, SecretName)>,
}

impl Outfit<'_> {
    /// Takes away what the command must not have.
    fn strip(&self, command: &mut Command) {
        for (name, _) in &self.withheld {
            command.env_remove(name);
        }
    }

    fn variables(&self, forwarder: &Forwarder) -> Vec<(String, String)> {
        let (bundle, ca) = (&*self.bundle.roots, &*self.bundle.ca);
        Environment { proxy_url: Some(forwarder.url()), bundle, ca, services: self.services }.variables()
    }
}

/// The command, on its way.
struct Running {
    /// None when the command was never reached.
    forwarder: Option<Forwarder>,
    /// Ends with the command's status.
    child: tokio::process::Child,
    /// The command's own number, for signals.
    pid: u32,
}

impl Running {
    /// A command that is started with all its variables.
    fn start(mut command: Command, forwarder: Forwarder, outfit: &Outfit<'_>) -> Result<Self, Failure> {
        outfit.strip(&mut command);
        command.envs(outfit.variables(&forwarder));
        for name in UNSET {
            command.env_remove(name);
        }
        let child = tokio::process::Command::from(command).spawn().map_err(|error| Failure::of(&error))?;
        let pid = child.id().unwrap_or_default();
        Ok(Self { forwarder: Some(forwarder), child, pid })
    }
}

/// Inherited variables that hold a secret of the store, and which: what the proxy keeps from the command would be in its
/// hands. One that a placeholder will replace is not told.
fn withheld(home: &Home, ready: &[&Service]) -> Vec<(OsString, SecretName)> {
    // A store that cannot be read is told by the proxy that needs it.
    let stored = SecretStore::new(home).load().unwrap_or_default();
    let replaced = |name: &OsString| ready.iter().any(|service| service.env().iter().any(|(own, _)| name == &**own));
    let held = |value: &OsString| stored.iter().find(|(_, secret)| secret.is_in(value.as_bytes()));
    let variables = std::env::vars_os().filter(|(name, _)| !replaced(name));
    variables.filter_map(|(name, value)| Some((name, held(&value)?.0.clone()))).collect()
}

/// Which folder the home is now: its device and its number there.
fn identity(home: &Home) -> Option<(u64, u64)> {
    home.dir().metadata().ok().map(|found| (found.dev(), found.ino()))
}

/// The command's own status; 128 and the signal's number when one ended it, as shells have it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
