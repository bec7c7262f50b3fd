//! The question that every request asks of its capability allocates nothing, whatever the answer.

use std::collections::BTreeMap;
use std::hint::black_box;

use narrows::capability::{
    Algorithm, AuthorityBlock, DelegationBlock, Limits, PrivateKey, Roots, delegate, mint, verify,
};
use narrows::clock::UnixSeconds;
use narrows::request::{CanonicalPath, EncodedSlash, Facts, Host, ProofKind, Scheme};

/// What a verified capability of two blocks keeps: compiled caveats and labels, no biscuit.
const KEPT_BYTES_MAX: i64 = 4096;

#[test]
fn permitting_and_denying_allocate_nothing() {
    let key = |seed| PrivateKey::from_seed(Algorithm::Ed25519, [seed; 32]).expect("any seed is a key");
    let authority = AuthorityBlock {
        holder: *key(1).public(),
        user: None,
        rights: vec![("acme".to_owned(), "*".to_owned())],
        caveats: vec!["check if time($t), $t < 2027-01-15T16:00:00Z".to_owned()],
        budgets: vec![],
        rates: vec![],
    };
    let every_kind_of_test = r#"check if service("acme"), param("repo", $r), path($p), body_size($b), method($m), approved_by(hex:aa)
        or service("acme"), param("repo", $r), path($p), body_size($b), method($m), port($o), time($t), hop(0),
           {"acme/gadgets", "acme/widgets"}.contains($r), {"GET", "HEAD"}.contains($m), {80, 443}.contains($o),
           $b <= 65536, $p.length() < 100, !$p.contains("admin"), $t >= 2020-01-01T00:00:00Z,
           $p == "/v1" || $p.starts_with("/v1/") && $p.ends_with("7")"#;
    let delegation = DelegationBlock {
        holder: *key(2).public(),
        agent: None,
        caveats: vec![every_kind_of_test.to_owned()],
        budgets: vec![],
        rates: vec![],
    };
    let minted = mint(&key(0), 0, &authority, [100; 32]).expect("mints");
    let capability = delegate(&minted, &key(1), &delegation, [101; 32]).expect("delegates");
    let roots = Roots::new(BTreeMap::from([(0, *key(0).public())]));
    let mut verified = None;
    let used = allocation_counter::measure(|| verified = verify(&capability, &roots, &Limits::default()).ok());
    let verified = verified.expect("our own");
    assert!(used.bytes_current < KEPT_BYTES_MAX, "{} bytes", used.bytes_current);

    let host = Host::parse("api.acme.test").expect("a host");
    let path = CanonicalPath::parse("/v1/items/7", EncodedSlash::Refuse).expect("canonical");
    let params = [("repo".into(), "acme/widgets".into())];
    let permitted = Facts {
        time: UnixSeconds(1_800_000_000),
        service: "acme",
        operation: "read",
        action: None,
        scheme: Scheme::Https,
        host: &host,
        port: 443,
        method: Some("GET"),
        path: Some(&path),
        params: &params,
        body_size: Some(0),
        audience: "local",
        proof: ProofKind::Connect,
        hop: 0,
    };
    let denied = Facts { hop: 1, ..permitted };
    for (facts, expected) in [(permitted, true), (denied, false)] {
        let mut verdict = None;
        let used = allocation_counter::measure(|| verdict = Some(verified.permits(black_box(&facts))));
        assert_eq!((verdict, used.count_total), (Some(expected), 0));
    }
    let used = allocation_counter::measure(|| drop(black_box(verified.failures(&denied))));
    assert!(used.count_total > 0, "the counter counts");
}
