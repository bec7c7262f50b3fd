//! The closed form of checks: what compiles, what is refused, and what an engine would have made of it.

use biscuit_auth::format::schema::{self, op, op_binary, op_unary, term::Content};

use crate::forge::{Forgery, Request, authority, content, library_accepts};

fn class(code: &str) -> &'static str {
    let forgery = Forgery::delegation(&format!("{code};"));
    assert!(library_accepts(&forgery.schema()), "the library loads it: {code}");
    forgery.class()
}

#[test]
fn the_closed_form_is_accepted() {
    let accepted = [
        r#"check if service("a"), operation("b"), action("c"), scheme("https"), host("h"), port(443), method("GET")"#,
        r#"check if path("/"), param("repo", "a/b"), param("org", "a"), body_size(0), audience("p"), proof("connect"), hop(0)"#,
        "check if time(2027-01-15T08:00:00Z)",
        "check if approved_by(hex:aabb)",
        "check if time($t), $t < 2027-01-15T08:00:00Z, 2027-01-15T08:00:00Z >= $t",
        "check if path($p)",
        r#"check if path($p), $p == "/a" || $p.starts_with("/a/") || !($p.ends_with("x") && $p.contains("y"))"#,
        r#"check if path($p), $p === "/a", $p !== "/b", $p != "/c""#,
        r#"check if method($m), {"GET", "HEAD"}.contains($m)"#,
        r#"check if method($m), !{"DELETE"}.contains($m)"#,
        "check if port($p), {80, 443}.contains($p)",
        "check if time($t), {2027-01-15T08:00:00Z}.contains($t)",
        "check if path($p), $p.length() <= 10, $p.length() != 3",
        "check if body_size($b), $b > 0, $b >= 1, $b < 5, $b <= 4, $b == 2",
        r#"check if param("repo", $r), param("org", $o), $r.starts_with($o)"#,
        "check if path($p), true",
        "check if path($p), 1 < 2",
        r#"check if service("a") or service("b") or time($t), $t < 2027-01-15T08:00:00Z"#,
    ];
    for code in accepted {
        assert_eq!(class(code), "accepted", "{code}");
    }
}

#[test]
fn what_is_outside_the_closed_form_is_refused() {
    let refused = [
        // Kinds of checks. The library takes `reject if A or B` for "unless both match".
        r#"check all operation("read")"#,
        r#"reject if operation("read")"#,
        r#"reject if operation("read") or operation("write")"#,
        // Facts that no request has, and arities that none has.
        r#"check if user("alice")"#,
        r#"check if right("acme", "read")"#,
        "check if holder(0, hex:00)",
        r#"check if anything("x")"#,
        r#"check if operation("read", "x")"#,
        r#"check if param("repo")"#,
        r#"check if param("repo", "a", "b")"#,
        "check if true",
        "check if 1 < 2",
        // Joins, and names that occur twice.
        "check if service($x), operation($x)",
        r#"check if operation("read"), operation("write")"#,
        r#"check if operation("read"), operation($o)"#,
        r#"check if param("repo", "a"), param("repo", "a")"#,
        "check if approved_by(hex:aa), approved_by(hex:bb)",
        "check if service($s), operation($o), right($s, $o)",
        // Variables where a constant belongs.
        r#"check if param($n, "acme/widgets")"#,
        "check if approved_by($k)",
        // A variable that no predicate binds.
        r#"check if path("/"), $p == "/""#,
        // Constants of another type than the fact's, which could match nothing.
        r#"check if port("443")"#,
        "check if operation(1)",
        "check if time(1)",
        "check if hop(2027-01-15T08:00:00Z)",
        r#"check if approved_by("key")"#,
        "check if operation(null)",
        "check if operation(true)",
        r#"check if operation({"read"})"#,
        r#"check if param(1, "x")"#,
        // Operations outside the list.
        r#"check if path($p), $p.matches("^/a")"#,
        "check if port($p), $p + 1 == 444",
        "check if port($p), $p - 1 == 442",
        "check if port($p), $p * 2 == 886",
        "check if port($p), $p / 2 == 221",
        "check if port($p), $p & 1 == 1",
        "check if port($p), $p | 1 == 443",
        "check if port($p), $p ^ 1 == 442",
        r#"check if path($p), $p + "x" == "/x""#,
        r#"check if path($p), $p.type() == "string""#,
        r#"check if path($p), {"a"}.union({"b"}).contains($p)"#,
        r#"check if path($p), {"a"}.intersection({"a"}).contains($p)"#,
        r#"check if path($p), {"a"}.any($x -> $x == $p)"#,
        r#"check if path($p), {"a"}.all($x -> $x == $p)"#,
        r#"check if path($p), ["a"].contains($p)"#,
        r#"check if path($p), {"a": 1}.contains($p)"#,
        r#"check if path($p), {"a": "b"}.get("a") == $p"#,
        "check if path($p), $p.extern::f()",
        r#"check if path($p), ($p == "/").try_or(true)"#,
        r#"check if path($p), {"a", "b"}.length() == 2"#,
        r#"check if path($p), {"a"}.contains({"a"})"#,
        r#"check if path($p), {"a"} == {"a"}"#,
        "check if path($p), {,}.contains($p)",
        "check if path($p), $p == null",
        "check if path($p), hex:aa == hex:aa",
        "check if path($p), hex:aa.length() == 1",
        "check if path($p), true == true",
        // Types that do not fit, which fail an engine's whole authorization, or compare as different.
        "check if path($p), $p == 1",
        "check if path($p), $p < 1",
        r#"check if path($p), $p < "x""#,
        r#"check if port($p), $p == "443""#,
        r#"check if port($p), $p.starts_with("4")"#,
        "check if port($p), $p.length() == 3",
        "check if time($t), $t < 5",
        "check if path($p), {1}.contains($p)",
        r#"check if port($p), {"443"}.contains($p)"#,
        "check if path($p), !$p",
        "check if path($p), $p",
        "check if port($p), $p",
        r#"check if path($p), $p == "/" && 1"#,
        r#"check if path($p), $p || $p == "/""#,
    ];
    for code in refused {
        assert_eq!(class(code), "check", "{code}");
    }
}

#[test]
fn one_bad_row_refuses_the_whole_capability() {
    assert_eq!(class(r#"check if operation("read") or service("acme")"#), "accepted");
    assert_eq!(class(r#"check if operation("read") or user("alice")"#), "check");
}

/// `check if path($p), <operations>`, where `$p` is variable 21, the predefined symbol `path`.
fn operations(operations: Vec<op::Content>) -> &'static str {
    let mut block = content(&format!("{} check if path($path), true;", authority()));
    let expression = &mut block.checks[0].queries[0].expressions[0];
    expression.ops = operations.into_iter().map(|content| schema::Op { content: Some(content) }).collect();
    Forgery::of(&block).class()
}

fn value(content: Content) -> op::Content {
    op::Content::Value(schema::Term { content: Some(content) })
}

fn binary(kind: op_binary::Kind) -> op::Content {
    op::Content::Binary(schema::OpBinary { kind: kind as i32, ffi_name: None })
}

fn unary(kind: op_unary::Kind) -> op::Content {
    op::Content::Unary(schema::OpUnary { kind: kind as i32, ffi_name: None })
}

fn closure(params: Vec<u32>, operations: Vec<op::Content>) -> op::Content {
    let ops = operations.into_iter().map(|content| schema::Op { content: Some(content) }).collect();
    op::Content::Closure(schema::OpClosure { params, ops })
}

#[test]
fn the_stack_is_well_formed() {
    use op_binary::Kind as B;
    let yes = || value(Content::Bool(true));
    let path = || value(Content::Variable(21));
    assert_eq!(operations(vec![yes()]), "accepted");
    assert_eq!(operations(vec![]), "check");
    assert_eq!(operations(vec![yes(), yes()]), "check");
    assert_eq!(operations(vec![binary(B::And)]), "check");
    assert_eq!(operations(vec![yes(), binary(B::And)]), "check");
    assert_eq!(operations(vec![unary(op_unary::Kind::Negate)]), "check");
    // Eager and lazy connectives, each with its own kind of right side.
    assert_eq!(operations(vec![yes(), yes(), binary(B::And)]), "accepted");
    assert_eq!(operations(vec![yes(), yes(), binary(B::Or)]), "accepted");
    assert_eq!(operations(vec![yes(), closure(vec![], vec![yes()]), binary(B::LazyAnd)]), "accepted");
    assert_eq!(operations(vec![yes(), closure(vec![], vec![yes()]), binary(B::LazyOr)]), "accepted");
    assert_eq!(operations(vec![yes(), yes(), binary(B::LazyAnd)]), "check");
    assert_eq!(operations(vec![yes(), closure(vec![], vec![yes()]), binary(B::And)]), "check");
    // The library would take the closure on the left as well.
    assert_eq!(operations(vec![closure(vec![], vec![yes()]), yes(), binary(B::LazyAnd)]), "check");
    assert_eq!(operations(vec![yes(), closure(vec![21], vec![yes()]), binary(B::LazyAnd)]), "check");
    assert_eq!(operations(vec![yes(), closure(vec![], vec![path()]), binary(B::LazyAnd)]), "check");
    assert_eq!(operations(vec![closure(vec![], vec![yes()])]), "check");
    assert_eq!(operations(vec![closure(vec![], vec![yes()]), unary(op_unary::Kind::Parens)]), "check");
    // Kinds and names that do not exist.
    assert_eq!(
        operations(vec![yes(), yes(), op::Content::Binary(schema::OpBinary { kind: 99, ffi_name: None })]),
        "check"
    );
    assert_eq!(operations(vec![yes(), op::Content::Unary(schema::OpUnary { kind: 99, ffi_name: None })]), "check");
    let named = op::Content::Unary(schema::OpUnary { kind: op_unary::Kind::Negate as i32, ffi_name: Some(0) });
    assert_eq!(operations(vec![yes(), named]), "check");
    assert_eq!(operations(vec![value(Content::Variable(22))]), "check");
    assert_eq!(operations(vec![value(Content::String(9999)), path(), binary(B::Equal)]), "symbols");
}

#[test]
fn a_check_is_as_the_library_writes_it() {
    let class = |change: &dyn Fn(&mut schema::Check)| {
        let mut block = content(&format!("{} check if path($path), true;", authority()));
        change(&mut block.checks[0]);
        Forgery::of(&block).class()
    };
    assert_eq!(class(&|_| {}), "accepted");
    assert_eq!(class(&|check| check.kind = Some(0)), "accepted");
    assert_eq!(class(&|check| check.kind = Some(3)), "check");
    assert_eq!(class(&|check| check.queries.clear()), "check");
    assert_eq!(class(&|check| check.queries[0].body.clear()), "check");
    assert_eq!(class(&|check| check.queries[0].head.name = 0), "check");
    assert_eq!(class(&|check| check.queries[0].head.terms = check.queries[0].body[0].terms.clone()), "check");
    assert_eq!(class(&|check| check.queries[0].body[0].terms[0].content = None), "check");
    assert_eq!(class(&|check| check.queries[0].body[0].terms[0].content = Some(Content::Variable(9999))), "symbols");
    assert_eq!(class(&|check| check.queries[0].scope.push(schema::Scope { content: None })), "scope");
}

#[test]
fn an_absent_fact_fails_its_row_even_under_a_negation() {
    let verified = Forgery::of(&content(&format!(
        r#"{} right("acme", "*"); check if path($p), !$p.starts_with("/admin") or operation("tunnel");"#,
        authority()
    )))
    .verify()
    .expect("accepted");
    assert!(Request::default().permitted_by(&verified));
    assert!(!Request { path: Some("/admin"), ..Request::default() }.permitted_by(&verified));
    assert!(!Request { path: None, ..Request::default() }.permitted_by(&verified));
    assert!(Request { path: None, operation: "tunnel", ..Request::default() }.permitted_by(&verified));
}

#[test]
fn a_path_below_is_not_a_path_beside() {
    let verified = Forgery::of(&content(&format!(
        r#"{} right("acme", "*"); check if path($p), $p == "/v1/items" || $p.starts_with("/v1/items/");"#,
        authority()
    )))
    .verify()
    .expect("accepted");
    for (path, permitted) in [
        ("/v1/items", true),
        ("/v1/items/", true),
        ("/v1/items/7", true),
        ("/v1/items-evil", false),
        ("/v1/item", false),
        ("/v1", false),
        ("/x/v1/items", false),
        ("/V1/items", false),
    ] {
        let asked = Request { path: Some(path), ..Request::default() };
        assert_eq!(asked.permitted_by(&verified), permitted, "{path}");
    }
}

#[test]
fn rights_are_by_service_and_operation() {
    let verified = Forgery::of(&content(&format!(r#"{} right("acme", "read"); right("other", "*");"#, authority())))
        .verify()
        .expect("accepted");
    for (service, operation, permitted) in [
        ("acme", "read", true),
        ("acme", "write", false),
        ("acme", "*", false),
        ("other", "read", true),
        ("other", "anything", true),
        ("ACME", "read", false),
        ("acme2", "read", false),
    ] {
        let asked = Request { service, operation, ..Request::default() };
        assert_eq!(asked.permitted_by(&verified), permitted, "{service} {operation}");
    }
    let without = Forgery::of(&content(&authority())).verify().expect("accepted");
    assert!(!Request::default().permitted_by(&without), "no right, nothing allowed");
}

#[test]
fn a_body_limit_needs_a_known_length() {
    let verified =
        Forgery::of(&content(&format!(r#"{} right("acme", "*"); check if body_size($b), $b <= 65536;"#, authority())))
            .verify()
            .expect("accepted");
    for (body_size, permitted) in
        [(Some(0), true), (Some(65_536), true), (Some(65_537), false), (Some(u64::MAX), false), (None, false)]
    {
        assert_eq!(Request { body_size, ..Request::default() }.permitted_by(&verified), permitted, "{body_size:?}");
    }
}
