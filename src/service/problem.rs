//! What is wrong in a file that a person wrote, in the words that help that person.

use std::fmt;

/// One problem. A check reports all of them, not the first.
///
/// `Display` reads `narrows.toml:12: unknown key "credental" in [[service]] "acme"; did you mean "credential"?`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file as a person would name it: relative to the home where it lies inside.
    pub file: Box<str>,
    /// Counted from 1; `None` when the problem has no line, such as a file that is missing.
    pub line: Option<usize>,
    /// The key at fault, where there is one.
    pub key: Option<Box<str>>,
    /// What is wrong.
    pub message: String,
    /// What to do about it, where that is known.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem of a whole file.
    #[must_use]
    pub fn of_file(file: &str, message: impl Into<String>) -> Self {
        Self { file: file.into(), line: None, key: None, message: message.into(), hint: None }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}
