//! What may change while the proxy runs: one immutable snapshot, swapped whole.
//!
//! A request takes the snapshot once and is decided under it; nothing it reads can change in between. A live exchange
//! notices a newer one within a second.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{ClientConfig, RootCertStore};

use super::holding::{Holding, Holdings};
use super::inbound::Served;
use crate::capability::{Revocations, Roots};
use crate::config::Config;
use crate::credential::{Secret, SecretName};
use crate::net::channel::ServerEnd;
use crate::net::dial::DialRules;
use crate::net::trust::{self, Offer, TrustError};
use crate::request::{Scheme, Target};
use crate::service::{Binding, Injectors, Router, Scrubbing, Service, Used};

/// By service.
type Known = BTreeMap<Arc<str>, Vec<Used>>;

/// So many values are looked for in the answers of one service: the one in use and those before it.
const KNOWN_MAX: usize = 4;
/// So many ways in which one of them went in before are remembered.
const WAYS_MAX: usize = 4;

/// The current snapshot.
#[derive(Debug)]
pub struct Live(ArcSwap<Snapshot>);

impl Live {
    /// Starts with this snapshot.
    #[must_use]
    pub fn new(first: Snapshot) -> Self {
        Self(ArcSwap::from_pointee(first))
    }

    /// The snapshot of this moment.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// The number of the snapshot of this moment.
    pub(super) fn epoch(&self) -> u64 {
        self.0.load().epoch
    }

    /// Revokes now, whatever becomes of the rest of the configuration. What was revoked stays so as long as the process
    /// lives; returns how much of it the list does not say any more.
    pub fn revoke(&self, revocations: &Revocations) -> usize {
        let mut all = revocations.clone();
        let (known, before) = (self.0.load(), revocations.len());
        let lost = all.keep(&known.revocations);
        if before + lost == known.revocations.len() {
            return lost;
        }
        let all = Arc::new(all);
        self.0.rcu(|now| Snapshot {
            epoch: now.epoch + 1,
            revocations: Arc::clone(&all),
            config: Arc::clone(&now.config),
            injectors: Arc::clone(&now.injectors),
            known: Arc::clone(&now.known),
            holdings: Arc::clone(&now.holdings),
            server_end: now.server_end.clone(),
            roots: now.roots.clone(),
            dial_rules: now.dial_rules.clone(),
            trusted: Arc::clone(&now.trusted),
            client_tls: now.client_tls.clone(),
            ..**now
        });
        lost
    }

    /// Takes effect with the next request, and within a second for what is under way.
    pub fn replace(&self, next: Snapshot) {
        self.0.store(Arc::new(next));
    }
}

/// What a snapshot is made of.
pub struct SnapshotParts {
    /// The configuration: its services are routed to.
    pub config: Arc<Config>,
    /// The secrets that its services name.
    pub secrets: BTreeMap<SecretName, Arc<Secret>>,
    /// What the proxy holds for the clients of listeners.
    pub holdings: Holdings,
    /// What it shows to clients that come by TLS.
    pub server_end: Option<Arc<ServerEnd>>,
    /// Whose authority blocks count.
    pub roots: Roots,
    /// What is revoked.
    pub revocations: Revocations,
    /// How upstreams are dialled.
    pub dial_rules: DialRules,
    /// Whom the proxy trusts upstream.
    pub trusted: Arc<RootCertStore>,
}

/// Names no secret.
impl std::fmt::Debug for SnapshotParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotParts").field("secrets", &self.secrets.len()).finish_non_exhaustive()
    }
}

/// Configuration, secrets, roots and revocations of one moment.
#[derive(Debug)]
pub struct Snapshot {
    epoch: u64,
    roots_epoch: u64,
    trust_epoch: u64,
    config: Arc<Config>,
    injectors: Arc<Injectors>,
    /// Newest first: the values that upstreams may have learned from this process.
    known: Arc<Known>,
    holdings: Arc<Holdings>,
    server_end: Option<Arc<ServerEnd>>,
    roots: Roots,
    revocations: Arc<Revocations>,
    dial_rules: DialRules,
    trusted: Arc<RootCertStore>,
    /// One TLS configuration for each credential and offer, so that no session is resumed across credentials.
    client_tls: HashMap<Option<SecretName>, ClientTls>,
}

#[derive(Debug, Clone)]
struct ClientTls {
    any: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
}

impl Snapshot {
    /// The first snapshot of a process.
    ///
    /// # Errors
    /// [`TrustError`] when TLS towards upstreams cannot be set up.
    pub fn first(parts: SnapshotParts) -> Result<Self, TrustError> {
        Self::build(parts, None)
    }

    /// The snapshot after this one, in which is revoked what was revoked in this one. Epochs move only for what did change,
    /// so that caches and kept connections of the rest stay good.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn next(&self, parts: SnapshotParts) -> Result<Self, TrustError> {
        Self::build(parts, Some(self))
    }

    fn build(parts: SnapshotParts, before: Option<&Self>) -> Result<Self, TrustError> {
        let SnapshotParts { config, secrets, holdings, server_end, roots, mut revocations, dial_rules, trusted } =
            parts;
        if let Some(before) = before {
            revocations.keep(&before.revocations);
        }
        let known = known(&config.services, &secrets, before.map(|before| &*before.known));
        let injectors = Injectors::with_known(
            &config.services,
            |name| secrets.get(name).cloned(),
            |service| known.get(service.name()).cloned().unwrap_or_default(),
        );
        let same_trust =
            before.filter(|before| same_roots(&before.trusted, &trusted) && before.dial_rules == dial_rules);
        let client_tls = client_tls(&config.services, &trusted, same_trust)?;
        Ok(Self {
            epoch: before.map_or(0, |before| before.epoch + 1),
            roots_epoch: before.map_or(0, |before| before.roots_epoch + u64::from(before.roots != roots)),
            trust_epoch: before.map_or(0, |before| before.trust_epoch + u64::from(same_trust.is_none())),
            config,
            injectors: Arc::new(injectors),
            known: Arc::new(known),
            holdings: Arc::new(holdings),
            server_end,
            roots,
            revocations: Arc::new(revocations),
            dial_rules,
            trusted,
            client_tls,
        })
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn roots_epoch(&self) -> u64 {
        self.roots_epoch
    }

    pub(super) fn trust_epoch(&self) -> u64 {
        self.trust_epoch
    }

    /// Whose authority blocks count.
    #[must_use]
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// What it shows to clients that come by TLS.
    #[must_use]
    pub fn server_end(&self) -> Option<&Arc<ServerEnd>> {
        self.server_end.as_ref()
    }

    pub(super) fn holdings(&self) -> &Holdings {
        &self.holdings
    }

    pub(super) fn holding(&self, listener: &str) -> Option<&Holding> {
        self.holdings.get(listener)
    }

    /// The services in use.
    #[must_use]
    pub fn router(&self) -> &Router {
        &self.config.services
    }

    /// Names of credentials that services name and the store does not have.
    #[must_use]
    pub fn missing_secrets(&self) -> Vec<&SecretName> {
        self.injectors.missing()
    }

    pub(super) fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    pub(super) fn served(&self, scheme: Scheme, target: &Target) -> Served {
        Served::of(self.config.services.route(scheme, &target.host, target.port))
    }

    /// What goes into a request to the endpoint, if it is this snapshot's.
    pub(super) fn binding(&self, served: &Served) -> Option<Binding<'_>> {
        match served {
            Served::Named { endpoint, .. } => self.injectors.binding(endpoint),
            Served::Web | Served::Nobody => Some(Binding::Nothing),
        }
    }

    /// How answers from the endpoint are scrubbed, if it is this snapshot's.
    pub(super) fn scrubbing(&self, served: &Served) -> Option<&Scrubbing> {
        match served {
            Served::Named { endpoint, .. } => self.injectors.scrubbing(endpoint),
            Served::Web | Served::Nobody => None,
        }
    }

    pub(super) fn dial_rules(&self) -> &DialRules {
        &self.dial_rules
    }

    pub(super) fn client_tls(&self, credential: Option<&SecretName>, offer: Offer) -> Option<&Arc<ClientConfig>> {
        let tls = self.client_tls.get(&credential.cloned())?;
        Some(match offer {
            Offer::Any => &tls.any,
            Offer::Http1 => &tls.http1,
        })
    }

    pub(super) fn serves_port(&self, port: u16) -> bool {
        self.config.services.serves_port(port)
    }

    pub(super) fn is_plain_tunnel(&self, target: &Target) -> bool {
        match self.served(Scheme::Https, target) {
            Served::Named { service, .. } => !service.terminate(),
            Served::Web | Served::Nobody => false,
        }
    }

    pub(super) fn speaks_http(&self, target: &Target) -> bool {
        self.config.services.scheme_of(&target.host, target.port) == Some(Scheme::Http)
    }
}

/// What upstreams know: the values of now, and the last ones before, also of a credential that the store lost or that the
/// service has no more. A tunnel may have used any of them.
fn known(router: &Router, now: &BTreeMap<SecretName, Arc<Secret>>, before: Option<&Known>) -> Known {
    let nothing = Known::new();
    let before = before.unwrap_or(&nothing);
    let of_service = |service: &Service| {
        let own = before.get(service.name()).into_iter().flatten();
        // A service may have had another name.
        let others = before.values().flatten().filter(|used| service.credential() == Some(&used.name));
        let mut all: Vec<Used> = Used::now(service, |name| now.get(name).cloned()).into_iter().collect();
        let current: usize = all.iter().map(|used| used.injections.len()).sum();
        for used in own.chain(others) {
            match all.iter_mut().find(|known| known.secret.is_same_as(&used.secret)) {
                Some(known) => known.add(&used.injections),
                None => all.push(used.clone()),
            }
        }
        all.truncate(KNOWN_MAX);
        for used in &mut all {
            used.injections.truncate(current + WAYS_MAX);
        }
        (Arc::clone(service.name()), all)
    };
    router.services().iter().map(|service| of_service(service)).collect()
}

fn same_roots(before: &Arc<RootCertStore>, after: &Arc<RootCertStore>) -> bool {
    Arc::ptr_eq(before, after) || before.roots == after.roots
}

fn client_tls(
    router: &Router,
    trusted: &Arc<RootCertStore>,
    before: Option<&Snapshot>,
) -> Result<HashMap<Option<SecretName>, ClientTls>, TrustError> {
    let named = router.services().iter().map(|service| service.credential().cloned());
    let mut all = HashMap::new();
    for credential in named.chain([None]) {
        if all.contains_key(&credential) {
            continue;
        }
        let kept = before.and_then(|before| before.client_tls.get(&credential)).cloned();
        let tls = match kept {
            Some(tls) => tls,
            None => ClientTls {
                any: trust::client_config(trusted, Offer::Any)?,
                http1: trust::client_config(trusted, Offer::Http1)?,
            },
        };
        all.insert(credential, tls);
    }
    Ok(all)
}
