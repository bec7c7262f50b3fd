//! `[log]`: what is said on stderr, and how.

use tracing_subscriber::EnvFilter;

use crate::service::document::Table;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// `[log]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// What is said: a level, or directives of `tracing_subscriber::EnvFilter`, which read. `None` is the default.
    pub level: Option<String>,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// An object a line, for programs.
    Json,
}

pub(super) fn read(top: &mut Table<'_, '_>) -> Log {
    let mut log = Log::default();
    let Some(mut table) = top.table("log", "[log]".into()) else { return log };
    if let Some(format) = table.text("format") {
        match format.value {
            "text" => log.format = LogFormat::Text,
            "json" => log.format = LogFormat::Json,
            _ => table.problem_at("format", format.at, "expected \"text\" or \"json\""),
        }
    }
    if let Some(level) = table.text("level") {
        match wrong(level.value) {
            None => log.level = Some(level.value.to_owned()),
            Some(problem) => table.problem_at("level", level.at, problem),
        }
    }
    table.finish();
    log
}

/// What is wrong with a level or its directives.
fn wrong(level: &str) -> Option<String> {
    let expected = "expected \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\", or \"narrows=debug,warn\"";
    // A lone word that is no level would be a module, with everything that it says.
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    let is_word = |word: &str| word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':' | b'-'));
    if let Some(word) = level.split(',').map(str::trim).find(|word| is_word(word) && !is_level(word)) {
        return Some(format!("\"{word}\" is no level; {expected}"));
    }
    EnvFilter::try_new(level).err().map(|error| format!("{error}; {expected}"))
}
