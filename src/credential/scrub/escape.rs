//! A quick look at an escape: which characters it may stand for, so that only the needles that have them are read.
//!
//! However long the text, a look takes no more steps than the longest escape has bytes.

use super::names::{self, AMPERSAND};
use super::spelling::{NESTED_MAX, is_escaped};

/// No number of an HTML reference that a needle's character has is longer, zeros included.
const NUMBER_BYTES_MAX: usize = 16;

/// What an escape may stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    Byte(u8),
    /// A character that is more than one byte, or a byte that is none.
    BeyondAscii,
    /// It takes more text.
    Any,
}

/// Says everything that the escape at the beginning of this text may stand for; nothing when it is none.
pub(super) fn read(text: &[u8], may_be: &mut impl FnMut(Meaning)) {
    match text {
        [b'%', rest @ ..] => percent(rest, may_be),
        [b'\\', rest @ ..] => {
            let more = rest.iter().take(usize::from(NESTED_MAX)).take_while(|&&byte| byte == b'\\').count();
            if more > 0 {
                may_be(Meaning::Byte(b'\\'));
            }
            // After a longer run the first character is a backslash.
            if more < usize::from(NESTED_MAX) {
                backslash(&rest[more..], may_be);
            }
        }
        [b'&', rest @ ..] => ampersand(rest, false, may_be),
        _ => may_be(Meaning::Any),
    }
}

fn percent(text: &[u8], may_be: &mut impl FnMut(Meaning)) {
    let pairs = text.as_chunks::<2>().0.iter().take(usize::from(NESTED_MAX) - 1);
    let nested = pairs.take_while(|pair| *pair == b"25").count();
    if nested > 0 {
        may_be(Meaning::Byte(b'%'));
    }
    let rest = &text[2 * nested..];
    if let Some(value) = number(rest.get(..2), may_be) {
        may_be(Meaning::Byte(value.to_le_bytes()[0]));
        if value == u32::from(b'\\') {
            backslash(&rest[2..], may_be);
        }
    }
}

fn backslash(text: &[u8], may_be: &mut impl FnMut(Meaning)) {
    match text {
        [] => may_be(Meaning::Any),
        [b'u', rest @ ..] => {
            let Some(value) = number(rest.get(..4), may_be) else { return };
            character(value, may_be);
            if value == u32::from(b'&') {
                ampersand(&rest[4..], false, may_be);
            }
        }
        [b'x' | b'%', rest @ ..] => {
            if let Some(value) = number(rest.get(..2), may_be) {
                may_be(Meaning::Byte(value.to_le_bytes()[0]));
            }
        }
        [byte, ..] if is_escaped(*byte) => may_be(Meaning::Byte(*byte)),
        _ => {}
    }
}

fn ampersand(text: &[u8], nested: bool, may_be: &mut impl FnMut(Meaning)) {
    match text {
        [] => may_be(Meaning::Any),
        [b'#', b'x' | b'X', rest @ ..] => reference(rest, 16, may_be),
        [b'#', rest @ ..] => reference(rest, 10, may_be),
        _ => {
            for (name, byte) in names::beginning_with(text[0]) {
                if text.starts_with(name) {
                    may_be(Meaning::Byte(*byte));
                } else if name.starts_with(text) {
                    may_be(Meaning::Any);
                }
            }
            if let Some(rest) = text.strip_prefix(AMPERSAND).filter(|_| !nested) {
                ampersand(rest, true, may_be);
            }
        }
    }
}

/// The number of an HTML reference, with its semicolon or without.
fn reference(text: &[u8], base: u32, may_be: &mut impl FnMut(Meaning)) {
    let is_digit = |byte: &&u8| char::from(**byte).is_digit(base);
    let digits = text.iter().take(NUMBER_BYTES_MAX).take_while(is_digit).count();
    match text.get(digits) {
        None => may_be(Meaning::Any),
        Some(next) if is_digit(&next) => {}
        Some(_) => {
            let value = std::str::from_utf8(&text[..digits]).ok().and_then(|text| u32::from_str_radix(text, base).ok());
            if let Some(value) = value {
                character(value, may_be);
            }
        }
    }
}

fn character(value: u32, may_be: &mut impl FnMut(Meaning)) {
    may_be(if value < 0x80 { Meaning::Byte(value.to_le_bytes()[0]) } else { Meaning::BeyondAscii });
}

/// The value of hex digits; what they may be where they are not all there.
fn number(digits: Option<&[u8]>, may_be: &mut impl FnMut(Meaning)) -> Option<u32> {
    let Some(digits) = digits else {
        may_be(Meaning::Any);
        return None;
    };
    std::str::from_utf8(digits).ok().and_then(|digits| u32::from_str_radix(digits, 16).ok())
}
