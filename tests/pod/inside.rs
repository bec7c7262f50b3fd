//! What this program does inside containers: an origin, an agent that has a proxy, and one that knows none.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use nix::unistd::{Uid, setuid};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::PATIENCE;
use crate::support::world::WORLD;

pub(crate) const HOST: &str = "api.acme.test";
pub(crate) const ROLE: &str = "NARROWS_TEST_ROLE";
/// Where an origin is that shares the agent's loopback.
pub(crate) const ORIGIN: &str = "127.0.0.1:9443";
pub(crate) const LISTENER: &str = "127.0.0.1:7090";
/// Whom Narrows runs as.
pub(crate) const NARROWS: u32 = 27080;
/// What the agent sends where a key belongs.
pub(crate) const PLACEHOLDER: &str = "acme-placeholder-of-no-worth";
/// The ports of the world at which an agent that knows no proxy tries its luck; at the first is the origin.
pub(crate) const TCP: [u16; 3] = [9443, 53, 8443];
/// QUIC and DNS.
pub(crate) const UDP: [u16; 2] = [443, 53];

/// Written backwards, so that it is not in this program's file, which the agent searches too.
fn backwards(text: &str) -> String {
    text.chars().rev().collect()
}

pub(crate) fn secret() -> String {
    backwards("fedcba9876543210-evil-emca")
}

pub(crate) fn play() {
    match std::env::var(ROLE).as_deref() {
        Ok("origin") => origin(),
        Ok("agent") => agent(),
        Ok("closed") => closed(),
        Ok("around") => around(),
        _ => {}
    }
}

/// Answers who shows the real key, and says what it saw.
fn origin() {
    let certificate = CertificateDer::from_pem_file("/origin/cert.pem").unwrap();
    let key = PrivateKeyDer::from_pem_file("/origin/key.pem").unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap());
    for stream in TcpListener::bind(ORIGIN).unwrap().incoming() {
        let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream.unwrap());
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") && tls.read(&mut byte).is_ok_and(|read| read == 1) {
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let Some(path) = head.split(' ').nth(1) else { continue };
        let header = head.lines().find(|line| line.to_ascii_lowercase().starts_with("authorization:"));
        let shown = header.and_then(|line| line.split_once(':')).map_or("", |(_, value)| value.trim());
        println!("origin saw {path} {shown}");
        let status = if shown == format!("Bearer {}", secret()) { "200 OK" } else { "401 Unauthorized" };
        let _ = write!(tls, "HTTP/1.1 {status}\r\nContent-Length: 5\r\nConnection: close\r\n\r\nitems");
        tls.conn.send_close_notify();
        let _ = tls.flush();
    }
}

/// curl with what the pod gives: its status and body.
fn curl(arguments: &[&str]) -> (String, String) {
    let mut command = Command::new("/bin/curl");
    command.args(["-q", "-sS", "-m", "20", "-w", "\n%{http_code}"]).args(arguments);
    let key = std::env::var("ACME_KEY").unwrap();
    let ran = command.args(["-H", &format!("Authorization: Bearer {key}")]).output().unwrap();
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap_or(("", ""));
    (status.to_owned(), format!("{body}{}", String::from_utf8_lossy(&ran.stderr)))
}

/// Uses what it was given, then looks for more.
fn agent() {
    wait_for(LISTENER);
    wait_for(ORIGIN);
    let url = |path: &str| format!("https://{HOST}{path}");
    assert_eq!(curl(&[&url("/v1/items")]), ("200".to_owned(), "items".to_owned()));
    for another in [&["/v2/items"][..], &["/v1/items", "-X", "POST"]] {
        let (status, body) = curl(&[&[&*url(another[0])], &another[1..]].concat());
        assert!(status == "403" && body.contains("capability_denied"), "{status} {body}");
    }
    let (status, body) = curl(&["https://elsewhere.test/"]);
    assert_ne!(status, "200", "{body}");
    // Around the proxy there is only what the agent has itself.
    let around = ["--noproxy", "*", "--insecure", "--connect-to", &format!("{HOST}:443:{ORIGIN}")];
    assert_eq!(curl(&[&around[..], &[&url("/v1/around")]].concat()).0, "401");
    assert_eq!(curl(&[&["--noproxy", "*"][..], &[&url("/v1/items")]].concat()).0, "000", "there is no other network");
    // The operator's listener, and that for clients with credentials.
    for port in [7080, 7081] {
        assert!(TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).is_err(), "{port}");
    }
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    for line in sockets.lines().filter(|line| line.contains("narrows") || line.contains("admin.sock")) {
        let path = line.split_whitespace().last().unwrap();
        assert!(std::os::unix::net::UnixStream::connect(path).is_err(), "{path}");
    }

    let mut found = search(|bytes| {
        let digits = |rest: &[u8]| rest.len() >= 64 && rest[..64].iter().all(u8::is_ascii_hexdigit);
        let key = after(bytes, &backwards("/etavirp-91552de")).any(digits);
        let pem = after(bytes, &backwards("-----YEK ETAVIRP")).any(|rest| rest.starts_with(b"\nM"));
        key || pem || after(bytes, &secret()).next().is_some()
    });
    // A library of the image's own has keys to test itself with.
    found.retain(|place| !place.ends_with("/libgnutls.so.30"));
    assert!(found.is_empty(), "{found:?}");
    // The same search finds what is there.
    let has = |text: &'static str| search(move |bytes| after(bytes, text).next().is_some());
    assert!(has(PLACEHOLDER).iter().any(|place| place.starts_with("/proc/")));
    assert!(has("BEGIN CERTIFICATE-----\nM").contains(&"/narrows/ca.pem".to_owned()));
    println!("the agent found nothing");
}

/// Makes calls to a name as if there were no proxy, then looks for a way around it.
fn closed() {
    wait_for(LISTENER);
    for (name, _) in std::env::vars_os() {
        assert!(!name.to_string_lossy().to_ascii_lowercase().contains("proxy"), "{}", name.display());
    }
    let url = |path: &str| format!("https://{HOST}{path}");
    for version in ["--http1.1", "--http2"] {
        assert_eq!(curl(&[version, &url("/v1/items")]), ("200".to_owned(), "items".to_owned()));
    }
    let (status, body) = curl(&[&url("/v2/items")]);
    assert!(status == "403" && body.contains("capability_denied"), "{status} {body}");
    let (status, body) = curl(&["--connect-to", &format!("elsewhere.test:443:{WORLD}:443"), "https://elsewhere.test/"]);
    assert!(status == "403" && body.contains("service_unknown"), "{status} {body}");

    // The origin itself, by its address and port; the listener as if it were a proxy; other ports, QUIC, DNS.
    let direct = ["--insecure", "--connect-to", &format!("{HOST}:443:{WORLD}:{}", TCP[0])];
    assert_eq!(curl(&[&direct[..], &[&url("/v1/around")]].concat()).0, "000");
    assert_eq!(curl(&["--proxy", &format!("http://{LISTENER}"), &url("/v1/around")]).0, "000");
    for port in TCP {
        let refused = TcpStream::connect((WORLD, port)).map_err(|error| error.kind());
        assert_eq!(refused.unwrap_err(), io::ErrorKind::ConnectionRefused, "{port}");
    }
    for port in UDP {
        let refused = send(port).map_err(|error| error.kind());
        assert_eq!(refused.unwrap_err(), io::ErrorKind::PermissionDenied, "{port}");
    }
    // Nor can it become the one who may, write packets past the rules, or change them.
    assert_eq!(setuid(Uid::from_raw(NARROWS)), Err(Errno::EPERM));
    assert_eq!(setuid(Uid::from_raw(0)), Err(Errno::EPERM));
    for (family, protocol) in [
        (AddressFamily::Inet, SockProtocol::Raw),
        (AddressFamily::Inet6, SockProtocol::Raw),
        (AddressFamily::Packet, SockProtocol::EthAll),
    ] {
        let raw = socket(family, SockType::Raw, SockFlag::empty(), protocol);
        assert_eq!(raw.err(), Some(Errno::EPERM), "{family:?}");
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    for line in ["CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "{status}");
    }
    let check = Command::new("/bin/capctl").args(["transparent", "check"]).output().unwrap();
    assert!(check.status.success(), "{check:?}");
    println!("the agent found no other way");
}

/// The same ways, for whoever may take them.
fn around() {
    for port in TCP {
        TcpStream::connect((WORLD, port)).unwrap();
    }
    for port in UDP {
        send(port).unwrap();
    }
}

/// A datagram to the world.
fn send(port: u16) -> io::Result<()> {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.connect((WORLD, port))?;
    socket.send(b"out").map(drop)
}

/// An ordinary sidecar, unlike a native one, may start later.
fn wait_for(at: &str) {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(at).is_err() {
        assert!(Instant::now() < deadline, "nobody is at {at}");
        std::thread::yield_now();
    }
}

/// The files in which it is, among them what `/proc` tells of processes and their memory but our own.
fn search(is_in: impl Fn(&[u8]) -> bool) -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![PathBuf::from("/")]);
    let own = std::process::id().to_string();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            let Ok(kind) = path.symlink_metadata() else { continue };
            if path.starts_with("/sys") || path.starts_with("/dev") {
                continue;
            }
            if kind.is_dir() && (path == Path::new("/proc") || !path.starts_with("/proc")) {
                folders.push(path);
            } else if kind.is_dir() {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                if name.bytes().all(|byte| byte.is_ascii_digit()) {
                    let files = ["environ", "cmdline", "mem", "maps", "root/etc/narrows/agent.key"];
                    let files = files.iter().filter(|file| name != own || **file != "mem");
                    found.extend(files.map(|file| path.join(file)).filter(|file| is_in(&content(file))));
                }
            } else if !path.starts_with("/proc") && is_in(&content(&path)) {
                found.push(path);
            }
        }
    }
    found.iter().map(|path| path.display().to_string()).collect()
}

/// What follows each place where `text` is.
fn after<'b>(bytes: &'b [u8], text: &str) -> impl Iterator<Item = &'b [u8]> {
    let length = text.len();
    let finder = memchr::memmem::Finder::new(text).into_owned();
    let places: Vec<usize> = finder.find_iter(bytes).collect();
    places.into_iter().map(move |place| &bytes[place + length..])
}

/// What can be read of a file.
fn content(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = fs::File::open(path).and_then(|file| file.take(256 << 20).read_to_end(&mut bytes));
    bytes
}
