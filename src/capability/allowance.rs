//! Budgets and rates as a block states them. Counting them is the ledger's work.

/// What a budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BudgetKind {
    /// Requests that every check allowed.
    Calls,
    /// Bytes of request bodies.
    BytesUp,
    /// Bytes of response bodies.
    BytesDown,
}

impl BudgetKind {
    /// The name in the `budget` fact.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::BytesUp => "bytes_up",
            Self::BytesDown => "bytes_down",
        }
    }

    /// The kind of a name, if it is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Calls, Self::BytesUp, Self::BytesDown].into_iter().find(|kind| kind.as_str() == name)
    }
}

/// `budget(kind, limit)`: so many, over the life of the block. At most one of a kind in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Budget {
    /// What is counted.
    pub kind: BudgetKind,
    /// Calls or bytes; 0 allows none. At most `i64::MAX`.
    pub limit: u64,
}

/// `rate("calls", limit, seconds)`: so many requests in each fixed window. At most one in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Requests in a window; 0 allows none. At most `i64::MAX`.
    pub limit: u64,
    /// The window, in seconds, 1 or more. At most `i64::MAX`.
    pub window_s: u64,
}
