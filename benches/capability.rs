//! What a capability costs: to verify once per distinct one, and to authorize on every request inside a tunnel.
//!
//! `authorize` must stay under 250 ns for four blocks, and allocate nothing (`tests/capability_allocations.rs`).

#![expect(clippy::expect_used, reason = "a bench")]

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use narrows::capability::{
    Algorithm, AuthorityBlock, Capability, DelegationBlock, Limits, PrivateKey, Roots, claimed_holder, delegate, mint,
    verify,
};
use narrows::clock::UnixSeconds;
use narrows::request::{CanonicalPath, EncodedSlash, Facts, Host, ProofKind, Scheme};

const KID: u32 = 1;
const BLOCKS: [u8; 4] = [1, 2, 4, 8];

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from_seed(Algorithm::Ed25519, [seed; 32]).expect("any seed is a key")
}

/// An authority block with an expiry, then delegations that each set an expiry and two grants, as `capctl` writes them.
fn chain(blocks: u8) -> Capability {
    let authority = AuthorityBlock {
        holder: *key(1).public(),
        user: Some("alice@example.com".to_owned()),
        rights: vec![("cloudflare".to_owned(), "read".to_owned()), ("github".to_owned(), "*".to_owned())],
        caveats: vec![
            "check if time($time), $time < 2027-01-15T16:00:00Z".to_owned(),
            r#"check if audience("local")"#.to_owned(),
        ],
        budgets: vec![],
        rates: vec![],
    };
    let minted = mint(&key(0), KID, &authority, [100; 32]).expect("mints");
    (1..blocks).fold(minted, |capability, block| {
        let delegation = DelegationBlock {
            holder: *key(block + 1).public(),
            agent: Some(format!("agent-{block}")),
            caveats: vec![
                "check if time($time), $time < 2027-01-15T15:55:00Z".to_owned(),
                r#"check if service("cloudflare"), operation("read"), param("zone", "023e105f4ecef8ad9ca31a8372d0c353")
                   or service("github"), operation("read"), method($m), {"GET", "HEAD"}.contains($m),
                      param("repo", "acme/widgets"), path($path),
                      $path == "/repos/acme/widgets" || $path.starts_with("/repos/acme/widgets/")"#
                    .to_owned(),
            ],
            budgets: vec![],
            rates: vec![],
        };
        delegate(&capability, &key(block), &delegation, [100 + block; 32]).expect("delegates")
    })
}

fn roots() -> Roots {
    Roots::new(BTreeMap::from([(KID, *key(0).public())]))
}

fn bench(criterion: &mut Criterion) {
    let (roots, limits) = (roots(), Limits::default());
    let mut group = criterion.benchmark_group("verify");
    for blocks in BLOCKS {
        let capability = chain(blocks).seal().expect("seals");
        group.bench_function(BenchmarkId::from_parameter(blocks), |bencher| {
            bencher.iter(|| verify(black_box(&capability), &roots, &limits));
        });
    }
    group.finish();

    let capability = chain(4).seal().expect("seals");
    criterion.bench_function("claimed_holder/4", |bencher| bencher.iter(|| claimed_holder(black_box(&capability))));

    let host = Host::parse("api.github.com").expect("a host");
    let path = CanonicalPath::parse("/repos/acme/widgets/issues/7", EncodedSlash::Refuse).expect("canonical");
    let params = [("owner".into(), "acme".into()), ("repo".into(), "acme/widgets".into())];
    let facts = Facts {
        time: UnixSeconds(1_800_000_000),
        service: "github",
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
        hop: 3,
    };
    let mut group = criterion.benchmark_group("authorize");
    for blocks in BLOCKS {
        let verified = verify(&chain(blocks), &roots, &limits).expect("our own");
        assert!(verified.permits(&facts));
        group.bench_function(BenchmarkId::from_parameter(blocks), |bencher| {
            bencher.iter(|| verified.permits(black_box(&facts)));
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
