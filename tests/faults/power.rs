//! What a power cut can take: which bytes are on the disk before whom is told. Nobody pulls a plug here; strace shows the
//! order of the calls, and failing ones show who waits for them.

use std::time::Instant;

use crate::World;
use crate::load::{ask, tunnel};
use crate::strace::{Injected, may_inject};
use crate::support::PATIENCE;
use crate::support::ca::Alpn;
use crate::syscalls::Asker;

const ALWAYS: &str = "[journal]\ndurability = \"always\"";

#[test]
fn with_always_nothing_reaches_an_upstream_that_the_disk_did_not_take() {
    if !may_inject("with always, nothing reaches an upstream") {
        return;
    }
    let world = World::with(Alpn::H1, ALWAYS);
    let daemon = world.env.start_as_written();
    let mut asker = Asker::new(world.agent(&daemon));
    asker.served(2);
    let seen = world.origin.seen().len();
    let injected = Injected::into_writer(&daemon, &["fdatasync:error=EIO"]);
    // The very first one: there is no moment in which a request slips through.
    assert_eq!(asker.next(), 503);
    assert_eq!(world.origin.seen().len(), seen);
    injected.end();
    asker.until(200);
    daemon.stop();
    world.verify();
}

#[test]
fn with_always_the_end_of_an_answer_waits_for_the_disk() {
    if !may_inject("with always, the end of an answer") {
        return;
    }
    for (alpn, path) in [
        (Alpn::H1, "/bytes/100/end"),
        (Alpn::H1, "/chunked/40000/end"),
        (Alpn::H1, "/status/204/end"),
        (Alpn::H1, "/bytes/0/end"),
        (Alpn::Both, "/bytes/70000/end"),
        (Alpn::Both, "/chunked/100/end"),
    ] {
        let world = World::with(alpn, ALWAYS);
        let daemon = world.env.start_as_written();
        Asker::new(world.agent(&daemon)).served(1);
        // The first sync is to be the intent's, and those after it fail, and with them the end of the answer. When the
        // writer had synced the intent by itself already, it is asked again.
        let deadline = Instant::now() + PATIENCE;
        for number in 0.. {
            assert!(Instant::now() < deadline, "{path} never reached the origin");
            let path = format!("{path}{number}");
            let injected = Injected::into_writer(&daemon, &["fdatasync:error=EIO:when=2+"]);
            let answer = ask(&mut tunnel(&world.agent(&daemon)).unwrap(), &path);
            injected.end();
            assert!(!matches!(answer, Some((200..300, _))), "{path}: {answer:?}");
            if world.origin.seen().iter().any(|seen| seen.path == path) {
                break;
            }
            Asker::new(world.agent(&daemon)).until(200);
        }
        // The twin: the same once the disk takes it.
        Asker::new(world.agent(&daemon)).until(200);
        let answer = ask(&mut tunnel(&world.agent(&daemon)).unwrap(), &path.replace("end", "twin"));
        assert!(matches!(answer, Some((200..300, _))), "{path}: {answer:?}");
        daemon.stop();
        world.verify();
    }
}
