//! Caveats: the checks of a block, compiled once into tests that need no Datalog engine.
//!
//! A caveat is an OR of rows, a row an AND of tests on the facts of a request. The form is closed: what [`Compiler`]
//! cannot put into these types is refused together with its capability. Types are settled while compiling, so that a
//! test cannot fail to evaluate; `tests/engine_equivalence.rs` holds the result equal to the biscuit engine.
//!
//! Deliberately absent: regular expressions, arithmetic, joins, negated checks, and any allocation on [`Caveat::holds`].

mod compile;
mod evaluate;
mod explain;
mod expression;

use std::sync::Arc;

pub(super) use compile::Compiler;
pub use compile::{PREDICATES_MAX, ROWS_MAX};
pub(super) use explain::shortened;
pub use explain::{FailedRow, Mismatch};
pub use expression::{NESTING_MAX, OPERATIONS_MAX};

/// One check of a block: it holds when one of its rows does. `Display` shows it to people, with control and bidirectional
/// characters escaped.
#[derive(Debug, Clone, PartialEq)]
pub struct Caveat {
    rows: Box<[Row]>,
}

/// One alternative of a caveat: every test must hold. A test that reads an optional fact comes after its
/// [`Test::Present`].
#[derive(Debug, Clone, PartialEq)]
struct Row {
    tests: Box<[Test]>,
}

/// A fact of the request whose value is a string.
#[derive(Debug, Clone, PartialEq, Eq)]
enum TextColumn {
    Service,
    Operation,
    Action,
    Scheme,
    Host,
    Method,
    Path,
    Audience,
    Proof,
    /// `param(name, value)`: the value.
    Param(Arc<str>),
}

/// A fact of the request whose value is an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NumberColumn {
    Port,
    BodySize,
    Hop,
}

/// A fact of the request. `approved_by` is not among them: nothing can bind its value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Column {
    Text(TextColumn),
    Number(NumberColumn),
    Time,
}

/// A string: a fact's, or a constant.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Text {
    Column(TextColumn),
    Constant(Arc<str>),
}

/// An integer: a fact's, a constant, or the length of a string in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Number {
    Column(NumberColumn),
    Constant(i64),
    Length(Text),
}

/// A date: now, or a constant in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Now,
    Constant(u64),
}

/// How two ordered values compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// How two strings compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Likeness {
    Equal,
    NotEqual,
    StartsWith,
    EndsWith,
    Contains,
}

/// Something that holds or does not. The sets of `…In` are sorted.
#[derive(Debug, Clone, PartialEq)]
enum Test {
    Constant(bool),
    /// The fact exists. Only for facts that may be absent.
    Present(Column),
    Text(Text, Likeness, Text),
    TextIn(Text, Box<[Arc<str>]>),
    Number(Number, Comparison, Number),
    NumberIn(Number, Box<[i64]>),
    Moment(Moment, Comparison, Moment),
    MomentIn(Moment, Box<[u64]>),
    Not(Box<Test>),
    All(Vec<Test>),
    Any(Vec<Test>),
    /// `approved_by(bytes)`: never holds until approvals exist.
    Approved(Box<[u8]>),
}

impl Column {
    /// Whether a request may lack the fact.
    const fn is_optional(&self) -> bool {
        matches!(
            self,
            Self::Text(TextColumn::Action | TextColumn::Method | TextColumn::Path | TextColumn::Param(_))
                | Self::Number(NumberColumn::BodySize)
        )
    }
}

impl Test {
    /// Calls `seen` with every fact that the test reads, in order, repeated where it repeats. `approved_by` is none.
    fn each_column(&self, seen: &mut impl FnMut(Column)) {
        match self {
            Self::Constant(_) | Self::Approved(_) => {}
            Self::Present(column) => seen(column.clone()),
            Self::Text(left, _, right) => {
                left.each_column(seen);
                right.each_column(seen);
            }
            Self::TextIn(text, _) => text.each_column(seen),
            Self::Number(left, _, right) => {
                left.each_column(seen);
                right.each_column(seen);
            }
            Self::NumberIn(number, _) => number.each_column(seen),
            Self::Moment(left, _, right) => {
                left.each_column(seen);
                right.each_column(seen);
            }
            Self::MomentIn(moment, _) => moment.each_column(seen),
            Self::Not(test) => test.each_column(seen),
            Self::All(tests) | Self::Any(tests) => tests.iter().for_each(|test| test.each_column(seen)),
        }
    }
}

impl Text {
    fn each_column(&self, seen: &mut impl FnMut(Column)) {
        if let Self::Column(column) = self {
            seen(Column::Text(column.clone()));
        }
    }
}

impl Number {
    fn each_column(&self, seen: &mut impl FnMut(Column)) {
        match self {
            Self::Column(column) => seen(Column::Number(*column)),
            Self::Length(text) => text.each_column(seen),
            Self::Constant(_) => {}
        }
    }
}

impl Moment {
    fn each_column(self, seen: &mut impl FnMut(Column)) {
        if self == Self::Now {
            seen(Column::Time);
        }
    }
}
