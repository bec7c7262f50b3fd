//! `capctl`: everything a person types, one file for each verb.
//!
//! stdout is data, stderr is talk. A command says what it did and what to type next; one that fails says what and what
//! to type. Exit status: 0 done, 1 failed, 2 wrong usage, 3 denied; `run` gives the command's own.

mod admin;
mod attenuate;
mod audit;
mod ca;
mod capability;
mod channel;
mod child;
mod demo;
mod doctor;
mod env;
mod explain;
mod failure;
mod forward;
mod holding;
mod init;
mod inspect;
#[cfg(target_os = "linux")]
mod isolate;
mod keeper;
mod key;
mod manual;
mod mint;
mod output;
mod probe;
mod prove;
mod revoke;
mod root;
mod run;
mod secret;
mod service;
mod share;
mod terms;
#[cfg(target_os = "linux")]
mod transparent;
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::store::Home;
use failure::Failure;

/// The hidden verb that `run` starts: between it and the command.
const CHILD: &str = "__child";
/// The hidden verb of `run --isolate`: likewise, in namespaces.
#[cfg(target_os = "linux")]
const ISOLATED: &str = "__isolated";
/// The hidden verb of `doctor`: may this process leave?
#[cfg(target_os = "linux")]
const PROBE: &str = "__probe";

const EXAMPLES: &str = "Examples:
  capctl init                                              a home: CA, root key, configuration
  capctl service add github && capctl secret set github    an API and its key
  capctl run --allow github:read -- claude                 an agent that holds no key";

/// Gives AI agents capabilities, never keys.
#[derive(Debug, Parser)]
#[command(name = "capctl", version, before_help = EXAMPLES, max_term_width = 110)]
struct Capctl {
    /// The folder that holds everything [default: $NARROWS_HOME, else the platform's data folder]
    #[arg(long, global = true, value_name = "DIR")]
    home: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Init(init::Args),
    Demo(demo::Demo),
    Run(run::Run),
    Forward(forward::Args),
    #[command(subcommand)]
    Secret(secret::Verb),
    #[command(subcommand)]
    Service(service::Verb),
    #[command(subcommand)]
    Key(key::Verb),
    Mint(mint::Args),
    Attenuate(attenuate::Args),
    Inspect(inspect::Args),
    Explain(explain::Args),
    Prove(prove::Args),
    Env(env::Env),
    Revoke(revoke::Args),
    #[command(subcommand)]
    Audit(audit::Verb),
    #[command(subcommand)]
    Ca(ca::Verb),
    #[command(subcommand)]
    Admin(admin::Verb),
    #[cfg(target_os = "linux")]
    #[command(subcommand)]
    Transparent(transparent::Verb),
    Doctor(doctor::Args),
    Completions(manual::Completions),
    Man(manual::Man),
    #[command(name = CHILD, hide = true)]
    Child(child::hide::Become),
    #[cfg(target_os = "linux")]
    #[command(name = ISOLATED, hide = true)]
    Isolated(isolate::Isolated),
    #[cfg(target_os = "linux")]
    #[command(name = PROBE, hide = true)]
    Probe(isolate::trial::Probe),
}

impl Verb {
    /// Whether a secret or a private key comes into this process, and no command of the user's goes out of it.
    const fn reads_secrets(&self) -> bool {
        matches!(
            self,
            Self::Secret(_)
                | Self::Key(_)
                | Self::Mint(_)
                | Self::Attenuate(_)
                | Self::Prove(_)
                | Self::Forward(_)
                | Self::Env(_)
                | Self::Init(_)
                | Self::Admin(_)
                | Self::Doctor(_)
                | Self::Ca(_)
        )
    }
}

/// Does what the process's arguments say.
#[must_use]
pub fn main() -> ExitCode {
    crate::process::hush_panics("capctl");
    match Capctl::try_parse() {
        Ok(capctl) => capctl.run().unwrap_or_else(Failure::tell),
        Err(error) => usage::tell(&error),
    }
}

impl Capctl {
    fn run(self) -> Result<ExitCode, Failure> {
        if self.verb.reads_secrets() {
            crate::process::conceal();
        }
        let home = || Ok::<_, Failure>(Home::locate(self.home.as_deref())?);
        match self.verb {
            Verb::Init(args) => args.run(&home()?),
            Verb::Demo(demo) => demo.run(),
            Verb::Run(run) => run.run(&home()?),
            Verb::Forward(args) => args.run(home().ok().as_ref()),
            Verb::Secret(verb) => verb.run(&home()?),
            Verb::Service(verb) => verb.run(&home()?),
            Verb::Key(verb) => verb.run(),
            Verb::Mint(args) => args.run(&home()?),
            Verb::Attenuate(args) => args.run(home().ok().as_ref()),
            Verb::Inspect(args) => args.run(),
            Verb::Explain(args) => args.run(&home()?),
            Verb::Prove(args) => args.run(home().ok().as_ref()),
            Verb::Env(env) => env.run(&home()?),
            Verb::Revoke(args) => args.run(&home()?),
            Verb::Audit(verb) => verb.run(&home()?),
            Verb::Ca(verb) => verb.run(&home()?),
            Verb::Admin(verb) => verb.run(&home()?),
            #[cfg(target_os = "linux")]
            Verb::Transparent(verb) => verb.run(home()),
            Verb::Doctor(args) => args.run(&home()?),
            Verb::Completions(args) => Ok(args.run(Self::command())),
            Verb::Man(args) => args.run(Self::command()),
            Verb::Child(child) => Ok(child.run()),
            #[cfg(target_os = "linux")]
            Verb::Isolated(isolated) => Ok(isolated.run()),
            #[cfg(target_os = "linux")]
            Verb::Probe(probe) => Ok(probe.run()),
        }
    }
}
