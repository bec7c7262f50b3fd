//! The first bytes of a text, which tell whether it is compressed without saying so. What is, is looked into on its way
//! (`inspect`); what is so within another coding is refused, for nobody knows how many more are in it.

use std::sync::Arc;

use bytes::Bytes;

use super::coding::{BadCoding, Coding};
use super::inspect::{Inspection, Look};
use super::zstd_blocks;
use crate::credential::{Patterns, Turn};

/// How a gzip member begins (RFC 1952 §2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// zlib, whatever its window, has this in its first byte (RFC 1950 §2.2).
const ZLIB_METHOD: u8 = 8;
const ZLIB_WINDOW_MAX: u8 = 7;
/// It has no dictionary that we know.
const ZLIB_DICTIONARY: u8 = 0x20;

/// What a text is, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Too little of it is there to tell.
    Unknown,
    Coded(Coding),
    Other,
}

impl Kind {
    pub(super) fn of(first: &[u8]) -> Self {
        match *first {
            [] => return Self::Unknown,
            [first] if first == GZIP[0] || begins_zlib(first) => return Self::Unknown,
            [first, second, ..] if [first, second] == GZIP => return Self::Coded(Coding::Gzip),
            // Two bytes that a text may begin with as well (`x^`): it is tried, and given up when it is none.
            [first, second, ..] if begins_zlib(first) && is_zlib(first, second) => return Self::Coded(Coding::Deflate),
            _ => {}
        }
        match zstd_blocks::begins(first) {
            None => Self::Unknown,
            Some(true) => Self::Coded(Coding::Zstd),
            Some(false) => Self::Other,
        }
    }
}

fn begins_zlib(first: u8) -> bool {
    first & 0x0f == ZLIB_METHOD && first >> 4 <= ZLIB_WINDOW_MAX
}

fn is_zlib(first: u8, second: u8) -> bool {
    second & ZLIB_DICTIONARY == 0 && u16::from_be_bytes([first, second]).is_multiple_of(31)
}

/// See the module.
pub(super) struct Opening {
    state: State,
    /// Out of so many codings.
    within: u8,
    text: Bytes,
}

enum State {
    /// Of which the first bytes are there, too few to tell.
    Begins(Bytes),
    Text,
    Coded(Box<Inspection>),
}

/// What follows in a text.
pub(super) enum Next {
    /// A part of it, to be scanned.
    Text(Bytes),
    /// There is more, in another turn.
    Turn,
    /// More must come first.
    Nothing,
}

impl Opening {
    /// Of a text that was taken out of so many codings.
    pub(super) fn within(within: u8) -> Self {
        Self { state: State::Begins(Bytes::new()), within, text: Bytes::new() }
    }

    /// Of a text that passes whatever it begins with.
    pub(super) fn unread() -> Self {
        Self { state: State::Text, within: 0, text: Bytes::new() }
    }

    /// Takes what came; only when [`Self::next`] has nothing to give.
    pub(super) fn push(&mut self, data: Bytes, patterns: &Arc<Patterns>) -> Result<(), BadCoding> {
        let first = match &mut self.state {
            State::Text => {
                self.text = data;
                return Ok(());
            }
            State::Coded(inspection) => {
                inspection.push(data);
                return Ok(());
            }
            State::Begins(first) if first.is_empty() => data,
            State::Begins(first) => [&**first, &data].concat().into(),
        };
        self.state = match Kind::of(&first) {
            Kind::Unknown => State::Begins(first),
            Kind::Other => {
                self.text = first;
                State::Text
            }
            Kind::Coded(coding) if self.within == 0 || (self.within == 1 && coding == Coding::Deflate) => {
                let mut inspection = Box::new(Inspection::new(coding, self.within, patterns));
                inspection.push(first);
                State::Coded(inspection)
            }
            Kind::Coded(_) => return Err(BadCoding::Unreadable),
        };
        Ok(())
    }

    /// What follows. `ended`: no more comes.
    pub(super) fn next(&mut self, ended: bool, turn: &mut Turn) -> Result<Next, BadCoding> {
        if let State::Begins(first) = &mut self.state
            && ended
        {
            self.text = std::mem::take(first);
            self.state = State::Text;
        }
        if let State::Coded(inspection) = &mut self.state {
            if inspection.look(ended, turn)? == Look::Unfinished {
                return Ok(Next::Turn);
            }
            return Ok(inspection.next().map_or(Next::Nothing, Next::Text));
        }
        let text = std::mem::take(&mut self.text);
        Ok(if text.is_empty() { Next::Nothing } else { Next::Text(text) })
    }

    /// Whether it begins as something compressed.
    pub(super) fn is_coded(&self) -> bool {
        matches!(self.state, State::Coded(_))
    }

    /// Whether all that came was given out.
    pub(super) fn is_idle(&self) -> bool {
        self.text.is_empty()
            && match &self.state {
                State::Begins(first) => first.is_empty(),
                State::Text => true,
                State::Coded(inspection) => inspection.is_idle(),
            }
    }

    /// Goes on with the secrets of another moment, as soon as nothing is held.
    pub(super) fn renew(&mut self, patterns: &Arc<Patterns>) {
        if let State::Coded(inspection) = &mut self.state {
            inspection.renew(patterns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_told_by_how_it_begins() {
        for (first, expected) in [
            (&b"\x1f"[..], Kind::Unknown),
            (b"\x1f\x8b", Kind::Coded(Coding::Gzip)),
            (b"\x1f\x8a", Kind::Other),
            (b"", Kind::Unknown),
            (b"x", Kind::Unknown),
            (b"x\x9c", Kind::Coded(Coding::Deflate)),
            // Level 9 in a window of 16 KiB, and one bit away.
            (b"h\xde", Kind::Coded(Coding::Deflate)),
            (b"h\xdf", Kind::Other),
            (b"\x08\x1d", Kind::Coded(Coding::Deflate)),
            (b"\x88\x1c", Kind::Other),
            // With a dictionary.
            (b"x\xbb", Kind::Other),
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
