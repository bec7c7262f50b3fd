//! Looks into a body that is compressed without saying so (an archive, a file served as it lies on a disk), which must pass
//! as it is: it passes as far as what it holds was scanned, and ends where it holds the secret.
//!
//! gzip, zlib and zstd, which can be told by how they begin. Deliberately absent: what cannot (brotli, deflate without
//! a header), and archives whose parts are compressed one by one (zip) or in codings that no answer has (bzip2, xz).

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::coding::{BadCoding, Coding, Decoder};
use super::zstd_blocks::{self, Blocks};
use crate::credential::{Patterns, Scrubber};

/// No text begins with this byte, and every gzip member does (RFC 1952 §2.3.1).
const GZIP_FIRST: u8 = 0x1f;
/// How zlib begins with a window of 32 KiB, whatever its level (RFC 1950 §2.2). `x^` may begin a text, so the level that
/// nobody sets (`78 5e`) is tried, and given up, like any other.
const ZLIB_FIRST: u8 = 0x78;
const ZLIB_SECOND: [u8; 4] = [0x01, 0x5e, 0x9c, 0xda];
/// So much is decoded at once, before others have a turn: about a millisecond.
const DECODED_AT_ONCE: usize = 1024 * 1024;

/// See the module.
pub(super) struct Inspection {
    decoder: Decoder,
    scrubber: Scrubber,
    /// Came, and is not known to be harmless.
    held: VecDeque<Bytes>,
    /// How much of `held`, from the front, is.
    clear: u64,
    came: u64,
    gone: u64,
    /// zstd alone decodes block by block.
    blocks: Option<Blocks>,
    /// It was nothing compressed, or has ceased to be.
    over: bool,
    /// Its blocks are none.
    misread: bool,
}

/// How far a look has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// All that came was seen.
    Done,
    /// There is more to see at once.
    Unfinished,
}

/// What a body is, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Too little of it is there to tell.
    Unknown,
    Coded(Coding),
    Other,
}

impl Kind {
    pub(super) fn of(first: &[u8]) -> Self {
        match first {
            [GZIP_FIRST, ..] => Self::Coded(Coding::Gzip),
            [] | [ZLIB_FIRST] => Self::Unknown,
            [ZLIB_FIRST, second, ..] if ZLIB_SECOND.contains(second) => Self::Coded(Coding::Deflate),
            _ => match zstd_blocks::begins(first) {
                None => Self::Unknown,
                Some(true) => Self::Coded(Coding::Zstd),
                Some(false) => Self::Other,
            },
        }
    }
}

impl Inspection {
    /// Of a body in this coding.
    pub(super) fn new(coding: Coding, patterns: &Arc<Patterns>) -> Self {
        Self {
            decoder: Decoder::new(coding),
            scrubber: Scrubber::new(Arc::clone(patterns)),
            held: VecDeque::new(),
            clear: 0,
            came: 0,
            gone: 0,
            blocks: (coding == Coding::Zstd).then(Blocks::new),
            over: false,
            misread: false,
        }
    }

    /// Takes what came; only when all before was seen.
    pub(super) fn push(&mut self, data: Bytes) {
        self.came += data.len() as u64;
        if let Some(blocks) = &mut self.blocks {
            self.misread |= blocks.read(&data).is_err();
        }
        if !self.over {
            self.decoder.push(data.clone());
        }
        self.held.push_back(data);
    }

    /// Looks at what came. `ended`: nothing follows.
    pub(super) fn look(&mut self, ended: bool) -> Result<Look, BadCoding> {
        if self.misread {
            return Err(BadCoding::Unreadable);
        }
        let mut decoded = 0;
        while !self.over {
            match self.decoder.next() {
                Ok(Some(piece)) => {
                    decoded += piece.len();
                    let first = self.scrubber.push(piece);
                    self.judge(first)?;
                }
                Ok(None) => break,
                // Four bytes do not begin a zstd frame by chance. It has a window or a dictionary that we do not take.
                Err(_) if self.blocks.is_some() => return Err(BadCoding::Unreadable),
                Err(_) => {
                    let first = self.scrubber.push(self.decoder.written());
                    self.judge(first)?;
                    self.over = true;
                }
            }
            if decoded > DECODED_AT_ONCE {
                return Ok(Look::Unfinished);
            }
        }
        if ended || self.over {
            let first = self.scrubber.finish();
            self.judge(first)?;
        }
        let whole = self.blocks.as_ref().map_or(self.came, Blocks::whole);
        if ended && whole < self.came {
            return Err(BadCoding::Unreadable);
        }
        if self.scrubber.is_idle() {
            self.clear = whole - self.gone;
        }
        Ok(Look::Done)
    }

    /// What may pass.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        let first = self.held.front_mut()?;
        let length = usize::try_from(self.clear).unwrap_or(usize::MAX).min(first.len());
        let clear = first.split_to(length);
        if first.is_empty() {
            self.held.pop_front();
        }
        self.clear -= length as u64;
        self.gone += length as u64;
        Some(clear).filter(|clear| !clear.is_empty())
    }

    fn judge(&mut self, first: Option<Bytes>) -> Result<(), BadCoding> {
        std::iter::successors(first, |_| self.scrubber.ready()).for_each(drop);
        if self.scrubber.is_overrun() {
            return Err(BadCoding::Unreadable);
        }
        if self.scrubber.hits() == 0 { Ok(()) } else { Err(BadCoding::Echo) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use compression_codecs::core::util::{PartialBuffer, WriteBuffer};
    use compression_codecs::{EncodeV2, ZstdEncoder};

    use crate::credential::Secret;

    const SECRET: &[u8] = b"sk-real-0123456789";

    fn zstd(text: &[u8]) -> Vec<u8> {
        let mut encoder = ZstdEncoder::new(3);
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

    /// What passed, and how it ended.
    fn passed(bytes: &[u8], part: usize) -> (Vec<u8>, Result<(), BadCoding>) {
        passed_in(Coding::Zstd, bytes, part)
    }

    fn passed_in(coding: Coding, bytes: &[u8], part: usize) -> (Vec<u8>, Result<(), BadCoding>) {
        let secret = Secret::new(SECRET.to_vec()).expect("a secret");
        let patterns = Arc::new(Patterns::new(&[&secret], None, None).expect("a secret"));
        let mut inspection = Inspection::new(coding, &patterns);
        let mut out = Vec::new();
        let mut look = |inspection: &mut Inspection, ended: bool| -> Result<(), BadCoding> {
            while inspection.look(ended)? == Look::Unfinished {}
            std::iter::from_fn(|| inspection.next()).for_each(|bytes| out.extend_from_slice(&bytes));
            Ok(())
        };
        let parts = bytes.chunks(part).map(Bytes::copy_from_slice).chain([Bytes::new()]);
        let count = bytes.len().div_ceil(part);
        let result = parts.enumerate().try_for_each(|(at, bytes)| {
            inspection.push(bytes);
            look(&mut inspection, at == count)
        });
        (out, result)
    }

    /// Where the blocks of a stream end.
    fn ends(bytes: &[u8]) -> Vec<u64> {
        let mut blocks = Blocks::new();
        let mut ends: Vec<u64> =
            bytes.iter().map(|byte| blocks.read(&[*byte]).map(|()| blocks.whole()).expect("blocks")).collect();
        ends.dedup();
        ends
    }

    /// Nothing that zstd makes smaller.
    fn noise() -> Vec<u8> {
        let next = |state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        std::iter::successors(Some(7_u64), next).map(|state| (state >> 56) as u8).take(400_000).collect()
    }

    #[test]
    fn a_block_of_zstd_passes_when_it_was_scanned_whole() {
        let text: Vec<u8> = noise().iter().flat_map(|byte| [b'a' + (byte & 15), b'a' + (byte >> 4)]).collect();
        for part in [1, 100, 10_000] {
            let harmless = zstd(&text);
            assert!(ends(&harmless).last() == Some(&(harmless.len() as u64)));
            assert!(passed(&harmless, part) == (harmless, Ok(())), "in parts of {part}");
            let coded = zstd(&[&text, SECRET].concat());
            let ends = ends(&coded);
            let last = ends[ends.len() - 2];
            let (out, result) = passed(&coded, part);
            assert_eq!(result, Err(BadCoding::Echo));
            assert!(ends.len() > 4 && out.len() as u64 <= last && !out.is_empty(), "{} of {ends:?}", out.len());
        }
        let coded = [zstd(b"one"), b"\x5e\x2a\x4d\x18\x02\0\0\0ab".to_vec(), zstd(b"two")].concat();
        assert!(passed(&coded, 1) == (coded.clone(), Ok(())));
        assert_eq!(passed(&coded[..coded.len() - 1], 1).1, Err(BadCoding::Unreadable));
        assert_eq!(passed(&[&coded, SECRET].concat(), 1000).1, Err(BadCoding::Unreadable));
    }

    #[test]
    fn what_was_decoded_before_an_error_is_scanned() {
        let twin = b"sk-real-0123456788";
        for (coding, head) in [(Coding::Gzip, &b"\x1f\x8b\x08\0\0\0\0\0\0\x03"[..]), (Coding::Deflate, b"\x78\x9c")] {
            for (text, result) in [(SECRET, Err(BadCoding::Echo)), (twin, Ok(()))] {
                // A block that is stored as it is (RFC 1951 §3.2.4), and one of a kind that there is not.
                let length = [u8::try_from(text.len()).expect("short"), 0];
                let stored = [head, &[0], &length, &length.map(|byte| !byte), text, b"\x07", b"rest"].concat();
                for part in [1, stored.len()] {
                    let (out, ended) = passed_in(coding, &stored, part);
                    assert_eq!(ended, result, "{coding:?} in parts of {part}");
                    assert!(if result.is_ok() { out == stored } else { part == 1 || out.is_empty() });
                }
            }
        }
    }

    #[test]
    fn a_body_is_told_by_how_it_begins() {
        for (first, expected) in [
            (&b"\x1f"[..], Kind::Coded(Coding::Gzip)),
            (b"", Kind::Unknown),
            (b"x", Kind::Unknown),
            (b"x\x9c", Kind::Coded(Coding::Deflate)),
            (b"xy", Kind::Other),
            (b"\x28\xb5\x2f", Kind::Unknown),
            (b"\x28\xb5\x2f\xfd", Kind::Coded(Coding::Zstd)),
            (b"\x28\xb5\x2f\xfe", Kind::Other),
            (b"\x53\x2a\x4d\x18.", Kind::Coded(Coding::Zstd)),
            (b"(a", Kind::Other),
            (b"{", Kind::Other),
        ] {
            assert_eq!(Kind::of(first), expected, "{first:?}");
        }
    }
}
