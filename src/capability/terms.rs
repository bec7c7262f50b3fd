//! The other terms that a person sets (how long, how deep, where, how proved, how much) and the checks they become.

use jiff::Timestamp;

use super::{Grant, Rate, TooManyGrants, grants_to_check};
use crate::clock::UnixSeconds;
use crate::request::ProofKind;

/// The text is not a duration, time, size or rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a duration (10m, 8h, 7d), time (RFC 3339), size (64k, 10M) or rate (10/s, 100/m)")]
pub struct InvalidTerm;

/// `9999-12-30T22:00:00Z`: about the last moment that RFC 3339 can write, and the last that the library prints.
const LAST_MOMENT: UnixSeconds = UnixSeconds(253_402_207_200);

/// Seconds of `30s`, `10m`, `8h`, `7d`, `2w` or a sum such as `1h30m`; more than none.
///
/// # Errors
/// [`InvalidTerm`].
pub fn parse_duration_s(text: &str) -> Result<u64, InvalidTerm> {
    let (mut total, mut rest) = (0_u64, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or(InvalidTerm)?;
        let (number, tail) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| InvalidTerm)?;
        let mut tail = tail.chars();
        let unit_s = match tail.next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            Some('w') => 604_800,
            _ => return Err(InvalidTerm),
        };
        total = number.checked_mul(unit_s).and_then(|part| total.checked_add(part)).ok_or(InvalidTerm)?;
        rest = tail.as_str();
    }
    if total == 0 { Err(InvalidTerm) } else { Ok(total) }
}

/// A moment: an RFC 3339 time, or a duration from `now`.
///
/// # Errors
/// [`InvalidTerm`]; also before 1970 and after the year 9999.
pub fn parse_moment(text: &str, now: UnixSeconds) -> Result<UnixSeconds, InvalidTerm> {
    let moment = if let Ok(duration_s) = parse_duration_s(text) {
        now + duration_s
    } else {
        let moment: Timestamp = text.parse().map_err(|_| InvalidTerm)?;
        UnixSeconds(u64::try_from(moment.as_second()).map_err(|_| InvalidTerm)?)
    };
    if moment > LAST_MOMENT { Err(InvalidTerm) } else { Ok(moment) }
}

/// Bytes: a number, or one with `k`, `M` or `G` (in either case), which are powers of 1024.
///
/// # Errors
/// [`InvalidTerm`]; also beyond `i64::MAX`, the largest number of a capability.
pub fn parse_size(text: &str) -> Result<u64, InvalidTerm> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (text.get(..text.len() - 1), 10),
        Some(b'm' | b'M') => (text.get(..text.len() - 1), 20),
        Some(b'g' | b'G') => (text.get(..text.len() - 1), 30),
        _ => (Some(text), 0),
    };
    let digits = digits.filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit())).ok_or(InvalidTerm)?;
    let number: i64 = digits.parse().map_err(|_| InvalidTerm)?;
    number.checked_mul(1 << shift).and_then(|bytes| u64::try_from(bytes).ok()).ok_or(InvalidTerm)
}

/// Requests for each second, minute or hour: `10/s`, `100/m`, `1000/h`.
///
/// # Errors
/// [`InvalidTerm`].
pub fn parse_rate(text: &str) -> Result<Rate, InvalidTerm> {
    let (limit, unit) = text.split_once('/').ok_or(InvalidTerm)?;
    let window_s = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(InvalidTerm),
    };
    let plain = limit.bytes().all(|b| b.is_ascii_digit());
    let limit: i64 = if plain { limit.parse().map_err(|_| InvalidTerm)? } else { return Err(InvalidTerm) };
    Ok(Rate { limit: u64::try_from(limit).map_err(|_| InvalidTerm)?, window_s })
}

/// Everything that a person sets for one block besides whom it is for and what it counts.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// Not valid from then on.
    pub expires_at: Option<UnixSeconds>,
    /// Not valid before.
    pub not_before: Option<UnixSeconds>,
    /// So many more changes of holder after this block.
    pub max_hops: Option<u32>,
    /// Only for proxies of these names; none for any.
    pub audiences: Vec<String>,
    /// Only with proofs of these kinds; none for any.
    pub proofs: Vec<ProofKind>,
    /// Only for what one of these covers; none for all that the chain allows.
    pub allow: Vec<Grant>,
}

impl Terms {
    /// The checks of the block, in the order that people read them. `hop` is the block's own: 0 for the authority block,
    /// one more than before for a delegation, the same for a narrowing.
    ///
    /// # Errors
    /// [`TooManyGrants`] beyond 16.
    pub fn caveats(&self, hop: u32) -> Result<Vec<String>, TooManyGrants> {
        let checks = [
            self.expires_at.map(expires_at),
            self.not_before.map(not_before),
            self.max_hops.map(|more| max_hops(hop, more)),
            audiences(&self.audiences),
            proofs(&self.proofs),
            grants_to_check(&self.allow)?,
        ];
        Ok(checks.into_iter().flatten().collect())
    }
}

/// The check that ends a capability: not valid from that moment on.
#[must_use]
pub fn expires_at(moment: UnixSeconds) -> String {
    format!("check if time($time), $time < {}", moment.min(LAST_MOMENT))
}

/// The check that starts one: not valid before that moment.
#[must_use]
pub fn not_before(moment: UnixSeconds) -> String {
    format!("check if time($time), $time >= {}", moment.min(LAST_MOMENT))
}

/// At most `more` changes of holder after this block, which is itself the `hop`th (0 for the authority block; a
/// delegation counts as one, a narrowing does not).
#[must_use]
pub fn max_hops(hop: u32, more: u32) -> String {
    format!("check if hop($hop), $hop <= {}", hop.saturating_add(more))
}

/// Only for proxies of these names.
#[must_use]
pub fn audiences(names: &[String]) -> Option<String> {
    let rows: Vec<String> = names.iter().map(|name| format!("audience({})", string_literal(name))).collect();
    if rows.is_empty() { None } else { Some(format!("check if {}", rows.join(" or "))) }
}

/// Only with proofs of these kinds.
#[must_use]
pub fn proofs(kinds: &[ProofKind]) -> Option<String> {
    let rows: Vec<String> = kinds.iter().map(|kind| format!("proof({})", string_literal(kind.as_str()))).collect();
    if rows.is_empty() { None } else { Some(format!("check if {}", rows.join(" or "))) }
}

/// A Datalog string. Its parser knows three escapes; every other character stands for itself.
pub(super) fn string_literal(value: &str) -> String {
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}

pub(super) fn bytes_literal(bytes: &[u8]) -> String {
    format!("hex:{}", hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_sums_of_whole_units() {
        for (text, seconds) in
            [("30s", 30), ("10m", 600), ("1h", 3600), ("8h", 28_800), ("7d", 604_800), ("1h30m", 5400)]
        {
            assert_eq!(parse_duration_s(text), Ok(seconds), "{text}");
        }
        for text in
            ["", "0s", "10", "m", "-1m", "1.5h", "1 h", "10M", "1h30", "99999999999999999999s", "9999999999999999w"]
        {
            assert_eq!(parse_duration_s(text), Err(InvalidTerm), "{text}");
        }
    }

    #[test]
    fn moments_are_durations_from_now_or_rfc_3339() {
        let now = UnixSeconds(1_800_000_000);
        assert_eq!(parse_moment("10m", now), Ok(now + 600));
        assert_eq!(parse_moment("2027-01-15T08:00:00Z", now), Ok(now));
        assert_eq!(parse_moment("2027-01-15T09:00:00+01:00", now), Ok(now));
        for text in ["", "tomorrow", "2027-01-15", "2027-01-15T08:00:00", "1969-12-31T23:59:59Z", "9999999w"] {
            assert_eq!(parse_moment(text, now), Err(InvalidTerm), "{text}");
        }
    }

    #[test]
    fn sizes_and_rates() {
        for (text, bytes) in [("0", 0), ("65536", 65536), ("64k", 65536), ("10M", 10 << 20), ("1G", 1 << 30)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "k", "-1", "+1", "1.5k", "1T", "9223372036854775808", "9007199254740992G", "é"] {
            assert_eq!(parse_size(text), Err(InvalidTerm), "{text}");
        }
        assert_eq!(parse_rate("10/s"), Ok(Rate { limit: 10, window_s: 1 }));
        assert_eq!(parse_rate("100/h"), Ok(Rate { limit: 100, window_s: 3600 }));
        for text in ["", "10", "10/", "/s", "10/d", "-1/s", "+1/s", "10/s/s"] {
            assert_eq!(parse_rate(text), Err(InvalidTerm), "{text}");
        }
    }

    #[test]
    fn terms_become_the_documented_checks() {
        let moment = UnixSeconds(1_800_000_000);
        assert_eq!(expires_at(moment), "check if time($time), $time < 2027-01-15T08:00:00Z");
        assert_eq!(not_before(moment), "check if time($time), $time >= 2027-01-15T08:00:00Z");
        assert_eq!(expires_at(UnixSeconds(u64::MAX)), "check if time($time), $time < 9999-12-30T22:00:00Z");
        assert_eq!(max_hops(1, 2), "check if hop($hop), $hop <= 3");
        let names = ["a\"b".to_owned(), "c".to_owned()];
        assert_eq!(audiences(&names).as_deref(), Some(r#"check if audience("a\"b") or audience("c")"#));
        assert_eq!(audiences(&[]), None);
        assert_eq!(proofs(&[ProofKind::Connect]).as_deref(), Some(r#"check if proof("connect")"#));
    }

    #[test]
    fn the_terms_of_a_block_are_checks_that_compile() {
        let grant = Grant::parse("acme:read path=/v1", &crate::capability::ParamNames::any()).expect("a grant");
        let terms = Terms {
            expires_at: Some(UnixSeconds(1_800_000_060)),
            not_before: Some(UnixSeconds(1_800_000_000)),
            max_hops: Some(0),
            audiences: vec!["local".to_owned()],
            proofs: vec![ProofKind::Connect],
            allow: vec![grant],
        };
        let checks = terms.caveats(2).expect("one grant");
        assert_eq!(checks.len(), 6);
        assert_eq!(checks[2], "check if hop($hop), $hop <= 2");
        let verified = crate::capability::testing::verified(&checks.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(verified.expires_at(), terms.expires_at);
        assert_eq!(Terms::default().caveats(0), Ok(vec![]));
    }
}
