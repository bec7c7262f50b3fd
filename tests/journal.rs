//! The journal through its front door: every entry that was begun becomes exactly one line, whatever dies when.
#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use narrows::audit::{
    self, Ending, Entry, Event, Filter, Identity, IdentityHop, Intent, Journal, JournalOptions, Outcome, Report,
    Unavailable,
};
use narrows::capability::{Algorithm, PrivateKey};
use narrows::request::ProofKind;
use serde_json::Value;
use tempfile::TempDir;
use ulid::Ulid;

const WAIT: Duration = Duration::from_secs(20);
const TIME_MS: u64 = 1_800_027_612_345;

struct Folder {
    dir: TempDir,
}

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).expect("a mode");
        Self { dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn open(&self) -> Journal {
        self.open_with(small())
    }

    fn open_with(&self, options: JournalOptions) -> Journal {
        Journal::open(self.path(), options).expect("a journal")
    }

    fn verify(&self) -> Report {
        audit::verify(self.path(), None).expect("a report")
    }

    fn lines(&self) -> Vec<Value> {
        audit::search(self.path(), Filter::default()).expect("a search").map(|line| line.expect("a line")).collect()
    }

    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.path())
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.to_string_lossy().ends_with(ending))
            .collect();
        files.sort();
        files
    }

    fn only_file(&self) -> PathBuf {
        let files = self.files(".jsonl");
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    }
}

fn small() -> JournalOptions {
    JournalOptions { in_flight_max: 64, ..JournalOptions::default() }
}

fn intent(number: u64) -> Intent<'static> {
    Intent {
        id: Ulid::from_parts(TIME_MS, u128::from(number)),
        time_ms: TIME_MS,
        event: Event::Request,
        identity: None,
        service: Some("github"),
        operation: Some("read"),
        action: None,
        method: Some("GET"),
        host: Some("api.github.com"),
        port: Some(443),
        path: Some("/repos/acme/widgets"),
        credential: Some("gh-pat"),
        client: Some("127.0.0.1:53122"),
        foreign_credential: false,
    }
}

fn outcome(ending: Ending) -> Outcome {
    Outcome {
        ending,
        code: None,
        status: Some(200),
        bytes_up: 0,
        bytes_down: 5321,
        duration_ms: 143,
        upstream_ms: Some(141),
        foreign_credential: false,
    }
}

fn write(journal: &Journal, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        begin(journal, &intent(number)).finish(&outcome(Ending::Allowed));
    }
}

/// Begins when there is room: the writer needs a moment for more than fits.
fn begin(journal: &Journal, intent: &Intent<'_>) -> Entry {
    let deadline = Instant::now() + WAIT;
    loop {
        match journal.begin(intent) {
            Ok(entry) => return entry,
            Err(Unavailable::Full) => assert!(journal.flush(WAIT) && Instant::now() < deadline, "still full"),
            Err(other) => panic!("{other}"),
        }
    }
}

fn ids(lines: &[Value]) -> BTreeMap<String, usize> {
    let mut ids = BTreeMap::new();
    for line in lines {
        *ids.entry(line["id"].as_str().expect("an id").to_owned()).or_insert(0) += 1;
    }
    ids
}

#[track_caller]
fn assert_sound(report: &Report) {
    assert!(report.is_sound(), "{report:#?}");
}

#[test]
fn a_line_is_what_the_interface_says_member_by_member() {
    let folder = Folder::new();
    let journal = folder.open();
    let key = PrivateKey::from_seed(Algorithm::Ed25519, [7; 32]).expect("a key");
    let (first, second) = ([0xf8; 32], [0xb2; 32]);
    let hop = |name, block| IdentityHop { holder: key.public(), name, block };
    let identity = Identity::new(
        Some("alice@example.com"),
        &[hop(None, &first), hop(Some("agent-1"), &second)],
        &[0xca; 32],
        ProofKind::Connect,
    );
    let entry = journal.begin(&Intent { identity: Some(&identity), ..intent(1) }).expect("begun");
    entry.finish(&outcome(Ending::Allowed));
    assert!(journal.flush(WAIT));

    let text = fs::read_to_string(folder.only_file()).expect("a file");
    let (body, _) = text.trim_end().split_once(",\"hash\":").expect("a hash");
    let holder = key.public().to_string();
    let zeros = "0".repeat(64);
    let id = Ulid::from_parts(TIME_MS, 1).to_string();
    let expected = format!(
        concat!(
            r#"{{"time":"2027-01-15T15:40:12.345Z","id":"{}","event":"request","outcome":"allowed","code":null,"#,
            r#""user":"alice@example.com","chain":[{{"holder":"{}","name":null,"block":"{}"}},"#,
            r#"{{"holder":"{}","name":"agent-1","block":"{}"}}],"capability":"{}","proof":"connect","#,
            r#""service":"github","operation":"read","action":null,"method":"GET","host":"api.github.com","#,
            r#""port":443,"path":"/repos/acme/widgets","credential":"gh-pat","status":200,"bytes_up":0,"#,
            r#""bytes_down":5321,"duration_ms":143,"upstream_ms":141,"client":"127.0.0.1:53122","prev":"{}""#,
        ),
        id,
        holder,
        "f8".repeat(32),
        holder,
        "b2".repeat(32),
        "ca".repeat(32),
        zeros
    );
    assert_eq!(body, expected);
    let report = folder.verify();
    assert_sound(&report);
    assert_eq!((report.lines(), report.chains[0].head.len()), (1, 64));
}

#[test]
fn nothing_that_a_peer_sends_ends_a_line_or_moves_a_cursor() {
    let folder = Folder::new();
    let journal = folder.open();
    let nasty = "/a\r\n\x1b[2J\"\\\u{2028}\u{2029}\u{202e}\u{0}\u{7f}\u{9b}é".repeat(100);
    let identity = Identity::new(Some("a\"\n\u{202e}"), &[], &[0; 32], ProofKind::Presentation);
    let nasty_intent = Intent {
        path: Some(&nasty),
        method: Some("G\r\nT"),
        host: Some("\u{feff}"),
        identity: Some(&identity),
        ..intent(1)
    };
    journal.begin(&nasty_intent).expect("begun").finish(&outcome(Ending::Denied));
    drop(journal);
    let text = fs::read_to_string(folder.only_file()).expect("a file");
    assert_eq!(text.lines().count(), 1);
    assert!(!text.trim_end().chars().any(|c| c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c)));
    let lines = folder.lines();
    assert_eq!(lines[0]["path"], nasty.as_str());
    assert_eq!(lines[0]["user"], "a\"\n\u{202e}");
    assert_sound(&folder.verify());
}

#[test]
fn an_entry_dropped_is_aborted_and_one_too_large_is_refused() {
    let folder = Folder::new();
    let journal = folder.open();
    drop(journal.begin(&intent(1)).expect("begun"));
    let path = "/".repeat(8 * 1024);
    journal
        .begin(&Intent { path: Some(&path), ..intent(2) })
        .expect("the longest path")
        .finish(&outcome(Ending::Failed));
    let path = "/".repeat(32 * 1024);
    assert_eq!(
        journal.begin(&Intent { path: Some(&path), ..intent(3) }).expect_err("too large"),
        Unavailable::TooLarge
    );
    drop(journal);
    let lines = folder.lines();
    assert_eq!(
        lines.iter().map(|line| line["outcome"].as_str()).collect::<Vec<_>>(),
        [Some("aborted"), Some("failed")]
    );
    assert!(lines[0]["status"].is_null() && lines[0]["duration_ms"].is_u64());
}

#[test]
fn lines_are_in_the_order_in_which_they_finished() {
    let folder = Folder::new();
    let journal = folder.open();
    let mut entries: Vec<Entry> = (0..40).map(|number| journal.begin(&intent(number)).expect("begun")).collect();
    let mut expected = Vec::new();
    while let Some(entry) = (!entries.is_empty()).then(|| entries.swap_remove(entries.len() / 3)) {
        expected.push(entry.id().to_string());
        entry.finish(&outcome(Ending::Allowed));
    }
    drop(journal);
    let found: Vec<String> = folder.lines().iter().map(|line| line["id"].as_str().expect("an id").to_owned()).collect();
    assert_eq!(found, expected);
}

#[test]
fn when_every_slot_is_taken_a_request_is_refused_until_one_is_given_back() {
    let folder = Folder::new();
    let journal = folder.open_with(JournalOptions { in_flight_max: 16, ..small() });
    // Sixteen small slots, and the large one serves when they are gone.
    let mut entries: Vec<Entry> = (0..17).map(|number| journal.begin(&intent(number)).expect("begun")).collect();
    assert_eq!(journal.begin(&intent(17)).expect_err("full"), Unavailable::Full);
    assert_eq!(journal.health().in_flight, 17);
    entries.pop();
    assert!(journal.flush(WAIT));
    journal.begin(&intent(18)).expect("room again").finish(&outcome(Ending::Allowed));
    drop(entries);
    drop(journal);
    assert_eq!(folder.lines().len(), 18);
    assert_sound(&folder.verify());
}

#[test]
fn eight_threads_of_ten_thousand_entries_leave_one_line_each() {
    const EACH: u64 = 10_000;
    let folder = Folder::new();
    let journal = folder.open_with(JournalOptions { rotate_bytes: 1 << 20, in_flight_max: 512, ..small() });
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let journal = &journal;
            scope.spawn(move || write(journal, thread * EACH..(thread + 1) * EACH));
        }
    });
    drop(journal);
    let lines = folder.lines();
    assert_eq!(lines.len(), 80_000);
    assert!(ids(&lines).len() == 80_000, "an entry has two lines");
    let report = folder.verify();
    assert_sound(&report);
    assert!(report.chains.len() == 1 && report.chains[0].files.len() > 10, "{:?}", report.chains[0].files);
    assert!(folder.files(".ring").is_empty());
}
