//! The row `hudsucker`: the library of that name, as its example has it, with a handler that sets one header.

use std::net::SocketAddr;
use std::path::Path;

use http::header::{AUTHORIZATION, HeaderValue};
use hudsucker::certificate_authority::RcgenAuthority;
use hudsucker::hyper::Request;
use hudsucker::{Body, HttpContext, HttpHandler, Proxy, RequestOrResponse};
use tokio::net::TcpListener;

use super::connector::ToOrigin;
use crate::stage::{self, INJECTED};

/// As many leaves as its example keeps.
const LEAVES_MAX: u64 = 1_000;

#[derive(Clone)]
struct Inject;

impl HttpHandler for Inject {
    async fn handle_request(&mut self, _: &HttpContext, mut request: Request<Body>) -> RequestOrResponse {
        request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static(INJECTED));
        request.into()
    }
}

/// Serves until the process ends.
pub(crate) async fn serve(folder: &Path, origin: SocketAddr, listener: TcpListener) -> anyhow::Result<()> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let ca = RcgenAuthority::new(stage::proxy_issuer(folder)?, LEAVES_MAX, provider);
    let proxy = Proxy::builder()
        .with_listener(listener)
        .with_ca(ca)
        .with_http_connector(ToOrigin::new(folder, [origin; 2], false)?)
        .with_http_handler(Inject)
        .build()?;
    Ok(proxy.start().await?)
}
