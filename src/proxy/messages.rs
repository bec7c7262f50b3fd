//! Length-prefixed messages in an answer's body, as gRPC, gRPC-Web and the streams of Connect have them: a byte of flags,
//! four of length, the message. Each is a text of its own, so a whole one is never held for the next.
//!
//! A compressed message is decoded, and goes on as one that is not compressed: both kinds may follow one another (gRPC over
//! HTTP/2, "Compressed-Flag"). How long it is must be known first, which takes all of it. So a long one is decoded twice, and
//! held as it came: what is small on the wire is never large in memory.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName};

use super::coding::{BadCoding, Coding, Decoder, UnknownCoding};
use crate::credential::Turn;

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const CONNECT_ENCODING: HeaderName = HeaderName::from_static("connect-content-encoding");

/// What says how messages may be compressed, in requests: removed there.
pub(super) const ACCEPTED: [HeaderName; 2] =
    [HeaderName::from_static("grpc-accept-encoding"), HeaderName::from_static("connect-accept-encoding")];
/// In answers: true no more when messages were decoded.
pub(super) const ENCODINGS: [HeaderName; 2] = [GRPC_ENCODING, CONNECT_ENCODING];

const HEAD_BYTES: usize = 5;
/// The flag of a compressed message.
const COMPRESSED: u8 = 1;
/// The flags that there are beside it: none; the end of a stream of Connect; the trailers of gRPC-Web. Anything else is no
/// head, but a text that has none.
const FLAGS: [u8; 3] = [0, 2, 0x80];
/// What a compressed message may be, and be decoded to: what gRPC's implementations take by default.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A message that is decoded to no more is held so, and not decoded twice.
const DECODED_BYTES_MAX: usize = 64 * 1024;

/// See the module.
pub(super) struct Messages {
    /// What compressed ones are in.
    coding: Option<Coding>,
    /// Compressed ones pass when that is not known.
    lenient: bool,
    place: Place,
    head: BytesMut,
    input: Bytes,
}

enum Place {
    Head,
    /// So many bytes of a message that is not compressed.
    Plain(u32),
    Coded(Box<Coded>),
    /// A message that was decoded.
    Decoded(Bytes),
    /// One that is decoded again.
    Again(Box<Decoder>),
    End,
}

struct Coded {
    coding: Coding,
    flags: u8,
    left: u32,
    decoder: Decoder,
    /// As it came.
    raw: BytesMut,
    /// Empty where it is longer than it may be here.
    decoded: BytesMut,
    length: usize,
}

/// A part of the body.
pub(super) enum Part {
    /// The head of a message. It is a part of its text, and nothing in it may be changed.
    Head {
        bytes: Bytes,
        /// The message was decoded.
        decoded: bool,
    },
    /// Of the message. An empty one: others come first.
    Text(Bytes),
    /// A message has ended.
    End,
}

/// Whether a body is made of messages, and what compressed ones are in.
pub(super) fn of(headers: &HeaderMap) -> Option<Result<Option<Coding>, UnknownCoding>> {
    let media_type = headers.get(header::CONTENT_TYPE)?.as_bytes().to_ascii_lowercase();
    // In the text form of gRPC-Web the frames themselves are in base64.
    let grpc = media_type.starts_with(b"application/grpc") && !media_type.starts_with(b"application/grpc-web-text");
    (grpc || media_type.starts_with(b"application/connect+")).then(|| coding(headers))
}

/// What messages are compressed with.
pub(super) fn coding(headers: &HeaderMap) -> Result<Option<Coding>, UnknownCoding> {
    Coding::only(headers.iter().filter(|(name, _)| ENCODINGS.contains(name)).map(|(_, value)| value))
}

impl Messages {
    pub(super) fn new(coding: Option<Coding>, lenient: bool) -> Self {
        Self { coding, lenient, place: Place::Head, head: BytesMut::new(), input: Bytes::new() }
    }

    /// Takes the next bytes; only when [`Self::next`] has nothing more to give.
    pub(super) fn push(&mut self, input: Bytes) {
        self.input = input;
    }

    /// The next part; `None` when more input is needed.
    pub(super) fn next(&mut self, turn: &mut Turn) -> Result<Option<Part>, BadCoding> {
        loop {
            match &mut self.place {
                Place::Head => {
                    let Some(head) = self.read_head() else { return Ok(None) };
                    if let Some(part) = self.begin(head)? {
                        return Ok(Some(part));
                    }
                }
                Place::Plain(0) => self.place = Place::End,
                Place::Plain(_) if self.input.is_empty() => return Ok(None),
                Place::Plain(left) => return Ok(Some(Part::Text(take(&mut self.input, left)))),
                Place::Coded(coded) => match coded.read(&mut self.input, turn)? {
                    Read::Head(bytes) => {
                        self.place = coded.message();
                        return Ok(Some(Part::Head { bytes, decoded: true }));
                    }
                    Read::Turn => return Ok(Some(Part::Text(Bytes::new()))),
                    Read::Nothing => return Ok(None),
                },
                Place::Decoded(message) => {
                    let message = std::mem::take(message);
                    self.place = Place::End;
                    return Ok(Some(Part::Text(message)));
                }
                Place::Again(decoder) => match decoder.next(turn)? {
                    Some(text) => return Ok(Some(Part::Text(text))),
                    None => self.place = Place::End,
                },
                Place::End => {
                    self.place = Place::Head;
                    return Ok(Some(Part::End));
                }
            }
        }
    }

    /// The body has ended; what is left is no message.
    pub(super) fn finish(&mut self) -> Result<Option<Bytes>, BadCoding> {
        match self.place {
            Place::Coded(_) => Err(BadCoding::Broken),
            _ => Ok(Some(self.head.split().freeze()).filter(|head| !head.is_empty())),
        }
    }

    fn read_head(&mut self) -> Option<[u8; HEAD_BYTES]> {
        let missing = (HEAD_BYTES - self.head.len()).min(self.input.len());
        self.head.extend_from_slice(&self.input.split_to(missing));
        let head = (*self.head).try_into().ok()?;
        self.head.clear();
        Some(head)
    }

    /// A message begins. Its head passes at once, unless the message is decoded first.
    fn begin(&mut self, head: [u8; HEAD_BYTES]) -> Result<Option<Part>, BadCoding> {
        let [flags, length @ ..] = head;
        let left = u32::from_be_bytes(length);
        if !self.lenient && !FLAGS.contains(&(flags & !COMPRESSED)) {
            return Err(BadCoding::Unreadable);
        }
        match self.coding {
            // An empty message has nothing to be decoded.
            Some(coding) if flags & COMPRESSED != 0 && left > 0 => {
                if usize::try_from(left).is_ok_and(|left| left > MESSAGE_BYTES_MAX) {
                    return Err(BadCoding::Unreadable);
                }
                self.place = Place::Coded(Box::new(Coded::new(coding, flags, left)));
                Ok(None)
            }
            None if flags & COMPRESSED != 0 && left > 0 && !self.lenient => Err(BadCoding::Unreadable),
            _ => {
                self.place = Place::Plain(left);
                Ok(Some(Part::Head { bytes: Bytes::copy_from_slice(&head), decoded: false }))
            }
        }
    }
}

/// How far a message was read.
enum Read {
    /// All of it: the head that it goes on with.
    Head(Bytes),
    Turn,
    Nothing,
}

impl Coded {
    fn new(coding: Coding, flags: u8, left: u32) -> Self {
        let decoder = Decoder::new(coding);
        Self { coding, flags, left, decoder, raw: BytesMut::new(), decoded: BytesMut::new(), length: 0 }
    }

    /// Decodes what is there.
    fn read(&mut self, input: &mut Bytes, turn: &mut Turn) -> Result<Read, BadCoding> {
        let more = take(input, &mut self.left);
        if !more.is_empty() {
            self.raw.extend_from_slice(&more);
            self.decoder.push(more);
        }
        while let Some(piece) = self.decoder.next(turn)? {
            if piece.is_empty() {
                return Ok(Read::Turn);
            }
            self.length += piece.len();
            if self.length > MESSAGE_BYTES_MAX {
                return Err(BadCoding::Unreadable);
            }
            if self.length > DECODED_BYTES_MAX {
                self.decoded = BytesMut::new();
            } else {
                self.decoded.extend_from_slice(&piece);
            }
        }
        if self.left > 0 {
            return Ok(Read::Nothing);
        }
        self.decoder.finish()?;
        let mut head = BytesMut::with_capacity(HEAD_BYTES);
        head.put_u8(self.flags & !COMPRESSED);
        head.put_u32(u32::try_from(self.length).map_err(|_| BadCoding::Unreadable)?);
        Ok(Read::Head(head.freeze()))
    }

    /// Where the message is now that all of it is there.
    fn message(&mut self) -> Place {
        if self.length <= DECODED_BYTES_MAX {
            return Place::Decoded(self.decoded.split().freeze());
        }
        let mut decoder = Decoder::new(self.coding);
        decoder.push(self.raw.split().freeze());
        Place::Again(Box::new(decoder))
    }
}

/// As many bytes as are left of a message, and there.
fn take(input: &mut Bytes, left: &mut u32) -> Bytes {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    *left = left.saturating_sub(u32::try_from(length).unwrap_or(u32::MAX));
    input.split_to(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::Write as _;

    fn framed(flags: u8, message: &[u8]) -> Vec<u8> {
        [&[flags][..], &u32::try_from(message.len()).expect("short").to_be_bytes(), message].concat()
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text).expect("encoded");
        encoder.finish().expect("encoded")
    }

    /// What passes, and how many texts it was.
    fn passed(coding: Option<Coding>, bytes: &[u8], part: usize) -> Result<(Vec<u8>, usize), BadCoding> {
        let mut messages = Messages::new(coding, false);
        let (mut out, mut texts) = (Vec::new(), 0);
        for part in bytes.chunks(part) {
            messages.push(Bytes::copy_from_slice(part));
            while let Some(part) = messages.next(&mut Turn::new())? {
                match part {
                    Part::Head { bytes, .. } | Part::Text(bytes) => out.extend_from_slice(&bytes),
                    Part::End => texts += 1,
                }
            }
        }
        out.extend_from_slice(&messages.finish()?.unwrap_or_default());
        Ok((out, texts))
    }

    #[test]
    fn messages_pass_however_they_are_split_and_compressed_ones_decoded() {
        let long = vec![b'x'; 100_000];
        let sent = [framed(0, b"one"), framed(1, &gzip(&long)), framed(0, b""), framed(1, b""), framed(0x80, b"a: b")];
        let plain = [framed(0, b"one"), framed(0, &long), framed(0, b""), framed(1, b""), framed(0x80, b"a: b")];
        for part in [1, 2, 7, 100, 1 << 20] {
            assert!(passed(Some(Coding::Gzip), &sent.concat(), part) == Ok((plain.concat(), 5)), "in parts of {part}");
        }
        assert_eq!(passed(None, &framed(0, b"two")[..7], 1), Ok((framed(0, b"two")[..7].to_vec(), 0)));
        assert_eq!(passed(None, b"\0\0", 1), Ok((b"\0\0".to_vec(), 0)));
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for flags in 0..=u8::MAX {
            let message = framed(flags, b"");
            let known = [0, 1, 2, 3, 0x80, 0x81].contains(&flags);
            assert_eq!(passed(None, &message, 10).is_ok(), known, "{flags:#x}");
        }
    }

    #[test]
    fn what_is_small_on_the_wire_is_small_in_memory() {
        let bomb = framed(1, &gzip(&vec![0; MESSAGE_BYTES_MAX]));
        let mut messages = Messages::new(Some(Coding::Gzip), false);
        messages.push(Bytes::from(bomb.clone()));
        let mut decoded = 0;
        while let Some(part) = messages.next(&mut Turn::new()).expect("decoded") {
            if let Part::Text(text) = part {
                decoded += text.len();
            }
            let held = match &messages.place {
                Place::Coded(coded) => coded.raw.capacity() + coded.decoded.capacity(),
                Place::Decoded(message) => message.len(),
                _ => 0,
            };
            assert!(held <= 2 * (bomb.len() + DECODED_BYTES_MAX), "{held} of {}", bomb.len());
        }
        assert_eq!(decoded, MESSAGE_BYTES_MAX);
    }

    #[test]
    fn what_cannot_be_decoded_is_refused() {
        assert_eq!(passed(None, &framed(1, b"x"), 10), Err(BadCoding::Unreadable));
        assert_eq!(passed(Some(Coding::Gzip), &framed(1, b"x"), 10), Err(BadCoding::Broken));
        let whole = framed(1, &gzip(b"text"));
        assert_eq!(passed(Some(Coding::Gzip), &whole[..whole.len() - 1], 10), Err(BadCoding::Broken));
        for (length, allowed) in [(MESSAGE_BYTES_MAX, true), (MESSAGE_BYTES_MAX + 1, false)] {
            let bomb = framed(1, &gzip(&vec![0; length]));
            assert_eq!(passed(Some(Coding::Gzip), &bomb, 1000).is_ok(), allowed, "{length}");
        }
    }
}
