//! What a journal entry costs a request: the mapped ring against one plain `write` per line, and the writer's pace.
#![expect(clippy::expect_used, reason = "a bench ends when it cannot go on")]

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use narrows::audit::{Durability, Ending, Event, Identity, IdentityHop, Intent, Journal, JournalOptions, Outcome};
use narrows::capability::{Algorithm, PrivateKey};
use narrows::request::ProofKind;
use tempfile::TempDir;
use ulid::Ulid;

/// So many entries fit the ring while the writer is not looking.
const ROOM: u64 = 4096;
const WAIT: Duration = Duration::from_secs(30);

fn folder() -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).expect("a mode");
    dir
}

/// A person, an orchestrator and a sub-agent: the line is some 900 bytes long.
fn identity() -> Identity {
    let key = PrivateKey::from_seed(Algorithm::Ed25519, [7; 32]).expect("a key");
    let block = [0xb2; 32];
    let hop = |name| IdentityHop { holder: key.public(), name, block: &block };
    Identity::new(
        Some("alice@example.com"),
        &[hop(None), hop(Some("orchestrator")), hop(Some("agent-1"))],
        &[0xca; 32],
        ProofKind::Connect,
        None,
    )
}

fn intent(identity: &Identity, number: u64) -> Intent<'_> {
    Intent {
        id: Ulid::from_parts(1_800_027_612_345, u128::from(number)),
        time_ms: 1_800_027_612_345,
        event: Event::Request,
        identity: Some(identity),
        service: Some("github"),
        operation: Some("read"),
        action: None,
        method: Some("GET"),
        host: Some("api.github.com"),
        port: Some(443),
        path: Some("/repos/acme/widgets/contents/src/lib.rs"),
        credential: Some("gh-pat"),
        client: Some("127.0.0.1:53122"),
        foreign_credential: false,
    }
}

const OUTCOME: Outcome = Outcome {
    ending: Ending::Allowed,
    code: None,
    status: Some(200),
    bytes_up: 0,
    bytes_down: 5321,
    duration_ms: 143,
    upstream_ms: Some(141),
    foreign_credential: false,
};

fn record(journal: &Journal, identity: &Identity, number: u64, at: Instant) {
    let entry = journal.begin(black_box(&intent(identity, number))).expect("room");
    entry.finish(black_box(&OUTCOME), at);
}

/// Times `iterations` entries on each of `threads`, in bursts that fit the ring, without the writer's work between them.
fn timed(journal: &Journal, identity: &Identity, iterations: u64, threads: u64) -> Duration {
    let (mut left, mut spent) = (iterations, Duration::ZERO);
    while left > 0 {
        let burst = left.min(ROOM / threads);
        let start = Instant::now();
        if threads == 1 {
            (0..burst).for_each(|number| record(journal, identity, number, start));
        } else {
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| (0..burst).for_each(|number| record(journal, identity, number, start)));
                }
            });
        }
        spent += start.elapsed();
        left -= burst;
        assert!(journal.flush(WAIT), "the writer keeps up");
    }
    spent
}

fn entry(criterion: &mut Criterion) {
    let dir = folder();
    let journal = Journal::open(dir.path(), JournalOptions::default()).expect("a journal");
    let identity = identity();
    let mut group = criterion.benchmark_group("journal");
    group.bench_function("begin and finish", |bench| {
        bench.iter_custom(|iterations| timed(&journal, &identity, iterations, 1));
    });
    for threads in [2, 4] {
        group.bench_function(format!("begin and finish, {threads} threads"), |bench| {
            bench.iter_custom(|iterations| timed(&journal, &identity, iterations, threads));
        });
    }
    group.bench_function("begin, with the writer asleep", |bench| {
        bench.iter_custom(|iterations| {
            let (mut left, mut spent) = (iterations, Duration::ZERO);
            while left > 0 {
                let burst = left.min(ROOM);
                let mut entries = Vec::with_capacity(usize::try_from(burst).expect("small"));
                let start = Instant::now();
                for number in 0..burst {
                    entries.push(journal.begin(black_box(&intent(&identity, number))).expect("room"));
                }
                spent += start.elapsed();
                drop(entries);
                assert!(journal.flush(WAIT), "the writer keeps up");
                left -= burst;
            }
            spent
        });
    });
    group.throughput(Throughput::Elements(ROOM));
    group.bench_function("the writer, 4096 lines", |bench| {
        bench.iter(|| {
            let start = Instant::now();
            (0..ROOM).for_each(|number| record(&journal, &identity, number, start));
            assert!(journal.flush(WAIT), "the writer keeps up");
        });
    });
    group.finish();
}

fn plain_write(criterion: &mut Criterion) {
    let dir = folder();
    let line = vec![b'x'; 900];
    let open = |name: &str| -> File {
        OpenOptions::new().append(true).create(true).open(dir.path().join(name)).expect("a file")
    };
    let mut group = criterion.benchmark_group("plain");
    let mut file = open("one");
    group.bench_function("one write a request", |bench| {
        bench.iter(|| file.write_all(black_box(&line)).expect("written"));
    });
    file.set_len(0).expect("cut");
    let file = open("two");
    group.bench_function("one write a request, two threads", |bench| {
        bench.iter_custom(|iterations| {
            let start = Instant::now();
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        for _ in 0..iterations {
                            (&file).write_all(black_box(&line)).expect("written");
                        }
                    });
                }
            });
            start.elapsed()
        });
    });
    group.finish();
}

/// A request that waits for the disk where it must: after its intent, and after its outcome.
async fn durable(journal: &Journal, identity: &Identity, number: u64) {
    let recorder = journal.recorder();
    let entry = recorder.begin(&intent(identity, number)).expect("room");
    if let Some(settle) = recorder.settle() {
        settle.await.expect("synced");
    }
    entry.finish(&OUTCOME, Instant::now());
    if let Some(settle) = recorder.settle() {
        settle.await.expect("synced");
    }
}

/// What the disk costs: `always` waits twice a request, and requests of the same moment share a wait. In a folder of
/// `NARROWS_BENCH_DIR` where that is set: a disk's answer is that disk's.
fn durability(criterion: &mut Criterion) {
    let identity = identity();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut group = criterion.benchmark_group("durability");
    for (name, durability) in
        [("kernel", Durability::Kernel), ("disk", Durability::Disk), ("always", Durability::Always)]
    {
        for at_once in [1, 32] {
            let dir = std::env::var_os("NARROWS_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
            let dir = tempfile::tempdir_in(dir).expect("a folder");
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).expect("a mode");
            let options = JournalOptions { durability, ..JournalOptions::default() };
            let journal = Journal::open(dir.path(), options).expect("a journal");
            group.throughput(Throughput::Elements(at_once));
            group.bench_function(format!("{name}, {at_once} at once"), |bench| {
                bench.iter_custom(|iterations| {
                    let (mut left, mut spent) = (iterations, Duration::ZERO);
                    while left > 0 {
                        let burst = left.min(ROOM / at_once);
                        let start = Instant::now();
                        for _ in 0..burst {
                            let requests = (0..at_once).map(|number| durable(&journal, &identity, number));
                            runtime.block_on(futures_util::future::join_all(requests));
                        }
                        spent += start.elapsed();
                        assert!(journal.flush(WAIT), "the writer keeps up");
                        left -= burst;
                    }
                    spent
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, entry, plain_write, durability);
criterion_main!(benches);
