//! The walk along a capability's blocks: who may, by whose signature, under which caveats.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::caveat::Caveat;
use super::container::{Container, SignedBlock, public_key};
use super::symbols::Symbols;
use super::vocabulary::{BlockKind, Right, Statements};
use super::{Budget, Capability, InvalidCapability, PublicKey, Rate, signatures};
use crate::clock::UnixSeconds;

/// A capability changes hands at most this often, unless the verifier says otherwise.
pub const HOPS_MAX: u32 = 8;

/// The keys whose authority blocks count. Several may be valid at once, for rotation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roots {
    keys: BTreeMap<u32, PublicKey>,
}

impl Roots {
    /// Roots by the `rootKeyId` that names them.
    #[must_use]
    pub const fn new(keys: BTreeMap<u32, PublicKey>) -> Self {
        Self { keys }
    }

    /// The root of a `rootKeyId`.
    #[must_use]
    pub fn get(&self, kid: u32) -> Option<&PublicKey> {
        self.keys.get(&kid)
    }
}

/// The limits that a verifier may choose. All others are constants of the profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Changes of holder, at most. Default [`HOPS_MAX`]; more than 32 cannot occur.
    pub hops_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { hops_max: HOPS_MAX }
    }
}

/// What revocation, budgets and the journal call a block; 64 hexadecimal digits as text.
///
/// Attaching the same delegation again, under a fresh chain key, gives the same id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub [u8; 32]);

/// The text is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a block id is 64 lower-case hexadecimal digits")]
pub struct InvalidBlockId;

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BlockId {
    type Err = InvalidBlockId;

    fn from_str(text: &str) -> Result<Self, InvalidBlockId> {
        let mut id = [0; 32];
        hex::decode_to_slice(text, &mut id).map_err(|_| InvalidBlockId)?;
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(InvalidBlockId);
        }
        Ok(Self(id))
    }
}

/// One holder of a capability, in the order of the delegations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// Whose key proves possession, while this hop is the last.
    pub holder: PublicKey,
    /// What the delegator calls it: a claim of the delegator. The first holder has none; its person is
    /// [`Chain::user`].
    pub name: Option<Arc<str>>,
    /// The block that named it.
    pub block: BlockId,
}

/// One block: what it takes away, and under which id.
#[derive(Debug, Clone)]
pub struct Block {
    id: BlockId,
    kind: BlockKind,
    set_by: Option<PublicKey>,
    caveats: Box<[Caveat]>,
    budgets: Box<[Budget]>,
    rates: Box<[Rate]>,
}

impl Block {
    /// Its id.
    #[must_use]
    pub const fn id(&self) -> BlockId {
        self.id
    }

    /// What it is, by who signed it.
    #[must_use]
    pub const fn kind(&self) -> BlockKind {
        self.kind
    }

    /// The holder whose signature it has: a delegation's. `None` for the authority block, which the root signed, and
    /// for a narrowing, which no holder signs.
    #[must_use]
    pub fn signer(&self) -> Option<&PublicKey> {
        self.set_by.as_ref().filter(|_| self.kind == BlockKind::Delegation)
    }

    /// Who answers for it: the holder at that place of the chain, or `None` for the root. (Whoever added a narrowing,
    /// the next delegation or the proof by that holder stands behind it.)
    #[must_use]
    pub const fn set_by(&self) -> Option<&PublicKey> {
        self.set_by.as_ref()
    }

    /// Its checks, in order.
    #[must_use]
    pub const fn caveats(&self) -> &[Caveat] {
        &self.caveats
    }

    /// Its budgets, one of a kind at most.
    #[must_use]
    pub const fn budgets(&self) -> &[Budget] {
        &self.budgets
    }

    /// Its rates, at most one.
    #[must_use]
    pub const fn rates(&self) -> &[Rate] {
        &self.rates
    }
}

/// What a capability says, walked by every rule of the profile but its signatures: for people and tools that look at a
/// capability without knowing its root. It permits nothing; [`Verified`] does.
#[derive(Debug, Clone)]
pub struct Chain {
    hash: [u8; 32],
    kid: u32,
    sealed: bool,
    user: Option<Arc<str>>,
    rights: Box<[Right]>,
    blocks: Box<[Block]>,
    holders: Box<[Hop]>,
    holder: PublicKey,
}

impl Chain {
    /// Walks a capability without looking at a signature.
    ///
    /// # Errors
    /// [`InvalidCapability`], but for `RootUnknown` and `Signature`.
    pub fn read(capability: &Capability, limits: &Limits) -> Result<Self, InvalidCapability> {
        Self::walk(capability, &Container::decode(capability)?, *limits, &mut || {})
    }

    /// `between` is called between two blocks.
    fn walk(
        capability: &Capability,
        container: &Container,
        limits: Limits,
        between: &mut dyn FnMut(),
    ) -> Result<Self, InvalidCapability> {
        let mut blocks = container.blocks();
        let first = blocks.next().ok_or(InvalidCapability::Malformed)?;
        let mut symbols = Symbols::default();
        let authority = Statements::read(BlockKind::Authority, first.payload, &mut symbols)?;
        let holder = authority.holder.ok_or(InvalidCapability::Holder)?;
        let mut walk = Walk {
            holders: vec![Hop { holder, name: None, block: first.id }],
            holder,
            symbols,
            blocks: Vec::new(),
            hops_max: limits.hops_max,
        };
        let user = authority.label.clone();
        let rights = authority.rights.clone();
        walk.blocks.push(Block::new(first.id, BlockKind::Authority, None, authority));
        for block in blocks {
            between();
            walk.step(&block)?;
        }
        Ok(Self {
            hash: capability.sha256(),
            kid: container.kid(),
            sealed: container.is_sealed(),
            user,
            rights: rights.into(),
            blocks: walk.blocks.into(),
            holders: walk.holders.into(),
            holder: walk.holder,
        })
    }

    /// SHA-256 over the bytes as presented.
    #[must_use]
    pub const fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// Which root key signed the authority block.
    #[must_use]
    pub const fn kid(&self) -> u32 {
        self.kid
    }

    /// Whether nothing can be appended.
    #[must_use]
    pub const fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// The person, as the root attests.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// What the root allows at most.
    #[must_use]
    pub const fn rights(&self) -> &[Right] {
        &self.rights
    }

    /// The blocks, authority first; at least one.
    #[must_use]
    pub const fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The holders, first to last; at least one.
    #[must_use]
    pub const fn holders(&self) -> &[Hop] {
        &self.holders
    }

    /// The last holder: who must prove possession.
    #[must_use]
    pub const fn holder(&self) -> &PublicKey {
        &self.holder
    }

    /// Changes of holder so far: the `hop` fact.
    #[must_use]
    pub fn hop(&self) -> u32 {
        // Never more than BLOCKS_MAX.
        u32::try_from(self.holders.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// The earliest moment at which some caveat plainly says that it no longer holds. For people: an expiry hidden in a
    /// row among others is not found.
    #[must_use]
    pub fn expires_at(&self) -> Option<UnixSeconds> {
        self.blocks.iter().flat_map(Block::caveats).filter_map(Caveat::expires_at).min()
    }

    /// Whether a right for this service exists, whatever the caveats say.
    #[must_use]
    pub fn could_serve(&self, service: &str) -> bool {
        self.rights.iter().any(|right| &*right.service == service)
    }
}

impl Block {
    fn new(id: BlockId, kind: BlockKind, set_by: Option<PublicKey>, statements: Statements) -> Self {
        Self {
            id,
            kind,
            set_by,
            caveats: statements.caveats.into(),
            budgets: statements.budgets.into(),
            rates: statements.rates.into(),
        }
    }
}

/// The state of a walk between two blocks.
struct Walk {
    blocks: Vec<Block>,
    holders: Vec<Hop>,
    holder: PublicKey,
    /// The table that first-party blocks share.
    symbols: Symbols,
    hops_max: u32,
}

impl Walk {
    fn step(&mut self, block: &SignedBlock<'_>) -> Result<(), InvalidCapability> {
        let set_by = Some(self.holder);
        let Some(external) = block.external else {
            let statements = Statements::read(BlockKind::Narrowing, block.payload, &mut self.symbols)?;
            self.blocks.push(Block::new(block.id, BlockKind::Narrowing, set_by, statements));
            return Ok(());
        };
        // The rule that the chain rests on: who delegates is who holds.
        if public_key(external) != set_by {
            return Err(InvalidCapability::Signer);
        }
        if u32::try_from(self.holders.len()).is_ok_and(|hop| hop > self.hops_max) {
            return Err(InvalidCapability::Hops);
        }
        let statements = Statements::read(BlockKind::Delegation, block.payload, &mut Symbols::default())?;
        let holder = statements.holder.ok_or(InvalidCapability::Holder)?;
        self.holders.push(Hop { holder, name: statements.label.clone(), block: block.id });
        self.holder = holder;
        self.blocks.push(Block::new(block.id, BlockKind::Delegation, set_by, statements));
        Ok(())
    }
}

/// A capability whose every signature and rule held: evidence, made by [`verify`] alone. Says nothing about possession,
/// revocation or budgets.
///
/// It holds compiled caveats and labels, not the biscuit, and is `Send + Sync`: made once, shared by every request.
#[derive(Debug, Clone)]
#[must_use]
pub struct Verified {
    chain: Chain,
}

impl Verified {
    /// What the capability says.
    #[must_use]
    pub const fn chain(&self) -> &Chain {
        &self.chain
    }
}

/// All that a [`Chain`] tells.
impl std::ops::Deref for Verified {
    type Target = Chain;

    fn deref(&self) -> &Chain {
        &self.chain
    }
}

/// The holder whose proof to ask for, before any signature is checked: a stolen capability then costs the verifier
/// microseconds. Compare with [`Chain::holder`] after [`verify`].
///
/// # Errors
/// [`InvalidCapability`] when the container, or the facts of the block that names the last holder, do not hold.
pub fn claimed_holder(capability: &Capability) -> Result<PublicKey, InvalidCapability> {
    let container = Container::decode(capability)?;
    let names_holder = container.blocks().rev().find(|block| block.external.is_some());
    let block = names_holder.or_else(|| container.blocks().next()).ok_or(InvalidCapability::Malformed)?;
    let kind = if block.external.is_some() { BlockKind::Delegation } else { BlockKind::Authority };
    let (statements, _) = Statements::read_facts(kind, block.payload, &mut Symbols::default())?;
    statements.holder.ok_or(InvalidCapability::Holder)
}

/// The authority block that a capability claims to come from, before any signature is checked: for sharing what is scarce
/// among those who ask, and for nothing else.
///
/// # Errors
/// [`InvalidCapability`] when the container does not hold.
pub fn claimed_authority(capability: &Capability) -> Result<BlockId, InvalidCapability> {
    let container = Container::decode(capability)?;
    container.blocks().next().map(|authority| authority.id).ok_or(InvalidCapability::Malformed)
}

/// Verifies a capability: its encoding, every signature, the holder rule, the vocabulary, and compiles its caveats.
///
/// Bounds come before signatures, and signatures before anything that costs more than its bytes.
///
/// # Errors
/// [`InvalidCapability`], the first rule that does not hold.
pub fn verify(capability: &Capability, roots: &Roots, limits: &Limits) -> Result<Verified, InvalidCapability> {
    verify_in_steps(capability, roots, limits, || {})
}

/// The same in steps of some tens of microseconds, with a call of `between` after each: the longest chains take some
/// milliseconds in all.
///
/// # Errors
/// Those of [`verify`].
pub fn verify_in_steps(
    capability: &Capability,
    roots: &Roots,
    limits: &Limits,
    mut between: impl FnMut(),
) -> Result<Verified, InvalidCapability> {
    let container = Container::decode(capability)?;
    let root = roots.get(container.kid()).ok_or(InvalidCapability::RootUnknown)?;
    signatures::check(&container, root, &mut between)?;
    Ok(Verified { chain: Chain::walk(capability, &container, *limits, &mut between)? })
}
