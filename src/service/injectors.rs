//! The injectors of one configuration snapshot: every endpoint's place, filled with its secret once, and what must not come
//! back from there.

use std::sync::Arc;

use super::{Answers, Endpoint, Router, Tokens};
use crate::credential::{Injector, Patterns, Secret, SecretName, TokenNames};

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

impl Injectors {
    /// Fills every place. `secret` is asked once for each endpoint with an injection.
    pub fn new(router: &Router, secret: impl Fn(&SecretName) -> Option<Arc<Secret>>) -> Self {
        Self::with_known(router, &secret, |name| secret(name).into_iter().collect())
    }

    /// The same, where upstreams may still know other values than the one that goes in: `known` gives them all.
    pub fn with_known(
        router: &Router,
        secret: impl Fn(&SecretName) -> Option<Arc<Secret>>,
        known: impl Fn(&SecretName) -> Vec<Arc<Secret>>,
    ) -> Self {
        let oauth = Arc::new(TokenNames::oauth());
        let mut bound = Vec::new();
        for service in router.services() {
            let known = service.credential().map(&known).unwrap_or_default();
            let known: Vec<&Secret> = known.iter().map(|secret| &**secret).collect();
            let placeholder = service.placeholder();
            for endpoint in service.endpoints() {
                let place = endpoint.injection().zip(service.credential());
                let injector = place.and_then(|(injection, name)| Injector::new(injection, &*secret(name)?).ok());
                let secret = place.map(|(_, name)| name.clone());
                let patterns = Patterns::new(&known, endpoint.injection(), placeholder.as_deref());
                let answers = if secret.is_some() {
                    service.answers()
                } else {
                    Answers { ranges: true, unreadable: true, tokens: Tokens::Routes, raw_json: true }
                };
                let scrubbing = patterns.map(|patterns| Scrubbing {
                    patterns: Arc::new(patterns),
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
