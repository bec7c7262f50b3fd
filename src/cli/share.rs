//! `capctl env --out`: what an agent needs that shares loopback with a listener of ours or a forwarder, as files to share
//! with it.
//!
//! Nothing in them is worth anything elsewhere: the listener or the forwarder holds the capability.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::config::{Config, Listen, Listener};
use crate::store::{Home, StoreError};

use super::capability::{chain, read};
use super::child::bundle::{merged, write_public};
use super::child::environment::{Environment, UNSET};
use super::failure::Failure;
use super::forward::LISTEN_DEFAULT;
use super::holding::ready_services;
use super::output::say;

/// How the file of variables is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// NAME=value as it is: what kubectl, compose and podman read
    Dotenv,
    /// Lines that a shell reads
    Export,
}

/// Through whom the agent acts.
pub(super) enum Via<'a> {
    /// A listener of this home.
    Listener(&'a str),
    /// A forwarder, which holds this capability.
    Forwarder(&'a Path),
}

/// Through whom, and where the files go.
pub(super) struct Share<'a> {
    pub(super) via: Via<'a>,
    /// The folder that is written.
    pub(super) out: &'a Path,
    /// Where the agent sees it.
    pub(super) at: &'a Path,
    pub(super) format: Format,
    /// The listener's or the forwarder's URL as the agent sees it; else the address of the configuration.
    pub(super) proxy: Option<String>,
}

impl Share<'_> {
    /// Writes `env`, `ca.pem` and `bundle.pem`.
    pub(super) fn run(&self, home: &Home, config: &Config) -> Result<ExitCode, Failure> {
        let (capability, url) = match self.via {
            Via::Listener(name) => {
                let listener = self.listener(config, name)?;
                let url = if listener.transparent { None } else { Some(self.url(listener)?) };
                (&*listener.capability, url)
            }
            Via::Forwarder(capability) => {
                let url = self.proxy.clone().unwrap_or_else(|| format!("http://{LISTEN_DEFAULT}"));
                (capability, Some(url))
            }
        };
        let chain = chain(&read(capability)?)?;
        let services = ready_services(home, config, &chain);
        let (bundle, ca) = (self.at.join("bundle.pem"), self.at.join("ca.pem"));
        let environment = Environment { proxy_url: url.as_deref(), bundle: &bundle, ca: &ca, services: &services };
        let variables = self.text(&environment.variables())?;
        let pem = home.ca_certificate();
        let pem = fs::read_to_string(&pem).map_err(|source| StoreError::io("read", &pem, source))?;
        let files = [("env", variables), ("bundle.pem", merged(&pem)), ("ca.pem", pem)];
        let written = fs::create_dir_all(self.out)
            .and_then(|()| files.iter().try_for_each(|(name, text)| replace(&self.out.join(name), text.as_bytes())));
        written.map_err(|error| Failure::new(format_args!("{} cannot be written: {error}", self.out.display())))?;
        say(format_args!("wrote env, ca.pem and bundle.pem to {}", self.out.display()));
        Ok(ExitCode::SUCCESS)
    }

    fn listener<'c>(&self, config: &'c Config, name: &str) -> Result<&'c Listener, Failure> {
        let found = config.listeners.iter().find(|listener| &*listener.name == name);
        found.ok_or_else(|| {
            let failure = Failure::usage(format_args!("narrows.toml has no [[listener]] called {name:?}"));
            config.listeners.iter().fold(failure, |failure, listener| {
                failure.hint(format!("capctl env --listener {} --out {}", listener.name, self.out.display()))
            })
        })
    }

    fn url(&self, listener: &Listener) -> Result<String, Failure> {
        let needed = |why: &str| {
            let hint = format!("capctl env --listener {} --out DIR --proxy http://127.0.0.1:7090", listener.name);
            Failure::usage(why).hint(hint)
        };
        match (&self.proxy, &listener.listen) {
            (Some(proxy), _) => Ok(proxy.clone()),
            (None, Listen::Unix(_)) => Err(needed("the listener is a Unix socket, which other programs cannot use")),
            (None, Listen::Tcp(address)) if address.port() == 0 || address.ip().is_unspecified() => {
                Err(needed("`listen` does not say where clients find the listener"))
            }
            (None, Listen::Tcp(address)) => Ok(format!("http://{address}")),
        }
    }

    fn text(&self, variables: &[(String, String)]) -> Result<String, Failure> {
        let mut text = String::new();
        for (name, value) in variables {
            if value.contains(['\n', '\r', '\0']) {
                return Err(Failure::new(format_args!(
                    "{name} has more than one line, which no file of variables can say"
                )));
            }
            // Writing to a String cannot fail.
            let _ = match self.format {
                Format::Dotenv => writeln!(text, "{name}={value}"),
                Format::Export => writeln!(text, "export {name}='{}'", value.replace('\'', r"'\''")),
            };
        }
        if self.format == Format::Export {
            for name in UNSET {
                let _ = writeln!(text, "unset {name}");
            }
        }
        Ok(text)
    }
}

/// Whole or not at all: a container that starts may be reading it.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new: PathBuf = path.with_extension(format!("{}.new", std::process::id()));
    write_public(&new, bytes).and_then(|()| fs::rename(&new, path))
}
