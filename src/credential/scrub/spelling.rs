//! The ways in which one needle may be spelled, read byte by byte.

use zeroize::Zeroizing;

use super::names::{AMPERSAND, names};

/// The bytes that an escape begins with.
pub(super) const LEADS: [u8; 3] = *b"%\\&";

/// `%25` may stand for `%` this often, one inside the other; backslashes may be doubled as often.
pub(super) const NESTED_MAX: u8 = 4;

/// So many zeros may lead a number of an HTML reference. Bounds what is held back.
const ZEROS_MAX: u8 = 8;

/// A reading is compared with so many others: those that meet again follow one another closely. One that comes twice does
/// no harm, and counts as another.
const COMPARED_MAX: usize = 16;

/// How a needle may be spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Each character on its own as itself or as an escape.
    Text,
    /// Hex digits in either case.
    Hex,
    /// As it is.
    Exact,
}

/// Bytes that must not pass.
pub(super) struct Needle {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    pub(super) kind: Kind,
    /// It holds a byte that also begins an escape, so two readings of one text may meet again.
    ambiguous: bool,
}

/// One reading of the text so far: from `start` on it spells the first `at` bytes of a needle, and then a part of the next
/// character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Thread {
    pub(super) start: u64,
    pub(super) needle: u16,
    at: u32,
    step: Step,
}

/// What was read of a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Nothing,
    /// `%` and so many digits.
    Percent {
        digits: u8,
        nested: u8,
    },
    /// `%2` that `5` may follow: an encoded `%`.
    PercentOfPercent {
        nested: u8,
    },
    /// `%5` that `C` may follow: an encoded backslash, which begins an escape.
    PercentOfBackslash,
    Backslash {
        nested: u8,
    },
    /// A backslash, `%` and so many digits: the character that was escaped, encoded.
    PercentAfterBackslash(u8),
    /// `\u` and so many digits.
    Unicode(u8),
    /// `\u` and so many digits of an `&`, which begins a reference.
    UnicodeOfAmpersand(u8),
    /// `\x` and so many digits.
    Byte(u8),
    Ampersand {
        nested: bool,
    },
    /// `&` and so many letters of [`AMPERSAND`].
    NameOfAmpersand(u8),
    /// `&` and so many letters of the character's n-th name.
    Name {
        name: u8,
        letters: u8,
    },
    /// `&#`
    Number,
    /// `&#` and so many digits.
    Decimal {
        zeros: u8,
        digits: u8,
    },
    /// `&#x` and so many digits.
    Hex {
        zeros: u8,
        digits: u8,
    },
}

impl Thread {
    /// Nothing read yet.
    pub(super) fn new(start: u64, needle: u16) -> Self {
        Self { start, needle, at: 0, step: Step::Nothing }
    }

    fn reads(self, step: Step) -> Self {
        Self { step, ..self }
    }

    /// A character of so many bytes is read.
    fn past(self, bytes: u32) -> Self {
        Self { at: self.at + bytes, step: Step::Nothing, ..self }
    }
}

impl Needle {
    pub(super) fn new(bytes: Zeroizing<Vec<u8>>, kind: Kind) -> Self {
        let ambiguous = kind == Kind::Text && bytes.iter().any(|byte| LEADS.contains(byte));
        Self { bytes, kind, ambiguous }
    }

    /// The bytes that, as they are, may be the first of a spelling.
    pub(super) fn first(&self) -> impl Iterator<Item = u8> {
        self.bytes.first().into_iter().flat_map(|&first| cases(first, self.kind))
    }

    /// Whether a spelling whose first byte is plain may go on with this one. (One that begins as an escape does goes on with
    /// anything.)
    pub(super) fn goes_on(&self, next: u8) -> bool {
        let begins_escape = self.kind == Kind::Text && (self.ambiguous || LEADS.contains(&next));
        begins_escape || self.bytes.get(1).is_none_or(|&second| cases(second, self.kind).any(|case| case == next))
    }

    /// How many beginnings of it may be under way at once in a text that has it as it is: the most that it overlaps itself.
    pub(super) fn overlaps(&self) -> usize {
        // By prefix: how long its longest border is, and how many it has (Knuth, Morris and Pratt, 1977).
        let (mut borders, mut counts) = (vec![0; self.bytes.len() + 1], vec![0; self.bytes.len() + 1]);
        let mut border = 0;
        for at in 1..self.bytes.len() {
            while border > 0 && self.bytes[at] != self.bytes[border] {
                border = borders[border];
            }
            border += usize::from(self.bytes[at] == self.bytes[border]);
            borders[at + 1] = border;
            counts[at + 1] = if border > 0 { counts[border] + 1 } else { 0 };
        }
        counts.into_iter().max().unwrap_or(0)
    }

    /// Reads one more byte: the readings that go on are added to `next`. True when one is complete.
    pub(super) fn read(&self, thread: Thread, byte: u8, next: &mut Vec<Thread>) -> bool {
        let Some(&wanted) = self.bytes.get(thread.at as usize) else { return false };
        let mut complete = false;
        let mut add = |thread: Thread| {
            if thread.step == Step::Nothing && thread.at as usize == self.bytes.len() {
                complete = true;
            } else if !(self.ambiguous && is_known(next, thread)) {
                next.push(thread);
            }
        };
        match thread.step {
            Step::Nothing => {
                if self.is(wanted, byte) || (wanted == b' ' && byte == b'+' && self.kind == Kind::Text) {
                    add(thread.past(1));
                }
                match byte {
                    _ if self.kind != Kind::Text => {}
                    b'%' => add(thread.reads(Step::Percent { digits: 0, nested: 1 })),
                    b'\\' => add(thread.reads(Step::Backslash { nested: 1 })),
                    b'&' => add(thread.reads(Step::Ampersand { nested: false })),
                    _ => {}
                }
            }
            Step::Percent { .. } | Step::PercentOfPercent { .. } | Step::PercentOfBackslash => {
                percent(thread, wanted, byte, add);
            }
            Step::Backslash { nested } => backslash(thread, nested, wanted, byte, add),
            Step::PercentAfterBackslash(digits) | Step::Byte(digits) => {
                if is_digit(u32::from(wanted), 1 - digits, byte) {
                    let after = match thread.step {
                        Step::Byte(_) => Step::Byte(1),
                        _ => Step::PercentAfterBackslash(1),
                    };
                    add(if digits == 1 { thread.past(1) } else { thread.reads(after) });
                }
            }
            Step::Unicode(digits) => {
                let (character, bytes) = self.character(thread.at);
                if character <= 0xffff && is_digit(character, 3 - digits, byte) {
                    add(if digits == 3 { thread.past(bytes) } else { thread.reads(Step::Unicode(digits + 1)) });
                }
            }
            Step::UnicodeOfAmpersand(digits) => {
                if is_digit(u32::from(b'&'), 3 - digits, byte) {
                    let whole = digits == 3;
                    let step = Step::UnicodeOfAmpersand(digits + 1);
                    add(thread.reads(if whole { Step::Ampersand { nested: false } } else { step }));
                }
            }
            Step::Ampersand { .. } | Step::Name { .. } | Step::NameOfAmpersand(_) => {
                reference(thread, wanted, byte, add);
            }
            Step::Number if matches!(byte, b'x' | b'X') => add(thread.reads(Step::Hex { zeros: 0, digits: 0 })),
            Step::Number | Step::Decimal { .. } | Step::Hex { .. } => match self.number(thread, byte) {
                Number::On(thread, whole) => {
                    add(thread);
                    // Whatever follows the last character: it may yet become something else.
                    complete |= whole && thread.at + self.character(thread.at).1 >= self.length();
                }
                Number::Before(thread) => return self.read(thread, byte, next),
                Number::Other => {}
            },
        }
        complete
    }

    /// One more byte of the number of an HTML reference. A byte that is no digit ends it without its semicolon (WHATWG HTML
    /// §13.2.5.80).
    fn number(&self, thread: Thread, byte: u8) -> Number {
        let (base, zeros, digits) = match thread.step {
            Step::Decimal { zeros, digits } => (10, zeros, digits),
            Step::Hex { zeros, digits } => (16, zeros, digits),
            Step::Number => (10, 0, 0),
            _ => return Number::Other,
        };
        let (character, bytes) = self.character(thread.at);
        let length = length_in(base, character);
        let digit = char::from(byte).to_digit(base);
        let (zeros, digits) = match digit {
            None if digits == length && byte == b';' => return Number::On(thread.past(bytes), false),
            None if digits == length => return Number::Before(thread.past(bytes)),
            Some(0) if digits == 0 && zeros < ZEROS_MAX => (zeros + 1, 0),
            Some(digit) if digits < length && digit == character / base.pow(u32::from(length - 1 - digits)) % base => {
                (zeros, digits + 1)
            }
            _ => return Number::Other,
        };
        let step = if base == 10 { Step::Decimal { zeros, digits } } else { Step::Hex { zeros, digits } };
        Number::On(thread.reads(step), digits == length)
    }

    fn length(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }

    /// The character that begins here and how many bytes it has. A byte that begins none counts as a character of
    /// Latin-1, which is how headers are read.
    fn character(&self, at: u32) -> (u32, u32) {
        let rest = self.bytes.get(at as usize..).unwrap_or_default();
        let longest = &rest[..rest.len().min(4)];
        let valid = match std::str::from_utf8(longest) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&longest[..error.valid_up_to()]).unwrap_or_default(),
        };
        match (valid.chars().next(), rest.first()) {
            (Some(character), _) => (u32::from(character), u32::try_from(character.len_utf8()).unwrap_or(1)),
            (None, Some(&byte)) => (u32::from(byte), 1),
            (None, None) => (0, 1),
        }
    }

    fn is(&self, wanted: u8, byte: u8) -> bool {
        wanted == byte || (self.kind == Kind::Hex && wanted.eq_ignore_ascii_case(&byte))
    }
}

/// One more byte of a percent-encoded character.
fn percent(thread: Thread, wanted: u8, byte: u8, mut add: impl FnMut(Thread)) {
    match thread.step {
        Step::Percent { digits, nested } => {
            if is_digit(u32::from(wanted), 1 - digits, byte) {
                add(if digits == 1 { thread.past(1) } else { thread.reads(Step::Percent { digits: 1, nested }) });
            }
            match byte {
                b'2' if digits == 0 && nested < NESTED_MAX => {
                    add(thread.reads(Step::PercentOfPercent { nested: nested + 1 }));
                }
                b'5' if digits == 0 => add(thread.reads(Step::PercentOfBackslash)),
                _ => {}
            }
        }
        Step::PercentOfPercent { nested } if byte == b'5' => add(thread.reads(Step::Percent { digits: 0, nested })),
        Step::PercentOfBackslash if matches!(byte, b'c' | b'C') => {
            add(thread.reads(Step::Backslash { nested: NESTED_MAX }));
        }
        _ => {}
    }
}

/// The byte after a backslash.
fn backslash(thread: Thread, nested: u8, wanted: u8, byte: u8, mut add: impl FnMut(Thread)) {
    match byte {
        b'u' => {
            add(thread.reads(Step::Unicode(0)));
            add(thread.reads(Step::UnicodeOfAmpersand(0)));
        }
        b'x' => add(thread.reads(Step::Byte(0))),
        b'%' if is_escaped(wanted) => add(thread.reads(Step::PercentAfterBackslash(0))),
        byte if is_escaped(byte) => {
            if byte == wanted {
                add(thread.past(1));
            }
            if byte == b'\\' && nested < NESTED_MAX {
                add(thread.reads(Step::Backslash { nested: nested + 1 }));
            }
        }
        _ => {}
    }
}

/// One more byte of an HTML reference, before its number or in its name.
fn reference(thread: Thread, wanted: u8, byte: u8, mut add: impl FnMut(Thread)) {
    match thread.step {
        Step::Ampersand { .. } if byte == b'#' => add(thread.reads(Step::Number)),
        Step::Ampersand { nested } => {
            if !nested && byte == AMPERSAND[0] {
                add(thread.reads(Step::NameOfAmpersand(1)));
            }
            for (name, text) in (0..).zip(names(wanted)) {
                if text.as_bytes()[0] == byte {
                    add(thread.reads(Step::Name { name, letters: 1 }));
                }
            }
        }
        Step::Name { name, letters } => {
            let text = names(wanted).get(usize::from(name)).map_or(&b""[..], |text| text.as_bytes());
            if text.get(usize::from(letters)) == Some(&byte) {
                let whole = usize::from(letters) + 1 == text.len();
                add(if whole { thread.past(1) } else { thread.reads(Step::Name { name, letters: letters + 1 }) });
            }
        }
        Step::NameOfAmpersand(letters) if AMPERSAND.get(usize::from(letters)) == Some(&byte) => {
            let whole = usize::from(letters) + 1 == AMPERSAND.len();
            let step = Step::NameOfAmpersand(letters + 1);
            add(thread.reads(if whole { Step::Ampersand { nested: true } } else { step }));
        }
        _ => {}
    }
}

/// What one more byte makes of a number.
enum Number {
    /// It goes on, or is past; whether it is the character's now.
    On(Thread, bool),
    /// It ended before the byte.
    Before(Thread),
    Other,
}

/// The spellings of one byte that are one byte.
pub(super) fn cases(byte: u8, kind: Kind) -> impl Iterator<Item = u8> {
    let other = match kind {
        Kind::Hex => Some(byte.to_ascii_uppercase()).filter(|upper| *upper != byte),
        Kind::Text => (byte == b' ').then_some(b'+'),
        Kind::Exact => None,
    };
    std::iter::once(byte).chain(other)
}

/// Whether a backslash may stand before this character and mean it.
pub(super) fn is_escaped(byte: u8) -> bool {
    matches!(byte, b'\\' | b'/' | b'"' | b'\'')
}

/// Whether the reading is among the last of those that began where it did, which stand one after the other.
fn is_known(next: &[Thread], thread: Thread) -> bool {
    let same = next.iter().rev().take_while(|known| (known.start, known.needle) == (thread.start, thread.needle));
    same.take(COMPARED_MAX).any(|known| *known == thread)
}

/// Whether `byte` is the hex digit of `value` at this place, 0 for the last.
fn is_digit(value: u32, place: u8, byte: u8) -> bool {
    char::from(byte).to_digit(16) == Some(value >> (4 * u32::from(place)) & 0xf)
}

/// How many digits a number has.
fn length_in(base: u32, value: u32) -> u8 {
    let more = std::iter::successors(Some(value / base), |rest| Some(rest / base)).take_while(|rest| *rest > 0);
    more.fold(1, |length, _| length + 1)
}
