//! What a CONNECT costs besides its chain, and what a request costs at the door.
//!
//! A warm CONNECT is one signature check and little else; `decide` runs on every request inside a tunnel.

#![expect(clippy::expect_used, reason = "a bench")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use narrows::capability::{
    Algorithm, AuthorityBlock, BlockId, Budget, BudgetKind, Capability, Context, Credentials, Ledger, Limits,
    PrivateKey, Proof, ProofLimits, Purpose, ReplayCache, Revocations, Roots, Verified, VerifiedCache, mint, verify,
};
use narrows::clock::UnixSeconds;
use narrows::policy::{decide, recheck};
use narrows::request::{CanonicalPath, EncodedSlash, Facts, Host, ProofKind, Scheme};

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

fn key(algorithm: Algorithm) -> PrivateKey {
    PrivateKey::from_seed(algorithm, [1; 32]).expect("a seed in range")
}

fn capability(budgets: &[Budget]) -> Capability {
    let block = AuthorityBlock {
        holder: *key(Algorithm::Ed25519).public(),
        user: Some("alice@example.com".to_owned()),
        rights: vec![("github".to_owned(), "*".to_owned())],
        caveats: vec![
            "check if time($time), $time < 2027-01-15T16:00:00Z".to_owned(),
            r#"check if service("github"), operation("read"), path($path), $path == "/repos/acme/widgets" || $path.starts_with("/repos/acme/widgets/")"#.to_owned(),
        ],
        budgets: budgets.to_vec(),
        rates: vec![],
    };
    mint(&key(Algorithm::Ed25519), 1, &block, [2; 32]).expect("mints").seal().expect("seals")
}

fn verified(budgets: &[Budget]) -> Verified {
    let roots = Roots::new(BTreeMap::from([(1, *key(Algorithm::Ed25519).public())]));
    verify(&capability(budgets), &roots, &Limits::default()).expect("holds")
}

fn connect() -> Context<'static> {
    Context::new("local", Purpose::Connect { target: "api.github.com:443" })
}

fn proofs(criterion: &mut Criterion) {
    let (hash, context, limits) = (capability(&[]).sha256(), connect(), ProofLimits::since(NOW));
    for algorithm in [Algorithm::Ed25519, Algorithm::P256] {
        let key = key(algorithm);
        let sign = || Proof::sign(&key, &hash, NOW, 30, [7; 16], &context).expect("signs");
        criterion.bench_function(&format!("proof/sign/{}", algorithm.name()), |bencher| bencher.iter(sign));
        let proof = sign();
        criterion.bench_function(&format!("proof/check/{}", algorithm.name()), |bencher| {
            bencher.iter(|| proof.check(key.public(), &hash, black_box(&context), NOW, &limits).expect("holds"));
        });
    }
}

fn credentials(criterion: &mut Criterion) {
    let capability = capability(&[]);
    let proof = Proof::sign(&key(Algorithm::Ed25519), &capability.sha256(), NOW, 30, [7; 16], &connect());
    let credentials = Credentials { capability, proof: proof.expect("signs") };
    let header = format!("Cap {}", credentials.to_text());
    criterion.bench_function("credentials/parse", |bencher| {
        bencher.iter(|| Credentials::from_proxy_authorization(black_box(header.as_bytes())).expect("parses"));
    });
}

fn caches(criterion: &mut Criterion) {
    let (verified, cache) = (Arc::new(verified(&[])), VerifiedCache::new());
    cache.insert(1, Arc::clone(&verified), NOW);
    let hash = verified.hash();
    criterion.bench_function("verified_cache/get", |bencher| bencher.iter(|| cache.get(black_box(&hash), 1)));
    let holder = *key(Algorithm::Ed25519).public();
    let mut number = 0_u128;
    let mut replay = ReplayCache::new();
    criterion.bench_function("replay/insert", |bencher| {
        bencher.iter(|| {
            number += 1;
            if number.is_multiple_of(200_000) {
                replay = ReplayCache::new();
            }
            replay.insert(&holder, &number.to_be_bytes(), BlockId([1; 32]), NOW + 60, NOW).expect("new");
        });
    });
}

fn decisions(criterion: &mut Criterion) {
    let host = Host::parse("api.github.com").expect("a host");
    let path = CanonicalPath::parse("/repos/acme/widgets/issues", EncodedSlash::Refuse).expect("a path");
    let facts = Facts {
        time: NOW,
        service: "github",
        operation: "read",
        action: None,
        scheme: Scheme::Https,
        host: &host,
        port: 443,
        method: Some("GET"),
        path: Some(&path),
        params: &[],
        body_size: Some(0),
        audience: "local",
        proof: ProofKind::Connect,
        hop: 0,
    };
    let revocations = Revocations::default();
    let limit = i64::MAX.unsigned_abs();
    let budgets = [Budget { kind: BudgetKind::Calls, limit }, Budget { kind: BudgetKind::BytesDown, limit }];
    for (name, budgets) in [("plain", &[][..]), ("budgets", &budgets)] {
        let verified = verified(budgets);
        let account = Ledger::new().account(&verified, NOW);
        criterion.bench_function(&format!("decide/allowed/{name}"), |bencher| {
            bencher.iter(|| {
                drop(decide(&verified, black_box(&facts), &revocations, &account).expect("allowed").into_reservation());
            });
        });
    }
    let verified = verified(&[]);
    criterion.bench_function("recheck", |bencher| {
        bencher.iter(|| recheck(&verified, black_box(&facts), &revocations).expect("allowed"));
    });
    let denied = Facts { operation: "write", ..facts };
    criterion.bench_function("decide/denied", |bencher| {
        bencher.iter_batched(
            || (),
            |()| recheck(&verified, black_box(&denied), &revocations).expect_err("denied"),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, proofs, credentials, caches, decisions);
criterion_main!(benches);
