//! The injectors of one configuration snapshot: every endpoint's place, filled with its secret once.

use std::sync::Arc;

use super::{Endpoint, Router};
use crate::credential::{Injector, Secret, SecretName};

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
}

impl Injectors {
    /// Fills every place. `secret` is asked once for each endpoint with an injection.
    pub fn new(router: &Router, mut secret: impl FnMut(&SecretName) -> Option<Arc<Secret>>) -> Self {
        let mut bound = Vec::new();
        for service in router.services() {
            for endpoint in service.endpoints() {
                let place = endpoint.injection().zip(service.credential());
                let injector = place.and_then(|(injection, name)| Injector::new(injection, &*secret(name)?).ok());
                let secret = place.map(|(_, name)| name.clone());
                bound.push(Bound { endpoint: Arc::clone(endpoint), secret, injector });
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
