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
use super::inspect::{Inspection, Kind, Look};
use super::messages::{self, Messages, Part};
use super::respond::Refusal;
use crate::credential::{Format, Scrubber, Sealer, TokenNames};
use crate::service::{Scrubbing, Tokens};

const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// Fields with which a client asks for parts of an answer, or for what is like one (RFC 9110 §14.2, RFC 3229).
const PARTS: [HeaderName; 3] = [header::RANGE, header::IF_RANGE, HeaderName::from_static("a-im")];

/// Hashes of a body: wrong once a secret was taken out, and something to test guesses on while it was not.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("content-md5"),
];

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
    for value in headers.values_mut() {
        replace(value, patterns.scrub(value.as_bytes()));
    }
    while let Some(name) = headers.keys().find(|name| patterns.is_in_name(name.as_str())).cloned() {
        headers.remove(name);
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
    let sealer = seal(scrubbing, tokens, headers);
    headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
    let coding = Coding::of(headers);
    let is_coded = matches!(coding, Ok(Some(_)));
    let reading = match coding {
        _ if !has_content => Reading::Plain,
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
    Ok(Filter::new(scrubbing.clone(), reading, sealer, names))
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
/// route says of the request.
fn seal(scrubbing: &Scrubbing, tokens: Option<&Arc<TokenNames>>, headers: &mut HeaderMap) -> Option<Box<Sealer>> {
    let names = names(scrubbing, tokens)?;
    let format = format(headers, tokens.is_some(), scrubbing.answers.raw_json);
    let mut sealer = Sealer::new(Arc::clone(names), Arc::clone(&scrubbing.service), format, tokens.is_some());
    seal_fields(&mut sealer, headers);
    (sealer.reads_body() || sealer.has_learned()).then(|| Box::new(sealer))
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

/// How a body says which value belongs to which name; `None` when it is no OAuth answer. RFC 6749 §5.1 has JSON; forms
/// are older (GitHub). `marked`: the service says that it is one, whatever it says of itself. `raw`: what calls itself
/// a raw file is one, unless it is marked.
fn format(headers: &HeaderMap, marked: bool, raw: bool) -> Option<Format> {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter().peekable();
    if types.peek().is_none() {
        return Some(Format::JsonOrForm);
    }
    types.find_map(|value| format_of(value.to_str().unwrap_or_default(), marked, raw))
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
    let is_file = raw && !marked && ends("raw+json");
    if ends("/json") || ends("/x-json") || (ends("+json") && !is_file) {
        return Some(Format::Json);
    }
    marked.then(|| if ends("script") || is("text/event-stream") { Format::Json } else { Format::JsonOrForm })
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
    scrubber: Scrubber,
    /// Of a body that may hold fresh tokens.
    sealer: Option<Box<Sealer>>,
    /// Of what holds fresh tokens in its trailers.
    names: Option<Arc<TokenNames>>,
    /// Of a body that is compressed without saying so.
    inspection: Option<Box<Inspection>>,
    unsealable: bool,
    /// A message has ended, and the sealer does not know.
    text_ended: bool,
    /// The first bytes, too few to tell what they begin.
    first: Option<Bytes>,
    begun: bool,
    busy: bool,
    /// Out of the scrubber, and not yet a frame.
    ready: Option<Bytes>,
    /// Made ahead, so that the last frame is known to be the last.
    peeked: Option<Box<Frame<Bytes>>>,
    /// Taken in and not given out.
    pending: u64,
    trailers: Option<Box<HeaderMap>>,
    ended: bool,
    /// All content is out of the scrubber.
    exhausted: bool,
    /// And out of the sealer.
    sealed: bool,
}

/// How a body is read.
enum Reading {
    Plain,
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
            (None, Ok(None), None) => return Ok(Self::Plain),
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
        Self {
            scrubbing,
            reading,
            scrubber,
            sealer,
            names,
            inspection: None,
            unsealable: false,
            text_ended: false,
            first: None,
            begun: false,
            busy: false,
            ready: None,
            peeked: None,
            pending: 0,
            trailers: None,
            ended: false,
            exhausted: false,
            sealed: false,
        }
    }

    /// Takes the next frame; only when [`Self::next`] has nothing to give. `last`: no content follows it.
    pub(super) fn push(&mut self, frame: Frame<Bytes>, last: bool) {
        match frame.into_data() {
            Ok(data) => {
                self.pending += data.len() as u64;
                match &mut self.reading {
                    Reading::Plain => self.push_plain(data, last),
                    Reading::Coded(decoder) => decoder.push(data),
                    Reading::Messages(messages) => messages.push(data),
                    Reading::Not => self.ready = Some(data),
                }
            }
            Err(frame) => {
                self.trailers = frame.into_trailers().ok().map(Box::new);
                self.end();
            }
        }
    }

    fn push_plain(&mut self, data: Bytes, last: bool) {
        if data.is_empty() || self.begun || self.scrubbing.answers.unreadable {
            return self.read_plain(data, last);
        }
        let first = match self.first.take() {
            Some(first) => [first, data].concat().into(),
            None => data,
        };
        match Kind::of(&first) {
            Kind::Unknown if !last => {
                self.first = Some(first);
                return;
            }
            Kind::Coded(coding) => {
                self.inspection = Some(Box::new(Inspection::new(coding, &self.scrubbing.patterns)));
            }
            Kind::Unknown | Kind::Other => {}
        }
        self.begun = true;
        // What says that it is JSON and is none cannot be sealed.
        self.unsealable = self.inspection.is_some() && self.sealer.as_ref().is_some_and(|sealer| sealer.is_certain());
        self.read_plain(first, last);
    }

    fn read_plain(&mut self, data: Bytes, last: bool) {
        self.ready = match &mut self.inspection {
            Some(inspection) => {
                inspection.push(data);
                None
            }
            None if last => self.scrubber.push_last(data),
            None => self.scrubber.push(data),
        };
    }

    /// The content has ended.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// The next frame to send; `None` when more must come in first, or when all is sent.
    pub(super) fn next(&mut self) -> Result<Option<Frame<Bytes>>, BadCoding> {
        let next = match self.peeked.take() {
            Some(frame) => Some(*frame),
            None => self.make()?,
        };
        if self.ended && next.is_some() {
            self.peeked = self.make()?.map(Box::new);
        }
        if let Some(data) = next.as_ref().and_then(Frame::data_ref) {
            self.pending = self.pending.saturating_sub(data.len() as u64);
        }
        Ok(next)
    }

    fn make(&mut self) -> Result<Option<Frame<Bytes>>, BadCoding> {
        self.busy = false;
        if self.unsealable {
            return Err(BadCoding::Unreadable);
        }
        if let Some(first) = self.first.take_if(|_| self.ended) {
            self.begun = true;
            self.read_plain(first, true);
        }
        loop {
            if self.scrubber.is_overrun() || self.sealer.as_ref().is_some_and(|sealer| sealer.is_overrun()) {
                return Err(BadCoding::Unreadable);
            }
            if let Some(data) = self.sealer.as_mut().and_then(|sealer| sealer.ready()) {
                return Ok(Some(Frame::data(data)));
            }
            match (self.ready.take().or_else(|| self.scrubber.ready()), &mut self.sealer) {
                (Some(data), None) => return Ok(Some(Frame::data(data))),
                (Some(data), Some(sealer)) => match sealer.push(data) {
                    Some(data) => return Ok(Some(Frame::data(data))),
                    None => continue,
                },
                (None, _) => {}
            }
            if std::mem::take(&mut self.text_ended)
                && let Some(sealer) = &mut self.sealer
            {
                sealer.end_text();
                continue;
            }
            if let Some(inspection) = &mut self.inspection {
                if inspection.look(self.ended)? == Look::Unfinished {
                    self.busy = true;
                    return Ok(None);
                }
                if let Some(data) = inspection.next() {
                    self.ready = self.scrubber.push(data);
                    continue;
                }
            }
            if let Reading::Coded(decoder) = &mut self.reading
                && let Some(piece) = decoder.next()?
            {
                self.ready = self.scrubber.push(piece);
                continue;
            }
            if let Reading::Messages(messages) = &mut self.reading
                && let Some(part) = messages.next()?
            {
                self.ready = match part {
                    // The message before it is out: what a head is made of is no text, and nobody reads it as one.
                    Part::Head(head) => return Ok(Some(Frame::data(head))),
                    Part::Text(text) => self.scrubber.push(text),
                    Part::End => {
                        self.text_ended = true;
                        self.scrubber.finish()
                    }
                };
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
            self.ready = match &mut self.reading {
                Reading::Coded(decoder) => decoder.finish().map(|()| self.scrubber.finish())?,
                Reading::Messages(messages) => match messages.finish()? {
                    Some(rest) => return Ok(Some(Frame::data(rest))),
                    None => self.scrubber.finish(),
                },
                Reading::Plain | Reading::Not => self.scrubber.finish(),
            };
        }
    }

    /// Whether there is work left that waits for nobody.
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Whether nothing comes any more.
    pub(super) fn is_done(&self) -> bool {
        let sealed = self.sealer.as_ref().is_none_or(|sealer| sealer.is_idle() && self.sealed);
        self.exhausted && sealed && self.peeked.is_none() && self.trailers.is_none() && self.scrubber.is_idle()
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
            Reading::Plain | Reading::Not => SizeHint::with_exact(left + self.pending),
        }
    }

    /// Goes on with the secrets of another moment, as soon as nothing is held.
    pub(super) fn renew(&mut self, scrubbing: &Scrubbing) {
        if !Arc::ptr_eq(&self.scrubbing.patterns, &scrubbing.patterns)
            && self.scrubber.is_idle()
            && !self.scrubber.is_overrun()
        {
            self.scrubbing = scrubbing.clone();
            self.scrubber = Scrubber::new(Arc::clone(&scrubbing.patterns));
        }
    }
}
