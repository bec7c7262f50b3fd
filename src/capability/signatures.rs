//! The signatures of a chain (biscuit specification, "Signature (one block)", version 1): each block's by the chain key of
//! the block before it, each delegation's by its holder too, and the end's by the last chain key.
//!
//! The library checks all of a chain at once, which takes milliseconds for a long one. Here it is done in steps, so that
//! others can have their turn between them. What is accepted is what the library accepts, of keys in their one encoding
//! (`tests/capability_attacks/signatures.rs`).

use biscuit_auth::format::schema::{SignedBlock, proof};

use super::container::{Container, SIGNATURE_VERSION, public_key};
use super::{InvalidCapability, PublicKey};

/// Checks every signature of a chain, the authority's by `root`. `between` is called after each.
pub(super) fn check(
    container: &Container,
    root: &PublicKey,
    between: &mut dyn FnMut(),
) -> Result<(), InvalidCapability> {
    let mut signed = Vec::new();
    let (mut key, mut before) = (*root, None::<&SignedBlock>);
    for block in container.signed() {
        let previous = before.map(|before| &*before.signature);
        write_block(&mut signed, block, previous);
        verify(&key, &signed, &block.signature)?;
        between();
        // The container has none of an authority block.
        if let (Some(external), Some(previous)) = (&block.external_signature, previous) {
            write_external(&mut signed, block, previous);
            let holder = public_key(&external.public_key).ok_or(InvalidCapability::Signature)?;
            verify(&holder, &signed, &external.signature)?;
            between();
        }
        key = public_key(&block.next_key).ok_or(InvalidCapability::Signature)?;
        before = Some(block);
    }
    match (container.proof(), before) {
        (Some(proof::Content::FinalSignature(signature)), Some(last)) => {
            write_seal(&mut signed, last);
            verify(&key, &signed, signature)?;
            between();
            Ok(())
        }
        _ if container.can_append() => Ok(()),
        _ => Err(InvalidCapability::Signature),
    }
}

fn verify(key: &PublicKey, message: &[u8], signature: &[u8]) -> Result<(), InvalidCapability> {
    key.verify_encoded(message, signature).map_err(|_| InvalidCapability::Signature)
}

/// What the chain key before a block signs.
fn write_block(out: &mut Vec<u8>, block: &SignedBlock, previous: Option<&[u8]>) {
    begin(out, b"\0BLOCK\0", block);
    out.extend_from_slice(b"\0ALGORITHM\0");
    out.extend_from_slice(&block.next_key.algorithm.to_le_bytes());
    out.extend_from_slice(b"\0NEXTKEY\0");
    out.extend_from_slice(&block.next_key.key);
    if let Some(previous) = previous {
        out.extend_from_slice(b"\0PREVSIG\0");
        out.extend_from_slice(previous);
    }
    if let Some(external) = &block.external_signature {
        out.extend_from_slice(b"\0EXTERNALSIG\0");
        out.extend_from_slice(&external.signature);
    }
}

/// What the holder who delegates signs.
fn write_external(out: &mut Vec<u8>, block: &SignedBlock, previous: &[u8]) {
    begin(out, b"\0EXTERNAL\0", block);
    out.extend_from_slice(b"\0PREVSIG\0");
    out.extend_from_slice(previous);
}

/// What both begin with.
fn begin(out: &mut Vec<u8>, of: &[u8], block: &SignedBlock) {
    out.clear();
    out.extend_from_slice(of);
    out.extend_from_slice(b"\0VERSION\0");
    out.extend_from_slice(&SIGNATURE_VERSION.to_le_bytes());
    out.extend_from_slice(b"\0PAYLOAD\0");
    out.extend_from_slice(&block.block);
}

/// What the last chain key signs of a sealed capability.
fn write_seal(out: &mut Vec<u8>, last: &SignedBlock) {
    out.clear();
    out.extend_from_slice(&last.block);
    out.extend_from_slice(&last.next_key.algorithm.to_le_bytes());
    out.extend_from_slice(&last.next_key.key);
    out.extend_from_slice(&last.signature);
}
