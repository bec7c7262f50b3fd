//! Writing the vectors. The verdicts are written down here by hand; only bytes are computed.

use serde_json::{Value, json};

mod capabilities;
mod credentials;
mod grants;
mod proofs;
mod requests;

/// The moment at which everything happens: 2027-01-15T08:00:00Z.
pub(crate) const NOW: u64 = 1_800_000_000;

/// Every file with its content.
pub(crate) fn files() -> Vec<(&'static str, Value)> {
    vec![
        ("keys.json", keys()),
        ("capabilities.json", capabilities::file()),
        ("requests.json", requests::file()),
        ("proofs.json", proofs::file()),
        ("credentials.json", credentials::file()),
        ("grants.json", grants::file()),
    ]
}

/// The keys behind the vectors: the private key of each is one byte, 32 times.
fn keys() -> Value {
    use narrows::capability::{Algorithm, PrivateKey};
    let key = |name: &str, algorithm: Algorithm, seed: u8| {
        let private = PrivateKey::from_seed(algorithm, [seed; 32]).expect("a seed in range");
        json!({ "name": name, "algorithm": algorithm.name(), "seed_byte": seed, "public": private.public().to_string() })
    };
    json!({
        "about": "The seed of each key (Ed25519) or its scalar (P-256) is seed_byte, 32 times. Chain keys are Ed25519 with seed bytes from 100 on.",
        "cases": [
            key("root", Algorithm::Ed25519, crate::forge::ROOT),
            key("root-p256", Algorithm::P256, crate::forge::ROOT),
            key("alice", Algorithm::Ed25519, crate::forge::ALICE),
            key("alice-p256", Algorithm::P256, crate::forge::ALICE),
            key("bob", Algorithm::Ed25519, crate::forge::BOB),
            key("carol", Algorithm::Ed25519, crate::forge::CAROL),
            key("thief", Algorithm::Ed25519, crate::forge::THIEF),
        ],
    })
}
