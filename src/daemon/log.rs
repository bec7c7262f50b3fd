//! The log on stderr: one for the process, whose level and format the configuration may change at any time.
//!
//! It is handed over and never waited for: a reader that has stopped holds up no request. What is not read is left out and
//! counted. Clients and upstreams cause lines, so each place of the code may say so much in a second and the rest is left
//! out and counted too: a flood hides itself, and not what another place says.
//!
//! Deliberately absent: colours, which a peer's text could forge; and, from a line of JSON, the spans of libraries.
#![expect(clippy::disallowed_types, reason = "of a line that is said, which a request seldom has")]

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use jiff::Timestamp;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use crate::audit::json;
use crate::config::{Log, LogFormat};
use crate::handoff::{Handoff, Words};

/// What is logged where nobody says otherwise.
const LEVEL_DEFAULT: &str = "warn";
/// A level without a module is that of this crate. What libraries say, peers can make them say; below this they are heard
/// only when they are named.
const LIBRARIES: &str = "error";
const OURS: &str = env!("CARGO_PKG_NAME");
/// So many lines of one place of the code are taken in a second, and so many below `info`, where somebody wants all of it.
/// The places are some hundred.
const LINES_MAX: u32 = 20;
const LINES_MAX_BELOW_INFO: u32 = 2_000;
/// Either says what is logged, whatever the configuration says; the first counts.
const VARIABLES: [&str; 2] = ["NARROWS_LOG", "RUST_LOG"];

/// Sets the level of the process's log.
static SET_LEVEL: OnceLock<Box<dyn Fn(EnvFilter) + Send + Sync>> = OnceLock::new();
/// What writes the lines; none where the system had no thread for it.
static HANDOFF: OnceLock<Handoff> = OnceLock::new();
static AS_JSON: AtomicBool = AtomicBool::new(false);
/// Lines that were too many and have not been counted aloud.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// How long the end of the process waits for who reads the log.
const FINISH_WITHIN: Duration = Duration::from_secs(1);

/// Starts the log of this process; the configuration changes it later. To be called once, before anything is logged.
pub fn start() {
    // A line that cannot be written is kept for a while, and otherwise lost: there is nowhere to say so.
    let left_out = |lines| tracing::warn!(lines, "the log was not read: lines of it are missing");
    let words = Words { left_out, failing: |_| () };
    if let Ok(handoff) = Handoff::start("log", io::stderr(), words) {
        let _ = HANDOFF.set(handoff);
    }
    let filter = from_environment().unwrap_or_else(|| EnvFilter::new(directives(LEVEL_DEFAULT)));
    // Saying on the same stderr that a line cannot be written would be a panic in whatever logged it.
    let log = tracing_subscriber::fmt().with_ansi(false).log_internal_errors(false).event_format(Form::default());
    let log = log.with_env_filter(filter).with_writer(|| Lines).with_filter_reloading();
    let handle = log.reload_handle();
    let _ = SET_LEVEL.set(Box::new(move |filter| {
        // It fails only when the subscriber is gone, which it never is.
        let _ = handle.reload(filter);
    }));
    log.finish().with(Pace::new()).init();
}

/// What the configuration says of the log. Nothing happens in a process that has none.
pub(super) fn set(log: &Log) {
    let Some(set_level) = SET_LEVEL.get() else { return };
    AS_JSON.store(log.format == LogFormat::Json, Ordering::Relaxed);
    if from_environment().is_none() {
        // The configuration was refused if it does not read.
        set_level(EnvFilter::new(directives(log.level.as_deref().unwrap_or(LEVEL_DEFAULT))));
    }
}

/// Says what is said at every level: that it listens, or why it does not. A line of text, or an object as other lines are.
pub fn say(level: Level, text: &str) {
    let line = if AS_JSON.load(Ordering::Relaxed) {
        let said = Said { message: text.to_owned(), fields: String::new() };
        said.line(Timestamp::now(), level, env!("CARGO_PKG_NAME"))
    } else {
        format!("{text}\n")
    };
    let _ = Lines.write_all(line.as_bytes());
}

/// Says how many lines there were too many of in a second, if there were any. To be called from time to time.
pub(super) fn count_left_out() {
    let lines = LEFT_OUT.swap(0, Ordering::Relaxed);
    if lines > 0 {
        tracing::warn!(lines, "too much to say in a second: lines of the log are missing");
    }
}

/// Gives whoever reads the log the time to take what is left of it. To be called at the end of the process.
pub fn finish() {
    count_left_out();
    if let Some(handoff) = HANDOFF.get() {
        handoff.settle(Instant::now() + FINISH_WITHIN);
    }
}

/// Takes a line with each `write`.
struct Lines;

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match HANDOFF.get() {
            Some(handoff) => handoff.take(line, 1),
            None => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn from_environment() -> Option<EnvFilter> {
    let said = VARIABLES.iter().find_map(|name| std::env::var(name).ok())?;
    let filter = EnvFilter::try_new(directives(&said));
    Some(filter.unwrap_or_else(|_| EnvFilter::new(directives(LEVEL_DEFAULT))))
}

/// What a person says of the log, for a filter that knows libraries too.
fn directives(said: &str) -> String {
    let (mut all, mut named) = (vec![LIBRARIES.to_owned()], Vec::new());
    for directive in said.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        match directive.parse::<LevelFilter>() {
            Ok(LevelFilter::OFF) => all.push("off".to_owned()),
            Ok(level) => all.push(format!("{OURS}={level}")),
            Err(_) => named.push(directive.to_owned()),
        }
    }
    // Of two for the same module the later one counts: the one that names it.
    all.append(&mut named);
    all.join(",")
}

/// Leaves out what one place of the code says too much of. Sees what the filter lets through.
struct Pace {
    began: Instant,
    /// In which second a place spoke last, and how many lines it has said in it.
    places: DashMap<Identifier, (u64, u32)>,
}

impl Pace {
    fn new() -> Self {
        Self { began: Instant::now(), places: DashMap::new() }
    }

    /// Whether there is room for one more line of that place.
    fn takes(&self, place: Identifier, level: Level, now: Instant) -> bool {
        let second = now.saturating_duration_since(self.began).as_secs();
        let most = if level > Level::INFO { LINES_MAX_BELOW_INFO } else { LINES_MAX };
        let mut said = self.places.entry(place).or_default();
        if said.0 != second {
            *said = (second, 0);
        }
        said.1 = said.1.saturating_add(1);
        said.1 <= most
    }
}

impl<S: Subscriber> Layer<S> for Pace {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        let is_taken = self.takes(metadata.callsite(), *metadata.level(), Instant::now());
        LEFT_OUT.fetch_add(u64::from(!is_taken), Ordering::Relaxed);
        is_taken
    }
}

/// A line of either format.
#[derive(Default)]
struct Form {
    text: Format,
}

impl<S, N> FormatEvent<S, N> for Form
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if !AS_JSON.load(Ordering::Relaxed) {
            return self.text.format_event(context, to, event);
        }
        to.write_str(&line(event, Timestamp::now()))
    }
}

fn line(event: &Event<'_>, now: Timestamp) -> String {
    let mut said = Said::default();
    event.record(&mut said);
    said.line(now, *event.metadata().level(), event.metadata().target())
}

/// Escaped as in the journal: nothing in it ends the line, moves a cursor or hides text.
fn string(to: &mut String, text: &str) {
    let mut bytes = Vec::with_capacity(text.len() + 2);
    json::string(&mut bytes, text);
    to.push_str(&String::from_utf8_lossy(&bytes));
}

/// What an event says.
#[derive(Default)]
struct Said {
    message: String,
    /// Members of an object.
    fields: String,
}

impl Said {
    /// `{"time":…,"level":…,"target":…,"message":…,"fields":{…}}`. The fields have an object of their own, so that none can
    /// pass for another member.
    fn line(&self, now: Timestamp, level: Level, target: &str) -> String {
        let mut line = format!("{{\"time\":\"{now:.3}\",\"level\":\"{level}\",\"target\":");
        string(&mut line, target);
        line.push_str(",\"message\":");
        string(&mut line, &self.message);
        line.push_str(",\"fields\":{");
        line.push_str(&self.fields);
        line.push_str("}}\n");
        line
    }

    fn name(&mut self, field: &Field) {
        if !self.fields.is_empty() {
            self.fields.push(',');
        }
        string(&mut self.fields, field.name());
        self.fields.push(':');
    }

    fn text(&mut self, field: &Field, text: &str) {
        if field.name() == "message" {
            text.clone_into(&mut self.message);
        } else {
            self.name(field);
            string(&mut self.fields, text);
        }
    }

    fn bare(&mut self, field: &Field, value: &dyn fmt::Display) {
        self.name(field);
        let _ = write!(self.fields, "{value}");
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field, &value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use tracing::field;

    /// Keeps the lines that it would write.
    struct Kept(mpsc::Sender<String>);

    impl<S: Subscriber> Layer<S> for Kept {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.send(line(event, Timestamp::UNIX_EPOCH)).expect("kept");
        }
    }

    #[test]
    fn a_level_is_ours_and_libraries_are_heard_when_they_are_named() {
        for (said, wanted) in [
            ("warn", "error,narrows=warn"),
            ("DEBUG", "error,narrows=debug"),
            ("off", "error,off"),
            ("info, h2=debug", "error,narrows=info,h2=debug"),
            // The one that names a module counts, wherever it stands.
            ("narrows=debug,warn", "error,narrows=warn,narrows=debug"),
            ("", "error"),
        ] {
            assert_eq!(directives(said), wanted);
            EnvFilter::try_new(wanted).expect(wanted);
        }
    }

    #[test]
    fn a_place_that_says_too_much_hides_itself_and_no_other() {
        let (sender, lines) = mpsc::channel();
        let log = tracing_subscriber::registry().with(Kept(sender)).with(Pace::new());
        tracing::subscriber::with_default(log, || {
            for number in 0..10 * LINES_MAX {
                tracing::warn!(number, "a flood");
                tracing::debug!(number, "for who wants all of it");
            }
            tracing::warn!("another place");
            count_left_out();
        });
        let lines: Vec<String> = lines.try_iter().collect();
        let of = |words: &str| lines.iter().filter(|line| line.contains(words)).count();
        // It may have taken more than one second.
        let flood = u32::try_from(of("a flood")).expect("a number");
        assert!((LINES_MAX..10 * LINES_MAX).contains(&flood), "{flood}");
        assert_eq!(of("for who wants all of it"), 10 * LINES_MAX as usize);
        assert_eq!(of("another place"), 1);
        assert!(lines.iter().any(|line| line.contains(&format!("\"lines\":{}", 10 * LINES_MAX - flood))), "{lines:?}");
    }

    #[test]
    fn a_line_is_one_object_whatever_is_said() {
        let (sender, lines) = mpsc::channel();
        let log = tracing_subscriber::registry().with(Kept(sender));
        let hostile = "a\r\n\u{1b}[2J\"}\\\u{2028}\u{202e}\u{7f}é";
        tracing::subscriber::with_default(log, || {
            tracing::warn!(count = 3, "level" = "forged", is = true, below = -1, wide = u128::MAX, "{hostile}");
            tracing::error!(error = %hostile, what = ?hostile, half = 0.5, none = f64::NAN);
            tracing::info!(absent = field::Empty, "said");
        });
        let lines: Vec<String> = lines.try_iter().collect();
        for line in &lines {
            assert!(
                line.ends_with("}\n") && !line.trim_end_matches('\n').contains(|c: char| c.is_control()),
                "{line:?}"
            );
        }
        let parsed: Vec<serde_json::Value> = lines.iter().map(|it| serde_json::from_str(it).expect("JSON")).collect();
        assert_eq!(parsed[0]["message"], hostile);
        assert_eq!((&parsed[0]["level"], &parsed[0]["fields"]["level"]), (&"WARN".into(), &"forged".into()));
        assert_eq!((&parsed[0]["fields"]["count"], &parsed[0]["fields"]["is"]), (&3.into(), &true.into()));
        assert_eq!(parsed[1]["fields"]["error"], hostile);
        assert_eq!((&parsed[1]["fields"]["half"], &parsed[1]["fields"]["none"]), (&"0.5".into(), &"NaN".into()));
        assert_eq!((&parsed[1]["message"], &parsed[2]["fields"]), (&"".into(), &serde_json::json!({})));
        assert_eq!(parsed[2]["time"], "1970-01-01T00:00:00.000Z");
    }
}
