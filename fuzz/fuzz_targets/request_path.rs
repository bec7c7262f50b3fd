//! Any text as a path: what passes reads the same to a server that decodes it, once or twice, and splits it as it likes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use narrows::request::{CanonicalPath, EncodedSlash};

/// What a server makes of a path that decodes every escape.
fn decoded(path: &str) -> Vec<u8> {
    let mut bytes = path.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        let digits = if byte == b'%' { bytes.clone().take(2).collect() } else { Vec::new() };
        match std::str::from_utf8(&digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) if digits.len() == 2 => {
                out.push(value);
                bytes.nth(1);
            }
            _ => out.push(byte),
        }
    }
    out
}

fuzz_target!(|text: &str| {
    for slash in [EncodedSlash::Refuse, EncodedSlash::Opaque] {
        let Ok(path) = CanonicalPath::parse(text, slash) else { continue };
        assert_eq!(CanonicalPath::parse(path.as_str(), slash).as_ref(), Ok(&path), "not canonical");
        assert!(path.as_str().eq_ignore_ascii_case(text), "more than letter case of escapes changed");
        assert_eq!(format!("/{}", path.segments().collect::<Vec<_>>().join("/")), path.as_str());
        if slash == EncodedSlash::Opaque && text.to_ascii_lowercase().contains("%2f") {
            continue;
        }
        let once = decoded(path.as_str());
        assert!(!once.contains(&b'%') && !once.contains(&b'\\') && !once.iter().any(u8::is_ascii_control));
        let segments: Vec<&[u8]> = once.split(|&byte| byte == b'/').skip(1).collect();
        assert_eq!(segments.len(), path.segments().count(), "a segment more after decoding");
        let hidden = |segment: &&[u8]| matches!(segment.split(|&byte| byte == b';').next(), Some(b"." | b".."));
        assert!(!segments.iter().any(|segment| hidden(&segment)), "a dot segment after decoding");
        for (count, _) in path.as_str().match_indices('/') {
            assert!(path.is_within(&path.as_str()[..count]), "not within its own parent");
        }
        assert!(!path.is_within(&format!("{}x", path.as_str().trim_end_matches('/'))));
    }
});
