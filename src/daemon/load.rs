//! From files to the parts of a snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::RootCertStore;

use crate::capability::{BadRevocation, Capability, Revocations, Roots};
use crate::clock::UnixSeconds;
use crate::config::{Config, Listener, Problem, Tls, Upstream, UpstreamRoots};
use crate::credential::{Secret, SecretName};
use crate::net::channel::{Identity, ServerEnd};
use crate::net::dial::DialRules;
use crate::net::trust::{self, RootSource, TrustError};
use crate::proxy::{Holding, Holdings, SnapshotParts};
use crate::store::revoked::Followed;
use crate::store::{Home, SecretStore, StoreError, keys, private};

/// Why a home's files cannot be served from.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The configuration, every problem of it.
    #[error("the configuration has {} problem(s)", .0.len())]
    Config(Vec<Problem>),
    /// A file of the home.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file of the revocation list.
    #[error(transparent)]
    RevocationFile(StoreError),
    /// The revocation list. Nothing may be judged by half of one.
    #[error("revoked.jsonl: {0}")]
    Revocations(#[from] BadRevocation),
    /// The roots that upstreams are trusted by.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// What is shown to clients on `listen`.
    #[error("[tls]: {0}")]
    Tls(String),
    /// What a listener holds for its clients.
    #[error("listener \"{listener}\": {problem}")]
    Holding {
        /// The listener's name.
        listener: Arc<str>,
        /// What is wrong with its files.
        problem: String,
        /// What to type, where that is known.
        hint: Option<String>,
    },
}

impl LoadError {
    /// What a person can type about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config(_) => Some("narrows --check lists every problem".to_owned()),
            Self::Store(error) | Self::RevocationFile(error) => error.hint(),
            Self::Revocations(_) => Some("mend or remove that line; capctl revoke writes good ones".to_owned()),
            Self::Trust(_) | Self::Tls(_) => None,
            Self::Holding { hint, .. } => hint.clone(),
        }
    }
}

/// Reads everything that may change while a proxy runs, but for `revocations`. `trusted` is reused where `[upstream]` says
/// nothing new, `server_end` where `[tls]` and its files do not.
///
/// # Errors
/// [`LoadError`]; nothing of a bad home is used.
pub fn load_snapshot_parts(
    home: &Home,
    config: &Arc<Config>,
    revocations: Revocations,
    trusted: Option<Arc<RootCertStore>>,
    server_end: Option<Arc<ServerEnd>>,
) -> Result<SnapshotParts, LoadError> {
    Ok(SnapshotParts {
        secrets: secrets(home, config)?,
        holdings: holdings(config)?,
        server_end: self::server_end(config, server_end)?,
        roots: Roots::new(config.roots.clone()),
        revocations,
        dial_rules: DialRules {
            connect_to: config.upstream.connect_to.clone(),
            allow_addresses: config.upstream.allow_addresses.clone(),
        },
        trusted: match trusted {
            Some(trusted) => trusted,
            None => roots(&config.upstream)?,
        },
        config: Arc::clone(config),
    })
}

/// The home's revocations as they stand, and the first line that is none.
pub(super) fn revocations(list: &mut Followed) -> Result<(Revocations, Option<BadRevocation>), LoadError> {
    let bytes = list.read().map_err(LoadError::RevocationFile)?;
    Ok(Revocations::of(bytes.split(|&byte| byte == b'\n')))
}

/// The same at a start, where nothing may be judged by half of a list.
pub(super) fn whole_revocations(list: &mut Followed) -> Result<Revocations, LoadError> {
    match revocations(list)? {
        (revocations, None) => Ok(revocations),
        (_, Some(bad)) => Err(bad.into()),
    }
}

/// When the secrets that services name were set, where the store knows.
pub(super) fn secret_times(home: &Home, config: &Config) -> BTreeMap<SecretName, UnixSeconds> {
    // The store has just been read; what is wrong with it was said then.
    let mut times = SecretStore::new(home).times().unwrap_or_default();
    times.retain(|name, _| is_named(config, name));
    times
}

fn is_named(config: &Config, name: &SecretName) -> bool {
    config.services.services().iter().any(|service| service.credential() == Some(name))
}

/// The secrets that services name, and no others: what nobody uses stays sealed.
pub(super) fn secrets(home: &Home, config: &Config) -> Result<BTreeMap<SecretName, Arc<Secret>>, LoadError> {
    let mut used = SecretStore::new(home).load()?;
    used.retain(|name, _| is_named(config, name));
    Ok(used.into_iter().map(|(name, secret)| (name, Arc::new(secret))).collect())
}

/// What is shown on `listen`; the one before where nothing has changed.
///
/// # Errors
/// [`LoadError::Tls`], [`LoadError::Store`].
pub fn server_end(config: &Config, before: Option<Arc<ServerEnd>>) -> Result<Option<Arc<ServerEnd>>, LoadError> {
    let Some(Tls { certificate, key, client_ca }) = &config.tls else { return Ok(None) };
    let text = |path| keys::read_text(path).map_err(LoadError::Store);
    let (shown, private) = (text(certificate)?, private::read(key)?);
    let identity = Identity { certificate: shown.as_bytes(), key: &private };
    let client_ca = client_ca.as_deref().map(text).transpose()?;
    let client_ca = client_ca.as_deref().map(str::as_bytes);
    if let Some(before) = before.filter(|before| before.is_of(identity, client_ca)) {
        return Ok(Some(before));
    }
    let server_end = ServerEnd::new(identity, client_ca).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        LoadError::Tls(format!("{error}{cause}"))
    })?;
    Ok(Some(Arc::new(server_end)))
}

/// The capabilities and keys of `[[listener]]`.
///
/// # Errors
/// [`LoadError::Holding`].
pub fn holdings(config: &Config) -> Result<Holdings, LoadError> {
    config.listeners.iter().map(|listener| Ok((Arc::clone(&listener.name), holding(listener)?))).collect()
}

pub(super) fn holding(listener: &Listener) -> Result<Holding, LoadError> {
    let failed = |problem: String, hint: Option<String>| LoadError::Holding {
        listener: Arc::clone(&listener.name),
        problem,
        hint,
    };
    let at = listener.capability.display();
    let minted = || Some(format!("capctl mint --to PUBKEY --user YOU --allow GRANT --expires 8h --out {at}"));
    let text = keys::read_text(&listener.capability)
        .map_err(|error| failed(error.to_string(), error.hint().or_else(minted)))?;
    let capability = Capability::from_text(text.trim())
        .map_err(|error| failed(format!("{at} holds no capability: {error}"), minted()))?;
    let key = keys::read_private(&listener.key).map_err(|error| failed(error.to_string(), error.hint()))?;
    Holding::new(&capability, key).map_err(|error| failed(error.to_string(), Some(format!("capctl inspect {at}"))))
}

pub(super) fn roots(upstream: &Upstream) -> Result<Arc<RootCertStore>, TrustError> {
    let source = match &upstream.roots {
        UpstreamRoots::System => RootSource::System,
        UpstreamRoots::Bundled => RootSource::Bundled,
        UpstreamRoots::Only(pem) => RootSource::Only(pem),
    };
    trust::roots(source, upstream.extra_ca_pem.as_deref())
}
