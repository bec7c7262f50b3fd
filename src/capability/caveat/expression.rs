//! Expressions: from the engine's stack of operations to a typed test.
//!
//! The engine finds a wrong type while it evaluates, and then fails the whole request; here it is found while compiling,
//! and refused. So nothing that compiles can fail later, and the order of evaluation cannot be observed.

use std::sync::Arc;

use biscuit_auth::format::schema::{self, op, op_binary, op_unary, term::Content};

use super::super::InvalidCapability;
use super::compile::{Bindings, Compiler};
use super::{Column, Comparison, Likeness, Moment, Number, Test, Text};

/// The expressions of a block have at most this many operations together: values, operators and closures.
pub const OPERATIONS_MAX: usize = 512;
/// How deep operators lie in one another, where a run of one `&&` or `||` counts once and parentheses do not; and how
/// deep closures do. It bounds the stack that evaluating takes.
pub const NESTING_MAX: usize = 16;

/// A value on the stack, with its type, and how deep it is.
struct Operand {
    value: Value,
    depth: usize,
}

enum Value {
    Test(Test),
    Text(Text),
    Number(Number),
    Moment(Moment),
    Set(Set),
    /// The right side of `&&` or `||`, which the engine evaluates only when it must.
    Lazy(Test),
}

/// A set of constants of one type, sorted.
enum Set {
    Texts(Box<[Arc<str>]>),
    Numbers(Box<[i64]>),
    Moments(Box<[u64]>),
}

impl Compiler<'_> {
    pub(super) fn expression(
        &mut self,
        expression: &schema::Expression,
        bindings: &Bindings,
    ) -> Result<Test, InvalidCapability> {
        let operand = self.operations(&expression.ops, bindings, 0)?;
        match operand.value {
            Value::Test(test) => Ok(test),
            _ => Err(InvalidCapability::Check),
        }
    }

    /// Runs the operations over a stack of types; one value must be left.
    fn operations(
        &mut self,
        operations: &[schema::Op],
        bindings: &Bindings,
        closures: usize,
    ) -> Result<Operand, InvalidCapability> {
        let mut stack: Vec<Operand> = Vec::new();
        for operation in operations {
            self.steps += 1;
            self.operations += 1;
            if self.operations > OPERATIONS_MAX {
                return Err(InvalidCapability::Limit);
            }
            let operand = match operation.content.as_ref() {
                Some(op::Content::Value(term)) => Operand { value: self.value(term, bindings)?, depth: 0 },
                Some(op::Content::Unary(operator)) => unary(operator, pop(&mut stack)?)?,
                Some(op::Content::Binary(operator)) => {
                    let right = pop(&mut stack)?;
                    binary(operator, pop(&mut stack)?, right)?
                }
                Some(op::Content::Closure(closure)) => self.closure(closure, bindings, closures + 1)?,
                None => return Err(InvalidCapability::Check),
            };
            if operand.depth > NESTING_MAX {
                return Err(InvalidCapability::Limit);
            }
            stack.push(operand);
        }
        let last = pop(&mut stack)?;
        if stack.is_empty() { Ok(last) } else { Err(InvalidCapability::Check) }
    }

    fn closure(
        &mut self,
        closure: &schema::OpClosure,
        bindings: &Bindings,
        closures: usize,
    ) -> Result<Operand, InvalidCapability> {
        if !closure.params.is_empty() {
            return Err(InvalidCapability::Check);
        }
        if closures > NESTING_MAX {
            return Err(InvalidCapability::Limit);
        }
        let body = self.operations(&closure.ops, bindings, closures)?;
        match body.value {
            Value::Test(test) => Ok(Operand { value: Value::Lazy(test), depth: body.depth }),
            _ => Err(InvalidCapability::Check),
        }
    }

    fn value(&mut self, term: &schema::Term, bindings: &Bindings) -> Result<Value, InvalidCapability> {
        Ok(match term.content.as_ref() {
            Some(Content::Variable(variable)) => match bindings.column(*variable).ok_or(InvalidCapability::Check)? {
                Column::Text(column) => Value::Text(Text::Column(column.clone())),
                Column::Number(column) => Value::Number(Number::Column(*column)),
                Column::Time => Value::Moment(Moment::Now),
            },
            Some(Content::String(symbol)) => Value::Text(Text::Constant(self.symbols.text(*symbol)?)),
            Some(Content::Integer(number)) => Value::Number(Number::Constant(*number)),
            Some(Content::Date(moment)) => Value::Moment(Moment::Constant(*moment)),
            Some(Content::Bool(constant)) => Value::Test(Test::Constant(*constant)),
            Some(Content::Set(set)) => Value::Set(self.set(set)?),
            _ => return Err(InvalidCapability::Check),
        })
    }

    /// A set with at least one element, all of one type. (An empty one could hold for nothing.)
    fn set(&mut self, set: &schema::TermSet) -> Result<Set, InvalidCapability> {
        self.steps += set.set.len();
        let terms = || set.set.iter().map(|term| term.content.as_ref());
        match terms().next().flatten() {
            Some(Content::String(_)) => {
                // Symbols are unique: repeated ones are dropped by number, before their text is compared.
                let symbols = sorted(terms().map(|term| match term {
                    Some(Content::String(symbol)) => Ok(*symbol),
                    _ => Err(InvalidCapability::Check),
                }))?;
                sorted(symbols.iter().map(|symbol| self.symbols.text(*symbol))).map(Set::Texts)
            }
            Some(Content::Integer(_)) => sorted(terms().map(|term| match term {
                Some(Content::Integer(number)) => Ok(*number),
                _ => Err(InvalidCapability::Check),
            }))
            .map(Set::Numbers),
            Some(Content::Date(_)) => sorted(terms().map(|term| match term {
                Some(Content::Date(moment)) => Ok(*moment),
                _ => Err(InvalidCapability::Check),
            }))
            .map(Set::Moments),
            _ => Err(InvalidCapability::Check),
        }
    }
}

fn sorted<T: Ord>(elements: impl Iterator<Item = Result<T, InvalidCapability>>) -> Result<Box<[T]>, InvalidCapability> {
    let mut elements = elements.collect::<Result<Vec<T>, _>>()?;
    elements.sort_unstable();
    elements.dedup();
    Ok(elements.into_boxed_slice())
}

fn pop(stack: &mut Vec<Operand>) -> Result<Operand, InvalidCapability> {
    stack.pop().ok_or(InvalidCapability::Check)
}

fn unary(operator: &schema::OpUnary, operand: Operand) -> Result<Operand, InvalidCapability> {
    use op_unary::Kind;
    if operator.ffi_name.is_some() {
        return Err(InvalidCapability::Check);
    }
    let Operand { value, depth } = operand;
    match (Kind::from_i32(operator.kind), value) {
        (Some(Kind::Parens), Value::Lazy(_)) => Err(InvalidCapability::Check),
        (Some(Kind::Parens), value) => Ok(Operand { value, depth }),
        (Some(Kind::Negate), Value::Test(test)) => {
            Ok(Operand { value: Value::Test(Test::Not(Box::new(test))), depth: depth + 1 })
        }
        (Some(Kind::Length), Value::Text(text)) => {
            Ok(Operand { value: Value::Number(Number::Length(text)), depth: depth + 1 })
        }
        _ => Err(InvalidCapability::Check),
    }
}

fn binary(operator: &schema::OpBinary, left: Operand, right: Operand) -> Result<Operand, InvalidCapability> {
    use op_binary::Kind;
    if operator.ffi_name.is_some() {
        return Err(InvalidCapability::Check);
    }
    let kind = Kind::from_i32(operator.kind).ok_or(InvalidCapability::Check)?;
    let depth = left.depth.max(right.depth) + 1;
    let test = match (left.value, kind, right.value) {
        (Value::Test(first), Kind::LazyAnd, Value::Lazy(second))
        | (Value::Test(first), Kind::And, Value::Test(second)) => {
            return Ok(joined(first, left.depth, second, right.depth, true));
        }
        (Value::Test(first), Kind::LazyOr, Value::Lazy(second))
        | (Value::Test(first), Kind::Or, Value::Test(second)) => {
            return Ok(joined(first, left.depth, second, right.depth, false));
        }
        (Value::Text(left), kind, Value::Text(right)) => {
            Test::Text(left, likeness(kind).ok_or(InvalidCapability::Check)?, right)
        }
        (Value::Number(left), kind, Value::Number(right)) => {
            Test::Number(left, comparison(kind).ok_or(InvalidCapability::Check)?, right)
        }
        (Value::Moment(left), kind, Value::Moment(right)) => {
            Test::Moment(left, comparison(kind).ok_or(InvalidCapability::Check)?, right)
        }
        (Value::Set(Set::Texts(set)), Kind::Contains, Value::Text(element)) => Test::TextIn(element, set),
        (Value::Set(Set::Numbers(set)), Kind::Contains, Value::Number(element)) => Test::NumberIn(element, set),
        (Value::Set(Set::Moments(set)), Kind::Contains, Value::Moment(element)) => Test::MomentIn(element, set),
        _ => return Err(InvalidCapability::Check),
    };
    Ok(Operand { value: Value::Test(test), depth })
}

/// `a && b && c` is one conjunction of three, as deep as its deepest part is below it.
fn joined(first: Test, first_depth: usize, second: Test, second_depth: usize, all: bool) -> Operand {
    match (first, all) {
        (Test::All(mut tests), true) => {
            tests.push(second);
            Operand { value: Value::Test(Test::All(tests)), depth: first_depth.max(second_depth + 1) }
        }
        (Test::Any(mut tests), false) => {
            tests.push(second);
            Operand { value: Value::Test(Test::Any(tests)), depth: first_depth.max(second_depth + 1) }
        }
        (first, all) => {
            let tests = vec![first, second];
            let test = if all { Test::All(tests) } else { Test::Any(tests) };
            Operand { value: Value::Test(test), depth: first_depth.max(second_depth) + 1 }
        }
    }
}

/// Types are known to agree here, so that `==` and `===`, which differ only where they do not, are one.
fn likeness(kind: op_binary::Kind) -> Option<Likeness> {
    use op_binary::Kind;
    Some(match kind {
        Kind::Equal | Kind::HeterogeneousEqual => Likeness::Equal,
        Kind::NotEqual | Kind::HeterogeneousNotEqual => Likeness::NotEqual,
        Kind::Prefix => Likeness::StartsWith,
        Kind::Suffix => Likeness::EndsWith,
        Kind::Contains => Likeness::Contains,
        _ => return None,
    })
}

fn comparison(kind: op_binary::Kind) -> Option<Comparison> {
    use op_binary::Kind;
    Some(match kind {
        Kind::Equal | Kind::HeterogeneousEqual => Comparison::Equal,
        Kind::NotEqual | Kind::HeterogeneousNotEqual => Comparison::NotEqual,
        Kind::LessThan => Comparison::Less,
        Kind::LessOrEqual => Comparison::LessOrEqual,
        Kind::GreaterThan => Comparison::Greater,
        Kind::GreaterOrEqual => Comparison::GreaterOrEqual,
        _ => return None,
    })
}
