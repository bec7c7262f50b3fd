//! connect: one CONNECT of the agent becomes one of ours, with a proof; then bytes are copied.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

use super::prover::Corrected;
use super::respond::{self, Refusal, Reply};
use super::serve::{Place, is_our_own};
use super::upstream::{self, CONNECT_WITHIN};
use super::{Shared, prover};
use crate::capability::Purpose;
use crate::clock::UnixSeconds;
use crate::net::duplex::copy_both;
use crate::net::listener::Stream;
use crate::net::rewind::Rewind;
use crate::policy::Code;
use crate::request::Target;

/// What is copied at once, each way: a full TLS record and its neighbour.
const COPY_BYTES: usize = 32 * 1024;

pub(super) async fn connect(shared: &Arc<Shared>, mut request: Request<Incoming>, place: Place) -> Response<Reply> {
    let uri = request.uri().clone();
    let asked = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    // What has no canonical form is for the proxy to refuse; only our own ports are refused here.
    if Target::parse(asked).is_ok_and(|target| is_our_own(shared, &target)) {
        return Refusal::destination("the CONNECT names the proxy itself").answer();
    }
    let answer = match open(shared, &uri, asked).await {
        Ok(answer) => answer,
        Err(refusal) => return refusal.answer(),
    };
    if !answer.status().is_success() {
        return respond::passed(answer);
    }
    let response = respond::opened(&answer);
    let (agent, proxy) = (hyper::upgrade::on(&mut request), hyper::upgrade::on(answer));
    spawn_copy(shared, agent, proxy, place);
    response
}

/// The proxy's answer to a CONNECT with a proof; asked twice when the clock was wrong.
async fn open(shared: &Shared, uri: &Uri, asked: &str) -> Result<Response<Incoming>, Refusal> {
    let host =
        HeaderValue::from_str(asked).map_err(|_| Refusal::framing("the CONNECT names no plain host and port"))?;
    loop {
        let way = upstream::reach(shared).await.map_err(|why| Refusal::unanswered(&why))?;
        let purpose = Purpose::Connect { target: asked };
        let proved = shared.prover.prove(purpose, way.binding()).ok_or_else(Refusal::no_proof)?;
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = uri.clone();
        request.headers_mut().insert(header::HOST, host.clone());
        request.headers_mut().insert(header::PROXY_AUTHORIZATION, proved.value.clone());
        let answer = way.ask(shared, request, CONNECT_WITHIN).await.map_err(|why| Refusal::unanswered(&why))?;
        if answer.status() != StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            return Ok(answer);
        }
        again(shared, &proved, answer.headers())?;
    }
}

/// What a 407 of the proxy means: `Ok` when the clock has been corrected and the request is worth a second try.
pub(super) fn again(shared: &Shared, proved: &prover::Proved, headers: &header::HeaderMap) -> Result<(), Refusal> {
    let (code, now) = respond::challenge(headers);
    let Some(theirs) = now.filter(|_| code == Some(Code::ProofExpired)) else {
        shared.dialled.tell(shared.notify, respond::why_not(code));
        return Err(Refusal::challenged(code, None));
    };
    let corrected = if shared.dialled.is_believed() {
        shared.prover.correct(proved, UnixSeconds(theirs))
    } else {
        prover::Prover::skew(UnixSeconds(theirs))
    };
    match corrected {
        Corrected::Again => Ok(()),
        Corrected::Not { ahead_s } => {
            let skew = respond::clocks(ahead_s);
            if shared.prover.is_news() {
                (shared.notify)(&skew);
            }
            Err(Refusal::challenged(code, Some(skew)))
        }
    }
}

/// Copies between agent and proxy until both have ended their half, or the drain is over.
pub(super) fn spawn_copy(shared: &Arc<Shared>, agent: OnUpgrade, proxy: OnUpgrade, place: Place) {
    let drain = shared.drain.clone();
    shared.drain.spawn(async move {
        let copied = async {
            let (Ok(agent), Ok(proxy)) = tokio::join!(agent, proxy) else { return };
            let (Some(mut agent), Some(mut proxy)) = (bare(agent), bare(proxy)) else { return };
            // How a tunnel ends is its two ends' affair.
            let _ = copy_both(&mut agent, &mut proxy, COPY_BYTES).await;
        };
        tokio::select! {
            () = copied => {}
            () = drain.over() => {}
        }
        drop(place);
    });
}

/// The socket under a connection that left HTTP, with what was read ahead of it.
fn bare(upgraded: Upgraded) -> Option<Rewind<Stream>> {
    let parts = upgraded.downcast::<TokioIo<Stream>>().ok()?;
    Some(Rewind::new(parts.read_buf, parts.io.into_inner()))
}
