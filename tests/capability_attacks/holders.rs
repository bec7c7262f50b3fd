//! Who may delegate, and that a block stays where its signer put it.

use biscuit_auth::Algorithm as BiscuitAlgorithm;
use biscuit_auth::format::schema::proof;
use narrows::capability::{BlockKind, Capability, InvalidCapability, Limits, Roots, claimed_holder, verify};

use crate::forge::{
    ALICE, BOB, CAROL, Forgery, KID, Link, ROOT, Request, THIEF, authority, capability, class, content, content_after,
    holder, library_accepts, pair, pair_of, public,
};

const RIGHTS: &str = r#"user("alice"); right("acme", "read"); right("acme", "write");"#;

/// ALICE, then BOB who may only read, then CAROL who may only see items.
fn honest() -> Forgery {
    Forgery::of(&content(&format!("{} {RIGHTS} check if hop($h), $h <= 2;", authority())))
        .delegate(ALICE, &format!(r#"{} agent("bob"); check if operation("read");"#, holder(BOB)))
        .delegate(BOB, &format!(r#"{} agent("carol"); check if path($p), $p.starts_with("/v1/items");"#, holder(CAROL)))
}

#[test]
fn an_honest_chain_is_accepted_and_narrows_at_each_hop() {
    let verified = honest().verify().expect("honest");
    let names: Vec<_> = verified.holders().iter().map(|hop| (hop.holder, hop.name.as_deref())).collect();
    assert_eq!(names, [(public(ALICE), None), (public(BOB), Some("bob")), (public(CAROL), Some("carol"))]);
    assert_eq!((*verified.holder(), verified.hop(), verified.user()), (public(CAROL), 2, Some("alice")));
    let signers: Vec<_> = verified.blocks().iter().map(|block| (block.kind(), block.signer().copied())).collect();
    let delegation = BlockKind::Delegation;
    assert_eq!(
        signers,
        [(BlockKind::Authority, None), (delegation, Some(public(ALICE))), (delegation, Some(public(BOB)))]
    );
    assert!(verified.could_serve("acme") && !verified.could_serve("web"));

    let asked = Request { hop: 2, ..Request::default() };
    assert!(asked.permitted_by(&verified));
    assert!(!Request { path: Some("/v1/users"), ..asked }.permitted_by(&verified));
    assert!(!Request { operation: "write", hop: 2, ..Request::default() }.permitted_by(&verified));
    assert!(!Request { service: "other", hop: 2, ..Request::default() }.permitted_by(&verified));
    assert!(!Request { operation: "delete", hop: 2, ..Request::default() }.permitted_by(&verified));
}

#[test]
fn only_the_holder_delegates() {
    let to_thief = format!("{} check if operation(\"read\");", holder(THIEF));
    assert_eq!(Forgery::of(&content(&authority())).delegate(ALICE, &to_thief).class(), "accepted");
    // A thief has the capability with its chain key, but not the holder's key.
    assert_eq!(Forgery::of(&content(&authority())).delegate(THIEF, &to_thief).class(), "signer");
    // A former holder, and a later one, are not the holder.
    assert_eq!(Forgery::delegation("").delegate(ALICE, &holder(THIEF)).class(), "signer");
    assert_eq!(Forgery::delegation("").delegate(BOB, &holder(CAROL)).class(), "accepted");
    assert_eq!(Forgery::of(&content(&authority())).delegate(BOB, &holder(BOB)).class(), "signer");
    // Nor is the root, once it has named a holder.
    assert_eq!(Forgery::of(&content(&authority())).delegate(ROOT, &holder(THIEF)).class(), "signer");
}

#[test]
fn the_external_key_on_paper_is_the_key_that_signed() {
    let genuine = Forgery::delegation("").schema();
    let mut claimed = Forgery::of(&content(&authority())).delegate(THIEF, &holder(THIEF)).schema();
    let external = claimed.blocks[0].external_signature.as_mut().expect("a delegation");
    external.public_key = pair(ALICE).public().to_proto();
    assert_eq!((class(&genuine), class(&claimed)), ("accepted", "signature"));
    // The same 32 bytes as a key of another scheme are another key.
    let mut confused = Forgery::delegation("").schema();
    confused.blocks[0].external_signature.as_mut().expect("a delegation").public_key.algorithm = 1;
    assert_eq!(class(&confused), "signature");
}

#[test]
fn a_delegation_cannot_move_to_another_capability_of_the_same_holder() {
    let narrow =
        Forgery::of(&content(&format!("{} right(\"acme\", \"read\");", authority()))).delegate(ALICE, &holder(BOB));
    let mut wide =
        Forgery::of(&content(&format!("{} right(\"acme\", \"*\");", authority()))).delegate(ALICE, &holder(BOB));
    assert_eq!((narrow.class(), wide.class()), ("accepted", "accepted"));
    // BOB has ALICE's wide capability, unsealed, and the delegation that she made for a narrow one.
    let moved = narrow.schema().blocks.remove(0);
    wide.links.pop();
    let mut grafted = wide.schema();
    grafted.blocks.push(moved.clone());
    grafted.proof = narrow.schema().proof;
    assert_eq!(class(&grafted), "signature");
    // Signing it again with the chain key of the wide one does not help: ALICE's signature covers what was before.
    let mut signed_again = wide.delegate(ALICE, &holder(BOB)).schema();
    signed_again.blocks[0].external_signature = moved.external_signature;
    assert_eq!(class(&signed_again), "signature");
}

#[test]
fn blocks_keep_their_place() {
    let genuine = honest().schema();
    assert_eq!(class(&genuine), "accepted");
    let mut twice = genuine.clone();
    twice.blocks.insert(1, genuine.blocks[0].clone());
    let mut dropped_last = genuine.clone();
    dropped_last.blocks.pop();
    let mut dropped_middle = genuine.clone();
    dropped_middle.blocks.remove(0);
    let mut reordered = genuine.clone();
    reordered.blocks.swap(0, 1);
    let mut emptied = genuine.clone();
    emptied.blocks.clear();
    assert_eq!(class(&twice), "chain_key");
    assert_eq!([class(&dropped_last), class(&dropped_middle), class(&reordered), class(&emptied)], ["signature"; 4]);
    let mut edited = genuine.clone();
    edited.blocks[0].block = Link::new(&content(&holder(BOB)), None, 0).payload;
    assert_eq!(class(&edited), "signature");
    // A chain key, on its own, is free: putting another one there breaks the signature that covers it.
    let mut rekeyed = genuine;
    rekeyed.blocks[1].next_key = pair(200).public().to_proto();
    rekeyed.proof.content = Some(proof::Content::NextSecret(pair(200).private().to_bytes().to_vec()));
    assert_eq!(class(&rekeyed), "signature");
}

#[test]
fn a_holder_with_the_leaked_parent_gets_nothing_wider() {
    // BOB has ALICE's capability with its chain key, besides his own.
    let parent = Forgery::of(&content(&format!("{} {RIGHTS}", authority())));
    let verified = parent.verify().expect("genuine");
    assert_eq!(*verified.holder(), public(ALICE), "a proof by BOB does not fit it");
    assert_eq!(parent.delegate(BOB, &holder(BOB)).class(), "signer");
}

#[test]
fn a_delegation_attached_again_keeps_its_id() {
    let first = honest();
    let mut again = honest();
    // Whoever has the parent unsealed can attach the same delegation under a fresh chain key.
    again.links[2].chain_key = pair(200);
    let (first, again) = (first.verify().expect("genuine"), again.verify().expect("the same delegation"));
    assert_ne!(first.hash(), again.hash());
    assert_eq!(*first.holder(), *again.holder());
    let ids = |verified: &narrows::capability::Verified| {
        verified.blocks().iter().map(narrows::capability::Block::id).collect::<Vec<_>>()
    };
    assert_eq!(ids(&first), ids(&again));
    // Its twin: another content, another id; the parent's ids are the same.
    let mut other = honest();
    other.links.pop();
    let other = other.delegate(BOB, &holder(CAROL)).verify().expect("a sibling");
    assert_eq!(ids(&first)[..2], ids(&other)[..2]);
    assert_ne!(ids(&first)[2], ids(&other)[2]);
}

#[test]
fn block_ids_are_what_the_design_says() {
    let forgery = honest();
    let (schema, verified) = (forgery.schema(), forgery.verify().expect("genuine"));
    assert_eq!(verified.blocks()[0].id().0.as_slice(), schema.authority.next_key.key);
    let before = &schema.blocks[0].signature;
    let signed = [b"narrows-block-1\0".as_slice(), before, &schema.blocks[1].block].concat();
    let id = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &signed);
    assert_eq!(verified.blocks()[2].id().0.as_slice(), id.as_ref());
    assert_eq!(verified.holders()[2].block, verified.blocks()[2].id());
    let text = verified.blocks()[2].id().to_string();
    assert_eq!(text.parse(), Ok(verified.blocks()[2].id()));
    assert!(text.to_ascii_uppercase().parse::<narrows::capability::BlockId>().is_err());
}

#[test]
fn the_id_under_a_p256_root_does_not_change_with_its_malleable_signature() {
    let mut forgery = Forgery::of(&content(&authority()));
    forgery.root = pair_of(BiscuitAlgorithm::Secp256r1, ROOT);
    let root =
        narrows::capability::PrivateKey::from_seed(narrows::capability::Algorithm::P256, [ROOT; 32]).expect("a scalar");
    let roots = Roots::new([(KID, *root.public())].into());
    let genuine = forgery.schema();
    let mut flipped = genuine.clone();
    flipped.authority.signature = flip_s(&genuine.authority.signature);
    assert_ne!(genuine.authority.signature, flipped.authority.signature);
    let [genuine, flipped] = [genuine, flipped]
        .map(|schema| verify(&capability(&schema), &roots, &Limits::default()).expect("both signatures hold"));
    assert_eq!(genuine.blocks()[0].id(), flipped.blocks()[0].id());
}

/// The other signature of ECDSA: `(r, n - s)`, in DER.
fn flip_s(der: &[u8]) -> Vec<u8> {
    const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let r_end = 4 + usize::from(der[3]);
    let (r, s) = (&der[4..r_end], &der[r_end + 2..]);
    let s: Vec<u8> = s.iter().copied().skip_while(|byte| *byte == 0).collect();
    let s = [vec![0; 32 - s.len()], s].concat();
    let mut difference = hex::decode(ORDER).expect("hexadecimal");
    let mut borrow = 0;
    for (digit, subtrahend) in difference.iter_mut().zip(&s).rev() {
        let value = i16::from(*digit) - i16::from(*subtrahend) - borrow;
        borrow = i16::from(value < 0);
        *digit = u8::try_from(value.rem_euclid(256)).expect("a byte");
    }
    let difference: Vec<u8> = difference.into_iter().skip_while(|byte| *byte == 0).collect();
    let sign = if difference[0] >= 0x80 { vec![0] } else { vec![] };
    let integer = |bytes: &[u8]| [&[2, u8::try_from(bytes.len()).expect("short")], bytes].concat();
    let body = [integer(r), integer(&[sign, difference].concat())].concat();
    [vec![0x30, u8::try_from(body.len()).expect("short")], body].concat()
}

#[test]
fn a_narrowing_names_nobody_and_needs_no_holder() {
    assert_eq!(Forgery::narrowing(r#"check if operation("read");"#).class(), "accepted");
    // The last holder wins, if an unsigned block could name one: whoever has the capability would be it.
    assert_eq!(Forgery::narrowing(&holder(THIEF)).class(), "fact");
    assert_eq!(Forgery::narrowing(r#"agent("worker");"#).class(), "fact");
    // A delegation whose external signature is taken off is a narrowing that names a holder.
    let mut unsigned = Forgery::delegation("");
    let first = content(&authority());
    unsigned.links[1] = Link::new(&content_after(&[&first], &holder(BOB)), None, 101);
    assert_eq!(unsigned.class(), "fact");
}

#[test]
fn what_is_appended_after_a_delegation_binds_only_while_the_one_before_is_secret() {
    // Documented, not prevented: our tools put every caveat into the delegation itself.
    let mut late = Forgery::delegation("");
    let table = content(&authority());
    late.links.push(Link::new(&content_after(&[&table], r#"check if operation("read");"#), None, 102));
    assert_eq!(late.class(), "accepted");
    let verified = late.verify().expect("genuine");
    assert_eq!(verified.blocks()[2].set_by(), Some(&public(BOB)));
    assert_eq!(verified.blocks()[2].signer(), None);
    late.links.pop();
    assert_eq!(late.class(), "accepted");
}

#[test]
fn a_cycle_of_holders_stays_narrow() {
    let cycle = Forgery::of(&content(&format!("{} {RIGHTS}", authority())))
        .delegate(ALICE, &format!(r#"{} check if operation("read");"#, holder(BOB)))
        .delegate(BOB, &holder(ALICE));
    let verified = cycle.verify().expect("allowed");
    assert_eq!((*verified.holder(), verified.hop()), (public(ALICE), 2));
    assert!(Request::default().permitted_by(&verified));
    assert!(!Request { operation: "write", ..Request::default() }.permitted_by(&verified));
}

#[test]
fn a_later_block_cannot_lengthen_or_deepen() {
    let verified = Forgery::of(&content(&format!(
        "{} {RIGHTS} check if time($t), $t < 2027-01-15T09:00:00Z; check if hop($h), $h <= 1;",
        authority()
    )))
    .delegate(
        ALICE,
        &format!("{} check if time($t), $t < 2030-01-01T00:00:00Z; check if hop($h), $h <= 9;", holder(BOB)),
    )
    .verify()
    .expect("harmless");
    assert_eq!(verified.expires_at().map(|at| at.to_string()).as_deref(), Some("2027-01-15T09:00:00Z"));
    let in_time = Request { time: 1_800_003_599, hop: 1, ..Request::default() };
    assert!(in_time.permitted_by(&verified));
    assert!(!Request { time: 1_800_003_600, ..in_time }.permitted_by(&verified));
    assert!(!Request { hop: 2, ..Request::default() }.permitted_by(&verified));
}

#[test]
fn roots_are_chosen_by_number() {
    let mut forgery = Forgery::of(&content(&authority()));
    assert_eq!(forgery.class(), "accepted");
    forgery.kid = Some(KID + 1);
    assert_eq!(forgery.class(), "root_unknown");
    forgery.kid = None;
    assert_eq!(forgery.class(), "root_missing");
    // Rotation: both are valid while both are listed; a number with another root's key is not.
    forgery.kid = Some(8);
    let both = Roots::new([(KID, public(THIEF)), (8, public(ROOT))].into());
    assert!(verify(&forgery.capability(), &both, &Limits::default()).is_ok());
    forgery.kid = Some(KID);
    let verdict = verify(&forgery.capability(), &both, &Limits::default());
    assert_eq!(verdict.err(), Some(InvalidCapability::Signature));
    forgery.root = pair(THIEF);
    assert_eq!(forgery.class(), "signature");
}

#[test]
fn signature_version_zero_is_refused_at_every_block() {
    // Version 0 does not sign what came before; the biscuit library writes and accepts it.
    for version in [None, Some(0)] {
        let mut forgery = Forgery::of(&content(&authority()));
        forgery.links[0].version = version;
        assert!(library_accepts(&forgery.schema()));
        assert_eq!(forgery.class(), "signature_version");
        let mut later = Forgery::narrowing("");
        later.links[1].version = version;
        assert!(library_accepts(&later.schema()));
        assert_eq!(later.class(), "signature_version");
    }
    let mut unknown = Forgery::narrowing("").schema();
    unknown.blocks[0].version = Some(2);
    assert_eq!(class(&unknown), "signature_version");
    let mut downgraded = Forgery::delegation("").schema();
    downgraded.blocks[0].version = None;
    assert_eq!(class(&downgraded), "signature_version");
}

#[test]
fn chain_keys_are_ed25519_and_used_once() {
    let mut p256 = Forgery::of(&content(&authority()));
    p256.links[0].chain_key = pair_of(BiscuitAlgorithm::Secp256r1, 100);
    assert!(library_accepts(&p256.schema()));
    assert_eq!(p256.class(), "chain_key");
    let mut repeated = Forgery::delegation("");
    repeated.links[1].chain_key = pair(100);
    assert!(library_accepts(&repeated.schema()));
    assert_eq!(repeated.class(), "chain_key");
    repeated.links[1].chain_key = pair(101);
    assert_eq!(repeated.class(), "accepted");
}

#[test]
fn an_authority_block_has_no_external_signature() {
    let mut schema = Forgery::of(&content(&authority())).schema();
    schema.authority.external_signature = Forgery::delegation("").schema().blocks.remove(0).external_signature;
    assert_eq!(class(&schema), "signer");
}

#[test]
fn the_seal_ends_a_capability() {
    let mut sealed = honest();
    sealed.sealed = true;
    let (mut schema, capability_sealed) = (sealed.schema(), sealed.capability());
    assert_eq!(class(&schema), "accepted");
    assert!(capability_sealed.is_sealed() && !honest().capability().is_sealed());
    assert_eq!(honest().capability().seal().expect("seals"), capability_sealed, "sealing is deterministic");
    // Appending needs the chain key; dropping a block, the seal of the one before.
    let appended = honest().delegate(CAROL, &holder(THIEF)).schema();
    schema.blocks.push(appended.blocks[2].clone());
    assert_eq!(class(&schema), "signature");
    schema.blocks.truncate(1);
    assert_eq!(class(&schema), "signature");
    // Nor can the seal be replaced by a chain key of one's own.
    let mut unsealed = sealed.schema();
    unsealed.proof.content = Some(proof::Content::NextSecret(pair(THIEF).private().to_bytes().to_vec()));
    assert_eq!(class(&unsealed), "signature");
}

#[test]
fn the_claimed_holder_is_the_walked_one_whenever_the_walk_succeeds() {
    let late_narrowing = Forgery::narrowing(r#"check if operation("read");"#);
    for forgery in [honest(), Forgery::of(&content(&authority())), Forgery::delegation(""), late_narrowing] {
        let verified = forgery.verify().expect("genuine");
        assert_eq!(claimed_holder(&forgery.capability()), Ok(*verified.holder()));
    }
    // What a forger claims is told before any signature is looked at, and is not believed.
    let forged = Forgery::of(&content(&authority())).delegate(THIEF, &holder(THIEF));
    assert_eq!(claimed_holder(&forged.capability()), Ok(public(THIEF)));
    assert_eq!(forged.class(), "signer");
    assert!(claimed_holder(&Capability::from_bytes(b"nonsense").expect("bytes")).is_err());
}
