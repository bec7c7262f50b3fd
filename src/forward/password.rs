//! The password between one command and its forwarder. A loopback port is open to every process of the machine.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use http::HeaderMap;
use http::header::PROXY_AUTHORIZATION;

use crate::capability::BASIC_USER;
use crate::store::{StoreError, random};

/// 128 random bits: not guessed within the life of a command.
const PASSWORD_BYTES: usize = 16;
/// No right value of `Proxy-Authorization` is longer.
const VALUE_BYTES_MAX: usize = 128;

/// `cap:<password>`, as clients take it from the userinfo of their proxy URL.
pub(super) struct Password {
    userinfo: String,
}

impl Password {
    pub(super) fn generate() -> Result<Self, StoreError> {
        let password = BASE64_URL_SAFE_NO_PAD.encode(random::bytes::<PASSWORD_BYTES>()?);
        Ok(Self { userinfo: format!("{BASIC_USER}:{password}") })
    }

    /// `cap:<password>`; no byte of it needs escaping in a URL.
    pub(super) fn userinfo(&self) -> &str {
        &self.userinfo
    }

    /// Whether exactly one `Proxy-Authorization` is there and carries the password (RFC 7617). How long the comparison
    /// takes says nothing about where the two differ.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(PROXY_AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let Some((scheme, encoded)) = value.to_str().ok().and_then(|value| value.trim().split_once(' ')) else {
            return false;
        };
        if !scheme.eq_ignore_ascii_case("Basic") || encoded.len() > VALUE_BYTES_MAX {
            return false;
        }
        let Ok(given) = BASE64_STANDARD.decode(encoded.trim_start()) else { return false };
        verify_slices_are_equal(&given, self.userinfo.as_bytes()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (PROXY_AUTHORIZATION, HeaderValue::from_str(value).expect("a value"))).collect()
    }

    #[test]
    fn only_the_whole_password_once_is_taken() {
        let password = Password::generate().expect("randomness");
        let encode = |text: &str| BASE64_STANDARD.encode(text);
        let right = encode(password.userinfo());
        assert!(password.is_in(&headers(&[&format!("Basic {right}")])));
        assert!(password.is_in(&headers(&[&format!("basic  {right}")])));

        let mut other = password.userinfo().to_owned().into_bytes();
        if let Some(last) = other.last_mut() {
            *last ^= 1;
        }
        let short = &password.userinfo()[..password.userinfo().len() - 1];
        for wrong in [
            format!("Basic {}", BASE64_STANDARD.encode(other)),
            format!("Basic {}", encode(short)),
            format!("Basic {}", encode(&password.userinfo().replace("cap:", "Cap:"))),
            format!("Bearer {right}"),
            right.clone(),
            "Basic".to_owned(),
            String::new(),
        ] {
            assert!(!password.is_in(&headers(&[&wrong])), "{wrong}");
        }
        assert!(!password.is_in(&headers(&[])));
        assert!(!password.is_in(&headers(&[&format!("Basic {right}"), &format!("Basic {right}")])));
    }
}
