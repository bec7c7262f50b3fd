//! Keys and capabilities for the unit tests of this floor and the next.

use std::collections::BTreeMap;

use super::{
    Algorithm, AuthorityBlock, Budget, Capability, DelegationBlock, Limits, PrivateKey, Rate, Roots, Verified,
    delegate, mint, verify,
};
use crate::clock::UnixSeconds;
use crate::request::{CanonicalPath, Facts, Host, ProofKind, Scheme, Text};

pub(crate) const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
pub(crate) const ROOT: u8 = 1;
pub(crate) const ALICE: u8 = 2;
pub(crate) const ORCHESTRATOR: u8 = 3;
pub(crate) const WORKER: u8 = 4;

pub(crate) fn key(seed: u8) -> PrivateKey {
    PrivateKey::from_seed(Algorithm::Ed25519, [seed; 32]).expect("a seed")
}

pub(crate) fn roots() -> Roots {
    Roots::new(BTreeMap::from([(1, *key(ROOT).public())]))
}

/// An authority block for Alice, with rights for `github:read` and all of `acme`.
pub(crate) fn authority(caveats: &[&str], budgets: &[Budget], rates: &[Rate]) -> AuthorityBlock {
    AuthorityBlock {
        holder: *key(ALICE).public(),
        user: Some("alice@example.com".to_owned()),
        rights: [("github", "read"), ("acme", "*")].map(|(s, o)| (s.to_owned(), o.to_owned())).to_vec(),
        caveats: caveats.iter().map(|&text| text.to_owned()).collect(),
        budgets: budgets.to_vec(),
        rates: rates.to_vec(),
    }
}

pub(crate) fn minted(block: &AuthorityBlock) -> Capability {
    mint(&key(ROOT), 1, block, [0x40; 32]).expect("mints")
}

pub(crate) fn delegated(parent: &Capability, from: u8, to: u8, caveats: &[&str], budgets: &[Budget]) -> Capability {
    let block = DelegationBlock {
        holder: *key(to).public(),
        agent: Some(format!("agent-{to}")),
        caveats: caveats.iter().map(|&text| text.to_owned()).collect(),
        budgets: budgets.to_vec(),
        rates: Vec::new(),
    };
    let mut seed = parent.sha256();
    seed[0] ^= to;
    delegate(parent, &key(from), &block, seed).expect("delegates")
}

pub(crate) fn verify_ok(capability: &Capability) -> Verified {
    verify(capability, &roots(), &Limits::default()).expect("holds")
}

/// Alice's capability under these checks.
pub(crate) fn verified(caveats: &[&str]) -> Verified {
    verify_ok(&minted(&authority(caveats, &[], &[])))
}

/// The chain that goes through these hands, the first of them Alice's.
pub(crate) fn chain_of(holders: &[u8]) -> Verified {
    let mut capability = minted(&authority(&[], &[], &[]));
    for pair in holders.windows(2) {
        capability = delegated(&capability, pair[0], pair[1], &[], &[]);
    }
    verify_ok(&capability)
}

/// A request's parts, owned, for [`Facts`] that borrow.
pub(crate) struct Request {
    pub(crate) host: Host,
    pub(crate) path: CanonicalPath,
    pub(crate) params: Vec<(Text, Text)>,
}

impl Request {
    pub(crate) fn to(path: &str) -> Self {
        Self {
            host: Host::parse("api.acme.test").expect("a host"),
            path: CanonicalPath::parse(path, crate::request::EncodedSlash::Refuse).expect("a path"),
            params: vec![("repo".into(), "acme/widgets".into())],
        }
    }

    /// `GET` of `acme` by its first holder.
    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts {
            time: NOW,
            service: "acme",
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
            hop: 0,
        }
    }
}
