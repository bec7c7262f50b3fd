//! The path patterns of routes: by segment, with captures.

use std::fmt;
use std::str::FromStr;

/// A pattern is at most this many segments: a canonical path has no more than its bytes, and nobody
/// writes more by hand.
const SEGMENTS_MAX: usize = 32;

/// Why a text is no path pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPathPattern {
    /// Does not start with `/`.
    #[error("a path pattern starts with `/`")]
    NotAbsolute,
    /// More than 32 segments.
    #[error("a path pattern has at most {SEGMENTS_MAX} segments")]
    TooLong,
    /// `**` that is not the whole last segment.
    #[error("`**` stands only as the last segment")]
    Tail,
    /// Braces that do not pair, two captures in a segment, or `*` beside other text.
    #[error("a segment is text, `*`, or text around one `{{name}}`")]
    Segment,
    /// A capture's name is not `[a-z_][a-z0-9_]*`.
    #[error("a name in braces is lower-case letters, digits and `_`")]
    Name,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    Any,
    Capture { before: Box<str>, name: Box<str>, after: Box<str> },
}

/// `/repos/{owner}/{repo}/**`: `*` and `{name}` are one segment that is not empty, a last `**` is any
/// number of further segments, none included. Text beside a capture must be there:
/// `/{owner}/{repo}.git/info/refs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    segments: Vec<Segment>,
    open_ended: bool,
}

impl PathPattern {
    /// Whether the segments of a canonical path match.
    #[must_use]
    pub fn matches(&self, path: &[&str]) -> bool {
        let fits = if self.open_ended { path.len() >= self.segments.len() } else { path.len() == self.segments.len() };
        fits && self.segments.iter().zip(path).all(|(segment, text)| segment.matches(text))
    }

    /// What a capture took from a path that matches.
    #[must_use]
    pub fn capture<'p>(&self, name: &str, path: &[&'p str]) -> Option<&'p str> {
        self.segments.iter().zip(path).find_map(|(segment, text)| segment.capture(name, text))
    }

    /// The names of the captures.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Capture { name, .. } => Some(&**name),
            Segment::Literal(_) | Segment::Any => None,
        })
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, BadPathPattern> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let Some((before, rest)) = text.split_once('{') else {
            let plain = !text.contains(['}', '*']);
            return if plain { Ok(Self::Literal(text.into())) } else { Err(BadPathPattern::Segment) };
        };
        let (name, after) = rest.split_once('}').ok_or(BadPathPattern::Segment)?;
        if before.contains(['}', '*']) || after.contains(['{', '}', '*']) {
            return Err(BadPathPattern::Segment);
        }
        if !is_capture_name(name) {
            return Err(BadPathPattern::Name);
        }
        Ok(Self::Capture { before: before.into(), name: name.into(), after: after.into() })
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Literal(literal) => **literal == *text,
            Self::Any => !text.is_empty(),
            Self::Capture { before, after, .. } => {
                between(text, before, after).is_some_and(|captured| !captured.is_empty())
            }
        }
    }

    fn capture<'p>(&self, wanted: &str, text: &'p str) -> Option<&'p str> {
        match self {
            Self::Capture { before, name, after } if **name == *wanted => between(text, before, after),
            Self::Literal(_) | Self::Any | Self::Capture { .. } => None,
        }
    }
}

fn between<'p>(text: &'p str, before: &str, after: &str) -> Option<&'p str> {
    text.strip_prefix(before)?.strip_suffix(after)
}

/// `[a-z_][a-z0-9_]*`, at most 32 bytes.
pub(crate) fn is_capture_name(name: &str) -> bool {
    name.len() <= 32
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

impl FromStr for PathPattern {
    type Err = BadPathPattern;

    fn from_str(text: &str) -> Result<Self, BadPathPattern> {
        let rest = text.strip_prefix('/').ok_or(BadPathPattern::NotAbsolute)?;
        let (rest, open_ended) = match rest.strip_suffix("**") {
            Some("") => return Ok(Self { segments: Vec::new(), open_ended: true }),
            Some(rest) => (rest.strip_suffix('/').ok_or(BadPathPattern::Tail)?, true),
            None => (rest, false),
        };
        let segments: Vec<Segment> = rest
            .split('/')
            .map(|segment| if segment == "**" { Err(BadPathPattern::Tail) } else { Segment::parse(segment) })
            .collect::<Result<_, _>>()?;
        if segments.len() > SEGMENTS_MAX {
            return Err(BadPathPattern::TooLong);
        }
        let mut names: Vec<&str> = Vec::new();
        for segment in &segments {
            if let Segment::Capture { name, .. } = segment {
                if names.contains(&&**name) {
                    return Err(BadPathPattern::Name);
                }
                names.push(name);
            }
        }
        Ok(Self { segments, open_ended })
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::Any => f.write_str("/*")?,
                Segment::Capture { before, name, after } => write!(f, "/{before}{{{name}}}{after}")?,
            }
        }
        if self.open_ended { f.write_str("/**") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        pattern.parse::<PathPattern>().expect("a pattern").matches(&segments)
    }

    #[test]
    fn matches_by_segment() {
        for (pattern, path, expected) in [
            ("/", "/", true),
            ("/", "/a", false),
            ("/**", "/", true),
            ("/**", "/a/b/", true),
            ("/a", "/a", true),
            ("/a", "/a/", false),
            ("/a", "/ab", false),
            ("/a/*", "/a/b", true),
            ("/a/*", "/a/", false),
            ("/a/*", "/a/b/c", false),
            ("/a/**", "/a", true),
            ("/a/**", "/a/", true),
            ("/a/**", "/a/b/c", true),
            ("/a/**", "/ab", false),
            ("/{o}/{r}.git/info/refs", "/acme/w.git/info/refs", true),
            ("/{o}/{r}.git/info/refs", "/acme/.git/info/refs", false),
            ("/{o}/{r}.git/info/refs", "/acme/w/info/refs", false),
            ("/v1/models/{m}:generateContent", "/v1/models/gemini-pro:generateContent", true),
            ("/v1/models/{m}:generateContent", "/v1/models/gemini-pro:generateContents", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn captures_what_stands_between() {
        let pattern: PathPattern = "/{owner}/{repo}.git/**".parse().expect("a pattern");
        let path = ["acme", "w.git.git", "info"];
        assert_eq!(pattern.capture("repo", &path), Some("w.git"));
        assert_eq!(pattern.capture("owner", &path), Some("acme"));
        assert_eq!(pattern.capture("other", &path), None);
        assert_eq!(pattern.to_string(), "/{owner}/{repo}.git/**");
    }

    #[test]
    fn refuses_what_is_no_pattern() {
        for (text, class) in [
            ("", BadPathPattern::NotAbsolute),
            ("a", BadPathPattern::NotAbsolute),
            ("/**/a", BadPathPattern::Tail),
            ("/a**", BadPathPattern::Tail),
            ("/a*", BadPathPattern::Segment),
            ("/{a}{b}", BadPathPattern::Segment),
            ("/{a", BadPathPattern::Segment),
            ("/a}", BadPathPattern::Segment),
            ("/{}", BadPathPattern::Name),
            ("/{A}", BadPathPattern::Name),
            ("/{a}/{a}", BadPathPattern::Name),
        ] {
            assert_eq!(text.parse::<PathPattern>(), Err(class), "{text:?}");
        }
        assert_eq!("/a".repeat(33).parse::<PathPattern>(), Err(BadPathPattern::TooLong));
    }
}
