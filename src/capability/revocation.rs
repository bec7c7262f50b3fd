//! What has been revoked: blocks and holders. Either kills every capability that it is part of, the whole subtree.
//!
//! Deliberately absent: the file. Where nothing is known yet, a line that cannot be read makes the whole list unreadable,
//! and the caller refuses what it cannot judge; where a list is in force, every other line is added to it.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{BlockId, Chain, PublicKey};
use crate::clock::UnixSeconds;

/// One revocation, and its line in the list: `{"block":"<hex>"}` or `{"holder":"ed25519/…"}`, with `time`, `reason` and
/// `by` for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// What is dead.
    pub subject: Subject,
    /// When it was written, RFC 3339.
    pub time: Option<String>,
    /// Why, in the words of whoever wrote it.
    pub reason: Option<String>,
    /// Who wrote it.
    pub by: Option<String>,
}

/// What a revocation names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A block: the capabilities that contain it.
    Block(BlockId),
    /// A holder's key: the capabilities in whose chain it occurs.
    Holder(PublicKey),
}

/// A line of the list that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the revocation list is not a revocation: {problem}")]
pub struct BadRevocation {
    /// From 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    block: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    holder: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
}

impl Revocation {
    /// A revocation dated `now`.
    #[must_use]
    pub fn new(subject: Subject, now: UnixSeconds, reason: Option<String>, by: Option<String>) -> Self {
        Self { subject, time: Some(now.to_string()), reason, by }
    }

    /// Reads one line. A member that is not known is an error: it might limit what is revoked.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(line: &str) -> Result<Self, String> {
        let Line { block, holder, time, reason, by } =
            serde_json::from_str(line).map_err(|error| format!("{error}"))?;
        let subject = match (block, holder) {
            (Some(block), None) => Subject::Block(block.parse().map_err(|error| format!("{error}"))?),
            (None, Some(holder)) => Subject::Holder(holder.parse().map_err(|error| format!("{error}"))?),
            _ => return Err("it must name either a block or a holder".to_owned()),
        };
        Ok(Self { subject, time, reason, by })
    }

    /// The line, without its end. What a control character in a reason could break is escaped by JSON.
    #[must_use]
    pub fn to_line(&self) -> String {
        let (block, holder) = match self.subject {
            Subject::Block(block) => (Some(block.to_string()), None),
            Subject::Holder(holder) => (None, Some(holder.to_string())),
        };
        let line = Line { block, holder, time: self.time.clone(), reason: self.reason.clone(), by: self.by.clone() };
        // Strings in named members always serialize.
        serde_json::to_string(&line).unwrap_or_default()
    }
}

/// The list, read once and never changed: a new list is a new value.
#[derive(Debug, Clone, Default)]
pub struct Revocations {
    blocks: HashSet<BlockId>,
    holders: HashSet<PublicKey>,
}

/// Which part of a capability is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revoked {
    /// The index of the block that is revoked, or that names the revoked holder.
    pub block: usize,
    /// What the list names.
    pub subject: Subject,
}

impl Revocations {
    /// Reads the lines of a list; blank ones are skipped.
    ///
    /// # Errors
    /// [`BadRevocation`] names the first line that cannot be read: nothing may be judged by such a list.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Self, BadRevocation> {
        match Self::of(lines.into_iter().map(str::as_bytes)) {
            (revocations, None) => Ok(revocations),
            (_, Some(bad)) => Err(bad),
        }
    }

    /// What the lines that can be read revoke, and the first one that cannot; blank ones are skipped.
    pub fn of<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> (Self, Option<BadRevocation>) {
        let (mut revocations, mut bad) = (Self::default(), None);
        for (at, line) in lines.into_iter().enumerate() {
            let read = match str::from_utf8(line) {
                Ok(line) if line.trim().is_empty() => continue,
                Ok(line) => Revocation::parse(line),
                Err(_) => Err("it is not UTF-8".to_owned()),
            };
            match read {
                Ok(revocation) => revocations.add(revocation.subject),
                Err(problem) => _ = bad.get_or_insert(BadRevocation { line: at + 1, problem }),
            }
        }
        (revocations, bad)
    }

    /// Adds to a list that is being made.
    pub fn add(&mut self, subject: Subject) {
        match subject {
            Subject::Block(block) => _ = self.blocks.insert(block),
            Subject::Holder(holder) => _ = self.holders.insert(holder),
        }
    }

    /// Revokes what `before` revoked, too. Returns how much of that this list did not say.
    pub fn keep(&mut self, before: &Self) -> usize {
        let said = self.len();
        self.blocks.extend(&before.blocks);
        self.holders.extend(&before.holders);
        self.len() - said
    }

    /// Whether it names this block or holder.
    #[must_use]
    pub fn names(&self, subject: Subject) -> bool {
        match subject {
            Subject::Block(block) => self.blocks.contains(&block),
            Subject::Holder(holder) => self.holders.contains(&holder),
        }
    }

    /// How many blocks and holders are revoked.
    #[must_use]
    pub fn len(&self) -> usize {
        self.blocks.len() + self.holders.len()
    }

    /// Whether nothing is revoked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first part of a capability's chain that is revoked.
    #[must_use]
    pub fn is_revoked(&self, chain: &Chain) -> Option<Revoked> {
        if self.is_empty() {
            return None;
        }
        let mut hops = chain.holders().iter().peekable();
        for (at, block) in chain.blocks().iter().enumerate() {
            if self.blocks.contains(&block.id()) {
                return Some(Revoked { block: at, subject: Subject::Block(block.id()) });
            }
            if let Some(hop) = hops.next_if(|hop| hop.block == block.id())
                && self.holders.contains(&hop.holder)
            {
                return Some(Revoked { block: at, subject: Subject::Holder(hop.holder) });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ALICE, ORCHESTRATOR, WORKER, chain_of, key};
    use super::*;

    fn list(subject: Subject) -> Revocations {
        let line =
            Revocation::new(subject, UnixSeconds(1_800_000_000), Some("lost\n\"it\"".to_owned()), None).to_line();
        assert!(!line.contains('\n'));
        Revocations::parse([line.as_str()]).expect("its own line")
    }

    #[test]
    fn a_block_or_holder_kills_its_subtree_and_leaves_siblings_alive() {
        let parent = chain_of(&[ALICE, ORCHESTRATOR]);
        let child = chain_of(&[ALICE, ORCHESTRATOR, WORKER]);
        let sibling = chain_of(&[ALICE, WORKER]);
        let delegation = parent.blocks()[1].id();
        let by_block = list(Subject::Block(delegation));
        let expected = Some(Revoked { block: 1, subject: Subject::Block(delegation) });
        assert_eq!(by_block.is_revoked(&parent), expected);
        assert_eq!(by_block.is_revoked(&child), expected);
        assert_eq!(by_block.is_revoked(&sibling), None);

        let orchestrator = *key(ORCHESTRATOR).public();
        let by_holder = list(Subject::Holder(orchestrator));
        let expected = Some(Revoked { block: 1, subject: Subject::Holder(orchestrator) });
        assert_eq!(by_holder.is_revoked(&parent), expected);
        assert_eq!(by_holder.is_revoked(&child), expected);
        assert_eq!(by_holder.is_revoked(&sibling), None);

        let root = list(Subject::Block(parent.blocks()[0].id()));
        for chain in [&parent, &child, &sibling] {
            assert_eq!(root.is_revoked(chain).map(|revoked| revoked.block), Some(0));
        }
        assert_eq!(Revocations::default().is_revoked(&child), None);
    }

    #[test]
    fn a_block_id_one_bit_away_revokes_nothing() {
        let chain = chain_of(&[ALICE]);
        let mut id = chain.blocks()[0].id();
        id.0[31] ^= 1;
        assert_eq!(list(Subject::Block(id)).is_revoked(&chain), None);
    }

    #[test]
    fn what_a_list_before_said_is_kept_and_what_is_lost_is_counted() {
        let chain = chain_of(&[ALICE, ORCHESTRATOR]);
        let block = list(Subject::Block(chain.blocks()[0].id()));
        let holder = list(Subject::Holder(*key(ORCHESTRATOR).public()));
        let mut both = block.clone();
        assert_eq!(both.keep(&holder), 1);
        assert_eq!(both.keep(&block), 0);
        let mut next = Revocations::default();
        assert_eq!(next.keep(&both), 2);
        assert!(next.is_revoked(&chain).is_some());
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named() {
        let good = format!("{{\"block\":\"{}\"}}", "ab".repeat(32));
        for bad in [
            "{",
            "{}",
            "[]",
            "null",
            "{\"block\":\"ab\"}",
            "{\"block\":7}",
            "{\"holder\":\"ed25519/00\"}",
            &good.replace("ab", "AB"),
            &good.replace('}', ",\"until\":\"tomorrow\"}"),
            &good.replace('}', &format!(",\"holder\":\"{}\"}}", key(ALICE).public())),
            &format!("{good}{good}"),
        ] {
            let error = Revocations::parse([good.as_str(), "", bad]).expect_err(bad);
            assert_eq!(error.line, 3, "{bad}");
            // The lines around it can be read all the same.
            let other = good.replace("ab", "cd");
            let (read, first) = Revocations::of([bad, &good, "\u{fffd}", &other].map(str::as_bytes));
            assert_eq!((read.len(), first.map(|bad| bad.line)), (2, Some(1)), "{bad}");
        }
        let (read, bad) = Revocations::of([&b"\xff"[..], good.as_bytes()]);
        assert_eq!((read.len(), bad.map(|bad| bad.line)), (1, Some(1)));
        assert_eq!(Revocations::parse([good.as_str(), "  ", &good]).expect("a list").len(), 1);
    }
}
