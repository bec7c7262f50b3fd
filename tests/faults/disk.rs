//! A disk that fills, and one that may only be read.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::World;
use crate::load::assert_nothing_lost;
use crate::support::PATIENCE;
use crate::support::ca::Alpn;
use crate::support::client::{clean, program, run, skip};
use crate::support::daemon::Daemon;
use crate::syscalls::Asker;

/// The ring takes 28 MiB of it.
const DISK_BYTES: usize = 32 << 20;
/// What the load fills by itself: some hundred lines above the room at which requests are refused.
const LEFT_BYTES: u64 = 256 * 1024;

/// Gives this thread, and what it starts, mounts of its own; they are gone with it. False where that is forbidden.
fn own_mounts(test: &str) -> bool {
    let private = unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>));
    if let Err(error) = private {
        skip(test, &format!("no mount namespace ({error}): run it as root"));
    }
    private.is_ok()
}

/// A small filesystem where the journal goes.
fn small_disk(world: &World) -> PathBuf {
    let audit = world.env.home().join("audit");
    fs::create_dir_all(&audit).unwrap();
    let options = format!("size={DISK_BYTES},mode=0700");
    mount(Some("tmpfs"), &audit, Some("tmpfs"), MsFlags::empty(), Some(&*options)).unwrap();
    audit
}

/// Takes all of the disk but so much.
fn fill(audit: &Path, left: u64) -> PathBuf {
    let path = audit.join("filler");
    let mut filler = File::create(&path).unwrap();
    let free = || {
        let disk = nix::sys::statvfs::statvfs(audit).unwrap();
        disk.blocks_free() * disk.fragment_size()
    };
    while free() > left && filler.write_all(&[7; 4096]).is_ok() {}
    path
}

#[test]
fn a_disk_that_fills_refuses_requests_and_recovers_when_there_is_room() {
    if !own_mounts("a disk that fills") {
        return;
    }
    let world = World::new(Alpn::H1);
    let audit = small_disk(&world);
    let daemon = world.env.start_as_written();
    let mut asker = Asker::new(world.agent(&daemon));
    for left in [LEFT_BYTES, LEFT_BYTES, 0] {
        asker.served(10);
        let filler = fill(&audit, left);
        asker.until(503);
        let seen = world.origin.seen().len();
        assert_eq!(asker.next(), 503);
        assert_eq!(world.origin.seen().len(), seen, "a refused request reached the origin");
        fs::remove_file(filler).unwrap();
        asker.until(200);
    }
    // A kill while it is full: what is in the ring is completed when there is room, whoever has looked before.
    let filler = fill(&audit, 0);
    asker.until(503);
    daemon.crash();
    run(world.env.command().args(["audit", "search"]), b"");
    fs::remove_file(filler).unwrap();
    let daemon = world.env.start_as_written();
    let mut again = Asker::new(world.agent(&daemon));
    again.skip_to(1_000_000);
    again.served(3);
    daemon.stop();
    asker.delivered.append(&mut again.delivered);
    assert_nothing_lost(&world, &asker.delivered);
    world.verify();
}

/// No file of that proxy may grow beyond so many bytes, or any number.
fn limit_files(daemon: &Daemon, bytes: &str) {
    let mut prlimit = clean(&program("prlimit").unwrap());
    run(prlimit.args(["--pid", &daemon.pid().to_string(), &format!("--fsize={bytes}:")]), b"").succeeded();
}

#[test]
fn a_limit_of_file_sizes_refuses_requests_and_recovers_when_it_is_lifted() {
    if program("prlimit").is_none() {
        return skip("a limit of file sizes", "prlimit is not installed");
    }
    let world = World::new(Alpn::H1);
    let daemon = world.env.start_as_written();
    let mut asker = Asker::new(world.agent(&daemon));
    for round in 1..=2 {
        asker.served(10);
        // The signal that comes with this ended the process once.
        limit_files(&daemon, &(round * 20_000).to_string());
        asker.until(503);
        let seen = world.origin.seen().len();
        assert_eq!(asker.next(), 503);
        assert_eq!(world.origin.seen().len(), seen, "a refused request reached the origin");
        limit_files(&daemon, "unlimited");
        asker.until(200);
    }
    asker.served(10);
    assert_eq!(daemon.stop().1, Some(0));
    assert_nothing_lost(&world, &asker.delivered);
    world.verify();
}

#[test]
fn a_log_that_nobody_takes_ends_nothing() {
    let Some(bash) = program("bash") else { return skip("a log that nobody takes", "bash is not installed") };
    let world = World::new(Alpn::H1);
    // Whoever reads the log leaves after its first line. The writer's next line panicked once.
    let daemon = world.env.start_traced(|narrows| {
        let mut shell = clean(&bash);
        shell.args(["-c", "exec \"$0\" 2> >(exec head -n 1 >&2)"]).arg(narrows.get_program());
        shell.envs(narrows.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell
    });
    let mut asker = Asker::new(world.agent(&daemon));
    let (audit, aside) = (world.env.home().join("audit"), world.env.file("aside"));
    for _ in 0..3 {
        asker.served(3);
        fs::rename(&audit, &aside).unwrap();
        asker.until(503);
        fs::rename(&aside, &audit).unwrap();
        asker.until(200);
    }
    assert_eq!(daemon.stop().1, Some(0));
    assert_nothing_lost(&world, &asker.delivered);
    world.verify();
}

/// Waits until no slot of the ring holds an entry: the first word of each is its state (`src/audit/ring.rs`).
fn until_empty(ring: &Path) {
    const HEADER: usize = 4096;
    const SLOT: usize = 2048;
    let deadline = Instant::now() + PATIENCE;
    let is_free = |slot: &[u8]| slot[..8] == [0; 8];
    while !fs::read(ring).unwrap()[HEADER..].chunks(SLOT).take(8192).all(is_free) {
        assert!(Instant::now() < deadline, "an entry stays in the ring");
    }
}

#[test]
fn a_ring_that_is_cut_short_while_nothing_is_under_way_refuses_requests() {
    let world = World::new(Alpn::H1);
    let mut daemon = world.env.start_as_written();
    let mut asker = Asker::new(world.agent(&daemon));
    asker.served(3);
    let ring = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "ring");
    let ring = world.env.journal_files().into_iter().find(ring).unwrap();
    until_empty(&ring);
    File::options().write(true).open(&ring).unwrap().set_len(8192).unwrap();
    daemon.wait_for_log("cut short");
    let seen = world.origin.seen().len();
    assert_eq!((asker.next(), asker.next()), (503, 503));
    assert_eq!(world.origin.seen().len(), seen, "a refused request reached the origin");
    assert_eq!(daemon.stop().1, Some(0));
    let daemon = world.env.start_as_written();
    let mut again = Asker::new(world.agent(&daemon));
    again.skip_to(1_000_000);
    again.served(3);
    daemon.stop();
    asker.delivered.append(&mut again.delivered);
    assert_nothing_lost(&world, &asker.delivered);
    world.verify();
}

#[test]
fn a_journal_that_may_only_be_read_is_said_at_the_start() {
    if !own_mounts("a journal that may only be read") {
        return;
    }
    let world = World::new(Alpn::H1);
    let audit = small_disk(&world);
    let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(None::<&str>, &audit, None::<&str>, read_only, None::<&str>).unwrap();
    run(&mut world.env.narrows(&[]), b"").failed().says("cannot be opened").says("Read-only file system");
    mount(None::<&str>, &audit, None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_BIND, None::<&str>).unwrap();
    let daemon = world.env.start_as_written();
    Asker::new(world.agent(&daemon)).served(1);
    daemon.stop();
    world.verify();
}

#[test]
fn a_folder_that_is_replaced_while_it_is_written_refuses_requests() {
    let world = World::new(Alpn::H1);
    let mut daemon = world.env.start_as_written();
    let mut asker = Asker::new(world.agent(&daemon));
    asker.served(3);
    let (audit, aside) = (world.env.home().join("audit"), world.env.file("aside"));
    fs::rename(&audit, &aside).unwrap();
    fs::create_dir(&audit).unwrap();
    fs::set_permissions(&audit, fs::Permissions::from_mode(0o700)).unwrap();
    asker.until(503);
    daemon.wait_for_log("a restart is needed");
    // Put back, it goes on as if nothing had been.
    let in_between: Vec<_> = world.env.journal_files();
    for path in in_between {
        fs::rename(&path, aside.join(path.file_name().unwrap())).unwrap();
    }
    fs::remove_dir(&audit).unwrap();
    fs::rename(&aside, &audit).unwrap();
    asker.until(200);
    asker.served(3);
    daemon.stop();
    assert_nothing_lost(&world, &asker.delivered);
    world.verify();
}

#[test]
fn two_proxies_on_one_home_have_a_chain_each_and_one_may_die() {
    let world = World::new(Alpn::H1);
    let (first, second) = (world.env.start_as_written(), world.env.start_as_written());
    let (mut one, mut other) = (Asker::new(world.agent(&first)), Asker::new(world.agent(&second)));
    other.skip_to(1_000_000);
    one.served(20);
    other.served(20);
    first.crash();
    // Whoever looks through it completes the dead one's chain and leaves the living one's alone.
    world.verify();
    run(world.env.command().args(["audit", "search"]), b"").succeeded();
    world.verify();
    other.served(20);
    second.stop();
    one.delivered.append(&mut other.delivered);
    assert_nothing_lost(&world, &one.delivered);
    world.verify();
    assert_eq!(world.env.journal_files().len(), 2, "a chain each, and no ring");
}
