//! `capctl init`.

use std::process::ExitCode;

use crate::clock::UnixSeconds;
use crate::config;
use crate::request::Host;
use crate::store::ca::Ca;
use crate::store::{Home, keys};

use super::failure::Failure;
use super::output::{say, shell, write_private};

/// Makes a home: the local CA, the root key, a configuration with comments. What is there already stays.
#[derive(Debug, clap::Args)]
#[command(before_help = "Example:\n  capctl init")]
pub(super) struct Args {
    /// Names that the local CA may sign for, each with what is below it; may be repeated. Else all
    #[arg(long, value_name = "HOST", value_parser = Host::parse)]
    only: Vec<Host>,
}

impl Args {
    pub(super) fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        home.create()?;
        let new_ca = Ca::create(home, &self.only, UnixSeconds::now())?;
        let (root, new_root) = keys::create_root(home)?;
        let new_config = !home.config().exists();
        if new_config {
            write_private(&home.config(), &config::starter(&root), false)?;
        }
        say(format_args!("home           {}", home.dir().display()));
        told("local CA", &home.ca_certificate().display(), new_ca);
        if !new_ca && !self.only.is_empty() {
            say(
                "the local CA was there already and signs for what it signed for; capctl ca rotate --only makes another",
            );
        }
        told("root key", &root, new_root);
        told("configuration", &home.config().display(), new_config);
        let flag = if std::env::var_os("NARROWS_HOME").is_some()
            || Home::locate(None).is_ok_and(|it| it.dir() == home.dir())
        {
            String::new()
        } else {
            format!(" --home {}", shell(home.dir()))
        };
        say("\nNext, an API and its key, then an agent that holds neither:");
        say(format_args!("  capctl{flag} service add github"));
        say(format_args!("  capctl{flag} secret set github"));
        say(format_args!("  capctl{flag} run --allow github:read -- curl https://api.github.com/user"));
        Ok(ExitCode::SUCCESS)
    }
}

fn told(what: &str, value: &dyn std::fmt::Display, new: bool) {
    say(format_args!("{what:<14} {value}{}", if new { "  (new)" } else { "" }));
}
