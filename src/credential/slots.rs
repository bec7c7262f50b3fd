//! The places where an agent could send a credential of its own, emptied before injection.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;

use super::{Injection, placeholder, query};

/// Headers that carry credentials somewhere: removed on every service with a credential.
const STANDARD_HEADERS: [&str; 7] =
    ["authorization", "cookie", "x-api-key", "api-key", "x-goog-api-key", "private-token", "job-token"];

/// Headers that make a server, or what stands in front of it, act on another method, path or host than policy saw: they
/// are a reverse proxy's to set. Removed with the credentials, but no credential themselves.
const OVERRIDE_HEADERS: [&str; 26] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-forwarded-method",
    "x-original-method",
    "x-request-method",
    "x-method",
    "-method",
    "x-original-url",
    "x-original-uri",
    "x-original-path",
    "x-envoy-original-path",
    "x-real-url",
    "x-rewrite-uri",
    "x-rewrite-url",
    "x-forwarded-uri",
    "x-forwarded-url",
    "x-forwarded-path",
    "x-forwarded-prefix",
    "forwarded",
    "x-forwarded-host",
    "x-forwarded-server",
    "x-forwarded-port",
    "x-host",
    "x-original-host",
    "x-http-host-override",
];

/// The same in a query, folded: `_method` (Rails, Laravel, Symfony), `_HttpMethod` (Salesforce).
const OVERRIDE_QUERY: [&[u8]; 5] =
    [b"-method", b"-httpmethod", b"x-http-method", b"x-http-method-override", b"x-method-override"];

/// The rewritten target cannot be a request's target: it is longer than a URI may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the rewritten request target is too long")]
pub struct Unwritable;

/// A text is no entry of `strip`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an entry of `strip` is a header's name or `query:` and a parameter's name")]
pub struct BadSlot;

/// One agent-sent form of the credential that `strip` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Slot {
    /// A header.
    Header(HeaderName),
    /// A query parameter, decoded.
    Query(Box<str>),
}

impl Slot {
    /// Parses `X-Api-Key` or `query:key`.
    ///
    /// # Errors
    /// [`BadSlot`].
    pub fn parse(text: &str) -> Result<Self, BadSlot> {
        if let Some(name) = text.strip_prefix("query:") {
            let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic());
            return if plain { Ok(Self::Query(name.into())) } else { Err(BadSlot) };
        }
        HeaderName::from_bytes(text.as_bytes()).map(Self::Header).map_err(|_| BadSlot)
    }
}

/// Evidence that the slots of a request are empty; [`super::Injector::apply`] wants it.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stripped {
    foreign: bool,
}

impl Stripped {
    /// Whether anything removed was neither empty nor a placeholder of ours: the journal's
    /// `foreign_credential`.
    #[must_use]
    pub fn foreign(&self) -> bool {
        self.foreign
    }
}

/// Everything that is removed from a request to one endpoint.
///
/// A header counts in every spelling that some server folds to the same name: letter case, and any
/// mark in place of `-` (CGI turns `-` into `_`, some turn every mark into it). A query name counts
/// after decoding, in any case and spelling.
#[derive(Debug, Clone, Default)]
pub struct Slots {
    /// Folded names, sorted by length.
    credentials: Vec<Box<[u8]>>,
    overrides: Vec<Box<[u8]>>,
    /// Folded names.
    query: Vec<Vec<u8>>,
    /// Whether a credential goes to the endpoint, so that the method in a query counts.
    guarded: bool,
    /// Bit `n` is set when a header name of `n` bytes may match: the first, cheap look.
    lengths: u128,
}

impl Slots {
    /// No slots: what a service without a credential has. The agent's own login passes.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The slots of a service with a credential: the standard headers, the injection's own place,
    /// and what `strip` names.
    #[must_use]
    pub fn new(injection: Option<&Injection>, strip: &[Slot]) -> Self {
        let mut slots = Self::none();
        for name in STANDARD_HEADERS {
            slots.add_header(name);
        }
        match injection {
            Some(Injection::Header { name, .. }) => slots.add_header(name.as_str()),
            Some(Injection::Query { name }) => slots.add_query(name),
            Some(Injection::Basic { .. }) | None => {}
        }
        for slot in strip {
            match slot {
                Slot::Header(name) => slots.add_header(name.as_str()),
                Slot::Query(name) => slots.add_query(name),
            }
        }
        for name in OVERRIDE_HEADERS {
            slots.lengths |= length_bit(name);
            slots.overrides.push(name.as_bytes().into());
        }
        slots.guarded = true;
        slots
    }

    /// Removes every agent-sent form of the credential from a request.
    ///
    /// # Errors
    /// [`Unwritable`], which no target that parsed once can give.
    pub fn strip(&self, headers: &mut HeaderMap, target: &mut PathAndQuery) -> Result<Stripped, Unwritable> {
        let mut foreign = self.strip_headers(headers);
        let overrides = self.guarded && target.query().is_some_and(may_name_method);
        if self.query.is_empty() && !overrides {
            return Ok(Stripped { foreign });
        }
        let rewritten = query::without(target, |piece| {
            let folded = query::fold(&query::decode(piece.name()));
            let is_credential = self.query.contains(&folded);
            if is_credential {
                foreign |= is_foreign(&query::decode(piece.value()));
            }
            is_credential || overrides && OVERRIDE_QUERY.contains(&&*folded)
        })?;
        if let Some(rewritten) = rewritten {
            *target = rewritten;
        }
        Ok(Stripped { foreign })
    }

    /// The same for a request's trailers. Nothing is ever injected there.
    pub fn strip_trailers(&self, trailers: &mut HeaderMap) -> Stripped {
        Stripped { foreign: self.strip_headers(trailers) }
    }

    fn strip_headers(&self, headers: &mut HeaderMap) -> bool {
        if self.lengths == 0 {
            return false;
        }
        let mut foreign = false;
        while let Some(name) = headers.keys().find(|name| self.names_header(name)).cloned() {
            let is_override = matches_any(&self.overrides, name.as_str());
            foreign |= !is_override && headers.get_all(&name).iter().any(is_foreign_header);
            headers.remove(&name);
        }
        foreign
    }

    fn names_header(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        self.lengths & length_bit(name) != 0
            && (matches_any(&self.credentials, name) || matches_any(&self.overrides, name))
    }

    fn add_header(&mut self, name: &str) {
        self.lengths |= length_bit(name);
        let folded: Box<[u8]> = name.bytes().map(fold).collect();
        if !self.credentials.contains(&folded) {
            self.credentials.push(folded);
        }
    }

    fn add_query(&mut self, name: &str) {
        let folded = query::fold(name.as_bytes());
        if !self.query.contains(&folded) {
            self.query.push(folded);
        }
    }
}

/// The cheap look at a query: most name no method, and have no escape that could hide one.
fn may_name_method(query: &str) -> bool {
    let query = query.as_bytes();
    query.contains(&b'%') || query.windows(6).any(|word| word.eq_ignore_ascii_case(b"method"))
}

/// Every length from 127 on shares one bit.
fn length_bit(name: &str) -> u128 {
    1 << name.len().min(127)
}

fn matches_any(folded: &[Box<[u8]>], name: &str) -> bool {
    folded.iter().any(|slot| slot.len() == name.len() && slot.iter().copied().eq(name.bytes().map(fold)))
}

/// `_` and every other mark that a header name may hold count as `-`.
fn fold(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' }
}

/// Whether a removed header held something else than our placeholder, bare, after an
/// authentication scheme, or inside Basic.
fn is_foreign_header(value: &HeaderValue) -> bool {
    let value = value.as_bytes().trim_ascii();
    let Some(space) = value.iter().position(|&b| b == b' ') else { return is_foreign(value) };
    let (scheme, rest) = value.split_at(space);
    let rest = rest.trim_ascii_start();
    if scheme.eq_ignore_ascii_case(b"basic") { is_foreign_basic(rest) } else { is_foreign(rest) }
}

/// The secret is Basic's password, or its user with a password that says nothing (Stripe, GitHub).
fn is_foreign_basic(encoded: &[u8]) -> bool {
    use base64::Engine as _;
    use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let Ok(pair) = LENIENT.decode(encoded) else { return true };
    let colon = pair.iter().position(|&b| b == b':').unwrap_or(pair.len());
    let (user, password) = pair.split_at(colon);
    match password.strip_prefix(b":").unwrap_or(password) {
        b"" | b"x-oauth-basic" => is_foreign(user),
        password => is_foreign(password),
    }
}

fn is_foreign(value: &[u8]) -> bool {
    !value.is_empty() && !placeholder::is_placeholder(value)
}

#[cfg(test)]
mod tests;
