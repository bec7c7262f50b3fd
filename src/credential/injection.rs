//! Where a secret goes into a request, and the value made ready to go there.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, percent_encode};
use zeroize::Zeroizing;

use super::slots::{Stripped, Unwritable};
use super::{Secret, query};

/// What stands for the secret in a header template.
const SECRET_MARK: &str = "{secret}";

/// Everything but the unreserved characters (RFC 3986 §2.3) is encoded in a query.
const QUERY_SET: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Headers that carry framing, routing or the proxy's own protocol: never a place for a secret.
const UNFIT_HEADERS: [&str; 14] = [
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// Why a text names no place for a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadInjection {
    /// No `Name: value` with exactly one `{secret}` in the value.
    #[error("a header injection reads `Name: …{{secret}}`, with `{{secret}}` once")]
    Template,
    /// The header's name is no name, or one that frames or routes the request.
    #[error("a secret cannot go into this header")]
    Header,
    /// The text around `{secret}` holds what a header value cannot.
    #[error("the text around `{{secret}}` must be printable ASCII")]
    Text,
    /// Basic's user holds a colon or what is not printable ASCII (RFC 7617 §2).
    #[error("the user of a basic injection is printable ASCII without a colon")]
    User,
    /// The query parameter's name is empty or not printable ASCII.
    #[error("the name of a query injection is printable ASCII and not empty")]
    Query,
}

/// Where a service's secret goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Injection {
    /// A header whose value is the secret between two fixed texts.
    Header {
        /// The header's name.
        name: HeaderName,
        /// The value up to the secret, such as `Bearer `.
        before: Box<str>,
        /// The value after the secret, mostly empty.
        after: Box<str>,
    },
    /// `Authorization: Basic`, with this user and the secret as the password (RFC 7617).
    Basic {
        /// The user; may be empty.
        user: Box<str>,
    },
    /// A query parameter.
    Query {
        /// The parameter's name, decoded.
        name: Box<str>,
    },
}

impl Injection {
    /// Parses a header template, `Authorization: Bearer {secret}`.
    ///
    /// # Errors
    /// [`BadInjection`] names the rule that the text breaks.
    pub fn header(template: &str) -> Result<Self, BadInjection> {
        let (name, value) = template.split_once(':').ok_or(BadInjection::Template)?;
        let (before, after) = value.split_once(SECRET_MARK).ok_or(BadInjection::Template)?;
        if after.contains(SECRET_MARK) {
            return Err(BadInjection::Template);
        }
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| BadInjection::Header)?;
        if UNFIT_HEADERS.contains(&name.as_str()) {
            return Err(BadInjection::Header);
        }
        let (before, after) = (before.trim_start(), after.trim_end());
        if !is_printable(before) || !is_printable(after) {
            return Err(BadInjection::Text);
        }
        Ok(Self::Header { name, before: before.into(), after: after.into() })
    }

    /// Basic with this user.
    ///
    /// # Errors
    /// [`BadInjection::User`].
    pub fn basic(user: &str) -> Result<Self, BadInjection> {
        if !is_printable(user) || user.contains(':') {
            return Err(BadInjection::User);
        }
        Ok(Self::Basic { user: user.into() })
    }

    /// The query parameter of this name.
    ///
    /// # Errors
    /// [`BadInjection::Query`].
    pub fn query(name: &str) -> Result<Self, BadInjection> {
        if name.is_empty() || !is_printable(name) {
            return Err(BadInjection::Query);
        }
        Ok(Self::Query { name: name.into() })
    }
}

/// What a person would write: the template, `basic user`, or `query name`.
impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header { name, before, after } => write!(f, "{name}: {before}{SECRET_MARK}{after}"),
            Self::Basic { user } => write!(f, "Authorization: Basic {user}:{SECRET_MARK}"),
            Self::Query { name } => write!(f, "?{name}={SECRET_MARK}"),
        }
    }
}

/// A value as it is written in a query.
pub(super) fn in_query(value: &[u8]) -> PercentEncode<'_> {
    percent_encode(value, QUERY_SET)
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
}

/// An injection with its secret, ready to be written: made once per configuration snapshot, so that
/// a request costs a reference count.
///
/// `Debug` shows the place, never the value. A ready header's memory is overwritten when its last
/// reference goes; a query's is not, because the request's target owns a copy.
pub struct Injector(Ready);

enum Ready {
    Header(HeaderName, HeaderValue),
    /// `name=value`, both percent-encoded.
    Query(Zeroizing<String>),
}

impl Injector {
    /// Puts the secret into its place.
    ///
    /// # Errors
    /// [`BadInjection::Text`] when the whole is no header value, which [`Injection`] and [`Secret`]
    /// already rule out.
    pub fn new(injection: &Injection, secret: &Secret) -> Result<Self, BadInjection> {
        let ready = match injection {
            Injection::Header { name, before, after } => {
                let value = [before.as_bytes(), secret.expose(), after.as_bytes()].concat();
                Ready::Header(name.clone(), sensitive(value)?)
            }
            Injection::Basic { user } => {
                let pair = Zeroizing::new([user.as_bytes(), b":", secret.expose()].concat());
                Ready::Header(AUTHORIZATION, sensitive(format!("Basic {}", STANDARD.encode(&*pair)).into_bytes())?)
            }
            Injection::Query { name } => {
                let name = percent_encode(name.as_bytes(), QUERY_SET);
                Ready::Query(Zeroizing::new(format!("{name}={}", in_query(secret.expose()))))
            }
        };
        Ok(Self(ready))
    }

    /// Writes the secret into a request from which every agent-sent form was removed: `stripped` is
    /// the proof of that. The place then holds the secret exactly once.
    ///
    /// # Errors
    /// [`Unwritable`] when the target would grow beyond what a URI may hold (64 KiB).
    pub fn apply(
        &self,
        stripped: &Stripped,
        headers: &mut HeaderMap,
        target: &mut PathAndQuery,
    ) -> Result<(), Unwritable> {
        let _ = stripped;
        match &self.0 {
            Ready::Header(name, value) => {
                headers.insert(name, value.clone());
            }
            Ready::Query(pair) => *target = query::append(target, pair)?,
        }
        Ok(())
    }
}

impl fmt::Debug for Injector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ready::Header(name, _) => write!(f, "Injector({name}: redacted)"),
            Ready::Query(_) => f.write_str("Injector(query: redacted)"),
        }
    }
}

/// A header value that HPACK does not index and `Debug` does not show, in memory that is overwritten.
fn sensitive(value: Vec<u8>) -> Result<HeaderValue, BadInjection> {
    let bytes = Bytes::from_owner(Zeroizing::new(value));
    let mut value = HeaderValue::from_maybe_shared(bytes).map_err(|_| BadInjection::Text)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::super::Slots;
    use super::*;

    fn inject(injection: &Injection, secret: &[u8], target: &str) -> (HeaderMap, PathAndQuery) {
        let secret = Secret::new(secret.to_vec()).expect("a secret");
        let injector = Injector::new(injection, &secret).expect("ready");
        let mut headers = HeaderMap::new();
        let mut target: PathAndQuery = target.parse().expect("a target");
        let stripped = Slots::new(Some(injection), &[]).strip(&mut headers, &mut target).expect("stripped");
        injector.apply(&stripped, &mut headers, &mut target).expect("written");
        (headers, target)
    }

    #[test]
    fn a_header_template_is_filled_and_sensitive() {
        let injection = Injection::header("Authorization: Bearer {secret}").expect("a template");
        let (headers, target) = inject(&injection, b"s3cret-value", "/a?b=1");
        assert_eq!(headers[AUTHORIZATION].as_bytes(), b"Bearer s3cret-value");
        assert!(headers[AUTHORIZATION].is_sensitive());
        assert_eq!(target, "/a?b=1");
        assert_eq!(injection.to_string(), "authorization: Bearer {secret}");
        let bare = Injection::header("X-Api-Key:{secret}").expect("a template");
        assert_eq!(inject(&bare, b"key-0123", "/").0["x-api-key"], "key-0123");
    }

    #[test]
    fn basic_is_user_and_secret() {
        let (headers, _) = inject(&Injection::basic("x-access-token").expect("a user"), b"pat-0123", "/");
        assert_eq!(headers[AUTHORIZATION], "Basic eC1hY2Nlc3MtdG9rZW46cGF0LTAxMjM=");
    }

    #[test]
    fn a_query_secret_is_percent_encoded_and_replaces_the_agents() {
        let injection = Injection::query("key").expect("a name");
        for (before, after) in [
            ("/a", "/a?key=a%26b%3D%C3%BCcde"),
            ("/a?", "/a?key=a%26b%3D%C3%BCcde"),
            ("/a?x=1", "/a?x=1&key=a%26b%3D%C3%BCcde"),
            ("/a?key=mine&x=%6b;%6Bey=2", "/a?x=%6b&key=a%26b%3D%C3%BCcde"),
        ] {
            assert_eq!(inject(&injection, "a&b=\u{fc}cde".as_bytes(), before).1, after, "{before}");
        }
    }

    #[test]
    fn refuses_what_is_no_place() {
        for (template, class) in [
            ("Authorization", BadInjection::Template),
            ("Authorization: Bearer", BadInjection::Template),
            ("Authorization: {secret}{secret}", BadInjection::Template),
            ("{secret}: a", BadInjection::Template),
            ("Bad Name: {secret}", BadInjection::Header),
            (": {secret}", BadInjection::Header),
            ("Host: {secret}", BadInjection::Header),
            ("Proxy-Authorization: {secret}", BadInjection::Header),
            ("X-Key: a\r\nX: {secret}", BadInjection::Text),
            ("X-Key: \u{fc}{secret}", BadInjection::Text),
        ] {
            assert_eq!(Injection::header(template), Err(class), "{template:?}");
        }
        assert_eq!(Injection::basic("a:b"), Err(BadInjection::User));
        assert_eq!(Injection::basic("a\n"), Err(BadInjection::User));
        assert_eq!(Injection::query(""), Err(BadInjection::Query));
        assert_eq!(Injection::query("k\0"), Err(BadInjection::Query));
    }

    #[test]
    fn debug_never_shows_the_value() {
        let secret = Secret::new(b"canary-2".to_vec()).expect("a secret");
        for injection in [
            Injection::header("X-Key: {secret}").expect("a template"),
            Injection::basic("u").expect("a user"),
            Injection::query("key").expect("a name"),
        ] {
            let injector = Injector::new(&injection, &secret).expect("ready");
            assert!(!format!("{injector:?}").contains("canary"));
        }
    }
}
