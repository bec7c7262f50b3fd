//! Time, as the rest of the crate passes it around: a value, never a call.
//!
//! Only [`UnixSeconds::now`] reads the system's clock. The pure floors (`request`, `capability`,
//! `policy`) take a [`UnixSeconds`] as an argument and never call it.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::{SystemTime, UNIX_EPOCH};

/// A moment: whole seconds since 1970-01-01T00:00:00Z. Sums and differences saturate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(pub u64);

impl UnixSeconds {
    /// The system's clock, cut to whole seconds. A clock before 1970 reads as zero.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self(since.map_or(0, |elapsed| elapsed.as_secs()))
    }

    /// The number of seconds since the epoch.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Add<u64> for UnixSeconds {
    type Output = Self;

    fn add(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds))
    }
}

impl Sub<u64> for UnixSeconds {
    type Output = Self;

    fn sub(self, seconds: u64) -> Self {
        Self(self.0.saturating_sub(seconds))
    }
}

/// RFC 3339 in UTC, with seconds: `2027-01-15T15:40:12Z`. Beyond the year 9999: the number itself.
impl fmt::Display for UnixSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = i64::try_from(self.0).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
        match moment {
            Some(moment) => write!(f, "{moment}"),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_rfc_3339_and_survives_the_end_of_the_calendar() {
        assert_eq!(UnixSeconds(1_800_000_000).to_string(), "2027-01-15T08:00:00Z");
        assert_eq!(UnixSeconds(u64::MAX).to_string(), u64::MAX.to_string());
        assert_eq!(UnixSeconds(u64::MAX) + 1, UnixSeconds(u64::MAX));
        assert_eq!(UnixSeconds(1) - 2, UnixSeconds(0));
    }
}
