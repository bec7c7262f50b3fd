//! passthrough: a service with `terminate = false` is carried unread, for clients that pin certificates.
//!
//! Nothing is injected. The operation is `tunnel`; there is no method, path or parameter to look at, so
//! denials and failures are answers to the CONNECT itself. The first bytes must be a ClientHello for the
//! CONNECT's name before one of them goes upstream.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use hyper::upgrade::OnUpgrade;
use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Drain;
use super::carry::carry;
use super::exchange::{Exchange, Refused};
use super::forward::unreachable;
use super::terminate::{UNRECOGNIZED_NAME, names, raw};
use super::tunnel::Tunnel;
use crate::net::listener::Stream;
use crate::net::rewind::Rewind;
use crate::net::unread::Unread;
use crate::policy::Code;

/// A ClientHello is at most this long here; the largest with post-quantum shares is about 2 KiB.
const HELLO_BYTES_MAX: usize = 32 * 1024;

/// Allowed, journalled, and connected: the CONNECT may be answered with 200.
pub(super) struct Opened {
    exchange: Box<Exchange>,
    upstream: TcpStream,
}

/// Authorizes the tunnel and dials.
pub(super) async fn open(tunnel: &Arc<Tunnel>) -> Result<Opened, Refused> {
    let mut exchange = Exchange::of_tunnel(Arc::clone(tunnel))?;
    exchange = exchange.authorized()?.settled().await?;
    let view = tunnel.view();
    match tunnel.who.proxy.dialer.tcp(view.snapshot().dial_rules(), &tunnel.target, view.named_exactly()).await {
        Ok(upstream) => {
            exchange.upstream_answered();
            Ok(Opened { exchange, upstream })
        }
        Err(error) => Err(exchange.refuse(unreachable(&error))),
    }
}

/// Carries an opened tunnel to its end.
pub(super) async fn run(opened: Opened, upgrade: OnUpgrade, drain: Drain) {
    let Opened { mut exchange, mut upstream } = opened;
    let patience = exchange.tunnel.who.proxy.limits.handshake;
    let host = &exchange.tunnel.target.host;
    let greeting = async {
        let mut client = raw(upgrade.await.ok()?)?;
        let hello = client_hello(&mut client).await?;
        if !hello.sni.as_deref().map_or(host.address().is_some(), |sni| names(Some(sni), host)) {
            let _ = client.write_all(&UNRECOGNIZED_NAME).await;
            return None;
        }
        if exchange.reservation().is_some_and(|taken| !taken.add_up(hello.bytes.len() as u64)) {
            return Some(Err(Code::BudgetExhausted));
        }
        upstream.write_all(&hello.bytes).await.ok()?;
        Some(Ok((client, hello.bytes.len())))
    };
    let greeted = tokio::time::timeout(patience, greeting).await.ok().flatten();
    let (client, bytes) = match greeted.unwrap_or(Err(Code::Misdirected)) {
        Ok(greeted) => greeted,
        Err(code) => return exchange.cut(code, StatusCode::OK),
    };
    exchange.meter.add_up(bytes);
    match carry(&mut exchange, client, upstream, &drain).await {
        Ok(()) => exchange.allowed(StatusCode::OK),
        Err(code) => exchange.cut(code, StatusCode::OK),
    }
}

struct Hello {
    bytes: Bytes,
    sni: Option<String>,
}

/// Reads one whole ClientHello and keeps its bytes; `None` when the client sends anything else.
async fn client_hello(client: &mut Rewind<Unread<Stream>>) -> Option<Hello> {
    let mut acceptor = Acceptor::default();
    let mut bytes = BytesMut::new();
    while bytes.len() < HELLO_BYTES_MAX {
        let before = bytes.len();
        if client.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let mut unread = bytes.get(before..)?;
        while !unread.is_empty() {
            acceptor.read_tls(&mut unread).ok()?;
        }
        if let Some(accepted) = acceptor.accept().ok()? {
            let sni = accepted.client_hello().server_name().map(str::to_owned);
            return Some(Hello { bytes: bytes.freeze(), sni });
        }
    }
    None
}
