//! Any checks in an otherwise sound block: no panic while compiling, evaluating or showing them.
#![no_main]

use std::sync::LazyLock;

use biscuit_auth::builder::{Term, bytes, fact, int};
use biscuit_auth::datalog::SymbolTable;
use biscuit_auth::format::schema;
use biscuit_auth::{Algorithm, BiscuitBuilder, KeyPair, PrivateKey};
use libfuzzer_sys::fuzz_target;
use narrows::capability::{Capability, Chain, Limits};
use prost::Message;

static SOUND: LazyLock<schema::Biscuit> = LazyLock::new(|| {
    let key = KeyPair::from(&PrivateKey::from_bytes(&[1; 32], Algorithm::Ed25519).unwrap());
    let facts = [fact("cap", &[int(1), Term::Null]), fact("holder", &[int(0), bytes(&key.public().to_bytes())])];
    let sound = facts.into_iter().fold(BiscuitBuilder::new().root_key_id(0), |sound, fact| sound.fact(fact).unwrap());
    let sound = sound.build_with_key_pair(&key, SymbolTable::new(), &key).unwrap().to_vec().unwrap();
    schema::Biscuit::decode(sound.as_slice()).unwrap()
});

fuzz_target!(|data: &[u8]| {
    let Ok(fuzzed) = schema::Block::decode(data) else { return };
    let mut container = SOUND.clone();
    let mut block = schema::Block::decode(container.authority.block.as_slice()).unwrap();
    block.symbols.extend(fuzzed.symbols);
    block.checks = fuzzed.checks;
    container.authority.block = block.encode_to_vec();
    let Ok(capability) = Capability::from_bytes(&container.encode_to_vec()) else { return };
    let Ok(chain) = Chain::read(&capability, &Limits::default()) else { return };
    chain.blocks()[0].caveats().iter().for_each(|caveat| drop((caveat.to_string(), caveat.expires_at())));
});
