//! Lines for somebody outside who may not take them: log collection behind stdout or stderr.
//!
//! Whoever has a line hands it over and never waits: a thread of its own writes. While nobody takes what it writes, lines
//! are kept up to a bound and left out beyond it, always whole ones. Words about that are this thread's alone: what they are
//! said on may be the same pipe.
#![expect(
    clippy::disallowed_types,
    reason = "held for a copy of a line, never while something is written: a request that logs does not wait"
)]

use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// So many bytes wait at most, and as many again are being written: some 15 000 lines of the journal.
const PENDING_BYTES_MAX: usize = 8 << 20;
/// What a burst may leave allocated, in bytes.
const KEPT_BYTES_MAX: usize = 1 << 20;
/// How long it waits after an error, such as a pipe that nobody has open or a full disk.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// Where lines are handed over.
#[derive(Debug)]
pub(crate) struct Handoff(Arc<Shared>);

/// What is said when lines are not taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words {
    /// So many lines were left out, and lines are taken again.
    pub(crate) left_out: fn(u64),
    /// A write fails, and is tried again.
    pub(crate) failing: fn(&io::Error),
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Whole lines.
    pending: Vec<u8>,
    /// Lines that found no room.
    left_out: u64,
    /// Something taken out of `pending` is not written yet.
    writing: bool,
    closed: bool,
}

impl Handoff {
    /// Starts its thread.
    ///
    /// # Errors
    /// The system has none.
    pub(crate) fn start(name: &str, to: impl Write + Send + 'static, words: Words) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name(name.to_owned()).spawn(move || theirs.run(to, words))?;
        Ok(Self(shared))
    }

    /// Takes `count` whole lines, or leaves them out. Never waits for who should read them.
    pub(crate) fn take(&self, lines: &[u8], count: u64) {
        let mut state = self.0.lock();
        if state.pending.len().saturating_add(lines.len()) > PENDING_BYTES_MAX {
            state.left_out += count;
            return;
        }
        state.pending.extend_from_slice(lines);
        drop(state);
        self.0.changed.notify_all();
    }

    /// How many lines were left out.
    pub(crate) fn left_out(&self) -> u64 {
        self.0.lock().left_out
    }

    /// Waits until everything taken is written, at most until `deadline`. Blocks the thread.
    pub(crate) fn settle(&self, deadline: Instant) {
        let mut state = self.0.lock();
        while state.writing || !state.pending.is_empty() {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return };
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Handoff {
    /// Its thread ends when it can; one whose write never returns ends with the process.
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut to: impl Write, words: Words) {
        let (mut lines, mut told) = (Vec::new(), 0);
        loop {
            let left_out = {
                let mut state = self.lock();
                state.writing = false;
                while state.pending.is_empty() {
                    self.changed.notify_all();
                    if state.closed {
                        return;
                    }
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                std::mem::swap(&mut lines, &mut state.pending);
                state.writing = true;
                state.left_out
            };
            if !self.write(&mut to, &lines, words) {
                return;
            }
            lines.clear();
            lines.shrink_to(KEPT_BYTES_MAX);
            if left_out > told {
                (words.left_out)(left_out - told);
                told = left_out;
            }
        }
    }

    /// False when it was closed before it could be done.
    fn write(&self, to: &mut impl Write, mut lines: &[u8], words: Words) -> bool {
        let mut said = false;
        while !lines.is_empty() {
            let error = match to.write(lines) {
                Ok(count @ 1..) => {
                    lines = lines.get(count..).unwrap_or_default();
                    continue;
                }
                Ok(0) => ErrorKind::WriteZero.into(),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            // A pipe that does not block is full; that is no news.
            if !said && error.kind() != ErrorKind::WouldBlock {
                said = true;
                (words.failing)(&error);
            }
            let deadline = Instant::now() + AFTER_ERROR;
            let mut state = self.lock();
            loop {
                if state.closed {
                    return false;
                }
                let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
                state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    const SOON: Duration = Duration::from_secs(20);
    const WORDS: Words = Words { left_out: |_| (), failing: |_| () };
    const LINE: &[u8] = &[b'x'; 1 << 16];

    #[test]
    fn what_nobody_reads_is_bounded_and_counted_and_what_is_read_is_whole() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let handoff = Handoff::start("test", ours, WORDS).expect("a thread");
        // Nobody reads: this would wait for ever if it waited.
        for _ in 0..1024 {
            handoff.take(&[LINE, b"\n"].concat(), 1);
        }
        let kept = 1024 - handoff.left_out();
        assert!(kept * (1 << 16) <= 2 * PENDING_BYTES_MAX as u64 && kept > 100, "{kept}");
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).map(|_| all)
        });
        handoff.settle(Instant::now() + SOON);
        handoff.take(b"last\n", 1);
        handoff.settle(Instant::now() + SOON);
        drop(handoff);
        let all = reader.join().expect("read").expect("read");
        let mut lines: Vec<&[u8]> = all.split(|&byte| byte == b'\n').collect();
        assert_eq!((lines.pop(), lines.pop()), (Some(&b""[..]), Some(&b"last"[..])));
        assert_eq!(lines.len() as u64, kept);
        assert!(lines.iter().all(|line| *line == LINE));
    }

    /// Fails as often as it is told to, then takes a byte at a time.
    struct Grudging(u32, std::sync::mpsc::Sender<u8>);

    impl Write for Grudging {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(left) = self.0.checked_sub(1) {
                self.0 = left;
                return Err(if left == 1 { ErrorKind::WouldBlock } else { ErrorKind::StorageFull }.into());
            }
            bytes.first().map_or(Ok(0), |byte| self.1.send(*byte).map(|()| 1).map_err(io::Error::other))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_failed_is_tried_again_from_where_it_failed() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let handoff = Handoff::start("test", Grudging(2, sender), WORDS).expect("a thread");
        handoff.take(b"one\ntwo\n", 2);
        handoff.settle(Instant::now() + SOON);
        assert_eq!(receiver.try_iter().collect::<Vec<u8>>(), b"one\ntwo\n");
        // Closed for good: nobody waits for it.
        drop(receiver);
        handoff.take(b"three\n", 1);
        handoff.settle(Instant::now() + Duration::from_millis(1));
    }
}
