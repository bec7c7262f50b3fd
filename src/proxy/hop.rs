//! Hop-by-hop fields: what belongs to one connection and never passes to the next (RFC 9110 §7.6.1).

use http::header::{self, HeaderName};
use http::{HeaderMap, StatusCode};

/// Fields of one connection. `Trailer` stays: HTTP/1 sends trailers only when it announces them.
const HOP_BY_HOP: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("http2-settings"),
];

/// Removes every hop-by-hop field, those that `Connection` names, all `Proxy-*`, in whatever spelling, and what is ours to
/// say: some clients send `Proxy-Authorization` inside the tunnel, and a capability never goes upstream. `TE` is cut down
/// to `trailers`, the one value that gRPC needs.
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

/// True when the head of an answer frames it in one way. hyper goes by one of several; whether the upstream went by the
/// same is unknown, so such a connection serves no second request.
pub(super) fn is_framed_once(headers: &HeaderMap, status: StatusCode) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let (length, coding) = (lengths.next(), codings.next());
    let one = lengths.next().is_none() && codings.next().is_none() && (length.is_none() || coding.is_none());
    let plain = length.is_none_or(|length| !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit))
        && coding.is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    let empty = length.is_none_or(|length| length == "0") && coding.is_none();
    one && plain && (empty || status != StatusCode::NO_CONTENT)
}

/// Leaves the one length that the answer has in truth, `None` where chunks or the close end it (RFC 9110 §8.6). An
/// answer that is its head alone may tell the length of another.
pub(super) fn set_length(headers: &mut HeaderMap, status: StatusCode, head_alone: bool, length: Option<u64>) {
    if !headers.contains_key(header::CONTENT_LENGTH) {
        return;
    }
    let said = || headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse::<u64>().ok();
    let length = if status == StatusCode::NO_CONTENT {
        None
    } else if head_alone {
        said()
    } else {
        length
    };
    let once = headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_none();
    match length {
        None => _ = headers.remove(header::CONTENT_LENGTH),
        Some(length) if once && said() == Some(length) => {}
        Some(length) => _ = headers.insert(header::CONTENT_LENGTH, length.into()),
    }
}

/// Fields that say how a message is framed, where it goes, who sends it or what it is: never in a trailer
/// (RFC 9110 §6.5.1).
const NOT_IN_TRAILERS: [HeaderName; 10] = [
    header::CONTENT_LENGTH,
    header::HOST,
    header::TRAILER,
    header::TE,
    header::EXPECT,
    header::SET_COOKIE,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::ALT_SVC,
];

/// Leaves in trailers only what may be there, on either way.
pub(super) fn strip_trailers(trailers: &mut HeaderMap) {
    strip_nominated(trailers);
    strip_fixed(trailers);
    for name in &NOT_IN_TRAILERS {
        trailers.remove(name);
    }
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
            || is_of_a_proxy(name)
            || is_misspelt_framing(name)
    })
}

/// `Proxy-*`, with any mark for the dash, and `Narrows-*`.
fn is_of_a_proxy(name: &HeaderName) -> bool {
    match name.as_str().as_bytes() {
        [b'p', b'r', b'o', b'x', b'y', mark, ..] => !mark.is_ascii_alphanumeric(),
        [b'n', rest @ ..] => rest.starts_with(b"arrows-"),
        _ => false,
    }
}

/// `content_length` and its like: CGI and many a framework read any mark as `-`, and would read a second framing.
fn is_misspelt_framing(name: &HeaderName) -> bool {
    let folds_to = |framing: &HeaderName| {
        let dashed = |byte: u8| if byte.is_ascii_alphanumeric() { byte } else { b'-' };
        name != framing && name.as_str().bytes().map(dashed).eq(framing.as_str().bytes())
    };
    match name.as_str().len() {
        14 => folds_to(&header::CONTENT_LENGTH),
        17 => folds_to(&header::TRANSFER_ENCODING),
        _ => false,
    }
}

fn strip_fixed(headers: &mut HeaderMap) {
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    let doomed = |name: &&HeaderName| is_of_a_proxy(name) || is_misspelt_framing(name);
    while let Some(name) = headers.keys().find(doomed).cloned() {
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
            ("proxy_authorization", "Cap x"),
            ("narrows-request-id", "01"),
            ("proxyish", "1"),
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
        assert_eq!(left, ["host", "proxyish", "trailer", "x-kept"]);
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
    #[test]
    fn a_second_framing_in_other_spelling_does_not_pass() {
        let mut request =
            headers(&[("content_length", "3"), ("transfer.encoding", "chunked"), ("content-language", "a")]);
        strip_request(&mut request);
        assert_eq!(request.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["content-language"]);
    }

    #[test]
    fn trailers_neither_frame_nor_route() {
        let mut trailers = headers(&[
            ("content-length", "3"),
            ("transfer-encoding", "chunked"),
            ("host", "a"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("proxy-authorization", "Cap x"),
            ("set-cookie", "a"),
            ("grpc-status", "0"),
        ]);
        strip_trailers(&mut trailers);
        assert_eq!(trailers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["grpc-status"]);
    }

    #[test]
    fn an_answer_framed_in_two_ways_is_known() {
        let once =
            |fields, status: u16| is_framed_once(&headers(fields), StatusCode::from_u16(status).expect("a status"));
        let twice: [&[(&str, &str)]; 6] = [
            &[("content-length", "3"), ("transfer-encoding", "chunked")],
            &[("content-length", "3"), ("content-length", "3")],
            &[("content-length", "3, 3")],
            &[("content-length", "")],
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            &[("transfer-encoding", "gzip, chunked")],
        ];
        for fields in twice {
            assert!(!once(fields, 200), "{fields:?}");
        }
        assert!(!once(&[("content-length", "3")], 204) && !once(&[("transfer-encoding", "chunked")], 204));
        assert!(once(&[("content-length", "3")], 200) && once(&[("transfer-encoding", "Chunked")], 200));
        assert!(once(&[], 200) && once(&[("content-length", "0")], 204) && once(&[("content-length", "3")], 304));
    }

    #[test]
    fn an_answer_tells_the_length_that_it_has() {
        let told = |fields, status: u16, head_alone, length| {
            let mut headers = headers(fields);
            set_length(&mut headers, StatusCode::from_u16(status).expect("a status"), head_alone, length);
            let lengths = headers.get_all("content-length").iter();
            lengths.map(|length| length.to_str().expect("digits").to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(told(&[("content-length", "3, 3")], 200, false, Some(3)), ["3"]);
        assert_eq!(told(&[("content-length", "3"), ("content-length", "3")], 200, false, Some(3)), ["3"]);
        assert_eq!(told(&[("content-length", "3")], 200, false, None), [""; 0]);
        assert_eq!(told(&[("content-length", "3")], 204, true, Some(0)), [""; 0]);
        assert_eq!(told(&[("content-length", "3")], 200, true, Some(0)), ["3"]);
        assert_eq!(told(&[("content-length", "x")], 304, true, Some(0)), [""; 0]);
        assert_eq!(told(&[], 200, false, Some(0)), [""; 0]);
    }
}
