//! The names that HTML has for characters.

use std::sync::LazyLock;

/// How `&` is written where a reference is itself a text of HTML: `&amp;#47;`.
pub(super) const AMPERSAND: &[u8] = b"amp;";

/// The names that HTML has for ASCII characters (WHATWG HTML §13.5); letters, digits, `-` and `~` have none.
const NAMES: [(u8, &[&str]); 31] = [
    (b'!', &["excl;"]),
    (b'"', &["quot;", "QUOT;"]),
    (b'#', &["num;"]),
    (b'$', &["dollar;"]),
    (b'%', &["percnt;"]),
    (b'&', &["amp;", "AMP;"]),
    (b'\'', &["apos;"]),
    (b'(', &["lpar;"]),
    (b')', &["rpar;"]),
    (b'*', &["ast;", "midast;"]),
    (b'+', &["plus;"]),
    (b',', &["comma;"]),
    (b'.', &["period;"]),
    (b'/', &["sol;"]),
    (b':', &["colon;"]),
    (b';', &["semi;"]),
    (b'<', &["lt;", "LT;"]),
    (b'=', &["equals;"]),
    (b'>', &["gt;", "GT;"]),
    (b'?', &["quest;"]),
    (b'@', &["commat;"]),
    (b'[', &["lsqb;", "lbrack;"]),
    (b'\\', &["bsol;"]),
    (b']', &["rsqb;", "rbrack;"]),
    (b'^', &["Hat;"]),
    (b'_', &["lowbar;", "UnderBar;"]),
    (b'`', &["grave;", "DiacriticalGrave;"]),
    (b'{', &["lcub;", "lbrace;"]),
    (b'|', &["verbar;", "vert;", "VerticalLine;"]),
    (b'}', &["rcub;", "rbrace;"]),
    (b'\t', &["Tab;"]),
];

/// The names of one byte.
pub(super) fn names(byte: u8) -> &'static [&'static str] {
    NAMES.iter().find(|(of, _)| *of == byte).map_or(&[], |(_, names)| names)
}

/// A name and its byte.
type Named = (&'static [u8], u8);

/// All names by their first letter.
static BY_LETTER: LazyLock<Vec<Vec<Named>>> = LazyLock::new(|| {
    let all = || NAMES.iter().flat_map(|(byte, names)| names.iter().map(|name| (name.as_bytes(), *byte)));
    (0..0x80).map(|letter| all().filter(|(name, _)| name[0] == letter).collect()).collect()
});

/// The names that begin with this letter, each with its byte.
pub(super) fn beginning_with(letter: u8) -> &'static [Named] {
    BY_LETTER.get(usize::from(letter)).map_or(&[], Vec::as_slice)
}
