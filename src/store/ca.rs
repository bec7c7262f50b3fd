//! The local CA: it signs the leaf certificates that agents see, on this machine and for this home only.
//!
//! `ca.pem` holds one certificate, or two while one CA takes over from another; `ca.key` belongs to the one that signs.
//! A rotation has three steps, each of which a crash leaves done or not done:
//!
//! 1. [`Ca::prepare`]: the next CA's certificate joins `ca.pem`, its key waits in `ca-next.key`. The old one signs.
//! 2. [`Ca::switch`]: `ca-next.key` becomes `ca.key`. The new one signs, clients may trust either.
//! 3. [`Ca::finish`]: the old certificate leaves `ca.pem`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, GeneralSubtree, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, PublicKeyData,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::{Home, StoreError, atomic, private};
use crate::clock::UnixSeconds;
use crate::request::Host;

/// How long the CA counts. Ten years: it is trusted only where a person or `capctl run` says so, never by the whole
/// system, and a CA that runs out breaks every agent on one day; `capctl ca rotate` replaces it at any time.
const LIFE_YEARS: i32 = 10;

/// Clocks of clients may be a little behind.
const BACKDATE_S: u64 = 24 * 3600;

/// How far a rotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// There is one CA.
    None,
    /// Clients can trust the next CA already; the old one signs.
    Prepared,
    /// The new CA signs; clients may still trust the old one.
    Switched,
}

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
    /// The name says which machine it is from: people meet it in trust stores. With names in `only`, clients take no
    /// certificate of this CA for another name (RFC 5280 §4.2.1.10): each stands for itself and what is below it.
    ///
    /// # Errors
    /// [`StoreError::Ca`] when only one of the two files is there; [`StoreError::Io`].
    pub fn create(home: &Home, only: &[Host], now: UnixSeconds) -> Result<bool, StoreError> {
        let (certificate_path, key_path) = (home.ca_certificate(), home.ca_key());
        // Of two processes at once, one makes the CA and the other finds it whole.
        let _turn = home.lock()?;
        match (certificate_path.exists(), key_path.exists()) {
            (true, true) => return Ok(false),
            (false, false) => {}
            (true, false) => return Err(broken(home, "ca.key is missing")),
            // Killed in between, last time, or the certificate was lost: the key stays.
            (false, true) => {
                let key_bytes = private::read(&key_path)?;
                let key = str::from_utf8(&key_bytes).ok().and_then(|pem| KeyPair::from_pem(pem).ok());
                let key = key.ok_or_else(|| broken(home, "ca.pem is missing, and ca.key is not a private key"))?;
                let certificate = certify(&key, &host_name(), only, now)?;
                atomic::create(&certificate_path, certificate.as_bytes(), 0o644)?;
                return Ok(true);
            }
        }
        let (certificate, key) = generate(&host_name(), only, now)?;
        atomic::create(&key_path, key.as_bytes(), 0o600)?;
        atomic::create(&certificate_path, certificate.as_bytes(), 0o644)?;
        Ok(true)
    }

    /// Reads the home's CA: the key that signs, and its certificate among those of `ca.pem`.
    ///
    /// # Errors
    /// [`StoreError::Ca`] when a file does not read or the key is another's; as [`private::check_private`] for the key.
    pub fn load(home: &Home) -> Result<Self, StoreError> {
        let certificates = certificates(home)?;
        let key_bytes = private::read(&home.ca_key())?;
        let key_pem = str::from_utf8(&key_bytes).map_err(|_| broken(home, "ca.key is not PEM"))?;
        let key = KeyPair::from_pem(key_pem).map_err(|_| broken(home, "ca.key is not a private key"))?;
        let own = certificates.iter().find(|der| belongs(&key, der));
        let own = own.ok_or_else(|| broken(home, "ca.key does not belong to ca.pem"))?;
        Issuer::from_ca_cert_der(own, key).map_err(|_| broken(home, "ca.pem is not a CA's certificate"))?;
        Ok(Self { certificate_pem: pem(own), key_pem: Zeroizing::new(key_pem.to_owned()) })
    }

    /// The certificate that signs.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key (PKCS #8 PEM), for the minting of leaves.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Until when it counts, where its certificate says so.
    #[must_use]
    pub fn ends_at(&self) -> Option<UnixSeconds> {
        let der = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes()).ok()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
        u64::try_from(certificate.validity().not_after.timestamp()).ok().map(UnixSeconds)
    }

    /// How far the home's rotation is.
    ///
    /// # Errors
    /// [`StoreError::Ca`] when `ca.pem` does not read.
    pub fn rotation(home: &Home) -> Result<Rotation, StoreError> {
        let count = certificates(home)?.len();
        Ok(match (home.ca_next_key().exists(), count) {
            (true, _) => Rotation::Prepared,
            (false, 1) => Rotation::None,
            (false, _) => Rotation::Switched,
        })
    }

    /// Makes the next CA, as [`Ca::create`] would, and adds its certificate to what clients trust.
    ///
    /// # Errors
    /// [`StoreError::Ca`] when a rotation has begun already; [`StoreError::Io`].
    pub fn prepare(home: &Home, only: &[Host], now: UnixSeconds) -> Result<(), StoreError> {
        let _turn = home.lock()?;
        if Self::rotation(home)? != Rotation::None {
            return Err(broken(home, "a rotation has begun already"));
        }
        let present = Self::load(home)?;
        let (certificate, key) = generate(&host_name(), only, now)?;
        // The certificate first: without its key it does nothing, and `finish` takes it away again.
        let both = format!("{}{certificate}", present.certificate_pem);
        atomic::replace(&home.ca_certificate(), both.as_bytes(), 0o644)?;
        atomic::create(&home.ca_next_key(), key.as_bytes(), 0o600)
    }

    /// Has the next CA sign from now on. The key before is gone.
    ///
    /// # Errors
    /// [`StoreError::Ca`] when none was prepared; [`StoreError::Io`].
    pub fn switch(home: &Home) -> Result<(), StoreError> {
        let _turn = home.lock()?;
        if Self::rotation(home)? != Rotation::Prepared {
            return Err(broken(home, "no next CA was prepared"));
        }
        let key_bytes = private::read(&home.ca_next_key())?;
        let key = str::from_utf8(&key_bytes).ok().and_then(|pem| KeyPair::from_pem(pem).ok());
        let key = key.ok_or_else(|| broken(home, "ca-next.key is not a private key"))?;
        if !certificates(home)?.iter().any(|der| belongs(&key, der)) {
            return Err(broken(home, "ca-next.key does not belong to ca.pem"));
        }
        atomic::rename(&home.ca_next_key(), &home.ca_key())
    }

    /// Takes the certificate of the CA before away from what clients trust.
    ///
    /// # Errors
    /// [`StoreError::Ca`] when the new CA does not sign yet, or there is only one; [`StoreError::Io`].
    pub fn finish(home: &Home) -> Result<(), StoreError> {
        let _turn = home.lock()?;
        if Self::rotation(home)? != Rotation::Switched {
            return Err(broken(home, "the new CA does not sign yet"));
        }
        let present = Self::load(home)?;
        atomic::replace(&home.ca_certificate(), present.certificate_pem.as_bytes(), 0o644)
    }
}

fn certificates(home: &Home) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let path = home.ca_certificate();
    let text = fs::read(&path).map_err(|source| StoreError::io("read", &path, source))?;
    let all = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|_| broken(home, "ca.pem is not a certificate"))?;
    if all.is_empty() { Err(broken(home, "ca.pem is not a certificate")) } else { Ok(all) }
}

/// A certificate carries its public key as is: comparing bytes needs no second parser.
fn belongs(key: &KeyPair, certificate: &CertificateDer<'_>) -> bool {
    let public = key.subject_public_key_info();
    certificate.windows(public.len()).any(|window| window == public)
}

/// RFC 7468.
fn pem(certificate: &CertificateDer<'_>) -> String {
    let encoded = BASE64_STANDARD.encode(certificate);
    let lines = encoded.as_bytes().chunks(64).map(String::from_utf8_lossy).collect::<Vec<_>>().join("\n");
    format!("-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n")
}

fn generate(host: &str, only: &[Host], now: UnixSeconds) -> Result<(String, Zeroizing<String>), StoreError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|_| StoreError::Random)?;
    Ok((certify(&key, host, only, now)?, Zeroizing::new(key.serialize_pem())))
}

/// A certificate for a CA's key.
fn certify(key: &KeyPair, host: &str, only: &[Host], now: UnixSeconds) -> Result<String, StoreError> {
    let (year, month, day) = civil(now - BACKDATE_S);
    let mut name = DistinguishedName::new();
    // Two CAs of one rotation need two names: some clients look a CA up by its name alone.
    let serial: [u8; 4] = super::random::bytes()?;
    name.push(DnType::CommonName, format!("{host} Narrows local CA {}", hex::encode(serial)));
    name.push(DnType::OrganizationName, "Narrows");
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    // Leaves only: an intermediate signed by this CA would not count.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = false;
    params.name_constraints = constraints(only);
    params.not_before = rcgen::date_time_ymd(year, month, day);
    // The 29th of February has no tenth anniversary.
    params.not_after = rcgen::date_time_ymd(year + LIFE_YEARS, month, day.min(28));
    let certificate = params.self_signed(key).map_err(|_| StoreError::Random)?;
    Ok(certificate.pem())
}

/// What is named is permitted. A kind of name that is not mentioned at all would be free, so addresses are mentioned.
fn constraints(only: &[Host]) -> Option<NameConstraints> {
    if only.is_empty() {
        return None;
    }
    let (addresses, names): (Vec<&Host>, Vec<&Host>) = only.iter().partition(|host| host.address().is_some());
    let exact = |host: &Host| match host.address()? {
        IpAddr::V4(address) => Some(GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix(address.octets(), 32))),
        IpAddr::V6(address) => Some(GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix(address.octets(), 128))),
    };
    let mut permitted: Vec<_> = names.iter().map(|name| GeneralSubtree::DnsName(name.as_str().to_owned())).collect();
    permitted.extend(addresses.iter().filter_map(|host| exact(host)));
    let mut excluded = Vec::new();
    if addresses.is_empty() {
        excluded.push(GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix(Ipv4Addr::UNSPECIFIED.octets(), 0)));
        excluded.push(GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix(Ipv6Addr::UNSPECIFIED.octets(), 0)));
    }
    if names.is_empty() {
        // Below the empty name is every name.
        excluded.push(GeneralSubtree::DnsName(String::new()));
    }
    Some(NameConstraints { permitted_subtrees: permitted, excluded_subtrees: excluded })
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
        let (certificate, _) = generate("host", &[], UnixSeconds(1_835_481_600)).expect("a CA");
        assert!(certificate.contains("BEGIN CERTIFICATE"));
        let ca = Ca { certificate_pem: certificate, key_pem: Zeroizing::default() };
        // 2038-02-28: ten years after the 29th, which 2038 has not.
        assert_eq!(ca.ends_at(), Some(UnixSeconds(2_151_014_400 - 86_400)));
    }
}
