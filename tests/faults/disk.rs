//! A disk that fills, and one that may only be read.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::World;
use crate::load::assert_nothing_lost;
use crate::support::ca::Alpn;
use crate::support::client::{run, skip};
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
    run(world.env.command().args(["audit", "verify"]), b"");
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
    // Whoever looks completes the dead one's chain and leaves the living one's alone.
    world.verify();
    other.served(20);
    second.stop();
    one.delivered.append(&mut other.delivered);
    assert_nothing_lost(&world, &one.delivered);
    world.verify();
    assert_eq!(world.env.journal_files().len(), 2, "a chain each, and no ring");
}
