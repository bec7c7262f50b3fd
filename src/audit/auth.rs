//! Failures to authenticate, counted: one line per client, code and second.
#![expect(clippy::disallowed_types, reason = "not on the path of a request: counts failures to authenticate")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::UnixSeconds;

/// So many (client, code) pairs are told apart within a second; the rest are counted together, without a client.
const KEYS_MAX: usize = 1024;

/// One line's worth of failures.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failures {
    pub(super) second: u64,
    pub(super) client: Option<String>,
    /// The listener that held a capability for the client, where one did.
    pub(super) listener: Option<Arc<str>>,
    pub(super) code: &'static str,
    pub(super) count: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Client {
    Address(IpAddr),
    Socket,
    TooMany,
}

/// Second, client, code and listener.
type Key = (u64, Client, &'static str, Option<Arc<str>>);

/// The failures of the seconds that are not written yet.
#[derive(Debug, Default)]
pub(super) struct Tally {
    counts: Mutex<BTreeMap<Key, u64>>,
}

impl Tally {
    /// Counts one. `None` is a client on a Unix socket.
    pub(super) fn add(
        &self,
        client: Option<IpAddr>,
        listener: Option<&Arc<str>>,
        code: &'static str,
        now: UnixSeconds,
    ) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let client = client.map_or(Client::Socket, |address| Client::Address(address.to_canonical()));
        let key = (now.get(), client, code, listener.cloned());
        let key = if counts.len() < KEYS_MAX || counts.contains_key(&key) {
            key
        } else {
            // When even that second's common line has no place, the last second's has: codes are a closed list.
            let second = counts.last_key_value().map_or(now.get(), |((second, ..), _)| *second);
            (second, Client::TooMany, code, None)
        };
        let count = counts.entry(key).or_insert(0);
        *count = count.saturating_add(1);
    }

    /// Takes out what belongs to seconds before `now`, or everything.
    pub(super) fn take(&self, before: Option<UnixSeconds>) -> Vec<Failures> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = match before {
            // A clock that ran backwards must not keep a count for ever: what lies ahead is taken too.
            Some(now) => {
                let (taken, kept) =
                    std::mem::take(&mut *counts).into_iter().partition(|((second, ..), _)| *second != now.get());
                *counts = kept;
                taken
            }
            None => std::mem::take(&mut *counts),
        };
        drop(counts);
        let line = |((second, client, code, listener), count): (Key, u64)| Failures {
            second,
            client: match client {
                Client::Address(address) => Some(address.to_string()),
                Client::Socket => Some("unix".to_owned()),
                Client::TooMany => None,
            },
            listener,
            code,
            count,
        };
        kept.into_iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn one_line_per_client_code_and_second_and_a_bound() {
        let tally = Tally::default();
        let client = |last| Some(IpAddr::from(Ipv4Addr::new(10, 0, last, 1)));
        for second in [5, 5, 6] {
            tally.add(client(1), None, "proof_invalid", UnixSeconds(second));
        }
        tally.add(client(1), None, "proof_expired", UnixSeconds(5));
        tally.add(None, None, "proof_invalid", UnixSeconds(5));
        tally.add(None, Some(&"pod".into()), "proof_invalid", UnixSeconds(5));
        let lines = tally.take(Some(UnixSeconds(6)));
        assert_eq!(lines.iter().map(|line| line.count).collect::<Vec<_>>(), [1, 2, 1, 1]);
        assert_eq!(lines.iter().filter(|line| line.listener.is_some()).count(), 1);
        assert_eq!(tally.take(None).len(), 1);

        for number in 0..10_000_u32 {
            tally.add(Some(IpAddr::from(Ipv4Addr::from_bits(number))), None, "proof_invalid", UnixSeconds(7));
        }
        let lines = tally.take(None);
        assert_eq!(lines.len(), KEYS_MAX + 1);
        assert_eq!(lines.iter().map(|line| line.count).sum::<u64>(), 10_000);
    }
}
