//! Capability files: reading one, writing one.

use std::path::{Path, PathBuf};

use crate::capability::{Capability, Chain, Limits};
use crate::config::Config;
use crate::store::{Home, private};

use super::failure::Failure;
use super::output::{print, say, write_private};

/// Where a new capability goes.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct OutArgs {
    /// Writes the capability to this file (0600); stdout otherwise
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    /// Replaces the file if it is there
    #[arg(long, requires = "out")]
    force: bool,
}

impl OutArgs {
    pub(super) fn write(&self, capability: &Capability) -> Result<(), Failure> {
        match &self.out {
            Some(path) => {
                write_private(path, &(capability.to_text() + "\n"), self.force)?;
                say(format_args!("wrote {}", path.display()));
                Ok(())
            }
            None => print(capability.to_text()),
        }
    }
}

/// Reads a capability file, whose readers must be few: with the key beside it, it is authority.
pub(super) fn read(path: &Path) -> Result<Capability, Failure> {
    let bytes = private::read(path)?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    Capability::from_text(text.trim()).map_err(|error| {
        Failure::new(format_args!("{} holds no capability: {error}", path.display()))
            .hint("capctl mint and capctl attenuate write them".to_owned())
    })
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
            say(problem);
        }
        Failure::new("the configuration has problems").hint("mend them; narrows --check shows what is left".to_owned())
    })
}
