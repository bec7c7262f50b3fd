//! The header that carries credentials.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use narrows::capability::{Algorithm, Context, Credentials, PrivateKey, Proof, Purpose};
use narrows::clock::UnixSeconds;
use serde_json::{Value, json};

use super::NOW;
use crate::forge::ALICE;

pub(super) fn file() -> Value {
    let capability = super::capabilities::alice().capability().seal().expect("seals");
    let key = PrivateKey::from_seed(Algorithm::Ed25519, [ALICE; 32]).expect("a seed");
    let context = Context::new("local", Purpose::Connect { target: "api.acme.test:443" });
    let proof = Proof::sign(&key, &capability.sha256(), UnixSeconds(NOW), 30, *b"nonce-of-vectors", &context);
    let credentials = Credentials { capability, proof: proof.expect("signs") };
    let text = credentials.to_text();
    let (first, second) = text.split_once('.').expect("two parts");
    let basic = |pair: String| format!("Basic {}", BASE64_STANDARD.encode(pair));
    let case = |name: &str, value: String, class: Option<&str>| {
        let accepted = class.is_none();
        json!({
            "name": name,
            "proxy_authorization": value,
            "verdict": if accepted { "accepted" } else { "refused" },
            "class": class,
            "capability_sha256": accepted.then(|| hex::encode(credentials.capability.sha256())),
            "proof_hex": accepted.then(|| hex::encode(credentials.proof.as_bytes())),
        })
    };
    json!({
        "about": "Parsing the value of one Proxy-Authorization header. A refusal of any class is the code malformed.",
        "cases": [
            case("cap", format!("Cap {text}"), None),
            case("scheme in another letter case", format!("cAP {text}"), None),
            case("basic", basic(format!("cap:{text}")), None),
            case("basic with another user", basic(format!("alice:{text}")), Some("user")),
            case("basic user in another letter case", basic(format!("Cap:{text}")), Some("user")),
            case("basic without a colon", basic("cap".to_owned()), Some("basic")),
            case("basic that is not base64", "Basic *".to_owned(), Some("basic")),
            case("bearer", format!("Bearer {text}"), Some("scheme")),
            case("no scheme", text.clone(), Some("scheme")),
            case("no proof", format!("Cap {first}"), Some("parts")),
            case("empty proof", format!("Cap {first}."), Some("proof")),
            case("padded proof", format!("Cap {first}.{second}="), Some("proof")),
            case("long proof", format!("Cap {first}.{second}AAAA"), Some("proof")),
            case("three parts", format!("Cap {text}.{second}"), Some("proof")),
            case("empty capability", format!("Cap .{second}"), Some("capability")),
            case("padded capability", format!("Cap {first}=.{second}"), Some("capability")),
        ],
    })
}
