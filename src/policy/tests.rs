use super::*;
use crate::capability::testing::{
    ALICE, NOW, ORCHESTRATOR, Request, WORKER, authority, delegated, key, minted, verified, verify_ok,
};
use crate::capability::{
    Budget, BudgetKind, Grant, Ledger, ParamNames, Rate, Subject, expires_at, grants_to_check, not_before,
};

fn decided(verified: &Verified, facts: &Facts<'_>) -> Result<(), Box<Denial>> {
    let account = Ledger::new().account(verified, facts.time);
    decide(verified, facts, &Revocations::default(), &account).map(|permit| drop(permit.into_reservation()))
}

fn denial(verified: &Verified, facts: &Facts<'_>) -> Denial {
    *decided(verified, facts).expect_err("a denial")
}

fn grant_check(text: &str) -> String {
    let grant = Grant::parse(text, &ParamNames::any()).expect("a grant");
    grants_to_check(&[grant]).expect("one").expect("a check")
}

#[test]
fn a_request_is_allowed_and_its_twins_are_not() {
    let capability = verified(&[&grant_check("acme:read path=/v1/items")]);
    let request = Request::to("/v1/items/7");
    assert_eq!(decided(&capability, &request.facts()), Ok(()));
    for (twin, column) in [
        (Facts { service: "github", ..request.facts() }, "service"),
        (Facts { operation: "write", ..request.facts() }, "operation"),
        (Facts { path: Some(&Request::to("/v1/itemsx").path), ..request.facts() }, "path"),
        (Facts { path: None, ..request.facts() }, "path"),
    ] {
        let denial = denial(&capability, &twin);
        assert_eq!(denial.code, Code::CapabilityDenied);
        assert_eq!((denial.block, denial.caveat.is_some()), (Some(0), true));
        assert!(denial.detail.contains(column), "{}", denial.detail);
        assert!(denial.needed.as_ref().is_some_and(|needed| needed.contains(column)), "{:?}", denial.needed);
    }
}

#[test]
fn a_missing_right_is_named_before_any_caveat() {
    let capability = verified(&["check if path(\"/never\")"]);
    let request = Request::to("/v1");
    let denial = denial(&capability, &Facts { service: "github", operation: "write", ..request.facts() });
    assert_eq!((denial.code, denial.block), (Code::CapabilityDenied, Some(0)));
    assert_eq!(denial.detail, "the capability has only a right to \"github\" \"read\": operation is \"write\"");
    assert_eq!(denial.failures.len(), 2);
    let mut block = authority(&[], &[], &[]);
    block.rights.clear();
    let denial = decided(&verify_ok(&minted(&block)), &request.facts()).expect_err("a denial");
    assert_eq!(denial.detail, "the capability has no right at all");
}

#[test]
fn expired_means_that_nothing_but_time_fails() {
    let request = Request::to("/v1");
    let past = expires_at(NOW);
    let other = "check if path(\"/v2\")";
    for (checks, code) in [
        (vec![past.as_str()], Code::CapabilityExpired),
        (vec![past.as_str(), past.as_str()], Code::CapabilityExpired),
        (vec![&not_before(NOW + 1)], Code::CapabilityExpired),
        (vec![past.as_str(), other], Code::CapabilityDenied),
        (vec!["check if time($t), path($p), $t < 2020-01-01T00:00:00Z"], Code::CapabilityDenied),
        (vec!["check if time($t), $t < 2020-01-01T00:00:00Z or path(\"/v2\")"], Code::CapabilityDenied),
    ] {
        assert_eq!(denial(&verified(&checks), &request.facts()).code, code, "{checks:?}");
    }
    // A missing right is no check, and comes after: its code is later in the list.
    let both = denial(&verified(&[&past]), &Facts { service: "other", ..request.facts() });
    assert_eq!((both.code, both.caveat.as_deref()), (Code::CapabilityExpired, Some("time < 2027-01-15T08:00:00Z")));
    let right_alone = denial(&verified(&[]), &Facts { service: "other", ..request.facts() });
    assert_eq!(right_alone.code, Code::CapabilityDenied);
}

#[test]
fn the_last_second_passes_and_the_next_does_not() {
    let capability = verified(&[&expires_at(NOW + 1)]);
    let request = Request::to("/v1");
    assert_eq!(decided(&capability, &request.facts()), Ok(()));
    assert_eq!(denial(&capability, &Facts { time: NOW + 1, ..request.facts() }).code, Code::CapabilityExpired);
}

#[test]
fn approval_required_means_that_nothing_but_approval_fails() {
    let approver = key(WORKER).public().to_string();
    let wanted = grant_check(&format!("acme:read path=/v1 approval={approver}"));
    let request = Request::to("/v1");
    let denied = denial(&verified(&[&wanted]), &request.facts());
    assert_eq!(denied.code, Code::ApprovalRequired);
    let elsewhere = Request::to("/v2");
    assert_eq!(denial(&verified(&[&wanted]), &elsewhere.facts()).code, Code::CapabilityDenied);
    let mixed = verified(&[&wanted, &expires_at(NOW)]);
    assert_eq!(denial(&mixed, &request.facts()).code, Code::CapabilityDenied);
    let either = verified(&[&format!("{wanted} or path(\"/v1\")")]);
    assert_eq!(decided(&either, &request.facts()), Ok(()));
}

/// An absent fact under a negation fails its row and nothing in it that could be named: the row seemed to lack nothing but
/// an approval.
#[test]
fn an_absent_fact_under_a_negation_is_not_a_missing_approval() {
    let capability = verified(&["check if method($m), !($m == \"DELETE\")"]);
    let request = Request::to("/v1");
    let denial = denial(&capability, &Facts { method: None, ..request.facts() });
    assert_eq!(denial.code, Code::CapabilityDenied);
    assert_eq!(denial.needed.as_deref(), Some("method is known"));
}

#[test]
fn revocation_comes_before_everything_else() {
    let capability = verify_ok(&delegated(
        &minted(&authority(&[&expires_at(NOW)], &[], &[])),
        ALICE,
        ORCHESTRATOR,
        &["check if path(\"/never\")"],
        &[],
    ));
    let request = Request::to("/v1");
    let account = Ledger::new().account(&capability, NOW);
    for (subject, block) in [
        (Subject::Block(capability.blocks()[1].id()), 1),
        (Subject::Holder(*key(ORCHESTRATOR).public()), 1),
        (Subject::Holder(*key(ALICE).public()), 0),
    ] {
        let mut revocations = Revocations::default();
        revocations.add(subject);
        let denial = decide(&capability, &request.facts(), &revocations, &account).expect_err("revoked");
        assert_eq!((denial.code, denial.block), (Code::CapabilityRevoked, Some(block)));
        let again = recheck(&capability, &request.facts(), &revocations).expect_err("revoked");
        assert_eq!(again, denial);
    }
}

#[test]
fn budgets_count_only_what_caveats_allow() {
    let budgets = [Budget { kind: BudgetKind::Calls, limit: 1 }];
    let capability = verify_ok(&minted(&authority(&[&grant_check("acme path=/v1")], &budgets, &[])));
    let account = Ledger::new().account(&capability, NOW);
    let (allowed, denied) = (Request::to("/v1"), Request::to("/v2"));
    let decide = |request: &Request| decide(&capability, &request.facts(), &Revocations::default(), &account);
    for _ in 0..3 {
        assert_eq!(decide(&denied).expect_err("denied").code, Code::CapabilityDenied);
    }
    drop(decide(&allowed).expect("the one call").into_reservation());
    let denial = decide(&allowed).expect_err("used up");
    assert_eq!((denial.code, denial.block), (Code::BudgetExhausted, Some(0)));
    assert!(denial.hint.as_ref().is_some_and(|hint| hint.ends_with("--calls 2")), "{:?}", denial.hint);
    assert_eq!(decide(&denied).expect_err("denied").code, Code::CapabilityDenied);
    // What is under way goes on.
    assert_eq!(recheck(&capability, &allowed.facts(), &Revocations::default()), Ok(()));
}

#[test]
fn a_reached_rate_says_how_long_to_wait() {
    let rates = [Rate { limit: 1, window_s: 60 }];
    let capability = verify_ok(&minted(&authority(&[], &[], &rates)));
    let account = Ledger::new().account(&capability, NOW);
    let request = Request::to("/v1");
    let decide = |time| decide(&capability, &Facts { time, ..request.facts() }, &Revocations::default(), &account);
    let start = crate::clock::UnixSeconds(NOW.get() / 60 * 60);
    drop(decide(start).expect("the first").into_reservation());
    let denial = decide(start + 20).expect_err("the second");
    assert_eq!((denial.code, denial.retry_after_s), (Code::RateLimited, Some(40)));
    assert!(decide(start + 60).is_ok());
}

#[test]
fn a_hint_is_a_line_that_would_allow_the_request() {
    let nothing = verified(&["check if path(\"/never\")"]);
    for (path, params, hint) in [
        ("/v1/items/7", vec![], "capctl run --allow 'acme:read path=/v1/items/7' -- CMD"),
        ("/", vec![], "capctl run --allow acme:read -- CMD"),
        ("/v1", vec![("zone", "z1")], "capctl run --allow 'acme:read zone=z1' -- CMD"),
        // What the agent chose cannot leave its quotes, or is left out.
        ("/v1/a'$(reboot)'", vec![], r"capctl run --allow 'acme:read path=/v1/a'\''$(reboot)'\''' -- CMD"),
        ("/v1", vec![("zone", "a\u{202e}b")], "capctl run --allow 'acme:read path=/v1' -- CMD"),
        ("/v1/a,b", vec![("zone", "a*")], "capctl run --allow 'acme:read path=\"/v1/a,b\"' -- CMD"),
    ] {
        let mut request = Request::to(path);
        request.params = params.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let denial = denial(&nothing, &request.facts());
        assert_eq!(denial.hint.as_deref(), Some(hint));
        let grant = Grant::covering(&request.facts()).to_string();
        assert_eq!(decided(&verified(&[&grant_check(&grant)]), &request.facts()), Ok(()), "{grant}");
    }
}

#[test]
fn a_hint_names_what_would_mend_it() {
    let request = Request::to("/v1");
    let holder = key(ALICE).public().to_string();
    let minting = |rest: &str| {
        format!(
            "capctl mint --to {holder} --user alice@example.com --allow 'acme:read repo=acme/widgets' --expires 1h{rest}"
        )
    };
    for (check, hint) in [
        (expires_at(NOW), minting("")),
        ("check if audience(\"other\")".to_owned(), minting(" --aud local")),
        (
            "check if proof(\"presentation\")".to_owned(),
            "capctl run --cap FILE --key FILE --allow 'acme:read repo=acme/widgets' -- CMD".to_owned(),
        ),
    ] {
        assert_eq!(denial(&verified(&[&check]), &request.facts()).hint, Some(hint));
    }
    let deep = verify_ok(&delegated(
        &minted(&authority(&["check if hop($hop), $hop <= 0"], &[], &[])),
        ALICE,
        ORCHESTRATOR,
        &[],
        &[],
    ));
    let hint = denial(&deep, &Facts { hop: 1, ..request.facts() }).hint.expect("a hint");
    assert!(hint.ends_with("--max-hops 1"), "{hint}");
    let unknown = Denial::service_unknown(&request.host, 443);
    assert_eq!(unknown.hint.as_deref(), Some("capctl service add NAME --host api.acme.test"));
}

#[test]
fn web_is_granted_by_host() {
    let nothing = verified(&[]);
    let request = Request::to("/v1");
    let denial = denial(&nothing, &Facts { service: "web", params: &[], ..request.facts() });
    assert_eq!(denial.hint.as_deref(), Some("capctl run --allow 'web:read host=api.acme.test' -- CMD"));
}

#[test]
fn a_denial_shows_control_and_bidi_characters_escaped() {
    let mut request = Request::to("/v1");
    request.params = vec![("repo".into(), "a\u{202e}\r\n\u{1b}[31mb".into())];
    let denial = denial(&verified(&["check if param(\"repo\", \"x\u{202e}y\")"]), &request.facts());
    let shown = format!("{} {:?} {:?} {:?}", denial, denial.caveat, denial.needed, denial.hint);
    assert!(!shown.chars().any(|c| c.is_control() || c == '\u{202e}'), "{shown}");
}

/// A capability names one long symbol often: shown in full, its caveats would read as megabytes.
#[test]
fn a_denial_is_short_whatever_the_capability_says() {
    let long = "x".repeat(6000);
    let row = format!("path($p), {}", vec![format!("$p == \"{long}\""); 20].join(", "));
    let check = format!("check if {}", vec![row; 4].join(" or "));
    let capability = verified(&[check.as_str(); 2]);
    let request = Request::to(&format!("/{}", "y".repeat(8000)));
    let denial = denial(&capability, &request.facts());
    let shown: usize = [Some(&denial.detail), denial.caveat.as_ref(), denial.needed.as_ref(), denial.hint.as_ref()]
        .into_iter()
        .flatten()
        .map(String::len)
        .sum();
    assert!(shown < 8 * 1024, "{shown} bytes");
    let all: usize = denial
        .failures
        .iter()
        .flat_map(|failure| &failure.rows)
        .flat_map(|row| &row.mismatches)
        .map(|m| m.wanted.len())
        .sum();
    assert!(all <= 2 * 4 * 20 * 600, "{all} bytes");
    assert_eq!(denial.failures.len(), 2);
}
