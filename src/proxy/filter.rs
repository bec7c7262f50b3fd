//! The body of an answer on its way to the agent: out of its coding, past the scrubber and the sealer, frame by frame.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http_body::{Frame, SizeHint};

use super::coding::{BadCoding, Coding, Decoder};
use super::messages::{self, Messages, Part};
use super::opening::{Next, Opening};
use super::respond::Refusal;
use super::scrub::{fields, seal_fields};
use crate::credential::{Format, Scrubber, Sealer, TokenNames, Turn, begins_as_json};
use crate::service::Scrubbing;

/// What the types have in their names that say of a body that it is compressed, or may be anything.
const CODED_TYPES: [&[u8]; 4] = [b"octet-stream", b"gzip", b"zstd", b"zlib"];

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
pub(super) enum Reading {
    /// What came; whether it is known to be the last.
    Plain(Bytes, bool),
    Coded(Box<Decoder>),
    Messages(Box<Messages>),
    /// It passes as it is: its service says so.
    Not,
}

impl Reading {
    /// Of a body in this coding, or in none, which may be made of messages.
    pub(super) fn of_messages(
        scrubbing: &Scrubbing,
        headers: &mut HeaderMap,
        coding: Option<Coding>,
    ) -> Result<Self, Refusal> {
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

    pub(super) fn plain() -> Self {
        Self::Plain(Bytes::new(), false)
    }

    /// Of a body that cannot be read, where the service lets it pass.
    pub(super) fn unreadable(scrubbing: &Scrubbing, what: &str) -> Result<Self, Refusal> {
        if scrubbing.answers.unreadable {
            return Ok(Self::Not);
        }
        Err(Refusal::unreadable_answer(format!("{what} in a coding that cannot be scanned")))
    }
}

impl Filter {
    /// `may_be_json`: the first character has yet to tell whether the text is one that the sealer reads.
    pub(super) fn new(
        scrubbing: Scrubbing,
        reading: Reading,
        sealer: Option<Box<Sealer>>,
        names: Option<Arc<TokenNames>>,
        may_be_json: bool,
    ) -> Self {
        let scrubber = Scrubber::new(Arc::clone(&scrubbing.patterns));
        let opening = opening(&scrubbing, matches!(reading, Reading::Coded(_)));
        let of_messages = matches!(reading, Reading::Messages(_));
        let mut filter = Self {
            scrubbing,
            opening,
            text: Bytes::new(),
            scrubber,
            clean: None,
            head: 0,
            sealer,
            may_be_json: may_be_json && matches!(reading, Reading::Plain(..) | Reading::Coded(_)),
            unsealed: Bytes::new(),
            reading,
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
        };
        if may_be_json && of_messages {
            // Each message begins anew.
            filter.seal_json();
        }
        filter
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
