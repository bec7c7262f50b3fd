//! Grants: what a person writes with `--allow`, and the check that it becomes.
//!
//! `SERVICE[:OPERATION[,…]] [COLUMN=VALUE[,VALUE]]…`: `github:read repo=acme/widgets`,
//! `acme:read,write path=/v1/items method=GET,POST`, `acme:write body<=64k approval=ed25519/…`. All columns of a grant are
//! required, of a column's values one is enough. Several grants make one check, a row each.
//!
//! Deliberately absent: the reverse way. A check may say more than a grant can; [`super::inspect`] shows checks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::PublicKey;
use crate::request::{CanonicalPath, Facts, Host, Scheme};

mod datalog;
mod parse;

pub use datalog::{TooManyGrants, grants_to_check, rights_of};
pub use parse::GrantError;

/// The columns that every service has; any other name is a param that the service declares.
pub const COLUMNS: [&str; 8] = ["action", "scheme", "host", "port", "method", "path", "body", "approval"];
/// The service that stands for every public host that no other names.
pub const WEB: &str = "web";

/// One grant: a row of a check, and the rights that it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    service: String,
    /// None: every operation.
    operations: Vec<String>,
    columns: Vec<Column>,
}

/// One condition of a grant. Its values are alternatives, never none.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Column {
    Action(Vec<Pattern>),
    Scheme(Vec<Scheme>),
    Host(Vec<HostPattern>),
    Port(Vec<u16>),
    Method(Vec<String>),
    /// Canonical, without a trailing slash but for `/` itself.
    Path(Vec<String>),
    BodyMax(u64),
    Approval(PublicKey),
    Param(String, Vec<Pattern>),
}

impl Column {
    fn name(&self) -> &str {
        match self {
            Self::Action(_) => "action",
            Self::Scheme(_) => "scheme",
            Self::Host(_) => "host",
            Self::Port(_) => "port",
            Self::Method(_) => "method",
            Self::Path(_) => "path",
            Self::BodyMax(_) => "body",
            Self::Approval(_) => "approval",
            Self::Param(name, _) => name,
        }
    }
}

/// A value, or with a trailing `*` whatever starts like it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Is(String),
    StartsWith(String),
}

/// A host, or with a leading `*.` whatever lies below it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum HostPattern {
    Is(Host),
    Below(Host),
}

impl Grant {
    /// The service's name.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The narrowest grant of ordinary form that covers a request: its service and operation, with its params, or its
    /// path, or on `web` its host. Values that the grammar cannot write, or that are not plain ASCII, are left out.
    #[must_use]
    pub fn covering(facts: &Facts<'_>) -> Self {
        let mut columns = Vec::new();
        if facts.service == WEB {
            columns.push(Column::Host(vec![HostPattern::Is(facts.host.clone())]));
        }
        for (name, value) in facts.params.iter().filter(|(name, value)| is_plain(value) && !is_column(name)) {
            columns.push(Column::Param(name.to_string(), vec![Pattern::Is(value.to_string())]));
        }
        let path = facts.path.map(CanonicalPath::as_str).filter(|path| is_plain(path) && *path != "/");
        if let Some(path) = path.filter(|_| columns.is_empty()) {
            columns.push(Column::Path(vec![path.trim_end_matches('/').to_owned()]));
        }
        Self { service: facts.service.to_owned(), operations: vec![facts.operation.to_owned()], columns }
    }

    /// The operations, or none for every one.
    #[must_use]
    pub fn operations(&self) -> &[String] {
        &self.operations
    }
}

/// Which services there are, and which params each declares.
#[derive(Debug, Clone, Default)]
pub struct ParamNames {
    services: BTreeMap<String, BTreeSet<String>>,
    /// Service and param, where letter case means nothing: values are compared in lower case.
    ignore_case: BTreeSet<(String, String)>,
    any: bool,
}

impl ParamNames {
    /// Nothing but `web`, which declares no params.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every service with every param: for capabilities that are checked elsewhere.
    #[must_use]
    pub fn any() -> Self {
        Self { any: true, ..Self::default() }
    }

    /// Adds a service with its params.
    pub fn declare<I>(&mut self, service: &str, params: I)
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.services.entry(service.to_owned()).or_default().extend(params.into_iter().map(Into::into));
    }

    /// Says that a param's letter case means nothing to its service.
    pub fn ignore_case(&mut self, service: &str, param: &str) {
        self.ignore_case.insert((service.to_owned(), param.to_owned()));
    }

    fn folds(&self, service: &str, param: &str) -> bool {
        self.ignore_case.contains(&(service.to_owned(), param.to_owned()))
    }

    /// Whether there is a service of that name.
    #[must_use]
    pub fn knows(&self, service: &str) -> bool {
        self.any || service == WEB || self.services.contains_key(service)
    }

    fn declares(&self, service: &str, param: &str) -> bool {
        self.any || self.services.get(service).is_some_and(|params| params.contains(param))
    }

    fn params(&self, service: &str) -> impl Iterator<Item = &str> {
        self.services.get(service).into_iter().flatten().map(String::as_str)
    }
}

/// The canonical text; parsing it gives the same grant.
impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.service)?;
        if !self.operations.is_empty() {
            write!(f, ":{}", self.operations.join(","))?;
        }
        for column in &self.columns {
            write!(f, " {column}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = match self {
            Self::BodyMax(bytes) => return write!(f, "body<={}", Size(*bytes)),
            Self::Approval(key) => key.to_string(),
            Self::Action(values) | Self::Param(_, values) => joined(values),
            Self::Scheme(values) => joined(values),
            Self::Host(values) => joined(values),
            Self::Port(values) => joined(values),
            Self::Method(values) => values.join(","),
            Self::Path(values) => values.iter().map(|value| quoted(value)).collect::<Vec<_>>().join(","),
        };
        write!(f, "{}={values}", self.name())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(value) => f.write_str(&quoted(value)),
            Self::StartsWith(start) => f.write_str(&quoted(&format!("{start}*"))),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(host) => host.fmt(f),
            Self::Below(host) => write!(f, "*.{host}"),
        }
    }
}

/// A number of bytes with the largest suffix that divides it.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, suffix) in [(30, 'G'), (20, 'M'), (10, 'k')] {
            if self.0 != 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{suffix}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

fn joined<T: fmt::Display>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn is_column(name: &str) -> bool {
    COLUMNS.contains(&name)
}

/// Short enough to type, and nothing in it that a terminal or the grammar reads as something else.
fn is_plain(value: &str) -> bool {
    const PLAIN_BYTES_MAX: usize = 200;
    value.len() <= PLAIN_BYTES_MAX && value.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'*')
}

/// The value itself, or in double quotes where the grammar needs them.
fn quoted(value: &str) -> String {
    let plain = !value.is_empty() && !value.contains([' ', ',', '"', '\\']);
    if plain { value.to_owned() } else { format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")) }
}

#[cfg(test)]
mod tests;
