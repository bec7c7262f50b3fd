//! Keeps the secret of a destination out of what comes back from it: the head of an answer, its body, its trailers.
//!
//! Upstreams are asked for what can be read: no content coding, no parts, no compressed messages. What comes in a coding all
//! the same is decoded and goes on as it is; what cannot be read is refused, unless the service lets it pass.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};

use super::coding::{BadCoding, Coding, Decoder};
use super::inspect::{Inspection, Look};
use super::respond::Refusal;
use crate::credential::Scrubber;
use crate::service::Scrubbing;

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
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
    headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
    headers.remove(GRPC_ACCEPT_ENCODING);
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
    for value in headers.values_mut() {
        if let Some(clean) = patterns.scrub(value.as_bytes()) {
            *value = HeaderValue::from_maybe_shared(Bytes::from(clean)).unwrap_or(HeaderValue::from_static(""));
        }
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
) -> Result<Filter, Refusal> {
    fields(scrubbing, headers);
    headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
    let coding = Coding::of(headers);
    if matches!(coding, Ok(Some(_))) {
        // What goes on is decoded, also where only its head was asked for.
        headers.remove(header::CONTENT_ENCODING);
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::ACCEPT_RANGES);
    }
    let reading = match (coding, is_transfer_coded || is_compressed_grpc(headers)) {
        _ if !has_content => Reading::Plain,
        (Ok(None), false) => Reading::Plain,
        (Ok(Some(coding)), false) => Reading::Coded(Box::new(Decoder::new(coding))),
        _ if scrubbing.answers.unreadable => Reading::Not,
        (Err(_), _) => return Err(Refusal::unreadable_answer("the answer is in a coding that cannot be scanned")),
        (Ok(_), true) => {
            return Err(Refusal::unreadable_answer(
                "the answer's messages, or its transfer, are in a coding that cannot be scanned",
            ));
        }
    };
    Ok(Filter::new(scrubbing.clone(), reading))
}

fn is_compressed_grpc(headers: &HeaderMap) -> bool {
    headers.get(GRPC_ENCODING).is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// A body on its way through decoder and scrubber.
pub(super) struct Filter {
    scrubbing: Scrubbing,
    reading: Reading,
    scrubber: Scrubber,
    /// Of a body that is compressed without saying so.
    inspection: Option<Box<Inspection>>,
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
    exhausted: bool,
}

/// How a body is read.
enum Reading {
    Plain,
    Coded(Box<Decoder>),
    /// It passes as it is: its service says so.
    Not,
}

impl Filter {
    fn new(scrubbing: Scrubbing, reading: Reading) -> Self {
        let scrubber = Scrubber::new(Arc::clone(&scrubbing.patterns));
        Self {
            scrubbing,
            reading,
            scrubber,
            inspection: None,
            begun: false,
            busy: false,
            ready: None,
            peeked: None,
            pending: 0,
            trailers: None,
            ended: false,
            exhausted: false,
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
                    Reading::Not => self.ready = Some(data),
                }
            }
            Err(frame) => {
                self.trailers = frame.into_trailers().ok().map(Box::new);
                if let Some(trailers) = &mut self.trailers {
                    fields(&self.scrubbing, trailers);
                }
                self.end();
            }
        }
    }

    fn push_plain(&mut self, data: Bytes, last: bool) {
        if !self.begun && !self.scrubbing.answers.unreadable {
            self.inspection = Inspection::of(&data, &self.scrubbing.patterns).map(Box::new);
        }
        self.begun |= !data.is_empty();
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
        loop {
            if let Some(data) = self.ready.take().or_else(|| self.scrubber.ready()) {
                return Ok(Some(Frame::data(data)));
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
            if !self.ended {
                return Ok(None);
            }
            if self.exhausted {
                return Ok(self.trailers.take().map(|trailers| Frame::trailers(*trailers)));
            }
            self.exhausted = true;
            if let Reading::Coded(decoder) = &self.reading {
                decoder.finish()?;
            }
            self.ready = self.scrubber.finish();
        }
    }

    /// Whether there is work left that waits for nobody.
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Whether nothing comes any more.
    pub(super) fn is_done(&self) -> bool {
        self.exhausted && self.peeked.is_none() && self.trailers.is_none() && self.scrubber.is_idle()
    }

    /// Takes the secret out of trailers that come after all content is out.
    pub(super) fn trailers(&self, trailers: &mut HeaderMap) {
        fields(&self.scrubbing, trailers);
    }

    /// How much is still to be given out when so much is still to come in.
    pub(super) fn size_hint(&self, left: u64) -> SizeHint {
        match self.reading {
            Reading::Coded(_) => SizeHint::default(),
            Reading::Plain | Reading::Not => SizeHint::with_exact(left + self.pending),
        }
    }

    /// Goes on with the secrets of another moment, as soon as nothing is held.
    pub(super) fn renew(&mut self, scrubbing: &Scrubbing) {
        if !Arc::ptr_eq(&self.scrubbing.patterns, &scrubbing.patterns) && self.scrubber.is_idle() {
            self.scrubbing = scrubbing.clone();
            self.scrubber = Scrubber::new(Arc::clone(&scrubbing.patterns));
        }
    }
}
