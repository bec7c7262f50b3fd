//! Why a command did not do what was asked, as it is told: `capctl: error: …`, then `capctl: hint: …`.

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;

/// A command's failure.
#[derive(Debug)]
pub(super) struct Failure {
    code: u8,
    message: String,
    hints: Vec<String>,
}

impl Failure {
    /// What failed; exit status 1.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into(), hints: Vec::new() }
    }

    /// What was typed wrong; exit status 2.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, ..Self::new(message) }
    }

    /// An error with its causes.
    pub(super) fn of(error: &dyn Error) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        Self::new(message)
    }

    /// Adds what a person can type about it.
    pub(super) fn hint(mut self, hint: impl Into<Option<String>>) -> Self {
        self.hints.extend(hint.into());
        self
    }

    /// Tells it, and gives the exit status.
    pub(super) fn tell(self) -> ExitCode {
        let mut stderr = std::io::stderr();
        let _ = writeln!(stderr, "capctl: error: {}", self.message);
        for hint in &self.hints {
            let _ = writeln!(stderr, "capctl: hint: {hint}");
        }
        ExitCode::from(self.code)
    }
}

impl From<crate::store::StoreError> for Failure {
    fn from(error: crate::store::StoreError) -> Self {
        Self::of(&error).hint(error.hint())
    }
}
