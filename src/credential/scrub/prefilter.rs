//! Where a spelling may begin, at the speed of a search.
//!
//! A spelling whose first characters are plain begins with the first bytes of a needle: found by Wu and Manber's shifts ("A
//! fast algorithm for multi-pattern searching", 1994), which look at about one byte in a window. One with an
//! escape among its first characters has that escape's first byte in the window: found by `memchr3`, and asked which
//! character it stands for and whether that may follow the byte before it.

use memchr::memchr3;
use zeroize::Zeroizing;

use super::spelling::{Kind, LEADS, Needle, names};

/// No window is longer: hardly anything is gained by it.
const WINDOW_BYTES_MAX: usize = 16;
/// No number of an HTML reference that a needle's character has is longer, zeros included.
const NUMBER_BYTES_MAX: usize = 16;
/// Pairs of bytes share this many shifts.
const SHIFTS: usize = 4096;

pub(super) struct Prefilter {
    /// All needles are at least this long; at least 2.
    window: usize,
    /// By the pair of bytes that ends a window: how far the window may move.
    shifts: Zeroizing<Vec<u8>>,
    /// By lead and the byte after it: whether an escape of a needle's first characters may go on so.
    after: Zeroizing<Vec<bool>>,
    /// By character: whether a needle begins with it.
    first: Zeroizing<Vec<bool>>,
    beyond_ascii: bool,
    /// By pair of characters: whether they stand so among a needle's first.
    pairs: Zeroizing<Vec<bool>>,
}

/// The state of one search through one text.
pub(super) struct Search<'t> {
    text: &'t [u8],
    /// Where the next window of plain bytes may begin; known to be right from `raw_from` on.
    raw: usize,
    lead: usize,
    /// A spelling that begins from here on may reach beyond the text.
    tail: usize,
}

impl Prefilter {
    pub(super) fn new(needles: &[Needle]) -> Self {
        let shortest = needles.iter().map(|needle| needle.bytes.len()).min().unwrap_or(WINDOW_BYTES_MAX);
        let window = shortest.clamp(2, WINDOW_BYTES_MAX);
        let farthest = u8::try_from(window - 1).unwrap_or(u8::MAX);
        let mut shifts = Zeroizing::new(vec![farthest; SHIFTS]);
        let mut after = Zeroizing::new(vec![false; LEADS.len() * 256]);
        let mut first = Zeroizing::new(vec![false; 256]);
        let mut pairs = Zeroizing::new(vec![false; SHIFTS]);
        for needle in needles {
            let bytes = &needle.bytes[..needle.bytes.len().min(window)];
            for (at, pair) in bytes.windows(2).enumerate() {
                let shift = u8::try_from(window - 2 - at).unwrap_or(0);
                for first in cases(pair[0], needle.kind) {
                    for second in cases(pair[1], needle.kind) {
                        let known = &mut shifts[slot(first, second)];
                        *known = shift.min(*known);
                    }
                }
            }
            if needle.kind == Kind::Text {
                for &byte in bytes {
                    allow_escapes(&mut after, byte);
                }
                for pair in bytes.windows(2) {
                    for before in cases(pair[0], needle.kind) {
                        pairs[slot(before, pair[1])] = true;
                    }
                }
                first[usize::from(needle.bytes[0])] = true;
            }
        }
        let beyond_ascii = needles.iter().any(|needle| !needle.bytes.is_ascii());
        Self { window, shifts, after, first, beyond_ascii, pairs }
    }

    /// The fewest bytes that a spelling has.
    pub(super) fn shortest(&self) -> usize {
        self.window
    }

    /// A search through the last part of a text, or through one that others follow.
    pub(super) fn search<'t>(&self, text: &'t [u8], last: bool) -> Search<'t> {
        let tail = if last { text.len() } else { text.len().saturating_sub(self.window - 1) };
        let mut search = Search { text, raw: 0, lead: 0, tail };
        search.raw = self.plain(text, 0);
        search.lead = self.escape(text, 0);
        search
    }

    /// The first place from `from` on where a spelling may begin; the text's end when there is none.
    pub(super) fn next(&self, search: &mut Search<'_>, from: usize) -> usize {
        if search.raw < from {
            search.raw = self.plain(search.text, from);
        }
        if search.lead < from {
            search.lead = self.escape(search.text, from);
        }
        let before_lead =
            if search.lead == search.text.len() { search.lead } else { search.lead.saturating_sub(self.window - 1) };
        search.raw.min(before_lead).min(search.tail).max(from)
    }

    fn plain(&self, text: &[u8], from: usize) -> usize {
        let mut at = from + self.window - 2;
        while let Some(&[first, second]) = text.get(at..at + 2) {
            match self.shifts[slot(first, second)] {
                0 => return at + 2 - self.window,
                shift => at += usize::from(shift),
            }
        }
        text.len()
    }

    fn escape(&self, text: &[u8], from: usize) -> usize {
        let mut at = from;
        while let Some(found) = text.get(at..).and_then(|rest| memchr3(LEADS[0], LEADS[1], LEADS[2], rest)) {
            at += found;
            let Some(&after) = text.get(at + 1) else { return at };
            if self.after[lead(text[at]) * 256 + usize::from(after)] && self.fits(text, at) {
                return at;
            }
            at += 1;
        }
        text.len()
    }

    /// Whether the escape that begins here may be a needle's, and the first one of it.
    fn fits(&self, text: &[u8], at: usize) -> bool {
        let before = at.checked_sub(1).map(|before| text[before]);
        let stands =
            |byte: u8| self.first[usize::from(byte)] || before.is_some_and(|before| self.pairs[slot(before, byte)]);
        match escaped(&text[at..]) {
            Escaped::Byte(byte) => stands(byte),
            Escaped::ByteOrBackslash(byte) => stands(byte) || stands(b'\\'),
            Escaped::BeyondAscii => self.beyond_ascii || stands(b'\\'),
            Escaped::Unknown => true,
            Escaped::Nothing => false,
        }
    }
}

/// What an escape stands for.
enum Escaped {
    Byte(u8),
    ByteOrBackslash(u8),
    /// A character that is more than one byte.
    BeyondAscii,
    /// It takes a closer look, or more text.
    Unknown,
    Nothing,
}

/// A quick look at a text that begins with a lead.
fn escaped(text: &[u8]) -> Escaped {
    let digits = |digits: Option<&[u8]>| match digits {
        Some(digits) => match std::str::from_utf8(digits).ok().map(|digits| u32::from_str_radix(digits, 16)) {
            Some(Ok(value)) => u8::try_from(value).map_or(Escaped::BeyondAscii, Escaped::Byte),
            _ => Escaped::Nothing,
        },
        None => Escaped::Unknown,
    };
    let character = |escaped: Escaped| match escaped {
        Escaped::Byte(byte) if !byte.is_ascii() => Escaped::BeyondAscii,
        escaped => escaped,
    };
    match text {
        [b'%', b'2', b'5', ..] => Escaped::Unknown,
        [b'%', ..] => digits(text.get(1..3)),
        [b'\\', ..] => {
            let run = text.iter().take_while(|&&byte| byte == b'\\').count();
            let after = match text.get(run) {
                Some(b'u') => character(digits(text.get(run + 1..run + 5))),
                Some(b'x') => digits(text.get(run + 1..run + 3)),
                Some(&byte @ (b'/' | b'"' | b'\'')) => Escaped::Byte(byte),
                Some(_) => Escaped::Nothing,
                None => Escaped::Unknown,
            };
            match after {
                after if run == 1 => after,
                Escaped::Byte(byte) => Escaped::ByteOrBackslash(byte),
                Escaped::Nothing => Escaped::Byte(b'\\'),
                after => after,
            }
        }
        [b'&', b'#', b'x' | b'X', rest @ ..] => reference(rest, 16),
        [b'&', b'#', rest @ ..] => reference(rest, 10),
        _ => Escaped::Unknown,
    }
}

/// The number of an HTML reference, and its semicolon.
fn reference(text: &[u8], base: u32) -> Escaped {
    let length = text.iter().take(NUMBER_BYTES_MAX).take_while(|&&byte| char::from(byte).is_digit(base)).count();
    let (digits, rest) = text.split_at(length);
    let value = std::str::from_utf8(digits).ok().and_then(|digits| u32::from_str_radix(digits, base).ok());
    match (rest.first(), value) {
        (None, _) => Escaped::Unknown,
        (Some(b';'), Some(value)) if value < 0x80 => Escaped::Byte(value.to_le_bytes()[0]),
        (Some(b';'), Some(_)) => Escaped::BeyondAscii,
        _ => Escaped::Nothing,
    }
}

fn slot(first: u8, second: u8) -> usize {
    (usize::from(first) << 4 ^ usize::from(second)) % SHIFTS
}

/// The spellings of one byte that are one byte.
fn cases(byte: u8, kind: Kind) -> impl Iterator<Item = u8> {
    let other = match kind {
        Kind::Hex => Some(byte.to_ascii_uppercase()).filter(|upper| *upper != byte),
        Kind::Text => (byte == b' ').then_some(b'+'),
        Kind::Exact => None,
    };
    std::iter::once(byte).chain(other)
}

fn lead(byte: u8) -> usize {
    LEADS.iter().position(|lead| *lead == byte).unwrap_or(0)
}

fn allow_escapes(after: &mut [bool], byte: u8) {
    let mut allow = |of: u8, next: u8| after[lead(of) * 256 + usize::from(next)] = true;
    for digits in [format!("{byte:02x}"), format!("{byte:02X}")] {
        allow(b'%', digits.as_bytes()[0]);
    }
    allow(b'%', b'2'); // `%25`
    for next in *b"ux\\" {
        allow(b'\\', next);
    }
    if matches!(byte, b'/' | b'"' | b'\'') {
        allow(b'\\', byte);
    }
    allow(b'&', b'#');
    for name in names(byte) {
        allow(b'&', name.as_bytes()[0]);
    }
}
