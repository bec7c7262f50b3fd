//! A `[[service]]` as a person writes it, before it is known to be whole.

use std::ops::Range;
use std::sync::Arc;

use super::document::{Field, Table, TextOrPair};
use super::rule::{self, Rule, is_word};
use super::test_row::{self, TestRow};
use super::{Answers, Endpoint, EnvValue, HostPattern, Origin, Problem, SaidAnswers, Service, Tokens, WEB};
use crate::credential::{BadInjection, Injection, SecretName, Shape, Slot, Slots};
use crate::request::{EncodedSlash, Scheme};

/// What `encoded_slash` may say.
const ENCODED_SLASH: [(&str, EncodedSlash); 2] = [("refuse", EncodedSlash::Refuse), ("opaque", EncodedSlash::Opaque)];
/// What `tokens` may say.
const TOKENS: [(&str, Tokens); 3] = [("seal", Tokens::Seal), ("routes", Tokens::Routes), ("pass", Tokens::Pass)];

/// One `[[service]]`, read. [`Definition::build`] makes a [`Service`] of it.
#[derive(Debug, Clone)]
pub struct Definition {
    name: Arc<str>,
    origin: Origin,
    docs: Option<Box<str>>,
    credential: Option<SecretName>,
    suggested_credential: Option<SecretName>,
    terminate: bool,
    encoded_slash: EncodedSlash,
    answers: Answers,
    endpoints: Vec<EndpointDefinition>,
    strip: Vec<Slot>,
    rules: Vec<Rule>,
    ignore_case: Vec<Box<str>>,
    env: Vec<(Box<str>, EnvValue)>,
    tests: Vec<TestRow>,
}

#[derive(Debug, Clone, Default)]
struct EndpointDefinition {
    hosts: Vec<HostPattern>,
    inject: Option<Injection>,
    strip: Vec<Slot>,
}

/// A `[[service]]` of a file that may build on another definition.
pub(crate) struct Overlay {
    own: Definition,
    extends: Option<Field<Box<str>>>,
    /// The flat `hosts`, `inject`; what is not given comes from the base.
    flat: EndpointDefinition,
    has_endpoints: bool,
    terminate: Option<bool>,
    encoded_slash: Option<EncodedSlash>,
    answers: SaidAnswers,
    at: Range<usize>,
}

/// `hosts` or `inject` on top of a definition with several endpoints: which one is meant?
pub(crate) struct SeveralEndpoints;

/// What an overlay turned out to be.
pub(crate) enum MadeOf {
    /// All its own.
    Itself,
    /// Another definition, by this name, with changes.
    Base(Box<str>),
    /// It gives no hosts, and no definition of its name does.
    Nothing,
}

impl Definition {
    /// The service's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The vendor's documentation that the definition was checked against.
    #[must_use]
    pub fn docs(&self) -> Option<&str> {
        self.docs.as_deref()
    }

    /// The credential's name that `capctl service add` writes when none is given.
    #[must_use]
    pub fn suggested_credential(&self) -> Option<&SecretName> {
        self.suggested_credential.as_ref()
    }

    /// The definition with a credential of this name, or with none.
    #[must_use]
    pub fn with_credential(mut self, credential: Option<SecretName>) -> Self {
        self.credential = credential;
        self
    }

    /// Makes the service, or says everything that keeps it from being one.
    ///
    /// # Errors
    /// All problems, each at the definition's line.
    pub fn build(&self) -> Result<Service, Vec<Problem>> {
        let problems = self.problems();
        if !problems.is_empty() {
            return Err(problems);
        }
        let endpoints = self.endpoints.iter().map(|endpoint| Arc::new(self.endpoint(endpoint)));
        Ok(Service {
            name: Arc::clone(&self.name),
            credential: self.credential.clone(),
            terminate: self.terminate,
            encoded_slash: self.encoded_slash,
            answers: self.answers,
            endpoints: endpoints.collect(),
            rules: self.rules.clone(),
            ignore_case: self.ignore_case.clone(),
            env: self.env.clone(),
            tests: self.tests.clone(),
            origin: self.origin.clone(),
        })
    }

    fn endpoint(&self, endpoint: &EndpointDefinition) -> Endpoint {
        let hosts = endpoint.hosts.clone();
        if self.credential.is_none() {
            return Endpoint { hosts, injection: None, slots: Slots::none(), index: 0 };
        }
        let strip = [&*self.strip, &*endpoint.strip, &*self.header_slots()].concat();
        let slots = Slots::new(endpoint.inject.as_ref(), &strip);
        Endpoint { hosts, injection: endpoint.inject.clone(), slots, index: 0 }
    }

    /// The headers that any endpoint's credential goes into or that it strips: removed at every one, also where nothing
    /// is injected. Query names stay with their endpoint, because a signed download address may use the same.
    fn header_slots(&self) -> Vec<Slot> {
        let mut slots = Vec::new();
        for endpoint in &self.endpoints {
            if let Some(Injection::Header { name, .. }) = &endpoint.inject {
                slots.push(Slot::Header(name.clone()));
            }
            slots.extend(endpoint.strip.iter().filter(|slot| matches!(slot, Slot::Header(_))).cloned());
        }
        slots
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut fault = |message: String, hint: Option<&str>| {
            let (file, line) = (&*self.origin.file, self.origin.line);
            let message = format!("service \"{}\": {message}", self.name);
            let hint = hint.map(Into::into);
            problems.push(Problem { file: file.into(), line: Some(line), key: None, message, hint });
        };
        let injects = self.endpoints.iter().any(|endpoint| endpoint.inject.is_some());
        let strips = !self.strip.is_empty() || self.endpoints.iter().any(|endpoint| !endpoint.strip.is_empty());
        if *self.name == *WEB {
            fault("the name `web` is reserved for every host that no service names".into(), None);
        }
        if self.endpoints.is_empty() || self.endpoints.iter().any(|endpoint| endpoint.hosts.is_empty()) {
            fault("it has no hosts".into(), Some("add `hosts = [\"api.example.com\"]`"));
        }
        match &self.credential {
            Some(name) if !injects && self.terminate => {
                let hint = "add `inject = \"Authorization: Bearer {secret}\"`";
                fault(format!("credential \"{name}\" goes nowhere"), Some(hint));
            }
            None if injects && self.suggested_credential.is_none() => {
                fault("it says where a credential goes, but not which".into(), Some("add `credential = \"NAME\"`"));
            }
            None if strips && self.suggested_credential.is_none() => {
                let message = "`strip` does nothing without a credential: the agent's own login passes";
                fault(message.into(), Some("add `credential = \"NAME\"` or remove `strip`"));
            }
            Some(_) | None => {}
        }
        if !self.terminate && (self.credential.is_some() || !self.rules.is_empty()) {
            let message = "a plain tunnel (`terminate = false`) has no requests to route or to inject into";
            fault(message.into(), Some("remove `credential` and the routes, or `terminate`"));
        }
        for pattern in self.endpoints.iter().flat_map(|endpoint| &endpoint.hosts) {
            if pattern.scheme == Scheme::Http && !self.terminate {
                fault(format!("{pattern} is not TLS, so there is nothing to leave unterminated"), None);
            }
            if self.credential.is_some() && pattern.scheme == Scheme::Http {
                fault(format!("a credential never goes over clear text, but {pattern} is http"), None);
            }
            if self.credential.is_some() && pattern.is_public_suffix() {
                fault(format!("{pattern} belongs to more than one owner; no credential may go there"), None);
            }
        }
        for host in self.rules.iter().filter_map(Rule::host) {
            let mut own = self.endpoints.iter().flat_map(|endpoint| &endpoint.hosts);
            if !own.any(|pattern| pattern.names(&host.host) || (pattern.suffix && pattern.host == host.host)) {
                fault(format!("a route is about {host}, which is not one of its hosts"), None);
            }
        }
        let declared: Vec<&str> = self.rules.iter().flat_map(Rule::param_names).collect();
        for name in self.ignore_case.iter().filter(|name| !declared.contains(&&***name)) {
            fault(format!("`ignore_case` names \"{name}\", which no route gives"), None);
        }
        problems
    }
}

impl Overlay {
    /// Reads one `[[service]]`. Its problems go to the table's document; without a name there is
    /// nothing to go on with.
    pub(crate) fn read(mut table: Table<'_, '_>, file: &Arc<str>) -> Option<Self> {
        let name = read_name(&mut table);
        let label = name.as_ref().map_or("?", |name| name.value);
        table.rename(format!("[[service]] \"{label}\""));
        let at = table.at();
        let origin = Origin { file: Arc::clone(file), line: table.document().line(at.start) };
        let flat = read_endpoint(&mut table);
        let endpoints = read_endpoints(&mut table, label, &flat);
        let has_endpoints = !endpoints.is_empty();
        let terminate = table.flag("terminate").map(|field| field.value);
        let encoded_slash = read_word(&mut table, "encoded_slash", &ENCODED_SLASH);
        let answers = SaidAnswers {
            ranges: table.flag("ranges").map(|field| field.value),
            unreadable: read_word(&mut table, "unreadable", &[("refuse", false), ("pass", true)]),
            tokens: read_word(&mut table, "tokens", &TOKENS),
            raw_json: read_word(&mut table, "raw_json", &[("seal", false), ("pass", true)]),
        };
        let own = Definition {
            name: label.into(),
            docs: table.text("docs").map(|docs| docs.value.into()),
            credential: table.parsed("credential").map(|field| field.value),
            suggested_credential: table.parsed("suggested_credential").map(|field| field.value),
            terminate: terminate.unwrap_or(true),
            encoded_slash: encoded_slash.unwrap_or_default(),
            answers: Answers::default().with(answers),
            endpoints,
            strip: flat.strip.clone(),
            rules: read_rules(&mut table, label),
            ignore_case: table.texts("ignore_case").into_iter().map(|name| name.value.into()).collect(),
            env: read_env(&mut table, label),
            tests: test_row::read(&mut table, label, &origin),
            origin,
        };
        let extends = table.text("extends").map(|field| Field { value: field.value.into(), at: field.at });
        table.finish();
        name?;
        Some(Self { own, extends, flat, has_endpoints, terminate, encoded_slash, answers, at })
    }

    pub(crate) fn name(&self) -> &str {
        &self.own.name
    }

    /// Which definition this one builds on: what `extends` names, or the one of the same name when
    /// it gives no hosts of its own.
    pub(crate) fn made_of(&self, known: impl Fn(&str) -> bool) -> MadeOf {
        match &self.extends {
            Some(base) => MadeOf::Base(base.value.clone()),
            None if self.has_hosts() => MadeOf::Itself,
            None if known(&self.own.name) => MadeOf::Base((&*self.own.name).into()),
            None => MadeOf::Nothing,
        }
    }

    /// The definition when nothing is extended.
    pub(crate) fn alone(mut self) -> Definition {
        if !self.has_endpoints {
            let flat = EndpointDefinition { strip: Vec::new(), ..self.flat };
            self.own.endpoints = if flat.hosts.is_empty() { Vec::new() } else { vec![flat] };
        }
        self.own
    }

    /// The definition on top of another: what is given here wins, routes come first, `strip`, `env`
    /// and `ignore_case` add up. The credential is this one's alone.
    pub(crate) fn over(self, base: &Definition) -> Result<Definition, SeveralEndpoints> {
        let mut made = base.clone();
        let own = self.own;
        if self.has_endpoints {
            made.endpoints = own.endpoints;
        } else if let [only] = &mut *made.endpoints {
            if !self.flat.hosts.is_empty() {
                only.hosts = self.flat.hosts;
            }
            only.inject = self.flat.inject.or(only.inject.take());
        } else if !self.flat.hosts.is_empty() || self.flat.inject.is_some() {
            return Err(SeveralEndpoints);
        }
        if own.name != made.name {
            // The rows were written for the base's hosts.
            made.tests = Vec::new();
        }
        made.name = own.name;
        made.origin = own.origin;
        made.docs = own.docs.or(made.docs);
        made.credential = own.credential;
        made.suggested_credential = own.suggested_credential.or(made.suggested_credential);
        made.terminate = self.terminate.unwrap_or(made.terminate);
        made.encoded_slash = self.encoded_slash.unwrap_or(made.encoded_slash);
        made.answers = made.answers.with(self.answers);
        made.strip.extend(own.strip);
        made.rules.splice(0..0, own.rules);
        made.ignore_case.extend(own.ignore_case);
        made.env.retain(|(name, _)| !own.env.iter().any(|(new, _)| new == name));
        made.env.extend(own.env);
        made.tests.extend(own.tests);
        Ok(made)
    }

    /// Where the definition it builds on is named: its own place, unless `extends` says so.
    pub(crate) fn base_at(&self) -> Range<usize> {
        self.extends.as_ref().map_or(&self.at, |field| &field.at).clone()
    }

    fn has_hosts(&self) -> bool {
        self.has_endpoints || !self.flat.hosts.is_empty()
    }
}

fn read_name<'d>(table: &mut Table<'d, '_>) -> Option<Field<&'d str>> {
    let Some(name) = table.text("name") else {
        if !table.has("name") {
            table.problem("a [[service]] has no `name`", None);
        }
        return None;
    };
    if is_word(name.value) {
        return Some(name);
    }
    table.problem_at("name", name.at, "a service's name is 1 to 64 letters, digits, `.`, `_` or `-`");
    None
}

fn read_endpoint(table: &mut Table<'_, '_>) -> EndpointDefinition {
    let mut hosts = Vec::new();
    for host in table.texts("hosts") {
        match host.value.parse() {
            Ok(pattern) => hosts.push(pattern),
            Err(error) => {
                table.problem_at("hosts", host.at, format_args!("\"{}\": {error}", host.value.escape_default()));
            }
        }
    }
    let inject = read_injection(table);
    let mut strip = Vec::new();
    for slot in table.texts("strip") {
        match Slot::parse(slot.value) {
            Ok(slot) => strip.push(slot),
            Err(error) => table.problem_at("strip", slot.at, error),
        }
    }
    EndpointDefinition { hosts, inject, strip }
}

fn read_endpoints(table: &mut Table<'_, '_>, service: &str, flat: &EndpointDefinition) -> Vec<EndpointDefinition> {
    let mut endpoints = Vec::new();
    for mut endpoint in table.tables("endpoint", &format!("[[service.endpoint]] of \"{service}\"")) {
        let read = read_endpoint(&mut endpoint);
        if !endpoint.has("hosts") {
            endpoint.problem("a [[service.endpoint]] has no `hosts`", None);
        }
        endpoint.finish();
        endpoints.push(read);
    }
    if !endpoints.is_empty() && (!flat.hosts.is_empty() || flat.inject.is_some()) {
        let message = format!("service \"{service}\" has both [[service.endpoint]] and `hosts` or `inject` of its own");
        table.problem(message, Some("move them into an endpoint"));
    }
    endpoints
}

fn read_injection(table: &mut Table<'_, '_>) -> Option<Injection> {
    let inject = table.text_or_pair("inject")?;
    let parsed: Result<Injection, BadInjection> = match inject.value {
        TextOrPair::Text(template) => Injection::header(template),
        TextOrPair::Pair("basic", user) => Injection::basic(user),
        TextOrPair::Pair("query", name) => Injection::query(name),
        TextOrPair::Pair(..) => {
            let forms = "expected \"Header: …{secret}\", { basic = \"user\" } or { query = \"name\" }";
            table.problem_at("inject", inject.at, forms);
            return None;
        }
    };
    parsed.map_err(|error| table.problem_at("inject", inject.at, error)).ok()
}

/// One of these words.
fn read_word<T: Copy>(table: &mut Table<'_, '_>, key: &'static str, words: &[(&str, T)]) -> Option<T> {
    let field = table.text(key)?;
    if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == field.value) {
        return Some(*meaning);
    }
    let words: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
    table.problem_at(key, field.at, format_args!("expected {}", words.join(" or ")));
    None
}

fn read_rules(table: &mut Table<'_, '_>, service: &str) -> Vec<Rule> {
    let tables = table.tables("route", &format!("[[service.route]] of \"{service}\""));
    tables.into_iter().filter_map(rule::read).collect()
}

/// `NAME = "ghp_{36}"` is a placeholder of that shape; a value without braces is itself.
fn read_env(table: &mut Table<'_, '_>, service: &str) -> Vec<(Box<str>, EnvValue)> {
    let mut env = Vec::new();
    for (name, value) in table.text_map("env") {
        let plain = !name.value.is_empty() && name.value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !plain {
            let message = format!("[service.env] of \"{service}\": a variable's name is letters, digits and `_`");
            table.problem_at("env", name.at, message);
            continue;
        }
        if !value.value.contains(['{', '}']) {
            env.push((name.value.into(), EnvValue::Text(value.value.into())));
            continue;
        }
        match value.value.parse::<Shape>() {
            Ok(shape) => env.push((name.value.into(), EnvValue::Placeholder(shape))),
            Err(error) => table.problem_at("env", value.at, error),
        }
    }
    env
}
