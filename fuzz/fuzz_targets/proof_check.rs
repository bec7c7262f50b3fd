//! Any 96 bytes as a proof, at any moment: no panic, and what is accepted is refused with any one bit changed.
//!
//! The first 8 bytes are the moment, the next 2 which bit to change, the rest the proof. Seeds hold proofs that alice's key
//! of `tests/vectors/keys.json` made.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use narrows::capability::{Algorithm, Context, PROOF_BYTES, PrivateKey, Proof, ProofLimits, PublicKey, Purpose};
use narrows::clock::UnixSeconds;

const CAPABILITY: [u8; 32] = [0xca; 32];

static ALICE: LazyLock<[PublicKey; 2]> = LazyLock::new(|| {
    [Algorithm::Ed25519, Algorithm::P256].map(|kind| *PrivateKey::from_seed(kind, [10; 32]).unwrap().public())
});

fuzz_target!(|bytes: &[u8]| {
    let Some((moment, rest)) = bytes.split_first_chunk::<8>() else { return };
    let Some((bit, bytes)) = rest.split_first_chunk::<2>() else { return };
    let Ok(proof) = Proof::parse(bytes) else { return };
    assert_eq!(proof.as_bytes().as_slice(), bytes);
    let now = UnixSeconds(u64::from_be_bytes(*moment));
    let limits = ProofLimits::since(UnixSeconds(now.get().saturating_sub(86_400)));
    let context = Context::new("local", Purpose::Connect { target: "api.acme.test:443" });
    let accepted = |proof: &Proof| {
        ALICE.iter().any(|holder| proof.check(holder, &CAPABILITY, &context, now, &limits).is_ok())
    };
    if !accepted(&proof) {
        return;
    }
    assert!(proof.ttl_s() <= limits.presentation_ttl_max_s);
    assert!(proof.issued_at() <= now + limits.skew_s);
    assert!(now < proof.issued_at() + u64::from(proof.ttl_s()) + limits.skew_s);
    let mut changed: [u8; PROOF_BYTES] = *proof.as_bytes();
    let bit = usize::from(u16::from_be_bytes(*bit)) % (PROOF_BYTES * 8);
    changed[bit / 8] ^= 1 << (bit % 8);
    assert!(!Proof::parse(&changed).is_ok_and(|changed| accepted(&changed)), "bit {bit} says nothing");
});
