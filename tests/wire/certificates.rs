//! Upstream TLS: whom the proxy does not believe gets no byte of HTTP, and the agent a code that says so.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::support::daemon::TestEnv;
use crate::support::raw::{RawOrigin, Step};
use crate::{SECRET, World};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// An authority, or what claims to be one.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    params: CertificateParams,
}

fn authority(change: impl FnOnce(&mut CertificateParams)) -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "an authority of one test");
    change(&mut params);
    Authority { issuer: Issuer::new(params.clone(), KeyPair::generate().unwrap()), params }
}

impl Authority {
    fn pem(&self) -> String {
        self.params.self_signed(self.issuer.key()).unwrap().pem()
    }

    /// Its own certificate, signed by another.
    fn signed_by(&self, above: &Self) -> Vec<u8> {
        self.params.signed_by(self.issuer.key(), &above.issuer).unwrap().der().to_vec()
    }

    /// A server with a leaf for `name`, changed, and more certificates after it.
    fn server(&self, name: &str, change: impl FnOnce(&mut CertificateParams), above: &[Vec<u8>]) -> Arc<ServerConfig> {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.is_ca = IsCa::ExplicitNoCa;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        serve(leaf.der(), above, &key)
    }
}

/// Whatever the certificate says: a builder of rustls would refuse some of these.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

fn serve(leaf: &[u8], above: &[Vec<u8>], key: &KeyPair) -> Arc<ServerConfig> {
    let chain = std::iter::once(leaf.to_vec()).chain(above.iter().cloned()).map(Into::into).collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = provider.key_provider.load_private_key(key).unwrap();
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let always = Always(Arc::new(CertifiedKey::new(chain, key)));
    Arc::new(config.with_no_client_auth().with_cert_resolver(Arc::new(always)))
}

/// A home with a service for every host below `acme.test`, and a secret.
fn home(trusted: &Authority) -> TestEnv {
    let mut env = TestEnv::new();
    std::fs::write(env.home().join("origin-ca.pem"), trusted.pem()).unwrap();
    env.secret("acme-key", SECRET);
    env.service(
        "name = \"acme\"\ncredential = \"acme-key\"\nhosts = [\"*.acme.test\"]\ninject = \"Authorization: Bearer {secret}\"",
    );
    env
}

/// A host, and what serves it.
type Row = (&'static str, Arc<ServerConfig>);

fn long_ago(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(2002, 1, 1);
}

/// Leaves that the root has signed and should not have, or not for this host.
fn leaves(root: &Authority) -> Vec<Row> {
    type Change = fn(&mut CertificateParams);
    let changed: [(&str, Change); 6] = [
        ("expired.acme.test", long_ago),
        ("future.acme.test", |params| {
            params.not_before = date_time_ymd(2998, 1, 1);
            params.not_after = date_time_ymd(2999, 1, 1);
        }),
        ("common-name.acme.test", |params| {
            params.subject_alt_names.clear();
            params.distinguished_name.push(DnType::CommonName, "common-name.acme.test");
        }),
        ("client.acme.test", |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
        ("mail.acme.test", |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection]),
        ("critical.acme.test", |params| {
            let mut unknown = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
            unknown.set_criticality(true);
            params.custom_extensions.push(unknown);
        }),
    ];
    let for_another = [
        ("wrong.acme.test", "else.acme.test"),
        ("two.deep.acme.test", "*.acme.test"),
        ("above.acme.test", "*.test"),
        ("everything.acme.test", "*"),
        ("partial.acme.test", "p*.acme.test"),
        ("inner.acme.test", "inner.*.test"),
        ("address.acme.test", "127.0.0.1"),
        ("longer.acme.test", "longer.acme.test.evil.test"),
    ];
    let changed = changed.map(|(host, change)| (host, root.server(host, change, &[])));
    let for_another = for_another.map(|(host, name)| (host, root.server(name, |_| {}, &[])));
    changed.into_iter().chain(for_another).collect()
}

/// Keys and signatures that are not what the certificate says.
fn keys(root: &Authority) -> Vec<Row> {
    let leaf = |name: &str, key: &KeyPair| {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.signed_by(key, &root.issuer).unwrap().der().to_vec()
    };
    let [key, other] = [(); 2].map(|()| KeyPair::generate().unwrap());
    // Changed after it was signed.
    let mut forged = leaf("forger.acme.test", &key);
    let at = forged.windows(6).position(|window| window == b"forger").unwrap();
    forged[at + 5] = b'd';
    let mut own = CertificateParams::new(vec!["self.acme.test".to_owned()]).unwrap();
    own.is_ca = IsCa::ExplicitNoCa;
    vec![
        ("no-key.acme.test", serve(&leaf("no-key.acme.test", &key), &[], &other)),
        ("forged.acme.test", serve(&forged, &[], &key)),
        ("self.acme.test", serve(own.self_signed(&key).unwrap().der(), &[], &key)),
    ]
}

/// Chains that do not lead to the root, or by somebody who may not sign.
fn chains(root: &Authority) -> Vec<Row> {
    let stranger = authority(|_| {});
    let no_authority = authority(|params| params.is_ca = IsCa::ExplicitNoCa);
    let past = authority(long_ago);
    let narrow = authority(|params| {
        let permitted_subtrees = vec![GeneralSubtree::DnsName("other.test".to_owned())];
        params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
    });
    let last = authority(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let below = authority(|_| {});
    let row = |host, by: &Authority, above: &[Vec<u8>]| (host, by.server(host, |_| {}, above));
    vec![
        row("stranger.acme.test", &stranger, &[]),
        row("stranger-too.acme.test", &stranger, &[stranger.signed_by(&stranger)]),
        row("missing.acme.test", &authority(|_| {}), &[]),
        row("no-authority.acme.test", &no_authority, &[no_authority.signed_by(root)]),
        row("past.acme.test", &past, &[past.signed_by(root)]),
        row("narrow.acme.test", &narrow, &[narrow.signed_by(root)]),
        row("beyond-last.acme.test", &below, &[below.signed_by(&last), last.signed_by(root)]),
    ]
}

/// Each one step from a row above.
fn twins(root: &Authority) -> Vec<Row> {
    let (middle, last) =
        (authority(|_| {}), authority(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))));
    vec![
        ("good.acme.test", root.server("good.acme.test", |_| {}, &[])),
        ("wildcard.acme.test", root.server("*.acme.test", |_| {}, &[])),
        ("chain.acme.test", middle.server("chain.acme.test", |_| {}, &[middle.signed_by(root)])),
        ("last.acme.test", last.server("last.acme.test", |_| {}, &[last.signed_by(root)])),
    ]
}

#[test]
fn a_certificate_that_does_not_verify_gets_no_byte_of_http() {
    let root = authority(|_| {});
    let bad = [leaves(&root), keys(&root), chains(&root)].concat();
    let served: Vec<(Row, bool)> =
        bad.into_iter().map(|row| (row, false)).chain(twins(&root).into_iter().map(|row| (row, true))).collect();
    let mut env = home(&root);
    let start = |((host, config), _): &(Row, bool)| {
        let origin = RawOrigin::https_with(Arc::clone(config), vec![Step::Head, Step::Send(OK.into())]);
        env.dial_at(&format!("{host}:443"), origin.addr);
        origin
    };
    let origins: Vec<RawOrigin> = served.iter().map(start).collect();
    let world = World::started(env, origins, &["acme"]);
    for (((host, _), trusted), origin) in served.iter().zip(&world.origin) {
        let answer = world.agent.get(host, "/v1/items");
        if *trusted {
            assert_eq!(answer.text(), "ok", "{host}");
            assert!(origin.read()[0].contains(SECRET), "{host}");
        } else {
            assert_eq!(answer.status(), 502, "{host}: {answer:?}");
            assert_eq!(answer.code(), "upstream_tls", "{host}: {answer:?}");
            assert_eq!(origin.read().concat(), "", "{host}");
            let line = world.env.journal_line(|line| line["host"] == *host);
            assert_eq!((&line["outcome"], &line["code"]), (&"failed".into(), &"upstream_tls".into()), "{line}");
        }
    }
}

/// A listener that says these bytes to whoever connects, or nothing and waits, and keeps what it is told.
fn says(bytes: &'static [u8], hold: bool) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (addr, told) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<u8>>>::default());
    let heard = Arc::clone(&told);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut stream), heard) = (stream, Arc::clone(&heard)) else { return };
            let _ = stream.write_all(bytes);
            if hold {
                std::thread::spawn(move || {
                    let mut some = [0; 4096];
                    while let Ok(count @ 1..) = stream.read(&mut some) {
                        heard.lock().unwrap().extend_from_slice(&some[..count]);
                    }
                });
            }
        }
    });
    (addr, told)
}

#[test]
fn what_is_no_tls_or_stops_in_the_handshake_gets_no_byte_of_http() {
    let root = authority(|_| {});
    let mut env = home(&root);
    env.setting("dial = \"1s\"");
    let cases: [(&str, &[u8], bool, u16, &str); 9] = [
        ("plain", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true, 502, "upstream_tls"),
        ("ssh", b"SSH-2.0-OpenSSH_9.2\r\n", true, 502, "upstream_tls"),
        ("garbage", &[0xa5; 64], true, 502, "upstream_tls"),
        ("close", b"", false, 502, "upstream_tls"),
        ("alert", b"\x15\x03\x03\x00\x02\x02\x28", true, 502, "upstream_tls"),
        ("goodbye", b"\x15\x03\x03\x00\x02\x01\x00", false, 502, "upstream_tls"),
        ("half", b"\x16\x03\x03\x40\x00\x02", false, 502, "upstream_tls"),
        ("stall", b"", true, 504, "upstream_timeout"),
        ("half-stall", b"\x16\x03\x03\x40\x00\x02", true, 504, "upstream_timeout"),
    ];
    let told: Vec<_> = cases
        .iter()
        .map(|(name, bytes, hold, ..)| {
            let (addr, told) = says(bytes, *hold);
            env.dial_at(&format!("{name}.acme.test:443"), addr);
            told
        })
        .collect();
    let world = World::started(env, (), &["acme"]);
    std::thread::scope(|scope| {
        for ((name, _, _, status, code), told) in cases.iter().zip(&told) {
            let agent = &world.agent;
            scope.spawn(move || {
                let answer = agent.get(&format!("{name}.acme.test"), "/v1/items");
                assert_eq!((answer.status(), &*answer.code()), (*status, *code), "{name}: {answer:?}");
                let told = told.lock().unwrap().clone();
                let has = |text: &str| told.windows(text.len()).any(|window| window == text.as_bytes());
                assert!(!has(SECRET) && !has("HTTP/1.1") && !has("/v1/items"), "{name}: {}", told.escape_ascii());
                assert!(told.is_empty() || told[0] == 0x16 || told[0] == 0x15, "{name}: {}", told.escape_ascii());
            });
        }
    });
}

/// `openssl s_server`, which can speak what our own TLS library has left behind.
struct OldServer(Child);

impl Drop for OldServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn old_tls_is_no_tls() {
    let root = authority(|_| {});
    let mut env = home(&root);
    let (key, dir) = (KeyPair::generate().unwrap(), tempfile::tempdir().unwrap());
    let leaf = CertificateParams::new(vec!["old.acme.test".to_owned()]).unwrap().signed_by(&key, &root.issuer).unwrap();
    std::fs::write(dir.path().join("leaf.pem"), leaf.pem()).unwrap();
    std::fs::write(dir.path().join("leaf.key"), key.serialize_pem()).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    env.dial_at("old.acme.test:443", SocketAddr::from(([127, 0, 0, 1], port)));
    let world = World::started(env, (), &["acme"]);
    for (version, status) in [("-tls1", 502), ("-tls1_1", 502), ("-tls1_2", 200)] {
        let server = Command::new("openssl")
            .args(["s_server", "-accept", &format!("127.0.0.1:{port}"), "-www", version, "-cipher", "ALL:@SECLEVEL=0"])
            .args(["-cert", "leaf.pem", "-key", "leaf.key"])
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        // A machine without openssl cannot play an old server.
        let Ok(server) = server.map(OldServer) else { return };
        let answer = loop {
            let answer = world.agent.get("old.acme.test", "/v1/items");
            if answer.status() != 502 || answer.code() != "upstream_refused" {
                break answer;
            }
            std::thread::yield_now();
        };
        assert_eq!(answer.status(), status, "{version}: {answer:?}");
        assert!(status == 200 || answer.code() == "upstream_tls", "{version}: {answer:?}");
        drop(server);
    }
}
