//! Any bytes as a capability: no panic, what is read is what re-encodes, and whoever trusts no root accepts nothing.
//!
//! Seeds are `tests/vectors`'; their root is trusted beside that, so that the walk is taken to its end.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use narrows::capability::{Algorithm, Capability, Chain, Limits, PrivateKey, Roots, claimed_holder, inspect, verify};

static ROOTS: LazyLock<Roots> = LazyLock::new(|| {
    let root = *PrivateKey::from_seed(Algorithm::Ed25519, [1; 32]).unwrap().public();
    Roots::new([(7, root)].into())
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(capability) = Capability::from_bytes(bytes) else { return };
    assert_eq!(Capability::from_text(&capability.to_text()).as_ref(), Ok(&capability));
    let chain = Chain::read(&capability, &Limits::default());
    if let Ok(chain) = &chain {
        assert_eq!(claimed_holder(&capability), Ok(*chain.holder()));
        let _ = (capability.seal(), inspect::tree(chain, None), inspect::json(chain));
    }
    if let Ok(verified) = verify(&capability, &ROOTS, &Limits::default()) {
        assert_eq!(chain.as_ref().map(Chain::hash), Ok(verified.chain().hash()));
        assert_eq!(claimed_holder(&capability), Ok(*verified.chain().holder()));
        assert!(verified.chain().is_sealed() || capability.seal().is_ok());
    }
    assert!(verify(&capability, &Roots::default(), &Limits::default()).is_err());
});
