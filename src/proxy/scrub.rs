//! Keeps the secret of a destination out of what comes back from it: the head of an answer, its trailers, and how its body is
//! read by a [`Filter`].
//!
//! Upstreams are asked for what can be read: no content coding, no parts, no compressed messages. What comes in a coding all
//! the same is decoded and goes on as it is; what cannot be read is refused, unless the service lets it pass.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::charset;
use super::coding::{Coding, UnknownCoding};
use super::filter::{Filter, Reading};
use super::messages;
use super::respond::Refusal;
use crate::credential::{Format, Sealer, TokenNames};
use crate::service::{Scrubbing, Tokens};

const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// Fields with which a client asks for parts of an answer, or for what is like one (RFC 9110 §14.2, RFC 3229; Azure's own name
/// of the first).
const PARTS: [HeaderName; 4] =
    [header::RANGE, header::IF_RANGE, HeaderName::from_static("a-im"), HeaderName::from_static("x-ms-range")];

/// Hashes of a body: wrong once a secret was taken out, and something to test guesses on while it was not.
const DIGESTS: [HeaderName; 9] = [
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("unencoded-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("x-goog-hash"),
    HeaderName::from_static("x-ms-blob-content-md5"),
    HeaderName::from_static("x-ms-content-crc64"),
    HeaderName::from_static("x-ms-content-md5"),
];
/// How the names of more of them begin.
const DIGEST_PREFIX: &str = "x-amz-checksum-";

/// Rewrites a request so that its answer can be scanned.
pub(super) fn ask_readable(scrubbing: &Scrubbing, headers: &mut HeaderMap) {
    // Who names no coding gets none.
    if headers.contains_key(header::ACCEPT_ENCODING) {
        headers.insert(header::ACCEPT_ENCODING, IDENTITY);
    }
    charset::ask_for_none(headers);
    headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
    for name in &messages::ACCEPTED {
        headers.remove(name);
    }
    if !scrubbing.answers.ranges {
        for name in &PARTS {
            headers.remove(name);
        }
    }
}

/// Takes the secret out of the fields of a head or of trailers.
pub(super) fn fields(scrubbing: &Scrubbing, headers: &mut HeaderMap) {
    let patterns = &scrubbing.patterns;
    for name in &DIGESTS {
        headers.remove(name);
    }
    let doomed = |name: &&HeaderName| name.as_str().starts_with(DIGEST_PREFIX) || patterns.is_in_name(name.as_str());
    let doomed: Vec<HeaderName> = headers.keys().filter(doomed).cloned().collect();
    for name in doomed {
        headers.remove(name);
    }
    for value in headers.values_mut() {
        replace(value, patterns.scrub(value.as_bytes()));
    }
}

/// Whether a message came in a transfer coding besides chunks (RFC 9112 §7): nobody takes it off.
pub(super) fn is_transfer_coded(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::TRANSFER_ENCODING).iter().map(|value| value.to_str().unwrap_or("?"));
    values.flat_map(|value| value.split(',')).any(|coding| !coding.trim().eq_ignore_ascii_case("chunked"))
}

/// Takes the secret out of an answer's head, and says how its body is read.
pub(super) fn answer(
    scrubbing: &Scrubbing,
    headers: &mut HeaderMap,
    has_content: bool,
    is_transfer_coded: bool,
    tokens: Option<&Arc<TokenNames>>,
) -> Result<Filter, Refusal> {
    fields(scrubbing, headers);
    let (sealer, may_be_json) = seal(scrubbing, tokens, headers);
    headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
    let coding = Coding::of(headers);
    let is_coded = matches!(coding, Ok(Some(_)));
    let reading = match coding {
        _ if !has_content => Reading::plain(),
        _ if is_transfer_coded => Reading::unreadable(scrubbing, "the answer's transfer is")?,
        Err(UnknownCoding) => Reading::unreadable(scrubbing, "the answer is")?,
        // Where the service lets it pass, forms in ASCII and the secret in UTF-16 are looked for all the same.
        Ok(_) if !scrubbing.answers.unreadable && !charset::is_readable(headers) => {
            Reading::unreadable(scrubbing, "the answer's text is")?
        }
        Ok(coding) => Reading::of_messages(scrubbing, headers, coding)?,
    };
    if is_coded && !matches!(reading, Reading::Not) {
        // What goes on is decoded, also where only its head was asked for.
        headers.remove(header::CONTENT_ENCODING);
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::ACCEPT_RANGES);
    }
    let sealer = sealer.filter(|_| !matches!(reading, Reading::Not));
    let names = names(scrubbing, tokens).cloned();
    Ok(Filter::new(scrubbing.clone(), reading, sealer, names, may_be_json))
}

/// Which fields and members hold fresh tokens, where those are taken out.
fn names<'t>(scrubbing: &'t Scrubbing, tokens: Option<&'t Arc<TokenNames>>) -> Option<&'t Arc<TokenNames>> {
    match scrubbing.answers.tokens {
        Tokens::Seal => Some(tokens.unwrap_or(&scrubbing.oauth)),
        Tokens::Routes => tokens,
        Tokens::Pass => None,
    }
}

/// Takes the secret, and fresh tokens, out of the head of an answer that switches to a WebSocket.
pub(super) fn switching(scrubbing: &Scrubbing, headers: &mut HeaderMap, tokens: Option<&Arc<TokenNames>>) {
    fields(scrubbing, headers);
    if let Some(names) = names(scrubbing, tokens) {
        seal_fields(&mut Sealer::new(Arc::clone(names), Arc::clone(&scrubbing.service), None, false), headers);
    }
    headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
}

/// Takes fresh tokens out of a head, and says how they are taken out of what follows it. `tokens`: what the service's
/// route says of the request. True when its first character has yet to tell whether it is read.
fn seal(
    scrubbing: &Scrubbing,
    tokens: Option<&Arc<TokenNames>>,
    headers: &mut HeaderMap,
) -> (Option<Box<Sealer>>, bool) {
    let Some(names) = names(scrubbing, tokens) else { return (None, false) };
    let format = format(headers, tokens.is_some(), scrubbing.answers.raw_json);
    let mut sealer = Sealer::new(Arc::clone(names), Arc::clone(&scrubbing.service), format, tokens.is_some());
    seal_fields(&mut sealer, headers);
    if format == Some(Format::MaybeJson) && !sealer.has_learned() {
        return (None, true);
    }
    ((sealer.reads_body() || sealer.has_learned()).then(|| Box::new(sealer)), false)
}

/// Takes fresh tokens out of the fields of a head or of trailers.
pub(super) fn seal_fields(sealer: &mut Sealer, headers: &mut HeaderMap) {
    for (name, value) in headers.iter_mut() {
        let sealed = match *name {
            header::LOCATION | header::CONTENT_LOCATION | header::REFRESH | header::LINK => {
                sealer.seal(value.as_bytes(), Format::Uri)
            }
            header::SET_COOKIE => sealer.seal(value.as_bytes(), Format::Cookie),
            _ => sealer.names(name.as_str().as_bytes()).then(|| sealer.seal_whole(value.as_bytes())),
        };
        replace(value, sealed);
    }
    if sealer.has_learned() {
        for value in headers.values_mut() {
            let clean = sealer.scrub(value.as_bytes());
            replace(value, clean);
        }
    }
}

/// How a body says which value belongs to which name; `None` when it is not read. RFC 6749 §5.1 has JSON; forms are older
/// (GitHub), and who says that it is something else may give JSON all the same. `marked`: the service says that it is an
/// OAuth answer, whatever it says of itself. `raw`: what calls itself a raw file is one, unless it is marked.
fn format(headers: &HeaderMap, marked: bool, raw: bool) -> Option<Format> {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter().peekable();
    if types.peek().is_none() {
        return Some(Format::JsonOrForm);
    }
    let of = |value: &HeaderValue| format_of(value.to_str().unwrap_or_default(), marked, raw);
    types.map(of).reduce(|one, other| if one == Some(Format::MaybeJson) { other } else { one })?
}

fn format_of(value: &str, marked: bool, raw: bool) -> Option<Format> {
    let media_type = value.split(';').next().unwrap_or_default().trim();
    let is = |known: &str| media_type.eq_ignore_ascii_case(known);
    let ends = |known: &str| {
        let from = media_type.len().saturating_sub(known.len());
        media_type.get(from..).is_some_and(|end| end.eq_ignore_ascii_case(known))
    };
    if is("application/x-www-form-urlencoded") {
        return Some(Format::Form);
    }
    // An agent may ask for any type, so only a service that has files of this one lets them pass.
    if raw && !marked && ends("raw+json") {
        return None;
    }
    if ends("/json") || ends("/x-json") || ends("+json") {
        return Some(Format::Json);
    }
    Some(match marked {
        true if ends("script") || is("text/event-stream") => Format::Json,
        true => Format::JsonOrForm,
        false => Format::MaybeJson,
    })
}

fn replace(value: &mut HeaderValue, clean: Option<Vec<u8>>) {
    if let Some(clean) = clean {
        *value = HeaderValue::from_maybe_shared(Bytes::from(clean)).unwrap_or(HeaderValue::from_static(""));
    }
}
