use super::*;

const TOKEN: &str = "ya29.a0AfH6SMBx3kf9QmZx71TtPw0aVb5Lr8Ys";

fn sealer(format: Format) -> Sealer {
    Sealer::new(Arc::new(TokenNames::oauth()), "acme".into(), Some(format), false)
}

fn passed(format: Format, text: &[u8], part: usize) -> Vec<u8> {
    let mut sealer = sealer(format);
    let mut out = Vec::new();
    for part in text.chunks(part) {
        let first = sealer.push(Bytes::copy_from_slice(part));
        out.extend_from_slice(&first.unwrap_or_default());
        std::iter::from_fn(|| sealer.ready()).for_each(|bytes| out.extend_from_slice(&bytes));
    }
    sealer.finish();
    std::iter::from_fn(|| sealer.ready()).for_each(|bytes| out.extend_from_slice(&bytes));
    out
}

fn sealed(format: Format, text: &str) -> String {
    let whole = passed(format, text.as_bytes(), text.len().max(1));
    for part in 1..=text.len().min(60) {
        assert_eq!(passed(format, text.as_bytes(), part), whole, "{text} in parts of {part}");
    }
    assert_eq!(whole.len(), text.len());
    String::from_utf8(whole).expect("text")
}

fn stand_in_of(text: &str) -> String {
    String::from_utf8(stand_in("acme", text.len())).expect("text")
}

#[test]
fn json_members_are_sealed_at_any_depth_and_in_any_spelling() {
    let instead = stand_in_of(TOKEN);
    for (before, after) in [
        ("{\"access_token\":\"", "\",\"token_type\":\"Bearer\",\"expires_in\":3599}"),
        ("{\"ok\": true, \"authed_user\": {\"refresh_token\" :\n \"", "\"}}"),
        ("[{\"a\": \"\\\\\", \"idToken\": \"", "\"}]"),
        ("{\"access\\u005ftoken\": \"", "\"}"),
        ("{\"a\": \"\\\"access_token\\\": \\\"\", \"Access-Token\": \"", "\"}"),
    ] {
        let text = format!("{before}{TOKEN}{after}");
        assert_eq!(sealed(Format::Json, &text), format!("{before}{instead}{after}"));
        assert_eq!(sealed(Format::JsonOrForm, &text), format!("{before}{instead}{after}"));
    }
}

#[test]
fn what_is_no_token_passes() {
    for text in [
        format!("{{\"access_tokens\":\"{TOKEN}\"}}"),
        format!("{{\"token\":\"{TOKEN}\", \"access_token\": null, \"id_token\": \"\"}}"),
        format!("{{\"a\": \"access_token\", \"b\": \"{TOKEN}\"}}"),
        format!("{{\"text\": \"{{\\\"access_token\\\": \\\"{TOKEN}\\\"}}\"}}"),
        format!("[\"access_token\", \"{TOKEN}\"]"),
        String::new(),
    ] {
        assert_eq!(sealed(Format::Json, &text), text);
    }
    let text = format!("access_tokens={TOKEN}&x=access_token&access_token&access_token=&y={TOKEN}");
    assert_eq!(sealed(Format::Form, &text), text);
}

#[test]
fn forms_uris_and_cookies_are_sealed() {
    let instead = stand_in_of(TOKEN);
    for (format, before, after) in [
        (Format::Form, "access_token=", "&scope=repo&token_type=bearer"),
        (Format::JsonOrForm, "a=1&access%5Ftoken=", ""),
        (Format::Form, "access_token=", "\n"),
        (Format::Uri, "https://app.test/cb?code=1#access_token=", "&token_type=bearer"),
        (Format::Uri, "/cb?access_token=", "#x"),
        (Format::Uri, "<https://api.test/?a=1&access_token=", "&page=2>; rel=\"next\""),
        (Format::Uri, "0; url=/cb#access_token=", ""),
        (Format::Cookie, "access_token=", "; Path=/; HttpOnly"),
        (Format::Cookie, "__Host-access_token=", "; Secure"),
        (Format::JsonOrForm, "\u{feff}{\"access_token\":\"", "\"}"),
        (Format::JsonOrForm, ")]}'\n{\"access_token\":\"", "\"}"),
    ] {
        let text = format!("{before}{TOKEN}{after}");
        assert_eq!(sealed(format, &text), format!("{before}{instead}{after}"), "{format:?}");
    }
}

#[test]
fn any_text_that_begins_as_json_is_read_as_json() {
    let instead = stand_in_of(TOKEN);
    for before in ["{\"access_token\":\"", " \n[{\"id_token\": \"", "\u{feff}{\"access_token\":\""] {
        assert_eq!(sealed(Format::MaybeJson, &format!("{before}{TOKEN}\"}}")), format!("{before}{instead}\"}}"));
    }
    for text in [format!("say {{\"access_token\":\"{TOKEN}\"}}"), format!("access_token={TOKEN}"), String::new()] {
        assert_eq!(sealed(Format::MaybeJson, &text), text);
    }
}

#[test]
fn a_turn_ends_whatever_the_tokens_are() {
    let run = |n: u8| format!("{n}{}", "a".repeat(7));
    let members: Vec<String> = (0..8).map(|n| format!("\"access_token\":\"{}\"", run(n))).collect();
    let text = Bytes::from(format!("{{{},\"x\":\"{}\"}}", members.join(","), "1aaaaaa".repeat(30_000)));
    let whole = passed(Format::Json, &text, text.len());
    let mut sealer = sealer(Format::Json);
    let (mut rest, mut out, mut turns) = (text.clone(), Vec::new(), 0);
    while !rest.is_empty() {
        let (mut turn, before) = (Turn::new(), sealer.steps());
        let first = sealer.push_some(&mut rest, &mut turn);
        first.into_iter().chain(std::iter::from_fn(|| sealer.ready())).for_each(|bytes| out.extend_from_slice(&bytes));
        assert!(sealer.steps() - before < 400_000, "{}", sealer.steps() - before);
        turns += 1;
    }
    sealer.finish();
    std::iter::from_fn(|| sealer.ready()).for_each(|bytes| out.extend_from_slice(&bytes));
    assert!(out == whole && turns > 10, "{turns}");
}

#[test]
fn a_token_is_looked_for_in_the_rest_in_every_form() {
    let text = format!("{{\"access_token\":\"{TOKEN}\",\"again\":\"x{TOKEN}\",\"hex\":\"{}\"}}", hex::encode(TOKEN));
    let out = sealed(Format::Json, &text);
    assert!(out.ends_with(&format!("\"x{0}\",\"hex\":\"{0}{0}\"}}", "*".repeat(TOKEN.len()))), "{out}");
    // Decoded: the rest may spell it another way.
    let text = "{\"access_token\":\"1\\/\\/0gabcdefgh\",\"again\":\"1//0gabcdefgh\"}";
    assert!(sealed(Format::Json, text).ends_with(":\"*************\"}"));
}

#[test]
fn a_value_without_an_end_or_too_long_is_masked() {
    assert_eq!(sealed(Format::Json, "{\"access_token\": \"abcdef"), "{\"access_token\": \"******");
    let long = "x".repeat(super::super::SECRET_BYTES_MAX + 5);
    let text = format!("{{\"access_token\": \"{long}\", \"a\": 1}}");
    assert_eq!(passed(Format::Json, text.as_bytes(), 1000), text.replace('x', "*").into_bytes());
    assert_eq!(sealed(Format::Json, "{\"access_token\": \"short\"}"), "{\"access_token\": \"*****\"}");
}

#[test]
fn a_token_that_would_cost_too_much_to_find_is_sealed_and_not_looked_for() {
    let random = |length: u32| -> String {
        (0..length).map(|n| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 13).to_be_bytes()[3] % 26)).collect()
    };
    let longest = u32::try_from(LEARNED_BYTES_MAX).expect("short");
    for (token, learned) in [
        ("a".repeat(OVERLAPS_MAX + 1), true),
        ("a".repeat(OVERLAPS_MAX + 2), false),
        ("a".repeat(16_384), false),
        ("%".repeat(16_384), false),
        (format!("{}x", "ab1".repeat(100)), false),
        (format!("{}MLheAAAAAAA0%2BuSeid", "A".repeat(21)), true),
        (random(longest), true),
        (random(longest + 1), false),
    ] {
        let again = &token[..token.len().min(8000)];
        let text = format!("{{\"access_token\":\"{token}\",\"again\":\"{again}\"}}");
        let out = passed(Format::Json, text.as_bytes(), 1000);
        assert_eq!(out.len(), text.len());
        let out = String::from_utf8(out).expect("text");
        assert!(!out[..token.len() + 20].contains(&token[..30]), "{}", token.len());
        assert_eq!(out.ends_with(&format!("{again}\"}}")), !learned, "{}: {}", token.len(), &token[..30]);
    }
}

#[test]
fn tokens_of_one_answer_have_a_bound_together() {
    let of = |tokens: &[String]| {
        let mut sealer = sealer(Format::Json);
        for token in tokens {
            sealer.seal_whole(token.as_bytes());
        }
        sealer.learned.len()
    };
    let run = |length: usize| format!("{}x", "a".repeat(length));
    let random = |n: usize| hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &n.to_be_bytes()));
    assert_eq!(of(&[run(33), run(32)]), 2);
    assert_eq!(of(&[run(33), run(34)]), 1);
    let refused: Vec<String> = (0..TRIED_MAX).map(|n| run(100 + n)).collect();
    assert_eq!(of(&[&refused[1..], &[random(0)]].concat()), 1);
    assert_eq!(of(&[&refused[..], &[random(0)]].concat()), 0);
    assert_eq!(of(&(0..20).map(random).collect::<Vec<_>>()), LEARNED_MAX);
}

#[test]
fn a_token_that_repeats_itself_is_found_in_a_run_without_end() {
    let mut sealer = sealer(Format::Json);
    let mut given =
        sealer.push(Bytes::from_static(b"{\"access_token\":\"aaaaaaaa\",\"x\":\"")).map_or(0, |first| first.len());
    given += std::iter::from_fn(|| sealer.ready()).map(|bytes| bytes.len()).sum::<usize>();
    let begun = 36;
    for taken in 1..500 {
        let first = sealer.push(Bytes::from(vec![b'a'; 100]));
        for bytes in first.into_iter().chain(std::iter::from_fn(|| sealer.ready())) {
            given += bytes.len();
        }
        assert!(taken * 100 + begun - given < 16, "{taken} {given}");
    }
}

#[test]
fn a_text_ends_and_what_was_learned_stays() {
    let mut sealer = sealer(Format::Json);
    let mut out = Vec::new();
    let text = format!("{{\"access_token\":\"{TOKEN}\"}}");
    for text in ["{\"open", &*text, "{\"access_token\":\"open", &format!("[\"{TOKEN}\"]")] {
        let first = sealer.push(Bytes::copy_from_slice(text.as_bytes()));
        sealer.end_text();
        let all = first.into_iter().chain(std::iter::from_fn(|| sealer.ready()));
        all.for_each(|bytes| out.extend_from_slice(&bytes));
        assert!(sealer.is_idle());
    }
    let sealed = format!("{{\"access_token\":\"{}\"}}", stand_in_of(TOKEN));
    let expected = format!("{{\"open{sealed}{{\"access_token\":\"****[\"{}\"]", "*".repeat(TOKEN.len()));
    assert_eq!(String::from_utf8(out).expect("text"), expected);
}

#[test]
fn names_that_a_service_gives_are_sealed_too() {
    let names = TokenNames::oauth().with("token").expect("a name");
    let mut sealer = Sealer::new(Arc::new(names), "acme".into(), None, true);
    let sealed = sealer.seal(format!("{{\"token\": \"{TOKEN}\"}}").as_bytes(), Format::Json).expect("sealed");
    assert_eq!(sealed, format!("{{\"token\": \"{}\"}}", stand_in_of(TOKEN)).into_bytes());
    assert!(sealer.scrub(format!("a {TOKEN}").as_bytes()).is_some() && sealer.scrub(b"a").is_none());
    for name in ["", "_-", &"a".repeat(65)] {
        assert_eq!(TokenNames::oauth().with(name), Err(BadTokenName), "{name}");
    }
}
