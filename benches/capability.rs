//! What a capability costs: to verify once per distinct one, to find again at each CONNECT, and to authorize on every
//! request inside a tunnel.
//!
//! `authorize` must stay under 250 ns for four blocks, and allocate nothing (`tests/capability_allocations.rs`).

#![expect(clippy::expect_used, reason = "a bench")]

#[path = "capability_chain/mod.rs"]
mod capability_chain;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use narrows::capability::{Limits, VerifiedCache, claimed_holder, verify};
use narrows::clock::UnixSeconds;

use capability_chain::{Request, chain, roots};

const BLOCKS: [u8; 4] = [1, 2, 4, 8];
const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

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

    let mut group = criterion.benchmark_group("verify, met before");
    for blocks in BLOCKS {
        let capability = chain(blocks).seal().expect("seals");
        let cache = VerifiedCache::new();
        cache.insert(0, Arc::new(verify(&capability, &roots, &limits).expect("our own")), NOW);
        group.bench_function(BenchmarkId::from_parameter(blocks), |bencher| {
            bencher.iter(|| cache.get(&black_box(&capability).sha256(), 0).expect("it was met"));
        });
    }
    group.finish();

    let capability = chain(4).seal().expect("seals");
    criterion.bench_function("claimed_holder/4", |bencher| bencher.iter(|| claimed_holder(black_box(&capability))));

    let request = Request::new();
    let facts = request.facts();
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
