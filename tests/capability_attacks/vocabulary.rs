//! What each kind of block may say.

use biscuit_auth::format::schema::{self, scope::Content as Trusted, term::Content};
use narrows::capability::{Budget, BudgetKind, Rate};

use crate::forge::{ALICE, BOB, CAROL, Forgery, THIEF, authority, content, holder, library_accepts, pair, public};

#[test]
fn each_fact_has_its_place_its_arity_and_its_number() {
    // Code to add, and the class in an authority, a delegation and a narrowing block.
    let table = [
        (r#"user("a");"#, ["accepted", "fact", "fact"]),
        (r#"user("a"); user("b");"#, ["fact"; 3]),
        (r#"user("a", "b");"#, ["fact"; 3]),
        ("user(1);", ["fact"; 3]),
        (r#"agent("a");"#, ["fact", "accepted", "fact"]),
        (r#"agent("a"); agent("b");"#, ["fact"; 3]),
        (r#"right("acme", "read"); right("acme", "*");"#, ["accepted", "fact", "fact"]),
        (r#"right("*", "read");"#, ["fact"; 3]),
        (r#"right("*", "*");"#, ["fact"; 3]),
        (r#"right("acme");"#, ["fact"; 3]),
        (r#"right("acme", "read", "x");"#, ["fact"; 3]),
        (r#"right("acme", true);"#, ["fact"; 3]),
        (r#"budget("calls", 0); budget("bytes_up", 1); budget("bytes_down", 2);"#, ["accepted"; 3]),
        (r#"budget("calls", 1); budget("calls", 2);"#, ["fact"; 3]),
        (r#"budget("calls", -1);"#, ["fact"; 3]),
        (r#"budget("spend", 1);"#, ["fact"; 3]),
        (r#"budget("calls", "1");"#, ["fact"; 3]),
        (r#"rate("calls", 0, 1);"#, ["accepted"; 3]),
        (r#"rate("calls", 1, 60); rate("calls", 2, 3600);"#, ["fact"; 3]),
        (r#"rate("calls", -1, 60);"#, ["fact"; 3]),
        (r#"rate("calls", 1, 0);"#, ["fact"; 3]),
        (r#"rate("calls", 1, -60);"#, ["fact"; 3]),
        (r#"rate("bytes_up", 1, 60);"#, ["fact"; 3]),
        (r#"rate("calls", 1);"#, ["fact"; 3]),
        ("cap(1, null);", ["fact", "fact", "fact"]),
        (r#"note("hello");"#, ["fact"; 3]),
        (r#"right("acme", "read") <- service("acme");"#, ["rule"; 3]),
        (r#"check if operation("read") trusting previous;"#, ["scope"; 3]),
        (r#"check if operation("read");"#, ["accepted"; 3]),
        ("", ["accepted"; 3]),
    ];
    for (code, [in_authority, in_delegation, in_narrowing]) in table {
        let authority = Forgery::of(&content(&format!("{} {code}", authority())));
        assert_eq!(authority.class(), in_authority, "authority: {code}");
        assert_eq!(Forgery::delegation(code).class(), in_delegation, "delegation: {code}");
        assert_eq!(Forgery::narrowing(code).class(), in_narrowing, "narrowing: {code}");
    }
}

#[test]
fn no_block_states_a_fact_of_the_request() {
    // To a Datalog engine, a block's own fact satisfies its own check.
    let facts = [
        "time(2027-01-15T08:00:00Z)",
        r#"service("acme")"#,
        r#"operation("read")"#,
        r#"action("items.list")"#,
        r#"scheme("https")"#,
        r#"host("api.acme.test")"#,
        "port(443)",
        r#"method("GET")"#,
        r#"path("/")"#,
        r#"param("repo", "acme/widgets")"#,
        "body_size(0)",
        r#"audience("local")"#,
        r#"proof("connect")"#,
        "hop(0)",
        "approved_by(hex:00)",
    ];
    for fact in facts {
        let delegation = Forgery::delegation(&format!("{fact}; check if {fact};"));
        assert!(library_accepts(&delegation.schema()));
        assert_eq!(delegation.class(), "fact", "{fact}");
        assert_eq!(Forgery::of(&content(&format!("{} {fact};", authority()))).class(), "fact", "{fact}");
        assert_eq!(Forgery::narrowing(&format!("{fact};")).class(), "fact", "{fact}");
    }
}

#[test]
fn an_authority_block_says_its_profile_and_one_holder() {
    let class = |code: String| Forgery::of(&content(&code)).class();
    assert_eq!(class(authority()), "accepted");
    assert_eq!(class(holder(ALICE)), "profile");
    assert_eq!(class("cap(1, null);".to_owned()), "holder");
    assert_eq!(class(format!("cap(2, null); {}", holder(ALICE))), "profile");
    assert_eq!(class(format!("cap(1); {}", holder(ALICE))), "fact");
    assert_eq!(class(format!("cap(1, 1); {}", holder(ALICE))), "fact");
    assert_eq!(class(format!("{} {}", authority(), holder(BOB))), "holder");
    assert_eq!(class(format!("{} {}", authority(), holder(ALICE))), "holder");
}

#[test]
fn a_delegation_names_one_sound_holder() {
    let class = |code: String| Forgery::of(&content(&authority())).delegate(ALICE, &code).class();
    let key = |algorithm: i64, bytes: &[u8]| format!("holder({algorithm}, hex:{});", hex::encode(bytes));
    let ed25519 = public(BOB);
    let p256 =
        narrows::capability::PrivateKey::from_seed(narrows::capability::Algorithm::P256, [BOB; 32]).expect("a scalar");
    assert_eq!(class(key(0, ed25519.as_bytes())), "accepted");
    assert_eq!(class(key(1, p256.public().as_bytes())), "accepted");
    assert_eq!(class(String::new()), "holder");
    assert_eq!(class(format!("{} {}", holder(BOB), holder(CAROL))), "holder");
    assert_eq!(class(key(1, ed25519.as_bytes())), "holder");
    assert_eq!(class(key(0, p256.public().as_bytes())), "holder");
    assert_eq!(class(key(2, ed25519.as_bytes())), "holder");
    assert_eq!(class(key(-1, ed25519.as_bytes())), "holder");
    assert_eq!(class(key(256, ed25519.as_bytes())), "holder");
    assert_eq!(class(key(0, &ed25519.as_bytes()[..31])), "holder");
    assert_eq!(class(r#"holder(0, "key");"#.to_owned()), "fact");
    // Points of small order, for which one signature holds for many messages: the identity, and one of order 8.
    let weak = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a";
    let mut identity = [0; 32];
    identity[0] = 1;
    assert_eq!(class(key(0, &identity)), "holder");
    assert_eq!(class(key(0, &[0; 32])), "holder");
    assert_eq!(class(key(0, &hex::decode(weak).expect("hexadecimal"))), "holder");
}

#[test]
fn what_no_datalog_text_writes_is_refused_too() {
    let class = |change: &dyn Fn(&mut schema::Block)| {
        let mut block = content(&format!(r#"{} user("alice"); check if operation("read");"#, authority()));
        change(&mut block);
        Forgery::of(&block).class()
    };
    assert_eq!(class(&|_| {}), "accepted");
    assert_eq!(class(&|block| block.context = Some(String::new())), "context");
    let scope = |content| schema::Scope { content: Some(content) };
    assert_eq!(class(&|block| block.scope.push(scope(Trusted::ScopeType(0)))), "scope");
    assert_eq!(class(&|block| block.scope.push(scope(Trusted::ScopeType(1)))), "scope");
    assert_eq!(class(&|block| block.scope.push(schema::Scope { content: None })), "scope");
    assert_eq!(class(&|block| block.public_keys.push(pair(THIEF).public().to_proto())), "scope");
    assert_eq!(class(&|block| block.facts[0].predicate.terms[0].content = None), "fact");
    assert_eq!(class(&|block| block.facts[0].predicate.terms[0].content = Some(Content::Variable(0))), "fact");
    assert_eq!(class(&|block| block.facts[0].predicate.name = 5000), "symbols");
    assert_eq!(class(&|block| block.facts[0].predicate.name = 28), "symbols");
    assert_eq!(class(&|block| block.facts[0].predicate.name = u64::MAX), "symbols");
    assert_eq!(class(&|block| block.facts[2].predicate.terms[0].content = Some(Content::String(9999))), "symbols");
    // Datalog versions: those that the library knows, and none that is older than what the block uses.
    assert_eq!(class(&|block| block.version = None), "datalog_version");
    assert_eq!(class(&|block| block.version = Some(7)), "datalog_version");
    assert_eq!(class(&|block| block.version = Some(2)), "datalog_version");
    assert_eq!(class(&|block| block.version = Some(5)), "datalog_version", "null came with 6");
}

#[test]
fn third_party_blocks_came_with_datalog_3_2() {
    let class = |version| {
        let mut block = content(&holder(BOB));
        block.version = Some(version);
        let mut forgery = Forgery::delegation("");
        forgery.links[1] = crate::forge::Link::new(&block, Some(ALICE), 101);
        forgery.class()
    };
    assert_eq!(
        [class(4), class(5), class(6), class(7)],
        ["datalog_version", "accepted", "accepted", "datalog_version"]
    );
}

#[test]
fn symbols_are_unique_in_their_table() {
    let class = |symbol: &str| {
        let mut block = content(&format!(r#"{} user("alice");"#, authority()));
        block.symbols.push(symbol.to_owned());
        Forgery::of(&block).class()
    };
    assert_eq!(class("unused"), "accepted");
    assert_eq!(class("alice"), "symbols");
    assert_eq!(class("read"), "symbols", "predefined");

    // First-party blocks continue the table, third-party blocks start afresh.
    let first = content(&format!(r#"{} user("alice");"#, authority()));
    let own_table = content(r#"check if audience("alice");"#);
    let mut narrowing = Forgery::of(&first);
    narrowing.links.push(crate::forge::Link::new(&own_table, None, 101));
    assert_eq!(narrowing.class(), "symbols");
    let continued = crate::forge::content_after(&[&first], r#"check if audience("alice");"#);
    narrowing.links[1] = crate::forge::Link::new(&continued, None, 101);
    assert_eq!(narrowing.class(), "accepted");
    let verified = narrowing.verify().expect("accepted");
    assert_eq!(verified.blocks()[1].caveats()[0].to_string(), r#"audience = "alice""#);
    let delegation = Forgery::of(&first).delegate(ALICE, &format!(r#"{} check if audience("alice");"#, holder(BOB)));
    assert_eq!(delegation.class(), "accepted");
    // A third-party block does not see the authority's symbols.
    let mut reaching = content(&holder(BOB));
    reaching.symbols.clear();
    let mut forgery = Forgery::of(&first);
    forgery.links.push(crate::forge::Link::new(&reaching, Some(ALICE), 101));
    assert_eq!(forgery.class(), "symbols");
}

#[test]
fn a_first_party_block_after_a_delegation_continues_the_authoritys_table() {
    let first = content(&format!(r#"{} user("alice");"#, authority()));
    let mut forgery = Forgery::of(&first).delegate(ALICE, &format!(r#"{} agent("bob");"#, holder(BOB)));
    let narrowing = crate::forge::content_after(&[&first], r#"check if audience("alice");"#);
    forgery.links.push(crate::forge::Link::new(&narrowing, None, 102));
    let verified = forgery.verify().expect("accepted");
    assert_eq!(verified.blocks()[2].caveats()[0].to_string(), r#"audience = "alice""#);
}

#[test]
fn budgets_and_rates_are_read() {
    let code = r#"budget("calls", 10); budget("bytes_down", 9223372036854775807); rate("calls", 5, 60);"#;
    let verified = Forgery::delegation(code).verify().expect("accepted");
    let block = &verified.blocks()[1];
    assert_eq!(
        block.budgets(),
        [
            Budget { kind: BudgetKind::Calls, limit: 10 },
            Budget { kind: BudgetKind::BytesDown, limit: 9_223_372_036_854_775_807 }
        ]
    );
    assert_eq!(block.rates(), [Rate { limit: 5, window_s: 60 }]);
    assert!(verified.blocks()[0].budgets().is_empty() && verified.blocks()[0].rates().is_empty());
}
