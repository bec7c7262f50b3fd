//! The decision on the facts of a request, and its reasons.
//!
//! [`Verified::permits`] is what every request runs; [`Verified::failures`] answers why not, and gives the same verdict:
//! it is empty exactly when the request is permitted.

use super::caveat::{Caveat, FailedRow, Mismatch, shortened};
use super::chain::Verified;
use super::vocabulary::Right;
use crate::request::Facts;

/// One reason why a request is not permitted: no right for it, or a caveat that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The block's index, 0 for the authority block, whose rights they are too.
    pub block: usize,
    /// The caveat's index in its block; `None` when no right covers the request.
    pub caveat: Option<usize>,
    /// The caveat, or the rights, as people read them; control and format characters escaped, and cut after half a
    /// kilobyte.
    pub text: String,
    /// One for each alternative, and what fails in it.
    pub rows: Vec<FailedRow>,
    /// Whether it reads no other fact than `time`.
    pub only_time: bool,
}

impl Failure {
    /// Whether an approval alone would make it hold: some alternative lacks nothing else.
    #[must_use]
    pub fn wants_approval(&self) -> bool {
        let lacks_only_approval = |row: &FailedRow| row.mismatches.iter().all(|mismatch| mismatch.approval);
        self.rows.iter().any(|row| !row.mismatches.is_empty() && lacks_only_approval(row))
    }
}

impl Right {
    fn covers(&self, facts: &Facts<'_>) -> bool {
        *self.service == *facts.service
            && self.operation.as_ref().is_none_or(|operation| **operation == *facts.operation)
    }

    fn text(&self) -> String {
        match &self.operation {
            Some(operation) => format!("{:?} {operation:?}", self.service),
            None => format!("{:?} any operation", self.service),
        }
    }

    fn failed(&self, facts: &Facts<'_>) -> FailedRow {
        let mut mismatches = Vec::new();
        if *self.service != *facts.service {
            mismatches.push(mismatch("service", &self.service, facts.service));
        }
        if let Some(operation) = self.operation.as_ref().filter(|operation| ***operation != *facts.operation) {
            mismatches.push(mismatch("operation", operation, facts.operation));
        }
        FailedRow { mismatches }
    }
}

fn mismatch(column: &str, wanted: &str, seen: &str) -> Mismatch {
    Mismatch {
        columns: vec![column.to_owned()],
        wanted: shortened(&format_args!("{column} = {wanted:?}")),
        seen: Some(shortened(&format_args!("{seen:?}"))),
        approval: false,
    }
}

impl Verified {
    /// Whether a right covers the request and every caveat of every block holds. Allocates nothing.
    ///
    /// It knows nothing of revocation, possession and budgets: `policy` is the door.
    #[must_use]
    pub fn permits(&self, facts: &Facts<'_>) -> bool {
        self.rights().iter().any(|right| right.covers(facts))
            && self.blocks().iter().all(|block| block.caveats().iter().all(|caveat| caveat.holds(facts)))
    }

    /// Every reason why the request is not permitted, the missing right first, then the caveats in the order of the
    /// blocks. For people and error bodies.
    #[must_use]
    pub fn failures(&self, facts: &Facts<'_>) -> Vec<Failure> {
        let caveats = self.blocks().iter().enumerate().flat_map(|(index, block)| {
            let failed = block.caveats().iter().enumerate().filter(|(_, caveat)| !caveat.holds(facts));
            failed.map(move |(caveat_index, caveat)| failure(index, caveat_index, caveat, facts))
        });
        self.missing_right(facts).into_iter().chain(caveats).collect()
    }

    fn missing_right(&self, facts: &Facts<'_>) -> Option<Failure> {
        if self.rights().iter().any(|right| right.covers(facts)) {
            return None;
        }
        // Rights for other services would only hide the one that a person looks for.
        let mut rights: Vec<&Right> = self.rights().iter().filter(|right| *right.service == *facts.service).collect();
        if rights.is_empty() {
            rights = self.rights().iter().collect();
        }
        let texts: Vec<String> = rights.iter().map(|right| right.text()).collect();
        let text =
            if texts.is_empty() { "no right at all".to_owned() } else { format!("right to {}", texts.join(", ")) };
        let rows = rights.iter().map(|right| right.failed(facts)).collect();
        Some(Failure { block: 0, caveat: None, text: shortened(&text), rows, only_time: false })
    }
}

fn failure(block: usize, index: usize, caveat: &Caveat, facts: &Facts<'_>) -> Failure {
    Failure {
        block,
        caveat: Some(index),
        text: shortened(caveat),
        rows: caveat.failed_rows(facts),
        only_time: caveat.only_time(),
    }
}
