//! Finds the values of named members in a text that comes in parts.

use bytes::Bytes;
use memchr::{memchr, memchr2};
use percent_encoding::percent_decode;
use zeroize::Zeroizing;

use super::names::NAME_BYTES_MAX;
use super::{Token, TokenNames};
use crate::credential::SECRET_BYTES_MAX;

/// The longest spelling of a name: `\u0061` for each character.
const SPELLING_BYTES_MAX: usize = 6 * NAME_BYTES_MAX;
/// A value is held so far; one that is longer is masked as it passes.
const VALUE_BYTES_MAX: usize = SECRET_BYTES_MAX;
/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// How a text says which value belongs to which name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// RFC 8259, in UTF-8.
    Json,
    /// `application/x-www-form-urlencoded`.
    Form,
    /// One of both: its first character tells.
    JsonOrForm,
    /// A text that is read as JSON where it begins as an object or an array does, and else not at all.
    MaybeJson,
    /// A URI with a query or a fragment in form encoding (RFC 6749 §4.2.2), or several of them in a header's value.
    Uri,
    /// `Set-Cookie` (RFC 6265 §4.1).
    Cookie,
}

/// A part of the text.
pub(super) enum Piece {
    Text(Bytes),
    Token(Token),
    /// So many bytes of a value that is too long to be held, or has no end.
    Masked(usize),
}

/// See the module.
pub(super) struct Reader {
    format: Format,
    place: Place,
    /// What may be a name, as it is spelled; longer than one may be when it is none.
    name: Vec<u8>,
    /// In a JSON string, after a backslash.
    escaped: bool,
    held: Zeroizing<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// JSON: outside of strings.
    Between,
    /// In what may be a name.
    Name,
    /// JSON: after a string that names a token.
    Named,
    /// JSON: after its colon.
    Colon,
    /// In a token.
    Token,
    /// In one that is too long.
    Long,
    /// JSON: at the quotation mark that ends a token.
    Quote,
    /// Form: in a value that nobody asks for.
    Other,
    /// In what is not read.
    Unread,
}

impl Reader {
    pub(super) fn new(format: Format) -> Self {
        let place = match format {
            Format::Json | Format::JsonOrForm => Place::Between,
            Format::Form | Format::Cookie => Place::Name,
            Format::Uri => Place::Other,
            Format::MaybeJson => Place::Unread,
        };
        Self { format, place, name: Vec::new(), escaped: false, held: Zeroizing::default() }
    }

    /// Takes the next piece off the part. A token comes when it is whole, everything else as it is; `None` when all of
    /// the part is taken.
    pub(super) fn next(&mut self, part: &mut Bytes, names: &TokenNames) -> Option<Piece> {
        self.tell(part);
        let mut at = 0;
        while at < part.len() {
            if matches!(self.place, Place::Token | Place::Long) {
                if at > 0 {
                    return Some(Piece::Text(part.split_to(at)));
                }
                let (length, closed) = self.value(part);
                let masked = self.hold(&part.split_to(length));
                // A value that has become too long says nothing more when it ends.
                let piece = if closed { self.close().or(masked) } else { masked };
                if piece.is_some() {
                    return piece;
                }
            } else {
                at += self.step(&part[at..], names);
            }
        }
        Some(Piece::Text(std::mem::take(part))).filter(|_| at > 0)
    }

    /// The text has ended. So has the last value of a form; a string without an end is masked.
    pub(super) fn end(&mut self) -> Option<Piece> {
        if self.format == Format::Json && self.place == Place::Token {
            self.place = Place::Between;
            return Some(self.mask()).filter(|piece| !matches!(piece, Piece::Masked(0)));
        }
        self.close()
    }

    /// The first character tells JSON from a form, which begins with a name, or from any text.
    fn tell(&mut self, part: &[u8]) {
        if !matches!(self.format, Format::JsonOrForm | Format::MaybeJson) {
            return;
        }
        if self.format == Format::MaybeJson {
            let Some(begins) = begins_as_json(part) else { return };
            (self.format, self.place) = (Format::Json, if begins { Place::Between } else { Place::Unread });
            return;
        }
        let Some(first) = part.iter().find(|byte| !byte.is_ascii_whitespace()) else { return };
        let is_json = !first.is_ascii_alphanumeric() && !matches!(first, b'_' | b'%' | b'&');
        (self.format, self.place) = if is_json { (Format::Json, Place::Between) } else { (Format::Form, Place::Name) };
    }

    /// Reads on outside of tokens; how far.
    fn step(&mut self, rest: &[u8], names: &TokenNames) -> usize {
        match (self.place, rest[0]) {
            (Place::Between, _) => {
                let Some(before) = memchr(b'"', rest) else { return rest.len() };
                self.name.clear();
                self.place = Place::Name;
                before + 1
            }
            (Place::Named | Place::Colon, byte) if byte.is_ascii_whitespace() => 1,
            (Place::Named, b':') => {
                self.place = Place::Colon;
                1
            }
            (Place::Colon, b'"') => {
                self.place = Place::Token;
                1
            }
            (Place::Quote, _) => {
                self.place = Place::Between;
                1
            }
            (Place::Name, _) if self.format == Format::Json => self.string(rest, names),
            (Place::Name, _) => self.pair(rest, names),
            (Place::Unread, _) => rest.len(),
            (Place::Other, _) => {
                let Some(before) = self.separator(rest) else { return rest.len() };
                self.name.clear();
                self.place = Place::Name;
                before + 1
            }
            // Another kind of value, or no member at all.
            (Place::Named | Place::Colon | Place::Token | Place::Long, _) => {
                self.place = Place::Between;
                0
            }
        }
    }

    /// JSON: a string that may be a name.
    fn string(&mut self, rest: &[u8], names: &TokenNames) -> usize {
        let (length, closed) = self.string_end(rest);
        if !closed || !self.name.is_empty() {
            self.spell(&rest[..length]);
        }
        if !closed {
            return length;
        }
        let spelled = if self.name.is_empty() { &rest[..length] } else { &*self.name };
        self.place = if names_token(spelled, names, unescaped) { Place::Named } else { Place::Between };
        length + 1
    }

    /// Form: up to `=`, or to the next pair.
    fn pair(&mut self, rest: &[u8], names: &TokenNames) -> usize {
        let before = rest.iter().position(|&byte| byte == b'=' || self.separates(byte));
        self.spell(&rest[..before.unwrap_or(rest.len())]);
        let Some(before) = before else { return rest.len() };
        self.place = match rest[before] {
            b'=' if names_token(self.pair_name(), names, form_decoded) => Place::Token,
            b'=' => Place::Other,
            _ => Place::Name,
        };
        self.name.clear();
        before + 1
    }

    /// Without what a cookie's name says of the cookie (RFC 6265bis §4.1.3).
    fn pair_name(&self) -> &[u8] {
        let name = &*self.name;
        if self.format != Format::Cookie {
            return name;
        }
        name.strip_prefix(b"__Host-").or(name.strip_prefix(b"__Secure-")).unwrap_or(name)
    }

    /// How long a token's value goes on, and whether it ends there.
    fn value(&mut self, rest: &[u8]) -> (usize, bool) {
        if self.format == Format::Json {
            return self.string_end(rest);
        }
        self.separator(rest).map_or((rest.len(), false), |length| (length, true))
    }

    fn string_end(&mut self, rest: &[u8]) -> (usize, bool) {
        let mut at = 0;
        while at < rest.len() {
            if std::mem::take(&mut self.escaped) {
                at += 1;
                continue;
            }
            let Some(before) = memchr2(b'"', b'\\', &rest[at..]) else { break };
            at += before;
            if rest[at] == b'"' {
                return (at, true);
            }
            self.escaped = true;
            at += 1;
        }
        (rest.len(), false)
    }

    fn separator(&self, rest: &[u8]) -> Option<usize> {
        rest.iter().position(|&byte| self.separates(byte))
    }

    fn separates(&self, byte: u8) -> bool {
        match self.format {
            Format::Cookie => byte == b';',
            Format::Uri => matches!(byte, b'&' | b'?' | b'#' | b'>' | b'"' | b';' | b',' | b' '),
            Format::Form | Format::Json | Format::JsonOrForm | Format::MaybeJson => {
                matches!(byte, b'&' | b'\r' | b'\n')
            }
        }
    }

    fn spell(&mut self, more: &[u8]) {
        let room = (SPELLING_BYTES_MAX + 1).saturating_sub(self.name.len());
        self.name.extend_from_slice(&more[..more.len().min(room)]);
    }

    fn hold(&mut self, more: &[u8]) -> Option<Piece> {
        if self.place == Place::Long {
            return Some(Piece::Masked(more.len())).filter(|_| !more.is_empty());
        }
        self.held.extend_from_slice(more);
        if self.held.len() <= VALUE_BYTES_MAX {
            return None;
        }
        self.place = Place::Long;
        Some(self.mask())
    }

    fn mask(&mut self) -> Piece {
        Piece::Masked(std::mem::take(&mut self.held).len())
    }

    /// A value is whole.
    fn close(&mut self) -> Option<Piece> {
        self.place = if self.format == Format::Json { Place::Quote } else { Place::Other };
        let spelled = std::mem::take(&mut self.held);
        let value = match self.format {
            Format::Json => unescaped(&spelled),
            Format::Form | Format::Uri => form_decoded(&spelled),
            Format::Cookie | Format::JsonOrForm | Format::MaybeJson => spelled.to_vec(),
        };
        (!spelled.is_empty()).then(|| Piece::Token(Token { value: Zeroizing::new(value), length: spelled.len() }))
    }
}

/// Whether a text begins as a JSON object or array does; `None` while only white space has come, or of a byte order mark,
/// which parsers skip (RFC 8259 §8.1).
pub fn begins_as_json(part: &[u8]) -> Option<bool> {
    let first = part.iter().find(|byte| !byte.is_ascii_whitespace() && !BYTE_ORDER_MARK.contains(byte))?;
    Some(matches!(first, b'{' | b'['))
}

/// Whether a name that is spelled so names a token.
fn names_token(spelled: &[u8], names: &TokenNames, decoded: fn(&[u8]) -> Vec<u8>) -> bool {
    if spelled.len() > SPELLING_BYTES_MAX {
        return false;
    }
    if spelled.iter().any(|byte| matches!(byte, b'\\' | b'%' | b'+')) {
        return names.has(&decoded(spelled));
    }
    names.has(spelled)
}

/// What stands between the quotation marks of a JSON string, decoded; as it is when it is none.
fn unescaped(spelled: &[u8]) -> Vec<u8> {
    let quoted = Zeroizing::new([b"\"", spelled, b"\""].concat());
    serde_json::from_slice::<String>(&quoted).map_or_else(|_| spelled.to_vec(), String::into_bytes)
}

fn form_decoded(spelled: &[u8]) -> Vec<u8> {
    let spaced: Zeroizing<Vec<u8>> =
        Zeroizing::new(spelled.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect());
    percent_decode(&spaced).collect()
}
