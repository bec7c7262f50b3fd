//! What an agent holds in a secret's place: the shape of the real thing, worthless, recognisable.
//!
//! `prefix ‖ mark ‖ tag ‖ filler`: the mark is a fixed word, the tag comes from the service's name,
//! the filler from everything before it. So a placeholder proves itself, without a list of them.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;

/// The bytes after a shape's prefix are at least this many, so that mark, tag and a filler that
/// nobody hits by chance fit.
const BODY_BYTES_MIN: usize = 20;
/// A placeholder is at most this long.
const PLACEHOLDER_BYTES_MAX: usize = 512;
/// Characters that come from the service's name.
const TAG_BYTES: usize = 6;

/// The characters that a real credential of a shape has after its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alphabet {
    Alphanumeric,
    Letters,
    Lower,
    Hex,
}

impl Alphabet {
    const ALL: [Self; 4] = [Self::Alphanumeric, Self::Letters, Self::Lower, Self::Hex];

    const fn characters(self) -> &'static [u8] {
        match self {
            Self::Alphanumeric => b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
            Self::Letters => b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
            Self::Lower => b"abcdefghijklmnopqrstuvwxyz0123456789",
            Self::Hex => b"0123456789abcdef",
        }
    }

    const fn mark(self) -> &'static [u8] {
        match self {
            Self::Hex => b"0badcafe",
            Self::Alphanumeric | Self::Letters | Self::Lower => b"narrows",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Alphanumeric => "alnum",
            Self::Letters => "letters",
            Self::Lower => "lower",
            Self::Hex => "hex",
        }
    }
}

/// A text is no shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a placeholder's shape reads `prefix{{LENGTH}}` or `prefix{{ALPHABET:LENGTH}}`, with alnum, letters, lower or hex \
     and a length from {BODY_BYTES_MIN} to {PLACEHOLDER_BYTES_MAX}"
)]
pub struct BadShape;

/// The shape of a credential: `ghp_{36}` is `ghp_` and 36 letters or digits; `hf_{letters:34}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    prefix: Box<str>,
    alphabet: Alphabet,
    body_bytes: usize,
}

impl Shape {
    /// Letters and digits alone; `None` where that is too few or too many for a placeholder.
    #[must_use]
    pub(super) fn of_length(length: usize) -> Option<Self> {
        let fits = (BODY_BYTES_MIN..=PLACEHOLDER_BYTES_MAX).contains(&length);
        fits.then(|| Self { prefix: "".into(), alphabet: Alphabet::Alphanumeric, body_bytes: length })
    }
}

impl FromStr for Shape {
    type Err = BadShape;

    fn from_str(text: &str) -> Result<Self, BadShape> {
        let (prefix, rest) = text.split_once('{').ok_or(BadShape)?;
        let inner = rest.strip_suffix('}').ok_or(BadShape)?;
        let (alphabet, length) = inner.split_once(':').unwrap_or((Alphabet::Alphanumeric.name(), inner));
        let alphabet = Alphabet::ALL.into_iter().find(|a| a.name() == alphabet).ok_or(BadShape)?;
        let body_bytes: usize = length.parse().map_err(|_| BadShape)?;
        let plain = prefix.bytes().all(|b| b.is_ascii_graphic());
        let fits = body_bytes >= BODY_BYTES_MIN && prefix.len() + body_bytes <= PLACEHOLDER_BYTES_MAX;
        // A mark inside the prefix would hide the real one.
        let clear = Alphabet::ALL.iter().all(|a| find(prefix.as_bytes(), a.mark()).is_none());
        if !plain || !fits || !clear {
            return Err(BadShape);
        }
        Ok(Self { prefix: prefix.into(), alphabet, body_bytes })
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{{{}:{}}}", self.prefix, self.alphabet.name(), self.body_bytes)
    }
}

/// The placeholder of a service in a shape: the same on every machine and every day.
#[must_use]
pub fn placeholder(service: &str, shape: &Shape) -> String {
    let alphabet = shape.alphabet;
    let mut text = shape.prefix.as_bytes().to_vec();
    text.extend_from_slice(alphabet.mark());
    let tag = filler(alphabet, service.as_bytes(), TAG_BYTES);
    text.extend_from_slice(&tag);
    let missing = (shape.prefix.len() + shape.body_bytes).saturating_sub(text.len());
    let rest = filler(alphabet, &text, missing);
    text.extend_from_slice(&rest);
    String::from_utf8_lossy(&text).into_owned()
}

/// Whether a value, as an agent sent it, is a placeholder of ours, of whatever service.
#[must_use]
pub fn is_placeholder(value: &[u8]) -> bool {
    value.len() <= PLACEHOLDER_BYTES_MAX && Alphabet::ALL.into_iter().any(|alphabet| proves_itself(value, alphabet))
}

fn proves_itself(value: &[u8], alphabet: Alphabet) -> bool {
    let Some(at) = find(value, alphabet.mark()) else { return false };
    if value.len() - at < BODY_BYTES_MIN {
        return false;
    }
    let (known, rest) = value.split_at(at + alphabet.mark().len() + TAG_BYTES);
    filler(alphabet, known, rest.len()) == rest
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// `length` characters of the alphabet from a hash of the seed.
fn filler(alphabet: Alphabet, seed: &[u8], length: usize) -> Vec<u8> {
    let characters = alphabet.characters();
    let mut bytes = Vec::with_capacity(length);
    let mut block = 0_u8;
    while bytes.len() < length {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"narrows-placeholder-1\0");
        context.update(&[block]);
        context.update(seed);
        let hash = context.finish();
        let picked = hash.as_ref().iter().filter_map(|&b| characters.get(usize::from(b) % characters.len()));
        bytes.extend(picked.take(length - bytes.len()));
        block = block.wrapping_add(1);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shaped(shape: &str) -> String {
        placeholder("github", &shape.parse().expect("a shape"))
    }

    #[test]
    fn keeps_prefix_alphabet_and_length() {
        let github = shaped("ghp_{36}");
        assert_eq!(github.len(), 40);
        assert!(github.starts_with("ghp_narrows") && github[4..].bytes().all(|b| b.is_ascii_alphanumeric()));
        assert!(shaped("hf_{letters:34}")[3..].bytes().all(|b| b.is_ascii_alphabetic()));
        assert!(shaped("{hex:64}").bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(github, shaped("ghp_{36}"), "the same every time");
        assert_ne!(github, placeholder("gitlab", &"ghp_{36}".parse().expect("a shape")));
    }

    #[test]
    fn proves_itself_and_nothing_one_character_away_does() {
        for shape in ["ghp_{36}", "hf_{letters:34}", "{hex:20}", "sk-ant-api03-{93}", "lin_{lower:40}", "a{500}"] {
            let text = shaped(shape);
            assert!(is_placeholder(text.as_bytes()), "{shape}");
            for at in 0..text.len() {
                let mut other = text.clone().into_bytes();
                other[at] = if other[at] == b'x' { b'y' } else { b'x' };
                assert!(!is_placeholder(&other), "{shape} changed at {at}");
            }
            assert!(!is_placeholder(format!("{text}a").as_bytes()) && !is_placeholder(&text.as_bytes()[1..]));
        }
        assert!(!is_placeholder(b"") && !is_placeholder(b"narrows") && !is_placeholder(b"ghp_narrowsabcdef"));
    }

    #[test]
    fn refuses_what_is_no_shape() {
        for text in ["", "ghp_", "{}", "{19}", "{513}", "{base9:30}", "a b{30}", "{30}x", "narrows{30}", "{-1}", "{30"]
        {
            assert_eq!(text.parse::<Shape>(), Err(BadShape), "{text:?}");
        }
    }
}
