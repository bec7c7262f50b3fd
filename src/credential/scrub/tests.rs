//! Every form is found, at every split, and nothing one byte away from it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bytes::Bytes;
use proptest::prelude::*;

use super::escape::{self, Meaning};
use super::matcher::{Matcher, THREADS_MAX};
use super::{Patterns, Scrubber, Turn};
use crate::credential::{Injection, Secret};

const SECRET: &[u8] = b"sk-live/9f+K=3 &\"'x\\%z";

fn patterns(secrets: &[&[u8]], injection: Option<&Injection>, placeholder: Option<&str>) -> Arc<Patterns> {
    let secrets: Vec<Secret> = secrets.iter().map(|secret| Secret::new(secret.to_vec()).expect("a secret")).collect();
    Arc::new(Patterns::new(&secrets.iter().collect::<Vec<_>>(), injection, placeholder).expect("a secret"))
}

/// What comes out when the text is split at these places.
fn scrubbed(patterns: &Arc<Patterns>, text: &[u8], splits: &[usize]) -> Vec<u8> {
    let mut scrubber = Scrubber::new(Arc::clone(patterns));
    let mut out = Vec::new();
    let mut take = |scrubber: &mut Scrubber, first: Option<Bytes>| {
        let all = std::iter::successors(first, |_| scrubber.ready());
        all.for_each(|bytes| out.extend_from_slice(&bytes));
    };
    let mut rest = Bytes::copy_from_slice(text);
    let mut splits: Vec<usize> = splits.iter().map(|split| split % (text.len() + 1)).collect();
    splits.sort_unstable();
    let mut passed = 0;
    for &split in &splits {
        let part = rest.split_to(split - passed);
        passed = split;
        let first = scrubber.push(part);
        take(&mut scrubber, first);
    }
    // Whether the last part is known to be the last makes no difference.
    if splits.len().is_multiple_of(2) {
        let first = scrubber.push_last(rest);
        take(&mut scrubber, first);
    } else {
        let first = scrubber.push(rest);
        take(&mut scrubber, first);
        let first = scrubber.finish();
        take(&mut scrubber, first);
    }
    assert!(scrubber.is_idle());
    out
}

/// What must be masked of a text, without the prefilter.
fn found_slowly(patterns: &Arc<Patterns>, text: &[u8]) -> Vec<std::ops::Range<u64>> {
    let mut matcher = Matcher::default();
    matcher.read_slowly(patterns, text);
    matcher.found.iter().map(|found| found.start..found.end).collect()
}

fn percent(secret: &[u8]) -> Vec<u8> {
    secret.iter().flat_map(|byte| format!("%{byte:02x}").into_bytes()).collect()
}

/// The forms that an upstream's echo may have, each whole.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let each = |spell: &dyn Fn(u8) -> String| secret.iter().flat_map(|&byte| spell(byte).into_bytes()).collect();
    let mut forms: Vec<Vec<u8>> = vec![
        secret.to_vec(),
        percent(secret),
        each(&|byte| format!("%{byte:02X}")),
        each(&|byte| format!("%25{byte:02X}")),
        hex::encode(secret).into(),
        hex::encode_upper(secret).into(),
        each(&|byte| format!("\\u{byte:04x}")),
        each(&|byte| format!("\\u{byte:04X}")),
        each(&|byte| format!("\\\\u{byte:04X}")),
        each(&|byte| format!("\\x{byte:02X}")),
        each(&|byte| format!("&#{byte};")),
        each(&|byte| format!("&#000{byte};")),
        each(&|byte| format!("&#x{byte:x};")),
        each(&|byte| format!("&#X00{byte:X};")),
        serde_json::to_string(&String::from_utf8_lossy(secret)).expect("JSON").trim_matches('"').into(),
        each(&|byte| if byte == b'/' { "\\/".into() } else { char::from(byte).to_string().replace('\\', "\\\\") }),
        String::from_utf8_lossy(secret).replace('&', "&amp;").replace('"', "&quot;").replace('\'', "&#39;").into(),
        form_urlencoded(secret),
        secret.iter().flat_map(|&byte| [byte, 0]).collect(),
        secret.iter().flat_map(|&byte| [0, byte]).collect(),
    ];
    for before in ["", "u:", "a"] {
        let plain = [before.as_bytes(), secret, b"zz"].concat();
        for text in [STANDARD.encode(&plain), URL_SAFE.encode(&plain)] {
            forms.push(text.into());
        }
    }
    forms
}

fn form_urlencoded(secret: &[u8]) -> Vec<u8> {
    let spell = |&byte: &u8| match byte {
        b' ' => "+".to_owned(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    secret.iter().flat_map(|byte| spell(byte).into_bytes()).collect()
}

#[test]
fn every_form_is_found_at_every_split() {
    let patterns = patterns(&[SECRET], None, None);
    for form in forms(SECRET) {
        let text = [b"{\"echo\": \"", &*form, b"\"}\n"].concat();
        let clean = scrubbed(&patterns, &text, &[]);
        let name = String::from_utf8_lossy(&form);
        assert_eq!(clean.len(), text.len(), "{name}");
        assert!(clean.windows(12).any(|window| window == b"************"), "{name}");
        assert!(found_slowly(&patterns, &clean).is_empty(), "{name}");
        for split in 0..=text.len() {
            assert_eq!(scrubbed(&patterns, &text, &[split]), clean, "{name} split at {split}");
        }
        let all: Vec<usize> = (0..text.len()).collect();
        assert_eq!(scrubbed(&patterns, &text, &all), clean, "{name} byte by byte");
    }
}

#[test]
fn one_byte_away_nothing_is_touched() {
    let patterns = patterns(&[SECRET], None, None);
    // Base64 is left out: bits that the secret does not decide are not looked at.
    for form in forms(SECRET).iter().take(20) {
        let mut twin = form.clone();
        let middle = form.len() / 2;
        // A reference is one without its semicolon too.
        for at in [middle, form.len() - 1 - usize::from(form.ends_with(b";"))] {
            twin.clone_from(form);
            twin[at] = match twin[at] {
                0 => 1,
                b'7' | b';' => b'8',
                _ => b'7',
            };
            if found_slowly(&patterns, &twin).is_empty() {
                assert_eq!(scrubbed(&patterns, &twin, &[at]), twin, "{}", String::from_utf8_lossy(&twin));
            } else {
                // The padding of UTF-16 is not of the secret.
                assert!(form.starts_with(&[0]) || form.ends_with(&[0]), "{}", String::from_utf8_lossy(&twin));
            }
        }
    }
    for twin in [&SECRET[1..], &SECRET[..SECRET.len() - 1], &SECRET.to_ascii_uppercase()] {
        assert_eq!(scrubbed(&patterns, twin, &[3]), twin);
    }
}

#[test]
fn characters_may_be_escaped_one_by_one() {
    let patterns = patterns(&[b"ab/cd+ef-1"], None, None);
    for text in [
        "a%62/c&#100;+ef-1",
        "%61b\\/cd\\u002bef-1",
        "ab%252Fcd%2Bef-1",
        "ab&sol;cd&plus;ef-\\x31",
        "ab%2fcd&#x02b;ef-1",
        "\\\\u0061b\\\\/cd+ef-1",
        // One in another: a form of JSON, HTML in JSON, HTML in HTML. And without the semicolon, as browsers take it.
        "%5Cu0061b%5C/cd%2Bef%5cu002d1",
        "ab%5C%2Fcd%252B%65f-1",
        "ab/cd\\u0026#43;ef-1",
        "ab\\u0026sol;cd\\u0026amp;plus;ef-1",
        "ab&amp;#x2f;cd&amp;plus;ef-1",
        "&#97b/cd&#43ef-&#49",
    ] {
        let clean = scrubbed(&patterns, text.as_bytes(), &[]);
        assert_eq!(clean, vec![b'*'; text.len()], "{text}");
    }
    for text in [
        "a%63/cd+ef-1",
        "ab%25252525252Fcd+ef-1",
        "ab&solx;cd+ef-1",
        "ab\\u002gcd+ef-1",
        "ab&#0000000000047;cd+ef-1",
        "&#971b/cd+ef-1",
        "ab%5C%2Gcd+ef-1",
        "ab&amp;amp;sol;cd+ef-1",
        "ab\\u0027sol;cd+ef-1",
    ] {
        assert_eq!(scrubbed(&patterns, text.as_bytes(), &[]), text.as_bytes(), "{text}");
    }
}

#[test]
fn a_character_outside_ascii_is_escaped_as_a_character() {
    let patterns = patterns(&["schl\u{fc}ssel-\u{20ac}9".as_bytes()], None, None);
    for text in ["schl\\u00fcssel-\\u20AC9", "schl&#252;ssel-&#x20ac;9", "schl%C3%BCssel-%e2%82%ac9"] {
        assert_eq!(scrubbed(&patterns, text.as_bytes(), &[7]), vec![b'*'; text.len()], "{text}");
    }
}

#[test]
fn a_secret_that_was_read_as_latin_1_is_found() {
    let patterns = patterns(&["schl\u{fc}ssel-\u{20ac}9".as_bytes()], None, None);
    for (text, found) in [
        ("schl\u{c3}\u{bc}ssel-\u{e2}\u{82}\u{ac}9", true),
        ("schl\u{c3}\u{bc}ssel-\\u00e2\\u0082\\u00ac9", true),
        ("schl\u{c3}\u{bd}ssel-\u{e2}\u{82}\u{ac}9", false),
    ] {
        let expected = if found { vec![b'*'; text.len()] } else { text.as_bytes().to_vec() };
        assert_eq!(scrubbed(&patterns, text.as_bytes(), &[5]), expected, "{text}");
    }
}

#[test]
fn what_is_injected_is_found_whole() {
    let injection = Injection::basic("x-access-token").expect("a user");
    let patterns = patterns(&[b"ghp_0123456789"], Some(&injection), None);
    let token = STANDARD.encode("x-access-token:ghp_0123456789");
    let masked = token.trim_end_matches('=').len();
    let clean = scrubbed(&patterns, token.as_bytes(), &[5]);
    assert_eq!(clean, [vec![b'*'; masked], vec![b'='; token.len() - masked]].concat());
    assert!(patterns.scrub(hex::encode(token.trim_end_matches('=')).as_bytes()).is_some());
}

#[test]
fn the_placeholder_stands_where_it_fits() {
    let patterns = patterns(&[b"abcabcabc"], None, Some("NARROWS.1"));
    assert_eq!(scrubbed(&patterns, b"<abcabcabc>", &[]), b"<NARROWS.1>");
    assert_eq!(scrubbed(&patterns, b"<abcabcabcabc>", &[11]), b"<************>", "two that overlap");
    assert_eq!(scrubbed(&patterns, b"<%61bcabcabc>", &[]), b"<***********>");
    assert_eq!(patterns.scrub(b"Bearer abcabcabc").as_deref(), Some(&b"Bearer NARROWS.1"[..]));
    assert_eq!(patterns.scrub(b"Bearer abcabcab"), None);
    for split in 0..=12 {
        assert_eq!(scrubbed(&patterns, b"<abcabcabcabc>", &[split]), b"<************>");
    }
}

#[test]
fn secrets_that_begin_or_contain_one_another() {
    let patterns = patterns(&[b"abcdefgh", b"abcdefghijkl", b"efghijklmn"], None, None);
    for (text, clean) in [
        ("abcdefghijklmn.", "**************."),
        ("abcdefghi.", "********i."),
        ("abcdefghijklm.", "************m."),
        ("abcdefgabcdefgh", "abcdefg********"),
    ] {
        for split in 0..=text.len() {
            assert_eq!(scrubbed(&patterns, text.as_bytes(), &[split]), clean.as_bytes(), "{text} at {split}");
        }
    }
}

#[test]
fn a_run_that_never_ends_is_not_held() {
    let patterns = patterns(&[&[b'a'; 64]], None, Some(&"p".repeat(64)));
    let mut scrubber = Scrubber::new(patterns);
    let (mut taken, mut given) = (0, 0);
    for _ in 0..200 {
        taken += 50;
        let mut next = scrubber.push(Bytes::from(vec![b'a'; 50]));
        while let Some(bytes) = next {
            assert!(bytes.iter().all(|&byte| byte == b'*'));
            given += bytes.len();
            next = scrubber.ready();
        }
        assert!(taken - given < 128, "{taken} {given}");
    }
}

#[test]
fn a_find_reaches_no_farther_back_than_what_is_held() {
    for secret in [&b"aaaaaaaa"[..], b"abababababab", b"a1b2c3d4e5a1"] {
        let patterns = patterns(&[secret], None, Some("NARROWS.1"));
        let run = secret.repeat(40);
        let mut scrubber = Scrubber::new(patterns);
        let mut out = Vec::new();
        for part in run.chunks(7).cycle().take(2000) {
            let first = scrubber.push(Bytes::copy_from_slice(part));
            std::iter::successors(first, |_| scrubber.ready()).for_each(|bytes| out.extend_from_slice(&bytes));
            assert!(scrubber.longest_find() <= 40, "{}", scrubber.longest_find());
        }
        assert!(out[..200].iter().all(|&byte| byte == b'*'));
    }
}

/// Steps for each byte of a text, and whether it could be read.
fn steps(patterns: &Patterns, text: &[u8]) -> (u64, bool) {
    let mut matcher = Matcher::default();
    for part in text.chunks(1000) {
        matcher.read(patterns, part, false);
    }
    (matcher.steps, !matcher.overrun)
}

#[test]
fn steps_have_a_bound_whatever_repeats_itself() {
    let limit = |patterns: &Patterns| THREADS_MAX as u64 + 2 + patterns.needles.len() as u64;
    for unit in [&b"a"[..], b"%", b"&", b"\\", b"%25", b"ab", b"\\u005c", b"&amp;"] {
        for length in [64, 500, 5000, 16_000] {
            let secret: Vec<u8> = unit.iter().copied().cycle().take(length).collect();
            let patterns = patterns(&[&secret], None, None);
            let text: Vec<u8> = unit.iter().copied().cycle().take(20_000).collect();
            let (steps, _) = steps(&patterns, &text);
            assert!(steps <= limit(&patterns) * text.len() as u64, "{unit:?} {length}: {steps}");
        }
    }
}

#[test]
fn a_look_at_an_escape_goes_no_farther_than_the_longest_is() {
    let meanings = |text: &[u8]| {
        let mut meanings = Vec::new();
        escape::read(text, &mut |meaning| meanings.push(meaning));
        meanings
    };
    for unit in
        [&b"\\"[..], b"%25", b"%5C", b"&amp;", b"&#0000000", b"&#9", b"&#x", b"\\u0026", b"\\u0026amp;", b"%5C\\"]
    {
        let text = unit.repeat(10_000);
        for end in [&b"u0061"[..], b"41", b"#47;", b"z"] {
            let whole = meanings(&[&text, end].concat());
            assert_eq!(whole, meanings(&text[..64]), "{unit:?} {end:?}");
            assert!(!whole.contains(&Meaning::Any), "{unit:?} {whole:?}");
        }
    }
}

#[test]
fn a_text_of_escapes_that_are_no_forms_takes_hardly_a_step() {
    let basic = Injection::basic("x-access-token").expect("a user");
    let secrets = [b"sk-live-0123456789a", b"sk-live-0123456789b", b"sk-live-0123456789c", b"sk-live-0123456789d"];
    let patterns = patterns(&secrets.map(|secret| &secret[..]), Some(&basic), None);
    let units = [
        "\\",
        "%",
        "%25",
        "%5C",
        "&",
        "&#",
        "&#0000000",
        "&amp;",
        "\\u00",
        "\\\\\\\\u00",
        "\\u0026",
        "\\u0026#",
        "\\x",
    ];
    for unit in units {
        let text: Vec<u8> = unit.bytes().cycle().take(100_000).collect();
        let (steps, _) = steps(&patterns, &text);
        // Of each part, the end may begin anything.
        assert!(steps < 4 * text.len() as u64, "{unit}: {steps} for {}", text.len());
    }
    // Of a form that is known to begin so, each beginning is read and no more.
    for unit in ["\\u0073\\u006b\\u002d", "%73%6b%2d", "&#115;&#107;&#45;", "\\\\\\\\u0073"] {
        let text: Vec<u8> = unit.bytes().cycle().take(100_000).collect();
        let (steps, _) = steps(&patterns, &text);
        assert!(steps < 48 * text.len() as u64, "{unit}: {steps} for {}", text.len());
    }
}

#[test]
fn a_turn_ends_and_changes_nothing() {
    let patterns = patterns(&[b"sk-live-0123456789a", &[b'a'; 200]], None, None);
    let slow = b"sk-live-0123456789 ".repeat(20_000);
    let fast = b"nothing of it here".repeat(20_000);
    let run = vec![b'a'; 20_000];
    for (text, turns_min) in [(slow, 10), (fast, 5), (run, 40)] {
        let text = Bytes::from(text);
        let mut scrubber = Scrubber::new(Arc::clone(&patterns));
        let (mut rest, mut out, mut turns) = (text.clone(), Vec::new(), 0);
        while !rest.is_empty() {
            let (mut turn, steps) = (Turn::new(), scrubber.steps());
            while !rest.is_empty() && !turn.is_over() {
                let first = scrubber.push_some(&mut rest, true, &mut turn);
                std::iter::successors(first, |_| scrubber.ready()).for_each(|bytes| out.extend_from_slice(&bytes));
            }
            turns += 1;
            assert!(scrubber.steps() - steps < 66_000, "{}", scrubber.steps() - steps);
        }
        assert!(scrubber.is_idle());
        assert!(turns >= turns_min, "{turns}");
        assert!(out == scrubbed(&patterns, &text, &[]));
    }
}

#[test]
fn a_secret_that_reaches_into_what_must_stay_breaks_it_off() {
    let patterns = patterns(&[b"abcdefgh"], None, None);
    for (head, text, spoiled) in [("..abc", "defgh", true), ("..abd", "efgh", false), (".....", "abcdefgh", false)] {
        for part in [1, 8] {
            let mut scrubber = Scrubber::new(Arc::clone(&patterns));
            let mut out = Vec::new();
            let first = scrubber.push_fixed(Bytes::copy_from_slice(head.as_bytes()));
            std::iter::successors(first, |_| scrubber.ready()).for_each(|bytes| out.extend_from_slice(&bytes));
            for part in text.as_bytes().chunks(part) {
                let first = scrubber.push(Bytes::copy_from_slice(part));
                std::iter::successors(first, |_| scrubber.ready()).for_each(|bytes| out.extend_from_slice(&bytes));
            }
            let first = scrubber.finish();
            std::iter::successors(first, |_| scrubber.ready()).for_each(|bytes| out.extend_from_slice(&bytes));
            assert_eq!(scrubber.is_spoiled(), spoiled, "{head}{text}");
            let clean = format!("{head}{}", text.replace("abcdefgh", "********"));
            assert_eq!(out, if spoiled { b"..".to_vec() } else { clean.into_bytes() });
        }
    }
}

#[test]
fn what_a_query_holds_is_found_when_it_is_encoded_again() {
    let query = Injection::query("key").expect("a name");
    let secret = &b"ab/cd+ef==gh"[..];
    let line = b"GET /v1?key=ab%2Fcd%2Bef%3D%3Dgh HTTP/1.1";
    for (injection, found) in [(Some(&query), true), (None, false)] {
        let patterns = patterns(&[secret], injection, None);
        assert_eq!(patterns.scrub(STANDARD.encode(line).as_bytes()).is_some(), found);
        assert_eq!(patterns.scrub(hex::encode(line).as_bytes()).is_some(), found);
        assert!(patterns.scrub(line).is_some());
    }
}

#[test]
fn a_name_without_end_is_none() {
    let patterns = patterns(&[b"Abc-DEFG"], None, None);
    assert!(!patterns.is_in_name(&"x".repeat(1024)) && patterns.is_in_name(&"x".repeat(1025)));
}

#[test]
fn a_text_that_cannot_be_read_within_bounds_is_broken_off() {
    for (length, read) in [(THREADS_MAX / 2, true), (4 * THREADS_MAX, false)] {
        let patterns = patterns(&[&vec![b'a'; length]], None, None);
        let text = vec![b'a'; 10 * THREADS_MAX];
        assert_eq!(steps(&patterns, &text).1, read, "{length}");
        assert_eq!(patterns.scrub(&text), Some(vec![b'*'; text.len()]), "{length}");
        let mut scrubber = Scrubber::new(patterns);
        let mut out = Vec::new();
        for part in text.chunks(100) {
            let first = scrubber.push(Bytes::copy_from_slice(part));
            std::iter::successors(first, |_| scrubber.ready()).for_each(|bytes| out.extend_from_slice(&bytes));
        }
        let first = scrubber.finish();
        std::iter::successors(first, |_| scrubber.ready()).for_each(|bytes| out.extend_from_slice(&bytes));
        assert_eq!(scrubber.is_overrun(), !read, "{length}");
        assert!(scrubber.is_idle() && out.iter().all(|&byte| byte == b'*'));
        assert_eq!(out.len() == text.len(), read);
    }
}

#[test]
fn how_often_a_form_overlaps_itself_is_known() {
    for (secret, overlaps) in [(&b"aaaaaaaaaa"[..], 9), (b"abababababab", 5), (b"sk-0123456789", 0)] {
        let needles = &patterns(&[secret], None, None).needles;
        assert_eq!(needles[0].overlaps(), overlaps, "{secret:?}");
    }
}

#[test]
fn an_event_is_never_held() {
    let patterns = patterns(&[SECRET], None, None);
    let mut scrubber = Scrubber::new(patterns);
    for event in ["data: 1\n\n", "data: sk-live/9f\n\n", "data: %73k\\\n\n", ":\n\n"] {
        let mut out = Vec::new();
        let mut next = scrubber.push(event.into());
        while let Some(bytes) = next {
            out.extend_from_slice(&bytes);
            next = scrubber.ready();
        }
        assert_eq!(out, event.as_bytes());
    }
}

#[test]
fn untouched_parts_are_the_same_memory() {
    let patterns = patterns(&[SECRET], None, None);
    let mut scrubber = Scrubber::new(patterns);
    let part = Bytes::from(vec![b'.'; 10_000]);
    let (first, second) = (part.slice(..5000), [&part[..10], SECRET, b"\n"].concat());
    assert_eq!(scrubber.push(first.clone()).map(|bytes| bytes.as_ptr()), Some(first.as_ptr()));
    let second = Bytes::from(second);
    assert_eq!(scrubber.push(second.clone()).map(|bytes| bytes.as_ptr()), Some(second.as_ptr()));
    assert_eq!(scrubber.ready().map(|bytes| bytes.len()), Some(SECRET.len()));
}

#[test]
fn what_stands_between_stays_where_it_was() {
    let patterns = patterns(&[b"abcdefgh"], None, None);
    let mut scrubber = Scrubber::new(patterns);
    let mut out = Vec::new();
    let mut take = |scrubber: &mut Scrubber, first: Option<Bytes>| {
        let all = std::iter::successors(first, |_| scrubber.ready());
        all.for_each(|bytes| out.extend_from_slice(&bytes));
    };
    for (between, part) in [("[1]", "xabc"), ("[2]", "de"), ("[3]", "fghy"), ("[4]", "abc")] {
        let first = scrubber.push_between(between.into());
        take(&mut scrubber, first);
        let first = scrubber.push(part.into());
        take(&mut scrubber, first);
    }
    let first = scrubber.finish();
    take(&mut scrubber, first);
    assert_eq!(String::from_utf8_lossy(&out), "[1]x***[2]**[3]***y[4]abc");
}

#[test]
fn a_name_has_lost_its_case() {
    let patterns = patterns(&[b"Abc-DEFG"], None, None);
    assert!(patterns.is_in_name("x-abc-defg"));
    assert!(!patterns.is_in_name("x-abc-deff") && !patterns.is_in_name("abc"));
}

#[test]
fn debug_is_redacted() {
    let patterns = patterns(&[b"canary-12"], None, None);
    assert!(!format!("{patterns:?} {:?}", Scrubber::new(Arc::clone(&patterns))).contains("canary"));
}

/// One spelling of a text: how each character is written is chosen by `choices`.
fn spelled(secret: &[u8], choices: &[u8]) -> Vec<u8> {
    let spell = |(&byte, &choice): (&u8, &u8)| match choice {
        0 => format!("%{byte:02x}"),
        1 => format!("%25{byte:02X}"),
        2 => format!("\\u00{byte:02X}"),
        3 => format!("\\x{byte:02x}"),
        4 => format!("&#{byte};"),
        5 => format!("&#x0{byte:x};"),
        7 if byte == b' ' => "+".to_owned(),
        6 if matches!(byte, b'/' | b'\\' | b'"') => format!("\\{}", char::from(byte)),
        _ => char::from(byte).to_string(),
    };
    secret.iter().zip(choices).flat_map(|pair| spell(pair).into_bytes()).collect()
}

fn small() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(prop::sample::select(b"ab%2".to_vec()), 8..12),
        prop::collection::vec(prop::sample::select(b"ab\\/u&#".to_vec()), 8..14),
        prop::collection::vec(33_u8..127, 8..40),
    ]
}

fn noise() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(prop::sample::select(b"ab%25\\/u0&#;x".to_vec()), 0..60),
        prop::collection::vec(any::<u8>(), 0..200),
    ]
}

proptest! {
    /// The prefilter skips nothing, a split changes nothing, lengths stay, and what comes out is clean.
    #[test]
    fn any_text_at_any_split(
        secrets in prop::collection::vec(small(), 1..3),
        parts in prop::collection::vec((noise(), prop::collection::vec(0_u8..9, 40), any::<bool>()), 1..5),
        splits in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        let refs: Vec<&[u8]> = secrets.iter().map(Vec::as_slice).collect();
        let patterns = patterns(&refs, None, None);
        let mut text = Vec::new();
        for (noise, choices, echo) in &parts {
            text.extend_from_slice(noise);
            if *echo {
                text.extend(spelled(&secrets[0], choices));
            }
        }
        let mut expected = text.clone();
        for place in found_slowly(&patterns, &text) {
            let place = usize::try_from(place.start).unwrap()..usize::try_from(place.end).unwrap();
            expected[place].fill(patterns.instead_of(super::matcher::Found { start: 0, end: 1, several: true }, 0..1)[0]);
        }
        prop_assert_eq!(&scrubbed(&patterns, &text, &[]), &expected);
        prop_assert_eq!(&scrubbed(&patterns, &text, &splits), &expected);
        prop_assert_eq!(patterns.scrub(&text).unwrap_or(text), expected.clone());
        prop_assert!(found_slowly(&patterns, &expected).is_empty());
    }

    /// Any mixture of spellings is found, wherever it is split.
    #[test]
    fn any_spelling_is_found(
        middle in prop::collection::vec(32_u8..127, 6..40),
        choices in prop::collection::vec(0_u8..9, 42),
        splits in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        let secret = [b"-", &*middle, b"-"].concat();
        let patterns = patterns(&[&secret], None, None);
        let echo = spelled(&secret, &choices);
        let text = [b"\n", &*echo, b"\n"].concat();
        let whole = found_slowly(&patterns, &text).iter().any(|found| found.end - found.start >= echo.len() as u64);
        prop_assert!(whole, "{:?}", String::from_utf8_lossy(&text));
        let clean = scrubbed(&patterns, &text, &splits);
        let masked = clean.windows(echo.len()).any(|window| window.iter().all(|byte| *byte == window[0]));
        prop_assert!(masked, "{:?} in {:?}", String::from_utf8_lossy(&clean), String::from_utf8_lossy(&text));
    }
}
