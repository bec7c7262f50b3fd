//! The variables that make common clients use the proxy and trust the local CA. Each spelling is read by some client
//! that reads no other (`docs/run.md`).

use std::ffi::OsStr;
use std::path::Path;

use crate::service::{HostPattern, Service};

/// Both cases: wget, apt and gRPC read lower case alone.
const PROXY: [&str; 7] =
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "grpc_proxy"];
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// What stays direct: the child's own servers.
const DIRECT: &str = "localhost,127.0.0.1,::1";
/// Each replaces a client's roots, so each gets the whole bundle.
pub(super) const BUNDLE: [&str; 16] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "PIP_CERT",
    "AWS_CA_BUNDLE",
    "DENO_CERT",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HTTPLIB2_CA_CERTS",
    "NIX_SSL_CERT_FILE",
    "npm_config_cafile",
    "PERL_LWP_SSL_CA_FILE",
    "CODEX_CA_CERTIFICATE",
    "BUNDLE_SSL_CA_CERT",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
];
/// Added to a client's own roots.
const EXTRA_CA: &str = "NODE_EXTRA_CA_CERTS";
/// A folder of roots, part of the bundle by now; it would win over the file in some clients.
pub(in crate::cli) const UNSET: [&str; 1] = ["SSL_CERT_DIR"];

/// What a child's environment is made of.
pub(in crate::cli) struct Environment<'a> {
    /// With userinfo. None where connections come to the proxy by themselves: a client must not speak to it as to one.
    pub(in crate::cli) proxy_url: Option<&'a str>,
    /// System roots and the local CA.
    pub(in crate::cli) bundle: &'a Path,
    /// The local CA alone.
    pub(in crate::cli) ca: &'a Path,
    /// The services whose placeholders are set.
    pub(in crate::cli) services: &'a [&'a Service],
}

impl Environment<'_> {
    /// The variables to set, in a stable order.
    pub(in crate::cli) fn variables(&self) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = Vec::new();
        let mut set = |name: &str, value: &str| all.push((name.to_owned(), value.to_owned()));
        if let Some(url) = self.proxy_url {
            for name in PROXY {
                set(name, url);
            }
            for name in NO_PROXY {
                set(name, DIRECT);
            }
            // Node and Bun read the proxy variables only when told to.
            set("NODE_USE_ENV_PROXY", "1");
            // git sends the password only after a challenge otherwise: a round trip for each connection.
            set("GIT_HTTP_PROXY_AUTHMETHOD", "basic");
        }
        let bundle = self.bundle.display().to_string();
        for name in BUNDLE {
            set(name, &bundle);
        }
        set(EXTRA_CA, &self.ca.display().to_string());
        for service in self.services {
            service.env().iter().for_each(|(name, value)| set(name, value));
        }
        all
    }
}

/// The hosts of granted services that an inherited `NO_PROXY` would have sent past the proxy. It is overridden.
pub(in crate::cli) fn bypassed(inherited: &OsStr, services: &[&Service]) -> Vec<String> {
    let inherited = inherited.to_string_lossy().to_ascii_lowercase();
    let entries: Vec<&str> = inherited
        .split([',', ' '])
        .map(|entry| entry.trim().trim_start_matches('*').trim_start_matches('.'))
        .map(|entry| entry.split(':').next().unwrap_or_default())
        .collect();
    let everything = inherited.split(',').any(|entry| entry.trim() == "*");
    let names = |pattern: &HostPattern| {
        let text = pattern.to_string();
        let host = text.rsplit_once("//").map_or(text.as_str(), |(_, host)| host);
        let host = host.split(':').next().unwrap_or_default().trim_start_matches("*.");
        let named = |entry: &&str| {
            !entry.is_empty()
                && host.strip_suffix(*entry).is_some_and(|before| before.is_empty() || before.ends_with('.'))
        };
        (everything || entries.iter().any(named)).then(|| host.to_owned())
    };
    let endpoints = services.iter().flat_map(|service| service.endpoints());
    let mut hosts: Vec<String> = endpoints.flat_map(|endpoint| endpoint.hosts()).filter_map(names).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}
