//! Finds lines of a journal.

use std::io;
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

use serde_json::Value;

use super::files::{self, ChainFile, Lines, Piece};
use crate::clock::UnixSeconds;

/// What to find: every member that is set must match. Texts match exactly unless it says otherwise.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The person.
    pub user: Option<String>,
    /// An agent anywhere in the chain: its name, or its holder key.
    pub agent: Option<String>,
    /// The service.
    pub service: Option<String>,
    /// The operation.
    pub operation: Option<String>,
    /// `allowed`, `denied`, `failed`, `aborted`.
    pub outcome: Option<String>,
    /// The stable code.
    pub code: Option<String>,
    /// `request`, `tunnel`, `auth`, `repair`.
    pub event: Option<String>,
    /// The host, in any case.
    pub host: Option<String>,
    /// The request's id.
    pub id: Option<String>,
    /// The path is equal to this or below it, by segment.
    pub path: Option<String>,
    /// Not before this moment.
    pub since: Option<UnixSeconds>,
    /// Before this moment.
    pub until: Option<UnixSeconds>,
    /// Anywhere in the line as it is written.
    pub text: Option<String>,
}

impl Filter {
    /// Whether a line matches; `text` is not looked at here.
    #[must_use]
    pub fn matches(&self, line: &Value) -> bool {
        let member = |name: &str| line.get(name).and_then(Value::as_str);
        let exact = [
            (&self.user, "user"),
            (&self.service, "service"),
            (&self.operation, "operation"),
            (&self.outcome, "outcome"),
            (&self.code, "code"),
            (&self.event, "event"),
            (&self.id, "id"),
        ];
        exact.iter().all(|(wanted, name)| wanted.as_deref().is_none_or(|wanted| member(name) == Some(wanted)))
            && self.host.as_deref().is_none_or(|host| member("host").is_some_and(|it| it.eq_ignore_ascii_case(host)))
            && self.path.as_deref().is_none_or(|above| member("path").is_some_and(|path| contains(above, path)))
            && self.agent.as_deref().is_none_or(|agent| names(line, agent))
            && self.matches_time(line)
    }

    fn matches_time(&self, line: &Value) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        let time = line.get("time").and_then(Value::as_str).and_then(|time| time.parse::<jiff::Timestamp>().ok());
        let Some(second) = time.and_then(|time| u64::try_from(time.as_second()).ok()) else { return false };
        self.since.is_none_or(|since| second >= since.get()) && self.until.is_none_or(|until| second < until.get())
    }
}

/// `/a` contains `/a` and `/a/b`, not `/ab`.
fn contains(above: &str, path: &str) -> bool {
    let above = above.strip_suffix('/').unwrap_or(above);
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn names(line: &Value, agent: &str) -> bool {
    let chain = line.get("chain").and_then(Value::as_array);
    chain.into_iter().flatten().any(|hop| ["name", "holder"].iter().any(|name| hop[name].as_str() == Some(agent)))
}

/// Why a line could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Not a line of the journal; `capctl audit verify` says more.
    #[error("{}:{line}: not a line of the journal", path.display())]
    NotALine {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
    },
}

/// Lines that match, read as they are asked for: chain after chain in the order of their starts, each in its own order.
#[derive(Debug)]
pub struct Search {
    filter: Filter,
    files: IntoIter<ChainFile>,
    open: Option<(PathBuf, Lines)>,
}

/// Looks through every chain in a folder.
///
/// # Errors
/// [`SearchError::Read`] when the folder cannot be read; the rest comes with the lines.
pub fn search(dir: &Path, filter: Filter) -> Result<Search, SearchError> {
    let files = files::list(dir).map_err(|source| SearchError::Read { path: dir.to_owned(), source })?;
    Ok(Search { filter, files: files.into_iter(), open: None })
}

impl Iterator for Search {
    type Item = Result<Value, SearchError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((path, lines)) = &mut self.open else {
                let path = self.files.next()?.path;
                match Lines::open(&path) {
                    Ok(lines) => self.open = Some((path, lines)),
                    Err(source) => return Some(Err(SearchError::Read { path, source })),
                }
                continue;
            };
            let line = lines.number + 1;
            match lines.next() {
                Ok(Some(Piece::Line(bytes))) => {
                    if self.filter.text.as_deref().is_some_and(|text| !includes(bytes, text.as_bytes())) {
                        continue;
                    }
                    match serde_json::from_slice::<Value>(bytes) {
                        Ok(value) if self.filter.matches(&value) => return Some(Ok(value)),
                        Ok(_) => {}
                        Err(_) => return Some(Err(SearchError::NotALine { path: path.clone(), line })),
                    }
                }
                Ok(Some(Piece::Overlong)) => {
                    return Some(Err(SearchError::NotALine { path: path.clone(), line }));
                }
                // The end, or a last line that is being written.
                Ok(Some(Piece::Torn) | None) => self.open = None,
                Err(source) => {
                    let path = path.clone();
                    self.open = None;
                    return Some(Err(SearchError::Read { path, source }));
                }
            }
        }
    }
}

fn includes(line: &[u8], text: &[u8]) -> bool {
    text.is_empty() || line.windows(text.len()).any(|window| window == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_member_narrows() {
        let line = json!({"time": "2027-01-15T08:00:00.345Z", "user": "alice", "host": "api.test", "path": "/v1/items",
            "chain": [{"holder": "ed25519/aa", "name": null}, {"holder": "ed25519/bb", "name": "agent-1"}]});
        let some = |text: &str| Some(text.to_owned());
        let at = |second| Some(UnixSeconds(second));
        for (filter, matches) in [
            (Filter::default(), true),
            (Filter { user: some("alice"), ..Filter::default() }, true),
            (Filter { user: some("alic"), ..Filter::default() }, false),
            (Filter { agent: some("agent-1"), ..Filter::default() }, true),
            (Filter { agent: some("ed25519/aa"), ..Filter::default() }, true),
            (Filter { agent: some("agent-2"), ..Filter::default() }, false),
            (Filter { host: some("API.test"), ..Filter::default() }, true),
            (Filter { path: some("/v1"), ..Filter::default() }, true),
            (Filter { path: some("/v"), ..Filter::default() }, false),
            (Filter { since: at(1_800_000_000), ..Filter::default() }, true),
            (Filter { since: at(1_800_000_001), ..Filter::default() }, false),
            (Filter { until: at(1_800_000_001), ..Filter::default() }, true),
            (Filter { until: at(1_800_000_000), ..Filter::default() }, false),
            (Filter { code: some("x"), ..Filter::default() }, false),
        ] {
            assert_eq!(filter.matches(&line), matches, "{filter:?}");
        }
    }
}
