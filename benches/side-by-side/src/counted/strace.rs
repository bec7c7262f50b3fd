//! Counts system calls, thread by thread, as strace sees them. A number of calls, not a time.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use super::work::Work;
use crate::rows::part::MARK;
use crate::rows::{Row, Stage};

/// So many are counted.
pub(super) const REQUESTS: u64 = 1600;
const WARM_UP: u64 = 160;
/// Threads that serve nobody: what they do hangs on the time that passes. The second looks at the home's files.
const JOURNAL_THREAD: &str = "journal";
const WATCH_THREAD: &str = "watch";

/// What a request needs: the client's and the upstream's side are each read once and written once.
const READS: f64 = 2.0;
const WRITES: f64 = 2.0;
/// The home's files are read again now and then: some 70 calls, and up to 110 of the allocator for what they say.
const OTHERS: f64 = 0.1;
/// What happens once a second, when two things come at the same time, or when the allocator asks for more, may add this
/// much to a request.
const SLACK: f64 = 0.05;
/// The journal's thread makes so many calls at most each time that it looks, whatever it finds.
const JOURNAL_CALLS_PER_ROUND_MAX: f64 = 8.0;

/// A system call, by what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Read,
    Write,
    Epoll,
    Futex,
    Other,
}

/// Calls between two marks.
#[derive(Debug, Default)]
pub(super) struct Calls {
    serving: BTreeMap<Kind, u64>,
    journal: BTreeMap<Kind, u64>,
    /// What [`Kind::Other`] was.
    others: BTreeMap<String, u64>,
}

/// Calls of a row under this load.
pub(super) async fn count(row: Row, work: Work, stage: &Stage) -> anyhow::Result<Calls> {
    let output = TempDir::new_in(stage.folder.path())?;
    let file = output.path().join("calls");
    let tool = ["strace", "-f", "-qqq", "-s", "16", "-o"].map(Into::into).into_iter();
    let tool: Vec<_> = tool.chain([file.clone().into(), "--".into()]).collect();
    let running = Rc::new(row.start_under(&tool, stage).context("is strace installed, and may it trace?")?);
    let mut client = work.client(&running).await?;
    client.repeat(WARM_UP).await?;
    running.mark()?;
    client.repeat(REQUESTS).await?;
    running.mark()?;
    Calls::read(&file)
}

impl Calls {
    fn read(file: &Path) -> anyhow::Result<Self> {
        let text = String::from_utf8_lossy(&fs::read(file)?).into_owned();
        let mut calls = Self::default();
        let mut marks = 0;
        for line in text.lines() {
            let Some((thread, rest)) = line.split_once(' ') else { continue };
            let rest = rest.trim_start();
            // The rest of a call that was counted when it began, a signal, an end.
            let Some((name, _)) = rest.split_once('(').filter(|_| !rest.starts_with(['<', '-', '+'])) else { continue };
            if name == "write" && rest.contains(MARK) {
                marks += 1;
            } else if marks == 1 {
                calls.add(thread, name);
            }
        }
        ensure!(marks == 2, "strace has seen {marks} marks, not two");
        Ok(calls)
    }

    fn add(&mut self, thread: &str, name: &str) {
        let kind = Kind::of(name);
        let comm = fs::read_to_string(format!("/proc/{thread}/comm")).unwrap_or_default();
        let calls = match comm.trim() {
            JOURNAL_THREAD => &mut self.journal,
            WATCH_THREAD => return,
            _ => &mut self.serving,
        };
        *calls.entry(kind).or_default() += 1;
        if kind == Kind::Other {
            *self.others.entry(format!("{} {name}", comm.trim())).or_default() += 1;
        }
    }

    fn each(calls: &BTreeMap<Kind, u64>, kind: Kind) -> f64 {
        calls.get(&kind).copied().unwrap_or_default() as f64 / REQUESTS as f64
    }

    /// Fails when a request needs more than it must, or more turns of epoll than the bare pass-through.
    pub(super) fn holds(&self, bare: &Self) -> anyhow::Result<()> {
        let each = |kind| Self::each(&self.serving, kind);
        for (kind, most) in [
            (Kind::Read, READS),
            (Kind::Write, WRITES),
            (Kind::Epoll, Self::each(&bare.serving, Kind::Epoll)),
            (Kind::Futex, Self::each(&bare.serving, Kind::Futex)),
            (Kind::Other, OTHERS),
        ] {
            let most = most + SLACK;
            ensure!(each(kind) <= most, "{:.3} {} for each request, more than {most:.3}", each(kind), kind.name());
        }
        let rounds = self.journal.get(&Kind::Futex).copied().unwrap_or_default().max(1) as f64;
        let calls = self.journal.values().sum::<u64>() as f64 / rounds;
        ensure!(
            calls <= JOURNAL_CALLS_PER_ROUND_MAX,
            "the journal's thread makes {calls:.1} calls each time that it looks, more than {JOURNAL_CALLS_PER_ROUND_MAX}"
        );
        Ok(())
    }
}

impl Kind {
    const ALL: [Self; 5] = [Self::Read, Self::Write, Self::Epoll, Self::Futex, Self::Other];

    fn of(name: &str) -> Self {
        match name {
            "read" | "readv" | "recvfrom" | "recvmsg" => Self::Read,
            "write" | "writev" | "sendto" | "sendmsg" => Self::Write,
            "epoll_wait" | "epoll_pwait" | "epoll_pwait2" => Self::Epoll,
            "futex" => Self::Futex,
            _ => Self::Other,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Read => "reads",
            Self::Write => "writes",
            Self::Epoll => "epoll_wait",
            Self::Futex => "futex",
            Self::Other => "others",
        }
    }
}

/// A line for each row's threads that serve, and one for its journal's.
pub(super) fn print(rows: &[(&str, &Calls)]) {
    println!("| calls for each request | {} |", Kind::ALL.map(Kind::name).join(" | "));
    println!("|---|{}", "--:|".repeat(Kind::ALL.len()));
    for (name, calls) in rows {
        let line =
            |calls: &BTreeMap<Kind, u64>| Kind::ALL.map(|kind| format!("{:.3}", Calls::each(calls, kind))).join(" | ");
        println!("| {name} | {} |", line(&calls.serving));
        if !calls.journal.is_empty() {
            println!("| {name}, journal | {} |", line(&calls.journal));
        }
    }
    for (name, calls) in rows.iter().filter(|(_, calls)| !calls.others.is_empty()) {
        println!("others, {name}: {:?}", calls.others);
    }
}
