//! Which members of an answer hold a fresh token.

/// Those of RFC 6749 §5.1 and of `OpenID` Connect Core §3.1.3.3, folded.
const OAUTH: [&str; 3] = ["accesstoken", "refreshtoken", "idtoken"];

/// A name is at most this long: it has to be held while it is read.
pub(super) const NAME_BYTES_MAX: usize = 64;

/// A text names no member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a member's name has 1 to {NAME_BYTES_MAX} characters, a letter or digit among them")]
pub struct BadTokenName;

/// Names of members, compared by their letters and digits alone and without case: `access_token` is `accessToken`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenNames(Vec<Box<[u8]>>);

impl TokenNames {
    /// What an OAuth answer has.
    #[must_use]
    pub fn oauth() -> Self {
        Self(OAUTH.iter().map(|name| name.as_bytes().into()).collect())
    }

    /// These and one more.
    ///
    /// # Errors
    /// [`BadTokenName`].
    pub fn with(mut self, name: &str) -> Result<Self, BadTokenName> {
        let folded: Box<[u8]> = fold(name.as_bytes()).collect();
        if folded.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(BadTokenName);
        }
        if !self.0.contains(&folded) {
            self.0.push(folded);
        }
        Ok(self)
    }

    /// Whether the member of this name holds a token.
    pub(super) fn has(&self, name: &[u8]) -> bool {
        self.0.iter().any(|known| fold(name).eq(known.iter().copied()))
    }
}

fn fold(name: &[u8]) -> impl Iterator<Item = u8> {
    name.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase)
}
