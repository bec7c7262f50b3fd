//! The container and the payloads of its blocks: decoded, bounded, and shown to be in their one encoding.
//!
//! Deliberately absent: signatures (`signatures`), and the meaning of facts and checks (`vocabulary`, `caveat`).

use aws_lc_rs::digest::{Context, SHA256};
use biscuit_auth::format::schema;
use prost::Message;

use super::{Algorithm, BlockId, Capability, InvalidCapability, PrivateKey, PublicKey};

/// A capability has at most this many blocks, the authority block among them.
pub const BLOCKS_MAX: usize = 33;
/// The one signature version: version 0 does not cover the signature before, so that a delegation could be moved to
/// another chain.
pub(super) const SIGNATURE_VERSION: u32 = 1;
/// What the id of a later block is hashed under.
const BLOCK_ID_CONTEXT: &[u8] = b"narrows-block-1\0";

/// A decoded container: bounded, canonical, every block with signature version 1 and a chain key of its own.
pub(super) struct Container {
    schema: schema::Biscuit,
    kid: u32,
}

/// One block of a container, its payload still bytes.
pub(super) struct SignedBlock<'a> {
    pub(super) payload: &'a [u8],
    /// Whose external signature it claims; `None` for a first-party block.
    pub(super) external: Option<&'a schema::PublicKey>,
    /// What revocation, budgets and the journal call it.
    pub(super) id: BlockId,
}

impl Container {
    /// Decodes and checks what can be checked without any key, cheap first.
    pub(super) fn decode(capability: &Capability) -> Result<Self, InvalidCapability> {
        let schema = decode_canonical::<schema::Biscuit>(capability.as_bytes())?;
        if schema.blocks.len() >= BLOCKS_MAX {
            return Err(InvalidCapability::TooManyBlocks);
        }
        let kid = schema.root_key_id.ok_or(InvalidCapability::RootMissing)?;
        let container = Self { schema, kid };
        container.check_blocks()?;
        Ok(container)
    }

    /// Which root key signed the authority block, as claimed.
    pub(super) const fn kid(&self) -> u32 {
        self.kid
    }

    pub(super) fn is_sealed(&self) -> bool {
        matches!(self.schema.proof.content, Some(schema::proof::Content::FinalSignature(_)))
    }

    /// Whether the chain key that it carries is the one that its last block names, so that what is appended with it
    /// would verify.
    pub(super) fn can_append(&self) -> bool {
        let last = self.schema.blocks.last().unwrap_or(&self.schema.authority);
        let Some(schema::proof::Content::NextSecret(seed)) = &self.schema.proof.content else { return false };
        let key = <[u8; 32]>::try_from(seed.as_slice()).ok();
        let key = key.and_then(|seed| PrivateKey::from_seed(Algorithm::Ed25519, seed).ok());
        key.is_some_and(|key| key.public().as_bytes() == last.next_key.key)
    }

    /// The blocks, authority first.
    pub(super) fn blocks(&self) -> impl DoubleEndedIterator<Item = SignedBlock<'_>> {
        let authority = SignedBlock {
            payload: &self.schema.authority.block,
            external: None,
            id: BlockId::of_key(&self.schema.authority.next_key.key),
        };
        let later = self.schema.blocks.iter().enumerate().map(|(index, block)| {
            let before = match index.checked_sub(1) {
                Some(before) => self.schema.blocks.get(before).unwrap_or(block),
                None => &self.schema.authority,
            };
            SignedBlock {
                payload: &block.block,
                external: block.external_signature.as_ref().map(|external| &external.public_key),
                id: BlockId::of_later(&before.signature, &block.block),
            }
        });
        std::iter::once(authority).chain(later)
    }

    /// The same as they are in the container, with their signatures.
    pub(super) fn signed(&self) -> impl Iterator<Item = &schema::SignedBlock> {
        std::iter::once(&self.schema.authority).chain(&self.schema.blocks)
    }

    /// What ends the chain: the last chain key's private half, or its signature.
    pub(super) const fn proof(&self) -> Option<&schema::proof::Content> {
        self.schema.proof.content.as_ref()
    }

    fn check_blocks(&self) -> Result<(), InvalidCapability> {
        if self.schema.authority.external_signature.is_some() {
            return Err(InvalidCapability::Signer);
        }
        let mut chain_keys = Vec::with_capacity(1 + self.schema.blocks.len());
        for block in self.signed() {
            if block.version != Some(SIGNATURE_VERSION) {
                return Err(InvalidCapability::SignatureVersion);
            }
            let key = &block.next_key;
            if key.algorithm != i32::from(Algorithm::Ed25519.to_wire()) || chain_keys.contains(&&key.key) {
                return Err(InvalidCapability::ChainKey);
            }
            chain_keys.push(&key.key);
        }
        Ok(())
    }
}

impl BlockId {
    /// Block 0 is named by its chain key, which the root's signature covers. Its signature would be malleable under a
    /// P-256 root.
    fn of_key(next_key: &[u8]) -> Self {
        // A key of another length is no Ed25519 key, and its signature check fails.
        Self(<[u8; 32]>::try_from(next_key).unwrap_or_default())
    }

    /// A later block is named by what its signer signed. Its chain key or signature would not do: whoever has the
    /// parent unsealed can attach the same delegation again under a fresh chain key.
    fn of_later(signature_before: &[u8], payload: &[u8]) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(BLOCK_ID_CONTEXT);
        hash.update(signature_before);
        hash.update(payload);
        Self(<[u8; 32]>::try_from(hash.finish().as_ref()).unwrap_or_default())
    }
}

/// The key of a container's `PublicKey` message, if it is a sound one.
pub(super) fn public_key(key: &schema::PublicKey) -> Option<PublicKey> {
    let algorithm = u8::try_from(key.algorithm).ok().and_then(Algorithm::from_wire)?;
    PublicKey::from_bytes(algorithm, &key.key).ok()
}

/// Decodes a message and refuses every other encoding of it: unknown or repeated fields, another order, longer
/// varints.
pub(super) fn decode_canonical<M: Message + Default>(bytes: &[u8]) -> Result<M, InvalidCapability> {
    let message = M::decode(bytes).map_err(|_| InvalidCapability::Malformed)?;
    if message.encode_to_vec() == bytes { Ok(message) } else { Err(InvalidCapability::NonCanonical) }
}
