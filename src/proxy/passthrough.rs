//! passthrough: a service with `terminate = false` is carried unread, for clients that pin certificates.
//!
//! Nothing is injected. The operation is `tunnel`; there is no method, path or parameter to look at, so
//! denials and failures are answers to the CONNECT itself. The first bytes must be a ClientHello for the
//! CONNECT's name before one of them goes upstream.

use std::sync::Arc;

use http::StatusCode;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::Drain;
use super::carry::carry;
use super::exchange::{Exchange, Refused};
use super::forward::{note_dial, unreachable};
use super::hello::Hello;
use super::terminate::UNRECOGNIZED_NAME;
use super::tunnel::Tunnel;
use crate::net::listener::Stream;
use crate::net::pace::Paced;
use crate::net::rewind::Rewind;
use crate::net::unread::Unread;
use crate::policy::Code;

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
    let (proxy, rules) = (&tunnel.who.proxy, view.snapshot().dial_rules());
    exchange.turn();
    let dialled = proxy.dialer.tcp(rules, &tunnel.target, view.named_exactly()).await;
    note_dial(tunnel, dialled.as_ref().err());
    match dialled {
        Ok(upstream) => {
            exchange.upstream_answered(None);
            Ok(Opened { exchange, upstream })
        }
        Err(error) => Err(exchange.refuse(unreachable(&error))),
    }
}

/// Carries an opened tunnel to its end; `client` is its connection, once there is one.
pub(super) async fn run(opened: Opened, client: impl Future<Output = Option<Rewind<Unread<Stream>>>>, drain: Drain) {
    let Opened { mut exchange, mut upstream } = opened;
    let patience = exchange.tunnel.who.proxy.limits.handshake;
    let host = &exchange.tunnel.target.host;
    let greeting = async {
        let mut client = client.await?;
        let hello = Hello::read(&mut client).await?;
        if !hello.names(host) {
            let _ = client.write_all(&UNRECOGNIZED_NAME).await;
            return None;
        }
        if exchange.reservation().is_some_and(|taken| !taken.add_up(hello.bytes.len() as u64)) {
            return Some(Err(Code::BudgetExhausted));
        }
        upstream.write_all(&hello.bytes).await.ok()?;
        Some(Ok((client, hello.bytes.len())))
    };
    let greeting = async { tokio::time::timeout(patience, greeting).await.ok().flatten() };
    let greeted = drain.arrive(greeting).await;
    let (client, bytes) = match greeted.unwrap_or(Err(Code::Misdirected)) {
        Ok(greeted) => greeted,
        Err(code) => return exchange.cut(code, StatusCode::OK),
    };
    exchange.meter.add_up(bytes);
    match carry(&mut exchange, client, Paced::new(upstream), None, &drain).await {
        Ok(()) => exchange.allowed(StatusCode::OK),
        Err(ended) => ended.close(exchange, StatusCode::OK),
    }
}
