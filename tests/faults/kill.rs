//! SIGKILL at random moments.

use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::load::{assert_nothing_lost, under_load};
use crate::support::PATIENCE;
use crate::support::ca::Alpn;
use crate::{World, is_long};

/// Numbers that look random, from a seed that is printed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new() -> Self {
        let given = std::env::var("NARROWS_FAULTS_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| u64::from_le_bytes(narrows::store::random::bytes().unwrap()));
        eprintln!("NARROWS_FAULTS_SEED={seed}");
        Self(seed)
    }

    /// From 0 to below `end` (splitmix64).
    pub(crate) fn roll(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % end
    }
}

fn kill_under_load(alpn: Alpn, rounds: usize) {
    let world = World::new(alpn);
    let mut dice = Dice::new();
    let (mut delivered, mut midway) = (Vec::new(), 0);
    for round in 0..rounds {
        // The recovery of what the last one left is killed too, now and then.
        for _ in 0..dice.roll(3) {
            let mut command = world.env.narrows(&[]);
            let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let until = Instant::now() + Duration::from_micros(dice.roll(60_000));
            while Instant::now() < until {
                std::thread::yield_now();
            }
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let daemon = world.env.start_as_written();
        let enough = 1 + dice.roll(300);
        let ((), got) = under_load(&world, daemon, &format!("k{round}"), |harvest, daemon| {
            let deadline = Instant::now() + PATIENCE;
            while harvest.count.load(Ordering::Relaxed) < enough {
                assert!(Instant::now() < deadline, "the load stands still");
                std::thread::yield_now();
            }
            daemon.crash();
        });
        delivered.extend(got);
        midway += world.env.journal_files().iter().filter(|path| path.extension().is_some_and(|e| e == "ring")).count();
    }
    world.env.start_as_written().stop();
    assert_nothing_lost(&world, &delivered);
    world.verify();
    let aborted = world.env.journal().iter().filter(|line| line["outcome"] == "aborted").count();
    eprintln!("{rounds} kills: {} answers, {aborted} aborted, {midway} rings left", delivered.len());
    // A harness whose kills hit nothing shows nothing.
    assert!(midway >= rounds && aborted > 0 && delivered.len() > rounds, "{midway} {aborted}");
}

#[test]
fn a_kill_under_load_loses_no_line_over_http1_upstreams() {
    kill_under_load(Alpn::H1, if is_long() { 50 } else { 4 });
}

#[test]
fn a_kill_under_load_loses_no_line_over_http2_upstreams() {
    kill_under_load(Alpn::Both, if is_long() { 50 } else { 4 });
}
