use super::*;

const BOTH: [Algorithm; 2] = [Algorithm::Ed25519, Algorithm::P256];

fn key(algorithm: Algorithm, seed: u8) -> PrivateKey {
    PrivateKey::from_seed(algorithm, [seed; 32]).expect("a seed in range")
}

#[test]
fn a_signature_holds_for_its_message_and_key_alone() {
    for algorithm in BOTH {
        let (one, other) = (key(algorithm, 7), key(algorithm, 8));
        let signature = one.sign(b"message").expect("signs");
        assert_eq!(signature, one.sign(b"message").expect("signs"), "signing is deterministic");
        assert_eq!(one.public().verify(b"message", &signature), Ok(()));
        assert_eq!(one.public().verify(b"messagf", &signature), Err(BadSignature));
        assert_eq!(other.public().verify(b"message", &signature), Err(BadSignature));
        for bit in 0..8 * SIGNATURE_BYTES {
            let mut flipped = signature;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(one.public().verify(b"message", &flipped), Err(BadSignature), "bit {bit}");
        }
    }
}

#[test]
fn text_forms_round_trip() {
    for algorithm in BOTH {
        let private = key(algorithm, 9);
        let again = PrivateKey::parse(&format!(" {}\n", *private.to_text())).expect("its own text");
        assert_eq!(again.public(), private.public());
        let public: PublicKey = private.public().to_string().parse().expect("its own text");
        assert_eq!(&public, private.public());
        let json = serde_json::to_string(&public).expect("serializes");
        assert_eq!(serde_json::from_str::<PublicKey>(&json).expect("its own JSON"), public);
        assert_eq!(PublicKey::from_bytes(algorithm, public.as_bytes()), Ok(public));
    }
    let rfc_8032 = "ed25519-private/9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    assert_eq!(
        PrivateKey::parse(rfc_8032).expect("RFC 8032 §7.1, test 1").public().to_string(),
        "ed25519/d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    );
}

#[test]
fn pem_is_read_and_gives_the_same_key() {
    let ed = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed").to_pkcs8().expect("encodes");
    let ec =
        signature::EcdsaKeyPair::from_private_key_der(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &sec1_of(&[7; 32]))
            .expect("a scalar")
            .to_pkcs8v1()
            .expect("encodes");
    for (algorithm, der) in [(Algorithm::Ed25519, ed.as_ref()), (Algorithm::P256, ec.as_ref())] {
        let body = BASE64_STANDARD.encode(der);
        let (first, second) = body.split_at(64);
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{first}\r\n{second}\n-----END PRIVATE KEY-----\n");
        assert_eq!(PrivateKey::parse(&pem).expect("PKCS #8").public(), key(algorithm, 7).public());
        let cut = pem.replacen(first, &first[4..], 1);
        assert!(matches!(PrivateKey::parse(&cut), Err(InvalidKey::PrivateForm)));
    }
}

/// `ECPrivateKey` of RFC 5915 with only the scalar and the curve.
fn sec1_of(scalar: &[u8; 32]) -> Vec<u8> {
    let mut der = vec![0x30, 0x31, 0x02, 0x01, 0x01, 0x04, 0x20];
    der.extend_from_slice(scalar);
    der.extend_from_slice(&[0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]);
    der
}

#[test]
fn what_is_not_a_key_is_refused_with_its_class() {
    let public = key(Algorithm::Ed25519, 1).public().to_string();
    let private = key(Algorithm::P256, 1).to_text();
    assert_eq!(private.parse::<PublicKey>(), Err(InvalidKey::PrivateGiven));
    assert!(matches!(PrivateKey::parse(&public), Err(InvalidKey::PublicGiven)));
    for (text, class) in [
        ("", InvalidKey::PublicForm),
        ("d75a", InvalidKey::PublicForm),
        ("ed25519/", InvalidKey::Digits),
        ("ed25519/d75a", InvalidKey::Digits),
        (public.to_uppercase().replace("ED25519", "ed25519").as_str(), InvalidKey::Digits),
        (format!("{public}0").as_str(), InvalidKey::Digits),
        (public.replace("ed25519", "secp256r1").as_str(), InvalidKey::Digits),
        (format!("secp256r1/05{}", &public[8..]).as_str(), InvalidKey::Point),
        (format!("secp256r1/02{}", "ff".repeat(32)).as_str(), InvalidKey::Point),
    ] {
        assert_eq!(text.parse::<PublicKey>(), Err(class), "{text:?}");
    }
    for scalar in [[0; 32], [0xff; 32]] {
        assert!(matches!(PrivateKey::from_seed(Algorithm::P256, scalar), Err(InvalidKey::Range)));
    }
}

#[test]
fn small_order_and_non_canonical_edwards_points_are_refused() {
    // The list that every library tests against, both signs, and the encodings of y + p.
    let weak = [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    ];
    for digits in weak {
        let mut bytes = hex::decode(digits).expect("hex");
        assert_eq!(PublicKey::from_bytes(Algorithm::Ed25519, &bytes), Err(InvalidKey::Weak), "{digits}");
        bytes[31] |= 0x80;
        assert_eq!(PublicKey::from_bytes(Algorithm::Ed25519, &bytes), Err(InvalidKey::Weak), "{digits}, negative");
    }
    for low in 0xed..=0xff_u8 {
        let mut bytes = [0xff; 32];
        bytes[0] = low;
        for high in [0x7f, 0xff] {
            bytes[31] = high;
            assert_eq!(PublicKey::from_bytes(Algorithm::Ed25519, &bytes), Err(InvalidKey::Point), "{low:x}");
        }
    }
    let off_curve = [2_u8; 32];
    let points = (0..=255_u8).filter(|low| {
        let mut bytes = off_curve;
        bytes[0] = *low;
        PublicKey::from_bytes(Algorithm::Ed25519, &bytes).is_ok()
    });
    assert!((64..192).contains(&points.count()), "about half of all y are on the curve");
}

#[test]
fn a_signature_by_a_small_order_r_is_refused() {
    let private = key(Algorithm::Ed25519, 3);
    let mut signature = private.sign(b"m").expect("signs");
    signature[..32].copy_from_slice(&[0; 32]);
    assert_eq!(private.public().verify(b"m", &signature), Err(BadSignature));
}

#[test]
fn a_high_s_is_accepted_on_p256() {
    let private = key(Algorithm::P256, 3);
    let mut signature = private.sign(b"m").expect("signs");
    let order = hex::decode("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551").expect("hex");
    let mut borrow = 0_i16;
    for at in (0..32).rev() {
        let difference = i16::from(order[at]) - i16::from(signature[32 + at]) - borrow;
        borrow = i16::from(difference < 0);
        signature[32 + at] = u8::try_from(difference.rem_euclid(256)).expect("a byte");
    }
    assert_eq!(private.public().verify(b"m", &signature), Ok(()));
}

#[test]
fn a_private_key_never_prints_itself() {
    for algorithm in BOTH {
        let private = key(algorithm, 0xa5);
        let shown = format!("{private:?} {private:#?}");
        assert!(!shown.contains("a5a5") && !shown.contains("165, 165"), "{shown}");
    }
}

#[test]
fn biscuit_reads_the_same_keys() {
    for algorithm in BOTH {
        let private = key(algorithm, 5);
        let theirs = private.to_biscuit().expect("converts");
        assert_eq!(theirs.public(), private.public().to_biscuit().expect("converts"));
        assert_eq!(theirs.public().to_bytes(), private.public().as_bytes());
    }
}
