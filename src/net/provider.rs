//! The cryptography of both legs' TLS.

use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;

/// Preferred: the key schedule of AES-256 runs on SHA-384, for which most processors have no instructions as they have
/// for SHA-256, and a handshake with AES-128 costs a tenth less (`docs/performance.md`). It is as far from being broken,
/// and the suite that all must have (RFC 8446 §9.1).
const FIRST: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
];

/// The library's own choice of suites, in our order.
pub(super) fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| !FIRST.contains(&suite.suite()));
    provider
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_suites_come_first_and_no_other_is_lost() {
        let suites = provider().cipher_suites;
        assert!(suites[..FIRST.len()].iter().all(|suite| FIRST.contains(&suite.suite())));
        assert_eq!(suites[0].suite(), FIRST[0]);
        assert_eq!(suites.len(), rustls::crypto::aws_lc_rs::default_provider().cipher_suites.len());
    }
}
