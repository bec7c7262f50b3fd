//! From the checks of a payload to caveats: rows and their predicates.
//!
//! Every element of a payload is looked at once, so that compiling is linear in its bytes; the limits keep the few
//! searches inside a row short.

use biscuit_auth::format::schema::{self, term::Content};

use super::super::InvalidCapability;
use super::super::symbols::Symbols;
use super::{Caveat, Column, Comparison, Likeness, Moment, Number, NumberColumn, Row, Test, Text, TextColumn};

/// A check has at most this many rows.
pub const ROWS_MAX: usize = 16;
/// A row has at most this many predicates.
pub const PREDICATES_MAX: usize = 16;

/// Compiles the checks of one block, counting what it has done against the block's limits.
pub(in super::super) struct Compiler<'a> {
    pub(super) symbols: &'a Symbols,
    /// Operations of expressions so far.
    pub(super) operations: usize,
    /// Elements looked at so far: a measure of the time taken that no machine changes.
    pub(super) steps: usize,
}

/// What the variables of a row stand for.
#[derive(Default)]
pub(super) struct Bindings {
    variables: Vec<(u32, Column)>,
}

impl Bindings {
    pub(super) fn column(&self, variable: u32) -> Option<&Column> {
        self.variables.iter().find(|(name, _)| *name == variable).map(|(_, column)| column)
    }

    /// A variable belongs to one predicate: the same one in two places would be a join.
    fn bind(&mut self, variable: u32, column: Column) -> Result<(), InvalidCapability> {
        if self.column(variable).is_some() {
            return Err(InvalidCapability::Check);
        }
        self.variables.push((variable, column));
        Ok(())
    }
}

impl<'a> Compiler<'a> {
    pub(in super::super) const fn new(symbols: &'a Symbols) -> Self {
        Self { symbols, operations: 0, steps: 0 }
    }

    pub(in super::super) fn checks(&mut self, checks: &[schema::Check]) -> Result<Vec<Caveat>, InvalidCapability> {
        checks.iter().map(|check| self.check(check)).collect()
    }

    fn check(&mut self, check: &schema::Check) -> Result<Caveat, InvalidCapability> {
        self.steps += 1;
        let plain = [None, Some(schema::check::Kind::One as i32)].contains(&check.kind);
        if !plain || check.queries.is_empty() {
            return Err(InvalidCapability::Check);
        }
        if check.queries.len() > ROWS_MAX {
            return Err(InvalidCapability::Limit);
        }
        let rows = check.queries.iter().map(|query| self.row(query)).collect::<Result<_, _>>()?;
        Ok(Caveat { rows })
    }

    fn row(&mut self, query: &schema::Rule) -> Result<Row, InvalidCapability> {
        self.steps += 1;
        if !query.scope.is_empty() {
            return Err(InvalidCapability::Scope);
        }
        let plain_head = self.symbols.name(query.head.name)? == "query" && query.head.terms.is_empty();
        if !plain_head || query.body.is_empty() {
            return Err(InvalidCapability::Check);
        }
        if query.body.len() > PREDICATES_MAX {
            return Err(InvalidCapability::Limit);
        }
        let mut bindings = Bindings::default();
        let mut named = Vec::with_capacity(query.body.len());
        let mut tests = Vec::with_capacity(query.body.len() + query.expressions.len());
        for predicate in &query.body {
            self.steps += 1;
            tests.extend(self.predicate(predicate, &mut named, &mut bindings)?);
        }
        for expression in &query.expressions {
            tests.push(self.expression(expression, &bindings)?);
        }
        Ok(Row { tests: tests.into_boxed_slice() })
    }

    /// One predicate: the test that its constant asks for, or that its variable's fact exists. `named` holds the names
    /// so far, of facts and of params; symbols are unique, so that their numbers tell them apart.
    fn predicate(
        &self,
        predicate: &schema::Predicate,
        named: &mut Vec<(u64, Option<u64>)>,
        bindings: &mut Bindings,
    ) -> Result<Option<Test>, InvalidCapability> {
        let terms: Vec<Option<&Content>> = predicate.terms.iter().map(|term| term.content.as_ref()).collect();
        let (column, param, term) = match (self.symbols.name(predicate.name)?, terms.as_slice()) {
            ("param", [Some(Content::String(name)), Some(term)]) => {
                (Some(Column::Text(TextColumn::Param(self.symbols.text(*name)?))), Some(*name), *term)
            }
            ("approved_by", [Some(term)]) => (None, None, *term),
            (name, [Some(term)]) => (Some(plain_column(name).ok_or(InvalidCapability::Check)?), None, *term),
            _ => return Err(InvalidCapability::Check),
        };
        if named.contains(&(predicate.name, param)) {
            return Err(InvalidCapability::Check);
        }
        named.push((predicate.name, param));
        let test = match (column, term) {
            (Some(column), Content::Variable(variable)) => {
                self.symbols.name(u64::from(*variable))?;
                bindings.bind(*variable, column.clone())?;
                return Ok(column.is_optional().then_some(Test::Present(column)));
            }
            (Some(Column::Text(column)), Content::String(constant)) => {
                Test::Text(Text::Column(column), Likeness::Equal, Text::Constant(self.symbols.text(*constant)?))
            }
            (Some(Column::Number(column)), Content::Integer(constant)) => {
                Test::Number(Number::Column(column), Comparison::Equal, Number::Constant(*constant))
            }
            (Some(Column::Time), Content::Date(constant)) => {
                Test::Moment(Moment::Now, Comparison::Equal, Moment::Constant(*constant))
            }
            (None, Content::Bytes(key)) => Test::Approved(key.as_slice().into()),
            _ => return Err(InvalidCapability::Check),
        };
        Ok(Some(test))
    }
}

/// The facts of a request with one value each.
fn plain_column(name: &str) -> Option<Column> {
    Some(match name {
        "time" => Column::Time,
        "service" => Column::Text(TextColumn::Service),
        "operation" => Column::Text(TextColumn::Operation),
        "action" => Column::Text(TextColumn::Action),
        "scheme" => Column::Text(TextColumn::Scheme),
        "host" => Column::Text(TextColumn::Host),
        "method" => Column::Text(TextColumn::Method),
        "path" => Column::Text(TextColumn::Path),
        "audience" => Column::Text(TextColumn::Audience),
        "proof" => Column::Text(TextColumn::Proof),
        "port" => Column::Number(NumberColumn::Port),
        "body_size" => Column::Number(NumberColumn::BodySize),
        "hop" => Column::Number(NumberColumn::Hop),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::sync::Arc;

    use biscuit_auth::datalog::SymbolTable;
    use biscuit_auth::{BiscuitBuilder, KeyPair};
    use prost::Message;

    use super::*;
    use crate::capability::CAPABILITY_BYTES_MAX;

    fn block(code: &str) -> schema::Block {
        let biscuit = BiscuitBuilder::new().code(code).expect(code);
        let biscuit =
            biscuit.build_with_key_pair(&KeyPair::new(), SymbolTable::new(), &KeyPair::new()).expect("builds");
        let container = schema::Biscuit::decode(biscuit.to_vec().expect("encodes").as_slice()).expect("decodes");
        schema::Block::decode(container.authority.block.as_slice()).expect("decodes")
    }

    /// What compiling a block of checks takes: bytes, steps, and how it ended.
    fn cost(block: &schema::Block) -> (usize, usize, Result<(), InvalidCapability>) {
        let mut symbols = Symbols::default();
        symbols.extend(&block.symbols).expect("unique");
        let mut compiler = Compiler::new(&symbols);
        let outcome = compiler.checks(&block.checks).map(drop);
        (block.encoded_len(), compiler.steps, outcome)
    }

    #[test]
    fn compiling_takes_fewer_steps_than_the_block_has_bytes() {
        let facts: String = (0..60).fold(String::new(), |mut facts, n| {
            write!(facts, r#"right("s{n}", "o{n}");"#).expect("writes");
            facts
        });
        let bombs = [
            // Joins over the block's own facts: 60³ combinations, a second or more in an engine.
            format!(r#"{facts} check if right($a, $b), right($c, $d), right($e, $f), $a == "none";"#),
            format!(r"{facts} check if service($s), right($s, $o), right($p, $o), right($p, $q), $q == $s;"),
            format!("check if {};", vec![r#"operation("read")"#; 16].join(" or ")),
            format!("check if path($p), {};", vec![r#"$p.contains("/")"#; 150].join(" || ")),
            format!("check if path($p), {}$p == \"/\"{};", "!(".repeat(16), ")".repeat(16)),
            format!(
                "check if port($p), {{{}}}.contains($p);",
                (0..3000).map(|n| n.to_string()).collect::<Vec<_>>().join(", ")
            ),
            format!("check if {};", (0..16).map(|n| format!(r#"param("p{n}", $v{n})"#)).collect::<Vec<_>>().join(", ")),
            (0..32).map(|_| r#"check if method($m), {"GET", "HEAD"}.contains($m);"#).collect(),
            format!(r#"check if path($p), $p.matches("{}");"#, "(a*)*".repeat(100)),
        ];
        for code in bombs {
            let block = block(&code);
            let (bytes, steps, outcome) = cost(&block);
            assert!(
                bytes <= CAPABILITY_BYTES_MAX && steps <= bytes,
                "{steps} steps, {bytes} bytes, {outcome:?}: {code}"
            );
        }
    }

    #[test]
    fn twice_the_checks_take_twice_the_steps() {
        let checks = |count: usize| {
            let (_, steps, outcome) =
                cost(&block(&r#"check if path($p), $p == "/a" || $p.starts_with("/a/");"#.repeat(count)));
            outcome.expect("compiles");
            steps
        };
        assert_eq!((checks(2), checks(4), checks(32)), (2 * checks(1), 4 * checks(1), 32 * checks(1)));
    }

    #[test]
    fn a_join_is_refused_before_its_row_is_read() {
        let joined = block(r#"check if service($a), service($b), param("x", $c), path($d), $a == $b;"#);
        let (_, steps, outcome) = cost(&joined);
        assert_eq!((steps, outcome), (4, Err(InvalidCapability::Check)));
    }

    #[test]
    fn a_long_symbol_is_kept_once_however_often_it_is_named() {
        let long = "x".repeat(8000);
        let checks =
            format!(r#"check if path($p), $p == "{long}" || {{"{long}", "y"}}.contains($p) || "{long}" == $p;"#);
        let block = block(&checks);
        let mut symbols = Symbols::default();
        symbols.extend(&block.symbols).expect("unique");
        let number = block.symbols.iter().position(|symbol| *symbol == long).expect("a symbol") as u64 + 1024;
        let caveats = Compiler::new(&symbols).checks(&block.checks).expect("compiles");
        // The table's own references, which are two, three in the caveat, and this one.
        assert_eq!(Arc::strong_count(&symbols.text(number).expect("known")), 6);
        drop(caveats);
        assert_eq!(Arc::strong_count(&symbols.text(number).expect("known")), 3);
    }
}
