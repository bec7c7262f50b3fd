//! Content codings (RFC 9110 §8.4.1): taken off an answer that has to be read, piece by piece.
//!
//! A piece that is given out has a bound and the next is made only when it is asked for, so a bomb costs the upstream its
//! connection's time and nobody memory; one that goes on and on is no answer. Deliberately absent: putting a coding on.
//! What was decoded goes on as it is.

use bytes::{Buf as _, Bytes};
use compression_codecs::core::util::{PartialBuffer, WriteBuffer};
use compression_codecs::zstd::params::DParameter;
use compression_codecs::{BrotliDecoder, DecodeV2, DeflateDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder};
use http::header::{self, HeaderMap, HeaderValue};

use crate::credential::Turn;
use crate::policy::Code;

/// The largest piece that is given out.
const PIECE_BYTES: usize = 16 * 1024;
/// A piece that is smaller is copied, so that the room for it is used again.
const COPIED_BYTES_MAX: usize = PIECE_BYTES / 4;
/// So much may be decoded from however little.
const DECODED_FREE_BYTES: u64 = 64 * 1024 * 1024;
/// And so many bytes more from each that came: logs and tables stay below, what was made to be large does not.
const RATIO_MAX: u64 = 100;
/// What it takes to begin a member, in steps of a [`Turn`]: half a microsecond.
const MEMBER_STEPS: u64 = 64;
/// The window that a zstd content coding may have, as a power of two: 8 MiB (RFC 9659 §3).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// How a brotli stream with a window of up to 1 GiB begins, in its first seven bits: no `br` has that (RFC 7932 §9.1), and the
/// decoder would make it.
const BROTLI_LARGE_WINDOW: u8 = 0x11;

/// A coding that can be taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    /// zlib as RFC 9110 §8.4.1.2 has it, or without its header as some servers send it.
    Deflate,
    Brotli,
    Zstd,
}

/// An answer is in a coding, or in several, that cannot be taken off.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnknownCoding;

/// Why a compressed body does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadCoding {
    /// The bytes are not what their coding says, or end too early.
    #[error("the answer's content coding is broken")]
    Broken,
    /// It holds the secret where it cannot be taken out.
    #[error("the answer holds the secret in compressed form")]
    Echo,
    /// It is in a form that cannot be scanned.
    #[error("the answer cannot be scanned for the secret")]
    Unreadable,
}

impl BadCoding {
    /// What the journal says of it.
    pub(super) const fn code(self) -> Code {
        match self {
            Self::Broken => Code::UpstreamProtocol,
            Self::Echo | Self::Unreadable => Code::BodyUnreadable,
        }
    }
}

impl Coding {
    /// The one coding of an answer; `None` when it has none.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, UnknownCoding> {
        Self::only(headers.get_all(header::CONTENT_ENCODING))
    }

    /// The one coding that these values name.
    pub(super) fn only<'v>(values: impl IntoIterator<Item = &'v HeaderValue>) -> Result<Option<Self>, UnknownCoding> {
        let mut only = None;
        for value in values {
            for name in value.to_str().map_err(|_| UnknownCoding)?.split(',') {
                let coding = match name.trim().to_ascii_lowercase().as_str() {
                    "" | "identity" => continue,
                    "gzip" | "x-gzip" => Self::Gzip,
                    "deflate" => Self::Deflate,
                    "br" => Self::Brotli,
                    "zstd" => Self::Zstd,
                    _ => return Err(UnknownCoding),
                };
                if only.replace(coding).is_some() {
                    return Err(UnknownCoding);
                }
            }
        }
        Ok(only)
    }
}

/// Takes one coding off one body.
pub(super) struct Decoder {
    coding: Coding,
    inner: Option<Box<dyn DecodeV2 + Send + Sync>>,
    input: Bytes,
    /// The first byte of a body in [`Coding::Deflate`], until the second tells which kind it is.
    first: Option<u8>,
    /// The last piece was full, so the decoder may hold more.
    full: bool,
    /// A member has ended, and no other has begun.
    ended: bool,
    /// What follows the last member is none, and nobody reads it.
    over: bool,
    started: bool,
    /// Bytes that went into it and came out.
    came: u64,
    given: u64,
    /// Where the next piece is made: zeros.
    room: Vec<u8>,
    /// Something of it went to the decoder.
    begun: bool,
    /// What a call wrote that then failed.
    written: Bytes,
}

impl Decoder {
    pub(super) fn new(coding: Coding) -> Self {
        let inner: Option<Box<dyn DecodeV2 + Send + Sync>> = match coding {
            Coding::Gzip => Some(Box::new(GzipDecoder::new())),
            Coding::Brotli => Some(Box::new(BrotliDecoder::new())),
            Coding::Zstd => {
                let window = DParameter::window_log_max(ZSTD_WINDOW_LOG_MAX);
                Some(Box::new(ZstdDecoder::new_with_params(&[window])))
            }
            Coding::Deflate => None,
        };
        Self {
            coding,
            inner,
            input: Bytes::new(),
            first: None,
            full: false,
            ended: false,
            over: false,
            started: false,
            came: 0,
            given: 0,
            room: Vec::new(),
            begun: false,
            written: Bytes::new(),
        }
    }

    /// Takes the next coded bytes; only when [`Self::next`] has nothing more to give.
    pub(super) fn push(&mut self, input: Bytes) {
        self.started |= !input.is_empty();
        self.came += input.len() as u64;
        self.input = input;
    }

    /// The next decoded piece; `None` when more input is needed. An empty one when the turn is over before there is any.
    pub(super) fn next(&mut self, turn: &mut Turn) -> Result<Option<Bytes>, BadCoding> {
        if self.inner.is_none() && !self.tell_deflate() {
            return Ok(None);
        }
        while self.full || !self.input.is_empty() {
            if self.ended && !self.begin_member(turn)? {
                return Ok(None);
            }
            if turn.is_over() {
                return Ok(Some(Bytes::new()));
            }
            let before = self.input.len();
            let piece = self.decode()?;
            turn.take((before - self.input.len() + piece.len()) as u64);
            self.given += piece.len() as u64;
            if self.given > DECODED_FREE_BYTES.saturating_add(RATIO_MAX * self.came) {
                return Err(BadCoding::Unreadable);
            }
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    /// How many of the bytes that it was given it has not read.
    pub(super) fn left(&self) -> usize {
        self.input.len()
    }

    /// Whether there may be more from what it has read.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// After an error: what was decoded in the same call, with zeros in it where nothing was.
    pub(super) fn written(&mut self) -> Bytes {
        std::mem::take(&mut self.written)
    }

    /// The coded bytes have ended. An answer without any is empty, not broken.
    pub(super) fn finish(&self) -> Result<(), BadCoding> {
        if self.ended || !self.started { Ok(()) } else { Err(BadCoding::Broken) }
    }

    fn decode(&mut self) -> Result<Bytes, BadCoding> {
        let Some(inner) = &mut self.inner else { return Err(BadCoding::Broken) };
        if !std::mem::replace(&mut self.begun, true)
            && self.coding == Coding::Brotli
            && self.input.first().is_some_and(|first| first & 0x7f == BROTLI_LARGE_WINDOW)
        {
            self.begun = false;
            return Err(BadCoding::Unreadable);
        }
        let mut room = std::mem::take(&mut self.room);
        room.resize(PIECE_BYTES, 0);
        let mut output = WriteBuffer::new_initialized(&mut room);
        let mut input = PartialBuffer::new(&*self.input);
        let done = if input.unwritten().is_empty() && matches!(self.coding, Coding::Gzip | Coding::Deflate) {
            // Asked for more without input, these fail when they have none.
            inner.flush(&mut output).map(|_| false)
        } else {
            inner.decode(&mut input, &mut output)
        };
        let Ok(ended) = done else {
            // How much of it was written, not every decoder says.
            self.written = room.into();
            return Err(BadCoding::Broken);
        };
        self.ended = ended;
        let (read, written) = (input.written_len(), output.written_len());
        self.full = !self.ended && written == PIECE_BYTES;
        if read == 0 && written == 0 && !self.ended && !self.input.is_empty() {
            return Err(BadCoding::Broken);
        }
        self.input.advance(read);
        if written > COPIED_BYTES_MAX {
            room.truncate(written);
            return Ok(room.into());
        }
        let piece = Bytes::copy_from_slice(&room[..written]);
        room[..written].fill(0);
        self.room = room;
        Ok(piece)
    }

    /// What follows a member: another one (RFC 1952 §2.2, RFC 8878 §3), in gzip after zeros too, with which tapes are filled;
    /// or nothing that anybody reads.
    fn begin_member(&mut self, turn: &mut Turn) -> Result<bool, BadCoding> {
        if self.coding == Coding::Gzip && !self.over {
            let zeros = self.input.iter().take_while(|&&byte| byte == 0).count();
            self.input.advance(zeros);
            if self.input.is_empty() {
                return Ok(false);
            }
        }
        let another = match self.coding {
            Coding::Gzip => self.input.first() == Some(&0x1f),
            Coding::Zstd => true,
            Coding::Deflate | Coding::Brotli => false,
        };
        if !another || self.over {
            self.over = true;
            self.input = Bytes::new();
            return Ok(false);
        }
        turn.take(MEMBER_STEPS);
        self.ended = false;
        self.inner.as_mut().ok_or(BadCoding::Broken)?.reinit().map_err(|_| BadCoding::Broken)?;
        Ok(true)
    }

    /// The first two bytes tell zlib (RFC 1950 §2.2) from bare deflate. True when they are there.
    fn tell_deflate(&mut self) -> bool {
        if let Some(first) = self.first.take() {
            self.input = [&[first], &*self.input].concat().into();
        }
        let &[first, second, ..] = &*self.input else {
            self.first = self.input.first().copied();
            self.input = Bytes::new();
            return false;
        };
        let zlib = first & 0x0f == 8 && u16::from_be_bytes([first, second]).is_multiple_of(31);
        self.inner = Some(if zlib { Box::new(ZlibDecoder::new()) } else { Box::new(DeflateDecoder::new()) });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use compression_codecs::brotli::params::EncoderParams;
    use compression_codecs::zstd::params::CParameter;
    use compression_codecs::{BrotliEncoder, DeflateEncoder, EncodeV2, GzipEncoder, ZlibEncoder, ZstdEncoder};

    fn encoded(encoder: &mut dyn EncodeV2, text: &[u8]) -> Vec<u8> {
        let mut out = vec![0; text.len() + 1000];
        let mut output = WriteBuffer::new_initialized(&mut out);
        let mut input = PartialBuffer::new(text);
        while !input.unwritten().is_empty() {
            encoder.encode(&mut input, &mut output).expect("encoded");
        }
        while !encoder.finish(&mut output).expect("finished") {}
        let written = output.written_len();
        out.truncate(written);
        out
    }

    fn all(text: &[u8]) -> Vec<(Coding, Vec<u8>)> {
        let level = flate2::Compression::default();
        vec![
            (Coding::Gzip, encoded(&mut GzipEncoder::new(level.into()), text)),
            (Coding::Deflate, encoded(&mut ZlibEncoder::new(level.into()), text)),
            (Coding::Deflate, encoded(&mut DeflateEncoder::new(level.into()), text)),
            (Coding::Brotli, encoded(&mut BrotliEncoder::new(EncoderParams::default()), text)),
            (Coding::Zstd, encoded(&mut ZstdEncoder::new(3), text)),
        ]
    }

    fn decoded(coding: Coding, coded: &[u8], part: usize) -> Result<Vec<u8>, BadCoding> {
        let mut decoder = Decoder::new(coding);
        let mut out = Vec::new();
        for part in coded.chunks(part) {
            decoder.push(Bytes::copy_from_slice(part));
            while let Some(piece) = decoder.next(&mut Turn::new())? {
                assert!(piece.len() <= PIECE_BYTES);
                out.extend_from_slice(&piece);
            }
        }
        decoder.finish().map(|()| out)
    }

    fn texts() -> Vec<Vec<u8>> {
        let words: Vec<u8> = (0..40_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 7).to_be_bytes()).collect();
        vec![b"x".to_vec(), b"hello hello hello".to_vec(), vec![b'a'; 3 * PIECE_BYTES], words]
    }

    #[test]
    fn every_coding_comes_off_however_it_is_split() {
        for text in texts() {
            for (coding, coded) in all(&text) {
                for part in [1, 7, 1000, coded.len()] {
                    if part == 1 && text.len() > 100_000 {
                        continue;
                    }
                    let out = decoded(coding, &coded, part).expect("decoded");
                    assert!(out == text, "{coding:?} in parts of {part}: {} of {}", out.len(), text.len());
                }
            }
        }
    }

    #[test]
    fn members_follow_one_another() {
        for coding in [Coding::Gzip, Coding::Zstd] {
            let member = |text: &[u8]| all(text).into_iter().find(|(of, _)| *of == coding).expect("a coding").1;
            let coded = [member(b"one, "), member(b"two")].concat();
            for part in [1, coded.len()] {
                assert_eq!(decoded(coding, &coded, part).expect("decoded"), b"one, two");
            }
        }
    }

    #[test]
    fn a_member_may_follow_zeros_and_what_is_none_is_not_read() {
        let member = |text: &[u8]| all(text).swap_remove(0).1;
        let [one, two] = [&b"one, "[..], b"two"].map(member);
        for (coded, text) in [
            ([&*one, &[0; 300], &two].concat(), &b"one, two"[..]),
            ([&*one, &[0; 300]].concat(), b"one, "),
            ([&*one, b"\0\0trailer", &two].concat(), b"one, "),
        ] {
            for part in [1, 7, coded.len()] {
                assert_eq!(decoded(Coding::Gzip, &coded, part).as_deref(), Ok(text), "in parts of {part}");
            }
        }
    }

    #[test]
    fn what_was_made_to_be_large_is_refused() {
        // So much in so little that 100 times what came is far less.
        let length = usize::try_from(DECODED_FREE_BYTES).expect("short");
        for (length, allowed) in [(length / 2, true), (2 * length, false)] {
            let coded = encoded(&mut ZstdEncoder::new(1), &vec![0; length]);
            let mut decoder = Decoder::new(Coding::Zstd);
            decoder.push(Bytes::from(coded));
            let mut given = 0;
            let result = loop {
                match decoder.next(&mut Turn::new()) {
                    Ok(Some(piece)) => given += piece.len() as u64,
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            assert_eq!(result, if allowed { Ok(()) } else { Err(BadCoding::Unreadable) });
            assert!(given <= DECODED_FREE_BYTES + 1024 * 1024, "{given}");
        }
    }

    #[test]
    fn a_turn_ends_in_members_that_hold_nothing() {
        let member = all(b"").swap_remove(0).1;
        let mut decoder = Decoder::new(Coding::Gzip);
        decoder.push(Bytes::from(member.repeat(10_000)));
        let mut turns = 0;
        while let Some(piece) = decoder.next(&mut Turn::new()).expect("decoded") {
            assert!(piece.is_empty());
            turns += 1;
        }
        assert!(turns >= 10, "{turns}");
    }

    #[test]
    fn what_is_cut_or_changed_is_broken() {
        for (coding, coded) in all(&texts()[3]) {
            assert!(decoded(coding, &coded[..coded.len() - 1], 1000).is_err(), "{coding:?} cut");
            assert!(decoded(coding, b"this is in no coding at all", 1000).is_err(), "{coding:?}");
            assert_eq!(decoded(coding, b"", 1).expect("nothing"), b"");
        }
        let (_, mut gzip) = all(b"a checksum").swap_remove(0);
        let at = gzip.len() - 8;
        gzip[at] ^= 1;
        assert!(decoded(Coding::Gzip, &gzip, 100).is_err());
    }

    #[test]
    fn a_window_beyond_the_bound_is_refused() {
        let text = vec![b'a'; 100];
        for (log, allowed) in [(23, true), (24, false)] {
            let parameters = [CParameter::window_log(log), CParameter::content_size_flag(false)];
            let mut encoder = ZstdEncoder::new_with_params(3, &parameters);
            let coded = encoded(&mut encoder, &text);
            assert_eq!(decoded(Coding::Zstd, &coded, 50).is_ok(), allowed, "{log}");
        }
    }

    #[test]
    fn a_brotli_stream_with_a_large_window_is_refused() {
        // Empty streams: windows of 1 GiB and 2 KiB, then one of 1 KiB, whose first byte is one bit away.
        assert_eq!(decoded(Coding::Brotli, &[0x11, 0xde], 1), Err(BadCoding::Unreadable));
        assert_eq!(decoded(Coding::Brotli, &[0x91, 0xde], 2), Err(BadCoding::Unreadable));
        assert_eq!(decoded(Coding::Brotli, &[0xa1, 0x01], 1), Ok(Vec::new()));
        let ordinary = encoded(&mut BrotliEncoder::new(EncoderParams::default()), b"text");
        assert_eq!(decoded(Coding::Brotli, &ordinary, 1), Ok(b"text".to_vec()));
    }

    #[test]
    fn one_known_coding_or_none() {
        let of = |value: &'static str| {
            let headers = [(header::CONTENT_ENCODING, HeaderValue::from_static(value))].into_iter().collect();
            Coding::of(&headers)
        };
        assert_eq!(of("gzip"), Ok(Some(Coding::Gzip)));
        assert_eq!(of("X-GZip"), Ok(Some(Coding::Gzip)));
        assert_eq!(of("identity, br"), Ok(Some(Coding::Brotli)));
        assert_eq!(of(""), Ok(None));
        for unknown in ["gzip, br", "gzip, gzip", "aes128gcm", "gzip;q=1", "compress"] {
            assert_eq!(of(unknown), Err(UnknownCoding), "{unknown}");
        }
    }
}
