//! Any bytes as a capability: no panic, and what is read is what re-encodes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use narrows::capability::{Capability, Chain, Limits, Roots, claimed_holder, verify};

fuzz_target!(|bytes: &[u8]| {
    let Ok(capability) = Capability::from_bytes(bytes) else { return };
    assert_eq!(Capability::from_text(&capability.to_text()).as_ref(), Ok(&capability));
    let chain = Chain::read(&capability, &Limits::default());
    if let Ok(chain) = &chain {
        assert_eq!(claimed_holder(&capability), Ok(*chain.holder()));
        let _ = capability.seal();
    }
    assert!(verify(&capability, &Roots::default(), &Limits::default()).is_err());
});
