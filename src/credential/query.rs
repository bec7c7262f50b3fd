//! The pieces of a query, compared as the most lenient server would read them, rewritten without
//! touching a byte of the others.

use http::uri::PathAndQuery;

use super::slots::Unwritable;

/// One piece of a query and the separator before it.
pub(crate) struct Piece<'a> {
    separator: Option<char>,
    text: &'a str,
}

impl<'a> Piece<'a> {
    /// The text before `=`, as sent.
    pub(crate) fn name(&self) -> &'a str {
        self.text.split('=').next().unwrap_or(self.text)
    }

    /// The text after the first `=`, as sent; empty without one.
    pub(crate) fn value(&self) -> &'a str {
        self.text.split_once('=').map_or("", |(_, value)| value)
    }
}

/// The pieces between `&` and `;`. Few servers still split at `;`; for those that do not, a removed
/// piece shortens the value before it, which is the safe mistake.
pub(crate) fn pieces(query: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = Some((None, query));
    std::iter::from_fn(move || {
        let (separator, text) = rest.take()?;
        let Some(at) = text.find(['&', ';']) else { return Some(Piece { separator, text }) };
        let (piece, tail) = text.split_at(at);
        let mut tail = tail.chars();
        let next = tail.next();
        rest = Some((next, tail.as_str()));
        Some(Piece { separator, text: piece })
    })
}

/// `application/x-www-form-urlencoded` decoding: `+` is a space, a broken escape stays as it is.
pub(crate) fn decode(text: &str) -> Vec<u8> {
    let spaced: Vec<u8> = text.bytes().map(|b| if b == b'+' { b' ' } else { b }).collect();
    percent_encoding::percent_decode(&spaced).collect()
}

/// One form of all spellings of a parameter's name that some server reads as the same: letter case,
/// marks, a bracket or a NUL that ends it, outer spaces.
pub(crate) fn fold(name: &[u8]) -> Vec<u8> {
    let name = name.trim_ascii();
    let end = name.iter().position(|b| matches!(b, b'[' | 0)).unwrap_or(name.len());
    let name = name.get(..end).unwrap_or(name).trim_ascii_end();
    name.iter().map(|&b| if b.is_ascii_alphanumeric() || b >= 0x80 { b.to_ascii_lowercase() } else { b'-' }).collect()
}

/// The target without the pieces that `doomed` picks; `None` when it picks none. The bytes of the
/// others, and the separator before each, stay.
pub(crate) fn without(
    target: &PathAndQuery,
    mut doomed: impl FnMut(&Piece<'_>) -> bool,
) -> Result<Option<PathAndQuery>, Unwritable> {
    let Some(query) = target.query() else { return Ok(None) };
    let mut kept = String::with_capacity(query.len());
    let (mut kept_any, mut removed_any) = (false, false);
    for piece in pieces(query) {
        if doomed(&piece) {
            removed_any = true;
            continue;
        }
        if let (true, Some(separator)) = (kept_any, piece.separator) {
            kept.push(separator);
        }
        kept.push_str(piece.text);
        kept_any = true;
    }
    if !removed_any {
        return Ok(None);
    }
    let rewritten = if kept.is_empty() { target.path().to_owned() } else { format!("{}?{kept}", target.path()) };
    rewritten.try_into().map(Some).map_err(|_| Unwritable)
}

/// The target with one more piece, already encoded, at the end.
pub(crate) fn append(target: &PathAndQuery, pair: &str) -> Result<PathAndQuery, Unwritable> {
    let separator = match target.query() {
        None => "?",
        Some("") => "",
        Some(_) => "&",
    };
    format!("{target}{separator}{pair}").try_into().map_err(|_| Unwritable)
}
