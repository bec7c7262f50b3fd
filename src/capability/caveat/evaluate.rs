//! Evaluation: does a caveat hold for the facts of a request. On every request; allocates nothing.

use std::cmp::Ordering;

use super::{Caveat, Column, Comparison, Likeness, Moment, Number, NumberColumn, Row, Test, Text, TextColumn};
use crate::request::Facts;

impl Caveat {
    /// Whether one of the rows holds.
    #[must_use]
    pub fn holds(&self, facts: &Facts<'_>) -> bool {
        self.rows.iter().any(|row| row.holds(facts))
    }
}

impl Row {
    pub(super) fn holds(&self, facts: &Facts<'_>) -> bool {
        self.tests.iter().all(|test| test.holds(facts))
    }
}

impl Test {
    /// A test on an absent fact does not hold. Under a `!` it would, but there a [`Test::Present`] has failed the row
    /// before.
    pub(super) fn holds(&self, facts: &Facts<'_>) -> bool {
        match self {
            Self::Constant(constant) => *constant,
            Self::Present(column) => column.is_present(facts),
            Self::Text(left, likeness, right) => match (left.value(facts), right.value(facts)) {
                (Some(left), Some(right)) => likeness.holds(left, right),
                _ => false,
            },
            Self::TextIn(text, set) => {
                text.value(facts).is_some_and(|text| set.binary_search_by(|element| (**element).cmp(text)).is_ok())
            }
            Self::Number(left, comparison, right) => match (left.value(facts), right.value(facts)) {
                (Some(left), Some(right)) => comparison.holds(left.cmp(&right)),
                _ => false,
            },
            Self::NumberIn(number, set) => number.value(facts).is_some_and(|number| set.binary_search(&number).is_ok()),
            Self::Moment(left, comparison, right) => comparison.holds(left.value(facts).cmp(&right.value(facts))),
            Self::MomentIn(moment, set) => set.binary_search(&moment.value(facts)).is_ok(),
            Self::Not(test) => !test.holds(facts),
            Self::All(tests) => tests.iter().all(|test| test.holds(facts)),
            Self::Any(tests) => tests.iter().any(|test| test.holds(facts)),
            Self::Approved(_) => false,
        }
    }
}

impl Column {
    fn is_present(&self, facts: &Facts<'_>) -> bool {
        match self {
            Self::Text(column) => column.value(facts).is_some(),
            Self::Number(column) => column.value(facts).is_some(),
            Self::Time => true,
        }
    }
}

impl TextColumn {
    pub(super) fn value<'a>(&self, facts: &Facts<'a>) -> Option<&'a str> {
        match self {
            Self::Service => Some(facts.service),
            Self::Operation => Some(facts.operation),
            Self::Action => facts.action,
            Self::Scheme => Some(facts.scheme.as_str()),
            Self::Host => Some(facts.host.as_str()),
            Self::Method => facts.method,
            // Canonical, so that plain string tests are by segment when their constants end in `/` or are whole paths.
            Self::Path => facts.path.map(crate::request::CanonicalPath::as_str),
            Self::Audience => Some(facts.audience),
            Self::Proof => Some(facts.proof.as_str()),
            Self::Param(name) => facts.params.iter().find(|(known, _)| **known == **name).map(|(_, value)| &**value),
        }
    }
}

impl NumberColumn {
    pub(super) fn value(self, facts: &Facts<'_>) -> Option<i64> {
        match self {
            Self::Port => Some(i64::from(facts.port)),
            // Beyond the range of Datalog's integers: the largest one, still larger than any limit.
            Self::BodySize => facts.body_size.map(|size| i64::try_from(size).unwrap_or(i64::MAX)),
            Self::Hop => Some(i64::from(facts.hop)),
        }
    }
}

impl Text {
    fn value<'a>(&'a self, facts: &Facts<'a>) -> Option<&'a str> {
        match self {
            Self::Column(column) => column.value(facts),
            Self::Constant(constant) => Some(constant),
        }
    }
}

impl Number {
    fn value(&self, facts: &Facts<'_>) -> Option<i64> {
        match self {
            Self::Column(column) => column.value(facts),
            Self::Constant(constant) => Some(*constant),
            Self::Length(text) => text.value(facts).and_then(|text| i64::try_from(text.len()).ok()),
        }
    }
}

impl Moment {
    const fn value(self, facts: &Facts<'_>) -> u64 {
        match self {
            Self::Now => facts.time.get(),
            Self::Constant(moment) => moment,
        }
    }
}

impl Likeness {
    fn holds(self, left: &str, right: &str) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::StartsWith => left.starts_with(right),
            Self::EndsWith => left.ends_with(right),
            Self::Contains => left.contains(right),
        }
    }
}

impl Comparison {
    const fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}
