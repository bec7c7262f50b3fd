//! Caveats for people: how they read, and why they fail.
//!
//! Text from a capability is shown through `{:?}`, which escapes quotes, control characters and Unicode format
//! characters (the bidirectional overrides among them), so that no label or constant can rewrite the line that it is
//! on. The biscuit library's own printing does not.

use std::fmt::{self, Display};

use super::{Caveat, Column, Comparison, Likeness, Moment, Number, NumberColumn, Row, Test, Text, TextColumn};
use crate::clock::UnixSeconds;
use crate::request::Facts;

/// What is shown of one thing in the reasons for a denial, in bytes. A symbol can be long, and a caveat can name it
/// often: shown in full, a capability of 16 KB would read as megabytes, on every denied request.
pub(in super::super) const SHOWN_BYTES_MAX: usize = 512;

/// The start of what a value reads, and `…` where that is not all. Stops writing there.
pub(in super::super) fn shortened(value: &impl Display) -> String {
    let mut shown = Shortened(String::new());
    if fmt::Write::write_fmt(&mut shown, format_args!("{value}")).is_err() {
        shown.0.push('…');
    }
    shown.0
}

struct Shortened(String);

impl fmt::Write for Shortened {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = SHOWN_BYTES_MAX.saturating_sub(self.0.len());
        let fits = text.get(..text.floor_char_boundary(room)).unwrap_or_default();
        self.0.push_str(fits);
        if fits.len() == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

/// Why one row of a caveat does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedRow {
    /// What does not hold, in the row's order; at least one.
    pub mismatches: Vec<Mismatch>,
}

/// One test that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The facts that it reads: `path`, `param repo`; one for most tests. Empty for a constant.
    pub columns: Vec<String>,
    /// What would hold, as the caveat reads: `param repo = "acme/widgets"`.
    pub wanted: String,
    /// The value of the first column, shown like a constant; `None` when the request has no such fact.
    pub seen: Option<String>,
    /// Whether it is a missing approval.
    pub approval: bool,
}

impl Caveat {
    /// Whether it reads no other fact than `time`: then time alone can make it fail.
    #[must_use]
    pub fn only_time(&self) -> bool {
        let mut only_time = true;
        for test in self.rows.iter().flat_map(|row| &row.tests) {
            only_time &= !matches!(test, Test::Approved(_));
            test.each_column(&mut |column| only_time &= column == Column::Time);
        }
        only_time
    }

    /// The first moment at which it no longer holds, when it says so plainly: one row, and in it `time` before a date.
    #[must_use]
    pub fn expires_at(&self) -> Option<UnixSeconds> {
        let [row] = &*self.rows else { return None };
        row.tests.iter().filter_map(Test::expires_at).min()
    }

    /// The greatest `hop` at which it holds, when it says so plainly: one row, and in it `hop` below a number.
    #[must_use]
    pub fn hops_max(&self) -> Option<u32> {
        let [row] = &*self.rows else { return None };
        row.tests.iter().filter_map(Test::hops_max).min()
    }

    /// The rows with what fails in each. Empty when the caveat holds.
    pub(in super::super) fn failed_rows(&self, facts: &Facts<'_>) -> Vec<FailedRow> {
        if self.holds(facts) {
            return Vec::new();
        }
        self.rows.iter().map(|row| row.failed(facts)).collect()
    }
}

impl Row {
    fn failed(&self, facts: &Facts<'_>) -> FailedRow {
        let failing: Vec<&Test> = self.tests.iter().filter(|test| !test.holds(facts)).collect();
        // An absent fact fails its `Present` and most tests that read it: the latter say more. Not all of them: what is
        // negated holds of nothing.
        let said_elsewhere = |column: &Column| {
            let mut said = false;
            for test in failing.iter().filter(|test| !matches!(test, Test::Present(_))) {
                test.each_column(&mut |other| said |= other == *column);
            }
            said
        };
        let telling = failing.iter().filter(|test| !matches!(test, Test::Present(column) if said_elsewhere(column)));
        FailedRow { mismatches: telling.map(|test| test.mismatch(facts)).collect() }
    }

    fn is_read_elsewhere(&self, wanted: &Column) -> bool {
        let mut read = false;
        for test in self.tests.iter().filter(|test| !matches!(test, Test::Present(_))) {
            test.each_column(&mut |column| read |= column == *wanted);
        }
        read
    }
}

impl Test {
    fn mismatch(&self, facts: &Facts<'_>) -> Mismatch {
        let mut columns: Vec<Column> = Vec::new();
        self.each_column(&mut |column| {
            if !columns.contains(&column) {
                columns.push(column);
            }
        });
        Mismatch {
            seen: columns.first().and_then(|column| column.shown(facts)),
            columns: columns.iter().map(shortened).collect(),
            wanted: shortened(self),
            approval: matches!(self, Self::Approved(_)),
        }
    }

    fn expires_at(&self) -> Option<UnixSeconds> {
        let (comparison, bound) = match self {
            Self::Moment(Moment::Now, comparison, Moment::Constant(bound)) => (*comparison, *bound),
            Self::Moment(Moment::Constant(bound), comparison, Moment::Now) => (comparison.mirrored(), *bound),
            Self::All(tests) => return tests.iter().filter_map(Self::expires_at).min(),
            _ => return None,
        };
        match comparison {
            Comparison::Less => Some(UnixSeconds(bound)),
            Comparison::LessOrEqual | Comparison::Equal => Some(UnixSeconds(bound) + 1),
            _ => None,
        }
    }

    fn hops_max(&self) -> Option<u32> {
        const HOP: Number = Number::Column(NumberColumn::Hop);
        let (comparison, bound) = match self {
            Self::Number(left, comparison, Number::Constant(bound)) if *left == HOP => (*comparison, *bound),
            Self::Number(Number::Constant(bound), comparison, right) if *right == HOP => {
                (comparison.mirrored(), *bound)
            }
            Self::All(tests) => return tests.iter().filter_map(Self::hops_max).min(),
            _ => return None,
        };
        let most = match comparison {
            Comparison::Less => bound.saturating_sub(1),
            Comparison::LessOrEqual | Comparison::Equal => bound,
            _ => return None,
        };
        Some(u32::try_from(most.max(0)).unwrap_or(u32::MAX))
    }

    /// Whether it needs parentheses inside another test.
    fn is_compound(&self) -> bool {
        matches!(self, Self::All(_) | Self::Any(_))
    }
}

impl Column {
    fn shown(&self, facts: &Facts<'_>) -> Option<String> {
        match self {
            Self::Text(column) => column.value(facts).map(|text| shortened(&format_args!("{text:?}"))),
            Self::Number(column) => column.value(facts).map(|number| number.to_string()),
            Self::Time => Some(facts.time.to_string()),
        }
    }
}

impl Comparison {
    /// The comparison with its sides exchanged.
    const fn mirrored(self) -> Self {
        match self {
            Self::Equal => Self::Equal,
            Self::NotEqual => Self::NotEqual,
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
        }
    }
}

impl Display for Caveat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        joined(f, &self.rows, "; or ")
    }
}

impl Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let silent = |test: &&Test| !matches!(test, Test::Present(column) if self.is_read_elsewhere(column));
        joined(f, self.tests.iter().filter(silent), ", ")
    }
}

impl Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(constant) => write!(f, "{constant}"),
            Self::Present(column) => write!(f, "{column} is known"),
            Self::Text(left, likeness, right) => write!(f, "{left} {} {right}", likeness.as_str()),
            Self::Number(left, comparison, right) => write!(f, "{left} {} {right}", comparison.as_str()),
            Self::Moment(left, comparison, right) => write!(f, "{left} {} {right}", comparison.as_str()),
            Self::TextIn(text, set) => {
                write!(f, "{text} in {{")?;
                joined(f, set.iter().cloned().map(Text::Constant), ", ")?;
                f.write_str("}")
            }
            Self::NumberIn(number, set) => {
                write!(f, "{number} in {{")?;
                joined(f, set, ", ")?;
                f.write_str("}")
            }
            Self::MomentIn(moment, set) => {
                write!(f, "{moment} in {{")?;
                joined(f, set.iter().copied().map(Moment::Constant), ", ")?;
                f.write_str("}")
            }
            Self::Not(test) => write!(f, "not ({test})"),
            Self::All(tests) => joined(f, tests.iter().map(Part), " and "),
            Self::Any(tests) => joined(f, tests.iter().map(Part), " or "),
            Self::Approved(key) => {
                f.write_str("approved by hex:")?;
                key.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

/// A test inside another: in parentheses when it is compound.
struct Part<'a>(&'a Test);

impl Display for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_compound() { write!(f, "({})", self.0) } else { write!(f, "{}", self.0) }
    }
}

fn joined(f: &mut fmt::Formatter<'_>, parts: impl IntoIterator<Item = impl Display>, separator: &str) -> fmt::Result {
    for (index, part) in parts.into_iter().enumerate() {
        if index > 0 {
            f.write_str(separator)?;
        }
        write!(f, "{part}")?;
    }
    Ok(())
}

impl Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Column(column) => write!(f, "{column}"),
            Self::Constant(constant) => write!(f, "{constant:?}"),
        }
    }
}

impl Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Column(column) => write!(f, "{column}"),
            Self::Constant(constant) => write!(f, "{constant}"),
            Self::Length(text) => write!(f, "length of {text}"),
        }
    }
}

impl Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now => f.write_str("time"),
            Self::Constant(moment) => UnixSeconds(*moment).fmt(f),
        }
    }
}

impl Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(column) => column.fmt(f),
            Self::Number(column) => column.fmt(f),
            Self::Time => f.write_str("time"),
        }
    }
}

impl Display for TextColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Service => "service",
            Self::Operation => "operation",
            Self::Action => "action",
            Self::Scheme => "scheme",
            Self::Host => "host",
            Self::Method => "method",
            Self::Path => "path",
            Self::Audience => "audience",
            Self::Proof => "proof",
            Self::Param(name) => return show_param(f, name),
        })
    }
}

/// A param's name as people write it, quoted when it is not a plain word.
fn show_param(f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if plain { write!(f, "param {name}") } else { write!(f, "param {name:?}") }
}

impl Display for NumberColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Port => "port",
            Self::BodySize => "body_size",
            Self::Hop => "hop",
        })
    }
}

impl Comparison {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

impl Likeness {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::StartsWith => "starts with",
            Self::EndsWith => "ends with",
            Self::Contains => "contains",
        }
    }
}
