//! The journal through its front door: every entry that was begun becomes exactly one line, whatever dies when.
#![expect(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests fail the test")]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use narrows::audit::{
    self, Durability, Ending, Entry, Event, Filter, Identity, IdentityHop, Intent, Journal, JournalError,
    JournalOptions, Outcome, ProblemKind, Recovery, Report, Tail, Unavailable,
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
        begin(journal, &intent(number)).finish(&outcome(Ending::Allowed), Instant::now());
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
        None,
    );
    let entry = journal.begin(&Intent { identity: Some(&identity), ..intent(1) }).expect("begun");
    entry.finish(&outcome(Ending::Allowed), Instant::now());
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
    let identity = Identity::new(Some("a\"\n\u{202e}"), &[], &[0; 32], ProofKind::Presentation, None);
    let nasty_intent = Intent {
        path: Some(&nasty),
        method: Some("G\r\nT"),
        host: Some("\u{feff}"),
        identity: Some(&identity),
        ..intent(1)
    };
    journal.begin(&nasty_intent).expect("begun").finish(&outcome(Ending::Denied), Instant::now());
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
        .finish(&outcome(Ending::Failed), Instant::now());
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
    assert!(lines[0]["status"].is_null() && lines[0]["duration_ms"].is_null());
}

#[test]
fn lines_are_in_the_order_in_which_they_finished() {
    let folder = Folder::new();
    let journal = folder.open();
    let mut entries: Vec<Entry> = (0..40).map(|number| journal.begin(&intent(number)).expect("begun")).collect();
    let mut expected = Vec::new();
    while let Some(entry) = (!entries.is_empty()).then(|| entries.swap_remove(entries.len() / 3)) {
        expected.push(entry.id().to_string());
        entry.finish(&outcome(Ending::Allowed), Instant::now());
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
    journal.begin(&intent(18)).expect("room again").finish(&outcome(Ending::Allowed), Instant::now());
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

#[test]
fn an_entry_allocates_nothing() {
    let folder = Folder::new();
    let journal = folder.open();
    let identity = Identity::new(Some("alice"), &[], &[0; 32], ProofKind::Connect, None);
    let intent = Intent { identity: Some(&identity), ..intent(1) };
    write(&journal, [0]);
    let counted = allocation_counter::measure(|| {
        journal.begin(&intent).expect("begun").finish(&outcome(Ending::Allowed), Instant::now());
    });
    assert_eq!(counted.count_total, 0);
}

#[test]
fn every_line_removed_changed_moved_or_doubled_is_found_at_its_place() {
    let folder = Folder::new();
    let journal = folder.open();
    write(&journal, 0..1);
    drop(journal);
    let line_bytes = fs::read(folder.only_file()).expect("a file").len() as u64;
    fs::remove_file(folder.only_file()).expect("removed");
    // Three lines a file.
    let journal = folder.open_with(JournalOptions { rotate_bytes: 2 * line_bytes + 1, ..small() });
    for numbers in [0..3, 3..6] {
        write(&journal, numbers);
        assert!(journal.flush(WAIT));
    }
    drop(journal);
    assert_eq!(folder.files(".jsonl").len(), 2);
    let report = folder.verify();
    assert_sound(&report);
    let head = report.chains[0].head.clone();
    for path in folder.files(".jsonl") {
        let text = fs::read_to_string(&path).expect("a file");
        let lines: Vec<&str> = text.lines().collect();
        let is_last_file = path.to_string_lossy().ends_with(".1.jsonl");
        let check = |what: &str, line: usize, changed: &[u8]| {
            fs::write(&path, changed).expect("written");
            let report = folder.verify();
            let first = report.problems().next().unwrap_or_else(|| panic!("{what} at {line} was not found"));
            assert!(!report.is_sound() && (first.file == path || !is_last_file), "{what}: {first:?}");
            assert!(first.file != path || first.line <= line as u64 + 1, "{what} at {line}: {first:?}");
        };
        let joined = |lines: &[&str]| lines.join("\n") + "\n";
        for at in 0..lines.len() {
            let mut removed = lines.clone();
            removed.remove(at);
            if !is_last_file || at + 1 < lines.len() {
                check("removed", at + 1, joined(&removed).as_bytes());
            }
            if at + 1 < lines.len() {
                let mut swapped = lines.clone();
                swapped.swap(at, at + 1);
                check("moved", at + 1, joined(&swapped).as_bytes());
            }
            let mut doubled = lines.clone();
            doubled.insert(at, lines[at]);
            check("doubled", at + 2, joined(&doubled).as_bytes());
        }
        let mut changed = text.clone().into_bytes();
        // Every third byte, starting elsewhere in each file.
        for at in (usize::from(is_last_file)..changed.len()).step_by(3) {
            changed[at] ^= 1;
            let line = text[..at].split('\n').count();
            check("changed", line, &changed);
            changed[at] ^= 1;
        }
        fs::write(&path, &text).expect("put back");
    }
    assert_sound(&folder.verify());
    let verified = |head: &str| audit::verify(folder.path(), Some(head)).expect("a report");
    assert_sound(&verified(&head));
    assert_sound(&verified(&head.to_uppercase()));

    // A cut tail shows only against a head that was kept.
    let last = folder.files(".jsonl").into_iter().find(|path| path.to_string_lossy().contains(".1.")).expect("rotated");
    let text = fs::read_to_string(&last).expect("a file");
    fs::write(&last, text.lines().next().map(|line| format!("{line}\n")).expect("a line")).expect("cut");
    assert_sound(&folder.verify());
    assert_eq!(verified(&head).head_found, Some(false));
    assert!(!verified(&head).is_sound());

    // A file in the middle or at the start of a chain is missed.
    fs::write(&last, &text).expect("put back");
    let first = folder.files(".jsonl").into_iter().find(|path| *path != last).expect("the first");
    let alone = audit::verify(&last, None).expect("a report");
    assert_sound(&alone);
    fs::remove_file(first).expect("removed");
    let report = folder.verify();
    assert_eq!(report.problems().map(|problem| problem.kind).collect::<Vec<_>>(), [ProblemKind::Missing]);
}

#[test]
fn a_torn_end_is_a_problem_only_when_nobody_will_mend_it() {
    let folder = Folder::new();
    let journal = folder.open();
    write(&journal, 0..2);
    drop(journal);
    let path = folder.only_file();
    let text = fs::read_to_string(&path).expect("a file");
    fs::write(&path, &text[..text.len() - 10]).expect("torn");
    let report = folder.verify();
    assert_eq!(
        report.problems().map(|problem| (problem.line, problem.kind)).collect::<Vec<_>>(),
        [(2, ProblemKind::Torn)]
    );
    fs::write(path.with_extension("ring"), "").expect("a ring");
    assert_sound(&folder.verify());
    assert_eq!(folder.lines().len(), 1);
}

#[test]
fn the_folder_and_its_files_are_private() {
    let folder = Folder::new();
    let journal = folder.open();
    for path in folder.files("") {
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600, "{path:?}");
    }
    drop(journal);
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    let error = Journal::open(folder.path(), small()).map(|_| ()).expect_err("exposed");
    assert!(matches!(error, JournalError::Folder(_)), "{error:?}");
    assert_eq!(error.hint(), Some(format!("chmod 700 {}", folder.path().display())));
}

#[test]
fn a_chain_without_lines_leaves_nothing_behind() {
    let folder = Folder::new();
    drop(folder.open());
    assert!(folder.files("").is_empty());
}

#[test]
fn failures_to_authenticate_are_counted_on_nobodys_name() {
    let folder = Folder::new();
    let journal = folder.open();
    let client = Some(IpAddr::from(Ipv4Addr::LOCALHOST));
    for _ in 0..3 {
        journal.auth_failure(client, None, "proof_invalid");
    }
    journal.auth_failure(None, None, "malformed");
    drop(journal);
    let lines = folder.lines();
    let counted = |code: &str| -> u64 {
        lines.iter().filter(|line| line["code"] == code).map(|line| line["count"].as_u64().expect("a count")).sum()
    };
    assert_eq!((counted("proof_invalid"), counted("malformed")), (3, 1));
    for line in &lines {
        assert_eq!((&line["event"], &line["outcome"]), (&"auth".into(), &"denied".into()));
        assert!(["user", "chain", "capability", "path"].iter().all(|name| line[name].is_null()), "{line}");
        assert!(line["client"] == "127.0.0.1" || line["client"] == "unix");
    }
    assert_sound(&folder.verify());
}

#[test]
fn an_entry_can_go_to_another_thread() {
    const fn is_static_send<T: Send + 'static>() {}
    const { is_static_send::<Entry>() };
    const { is_static_send::<Journal>() };
}

#[test]
fn every_line_is_on_the_disk_when_that_is_asked_for() {
    let folder = Folder::new();
    let journal = folder.open_with(JournalOptions { durability: Durability::Disk, rotate_bytes: 4096, ..small() });
    write(&journal, 0..100);
    drop(journal);
    assert_eq!(folder.lines().len(), 100);
    assert_sound(&folder.verify());
}

/// Waits for what the writer does by itself.
#[track_caller]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

#[test]
fn a_removed_folder_refuses_requests() {
    let folder = Folder::new();
    let journal = folder.open();
    write(&journal, 0..1);
    fs::remove_dir_all(folder.path()).expect("removed");
    wait_until("refusing", || journal.health().refusing.is_some());
    assert_eq!(journal.begin(&intent(1)).expect_err("refused"), Unavailable::Failing);
    fs::create_dir(folder.path()).expect("put back, for the folder's owner to remove");
}

#[test]
fn a_file_moved_away_is_followed_by_the_next_and_the_chain_holds() {
    let folder = Folder::new();
    let journal = folder.open();
    write(&journal, 0..3);
    assert!(journal.flush(WAIT));
    let first = folder.only_file();
    let elsewhere = folder.path().join("elsewhere");
    fs::rename(&first, &elsewhere).expect("moved");
    write(&journal, 3..5);
    drop(journal);
    let kinds: Vec<ProblemKind> = folder.verify().problems().map(|problem| problem.kind).collect();
    assert_eq!(kinds, [ProblemKind::Missing]);
    fs::rename(&elsewhere, &first).expect("put back");
    assert_sound(&folder.verify());
    assert_eq!(folder.lines().len(), 5);
}

#[test]
fn a_tail_follows_rotations_and_new_processes() {
    let folder = Folder::new();
    let first = folder.open_with(JournalOptions { rotate_bytes: 2000, ..small() });
    write(&first, 0..5);
    assert!(first.flush(WAIT));
    let mut tail = Tail::open(folder.path(), 2).expect("a tail");
    let seen = |lines: Vec<Value>| ids(&lines).into_keys().collect::<Vec<_>>();
    let id = |number| intent(number).id.to_string();
    assert_eq!(seen(tail.poll().expect("lines")), [id(3), id(4)]);
    assert!(tail.poll().expect("nothing").is_empty());
    for number in 5..10 {
        write(&first, [number]);
        assert!(first.flush(WAIT));
        assert_eq!(seen(tail.poll().expect("a line")), [id(number)]);
    }
    let second = folder.open();
    write(&second, 10..12);
    assert!(second.flush(WAIT));
    assert_eq!(seen(tail.poll().expect("lines")), [id(10), id(11)]);
    drop(first);
    drop(second);
    assert!(tail.poll().expect("nothing").is_empty());
    assert!(folder.files(".jsonl").len() > 3);
}

#[test]
fn two_journals_in_one_folder_have_a_chain_each() {
    let folder = Folder::new();
    let (one, other) = (folder.open(), folder.open());
    std::thread::scope(|scope| {
        scope.spawn(|| write(&one, 0..1000));
        scope.spawn(|| write(&other, 1000..2000));
    });
    drop(one);
    // One that lives is not touched by one that opens.
    let entry = other.begin(&intent(2000)).expect("begun");
    drop(folder.open());
    entry.finish(&outcome(Ending::Allowed), Instant::now());
    drop(other);
    let report = folder.verify();
    assert_sound(&report);
    assert_eq!(report.chains.iter().map(|chain| chain.lines).collect::<Vec<_>>(), [1000, 1001]);
    assert!(ids(&folder.lines()).values().all(|count| *count == 1));
}

#[test]
fn an_entry_that_outlives_the_journal_is_completed_by_the_next() {
    let folder = Folder::new();
    let journal = folder.open();
    let entry = journal.begin(&intent(1)).expect("begun");
    drop(journal);
    assert_eq!(audit::recover(folder.path()).expect("looked"), Recovery::default());
    entry.finish(&outcome(Ending::Allowed), Instant::now());
    // A process that another test starts has a copy of the descriptor, and so of the lock, until it runs its program.
    let deadline = Instant::now() + Duration::from_secs(20);
    let recovered = loop {
        let recovered = audit::recover(folder.path()).expect("done");
        if recovered != Recovery::default() || Instant::now() > deadline {
            break recovered;
        }
        std::thread::yield_now();
    };
    assert_eq!(recovered, Recovery { processes: 1, lines: 1, aborted: 0 });
    assert_eq!(folder.lines()[0]["outcome"], "allowed");
    assert_sound(&folder.verify());
}

/// A process of its own that writes a journal: this test binary again, as `child_process`.
struct Writing {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Writing {
    fn start(folder: &Folder, what: &str) -> Self {
        let mut child = Command::new(env::current_exe().expect("this binary"))
            .args(["--exact", "child_process", "--nocapture", "--test-threads=1"])
            .env("NARROWS_TEST_JOURNAL", folder.path())
            .env("NARROWS_TEST_JOURNAL_DOES", what)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let said = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, said }
    }

    /// Kills it once a line is enough, and returns all that it had said.
    fn kill_when(mut self, mut enough: impl FnMut(&str) -> bool) -> Vec<(String, u64)> {
        let mut said = String::new();
        loop {
            let start = said.len();
            assert!(self.said.read_line(&mut said).expect("a line") > 0, "the child has ended");
            if enough(said[start..].trim_end()) {
                break;
            }
        }
        self.child.kill().expect("killed");
        self.child.wait().expect("dead");
        self.said.read_to_string(&mut said).expect("the rest");
        // A last line may be torn.
        let whole = said.rfind('\n').map_or("", |newline| &said[..newline]);
        let words = whole.lines().filter_map(|line| line.split_once(' '));
        words.filter_map(|(what, number)| Some((what.to_owned(), number.parse().ok()?))).collect()
    }
}

#[test]
fn lines_are_in_the_order_in_which_entries_ended_whichever_thread_ended_them() {
    const ENTRIES: u64 = 6000;
    const THREADS: u64 = 6;
    let folder = Folder::new();
    let journal = Journal::open(folder.path(), JournalOptions::default()).expect("a journal");
    let turn = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (journal, turn) = (&journal, &turn);
            scope.spawn(move || {
                for number in (thread..ENTRIES).step_by(usize::try_from(THREADS).expect("small")) {
                    let entry = begin(journal, &intent(number));
                    while turn.load(Ordering::Acquire) != number {
                        std::thread::yield_now();
                    }
                    entry.finish(&outcome(Ending::Allowed), Instant::now());
                    turn.store(number + 1, Ordering::Release);
                }
            });
        }
    });
    drop(journal);
    let written: Vec<String> =
        folder.lines().iter().map(|line| line["id"].as_str().expect("an id").to_owned()).collect();
    let ended: Vec<String> = (0..ENTRIES).map(|number| intent(number).id.to_string()).collect();
    assert_eq!(written, ended);
}

#[test]
fn child_process() {
    let Some(dir) = env::var_os("NARROWS_TEST_JOURNAL") else { return };
    let journal =
        Journal::open(Path::new(&dir), JournalOptions { in_flight_max: 256, rotate_bytes: 200_000, ..small() });
    let journal = journal.expect("a journal");
    match env::var("NARROWS_TEST_JOURNAL_DOES").expect("what to do").as_str() {
        "load" => load(&journal),
        // Faster than the writer looks: then it waits to be killed.
        "few" => {
            for number in 0..6 {
                let entry = journal.begin(&intent(number)).expect("begun");
                match number {
                    2 => std::mem::forget(entry),
                    _ => entry.finish(&outcome(Ending::Allowed), Instant::now()),
                }
                println!("b {number}");
            }
            std::io::stdin().read_to_end(&mut Vec::new()).expect("no end");
        }
        other => panic!("{other}"),
    }
}

/// Four threads, each with some requests in flight, that say what they have begun and finished.
fn load(journal: &Journal) {
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            scope.spawn(move || {
                let mut open = Vec::new();
                for number in 0.. {
                    let number = thread << 32 | number;
                    open.push((number, begin(journal, &intent(number))));
                    println!("b {number}");
                    if open.len() > 5 {
                        let (number, entry) = open.swap_remove(usize::try_from(number % 6).expect("small"));
                        entry.finish(&outcome(Ending::Allowed), Instant::now());
                        println!("f {number}");
                    }
                }
            });
        }
    });
}

#[test]
fn after_a_kill_under_load_every_request_has_exactly_one_line() {
    let folder = Folder::new();
    let mut begun = 0;
    for round in 0..12 {
        let mut left = 50 + round * round * 37;
        let said = Writing::start(&folder, "load").kill_when(|_| {
            left -= 1;
            left == 0
        });
        let chains = folder.verify().chains.len();
        let recovery = audit::recover(folder.path()).expect("recovered");
        assert_eq!(recovery.processes, 1, "round {round}");
        assert!(folder.files(".ring").is_empty());
        assert_sound(&folder.verify());
        let chain = folder.verify().chains.pop().expect("a chain");
        assert!(chains <= round + 1);
        let mut lines = BTreeMap::new();
        for file in &chain.files {
            for line in fs::read_to_string(file).expect("a file").lines() {
                let line: Value = serde_json::from_str(line).expect("a line");
                let twice = lines.insert(line["id"].as_str().expect("an id").to_owned(), line);
                assert!(twice.is_none(), "two lines: {twice:?}");
            }
        }
        let line = |number| lines.get(&intent(number).id.to_string()).unwrap_or_else(|| panic!("{number} has no line"));
        let finished: Vec<u64> = said.iter().filter(|(what, _)| what == "f").map(|(_, number)| *number).collect();
        for number in said.iter().filter(|(what, _)| what == "b").map(|(_, number)| *number) {
            let outcome = &line(number)["outcome"];
            assert!(
                outcome == "allowed" || (outcome == "aborted" && !finished.contains(&number)),
                "{number}: {outcome}"
            );
            begun += 1;
        }
        // What it had begun and not said yet: one for each thread, and what they finished meanwhile.
        assert!(lines.len() <= said.len() + 8, "{} lines for {} words", lines.len(), said.len());
    }
    assert!(begun > 1000, "{begun}");
}

#[test]
fn recovery_ends_the_same_wherever_it_was_cut_off() {
    let source = Folder::new();
    let child = Writing::start(&source, "few");
    let said = child.kill_when(|line| line == "b 5");
    assert!(said.iter().filter(|(what, _)| what == "b").count() >= 5, "{said:?}");
    let ring = source.files(".ring").pop().expect("a ring");
    let chain = source.only_file();
    let (ring_name, chain_name) = (ring.file_name().expect("a name"), chain.file_name().expect("a name"));
    let recovered = |text: &[u8]| {
        let folder = Folder::new();
        fs::copy(&ring, folder.path().join(ring_name)).expect("copied");
        fs::write(folder.path().join(chain_name), text).expect("written");
        let recovery = audit::recover(folder.path()).expect("recovered");
        assert_sound(&folder.verify());
        assert!(folder.files(".ring").is_empty());
        (fs::read(folder.path().join(chain_name)).expect("a chain"), recovery.lines)
    };
    let before = fs::read(&chain).expect("a chain");
    let (whole, lines) = recovered(&before);
    let text = String::from_utf8(whole.clone()).expect("UTF-8");
    assert_eq!(text.lines().filter(|line| line.contains("\"aborted\"")).count(), 1);
    assert_eq!(text.lines().count(), 6);
    assert!(text.lines().last().expect("a line").contains("\"aborted\""));
    assert!(lines > 0, "the writer was faster than the kill");
    let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
    for cut in before.len()..=whole.len() {
        let near_an_end = ends.iter().any(|end| cut.abs_diff(*end) <= 2);
        if near_an_end || cut % 97 == 0 {
            let again = String::from_utf8(recovered(&whole[..cut]).0).expect("UTF-8");
            let (notes, lines): (Vec<&str>, Vec<&str>) = again.lines().partition(|line| line.contains("\"repair\""));
            let left = whole[..cut].iter().rev().take_while(|byte| **byte != b'\n').count();
            // A line that lacks only its newline is whole.
            let torn = if ends.contains(&cut) { 0 } else { left };
            match notes[..] {
                [] => assert_eq!((torn, &again), (0, &text), "cut at {cut}"),
                [note] => assert!(torn > 0 && note.contains(&format!("\"count\":{torn},")), "cut at {cut}: {note}"),
                _ => panic!("cut at {cut}: {notes:?}"),
            }
            // A note moves the links of what follows it, and nothing else.
            let unlinked = |line: &str| line.split(",\"prev\"").next().map(str::to_owned);
            assert!(lines.into_iter().map(unlinked).eq(text.lines().map(unlinked)), "cut at {cut}: {again}");
        }
    }
}

/// What a killed process left: the name and bytes of its ring, the name of its chain.
fn ring_left_behind() -> (std::ffi::OsString, Vec<u8>) {
    let source = Folder::new();
    Writing::start(&source, "few").kill_when(|line| line == "b 5");
    let ring = source.files(".ring").pop().expect("a ring");
    (ring.file_name().expect("a name").to_owned(), fs::read(&ring).expect("a ring"))
}

#[test]
fn a_torn_line_without_a_ring_is_cut_off_with_a_note() {
    let folder = Folder::new();
    let journal = folder.open();
    write(&journal, 0..3);
    drop(journal);
    let path = folder.only_file();
    let text = fs::read_to_string(&path).expect("a file");
    let torn = text.len() - text[..text.len() - 1].rfind('\n').expect("three lines") - 1 - 10;
    fs::write(&path, &text[..text.len() - 10]).expect("torn");
    // While its process may live, it is not touched.
    let living = folder.open();
    assert_sound(&folder.verify());
    drop(living);
    let report = folder.verify();
    assert_sound(&report);
    assert_eq!((report.lines(), report.repairs()), (3, 1));
    let note = folder.lines().pop().expect("a note");
    assert_eq!((&note["event"], &note["outcome"], &note["count"]), (&"repair".into(), &"aborted".into(), &torn.into()));
    // Once, not at every start.
    drop(folder.open());
    assert_eq!(folder.verify().repairs(), 1);
}

#[test]
fn a_last_line_that_lacks_only_its_newline_is_kept() {
    let folder = Folder::new();
    let journal = folder.open();
    write(&journal, 0..3);
    drop(journal);
    let path = folder.only_file();
    let text = fs::read_to_string(&path).expect("a file");
    fs::write(&path, text.trim_end()).expect("without its newline");
    let report = folder.verify();
    assert_eq!(report.problems().map(|problem| problem.kind).collect::<Vec<_>>(), [ProblemKind::Torn]);
    drop(folder.open());
    assert_eq!(fs::read_to_string(&path).expect("a file"), text, "the line and its newline");
    assert_eq!((folder.verify().lines(), folder.verify().repairs()), (3, 0));
    // One bit away it is no line of ours.
    let changed = text.trim_end().replacen("\"denied\"", "\"Denied\"", 3).replacen("\"allowed\"", "\"Allowed\"", 3);
    assert_ne!(changed, text.trim_end());
    let first_lines = text.trim_end().rfind('\n').expect("three lines") + 1;
    fs::write(&path, [&text[..first_lines], &changed[first_lines..]].concat()).expect("changed");
    drop(folder.open());
    assert_eq!((folder.verify().lines(), folder.verify().repairs()), (3, 1));
}

#[test]
fn a_line_that_is_too_long_hides_nothing_that_comes_after_it() {
    let folder = Folder::new();
    let journal = folder.open();
    write(&journal, 0..5);
    assert!(journal.flush(WAIT));
    let path = folder.only_file();
    let text = fs::read_to_string(&path).expect("a file");
    let lines: Vec<&str> = text.lines().collect();
    let (long, changed) = ("y".repeat(300_000), lines[3].replacen("\"status\"", "\"Status\"", 1));
    let problems = |lines: &[&str], end: &str| {
        fs::write(&path, lines.join("\n") + end).expect("written");
        let report = folder.verify();
        assert!(report.chains[0].open);
        report.problems().map(|problem| (problem.line, problem.kind)).collect::<Vec<_>>()
    };
    let seen = problems(&[lines[0], &long, lines[2], &changed, lines[4]], "\n");
    assert_eq!(seen, [(2, ProblemKind::NotALine), (4, ProblemKind::Changed)]);
    assert_eq!(problems(&[lines[0], &long], ""), [(2, ProblemKind::NotALine)]);
    fs::write(&path, text).expect("as it was");
}

#[test]
fn zeros_at_the_end_of_a_chain_are_a_torn_line() {
    let folder = Folder::new();
    let journal = folder.open();
    write(&journal, 0..2);
    drop(journal);
    let path = folder.only_file();
    let mut bytes = fs::read(&path).expect("a file");
    bytes.extend([0; 5000]);
    fs::write(&path, bytes).expect("as after a power cut");
    audit::recover(folder.path()).expect("recovered");
    assert_sound(&folder.verify());
    assert_eq!((folder.verify().lines(), folder.verify().repairs()), (3, 1));
}

#[test]
fn a_ring_cut_short_gives_what_is_left_of_it_and_a_note() {
    let (name, bytes) = ring_left_behind();
    let folder = Folder::new();
    // The slots of the first few requests are at its start.
    fs::write(folder.path().join(&name), &bytes[..bytes.len() / 2]).expect("cut");
    let recovery = audit::recover(folder.path()).expect("recovered");
    assert_eq!((recovery.processes, recovery.lines), (1, slots_in_use(&bytes)));
    assert_sound(&folder.verify());
    assert_eq!(folder.verify().repairs(), 1);
    assert!(folder.files(".ring").is_empty());
}

#[test]
fn a_ring_of_another_version_is_left_for_that_version() {
    let (name, mut bytes) = ring_left_behind();
    bytes[7] += 1;
    let folder = Folder::new();
    fs::write(folder.path().join(&name), &bytes).expect("written");
    assert_eq!(audit::recover(folder.path()).expect("looked"), Recovery::default());
    drop(folder.open());
    assert_eq!(fs::read(folder.path().join(&name)).expect("still there"), bytes);
    bytes[7] -= 1;
    fs::write(folder.path().join(&name), &bytes).expect("written");
    assert_eq!(audit::recover(folder.path()).expect("recovered").lines, slots_in_use(&bytes));
}

#[test]
fn a_link_in_the_place_of_a_ring_or_a_chain_is_not_followed() {
    let (name, bytes) = ring_left_behind();
    let folder = Folder::new();
    let elsewhere = tempfile::tempdir().expect("a folder");
    let target = elsewhere.path().join("target");
    fs::write(&target, &bytes).expect("written");
    let place = folder.path().join(&name);
    std::os::unix::fs::symlink(&target, &place).expect("a link");
    assert_eq!(audit::recover(folder.path()).expect("looked"), Recovery::default());
    fs::remove_file(&place).expect("removed");
    // The chain of a good ring.
    fs::write(&target, "somebody's file without an end").expect("written");
    fs::write(&place, &bytes).expect("written");
    std::os::unix::fs::symlink(&target, place.with_extension("jsonl")).expect("a link");
    assert_eq!(audit::recover(folder.path()).expect("looked"), Recovery::default());
    assert_eq!(fs::read_to_string(&target).expect("a file"), "somebody's file without an end");
    assert!(place.exists());
    // The twin.
    fs::remove_file(place.with_extension("jsonl")).expect("removed");
    assert_eq!(audit::recover(folder.path()).expect("recovered").lines, slots_in_use(&bytes));
}

#[test]
fn a_damaged_ring_costs_the_entry_that_it_damages_and_nothing_else() {
    let source = Folder::new();
    Writing::start(&source, "few").kill_when(|line| line == "b 5");
    let ring = source.files(".ring").pop().expect("a ring");
    let name = ring.file_name().expect("a name");
    let bytes = fs::read(&ring).expect("a ring");
    let written = bytes.iter().enumerate().filter(|(_, byte)| **byte != 0).map(|(at, _)| at);
    for at in written.step_by(29) {
        let folder = Folder::new();
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        fs::write(folder.path().join(name), damaged).expect("written");
        let recovery = audit::recover(folder.path()).expect("looked");
        // One that no longer says what it is, is kept.
        assert!(recovery.processes == 1 || (at < 4096 && folder.files(".ring").len() == 1), "{recovery:?} at {at}");
        assert_sound(&folder.verify());
        // The file's first page says what is in the rest.
        assert!(recovery.lines >= if at < 4096 { 0 } else { slots_in_use(&bytes) - 1 }, "{recovery:?} at {at}");
        for line in folder.lines() {
            assert_eq!((&line["service"], &line["path"]), (&"github".into(), &"/repos/acme/widgets".into()));
        }
    }
}

/// Entries that the dead process had not written: slots of 2 KiB whose first byte is not zero.
fn slots_in_use(ring: &[u8]) -> usize {
    ring[4096..].chunks(2048).take(256).filter(|slot| slot[0] != 0).count()
}

#[test]
fn a_ring_that_was_never_made_whole_is_removed() {
    let folder = Folder::new();
    for (number, bytes) in [0, 100, 4096, 300_000].into_iter().enumerate() {
        fs::write(folder.path().join(format!("20270115T154012Z-{number}.ring")), vec![0; bytes]).expect("written");
    }
    assert_eq!(audit::recover(folder.path()).expect("recovered"), Recovery { processes: 4, lines: 0, aborted: 0 });
    assert!(folder.files("").is_empty());
}

/// A small filesystem of its own; `None` where we may not mount one.
struct SmallDisk {
    folder: Folder,
}

impl SmallDisk {
    #[cfg(target_os = "linux")]
    fn mount(options: &str) -> Option<Self> {
        use nix::mount::{MsFlags, mount};
        let folder = Folder::new();
        let mounted = mount(Some("tmpfs"), folder.path(), Some("tmpfs"), MsFlags::empty(), Some(options));
        mounted.ok().map(|()| Self { folder })
    }

    #[cfg(not(target_os = "linux"))]
    fn mount(_: &str) -> Option<Self> {
        None
    }

    fn fill(&self) -> PathBuf {
        let path = self.folder.path().join("filler");
        let mut filler = fs::File::create(&path).expect("a file");
        while std::io::Write::write_all(&mut filler, &[7; 4096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        nix::mount::umount2(self.folder.path(), nix::mount::MntFlags::MNT_DETACH).expect("unmounted");
    }
}

#[test]
fn a_full_disk_refuses_requests_and_loses_and_doubles_nothing() {
    let Some(disk) = SmallDisk::mount("size=1m,mode=0700") else {
        println!("SKIP full disk: may not mount");
        return;
    };
    let folder = &disk.folder;
    let journal = folder.open();
    write(&journal, 0..10);
    assert!(journal.flush(WAIT));
    let mut number = 10;
    for _ in 0..3 {
        let in_flight = journal.begin(&intent(number)).expect("begun");
        number += 1;
        let filler = disk.fill();
        wait_until("refusing", || {
            match journal.begin(&intent(number)) {
                Ok(entry) => {
                    number += 1;
                    entry.finish(&outcome(Ending::Allowed), Instant::now());
                }
                Err(Unavailable::Failing) => return true,
                Err(Unavailable::Full) => {}
                Err(other) => panic!("{other}"),
            }
            false
        });
        assert!(journal.health().refusing.is_some());
        // Nobody can open another one either, and what was begun for it is cleared away.
        let files = folder.files("").len();
        assert!(matches!(Journal::open(folder.path(), small()), Err(JournalError::Io { .. })));
        assert_eq!(folder.files("").len(), files);
        fs::remove_file(filler).expect("removed");
        wait_until("accepting", || journal.health().refusing.is_none());
        write(&journal, number..number + 5);
        number += 5;
        in_flight.finish(&outcome(Ending::Allowed), Instant::now());
        assert!(journal.flush(WAIT));
    }
    drop(journal);
    assert_sound(&folder.verify());
    let lines = folder.lines();
    assert_eq!(lines.len() as u64, number);
    assert!(ids(&lines).values().all(|count| *count == 1));
}

#[test]
fn what_a_full_disk_kept_back_is_written_by_the_next_process() {
    let Some(disk) = SmallDisk::mount("size=1m,mode=0700") else {
        println!("SKIP full disk: may not mount");
        return;
    };
    let folder = &disk.folder;
    let journal = folder.open();
    write(&journal, 0..10);
    assert!(journal.flush(WAIT));
    let begun: Vec<Entry> = (10..50).map(|number| journal.begin(&intent(number)).expect("begun")).collect();
    let filler = disk.fill();
    for entry in begun {
        entry.finish(&outcome(Ending::Allowed), Instant::now());
    }
    // Gives up after a while, and leaves the lines in the ring.
    drop(journal);
    assert_eq!(folder.files(".ring").len(), 1);
    assert_eq!(audit::recover(folder.path()).expect("looked"), Recovery::default(), "the disk is still full");
    assert_eq!(folder.files(".ring").len(), 1);
    fs::remove_file(filler).expect("removed");
    assert_eq!(audit::recover(folder.path()).expect("recovered").processes, 1);
    assert_sound(&folder.verify());
    let lines = folder.lines();
    assert_eq!(lines.len(), 50);
    assert!(ids(&lines).values().all(|count| *count == 1));
}
