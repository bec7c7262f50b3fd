//! Every system call of the journal's writer fails in turn, then of its opening, then of the recovery.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use crate::load::{Delivered, ask, assert_nothing_lost, tunnel};
use crate::strace::{Injected, may_inject, under_strace};
use crate::support::PATIENCE;
use crate::support::agent::Agent;
use crate::support::ca::Alpn;
use crate::support::client::run;
use crate::{HOST, World};

/// What requests meet while a fault lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    Refused,
    Served,
}
use Meanwhile::{Refused, Served};

const KERNEL: &str = "[journal]\nrotate = \"64k\"";
const ALWAYS: &str = "[journal]\nrotate = \"64k\"\ndurability = \"always\"";
const DISK: &str = "[journal]\nrotate = \"64k\"\ndurability = \"disk\"";
/// More lines than a file of 64 KiB takes: every fault meets a rotation too.
const PAST_A_ROTATION: usize = 150;

/// Settings, faults, and what they lead to.
const IN_THE_WRITER: &[(&str, &[&str], Meanwhile)] = &[
    (KERNEL, &["pwrite64:error=EIO"], Refused),
    (KERNEL, &["pwrite64:error=ENOSPC"], Refused),
    (KERNEL, &["pwrite64:error=EDQUOT"], Refused),
    (KERNEL, &["pwrite64:error=EROFS"], Refused),
    (KERNEL, &["pwrite64:error=EIO", "ftruncate:error=EIO"], Refused),
    (KERNEL, &["pwrite64:error=EINTR:when=1+2"], Served),
    (KERNEL, &["statx:error=EIO"], Refused),
    (KERNEL, &["statx:error=EACCES"], Refused),
    (KERNEL, &["fstatfs:error=EIO"], Served),
    (KERNEL, &["openat:error=EMFILE"], Refused),
    (KERNEL, &["openat:error=ENOSPC"], Refused),
    (KERNEL, &["openat:error=EROFS"], Refused),
    (DISK, &["pwrite64:error=EIO"], Refused),
    (DISK, &["fdatasync:error=EIO"], Refused),
    (DISK, &["fdatasync:error=ENOSPC"], Refused),
    (DISK, &["fdatasync:error=EIO", "ftruncate:error=EIO"], Refused),
    (DISK, &["fdatasync:error=EINTR:when=1+2"], Served),
    (DISK, &["fsync:error=EIO"], Refused),
    (ALWAYS, &["pwrite64:error=EIO"], Refused),
    (ALWAYS, &["fdatasync:error=EIO"], Refused),
    (ALWAYS, &["fdatasync:error=EINTR:when=1+2"], Served),
];

#[test]
fn a_writer_whose_calls_fail_refuses_requests_loses_nothing_and_recovers() {
    if !may_inject("a writer whose calls fail") {
        return;
    }
    for (settings, faults, meanwhile) in IN_THE_WRITER {
        eprintln!("{faults:?} with {settings:?}");
        let began = Instant::now();
        writer_fault(settings, faults, *meanwhile);
        eprintln!("  {:?}", began.elapsed());
    }
}

fn writer_fault(settings: &str, faults: &[&str], meanwhile: Meanwhile) {
    let world = World::with(Alpn::H1, settings);
    let daemon = world.env.start_as_written();
    let mut asker = Asker::new(world.agent(&daemon));
    asker.served(3);
    let injected = Injected::into_writer(&daemon, faults);
    match meanwhile {
        Served => asker.served(PAST_A_ROTATION),
        Refused => asker.until(503),
    }
    let seen = world.origin.seen().len();
    if meanwhile == Refused {
        assert_eq!(asker.next(), 503, "refused once, refused until it is mended");
        assert_eq!(world.origin.seen().len(), seen, "a refused request reached the origin");
    }
    injected.end();
    asker.until(200);
    asker.served(PAST_A_ROTATION);
    let (log, code) = daemon.stop();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(log.contains("requests are refused"), meanwhile == Refused, "{faults:?}: {log}");
    assert_nothing_lost(&world, &asker.delivered);
    world.verify();
    let files = world.env.journal_files();
    assert!(files.len() < 12, "{faults:?} left {files:#?}");
    let empty: Vec<_> = files.iter().filter(|path| path.metadata().unwrap().len() == 0).collect();
    assert!(empty.len() <= 1, "{faults:?} left empty files: {empty:#?}");
}

/// A client that asks for one thing after the other.
pub(crate) struct Asker {
    agent: Agent,
    tunnel: Option<crate::load::Tls>,
    number: usize,
    pub(crate) delivered: Vec<Delivered>,
}

impl Asker {
    pub(crate) fn new(agent: Agent) -> Self {
        Self { agent, tunnel: None, number: 0, delivered: Vec::new() }
    }

    /// Goes on with paths that no other one asks for.
    pub(crate) fn skip_to(&mut self, number: usize) {
        self.number = number;
    }

    /// The status of the next answer; what was served is remembered.
    #[track_caller]
    pub(crate) fn next(&mut self) -> u16 {
        let mut tunnel = self.tunnel.take().or_else(|| tunnel(&self.agent)).expect("a tunnel");
        let path = format!("/bytes/100/{}", self.number);
        self.number += 1;
        let (status, body_len) = ask(&mut tunnel, &path).expect("an answer");
        if status == 200 {
            self.delivered.push(Delivered { path, status, body_len: body_len as u64 });
        }
        self.tunnel = Some(tunnel);
        status
    }

    /// A request that is never answered, once it has reached the origin.
    pub(crate) fn hang(&mut self, world: &World) -> crate::load::Tls {
        let mut tunnel = tunnel(&self.agent).expect("a tunnel");
        let path = format!("/hang/{}", self.number);
        self.number += 1;
        write!(tunnel, "GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n").unwrap();
        world.origin.wait_for(&path);
        tunnel
    }

    #[track_caller]
    pub(crate) fn served(&mut self, count: usize) {
        for _ in 0..count {
            assert_eq!(self.next(), 200);
        }
    }

    /// Asks until this is the answer's status.
    #[track_caller]
    pub(crate) fn until(&mut self, status: u16) {
        let deadline = Instant::now() + PATIENCE;
        while self.next() != status {
            assert!(Instant::now() < deadline, "never {status}");
        }
    }
}

#[test]
fn a_journal_that_cannot_be_opened_is_said_and_leaves_nothing() {
    if !may_inject("a journal that cannot be opened") {
        return;
    }
    let world = World::new(Alpn::H1);
    for fault in ["fallocate:error=ENOSPC", "fallocate:error=EIO", "flock:error=ENOLCK"] {
        let mut command = under_strace(&world.env.narrows(&[]), &[fault], &[]);
        run(&mut command, b"").failed().says("the journal in").says("cannot be opened");
        assert_eq!(world.env.journal_files(), Vec::<PathBuf>::new(), "{fault}");
    }
    // The twins: a call that is interrupted is made again, and not every filesystem reserves.
    for fault in ["fallocate:error=EINTR:when=1", "fallocate:error=EOPNOTSUPP"] {
        let daemon = world.env.start_traced(|command| under_strace(command, &[fault], &[]));
        Asker::new(world.agent(&daemon)).served(1);
        daemon.stop();
    }
    world.verify();
}

#[test]
fn a_recovery_whose_calls_fail_is_made_again() {
    if !may_inject("a recovery whose calls fail") {
        return;
    }
    let world = World::new(Alpn::H1);
    let mut delivered = Vec::new();
    let calls = ["openat", "flock", "mmap", "pread64", "pwrite64", "ftruncate", "fdatasync", "fsync", "unlink"];
    for (number, call) in calls.into_iter().enumerate() {
        let daemon = world.env.start_as_written();
        let mut asker = Asker::new(world.agent(&daemon));
        asker.skip_to(number * 1000);
        asker.served(20);
        delivered.append(&mut asker.delivered);
        // So that there is something to complete, and a chain to read as well as a ring.
        let hanging = asker.hang(&world);
        world.env.journal_line(|line| line["path"] == format!("/bytes/100/{}", number * 1000));
        daemon.crash();
        drop(hanging);
        let ring = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "ring");
        let left = world.env.journal_files().into_iter().find(ring).expect("a ring");
        let (chain, dir) = (left.with_extension("jsonl"), left.parent().unwrap().to_owned());
        let mut search = world.env.command();
        search.args(["audit", "search"]);
        let fault = format!("{call}:error=EIO");
        run(&mut under_strace(&search, &[&fault], &[&left, &chain, &dir]), b"");
        assert!(left.exists(), "{call}: the ring was given up although the recovery failed");
        run(&mut search, b"").succeeded();
        world.verify();
        assert!(!left.exists(), "{call}: the recovery was not made again");
        assert_nothing_lost(&world, &delivered);
    }
}
