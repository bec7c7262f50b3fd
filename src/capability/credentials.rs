//! Credentials: a capability and a proof as one string, and the headers that carry it (`docs/capability.md`,
//! "Carriage").

use std::fmt;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};

use super::{Capability, PROOF_BYTES, Proof};

/// Credentials are at most this many bytes of text; a header value that carries them in Basic is longer by a third.
pub const CREDENTIALS_BYTES_MAX: usize = 32 * 1024;
/// The scheme of `Proxy-Authorization` that is ours.
pub const SCHEME: &str = "Cap";
/// The user of Basic credentials.
pub const BASIC_USER: &str = "cap";

/// Why a header or string is not credentials. Nothing about the peer is known then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MalformedCredentials {
    /// A scheme that is neither `Cap` nor `Basic`, or none.
    #[error("the scheme of Proxy-Authorization is neither Cap nor Basic")]
    Scheme,
    /// Longer than 32 KiB.
    #[error("the credentials are longer than {CREDENTIALS_BYTES_MAX} bytes")]
    TooLong,
    /// Basic that is not base64, or without a colon.
    #[error("the Basic credentials are not base64 of user:password")]
    Basic,
    /// Basic with another user than `cap`.
    #[error("the Basic user is not {BASIC_USER}")]
    User,
    /// Not two parts with a dot between them.
    #[error("the credentials are not CAPABILITY.PROOF")]
    Parts,
    /// The first part is not base64url without padding in its one spelling, or not of a capability's size.
    #[error("the capability is not base64url, or too large")]
    Capability,
    /// The second part is not base64url without padding in its one spelling, or not the form of a proof.
    #[error("the proof is not well-formed")]
    Proof,
}

impl MalformedCredentials {
    /// The class's name in test vectors.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Scheme => "scheme",
            Self::TooLong => "too_long",
            Self::Basic => "basic",
            Self::User => "user",
            Self::Parts => "parts",
            Self::Capability => "capability",
            Self::Proof => "proof",
        }
    }
}

/// A capability and a proof as they were presented; nothing is verified yet.
#[derive(Clone)]
pub struct Credentials {
    /// Unverified.
    pub capability: Capability,
    /// Unchecked.
    pub proof: Proof,
}

impl Credentials {
    /// Parses `base64url(capability) "." base64url(proof)`, each without padding.
    ///
    /// # Errors
    /// [`MalformedCredentials`].
    pub fn parse(text: &str) -> Result<Self, MalformedCredentials> {
        if text.len() > CREDENTIALS_BYTES_MAX {
            return Err(MalformedCredentials::TooLong);
        }
        let (capability, proof) = text.split_once('.').ok_or(MalformedCredentials::Parts)?;
        // The proof first: it is short, and most garbage ends here.
        let mut bytes = [0; PROOF_BYTES];
        let length = BASE64_URL_SAFE_NO_PAD.decode_slice(proof, &mut bytes).map_err(|_| MalformedCredentials::Proof)?;
        let proof = bytes.get(..length).unwrap_or_default();
        let proof = Proof::parse(proof).map_err(|_| MalformedCredentials::Proof)?;
        let capability = Capability::from_text(capability).map_err(|_| MalformedCredentials::Capability)?;
        Ok(Self { capability, proof })
    }

    /// Parses the value of one `Proxy-Authorization` header: `Cap <credentials>`, or `Basic` with the user `cap` and the
    /// credentials as its password (RFC 7617). Schemes have no letter case (RFC 9110 §11.1).
    ///
    /// # Errors
    /// [`MalformedCredentials`].
    pub fn from_proxy_authorization(value: &[u8]) -> Result<Self, MalformedCredentials> {
        if value.len() > CREDENTIALS_BYTES_MAX.div_ceil(3) * 4 + 64 {
            return Err(MalformedCredentials::TooLong);
        }
        let value = str::from_utf8(value).map_err(|_| MalformedCredentials::Scheme)?;
        let (scheme, rest) = value.trim_ascii().split_once(' ').ok_or(MalformedCredentials::Scheme)?;
        let rest = rest.trim_ascii_start();
        if scheme.eq_ignore_ascii_case(SCHEME) {
            return Self::parse(rest);
        }
        if !scheme.eq_ignore_ascii_case("Basic") {
            return Err(MalformedCredentials::Scheme);
        }
        let pair = BASE64_STANDARD.decode(rest).map_err(|_| MalformedCredentials::Basic)?;
        let pair = str::from_utf8(&pair).map_err(|_| MalformedCredentials::Basic)?;
        let (user, password) = pair.split_once(':').ok_or(MalformedCredentials::Basic)?;
        if user != BASIC_USER {
            return Err(MalformedCredentials::User);
        }
        Self::parse(password)
    }

    /// The string that [`Credentials::parse`] reads: a presentation in it is as good as a password.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{}.{}", self.capability.to_text(), BASE64_URL_SAFE_NO_PAD.encode(self.proof.as_bytes()))
    }
}

/// Neither part is shown.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("capability", &self.capability).field("proof", &self.proof).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Algorithm, Context, PrivateKey, Purpose};
    use super::*;
    use crate::clock::UnixSeconds;

    fn credentials() -> Credentials {
        let key = PrivateKey::from_seed(Algorithm::Ed25519, [1; 32]).expect("a seed");
        let capability = Capability::from_bytes(b"any bytes: nothing is verified here!").expect("bytes");
        let context = Context::new("local", Purpose::Presentation);
        let proof = Proof::sign(&key, &capability.sha256(), UnixSeconds(1), 60, [2; 16], &context).expect("signs");
        Credentials { capability, proof }
    }

    fn error(value: &str) -> MalformedCredentials {
        Credentials::from_proxy_authorization(value.as_bytes()).map(|_| ()).expect_err(value)
    }

    #[test]
    fn both_schemes_carry_the_same_string() {
        let text = credentials().to_text();
        let basic = BASE64_STANDARD.encode(format!("cap:{text}"));
        for value in [
            format!("Cap {text}"),
            format!("cap {text}"),
            format!(" CAP   {text} "),
            format!("Basic {basic}"),
            format!("basic {basic}"),
        ] {
            let parsed = Credentials::from_proxy_authorization(value.as_bytes()).expect("credentials");
            assert_eq!(parsed.to_text(), text);
        }
    }

    #[test]
    fn what_is_not_credentials_is_refused_with_its_class() {
        let text = credentials().to_text();
        let (capability, proof) = text.split_once('.').expect("two parts");
        let basic = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
        for (value, class) in [
            (String::new(), MalformedCredentials::Scheme),
            ("Cap".to_owned(), MalformedCredentials::Scheme),
            (text.clone(), MalformedCredentials::Scheme),
            (format!("Bearer {text}"), MalformedCredentials::Scheme),
            (format!("Cap {capability}"), MalformedCredentials::Parts),
            (format!("Cap {capability}."), MalformedCredentials::Proof),
            (format!("Cap .{proof}"), MalformedCredentials::Capability),
            (format!("Cap {text}."), MalformedCredentials::Proof),
            (format!("Cap {text}A"), MalformedCredentials::Proof),
            (format!("Cap {capability}=.{proof}"), MalformedCredentials::Capability),
            (format!("Cap {capability}.{proof}="), MalformedCredentials::Proof),
            (format!("Cap {capability} .{proof}"), MalformedCredentials::Capability),
            (format!("Cap {capability}+.{proof}"), MalformedCredentials::Capability),
            (format!("Cap {}.{proof}", "A".repeat(40_000)), MalformedCredentials::TooLong),
            (format!("Cap {}.{proof}", "A".repeat(24_000)), MalformedCredentials::Capability),
            (format!("Cap {}", "A".repeat(100_000)), MalformedCredentials::TooLong),
            ("Basic !".to_owned(), MalformedCredentials::Basic),
            (basic("cap"), MalformedCredentials::Basic),
            (basic(&format!("user:{text}")), MalformedCredentials::User),
            (basic(&format!("Cap:{text}")), MalformedCredentials::User),
            (basic(&format!(":{text}")), MalformedCredentials::User),
            (basic("cap:"), MalformedCredentials::Parts),
        ] {
            assert_eq!(error(&value), class, "{}", value.get(..60).unwrap_or(&value));
        }
    }

    #[test]
    fn stray_last_bits_are_refused() {
        // 36 bytes end on a whole group; 35 leave bits over, which must be zero.
        let bytes = [7; 35];
        let text = BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let proof = credentials().to_text().split_once('.').expect("two parts").1.to_owned();
        assert!(Credentials::parse(&format!("{text}.{proof}")).is_ok());
        let (start, last) = text.split_at(text.len() - 1);
        let last = last.bytes().next().expect("a digit") + 1;
        let stray = format!("{start}{}.{proof}", char::from(last));
        assert!(matches!(Credentials::parse(&stray), Err(MalformedCredentials::Capability)));
    }

    proptest::proptest! {
        #[test]
        fn no_header_makes_the_parser_panic_and_what_parses_prints_the_same(
            scheme in "Cap|Basic|cap|[A-Za-z]{0,6}",
            text in "[A-Za-z0-9_.=+/ -]{0,200}|.{0,50}",
        ) {
            let header = format!("{scheme} {text}");
            if let Ok(credentials) = Credentials::from_proxy_authorization(header.as_bytes()) {
                proptest::prop_assert_eq!(credentials.to_text(), text.trim());
            }
        }

        #[test]
        fn any_capability_and_proof_survive_the_way(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 1..300),
            mut proof in proptest::collection::vec(proptest::num::u8::ANY, PROOF_BYTES),
            kind in 1_u8..=3,
        ) {
            proof[..4].copy_from_slice(&[1, kind, 0, 0]);
            let proof = Proof::parse(&proof).expect("well-formed");
            let credentials = Credentials { capability: Capability::from_bytes(&bytes).expect("bytes"), proof };
            let again = Credentials::parse(&credentials.to_text()).expect("its own text");
            proptest::prop_assert_eq!(again.capability.as_bytes(), bytes.as_slice());
            proptest::prop_assert_eq!(again.proof.as_bytes(), credentials.proof.as_bytes());
        }
    }

    #[test]
    fn nothing_is_shown() {
        let credentials = credentials();
        let shown = format!("{credentials:?}");
        let text = credentials.to_text();
        let (capability, proof) = text.split_once('.').expect("two parts");
        assert!(!shown.contains(capability) && !shown.contains(&proof[..40]), "{shown}");
    }
}
