//! The demo's holders: each signs for the next, and only takes away.

use zeroize::Zeroizing;

use crate::capability::{
    Algorithm, AuthorityBlock, Budget, BudgetKind, Capability, DelegationBlock, Grant, IssueError, ParamNames,
    PrivateKey, delegate, expires_at, grants_to_check, mint,
};
use crate::cli::failure::Failure;
use crate::clock::UnixSeconds;
use crate::store::random;

/// What each holder is given, as a person would type it.
pub(super) const ALICE: &str = "acme";
pub(super) const ORCHESTRATOR: &str = "acme:read,write";
pub(super) const RESEARCHER: &str = "acme:read path=/v1/items";
pub(super) const CALLS: u64 = 100;

/// Somebody with a key.
pub(super) struct Holder {
    seed: Zeroizing<[u8; 32]>,
    pub(super) capability: Capability,
}

impl Holder {
    pub(super) fn key(&self) -> Result<PrivateKey, Failure> {
        PrivateKey::from_seed(Algorithm::Ed25519, *self.seed).map_err(|error| Failure::of(&error))
    }

    /// A person, with the first block, signed by the root.
    pub(super) fn person(root: &PrivateKey, user: &str) -> Result<Self, Failure> {
        let (seed, key) = fresh()?;
        let mut caveats = vec![expires_at(UnixSeconds::now() + 3600)];
        caveats.extend(check(ALICE)?);
        let block = AuthorityBlock {
            holder: *key.public(),
            user: Some(user.to_owned()),
            rights: vec![("acme".to_owned(), "*".to_owned())],
            caveats,
            budgets: Vec::new(),
            rates: Vec::new(),
        };
        let capability = mint(root, 1, &block, random::bytes()?).map_err(|error| failed(&error))?;
        Ok(Self { seed, capability })
    }

    /// The next holder, with a block that this one signs.
    pub(super) fn delegate(&self, name: &str, grant: &str, calls: Option<u64>) -> Result<Self, Failure> {
        let (seed, key) = fresh()?;
        let block = DelegationBlock {
            holder: *key.public(),
            agent: Some(name.to_owned()),
            caveats: check(grant)?.into_iter().collect(),
            budgets: calls.map(|limit| Budget { kind: BudgetKind::Calls, limit }).into_iter().collect(),
            rates: Vec::new(),
        };
        let capability = delegate(&self.capability, &self.key()?, &block, random::bytes()?);
        Ok(Self { seed, capability: capability.map_err(|error| failed(&error))? })
    }
}

fn fresh() -> Result<(Zeroizing<[u8; 32]>, PrivateKey), Failure> {
    let seed = Zeroizing::new(random::bytes()?);
    let key = PrivateKey::from_seed(Algorithm::Ed25519, *seed).map_err(|error| Failure::of(&error))?;
    Ok((seed, key))
}

fn check(grant: &str) -> Result<Option<String>, Failure> {
    let mut names = ParamNames::new();
    names.declare("acme", Vec::<String>::new());
    let grant = Grant::parse(grant, &names).map_err(|error| Failure::of(&error))?;
    grants_to_check(&[grant]).map_err(|error| Failure::of(&error))
}

fn failed(error: &IssueError) -> Failure {
    Failure::of(error)
}
