//! Reading a grant.

use super::{COLUMNS, Column, Grant, HostPattern, ParamNames, Pattern, WEB};
use crate::capability::InvalidKey;
use crate::capability::terms::{self, InvalidTerm};
use crate::request::{CanonicalPath, EncodedSlash, Host, Scheme};

/// A grant's text is at most this long.
const GRANT_BYTES_MAX: usize = 4096;
/// The name of a service, operation or param is at most this long.
const NAME_BYTES_MAX: usize = 64;
/// A column has at most this many values: as many paths as one check has room for.
const VALUES_MAX: usize = 32;

/// Why a text is not a grant. Each is a usage error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// Nothing, or more than 4 KiB.
    #[error("a grant reads SERVICE[:OPERATION,…] [COLUMN=VALUE,…]…, for example github:read repo=acme/widgets")]
    Form,
    /// A quote that is not closed, or text right behind a closed one.
    #[error("a quote in the grant is not closed, or something follows it")]
    Quote,
    /// A name with other characters than letters, digits, `.`, `_` and `-`.
    #[error("{0:?} is not a name")]
    Name(String),
    /// A service that is not configured.
    #[error("there is no service {name:?}{}", did_you_mean(.nearest.as_deref()))]
    UnknownService {
        /// As written.
        name: String,
        /// The known one that is spelled most like it.
        nearest: Option<String>,
    },
    /// Neither a column nor a param of the service.
    #[error("{name:?} is neither a column nor a parameter of {service}{}", did_you_mean(.nearest.as_deref()))]
    UnknownColumn {
        /// As written.
        name: String,
        /// The service of the grant.
        service: String,
        /// The known one that is spelled most like it.
        nearest: Option<String>,
    },
    /// A word that has no `=`.
    #[error("{0:?} is not COLUMN=VALUE")]
    NotAColumn(String),
    /// The same column twice: values go behind one, with commas.
    #[error("{0} is given twice; write its values with commas")]
    Repeated(String),
    /// A column without a value, or an empty one that is not quoted.
    #[error("{0}= has an empty value")]
    Empty(String),
    /// More than 32 values.
    #[error("{0}= has more than {VALUES_MAX} values")]
    TooManyValues(String),
    /// `<=` with another column, or `body` with another sign.
    #[error("sizes are written body<=64k, and body takes no other form")]
    Comparison,
    /// A value that the column does not take.
    #[error("{column}={value}: {problem}")]
    Value {
        /// The column.
        column: String,
        /// As written.
        value: String,
        /// What is wrong with it, in words.
        problem: &'static str,
    },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

impl Grant {
    /// Reads a grant.
    ///
    /// # Errors
    /// [`GrantError`], which says what to write instead.
    pub fn parse(text: &str, names: &ParamNames) -> Result<Self, GrantError> {
        if text.len() > GRANT_BYTES_MAX || text.chars().any(char::is_control) {
            return Err(GrantError::Form);
        }
        let mut words = split(text, ' ')?.into_iter().filter(|word| !word.is_empty());
        let subject = words.next().ok_or(GrantError::Form)?;
        let (service, operations) = parse_subject(subject)?;
        if !names.knows(&service) {
            let known = names.services.keys().map(String::as_str).chain([WEB]);
            return Err(GrantError::UnknownService { nearest: nearest(&service, known), name: service });
        }
        let mut columns: Vec<Column> = Vec::new();
        for word in words {
            let column = parse_column(word, &service, names)?;
            if columns.iter().any(|other| other.name() == column.name()) {
                return Err(GrantError::Repeated(column.name().to_owned()));
            }
            columns.push(column);
        }
        Ok(Self { service, operations, columns })
    }
}

fn parse_subject(subject: &str) -> Result<(String, Vec<String>), GrantError> {
    let (service, operations) = subject.split_once(':').map_or((subject, None), |(s, o)| (s, Some(o)));
    let service = parse_name(service)?;
    let mut unique = Vec::new();
    for operation in operations.into_iter().flat_map(|operations| operations.split(',')) {
        if operation == "*" && operations == Some("*") {
            break;
        }
        let operation = parse_name(operation)?;
        if !unique.contains(&operation) {
            unique.push(operation);
        }
    }
    if unique.len() > VALUES_MAX {
        return Err(GrantError::TooManyValues(service));
    }
    Ok((service, unique))
}

fn parse_name(name: &str) -> Result<String, GrantError> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !plain {
        return Err(GrantError::Name(name.to_owned()));
    }
    Ok(name.to_owned())
}

fn parse_column(word: &str, service: &str, names: &ParamNames) -> Result<Column, GrantError> {
    let (name, rest) = word.split_once('=').ok_or_else(|| GrantError::NotAColumn(word.to_owned()))?;
    let (name, at_most) = name.strip_suffix('<').map_or((name, false), |name| (name, true));
    parse_name(name)?;
    if !COLUMNS.contains(&name) && !names.declares(service, name) {
        let known = COLUMNS.into_iter().chain(names.params(service));
        let nearest = nearest(name, known);
        return Err(GrantError::UnknownColumn { name: name.to_owned(), service: service.to_owned(), nearest });
    }
    if at_most != (name == "body") {
        return Err(GrantError::Comparison);
    }
    let values = parse_values(name, rest)?;
    match name {
        "action" => Ok(Column::Action(each(name, values, parse_pattern)?)),
        "scheme" => Ok(Column::Scheme(each(name, values, parse_scheme)?)),
        "host" => Ok(Column::Host(each(name, values, parse_host)?)),
        "port" => Ok(Column::Port(each(name, values, parse_port)?)),
        "method" => Ok(Column::Method(each(name, values, parse_method)?)),
        "path" => Ok(Column::Path(each(name, values, parse_path)?)),
        "body" => Ok(Column::BodyMax(only(name, values, |size| {
            terms::parse_size(size).map_err(|InvalidTerm| "a size reads 65536, 64k, 10M or 1G")
        })?)),
        "approval" => Ok(Column::Approval(only(name, values, |key| {
            key.parse().map_err(|_: InvalidKey| "an approver is a public key, ed25519/<hex> or secp256r1/<hex>")
        })?)),
        _ => {
            let folds = names.folds(service, name);
            let values = values.into_iter().map(|value| if folds { value.to_ascii_lowercase() } else { value });
            Ok(Column::Param(name.to_owned(), each(name, values.collect(), parse_pattern)?))
        }
    }
}

/// The values behind a column, unquoted; at least one.
fn parse_values(name: &str, rest: &str) -> Result<Vec<String>, GrantError> {
    let parts = split(rest, ',')?;
    if parts.len() > VALUES_MAX {
        return Err(GrantError::TooManyValues(name.to_owned()));
    }
    parts
        .into_iter()
        .map(|part| match part {
            "" => Err(GrantError::Empty(name.to_owned())),
            part => unquote(part),
        })
        .collect()
}

fn each<T: PartialEq>(
    column: &str,
    values: Vec<String>,
    parse: impl Fn(&str) -> Result<T, &'static str>,
) -> Result<Vec<T>, GrantError> {
    let mut unique = Vec::new();
    for value in values {
        let parsed = parse(&value).map_err(|problem| invalid(column, value, problem))?;
        if !unique.contains(&parsed) {
            unique.push(parsed);
        }
    }
    Ok(unique)
}

fn only<T>(
    column: &str,
    values: Vec<String>,
    parse: impl Fn(&str) -> Result<T, &'static str>,
) -> Result<T, GrantError> {
    match <[String; 1]>::try_from(values) {
        Ok([value]) => parse(&value).map_err(|problem| invalid(column, value, problem)),
        Err(values) => Err(invalid(column, values.join(","), "one value only; write a second grant for another")),
    }
}

fn invalid(column: &str, value: String, problem: &'static str) -> GrantError {
    GrantError::Value { column: column.to_owned(), value, problem }
}

fn parse_pattern(value: &str) -> Result<Pattern, &'static str> {
    let (start, prefix) = value.strip_suffix('*').map_or((value, false), |start| (start, true));
    if start.contains('*') {
        return Err("a * means anything at the end of a value, and nothing else");
    }
    Ok(if prefix { Pattern::StartsWith(start.to_owned()) } else { Pattern::Is(start.to_owned()) })
}

fn parse_scheme(value: &str) -> Result<Scheme, &'static str> {
    [Scheme::Https, Scheme::Http].into_iter().find(|scheme| scheme.as_str() == value).ok_or("https or http")
}

fn parse_host(value: &str) -> Result<HostPattern, &'static str> {
    let (name, below) = value.strip_prefix("*.").map_or((value, false), |name| (name, true));
    let host = Host::parse(name).map_err(|_| "a host is a plain name or address; *.name is whatever lies below it")?;
    if below && host.address().is_some() {
        return Err("nothing lies below an address");
    }
    Ok(if below { HostPattern::Below(host) } else { HostPattern::Is(host) })
}

fn parse_port(value: &str) -> Result<u16, &'static str> {
    const PROBLEM: &str = "a port is a number from 1 to 65535";
    let plain = value.bytes().all(|b| b.is_ascii_digit()) && !value.starts_with('0');
    if plain { value.parse().map_err(|_| PROBLEM) } else { Err(PROBLEM) }
}

fn parse_method(value: &str) -> Result<String, &'static str> {
    let plain = value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if value.is_empty() || value.len() > NAME_BYTES_MAX || !plain {
        return Err("a method is a word such as GET");
    }
    Ok(value.to_ascii_uppercase())
}

fn parse_path(value: &str) -> Result<String, &'static str> {
    if value.contains('*') {
        return Err("a path covers all that lies below it; leave the * out");
    }
    let path = CanonicalPath::parse(value, EncodedSlash::Opaque)
        .map_err(|_| "a path starts with / and has no dot segments, empty segments or needless escapes")?;
    let path = path.as_str();
    Ok(if path == "/" { path } else { path.trim_end_matches('/') }.to_owned())
}

/// Cuts at each separator outside quotes; the parts keep their quotes.
fn split(text: &str, separator: char) -> Result<Vec<&str>, GrantError> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if c == separator && !quoted => {
                parts.push(text.get(start..at).unwrap_or_default());
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    if quoted {
        return Err(GrantError::Quote);
    }
    parts.push(text.get(start..).unwrap_or_default());
    Ok(parts)
}

/// A bare value as it is, a quoted one without its quotes and escapes. Quotes inside a bare value are an error.
fn unquote(part: &str) -> Result<String, GrantError> {
    let Some(inner) = part.strip_prefix('"') else {
        return if part.contains('"') { Err(GrantError::Quote) } else { Ok(part.to_owned()) };
    };
    let mut value = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    loop {
        match characters.next() {
            Some('"') => break,
            Some('\\') => match characters.next() {
                Some(c @ ('"' | '\\')) => value.push(c),
                _ => return Err(GrantError::Quote),
            },
            Some(c) => value.push(c),
            None => return Err(GrantError::Quote),
        }
    }
    if characters.next().is_some() { Err(GrantError::Quote) } else { Ok(value) }
}

/// The known name that is spelled most like this one, if any comes close.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    const CLOSE: f64 = 0.75;
    known
        .map(|other| (strsim::jaro_winkler(name, other), other))
        .filter(|(likeness, _)| *likeness >= CLOSE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, other)| other.to_owned())
}
