//! Capability files: reading one, writing one.

use std::path::{Path, PathBuf};

use crate::capability::{Capability, Chain, Limits};
use crate::config::Config;
use crate::store::{Home, keys};

use super::failure::Failure;
use super::output::{print_one, say, write_private};

/// Where a new capability goes.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct OutArgs {
    /// Writes the capability to this file (0600); stdout otherwise
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    /// Replaces the file if it is there
    #[arg(long, requires = "out")]
    force: bool,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl OutArgs {
    pub(super) fn write(&self, capability: &Capability) -> Result<(), Failure> {
        match &self.out {
            Some(path) => {
                write_private(path, &(capability.to_text() + "\n"), self.force)?;
                say(format_args!("wrote {}", path.display()));
                if self.json { print_one("out", path.display(), true) } else { Ok(()) }
            }
            None => print_one("capability", capability.to_text(), self.json),
        }
    }
}

/// Reads a capability file. It need not be private, as one that a shell wrote is not: without its holder's key, which
/// must be, it is worth nothing.
pub(super) fn read(path: &Path) -> Result<Capability, Failure> {
    let written = || "capctl mint and capctl attenuate write capabilities".to_owned();
    let text = keys::read_text(path).map_err(|error| Failure::from(error).hint(written()))?;
    Capability::from_text(text.trim())
        .map_err(|error| Failure::new(format_args!("{} holds no capability: {error}", path.display())).hint(written()))
}

/// What a capability says, unverified.
pub(super) fn chain(capability: &Capability) -> Result<Chain, Failure> {
    Chain::read(capability, &Limits::default())
        .map_err(|error| Failure::new(format_args!("the capability breaks a rule of its profile: {error}")))
}

/// The home's configuration, or every problem of it.
pub(super) fn config(home: &Home) -> Result<Config, Failure> {
    home.check()?;
    Config::load(home).map_err(|problems| {
        for problem in &problems {
            say(format_args!("capctl: error: {problem}"));
        }
        Failure::new("the configuration has problems").hint("mend them; narrows --check shows what is left".to_owned())
    })
}
