//! A TOML text read key by key, so that every problem is found at its line and no key goes unread.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::Range;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Problem;

/// A name this similar to a valid one (Jaro-Winkler, 0 to 1) was probably meant to be it.
const NEAR: f64 = 0.75;

/// A text, its name for people, and the problems found in it so far.
pub(crate) struct Document<'a> {
    file: &'a str,
    text: &'a str,
    problems: RefCell<Vec<Problem>>,
}

impl<'a> Document<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, problems: RefCell::default() }
    }

    /// Parses the text; what is no TOML becomes problems, and the rest is still read.
    pub(crate) fn parse(&self) -> Spanned<DeTable<'a>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            self.report(error.span(), None, error.message().to_owned(), None);
        }
        table
    }

    pub(crate) fn report(&self, at: Option<Range<usize>>, key: Option<&str>, message: String, hint: Option<String>) {
        let line = at.map(|at| self.line(at.start));
        let problem = Problem { file: self.file.into(), line, key: key.map(Into::into), message, hint };
        self.problems.borrow_mut().push(problem);
    }

    pub(crate) fn line(&self, offset: usize) -> usize {
        self.text.bytes().take(offset).filter(|&b| b == b'\n').count() + 1
    }

    /// All problems, in the order of their lines.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.line);
        problems
    }
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Field<T> {
    pub(crate) value: T,
    pub(crate) at: Range<usize>,
}

/// One table being read: each key that is asked for is known from then on.
pub(crate) struct Table<'d, 'a> {
    document: &'d Document<'a>,
    entries: &'d DeTable<'a>,
    /// How messages call this table: `[[service]] "acme"`; empty for the top level.
    name: String,
    at: Range<usize>,
    known: Vec<&'static str>,
}

impl<'d, 'a> Table<'d, 'a> {
    pub(crate) fn new(document: &'d Document<'a>, entries: &'d DeTable<'a>, name: String, at: Range<usize>) -> Self {
        Self { document, entries, name, at, known: Vec::new() }
    }

    /// The table's name in later messages, once its `name` key is known.
    pub(crate) fn rename(&mut self, name: String) {
        self.name = name;
    }

    pub(crate) fn document(&self) -> &'d Document<'a> {
        self.document
    }

    pub(crate) fn at(&self) -> Range<usize> {
        self.at.clone()
    }

    /// Reports a problem of this table as a whole.
    pub(crate) fn problem(&self, message: impl Into<String>, hint: Option<&str>) {
        self.document.report(Some(self.at()), None, message.into(), hint.map(Into::into));
    }

    /// Reports a problem of one key's value.
    pub(crate) fn problem_at(&self, key: &str, at: Range<usize>, message: impl Display) {
        let message = format!("`{key}`{}: {message}", self.place());
        self.document.report(Some(at), Some(key), message, None);
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    pub(crate) fn text(&mut self, key: &'static str) -> Option<Field<&'d str>> {
        let value = self.value(key)?;
        match value.get_ref().as_str() {
            Some(text) => Some(Field { value: text, at: value.span() }),
            None => self.wrong_type(key, value, "a string"),
        }
    }

    /// A string that parses as `T`.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(&mut self, key: &'static str) -> Option<Field<T>> {
        let text = self.text(key)?;
        match text.value.parse() {
            Ok(value) => Some(Field { value, at: text.at }),
            Err(error) => {
                self.problem_at(key, text.at, error);
                None
            }
        }
    }

    pub(crate) fn flag(&mut self, key: &'static str) -> Option<Field<bool>> {
        let value = self.value(key)?;
        match value.get_ref().as_bool() {
            Some(flag) => Some(Field { value: flag, at: value.span() }),
            None => self.wrong_type(key, value, "true or false"),
        }
    }

    pub(crate) fn number(&mut self, key: &'static str) -> Option<Field<u64>> {
        let value = self.value(key)?;
        match whole_number(value.get_ref()) {
            Some(number) => Some(Field { value: number, at: value.span() }),
            None => self.wrong_type(key, value, "a whole number, not negative"),
        }
    }

    /// A number from 0 to 1.
    pub(crate) fn fraction(&mut self, key: &'static str) -> Option<Field<f64>> {
        let value = self.value(key)?;
        let number = match value.get_ref() {
            DeValue::Integer(number) => number.as_str().parse().ok(),
            DeValue::Float(number) => number.as_str().parse().ok(),
            _ => return self.wrong_type(key, value, "a number from 0 to 1"),
        };
        let number = number.filter(|number| (0.0..=1.0).contains(number));
        if number.is_none() {
            self.problem_at(key, value.span(), "expected a number from 0 to 1");
        }
        number.map(|number| Field { value: number, at: value.span() })
    }

    /// A string, or a list of strings.
    pub(crate) fn texts(&mut self, key: &'static str) -> Vec<Field<&'d str>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        if let Some(text) = value.get_ref().as_str() {
            return vec![Field { value: text, at: value.span() }];
        }
        let Some(items) = value.get_ref().as_array() else {
            self.wrong_type::<()>(key, value, "a string or a list of strings");
            return Vec::new();
        };
        let mut texts = Vec::new();
        for item in items {
            match item.get_ref().as_str() {
                Some(text) => texts.push(Field { value: text, at: item.span() }),
                None => drop(self.wrong_type::<()>(key, item, "a list of strings")),
            }
        }
        texts
    }

    /// A list of whole numbers.
    pub(crate) fn numbers(&mut self, key: &'static str) -> Vec<Field<u64>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(items) = value.get_ref().as_array() else {
            self.wrong_type::<()>(key, value, "a list of numbers");
            return Vec::new();
        };
        let mut numbers = Vec::new();
        for item in items {
            match whole_number(item.get_ref()) {
                Some(number) => numbers.push(Field { value: number, at: item.span() }),
                None => drop(self.wrong_type::<()>(key, item, "a list of whole numbers")),
            }
        }
        numbers
    }

    /// A table of strings, in the order of its keys.
    pub(crate) fn text_map(&mut self, key: &'static str) -> Vec<(Field<&'d str>, Field<&'d str>)> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(entries) = value.get_ref().as_table() else {
            self.wrong_type::<()>(key, value, "a table of strings");
            return Vec::new();
        };
        let mut pairs = Vec::new();
        for (name, item) in entries {
            let name = Field { value: name.get_ref().as_ref(), at: name.span() };
            match item.get_ref().as_str() {
                Some(text) => pairs.push((name, Field { value: text, at: item.span() })),
                None => drop(self.wrong_type::<()>(key, item, "a table of strings")),
            }
        }
        pairs
    }

    /// A string (`Left`) or a table with one key and a string (`Right`): the forms of `inject`.
    pub(crate) fn text_or_pair(&mut self, key: &'static str) -> Option<Field<TextOrPair<'d>>> {
        let value = self.value(key)?;
        let at = value.span();
        match value.get_ref() {
            DeValue::String(text) => Some(Field { value: TextOrPair::Text(text), at }),
            DeValue::Table(entries) if entries.len() == 1 => {
                let (name, item) = entries.iter().next()?;
                let item = item.get_ref().as_str().or_else(|| self.wrong_type(key, value, "a string inside"))?;
                Some(Field { value: TextOrPair::Pair(name.get_ref().as_ref(), item), at })
            }
            _ => self.wrong_type(key, value, "a string or a table with one key"),
        }
    }

    pub(crate) fn table(&mut self, key: &'static str, name: String) -> Option<Table<'d, 'a>> {
        let value = self.value(key)?;
        match value.get_ref().as_table() {
            Some(entries) => Some(Table::new(self.document, entries, name, value.span())),
            None => self.wrong_type(key, value, "a table"),
        }
    }

    /// The tables of `[[key]]`.
    pub(crate) fn tables(&mut self, key: &'static str, name: &str) -> Vec<Table<'d, 'a>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(items) = value.get_ref().as_array() else {
            self.wrong_type::<()>(key, value, &format!("one or more {name} tables"));
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in items {
            match item.get_ref().as_table() {
                Some(entries) => tables.push(Table::new(self.document, entries, name.to_owned(), item.span())),
                None => drop(self.wrong_type::<()>(key, item, "a table")),
            }
        }
        tables
    }

    /// Ends the reading: a key that nobody asked for is unknown.
    pub(crate) fn finish(self) {
        for key in self.entries.keys() {
            let name = key.get_ref().as_ref();
            if !self.known.contains(&name) {
                let message = format!("unknown key \"{}\"{}", name.escape_default(), self.place());
                self.document.report(Some(key.span()), Some(name), message, Some(nearest(name, &self.known)));
            }
        }
    }

    fn value(&mut self, key: &'static str) -> Option<&'d Spanned<DeValue<'a>>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.entries.get(key)
    }

    fn wrong_type<T>(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str) -> Option<T> {
        self.problem_at(key, value.span(), format_args!("expected {wanted}, found {}", value.get_ref().type_str()));
        None
    }

    fn place(&self) -> String {
        if self.name.is_empty() { String::new() } else { format!(" in {}", self.name) }
    }
}

fn whole_number(value: &DeValue<'_>) -> Option<u64> {
    value.as_integer().filter(|number| number.radix() == 10).and_then(|number| number.as_str().parse().ok())
}

/// What [`Table::text_or_pair`] found.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TextOrPair<'d> {
    Text(&'d str),
    Pair(&'d str, &'d str),
}

/// `did you mean "credential"?`, or the whole list when nothing is near.
pub(crate) fn nearest(name: &str, known: &[&str]) -> String {
    let similarity = |candidate: &str| strsim::jaro_winkler(&name.to_ascii_lowercase(), candidate);
    let best = known.iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    match best {
        Some(best) if similarity(best) >= NEAR => format!("did you mean \"{best}\"?"),
        _ => format!("the keys here are: {}", known.join(", ")),
    }
}
