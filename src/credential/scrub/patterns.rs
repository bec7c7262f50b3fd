//! What must not pass, made ready once for each set of secrets.

use std::fmt;
use std::ops::Range;

use zeroize::Zeroizing;

use super::escape::{self, Meaning};
use super::forms;
use super::matcher::{Found, Matcher};
use super::prefilter::Prefilter;
use super::spelling::{Kind, Needle};
use crate::credential::{Injection, Secret};

/// No field's name is longer; one that is counts as one that holds a secret.
const NAME_BYTES_MAX: usize = 1024;
/// What stands where a secret stood; the first that is in no form of any of them.
const MASKS: &[u8] = b"*#~^!@$|_-.xX0";

/// A secret, and what it is or was injected as.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// Its value.
    pub secret: &'a Secret,
    /// Where it went in.
    pub injections: &'a [Injection],
}

/// Every form of some secrets. Its memory is overwritten when it is dropped, but for the first byte of each form; `Debug`
/// is redacted.
pub struct Patterns {
    pub(super) needles: Vec<Needle>,
    pub(super) prefilter: Prefilter,
    /// By byte: the needles of which a spelling may begin with it as it is.
    beginnings: Vec<Vec<u16>>,
    /// By byte: those that begin with it, where it may be escaped; all of them, and those that begin beyond ASCII.
    escaped: Vec<Vec<u16>>,
    escaped_any: Vec<u16>,
    escaped_beyond_ascii: Vec<u16>,
    /// Every form in lower case: names of fields arrive so.
    lower: Vec<Zeroizing<Vec<u8>>>,
    placeholder: Option<Box<[u8]>>,
    mask: u8,
}

impl Patterns {
    /// Every form of these secrets, and of what `injection` makes of them. A secret that is found and has the length of
    /// `placeholder` is replaced by it. `None` without a secret: there is nothing to look for.
    #[must_use]
    pub fn new(secrets: &[&Secret], injection: Option<&Injection>, placeholder: Option<&str>) -> Option<Self> {
        let injections = injection.map_or(&[][..], std::slice::from_ref);
        let known: Vec<Known<'_>> = secrets.iter().map(|secret| Known { secret, injections }).collect();
        Self::of(&known, placeholder)
    }

    /// The same for secrets that were injected in different ways.
    #[must_use]
    pub fn of(known: &[Known<'_>], placeholder: Option<&str>) -> Option<Self> {
        let needles: Vec<Needle> = known.iter().flat_map(forms::needles).collect();
        if needles.is_empty() {
            return None;
        }
        let [mut beginnings, mut escaped] = [(); 2].map(|()| vec![Vec::new(); 256]);
        let [mut escaped_any, mut escaped_beyond_ascii] = [(); 2].map(|()| Vec::new());
        for (number, needle) in (0_u16..).zip(&needles) {
            needle.first().for_each(|byte| beginnings[usize::from(byte)].push(number));
            let Some(&first) = needle.bytes.first().filter(|_| needle.kind == Kind::Text) else { continue };
            escaped[usize::from(first)].push(number);
            escaped_any.push(number);
            if !first.is_ascii() {
                escaped_beyond_ascii.push(number);
            }
        }
        let known = |mask: &u8| needles.iter().any(|needle| needle.bytes.contains(mask));
        Some(Self {
            prefilter: Prefilter::new(&needles),
            beginnings,
            escaped,
            escaped_any,
            escaped_beyond_ascii,
            lower: needles.iter().map(|needle| Zeroizing::new(needle.bytes.to_ascii_lowercase())).collect(),
            placeholder: placeholder.map(|text| text.as_bytes().into()),
            mask: MASKS.iter().copied().find(|mask| !known(mask)).unwrap_or(b'*'),
            needles,
        })
    }

    /// In how many places at once a text may be in the middle of one of the forms. One with a period has about as many as
    /// periods, and each costs a step for every byte of such a text.
    #[must_use]
    pub fn overlaps(&self) -> usize {
        self.needles.iter().map(Needle::overlaps).max().unwrap_or(0)
    }

    /// The text without secrets, as long as it was; `None` when it has none. For a header's value, a trailer's, a text
    /// that is whole. One that would take too many steps to read is masked whole.
    #[must_use]
    pub fn scrub(&self, text: &[u8]) -> Option<Vec<u8>> {
        if text.len() < self.prefilter.shortest() {
            return None;
        }
        let mut matcher = Matcher::default();
        matcher.read(self, text, true);
        if matcher.overrun {
            return Some(vec![self.mask; text.len()]);
        }
        if matcher.found.is_empty() {
            return None;
        }
        let mut clean = text.to_vec();
        for found in &matcher.found {
            let place = usize::try_from(found.start).ok()?..usize::try_from(found.end).ok()?;
            clean[place].copy_from_slice(&self.instead_of(*found, found.start..found.end));
        }
        Some(clean)
    }

    /// Whether a text that lost its case holds a secret in some form: the name of a field.
    #[must_use]
    pub fn is_in_name(&self, name: &str) -> bool {
        if name.len() > NAME_BYTES_MAX {
            return true;
        }
        let holds = |secret: &Zeroizing<Vec<u8>>| {
            name.len() >= secret.len()
                && name.as_bytes().windows(secret.len()).any(|window| window.eq_ignore_ascii_case(secret))
        };
        // Names may have `%` (RFC 9110 §5.6.2), so escapes too.
        self.lower.iter().any(holds) || self.scrub(name.as_bytes()).is_some()
    }

    /// What stands in a place that is within what was found: as many bytes.
    pub(super) fn instead_of(&self, found: Found, place: Range<u64>) -> Vec<u8> {
        let length = |from: u64, to: u64| usize::try_from(to - from).unwrap_or(0);
        match &self.placeholder {
            Some(placeholder) if self.may_be_placeholder(found) => {
                placeholder[length(found.start, place.start)..length(found.start, place.end)].to_vec()
            }
            _ => vec![self.mask; length(place.start, place.end)],
        }
    }

    /// Whether the placeholder stands for this, unless another spelling turns out to overlap it.
    pub(super) fn may_be_placeholder(&self, found: Found) -> bool {
        let fits = |text: &[u8]| text.len() as u64 == found.end - found.start;
        !found.several && self.placeholder.as_deref().is_some_and(fits)
    }

    /// The needles of which a spelling may begin with this byte as it is.
    pub(super) fn beginning_with(&self, byte: u8) -> &[u16] {
        &self.beginnings[usize::from(byte)]
    }

    /// Adds to `needles` those of which the first character may be the escape that this text begins with.
    pub(super) fn beginning_escaped(&self, text: &[u8], needles: &mut Vec<u16>) {
        // A reading of these tries the byte both ways.
        let known = self.beginning_with(text[0]);
        escape::read(text, &mut |meaning| {
            let more = match meaning {
                Meaning::Byte(byte) => &self.escaped[usize::from(byte)],
                Meaning::BeyondAscii => &self.escaped_beyond_ascii,
                Meaning::Any => &self.escaped_any,
            };
            for needle in more {
                if !known.contains(needle) && !needles.contains(needle) {
                    needles.push(*needle);
                }
            }
        });
    }
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Patterns(redacted)")
    }
}
