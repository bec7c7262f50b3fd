//! The wall clock jumps while the proxy runs (libfaketime, with the offset in a file that the test changes).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::World;
use crate::load::assert_nothing_lost;
use crate::support::ca::Alpn;
use crate::support::client::{program, skip};
use crate::support::daemon::Daemon;
use crate::syscalls::Asker;

/// Where Debian has the library, by the machine's name for its processor.
fn library() -> Option<PathBuf> {
    program("faketime")?;
    let folders = ["x86_64-linux-gnu", "aarch64-linux-gnu"];
    let paths = folders.map(|folder| Path::new("/usr/lib").join(folder).join("faketime/libfaketime.so.1"));
    paths.into_iter().find(|path| path.exists())
}

/// A clock that is off by what a file says.
struct Skewed {
    offset: PathBuf,
}

impl Skewed {
    fn start(world: &World, test: &str) -> Option<(Self, Daemon)> {
        let Some(library) = library() else {
            skip(test, "libfaketime is not installed");
            return None;
        };
        let skewed = Self { offset: world.env.file("offset") };
        skewed.jump("+0");
        let variables = [
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("FAKETIME_TIMESTAMP_FILE", skewed.offset.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            // Waiting is measured by the other clock, which no jump moves.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        let daemon = world.env.start_with(&variables);
        Some((skewed, daemon))
    }

    /// The clock is off by so much from now on: `-3600`, `+86400`.
    fn jump(&self, seconds: &str) {
        let new = self.offset.with_extension("new");
        std::fs::write(&new, seconds).unwrap();
        std::fs::rename(&new, &self.offset).unwrap();
    }
}

fn second(line: &Value) -> i64 {
    line["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second()
}

#[test]
fn the_journal_survives_a_clock_that_jumps() {
    let world = World::with(Alpn::H1, "[journal]\nrotate = \"64k\"");
    let Some((clock, daemon)) = Skewed::start(&world, "a clock that jumps") else { return };
    let began = jiff::Timestamp::now().as_second();
    let mut asker = Asker::new(world.agent(&daemon));
    // Hours back, then the present, then a year back, before the capability was issued: a tunnel that is open stays so.
    let jumps = [0, -7200, 0, -31_536_000, 600];
    for (round, offset) in jumps.into_iter().enumerate() {
        clock.jump(&format!("{offset:+}"));
        asker.skip_to(round * 1000);
        // Past a rotation of the file, every time.
        asker.served(120);
    }
    let (log, code) = daemon.stop();
    assert_eq!(code, Some(0), "{log}");
    assert_nothing_lost(&world, &asker.delivered);
    world.verify();
    let lines = world.env.journal();
    let ids: BTreeSet<&str> = lines.iter().map(|line| line["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), lines.len(), "an id twice");
    for line in &lines {
        let path = line["path"].as_str().unwrap();
        let number: usize = path.rsplit('/').next().unwrap().parse().unwrap();
        let lie = second(line) - began - jumps[number / 1000];
        // The time is the clock's at that moment, whatever it was before; how long a request took is not.
        assert!((-2..=60).contains(&lie), "{path} is off by {lie} s: {line}");
        assert!(line["duration_ms"].as_u64().unwrap() < 60_000, "{line}");
    }
}

#[test]
fn a_capability_ends_by_the_wall_clock_and_a_proof_is_not_replayed_by_turning_it_back() {
    let world = World::new(Alpn::H1);
    let Some((clock, daemon)) = Skewed::start(&world, "a capability and a clock that jumps") else { return };
    let holder = world.env.mint("other", &["acme path=/bytes"]);
    let agent = |credentials: &str| crate::support::agent::Agent::new(&world.env, &daemon, Some(credentials));
    let proof = holder.proof("api.acme.test:443");
    let connect = |credentials: &str| agent(credentials).connect("api.acme.test:443").0.status();
    assert_eq!(connect(&proof), 200);
    assert_eq!(connect(&proof), 407, "a replay");
    // Two hours on, the proof's nonce may be forgotten and the capability has ended.
    clock.jump("+7200");
    let mut asker = Asker::new(agent(&world.credentials));
    assert_eq!(connect(&proof), 407, "an old proof");
    // Back in the present the proof would be fresh again; the replay memory's clock does not run backwards.
    clock.jump("+0");
    assert_eq!(connect(&proof), 407, "a replay after the clock was turned back");
    asker.served(1);
    // Inside an open tunnel the capability ends with the wall clock, and not before.
    clock.jump("+7200");
    assert_eq!(asker.next(), 403);
    daemon.stop();
    world.verify();
}
