//! A `[[service.route]]`: which requests it is about, and what it says about them.

use std::borrow::Cow;
use std::sync::Arc;

use super::document::{Field, Table};
use super::path_pattern::is_capture_name;
use super::{HostPattern, PathPattern};
use crate::credential::{TokenNames, query};
use crate::request::{CanonicalPath, Host};

/// In a route's `method`: the opening request of a WebSocket.
const WEBSOCKET: &str = "WEBSOCKET";
/// An operation's or action's name is at most this long.
const WORD_BYTES_MAX: usize = 64;
/// Names that a grant uses for other things than params.
const RESERVED_PARAMS: [&str; 11] =
    ["action", "scheme", "host", "port", "method", "path", "body", "approval", "operation", "service", "time"];

/// A request, as far as routes look at it.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// As sent.
    pub method: &'a str,
    /// The canonical host; a route with `host` needs it.
    pub host: &'a Host,
    /// `None` for an ambiguous path on `web`: then no route matches.
    pub path: Option<&'a CanonicalPath>,
    /// The query as sent, without `?`.
    pub query: Option<&'a str>,
    /// `Upgrade: websocket`.
    pub websocket: bool,
    /// Whether the request has or may have a body: anything but a known length of 0.
    pub body: bool,
}

impl Call<'_> {
    /// The operation where no route says otherwise (`docs/services.md`, "Operations").
    #[must_use]
    pub fn default_operation(&self) -> &'static str {
        match self.method {
            _ if self.websocket => "write",
            "GET" | "HEAD" | "OPTIONS" => "read",
            "DELETE" => "delete",
            _ => "write",
        }
    }
}

/// One route. It matches when all that it names holds.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    /// Empty: every method.
    methods: Vec<Box<str>>,
    host: Option<HostPattern>,
    /// Empty: every path. Else any one of these.
    paths: Vec<PathPattern>,
    query: Vec<QueryCondition>,
    operation: Option<Box<str>>,
    action: Option<Box<str>>,
    params: Vec<Param>,
    tokens: Option<Arc<TokenNames>>,
}

#[derive(Debug, Clone)]
struct QueryCondition {
    name: Box<str>,
    value: QueryValue,
}

#[derive(Debug, Clone)]
enum QueryValue {
    Is(Box<str>),
    Capture(Box<str>),
}

#[derive(Debug, Clone)]
struct Param {
    name: Box<str>,
    template: Vec<Part>,
}

#[derive(Debug, Clone)]
enum Part {
    Text(Box<str>),
    Capture(Box<str>),
}

/// A route's finding about one request: the pattern that matched, if the route has patterns.
pub(crate) struct Match<'r> {
    path: Option<&'r PathPattern>,
}

impl Rule {
    /// Whether this route settles operation and action. One that only gives params does not: later
    /// routes are still asked.
    pub(crate) fn decides(&self) -> bool {
        self.operation.is_some() || self.action.is_some()
    }

    pub(crate) fn action(&self) -> Option<&str> {
        self.action.as_deref()
    }

    /// The operation that the route says.
    pub(crate) fn said_operation(&self) -> Option<&str> {
        self.operation.as_deref()
    }

    /// What members of the answer hold a fresh token.
    pub(crate) fn tokens(&self) -> Option<&Arc<TokenNames>> {
        self.tokens.as_ref()
    }

    /// The operation for a request that matched. A WebSocket that the route did not name is not
    /// quietly a read.
    pub(crate) fn operation(&self, call: &Call<'_>) -> Option<&str> {
        let operation = self.operation.as_deref()?;
        let unnamed = call.websocket && !self.methods.iter().any(|m| **m == *WEBSOCKET);
        Some(if unnamed && operation == "read" { "write" } else { operation })
    }

    pub(crate) fn param_names(&self) -> impl Iterator<Item = &str> {
        self.params.iter().map(|param| &*param.name)
    }

    pub(crate) fn host(&self) -> Option<&HostPattern> {
        self.host.as_ref()
    }

    pub(crate) fn matches(&self, call: &Call<'_>, path: Option<&[&str]>) -> Option<Match<'_>> {
        if !self.takes_method(call) || self.host.as_ref().is_some_and(|host| !host.names(call.host)) {
            return None;
        }
        let pattern = match (self.paths.is_empty(), path) {
            (true, _) => None,
            (false, None) => return None,
            (false, Some(path)) => Some(self.paths.iter().find(|pattern| pattern.matches(path))?),
        };
        self.query.iter().all(|condition| condition.holds(call.query)).then_some(Match { path: pattern })
    }

    fn takes_method(&self, call: &Call<'_>) -> bool {
        // A server that reads `post` as POST must not slip a request past the route that is about POST.
        let listed = |method: &str| self.methods.iter().any(|m| m.eq_ignore_ascii_case(method));
        if self.methods.is_empty() {
            return true;
        }
        if call.websocket {
            return listed(WEBSOCKET);
        }
        listed(call.method) || (call.method.eq_ignore_ascii_case("HEAD") && listed("GET"))
    }

    /// The route's params and their values; `None` for one that this request does not give in a
    /// form with a single meaning.
    pub(crate) fn extract(
        &self,
        found: &Match<'_>,
        call: &Call<'_>,
        path: Option<&[&str]>,
    ) -> impl Iterator<Item = (&str, Option<String>)> {
        self.params.iter().map(move |param| {
            let capture = |name: &str| self.captured(name, found, call, path);
            (&*param.name, param.value(capture))
        })
    }

    fn captured<'p>(
        &self,
        name: &str,
        found: &Match<'_>,
        call: &Call<'p>,
        path: Option<&[&'p str]>,
    ) -> Option<Cow<'p, str>> {
        if let Some(raw) = found.path.zip(path).and_then(|(pattern, path)| pattern.capture(name, path)) {
            return decode_segment(raw);
        }
        // A server may read the same name from a form in the body, which nobody has looked at.
        let condition = self.query.iter().find(|c| matches!(&c.value, QueryValue::Capture(n) if **n == *name))?;
        if call.body { None } else { condition.value_in(call.query).map(Cow::Owned) }
    }
}

impl QueryCondition {
    fn holds(&self, query: Option<&str>) -> bool {
        match (&self.value, self.value_in(query)) {
            (_, None) => false,
            (QueryValue::Is(wanted), Some(value)) => **wanted == value,
            (QueryValue::Capture(_), Some(value)) => !value.is_empty(),
        }
    }

    /// The decoded value when the name is there exactly once, in whatever spelling.
    fn value_in(&self, query: Option<&str>) -> Option<String> {
        let folded = query::fold(self.name.as_bytes());
        let mut same = query::pieces(query?).filter(|piece| query::fold(&query::decode(piece.name())) == folded);
        let piece = same.next()?;
        if same.next().is_some() || query::decode(piece.name()) != self.name.as_bytes() {
            return None;
        }
        String::from_utf8(query::decode(piece.value())).ok().filter(|value| is_plain(value))
    }
}

impl Param {
    fn value<'p>(&self, capture: impl Fn(&str) -> Option<Cow<'p, str>>) -> Option<String> {
        let composed = self.template.len() > 1;
        let mut value = String::new();
        for part in &self.template {
            match part {
                Part::Text(text) => value.push_str(text),
                Part::Capture(name) => {
                    let captured = capture(name)?;
                    // `{a}/{b}` with a slash inside `a` would have two readings.
                    if composed && captured.contains('/') {
                        return None;
                    }
                    value.push_str(&captured);
                }
            }
        }
        Some(value)
    }
}

/// A segment decoded, when that has a single meaning: UTF-8, no control character, and no dot or
/// empty part between the slashes that an opaque `%2F` becomes.
fn decode_segment(raw: &str) -> Option<Cow<'_, str>> {
    if !raw.contains('%') {
        return Some(Cow::Borrowed(raw));
    }
    let decoded = percent_encoding::percent_decode_str(raw).decode_utf8().ok()?;
    let plain_parts = decoded.split('/').all(|part| !matches!(part, "" | "." | ".."));
    (is_plain(&decoded) && plain_parts).then_some(decoded)
}

fn is_plain(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// Reads a `[[service.route]]`; its problems go to the table's document.
pub(crate) fn read(table: Table<'_, '_>) -> Option<Rule> {
    let mut reader = Reader { table, sound: true };
    let methods = reader.methods();
    let host = reader.table.parsed("host").map(|field: Field<HostPattern>| field.value);
    let paths = reader.paths();
    let query = reader.query();
    let operation = reader.word("operation");
    let action = reader.word("action");
    let params = reader.params(&paths, &query);
    let tokens = reader.tokens();
    if operation.is_none() && action.is_none() && params.is_empty() && tokens.is_none() {
        reader.table.problem("a route says nothing: give `operation`, `action`, `params` or `tokens`", None);
        reader.sound = false;
    }
    let Reader { table, sound } = reader;
    table.finish();
    sound.then_some(Rule { methods, host, paths, query, operation, action, params, tokens })
}

struct Reader<'d, 'a> {
    table: Table<'d, 'a>,
    sound: bool,
}

impl Reader<'_, '_> {
    fn fault(&mut self, key: &str, at: std::ops::Range<usize>, message: impl std::fmt::Display) {
        self.table.problem_at(key, at, message);
        self.sound = false;
    }

    /// An empty list would match everything, which is what leaving the key out says.
    fn refuse_empty(&mut self, key: &str, empty: bool) {
        if empty && self.sound && self.table.has(key) {
            self.fault(key, self.table.at(), "the list is empty; leave the key out to match everything");
        }
    }

    fn methods(&mut self) -> Vec<Box<str>> {
        let mut methods = Vec::new();
        for method in self.table.texts("method") {
            let plain = !method.value.is_empty() && method.value.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
            if plain {
                methods.push(method.value.into());
            } else {
                self.fault("method", method.at, "a method is upper-case letters, such as GET");
            }
        }
        self.refuse_empty("method", methods.is_empty());
        methods
    }

    fn paths(&mut self) -> Vec<PathPattern> {
        let mut paths: Vec<PathPattern> = Vec::new();
        for path in self.table.texts("path") {
            match path.value.parse() {
                Ok(pattern) => paths.push(pattern),
                Err(error) => self.fault("path", path.at, error),
            }
        }
        self.refuse_empty("path", paths.is_empty());
        paths
    }

    fn query(&mut self) -> Vec<QueryCondition> {
        let mut query = Vec::new();
        for (name, value) in self.table.text_map("query") {
            let capture = value.value.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            let value = match capture {
                Some(capture) if is_capture_name(capture) => QueryValue::Capture(capture.into()),
                None if !value.value.contains(['{', '}']) => QueryValue::Is(value.value.into()),
                Some(_) | None => {
                    self.fault("query", value.at, "a value is a text, or one `{name}` and nothing else");
                    continue;
                }
            };
            query.push(QueryCondition { name: name.value.into(), value });
        }
        query
    }

    fn word(&mut self, key: &'static str) -> Option<Box<str>> {
        let word = self.table.text(key)?;
        if is_word(word.value) && word.value != "*" && (key != "operation" || word.value != "tunnel") {
            return Some(word.value.into());
        }
        self.fault(key, word.at, "a name is letters, digits, `.`, `_` and `-`, and no reserved word");
        None
    }

    /// `["token"]`: what the answer calls its fresh tokens, besides what OAuth calls them.
    fn tokens(&mut self) -> Option<Arc<TokenNames>> {
        let mut names = TokenNames::oauth();
        let given = self.table.texts("tokens");
        if given.is_empty() && self.sound && self.table.has("tokens") {
            self.fault("tokens", self.table.at(), "the list is empty; leave the key out");
        }
        for name in &given {
            match names.clone().with(name.value) {
                Ok(more) => names = more,
                Err(error) => self.fault("tokens", name.at.clone(), error),
            }
        }
        (!given.is_empty()).then(|| Arc::new(names))
    }

    /// Every capture is a param of its own name, unless it starts with `_`; `params` composes others
    /// and wins where names meet.
    fn params(&mut self, paths: &[PathPattern], query: &[QueryCondition]) -> Vec<Param> {
        let captured = |name: &str| {
            let in_query = query.iter().any(|c| matches!(&c.value, QueryValue::Capture(n) if **n == *name));
            in_query || (!paths.is_empty() && paths.iter().all(|path| path.names().any(|n| n == name)))
        };
        let mut params: Vec<Param> = Vec::new();
        for (name, template) in self.table.text_map("params") {
            let Some(parts) = parse_template(template.value) else {
                self.fault("params", template.at, "a param is text with `{name}` in it");
                continue;
            };
            let missing = parts.iter().find_map(|part| match part {
                Part::Capture(capture) if !captured(capture) => Some(capture.clone()),
                Part::Capture(_) | Part::Text(_) => None,
            });
            if let Some(missing) = missing {
                let message = format!("no path or query of this route captures `{{{missing}}}` in every case");
                self.fault("params", template.at, message);
            } else if self.is_param_name(&name) {
                params.push(Param { name: name.value.into(), template: parts });
            }
        }
        let from_query = query.iter().filter_map(|c| match &c.value {
            QueryValue::Capture(name) => Some(&**name),
            QueryValue::Is(_) => None,
        });
        let names: Vec<&str> = paths.iter().flat_map(PathPattern::names).chain(from_query).collect();
        for name in names {
            let taken = name.starts_with('_') || params.iter().any(|param| *param.name == *name);
            if !taken && self.is_param_name(&Field { value: name, at: self.table.at() }) {
                params.push(Param { name: name.into(), template: vec![Part::Capture(name.into())] });
            }
        }
        params
    }

    fn is_param_name(&mut self, name: &Field<&str>) -> bool {
        let good = is_capture_name(name.value) && !name.value.starts_with('_');
        if !good {
            self.fault("params", name.at.clone(), "a param's name is lower-case letters, digits and `_`");
        } else if RESERVED_PARAMS.contains(&name.value) {
            let message = format!("`{0}` means something else in a grant; call it `_{0}` or otherwise", name.value);
            self.fault("params", name.at.clone(), message);
        }
        good && !RESERVED_PARAMS.contains(&name.value)
    }
}

fn parse_template(mut rest: &str) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    while let Some((text, tail)) = rest.split_once('{') {
        if !text.is_empty() {
            parts.push(Part::Text(text.into()));
        }
        let (name, tail) = tail.split_once('}')?;
        if !is_capture_name(name) {
            return None;
        }
        parts.push(Part::Capture(name.into()));
        rest = tail;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.into()));
    }
    let whole = parts.iter().all(|part| !matches!(part, Part::Text(text) if text.contains('}')));
    (whole && !parts.is_empty()).then_some(parts)
}

/// A name that a grant can hold: `[A-Za-z0-9._-]`, 1 to 64.
pub(crate) fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= WORD_BYTES_MAX
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}
