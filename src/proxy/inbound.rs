//! inbound: what a request asks for, decided once. Everything later reads it from here.

use std::sync::Arc;

use http::header::{self, HeaderMap};
use http::uri::PathAndQuery;
use http::{Method, Request, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;

use super::exchange::{Exchange, Opening, Refused};
use super::hop;
use super::respond::{Refusal, Style};
use super::tunnel::Tunnel;
use super::view::View;
use crate::audit::Event;
use crate::clock::UnixSeconds;
use crate::credential::{SecretName, Slots, Stripped, TokenNames, Unwritable};
use crate::net::guard::{ReadHead, Refused as RefusedMessage};
use crate::policy::Code;
use crate::request::{CanonicalPath, Facts, Target, Text};
use crate::service::{Call, Endpoint, Named, Route, Service, WEB};

/// The name of nobody, and of nothing.
const UNKNOWN: &str = "";

/// Who serves the target.
pub(super) enum Served {
    Named {
        service: Arc<Service>,
        endpoint: Arc<Endpoint>,
        /// Whether the host is named exactly, not by a suffix.
        exact: bool,
    },
    Web,
    Nobody,
}

/// What one request asks for, as policy sees it.
pub(super) struct Ask {
    meaning: Meaning,
    pub(super) method: Option<Method>,
    pub(super) path: Option<CanonicalPath>,
    /// For its query.
    came: PathAndQuery,
    body_size: Option<u64>,
    websocket: bool,
}

/// What the request means to its service, by the service's routes.
struct Meaning {
    /// Unknown of a message that was refused unread.
    operation: Option<Text>,
    action: Option<Text>,
    params: Vec<(Text, Text)>,
    tokens: Option<Arc<TokenNames>>,
}

/// A request that says where it goes and what it wants without contradiction, on its journal line.
pub(super) struct Inbound {
    pub(super) exchange: Box<Exchange>,
    pub(super) request: Request<Incoming>,
    pub(super) path_and_query: PathAndQuery,
    pub(super) stripped: Stripped,
    pub(super) websocket: bool,
}

impl Inbound {
    pub(super) fn read(tunnel: Arc<Tunnel>, mut request: Request<Incoming>) -> Result<Self, Refused> {
        let (style, version) = (Style::of(request.headers()), request.version());
        let websocket = wants_websocket(&request);
        let view = tunnel.view();
        let fault = fault(&tunnel, &view, &request).err();
        let served = view.served();
        let path = CanonicalPath::parse(request.uri().path(), served.encoded_slash());
        // On `web`, where nothing is injected and no path is matched, the path is the server's own affair.
        let ambiguous = path.as_ref().err().filter(|_| !matches!(served, Served::Web)).copied();
        let mut path_and_query = sent(request.uri(), path.as_ref().ok());
        let stripped = served.strip(request.headers_mut(), &mut path_and_query);
        let ask = Ask::new(served, &tunnel, &request, path.ok(), websocket);
        let foreign = stripped.is_ok_and(|stripped| stripped.foreign());
        // What was stripped as a credential is no parent of a span.
        let trace = tunnel.who.proxy.traces.begin(request.headers());
        let opening = Opening { tunnel, view, ask, style, version, foreign, event: Event::Request, trace };
        let exchange = Exchange::open(opening)?;
        let ambiguous = ambiguous.map(|error| Refusal::new(Code::PathAmbiguous, error.to_string()));
        if let Some(refusal) = fault.or(ambiguous) {
            let dead = exchange.dead().map(|dead| if refusal.close { dead.closing() } else { dead });
            return Err(exchange.refuse(dead.unwrap_or(refusal)));
        }
        let Ok(stripped) = stripped else {
            return Err(exchange.refuse(Refusal::new(Code::Framing, "the request's target is too long")));
        };
        Ok(Self { exchange, request, path_and_query, stripped, websocket })
    }
}

/// Refuses a message in whose place the guard released a stand-in. Its line has what was read of it; the stand-in says
/// nothing.
pub(super) fn refuse(tunnel: Arc<Tunnel>, refused: &RefusedMessage) -> Refused {
    let view = tunnel.view();
    let ask = Ask::refused(view.served(), refused.read.as_ref());
    let style = refused.read.as_ref().map_or(Style::Problem, |read| Style::of(&read.headers));
    // A message that has no one reading has no parent.
    let trace = tunnel.who.proxy.traces.begin(&HeaderMap::new());
    let (version, event) = (Version::HTTP_11, Event::Request);
    let opening = Opening { tunnel, view, ask, style, version, foreign: false, event, trace };
    match Exchange::open(opening) {
        Ok(exchange) => {
            let refusal = exchange.dead().unwrap_or_else(|| unframed(refused));
            exchange.refuse(refusal.closing())
        }
        Err(refused) => refused.closing(),
    }
}

/// What a message is told that has not one framing.
pub(super) fn unframed(refused: &RefusedMessage) -> Refusal {
    Refusal::new(Code::Framing, refused.violation.to_string()).closing()
}

/// The target that goes upstream: with the path that policy matched, byte for byte, and the query as it came.
fn sent(uri: &Uri, path: Option<&CanonicalPath>) -> PathAndQuery {
    let came = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let Some(path) = path.filter(|path| path.as_str() != came.path()) else { return came };
    let query = came.query().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}{query}", path.as_str()).parse().unwrap_or(came)
}

/// What is wrong with a request before anybody asks who sends it.
fn fault(tunnel: &Tunnel, view: &View, request: &Request<Incoming>) -> Result<(), Refusal> {
    // Methods are case-sensitive (RFC 9110 §9.1), but not to every server.
    let is = |method: &str| request.method().as_str().eq_ignore_ascii_case(method);
    if is("CONNECT") {
        return Err(Refusal::new(Code::Framing, "CONNECT inside a tunnel").closing());
    }
    if is("TRACE") || is("TRACK") {
        let refusal = Refusal::new(Code::CapabilityDenied, "TRACE is never allowed");
        return Err(refusal.hint("capctl explain --cap FILE GET URL, with another method"));
    }
    same_destination(tunnel, view, request).map_err(Refusal::closing)
}

/// Every name in the request must be the tunnel's (RFC 9110 §7.4).
fn same_destination(tunnel: &Tunnel, view: &View, request: &Request<Incoming>) -> Result<(), Refusal> {
    let misdirected = |detail: &str| Refusal::new(Code::Misdirected, detail);
    let uri = request.uri();
    if uri.scheme_str().is_some_and(|scheme| scheme != tunnel.scheme.as_str()) {
        return Err(misdirected("the request's scheme is not the tunnel's"));
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next().map(|value| value.to_str().unwrap_or_default());
    if hosts.next().is_some() {
        return Err(misdirected("the request has more than one Host"));
    }
    let authority = uri.authority().map(http::uri::Authority::as_str);
    if host.is_none() && authority.is_none() && request.version() >= Version::HTTP_11 {
        return Err(misdirected("the request names no host"));
    }
    let default_port = tunnel.scheme.default_port();
    for named in [host, authority].into_iter().flatten() {
        // Mostly it is spelled as we would; other spellings of the same name are read.
        if view.host().is_some_and(|host| *host == *named) {
            continue;
        }
        if Target::parse_or(named, default_port).as_ref() != Ok(&tunnel.target) {
            return Err(misdirected("the request names another host or port than its tunnel"));
        }
    }
    Ok(())
}

/// A WebSocket's opening handshake (RFC 6455 §4.1). Any other `Upgrade` is removed and the request goes
/// on as if it had none.
fn wants_websocket(request: &Request<Incoming>) -> bool {
    let mut upgrades = request.headers().get_all(header::UPGRADE).iter();
    let websocket = upgrades.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    websocket
        && upgrades.next().is_none()
        && request.version() == Version::HTTP_11
        && *request.method() == Method::GET
        && request.body().is_end_stream()
        && hop::connection_has(request.headers(), "upgrade")
}

impl Ask {
    fn new(
        served: &Served,
        tunnel: &Tunnel,
        request: &Request<Incoming>,
        path: Option<CanonicalPath>,
        websocket: bool,
    ) -> Self {
        let mut ask = Self {
            method: Some(request.method().clone()),
            path,
            came: request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")),
            body_size: request.body().size_hint().exact(),
            websocket,
            ..Self::tunnel()
        };
        ask.read_meaning(served, tunnel);
        ask
    }

    /// A plain tunnel asks for nothing but itself.
    pub(super) fn tunnel() -> Self {
        let operation = Some(Text::const_new("tunnel"));
        let meaning = Meaning { operation, action: None, params: Vec::new(), tokens: None };
        let came = PathAndQuery::from_static("/");
        Self { meaning, method: None, path: None, came, body_size: None, websocket: false }
    }

    /// What is known of a message that was refused: never what it means.
    fn refused(served: &Served, read: Option<&ReadHead>) -> Self {
        let meaning = Meaning { operation: None, action: None, params: Vec::new(), tokens: None };
        // What begins elsewhere than at the root is another host's, and a `#` would be cut.
        let target = read.map(|read| &*read.target).filter(|target| target.starts_with('/') && !target.contains('#'));
        let path = target.and_then(|target| target.split('?').next());
        Self {
            meaning,
            method: read.map(|read| read.method.clone()),
            path: path.and_then(|path| CanonicalPath::parse(path, served.encoded_slash()).ok()),
            ..Self::tunnel()
        }
    }

    /// Reads what the request means to whoever serves it; again when the configuration has changed.
    pub(super) fn read_meaning(&mut self, served: &Served, tunnel: &Tunnel) {
        let Some(method) = &self.method else { return };
        let call = Call {
            method: method.as_str(),
            host: &tunnel.target.host,
            path: self.path.as_ref(),
            query: self.came.query(),
            websocket: self.websocket,
            body: self.body_size != Some(0),
        };
        self.meaning = match served {
            Served::Named { service, .. } => {
                let said = service.classify(&call);
                Meaning {
                    operation: Some(said.operation.into()),
                    action: said.action.map(Text::from),
                    params: said.params,
                    tokens: said.tokens.cloned(),
                }
            }
            Served::Web | Served::Nobody => {
                let operation = Some(call.default_operation().into());
                Meaning { operation, action: None, params: Vec::new(), tokens: None }
            }
        };
    }

    pub(super) fn facts<'a>(&'a self, served: &'a Served, tunnel: &'a Tunnel, time: UnixSeconds) -> Facts<'a> {
        Facts {
            time,
            service: served.name(),
            operation: self.operation().unwrap_or(UNKNOWN),
            action: self.meaning.action.as_deref(),
            scheme: tunnel.scheme,
            host: &tunnel.target.host,
            port: tunnel.target.port,
            method: self.method.as_ref().map(Method::as_str),
            path: self.path.as_ref(),
            params: &self.meaning.params,
            body_size: self.body_size,
            audience: &tunnel.who.proxy.audience,
            proof: tunnel.who.proof,
            hop: tunnel.who.verified.hop(),
        }
    }

    /// `None` where it was not read.
    pub(super) fn operation(&self) -> Option<&str> {
        self.meaning.operation.as_deref()
    }

    /// What members of the answer hold a fresh token, where the service says so of this request.
    pub(super) fn tokens(&self) -> Option<&Arc<TokenNames>> {
        self.meaning.tokens.as_ref()
    }

    pub(super) fn action(&self) -> Option<&str> {
        self.meaning.action.as_deref()
    }
}

impl Served {
    pub(super) fn of(route: Route<'_>) -> Self {
        match route {
            Route::Named(Named { service, endpoint, exact }) => {
                Self::Named { service: Arc::clone(service), endpoint: Arc::clone(endpoint), exact }
            }
            Route::Web(_) => Self::Web,
            Route::None => Self::Nobody,
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Named { service, .. } => service.name(),
            Self::Web => WEB,
            Self::Nobody => UNKNOWN,
        }
    }

    /// The service's name; `None` where nobody serves.
    pub(super) fn service(&self) -> Option<&str> {
        Some(self.name()).filter(|name| !name.is_empty())
    }

    /// Whether the same service, with the same credential, serves under another configuration.
    pub(super) fn is_still(&self, other: &Self) -> bool {
        self.name() == other.name() && self.credential() == other.credential()
    }

    /// The secret of this endpoint; an endpoint that injects nothing has none.
    pub(super) fn credential(&self) -> Option<&SecretName> {
        match self {
            Self::Named { service, endpoint, .. } => service.credential().filter(|_| endpoint.injection().is_some()),
            Self::Web | Self::Nobody => None,
        }
    }

    fn encoded_slash(&self) -> crate::request::EncodedSlash {
        match self {
            Self::Named { service, .. } => service.encoded_slash(),
            Self::Web | Self::Nobody => crate::request::EncodedSlash::Refuse,
        }
    }

    /// Removes every agent-sent form of the endpoint's credential.
    fn strip(&self, headers: &mut HeaderMap, target: &mut PathAndQuery) -> Result<Stripped, Unwritable> {
        match self {
            Self::Named { endpoint, .. } => endpoint.slots().strip(headers, target),
            Self::Web | Self::Nobody => Slots::none().strip(headers, target),
        }
    }

    /// The same for the fields that come after a body. True when one held a credential of the agent's own.
    pub(super) fn clean_trailers(&self, trailers: &mut HeaderMap) -> bool {
        hop::strip_trailers(trailers);
        match self {
            Self::Named { endpoint, .. } => endpoint.slots().strip_trailers(trailers).foreign(),
            Self::Web | Self::Nobody => false,
        }
    }
}
