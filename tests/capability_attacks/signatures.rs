//! Signatures: one bit away from a good one none is, and what is accepted is what the library accepts.

use std::collections::BTreeMap;

use biscuit_auth::format::schema::{self, proof};
use narrows::capability::{
    Algorithm, AuthorityBlock, Capability, DelegationBlock, InvalidCapability, Limits, NarrowingBlock, PrivateKey,
    Roots, delegate, mint, narrow, verify_in_steps,
};
use prost::Message;

use crate::forge::{Forgery, KID, authority, capability, content, judged, roots};

fn key(algorithm: Algorithm, seed: u8) -> PrivateKey {
    PrivateKey::from_seed(algorithm, [seed; 32]).expect("a key")
}

/// A root and holders of this scheme: an authority block, a narrowing, and a delegation.
fn chain(of: Algorithm) -> (Capability, Roots) {
    let (root, first, second) = (key(of, 1), key(of, 2), key(of, 3));
    let authority = AuthorityBlock {
        holder: *first.public(),
        user: None,
        rights: vec![("acme".to_owned(), "*".to_owned())],
        caveats: Vec::new(),
        budgets: Vec::new(),
        rates: Vec::new(),
    };
    let minted = mint(&root, KID, &authority, [100; 32]).expect("mints");
    let narrowing = NarrowingBlock { caveats: vec!["check if port(443)".to_owned()], ..NarrowingBlock::default() };
    let narrowed = narrow(&minted, &narrowing, [101; 32]).expect("narrows");
    let delegation = DelegationBlock {
        holder: *second.public(),
        agent: None,
        caveats: Vec::new(),
        budgets: Vec::new(),
        rates: Vec::new(),
    };
    let chain = delegate(&narrowed, &first, &delegation, [102; 32]).expect("delegates");
    (chain, Roots::new(BTreeMap::from([(KID, *root.public())])))
}

#[test]
fn no_bit_of_a_chain_is_free() {
    for of in [Algorithm::Ed25519, Algorithm::P256] {
        let (open, roots) = chain(of);
        for good in [open.seal().expect("seals"), open] {
            let _ = judged(&good, &roots).expect("as it was made");
            for at in 0..good.as_bytes().len() {
                let mut bytes = good.as_bytes().to_vec();
                bytes[at] ^= 1 << (at % 8);
                let Ok(flipped) = Capability::from_bytes(&bytes) else { continue };
                // The number of the root is signed by nobody, and names none here.
                assert!(judged(&flipped, &roots).is_err(), "{of:?}, byte {at}");
            }
        }
    }
}

#[test]
fn a_signature_has_one_encoding() {
    for of in [Algorithm::Ed25519, Algorithm::P256] {
        let (open, roots) = chain(of);
        let sealed = open.seal().expect("seals");
        let good = schema::Biscuit::decode(sealed.as_bytes()).expect("decodes");
        let signatures: [fn(&mut schema::Biscuit) -> &mut Vec<u8>; 4] = [
            |of| &mut of.authority.signature,
            |of| &mut of.blocks[1].signature,
            |of| &mut of.blocks[1].external_signature.as_mut().expect("a delegation").signature,
            |of| match of.proof.content.as_mut().expect("an end") {
                proof::Content::FinalSignature(seal) => seal,
                proof::Content::NextSecret(_) => panic!("it is sealed"),
            },
        ];
        let changes: [fn(&mut Vec<u8>); 5] = [
            |signature| signature.push(0),
            |signature| signature.insert(0, 0),
            |signature| signature.truncate(signature.len() - 1),
            Vec::clear,
            // A DER length in two bytes.
            |signature| {
                signature.insert(1, 0x81);
            },
        ];
        for signature in signatures {
            for change in changes {
                let mut changed = good.clone();
                change(signature(&mut changed));
                let verdict = judged(&capability(&changed), &roots);
                assert_eq!(verdict.err(), Some(InvalidCapability::Signature), "{of:?}");
            }
        }
    }
}

/// Of a chain of three blocks two are put in each other's place, one is left out, one comes twice: each signature covers
/// the one before.
#[test]
fn signatures_stand_in_their_order_alone() {
    let (open, roots) = chain(Algorithm::Ed25519);
    let good = schema::Biscuit::decode(open.as_bytes()).expect("decodes");
    let changes: [fn(&mut schema::Biscuit); 4] = [
        |of| of.blocks.swap(0, 1),
        |of| drop(of.blocks.remove(0)),
        |of| drop(of.blocks.pop()),
        |of| std::mem::swap(&mut of.authority, &mut of.blocks[0]),
    ];
    for change in changes {
        let mut changed = good.clone();
        change(&mut changed);
        assert_eq!(judged(&capability(&changed), &roots).err(), Some(InvalidCapability::Signature));
    }
}

#[test]
fn the_end_belongs_to_the_last_block() {
    let forgery = Forgery::of(&content(&authority()));
    let good = forgery.schema();
    let ends = [
        None,
        Some(proof::Content::NextSecret(vec![101; 32])),
        Some(proof::Content::NextSecret(vec![100; 31])),
        Some(proof::Content::FinalSignature(vec![0; 64])),
        Some(proof::Content::FinalSignature(good.authority.signature.clone())),
    ];
    let _ = judged(&forgery.capability(), &roots()).expect("as it was made");
    for content in ends {
        let changed = schema::Biscuit { proof: schema::Proof { content }, ..good.clone() };
        let verdict = judged(&capability(&changed), &roots());
        assert_eq!(verdict.err(), Some(InvalidCapability::Signature), "{:?}", changed.proof);
    }
}

#[test]
fn others_have_their_turn_between_two_signatures() {
    let (open, roots) = chain(Algorithm::Ed25519);
    let sealed = open.seal().expect("seals");
    for (capability, signatures) in [(&open, 4), (&sealed, 5)] {
        let mut turns = 0;
        let _ = verify_in_steps(capability, &roots, &Limits::default(), || turns += 1).expect("as it was made");
        // And between blocks, when they are read.
        assert_eq!(turns, signatures + 2);
    }
}
