//! The load under which a part is counted: one thing after the other, so that its counts hang on nobody's timing.

use std::rc::Rc;

use crate::load::route::{H1, H2, Route};
use crate::rows::{Row, Running};
use crate::stage::HOST;

/// Kept connections of [`Work::Http1Many`].
const CONNECTIONS: u64 = 32;

/// What is done again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// A request on one kept HTTP/1.1 connection, with an upstream that speaks it.
    Http1,
    /// The same on 32 connections at once.
    Http1Many,
    /// A request on one kept HTTP/2 connection, with an upstream that speaks it, one stream at a time.
    Http2,
    /// A tunnel: CONNECT, proof, full handshake, and its end; no request.
    Tunnel,
}

/// A client that is ready to do it.
pub(super) struct Client {
    route: Route,
    work: Work,
    http1: Vec<H1>,
    http2: Option<H2>,
}

impl Work {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Http1 => "request, HTTP/1.1",
            Self::Http1Many => "request, HTTP/1.1, 32 connections",
            Self::Http2 => "request, HTTP/2",
            Self::Tunnel => "tunnel, full handshake",
        }
    }

    /// The pass-through and Narrows.
    pub(super) const fn rows(self) -> (Row, Row) {
        match self {
            Self::Http2 => (Row::BareH2, Row::NarrowsH2),
            Self::Http1 | Self::Http1Many | Self::Tunnel => (Row::Bare, Row::Narrows),
        }
    }

    pub(super) async fn client(self, running: &Rc<Running>) -> anyhow::Result<Client> {
        let route = Route::new(running, false)?;
        let mut client = Client { route, work: self, http1: Vec::new(), http2: None };
        match self {
            Self::Http1 => client.http1.push(client.route.h1(HOST).await?),
            Self::Http1Many => {
                for _ in 0..CONNECTIONS {
                    client.http1.push(client.route.h1(HOST).await?);
                }
            }
            Self::Http2 => client.http2 = Some(client.route.h2(HOST).await?),
            Self::Tunnel => {}
        }
        Ok(client)
    }
}

impl Client {
    /// Does it so many times; every answer is checked.
    pub(super) async fn repeat(&mut self, times: u64) -> anyhow::Result<()> {
        let authorization = self.route.authorization();
        match self.work {
            Work::Http1 | Work::Http1Many => {
                let each = times / self.http1.len() as u64;
                let ask = async |connection: &mut H1| {
                    for _ in 0..each {
                        connection.ask(HOST, &authorization).await?;
                    }
                    anyhow::Ok(())
                };
                futures_util::future::try_join_all(self.http1.iter_mut().map(ask)).await?;
            }
            Work::Http2 => {
                for _ in 0..times {
                    if let Some(connection) = &mut self.http2 {
                        connection.ask(HOST, &authorization).await?;
                    }
                }
            }
            Work::Tunnel => {
                for _ in 0..times {
                    drop(self.route.h1(HOST).await?);
                }
            }
        }
        Ok(())
    }
}
