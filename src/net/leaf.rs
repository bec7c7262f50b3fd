//! Leaf certificates of the local CA, minted on demand for the one name of a CONNECT.
//!
//! All leaves of a process share one fresh key, which is not the CA's: minting is then one signature,
//! and what serves TLS never holds the key that could sign another name into being. A leaf is asked
//! for only after authentication, so strangers cannot make the proxy sign.
#![expect(clippy::disallowed_types, reason = "not on the path of a request: a leaf is asked for once for each tunnel")]

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, SanType,
    SerialNumber,
};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};

use super::provider::provider;
use crate::clock::UnixSeconds;
use crate::request::Host;

/// How long a leaf is good for. Short, and yet a tunnel of the longest age (12 h) ends before it.
const LEAF_LIFE_S: u64 = 7 * 24 * 3600;
/// A leaf with less life than this left is minted anew.
const LEAF_RENEW_S: u64 = 24 * 3600;
/// A client's clock may be this far behind ours.
const CLOCK_SLACK_S: u64 = 24 * 3600;
/// At most this many names are kept, about 4 KiB each; beyond it some are forgotten and minted again.
pub const LEAVES_MAX: usize = 4096;
/// RFC 5280 §4.1.2.2 allows 20 bytes; 16 random ones do not repeat.
const SERIAL_BYTES: usize = 16;
/// A common name is at most this long (RFC 5280, `ub-common-name`).
const COMMON_NAME_BYTES_MAX: usize = 64;

/// Why no leaf could be made: an operator's trouble, never a client's.
#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    /// The CA's certificate or key does not read, or they do not belong together.
    #[error("the local CA cannot be used")]
    Authority(#[source] rcgen::Error),
    /// The certificate could not be built or signed.
    #[error("a certificate could not be signed")]
    Sign(#[source] rcgen::Error),
    /// The TLS library refused the new key or certificate.
    #[error("a certificate could not be served")]
    Serve(#[from] rustls::Error),
    /// The system gave no randomness.
    #[error("no randomness from the system")]
    Random,
}

/// The local CA at work: a bounded cache of TLS server configurations, one per name.
pub struct LeafCache {
    authority: ArcSwap<Authority>,
    leaf_key: KeyPair,
    signing_key: Arc<dyn SigningKey>,
    provider: Arc<CryptoProvider>,
    ticketer: Arc<dyn ProducesTickets>,
    leaves: DashMap<Host, Arc<Leaf>>,
    /// How often a name's leaf was there, and was not.
    hits: AtomicU64,
    misses: AtomicU64,
}

/// How the cache of leaves does, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafCounts {
    /// Tunnels whose leaf was there.
    pub hits: u64,
    /// Tunnels for which one was minted, or waited for.
    pub misses: u64,
    /// Names in memory.
    pub entries: usize,
}

/// The CA that signs, and how many were before it.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    generation: u64,
}

/// One name's place in the cache: filled once, by the first who asks, while the others wait for it.
#[derive(Default)]
struct Leaf {
    made: OnceLock<Option<Minted>>,
}

#[derive(Clone)]
struct Minted {
    config: Arc<ServerConfig>,
    renew_at: UnixSeconds,
    /// Of the CA that signed it.
    generation: u64,
}

impl std::fmt::Debug for LeafCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeafCache").field("leaves", &self.leaves.len()).finish_non_exhaustive()
    }
}

impl LeafCache {
    /// Takes the CA's certificate and key (PEM) and makes the process's leaf key.
    ///
    /// # Errors
    /// [`LeafError::Authority`] when they do not read; [`LeafError::Serve`] when TLS cannot start.
    pub fn new(ca_certificate_pem: &str, ca_key_pem: &str) -> Result<Self, LeafError> {
        let issuer = issuer(ca_certificate_pem, ca_key_pem)?;
        let leaf_key = KeyPair::generate().map_err(LeafError::Sign)?;
        let der = PrivateKeyDer::try_from(leaf_key.serialize_der()).map_err(|_| LeafError::Random)?;
        let provider = Arc::new(provider());
        let signing_key = provider.key_provider.load_private_key(der)?;
        let ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        let authority = ArcSwap::from_pointee(Authority { issuer, generation: 0 });
        let [hits, misses] = [(); 2].map(|()| AtomicU64::new(0));
        Ok(Self { authority, leaf_key, signing_key, provider, ticketer, leaves: DashMap::new(), hits, misses })
    }

    /// Has another CA sign from now on; leaves of the one before are served no more.
    ///
    /// # Errors
    /// [`LeafError::Authority`] when it does not read: the one before stays.
    pub fn replace_authority(&self, ca_certificate_pem: &str, ca_key_pem: &str) -> Result<(), LeafError> {
        let issuer = issuer(ca_certificate_pem, ca_key_pem)?;
        let generation = self.authority.load().generation + 1;
        self.authority.store(Arc::new(Authority { issuer, generation }));
        self.leaves.clear();
        Ok(())
    }

    /// The TLS configuration that serves `host`, minted if need be: h2 and http/1.1 by ALPN, TLS 1.2
    /// and 1.3.
    ///
    /// # Errors
    /// [`LeafError`] when signing failed; nothing is cached then.
    pub fn config(&self, host: &Host, now: UnixSeconds) -> Result<Arc<ServerConfig>, LeafError> {
        if let Some(minted) = self.cached(host, now) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(minted.config);
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        self.make_room(now);
        let leaf = Arc::clone(&self.leaves.entry(host.clone()).or_default());
        let mut failure = None;
        let made = leaf.made.get_or_init(|| self.mint(host, now).map_err(|error| failure = Some(error)).ok());
        match (made, failure) {
            (Some(minted), _) => Ok(Arc::clone(&minted.config)),
            (None, failure) => {
                self.leaves.remove_if(host, |_, kept| Arc::ptr_eq(kept, &leaf));
                Err(failure.unwrap_or(LeafError::Random))
            }
        }
    }

    /// How it does.
    #[must_use]
    pub fn counts(&self) -> LeafCounts {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        LeafCounts { hits: count(&self.hits), misses: count(&self.misses), entries: self.leaves.len() }
    }

    fn cached(&self, host: &Host, now: UnixSeconds) -> Option<Minted> {
        let leaf = Arc::clone(&*self.leaves.get(host)?);
        let minted = leaf.made.get()?.clone()?;
        // One that was being made while the CA changed is of the CA before.
        if now < minted.renew_at && minted.generation == self.authority.load().generation {
            return Some(minted);
        }
        self.leaves.remove_if(host, |_, kept| Arc::ptr_eq(kept, &leaf));
        None
    }

    /// Keeps the cache below its bound: what has run out goes first, then whatever comes first.
    fn make_room(&self, now: UnixSeconds) {
        if self.leaves.len() < LEAVES_MAX {
            return;
        }
        let fresh = |leaf: &Leaf| leaf.made.get().and_then(Option::as_ref).is_some_and(|minted| now < minted.renew_at);
        self.leaves.retain(|_, leaf| fresh(leaf));
        let mut surplus = (self.leaves.len() + LEAVES_MAX / 8).saturating_sub(LEAVES_MAX);
        self.leaves.retain(|_, _| {
            let keep = surplus == 0;
            surplus = surplus.saturating_sub(1);
            keep
        });
    }

    fn mint(&self, host: &Host, now: UnixSeconds) -> Result<Minted, LeafError> {
        let params = leaf_params(host, now)?;
        let authority = self.authority.load();
        let certificate = params.signed_by(&self.leaf_key, &authority.issuer).map_err(LeafError::Sign)?;
        let certified = CertifiedKey::new(vec![certificate.der().clone()], Arc::clone(&self.signing_key));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Arc::clone(&self.ticketer);
        config.send_tls13_tickets = 1;
        config.ignore_client_order = true;
        let renew_at = now + (LEAF_LIFE_S - LEAF_RENEW_S);
        Ok(Minted { config: Arc::new(config), renew_at, generation: authority.generation })
    }
}

fn issuer(certificate_pem: &str, key_pem: &str) -> Result<Issuer<'static, KeyPair>, LeafError> {
    let key = KeyPair::from_pem(key_pem).map_err(LeafError::Authority)?;
    Issuer::from_ca_cert_pem(certificate_pem, key).map_err(LeafError::Authority)
}

fn leaf_params(host: &Host, now: UnixSeconds) -> Result<CertificateParams, LeafError> {
    let mut params = CertificateParams::default();
    let name = host.address().map_or_else(
        || host.as_str().try_into().map(SanType::DnsName).map_err(LeafError::Sign),
        |address: IpAddr| Ok(SanType::IpAddress(address)),
    )?;
    params.subject_alt_names = vec![name];
    params.distinguished_name = DistinguishedName::new();
    if host.as_str().len() <= COMMON_NAME_BYTES_MAX {
        params.distinguished_name.push(DnType::CommonName, host.as_str());
    }
    params.not_before = date_time(now - CLOCK_SLACK_S);
    params.not_after = date_time(now + LEAF_LIFE_S);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(random_serial()?);
    Ok(params)
}

fn random_serial() -> Result<SerialNumber, LeafError> {
    let mut serial = [0_u8; SERIAL_BYTES];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| LeafError::Random)?;
    if let Some(first) = serial.first_mut() {
        // A positive number of exactly this length (RFC 5280 §4.1.2.2).
        *first = *first & 0x7f | 0x40;
    }
    Ok(SerialNumber::from_slice(&serial))
}

fn date_time(moment: UnixSeconds) -> time::OffsetDateTime {
    let seconds = i64::try_from(moment.get()).unwrap_or(i64::MAX);
    time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, IsCa};

    fn cache() -> LeafCache {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a CA");
        LeafCache::new(&certificate.pem(), &key.serialize_pem()).expect("a cache")
    }

    fn host(name: &str) -> Host {
        Host::parse(name).expect("a host")
    }

    #[test]
    fn one_name_is_minted_once_until_it_is_due() {
        let cache = cache();
        let now = UnixSeconds(1_800_000_000);
        let first = cache.config(&host("api.test"), now).expect("a leaf");
        let again = cache.config(&host("api.test"), now + (LEAF_LIFE_S - LEAF_RENEW_S - 1)).expect("a leaf");
        assert!(Arc::ptr_eq(&first, &again));
        let renewed = cache.config(&host("api.test"), now + (LEAF_LIFE_S - LEAF_RENEW_S)).expect("a leaf");
        assert!(!Arc::ptr_eq(&first, &renewed));
        let other = cache.config(&host("other.test"), now).expect("a leaf");
        assert!(!Arc::ptr_eq(&first, &other));
    }

    #[test]
    fn many_threads_that_ask_at_once_share_one_leaf() {
        let cache = cache();
        let now = UnixSeconds(1_800_000_000);
        let configs: Vec<_> = std::thread::scope(|scope| {
            let asking: Vec<_> =
                (0..8).map(|_| scope.spawn(|| cache.config(&host("api.test"), now).expect("a leaf"))).collect();
            asking.into_iter().map(|thread| thread.join().expect("a thread")).collect()
        });
        assert!(configs.windows(2).all(|pair| Arc::ptr_eq(&pair[0], &pair[1])));
    }

    #[test]
    fn our_order_of_suites_decides() {
        let config = cache().config(&host("api.test"), UnixSeconds(1_800_000_000)).expect("a leaf");
        assert!(config.ignore_client_order);
        let first = config.crypto_provider().cipher_suites.first().map(rustls::SupportedCipherSuite::suite);
        assert_eq!(first, Some(rustls::CipherSuite::TLS13_AES_128_GCM_SHA256));
    }

    #[test]
    fn the_cache_stays_below_its_bound() {
        let cache = cache();
        let now = UnixSeconds(1_800_000_000);
        for number in 0..LEAVES_MAX + 100 {
            cache.config(&host(&format!("h{number}.test")), now).expect("a leaf");
        }
        assert!(cache.leaves.len() <= LEAVES_MAX);
        assert!(cache.cached(&host(&format!("h{}.test", LEAVES_MAX + 99)), now).is_some(), "the newest is kept");
    }

    #[test]
    fn addresses_and_names_get_a_leaf_and_serials_differ() {
        let now = UnixSeconds(1_800_000_000);
        let six = leaf_params(&host("[2001:db8::1]"), now).expect("params");
        assert!(matches!(six.subject_alt_names.as_slice(), [SanType::IpAddress(IpAddr::V6(_))]));
        let name = leaf_params(&host("a.test"), now).expect("params");
        assert!(matches!(name.subject_alt_names.as_slice(), [SanType::DnsName(_)]));
        assert_ne!(six.serial_number, name.serial_number);
    }

    #[test]
    fn a_new_authority_signs_anew_and_a_bad_one_changes_nothing() {
        let (cache, other) = (cache(), KeyPair::generate().expect("a key"));
        let now = UnixSeconds(1_800_000_000);
        let first = cache.config(&host("api.test"), now).expect("a leaf");
        assert!(cache.replace_authority("", "").is_err());
        assert!(Arc::ptr_eq(&first, &cache.config(&host("api.test"), now).expect("a leaf")));
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&other).expect("a CA");
        cache.replace_authority(&certificate.pem(), &other.serialize_pem()).expect("another CA");
        assert!(!Arc::ptr_eq(&first, &cache.config(&host("api.test"), now).expect("a leaf")));
    }

    #[test]
    fn a_key_that_is_not_pem_is_an_authority_error() {
        assert!(matches!(LeafCache::new("", ""), Err(LeafError::Authority(_))));
    }
}
