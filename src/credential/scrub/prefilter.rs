//! Where a spelling may begin, at the speed of a search.
//!
//! A spelling whose first characters are plain begins with the first bytes of a needle: found by Wu and Manber's shifts ("A
//! fast algorithm for multi-pattern searching", 1994), which look at about one byte in a window. One with an
//! escape among its first characters has that escape's first byte in the window: found by `memchr3`, and asked which
//! character it stands for and whether that may follow the byte before it.

use memchr::memchr3;
use zeroize::Zeroizing;

use super::escape::{self, Meaning};
use super::names::{AMPERSAND, names};
use super::spelling::{Kind, LEADS, Needle, cases, is_escaped};

/// No window is longer: hardly anything is gained by it.
const WINDOW_BYTES_MAX: usize = 16;
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
            let may_be = self.may_follow(text[at], after) || (text[at] == b'&' && self.may_be_nested(&text[at + 1..]));
            if may_be && self.fits(text, at) {
                return at;
            }
            at += 1;
        }
        text.len()
    }

    /// Whether an escape may begin with these two.
    fn may_follow(&self, of: u8, next: u8) -> bool {
        self.after[lead(of) * 256 + usize::from(next)]
    }

    /// Whether a reference may follow `&` that is itself written as one: mostly it does not, and most `&` are written so.
    fn may_be_nested(&self, text: &[u8]) -> bool {
        match text {
            // [`AMPERSAND`], compared at once.
            [b'a', b'm', b'p', b';', next, ..] => self.may_follow(b'&', *next),
            text => text.len() <= AMPERSAND.len() && AMPERSAND.starts_with(text),
        }
    }

    /// Whether the escape that begins here may be a needle's, and the first one of it.
    fn fits(&self, text: &[u8], at: usize) -> bool {
        let before = at.checked_sub(1).map(|before| text[before]);
        let mut fits = false;
        escape::read(&text[at..], &mut |meaning| {
            fits |= match meaning {
                Meaning::Byte(byte) => {
                    self.first[usize::from(byte)] || before.is_some_and(|before| self.pairs[slot(before, byte)])
                }
                Meaning::BeyondAscii => self.beyond_ascii,
                Meaning::Any => true,
            };
        });
        fits
    }
}

fn slot(first: u8, second: u8) -> usize {
    (usize::from(first) << 4 ^ usize::from(second)) % SHIFTS
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
    allow(b'%', b'5'); // `%5C`
    for next in *b"ux\\" {
        allow(b'\\', next);
    }
    if is_escaped(byte) {
        allow(b'\\', byte);
        allow(b'\\', b'%');
    }
    allow(b'&', b'#');
    for name in names(byte) {
        allow(b'&', name.as_bytes()[0]);
    }
}
