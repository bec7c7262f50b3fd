use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use proptest::prelude::*;

use super::*;
use crate::credential::Shape;

fn placeholder() -> String {
    placeholder::placeholder("acme", &"sk-{30}".parse::<Shape>().expect("a shape"))
}

fn slots() -> Slots {
    let injection = Injection::query("key").expect("a name");
    let strip = ["X-Acme-Token", "query:access_token"].map(|text| Slot::parse(text).expect("a slot"));
    Slots::new(Some(&injection), &strip)
}

fn header(name: &str, value: &str) -> (HeaderName, HeaderValue) {
    (name.parse().expect("a name"), value.parse().expect("a value"))
}

/// What is left of a request with these headers and this target, and whether something was foreign.
fn stripped(headers: &[(&str, &str)], target: &str) -> (HeaderMap, String, bool) {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let (name, value) = header(name, value);
        map.append(name, value);
    }
    let mut target: PathAndQuery = target.parse().expect("a target");
    let foreign = slots().strip(&mut map, &mut target).expect("writable").foreign();
    (map, target.to_string(), foreign)
}

#[test]
fn another_method_in_the_query_goes_and_is_no_credential() {
    let (_, target, foreign) = stripped(&[], "/a?b=1&_method=PUT&%5fMethod=x&_HttpMethod=PATCH&_method[]=a&method=c");
    assert_eq!((&*target, foreign), ("/a?b=1&method=c", false));
    let mut target: PathAndQuery = "/a?_method=PUT".parse().expect("a target");
    assert!(!Slots::none().strip(&mut HeaderMap::new(), &mut target).expect("writable").foreign());
    assert_eq!(target, "/a?_method=PUT");
}

#[test]
fn every_spelling_of_a_header_goes_and_its_neighbours_stay() {
    for name in [
        "authorization",
        "AUTHORIZATION",
        "cookie",
        "x-api-key",
        "X_API_KEY",
        "x_api-key",
        "x.api.key",
        "api_key",
        "X-Goog-Api-Key",
        "private_token",
        "job-token",
        "x_acme_token",
        "X-HTTP-Method-Override",
        "x_http_method",
        "X-Method-Override",
        "_method",
        "X-Original-URL",
        "X-Envoy-Original-Path",
        "X_Request_Method",
        "X_Forwarded_Host",
        "Forwarded",
    ] {
        let (left, _, _) = stripped(&[(name, "a"), (name, "b"), ("accept", "*/*")], "/");
        assert_eq!(left.len(), 1, "{name} is left");
    }
    for name in ["authorizations", "x-authorization", "cookies", "x-api-keys", "xapikey", "accept", "x-acme-tokens"] {
        assert_eq!(stripped(&[(name, "a")], "/").0.len(), 1, "{name} is none of ours");
    }
}

#[test]
fn every_spelling_of_a_query_name_goes_and_no_other_byte() {
    for (before, after) in [
        ("/a?key=1", "/a"),
        ("/a?key", "/a"),
        ("/a?key=1&key=2", "/a"),
        ("/a?KEY=1", "/a"),
        ("/a?%6bey=1", "/a"),
        ("/a?%6Be%79=1", "/a"),
        ("/a?k%65y=1;x=%2f", "/a?x=%2f"),
        ("/a?x=1;key=2&y", "/a?x=1&y"),
        ("/a?+key+=1", "/a"),
        ("/a?%20key=1", "/a"),
        ("/a?key[]=1&key%5b0%5d=2", "/a"),
        ("/a?key%00x=1", "/a"),
        ("/a?access-token=1&access%2Etoken=2&Access_Token=3", "/a"),
        ("/a?&key=1", "/a"),
        ("/a?&&key=1&", "/a?&&"),
        ("/a?=key&x==&key==", "/a?=key&x=="),
    ] {
        let (_, left, foreign) = stripped(&[], before);
        assert_eq!(left, after, "{before}");
        assert_eq!(foreign, before != "/a?key", "{before}");
    }
    for same in [
        "/a?keys=1",
        "/a?xkey=1",
        "/a?x=key",
        "/a?x=%26key%3D1",
        "/a?%256bey=1",
        "/a?",
        "/a?&&",
        "/key=1",
        "/a?%zz=%6b&b=+",
    ] {
        assert_eq!(stripped(&[], same).1, same);
    }
}

#[test]
fn our_placeholder_is_not_foreign_and_one_byte_away_is() {
    use base64::Engine as _;
    let basic = |pair: String| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
    let ours = placeholder();
    let other = format!("{}x", &ours[..ours.len() - 1]);
    for (value, foreign) in [
        (ours.clone(), false),
        (other.clone(), true),
        (format!("Bearer {ours}"), false),
        (format!("bearer  {ours}"), false),
        (format!("Bearer {other}"), true),
        (format!("token {ours}"), false),
        (format!("Bearer {ours} {ours}"), true),
        (basic(format!("x-access-token:{ours}")), false),
        (basic(format!("x-access-token:{other}")), true),
        (basic(format!("{ours}:")), false),
        (basic(format!("{ours}:x-oauth-basic")), false),
        (basic(format!("{ours}:{other}")), true),
        (basic(ours.clone()), false),
        ("Basic !!".to_owned(), true),
        (String::new(), false),
        ("Bearer".to_owned(), true),
    ] {
        let (_, _, found) = stripped(&[("authorization", &value)], "/");
        assert_eq!(found, foreign, "{value:?}");
    }
    assert!(!stripped(&[], &format!("/?key={ours}")).2);
    assert!(stripped(&[], &format!("/?key={other}")).2);
    assert!(stripped(&[("x-api-key", &ours), ("x-api-key", &other)], "/").2, "the second of two counts");
    assert!(!stripped(&[("x-http-method-override", "DELETE")], "/").2, "an override is no credential");
    assert!(stripped(&[("cookie", "session=1")], "/").2);
}

#[test]
fn trailers_are_stripped_too() {
    let mut trailers = HeaderMap::from_iter([header("authorization", "Bearer x"), header("grpc-status", "0")]);
    assert!(slots().strip_trailers(&mut trailers).foreign());
    assert_eq!(trailers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["grpc-status"]);
}

#[test]
fn without_a_credential_the_agents_own_login_passes() {
    let mut headers = HeaderMap::from_iter([header("authorization", "Bearer own"), header("cookie", "a=1")]);
    let mut target: PathAndQuery = "/?key=own".parse().expect("a target");
    assert!(!Slots::none().strip(&mut headers, &mut target).expect("writable").foreign());
    assert_eq!((headers.len(), target.as_str()), (2, "/?key=own"));
}

#[test]
fn refuses_what_is_no_slot() {
    for text in ["", "a b", "query:", "query:a b", "x:y", "query:\u{e4}"] {
        assert_eq!(Slot::parse(text), Err(BadSlot), "{text:?}");
    }
}

/// Queries made of pieces that look like slots, and of noise.
fn query() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "(k|%6b|%4B|K)(e|%65|E)(y|%79|Y)(=[a-z%0-9]{0,4})?",
        "(%20|\\+|)access(_|-|\\.|%5F|\\+)token(\\[\\]|%00z|)=[a-z]{0,3}",
        "[a-z=%+0-9\\[\\]]{0,8}",
    ];
    proptest::collection::vec((piece, prop_oneof!["&", ";"]), 0..6)
        .prop_map(|pieces| pieces.into_iter().map(|(piece, separator)| piece + &separator).collect())
}

proptest! {
    #[test]
    fn stripping_a_query_leaves_no_slot_and_keeps_every_other_piece(query in query()) {
        let target: PathAndQuery = format!("/p?{query}").parse().expect("a target");
        let (_, once, _) = stripped(&[], target.as_str());
        let names = ["key", "access-token"].map(|name| query::fold(name.as_bytes()));
        let is_slot = |text: &str| {
            let name = text.split('=').next().unwrap_or(text);
            names.contains(&query::fold(&query::decode(name)))
        };
        let split = |text: &str| -> Vec<String> {
            let query = text.split_once('?').map_or("", |(_, query)| query);
            query.split(['&', ';']).map(str::to_owned).collect()
        };
        let kept: Vec<String> = split(&once).into_iter().filter(|piece| !piece.is_empty()).collect();
        let wanted: Vec<String> =
            split(target.as_str()).into_iter().filter(|piece| !piece.is_empty() && !is_slot(piece)).collect();
        prop_assert_eq!(kept, wanted);
        prop_assert_eq!(stripped(&[], &once).1, once, "a second time changes nothing");
    }

    #[test]
    fn no_marks_or_case_hide_a_header(
        name in prop_oneof!["[aA]uthorization", "[xX][-_.!~][aA]pi[-_.!~^]key", "[jJ]ob[-_.]token", "x[-_]acme[-_]token"],
        value in "[ -~]{0,20}",
    ) {
        let (left, _, _) = stripped(&[(&name, &value)], "/");
        prop_assert!(left.is_empty());
    }
}
