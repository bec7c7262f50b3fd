//! Who asks: a page of a browser, a stranger, or somebody with the home's token.

use aws_lc_rs::constant_time;
use aws_lc_rs::digest::{SHA256, digest};
use http::Request;
use http::header::{self, HeaderName};

use crate::request::Target;
use crate::store::{Home, bearer};

/// Set by browsers alone, and by no page's script.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whom a request names as its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    Us,
    Somebody,
    /// There is more than one `Host`: whoever reads another one than we do takes it for another request (RFC 9112 §3.2).
    Several,
}

/// A page of some website may point a name of its own at us (DNS rebinding), or use an address that means this machine to
/// a browser: only `localhost` and loopback addresses are our names, with our `port` if they say one and we have one. The
/// authority of an absolute request-target has to be one of them too.
pub(super) fn named<B>(request: &Request<B>, port: Option<u16>) -> Named {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Named::Several;
    }
    let host = first.and_then(|host| host.to_str().ok()).unwrap_or_default();
    let in_target = request.uri().authority();
    let is_ours = is_our_name(host, port) && in_target.is_none_or(|target| is_our_name(target.as_str(), port));
    if is_ours { Named::Us } else { Named::Somebody }
}

fn is_our_name(host: &str, port: Option<u16>) -> bool {
    let Ok(named) = Target::parse_or(host, port.unwrap_or(80)) else { return false };
    let is_our_host = match named.host.address() {
        Some(address) => crate::net::address::unmapped(address).is_loopback(),
        None => named.host.as_str() == "localhost",
    };
    is_our_host && port.is_none_or(|port| named.port == port)
}

/// Whether a page of another site asks: a browser says whose page it is.
pub(super) fn is_of_another_site<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let one = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let own = one(&header::HOST).map(|host| format!("http://{host}"));
    let foreign = one(&header::ORIGIN).is_some_and(|origin| own.as_deref() != Some(origin));
    foreign || one(&FETCH_SITE).is_some_and(|site| site != "same-origin" && site != "none")
}

/// Whether the request shows the home's token. Read each time, so that a new one counts at once; never when the file is
/// not private.
pub(super) fn has_token<B>(request: &Request<B>, home: &Home) -> bool {
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some((scheme, shown)) = shown.and_then(|value| value.split_once(' ')) else { return false };
    let token = match bearer::read(home) {
        Ok(token) => token,
        Err(error) => {
            tracing::warn!(%error, "nobody can use the operator's listener: capctl admin token makes a token");
            return false;
        }
    };
    // Digests are of one length, whatever was shown.
    let same = |a: &str, b: &str| {
        let (a, b) = (digest(&SHA256, a.as_bytes()), digest(&SHA256, b.as_bytes()));
        constant_time::verify_slices_are_equal(a.as_ref(), b.as_ref()).is_ok()
    };
    scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && same(shown.trim(), &token)
}
