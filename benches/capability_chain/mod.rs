//! The capabilities and the request that `capability` times and `side-by-side` counts the instructions of.

use std::collections::BTreeMap;

use narrows::capability::{Algorithm, AuthorityBlock, Capability, DelegationBlock, PrivateKey, Roots, delegate, mint};
use narrows::clock::UnixSeconds;
use narrows::request::{CanonicalPath, EncodedSlash, Facts, Host, ProofKind, Scheme, Text};

const KID: u32 = 1;

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from_seed(Algorithm::Ed25519, [seed; 32]).expect("any seed is a key")
}

/// An authority block with an expiry, then delegations that each set an expiry and two grants, as `capctl` writes them.
pub(crate) fn chain(blocks: u8) -> Capability {
    let authority = AuthorityBlock {
        holder: *key(1).public(),
        user: Some("alice@example.com".to_owned()),
        rights: vec![("cloudflare".to_owned(), "read".to_owned()), ("github".to_owned(), "*".to_owned())],
        caveats: vec![
            "check if time($time), $time < 2027-01-15T16:00:00Z".to_owned(),
            r#"check if audience("local")"#.to_owned(),
        ],
        budgets: vec![],
        rates: vec![],
    };
    let minted = mint(&key(0), KID, &authority, [100; 32]).expect("mints");
    (1..blocks).fold(minted, |capability, block| {
        let delegation = DelegationBlock {
            holder: *key(block + 1).public(),
            agent: Some(format!("agent-{block}")),
            caveats: vec![
                "check if time($time), $time < 2027-01-15T15:55:00Z".to_owned(),
                r#"check if service("cloudflare"), operation("read"), param("zone", "023e105f4ecef8ad9ca31a8372d0c353")
                   or service("github"), operation("read"), method($m), {"GET", "HEAD"}.contains($m),
                      param("repo", "acme/widgets"), path($path),
                      $path == "/repos/acme/widgets" || $path.starts_with("/repos/acme/widgets/")"#
                    .to_owned(),
            ],
            budgets: vec![],
            rates: vec![],
        };
        delegate(&capability, &key(block), &delegation, [100 + block; 32]).expect("delegates")
    })
}

/// Trusts who minted it.
pub(crate) fn roots() -> Roots {
    Roots::new(BTreeMap::from([(KID, *key(0).public())]))
}

/// A request that all of them allow.
pub(crate) struct Request {
    host: Host,
    path: CanonicalPath,
    params: [(Text, Text); 2],
}

impl Request {
    pub(crate) fn new() -> Self {
        Self {
            host: Host::parse("api.github.com").expect("a host"),
            path: CanonicalPath::parse("/repos/acme/widgets/issues/7", EncodedSlash::Refuse).expect("canonical"),
            params: [("owner".into(), "acme".into()), ("repo".into(), "acme/widgets".into())],
        }
    }

    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts {
            time: UnixSeconds(1_800_000_000),
            service: "github",
            operation: "read",
            action: None,
            scheme: Scheme::Https,
            host: &self.host,
            port: 443,
            method: Some("GET"),
            path: Some(&self.path),
            params: &self.params,
            body_size: Some(0),
            audience: "local",
            proof: ProofKind::Connect,
            hop: 3,
        }
    }
}
