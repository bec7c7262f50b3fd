//! What keeps fresh tokens from an agent: the members of an OAuth answer that hold one (RFC 6749 §5.1) are replaced by
//! placeholders of the same length as the answer passes.
//!
//! JSON and forms are read byte by byte, without a tree: a string that a colon follows is a member's name, at whatever
//! depth. Only a value that is sealed is held, until its end. What was sealed is looked for in the rest of the answer, in
//! every form that the scrubber knows.
//!
//! Pure: no IO, no clock. Deliberately absent: remembering which token a placeholder stands for.

mod names;
mod reader;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use zeroize::Zeroizing;

use super::placeholder::{Shape, placeholder};
use super::{Patterns, Scrubber, Secret, Turn};

pub use names::{BadTokenName, TokenNames};
pub use reader::{Format, begins_as_json};

use reader::{Piece, Reader};

/// So many tokens of one answer are looked for in its rest: an OAuth answer has three. All are sealed.
const LEARNED_MAX: usize = 8;
/// A longer token is sealed, and not looked for: what finds it takes many times its memory.
const LEARNED_BYTES_MAX: usize = 4 * 1024;
/// Those of one answer may overlap themselves so often in all: every byte of a text that repeats them takes that many
/// steps. Some services' tokens begin with two dozen `A`; a run of one byte is no token.
const OVERLAPS_MAX: usize = 64;
/// So many of one answer are made ready to be looked for, those included that then are not.
const TRIED_MAX: usize = 4 * LEARNED_MAX;
/// So many bytes are looked through at once for what was learned.
const LOOKED_THROUGH_AT_ONCE: usize = 4 * 1024;
/// What it takes to make one ready, in steps of a [`Turn`]: some ten microseconds, a long one some hundred.
const LEARN_STEPS: usize = 4 * 1024;

/// Takes fresh tokens out of one answer. What it gives out is as long as what it takes in, and the same wherever the
/// parts were split.
pub struct Sealer {
    names: Arc<TokenNames>,
    service: Arc<str>,
    format: Option<Format>,
    /// `None`: the body is not read, but looked through for what its head had.
    reader: Option<Reader>,
    certain: bool,
    learned: Vec<Arc<Patterns>>,
    tried: usize,
    /// How often those that were learned overlap themselves.
    overlaps: usize,
    scrubbers: Vec<Scrubber>,
    ready: VecDeque<Bytes>,
}

impl Sealer {
    /// For an answer of this service whose body is in `format`. `marked`: the service says that it holds tokens.
    #[must_use]
    pub fn new(names: Arc<TokenNames>, service: Arc<str>, format: Option<Format>, marked: bool) -> Self {
        let reader = format.map(Reader::new);
        let certain = marked || matches!(format, Some(Format::Json | Format::Form));
        Self {
            names,
            service,
            format,
            reader,
            certain,
            learned: Vec::new(),
            tried: 0,
            overlaps: 0,
            scrubbers: Vec::new(),
            ready: VecDeque::new(),
        }
    }

    /// Whether the body is read for members that hold tokens.
    #[must_use]
    pub fn reads_body(&self) -> bool {
        self.reader.is_some()
    }

    /// Whether the body says that it is in a form which may hold tokens, or the service says so (`marked`): it must not
    /// hide what it is then.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.certain
    }

    /// Whether a token was sealed and is looked for.
    #[must_use]
    pub fn has_learned(&self) -> bool {
        !self.learned.is_empty()
    }

    /// A text that is whole, in `format`, with its tokens sealed; `None` when it has none.
    pub fn seal(&mut self, text: &[u8], format: Format) -> Option<Vec<u8>> {
        let mut reader = Reader::new(format);
        let mut part = Bytes::copy_from_slice(text);
        let mut pieces: Vec<Piece> = std::iter::from_fn(|| reader.next(&mut part, &self.names)).collect();
        pieces.extend(reader.end());
        if !pieces.iter().any(|piece| matches!(piece, Piece::Token(_) | Piece::Masked(_))) {
            return None;
        }
        Some(pieces.into_iter().flat_map(|piece| self.instead_of(piece)).collect())
    }

    /// A value that is a token whole, sealed.
    pub fn seal_whole(&mut self, value: &[u8]) -> Vec<u8> {
        self.learn(value);
        stand_in(&self.service, value.len())
    }

    /// Whether a field or member of this name holds a token.
    #[must_use]
    pub fn names(&self, name: &[u8]) -> bool {
        self.names.has(name)
    }

    /// A text without the tokens that were sealed; `None` when it has none of them.
    #[must_use]
    pub fn scrub(&self, text: &[u8]) -> Option<Vec<u8>> {
        let mut clean = None;
        for patterns in &self.learned {
            clean = patterns.scrub(clean.as_deref().unwrap_or(text)).or(clean);
        }
        clean
    }

    /// Whether the body cannot be looked through within bounds: nothing more comes out, and it must be broken off.
    #[must_use]
    pub fn is_overrun(&self) -> bool {
        self.scrubbers.iter().any(Scrubber::is_overrun)
    }

    /// Whether nothing is ready.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.ready.is_empty()
    }

    /// Takes the next part of the body; gives what is ready, after which [`Self::ready`] gives the rest.
    pub fn push(&mut self, mut part: Bytes) -> Option<Bytes> {
        while !part.is_empty() {
            self.take(&mut part);
        }
        self.ready()
    }

    /// Takes of the next part what one turn has time for, and says what is ready as [`Self::push`] does. The rest of it is
    /// taken in the next turns.
    pub fn push_some(&mut self, part: &mut Bytes, turn: &mut Turn) -> Option<Bytes> {
        while !part.is_empty() && !turn.is_over() {
            let (steps, tried) = (self.steps(), self.tried);
            let most = if self.scrubbers.is_empty() { part.len() } else { part.len().min(LOOKED_THROUGH_AT_ONCE) };
            let mut some = part.slice(..most);
            self.take(&mut some);
            let taken = most - some.len();
            part.advance(taken);
            let looks = 1 + self.scrubbers.len();
            let learned = (self.tried - tried) * LEARN_STEPS;
            turn.take((looks * taken + learned) as u64 + self.steps().saturating_sub(steps));
        }
        self.ready()
    }

    fn steps(&self) -> u64 {
        self.scrubbers.iter().map(Scrubber::steps).sum()
    }

    /// Takes of the part what is before the next token that is learned, and that token.
    fn take(&mut self, part: &mut Bytes) {
        let tried = self.tried;
        if self.reader.is_none() {
            let part = std::mem::take(part);
            return self.emit(part);
        }
        while self.tried == tried
            && let Some(piece) = self.reader.as_mut().and_then(|reader| reader.next(part, &self.names))
        {
            self.pass(piece);
        }
    }

    /// The body has ended: what is held gets ready.
    pub fn finish(&mut self) {
        if let Some(piece) = self.reader.as_mut().and_then(Reader::end) {
            self.pass(piece);
        }
        let mut parts: Vec<Bytes> = Vec::new();
        for scrubber in &mut self.scrubbers {
            parts = through(scrubber, parts);
            let first = scrubber.finish();
            parts.extend(std::iter::successors(first, |_| scrubber.ready()));
        }
        self.ready.extend(parts);
    }

    /// One text of several in the body has ended: what is held gets ready, and the next is read from its beginning.
    pub fn end_text(&mut self) {
        self.finish();
        self.reader = self.format.map(Reader::new);
    }

    /// The next bytes that are ready.
    pub fn ready(&mut self) -> Option<Bytes> {
        self.ready.pop_front()
    }

    fn pass(&mut self, piece: Piece) {
        match piece {
            Piece::Text(text) => self.emit(text),
            piece => {
                let instead = self.instead_of(piece);
                self.emit(instead.into());
            }
        }
    }

    fn instead_of(&mut self, piece: Piece) -> Vec<u8> {
        match piece {
            Piece::Text(text) => text.to_vec(),
            Piece::Masked(length) => vec![b'*'; length],
            Piece::Token(token) => {
                self.learn(&token.value);
                stand_in(&self.service, token.length)
            }
        }
    }

    /// From here on the token is looked for. One that is no secret by its form (shorter than eight bytes) is not.
    fn learn(&mut self, value: &[u8]) {
        if self.learned.len() == LEARNED_MAX || self.tried == TRIED_MAX || value.len() > LEARNED_BYTES_MAX {
            return;
        }
        let Ok(secret) = Secret::new(value.to_vec()) else { return };
        self.tried += 1;
        let room = OVERLAPS_MAX - self.overlaps;
        let patterns = Patterns::new(&[&secret], None, None).filter(|patterns| patterns.overlaps() <= room);
        if let Some(patterns) = patterns.map(Arc::new) {
            self.overlaps += patterns.overlaps();
            self.scrubbers.push(Scrubber::new(Arc::clone(&patterns)));
            self.learned.push(patterns);
        }
    }

    fn emit(&mut self, part: Bytes) {
        if self.scrubbers.is_empty() {
            return self.ready.extend(Some(part).filter(|part| !part.is_empty()));
        }
        let mut parts = vec![part];
        for scrubber in &mut self.scrubbers {
            parts = through(scrubber, parts);
        }
        self.ready.extend(parts.into_iter().filter(|part| !part.is_empty()));
    }
}

fn through(scrubber: &mut Scrubber, parts: Vec<Bytes>) -> Vec<Bytes> {
    let mut out = Vec::with_capacity(parts.len());
    for part in parts {
        let first = scrubber.push(part);
        out.extend(std::iter::successors(first, |_| scrubber.ready()));
    }
    out
}

/// As many bytes that show whose they are: a placeholder, or a mask where none has that length.
fn stand_in(service: &str, length: usize) -> Vec<u8> {
    match Shape::of_length(length) {
        Some(shape) => placeholder(service, &shape).into_bytes(),
        None => vec![b'*'; length],
    }
}

/// A token as the answer had it.
struct Token {
    /// Decoded.
    value: Zeroizing<Vec<u8>>,
    /// Of its spelling.
    length: usize,
}

/// Shows nothing of the answer.
impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("learned", &self.learned.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
