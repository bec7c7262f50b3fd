//! Any text around two secrets, split anywhere: the same bytes come out as in one piece, as many, and clean. Seeds are in
//! `fuzz/seeds/scrub_split`.
#![no_main]

use std::sync::Arc;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use narrows::credential::{Patterns, Scrubber, Secret};

fn scrubbed(patterns: &Arc<Patterns>, text: &[u8], part: usize) -> Vec<u8> {
    let mut scrubber = Scrubber::new(Arc::clone(patterns));
    let mut out = Vec::new();
    for part in text.chunks(part) {
        let first = scrubber.push(Bytes::copy_from_slice(part));
        std::iter::successors(first, |_| scrubber.ready()).for_each(|bytes| out.extend_from_slice(&bytes));
    }
    let first = scrubber.finish();
    std::iter::successors(first, |_| scrubber.ready()).for_each(|bytes| out.extend_from_slice(&bytes));
    out
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&part, text)) = bytes.split_first() else { return };
    let secrets = [b"sk-a%2/\\u&#b".to_vec(), b"a/sk-a%2".to_vec()].map(|secret| Secret::new(secret).unwrap());
    let patterns = Arc::new(Patterns::new(&[&secrets[0], &secrets[1]], None, None).unwrap());
    let whole = patterns.scrub(text).unwrap_or_else(|| text.to_vec());
    assert_eq!(whole.len(), text.len());
    assert_eq!(scrubbed(&patterns, text, usize::from(part).max(1)), whole);
    assert!(patterns.scrub(&whole).is_none());
});
