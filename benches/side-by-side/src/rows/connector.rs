//! How the rows that use hyper-util's pooled client reach the origin, whatever the name.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use crate::stage::{self, BULK_HOST, ORIGIN};

/// Dials the origin for every name, and verifies it for that name.
#[derive(Clone)]
pub(crate) struct ToOrigin {
    /// The usual one, and that of [`BULK_HOST`].
    origins: [SocketAddr; 2],
    tls: TlsConnector,
}

impl ToOrigin {
    pub(crate) fn new(folder: &Path, origins: [SocketAddr; 2], h2: bool) -> anyhow::Result<Self> {
        let mut config = stage::client_tls(&stage::ca_file(folder, ORIGIN))?;
        config.alpn_protocols = stage::alpn(h2);
        Ok(Self { origins, tls: Arc::new(config).into() })
    }

    async fn connect(self, uri: Uri) -> io::Result<Upstream> {
        let host = uri.host().unwrap_or_default().to_owned();
        let origin = self.origins[usize::from(host == BULK_HOST)];
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let stream = TcpStream::connect(origin).await?;
        stream.set_nodelay(true)?;
        Ok(Upstream(TokioIo::new(self.tls.connect(name, stream).await?)))
    }
}

impl Service<Uri> for ToOrigin {
    type Response = Upstream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Upstream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// A TLS connection that tells the client which HTTP it speaks.
pub(crate) struct Upstream(TokioIo<TlsStream<TcpStream>>);

impl Connection for Upstream {
    fn connected(&self) -> Connected {
        let connected = Connected::new();
        match self.0.inner().get_ref().1.alpn_protocol() {
            Some(b"h2") => connected.negotiated_h2(),
            _ => connected,
        }
    }
}

impl Read for Upstream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl Write for Upstream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }
}
