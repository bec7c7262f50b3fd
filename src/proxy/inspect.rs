//! Looks into a body that is gzip without saying so (an archive, a file served as it lies on a disk), which must pass as it
//! is: it passes as far as what it holds was scanned, and ends where it holds the secret.
//!
//! Deliberately absent: other formats. Those that decode block by block would have to be held for a block.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::coding::{BadCoding, Coding, Decoder};
use crate::credential::{Patterns, Scrubber};

/// No text begins with this byte, and every gzip member does (RFC 1952 §2.3.1).
const GZIP_FIRST: u8 = 0x1f;
/// So much is decoded at once, before others have a turn: about a millisecond.
const DECODED_AT_ONCE: usize = 1024 * 1024;

/// See the module.
pub(super) struct Inspection {
    decoder: Decoder,
    scrubber: Scrubber,
    /// Came, and is not known to be harmless.
    held: VecDeque<Bytes>,
    /// Of `held`, from the front: what is.
    clear: usize,
    /// It was no gzip, or has ceased to be.
    over: bool,
}

/// How far a look has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// All that came was seen.
    Done,
    /// There is more to see at once.
    Unfinished,
}

impl Inspection {
    /// Of a body that begins so; `None` when there is nothing to look into.
    pub(super) fn of(first: &[u8], patterns: &Arc<Patterns>) -> Option<Self> {
        (first.first() == Some(&GZIP_FIRST)).then(|| Self {
            decoder: Decoder::new(Coding::Gzip),
            scrubber: Scrubber::new(Arc::clone(patterns)),
            held: VecDeque::new(),
            clear: 0,
            over: false,
        })
    }

    /// Takes what came; only when all before was seen.
    pub(super) fn push(&mut self, data: Bytes) {
        if !self.over {
            self.decoder.push(data.clone());
        }
        self.held.push_back(data);
    }

    /// Looks at what came. `ended`: nothing follows.
    pub(super) fn look(&mut self, ended: bool) -> Result<Look, BadCoding> {
        let mut decoded = 0;
        while !self.over {
            match self.decoder.next() {
                Ok(Some(piece)) => {
                    decoded += piece.len();
                    let first = self.scrubber.push(piece);
                    self.judge(first)?;
                }
                Ok(None) => break,
                Err(_) => self.over = true,
            }
            if decoded > DECODED_AT_ONCE {
                return Ok(Look::Unfinished);
            }
        }
        if ended || self.over {
            let first = self.scrubber.finish();
            self.judge(first)?;
        }
        if self.scrubber.is_idle() {
            self.clear = self.held.len();
        }
        Ok(Look::Done)
    }

    /// What may pass.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        self.clear = self.clear.checked_sub(1)?;
        self.held.pop_front()
    }

    fn judge(&mut self, first: Option<Bytes>) -> Result<(), BadCoding> {
        std::iter::successors(first, |_| self.scrubber.ready()).for_each(drop);
        if self.scrubber.hits() == 0 { Ok(()) } else { Err(BadCoding::Echo) }
    }
}
