//! Whom the proxy trusts upstream: the platform's roots, or bundled ones, plus the operator's own.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::provider::provider;

/// Where the public roots come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RootSource<'a> {
    /// The platform's store; the bundled roots where it is empty (an image without any).
    #[default]
    System,
    /// Mozilla's roots, as compiled in.
    Bundled,
    /// The certificates of this PEM text, and no others.
    Only(&'a [u8]),
}

/// Why the trusted roots could not be put together. An operator's mistake.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The operator's PEM text holds no certificate, or one that does not read.
    #[error("the extra CA file holds no readable certificate")]
    ExtraCa,
    /// The TLS library refused the set.
    #[error("the TLS client cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// The protocols that are offered upstream by ALPN (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// HTTP/2 and HTTP/1.1; the upstream chooses.
    Any,
    /// HTTP/1.1 alone: for a WebSocket, whose upgrade exists only there (RFC 6455 §4.1).
    Http1,
}

/// Puts the roots together.
///
/// # Errors
/// [`TrustError::ExtraCa`] when `extra_ca_pem` is given and not one certificate in it reads.
pub fn roots(source: RootSource<'_>, extra_ca_pem: Option<&[u8]>) -> Result<Arc<RootCertStore>, TrustError> {
    let mut store = RootCertStore::empty();
    match source {
        RootSource::Only(pem) => add(&mut store, pem)?,
        // Single unreadable roots of a platform are common and no reason to stop.
        RootSource::System => _ = store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
        RootSource::Bundled => {}
    }
    if store.is_empty() {
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(pem) = extra_ca_pem {
        add(&mut store, pem)?;
    }
    Ok(Arc::new(store))
}

fn add(store: &mut RootCertStore, pem: &[u8]) -> Result<(), TrustError> {
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| TrustError::ExtraCa)?;
    if certificates.is_empty() {
        return Err(TrustError::ExtraCa);
    }
    certificates.into_iter().try_for_each(|certificate| store.add(certificate).map_err(|_| TrustError::ExtraCa))
}

/// A TLS client configuration of its own: its session cache is shared with no other, so a session
/// opened for one credential is never resumed for another.
///
/// # Errors
/// [`TrustError::Tls`] when the TLS library refuses its own defaults.
pub fn client_config(roots: &Arc<RootCertStore>, offer: Offer) -> Result<Arc<ClientConfig>, TrustError> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(Arc::clone(roots))
        .with_no_client_auth();
    config.alpn_protocols = match offer {
        Offer::Any => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Offer::Http1 => vec![b"http/1.1".to_vec()],
    };
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundled_roots_are_never_empty_and_a_bad_extra_ca_is_an_error() {
        assert!(roots(RootSource::Bundled, None).expect("roots").len() > 50);
        for pem in [b"".as_slice(), b"no pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(matches!(roots(RootSource::Bundled, Some(pem)), Err(TrustError::ExtraCa)));
        }
    }

    #[test]
    fn an_extra_ca_is_added_to_the_rest() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a CA").pem();
        let plain = roots(RootSource::Bundled, None).expect("roots").len();
        assert_eq!(roots(RootSource::Bundled, Some(pem.as_bytes())).expect("roots").len(), plain + 1);
    }
}
