//! Services: which host belongs to which, where its credential goes, and what a request to it means.
//!
//! A service comes from the built-in [`catalogue()`], from `services.d/`, or from `narrows.toml`; the
//! [`Router`] holds those that are in use. Everything here is pure. Deliberately absent: secrets'
//! values (an [`Injectors`] is given them), addresses and dialling (`net`), the files (`config`), and
//! any look into a body: what a route says comes from method, host, path and query alone.

mod catalogue;
mod definition;
pub(crate) mod document;
mod host_pattern;
mod injectors;
mod path_pattern;
mod problem;
mod router;
mod rule;
mod test_row;

use std::borrow::Cow;
use std::sync::Arc;

use crate::credential::{Injection, SecretName, Shape, Slots, TokenNames, placeholder};
use crate::request::{EncodedSlash, Host, Text};

pub use catalogue::{Catalogue, catalogue};
pub use definition::Definition;
pub(crate) use definition::{MadeOf, Overlay};
pub use host_pattern::{BadHostPattern, HostPattern};
pub use injectors::{Binding, Injectors, Scrubbing, Used};
pub use path_pattern::{BadPathPattern, PathPattern};
pub use problem::Problem;
pub use router::{Named, Route, Router};
pub use rule::Call;
pub use test_row::TestRow;

use rule::Rule;

/// The reserved service: every public host that no other service names.
pub const WEB: &str = "web";

/// The operations of a service none of whose routes says another.
pub(crate) const OPERATIONS: [&str; 3] = ["read", "write", "delete"];

/// A named upstream. Made from a [`Definition`] alone, so what is inconsistent does not exist.
#[derive(Debug)]
pub struct Service {
    name: Arc<str>,
    credential: Option<SecretName>,
    terminate: bool,
    encoded_slash: EncodedSlash,
    answers: Answers,
    endpoints: Vec<Arc<Endpoint>>,
    rules: Vec<Rule>,
    ignore_case: Vec<Box<str>>,
    env: Vec<(Box<str>, EnvValue)>,
    tests: Vec<TestRow>,
    origin: Origin,
}

/// Hosts of a service that share where the credential goes.
#[derive(Debug)]
pub struct Endpoint {
    hosts: Vec<HostPattern>,
    injection: Option<Injection>,
    slots: Slots,
    /// Its place among all endpoints of its router.
    index: usize,
}

/// What may come back from a service with a credential although it cannot be scanned for the secret whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answers {
    /// Parts of an answer (RFC 9110 §14): two of them may each carry half of a secret.
    pub ranges: bool,
    /// Answers in a coding that cannot be taken off.
    pub unreadable: bool,
    /// Where fresh tokens are taken out.
    pub tokens: Tokens,
    /// What calls itself `raw+json` is a file as it lies in the service, which passes with the tokens that are in it.
    pub raw_json: bool,
}

/// Which answers fresh tokens are taken out of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tokens {
    /// Those that look like an OAuth answer, and those to requests whose route names members.
    #[default]
    Seal,
    /// Only those to requests whose route names members.
    Routes,
    /// None.
    Pass,
}

/// What a definition says of [`Answers`].
#[derive(Debug, Clone, Copy, Default)]
struct SaidAnswers {
    ranges: Option<bool>,
    unreadable: Option<bool>,
    tokens: Option<Tokens>,
    raw_json: Option<bool>,
}

impl Answers {
    /// These, but for what is said anew.
    fn with(self, said: SaidAnswers) -> Self {
        Self {
            ranges: said.ranges.unwrap_or(self.ranges),
            unreadable: said.unreadable.unwrap_or(self.unreadable),
            tokens: said.tokens.unwrap_or(self.tokens),
            raw_json: said.raw_json.unwrap_or(self.raw_json),
        }
    }
}

/// Where a service is defined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) file: Arc<str>,
    pub(crate) line: usize,
}

/// What a variable of the child's environment is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EnvValue {
    Placeholder(Shape),
    Text(Box<str>),
}

/// What a request means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classified<'s> {
    /// `read`, `write`, `delete`, `tunnel`, or what the service's route says.
    pub operation: &'s str,
    /// The name of the route that decided; absent when none did.
    pub action: Option<&'s str>,
    /// Each name at most once; a param without a single meaning is absent.
    pub params: Vec<(Text, Text)>,
    /// What members of the answer hold a fresh token, by the first matching route that says so.
    pub tokens: Option<&'s Arc<TokenNames>>,
}

impl Service {
    /// The service's name, as in grants and in the journal.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The name of the secret that is injected; `None`: the agent's own login passes.
    #[must_use]
    pub fn credential(&self) -> Option<&SecretName> {
        self.credential.as_ref()
    }

    /// Whether TLS is terminated. If not, the only operation is `tunnel`.
    #[must_use]
    pub fn terminate(&self) -> bool {
        self.terminate
    }

    /// How `%2F` in a path is taken.
    #[must_use]
    pub fn encoded_slash(&self) -> EncodedSlash {
        self.encoded_slash
    }

    /// What may come back unscanned from where the credential goes.
    #[must_use]
    pub fn answers(&self) -> Answers {
        self.answers
    }

    /// What clients hold in the secret's place, if they need anything there.
    #[must_use]
    pub fn placeholder(&self) -> Option<String> {
        self.env.iter().find_map(|(_, value)| match value {
            EnvValue::Placeholder(shape) => Some(placeholder(&self.name, shape)),
            EnvValue::Text(_) => None,
        })
    }

    /// The endpoints; `web` has none.
    #[must_use]
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Where the service is defined, `narrows.toml:12`.
    #[must_use]
    pub fn defined_at(&self) -> String {
        format!("{}:{}", self.origin.file, self.origin.line)
    }

    /// What a request means: the first route that settles operation or action does so; a param is
    /// given by the first matching route that declares it.
    #[must_use]
    pub fn classify(&self, call: &Call<'_>) -> Classified<'_> {
        if !self.terminate {
            return Classified { operation: "tunnel", action: None, params: Vec::new(), tokens: None };
        }
        if self.rules.is_empty() {
            return Classified { operation: call.default_operation(), action: None, params: Vec::new(), tokens: None };
        }
        let path: Option<Vec<&str>> = call.path.map(|path| path.segments().collect());
        let path = path.as_deref();
        let mut settled = (call.default_operation(), None);
        let mut tokens = None;
        let mut params: Vec<(&str, Option<String>)> = Vec::new();
        for rule in &self.rules {
            let Some(found) = rule.matches(call, path) else { continue };
            for (name, value) in rule.extract(&found, call, path) {
                // A name that one route could not read stays absent: no broader route may guess it.
                if !params.iter().any(|(known, _)| *known == name) {
                    params.push((name, value));
                }
            }
            tokens = tokens.or(rule.tokens());
            if rule.decides() {
                settled = (rule.operation(call).unwrap_or(settled.0), rule.action());
                break;
            }
        }
        let params = params.into_iter().filter_map(|(name, value)| {
            let value = value?;
            Some((name.into(), self.canonical_param(name, &value).into()))
        });
        Classified { operation: settled.0, action: settled.1, params: params.collect(), tokens }
    }

    /// A param's value in the one form that is compared: lower case where the upstream ignores case.
    /// What a grant says goes through here too.
    #[must_use]
    pub fn canonical_param<'v>(&self, name: &str, value: &'v str) -> Cow<'v, str> {
        let fold = self.ignore_case.iter().any(|n| **n == *name) && value.bytes().any(|b| b.is_ascii_uppercase());
        if fold { Cow::Owned(value.to_ascii_lowercase()) } else { Cow::Borrowed(value) }
    }

    /// The names of the params that the service's routes declare, sorted.
    #[must_use]
    pub fn params(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.rules.iter().flat_map(Rule::param_names).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The names of the service's actions, sorted.
    #[must_use]
    pub fn actions(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.rules.iter().filter_map(Rule::action).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The names of the operations that a request to the service can mean, sorted.
    #[must_use]
    pub fn operations(&self) -> Vec<&str> {
        if !self.terminate {
            return vec!["tunnel"];
        }
        let said = self.rules.iter().filter_map(Rule::said_operation);
        let mut names: Vec<&str> = OPERATIONS.into_iter().chain(said).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The variables that make clients of this service work without a secret: placeholders of the
    /// right shape, and fixed texts. None for a service without a credential.
    #[must_use]
    pub fn env(&self) -> Vec<(&str, String)> {
        if self.credential.is_none() {
            return Vec::new();
        }
        let value = |value: &EnvValue| match value {
            EnvValue::Placeholder(shape) => placeholder(&self.name, shape),
            EnvValue::Text(text) => text.to_string(),
        };
        self.env.iter().map(|(name, of)| (&**name, value(of))).collect()
    }

    /// Runs the `[[service.test]]` rows; each row that does not hold is a problem.
    #[must_use]
    pub fn failed_tests(&self) -> Vec<Problem> {
        self.tests.iter().filter_map(|row| row.check(self)).collect()
    }

    /// The endpoint that names a host exactly or by suffix, whatever the port.
    pub(crate) fn endpoint_of(&self, host: &Host) -> Option<&Arc<Endpoint>> {
        let named = |suffix: bool| {
            let names = move |p: &HostPattern| p.suffix == suffix && p.names(host);
            self.endpoints.iter().find(|e| e.hosts.iter().any(names))
        };
        named(false).or_else(|| named(true))
    }
}

impl Endpoint {
    /// The hosts.
    #[must_use]
    pub fn hosts(&self) -> &[HostPattern] {
        &self.hosts
    }

    /// Where the credential goes; `None`: none goes to these hosts.
    #[must_use]
    pub fn injection(&self) -> Option<&Injection> {
        self.injection.as_ref()
    }

    /// What is removed from a request first. Empty on a service without a credential.
    #[must_use]
    pub fn slots(&self) -> &Slots {
        &self.slots
    }
}

#[cfg(test)]
mod tests;
