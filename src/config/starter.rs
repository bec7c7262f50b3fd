//! The file that `capctl init` writes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::capability::PublicKey;

/// What is said of traces where they can be had.
const TRACES: &str = r#"
# [traces]                                                       # spans for an OpenTelemetry collector      (restart)
# endpoint   = "http://127.0.0.1:4318/v1/traces"
# ratio      = 1.0                                               # the share of new traces that is recorded
"#;

/// A commented `narrows.toml` that trusts this root under key id 1.
#[must_use]
pub fn starter(root: &PublicKey) -> String {
    starter_of(&BTreeMap::from([(1, *root)]))
}

/// A commented `narrows.toml` that trusts these roots, by key id.
#[must_use]
pub fn starter_of(roots: &BTreeMap<u32, PublicKey>) -> String {
    let roots = roots.iter().fold(String::new(), |mut lines, (kid, root)| {
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "{kid} = \"{root}\"");
        lines
    });
    let traces = if cfg!(feature = "otlp") { TRACES } else { "" };
    format!(
        r#"# Narrows. Every key is explained in docs/configuration.md; `narrows --check` reports every problem.
# A change takes effect without a restart, but for the keys marked so. Relative paths start at this folder.

listen   = "127.0.0.1:7080"        # where HTTPS_PROXY points; also "unix:narrows.sock"       (restart)
admin    = "127.0.0.1:7081"        # /healthz /readyz /metrics; "off" to disable              (restart)
audience = "local"                 # the name that proofs are made for                        (restart)

[roots]                            # whose authority blocks count: key id -> public key
{roots}
# [upstream]
# extra_ca        = "origin-ca.pem"                              # trusted in addition to the platform's roots
# connect_to      = {{ "api.acme.test:443" = "127.0.0.1:9443" }}   # dial there instead, for that name only
# allow_addresses = ["10.1.0.0/16"]                              # private addresses that named hosts may have

# [journal]
# dir        = "audit"                                           # (restart)
# stdout     = true                                              # its lines there too, for log collection (restart)
# durability = "kernel"                                          # or "disk", "always": power cuts     (restart)

# [log]
# level      = "warn"                                            # or "info", "narrows=debug,warn"; NARROWS_LOG wins
# format     = "text"                                            # or "json"
{traces}
# A built-in service: `capctl service add github` writes this. Without `credential`, the agent's own login passes.
# [[service]]
# name       = "github"
# credential = "github"                                          # a name in the store: `capctl secret set github`

# A service of your own.
# [[service]]
# name       = "acme"
# credential = "acme-key"
# hosts      = ["api.acme.test"]                                 # "host", "host:port", "*.suffix", "http://host:port"
# inject     = "Authorization: Bearer {{secret}}"                  # or {{ basic = "user" }}, {{ query = "key" }}
#   [[service.route]]
#   method    = "GET"
#   path      = "/v1/items/{{item}}"                               # gives the param `item`
#   operation = "read"
#   action    = "item.show"
"#
    )
}
