//! `[traces]`: the collector that takes spans of requests.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http::Uri;
use http::uri::PathAndQuery;

use super::read::duration;
use crate::request::{Scheme, Target};
use crate::service::document::Table;

/// The port is the scheme's own where the URL names none, so the path shows whether a collector's whole URL was meant.
const EXAMPLE: &str = "http://127.0.0.1:4318/v1/traces";
const SERVICE_NAME_DEFAULT: &str = "narrows";
/// The name is sent with every batch of spans.
const SERVICE_NAME_BYTES_MAX: usize = 128;
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// `[traces]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Traces {
    /// Where the collector takes spans.
    pub endpoint: Endpoint,
    /// The share of new traces that are recorded, 0 to 1.
    pub ratio: f64,
    /// What the proxy is called in its traces (`service.name`).
    pub service_name: String,
    /// How long one batch of spans is tried to be handed over.
    pub timeout: Duration,
}

/// The URL of a collector: in clear text on this machine, over TLS elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// With or without TLS.
    pub scheme: Scheme,
    /// Its host and port.
    pub target: Target,
    /// Its path; there is no query.
    pub path: PathAndQuery,
}

/// Why a text is no [`Endpoint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadEndpoint {
    /// No URL of the kind, or one with a user or a query, where a secret could be.
    #[error("expected a URL without a query, \"{EXAMPLE}\"")]
    Url,
    /// It names a collector and no place of it.
    #[error("the path is missing that takes traces, \"{EXAMPLE}\"")]
    Path,
    /// Clear text to another machine.
    #[error("http:// is for a collector on this machine (127.0.0.1, [::1] or localhost); others take https://")]
    Clear,
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.parse().map_err(|_| BadEndpoint::Url)?;
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            _ => return Err(BadEndpoint::Url),
        };
        let authority = uri.authority().ok_or(BadEndpoint::Url)?.as_str();
        let target = Target::parse_or(authority, scheme.default_port()).map_err(|_| BadEndpoint::Url)?;
        if uri.query().is_some() || text.contains('#') {
            return Err(BadEndpoint::Url);
        }
        if scheme == Scheme::Http && !is_here(&target) {
            return Err(BadEndpoint::Clear);
        }
        let path = uri.path_and_query().filter(|path| path.path() != "/").ok_or(BadEndpoint::Path)?;
        Ok(Self { scheme, target, path: path.clone() })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.target, self.path)
    }
}

fn is_here(target: &Target) -> bool {
    match target.host.address() {
        Some(ip) => ip.to_canonical().is_loopback(),
        None => target.host.as_str() == "localhost",
    }
}

pub(super) fn read(top: &mut Table<'_, '_>) -> Option<Traces> {
    let mut table = top.table("traces", "[traces]".into())?;
    if cfg!(not(feature = "otlp")) {
        let hint = "build with the feature `otlp`: cargo install --path . --features otlp";
        table.problem("[traces] is not in this build of Narrows", Some(hint));
    }
    let endpoint = table.parsed::<Endpoint>("endpoint");
    if endpoint.is_none() && !table.has("endpoint") {
        table.problem("[traces] needs `endpoint`", None);
    }
    let ratio = table.fraction("ratio").map_or(1.0, |field| field.value);
    let service_name = read_service_name(&mut table);
    let mut timeout = TIMEOUT_DEFAULT;
    duration(&mut table, "timeout", &mut timeout);
    table.finish();
    Some(Traces { endpoint: endpoint?.value, ratio, service_name, timeout })
}

fn read_service_name(table: &mut Table<'_, '_>) -> String {
    let Some(name) = table.text("service_name") else { return SERVICE_NAME_DEFAULT.to_owned() };
    if name.value.is_empty() || name.value.len() > SERVICE_NAME_BYTES_MAX || name.value.contains(char::is_control) {
        table.problem_at("service_name", name.at, "1 to 128 bytes without control characters");
    }
    name.value.to_owned()
}
