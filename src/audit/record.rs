//! What a request leaves in the journal: who and what ([`Intent`]), and how it ended ([`Outcome`]).

use std::sync::Arc;

use ulid::Ulid;

use super::json;
use crate::capability::PublicKey;
use crate::request::ProofKind;

/// What kind of line an entry becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// One request.
    Request,
    /// A tunnel that was refused, or carried unterminated.
    Tunnel,
}

impl Event {
    /// The journal's `event` member.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Tunnel => "tunnel",
        }
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It passed, and was answered by the upstream.
    Allowed,
    /// Refused here.
    Denied,
    /// Allowed, but the upstream or we could not serve it.
    Failed,
    /// Nobody waited for the end: the client went away, or the process died.
    Aborted,
}

impl Ending {
    /// The journal's `outcome` member.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
        }
    }
}

/// One hop of the chain, as the journal names it.
#[derive(Debug, Clone, Copy)]
pub struct IdentityHop<'a> {
    /// The holder's public key.
    pub holder: &'a PublicKey,
    /// What the delegation calls it.
    pub name: Option<&'a str>,
    /// The id of the block that made it a holder.
    pub block: &'a [u8; 32],
}

/// Whose request it is, written as JSON once per tunnel: `user`, `chain`, `capability`, `proof`, and `listener` where one
/// holds the capability.
#[derive(Debug, Clone)]
pub struct Identity(Arc<[u8]>);

impl Identity {
    /// Takes what a verified chain says. There is no way to make one from a claim, by convention of the callers: nobody's
    /// name is written on an unverified claim.
    ///
    /// `capability` is the SHA-256 of the capability as presented.
    #[must_use]
    pub fn new(
        user: Option<&str>,
        hops: &[IdentityHop<'_>],
        capability: &[u8; 32],
        proof: ProofKind,
        listener: Option<&str>,
    ) -> Self {
        let mut out = Vec::with_capacity(256 + 256 * hops.len());
        out.extend_from_slice(b"\"user\":");
        json::optional(&mut out, user);
        out.extend_from_slice(b",\"chain\":[");
        for (number, hop) in hops.iter().enumerate() {
            if number > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"holder\":");
            json::string(&mut out, &hop.holder.to_string());
            out.extend_from_slice(b",\"name\":");
            json::optional(&mut out, hop.name);
            out.extend_from_slice(b",\"block\":");
            json::string(&mut out, &hex::encode(hop.block));
            out.push(b'}');
        }
        out.extend_from_slice(b"],\"capability\":");
        json::string(&mut out, &hex::encode(capability));
        out.extend_from_slice(b",\"proof\":");
        json::string(&mut out, proof.as_str());
        if let Some(listener) = listener {
            out.extend_from_slice(b",\"listener\":");
            json::string(&mut out, listener);
        }
        Self(out.into())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What a request is about to do: recorded before the upstream sees a byte. `None` becomes `null`.
#[derive(Debug, Clone, Copy)]
pub struct Intent<'a> {
    /// The request's id, as in `Narrows-Request-Id`; never used twice.
    pub id: Ulid,
    /// When it began, milliseconds since 1970.
    pub time_ms: u64,
    /// Request or tunnel.
    pub event: Event,
    /// Whose it is; `None` when no chain was verified.
    pub identity: Option<&'a Identity>,
    /// The service.
    pub service: Option<&'a str>,
    /// The operation.
    pub operation: Option<&'a str>,
    /// The action, when a route matched.
    pub action: Option<&'a str>,
    /// The method, as sent.
    pub method: Option<&'a str>,
    /// The host, canonical.
    pub host: Option<&'a str>,
    /// The port.
    pub port: Option<u16>,
    /// The path without its query.
    pub path: Option<&'a str>,
    /// The name (never the value) of the secret that is injected.
    pub credential: Option<&'a str>,
    /// The peer, `ADDRESS:PORT` or `unix`.
    pub client: Option<&'a str>,
    /// The agent sent a credential of its own that was removed.
    pub foreign_credential: bool,
}

/// How a request ended: recorded before the agent has the end of the answer.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// The stable code (`docs/errors.md`), at most 40 bytes; `None` when it was simply served.
    pub code: Option<&'static str>,
    /// The status that the agent got.
    pub status: Option<u16>,
    /// Bytes of body towards the upstream.
    pub bytes_up: u64,
    /// Bytes of body towards the agent.
    pub bytes_down: u64,
    /// From the request's head to the answer's end, milliseconds.
    pub duration_ms: u64,
    /// What of that was waiting for the upstream's head, milliseconds.
    pub upstream_ms: Option<u64>,
    /// Also set when a credential of the agent's own turned up later, in a trailer.
    pub foreign_credential: bool,
}

/// The strings of an intent in the order of their places in a slot.
const TEXTS: usize = 9;
/// Words before the texts: id (2), time, event and port and flags, lengths (3).
const HEAD_WORDS: usize = 7;
/// The length that says "absent"; also the longest text's bound, in bytes.
const ABSENT: u16 = u16::MAX;

const HAS_PORT: u64 = 1;
const FOREIGN: u64 = 2;

/// Where words go, one after the other.
pub(super) trait WordSink {
    fn push(&mut self, word: u64);
}

impl<'a> Intent<'a> {
    fn texts(&self) -> [Option<&'a [u8]>; TEXTS] {
        let bytes = |text: Option<&'a str>| text.map(str::as_bytes);
        [
            self.identity.map(Identity::as_bytes),
            bytes(self.service),
            bytes(self.operation),
            bytes(self.action),
            bytes(self.method),
            bytes(self.host),
            bytes(self.path),
            bytes(self.credential),
            bytes(self.client),
        ]
    }

    /// How many 8-byte words [`Self::encode`] writes; `None` when a text is too long for any slot.
    pub(super) fn words(&self) -> Option<usize> {
        self.texts().iter().flatten().try_fold(HEAD_WORDS, |words, text| {
            (text.len() < usize::from(ABSENT)).then(|| words + text.len().div_ceil(8))
        })
    }

    /// Writes the intent as words: no allocation, every text starts on a word.
    pub(super) fn encode(&self, sink: &mut impl WordSink) {
        let (low, high) = halves(self.id.0);
        sink.push(low);
        sink.push(high);
        sink.push(self.time_ms);
        let flags = u64::from(self.port.is_some()) * HAS_PORT + u64::from(self.foreign_credential) * FOREIGN;
        let event = match self.event {
            Event::Request => 0,
            Event::Tunnel => 1,
        };
        sink.push(event | flags << 8 | u64::from(self.port.unwrap_or(0)) << 16);
        let texts = self.texts();
        for group in texts.chunks(4) {
            let mut word = 0;
            for (place, text) in group.iter().enumerate() {
                let length = text.map_or(ABSENT, |text| u16::try_from(text.len()).unwrap_or(ABSENT));
                word |= u64::from(length) << (16 * place);
            }
            sink.push(word);
        }
        for text in texts.into_iter().flatten() {
            let (words, rest) = text.as_chunks::<8>();
            for word in words {
                sink.push(u64::from_le_bytes(*word));
            }
            if !rest.is_empty() {
                let mut last = [0; 8];
                last[..rest.len()].copy_from_slice(rest);
                sink.push(u64::from_le_bytes(last));
            }
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "cut into halves on purpose")]
const fn halves(id: u128) -> (u64, u64) {
    (id as u64, (id >> 64) as u64)
}

/// An intent read back from a slot.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Recorded {
    pub(super) id: u128,
    pub(super) time_ms: u64,
    pub(super) event: Event,
    pub(super) port: Option<u16>,
    pub(super) foreign_credential: bool,
    texts: Vec<u8>,
    spans: [Option<(usize, usize)>; TEXTS],
}

impl Recorded {
    /// Reads what [`Intent::encode`] wrote; `None` for anything else.
    pub(super) fn decode(words: &[u64]) -> Option<Self> {
        let (head, texts) = words.split_at_checked(HEAD_WORDS)?;
        let [low, high, time_ms, kind, first, second, third] = *head else { return None };
        let lengths = [first, second, third].into_iter().flat_map(u64::to_le_bytes).collect::<Vec<u8>>();
        let texts: Vec<u8> = texts.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut spans = [None; TEXTS];
        let mut at = 0;
        for (span, length) in spans.iter_mut().zip(lengths.as_chunks::<2>().0) {
            let length = u16::from_le_bytes(*length);
            if length == ABSENT {
                continue;
            }
            let end = at + usize::from(length);
            str::from_utf8(texts.get(at..end)?).ok()?;
            *span = Some((at, end));
            at = end.next_multiple_of(8);
        }
        let event = match kind & 0xff {
            0 => Event::Request,
            1 => Event::Tunnel,
            _ => return None,
        };
        let flags = kind >> 8 & 0xff;
        Some(Self {
            id: u128::from(high) << 64 | u128::from(low),
            time_ms,
            event,
            port: if flags & HAS_PORT == 0 { None } else { u16::try_from(kind >> 16 & 0xffff).ok() },
            foreign_credential: flags & FOREIGN != 0,
            texts,
            spans,
        })
    }

    /// Its line is not longer than this, in bytes: a byte takes at most six when it is escaped.
    pub(super) fn line_bytes_max(&self) -> usize {
        6 * self.texts.len() + 1024
    }

    fn text(&self, place: usize) -> Option<&str> {
        let (from, to) = (*self.spans.get(place)?)?;
        str::from_utf8(self.texts.get(from..to)?).ok()
    }

    pub(super) fn identity(&self) -> Option<&str> {
        self.text(0)
    }

    pub(super) fn service(&self) -> Option<&str> {
        self.text(1)
    }

    pub(super) fn operation(&self) -> Option<&str> {
        self.text(2)
    }

    pub(super) fn action(&self) -> Option<&str> {
        self.text(3)
    }

    pub(super) fn method(&self) -> Option<&str> {
        self.text(4)
    }

    pub(super) fn host(&self) -> Option<&str> {
        self.text(5)
    }

    pub(super) fn path(&self) -> Option<&str> {
        self.text(6)
    }

    pub(super) fn credential(&self) -> Option<&str> {
        self.text(7)
    }

    pub(super) fn client(&self) -> Option<&str> {
        self.text(8)
    }
}

/// A code longer than this is cut, in bytes.
pub(super) const CODE_BYTES_MAX: usize = 40;
/// What [`Ended::encode`] writes.
pub(super) const OUTCOME_WORDS: usize = 5 + CODE_BYTES_MAX / 8;

/// An outcome as a slot holds it: what nobody measured is absent, not zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) ending: Ending,
    pub(super) code: Option<([u8; CODE_BYTES_MAX], usize)>,
    pub(super) status: Option<u16>,
    pub(super) bytes: Option<(u64, u64)>,
    pub(super) duration_ms: Option<u64>,
    pub(super) upstream_ms: Option<u64>,
    pub(super) foreign_credential: bool,
}

const HAS_CODE: u64 = 1;
const HAS_STATUS: u64 = 2;
const HAS_BYTES: u64 = 4;
const HAS_DURATION: u64 = 8;
const HAS_UPSTREAM: u64 = 16;
const FOREIGN_LATE: u64 = 32;

impl Ended {
    /// Nobody finished it; `duration_ms` is known unless the process died.
    pub(super) const fn aborted(duration_ms: Option<u64>) -> Self {
        Self {
            ending: Ending::Aborted,
            code: None,
            status: None,
            bytes: None,
            duration_ms,
            upstream_ms: None,
            foreign_credential: false,
        }
    }

    pub(super) fn code(&self) -> Option<&str> {
        let (bytes, length) = self.code.as_ref()?;
        str::from_utf8(bytes.get(..*length)?).ok()
    }

    pub(super) fn encode(&self) -> [u64; OUTCOME_WORDS] {
        let ending = match self.ending {
            Ending::Allowed => 0,
            Ending::Denied => 1,
            Ending::Failed => 2,
            Ending::Aborted => 3,
        };
        let flags: u64 = [
            (self.code.is_some(), HAS_CODE),
            (self.status.is_some(), HAS_STATUS),
            (self.bytes.is_some(), HAS_BYTES),
            (self.duration_ms.is_some(), HAS_DURATION),
            (self.upstream_ms.is_some(), HAS_UPSTREAM),
            (self.foreign_credential, FOREIGN_LATE),
        ]
        .into_iter()
        .map(|(has, flag)| u64::from(has) * flag)
        .sum();
        let (code, length) = self.code.unwrap_or(([0; CODE_BYTES_MAX], 0));
        let (up, down) = self.bytes.unwrap_or((0, 0));
        let mut words = [0; OUTCOME_WORDS];
        words[0] = ending | flags << 8 | u64::from(self.status.unwrap_or(0)) << 16 | (length as u64) << 32;
        words[1] = up;
        words[2] = down;
        words[3] = self.duration_ms.unwrap_or(0);
        words[4] = self.upstream_ms.unwrap_or(0);
        for (word, chunk) in words[5..].iter_mut().zip(code.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*chunk);
        }
        words
    }

    pub(super) fn decode(words: [u64; OUTCOME_WORDS]) -> Option<Self> {
        let [kind, up, down, duration, upstream, code @ ..] = words;
        let flags = kind >> 8 & 0xff;
        let has = |flag| flags & flag != 0;
        let mut bytes = [0; CODE_BYTES_MAX];
        for (chunk, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(code) {
            *chunk = word.to_le_bytes();
        }
        Some(Self {
            ending: match kind & 0xff {
                0 => Ending::Allowed,
                1 => Ending::Denied,
                2 => Ending::Failed,
                3 => Ending::Aborted,
                _ => return None,
            },
            code: has(HAS_CODE).then(|| (bytes, usize::try_from(kind >> 32 & 0xff).unwrap_or(0))),
            status: if has(HAS_STATUS) { u16::try_from(kind >> 16 & 0xffff).ok() } else { None },
            bytes: has(HAS_BYTES).then_some((up, down)),
            duration_ms: has(HAS_DURATION).then_some(duration),
            upstream_ms: has(HAS_UPSTREAM).then_some(upstream),
            foreign_credential: has(FOREIGN_LATE),
        })
    }
}

impl From<&Outcome> for Ended {
    fn from(outcome: &Outcome) -> Self {
        let code = outcome.code.map(|code| {
            let length = code.len().min(CODE_BYTES_MAX);
            let mut bytes = [0; CODE_BYTES_MAX];
            bytes[..length].copy_from_slice(&code.as_bytes()[..length]);
            (bytes, length)
        });
        Self {
            ending: outcome.ending,
            code,
            status: outcome.status,
            bytes: Some((outcome.bytes_up, outcome.bytes_down)),
            duration_ms: Some(outcome.duration_ms),
            upstream_ms: outcome.upstream_ms,
            foreign_credential: outcome.foreign_credential,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl WordSink for Vec<u64> {
        fn push(&mut self, word: u64) {
            self.push(word);
        }
    }

    proptest! {
        #[test]
        fn an_intent_reads_back(id in any::<u128>(), time_ms in any::<u64>(), port in any::<Option<u16>>(),
            foreign_credential in any::<bool>(), service in any::<Option<String>>(), path in any::<Option<String>>(),
            client in any::<Option<String>>()) {
            let identity = Identity::new(Some("alice"), &[], &[7; 32], ProofKind::Connect, None);
            let intent = Intent {
                id: Ulid(id), time_ms, event: Event::Tunnel, identity: Some(&identity), service: service.as_deref(),
                operation: None, action: Some(""), method: Some("GET"), host: Some("api.test"), port,
                path: path.as_deref(), credential: None, client: client.as_deref(), foreign_credential,
            };
            let mut words = Vec::new();
            intent.encode(&mut words);
            prop_assert_eq!(Some(words.len()), intent.words());
            let read = Recorded::decode(&words).expect("an intent");
            prop_assert_eq!((read.id, read.time_ms, read.port), (id, time_ms, port));
            prop_assert_eq!((read.foreign_credential, read.event), (foreign_credential, Event::Tunnel));
            prop_assert_eq!(read.identity().map(str::as_bytes), Some(identity.as_bytes()));
            prop_assert_eq!((read.service(), read.path()), (service.as_deref(), path.as_deref()));
            prop_assert_eq!((read.operation(), read.action(), read.method()), (None, Some(""), Some("GET")));
            prop_assert_eq!((read.host(), read.credential(), read.client()), (Some("api.test"), None, client.as_deref()));
        }

        #[test]
        fn any_words_read_or_are_refused(words in prop::collection::vec(any::<u64>(), 0..64)) {
            let _ = Recorded::decode(&words);
        }

        #[test]
        fn an_outcome_reads_back(status in any::<Option<u16>>(), up in any::<u64>(), down in any::<u64>(),
            duration_ms in any::<u64>(), upstream_ms in any::<Option<u64>>(), foreign_credential in any::<bool>()) {
            let outcome = Outcome { ending: Ending::Denied, code: Some("capability_denied"), status, bytes_up: up,
                bytes_down: down, duration_ms, upstream_ms, foreign_credential };
            let ended = Ended::from(&outcome);
            let read = Ended::decode(ended.encode()).expect("an outcome");
            prop_assert_eq!(read.code(), Some("capability_denied"));
            prop_assert_eq!(read, ended);
        }
    }
}
