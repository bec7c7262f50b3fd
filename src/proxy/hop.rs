//! Hop-by-hop fields: what belongs to one connection and never passes to the next (RFC 9110 §7.6.1).

use http::HeaderMap;
use http::header::{self, HeaderName};

/// Fields of one connection. `Trailer` stays: HTTP/1 sends trailers only when it announces them.
const HOP_BY_HOP: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("http2-settings"),
];

/// Removes every hop-by-hop field, those that `Connection` names, and all `Proxy-*`: some clients send
/// `Proxy-Authorization` inside the tunnel, and a capability never goes upstream. `TE` is cut down to
/// `trailers`, the one value that gRPC needs.
pub(super) fn strip_request(headers: &mut HeaderMap) {
    if !has_hop_by_hop(headers) {
        return;
    }
    // Read first: on HTTP/1 a sender of `TE` must also name it in `Connection` (RFC 9110 §10.1.4).
    let trailers = headers.get_all(header::TE).iter().any(|value| {
        let names = value.to_str().unwrap_or_default().split(',');
        names.map(str::trim).any(|name| name.eq_ignore_ascii_case("trailers"))
    });
    strip_nominated(headers);
    strip_fixed(headers);
    headers.remove(header::TE);
    if trailers {
        headers.insert(header::TE, header::HeaderValue::from_static("trailers"));
    }
}

/// Removes the same from an answer, and `Alt-Svc`, which would lead the client around the proxy
/// (RFC 7838 §2.4).
pub(super) fn strip_answer(headers: &mut HeaderMap) {
    if !has_hop_by_hop(headers) {
        return;
    }
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // The body is framed anew; a length beside a coding is not to be believed (RFC 9112 §6.3).
        headers.remove(header::CONTENT_LENGTH);
    }
    strip_nominated(headers);
    strip_fixed(headers);
    headers.remove(header::TE);
    headers.remove(header::ALT_SVC);
}

/// True when `Connection` has this option.
pub(super) fn connection_has(headers: &HeaderMap, option: &str) -> bool {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|name| name.trim().eq_ignore_ascii_case(option))
}

/// One look at the names tells whether there is anything to remove: mostly there is not.
fn has_hop_by_hop(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| {
        HOP_BY_HOP.contains(name)
            || *name == header::TE
            || *name == header::ALT_SVC
            || name.as_str().starts_with("proxy-")
    })
}

fn strip_fixed(headers: &mut HeaderMap) {
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    while let Some(name) = headers.keys().find(|name| name.as_str().starts_with("proxy-")).cloned() {
        headers.remove(name);
    }
}

fn strip_nominated(headers: &mut HeaderMap) {
    if !headers.contains_key(header::CONNECTION) {
        return;
    }
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let nominated: Vec<HeaderName> =
        values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect();
    for name in nominated {
        // Framing and the destination are not a hop's to drop: they decide what the request is.
        if name != header::HOST && name != header::CONTENT_LENGTH {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"));
        }
        map
    }

    #[test]
    fn what_belongs_to_one_connection_does_not_pass() {
        let mut request = headers(&[
            ("connection", "close, X-Hop"),
            ("connection", "authorization"),
            ("x-hop", "1"),
            ("authorization", "a"),
            ("keep-alive", "1"),
            ("proxy-authorization", "Cap x"),
            ("proxy-connection", "1"),
            ("proxy-anything", "1"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("te", "gzip, Trailers;q=1"),
            ("x-kept", "1"),
            ("trailer", "x-sum"),
            ("host", "a"),
        ]);
        strip_request(&mut request);
        let mut left: Vec<_> = request.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["host", "trailer", "x-kept"]);
    }

    #[test]
    fn te_trailers_passes_and_nothing_else_of_te() {
        let mut request = headers(&[("te", "gzip, Trailers"), ("connection", "TE")]);
        strip_request(&mut request);
        assert_eq!(request.get("te").expect("te"), "trailers");
    }

    #[test]
    fn host_and_length_cannot_be_nominated_away() {
        let mut request = headers(&[("connection", "host, content-length"), ("host", "a"), ("content-length", "3")]);
        strip_request(&mut request);
        assert!(request.contains_key("host") && request.contains_key("content-length"));
    }

    #[test]
    fn an_answer_keeps_one_framing_and_no_way_around() {
        let mut answer = headers(&[
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
            ("alt-svc", "h3=\":443\""),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("proxy-authenticate", "Basic"),
            ("trailer", "x-sum"),
            ("etag", "1"),
        ]);
        strip_answer(&mut answer);
        let mut left: Vec<_> = answer.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["etag", "trailer"]);
    }
}
