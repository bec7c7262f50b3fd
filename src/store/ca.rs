//! The local CA: it signs the leaf certificates that agents see, on this machine and for this home only.

use std::fs;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::{Home, StoreError, atomic, private};
use crate::clock::UnixSeconds;

/// How long the CA counts. Ten years: it is trusted only where a person or `capctl run` says so, never by the whole
/// system, and a CA that runs out breaks every agent on one day; its key is replaced by making a new CA, at any time.
const LIFE_YEARS: i32 = 10;

/// Clocks of clients may be a little behind.
const BACKDATE_S: u64 = 24 * 3600;

/// The CA's certificate and key, checked to belong together.
pub struct Ca {
    certificate_pem: String,
    key_pem: Zeroizing<String>,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca").finish_non_exhaustive()
    }
}

impl Ca {
    /// Makes the home's CA (P-256, ten years) unless it has one. Returns whether it is new.
    ///
    /// The name says which machine it is from: people meet it in trust stores.
    ///
    /// # Errors
    /// [`StoreError::Ca`] when only one of the two files is there; [`StoreError::Io`].
    pub fn create(home: &Home, now: UnixSeconds) -> Result<bool, StoreError> {
        let (certificate_path, key_path) = (home.ca_certificate(), home.ca_key());
        // Of two processes at once, one makes the CA and the other finds it whole.
        let _turn = home.lock()?;
        match (certificate_path.exists(), key_path.exists()) {
            (true, true) => return Ok(false),
            (false, false) => {}
            (true, false) => return Err(broken(home, "ca.key is missing")),
            (false, true) => return Err(broken(home, "ca.pem is missing")),
        }
        let (certificate, key) = generate(&host_name(), now)?;
        atomic::create(&key_path, key.as_bytes(), 0o600)?;
        atomic::create(&certificate_path, certificate.as_bytes(), 0o644)?;
        Ok(true)
    }

    /// Reads the home's CA.
    ///
    /// # Errors
    /// [`StoreError::Ca`] when a file does not read or the key is another's; as [`private::check_private`] for the key.
    pub fn load(home: &Home) -> Result<Self, StoreError> {
        let path = home.ca_certificate();
        let certificate_pem = fs::read_to_string(&path).map_err(|source| StoreError::io("read", &path, source))?;
        let key_bytes = private::read(&home.ca_key())?;
        let key_pem = str::from_utf8(&key_bytes).map_err(|_| broken(home, "ca.key is not PEM"))?;
        let key = KeyPair::from_pem(key_pem).map_err(|_| broken(home, "ca.key is not a private key"))?;
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|_| broken(home, "ca.pem is not a certificate"))?;
        // The certificate carries its public key as is: comparing bytes needs no second parser.
        let public = key.subject_public_key_info();
        if !der.windows(public.len()).any(|window| window == public) {
            return Err(broken(home, "ca.key does not belong to ca.pem"));
        }
        Issuer::from_ca_cert_der(&der, key).map_err(|_| broken(home, "ca.pem is not a CA's certificate"))?;
        Ok(Self { certificate_pem, key_pem: Zeroizing::new(key_pem.to_owned()) })
    }

    /// The certificate, for clients to trust.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key (PKCS #8 PEM), for the minting of leaves.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }
}

fn generate(host: &str, now: UnixSeconds) -> Result<(String, Zeroizing<String>), StoreError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|_| StoreError::Random)?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, format!("{host} Narrows local CA"));
    name.push(DnType::OrganizationName, "Narrows");
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    // Leaves only: an intermediate signed by this CA would not count.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = false;
    let (year, month, day) = civil(now - BACKDATE_S);
    params.not_before = rcgen::date_time_ymd(year, month, day);
    // The 29th of February has no tenth anniversary.
    params.not_after = rcgen::date_time_ymd(year + LIFE_YEARS, month, day.min(28));
    let certificate = params.self_signed(&key).map_err(|_| StoreError::Random)?;
    Ok((certificate.pem(), Zeroizing::new(key.serialize_pem())))
}

fn civil(moment: UnixSeconds) -> (i32, u8, u8) {
    let seconds = i64::try_from(moment.get()).unwrap_or(0);
    let time = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let date = time.to_zoned(jiff::tz::TimeZone::UTC).date();
    (i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs())
}

/// The machine's name, as far as it fits a common name (RFC 5280: 64 characters).
fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let clean: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || ".-_".contains(*c)).take(40).collect();
    if clean.is_empty() { "this machine".to_owned() } else { clean }
}

fn broken(home: &Home, why: &'static str) -> StoreError {
    StoreError::Ca { path: home.ca_certificate(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dates_of_a_leap_day_are_valid() {
        // 2028-03-01: a day earlier is the 29th of February.
        let (certificate, _) = generate("host", UnixSeconds(1_835_481_600)).expect("a CA");
        assert!(certificate.contains("BEGIN CERTIFICATE"));
    }
}
