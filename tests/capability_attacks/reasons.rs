//! Why not: the reasons that people read.

use narrows::capability::{Failure, Verified};

use crate::forge::{ALICE, BOB, Forgery, Request, authority, content, holder};

fn verified(in_authority: &str, in_delegation: &str) -> Verified {
    Forgery::of(&content(&format!("{} {in_authority}", authority())))
        .delegate(ALICE, &format!("{} {in_delegation}", holder(BOB)))
        .verify()
        .expect("accepted")
}

fn failures(verified: &Verified, request: &Request) -> Vec<Failure> {
    request.ask(|facts| verified.failures(facts))
}

#[test]
fn a_failure_names_block_caveat_row_and_column() {
    let verified = verified(
        r#"right("acme", "read"); check if audience("local");"#,
        r#"check if method("GET"); check if param("repo", "acme/widgets"), operation("read") or path("/v1");"#,
    );
    let params = vec![("repo".into(), "acme/gadgets".into())];
    let asked = Request { params, ..Request::default() };
    let [failure] = &failures(&verified, &asked)[..] else { panic!("one failure") };
    assert_eq!(
        (failure.block, failure.caveat, failure.only_time, failure.wants_approval()),
        (1, Some(1), false, false)
    );
    assert_eq!(failure.text, r#"param repo = "acme/widgets", operation = "read"; or path = "/v1""#);
    let [first, second] = &failure.rows[..] else { panic!("two rows") };
    assert_eq!(first.mismatches.len(), 1);
    assert_eq!(first.mismatches[0].columns, ["param repo"]);
    assert_eq!(first.mismatches[0].wanted, r#"param repo = "acme/widgets""#);
    assert_eq!(first.mismatches[0].seen.as_deref(), Some(r#""acme/gadgets""#));
    assert_eq!(second.mismatches[0].columns, ["path"]);
    assert_eq!(second.mismatches[0].seen.as_deref(), Some(r#""/v1/items""#));
    // The one thing changed, it passes.
    let params = vec![("repo".into(), "acme/widgets".into())];
    assert!(Request { params, ..Request::default() }.permitted_by(&verified));
}

#[test]
fn an_absent_fact_is_said_to_be_absent_once() {
    let verified =
        verified(r#"right("acme", "*");"#, r#"check if path($p), $p.starts_with("/v1"); check if action($a);"#);
    let asked = Request { path: None, ..Request::default() };
    let [path, action] = &failures(&verified, &asked)[..] else { panic!("two failures") };
    assert_eq!(path.rows[0].mismatches.len(), 1);
    assert_eq!(path.rows[0].mismatches[0].seen, None);
    assert_eq!(path.text, r#"path starts with "/v1""#);
    assert_eq!(action.rows[0].mismatches[0].wanted, "action is known");
}

#[test]
fn a_missing_right_comes_first_and_shows_what_there_is() {
    let verified = verified(r#"right("acme", "read"); right("other", "*");"#, r#"check if method("POST");"#);
    let asked = Request { operation: "write", ..Request::default() };
    let failures = failures(&verified, &asked);
    assert_eq!((failures.len(), failures[0].caveat, failures[1].caveat), (2, None, Some(0)));
    assert_eq!(failures[0].text, r#"right to "acme" "read""#);
    assert_eq!(failures[0].rows.len(), 1);
    assert_eq!(failures[0].rows[0].mismatches[0].wanted, r#"operation = "read""#);
    let elsewhere = Request { service: "web", ..Request::default() };
    let failures = elsewhere.ask(|facts| verified.failures(facts));
    assert_eq!(failures[0].text, r#"right to "acme" "read", "other" any operation"#);
    let none = Forgery::of(&content(&authority())).verify().expect("accepted");
    assert_eq!(Request::default().ask(|facts| none.failures(facts))[0].text, "no right at all");
}

#[test]
fn only_time_is_told_apart() {
    let late = Request { time: 1_900_000_000, ..Request::default() };
    let only_time = |code: &str| {
        let verified = verified(r#"right("acme", "*");"#, code);
        failures(&verified, &late).iter().all(|failure| failure.only_time)
    };
    assert!(only_time("check if time($t), $t < 2027-01-15T09:00:00Z;"));
    assert!(only_time("check if time($t), $t < 2027-01-15T09:00:00Z or time($t), $t < 2028-01-01T00:00:00Z;"));
    assert!(!only_time(r#"check if time($t), $t < 2027-01-15T09:00:00Z or operation("write");"#));
    assert!(!only_time(r#"check if time($t), $t < 2027-01-15T09:00:00Z, operation("read");"#));
    assert!(!only_time("check if time($t), $t < 2027-01-15T09:00:00Z or approved_by(hex:aa);"));
    assert!(!only_time(r#"check if time($t), $t < 2027-01-15T09:00:00Z; check if method("POST");"#));
}

#[test]
fn the_earliest_plain_expiry_is_found() {
    let expiry = |code: &str| verified("", code).expires_at().map(narrows::clock::UnixSeconds::get);
    assert_eq!(expiry(""), None);
    assert_eq!(expiry("check if time($t), $t < 2027-01-15T08:00:00Z;"), Some(1_800_000_000));
    assert_eq!(expiry("check if time($t), $t <= 2027-01-15T08:00:00Z;"), Some(1_800_000_001));
    assert_eq!(expiry("check if time($t), 2027-01-15T08:00:00Z > $t;"), Some(1_800_000_000));
    assert_eq!(expiry("check if time($t), $t >= 2027-01-15T08:00:00Z;"), None);
    let both = "check if time($t), $t < 2027-01-15T08:00:00Z; check if time($t), $t < 2027-01-15T07:00:00Z;";
    assert_eq!(expiry(both), Some(1_799_996_400));
    assert_eq!(expiry("check if time($t), $t < 2027-01-15T08:00:00Z or hop(0);"), None);
}

#[test]
fn a_row_that_wants_an_approval_never_matches_and_says_so() {
    let verified = verified(
        r#"right("acme", "*");"#,
        r#"check if operation("read") or operation("write"), method("POST"), approved_by(hex:aabb);"#,
    );
    assert!(Request::default().permitted_by(&verified));
    let write = Request { operation: "write", method: Some("POST"), ..Request::default() };
    let [failure] = &failures(&verified, &write)[..] else { panic!("one failure") };
    assert!(failure.wants_approval());
    let approval = &failure.rows[1].mismatches[0];
    assert_eq!((approval.wanted.as_str(), approval.approval), ("approved by hex:aabb", true));
    // Something else is missing as well: an approval would not help.
    let put = Request { method: Some("PUT"), ..write };
    let [failure] = &failures(&verified, &put)[..] else { panic!("one failure") };
    assert!(!failure.wants_approval());
}

#[test]
fn text_of_a_capability_cannot_rewrite_the_line_it_is_shown_on() {
    let hostile = "a\\\"; allow if true; //\\n";
    let verified = verified(
        r#"right("acme", "*"); user("x");"#,
        &format!("check if audience(\"{hostile}\u{202e}\u{2066}\u{200b}\u{7f}\u{1b}\"), param(\"x y\", \"\u{feff}\");"),
    );
    let [failure] = &failures(&verified, &Request::default())[..] else { panic!("one failure") };
    let shown = format!("{failure:?}{}", failure.text);
    let harmless = |c: char| c.is_ascii_graphic() || c == ' ';
    assert!(shown.chars().all(harmless), "{shown}");
    assert!(failure.text.contains(r#"\"; allow if true; //\n"#), "the quote stays escaped: {}", failure.text);
    assert!(failure.text.contains(r#"param "x y" = "\u{feff}""#), "{}", failure.text);
}
