use std::sync::OnceLock;

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::KeyLog;
use tokio::net::UnixStream;

use super::*;

/// An authority, a certificate of its for `localhost`, and the key of that.
struct Papers {
    ca: String,
    certificate: String,
    key: String,
}

impl Papers {
    fn new() -> Self {
        let ca_key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&ca_key).expect("a CA").pem();
        let issuer = Issuer::new(params, ca_key);
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &issuer).expect("a certificate").pem();
        Self { ca, certificate, key: key.serialize_pem() }
    }

    fn identity(&self) -> Identity<'_> {
        Identity { certificate: self.certificate.as_bytes(), key: self.key.as_bytes() }
    }

    fn server(&self) -> ServerEnd {
        ServerEnd::new(self.identity(), Some(self.ca.as_bytes())).expect("sound papers")
    }

    fn client(&self) -> ClientEnd {
        ClientEnd::new(Some(self.ca.as_bytes()), Some(self.identity())).expect("sound papers")
    }
}

/// A connection, and a byte over it, behind which the client has its tickets.
async fn meet(server: &ServerEnd, client: &ClientEnd) -> io::Result<(Channel, Binding, Option<HandshakeKind>)> {
    let (near, far) = UnixStream::pair().expect("sockets");
    let host = Host::parse("localhost").expect("a name");
    let (accepted, connected) =
        tokio::join!(server.accept(Stream::Unix(far)), client.connect(&host, Stream::Unix(near)));
    let (mut stream, channel) = accepted?;
    let (mut connected, binding) = connected?;
    stream.write_all(b"!").await?;
    stream.flush().await?;
    connected.read_exact(&mut [0]).await?;
    let Stream::Tls(tls) = connected else { panic!("no TLS") };
    Ok((channel, binding, tls.get_ref().1.handshake_kind()))
}

#[tokio::test]
async fn both_ends_have_one_binding_and_no_two_connections_do() {
    let papers = Papers::new();
    let (server, client) = (papers.server(), papers.client());
    let (channel, first, kind) = meet(&server, &client).await.expect("TLS");
    assert_eq!((channel, kind), (Channel::Tls { binding: first, mutual: true }, Some(HandshakeKind::Full)));
    let (channel, second, kind) = meet(&server, &client).await.expect("TLS");
    assert_eq!((channel, kind), (Channel::Tls { binding: second, mutual: true }, Some(HandshakeKind::Resumed)));
    assert_ne!(first, second);
    let plain = ServerEnd::new(papers.identity(), None).expect("sound papers");
    let (channel, binding, _) = meet(&plain, &papers.client()).await.expect("TLS");
    assert_eq!(channel, Channel::Tls { binding, mutual: false });
}

#[tokio::test]
async fn a_resumed_session_is_worth_what_its_certificate_is_worth_now() {
    let papers = Papers::new();
    let (mut server, client) = (papers.server(), papers.client());
    meet(&server, &client).await.expect("TLS");
    // As if the certificate had ended since: whoever checks it does not accept it any more.
    server.verifier = Papers::new().server().verifier;
    let refused = meet(&server, &client).await.expect_err("its certificate is not accepted");
    assert!(refused.to_string().contains("certificate"), "{refused}");
}

#[test]
fn papers_that_do_not_belong_together_are_refused() {
    let (papers, others) = (Papers::new(), Papers::new());
    let mixed = Identity { key: others.key.as_bytes(), ..papers.identity() };
    assert!(matches!(ServerEnd::new(mixed, None), Err(BadTls::NotItsKey)));
    assert!(matches!(ClientEnd::new(None, Some(mixed)), Err(BadTls::NotItsKey)));
    let no_key = Identity { key: papers.certificate.as_bytes(), ..papers.identity() };
    assert!(matches!(ServerEnd::new(no_key, None), Err(BadTls::Key)));
    let nothing = Identity { certificate: b"", ..papers.identity() };
    assert!(matches!(ServerEnd::new(nothing, None), Err(BadTls::Certificate)));
    assert!(matches!(ServerEnd::new(papers.identity(), Some(b"no PEM")), Err(BadTls::Authority)));
    assert!(matches!(ClientEnd::new(Some(b""), None), Err(BadTls::Authority)));
    let server = papers.server();
    assert!(server.is_of(papers.identity(), Some(papers.ca.as_bytes())));
    assert!(!server.is_of(papers.identity(), None));
    assert!(!server.is_of(papers.identity(), Some(others.ca.as_bytes())));
}

/// Keeps the secret that exporters are made from (`EXPORTER_SECRET` of the key log format).
#[derive(Debug, Default)]
struct Exporter(OnceLock<Vec<u8>>);

impl KeyLog for Exporter {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        if label == "EXPORTER_SECRET" {
            self.0.set(secret.to_vec()).expect("one connection");
        }
    }
}

struct Bytes32;

impl KeyType for Bytes32 {
    fn len(&self) -> usize {
        32
    }
}

/// HKDF-Expand-Label of RFC 8446 §7.1, SHA-256, 32 bytes.
fn expand_label(secret: &[u8], label: &[u8], context: &[u8]) -> [u8; 32] {
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("short");
    let label = [b"tls13 ", label].concat();
    let info = [&[0, 32, length(&label)], &*label, &[length(context)], context].concat();
    let mut bytes = [0; 32];
    let prk = Prk::new_less_safe(HKDF_SHA256, secret);
    prk.expand(&[&info], Bytes32).expect("32 bytes").fill(&mut bytes).expect("32 bytes");
    bytes
}

#[tokio::test]
async fn the_binding_is_the_exporter_of_the_two_rfcs() {
    let papers = Papers::new();
    let kept = Arc::new(Exporter::default());
    let mut config = (*papers.client().config).clone();
    config.key_log = Arc::clone(&kept) as Arc<dyn KeyLog>;
    let client = ClientEnd { config: Arc::new(config) };
    let (_, binding, _) = meet(&papers.server(), &client).await.expect("TLS");
    // RFC 8446 §7.5, with the label and the empty context of RFC 9266 §4.
    let nothing = digest::digest(&SHA256, b"");
    let secret = kept.0.get().expect("logged");
    assert_eq!(secret.len(), 32, "the preferred suite has SHA-256");
    let derived = expand_label(secret, b"EXPORTER-Channel-Binding", nothing.as_ref());
    assert_eq!(binding, expand_label(&derived, b"exporter", nothing.as_ref()));
}
