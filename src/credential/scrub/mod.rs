//! What keeps a secret from coming back: an answer's bytes are scanned for it as they pass, in every spelling that is
//! listed here, and what is found is replaced by as many bytes of something else.
//!
//! Forms: verbatim; base64 and base64url at each of the three alignments, with and without padding; hex in either case;
//! UTF-16 of either order. Spellings: each character of the verbatim and base64 forms may on its own be percent-encoded (up to
//! four times over), a JSON or script escape (`\/`, `\u002f`, `\x2f`, with backslashes doubled), or an HTML reference
//! (`&#47;`, `&#x2f;`, `&sol;`, with leading zeros). Not found, and not findable: what an upstream does to a secret beyond
//! that, one byte in each answer, or what a length tells.
//!
//! Pure: no IO, no clock. Lengths stay, so framing stays true. What is held back is the start of a spelling and nothing
//! else: a line feed is in no spelling, so whatever ends in one passes at once.

mod escape;
mod forms;
mod matcher;
mod names;
mod patterns;
mod prefilter;
mod spelling;
mod stream;
mod turn;

pub use patterns::{Known, Patterns};
pub use stream::Scrubber;
pub use turn::Turn;

#[cfg(test)]
mod tests;
