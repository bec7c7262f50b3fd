//! One line of the journal: members in a fixed order, `prev` and `hash` last.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use ulid::Ulid;

use super::auth::Failures;
use super::json;
use super::record::{Ended, Recorded};

/// The SHA-256 of the line before; of the first line, zeros.
pub(super) type Head = [u8; 32];

/// What a recovery met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repair {
    /// The chain's end was half a line.
    TornLine { bytes: u64 },
    /// The ring's file was shorter than it was made.
    RingCut { slots: u64 },
}

/// How every line of a repair reads after its id.
pub(super) const IS_REPAIR: &[u8] = b"\"event\":\"repair\"";

const NO_IDENTITY: &str = r#""user":null,"chain":null,"capability":null,"proof":null"#;

/// Appends the line of a request or tunnel, with its newline, and returns the new head.
pub(super) fn entry(out: &mut Vec<u8>, intent: &Recorded, ended: &Ended, prev: &Head) -> Head {
    let start = out.len();
    opening(out, intent.time_ms, Ulid(intent.id), intent.event.as_str(), ended.ending.as_str(), ended.code());
    out.push(b',');
    out.extend_from_slice(intent.identity().unwrap_or(NO_IDENTITY).as_bytes());
    for (name, text) in [
        ("service", intent.service()),
        ("operation", intent.operation()),
        ("action", intent.action()),
        ("method", intent.method()),
        ("host", intent.host()),
    ] {
        member(out, name);
        json::optional(out, text);
    }
    member(out, "port");
    json::number(out, intent.port.map(u64::from));
    member(out, "path");
    json::optional(out, intent.path());
    member(out, "credential");
    json::optional(out, intent.credential());
    if intent.foreign_credential || ended.foreign_credential {
        out.extend_from_slice(b",\"foreign_credential\":true");
    }
    for (name, value) in [
        ("status", ended.status.map(u64::from)),
        ("bytes_up", ended.bytes.map(|(up, _)| up)),
        ("bytes_down", ended.bytes.map(|(_, down)| down)),
        ("duration_ms", ended.duration_ms),
        ("upstream_ms", ended.upstream_ms),
    ] {
        member(out, name);
        json::number(out, value);
    }
    member(out, "client");
    json::optional(out, intent.client());
    close(out, start, prev)
}

/// Appends the line of failures before a chain was verified: nobody's name is on it.
pub(super) fn auth(out: &mut Vec<u8>, id: Ulid, failures: &Failures, prev: &Head) -> Head {
    let start = out.len();
    opening(out, failures.second.saturating_mul(1000), id, "auth", "denied", Some(failures.code));
    out.push(b',');
    out.extend_from_slice(NO_IDENTITY.as_bytes());
    if let Some(listener) = &failures.listener {
        member(out, "listener");
        json::string(out, listener);
    }
    for name in ["service", "operation", "action", "method", "host", "port", "path", "credential", "status"] {
        member(out, name);
        out.extend_from_slice(b"null");
    }
    member(out, "count");
    json::number(out, Some(failures.count));
    member(out, "client");
    json::optional(out, failures.client.as_deref());
    close(out, start, prev)
}

/// Appends the line that says what a recovery could not keep.
pub(super) fn repair(out: &mut Vec<u8>, id: Ulid, time_ms: u64, repair: Repair, prev: &Head) -> Head {
    let start = out.len();
    opening(out, time_ms, id, "repair", "aborted", None);
    out.push(b',');
    out.extend_from_slice(NO_IDENTITY.as_bytes());
    for name in ["service", "operation", "action", "method", "host", "port", "path", "credential", "status"] {
        member(out, name);
        out.extend_from_slice(b"null");
    }
    let (note, count) = match repair {
        Repair::TornLine { bytes } => ("a torn last line was cut off: bytes", bytes),
        Repair::RingCut { slots } => ("the ring was cut short, what it held there is lost: places", slots),
    };
    member(out, "note");
    json::string(out, note);
    member(out, "count");
    json::number(out, Some(count));
    member(out, "client");
    json::optional(out, None);
    close(out, start, prev)
}

fn opening(out: &mut Vec<u8>, time_ms: u64, id: Ulid, event: &str, outcome: &str, code: Option<&str>) {
    out.extend_from_slice(b"{\"time\":\"");
    out.extend_from_slice(time(time_ms).as_bytes());
    out.extend_from_slice(b"\",\"id\":\"");
    let mut letters = [0; ulid::ULID_LEN];
    out.extend_from_slice(id.array_to_str(&mut letters).as_bytes());
    out.push(b'"');
    for (name, value) in [("event", Some(event)), ("outcome", Some(outcome)), ("code", code)] {
        member(out, name);
        json::optional(out, value);
    }
}

fn member(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn close(out: &mut Vec<u8>, start: usize, prev: &Head) -> Head {
    member(out, "prev");
    json::hexadecimal(out, prev);
    let head = sha256(&out[start..]);
    member(out, "hash");
    json::hexadecimal(out, &head);
    out.extend_from_slice(b"}\n");
    head
}

/// SHA-256.
pub(super) fn sha256(bytes: &[u8]) -> Head {
    let mut head = [0; 32];
    head.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    head
}

/// RFC 3339 in UTC with milliseconds. A moment past the calendar's end is written as its end.
fn time(time_ms: u64) -> String {
    let moment = i64::try_from(time_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let mut text = String::with_capacity(24);
    // Writing to a string does not fail.
    let _ = write!(text, "{:.3}", moment.unwrap_or(jiff::Timestamp::MAX));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_milliseconds_always() {
        assert_eq!(time(1_800_027_612_345), "2027-01-15T15:40:12.345Z");
        assert_eq!(time(1_800_000_000_000), "2027-01-15T08:00:00.000Z");
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert!(time(u64::MAX).starts_with("9999-"));
    }
}
