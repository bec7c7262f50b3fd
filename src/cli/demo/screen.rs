//! What a person sees of the demo: 80 columns, one screen, and a mark at everything that was checked.

use std::env;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use serde_json::Value;

use super::{HOST, SECRET, Story, USER, VARIABLE, chain};

pub(super) struct Screen {
    text: String,
    colour: bool,
    failed: usize,
}

impl Screen {
    /// Colours only on a terminal, and not where `NO_COLOR` is set.
    pub(super) fn of_stdout() -> Self {
        let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { text: String::new(), colour: io::stdout().is_terminal() && !plain, failed: 0 }
    }

    pub(super) fn show(mut self, story: &Story) -> io::Result<ExitCode> {
        self.line("");
        self.line(" An agent that holds a capability, never a key. No network, nothing left behind.");
        self.people();
        self.call(story);
        self.more(story);
        self.journal(story);
        let failed = self.failed;
        let verdict = if failed == 0 {
            format!("Everything went as it must, in {} ms.  Next: capctl init", story.took_ms)
        } else {
            format!("{failed} expectation(s) failed: please report this.")
        };
        self.line("");
        let verdict = self.paint(if failed == 0 { "32" } else { "31" }, &verdict);
        self.line(&format!(" {verdict}"));
        io::stdout().write_all(self.text.as_bytes())?;
        Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn people(&mut self) {
        self.title("1. Each holder signs for the next, and only takes away");
        self.line(&format!("   {USER:<20} {}   for 1 hour", chain::ALICE));
        self.line(&format!("   └ orchestrator       {}", chain::ORCHESTRATOR));
        self.line(&format!("     └ researcher       {}   {} calls", chain::RESEARCHER, chain::CALLS));
    }

    fn call(&mut self, story: &Story) {
        let program = if story.has_curl { "curl" } else { "a built-in client (there is no curl here)" };
        self.title(&format!("2. The researcher runs {program}"));
        self.line(&format!(" $ curl -H \"Authorization: Bearer ${VARIABLE}\" https://{HOST}/v1/items"));
        let answer = &story.allowed;
        let right = format!("Bearer {}", story.secret);
        let saw = story.api.first().map(|seen| seen.authorization.clone()).unwrap_or_default();
        let sent_no_secret = answer.sent.starts_with("Bearer ") && !answer.sent.contains(&story.secret);
        self.check(sent_no_secret, &format!("the agent sent   {}", answer.sent));
        self.check(saw == right, &format!("the API saw      {saw}"));
        self.check(answer.status == 200, &format!("the agent got    {} {}", answer.status, answer.body));
    }

    fn more(&mut self, story: &Story) {
        self.title("3. It tries for more");
        for (what, code, answer) in &story.denied {
            let found = answer.code.as_deref().unwrap_or("no code");
            self.check(found == code, &format!("{what:<34} {} {found}", answer.status));
        }
        let only = story.api.len() == 1 && story.api.iter().all(|seen| seen.request == "GET /v1/items");
        self.check(only, &format!("requests that the API saw in all: {}", story.api.len()));
    }

    fn journal(&mut self, story: &Story) {
        self.title("4. The journal says who, through whom, and what came of it");
        for line in &story.journal {
            self.line(&format!("  {}", journal_line(line)));
        }
        let of = |outcome: &str, event: &str| {
            let is = |line: &&Value| line["outcome"] == outcome && line["event"] == event;
            story.journal.iter().filter(is).count()
        };
        let counts = of("allowed", "request") == 1 && of("denied", "request") == 3;
        self.check(counts, "one line for each request");
        let credential = |line: &Value| line["outcome"] != "allowed" || line["credential"] == SECRET;
        let clean = story.journal.iter().all(|line| credential(line) && !line.to_string().contains(&story.secret));
        self.check(clean, &format!("it names the secret {SECRET}, and never says its value"));
        let lines = story.report.lines();
        let head = story.report.chains.first().map(|chain| chain.head.clone()).unwrap_or_default();
        let head = head.get(..16).unwrap_or_default();
        self.check(story.report.is_sound() && lines > 0, &format!("hash chain of {lines} lines holds, head {head}…"));
    }

    fn title(&mut self, text: &str) {
        self.line("");
        let text = self.paint("1", text);
        self.line(&format!(" {text}"));
    }

    fn check(&mut self, holds: bool, text: &str) {
        let mark = if holds { self.paint("32", "✓") } else { self.paint("31", "✗ NOT:") };
        self.failed += usize::from(!holds);
        self.line(&format!(" {mark} {text}"));
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn line(&mut self, text: &str) {
        let _ = writeln!(self.text, "{text}");
    }
}

/// One line of the journal, in 77 columns: the request, every hop of the chain, the outcome.
fn journal_line(line: &Value) -> String {
    let text = |name: &str| line[name].as_str().unwrap_or("-").to_owned();
    let result = line["code"].as_str().map_or_else(|| format!("allowed, {}", line["status"]), ToOwned::to_owned);
    if line["event"] != "request" {
        let note = "nobody's name on an unproved claim";
        return format!("{:<16} {note:<42} {result}", text("event"));
    }
    let names = line["chain"].as_array().into_iter().flatten();
    let who: Vec<&str> = names.map(|hop| hop["name"].as_str().unwrap_or("alice")).collect();
    let request = format!("{} {}", text("method"), text("path"));
    format!("{request:<16} {:<42} {result}", who.join(" > "))
}
