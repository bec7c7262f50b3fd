//! Durations and sizes as people write them.

use std::time::Duration;

/// A text is no duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a duration is a whole number and its unit: \"500ms\", \"30s\", \"10m\", \"12h\", \"7d\"")]
pub struct BadDuration;

/// A text is no size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a size is a whole number of bytes, with k, M or G for powers of 1024: \"64k\"")]
pub struct BadSize;

/// Parses `500ms`, `30s`, `10m`, `12h`, `7d`.
///
/// # Errors
/// [`BadDuration`]; a bare number has no unit and is refused too.
pub fn parse_duration(text: &str) -> Result<Duration, BadDuration> {
    let (number, unit) = split(text).ok_or(BadDuration)?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(BadDuration),
    };
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or(BadDuration)
}

/// Parses `512`, `64k`, `16M`, `1G`.
///
/// # Errors
/// [`BadSize`].
pub fn parse_size(text: &str) -> Result<u64, BadSize> {
    let (number, unit) = split(text).ok_or(BadSize)?;
    let bytes = match unit {
        "" => 1,
        "k" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return Err(BadSize),
    };
    number.checked_mul(bytes).ok_or(BadSize)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(at);
    Some((digits.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("12h"), Ok(Duration::from_hours(12)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_hours(168)));
        for text in ["", "30", "s", "-1s", "1.5h", "1 s", "1w", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(parse_duration(text), Err(BadDuration), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(parse_size("512"), Ok(512));
        assert_eq!(parse_size("64k"), Ok(65_536));
        assert_eq!(parse_size("1G"), Ok(1 << 30));
        for text in ["", "k", "64K", "64kB", "-1", "1.5M", "18446744073709551615G"] {
            assert_eq!(parse_size(text), Err(BadSize), "{text:?}");
        }
    }
}
