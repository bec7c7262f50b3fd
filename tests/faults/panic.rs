//! A panic in one task, and in the journal's writer: in this process, because only here can one be had. A subscriber of
//! the log panics at an event that a request or the writer causes, so that the panic unwinds from the midst of its way.

use std::fmt::{Debug, Write as _};

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use narrows::daemon::{Daemon, Serve};
use narrows::store::Home;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::load::assert_nothing_lost;
use crate::support::PATIENCE;
use crate::support::agent::Agent;
use crate::support::ca::Alpn;
use crate::support::daemon::TestEnv;
use crate::support::origin::Origin;
use crate::support::raw::{RawOrigin, Step};
use crate::syscalls::Asker;
use crate::{HOST, World};

/// What the log says of an upstream that broke HTTP.
const CAUSE: &str = "upstream failed";
/// What the writer says when it accepts requests again.
const MENDED: &str = "the journal can be written again";
/// Whether the writer has panicked.
static WRITER: AtomicBool = AtomicBool::new(false);

struct Panicking;

struct Words(String);

impl Visit for Words {
    fn record_debug(&mut self, _: &Field, value: &dyn Debug) {
        let _ = write!(self.0, "{value:?} ");
    }
}

impl Subscriber for Panicking {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("narrows")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut words = Words(String::new());
        event.record(&mut words);
        if words.0.contains(MENDED) {
            WRITER.store(true, Ordering::SeqCst);
            panic!("as this test wants it");
        }
        assert!(!words.0.contains(CAUSE), "as this test wants it");
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// There is one subscriber for a process; tests that need it may run at the same time.
fn subscribe() {
    let _ = tracing::subscriber::set_global_default(Panicking);
}

#[test]
fn a_writer_that_panicked_refuses_requests_and_the_next_process_completes_its_chain() {
    subscribe();
    let world = World::new(Alpn::H1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let home = Home::at(&world.env.home()).unwrap();
    let daemon = runtime.block_on(Daemon::start(&home, Serve::Everything)).unwrap();
    let ca = world.env.home().join("ca.pem");
    let mut asker = Asker::new(Agent::at(daemon.address().unwrap(), &ca, Some(&world.credentials)));
    asker.served(5);
    // Under way when the writer dies: its outcome comes when nobody takes it any more.
    let hanging = asker.hang(&world);
    let (audit, aside) = (world.env.home().join("audit"), world.env.file("aside"));
    std::fs::rename(&audit, &aside).unwrap();
    asker.until(503);
    std::fs::rename(&aside, &audit).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !WRITER.load(Ordering::SeqCst) {
        assert!(Instant::now() < deadline, "the writer did not panic");
        std::thread::yield_now();
    }
    asker.until(503);
    let seen = world.origin.seen().len();
    for _ in 0..20 {
        assert_eq!(asker.next(), 503);
    }
    assert_eq!(world.origin.seen().len(), seen, "a refused request reached the origin");
    drop(hanging);
    runtime.block_on(daemon.stop());
    drop(runtime);
    assert!(world.env.journal_files().iter().any(|path| path.extension().is_some_and(|it| it == "ring")));

    let next = world.env.start_as_written();
    let mut again = Asker::new(world.agent(&next));
    again.skip_to(1_000_000);
    again.served(3);
    next.stop();
    asker.delivered.append(&mut again.delivered);
    assert_nothing_lost(&world, &asker.delivered);
    let lines = world.env.journal();
    assert_eq!(lines.iter().filter(|line| line["path"] == "/hang/5" && line["outcome"] == "aborted").count(), 1);
    world.verify();
    assert!(world.env.journal_files().iter().all(|path| path.extension().is_some_and(|it| it == "jsonl")));
}

#[test]
fn a_panic_in_one_task_ends_one_connection_and_leaves_a_line() {
    subscribe();
    let mut env = TestEnv::new();
    let origin = Origin::https(&env.ca, &[HOST], Alpn::H1);
    env.acme("sk-real-3kf9QmZx71TtPw0aVb5Lr8Ys", &origin);
    let broken = RawOrigin::https(&env.ca, &["broken.acme.test"], vec![Step::Head]);
    env.dial_at("broken.acme.test:443", broken.addr);
    env.service("name = \"broken\"\nhosts = [\"broken.acme.test\"]");
    env.write_config();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let home = Home::at(&env.home()).unwrap();
    let daemon = runtime.block_on(Daemon::start(&home, Serve::Everything)).unwrap();
    let holder = env.mint("holder", &["acme", "broken"]);
    let credentials = holder.presentation();
    let agent = Agent::at(daemon.address().unwrap(), &env.home().join("ca.pem"), Some(&credentials));

    // Somebody else's answer is under way all the time.
    let mut other = agent.tunnel(HOST);
    other.send(&format!("GET /stream HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    origin.wait_for("/stream");
    other.head();
    for number in 0..3 {
        let mut tunnel = agent.tunnel("broken.acme.test");
        tunnel.send(&format!("POST /{number} HTTP/1.1\r\nHost: broken.acme.test\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(String::from_utf8_lossy(&tunnel.rest()), "", "the connection ends without an answer");
        origin.tick("still here");
        other.until("still here");
    }
    origin.end_streams();
    other.until("0\r\n\r\n");
    assert_eq!(agent.get(HOST, "/bytes/10").status(), 200);
    assert!(runtime.block_on(daemon.stop()));
    drop(runtime);
    let lines = env.journal();
    for number in 0..3 {
        let of_it: Vec<_> = lines.iter().filter(|line| line["path"] == format!("/{number}")).collect();
        assert_eq!(of_it.len(), 1, "{lines:#?}");
        assert_eq!(of_it[0]["outcome"], "aborted");
    }
    assert_eq!(lines.iter().filter(|line| line["outcome"] == "allowed").count(), 2);
    assert!(env.journal_is_sound());
}
