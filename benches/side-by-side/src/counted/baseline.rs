//! The counts that are expected, in a file under version control.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::Cost;

/// A count may be off by this share, either way: one that fell is a baseline that has to be written again, so that it
/// cannot rise unseen.
const TOLERANCE: f64 = 0.05;
/// The same for the journal's thread, which looks when time has passed: three runs of one build took 52.7, 53.2 and 58.7
/// thousand for a request, the last on a busy machine; and for the bare pass-through, which is a yardstick and not what is
/// watched (two builds of it took tunnels that differ by 5 %).
const WIDER_TOLERANCE: f64 = 0.2;
/// The threads that serve a request may take so many times what those of the bare pass-through take. In the profile that
/// is shipped the ratio is smaller, and its goal is 1.25 (`docs/performance.md`).
const REQUEST_RATIO_MAX: f64 = 1.67;

/// See the module.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Baseline {
    /// With what the counts were made: another compiler's differ.
    rustc: String,
    instructions: BTreeMap<String, u64>,
}

impl Baseline {
    pub(super) fn of(counted: &[(String, Cost)]) -> Self {
        let mut instructions = BTreeMap::new();
        for (name, cost) in counted {
            instructions.extend(cost.bare.map(|bare| (format!("{name}: bare"), bare)));
            instructions.insert(format!("{name}: Narrows"), cost.narrows);
            instructions.extend(cost.journal.map(|journal| (format!("{name}: journal"), journal)));
        }
        Self { rustc: rustc(), instructions }
    }

    pub(super) fn read(file: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        serde_json::from_str(&text).with_context(|| file.display().to_string())
    }

    pub(super) fn write(&self, file: &Path) -> anyhow::Result<()> {
        Ok(fs::write(file, serde_json::to_string_pretty(self)? + "\n")?)
    }

    /// Fails when a count is off, and says by how much.
    pub(super) fn holds(&self, counted: &[(String, Cost)], file: &Path) -> anyhow::Result<()> {
        let now = Self::of(counted);
        let mut wrong = self.differences(&now);
        for (name, cost) in counted.iter().filter(|(name, _)| name.starts_with("request")) {
            if let Some(ratio) = cost.ratio().filter(|ratio| *ratio > REQUEST_RATIO_MAX) {
                wrong.push(format!("{name}: {ratio:.3} of the bare pass-through, more than {REQUEST_RATIO_MAX}"));
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        let compiler = if now.rustc == self.rustc {
            String::new()
        } else {
            format!("\nThe baseline was made by {}, this is {}.", self.rustc, now.rustc)
        };
        bail!(
            "{}{compiler}\nIf that is meant, write the baseline again, and say why in the commit:\n  \
             .ci/instructions --write    ({})",
            wrong.join("\n"),
            file.display(),
        )
    }

    fn differences(&self, now: &Self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, expected) in &self.instructions {
            match now.instructions.get(name) {
                None => wrong.push(format!("{name}: not counted any more")),
                Some(count) => {
                    let off = *count as f64 / *expected as f64 - 1.0;
                    let wider = name.ends_with(": journal") || name.ends_with(": bare");
                    let tolerance = if wider { WIDER_TOLERANCE } else { TOLERANCE };
                    if off.abs() > tolerance {
                        wrong.push(format!("{name}: {count} instructions, {:+.1} % from {expected}", off * 100.0));
                    }
                }
            }
        }
        let new = now.instructions.keys().filter(|name| !self.instructions.contains_key(*name));
        wrong.extend(new.map(|name| format!("{name}: not in the baseline")));
        wrong
    }
}

/// The compiler that is installed, which is the one that made this program in CI.
fn rustc() -> String {
    let said = Command::new("rustc").arg("--version").output();
    said.map_or_else(
        |_| "an unknown compiler".to_owned(),
        |said| String::from_utf8_lossy(&said.stdout).trim().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(narrows: u64) -> Vec<(String, Cost)> {
        vec![("request".to_owned(), Cost { bare: Some(1000), narrows, journal: Some(500) })]
    }

    #[test]
    fn a_count_that_is_off_fails_either_way() {
        let baseline = Baseline::of(&counted(1200));
        let holds = |narrows| baseline.holds(&counted(narrows), Path::new("baseline.json"));
        assert!(holds(1200).is_ok());
        assert!(holds(1141).is_ok() && holds(1139).is_err());
        assert!(holds(1259).is_ok() && holds(1261).is_err());
    }

    #[test]
    fn the_journals_thread_and_the_yardstick_may_be_off_by_more() {
        let with = |bare, journal| {
            vec![("request".to_owned(), Cost { bare: Some(bare), narrows: 1200, journal: Some(journal) })]
        };
        let baseline = Baseline::of(&with(1000, 500));
        let holds = |bare, journal| baseline.holds(&with(bare, journal), Path::new("baseline.json"));
        assert!(holds(1000, 599).is_ok() && holds(1000, 601).is_err());
        assert!(holds(1199, 500).is_ok() && holds(1201, 500).is_err());
    }

    #[test]
    fn a_request_that_costs_too_many_times_the_bare_one_fails_whatever_the_baseline_says() {
        let holds = |narrows| Baseline::of(&counted(narrows)).holds(&counted(narrows), Path::new("baseline.json"));
        assert!(holds(1670).is_ok() && holds(1671).is_err());
    }

    #[test]
    fn a_count_that_is_missing_or_new_fails() {
        let baseline = Baseline::of(&counted(1200));
        assert!(baseline.holds(&[], Path::new("baseline.json")).is_err());
        let mut more = counted(1200);
        more.push(("tunnel".to_owned(), Cost::default()));
        assert!(baseline.holds(&more, Path::new("baseline.json")).is_err());
    }
}
