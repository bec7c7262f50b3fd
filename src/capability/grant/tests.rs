use std::collections::BTreeSet;
use std::str::FromStr as _;

use biscuit_auth::builder::{Check, Op, Term};
use proptest::prelude::*;

use super::*;
use crate::capability::{Algorithm, PrivateKey};

const KEY: &str = "ed25519/d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

fn names() -> ParamNames {
    let mut names = ParamNames::new();
    names.declare("github", ["repo", "org"]);
    names.declare("acme", ["zone", "model.name"]);
    names
}

fn parse(text: &str) -> Result<Grant, GrantError> {
    Grant::parse(text, &names())
}

fn check_of(text: &str) -> String {
    grants_to_check(&[parse(text).expect(text)]).expect("one grant").expect("a check")
}

#[test]
fn grants_become_the_documented_checks() {
    for (grant, check) in [
        ("github", r#"check if service("github")"#),
        ("github:*", r#"check if service("github")"#),
        ("github:read", r#"check if service("github"), operation("read")"#),
        (
            "github:read,write",
            r#"check if service("github"), operation($operation), {"read", "write"}.contains($operation)"#,
        ),
        (
            "github:read repo=acme/widgets",
            r#"check if service("github"), operation("read"), param("repo", "acme/widgets")"#,
        ),
        (
            "github repo=acme/* org=a,b*",
            r#"check if service("github"), param("repo", $p0), param("org", $p1), $p0.starts_with("acme/"), $p1 == "a" || $p1.starts_with("b")"#,
        ),
        ("acme action=dns.*", r#"check if service("acme"), action($action), $action.starts_with("dns.")"#),
        ("acme action=dns.list", r#"check if service("acme"), action("dns.list")"#),
        (
            "acme:read,write path=/v1/items method=get,POST",
            r#"check if service("acme"), operation($operation), path($path), method($method), {"read", "write"}.contains($operation), $path == "/v1/items" || $path.starts_with("/v1/items/"), {"GET", "POST"}.contains($method)"#,
        ),
        ("acme path=/", r#"check if service("acme"), path($path), $path.starts_with("/")"#),
        (
            "acme path=/v1/items/",
            r#"check if service("acme"), path($path), $path == "/v1/items" || $path.starts_with("/v1/items/")"#,
        ),
        (
            "web host=A.test,*.b.test port=443 scheme=https",
            r#"check if service("web"), host($host), port(443), scheme("https"), $host == "a.test" || $host.ends_with(".b.test")"#,
        ),
        ("web port=80,443", r#"check if service("web"), port($port), {80, 443}.contains($port)"#),
        ("acme:write body<=64k", r#"check if service("acme"), operation("write"), body_size($body), $body <= 65536"#),
        (
            "acme model.name=\"a, \\\"b\\\" \\\\ c\"",
            r#"check if service("acme"), param("model.name", "a, \"b\" \\ c")"#,
        ),
    ] {
        assert_eq!(check_of(grant), check);
        Check::from_str(check).expect("Datalog");
    }
    let approved = check_of(&format!("acme:write approval={KEY}"));
    assert_eq!(
        approved,
        format!(
            "check if service(\"acme\"), operation(\"write\"), approved_by(hex:{})",
            KEY.trim_start_matches("ed25519/")
        )
    );
}

#[test]
fn several_grants_are_rows_of_one_check() {
    let grants = [parse("github:read").expect("a grant"), parse("acme").expect("a grant")];
    let check = grants_to_check(&grants).expect("two").expect("a check");
    assert_eq!(check, r#"check if service("github"), operation("read") or service("acme")"#);
    assert_eq!(grants_to_check(&[]), Ok(None));
    assert!(grants_to_check(&vec![grants[0].clone(); 16]).is_ok());
    assert_eq!(grants_to_check(&vec![grants[0].clone(); 17]), Err(TooManyGrants));
}

#[test]
fn the_longest_lists_still_compile() {
    let list = |value: fn(usize) -> String| (0..32).map(value).collect::<Vec<_>>().join(",");
    for grant in [
        format!("acme path={}", list(|n| format!("/p{n}"))),
        format!("acme zone={}", list(|n| format!("z{n}*"))),
        format!("acme host={}", list(|n| format!("*.h{n}.test"))),
        format!("acme:{} method={}", list(|n| format!("o{n}")), list(|n| format!("M{n}"))),
        format!("acme port={}", list(|n| (n + 1).to_string())),
    ] {
        let _compiled = crate::capability::testing::verified(&[&check_of(&grant)]);
    }
}

#[test]
fn rights_cover_the_grants_and_no_more() {
    let rights = |texts: &[&str]| {
        let grants: Vec<Grant> = texts.iter().map(|text| parse(text).expect(text)).collect();
        rights_of(&grants).iter().map(|(s, o)| format!("{s}:{o}")).collect::<Vec<_>>()
    };
    assert_eq!(rights(&["github:read repo=a/b", "github:read,write"]), ["github:read", "github:write"]);
    assert_eq!(rights(&["github:read", "acme", "github"]), ["github:*", "acme:*"]);
    assert_eq!(rights(&[]), [""; 0]);
}

#[test]
fn what_is_not_a_grant_is_refused_with_its_class() {
    let value = |column: &str, value: &str| {
        let text = format!("acme {column}={value}");
        assert!(
            matches!(parse(&text), Err(GrantError::Value { column: ref at, .. }) if at == column.trim_end_matches('<')),
            "{text}: {:?}",
            parse(&text)
        );
    };
    value("path", "v1");
    value("path", "/v1/../x");
    value("path", "/v1/*");
    value("path", "/v1//x");
    value("port", "0");
    value("port", "65536");
    value("port", "+1");
    value("scheme", "ftp");
    value("host", "a..b");
    value("host", "*");
    value("host", "a.*");
    value("host", "*.192.0.2.1");
    value("host", "user@a.test");
    value("method", "G(T");
    value("action", "a*b");
    value("action", "**");
    value("zone", "*x");
    value("body<", "64q");
    value("body<", "1,2");
    value("body<", "-1");
    value("body<", "9223372036854775808");
    value("approval", "ed25519/00");
    value("approval", &format!("{KEY},{KEY}"));
    let private = PrivateKey::from_seed(Algorithm::Ed25519, [1; 32]).expect("a seed").to_text();
    value("approval", &private);
    for (text, class) in [
        ("", GrantError::Form),
        ("  ", GrantError::Form),
        ("github\nread", GrantError::Form),
        (":read", GrantError::Name(String::new())),
        ("github:", GrantError::Name(String::new())),
        ("github:read,", GrantError::Name(String::new())),
        ("github:read,*", GrantError::Name("*".to_owned())),
        ("git\"hub", GrantError::Quote),
        ("gi(hub", GrantError::Name("gi(hub".to_owned())),
        ("acme zone", GrantError::NotAColumn("zone".to_owned())),
        ("acme zone=", GrantError::Empty("zone".to_owned())),
        ("acme zone=a,,b", GrantError::Empty("zone".to_owned())),
        ("acme zone=a zone=b", GrantError::Repeated("zone".to_owned())),
        ("acme zone=\"a", GrantError::Quote),
        ("acme zone=\"a\"b", GrantError::Quote),
        ("acme zone=a\"b\"", GrantError::Quote),
        ("acme zone=\"a\\n\"", GrantError::Quote),
        ("acme body=64k", GrantError::Comparison),
        ("acme zone<=64k", GrantError::Comparison),
        ("acme path<=/x", GrantError::Comparison),
    ] {
        assert_eq!(parse(text), Err(class), "{text:?}");
    }
    let many = (0..33).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    assert_eq!(parse(&format!("acme zone={many}")), Err(GrantError::TooManyValues("zone".to_owned())));
    assert_eq!(parse(&format!("acme zone={}", "a".repeat(5000))), Err(GrantError::Form));
}

#[test]
fn unknown_names_are_answered_with_the_nearest() {
    let unknown = parse("githb:read").expect_err("unknown");
    assert_eq!(unknown.to_string(), "there is no service \"githb\"; did you mean github?");
    let unknown = parse("github:read rpo=a/b").expect_err("unknown");
    assert_eq!(unknown.to_string(), "\"rpo\" is neither a column nor a parameter of github; did you mean repo?");
    // A param of another service is not one of this.
    assert!(matches!(parse("github zone=x"), Err(GrantError::UnknownColumn { .. })));
    assert!(matches!(parse("web repo=x"), Err(GrantError::UnknownColumn { .. })));
    let unlike = parse("zzz").expect_err("unknown");
    assert_eq!(unlike.to_string(), "there is no service \"zzz\"");
    assert!(Grant::parse("zzz anything=1", &ParamNames::any()).is_ok());
}

#[test]
fn an_empty_value_must_be_quoted() {
    assert_eq!(check_of("acme zone=\"\""), r#"check if service("acme"), param("zone", "")"#);
    assert_eq!(parse("acme zone=\"\"").expect("a grant").to_string(), "acme zone=\"\"");
    assert_eq!(check_of("acme zone=*"), r#"check if service("acme"), param("zone", $p0), $p0.starts_with("")"#);
}

/// Values that try to leave their quotes, on either level.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9/_.-]{1,8}",
        "[a-z \",\\\\(){}$;=:<é\u{202e}]{0,8}",
        Just("\"), service(\"other".to_owned()),
        Just("\\\") or service(\"other".to_owned()),
    ]
    .prop_filter("not a pattern", |value| !value.contains('*'))
}

fn grant() -> impl Strategy<Value = Grant> {
    let patterns = prop::collection::vec((value(), any::<bool>()), 1..4)
        .prop_map(|patterns| {
            let mut unique = Vec::new();
            for (value, prefix) in patterns {
                let pattern = if prefix { Pattern::StartsWith(value) } else { Pattern::Is(value) };
                if !unique.contains(&pattern) {
                    unique.push(pattern);
                }
            }
            unique
        })
        .boxed();
    let columns = (
        prop::option::of(patterns.clone().prop_map(Column::Action)),
        prop::option::of(patterns.prop_map(|patterns| Column::Param("repo".to_owned(), patterns))),
        prop::option::of((0..=i64::MAX.unsigned_abs()).prop_map(Column::BodyMax)),
        prop::option::of("(/[a-z0-9.~!,=@]{1,6}x){1,3}|/".prop_map(|path| Column::Path(vec![path]))),
        prop::option::of(Just(Column::Approval(KEY.parse().expect("a key")))),
        prop::option::of(prop::collection::btree_set(1..=u16::MAX, 1..4).prop_map(ports)),
        prop::option::of(any::<bool>().prop_map(|below| {
            let host = Host::parse("a.test").expect("a host");
            Column::Host(vec![if below { HostPattern::Below(host) } else { HostPattern::Is(host) }])
        })),
    );
    let operations = prop::sample::subsequence(vec!["read".to_owned(), "write".to_owned(), "x.y".to_owned()], 0..=3);
    (operations, columns).prop_map(|(operations, (a, b, c, d, e, f, g))| Grant {
        service: "github".to_owned(),
        operations,
        columns: [a, b, c, d, e, f, g].into_iter().flatten().collect(),
    })
}

fn ports(ports: BTreeSet<u16>) -> Column {
    Column::Port(ports.into_iter().collect())
}

fn collect(ops: &[Op], strings: &mut BTreeSet<String>) {
    for op in ops {
        match op {
            Op::Value(term) => collect_term(term, strings),
            Op::Closure(_, ops) => collect(ops, strings),
            _ => {}
        }
    }
}

fn collect_term(term: &Term, strings: &mut BTreeSet<String>) {
    match term {
        Term::Str(text) => _ = strings.insert(text.clone()),
        Term::Set(set) => set.iter().for_each(|term| collect_term(term, strings)),
        _ => {}
    }
}

proptest! {
    #[test]
    fn printing_and_parsing_give_the_same_grant(grant in grant()) {
        let text = grant.to_string();
        prop_assert_eq!(parse(&text).map_err(|error| error.to_string()), Ok(grant), "{}", text);
    }

    /// One query for each grant, one predicate for each column, and each value as one string: nothing leaves its quotes.
    #[test]
    fn values_never_leave_their_quotes(grant in grant()) {
        let text = grants_to_check(std::slice::from_ref(&grant)).expect("one").expect("a check");
        let check = Check::from_str(&text).map_err(|error| TestCaseError::fail(format!("{text}: {error:?}")))?;
        prop_assert_eq!(check.queries.len(), 1);
        let query = &check.queries[0];
        let columns = 1 + usize::from(!grant.operations.is_empty()) + grant.columns.len();
        prop_assert_eq!(query.body.len(), columns);
        let mut strings = BTreeSet::new();
        query.body.iter().flat_map(|predicate| &predicate.terms).for_each(|term| collect_term(term, &mut strings));
        query.expressions.iter().for_each(|expression| collect(&expression.ops, &mut strings));
        for column in &grant.columns {
            if let Column::Action(patterns) | Column::Param(_, patterns) = column {
                for Pattern::Is(value) | Pattern::StartsWith(value) in patterns {
                    prop_assert!(strings.contains(value), "{:?} in {}", value, text);
                }
            }
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[a-z:=<\", \\\\*./é]{0,40}|\\PC{0,40}") {
        let _ = parse(&text);
        let _ = Grant::parse(&text, &ParamNames::any());
    }
}

#[test]
fn a_param_whose_case_means_nothing_is_compared_in_lower_case() {
    let mut names = ParamNames::new();
    names.declare("github", ["repo", "ref"]);
    names.ignore_case("github", "repo");
    let grant = Grant::parse("github:read repo=Acme/Widgets ref=Main", &names).unwrap();
    assert_eq!(grant.to_string(), "github:read repo=acme/widgets ref=Main");
}
