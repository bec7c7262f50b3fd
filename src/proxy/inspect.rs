//! Looks into a body that is compressed without saying so (an archive, a file served as it lies on a disk), which must pass
//! as it is: it passes as far as what it holds was scanned, and ends where it holds the secret.
//!
//! gzip, zlib and zstd, which can be told by how they begin. Deliberately absent: what cannot (brotli, deflate without
//! a header), and archives whose parts are compressed one by one (zip) or in codings that no answer has (bzip2, xz).

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::coding::{BadCoding, Coding, Decoder};
use super::opening::{Next, Opening};
use super::zstd_blocks::Blocks;
use crate::credential::{Patterns, Scrubber, Turn};

/// What came and is not known to be harmless is held so far: more than a block of zstd (128 KiB, RFC 8878 §3.1.1.2.4), the
/// longest of what no decoder gives out before its end.
const HELD_BYTES_MAX: u64 = 256 * 1024;
/// Parts are put together up to this length, so that what is held takes no more memory than it has bytes.
const TOGETHER_BYTES: usize = 1024;

/// See the module.
pub(super) struct Inspection {
    decoder: Decoder,
    /// What was decoded.
    inside: Opening,
    /// Of that, what is to be scanned.
    text: Bytes,
    scrubber: Scrubber,
    /// Came, and is not known to be harmless.
    held: VecDeque<Bytes>,
    /// How much of `held`, from the front, is.
    clear: u64,
    came: u64,
    gone: u64,
    /// zstd alone decodes block by block; what came and was not given to the decoder.
    blocks: Option<Blocks>,
    unread: Bytes,
    /// How much was decoded, and what of that the scrubber before this one let pass.
    decoded: u64,
    passed_before: u64,
    /// In order: when so much of what was decoded is harmless, then so much of what came is.
    marks: VecDeque<Mark>,
    /// It was nothing compressed, or has ceased to be.
    over: bool,
}

struct Mark {
    decoded: u64,
    came: u64,
}

/// How far a look has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// All that came was seen.
    Done,
    /// There is more to see in another turn.
    Unfinished,
}

impl Inspection {
    /// Of a text in this coding, which is taken out of so many others.
    pub(super) fn new(coding: Coding, within: u8, patterns: &Arc<Patterns>) -> Self {
        Self {
            decoder: Decoder::new(coding),
            inside: Opening::within(within + 1),
            text: Bytes::new(),
            scrubber: Scrubber::new(Arc::clone(patterns)),
            held: VecDeque::new(),
            clear: 0,
            came: 0,
            gone: 0,
            blocks: (coding == Coding::Zstd).then(Blocks::new),
            unread: Bytes::new(),
            decoded: 0,
            passed_before: 0,
            marks: VecDeque::new(),
            over: false,
        }
    }

    /// Takes what came; only when all before was seen.
    pub(super) fn push(&mut self, data: Bytes) {
        self.came += data.len() as u64;
        if !self.over {
            self.unread = data.clone();
            self.decoder.push(data.clone());
        }
        match self.held.back_mut() {
            Some(last) if last.len() + data.len() <= TOGETHER_BYTES => *last = [&**last, &data].concat().into(),
            _ if data.is_empty() => {}
            _ => self.held.push_back(data),
        }
    }

    /// Looks at what came. `ended`: nothing follows.
    pub(super) fn look(&mut self, ended: bool, turn: &mut Turn) -> Result<Look, BadCoding> {
        loop {
            if self.scan(false, turn)? == Look::Unfinished {
                return Ok(Look::Unfinished);
            }
            if self.over {
                break;
            }
            let piece = match self.decoder.next(turn) {
                Ok(piece) => piece,
                // Four bytes do not begin a zstd frame by chance. It has a window or a dictionary that we do not take.
                Err(error) if self.blocks.is_some() || error == BadCoding::Unreadable => {
                    return Err(BadCoding::Unreadable);
                }
                Err(_) => {
                    self.over = true;
                    Some(self.decoder.written())
                }
            };
            self.decoded += piece.as_ref().map_or(0, Bytes::len) as u64;
            self.mark()?;
            match piece {
                Some(piece) if piece.is_empty() && !self.over => return Ok(Look::Unfinished),
                Some(piece) => self.inside.push(piece, self.scrubber.patterns())?,
                None => break,
            }
        }
        if ended || self.over {
            if self.scan(true, turn)? == Look::Unfinished {
                return Ok(Look::Unfinished);
            }
            let first = self.scrubber.finish();
            self.judge(first)?;
        }
        if self.over {
            self.marks.clear();
            self.clear = self.came - self.gone;
        }
        let passed = self.passed_before + self.scrubber.passed();
        while let Some(mark) = self.marks.pop_front_if(|mark| mark.decoded <= passed) {
            self.clear = mark.came - self.gone;
        }
        let held = self.came - self.gone - self.clear;
        if held > if ended { 0 } else { HELD_BYTES_MAX } {
            return Err(BadCoding::Unreadable);
        }
        Ok(Look::Done)
    }

    /// Notes what was decoded from what.
    fn mark(&mut self) -> Result<(), BadCoding> {
        let read = self.unread.split_to(self.unread.len().saturating_sub(self.decoder.left()));
        let came = match &mut self.blocks {
            Some(blocks) => {
                blocks.read(&read).map_err(|_| BadCoding::Unreadable)?;
                blocks.whole()
            }
            None => self.came - self.unread.len() as u64,
        };
        // There may be more of it.
        if !self.decoder.is_full() {
            match self.marks.back_mut().filter(|last| last.decoded == self.decoded) {
                Some(last) => last.came = came,
                None => self.marks.push_back(Mark { decoded: self.decoded, came }),
            }
        }
        Ok(())
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

    /// Whether all that came has passed.
    pub(super) fn is_idle(&self) -> bool {
        self.held.is_empty()
    }

    /// Goes on with the secrets of another moment, as soon as nothing is held.
    pub(super) fn renew(&mut self, patterns: &Arc<Patterns>) {
        let passed = self.scrubber.passed();
        if self.scrubber.renew(patterns) {
            self.passed_before += passed;
        }
        self.inside.renew(patterns);
    }

    /// Scans what is decoded.
    fn scan(&mut self, ended: bool, turn: &mut Turn) -> Result<Look, BadCoding> {
        loop {
            while !self.text.is_empty() {
                if turn.is_over() {
                    return Ok(Look::Unfinished);
                }
                let first = self.scrubber.push_some(&mut self.text, false, turn);
                self.judge(first)?;
            }
            match self.inside.next(ended, turn)? {
                Next::Text(text) => self.text = text,
                Next::Turn => return Ok(Look::Unfinished),
                Next::Nothing => return Ok(Look::Done),
            }
        }
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
        let mut inspection = Inspection::new(coding, 0, &patterns);
        let mut out = Vec::new();
        let mut look = |inspection: &mut Inspection, ended: bool| -> Result<(), BadCoding> {
            while inspection.look(ended, &mut Turn::new())? == Look::Unfinished {}
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

    /// A block that is stored as it is (RFC 1951 §3.2.4).
    fn stored(text: &[u8]) -> Vec<u8> {
        let length = u16::try_from(text.len()).expect("short").to_le_bytes();
        [&[0], &length[..], &length.map(|byte| !byte), text].concat()
    }

    /// The most that was held, and how it ended.
    fn most_held(coding: Coding, parts: impl Iterator<Item = Vec<u8>>) -> (u64, Result<(), BadCoding>) {
        let secret = Secret::new(SECRET.to_vec()).expect("a secret");
        let patterns = Arc::new(Patterns::new(&[&secret], None, None).expect("a secret"));
        let mut inspection = Inspection::new(coding, 0, &patterns);
        let mut most = 0;
        for part in parts {
            inspection.push(part.into());
            loop {
                match inspection.look(false, &mut Turn::new()) {
                    Ok(Look::Done) => break,
                    Ok(Look::Unfinished) => {}
                    Err(error) => return (most, Err(error)),
                }
            }
            while inspection.next().is_some() {}
            most = most.max(inspection.came - inspection.gone);
            assert!(inspection.held.len() as u64 <= 2 + inspection.came / (TOGETHER_BYTES as u64 / 2));
        }
        (most, Ok(()))
    }

    #[test]
    fn what_no_decoder_gives_out_passes_as_it_comes() {
        let length = 64_u32 << 20;
        let head = [&b"\x50\x2a\x4d\x18"[..], &length.to_le_bytes()].concat();
        let parts = std::iter::once(head).chain(std::iter::repeat_n(vec![b'a'; 64 * 1024], 1024));
        let (most, result) = most_held(Coding::Zstd, parts);
        assert!(result == Ok(()) && most < 8, "{most}: {result:?}");
    }

    #[test]
    fn what_is_held_has_a_bound() {
        // The last character may begin a form, and nothing is decoded from what follows.
        for (end, result) in [("%", Err(BadCoding::Unreadable)), ("x", Ok(()))] {
            let head = [&b"\x1f\x8b\x08\0\0\0\0\0\0\x03"[..], &stored(format!("abc {end}").as_bytes())].concat();
            let empty = std::iter::repeat_n(stored(b"").repeat(1000), 1000);
            let (most, ended) = most_held(Coding::Gzip, std::iter::once(head).chain(empty));
            assert!(most <= HELD_BYTES_MAX && ended == result, "{end}: {most} {ended:?}");
        }
        // Many parts take no more than their bytes.
        let head = [&b"\x1f\x8b\x08\0\0\0\0\0\0\x03"[..], &stored(b"abc %")].concat();
        let bytes = stored(b"").repeat(10_000).into_iter().map(|byte| vec![byte]);
        assert_eq!(most_held(Coding::Gzip, std::iter::once(head).chain(bytes)).1, Ok(()));
    }

    #[test]
    fn what_is_held_is_released_when_it_is_known() {
        // Each piece ends with what may begin a form, and the next says that it does not.
        let head = b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec();
        let parts = std::iter::once(head)
            .chain(std::iter::repeat_n(stored(format!("{}sk-re", ".".repeat(60_000)).as_bytes()), 100));
        let (most, result) = most_held(Coding::Gzip, parts);
        assert!(result == Ok(()) && most < 70_000, "{most} {result:?}");
    }

    #[test]
    fn a_coding_within_another_is_refused_and_zlib_is_looked_into() {
        let text = |secret: &[u8]| [&b"some text "[..], secret, b" and more"].concat();
        let level = || flate2::Compression::default();
        let gzip = |text: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level());
            std::io::Write::write_all(&mut encoder, text).expect("encoded");
            encoder.finish().expect("encoded")
        };
        let zlib = |text: &[u8]| {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level());
            std::io::Write::write_all(&mut encoder, text).expect("encoded");
            encoder.finish().expect("encoded")
        };
        let twin = b"sk-real-0123456788";
        for (coded, result) in [
            (gzip(&gzip(&text(twin))), Err(BadCoding::Unreadable)),
            (gzip(&zstd(&text(twin))), Err(BadCoding::Unreadable)),
            (gzip(&zlib(&text(twin))), Ok(())),
            (gzip(&zlib(&text(SECRET))), Err(BadCoding::Echo)),
            (gzip(&zlib(&zlib(&text(twin)))), Err(BadCoding::Unreadable)),
            (gzip(&zlib(&gzip(&text(twin)))), Err(BadCoding::Unreadable)),
            // What only begins as zlib does.
            (gzip(b"x^2 + y^2"), Ok(())),
            (gzip(b"x^"), Ok(())),
            (gzip(b"x"), Ok(())),
            (gzip(b""), Ok(())),
        ] {
            for part in [1, 100_000] {
                let (out, ended) = passed_in(Coding::Gzip, &coded, part);
                assert_eq!(ended, result);
                assert!(result.is_err() || out == coded);
            }
        }
    }
}
