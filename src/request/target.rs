//! The one canonical name of a destination.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A name is at most this long (RFC 1035 §2.3.4, without the root's dot).
const NAME_BYTES_MAX: usize = 253;
/// A label is at most this long (RFC 1035 §2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// `https` or `http`: how the bytes inside a tunnel, or of an absolute-form request, are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// HTTP over TLS.
    Https,
    /// Cleartext HTTP; never carries a credential.
    Http,
}

impl Scheme {
    /// `"https"` or `"http"`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }

    /// 443 or 80 (RFC 9110 §4.2).
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Https => 443,
            Self::Http => 80,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a destination's text has no canonical form. All of them are the client's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No host at all.
    #[error("the host is empty")]
    Empty,
    /// Longer than 253 bytes, or a label longer than 63.
    #[error("the host is too long")]
    TooLong,
    /// A byte outside letters, digits, `-`, `_` and dots; an empty label; a label that starts or ends
    /// with `-`; a trailing dot; a number that is not a plain dotted-quad address.
    #[error("the host is not a plain ASCII name or address")]
    Name,
    /// No port, or one that is not a plain decimal from 1 to 65535.
    #[error("the port is not a plain number from 1 to 65535")]
    Port,
}

/// A host in its one canonical form: a lower-case name without trailing dot, or an address.
///
/// `http::uri::Authority` keeps letter case, a trailing dot and userinfo, so it is never compared.
/// An internationalised name must come as its A-label (`xn--…`, RFC 5890 §2.3.2.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(Box<str>);

impl Host {
    /// Parses `example.com`, `192.0.2.1` or `[2001:db8::1]`; upper case is folded, nothing else is
    /// repaired.
    ///
    /// # Errors
    /// [`NameError`] for everything that has no single meaning: see its variants.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(NameError::Name)?;
            let address: Ipv6Addr = inner.parse().map_err(|_| NameError::Name)?;
            return Ok(Self(format!("[{address}]").into_boxed_str()));
        }
        let name = text.to_ascii_lowercase();
        check_name(&name)?;
        Ok(Self(name.into_boxed_str()))
    }

    /// The canonical text; an IPv6 address is in brackets.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address, when the host is one rather than a name.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self.0.strip_prefix('[') {
            Some(rest) => rest.trim_end_matches(']').parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            None => self.0.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check_name(name: &str) -> Result<(), NameError> {
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong);
    }
    for label in name.split('.') {
        if label.len() > LABEL_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        let plain = label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
        if label.is_empty() || !plain || label.starts_with('-') || label.ends_with('-') {
            return Err(NameError::Name);
        }
    }
    // A resolver may read a last label that is a number (127.1, 0x7f.1, 2130706433) as an IPv4
    // address (WHATWG URL, "ends in a number"): only the dotted quad is such an address here.
    let last = name.rsplit('.').next().unwrap_or(name);
    let hexadecimal = last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    let numeric = hexadecimal || last.bytes().all(|b| b.is_ascii_digit());
    if numeric && name.parse::<Ipv4Addr>().is_err() {
        return Err(NameError::Name);
    }
    Ok(())
}

/// Where a request goes: decided once, then used for policy, credential, dial and journal alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// The canonical host.
    pub host: Host,
    /// 1 to 65535.
    pub port: u16,
}

impl Target {
    /// Parses the authority-form of CONNECT, `host:port` (RFC 9110 §9.3.6). The port is required.
    ///
    /// # Errors
    /// [`NameError`]; userinfo, a missing port, a sign or a leading zero are errors too.
    pub fn parse(authority: &str) -> Result<Self, NameError> {
        let (host, port) = split_port(authority)?;
        Ok(Self { host: Host::parse(host)?, port: parse_port(port.ok_or(NameError::Port)?)? })
    }

    /// Parses a `Host` or `:authority` value, `host` or `host:port` (RFC 9110 §7.2); without a port it
    /// means `default_port`.
    ///
    /// # Errors
    /// [`NameError`], as [`Target::parse`].
    pub fn parse_or(authority: &str, default_port: u16) -> Result<Self, NameError> {
        let (host, port) = split_port(authority)?;
        let port = port.map_or(Ok(default_port), parse_port)?;
        Ok(Self { host: Host::parse(host)?, port })
    }

    /// The text of a `Host` header for this target: the port is left out when it is the scheme's own.
    #[must_use]
    pub fn authority(&self, scheme: Scheme) -> String {
        if self.port == scheme.default_port() { self.host.to_string() } else { self.to_string() }
    }
}

/// `host:port`, always with the port.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Splits off the last `:port`, leaving the colons of a bracketed IPv6 address alone.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), NameError> {
    let after_bracket = authority.rfind(']').map_or(0, |at| at + 1);
    let Some(colon) = authority.get(after_bracket..).and_then(|rest| rest.find(':')) else {
        return Ok((authority, None));
    };
    let (host, port) = authority.split_at(after_bracket + colon);
    Ok((host, Some(port.get(1..).ok_or(NameError::Port)?)))
}

fn parse_port(text: &str) -> Result<u16, NameError> {
    let plain =
        !text.is_empty() && text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    if !plain {
        return Err(NameError::Port);
    }
    text.parse().map_err(|_| NameError::Port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_case_and_nothing_else() {
        let target = Target::parse("API.GitHub.com:443").expect("a plain authority");
        assert_eq!(target.to_string(), "api.github.com:443");
        assert_eq!(target.authority(Scheme::Https), "api.github.com");
        assert_eq!(target.authority(Scheme::Http), "api.github.com:443");
    }

    proptest::proptest! {
        /// What has a canonical form prints as it, and is what a second reader takes it for
        /// (`fuzz/fuzz_targets/request_target.rs`).
        #[test]
        fn what_passes_has_one_spelling(text in "(\\[[0-9a-fA-F:.]{2,12}\\]|[a-cA-C0-9x._@%-]{1,12})(:[0-9]{0,6})?") {
            let Ok(target) = Target::parse_or(&text, 443) else { return Ok(()) };
            proptest::prop_assert_eq!(Target::parse(&target.to_string()), Ok(target.clone()));
            let other: http::uri::Authority = text.parse().expect("an authority");
            proptest::prop_assert_eq!(other.port_u16().unwrap_or(443), target.port);
            if target.host.address().is_none() {
                proptest::prop_assert_eq!(other.host().to_ascii_lowercase(), target.host.as_str());
            }
        }
    }

    #[test]
    fn addresses_have_one_spelling() {
        let six = Target::parse("[2001:DB8:0::1]:8443").expect("an IPv6 literal");
        assert_eq!(six.to_string(), "[2001:db8::1]:8443");
        assert_eq!(six.host.address(), Some("2001:db8::1".parse().expect("an address")));
        let four = Host::parse("192.0.2.1").expect("an IPv4 literal");
        assert_eq!(four.address(), Some("192.0.2.1".parse().expect("an address")));
        assert_eq!(Host::parse("example.com").expect("a name").address(), None);
    }

    #[test]
    fn refuses_every_spelling_that_is_not_plain() {
        let refused = [
            "",
            ":443",
            "a.test",
            "a.test:",
            "a.test:0",
            "a.test:0443",
            "a.test:+443",
            "a.test:65536",
            "a.test:-1",
            "a.test:443:443",
            "a.test.:443",
            ".a.test:443",
            "a..test:443",
            "user@a.test:443",
            "a.test%00:443",
            "a.test\0:443",
            "a.test#:443",
            "a.test?:443",
            "a.test\\b:443",
            "a.test/b:443",
            "á.test:443",
            "a\u{ad}b.test:443",
            "a,b.test:443",
            "a.test\t:443",
            "a.test\n:443",
            " a.test:443",
            "-a.test:443",
            "a-.test:443",
            "[::1:443",
            "::1:443",
            "[::1]x:443",
            "[fe80::1%25eth0]:443",
            "127.1:443",
            "2130706433:443",
            "0x7f.0.0.1:443",
            "0177.0.0.1:443",
            "127.0.0.0x1:443",
            "0x7f000001:443",
            "1.2.3.4.5:443",
            "a.0x:443",
        ];
        for text in refused {
            assert!(Target::parse(text).is_err(), "{text:?} must have no canonical form");
        }
    }

    #[test]
    fn host_header_without_port_means_the_schemes_port() {
        assert_eq!(Target::parse_or("a.test", 443).expect("a host").port, 443);
        assert_eq!(Target::parse_or("a.test:8443", 443).expect("a host").port, 8443);
        assert_eq!(Target::parse_or("[::1]", 80).expect("a host").to_string(), "[::1]:80");
        assert!(Target::parse_or("a.test:", 443).is_err());
    }

    #[test]
    fn lengths_are_bounded_at_the_rfcs_edge() {
        let label = "a".repeat(63);
        assert!(Host::parse(&label).is_ok());
        assert_eq!(Host::parse(&format!("{label}a")), Err(NameError::TooLong));
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert!(Host::parse(&longest).is_ok());
        assert_eq!(Host::parse(&format!("{longest}a")), Err(NameError::TooLong));
    }
}
