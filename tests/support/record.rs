//! What an origin saw, in the order in which requests arrived.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use aws_lc_rs::digest;
use http::{HeaderMap, Version};

use super::PATIENCE;

/// One request as it reached the origin.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// The request-target's path and query, as they were on the wire.
    pub(crate) path: String,
    /// `Host`, or `:authority` on HTTP/2.
    pub(crate) host: String,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body_len: u64,
    /// Lower hex, once the whole body was read.
    pub(crate) body_sha256: Option<String>,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) end: End,
    /// Which connection it came on, counted from 0.
    pub(crate) connection: u64,
}

/// How an exchange ended, from the origin's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Still going on.
    Open,
    /// The origin handed the last byte of its answer to the transport.
    Complete,
    /// The peer went away before that.
    Aborted,
}

impl Seen {
    /// The header's value, `None` when it is absent, and a panic when there are several.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next()?;
        assert!(values.next().is_none(), "more than one {name} header reached the origin: {:?}", self.headers);
        Some(std::str::from_utf8(first.as_bytes()).unwrap())
    }
}

/// The record of one origin. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Record {
    inner: Arc<(Mutex<Vec<Seen>>, Condvar)>,
}

impl Record {
    /// Everything seen so far.
    pub(crate) fn all(&self) -> Vec<Seen> {
        self.inner.0.lock().unwrap().clone()
    }

    /// Waits until `enough` holds for what was seen.
    pub(crate) fn wait(&self, what: &str, enough: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        let (seen, changed) = &*self.inner;
        let deadline = Instant::now() + PATIENCE;
        let mut seen = seen.lock().unwrap();
        while !enough(&seen) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the origin never saw {what}; it saw {:#?}", *seen);
            seen = changed.wait_timeout(seen, left).unwrap().0;
        }
        seen.clone()
    }

    pub(crate) fn open(&self, seen: Seen) -> Entry {
        let mut all = self.inner.0.lock().unwrap();
        all.push(seen);
        self.inner.1.notify_all();
        Entry { record: self.clone(), index: all.len() - 1 }
    }
}

/// A handle on one request's row.
#[derive(Clone)]
pub(crate) struct Entry {
    record: Record,
    index: usize,
}

impl Entry {
    pub(crate) fn change(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.record.inner.0.lock().unwrap()[self.index]);
        self.record.inner.1.notify_all();
    }
}

/// Lower hex SHA-256.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}
