//! Why a command did not do what was asked, as it is told: `capctl: error: …`, then `capctl: hint: …`.

use std::error::Error;
use std::fmt::Display;
use std::process::ExitCode;

use crate::store::StoreError;

use super::output::say;

/// Something went wrong.
pub(super) const FAILED: u8 = 1;
/// The command line is wrong.
const USAGE: u8 = 2;
/// The answer is no.
pub(super) const DENIED: u8 = 3;

/// A command's failure.
#[derive(Debug)]
pub(super) struct Failure {
    status: u8,
    message: String,
    hints: Vec<String>,
}

impl Failure {
    /// What failed; exit status 1.
    pub(super) fn new(message: impl Display) -> Self {
        Self { status: FAILED, message: message.to_string(), hints: Vec::new() }
    }

    /// What was typed wrong; exit status 2.
    pub(super) fn usage(message: impl Display) -> Self {
        Self { status: USAGE, ..Self::new(message) }
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
        say(format_args!("capctl: error: {}", self.message));
        for hint in &self.hints {
            say(format_args!("capctl: hint: {hint}"));
        }
        ExitCode::from(self.status)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let hint = error.hint();
        Self::of(&error).hint(hint)
    }
}
