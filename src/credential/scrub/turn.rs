//! How much is read before others have a turn.

/// So much is read in one turn: what is read at the speed of a search takes some ten microseconds, what is read step by step
/// half a millisecond.
const STEPS: u64 = 64 * 1024;

/// What is left of one turn. A byte takes one step, and each reading of it another, so that a turn ends in time whatever
/// the text is.
#[derive(Debug)]
pub struct Turn {
    left: u64,
}

impl Turn {
    /// All of one.
    #[must_use]
    pub fn new() -> Self {
        Self { left: STEPS }
    }

    /// Whether others come first.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.left == 0
    }

    /// How many steps are left.
    pub(in crate::credential) fn left(&self) -> u64 {
        self.left
    }

    /// Takes so many steps.
    pub fn take(&mut self, steps: u64) {
        self.left = self.left.saturating_sub(steps);
    }
}

impl Default for Turn {
    fn default() -> Self {
        Self::new()
    }
}
