//! The key that signs authority blocks: a home has one, or it verifies what another's signed.

use crate::capability::PrivateKey;
use crate::config::Config;
use crate::store::{Home, StoreError, keys};

use super::failure::Failure;
use super::output::home_option;

/// Whether this home only verifies: it has `[roots]`, and never had the key of one.
///
/// Where `root.pub` is left, `root.key` was lost: that is a mistake and no verifier.
pub(super) fn verifies_only(home: &Home, config: &Config) -> bool {
    let there = |path: std::path::PathBuf| path.symlink_metadata().is_ok();
    !config.roots.is_empty() && !there(home.root_key()) && !there(home.root_public())
}

/// The home's root key, to sign with.
pub(super) fn read(home: &Home, config: Option<&Config>) -> Result<PrivateKey, Failure> {
    keys::read_private(&home.root_key()).map_err(|error| match error {
        StoreError::Missing { .. } if config.is_some_and(|config| verifies_only(home, config)) => {
            Failure::new("this home verifies capabilities and holds no root key to sign one with").hint(
                "capctl mint where the root key is; here, capctl run --cap FILE --key FILE uses what it wrote"
                    .to_owned(),
            )
        }
        StoreError::Missing { .. } => Failure::from(error).hint("capctl init".to_owned()),
        _ => error.into(),
    })
}

/// What runs a command that may read from a service of this home.
pub(super) fn run_line(home: &Home, config: Option<&Config>, service: &str) -> String {
    let flag = home_option(home);
    match config {
        Some(config) if verifies_only(home, config) => format!("capctl{flag} run --cap FILE --key FILE -- COMMAND"),
        _ => format!("capctl{flag} run --allow {service}:read -- COMMAND"),
    }
}
