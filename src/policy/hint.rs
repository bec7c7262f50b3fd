//! The line that a person would type to allow what was refused.
//!
//! Parts of it are chosen by the agent (a path, a param) and the line is meant to be pasted into a shell: everything that
//! is not known to be plain is quoted for the shell or left out.

use super::Code;
use super::denial::is_about;
use crate::capability::{FailedRow, Grant, Verified};
use crate::request::{Facts, Host};

/// For a request that some caveat, or every right, refuses.
pub(super) fn caveat(verified: &Verified, facts: &Facts<'_>, code: Code, row: Option<&FailedRow>) -> String {
    let about = |column: &str| row.is_some_and(|row| row.mismatches.iter().any(|mismatch| is_about(mismatch, column)));
    if code == Code::CapabilityExpired {
        return mint(verified, facts, "");
    }
    if about("proof") {
        return format!(
            "capctl run --cap FILE --key FILE --allow {} -- CMD",
            quoted(&Grant::covering(facts).to_string())
        );
    }
    if about("audience") {
        return mint(verified, facts, &format!(" --aud {}", quoted(facts.audience)));
    }
    if about("hop") {
        return mint(verified, facts, &format!(" --max-hops {}", facts.hop));
    }
    if verified.hop() == 0 {
        return format!("capctl run --allow {} -- CMD", quoted(&Grant::covering(facts).to_string()));
    }
    mint(verified, facts, "")
}

/// A new capability for the last holder and this request.
pub(super) fn mint(verified: &Verified, facts: &Facts<'_>, options: &str) -> String {
    let user = verified.user().filter(|user| is_plain(user)).unwrap_or("USER");
    let grant = Grant::covering(facts).to_string();
    format!(
        "capctl mint --to {} --user {} --allow {} --expires 1h{options}",
        verified.holder(),
        quoted(user),
        quoted(&grant)
    )
}

pub(super) fn new_key() -> String {
    "capctl key new FILE".to_owned()
}

pub(super) fn wait(seconds: u64) -> String {
    format!("sleep {seconds}, or capctl mint with a higher --rate")
}

pub(super) fn add_service(host: &Host) -> String {
    format!("capctl service add NAME --host {}", quoted(host.as_str()))
}

/// In single quotes for a POSIX shell, unless it is a plain word.
fn quoted(text: &str) -> String {
    let word =
        text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/' | b':' | b'@' | b','));
    if word && !text.is_empty() { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

fn is_plain(text: &str) -> bool {
    text.len() <= 200 && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}
