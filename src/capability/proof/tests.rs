use super::*;

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
const CAPABILITY: [u8; 32] = [0xca; 32];
const NONCE: [u8; 16] = *b"0123456789abcdef";

fn holder(algorithm: Algorithm) -> PrivateKey {
    PrivateKey::from_seed(algorithm, [7; 32]).expect("a seed in range")
}

fn limits() -> ProofLimits {
    ProofLimits::since(NOW - 1000)
}

fn connect(target: &str) -> Context<'_> {
    Context::new("proxy", Purpose::Connect { target })
}

fn made(context: &Context<'_>, issued_at: UnixSeconds, ttl_s: u32) -> Proof {
    Proof::sign(&holder(Algorithm::Ed25519), &CAPABILITY, issued_at, ttl_s, NONCE, context).expect("signs")
}

fn check(proof: &Proof, context: &Context<'_>, now: UnixSeconds) -> Result<Proven, ProofError> {
    proof.check(holder(Algorithm::Ed25519).public(), &CAPABILITY, context, now, &limits())
}

#[test]
fn layout_is_the_documented_one() {
    let proof = made(&connect("a.test:443"), NOW, 60);
    let bytes = proof.as_bytes();
    assert_eq!(bytes[..4], [1, 1, 0, 0]);
    assert_eq!(bytes[4..12], NOW.get().to_be_bytes());
    assert_eq!(bytes[12..16], 60_u32.to_be_bytes());
    assert_eq!(bytes[16..32], NONCE);
    let mut context = Vec::new();
    for part in [&b"proxy"[..], b"CONNECT", b"a.test:443", b"", b""] {
        context.extend_from_slice(&u32::try_from(part.len()).expect("short").to_be_bytes());
        context.extend_from_slice(part);
    }
    let mut signed = b"narrows-pop-1\0".to_vec();
    signed.extend_from_slice(&bytes[..32]);
    signed.extend_from_slice(&CAPABILITY);
    signed.extend_from_slice(digest::digest(&SHA256, &context).as_ref());
    assert_eq!(signed.len(), 110);
    assert_eq!(holder(Algorithm::Ed25519).sign(&signed).expect("signs"), bytes[32..]);
}

#[test]
fn a_proof_holds_for_either_kind_of_key_and_each_flipped_bit_breaks_it() {
    for algorithm in [Algorithm::Ed25519, Algorithm::P256] {
        let key = holder(algorithm);
        let context = connect("a.test:443");
        let bytes = *Proof::sign(&key, &CAPABILITY, NOW, 60, NONCE, &context).expect("signs").as_bytes();
        let proven = Proof::parse(&bytes)
            .expect("its own format")
            .check(key.public(), &CAPABILITY, &context, NOW, &limits())
            .expect("genuine");
        assert_eq!((proven.holder(), proven.kind(), proven.nonce()), (key.public(), ProofKind::Connect, &NONCE));
        assert_eq!(proven.dead_at(), NOW + 90);
        for bit in 0..8 * PROOF_BYTES {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let refused = match Proof::parse(&flipped) {
                Ok(proof) => proof.check(key.public(), &CAPABILITY, &context, NOW, &limits()).is_err(),
                Err(_) => true,
            };
            assert!(refused, "{algorithm:?}, bit {bit}");
        }
    }
}

#[test]
fn each_part_of_the_context_is_bound() {
    let target = Target::parse("a.test:80").expect("a target");
    let other = Target::parse("b.test:80").expect("a target");
    let contexts = [
        connect("a.test:443"),
        connect("a.test:444"),
        connect("b.test:443"),
        Context::new("other", Purpose::Connect { target: "a.test:443" }),
        Context { challenge: b"x", ..connect("a.test:443") },
        Context { binding: b"x", ..connect("a.test:443") },
        // The same bytes with a boundary moved.
        Context { audience: "prox", ..connect("ya.test:443") },
        Context { audience: "proxyCONNECT", ..connect("") },
        Context::new("proxy", Purpose::Request { method: "GET", target: &target }),
        Context::new("proxy", Purpose::Request { method: "POST", target: &target }),
        Context::new("proxy", Purpose::Request { method: "get", target: &target }),
        Context::new("proxy", Purpose::Request { method: "GET", target: &other }),
        Context::new("proxy", Purpose::Request { method: "CONNECT", target: &target }),
    ];
    for (at, context) in contexts.iter().enumerate() {
        let proof = made(context, NOW, 60);
        for (asked_at, asked) in contexts.iter().enumerate() {
            let verdict = check(&proof, asked, NOW);
            assert_eq!(verdict.is_ok(), at == asked_at, "made for {context:?}, used for {asked:?}");
        }
    }
}

#[test]
fn the_target_of_connect_is_bound_without_regard_to_letter_case_alone() {
    let proof = made(&connect("API.a.test:443"), NOW, 60);
    assert!(check(&proof, &connect("api.A.TEST:443"), NOW).is_ok());
    assert_eq!(check(&proof, &connect("api.a.test.:443"), NOW), Err(ProofError::Signature));
    assert_eq!(check(&proof, &connect("api.a.test:0443"), NOW), Err(ProofError::Signature));
}

#[test]
fn kinds_are_not_exchangeable() {
    let target = Target::parse("a.test:443").expect("a target");
    let (one, request) = (connect("a.test:443"), Purpose::Request { method: "CONNECT", target: &target });
    let request = Context::new("proxy", request);
    let presentation = Context::new("proxy", Purpose::Presentation);
    assert_eq!(check(&made(&one, NOW, 60), &request, NOW), Err(ProofError::WrongKind));
    assert_eq!(check(&made(&request, NOW, 60), &one, NOW), Err(ProofError::WrongKind));
    assert_eq!(check(&made(&one, NOW, 60), &presentation, NOW), Err(ProofError::WrongKind));
    let many = made(&presentation, NOW, 3600);
    for asked in [one, connect("b.test:443"), request, presentation] {
        assert_eq!(check(&many, &asked, NOW).expect("good for many").kind(), ProofKind::Presentation);
    }
    let elsewhere = Context::new("other", Purpose::Presentation);
    assert_eq!(check(&many, &elsewhere, NOW), Err(ProofError::Signature));
    // The same signature under another kind.
    for (proof, kinds) in [(made(&one, NOW, 60), [2, 3]), (many, [1, 2])] {
        for kind in kinds {
            let mut switched = *proof.as_bytes();
            switched[1] = kind;
            let switched = Proof::parse(&switched).expect("well-formed");
            for asked in [one, request, presentation] {
                assert!(check(&switched, &asked, NOW).is_err());
            }
        }
    }
}

#[test]
fn the_window_of_time_is_exact_at_both_edges() {
    let context = connect("a.test:443");
    let proof = made(&context, NOW, 60);
    for (now, verdict) in [
        (NOW - 31, Err(ProofError::NotYetValid { by_s: 1 })),
        (NOW - 30, Ok(())),
        (NOW, Ok(())),
        (NOW + 89, Ok(())),
        (NOW + 90, Err(ProofError::Expired { by_s: 0 })),
        (NOW + 102, Err(ProofError::Expired { by_s: 12 })),
    ] {
        assert_eq!(check(&proof, &context, now).map(|_| ()), verdict, "at {now}");
    }
    let at_the_end = made(&context, UnixSeconds(u64::MAX), 60);
    assert!(matches!(check(&at_the_end, &context, NOW), Err(ProofError::NotYetValid { .. })));
}

#[test]
fn lives_are_limited_by_kind() {
    let (one, many) = (connect("a.test:443"), Context::new("proxy", Purpose::Presentation));
    assert!(check(&made(&one, NOW, 60), &one, NOW).is_ok());
    assert_eq!(check(&made(&one, NOW, 61), &one, NOW), Err(ProofError::TtlTooLong { max_s: 60 }));
    assert!(check(&made(&many, NOW, 3600), &many, NOW).is_ok());
    assert_eq!(check(&made(&many, NOW, 3601), &many, NOW), Err(ProofError::TtlTooLong { max_s: 3600 }));
}

#[test]
fn a_fresh_proof_from_before_the_process_started_is_refused() {
    let (one, many) = (connect("a.test:443"), Context::new("proxy", Purpose::Presentation));
    let key = holder(Algorithm::Ed25519);
    let limits = ProofLimits::since(NOW);
    for (context, issued_at, verdict) in
        [(&one, NOW, Ok(())), (&one, NOW - 1, Err(ProofError::BeforeStart)), (&many, NOW - 1, Ok(()))]
    {
        let proof = made(context, issued_at, 60);
        assert_eq!(proof.check(key.public(), &CAPABILITY, context, NOW, &limits).map(|_| ()), verdict);
    }
}

#[test]
fn another_capability_key_or_algorithm_is_refused() {
    let context = connect("a.test:443");
    let proof = made(&context, NOW, 60);
    let thief = PrivateKey::from_seed(Algorithm::Ed25519, [8; 32]).expect("a seed");
    assert_eq!(proof.check(thief.public(), &CAPABILITY, &context, NOW, &limits()), Err(ProofError::Signature));
    let own = *holder(Algorithm::Ed25519).public();
    assert_eq!(proof.check(&own, &[0xcb; 32], &context, NOW, &limits()), Err(ProofError::Signature));
    let p256 = holder(Algorithm::P256);
    assert_eq!(proof.check(p256.public(), &CAPABILITY, &context, NOW, &limits()), Err(ProofError::WrongAlgorithm));
}

#[test]
fn malformed_bytes_are_refused_by_field() {
    let bytes = *made(&connect("a.test:443"), NOW, 60).as_bytes();
    for length in (0..PROOF_BYTES).chain([97, 128]) {
        let mut resized = bytes.to_vec();
        resized.resize(length, 0);
        assert!(matches!(Proof::parse(&resized), Err(MalformedProof::Length)));
    }
    for (at, value, class) in [
        (0, 0, MalformedProof::Version),
        (0, 2, MalformedProof::Version),
        (1, 0, MalformedProof::Kind),
        (1, 4, MalformedProof::Kind),
        (2, 2, MalformedProof::Algorithm),
        (3, 1, MalformedProof::Reserved),
    ] {
        let mut changed = bytes;
        changed[at] = value;
        assert_eq!(Proof::parse(&changed).map(|_| ()).expect_err("malformed"), class);
    }
}
