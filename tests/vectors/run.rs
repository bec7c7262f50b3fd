//! Checking the vectors through the library's front doors. Nothing here knows how they were made.

use std::collections::BTreeMap;

use narrows::capability::{
    Capability, Context, Credentials, Grant, InvalidCapability, Ledger, Limits, ParamNames, Proof, ProofLimits,
    PublicKey, Purpose, Revocations, Roots, Verified, grants_to_check, inspect, rights_of, verify,
};
use narrows::clock::UnixSeconds;
use narrows::policy;
use narrows::request::{CanonicalPath, EncodedSlash, Facts, Host, ProofKind, Scheme, Target, Text};
use serde_json::{Value, json};

pub(crate) fn cases(file: &Value) -> impl Iterator<Item = &Value> {
    file["cases"].as_array().expect("cases").iter()
}

pub(crate) fn text<'a>(case: &'a Value, member: &str) -> &'a str {
    case[member].as_str().unwrap_or_else(|| panic!("{member} of {case}"))
}

fn number(case: &Value, member: &str) -> u64 {
    case[member].as_u64().unwrap_or_else(|| panic!("{member} of {case}"))
}

fn key(text: &str) -> PublicKey {
    text.parse().expect("a public key")
}

fn roots(file: &Value) -> Roots {
    let roots = file["roots"].as_object().expect("roots").iter();
    let parse = |(kid, root): (&String, &Value)| (kid.parse().expect("a number"), key(root.as_str().expect("a key")));
    Roots::new(roots.map(parse).collect::<BTreeMap<u32, PublicKey>>())
}

fn verdict_of(file: &Value, case: &Value) -> Result<Verified, &'static str> {
    let hops_max = u32::try_from(number(file, "hops_max")).expect("a number of hops");
    Capability::from_text(text(case, "capability"))
        .and_then(|capability| verify(&capability, &roots(file), &Limits { hops_max }))
        .map_err(InvalidCapability::as_str)
}

pub(crate) fn capabilities(file: &Value) {
    for case in cases(file) {
        let (verdict, class, chain) = match verdict_of(file, case) {
            Ok(verified) => ("accepted", Value::Null, inspect::json(&verified)),
            Err(class) => ("refused", json!(class), Value::Null),
        };
        assert_eq!((verdict, &class), (text(case, "verdict"), &case["class"]), "{}", text(case, "name"));
        assert_eq!(chain, case["chain"], "{}", text(case, "name"));
    }
}

pub(crate) fn requests(capabilities: &Value, file: &Value) {
    for case in cases(file) {
        let named = cases(capabilities).find(|other| text(other, "name") == text(case, "capability"));
        let verified = verdict_of(capabilities, named.expect("a capability")).expect("accepted");
        let facts = &case["facts"];
        let host = Host::parse(text(facts, "host")).expect("a host");
        let path = facts["path"].as_str().map(|path| CanonicalPath::parse(path, EncodedSlash::Opaque).expect("a path"));
        let params: Vec<(Text, Text)> = facts["params"]
            .as_object()
            .expect("params")
            .iter()
            .map(|(name, value)| (name.as_str().into(), value.as_str().expect("a value").into()))
            .collect();
        let facts = Facts {
            time: UnixSeconds(number(facts, "time")),
            service: text(facts, "service"),
            operation: text(facts, "operation"),
            action: facts["action"].as_str(),
            scheme: if text(facts, "scheme") == "http" { Scheme::Http } else { Scheme::Https },
            host: &host,
            port: u16::try_from(number(facts, "port")).expect("a port"),
            method: facts["method"].as_str(),
            path: path.as_ref(),
            params: &params,
            body_size: facts["body_size"].as_u64(),
            audience: text(facts, "audience"),
            proof: kind(text(facts, "proof")),
            hop: u32::try_from(number(facts, "hop")).expect("a hop"),
        };
        let account = Ledger::new().account(&verified, facts.time);
        let (verdict, code, block) = match policy::decide(&verified, &facts, &Revocations::default(), &account) {
            Ok(permit) => {
                drop(permit.into_reservation());
                ("allowed", Value::Null, Value::Null)
            }
            Err(denial) => ("denied", json!(denial.code.as_str()), json!(denial.block)),
        };
        let expected = (text(case, "verdict"), &case["code"], &case["block"]);
        assert_eq!((verdict, &code, &block), expected, "{}", text(case, "name"));
    }
}

fn kind(name: &str) -> ProofKind {
    let kinds = [ProofKind::Connect, ProofKind::Request, ProofKind::Presentation];
    kinds.into_iter().find(|kind| kind.as_str() == name).expect("a kind of proof")
}

pub(crate) fn proofs(file: &Value) {
    for case in cases(file) {
        let asked = &case["asked"];
        let target = asked["target"].as_str().unwrap_or_default();
        let parsed = Target::parse(target);
        let purpose = match text(asked, "purpose") {
            "connect" => Purpose::Connect { target },
            "request" => Purpose::Request { method: text(asked, "method"), target: parsed.as_ref().expect("a target") },
            _ => Purpose::Presentation,
        };
        let (challenge, binding) = (bytes(asked, "challenge"), bytes(asked, "binding"));
        let context =
            Context { challenge: &challenge, binding: &binding, ..Context::new(text(asked, "audience"), purpose) };
        let capability = <[u8; 32]>::try_from(bytes(case, "capability_sha256")).expect("32 bytes");
        let limits = ProofLimits::since(UnixSeconds(number(case, "started_at")));
        let now = UnixSeconds(number(case, "now"));
        let (mut dead_at, mut code) = (Value::Null, Value::Null);
        let class = match Proof::parse(&base64url(text(case, "proof"))) {
            Err(error) => json!(error.as_str()),
            Ok(proof) => match proof.check(&key(text(case, "holder")), &capability, &context, now, &limits) {
                Ok(proven) => {
                    dead_at = json!(proven.dead_at().get());
                    Value::Null
                }
                Err(error) => {
                    code = json!(policy::Code::of_proof(&error).as_str());
                    json!(error.as_str())
                }
            },
        };
        let name = text(case, "name");
        assert_eq!(class.is_null(), text(case, "verdict") == "accepted", "{name}: {class}");
        assert_eq!((&class, &dead_at), (&case["class"], &case["dead_at"]), "{name}");
        if !code.is_null() {
            assert_eq!(code, case["code"], "{name}");
        }
    }
}

fn bytes(case: &Value, member: &str) -> Vec<u8> {
    hex::decode(text(case, member)).expect("hexadecimal")
}

fn base64url(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(text).expect("base64url")
}

pub(crate) fn credentials(file: &Value) {
    for case in cases(file) {
        let value = text(case, "proxy_authorization");
        let class = match Credentials::from_proxy_authorization(value.as_bytes()) {
            Ok(credentials) => {
                assert_eq!(hex::encode(credentials.capability.sha256()), text(case, "capability_sha256"));
                assert_eq!(hex::encode(credentials.proof.as_bytes()), text(case, "proof_hex"));
                Value::Null
            }
            Err(error) => json!(error.as_str()),
        };
        assert_eq!(class, case["class"], "{}", text(case, "name"));
        assert_eq!(class.is_null(), text(case, "verdict") == "accepted", "{}", text(case, "name"));
    }
}

pub(crate) fn grants(file: &Value) {
    for case in cases(file) {
        let texts = case["grants"].as_array().expect("grants").iter().map(|grant| grant.as_str().expect("a grant"));
        let grants: Result<Vec<Grant>, _> = texts.map(|grant| Grant::parse(grant, &ParamNames::any())).collect();
        let name = text(case, "name");
        assert_eq!(grants.is_ok(), text(case, "verdict") == "accepted", "{name}: {grants:?}");
        if let Ok(grants) = grants {
            let check = grants_to_check(&grants).expect("few enough");
            assert_eq!(check.as_deref(), case["check"].as_str(), "{name}");
            let rights: Vec<Value> = rights_of(&grants).into_iter().map(|(s, o)| json!([s, o])).collect();
            assert_eq!(json!(rights), case["rights"], "{name}");
        }
    }
}
