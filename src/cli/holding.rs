//! What a command holds: a capability and its holder's key, from files or made for this one run.

use std::path::{Path, PathBuf};

use nix::unistd::{User, geteuid};

use crate::capability::{
    Algorithm, AuthorityBlock, Capability, Chain, Grant, NarrowingBlock, ParamNames, PrivateKey, expires_at,
    grants_to_check, mint, narrow, rights_of,
};
use crate::clock::UnixSeconds;
use crate::config::Config;
use crate::service::{Service, WEB};
use crate::store::{Home, SecretStore, keys, random};

use super::capability::chain;
use super::failure::Failure;
use super::root;
use super::terms::grants;

/// An ephemeral capability lives for a working day.
const EPHEMERAL_S: u64 = 8 * 3600;

/// Whose capability, and what part of it.
#[derive(Debug, clap::Args)]
pub(super) struct HoldingArgs {
    /// The capability, as `capctl mint` or `capctl attenuate` wrote it
    #[arg(long, value_name = "FILE", requires = "key")]
    cap: Option<PathBuf>,
    /// The key of its holder
    #[arg(long, value_name = "FILE", requires = "cap")]
    key: Option<PathBuf>,
    /// What the command may do, such as `github:read repo=acme/widgets`; may be repeated. With --cap it narrows
    #[arg(long, value_name = "GRANT")]
    allow: Vec<String>,
}

/// A capability and the key of its last holder.
pub(super) struct Holding {
    pub(super) capability: Capability,
    pub(super) key: PrivateKey,
    chain: Chain,
}

impl HoldingArgs {
    /// Reads or makes it. `rest` of the command line follows the grants in what to type instead.
    pub(super) fn hold(
        &self,
        home: &Home,
        config: Option<&Config>,
        verb: &str,
        rest: &str,
    ) -> Result<Holding, Failure> {
        let names = config.map_or_else(ParamNames::any, |config| config.services.param_names());
        let grants = grants(&self.allow, &names)?;
        let (capability, key) = match (&self.cap, &self.key) {
            (Some(capability), Some(key)) => from_files(capability, key, &grants)?,
            _ if grants.is_empty() && config.is_some_and(|config| root::verifies_only(home, config)) => {
                return Err(nothing_held(verb, rest));
            }
            _ if grants.is_empty() => return Err(nothing_granted(config, verb, rest)),
            _ => ephemeral(home, config, &grants)?,
        };
        let chain = chain(&capability)?;
        if chain.holder() != key.public() {
            let holder = chain.holder();
            return Err(Failure::new(format!("the key is not that of the capability's holder, {holder}")));
        }
        Ok(Holding { capability, key, chain })
    }

    /// The key's file, when it lies where the command will be able to read it.
    pub(super) fn exposed_key(&self, home: &Home) -> Option<&Path> {
        let key = self.key.as_deref()?;
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        (!real(key).starts_with(real(home.dir()))).then_some(key)
    }

    /// The files that the holding is read from.
    pub(super) fn files(&self) -> impl Iterator<Item = PathBuf> {
        self.cap.iter().chain(&self.key).cloned()
    }
}

impl Holding {
    /// The granted services of this configuration.
    pub(super) fn services<'c>(&self, config: &'c Config) -> Vec<&'c Service> {
        let all = config.services.services().iter().map(AsRef::as_ref);
        all.filter(|service| self.chain.could_serve(service.name())).collect()
    }

    /// Those of them whose secret is in the store.
    pub(super) fn ready_services<'c>(&self, home: &Home, config: &'c Config) -> Vec<&'c Service> {
        ready_services(home, config, &self.chain)
    }
}

/// The services that this chain could be served by and whose secret is in the store: placeholders for others would only
/// hide what is missing.
pub(super) fn ready_services<'c>(home: &Home, config: &'c Config, chain: &Chain) -> Vec<&'c Service> {
    let stored = SecretStore::new(home).list().unwrap_or_default();
    let is_stored = |service: &&Service| service.credential().is_some_and(|name| stored.contains(name));
    let all = config.services.services().iter().map(AsRef::as_ref);
    all.filter(|service| chain.could_serve(service.name())).filter(is_stored).collect()
}

fn from_files(capability: &Path, key: &Path, grants: &[Grant]) -> Result<(Capability, PrivateKey), Failure> {
    let key = keys::read_private(key)?;
    let read = super::capability::read(capability)?;
    let Some(check) = check_of(grants)? else { return Ok((read, key)) };
    let block = NarrowingBlock { caveats: vec![check], budgets: Vec::new(), rates: Vec::new() };
    let narrowed = narrow(&read, &block, random::bytes()?).map_err(|error| Failure::of(&error))?;
    Ok((narrowed, key))
}

/// A capability in memory alone, signed by the home's own root, for a key that nobody else ever has.
fn ephemeral(home: &Home, config: Option<&Config>, grants: &[Grant]) -> Result<(Capability, PrivateKey), Failure> {
    let root = root::read(home, config)?;
    let roots = config.map(|config| &config.roots).into_iter().flatten();
    let kid = roots.into_iter().find(|(_, key)| *key == root.public()).map(|(kid, _)| *kid);
    let kid = kid.ok_or_else(|| {
        Failure::new("root.key is none of the [roots] of narrows.toml")
            .hint("capctl run --cap FILE --key FILE, with a capability from one of those roots".to_owned())
    })?;
    let key = keys::generate(Algorithm::Ed25519)?;
    let mut caveats = vec![expires_at(UnixSeconds::now() + EPHEMERAL_S)];
    caveats.extend(check_of(grants)?);
    let block = AuthorityBlock {
        holder: *key.public(),
        user: Some(user_name()),
        rights: rights_of(grants),
        caveats,
        budgets: Vec::new(),
        rates: Vec::new(),
    };
    let capability = mint(&root, kid, &block, random::bytes()?).map_err(|error| Failure::of(&error))?;
    Ok((capability, key))
}

fn check_of(grants: &[Grant]) -> Result<Option<String>, Failure> {
    grants_to_check(grants).map_err(|error| Failure::usage(error.to_string()))
}

/// Who runs this, for the journal.
fn user_name() -> String {
    let known = User::from_uid(geteuid()).ok().flatten().map(|user| user.name);
    known.unwrap_or_else(|| format!("uid {}", geteuid()))
}

/// No --cap where none can be made.
fn nothing_held(verb: &str, rest: &str) -> Failure {
    Failure::usage("this home verifies capabilities and makes none: give --cap and --key")
        .hint(format!("capctl {verb} --cap FILE --key FILE{rest}"))
}

/// Neither --cap nor --allow: what to type, for the services that are there.
fn nothing_granted(config: Option<&Config>, verb: &str, rest: &str) -> Failure {
    let failure = Failure::usage("nothing is allowed: give --allow, or --cap and --key");
    let services = config.map(|config| config.services.services()).unwrap_or_default();
    let line = |grant: &str| format!("capctl {verb} --allow {grant}{rest}");
    let mut failure = services
        .iter()
        .filter(|service| &**service.name() != WEB)
        .flat_map(|service| [format!("{}:read", service.name()), service.name().to_string()])
        .fold(failure, |failure, grant| failure.hint(line(&grant)));
    if services.iter().all(|service| &**service.name() == WEB) {
        failure = failure.hint("capctl service add github".to_owned()).hint(line(WEB));
    }
    failure
}
