//! The character encoding of an answer. Forms of a secret are looked for, and tokens found, in what begins with ASCII; an
//! encoding that does not would hide both, and an agent may ask for it.

use http::header::{self, HeaderMap, HeaderValue};

/// Encodings whose names begin so are none that begin with ASCII; by their letters and digits alone.
const OTHERS: [&str; 9] = ["utf16", "utf32", "utf7", "ucs2", "ucs4", "iso10646ucs", "csunicode", "unicode", "ebcdic"];
/// What IBM's code pages are called, before their number.
const PAGES: [&str; 5] = ["csibm", "xibm", "ibm", "cp", "ccsid"];
/// Those of them that begin with ASCII; the others are EBCDIC.
const ASCII_PAGES: [u32; 38] = [
    367, 437, 720, 737, 775, 813, 819, 850, 852, 855, 856, 857, 858, 860, 861, 862, 863, 864, 865, 866, 868, 869, 874,
    932, 936, 943, 949, 950, 954, 1250, 1251, 1252, 1253, 1254, 1255, 1256, 1257, 1258,
];

/// Removes from a request what asks for an encoding: the one that the upstream gives by itself can be scanned.
pub(super) fn ask_for_none(headers: &mut HeaderMap) {
    headers.remove(header::ACCEPT_CHARSET);
    let asks = |value: &HeaderValue| value.as_bytes().windows(7).any(|window| window.eq_ignore_ascii_case(b"charset"));
    if !headers.get_all(header::ACCEPT).iter().any(asks) {
        return;
    }
    let values: Vec<HeaderValue> = headers.get_all(header::ACCEPT).iter().filter_map(without_charset).collect();
    headers.remove(header::ACCEPT);
    for value in values {
        headers.append(header::ACCEPT, value);
    }
}

/// `None` for a value that cannot be told.
fn without_charset(value: &HeaderValue) -> Option<HeaderValue> {
    let text = value.to_str().ok()?;
    let kept = |range: &str| -> String {
        let parts: Vec<&str> = range.split(';').filter(|part| parameter(part).is_none()).collect();
        parts.join(";")
    };
    let ranges: Vec<String> = text.split(',').map(kept).collect();
    HeaderValue::from_str(&ranges.join(",")).ok()
}

/// Whether a body that says so begins with ASCII. One that says nothing does.
pub(super) fn is_readable(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONTENT_TYPE).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    values.into_iter().all(|value| value.split([';', ',']).filter_map(parameter).all(begins_with_ascii))
}

/// What a `charset` parameter says (RFC 9110 §8.3.2).
fn parameter(part: &str) -> Option<&str> {
    let (name, value) = part.split_once('=')?;
    name.trim().eq_ignore_ascii_case("charset").then_some(value)
}

fn begins_with_ascii(name: &str) -> bool {
    if name.eq_ignore_ascii_case("utf-8") {
        return true;
    }
    let name: String =
        name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect();
    if OTHERS.iter().any(|other| name.starts_with(other)) {
        return false;
    }
    let digits = PAGES.iter().find_map(|page| name.strip_prefix(page)).unwrap_or_default();
    let number: String = digits.chars().take_while(char::is_ascii_digit).collect();
    number.parse().map_or(true, |number| ASCII_PAGES.contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &header::HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_request_asks_for_no_encoding() {
        for (sent, expected) in [
            ("text/html;charset=utf-16, application/json; q=0.5", "text/html, application/json; q=0.5"),
            ("text/html;level=1; Charset = \"utf-16\" ;q=1", "text/html;level=1;q=1"),
            ("*/*;charset=utf-8", "*/*"),
            ("text/html;charsets=utf-16", "text/html;charsets=utf-16"),
            ("text/html;q=0.5,*/*", "text/html;q=0.5,*/*"),
        ] {
            let mut headers = headers(&header::ACCEPT, &[sent, "a/b"]);
            headers.insert(header::ACCEPT_CHARSET, HeaderValue::from_static("utf-16"));
            ask_for_none(&mut headers);
            let values: Vec<&str> =
                headers.get_all(header::ACCEPT).iter().map(|value| value.to_str().unwrap()).collect();
            assert_eq!(values, [expected, "a/b"]);
            assert!(!headers.contains_key(header::ACCEPT_CHARSET));
        }
    }

    #[test]
    fn an_encoding_that_does_not_begin_with_ascii_is_told() {
        for (value, readable) in [
            ("text/html", true),
            ("application/json; charset=utf-8", true),
            ("text/html; charset=ISO-8859-1", true),
            ("text/html;charset=windows-1252", true),
            ("text/html;charset=cp1252", true),
            ("text/html;charset=IBM866", true),
            ("text/html;charset=Shift_JIS", true),
            ("text/html;charset=", true),
            ("text/html;charset=\"utf-8\"", true),
            ("text/html;charset=utf-16", false),
            ("application/json; Charset=\"UTF-16LE\"", false),
            ("text/html; charset = utf_32", false),
            ("text/html;charset=UTF-7", false),
            ("text/html;charset=iso-10646-ucs-2", false),
            ("text/html;charset=IBM037", false),
            ("text/html;charset=cp500", false),
            ("text/html;charset=ebcdic-us", false),
            ("text/html;charset=utf-8;charset=utf-16", false),
        ] {
            assert_eq!(is_readable(&headers(&header::CONTENT_TYPE, &[value])), readable, "{value}");
        }
        assert!(!is_readable(&headers(&header::CONTENT_TYPE, &["text/html", "text/html;charset=utf-16"])));
        assert!(is_readable(&HeaderMap::new()));
    }
}
