//! What all rows share: the names and the certificates.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The name that every request but the cold ones is for.
pub(crate) const HOST: &str = "api.acme.test";
/// The name that whoever takes what they can asks for, at an origin of its own: else others would wait for the origin.
pub(crate) const BULK_HOST: &str = "bulk.acme.test";
/// What the origin insists on.
pub(crate) const INJECTED: &str = "Bearer INJECTED";
/// What a client sends where a proxy is to inject.
pub(crate) const PLACEHOLDER: &str = "Bearer placeholder";
/// How many names are visited for the first time, each in its own turn.
pub(crate) const COLD_NAMES: usize = 100;

/// A name that nobody has visited yet.
pub(crate) fn cold_name(number: usize) -> String {
    format!("n{number}.acme.test")
}

/// Where the origin is, by what it offers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origins {
    /// HTTP/1.1 alone.
    pub(crate) h1: SocketAddr,
    /// HTTP/2 too.
    pub(crate) h2: SocketAddr,
    /// That of [`BULK_HOST`].
    pub(crate) bulk: SocketAddr,
}

impl Origins {
    pub(crate) const fn offering(self, h2: bool) -> SocketAddr {
        if h2 { self.h2 } else { self.h1 }
    }
}

/// Files of certificates, by who signs: the origin's CA, and the one that the proxies other than Narrows share.
pub(crate) const ORIGIN: &str = "origin";
pub(crate) const PROXY: &str = "proxy";

/// Writes both CAs, each with a leaf for the names of this bench.
pub(crate) fn prepare(folder: &Path) -> anyhow::Result<()> {
    for name in [ORIGIN, PROXY] {
        let issuer = CertifiedIssuer::self_signed(ca_params(name), KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let names = [HOST.to_owned(), "*.acme.test".to_owned()];
        let leaf = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
        fs::write(ca_file(folder, name), issuer.pem())?;
        private(&folder.join(format!("{name}-ca.key")), &issuer.key().serialize_pem())?;
        fs::write(folder.join(format!("{name}.pem")), leaf.pem())?;
        private(&folder.join(format!("{name}.key")), &key.serialize_pem())?;
    }
    Ok(())
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.distinguished_name.push(DnType::CommonName, format!("side by side: {name}"));
    params
}

pub(crate) fn ca_file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}-ca.pem"))
}

/// The CA of the other proxies, to sign with.
#[cfg(feature = "hudsucker")]
pub(crate) fn proxy_issuer(folder: &Path) -> anyhow::Result<rcgen::Issuer<'static, KeyPair>> {
    let key = KeyPair::from_pem(&fs::read_to_string(folder.join("proxy-ca.key"))?)?;
    Ok(rcgen::Issuer::from_ca_cert_pem(&fs::read_to_string(ca_file(folder, PROXY))?, key)?)
}

pub(crate) fn private(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o600))?)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// What to offer in ALPN.
pub(crate) fn alpn(h2: bool) -> Vec<Vec<u8>> {
    let mut offered = vec![b"http/1.1".to_vec()];
    if h2 {
        offered.insert(0, b"h2".to_vec());
    }
    offered
}

pub(crate) fn origin_tls(folder: &Path) -> anyhow::Result<ServerConfig> {
    server_tls(folder, ORIGIN)
}

/// The one leaf of a proxy that mints none.
pub(crate) fn proxy_tls(folder: &Path) -> anyhow::Result<ServerConfig> {
    server_tls(folder, PROXY)
}

fn server_tls(folder: &Path, name: &str) -> anyhow::Result<ServerConfig> {
    let certificate = CertificateDer::from_pem_file(folder.join(format!("{name}.pem")))?;
    let key = PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key")))?;
    Ok(ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?)
}

/// Trusts the CA in this file alone.
pub(crate) fn client_tls(ca: &Path) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).with_context(|| ca.display().to_string())?)?;
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
