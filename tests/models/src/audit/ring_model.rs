//! The journal's ring: two requests that begin and finish, and the writer, which reads and frees.

use std::fs::File;
use std::marker::PhantomData;

use loom::sync::Arc;
use loom::thread;

use super::record::{Ended, Intent};
use super::ring::{Due, NoSlot, Ring, Shape};

/// Switches between threads where none is forced. Two find what six find here.
const PREEMPTIONS_MAX: usize = 6;
/// How often the writer looks while requests run; then it looks until nothing is left.
const LOOKS: usize = 2;

/// Who has written what: entry `id` ends with its own number.
fn outcome_of(id: u64) -> u64 {
    id * 1000
}

/// When entry `id` ends.
fn moment_of(id: u64) -> u64 {
    id * 7
}

fn run(slots: usize, requests: &'static [u64]) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(PREEMPTIONS_MAX);
    model.check(move || {
        let file = File::open("/dev/null").expect("a file");
        let ring = Arc::new(Ring::create(&file, Shape::of_slots(slots), 0).expect("a ring"));
        let request = |id: u64| {
            let ring = Arc::clone(&ring);
            thread::spawn(move || request(&ring, id))
        };
        let threads: Vec<_> = requests.iter().copied().map(request).collect();
        let mut writer = Writer { ring: Arc::clone(&ring), lines: Vec::new() };
        for _ in 0..LOOKS {
            writer.look();
            thread::yield_now();
        }
        let mut begun: Vec<u64> = threads.into_iter().filter_map(|thread| thread.join().expect("it ends")).collect();
        while writer.look() {}
        // Whoever was told that its entry is begun has its one line, and nobody else.
        writer.lines.sort_unstable();
        begun.sort_unstable();
        assert_eq!(writer.lines, begun);
        assert!(!begun.is_empty(), "there was room for one");
        assert_eq!((ring.in_use(), ring.ended_count()), (0, 0), "every slot is free again");
    });
}

/// Returns its id, if there was room for it.
fn request(ring: &Ring, id: u64) -> Option<u64> {
    match ring.begin(&Intent { id, texts: PhantomData }) {
        Ok(slot) => {
            ring.finish(slot, &Ended(outcome_of(id)), moment_of(id));
            Some(id)
        }
        Err(NoSlot::Full) => None,
        Err(NoSlot::TooLarge) => unreachable!("two words are not"),
    }
}

struct Writer {
    ring: Arc<Ring>,
    lines: Vec<u64>,
}

impl Writer {
    /// Takes the entries that have ended, as `audit::writer` does. False when there was none.
    fn look(&mut self) -> bool {
        let mut due = Vec::new();
        self.ring.ended(&mut due);
        for Due { slot, ended_at } in &due {
            let (intent, outcome) = self.ring.read(*slot).expect("what has ended can be read");
            let (read_at, ended) = outcome.expect("what has ended has its outcome");
            assert_eq!((read_at, *ended_at), (moment_of(intent.id), read_at), "the two belong together");
            assert_eq!(ended, Ended(outcome_of(intent.id)), "the two belong together");
            self.lines.push(intent.id);
        }
        for Due { slot, .. } in &due {
            self.ring.release(*slot);
        }
        !due.is_empty()
    }
}

#[test]
fn every_entry_has_one_line_where_each_has_a_slot() {
    run(2, &[1, 2]);
}

#[test]
fn every_entry_has_one_line_where_they_use_one_slot_in_turn() {
    run(1, &[1, 2]);
}
