//! Proofs: by whom, for what, when; each accepted one with twins one step aside.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use narrows::capability::{Algorithm, Context, PrivateKey, Proof, PublicKey, Purpose};
use narrows::clock::UnixSeconds;
use narrows::request::Target;
use serde_json::{Value, json};

use super::NOW;
use crate::forge::{ALICE, BOB};

/// What is done to the bytes of a proof.
type Change = fn(&mut Vec<u8>);

/// What is signed, and what is asked; the base of every case.
#[derive(Clone)]
struct Case {
    signer: Algorithm,
    holder: PublicKey,
    capability: [u8; 32],
    asked_capability: [u8; 32],
    signed: Asked,
    asked: Asked,
    issued_at: u64,
    ttl_s: u32,
    now: u64,
    started_at: u64,
    bytes: Option<Change>,
}

#[derive(Clone)]
struct Asked {
    audience: &'static str,
    purpose: &'static str,
    method: &'static str,
    target: &'static str,
    challenge: &'static [u8],
    binding: &'static [u8],
}

const CONNECT: Asked = Asked {
    audience: "local",
    purpose: "connect",
    method: "CONNECT",
    target: "api.acme.test:443",
    challenge: b"",
    binding: b"",
};
const REQUEST: Asked = Asked { purpose: "request", method: "GET", target: "api.acme.test:80", ..CONNECT };
/// As the exporter of a TLS connection would be.
const BOUND: Asked = Asked { binding: b"binding: 32 bytes of an exporter", ..CONNECT };
const PRESENTATION: Asked = Asked { purpose: "presentation", method: "", target: "", ..CONNECT };

fn private(algorithm: Algorithm) -> PrivateKey {
    PrivateKey::from_seed(algorithm, [ALICE; 32]).expect("a seed in range")
}

fn base() -> Case {
    Case {
        signer: Algorithm::Ed25519,
        holder: *private(Algorithm::Ed25519).public(),
        capability: [0xca; 32],
        asked_capability: [0xca; 32],
        signed: CONNECT,
        asked: CONNECT,
        issued_at: NOW,
        ttl_s: 30,
        now: NOW,
        started_at: NOW - 86_400,
        bytes: None,
    }
}

fn of(asked: Asked) -> Case {
    Case { signed: asked.clone(), asked, ..base() }
}

impl Case {
    fn build(&self, name: &str, failure: Option<(&str, &str)>) -> Value {
        let parsed = Target::parse(self.signed.target);
        let purpose = match self.signed.purpose {
            "connect" => Purpose::Connect { target: self.signed.target },
            "request" => Purpose::Request { method: self.signed.method, target: parsed.as_ref().expect("a target") },
            _ => Purpose::Presentation,
        };
        let context = Context {
            challenge: self.signed.challenge,
            binding: self.signed.binding,
            ..Context::new(self.signed.audience, purpose)
        };
        let issued_at = UnixSeconds(self.issued_at);
        let nonce = *b"nonce-of-vectors";
        let proof = Proof::sign(&private(self.signer), &self.capability, issued_at, self.ttl_s, nonce, &context);
        let mut bytes = proof.expect("signs").as_bytes().to_vec();
        if let Some(change) = self.bytes {
            change(&mut bytes);
        }
        let asked = &self.asked;
        json!({
            "name": name,
            "holder": self.holder.to_string(),
            "capability_sha256": hex::encode(self.asked_capability),
            "asked": {
                "purpose": asked.purpose, "audience": asked.audience, "method": asked.method, "target": asked.target,
                "challenge": hex::encode(asked.challenge), "binding": hex::encode(asked.binding),
            },
            "now": self.now,
            "started_at": self.started_at,
            "proof": BASE64_URL_SAFE_NO_PAD.encode(bytes),
            "verdict": if failure.is_some() { "refused" } else { "accepted" },
            "class": failure.map(|(class, _)| class),
            "code": failure.map(|(_, code)| code),
            "dead_at": if failure.is_some() { None } else { Some(self.issued_at + u64::from(self.ttl_s) + 30) },
        })
    }
}

const SIGNATURE: Option<(&str, &str)> = Some(("signature", "proof_invalid"));
const KIND: Option<(&str, &str)> = Some(("wrong_kind", "proof_invalid"));
const EXPIRED: Option<(&str, &str)> = Some(("expired", "proof_expired"));
const EARLY: Option<(&str, &str)> = Some(("not_yet_valid", "proof_expired"));
const TTL: Option<(&str, &str)> = Some(("ttl_too_long", "proof_invalid"));

pub(super) fn file() -> Value {
    let mut cases = of_kinds();
    cases.extend(bound_to_context());
    cases.extend(bound_to_connection());
    cases.extend(bound_to_time());
    cases.extend(bound_to_key());
    cases.extend(malformed());
    json!({
        "about": "check(proof, holder, capability_sha256, asked, now, started_at), with a skew of 30 s, at most 60 s for connect and request and 3600 s for presentation, and no memory of nonces. asked.purpose presentation is a verifier that accepts nothing else. asked.binding is the connection's: a verifier that requires it.",
        "cases": cases,
    })
}

fn of_kinds() -> Vec<Value> {
    let p256 = Case { signer: Algorithm::P256, holder: *private(Algorithm::P256).public(), ..base() };
    let asked_as = |signed: Asked, asked: Asked| Case { signed, asked, ..base() };
    let absolute = Asked { purpose: "request", method: "CONNECT", ..CONNECT };
    let switched = |kind: Change| Case { bytes: Some(kind), ..base() };
    vec![
        base().build("connect", None),
        p256.build("connect by a P-256 key", None),
        of(REQUEST).build("request", None),
        of(PRESENTATION).build("presentation", None),
        asked_as(PRESENTATION, CONNECT).build("presentation with a CONNECT", None),
        asked_as(PRESENTATION, REQUEST).build("presentation with a request", None),
        asked_as(CONNECT, PRESENTATION).build("connect where a presentation is asked for", KIND),
        asked_as(CONNECT, absolute.clone()).build("connect with an absolute-form request", KIND),
        asked_as(absolute, CONNECT).build("request with a CONNECT", KIND),
        switched(|bytes| bytes[1] = 2).build("connect that says request", KIND),
        switched(|bytes| bytes[1] = 3).build("connect that says presentation", SIGNATURE),
    ]
}

fn bound_to_context() -> Vec<Value> {
    let asked = |asked: Asked| Case { asked, ..base() };
    let signed = |signed: Asked| Case { signed, ..base() };
    let request = |asked: Asked| Case { signed: REQUEST, asked, ..base() };
    vec![
        asked(Asked { target: "API.acme.TEST:443", ..CONNECT }).build("letter case of the target", None),
        asked(Asked { target: "api.acme.test:444", ..CONNECT }).build("another port", SIGNATURE),
        asked(Asked { target: "api.acme.tesu:443", ..CONNECT }).build("another host", SIGNATURE),
        asked(Asked { target: "api.acme.test.:443", ..CONNECT }).build("a trailing dot", SIGNATURE),
        asked(Asked { audience: "locam", ..CONNECT }).build("another audience", SIGNATURE),
        asked(Asked { challenge: b"\0", ..CONNECT }).build("a challenge", SIGNATURE),
        asked(Asked { binding: b"\0", ..CONNECT }).build("a binding", SIGNATURE),
        signed(Asked { audience: "loca", target: "lapi.acme.test:443", ..CONNECT })
            .build("a boundary moved", SIGNATURE),
        request(Asked { method: "HEAD", ..REQUEST }).build("another method", SIGNATURE),
        request(Asked { method: "get", ..REQUEST }).build("letter case of the method", SIGNATURE),
        request(Asked { target: "api.acme.test:81", ..REQUEST }).build("another target of a request", SIGNATURE),
        Case { asked_capability: [0xcb; 32], ..base() }.build("another capability", SIGNATURE),
        Case { signed: PRESENTATION, asked: Asked { audience: "other", ..CONNECT }, ..base() }
            .build("a presentation for another audience", SIGNATURE),
    ]
}

fn bound_to_connection() -> Vec<Value> {
    let asked_as = |signed: Asked, asked: Asked| Case { signed, asked, ..base() };
    let bit_away = Asked { binding: b"binding: 32 bytes of an exportes", ..CONNECT };
    let request = Asked { binding: BOUND.binding, ..REQUEST };
    let presentation = Asked { binding: BOUND.binding, ..PRESENTATION };
    vec![
        of(BOUND).build("connect bound to its connection", None),
        of(request.clone()).build("request bound to its connection", None),
        asked_as(BOUND, bit_away).build("bound to another connection", SIGNATURE),
        asked_as(BOUND, CONNECT).build("bound, and the connection is not", SIGNATURE),
        asked_as(CONNECT, BOUND).build("not bound, and the connection is", SIGNATURE),
        asked_as(REQUEST, request).build("request that is not bound, and the connection is", SIGNATURE),
        asked_as(PRESENTATION, BOUND).build("presentation on a bound connection", None),
        asked_as(presentation, BOUND).build("presentation that is bound", SIGNATURE),
    ]
}

fn bound_to_time() -> Vec<Value> {
    let presentation = |ttl_s| Case { ttl_s, ..of(PRESENTATION) };
    vec![
        Case { now: NOW - 30, ..base() }.build("30 s early", None),
        Case { now: NOW - 31, ..base() }.build("31 s early", EARLY),
        Case { now: NOW + 59, ..base() }.build("last second", None),
        Case { now: NOW + 60, ..base() }.build("one second late", EXPIRED),
        Case { ttl_s: 60, ..base() }.build("60 s", None),
        Case { ttl_s: 61, ..base() }.build("61 s", TTL),
        Case { ttl_s: u32::MAX, ..base() }.build("136 years", TTL),
        Case { issued_at: u64::MAX, now: NOW, ..base() }.build("the end of time", EARLY),
        presentation(3600).build("presentation of an hour", None),
        presentation(3601).build("presentation of an hour and a second", TTL),
        Case { started_at: NOW, ..base() }.build("made in the second of the start", None),
        Case { started_at: NOW + 1, now: NOW + 1, ..base() }
            .build("made before the start", Some(("before_start", "proof_expired"))),
        Case { started_at: NOW + 1, now: NOW + 1, ..of(PRESENTATION) }
            .build("presentation from before the start", None),
    ]
}

fn bound_to_key() -> Vec<Value> {
    let bob = PrivateKey::from_seed(Algorithm::Ed25519, [BOB; 32]).expect("a seed");
    let p256 = *private(Algorithm::P256).public();
    vec![
        Case { holder: *bob.public(), ..base() }.build("another holder", SIGNATURE),
        Case { holder: p256, ..base() }.build("another algorithm", Some(("wrong_algorithm", "proof_invalid"))),
        Case { bytes: Some(|bytes| bytes[16] ^= 1), ..base() }.build("another nonce", SIGNATURE),
        Case { bytes: Some(|bytes| bytes[95] ^= 1), ..base() }.build("another signature", SIGNATURE),
        Case { bytes: Some(|bytes| bytes[32..64].fill(0)), ..base() }.build("a small-order R", SIGNATURE),
    ]
}

fn malformed() -> Vec<Value> {
    let cases: [(&str, &str, Change); 7] = [
        ("95 bytes", "length", |bytes| bytes.truncate(95)),
        ("97 bytes", "length", |bytes| bytes.push(0)),
        ("version 0", "version", |bytes| bytes[0] = 0),
        ("version 2", "version", |bytes| bytes[0] = 2),
        ("kind 4", "kind", |bytes| bytes[1] = 4),
        ("algorithm 2", "algorithm", |bytes| bytes[2] = 2),
        ("reserved byte", "reserved", |bytes| bytes[3] = 1),
    ];
    cases
        .map(|(name, class, change)| Case { bytes: Some(change), ..base() }.build(name, Some((class, "malformed"))))
        .into()
}
