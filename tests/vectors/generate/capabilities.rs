//! Capabilities: those that hold, with what they say, and for each failure class some that do not.

use biscuit_auth::Algorithm as BiscuitAlgorithm;
use biscuit_auth::format::schema::{self, proof};
use narrows::capability::{Algorithm, Capability, Chain, Limits, PrivateKey, inspect};
use prost::Message;
use serde_json::{Value, json};

use crate::forge::{
    ALICE, BOB, CAROL, Forgery, KID, Link, ROOT, THIEF, authority, capability, content, content_after, holder, pair,
    pair_of, public,
};

/// The number of the root that is a P-256 key.
const KID_P256: u32 = 8;

pub(super) fn file() -> Value {
    let mut cases = accepted();
    cases.extend(refused_by_encoding());
    cases.extend(refused_by_signature());
    cases.extend(refused_by_content());
    cases.extend(refused_by_limit());
    let p256 = PrivateKey::from_seed(Algorithm::P256, [ROOT; 32]).expect("a scalar");
    json!({
        "about": "verify(capability, roots, hops_max) gives this verdict; class names the rule that refuses. chain is what an accepted one says.",
        "roots": { KID.to_string(): public(ROOT).to_string(), KID_P256.to_string(): p256.public().to_string() },
        "hops_max": 8,
        "cases": cases,
    })
}

fn holds(name: &str, about: &str, capability: &Capability) -> Value {
    let chain = Chain::read(capability, &Limits::default()).expect(name);
    json!({
        "name": name, "about": about, "capability": capability.to_text(),
        "verdict": "accepted", "class": null, "chain": inspect::json(&chain),
    })
}

fn fails(name: &str, about: &str, class: &str, text: &str) -> Value {
    json!({
        "name": name, "about": about, "capability": text,
        "verdict": "refused", "class": class, "chain": null,
    })
}

fn fails_schema(name: &str, about: &str, class: &str, schema: &schema::Biscuit) -> Value {
    fails(name, about, class, &capability(schema).to_text())
}

/// What the requests are asked of.
pub(super) fn alice() -> Forgery {
    Forgery::of(&content(&format!(
        r#"{} user("alice@example.com"); right("github", "read"); right("acme", "*");
           check if time($time), $time < 2027-01-15T16:00:00Z;
           check if hop($hop), $hop <= 2;
           check if audience("local") or audience("proxy.example.com");"#,
        authority()
    )))
}

pub(super) fn bob() -> Forgery {
    alice().delegate(
        ALICE,
        &format!(
            r#"{} agent("orchestrator");
               check if time($time), $time < 2027-01-15T09:00:00Z;
               check if service("github"), operation("read"), param("repo", "acme/widgets")
                     or service("acme"), operation($operation), path($path), {{"read", "write"}}.contains($operation),
                        $path == "/v1/items" || $path.starts_with("/v1/items/");"#,
            holder(BOB)
        ),
    )
}

fn carol() -> Forgery {
    bob().delegate(
        BOB,
        &format!(
            r#"{} agent("worker"); budget("calls", 10); rate("calls", 5, 60);
               check if operation("read");
               check if body_size($body), $body <= 1024;
               check if proof("connect") or proof("request");"#,
            holder(CAROL)
        ),
    )
}

fn narrowed() -> Forgery {
    let mut forgery = bob();
    let first = schema::Block::decode(forgery.links[0].payload.as_slice()).expect("decodes");
    let block = content_after(&[&first], r#"check if method("GET"); budget("bytes_down", 1048576);"#);
    forgery.links.push(Link::new(&block, None, 102));
    forgery
}

fn one(code: &str) -> Forgery {
    Forgery::of(&content(&format!("{} {code}", authority())))
}

fn accepted() -> Vec<Value> {
    let sealed = |mut forgery: Forgery| {
        forgery.sealed = true;
        forgery.capability()
    };
    let mut p256_root = Forgery::of(&content(&authority()));
    p256_root.root = pair_of(BiscuitAlgorithm::Secp256r1, ROOT);
    p256_root.kid = Some(KID_P256);
    let p256 = PrivateKey::from_seed(Algorithm::P256, [ALICE; 32]).expect("a scalar");
    let p256_holder = Forgery::of(&content(&format!(
        "cap(1, null); holder(1, hex:{}); right(\"acme\", \"*\");",
        hex::encode(p256.public().as_bytes())
    )));
    let mut attached_again = bob();
    attached_again.links[1].chain_key = pair(200);
    let cycle = one("").delegate(ALICE, &holder(BOB)).delegate(BOB, &holder(ALICE));
    let mut eight = one("");
    for hop in 0..8 {
        let (from, to) = if hop % 2 == 0 { (ALICE, BOB) } else { (BOB, ALICE) };
        eight = eight.delegate(from, &holder(to));
    }
    vec![
        holds("least", "Profile and holder, nothing else: genuine, and allows nothing.", &one("").capability()),
        holds("alice", "An authority block as mint writes it.", &alice().capability()),
        holds("alice-sealed", "The same, sealed.", &sealed(alice())),
        holds("bob", "Delegated once, narrower.", &bob().capability()),
        holds("bob-sealed", "The same, sealed: another hash, the same block ids.", &sealed(bob())),
        holds(
            "bob-attached-again",
            "The same delegation under another chain key: the same block ids.",
            &attached_again.capability(),
        ),
        holds("carol", "Delegated twice, with a budget and a rate.", &carol().capability()),
        holds("bob-narrowed", "A first-party block after the delegation: same holder.", &narrowed().capability()),
        holds("cycle", "Alice to Bob and back: allowed, stays narrow.", &cycle.capability()),
        holds("eight-hops", "As many changes of holder as this verifier allows.", &eight.capability()),
        holds("p256-root", "An authority block signed by a P-256 root.", &p256_root.capability()),
        holds("p256-holder", "A P-256 holder.", &p256_holder.capability()),
        holds(
            "columns",
            "Each form of check that is not in the others.",
            &one(r#"right("acme", "*");
               check if action($a), $a.starts_with("dns.") or path("/plain");
               check if host($h), $h == "api.acme.test" || $h.ends_with(".acme.test");
               check if port($p), {443, 8443}.contains($p);
               check if method($m), !($m == "DELETE");
               check if path($p), $p.length() <= 20;
               check if scheme("https");
               check if time($t), $t >= 2027-01-15T07:00:00Z;"#)
            .capability(),
        ),
        holds(
            "approval",
            "A row that wants an approval never holds yet.",
            &one(r#"right("acme", "*"); check if operation("read") or operation("write"), approved_by(hex:0102);"#)
                .capability(),
        ),
        holds("no-calls", "A budget of none.", &one(r#"right("acme", "*"); budget("calls", 0);"#).capability()),
        holds("no-rate", "A rate of none.", &one(r#"right("acme", "*"); rate("calls", 0, 60);"#).capability()),
        holds(
            "few-bytes",
            "At most 1024 bytes of request bodies.",
            &one(r#"right("acme", "*"); budget("bytes_up", 1024);"#).capability(),
        ),
    ]
}

fn refused_by_encoding() -> Vec<Value> {
    let text = one("").capability().to_text();
    let genuine = bob().schema().encode_to_vec();
    let bytes = |bytes: &[u8]| Capability::from_bytes(bytes).expect("not empty").to_text();
    let mut payload = one("");
    payload.links[0].payload.extend([15 << 3, 0]);
    vec![
        fails("padding", "base64url with padding.", "encoding", &format!("{text}=")),
        fails("space", "A space in the text.", "encoding", &format!("{text} ")),
        fails("stray-bits", "Bits after the last byte are not zero.", "encoding", "CAF"),
        fails("alphabet", "A + of standard base64.", "encoding", "CA+A"),
        fails("empty", "No bytes.", "malformed", ""),
        fails("not-a-biscuit", "Other bytes.", "malformed", "e30"),
        fails("cut", "The last byte is missing.", "malformed", &bytes(&genuine[..genuine.len() - 1])),
        fails(
            "unknown-field",
            "The container has a field that nobody knows; biscuit libraries skip it.",
            "non_canonical",
            &bytes(&[genuine.as_slice(), &[15 << 3, 0]].concat()),
        ),
        fails(
            "repeated-field",
            "rootKeyId twice.",
            "non_canonical",
            &bytes(&[genuine.as_slice(), &genuine[..2]].concat()),
        ),
        fails(
            "long-varint",
            "rootKeyId in two bytes instead of one.",
            "non_canonical",
            &bytes(&[&[1 << 3, 0x87, 0], &genuine[2..]].concat()),
        ),
        fails(
            "unknown-field-in-payload",
            "The same inside a signed payload.",
            "non_canonical",
            &payload.capability().to_text(),
        ),
    ]
}

fn refused_by_signature() -> Vec<Value> {
    let mut cases = Vec::new();
    let mut kid = one("");
    kid.kid = None;
    cases.push(fails_schema("no-root", "No rootKeyId.", "root_missing", &kid.schema()));
    kid.kid = Some(9);
    cases.push(fails_schema("unknown-root", "A rootKeyId that is not configured.", "root_unknown", &kid.schema()));
    kid.kid = Some(KID_P256);
    cases.push(fails_schema("other-root", "The rootKeyId of another root.", "signature", &kid.schema()));
    let mut thief = one("");
    thief.root = pair(THIEF);
    cases.push(fails_schema("thiefs-root", "Signed by another key than the root's.", "signature", &thief.schema()));
    for (name, version) in [("version-absent", None), ("version-0", Some(0)), ("version-2", Some(2))] {
        let mut schema = one("").schema();
        schema.authority.version = version;
        cases.push(fails_schema(
            name,
            "The authority block's signature has another version than 1.",
            "signature_version",
            &schema,
        ));
    }
    let mut downgraded = bob().schema();
    downgraded.blocks[0].version = None;
    cases.push(fails_schema(
        "delegation-downgraded",
        "A delegation whose version is removed.",
        "signature_version",
        &downgraded,
    ));
    let mut repeated = bob();
    repeated.links[1].chain_key = pair(100);
    cases.push(fails_schema("chain-key-twice", "The same chain key in two blocks.", "chain_key", &repeated.schema()));
    let mut p256 = one("");
    p256.links[0].chain_key = pair_of(BiscuitAlgorithm::Secp256r1, 100);
    cases.push(fails_schema("chain-key-p256", "A chain key that is not Ed25519.", "chain_key", &p256.schema()));

    cases.push(fails_schema(
        "delegated-by-thief",
        "A thief with the unsealed bytes delegates to itself.",
        "signer",
        &alice().delegate(THIEF, &holder(THIEF)).schema(),
    ));
    cases.push(fails_schema(
        "delegated-by-former-holder",
        "Alice delegates again after having delegated.",
        "signer",
        &bob().delegate(ALICE, &holder(CAROL)).schema(),
    ));
    cases.push(fails_schema(
        "delegated-by-child",
        "Bob delegates Alice's capability.",
        "signer",
        &alice().delegate(BOB, &holder(BOB)).schema(),
    ));
    let mut claimed = alice().delegate(THIEF, &holder(THIEF)).schema();
    claimed.blocks[0].external_signature.as_mut().expect("a delegation").public_key = pair(ALICE).public().to_proto();
    cases.push(fails_schema(
        "delegation-in-anothers-name",
        "Signed by a thief, said to be by Alice.",
        "signature",
        &claimed,
    ));
    let mut unsigned = bob().schema();
    unsigned.blocks[0].external_signature = None;
    cases.push(fails_schema(
        "external-signature-removed",
        "A delegation without its external signature.",
        "signature",
        &unsigned,
    ));
    cases.extend(refused_by_place());
    cases
}

/// Genuine blocks, in another place than where they were signed.
fn refused_by_place() -> Vec<Value> {
    let mut cases = Vec::new();
    let genuine = carol().schema();
    let changed = |change: &dyn Fn(&mut schema::Biscuit)| {
        let mut schema = genuine.clone();
        change(&mut schema);
        schema
    };
    let dropped_last = changed(&|schema| _ = schema.blocks.pop());
    let dropped_middle = changed(&|schema| _ = schema.blocks.remove(0));
    let reordered = changed(&|schema| schema.blocks.swap(0, 1));
    let edited = changed(&|schema| schema.blocks[1].block = Link::new(&content(&holder(CAROL)), None, 0).payload);
    let wider = changed(&|schema| schema.blocks[0] = one("").delegate(ALICE, &holder(BOB)).schema().blocks[0].clone());
    cases.push(fails_schema("dropped-last", "The last block is missing.", "signature", &dropped_last));
    cases.push(fails_schema("dropped-middle", "A block in the middle is missing.", "signature", &dropped_middle));
    cases.push(fails_schema("reordered", "Two blocks changed places.", "signature", &reordered));
    cases.push(fails_schema("edited", "A block's content was replaced.", "signature", &edited));
    cases.push(fails_schema(
        "delegation-of-another",
        "A delegation that Alice made for another capability.",
        "signature",
        &wider,
    ));

    let mut sealed = bob();
    sealed.sealed = true;
    let mut appended = sealed.schema();
    appended.blocks.push(carol().schema().blocks[1].clone());
    cases.push(fails_schema(
        "appended-after-seal",
        "A genuine block behind a seal that does not cover it.",
        "signature",
        &appended,
    ));
    let mut unsealed = sealed.schema();
    unsealed.proof.content = Some(proof::Content::NextSecret(pair(THIEF).private().to_bytes().to_vec()));
    cases.push(fails_schema(
        "seal-replaced",
        "The seal is replaced by a chain key of one's own.",
        "signature",
        &unsealed,
    ));
    cases
}

fn refused_by_content() -> Vec<Value> {
    let mut cases = Vec::new();
    for (name, about, class, code) in [
        ("fact-unknown", "A fact that the profile does not know.", "fact", r#"anything("x");"#),
        ("fact-of-a-request", "A block states a fact of the request.", "fact", r#"operation("read");"#),
        ("user-twice", "Two users.", "fact", r#"user("a"); user("b");"#),
        ("agent-in-authority", "A label of delegations.", "fact", r#"agent("a");"#),
        ("right-to-all", "A right to every service.", "fact", r#"right("*", "read");"#),
        ("right-arity", "A right with three terms.", "fact", r#"right("acme", "read", "x");"#),
        ("budget-negative", "A budget below zero.", "fact", r#"budget("calls", -1);"#),
        ("budget-kind", "A budget of an unknown kind.", "fact", r#"budget("euros", 1);"#),
        ("budget-twice", "Two budgets of one kind.", "fact", r#"budget("calls", 1); budget("calls", 2);"#),
        ("rate-window", "A window of no length.", "fact", r#"rate("calls", 1, 0);"#),
        ("rate-kind", "A rate of bytes.", "fact", r#"rate("bytes_up", 1, 60);"#),
        ("rule", "A rule.", "rule", r#"right("acme", $o) <- operation($o);"#),
        ("trusting", "A scope.", "scope", r#"check if operation("read") trusting previous;"#),
        (
            "holder-twice",
            "Two holders.",
            "holder",
            "holder(0, hex:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a);",
        ),
        ("check-all", "`check all`.", "check", r#"check all operation("read");"#),
        ("reject-if", "`reject if`.", "check", r#"reject if operation("write");"#),
        ("regex", "A regular expression.", "check", r#"check if path($p), $p.matches("^/a");"#),
        ("arithmetic", "Arithmetic.", "check", "check if port($p), $p + 1 == 444;"),
        (
            "join-on-own-facts",
            "A join on the capability's own facts.",
            "check",
            "check if service($s), operation($o), right($s, $o);",
        ),
        ("predicate-twice", "A name twice in a row.", "check", r#"check if operation("read"), operation($o);"#),
        ("param-name-variable", "A variable for the name of a param.", "check", r#"check if param($n, "x");"#),
        ("wrong-type", "A constant of another type than the fact's.", "check", r#"check if port("443");"#),
        (
            "one-bad-row",
            "One good row does not save a bad one.",
            "check",
            r#"check if operation("read") or user("alice");"#,
        ),
    ] {
        cases.push(fails_schema(name, about, class, &one(code).schema()));
    }
    for (name, about, class, code) in [
        ("no-profile", "An authority block without cap(1, null).", "profile", holder(ALICE)),
        ("profile-2", "An unknown version of the profile.", "profile", format!("cap(2, null); {}", holder(ALICE))),
        ("no-holder", "An authority block without a holder.", "holder", "cap(1, null);".to_owned()),
        (
            "holder-weak",
            "A holder's key of small order.",
            "holder",
            format!("cap(1, null); holder(0, hex:01{});", "00".repeat(31)),
        ),
        (
            "holder-algorithm",
            "A holder's key of an unknown algorithm.",
            "holder",
            format!("cap(1, null); holder(2, hex:{});", "02".repeat(32)),
        ),
    ] {
        cases.push(fails_schema(name, about, class, &Forgery::of(&content(&code)).schema()));
    }
    for (name, about, class, code) in [
        ("right-in-delegation", "A delegation adds a right.", "fact", r#"right("acme", "*");"#),
        ("user-in-delegation", "A delegation names a user.", "fact", r#"user("root");"#),
        ("profile-in-delegation", "A delegation states the profile.", "fact", "cap(1, null);"),
    ] {
        cases.push(fails_schema(name, about, class, &Forgery::delegation(code).schema()));
    }
    for (name, about, class, code) in [
        ("holder-in-narrowing", "Whoever has the unsealed bytes names itself.", "fact", holder(THIEF)),
        ("agent-in-narrowing", "A narrowing has nobody to name.", "fact", r#"agent("x");"#.to_owned()),
        ("right-in-narrowing", "A narrowing adds a right.", "fact", r#"right("acme", "*");"#.to_owned()),
    ] {
        cases.push(fails_schema(name, about, class, &Forgery::narrowing(&code).schema()));
    }
    cases.push(fails_schema(
        "delegation-without-holder",
        "A delegation to nobody.",
        "holder",
        &alice().delegate(ALICE, "agent(\"x\");").schema(),
    ));
    cases.extend(refused_blocks());
    cases
}

/// Contents that no Datalog text gives.
fn refused_blocks() -> Vec<Value> {
    let changed = |change: &dyn Fn(&mut schema::Block)| {
        let mut block = content(&format!("{} user(\"alice\");", authority()));
        change(&mut block);
        Forgery::of(&block).schema()
    };
    vec![
        fails_schema(
            "context",
            "A block with a context.",
            "context",
            &changed(&|block| block.context = Some(String::new())),
        ),
        fails_schema(
            "public-keys",
            "A table of keys, which only scopes use.",
            "scope",
            &changed(&|block| block.public_keys.push(pair(THIEF).public().to_proto())),
        ),
        fails_schema(
            "symbol-twice",
            "The symbol table repeats a symbol.",
            "symbols",
            &changed(&|block| block.symbols.push("alice".to_owned())),
        ),
        fails_schema(
            "symbol-predefined",
            "The symbol table repeats a predefined symbol.",
            "symbols",
            &changed(&|block| block.symbols.push("read".to_owned())),
        ),
        fails_schema(
            "symbol-missing",
            "A reference to no symbol.",
            "symbols",
            &changed(&|block| block.facts[0].predicate.name = 5000),
        ),
        fails_schema(
            "datalog-old",
            "A Datalog version from before null.",
            "datalog_version",
            &changed(&|block| block.version = Some(5)),
        ),
        fails_schema(
            "datalog-unknown",
            "A Datalog version that is not known.",
            "datalog_version",
            &changed(&|block| block.version = Some(7)),
        ),
    ]
}

fn refused_by_limit() -> Vec<Value> {
    let rights = (0..63).map(|n| format!("right(\"s{n}\", \"read\");")).collect::<Vec<_>>().concat();
    let checks = r#"check if operation("read");"#.repeat(33);
    let rows = format!("check if {};", vec![r#"operation("read")"#; 17].join(" or "));
    let params: Vec<String> = (0..17).map(|n| format!("param(\"p{n}\", \"x\")")).collect();
    let mut nine = one("");
    for hop in 0..9 {
        let (from, to) = if hop % 2 == 0 { (ALICE, BOB) } else { (BOB, ALICE) };
        nine = nine.delegate(from, &holder(to));
    }
    let first = content(&authority());
    let mut blocks = Forgery::of(&first);
    for n in 1..34 {
        blocks.links.push(Link::new(&content_after(&[&first], ""), None, 100 + n));
    }
    vec![
        fails_schema("facts-65", "65 facts in a block.", "limit", &one(&rights).schema()),
        fails_schema("checks-33", "33 checks in a block.", "limit", &one(&checks).schema()),
        fails_schema("rows-17", "17 rows in a check.", "limit", &one(&rows).schema()),
        fails_schema(
            "predicates-17",
            "17 predicates in a row.",
            "limit",
            &one(&format!("check if {};", params.join(", "))).schema(),
        ),
        fails_schema("hops-9", "One change of holder more than this verifier allows.", "hops", &nine.schema()),
        fails_schema("blocks-34", "34 blocks.", "too_many_blocks", &blocks.schema()),
    ]
}
