//! A head: where it ends, and which one framing a request's announces.

use super::Violation;

/// A request line and its fields are at most this many bytes: credentials of 32 KiB (43 KiB as Basic),
/// header lists of 64 KiB, and a long query.
pub const HEAD_BYTES_MAX: usize = 112 * 1024;
/// The same inside a tunnel, where no credentials are shown: a header list of 64 KiB, and a long query.
pub(super) const TUNNEL_HEAD_BYTES_MAX: usize = 96 * 1024;
/// A target is at most this many bytes; `http::Uri` takes no more.
const TARGET_BYTES_MAX: usize = 64 * 1024 - 2;
/// A head has at most this many fields.
pub const HEADERS_MAX: usize = 128;
/// A field's name is at most this many bytes; `http::HeaderName` takes no more than 64 KiB.
const NAME_BYTES_MAX: usize = 1024;
/// A content length has at most this many digits: below 10^18, so no sum overflows.
const LENGTH_DIGITS_MAX: usize = 18;

/// How the bytes after a head are framed (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// No body.
    None,
    /// A body of this many bytes, at least one.
    Length(u64),
    /// A chunked body.
    Chunked,
    /// CONNECT or `Upgrade`: what follows may not be HTTP.
    LeavesHttp,
}

/// The length of the head, a request's or an answer's, that `bytes` begin with, up to and with its empty line; `None` when
/// it is not complete. The first `searched` bytes are known to hold no end, so a head that comes byte by byte is read once.
///
/// # Errors
/// A line feed without carriage return, or the reverse (RFC 9112 §2.2), and a head beyond its bound.
pub(super) fn end(bytes: &[u8], searched: usize, bytes_max: usize) -> Result<Option<usize>, Violation> {
    let mut at = searched.saturating_sub(3);
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr::memchr2(b'\n', b'\r', rest)) {
        at += found;
        match (bytes.get(at), bytes.get(at + 1)) {
            (Some(b'\r'), Some(b'\n')) if bytes.get(at + 2..at + 4) == Some(b"\r\n") => {
                return if at + 4 > bytes_max { Err(Violation::HeadTooLarge) } else { Ok(Some(at + 4)) };
            }
            (Some(b'\r'), Some(b'\n')) => at += 2,
            (Some(b'\r'), None) => break,
            // The search may have begun at the second half of a pair that was looked at before.
            (Some(b'\n'), _) if at.checked_sub(1).and_then(|before| bytes.get(before)) == Some(&b'\r') => at += 1,
            _ => return Err(Violation::Framing),
        }
    }
    if bytes.len() > bytes_max { Err(Violation::HeadTooLarge) } else { Ok(None) }
}

/// The framing that a complete head announces.
///
/// # Errors
/// [`Violation::Framing`] when it announces none or more than one, or is no HTTP/1 head at all.
pub(super) fn framing(head: &[u8]) -> Result<Framing, Violation> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Violation::HeadTooLarge),
        _ => return Err(Violation::Framing),
    }
    // httparse skips empty lines before a request; nothing sends them, and two readers may differ.
    if head.first().is_none_or(|first| !first.is_ascii_alphabetic()) {
        return Err(Violation::Framing);
    }
    check_target(request.method.unwrap_or_default(), request.path.unwrap_or_default())?;
    let announced = Announced::read(request.headers)?;
    announced.framing(request.method == Some("CONNECT"), request.version == Some(0))
}

/// A target is one of the four forms of RFC 9112 §3.2, each with the methods that may have it. What hyper would refuse
/// without a word to its service, or cut at a `#`, is refused here.
fn check_target(method: &str, target: &str) -> Result<(), Violation> {
    if target.len() > TARGET_BYTES_MAX {
        return Err(Violation::HeadTooLarge);
    }
    if method != "CONNECT" && target.starts_with('/') && target.bytes().all(|byte| PLAIN[usize::from(byte)]) {
        return Ok(());
    }
    let uri: http::Uri = target.parse().map_err(|_| Violation::Framing)?;
    let form = match method {
        "CONNECT" => true,
        "OPTIONS" if target == "*" => true,
        _ => target.starts_with('/') || uri.scheme().is_some(),
    };
    if form && !target.contains('#') { Ok(()) } else { Err(Violation::Framing) }
}

/// What RFC 3986 §3.3 and §3.4 allow in a path and a query.
const PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < u8::MAX {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
            )
            || matches!(byte, b':' | b'@' | b'/' | b'?' | b'%');
        byte += 1;
    }
    table
};

/// The fields that decide framing, each met at most once.
#[derive(Default)]
struct Announced {
    length: Option<u64>,
    chunked: bool,
    hosts: usize,
    upgrade: bool,
}

impl Announced {
    fn read(fields: &[httparse::Header<'_>]) -> Result<Self, Violation> {
        let mut announced = Self::default();
        for field in fields {
            if field.name.len() > NAME_BYTES_MAX {
                return Err(Violation::HeadTooLarge);
            }
            if field.name.eq_ignore_ascii_case("content-length") {
                if announced.length.replace(content_length(field.value)?).is_some() {
                    return Err(Violation::Framing);
                }
            } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
                if announced.chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Violation::Framing);
                }
                announced.chunked = true;
            } else if field.name.eq_ignore_ascii_case("host") {
                announced.hosts += 1;
            } else if field.name.eq_ignore_ascii_case("upgrade") {
                announced.upgrade = true;
            }
        }
        Ok(announced)
    }

    fn framing(&self, connect: bool, http_1_0: bool) -> Result<Framing, Violation> {
        let hosts_wrong = if http_1_0 { self.hosts > 1 } else { self.hosts != 1 && !connect };
        // A chunked body in HTTP/1.0, or beside a length, is how requests are smuggled (§6.1, §6.3).
        let two_framings = self.chunked && (self.length.is_some() || http_1_0);
        let connect_with_body = connect && (self.chunked || self.length.is_some_and(|length| length > 0));
        if hosts_wrong || self.hosts > 1 || two_framings || connect_with_body {
            return Err(Violation::Framing);
        }
        Ok(match (self.chunked, self.length) {
            _ if connect => Framing::LeavesHttp,
            (true, _) => Framing::Chunked,
            (false, Some(length)) if length > 0 => Framing::Length(length),
            _ if self.upgrade => Framing::LeavesHttp,
            _ => Framing::None,
        })
    }
}

/// The value of a `Content-Length` in its one spelling.
pub(super) fn content_length(value: &[u8]) -> Result<u64, Violation> {
    let plain = !value.is_empty() && value.len() <= LENGTH_DIGITS_MAX && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| plain).ok_or(Violation::Framing)?;
    text.parse().map_err(|_| Violation::Framing)
}
