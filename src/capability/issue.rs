//! Writing capabilities: a block from its parts, signed.
//!
//! Low-level: what a person asks for (`--allow`, `--expires`) becomes caveats elsewhere. Seeds of chain keys are
//! arguments, drawn by the caller from a good source, each used once. Every writer reads its own output back and
//! refuses to give out what a verifier would refuse.

use std::collections::BTreeMap;

use biscuit_auth::builder::{BlockBuilder, Fact, Term, fact, int, string};
use biscuit_auth::datalog::SymbolTable;
use biscuit_auth::error::Token;
use biscuit_auth::{BiscuitBuilder, KeyPair, UnverifiedBiscuit};

use super::chain::{Chain, Limits, Roots, verify};
use super::container::Container;
use super::{Algorithm, Budget, BudgetKind, Capability, InvalidCapability, PrivateKey, PublicKey, Rate};

/// What an authority block says.
#[derive(Debug, Clone)]
pub struct AuthorityBlock {
    /// The first holder.
    pub holder: PublicKey,
    /// The person.
    pub user: Option<String>,
    /// `(service, operation)`, the operation `"*"` for all. Without any, the capability allows nothing.
    pub rights: Vec<(String, String)>,
    /// Datalog: `check if …`, one in each string.
    pub caveats: Vec<String>,
    /// One of a kind at most.
    pub budgets: Vec<Budget>,
    /// One at most.
    pub rates: Vec<Rate>,
}

/// What a delegation says. All that is to bind the next holder belongs here: a narrowing appended later binds only
/// as long as the capability before it stays secret.
#[derive(Debug, Clone)]
pub struct DelegationBlock {
    /// The next holder.
    pub holder: PublicKey,
    /// What this holder calls it.
    pub agent: Option<String>,
    /// Datalog: `check if …`, one in each string.
    pub caveats: Vec<String>,
    /// One of a kind at most.
    pub budgets: Vec<Budget>,
    /// One at most.
    pub rates: Vec<Rate>,
}

/// What a narrowing by the same holder says.
#[derive(Debug, Clone, Default)]
pub struct NarrowingBlock {
    /// Datalog: `check if …`, one in each string.
    pub caveats: Vec<String>,
    /// One of a kind at most.
    pub budgets: Vec<Budget>,
    /// One at most.
    pub rates: Vec<Rate>,
}

/// Why no capability was written.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// A caveat that is not one `check if …` of Datalog.
    #[error("not a check: {text}")]
    Caveat {
        /// The caveat as given.
        text: String,
        /// What the parser says.
        source: Token,
    },
    /// The result, or the capability to attenuate, breaks a rule of the profile.
    #[error(transparent)]
    Invalid(#[from] InvalidCapability),
    /// The capability is sealed: nothing can be appended.
    #[error("the capability is sealed: attenuate the unsealed one")]
    Sealed,
    /// The key is not the last holder's.
    #[error("the key is not the last holder's, which is {holder}")]
    NotTheHolder {
        /// Who could delegate.
        holder: PublicKey,
    },
    /// A number beyond `i64::MAX`.
    #[error("a budget or rate is too large")]
    TooLarge,
    /// The key or the seed cannot sign.
    #[error("the key cannot sign")]
    Key,
}

/// Writes a new capability, unsealed.
///
/// # Errors
/// [`IssueError`]; never `Sealed` or `NotTheHolder`.
pub fn mint(
    root: &PrivateKey,
    kid: u32,
    block: &AuthorityBlock,
    next_seed: [u8; 32],
) -> Result<Capability, IssueError> {
    // The `null` needs Datalog 3.3, for which the library signs with version 1.
    let mut facts = vec![fact("cap", &[int(1), Term::Null]), holder_fact(&block.holder)];
    facts.extend(block.user.iter().map(|user| fact("user", &[string(user)])));
    facts.extend(block.rights.iter().map(|(service, operation)| fact("right", &[string(service), string(operation)])));
    let content = content(facts, &block.budgets, &block.rates, &block.caveats)?;
    let biscuit = BiscuitBuilder::new().merge(content).root_key_id(kid).build_with_key_pair(
        &key_pair(root)?,
        SymbolTable::new(),
        &chain_key(next_seed)?,
    );
    let capability =
        Capability::from_bytes(&biscuit.and_then(|biscuit| biscuit.to_vec()).map_err(|_| IssueError::Key)?)?;
    let roots = Roots::new(BTreeMap::from([(kid, *root.public())]));
    let _verified = verify(&capability, &roots, &Limits::default())?;
    Ok(capability)
}

/// Appends a delegation, signed by the last holder. The capability's root need not be known; what `capability` says is
/// not made true by it.
///
/// # Errors
/// [`IssueError`].
pub fn delegate(
    capability: &Capability,
    holder: &PrivateKey,
    block: &DelegationBlock,
    next_seed: [u8; 32],
) -> Result<Capability, IssueError> {
    let expected = *open(capability)?.holder();
    if *holder.public() != expected {
        return Err(IssueError::NotTheHolder { holder: expected });
    }
    let mut facts = vec![holder_fact(&block.holder)];
    facts.extend(block.agent.iter().map(|agent| fact("agent", &[string(agent)])));
    let content = content(facts, &block.budgets, &block.rates, &block.caveats)?;
    let next = chain_key(next_seed)?;
    let key = holder.to_biscuit().map_err(|_| IssueError::Key)?;
    let appended = UnverifiedBiscuit::from(capability.as_bytes()).and_then(|biscuit| {
        let signed = biscuit.third_party_request()?.create_block(&key, content)?.serialize()?;
        biscuit.append_third_party_with_keypair(&signed, next)?.to_vec()
    });
    read_back(&appended.map_err(|_| IssueError::Key)?)
}

/// Appends a narrowing by the same holder. Needs no key: it is the next delegation, or the proof, that a holder signs.
///
/// # Errors
/// [`IssueError`]; never `NotTheHolder`.
pub fn narrow(capability: &Capability, block: &NarrowingBlock, next_seed: [u8; 32]) -> Result<Capability, IssueError> {
    open(capability)?;
    let content = content(Vec::new(), &block.budgets, &block.rates, &block.caveats)?;
    let next = chain_key(next_seed)?;
    let appended = UnverifiedBiscuit::from(capability.as_bytes())
        .and_then(|biscuit| biscuit.append_with_keypair(&next, content)?.to_vec());
    read_back(&appended.map_err(|_| IssueError::Key)?)
}

/// The capability's chain, if something can be appended to it.
fn open(capability: &Capability) -> Result<Chain, IssueError> {
    let chain = Chain::read(capability, &ANY_HOPS)?;
    if chain.is_sealed() {
        return Err(IssueError::Sealed);
    }
    if !Container::decode(capability)?.can_append() {
        return Err(IssueError::Invalid(InvalidCapability::Signature));
    }
    Ok(chain)
}

/// How many hops are too many is the verifier's to say.
const ANY_HOPS: Limits = Limits { hops_max: u32::MAX };

/// Walks what was written: signature versions, vocabulary, limits, the closed form of caveats. The new signatures are
/// right by construction: the library has checked the holder's, and `open` the key of the other.
fn read_back(bytes: &[u8]) -> Result<Capability, IssueError> {
    let capability = Capability::from_bytes(bytes)?;
    Chain::read(&capability, &ANY_HOPS)?;
    Ok(capability)
}

fn content(
    facts: Vec<Fact>,
    budgets: &[Budget],
    rates: &[Rate],
    caveats: &[String],
) -> Result<BlockBuilder, IssueError> {
    let mut content = BlockBuilder::new();
    content.facts = facts;
    for budget in budgets {
        content.facts.push(fact("budget", &[string(budget.kind.as_str()), number(budget.limit)?]));
    }
    for rate in rates {
        let terms = [string(BudgetKind::Calls.as_str()), number(rate.limit)?, number(rate.window_s)?];
        content.facts.push(fact("rate", &terms));
    }
    for text in caveats {
        content = content.check(text.as_str()).map_err(|source| IssueError::Caveat { text: text.clone(), source })?;
    }
    Ok(content)
}

fn number(value: u64) -> Result<Term, IssueError> {
    i64::try_from(value).map(int).map_err(|_| IssueError::TooLarge)
}

fn holder_fact(holder: &PublicKey) -> Fact {
    let algorithm = int(i64::from(holder.algorithm().to_wire()));
    fact("holder", &[algorithm, biscuit_auth::builder::bytes(holder.as_bytes())])
}

fn key_pair(key: &PrivateKey) -> Result<KeyPair, IssueError> {
    key.to_biscuit().map(|key| KeyPair::from(&key)).map_err(|_| IssueError::Key)
}

fn chain_key(seed: [u8; 32]) -> Result<KeyPair, IssueError> {
    let key = PrivateKey::from_seed(Algorithm::Ed25519, seed).map_err(|_| IssueError::Key)?;
    key_pair(&key)
}
