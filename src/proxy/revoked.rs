//! revoked: whether a revocation is in force, for `capctl revoke`, which asks at the home's socket until it is.
//!
//! Who can connect to a Unix socket of the main listener is the proxy's own user, and learns a yes or no about a name that it
//! has to know. Deliberately absent: a list, and any way to change one.

use http::{Method, Request, Response, StatusCode};

use super::Entrance;
use super::authenticate::Client;
use super::body::Reply;
use crate::capability::{BlockId, PublicKey, Subject};
use crate::net::listener::Peer;

/// Before the id of a block, or the public key of a holder.
pub const REVOCATIONS_PATH: &str = "/revocations/";

/// 204 when it is in force, 404 when it is not; `None` for another request.
pub(super) fn answer<B>(client: &Client, request: &Request<B>) -> Option<Response<Reply>> {
    let may_ask = *client.entrance == Entrance::Main && client.peer == Peer::Unix;
    if !may_ask || request.method() != Method::GET || request.uri().authority().is_some() {
        return None;
    }
    let name = request.uri().path().strip_prefix(REVOCATIONS_PATH)?;
    let block = name.parse::<BlockId>().ok().map(Subject::Block);
    let subject = block.or_else(|| name.parse::<PublicKey>().ok().map(Subject::Holder))?;
    let is_revoked = client.proxy.live.snapshot().revocations().names(subject);
    let mut response = Response::new(Reply::empty());
    *response.status_mut() = if is_revoked { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND };
    Some(response)
}
