//! hello: the first message of a client's TLS, and the name in it.
//!
//! rustls passes over an address in the SNI without a word, as if there were none (RFC 6066 §3 forbids it). Here it is
//! a name like another: what the ClientHello asks for must be what the CONNECT asked for. So its bytes are kept until
//! the name is known; a plain tunnel sends them on as they came.

use std::net::IpAddr;

use bytes::{Bytes, BytesMut};
use rustls::server::{Accepted, Acceptor};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::request::Host;

/// A ClientHello is at most this long here; the largest with post-quantum shares is about 2 KiB, and records of a byte
/// each make it six times as long.
const HELLO_BYTES_MAX: usize = 32 * 1024;
const USUAL_BYTES: usize = 2 * 1024;

/// RFC 8446 §5.1 and §4: a record and a message that carry a ClientHello; RFC 6066 §3: the extension and its one type.
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// One whole ClientHello, and perhaps some bytes after it.
pub(super) struct Hello {
    pub(super) accepted: Accepted,
    pub(super) bytes: Bytes,
}

/// Whom a ClientHello asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Nobody,
    Name(Host),
    /// An address as text.
    Address(IpAddr),
    /// Something that is neither.
    Other,
}

impl Hello {
    /// Reads one; `None` when the client sends anything else, after the alert that says so.
    pub(super) async fn read<T: AsyncRead + AsyncWrite + Unpin>(client: &mut T) -> Option<Self> {
        let mut acceptor = Acceptor::default();
        let mut bytes = BytesMut::with_capacity(USUAL_BYTES);
        while bytes.len() < HELLO_BYTES_MAX {
            let before = bytes.len();
            if client.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
            let mut unread = bytes.get(before..)?;
            while !unread.is_empty() {
                acceptor.read_tls(&mut unread).ok()?;
            }
            match acceptor.accept() {
                Ok(Some(accepted)) => return Some(Self { accepted, bytes: bytes.freeze() }),
                Ok(None) => {}
                // An alert says something to TLS alone.
                Err(_) if bytes.first() != Some(&HANDSHAKE) => return None,
                Err((_, mut alert)) => {
                    let mut said = Vec::new();
                    alert.write_all(&mut said).ok()?;
                    let _ = client.write_all(&said).await;
                    let _ = client.shutdown().await;
                    return None;
                }
            }
        }
        None
    }

    /// True when it asks for `host`, or for nobody: then the CONNECT's name stands.
    pub(super) fn is_for(&self, host: &Host) -> bool {
        self.asked() == Asked::Nobody || self.names(host)
    }

    /// True when it asks for `host`. An address is asked for by saying nothing.
    pub(super) fn names(&self, host: &Host) -> bool {
        match (self.asked(), host.address()) {
            (Asked::Nobody, address) => address.is_some(),
            (Asked::Name(name), _) => name == *host,
            (Asked::Address(asked), address) => address == Some(asked),
            (Asked::Other, _) => false,
        }
    }

    fn asked(&self) -> Asked {
        if let Some(name) = self.accepted.client_hello().server_name() {
            return Host::parse(name).map_or(Asked::Other, Asked::Name);
        }
        let handshake = handshake(&self.bytes);
        let address = |text: &str| text.parse().map_or(Asked::Other, Asked::Address);
        match server_name(&handshake) {
            None => Asked::Nobody,
            Some(name) => std::str::from_utf8(name).map_or(Asked::Other, address),
        }
    }
}

/// What the handshake records at the start of `records` carry, put together.
fn handshake(records: &[u8]) -> Vec<u8> {
    let mut rest = Reader(records);
    let mut carried = Vec::new();
    while let Some(HANDSHAKE) = rest.byte() {
        let Some(payload) = rest.take(2).and_then(|_version| rest.counted(2)) else { break };
        carried.extend_from_slice(payload);
    }
    carried
}

/// The first name in the `server_name` extension of a ClientHello, as it came; empty where the extension has none.
fn server_name(handshake: &[u8]) -> Option<&[u8]> {
    let mut message = Reader(handshake);
    if message.byte()? != CLIENT_HELLO {
        return None;
    }
    let mut hello = Reader(message.counted(3)?);
    let _version_and_random = hello.take(34)?;
    let _session_suites_compression = (hello.counted(1)?, hello.counted(2)?, hello.counted(1)?);
    let mut extensions = Reader(hello.counted(2)?);
    while let Some(kind) = extensions.number(2) {
        let body = extensions.counted(2)?;
        if kind == usize::from(SERVER_NAME) {
            let mut names = Reader(body);
            let mut names = Reader(names.counted(2).unwrap_or_default());
            return Some(if names.byte() == Some(HOST_NAME) { names.counted(2).unwrap_or_default() } else { &[] });
        }
    }
    None
}

/// What is left of some bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    /// A number of so many bytes.
    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |number, &byte| number << 8 | usize::from(byte)))
    }

    /// As many bytes as the number before them says.
    fn counted(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let count = self.number(bytes)?;
        self.take(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// The first flight of a client that asks for `name`, with `written` over it.
    fn hello(name: &str, written: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name_of = name.to_owned().try_into().expect("a name");
        let mut client = rustls::ClientConnection::new(Arc::new(config), name_of).expect("a client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("written");
        if let Some(at) = bytes.windows(name.len()).position(|window| window == name.as_bytes()) {
            bytes.splice(at..at + name.len(), written.bytes());
        }
        bytes
    }

    /// The same with each byte in a record of its own.
    fn in_single_bytes(hello: &[u8]) -> Vec<u8> {
        handshake(hello).iter().flat_map(|&byte| [HANDSHAKE, 3, 1, 0, 1, byte]).collect()
    }

    async fn read(bytes: &[u8]) -> Option<Hello> {
        let (mut client, mut server) = tokio::io::duplex(1 << 16);
        client.write_all(bytes).await.expect("room");
        drop(client);
        Hello::read(&mut server).await
    }

    #[tokio::test]
    async fn the_name_is_read_as_it_came_also_where_it_is_none() {
        let host = |text: &str| Host::parse(text).expect("a host");
        let cases = [
            ("api.acme.test", "api.acme.test", "api.acme.test", true),
            ("api.acme.test", "API.acme.test", "api.acme.test", true),
            ("api.acme.test", "bpi.acme.test", "api.acme.test", false),
            ("127.0.0.1", "127.0.0.1", "api.acme.test", true), // an address: nothing is said
            ("127.0.0.1", "127.0.0.1", "127.0.0.1", true),
            ("seven.two", "127.0.0.1", "api.acme.test", false),
            ("seven.two", "127.0.0.1", "127.0.0.1", true),
            ("seven.two", "127.0.0.1", "127.0.0.2", false),
            ("abc", "::1", "[::1]", true),
            ("abc", "::1", "[::2]", false),
        ];
        for (name, written, connect, wanted) in cases {
            let bytes = hello(name, written);
            for bytes in [in_single_bytes(&bytes), bytes] {
                let hello = read(&bytes).await.expect("a ClientHello");
                assert_eq!(hello.is_for(&host(connect)), wanted, "{written} for {connect}");
            }
        }
    }

    #[tokio::test]
    async fn only_an_address_is_named_by_saying_nothing() {
        let hello = read(&hello("127.0.0.1", "127.0.0.1")).await.expect("a ClientHello");
        let host = |text: &str| Host::parse(text).expect("a host");
        assert!(hello.names(&host("127.0.0.1")) && !hello.names(&host("api.acme.test")));
    }

    #[tokio::test]
    async fn half_a_message_and_no_message_are_none() {
        let whole = hello("api.acme.test", "api.acme.test");
        let long = vec![HANDSHAKE; 40_000];
        for bytes in [&whole[..whole.len() - 1], b"", b"\x16\x03\x01", b"\x16\x03\x01\x00\x02\x02\x00", &long] {
            assert!(read(bytes).await.is_none());
        }
        for end in 0..whole.len() {
            let _ = server_name(whole.get(5..end).unwrap_or_default());
        }
    }
}
