//! Which service a host and port belong to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Endpoint, Origin, Problem, Service, WEB};
use crate::capability::ParamNames;
use crate::request::{EncodedSlash, Host, Scheme};

/// The services in use: immutable, part of a configuration snapshot. A lookup allocates nothing and
/// costs a hash for the host, or one for each of its labels.
#[derive(Debug)]
pub struct Router {
    services: Vec<Arc<Service>>,
    exact: HashMap<Box<str>, Vec<Entry>>,
    /// Keyed without `*.`.
    suffix: HashMap<Box<str>, Vec<Entry>>,
    ports: HashSet<u16>,
    web: Arc<Service>,
}

#[derive(Debug)]
struct Entry {
    port: u16,
    scheme: Scheme,
    service: Arc<Service>,
    endpoint: Arc<Endpoint>,
}

/// What a destination is.
#[derive(Debug, Clone, Copy)]
pub enum Route<'a> {
    /// A service names it.
    Named(Named<'a>),
    /// A public host that no service names, on 443 with TLS or 80 without: the service `web`.
    Web(&'a Arc<Service>),
    /// Nothing serves it.
    None,
}

/// A destination that a service names.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// The service.
    pub service: &'a Arc<Service>,
    /// The endpoint among the service's.
    pub endpoint: &'a Arc<Endpoint>,
    /// Whether the host is named exactly, not by a suffix: only then may it stand for a private
    /// address that `allow_addresses` lists.
    pub exact: bool,
}

impl Router {
    /// Puts services together.
    ///
    /// # Errors
    /// Two services of one name, or two that name one host and port: every such pair.
    pub fn new(services: Vec<Service>) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let services: Vec<Arc<Service>> = number_endpoints(services).into_iter().map(Arc::new).collect();
        let mut names: HashMap<&str, &Service> = HashMap::new();
        for service in &services {
            if let Some(first) = names.insert(&service.name, service) {
                problems.push(conflict(service, first, format!("service \"{}\" is defined twice", service.name)));
            }
        }
        let mut router = Self {
            services: services.clone(),
            exact: HashMap::new(),
            suffix: HashMap::new(),
            ports: HashSet::new(),
            web: Arc::new(web()),
        };
        for service in &services {
            for endpoint in &service.endpoints {
                router.add(service, endpoint, &mut problems);
            }
        }
        if problems.is_empty() { Ok(router) } else { Err(problems) }
    }

    fn add(&mut self, service: &Arc<Service>, endpoint: &Arc<Endpoint>, problems: &mut Vec<Problem>) {
        for pattern in &endpoint.hosts {
            let map = if pattern.suffix { &mut self.suffix } else { &mut self.exact };
            let entries = map.entry(pattern.host.as_str().into()).or_default();
            if let Some(first) = entries.iter().find(|entry| entry.port == pattern.port) {
                let message = if Arc::ptr_eq(&first.service, service) {
                    format!("service \"{}\" names {pattern} twice", service.name)
                } else {
                    format!("\"{}\" and \"{}\" both name {pattern}", first.service.name, service.name)
                };
                problems.push(conflict(service, &first.service, message));
                continue;
            }
            self.ports.insert(pattern.port);
            entries.push(Entry {
                port: pattern.port,
                scheme: pattern.scheme,
                service: Arc::clone(service),
                endpoint: Arc::clone(endpoint),
            });
        }
    }

    /// Where a request to `scheme://host:port` belongs. A host that a service names is never `web`,
    /// on no port.
    #[must_use]
    pub fn route(&self, scheme: Scheme, host: &Host, port: u16) -> Route<'_> {
        match self.entry(host, port) {
            Some((entry, exact)) if entry.scheme == scheme => {
                Route::Named(Named { service: &entry.service, endpoint: &entry.endpoint, exact })
            }
            None if port == scheme.default_port() && self.is_public(host) => Route::Web(&self.web),
            Some(_) | None => Route::None,
        }
    }

    /// How the bytes inside a tunnel to `host:port` must be carried; `None` when nothing serves it.
    #[must_use]
    pub fn scheme_of(&self, host: &Host, port: u16) -> Option<Scheme> {
        if let Some((entry, _)) = self.entry(host, port) {
            return Some(entry.scheme);
        }
        let scheme = [Scheme::Https, Scheme::Http].into_iter().find(|scheme| scheme.default_port() == port)?;
        self.is_public(host).then_some(scheme)
    }

    /// Whether any destination on this port is served. If not, a CONNECT to it is refused as such.
    #[must_use]
    pub fn serves_port(&self, port: u16) -> bool {
        let web = [Scheme::Https, Scheme::Http].iter().any(|scheme| scheme.default_port() == port);
        web || self.ports.contains(&port)
    }

    /// The services in use, in the order of the files; `web` is not among them.
    #[must_use]
    pub fn services(&self) -> &[Arc<Service>] {
        &self.services
    }

    /// A service by its name, `web` among them.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Arc<Service>> {
        if name == WEB {
            return Some(&self.web);
        }
        self.services.iter().find(|service| *service.name == *name)
    }

    /// What grants may say about the services in use.
    #[must_use]
    pub fn param_names(&self) -> ParamNames {
        let mut names = ParamNames::new();
        for service in &self.services {
            names.declare(&service.name, service.params());
            for param in &service.ignore_case {
                names.ignore_case(&service.name, param);
            }
        }
        names
    }

    /// The longest pattern with this port: exact first, then suffixes from the longest.
    fn entry(&self, host: &Host, port: u16) -> Option<(&Entry, bool)> {
        if let Some(entry) = find(&self.exact, host.as_str(), port) {
            return Some((entry, true));
        }
        suffixes(host).find_map(|suffix| find(&self.suffix, suffix, port)).map(|entry| (entry, false))
    }

    /// A name with a dot that no service names on any port, or an address: whether that is public
    /// is for the dialler to say.
    fn is_public(&self, host: &Host) -> bool {
        let named =
            self.exact.contains_key(host.as_str()) || suffixes(host).any(|suffix| self.suffix.contains_key(suffix));
        !named && (host.address().is_some() || host.as_str().contains('.'))
    }
}

fn find<'r>(map: &'r HashMap<Box<str>, Vec<Entry>>, name: &str, port: u16) -> Option<&'r Entry> {
    map.get(name)?.iter().find(|entry| entry.port == port)
}

/// What follows each dot, the longest first; an address has none.
fn suffixes(host: &Host) -> impl Iterator<Item = &str> {
    let name = if host.address().is_some() { "" } else { host.as_str() };
    name.match_indices('.').filter_map(move |(at, _)| name.get(at + 1..))
}

/// Gives every endpoint its own number.
fn number_endpoints(mut services: Vec<Service>) -> Vec<Service> {
    for (index, endpoint) in services.iter_mut().flat_map(|service| &mut service.endpoints).enumerate() {
        let numbered = Endpoint {
            hosts: endpoint.hosts.clone(),
            injection: endpoint.injection.clone(),
            slots: endpoint.slots.clone(),
            index,
        };
        *endpoint = Arc::new(numbered);
    }
    services
}

fn conflict(service: &Service, first: &Service, message: String) -> Problem {
    Problem {
        file: (&*service.origin.file).into(),
        line: Some(service.origin.line),
        key: None,
        message,
        hint: Some(format!("the other one is at {}", first.defined_at())),
    }
}

fn web() -> Service {
    Service {
        name: WEB.into(),
        credential: None,
        terminate: true,
        encoded_slash: EncodedSlash::Refuse,
        answers: super::Answers::default(),
        endpoints: Vec::new(),
        rules: Vec::new(),
        ignore_case: Vec::new(),
        env: Vec::new(),
        tests: Vec::new(),
        origin: Origin { file: "built in".into(), line: 1 },
    }
}
