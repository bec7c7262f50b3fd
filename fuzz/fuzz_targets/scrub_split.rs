//! Any text around two secrets, split anywhere: the same bytes come out as in one piece, as many, and clean.
//!
//! The first byte is how many pairs of bytes follow that say where to split.
#![no_main]

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use narrows::credential::{Patterns, Scrubber, Secret};

const SECRETS: [&[u8]; 2] = [b"sk-a%2/\\u&#b", b"a/sk-a%2"];

static PATTERNS: LazyLock<Arc<Patterns>> = LazyLock::new(|| {
    let secrets = SECRETS.map(|secret| Secret::new(secret.to_vec()).unwrap());
    Arc::new(Patterns::new(&[&secrets[0], &secrets[1]], None, None).unwrap())
});

fn scrubbed(text: &[u8], splits: &[usize]) -> Vec<u8> {
    let mut scrubber = Scrubber::new(Arc::clone(&PATTERNS));
    let mut out = Vec::new();
    let ends = splits.iter().copied().chain([text.len()]);
    let mut at = 0;
    for end in ends {
        let first = scrubber.push(Bytes::copy_from_slice(&text[at..end]));
        std::iter::successors(first, |_| scrubber.ready()).for_each(|bytes| out.extend_from_slice(&bytes));
        at = end;
    }
    let first = scrubber.finish();
    std::iter::successors(first, |_| scrubber.ready()).for_each(|bytes| out.extend_from_slice(&bytes));
    assert!(scrubber.is_idle());
    out
}

/// A look for the plainest spellings that shares nothing with the scrubber.
fn holds_a_secret(text: &[u8]) -> bool {
    let holds = |form: &[u8]| text.windows(form.len()).any(|window| window.eq_ignore_ascii_case(form));
    SECRETS.iter().any(|secret| {
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let percent: String = secret.iter().map(|byte| format!("%{byte:02x}")).collect();
        let escaped: String = secret.iter().map(|byte| format!("\\u{byte:04x}")).collect();
        let verbatim = text.windows(secret.len()).any(|window| window == *secret);
        verbatim || holds(hex.as_bytes()) || holds(percent.as_bytes()) || holds(escaped.as_bytes())
    })
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&count, rest)) = bytes.split_first() else { return };
    let Some((places, text)) = rest.split_at_checked(usize::from(count % 16) * 2) else { return };
    let place = |pair: &[u8; 2]| usize::from(u16::from_le_bytes(*pair)) % (text.len() + 1);
    let mut splits: Vec<usize> = places.as_chunks::<2>().0.iter().map(place).collect();
    splits.sort_unstable();
    let each: Vec<usize> = (0..text.len()).collect();
    let whole = PATTERNS.scrub(text).unwrap_or_else(|| text.to_vec());
    assert_eq!(whole.len(), text.len());
    assert_eq!(scrubbed(text, &[]), whole);
    assert_eq!(scrubbed(text, &splits), whole, "split at {splits:?}");
    assert_eq!(scrubbed(text, &each), whole, "split everywhere");
    assert!(PATTERNS.scrub(&whole).is_none());
    assert!(!holds_a_secret(&whole));
});
