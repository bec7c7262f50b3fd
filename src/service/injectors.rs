//! The injectors of one configuration snapshot: every endpoint's place, filled with its secret once, and what must not come
//! back from there.

use std::sync::Arc;

use super::{Answers, Endpoint, Router, Service, Tokens};
use crate::credential::{Injection, Injector, Known, Patterns, Secret, SecretName, TokenNames};

/// What goes into a request to an endpoint.
#[derive(Debug, Clone, Copy)]
pub enum Binding<'a> {
    /// Nothing: the endpoint takes no credential.
    Nothing,
    /// The secret, ready.
    Ready(&'a Injector),
    /// A credential that the store does not have: the request must be refused
    /// (`secret_unavailable`), never sent without.
    Missing(&'a SecretName),
}

/// One entry for each endpoint of a [`Router`]; belongs to that router alone.
#[derive(Debug)]
pub struct Injectors(Vec<Bound>);

#[derive(Debug)]
struct Bound {
    endpoint: Arc<Endpoint>,
    secret: Option<SecretName>,
    injector: Option<Injector>,
    scrubbing: Option<Scrubbing>,
}

/// How answers from an endpoint are scrubbed.
#[derive(Debug, Clone)]
pub struct Scrubbing {
    /// What must not come back.
    pub patterns: Arc<Patterns>,
    /// What may come back unscanned. Where the credential does not go, anything.
    pub answers: Answers,
    /// What members of an OAuth answer hold a fresh token.
    pub oauth: Arc<TokenNames>,
    /// The name of the service.
    pub service: Arc<str>,
}

/// A value that the upstreams of a service may know, and how it came to them.
#[derive(Debug, Clone)]
pub struct Used {
    /// Of which credential it is or was the value.
    pub name: SecretName,
    /// The value.
    pub secret: Arc<Secret>,
    /// Where it went in, where that changes its form.
    pub injections: Vec<Injection>,
}

impl Used {
    /// The value that goes into a service's requests now, if there is one.
    #[must_use]
    pub fn now(service: &Service, secret: impl Fn(&SecretName) -> Option<Arc<Secret>>) -> Option<Self> {
        let name = service.credential()?.clone();
        let secret = secret(&name)?;
        let mut used = Self { name, secret, injections: Vec::new() };
        used.add(service.endpoints().iter().filter_map(|endpoint| endpoint.injection()));
        Some(used)
    }

    /// Adds ways in which it went in.
    pub fn add<'i>(&mut self, injections: impl IntoIterator<Item = &'i Injection>) {
        for injection in injections {
            if !matches!(injection, Injection::Header { .. }) && !self.injections.contains(injection) {
                self.injections.push(injection.clone());
            }
        }
    }
}

impl Injectors {
    /// Fills every place. `secret` is asked once for each endpoint with an injection.
    pub fn new(router: &Router, secret: impl Fn(&SecretName) -> Option<Arc<Secret>>) -> Self {
        Self::with_known(router, &secret, |service| Used::now(service, &secret).into_iter().collect())
    }

    /// The same, where upstreams may still know other values than the one that goes in: `known` gives them all.
    pub fn with_known(
        router: &Router,
        secret: impl Fn(&SecretName) -> Option<Arc<Secret>>,
        known: impl Fn(&Service) -> Vec<Used>,
    ) -> Self {
        let oauth = Arc::new(TokenNames::oauth());
        let mut bound = Vec::new();
        for service in router.services() {
            let known = known(service);
            let known: Vec<Known<'_>> =
                known.iter().map(|used| Known { secret: &used.secret, injections: &used.injections }).collect();
            let patterns = Patterns::of(&known, service.placeholder().as_deref()).map(Arc::new);
            for endpoint in service.endpoints() {
                let place = endpoint.injection().zip(service.credential());
                let injector = place.and_then(|(injection, name)| Injector::new(injection, &*secret(name)?).ok());
                let secret = place.map(|(_, name)| name.clone());
                let answers = if secret.is_some() {
                    service.answers()
                } else {
                    Answers { ranges: true, unreadable: true, tokens: Tokens::Routes, raw_json: true }
                };
                let scrubbing = patterns.as_ref().map(|patterns| Scrubbing {
                    patterns: Arc::clone(patterns),
                    answers,
                    oauth: Arc::clone(&oauth),
                    service: Arc::clone(service.name()),
                });
                bound.push(Bound { endpoint: Arc::clone(endpoint), secret, injector, scrubbing });
            }
        }
        Self(bound)
    }

    /// What goes into a request to `endpoint`. `None` when the endpoint is of another snapshot's
    /// router: nothing may be sent then.
    #[must_use]
    pub fn binding(&self, endpoint: &Arc<Endpoint>) -> Option<Binding<'_>> {
        let bound = self.0.get(endpoint.index).filter(|bound| Arc::ptr_eq(&bound.endpoint, endpoint))?;
        Some(match (&bound.secret, &bound.injector) {
            (None, _) => Binding::Nothing,
            (Some(_), Some(injector)) => Binding::Ready(injector),
            (Some(name), None) => Binding::Missing(name),
        })
    }

    /// How answers from `endpoint` are scrubbed; `None` where there is no secret that could come back, or when the
    /// endpoint is of another snapshot's router.
    #[must_use]
    pub fn scrubbing(&self, endpoint: &Arc<Endpoint>) -> Option<&Scrubbing> {
        let bound = self.0.get(endpoint.index).filter(|bound| Arc::ptr_eq(&bound.endpoint, endpoint))?;
        bound.scrubbing.as_ref()
    }

    /// The credentials that no secret was found for, sorted.
    #[must_use]
    pub fn missing(&self) -> Vec<&SecretName> {
        let without = self.0.iter().filter(|bound| bound.injector.is_none());
        let mut names: Vec<&SecretName> = without.filter_map(|bound| bound.secret.as_ref()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}
