//! What our own writers write, and refuse to write.

use biscuit_auth::format::schema;
use narrows::capability::{
    AuthorityBlock, Budget, BudgetKind, Capability, DelegationBlock, InvalidCapability, IssueError, Limits,
    NarrowingBlock, Rate, Roots, Verified, delegate, mint, narrow, verify,
};
use prost::Message;

use crate::forge::{ALICE, BOB, CAROL, KID, ROOT, THIEF, private, public, roots};

fn authority_block() -> AuthorityBlock {
    AuthorityBlock {
        holder: public(ALICE),
        user: Some("alice@example.com".to_owned()),
        rights: vec![("acme".to_owned(), "*".to_owned())],
        caveats: vec!["check if time($t), $t < 2027-01-15T16:00:00Z".to_owned()],
        budgets: vec![Budget { kind: BudgetKind::Calls, limit: 100 }],
        rates: vec![Rate { limit: 5, window_s: 60 }],
    }
}

fn delegation_to(seed: u8) -> DelegationBlock {
    DelegationBlock {
        holder: public(seed),
        agent: Some("worker".to_owned()),
        caveats: vec![r#"check if operation("read")"#.to_owned()],
        budgets: vec![Budget { kind: BudgetKind::BytesUp, limit: 10 }],
        rates: vec![],
    }
}

fn minted() -> Capability {
    mint(&private(ROOT), KID, &authority_block(), [100; 32]).expect("mints")
}

fn verified(capability: &Capability) -> Verified {
    verify(capability, &roots(), &Limits::default()).expect("our own")
}

#[test]
fn a_chain_of_our_own_verifies_and_says_what_was_asked() {
    let delegated = delegate(&minted(), &private(ALICE), &delegation_to(BOB), [101; 32]).expect("delegates");
    let narrowing =
        NarrowingBlock { caveats: vec![r#"check if method("GET")"#.to_owned()], ..NarrowingBlock::default() };
    let narrowed = narrow(&delegated, &narrowing, [102; 32]).expect("narrows");
    let last = delegate(&narrowed, &private(BOB), &delegation_to(CAROL), [103; 32]).expect("delegates");
    let verified = verified(&last.seal().expect("seals"));
    assert!(verified.is_sealed());
    assert_eq!((verified.kid(), verified.user(), verified.hop()), (KID, Some("alice@example.com"), 2));
    assert_eq!(*verified.holder(), public(CAROL));
    let caveats: Vec<_> = verified.blocks().iter().map(|block| block.caveats()[0].to_string()).collect();
    assert_eq!(
        caveats,
        ["time < 2027-01-15T16:00:00Z", r#"operation = "read""#, r#"method = "GET""#, r#"operation = "read""#]
    );
    assert_eq!(verified.blocks()[0].rates(), authority_block().rates);
    assert_eq!(verified.blocks()[3].budgets(), delegation_to(CAROL).budgets);
}

#[test]
fn every_block_has_signature_version_1_and_issuing_is_deterministic() {
    let delegated = delegate(&minted(), &private(ALICE), &delegation_to(BOB), [101; 32]).expect("delegates");
    let narrowed = narrow(&delegated, &NarrowingBlock::default(), [102; 32]).expect("narrows");
    let schema = schema::Biscuit::decode(narrowed.as_bytes()).expect("a biscuit");
    let versions: Vec<_> =
        std::iter::once(&schema.authority).chain(&schema.blocks).map(|block| block.version).collect();
    assert_eq!(versions, [Some(1); 3]);
    assert_eq!(minted(), minted());
}

#[test]
fn p256_roots_and_holders_work() {
    let p256 = |seed| {
        narrows::capability::PrivateKey::from_seed(narrows::capability::Algorithm::P256, [seed; 32]).expect("a scalar")
    };
    let block = AuthorityBlock { holder: *p256(ALICE).public(), ..authority_block() };
    let capability = mint(&p256(ROOT), KID, &block, [100; 32]).expect("mints");
    let capability = delegate(&capability, &p256(ALICE), &delegation_to(BOB), [101; 32]).expect("delegates");
    let roots = Roots::new([(KID, *p256(ROOT).public())].into());
    let verified = verify(&capability, &roots, &Limits::default()).expect("our own");
    assert_eq!(verified.blocks()[1].signer(), Some(p256(ALICE).public()));
}

#[test]
fn only_the_holder_can_delegate_and_only_while_unsealed() {
    let by_thief = delegate(&minted(), &private(THIEF), &delegation_to(THIEF), [101; 32]);
    assert!(matches!(by_thief, Err(IssueError::NotTheHolder { holder }) if holder == public(ALICE)), "{by_thief:?}");
    let sealed = minted().seal().expect("seals");
    let late = delegate(&sealed, &private(ALICE), &delegation_to(BOB), [101; 32]);
    assert!(matches!(late, Err(IssueError::Sealed)), "{late:?}");
    assert!(matches!(narrow(&sealed, &NarrowingBlock::default(), [101; 32]), Err(IssueError::Sealed)));
    let nonsense = Capability::from_bytes(b"nonsense").expect("bytes");
    assert!(matches!(narrow(&nonsense, &NarrowingBlock::default(), [101; 32]), Err(IssueError::Invalid(_))));
}

#[test]
fn a_chain_key_of_another_capability_appends_nothing() {
    let mut schema = schema::Biscuit::decode(minted().as_bytes()).expect("a biscuit");
    assert!(narrow(&minted(), &NarrowingBlock::default(), [101; 32]).is_ok());
    schema.proof.content = Some(schema::proof::Content::NextSecret(vec![99; 32]));
    let swapped = narrow(&crate::forge::capability(&schema), &NarrowingBlock::default(), [101; 32]);
    assert!(matches!(swapped, Err(IssueError::Invalid(InvalidCapability::Signature))), "{swapped:?}");
}

#[test]
fn a_writer_refuses_what_a_verifier_would() {
    let with_caveat = |caveat: &str| {
        mint(&private(ROOT), KID, &AuthorityBlock { caveats: vec![caveat.to_owned()], ..authority_block() }, [100; 32])
    };
    assert!(with_caveat(r#"check if operation("read")"#).is_ok());
    assert!(matches!(with_caveat("check if user($u)"), Err(IssueError::Invalid(InvalidCapability::Check))));
    assert!(matches!(with_caveat("check if"), Err(IssueError::Caveat { .. })));
    assert!(matches!(with_caveat(r#"right("a", "b")"#), Err(IssueError::Caveat { .. })));
    let two = with_caveat(r#"check if operation("read"); right("a", "b")"#);
    assert!(matches!(two, Err(IssueError::Caveat { .. })), "{two:?}");

    let everything = AuthorityBlock { rights: vec![("*".to_owned(), "*".to_owned())], ..authority_block() };
    let refused = mint(&private(ROOT), KID, &everything, [100; 32]);
    assert!(matches!(refused, Err(IssueError::Invalid(InvalidCapability::Fact))), "{refused:?}");
    let huge = Budget { kind: BudgetKind::Calls, limit: u64::MAX };
    let narrowing = NarrowingBlock { budgets: vec![huge], ..NarrowingBlock::default() };
    assert!(matches!(narrow(&minted(), &narrowing, [101; 32]), Err(IssueError::TooLarge)));
    // A chain key used a second time.
    let reused = narrow(&minted(), &NarrowingBlock::default(), [100; 32]);
    assert!(matches!(reused, Err(IssueError::Invalid(InvalidCapability::ChainKey))), "{reused:?}");
}

#[test]
fn a_label_is_a_value_and_never_code() {
    let label = "x\"); right(\"web\", \"*\"); user(\"y";
    let capability =
        mint(&private(ROOT), KID, &AuthorityBlock { user: Some(label.to_owned()), ..authority_block() }, [100; 32]);
    let verified = verified(&capability.expect("any text is a label"));
    assert_eq!((verified.user(), verified.rights().len()), (Some(label), 1));
}

#[test]
fn a_capability_can_be_read_without_its_root_and_then_permits_nothing() {
    let chain = narrows::capability::Chain::read(&minted(), &Limits::default()).expect("well-formed");
    assert_eq!((chain.user(), chain.hop(), chain.is_sealed()), (Some("alice@example.com"), 0, false));
    assert_eq!(verify(&minted(), &Roots::default(), &Limits::default()).err(), Some(InvalidCapability::RootUnknown));
}
