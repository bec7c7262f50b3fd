//! What a service's `hosts` may say.

use std::fmt;
use std::str::FromStr;

use crate::request::{Host, NameError, Scheme, Target};

/// Why a text is no host pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHostPattern {
    /// The host or the port is none.
    #[error("{0}; write \"host\", \"host:port\", \"*.suffix\" or \"http://host:port\"")]
    Name(#[from] NameError),
    /// `*` somewhere else than in a leading `*.`, or before an address.
    #[error("`*` stands only at the front, as \"*.suffix\"")]
    Wildcard,
    /// A scheme that is neither `http` nor `https`.
    #[error("the scheme is `https://` (which may be left out) or `http://`")]
    Scheme,
    /// A path, or anything else after the port.
    #[error("a host has no path")]
    Path,
}

/// `"host"`, `"host:port"`, `"*.suffix"` (one label or more, not the suffix itself), each also after
/// `https://` or `http://`. The default port is the scheme's: 443, or 80.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPattern {
    /// The name, or the suffix without `*.`.
    pub host: Host,
    /// Whether labels must come before `host`.
    pub suffix: bool,
    /// `https` unless the pattern says otherwise.
    pub scheme: Scheme,
    /// 1 to 65535.
    pub port: u16,
}

impl HostPattern {
    /// Whether a host, of whatever port, is one that the pattern names.
    #[must_use]
    pub fn names(&self, host: &Host) -> bool {
        if !self.suffix {
            return *host == self.host;
        }
        let before = host.as_str().strip_suffix(self.host.as_str());
        host.address().is_none() && before.is_some_and(|before| before.len() > 1 && before.ends_with('.'))
    }

    /// Whether the pattern reaches across owners: the public suffix list has no single registrant for
    /// what it names (`*.com`, `*.github.io`, or `com` itself).
    #[must_use]
    pub fn is_public_suffix(&self) -> bool {
        let name = self.host.as_str().as_bytes();
        let Some(found) = psl::suffix(name) else { return false };
        found.as_bytes() == name && (self.suffix || found.is_known())
    }
}

impl FromStr for HostPattern {
    type Err = BadHostPattern;

    fn from_str(text: &str) -> Result<Self, BadHostPattern> {
        let (scheme, rest) = match text.split_once("://") {
            None => (Scheme::Https, text),
            Some(("https", rest)) => (Scheme::Https, rest),
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(_) => return Err(BadHostPattern::Scheme),
        };
        if rest.contains('/') {
            return Err(BadHostPattern::Path);
        }
        let (suffix, rest) = rest.strip_prefix("*.").map_or((false, rest), |rest| (true, rest));
        if rest.contains('*') {
            return Err(BadHostPattern::Wildcard);
        }
        let Target { host, port } = Target::parse_or(rest, scheme.default_port())?;
        if suffix && host.address().is_some() {
            return Err(BadHostPattern::Wildcard);
        }
        Ok(Self { host, suffix, scheme, port })
    }
}

/// The shortest text that parses to the pattern.
impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scheme == Scheme::Http {
            f.write_str("http://")?;
        }
        write!(f, "{}{}", if self.suffix { "*." } else { "" }, self.host)?;
        if self.port == self.scheme.default_port() { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        text.parse().expect("a pattern")
    }

    #[test]
    fn every_form_parses_and_prints() {
        for text in [
            "api.acme.test",
            "api.acme.test:8443",
            "*.acme.test",
            "*.acme.test:8443",
            "http://acme.test:8080",
            "http://acme.test",
            "[2001:db8::1]:8443",
            "10.0.0.1",
        ] {
            assert_eq!(pattern(text).to_string(), text);
        }
        assert_eq!(pattern("https://API.acme.test:443").to_string(), "api.acme.test");
        assert_eq!(pattern("http://acme.test").port, 80);
    }

    #[test]
    fn refuses_what_is_no_host() {
        for text in [
            "",
            "*",
            "*.",
            "a.*.test",
            "*a.test",
            "*.*.test",
            "*.1.2.3.4",
            "ftp://a.test",
            "a.test/v1",
            "a.test:0",
            "user@a.test",
            "a.test.",
            "http://",
            "://a.test",
        ] {
            assert!(text.parse::<HostPattern>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_suffix_names_what_is_below_it_and_not_itself() {
        let suffix = pattern("*.acme.test");
        for (host, named) in [
            ("a.acme.test", true),
            ("a.b.acme.test", true),
            ("acme.test", false),
            ("xacme.test", false),
            ("a.acme.test.evil", false),
        ] {
            assert_eq!(suffix.names(&Host::parse(host).expect("a host")), named, "{host}");
        }
    }

    #[test]
    fn public_suffixes_are_known() {
        for text in ["*.com", "*.co.uk", "*.github.io", "*.test", "com", "co.uk"] {
            assert!(pattern(text).is_public_suffix(), "{text}");
        }
        for text in ["*.acme.com", "*.acme.github.io", "*.acme.test", "intranet", "acme.com"] {
            assert!(!pattern(text).is_public_suffix(), "{text}");
        }
    }
}
