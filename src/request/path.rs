//! The canonical-path rule: a path that two readers could read differently is refused, not repaired.

use std::borrow::Cow;

use super::Text;

/// A path is at most this many bytes, as sent. Longer ones are refused, so that a journal line has a
/// bound.
pub const PATH_BYTES_MAX: usize = 8 * 1024;

/// What a service says about `%2F` in its paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EncodedSlash {
    /// The path is ambiguous and refused.
    #[default]
    Refuse,
    /// `%2F` stays inside its segment, upper-cased, and is matched literally (npm, GitLab).
    Opaque,
}

/// Why a path is ambiguous. One public code, `path_ambiguous`; the variants are for tests and people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Longer than [`PATH_BYTES_MAX`].
    #[error("the path is longer than {PATH_BYTES_MAX} bytes")]
    TooLong,
    /// Does not start with `/`.
    #[error("the path does not start with a slash")]
    NotAbsolute,
    /// `.`, `..`, or either before what some server cuts.
    #[error("the path has a dot segment")]
    DotSegment,
    /// `//`.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// A byte that RFC 3986 §3.3 does not allow in a path, among them `\`, controls and non-ASCII.
    #[error("the path has a byte that must be percent-encoded")]
    Byte,
    /// `%` without two hexadecimal digits.
    #[error("the path has a broken percent-encoding")]
    Escape,
    /// An encoded separator, percent sign, control or unreserved character, or one in too many bytes.
    #[error("the path percent-encodes a character that changes its meaning")]
    Encoding,
}

/// A path with one reading: absolute, no dot segments, no empty segment but a last one, every escape
/// needed and in upper case. What policy matched is byte for byte what is sent upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CanonicalPath(Text);

impl CanonicalPath {
    /// Checks a request's path (without its query) against the rule.
    ///
    /// The only change made is upper-casing the digits of escapes (RFC 3986 §6.2.2.1).
    ///
    /// # Errors
    /// [`PathError`] says which part of the rule the path breaks.
    pub fn parse(path: &str, encoded_slash: EncodedSlash) -> Result<Self, PathError> {
        if path.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        if is_plain(path) {
            return Ok(Self(path.into()));
        }
        let rest = path.strip_prefix('/').ok_or(PathError::NotAbsolute)?;
        check_bytes(path.as_bytes(), encoded_slash)?;
        check_overlong(path)?;
        check_segments(rest)?;
        Ok(Self(upper_case_escapes(path)))
    }

    /// The canonical text, `/` and everything after it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments between the slashes; a trailing slash gives a last empty one, `/` gives one empty.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.strip_prefix('/').unwrap_or(&self.0).split('/')
    }

    /// Segment-aware containment: `self` is `prefix` or lies below it. `/v1` contains `/v1/items`, not
    /// `/v10`; a trailing slash of the prefix does not count.
    #[must_use]
    pub fn is_within(&self, prefix: &str) -> bool {
        is_within(&self.0, prefix)
    }
}

/// [`CanonicalPath::is_within`] on text that is known to be canonical.
fn is_within(path: &str, prefix: &str) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The quick look, at each byte once: most paths have no escape, and no dot or slash at the start of a segment. What it
/// does not take is looked at in full.
fn is_plain(path: &str) -> bool {
    let mut before = None;
    path.starts_with('/')
        && path.bytes().all(|byte| {
            let starts_segment = before.replace(byte) == Some(b'/');
            PATH_BYTES[usize::from(byte)] && !(starts_segment && matches!(byte, b'/' | b'.'))
        })
}

/// [`is_path_byte`] of each byte.
const PATH_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < u8::MAX {
        table[byte as usize] = is_path_byte(byte);
        byte += 1;
    }
    table
};

fn check_bytes(path: &[u8], encoded_slash: EncodedSlash) -> Result<(), PathError> {
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        if byte == b'%' {
            check_escape(path.get(at + 1..at + 3), encoded_slash)?;
            at += 3;
        } else if is_path_byte(byte) {
            at += 1;
        } else {
            return Err(PathError::Byte);
        }
    }
    Ok(())
}

fn check_escape(digits: Option<&[u8]>, encoded_slash: EncodedSlash) -> Result<(), PathError> {
    let Some(&[high, low]) = digits else { return Err(PathError::Escape) };
    let (Some(high), Some(low)) = (hex_value(high), hex_value(low)) else { return Err(PathError::Escape) };
    let decoded = high << 4 | low;
    match decoded {
        b'/' if encoded_slash == EncodedSlash::Opaque => Ok(()),
        b'/' | b'\\' | b'%' | 0..=0x1f | 0x7f => Err(PathError::Encoding),
        _ if is_unreserved(decoded) => Err(PathError::Encoding),
        _ => Ok(()),
    }
}

/// No escapes stand for a character in more bytes than it has: in such a form a lax decoder finds a dot or a slash (RFC 3629
/// §10). Other bytes that are no UTF-8 are somebody's older encoding.
fn check_overlong(path: &str) -> Result<(), PathError> {
    let decoded: Cow<'_, [u8]> = percent_encoding::percent_decode_str(path).into();
    let overlong = decoded.windows(2).any(|pair| matches!(pair, [0xe0, 0x80..=0x9f] | [0xf0, 0x80..=0x8f]));
    let two_bytes = decoded.iter().any(|byte| matches!(byte, 0xc0 | 0xc1));
    if overlong || two_bytes { Err(PathError::Encoding) } else { Ok(()) }
}

fn check_segments(rest: &str) -> Result<(), PathError> {
    let mut segments = rest.split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            return Err(PathError::EmptySegment);
        }
        if has_dots(segment) {
            return Err(PathError::DotSegment);
        }
    }
    Ok(())
}

/// True when some server takes the segment for `.` or `..`: some cut `;parameters` before they resolve dots, some decode
/// before that and cut a query, a fragment or trailing space.
fn has_dots(segment: &str) -> bool {
    const ENDS: [&str; 5] = [";", "%3B", "%3F", "%23", "%20"];
    let starts = |rest: &str, end: &str| rest.get(..end.len()).is_some_and(|start| start.eq_ignore_ascii_case(end));
    [".", ".."]
        .into_iter()
        .filter_map(|dots| segment.strip_prefix(dots))
        .any(|rest| rest.is_empty() || ENDS.iter().any(|end| starts(rest, end)))
}

fn upper_case_escapes(path: &str) -> Text {
    let mut digits_left = 0_u8;
    path.chars()
        .map(|c| {
            if c == '%' {
                digits_left = 2;
                c
            } else if digits_left > 0 {
                digits_left -= 1;
                c.to_ascii_uppercase()
            } else {
                c
            }
        })
        .collect()
}

fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// RFC 3986 §2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// `pchar` and `/` of RFC 3986 §3.3, without `%`.
const fn is_path_byte(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'/' | b':' | b'@' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str) -> Result<CanonicalPath, PathError> {
        CanonicalPath::parse(path, EncodedSlash::Refuse)
    }

    proptest::proptest! {
        /// The quick look takes nothing that the full one refuses.
        #[test]
        fn the_quick_look_takes_no_more(path in "/[a-z/.;%%2F~ ?\\\\é]{0,12}") {
            if is_plain(&path) {
                let rest = path.strip_prefix('/').expect("absolute");
                proptest::prop_assert_eq!(check_bytes(path.as_bytes(), EncodedSlash::Refuse), Ok(()));
                proptest::prop_assert_eq!(check_segments(rest), Ok(()));
            }
        }

        /// A server that decodes every escape before it splits sees the same segments, and none that moves up.
        #[test]
        fn decoding_hides_no_segment(path in "(/[a.%;]?[a2EFf.]{0,3}){1,3}") {
            let Ok(path) = parse(&path) else { return Ok(()) };
            let decoded = percent_encoding::percent_decode_str(path.as_str()).collect::<Vec<u8>>();
            let segments: Vec<_> = decoded.split(|&byte| byte == b'/').skip(1).collect();
            proptest::prop_assert_eq!(segments.len(), path.segments().count());
            proptest::prop_assert!(!segments.iter().any(|segment| matches!(*segment, b"." | b"..")));
        }
    }

    #[test]
    fn plain_paths_pass_unchanged() {
        let plain = [
            "/",
            "/v1/items",
            "/v1/items/",
            "/a;b=c/d",
            "/a%3Bb/c",
            "/...%3B",
            "/repos/acme/widgets",
            "/~me/@x:y",
            "/%C3%A9",
            "/..%C3%A9",
            "/a..%20b",
            "/%E9t%E9",
            "/%E0%A4%B9/%F0%9F%A6%80",
            "/a%20b",
            "/v1/x:generate",
            "/...",
            "/.git/HEAD",
        ];
        for path in plain {
            assert_eq!(parse(path).expect(path).as_str(), path);
        }
    }

    #[test]
    fn every_ambiguous_path_is_refused_with_its_class() {
        let refused = [
            ("", PathError::NotAbsolute),
            ("v1", PathError::NotAbsolute),
            ("*", PathError::NotAbsolute),
            ("/a/../b", PathError::DotSegment),
            ("/a/./b", PathError::DotSegment),
            ("/a/..", PathError::DotSegment),
            ("/a/..;x/b", PathError::DotSegment),
            ("/.;x", PathError::DotSegment),
            ("/a/..%3Bx/b", PathError::DotSegment),
            ("/.%3b", PathError::DotSegment),
            ("/a/..%3Fx/b", PathError::DotSegment),
            ("/a/..%23", PathError::DotSegment),
            ("/.%20/b", PathError::DotSegment),
            ("//a", PathError::EmptySegment),
            ("/a//b", PathError::EmptySegment),
            ("/a//", PathError::EmptySegment),
            ("/a\\b", PathError::Byte),
            ("/a b", PathError::Byte),
            ("/a\u{7f}", PathError::Byte),
            ("/é", PathError::Byte),
            ("/a\"b", PathError::Byte),
            ("/a|b", PathError::Byte),
            ("/a?b", PathError::Byte),
            ("/a#b", PathError::Byte),
            ("/%2Fa", PathError::Encoding),
            ("/%2fa", PathError::Encoding),
            ("/%5Ca", PathError::Encoding),
            ("/%2e%2e/a", PathError::Encoding),
            ("/%41", PathError::Encoding),
            ("/%7e", PathError::Encoding),
            ("/%25", PathError::Encoding),
            ("/%00", PathError::Encoding),
            ("/%0a", PathError::Encoding),
            ("/%7F", PathError::Encoding),
            ("/%C0%AF", PathError::Encoding),
            ("/%C0%AE%C0%AE/a", PathError::Encoding),
            ("/%E0%80%AF", PathError::Encoding),
            ("/%F0%80%80%AF", PathError::Encoding),
            ("/%", PathError::Escape),
            ("/%4", PathError::Escape),
            ("/%4g", PathError::Escape),
            ("/%+1", PathError::Escape),
        ];
        for (path, class) in refused {
            assert_eq!(parse(path), Err(class), "{path:?}");
        }
    }

    #[test]
    fn an_opaque_slash_stays_in_its_segment() {
        let path =
            CanonicalPath::parse("/api/v4/projects/acme%2fwidgets/issues", EncodedSlash::Opaque).expect("opaque");
        assert_eq!(path.as_str(), "/api/v4/projects/acme%2Fwidgets/issues");
        assert_eq!(path.segments().nth(3), Some("acme%2Fwidgets"));
        assert!(!path.is_within("/api/v4/projects/acme"));
        assert_eq!(CanonicalPath::parse("/a%5Cb", EncodedSlash::Opaque), Err(PathError::Encoding));
    }

    #[test]
    fn containment_is_by_segment() {
        let path = parse("/v1/items/7").expect("plain");
        assert!(
            path.is_within("/v1/items")
                && path.is_within("/v1/items/")
                && path.is_within("/v1/items/7")
                && path.is_within("/")
        );
        assert!(!path.is_within("/v1/item") && !path.is_within("/v1/items/70") && !path.is_within("/v1/items/7/x"));
        assert!(!parse("/v1/itemsevil").expect("plain").is_within("/v1/items"));
    }

    #[test]
    fn length_is_bounded() {
        let longest = format!("/{}", "a".repeat(PATH_BYTES_MAX - 1));
        assert!(parse(&longest).is_ok());
        assert_eq!(parse(&format!("{longest}a")), Err(PathError::TooLong));
    }
}
