//! JSON as the journal writes it: nothing in a line can move a terminal's cursor, hide text or end the line.

/// Appends `text` as a JSON string. Besides what RFC 8259 §7 demands, every control, line separator, bidirectional and
/// invisible formatting character is escaped.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    // Most texts are plain throughout, and bytes are quicker to look at than characters.
    if text.bytes().all(is_plain) {
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    let mut plain_from = 0;
    for (at, c) in text.char_indices() {
        if !needs_escape(c) {
            continue;
        }
        out.extend_from_slice(&text.as_bytes()[plain_from..at]);
        escape(out, c);
        plain_from = at + c.len_utf8();
    }
    out.extend_from_slice(&text.as_bytes()[plain_from..]);
    out.push(b'"');
}

/// Appends bytes as a JSON string of hexadecimal digits.
pub(super) fn hexadecimal(out: &mut Vec<u8>, bytes: &[u8; 32]) {
    let mut digits = [0; 64];
    // The lengths fit: it cannot fail.
    let _ = hex::encode_to_slice(bytes, &mut digits);
    out.push(b'"');
    out.extend_from_slice(&digits);
    out.push(b'"');
}

/// Appends `text` as a JSON string, or `null`.
pub(super) fn optional(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => string(out, text),
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends a number, or `null`.
pub(super) fn number(out: &mut Vec<u8>, value: Option<u64>) {
    match value {
        Some(value) => {
            let mut digits = [0; 20];
            let mut rest = value;
            let mut at = digits.len();
            loop {
                at -= 1;
                digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or_default();
                rest /= 10;
                if rest == 0 {
                    break;
                }
            }
            out.extend_from_slice(&digits[at..]);
        }
        None => out.extend_from_slice(b"null"),
    }
}

/// ASCII that stands for itself.
fn is_plain(byte: u8) -> bool {
    (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\'
}

fn needs_escape(c: char) -> bool {
    matches!(c,
        '"' | '\\'
        | '\0'..='\x1f' | '\x7f'..='\u{9f}'             // controls
        | '\u{ad}' | '\u{61c}' | '\u{180e}'              // invisible
        | '\u{200b}'..='\u{200f}'                        // zero-width, direction marks
        | '\u{2028}'..='\u{202e}'                        // line separators, bidirectional overrides
        | '\u{2060}'..='\u{206f}' | '\u{feff}'           // joiners, isolates, byte order mark
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}') // annotations, tags
}

fn escape(out: &mut Vec<u8>, c: char) {
    match c {
        '"' => out.extend_from_slice(br#"\""#),
        '\\' => out.extend_from_slice(br"\\"),
        '\n' => out.extend_from_slice(br"\n"),
        '\r' => out.extend_from_slice(br"\r"),
        '\t' => out.extend_from_slice(br"\t"),
        _ => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.extend_from_slice(br"\u");
                for shift in [12, 8, 4, 0] {
                    out.push(b"0123456789abcdef"[usize::from(*unit >> shift & 0xf)]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(text: &str) -> String {
        let mut out = Vec::new();
        string(&mut out, text);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn nothing_raw_moves_a_cursor_or_ends_a_line() {
        assert_eq!(written("a\r\n\x1b[2J\"\\\u{2028}\u{202e}é"), r#""a\r\n\u001b[2J\"\\\u2028\u202eé""#);
        assert_eq!(written("\u{e0041}"), r#""\udb40\udc41""#);
    }

    #[test]
    fn hexadecimal_is_lower_case_and_whole() {
        let mut out = Vec::new();
        hexadecimal(&mut out, &[0xa5; 32]);
        assert_eq!(out, format!("\"{}\"", "a5".repeat(32)).into_bytes());
    }

    proptest! {
        #[test]
        fn plain_bytes_are_those_without_an_escape(byte in 0..0x80_u8) {
            prop_assert_eq!(is_plain(byte), !needs_escape(char::from(byte)));
        }

        #[test]
        fn reads_back_as_it_was(text in any::<String>()) {
            let json = written(&text);
            let raw = json.chars().any(|c| c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c));
            prop_assert!(!raw);
            prop_assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), text);
        }

        #[test]
        fn numbers_read_back(value in any::<u64>()) {
            let mut out = Vec::new();
            number(&mut out, Some(value));
            prop_assert_eq!(String::from_utf8(out).expect("UTF-8"), value.to_string());
        }
    }
}
