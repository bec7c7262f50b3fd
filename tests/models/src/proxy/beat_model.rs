//! A connection's beat: requests that wait for some beats each, and the keeper, whose timer is due at once. Who is
//! never woken is a deadlock, which loom finds.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use loom::future::block_on;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use super::beat::{Beat, Wait};
use super::waker::AtomicWaker;

/// Switches between threads where none is forced: of the keeper and one request, and with a second request, which takes
/// minutes with two switches.
const PREEMPTIONS_MAX: usize = 3;
const PREEMPTIONS_OF_THREE_MAX: usize = 1;

/// Requests that have all the beats that they waited for.
struct Ended {
    count: AtomicU32,
    keeper: AtomicWaker,
}

fn run(beats: &'static [u32]) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(if beats.len() > 1 { PREEMPTIONS_OF_THREE_MAX } else { PREEMPTIONS_MAX });
    model.check(move || {
        let beat = Beat::shared(Instant::now());
        let ended = Arc::new(Ended { count: AtomicU32::new(0), keeper: AtomicWaker::new() });
        let request = |beats: u32| {
            let (beat, ended) = (Arc::clone(&beat), Arc::clone(&ended));
            thread::spawn(move || {
                let mut wait = Wait::new(&beat);
                for _ in 0..beats {
                    block_on(poll_fn(|cx| wait.poll(cx)));
                }
                drop(wait);
                ended.count.fetch_add(1, Ordering::AcqRel);
                ended.keeper.wake();
            })
        };
        let threads: Vec<_> = beats.iter().copied().map(request).collect();
        block_on(poll_fn(|cx| {
            ended.keeper.register(cx.waker());
            while beat.is_asked(cx) {
                beat.strike();
            }
            let all = ended.count.load(Ordering::Acquire) as usize == beats.len();
            if all { Poll::Ready(()) } else { Poll::Pending }
        }));
        threads.into_iter().for_each(|thread| thread.join().expect("it ends"));
    });
}

#[test]
fn one_request_has_all_its_beats() {
    run(&[2]);
}

#[test]
fn two_requests_have_theirs() {
    run(&[1, 1]);
}
