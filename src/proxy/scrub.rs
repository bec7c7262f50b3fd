//! Keeps the secret of a destination out of what comes back from it: the head of an answer, its body, its trailers.
//!
//! Upstreams are asked for what can be read: no content coding, no parts, no compressed messages. What comes in a coding all
//! the same is decoded and goes on as it is; what cannot be read is refused, unless the service lets it pass.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};

use super::charset;
use super::coding::{BadCoding, Coding, Decoder, UnknownCoding};
use super::messages::{self, Messages, Part};
use super::opening::{Next, Opening};
use super::respond::Refusal;
use crate::credential::{Format, Scrubber, Sealer, TokenNames, Turn, begins_as_json};
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

/// What the types have in their names that say of a body that it is compressed, or may be anything.
const CODED_TYPES: [&[u8]; 4] = [b"octet-stream", b"gzip", b"zstd", b"zlib"];

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
fn fields(scrubbing: &Scrubbing, headers: &mut HeaderMap) {
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
    let mut filter = Filter::new(scrubbing.clone(), reading, sealer, names);
    match filter.reading {
        // Each message begins anew.
        Reading::Messages(_) if may_be_json => filter.seal_json(),
        Reading::Not => {}
        _ => filter.may_be_json = may_be_json,
    }
    Ok(filter)
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
fn seal_fields(sealer: &mut Sealer, headers: &mut HeaderMap) {
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

/// A body on its way through decoder and scrubber.
pub(super) struct Filter {
    scrubbing: Scrubbing,
    reading: Reading,
    /// Of the text that is read: the body, or a message.
    opening: Opening,
    /// To be scanned.
    text: Bytes,
    scrubber: Scrubber,
    /// Out of the scrubber.
    clean: Option<Bytes>,
    /// So many bytes of that are the head of a message.
    head: usize,
    /// Of a body that may hold fresh tokens.
    sealer: Option<Box<Sealer>>,
    /// It does if it begins as JSON does.
    may_be_json: bool,
    /// To be sealed.
    unsealed: Bytes,
    /// Of what holds fresh tokens in its trailers.
    names: Option<Arc<TokenNames>>,
    turn: Turn,
    begun: bool,
    busy: bool,
    /// Made ahead, so that the last frame is known to be the last.
    peeked: Option<Box<Frame<Bytes>>>,
    /// Taken in and not given out.
    pending: u64,
    trailers: Option<Box<HeaderMap>>,
    /// No content comes any more.
    ended: bool,
    /// The text that is read has ended.
    text_ended: bool,
    /// And is out of the scrubber, but not of the sealer.
    text_sealed: bool,
    /// All content is out of the scrubber.
    exhausted: bool,
    /// And out of the sealer.
    sealed: bool,
}

/// How a body is read.
enum Reading {
    /// What came; whether it is known to be the last.
    Plain(Bytes, bool),
    Coded(Box<Decoder>),
    Messages(Box<Messages>),
    /// It passes as it is: its service says so.
    Not,
}

impl Reading {
    /// Of a body in this coding, or in none, which may be made of messages.
    fn of_messages(scrubbing: &Scrubbing, headers: &mut HeaderMap, coding: Option<Coding>) -> Result<Self, Refusal> {
        let of_messages = messages::of(headers);
        let messages = match (of_messages, messages::coding(headers), coding) {
            (None, Ok(None), None) => return Ok(Self::plain()),
            (None, Ok(None), Some(coding)) => return Ok(Self::Coded(Box::new(Decoder::new(coding)))),
            (Some(Ok(messages)), _, None) => messages,
            // A coding in another, one that nobody knows, or of messages that are none.
            _ => return Self::unreadable(scrubbing, "the answer's messages are"),
        };
        if messages.is_some() {
            headers.remove(header::CONTENT_LENGTH);
            for name in &messages::ENCODINGS {
                headers.remove(name);
            }
        }
        Ok(Self::Messages(Box::new(Messages::new(messages, scrubbing.answers.unreadable))))
    }

    fn plain() -> Self {
        Self::Plain(Bytes::new(), false)
    }

    /// Of a body that cannot be read, where the service lets it pass.
    fn unreadable(scrubbing: &Scrubbing, what: &str) -> Result<Self, Refusal> {
        if scrubbing.answers.unreadable {
            return Ok(Self::Not);
        }
        Err(Refusal::unreadable_answer(format!("{what} in a coding that cannot be scanned")))
    }
}

impl Filter {
    fn new(
        scrubbing: Scrubbing,
        reading: Reading,
        sealer: Option<Box<Sealer>>,
        names: Option<Arc<TokenNames>>,
    ) -> Self {
        let scrubber = Scrubber::new(Arc::clone(&scrubbing.patterns));
        let opening = opening(&scrubbing, matches!(reading, Reading::Coded(_)));
        Self {
            scrubbing,
            reading,
            opening,
            text: Bytes::new(),
            scrubber,
            clean: None,
            head: 0,
            sealer,
            may_be_json: false,
            unsealed: Bytes::new(),
            names,
            turn: Turn::new(),
            begun: false,
            busy: false,
            peeked: None,
            pending: 0,
            trailers: None,
            ended: false,
            text_ended: false,
            text_sealed: false,
            exhausted: false,
            sealed: false,
        }
    }

    /// Takes the next frame; only when [`Self::next`] has nothing to give. `last`: no content follows it.
    pub(super) fn push(&mut self, frame: Frame<Bytes>, last: bool) {
        self.begun = true;
        match frame.into_data() {
            Ok(data) => {
                self.pending += data.len() as u64;
                match &mut self.reading {
                    Reading::Plain(came, is_last) => (*came, *is_last) = (data, last),
                    Reading::Coded(decoder) => decoder.push(data),
                    Reading::Messages(messages) => messages.push(data),
                    Reading::Not => self.clean = Some(data).filter(|data| !data.is_empty()),
                }
            }
            Err(frame) => {
                self.trailers = frame.into_trailers().ok().map(Box::new);
                self.end();
            }
        }
    }

    /// The content has ended.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// The next frame to send; `None` when more must come in first, when others come first ([`Self::is_busy`]), or when all
    /// is sent.
    pub(super) fn next(&mut self) -> Result<Option<Frame<Bytes>>, BadCoding> {
        let next = match self.peeked.take() {
            Some(frame) => Some(*frame),
            None => self.make()?,
        };
        if self.ended && next.is_some() {
            self.peeked = self.make()?.map(Box::new);
            if self.busy {
                // Nobody knows yet whether it is the last.
                self.peeked = next.map(Box::new);
                return Ok(None);
            }
        }
        if let Some(data) = next.as_ref().and_then(Frame::data_ref) {
            self.pending = self.pending.saturating_sub(data.len() as u64);
        }
        Ok(next)
    }

    fn make(&mut self) -> Result<Option<Frame<Bytes>>, BadCoding> {
        self.busy = false;
        loop {
            if self.scrubber.is_spoiled() {
                return Err(BadCoding::Echo);
            }
            if self.scrubber.is_overrun() || self.sealer.as_ref().is_some_and(|sealer| sealer.is_overrun()) {
                return Err(BadCoding::Unreadable);
            }
            if let Some(data) = self.clean() {
                return Ok(Some(Frame::data(data)));
            }
            if self.turn.is_over() {
                self.turn = Turn::new();
                self.busy = true;
                return Ok(None);
            }
            if std::mem::take(&mut self.text_sealed)
                && let Some(sealer) = &mut self.sealer
            {
                sealer.end_text();
                continue;
            }
            if self.read_text()? || self.read_more()? {
                continue;
            }
            if !self.ended {
                return Ok(None);
            }
            if self.exhausted && self.finish_sealer() {
                continue;
            }
            if self.exhausted {
                let trailers = self.trailers.take();
                return Ok(trailers.map(|mut trailers| {
                    self.trailers(&mut trailers);
                    Frame::trailers(*trailers)
                }));
            }
            self.exhausted = true;
            let rest = match &mut self.reading {
                Reading::Coded(decoder) => decoder.finish().map(|()| None)?,
                Reading::Messages(messages) => messages.finish()?,
                Reading::Plain(..) | Reading::Not => None,
            };
            self.clean = rest.or_else(|| self.scrubber.finish());
        }
    }

    /// Has what follows read as JSON.
    fn seal_json(&mut self) {
        let Some(names) = &self.names else { return };
        let (names, service) = (Arc::clone(names), Arc::clone(&self.scrubbing.service));
        self.sealer = Some(Box::new(Sealer::new(names, service, Some(Format::MaybeJson), false)));
    }

    /// The first character tells whether a text that says nothing of it is JSON.
    fn tell(&mut self, data: &[u8]) {
        if !self.may_be_json {
            return;
        }
        let Some(begins) = begins_as_json(data) else { return };
        self.may_be_json = false;
        if begins {
            self.seal_json();
        }
    }

    /// The next bytes that may leave.
    fn clean(&mut self) -> Option<Bytes> {
        if let Some(data) = self.sealer.as_mut().and_then(|sealer| sealer.ready()) {
            return Some(data);
        }
        if self.unsealed.is_empty() {
            let mut data = self.clean.take().or_else(|| self.scrubber.ready())?;
            if self.head > 0 {
                // What a head is made of is a part of the text for the scrubber alone.
                let head = data.split_to(data.len().min(self.head));
                self.head -= head.len();
                self.clean = Some(data).filter(|data| !data.is_empty());
                return Some(head);
            }
            self.tell(&data);
            if self.sealer.is_none() {
                return Some(data);
            }
            self.unsealed = data;
        }
        let sealer = self.sealer.as_mut()?;
        sealer.push_some(&mut self.unsealed, &mut self.turn)
    }

    /// Scans what is there of a text, and ends it. True when that was something.
    fn read_text(&mut self) -> Result<bool, BadCoding> {
        if self.text.is_empty() {
            self.text = match self.opening.next(self.text_ended, &mut self.turn)? {
                Next::Text(text) => text,
                Next::Turn => return Ok(true),
                Next::Nothing if self.text_ended => {
                    self.text_ended = false;
                    self.opening = opening(&self.scrubbing, false);
                    self.clean = self.scrubber.finish();
                    self.text_sealed = matches!(self.reading, Reading::Messages(_));
                    return Ok(true);
                }
                Next::Nothing => return Ok(false),
            };
        }
        let last = matches!(self.reading, Reading::Plain(_, true)) && !self.opening.is_coded();
        self.clean = self.scrubber.push_some(&mut self.text, last, &mut self.turn);
        Ok(true)
    }

    /// Takes more of the text out of what came. True when there was something.
    fn read_more(&mut self) -> Result<bool, BadCoding> {
        let part = match &mut self.reading {
            Reading::Plain(came, _) if came.is_empty() => None,
            Reading::Plain(came, _) => Some(Part::Text(std::mem::take(came))),
            Reading::Coded(decoder) => decoder.next(&mut self.turn)?.map(Part::Text),
            Reading::Messages(messages) => messages.next(&mut self.turn)?,
            Reading::Not => None,
        };
        match part {
            Some(Part::Text(text)) if text.is_empty() => {}
            Some(Part::Text(text)) => {
                self.opening.push(text, &self.scrubbing.patterns)?;
                // What says that it is JSON and is none cannot be sealed.
                if self.opening.is_coded() && self.sealer.as_ref().is_some_and(|sealer| sealer.is_certain()) {
                    return Err(BadCoding::Unreadable);
                }
            }
            // The message before it is out.
            Some(Part::Head { bytes, decoded }) => {
                self.opening = opening(&self.scrubbing, decoded);
                self.head = bytes.len();
                self.clean = self.scrubber.push_fixed(bytes);
            }
            Some(Part::End) => self.text_ended = true,
            // Of a body, its end is that of its only text.
            None if self.ended && !self.exhausted && !self.opening.is_idle() => self.text_ended = true,
            None => return Ok(false),
        }
        Ok(true)
    }

    /// Whether the answer of this head comes in a coding, or is of a type that is one: what it begins with is worth waiting
    /// for. Events are not: they come one by one.
    pub(super) fn may_be_coded(&self, headers: &HeaderMap) -> bool {
        let media_type = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes).to_ascii_lowercase();
        let has = |part: &[u8]| media_type.windows(part.len()).any(|window| window == part);
        match self.reading {
            Reading::Coded(_) => !has(b"event-stream"),
            Reading::Plain(..) => CODED_TYPES.iter().any(|part| has(part)),
            Reading::Messages(_) | Reading::Not => false,
        }
    }

    /// Makes the next frame ahead. True when there is one.
    pub(super) fn peek(&mut self) -> Result<bool, BadCoding> {
        if self.peeked.is_none() {
            self.peeked = self.make()?.map(Box::new);
        }
        Ok(self.peeked.is_some())
    }

    /// Whether something was taken in.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether there is work left that waits for nobody.
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Whether nothing comes any more.
    pub(super) fn is_done(&self) -> bool {
        let sealed = self.sealer.as_ref().is_none_or(|sealer| sealer.is_idle() && self.sealed);
        let empty = self.unsealed.is_empty() && self.clean.is_none() && self.scrubber.is_idle();
        self.exhausted && sealed && empty && self.peeked.is_none() && self.trailers.is_none()
    }

    /// Gets ready what the sealer holds. True when there may be something.
    fn finish_sealer(&mut self) -> bool {
        match &mut self.sealer {
            Some(sealer) if !self.sealed => sealer.finish(),
            _ => return false,
        }
        self.sealed = true;
        true
    }

    /// Takes the secret out of trailers that come after all content is out.
    pub(super) fn trailers(&mut self, trailers: &mut HeaderMap) {
        fields(&self.scrubbing, trailers);
        match (&mut self.sealer, &self.names) {
            (Some(sealer), _) => seal_fields(sealer, trailers),
            (None, Some(names)) => {
                let service = Arc::clone(&self.scrubbing.service);
                seal_fields(&mut Sealer::new(Arc::clone(names), service, None, false), trailers);
            }
            (None, None) => {}
        }
    }

    /// How much is still to be given out when so much is still to come in.
    pub(super) fn size_hint(&self, left: u64) -> SizeHint {
        match self.reading {
            Reading::Coded(_) | Reading::Messages(_) => SizeHint::default(),
            Reading::Plain(..) | Reading::Not => SizeHint::with_exact(left + self.pending),
        }
    }

    /// Goes on with the secrets of another moment, as soon as nothing is held.
    pub(super) fn renew(&mut self, scrubbing: &Scrubbing) {
        let patterns = &scrubbing.patterns;
        self.opening.renew(patterns);
        if self.scrubber.renew(patterns) {
            self.scrubbing = scrubbing.clone();
        }
    }
}

/// Of the next text of a body, which was taken out of a coding or not.
fn opening(scrubbing: &Scrubbing, coded: bool) -> Opening {
    if scrubbing.answers.unreadable { Opening::unread() } else { Opening::within(u8::from(coded)) }
}
