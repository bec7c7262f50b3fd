//! TLS between a client and the proxy: the certificates of both ends, and what binds a proof to one connection.
//!
//! TLS 1.3 alone: its exporter is another for every connection, a resumed one too (RFC 9266 §4.2). No early data, which
//! could be replayed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{self, SHA256};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ServerConnection, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, ConnectionCommon, HandshakeKind, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::listener::Stream;
use super::pace::ByTurns;
use super::provider::provider;
use super::trust::{self, RootSource, TrustError};
use crate::request::Host;

/// The length of a binding.
pub const BINDING_BYTES: usize = 32;
/// RFC 9266 §4: the channel binding type `tls-exporter`.
const LABEL: &[u8] = b"EXPORTER-Channel-Binding";
/// The only protocol inside.
const ALPN: &[u8] = b"http/1.1";
/// After a failed handshake, what the client still sends is read for so long: a socket that is closed with something
/// unread resets its peer, which may then miss the alert that says why.
const LINGER_FOR: Duration = Duration::from_secs(1);

/// What a proof is bound to when it is made for one TLS connection (`docs/capability.md`, "Binding").
pub type Binding = [u8; BINDING_BYTES];

/// How what a client sends is protected on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// It is not.
    Clear,
    /// By TLS that ends at the proxy.
    Tls {
        /// What proofs for this connection are bound to.
        binding: Binding,
        /// The client has shown a certificate; its proofs must be bound.
        mutual: bool,
    },
}

/// Why certificates and keys cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum BadTls {
    /// The file of the certificate chain.
    #[error("the certificate file holds no PEM certificate, or one that does not read")]
    Certificate,
    /// The file of its key.
    #[error("the key file holds no PEM private key")]
    Key,
    /// Both read, and are not of one another.
    #[error("the key is not that of the certificate")]
    NotItsKey,
    /// The certificates of an authority.
    #[error("the file of the authority holds no PEM certificate, or one that does not read")]
    Authority,
    /// The TLS library refused them.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

impl From<rustls::Error> for BadTls {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InconsistentKeys(_) => Self::NotItsKey,
            error => Self::Tls(error),
        }
    }
}

impl From<TrustError> for BadTls {
    fn from(error: TrustError) -> Self {
        match error {
            TrustError::ExtraCa => Self::Authority,
            TrustError::Tls(error) => error.into(),
        }
    }
}

/// The texts, in PEM, that an end shows itself by.
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    /// The certificate, then those between it and its authority.
    pub certificate: &'a [u8],
    /// Its private key.
    pub key: &'a [u8],
}

/// Shows no key.
impl std::fmt::Debug for Identity<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(..)")
    }
}

impl Identity<'_> {
    fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), BadTls> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(self.certificate)
            .collect::<Result<_, _>>()
            .map_err(|_| BadTls::Certificate)?;
        if chain.is_empty() {
            return Err(BadTls::Certificate);
        }
        Ok((chain, PrivateKeyDer::from_pem_slice(self.key).map_err(|_| BadTls::Key)?))
    }
}

/// The proxy's end.
pub struct ServerEnd {
    config: Arc<ServerConfig>,
    /// Of the certificates that clients must show.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// SHA-256 of all that it was made of.
    made_of: [u8; 32],
}

impl ServerEnd {
    /// Shows this identity. With `client_ca`, PEM text, clients must show a certificate that one of its authorities signed.
    ///
    /// # Errors
    /// [`BadTls`].
    pub fn new(identity: Identity<'_>, client_ca: Option<&[u8]>) -> Result<Self, BadTls> {
        let (chain, key) = identity.read()?;
        let crypto = Arc::new(provider());
        let verifier = client_ca.map(|pem| verifier(pem, &crypto)).transpose()?;
        let builder = ServerConfig::builder_with_provider(crypto).with_protocol_versions(&[&TLS13])?;
        let builder = match &verifier {
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        Ok(Self { config: Arc::new(config), verifier, made_of: made_of(identity, client_ca) })
    }

    /// Whether the same would come out again: sessions stay good then.
    #[must_use]
    pub fn is_of(&self, identity: Identity<'_>, client_ca: Option<&[u8]>) -> bool {
        self.made_of == made_of(identity, client_ca)
    }

    /// Ends a client's handshake. The caller bounds how long it takes.
    ///
    /// # Errors
    /// The handshake's; the client has been sent the alert that says why, and has had a moment to read it.
    pub async fn accept(&self, stream: Stream) -> io::Result<(Stream, Channel)> {
        let accept = TlsAcceptor::from(Arc::clone(&self.config)).accept(stream).into_fallible();
        let tls = match ByTurns::of_stranger(accept).await {
            Ok(tls) => tls,
            Err((error, stream)) => {
                linger(stream).await;
                return Err(error);
            }
        };
        let connection = tls.get_ref().1;
        self.check_resumed(connection).map_err(io::Error::other)?;
        let channel = Channel::Tls { binding: binding(connection)?, mutual: self.verifier.is_some() };
        Ok((Stream::Tls(Box::new(TlsStream::Server(tls))), channel))
    }

    /// A resumed session brings the certificate of its first handshake along, which may have expired since.
    fn check_resumed(&self, connection: &ServerConnection) -> Result<(), rustls::Error> {
        let Some(verifier) =
            self.verifier.as_ref().filter(|_| connection.handshake_kind() == Some(HandshakeKind::Resumed))
        else {
            return Ok(());
        };
        let shown = connection.peer_certificates().and_then(<[_]>::split_first);
        let (own, between) = shown.ok_or(rustls::Error::NoCertificatesPresented)?;
        verifier.verify_client_cert(own, between, UnixTime::now()).map(|_| ())
    }
}

impl std::fmt::Debug for ServerEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerEnd").field("mutual", &self.verifier.is_some()).finish_non_exhaustive()
    }
}

/// The client's end, towards one proxy.
#[derive(Debug)]
pub struct ClientEnd {
    config: Arc<ClientConfig>,
}

impl ClientEnd {
    /// Trusts the authorities of `ca`, PEM text, and no others; without it the platform's. Shows `identity` when it is
    /// asked. Its sessions are its own: one that was opened with another identity is never resumed.
    ///
    /// # Errors
    /// [`BadTls`].
    pub fn new(ca: Option<&[u8]>, identity: Option<Identity<'_>>) -> Result<Self, BadTls> {
        let roots = trust::roots(ca.map_or(RootSource::System, RootSource::Only), None)?;
        let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots);
        let mut config = match identity.map(|identity| identity.read()).transpose()? {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { config: Arc::new(config) })
    }

    /// The handshake with the proxy of this name. That the proxy refuses our certificate shows only at the first read.
    ///
    /// # Errors
    /// The handshake's, with a [`rustls::Error`] inside where TLS itself failed.
    pub async fn connect(&self, host: &Host, stream: Stream) -> io::Result<(Stream, Binding)> {
        let name = match host.address() {
            Some(address) => ServerName::from(address),
            None => ServerName::try_from(host.as_str().to_owned()).map_err(io::Error::other)?,
        };
        let tls = TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await?;
        let binding = binding(tls.get_ref().1)?;
        Ok((Stream::Tls(Box::new(TlsStream::Client(tls))), binding))
    }
}

/// RFC 9266 §4: 32 bytes of the exporter (RFC 8446 §7.5) with this label and an empty context.
fn binding<D>(connection: &ConnectionCommon<D>) -> io::Result<Binding> {
    connection.export_keying_material([0; BINDING_BYTES], LABEL, Some(b"")).map_err(io::Error::other)
}

fn verifier(pem: &[u8], crypto: &Arc<rustls::crypto::CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, BadTls> {
    let roots: Arc<RootCertStore> = trust::roots(RootSource::Only(pem), None)?;
    let built = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(crypto)).build();
    built.map(|verifier| -> Arc<dyn ClientCertVerifier> { verifier }).map_err(|_| BadTls::Authority)
}

fn made_of(identity: Identity<'_>, client_ca: Option<&[u8]>) -> [u8; 32] {
    let mut hash = digest::Context::new(&SHA256);
    for part in [Some(identity.certificate), Some(identity.key), client_ca] {
        hash.update(&part.map_or(u64::MAX, |part| part.len() as u64).to_be_bytes());
        hash.update(part.unwrap_or_default());
    }
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(hash.finish().as_ref()).for_each(|(to, from)| *to = *from);
    bytes
}

async fn linger(mut stream: Stream) {
    let reading = async {
        let mut dropped = [0; 1024];
        stream.shutdown().await?;
        while stream.read(&mut dropped).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(LINGER_FOR, reading).await;
}

#[cfg(test)]
mod tests;
