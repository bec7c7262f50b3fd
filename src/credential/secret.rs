//! A secret and its name.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::Zeroizing;

/// A secret is at most this many bytes: with Basic's base64 it still fits the 64 KiB that a header
/// list may take, next to everything else in it.
pub const SECRET_BYTES_MAX: usize = 16 * 1024;

/// A secret is at least this many bytes: shorter ones stand in ordinary text by chance, so answers could not be scanned
/// for them.
pub const SECRET_BYTES_MIN: usize = 8;

/// A secret's name is at most this many bytes.
const NAME_BYTES_MAX: usize = 64;

/// Why a value is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    /// No bytes at all.
    #[error("the secret is empty")]
    Empty,
    /// Fewer than [`SECRET_BYTES_MIN`].
    #[error("the secret is shorter than {SECRET_BYTES_MIN} bytes: answers could not be scanned for it")]
    TooShort,
    /// More than [`SECRET_BYTES_MAX`].
    #[error("the secret is longer than {SECRET_BYTES_MAX} bytes")]
    TooLong,
    /// A control byte (RFC 9110 §5.5 forbids it in a field value), tab included.
    #[error("the secret holds a control character, such as a line break or a tab")]
    Control,
    /// A space at either end: every HTTP parser removes it, so another value would arrive.
    #[error("the secret starts or ends with a space")]
    OuterSpace,
}

/// The value of a real credential.
///
/// Deliberately without `Display`, `Serialize`, `Clone` and `PartialEq`; `Debug` is redacted; the
/// memory is overwritten on drop.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the value as it is sent: [`SECRET_BYTES_MIN`] to [`SECRET_BYTES_MAX`] bytes that a header can carry. Bytes
    /// from 0x80 are allowed (`obs-text`, RFC 9110 §5.5).
    ///
    /// # Errors
    /// [`BadSecret`]; the refused value is overwritten.
    pub fn new(value: Vec<u8>) -> Result<Self, BadSecret> {
        let value = Zeroizing::new(value);
        if value.is_empty() {
            return Err(BadSecret::Empty);
        }
        if value.len() > SECRET_BYTES_MAX {
            return Err(BadSecret::TooLong);
        }
        if value.iter().any(u8::is_ascii_control) {
            return Err(BadSecret::Control);
        }
        if value.first() == Some(&b' ') || value.last() == Some(&b' ') {
            return Err(BadSecret::OuterSpace);
        }
        if value.len() < SECRET_BYTES_MIN {
            return Err(BadSecret::TooShort);
        }
        Ok(Self(value))
    }

    /// Whether both have one value.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }

    /// Whether `text` holds the value as it is.
    #[must_use]
    pub fn is_in(&self, text: &[u8]) -> bool {
        memchr::memmem::find(text, &self.0).is_some()
    }

    /// The value itself. For the store's encryption, the injector and the scrubber, for nothing else.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// A text is no name of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret's name is 1 to {NAME_BYTES_MAX} letters, digits, `.`, `_` or `-`")]
pub struct BadSecretName;

/// The name of a secret in the store: 1 to 64 of `A-Z a-z 0-9 . _ -`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretName(Arc<str>);

impl SecretName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretName {
    type Err = BadSecretName;

    fn from_str(text: &str) -> Result<Self, BadSecretName> {
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if text.is_empty() || text.len() > NAME_BYTES_MAX || !plain {
            return Err(BadSecretName);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_a_header_can_carry_and_nothing_else() {
        assert!(Secret::new(b"sk-live 1".to_vec()).is_ok());
        assert!(Secret::new("schl\u{fc}ssel".as_bytes().to_vec()).is_ok());
        assert!(Secret::new(vec![b'a'; SECRET_BYTES_MIN]).is_ok());
        assert!(Secret::new(vec![b'a'; SECRET_BYTES_MAX]).is_ok());
        let refused: [(&[u8], BadSecret); 9] = [
            (b"", BadSecret::Empty),
            (b"a\n", BadSecret::Control),
            (b"a\rb", BadSecret::Control),
            (b"a\0", BadSecret::Control),
            (b"a\tb", BadSecret::Control),
            (b"a\x7f", BadSecret::Control),
            (b" a", BadSecret::OuterSpace),
            (b"a ", BadSecret::OuterSpace),
            (b"1234567", BadSecret::TooShort),
        ];
        for (value, class) in refused {
            assert_eq!(Secret::new(value.to_vec()).map(|_| ()), Err(class), "{value:?}");
        }
        assert_eq!(Secret::new(vec![b'a'; SECRET_BYTES_MAX + 1]).map(|_| ()), Err(BadSecret::TooLong));
    }

    #[test]
    fn debug_is_redacted() {
        let secret = Secret::new(b"canary-1".to_vec()).expect("plain");
        assert_eq!(format!("{secret:?}"), "Secret(redacted)");
    }

    #[test]
    fn names_are_plain_and_bounded() {
        for name in ["gh-pat", "A.b_9", &"n".repeat(64)] {
            assert_eq!(name.parse::<SecretName>().expect("a name").to_string(), name);
        }
        for name in ["", "a b", "a/b", "\u{e4}", "a\n", &"n".repeat(65)] {
            assert_eq!(name.parse::<SecretName>(), Err(BadSecretName), "{name:?}");
        }
    }
}
