//! `capctl init`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use crate::capability::PublicKey;
use crate::clock::UnixSeconds;
use crate::config;
use crate::request::Host;
use crate::store::ca::Ca;
use crate::store::{Home, keys};

use super::failure::Failure;
use super::output::{home_option, say, write_private};
use super::root::verifies_only;

/// Makes a home: the local CA, the root key, a configuration with comments. What is there already stays.
#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  capctl init\n  capctl init --verifier --root 1=ed25519/…")]
pub(super) struct Args {
    /// Names that the local CA may sign for, each with what is below it; may be repeated. Else all
    #[arg(long, value_name = "HOST", value_parser = Host::parse)]
    only: Vec<Host>,
    /// A home that verifies what the --root keys signed, and never holds a root key itself
    #[arg(long, requires = "root")]
    verifier: bool,
    /// A public key whose capabilities count there, and its key id; may be repeated
    #[arg(long, value_name = "KID=PUBKEY", requires = "verifier", value_parser = root)]
    root: Vec<(u32, PublicKey)>,
}

impl Args {
    pub(super) fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        let roots = self.roots(home)?;
        home.create()?;
        let new_ca = Ca::create(home, &self.only, UnixSeconds::now())?;
        let own = if roots.is_none() { Some(keys::create_root(home)?) } else { None };
        let new_config = !home.config().exists();
        if new_config {
            let roots = roots.or_else(|| own.map(|(root, _)| BTreeMap::from([(1, root)]))).unwrap_or_default();
            write_private(&home.config(), &config::starter_of(&roots), false)?;
        }
        say(format_args!("home           {}", home.dir().display()));
        told("local CA", &home.ca_certificate().display(), new_ca);
        if !new_ca && !self.only.is_empty() {
            say(
                "the local CA was there already and signs for what it signed for; capctl ca rotate --only makes another",
            );
        }
        match &own {
            Some((root, new)) => told("root key", root, *new),
            None => told("root key", &"none: this home verifies what another's root key signed", false),
        }
        told("configuration", &home.config().display(), new_config);
        let flag = home_option(home);
        say("\nNext, an API and its key, then an agent that holds neither:");
        say(format_args!("  capctl{flag} service add github"));
        say(format_args!("  capctl{flag} secret set github"));
        let grant = if own.is_some() { "--allow github:read" } else { "--cap FILE --key FILE" };
        say(format_args!("  capctl{flag} run {grant} -- curl https://api.github.com/user"));
        Ok(ExitCode::SUCCESS)
    }

    /// The roots of a home that verifies; `None` for one that signs. What a home is, it stays.
    fn roots(&self, home: &Home) -> Result<Option<BTreeMap<u32, PublicKey>>, Failure> {
        let mut roots = BTreeMap::new();
        for (kid, key) in &self.root {
            if roots.insert(*kid, *key).is_some_and(|before| before != *key) {
                return Err(Failure::usage(format_args!("--root: two keys for the key id {kid}")));
            }
        }
        if self.verifier && [home.root_key(), home.root_public()].iter().any(|path| path.symlink_metadata().is_ok()) {
            return Err(Failure::new(format_args!("{} is a home with a root key: it signs", home.dir().display()))
                .hint("capctl --home DIR init --verifier …, with another DIR".to_owned()));
        }
        if !home.config().exists() {
            return Ok(self.verifier.then_some(roots));
        }
        let configured = super::capability::config(home)?;
        if self.verifier && configured.roots != roots {
            return Err(Failure::new("narrows.toml is there already, and its [roots] are not these")
                .hint(format!("edit [roots] in {}", home.config().display())));
        }
        Ok(verifies_only(home, &configured).then_some(configured.roots))
    }
}

/// `KID=PUBKEY`.
fn root(text: &str) -> Result<(u32, PublicKey), String> {
    let (kid, key) = text.split_once('=').ok_or("expected KID=PUBKEY, as in 1=ed25519/…")?;
    let kid = kid.parse().map_err(|_| format!("{kid:?} is no key id: a number is expected"))?;
    Ok((kid, key.parse().map_err(|error| format!("{error}"))?))
}

fn told(what: &str, value: &dyn std::fmt::Display, new: bool) {
    say(format_args!("{what:<14} {value}{}", if new { "  (new)" } else { "" }));
}
