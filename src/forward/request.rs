//! request: an absolute-form request of the agent, passed on with a proof of its own. Bodies stream.

use std::sync::Arc;

use http::header;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{Either, Empty};
use hyper::body::{Body as _, Incoming};

use super::Shared;
use super::connect::{again, spawn_copy};
use super::respond::{self, Refusal, Reply};
use super::serve::{Place, is_our_own};
use super::upstream::{self, ANSWER_WITHIN};
use crate::capability::Purpose;
use crate::request::{Scheme, Target};

type Outgoing = Request<Either<Incoming, Empty<bytes::Bytes>>>;

pub(super) async fn pass(shared: &Arc<Shared>, mut request: Request<Incoming>, place: Place) -> Response<Reply> {
    let target = match destination(&request) {
        Ok(target) => target,
        Err(refusal) => return refusal.answer(),
    };
    if is_our_own(shared, &target) {
        return Refusal::destination("the request names the proxy itself").answer();
    }
    let agent = request.headers().contains_key(header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let mut answer = match ask(shared, request, &target).await {
        Ok(answer) => answer,
        Err(refusal) => return refusal.answer(),
    };
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(agent) = agent else { return Refusal::framing("an upgrade that nobody asked for").answer() };
        spawn_copy(shared, agent, hyper::upgrade::on(&mut answer), place);
    }
    respond::passed(answer)
}

/// The host and port of an absolute-form request (RFC 9112 §3.2.2).
fn destination(request: &Request<Incoming>) -> Result<Target, Refusal> {
    let scheme = match request.uri().scheme_str() {
        Some("http") => Scheme::Http,
        Some("https") => Scheme::Https,
        _ => return Err(Refusal::framing("this is a proxy, not a server")),
    };
    let authority = request.uri().authority().map(http::uri::Authority::as_str).unwrap_or_default();
    Target::parse_or(authority, scheme.default_port()).map_err(|_| Refusal::framing("the URI names no plain host"))
}

/// The proxy's answer. A request without a body is sent again when the clock was wrong; one with a body is not, for its
/// body is gone.
async fn ask(shared: &Shared, request: Request<Incoming>, target: &Target) -> Result<Response<Incoming>, Refusal> {
    let (mut parts, body) = request.into_parts();
    // The connection behind us is ours: its version and its fields are too.
    parts.version = Version::HTTP_11;
    parts.extensions = http::Extensions::new();
    respond::drop_own_connection(&mut parts.headers);
    let bodiless = body.is_end_stream();
    let mut body = Some(body);
    loop {
        let purpose = Purpose::Request { method: parts.method.as_str(), target };
        let way = upstream::reach(shared).await.map_err(|why| Refusal::unanswered(&why))?;
        let proved = shared.prover.prove(purpose, way.binding()).ok_or_else(Refusal::no_proof)?;
        let once = body.take().filter(|_| !bodiless);
        let mut outgoing: Outgoing = Request::new(once.map_or_else(|| Either::Right(Empty::new()), Either::Left));
        *outgoing.method_mut() = parts.method.clone();
        *outgoing.uri_mut() = parts.uri.clone();
        *outgoing.headers_mut() = parts.headers.clone();
        outgoing.headers_mut().insert(header::PROXY_AUTHORIZATION, proved.value.clone());
        let answer = way.ask(shared, outgoing, ANSWER_WITHIN).await.map_err(|why| Refusal::unanswered(&why))?;
        // An upstream may say 407 as well, but not with the proxy's challenge, which the proxy lets nobody else say.
        let is_challenge = answer.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED;
        if !is_challenge || !respond::is_challenged(answer.headers()) {
            return Ok(answer);
        }
        again(shared, &proved, answer.headers())?;
        if !bodiless {
            return Err(Refusal::clock_corrected());
        }
    }
}
