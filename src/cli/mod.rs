//! `capctl`: everything a person types, one file per verb.

mod child;
mod env;
mod failure;
mod holding;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::store::Home;

/// The hidden verb that `run` starts: between it and the command.
const CHILD: &str = "__child";

/// Give an agent a capability, never a key.
#[derive(Debug, Parser)]
#[command(name = "capctl", version)]
struct Capctl {
    /// The folder of everything; else NARROWS_HOME, else the platform's data folder
    #[arg(long, value_name = "DIR", global = true)]
    home: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(run::Run),
    Env(env::Env),
    #[command(name = CHILD, hide = true)]
    Child(child::hide::Become),
}

/// Does what the process's arguments say. Exit status 0 ok, 1 failed, 2 usage.
#[must_use]
pub fn main() -> ExitCode {
    let Capctl { home, verb } = Capctl::parse();
    let done = Home::locate(home.as_deref()).map_err(failure::Failure::from).and_then(|home| match verb {
        Verb::Run(run) => run.run(&home),
        Verb::Env(env) => env.run(&home),
        Verb::Child(child) => Ok(child.run()),
    });
    done.unwrap_or_else(failure::Failure::tell)
}
