//! `capctl audit`: the journal.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use crate::audit::{Filter, ProblemKind, Tail, recover, search, verify};
use crate::clock::UnixSeconds;
use crate::config::Config;
use crate::store::Home;

use super::failure::FAILED;
use super::failure::Failure;
use super::output::{plain, print, print_json, say};
use super::terms::moment;

/// How often a followed journal is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Who did what, on whose behalf, by which chain: check the journal, follow it, look through it.
#[derive(Debug, clap::Subcommand)]
#[command(
    before_help = "Examples:\n  capctl audit verify\n  capctl audit tail\n  capctl audit search --agent agent-1 --outcome denied --since 2026-01-15T00:00:00Z"
)]
pub(super) enum Verb {
    /// Finds a line that was removed, changed or reordered; prints count and head of each chain, and writes nothing
    #[command(
        before_help = "Examples:\n  capctl audit verify\n  capctl audit verify --head HASH        a head that you keep elsewhere shows a cut tail"
    )]
    Verify {
        /// One file, instead of the home's journal
        file: Option<PathBuf>,
        /// The hash of a line that must be there
        #[arg(long, value_name = "HASH")]
        head: Option<String>,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Prints the last lines and follows
    #[command(before_help = "Examples:\n  capctl audit tail\n  capctl audit tail --lines 100 --no-follow")]
    Tail {
        /// So many lines first
        #[arg(long, value_name = "N", default_value_t = 10)]
        lines: usize,
        /// Ends after them
        #[arg(long)]
        no_follow: bool,
        /// Whole lines, for programs
        #[arg(long)]
        json: bool,
    },
    /// Prints the lines that match every filter
    #[command(
        before_help = "Example:\n  capctl audit search --user alice@example.com --service github --path /repos/acme"
    )]
    Search(Box<SearchArgs>),
}

/// Filters; all that are given must hold.
#[derive(Debug, clap::Args)]
pub(super) struct SearchArgs {
    /// The person
    #[arg(long)]
    user: Option<String>,
    /// An agent anywhere in the chain: its name, or its key
    #[arg(long)]
    agent: Option<String>,
    /// The service
    #[arg(long)]
    service: Option<String>,
    /// The operation
    #[arg(long)]
    operation: Option<String>,
    /// allowed, denied, failed or aborted
    #[arg(long, value_parser = ["allowed", "denied", "failed", "aborted"])]
    outcome: Option<String>,
    /// The code of a refusal
    #[arg(long)]
    code: Option<String>,
    /// request, tunnel, auth or repair
    #[arg(long, value_parser = ["request", "tunnel", "auth", "repair"])]
    event: Option<String>,
    /// The host
    #[arg(long)]
    host: Option<String>,
    /// This path, or below it
    #[arg(long)]
    path: Option<String>,
    /// The request's id
    #[arg(long)]
    id: Option<String>,
    /// Not before: 2026-01-15T00:00:00Z
    #[arg(long, value_name = "T")]
    since: Option<String>,
    /// Before
    #[arg(long, value_name = "T")]
    until: Option<String>,
    /// Anywhere in the line
    text: Option<String>,
    /// Whole lines, for programs
    #[arg(long)]
    json: bool,
}

impl Verb {
    pub(super) fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        home.check()?;
        let dir = Config::load(home).map_or_else(|_| home.audit_dir(), |config| config.journal_dir);
        if !dir.exists() {
            return Err(Failure::new(format_args!("there is no journal in {}", dir.display()))
                .hint("it begins with the first request: capctl run --allow GRANT -- COMMAND".to_owned()));
        }
        // A process that died leaves its last lines to whoever looks next; only a check must find all as it was.
        if !matches!(self, Self::Verify { .. }) {
            recover(&dir).map_err(|error| Failure::new(format_args!("{}: {error}", dir.display())))?;
        }
        match self {
            Self::Verify { file, head, json } => check(&file.unwrap_or(dir), head.as_deref(), json),
            Self::Tail { lines, no_follow, json } => tail(&dir, lines, !no_follow, json),
            Self::Search(args) => args.run(&dir),
        }
    }
}

fn check(path: &std::path::Path, head: Option<&str>, as_json: bool) -> Result<ExitCode, Failure> {
    let report = verify(path, head).map_err(|error| Failure::new(format_args!("{}: {error}", path.display())))?;
    if as_json {
        print_json(&serde_json::to_value(&report).map_err(|error| Failure::of(&error))?)?;
    } else {
        for chain in &report.chains {
            print(format_args!("{}  {} lines  head {}", chain.chain, chain.lines, chain.head))?;
        }
        report.problems().for_each(say);
    }
    if report.repairs() > 0 {
        say(format_args!("{} repairs after a crash: capctl audit search --event repair", report.repairs()));
    }
    for chain in report.chains.iter().filter(|chain| chain.torn) {
        let chain = &chain.chain;
        say(format_args!(
            "{chain}: its last line is not whole: its process is writing it, or died and left it for the next start"
        ));
    }
    if report.is_sound() {
        say(format_args!("{} lines, nothing removed, changed or reordered", report.lines()));
        say("a cut tail shows only against a head kept elsewhere: capctl audit verify --head HASH");
        return Ok(ExitCode::SUCCESS);
    }
    if report.head_found == Some(false) {
        say("capctl: error: no line has the hash given with --head: the tail was cut, or everything rewritten");
    }
    if report.problems().all(|problem| problem.kind == ProblemKind::Torn) && report.head_found != Some(false) {
        say("capctl: error: the journal ends in half a line: a power cut tore it, or somebody cut it");
        say("capctl: hint: the next start of the proxy takes that line off and leaves a note in its place");
    } else {
        say("capctl: error: the journal was changed");
    }
    Ok(ExitCode::from(FAILED))
}

fn tail(dir: &std::path::Path, lines: usize, follow: bool, as_json: bool) -> Result<ExitCode, Failure> {
    let failed = |error: std::io::Error| Failure::new(format_args!("{}: {error}", dir.display()));
    let mut tail = Tail::open(dir, lines).map_err(failed)?;
    loop {
        for line in tail.poll().map_err(failed)? {
            show(&line, as_json)?;
        }
        if !follow {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

impl SearchArgs {
    fn run(self, dir: &std::path::Path) -> Result<ExitCode, Failure> {
        let now = UnixSeconds::now();
        let time = |text: Option<String>| text.map(|text| moment(&text, now)).transpose();
        let filter = Filter {
            user: self.user,
            agent: self.agent,
            service: self.service,
            operation: self.operation,
            outcome: self.outcome,
            code: self.code,
            event: self.event,
            host: self.host,
            id: self.id,
            path: self.path,
            since: time(self.since)?,
            until: time(self.until)?,
            text: self.text,
        };
        let mut found = 0_usize;
        for line in search(dir, filter).map_err(|error| Failure::of(&error))? {
            show(&line.map_err(|error| Failure::of(&error))?, self.json)?;
            found += 1;
        }
        say(format_args!("{found} lines"));
        Ok(ExitCode::SUCCESS)
    }
}

fn show(line: &Value, as_json: bool) -> Result<(), Failure> {
    if as_json { print(plain(&line.to_string())) } else { print(summary(line)) }
}

/// One line for people: when, what became of it, who, by which chain, what.
fn summary(line: &Value) -> String {
    let text = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or("-");
    let number = |name: &str| line.get(name).and_then(Value::as_u64).map_or_else(|| "-".to_owned(), |n| n.to_string());
    let chain = line.get("chain").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let names: Vec<String> =
        chain.iter().filter_map(|hop| hop.get("name")?.as_str()).map(|name| format!(" > {}", label(name))).collect();
    let who = format!("{}{}", label(text("user")), names.concat());
    let what = format!("{} {}{}", text("method"), text("host"), line.get("path").and_then(Value::as_str).unwrap_or(""));
    let code = line.get("code").and_then(Value::as_str).map(|code| format!(" {code}")).unwrap_or_default();
    let shown = format!(
        "{} {:<7}{code} {} {who}  {what}  {}:{}",
        text("time"),
        text("outcome"),
        number("status"),
        text("service"),
        text("operation")
    );
    // Nothing of a line moves a terminal's cursor.
    shown.chars().flat_map(|c| if c.is_control() { c.escape_unicode().collect() } else { vec![c] }).collect()
}

/// What somebody chose to be called: quoted unless it is one plain word, so that it looks like nothing else of the line.
fn label(name: &str) -> String {
    let is_plain = name.chars().all(|c| c.is_ascii_graphic() && !"\"\\<>".contains(c) || c.is_alphanumeric());
    if is_plain && !name.is_empty() { name.to_owned() } else { format!("{name:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_look_like_the_rest_of_a_line() {
        for plain in ["alice@example.com", "agent-1", "Zoë", "-"] {
            assert_eq!(label(plain), plain);
        }
        let line = serde_json::json!({
            "time": "2027-01-15T15:40:12.345Z", "outcome": "denied", "user": "a > root",
            "chain": [{ "name": "x  GET api\u{202e}\u{1b}[2J" }],
        });
        let shown = summary(&line);
        assert!(shown.contains("\"a > root\" > \"x  GET api\\u{202e}\\u{1b}[2J\""), "{shown}");
    }
}
