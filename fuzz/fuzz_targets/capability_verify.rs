//! Any bytes as a capability: no panic, what is read is what re-encodes, and whoever trusts no root accepts nothing. And
//! with right signatures under the same payloads, what is accepted the library accepts.
//!
//! Seeds are `tests/vectors`'; their root is trusted beside that, so that the walk is taken to its end.
#![no_main]

use std::sync::LazyLock;

use biscuit_auth::format::schema;
use libfuzzer_sys::fuzz_target;
use narrows::capability::{Capability, Chain, Limits, Roots, claimed_holder, inspect, verify};
use prost::Message;

#[allow(dead_code, reason = "the attacks' own tests use all of it")]
#[path = "../../tests/capability_attacks/forge.rs"]
mod forge;

use forge::{ALICE, BOB, CAROL, Forgery, KID, Link, ROOT, judged, pair, public};

/// Signing takes time, and two blocks have all there is between blocks.
const LINKS_MAX: usize = 3;

static ROOTS: LazyLock<Roots> = LazyLock::new(forge::roots);

/// The same payloads, each signed as it has to be: by whom it names, where that is one of the seeds' holders.
fn signed_anew(bytes: &[u8]) -> Option<Capability> {
    let container = schema::Biscuit::decode(bytes).ok()?;
    let blocks = std::iter::once(&container.authority).chain(&container.blocks).take(LINKS_MAX);
    let links = blocks.zip(100..).map(|(block, chain_key)| {
        let key = block.external_signature.as_ref().map(|external| &external.public_key.key);
        let holder = |seed: &u8| key.is_some_and(|key| public(*seed).as_bytes() == key.as_slice());
        let signer = key.map(|_| [ALICE, BOB, CAROL].into_iter().find(holder).unwrap_or(ALICE));
        let signer = signer.filter(|_| chain_key > 100);
        Link { payload: block.block.clone(), signer, chain_key: pair(chain_key), version: Some(1) }
    });
    let forgery = Forgery { root: pair(ROOT), kid: Some(KID), links: links.collect(), sealed: bytes.len() % 2 == 0 };
    Capability::from_bytes(&forgery.schema().encode_to_vec()).ok()
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(capability) = Capability::from_bytes(bytes) else { return };
    assert_eq!(Capability::from_text(&capability.to_text()).as_ref(), Ok(&capability));
    let chain = Chain::read(&capability, &Limits::default());
    if let Ok(chain) = &chain {
        assert_eq!(claimed_holder(&capability), Ok(*chain.holder()));
        let _ = (capability.seal(), inspect::tree(chain, None), inspect::json(chain));
    }
    if let Ok(verified) = judged(&capability, &ROOTS) {
        assert_eq!(chain.as_ref().map(Chain::hash), Ok(verified.chain().hash()));
        assert_eq!(claimed_holder(&capability), Ok(*verified.chain().holder()));
        assert!(verified.chain().is_sealed() || capability.seal().is_ok());
    }
    if let Some(anew) = signed_anew(bytes) {
        let _ = judged(&anew, &ROOTS);
    }
    assert!(verify(&capability, &Roots::default(), &Limits::default()).is_err());
});
