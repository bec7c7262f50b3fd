//! What a grant becomes: a row of a check, as Datalog text that any biscuit tool reads, and rights.

use std::fmt::Write as _;

use super::{Column, Grant, HostPattern, Pattern};
use crate::capability::ROWS_MAX;
use crate::capability::terms::{bytes_literal, string_literal};

/// More grants than a check may have rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("at most {ROWS_MAX} grants fit into one block")]
pub struct TooManyGrants;

/// One check, a row for each grant; `None` without a grant.
///
/// # Errors
/// [`TooManyGrants`] beyond 16.
pub fn grants_to_check(grants: &[Grant]) -> Result<Option<String>, TooManyGrants> {
    if grants.len() > ROWS_MAX {
        return Err(TooManyGrants);
    }
    let rows: Vec<String> = grants.iter().map(row).collect();
    Ok(if rows.is_empty() { None } else { Some(format!("check if {}", rows.join(" or "))) })
}

/// The rights that the grants need, as `(service, operation or "*")`, each once; a `"*"` makes the service's others
/// needless.
#[must_use]
pub fn rights_of(grants: &[Grant]) -> Vec<(String, String)> {
    let mut rights: Vec<(String, String)> = Vec::new();
    let whole = |service: &str| grants.iter().any(|grant| grant.service == service && grant.operations.is_empty());
    for grant in grants {
        let all = ["*".to_owned()];
        let operations = if whole(&grant.service) { &all[..] } else { &grant.operations };
        for operation in operations {
            let right = (grant.service.clone(), operation.clone());
            if !rights.contains(&right) {
                rights.push(right);
            }
        }
    }
    rights
}

/// Predicates first, then the expressions on their variables.
fn row(grant: &Grant) -> String {
    let mut row = Row::default();
    row.predicates.push(format!("service({})", string_literal(&grant.service)));
    if !grant.operations.is_empty() {
        row.one_of("operation", &grant.operations.iter().map(|o| string_literal(o)).collect::<Vec<_>>());
    }
    for column in &grant.columns {
        row.add(column);
    }
    row.predicates.append(&mut row.expressions);
    row.predicates.join(", ")
}

#[derive(Default)]
struct Row {
    predicates: Vec<String>,
    expressions: Vec<String>,
    params: usize,
}

impl Row {
    fn add(&mut self, column: &Column) {
        match column {
            Column::Action(patterns) => self.patterns("action(", "action", patterns),
            Column::Scheme(values) => self.one_of("scheme", &literals(values.iter().map(|v| v.as_str()))),
            Column::Method(values) => self.one_of("method", &literals(values.iter().map(String::as_str))),
            Column::Port(values) => self.one_of("port", &values.iter().map(u16::to_string).collect::<Vec<_>>()),
            Column::Host(patterns) => {
                self.predicates.push("host($host)".to_owned());
                self.any_of(patterns.iter().map(|pattern| match pattern {
                    HostPattern::Is(host) => format!("$host == {}", string_literal(host.as_str())),
                    HostPattern::Below(host) => format!("$host.ends_with({})", string_literal(&format!(".{host}"))),
                }));
            }
            Column::Path(paths) => {
                self.predicates.push("path($path)".to_owned());
                self.any_of(paths.iter().map(|path| within(path)));
            }
            Column::BodyMax(bytes) => {
                self.predicates.push("body_size($body)".to_owned());
                self.expressions.push(format!("$body <= {bytes}"));
            }
            Column::Approval(key) => {
                self.predicates.push(format!("approved_by({})", bytes_literal(key.as_bytes())));
            }
            Column::Param(name, patterns) => {
                let variable = format!("p{}", self.params);
                self.params += 1;
                self.patterns(&format!("param({}, ", string_literal(name)), &variable, patterns);
            }
        }
    }

    /// `name(value)`, or a variable that is in the set of values.
    fn one_of(&mut self, name: &str, literals: &[String]) {
        if let [only] = literals {
            self.predicates.push(format!("{name}({only})"));
        } else {
            self.predicates.push(format!("{name}(${name})"));
            self.expressions.push(format!("{{{}}}.contains(${name})", literals.join(", ")));
        }
    }

    fn patterns(&mut self, opening: &str, variable: &str, patterns: &[Pattern]) {
        if let [Pattern::Is(only)] = patterns {
            self.predicates.push(format!("{opening}{})", string_literal(only)));
            return;
        }
        self.predicates.push(format!("{opening}${variable})"));
        self.any_of(patterns.iter().map(|pattern| match pattern {
            Pattern::Is(value) => format!("${variable} == {}", string_literal(value)),
            Pattern::StartsWith(start) => format!("${variable}.starts_with({})", string_literal(start)),
        }));
    }

    fn any_of(&mut self, alternatives: impl Iterator<Item = String>) {
        let mut expression = String::new();
        for (at, alternative) in alternatives.enumerate() {
            // Writing to a String cannot fail.
            let _ = write!(expression, "{}{alternative}", if at == 0 { "" } else { " || " });
        }
        self.expressions.push(expression);
    }
}

fn literals<'a>(values: impl Iterator<Item = &'a str>) -> Vec<String> {
    values.map(string_literal).collect()
}

/// Segment-aware: the path itself or below it.
fn within(path: &str) -> String {
    if path == "/" {
        return "$path.starts_with(\"/\")".to_owned();
    }
    let below = format!("{path}/");
    format!("$path == {} || $path.starts_with({})", string_literal(path), string_literal(&below))
}
