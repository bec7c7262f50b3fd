//! An intent of two words and an outcome of one: enough to see whether they belong together.

use std::marker::PhantomData;

pub(super) const OUTCOME_WORDS: usize = 1;

pub(super) trait WordSink {
    fn push(&mut self, word: u64);
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Intent<'a> {
    pub(crate) id: u64,
    pub(crate) texts: PhantomData<&'a str>,
}

impl Intent<'_> {
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "as the journal's intents have it")]
    pub(super) fn words(&self) -> Option<usize> {
        Some(2)
    }

    pub(super) fn encode(&self, sink: &mut impl WordSink) {
        sink.push(self.id);
        sink.push(!self.id);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) id: u64,
    pub(super) time_ms: u64,
}

impl Recorded {
    pub(super) fn decode(words: &[u64]) -> Option<Self> {
        let [id, inverse] = *words else { return None };
        (inverse == !id).then_some(Self { id, time_ms: 0 })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended(pub(crate) u64);

impl Ended {
    pub(super) fn encode(&self) -> [u64; OUTCOME_WORDS] {
        [self.0]
    }

    #[expect(clippy::unnecessary_wraps, reason = "as the journal's outcomes have it")]
    pub(super) fn decode(words: [u64; OUTCOME_WORDS]) -> Option<Self> {
        Some(Self(words[0]))
    }
}
