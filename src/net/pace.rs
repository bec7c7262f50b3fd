//! Turns at moving bulk, so that those who ask for little do not wait behind those who move a lot.
//!
//! A task that is ready runs when all that were ready before it have run, each for as long as it has something to do: sixteen
//! uploads make a small request wait for sixteen times what one of them moves at once. So each moves `TURN_BYTES` and
//! then asks for a turn; there are as many turns as cores, given in the order in which they were asked for, and each is given
//! on when the runtime has run what else was ready and has looked who else has something to do.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Wake, Waker, ready};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf, Take};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::PollSemaphore;

/// What is read in one turn: two records of TLS (RFC 8446 §5.1), some tens of microseconds of work. With twice as much a
/// byte costs a tenth less, and others wait half as long again (`docs/performance.md`).
const TURN_BYTES: usize = 32 * 1024;
/// A read of fewer bytes is no bulk. rustls reads 4096 at once, where they are there.
const BULK_READ_BYTES: usize = 2048;
/// Steps of handshakes that one core makes before it looks who else has something to do: less than a millisecond.
const HANDSHAKES_AT_ONCE: usize = 4;
/// A handshake has two or three steps that do something; what comes byte by byte gets no more turns than this.
const STEPS_MAX: u8 = 8;

#[expect(clippy::disallowed_types, reason = "not on the path of a request: once for each turn at moving bulk")]
type Semaphore = tokio::sync::Semaphore;

/// The turns of this process at bulk: what is shared are its cores.
static BULK: LazyLock<Arc<Semaphore>> = LazyLock::new(|| for_each_core(1));
/// Those at handshakes, so that a new connection does not wait behind those who move bulk, nor they behind it. Several for
/// each core: where the runtime is never idle it is long until one is given on.
static HANDSHAKES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| for_each_core(HANDSHAKES_AT_ONCE));
/// The same for whom nobody knows yet.
static STRANGERS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| for_each_core(HANDSHAKES_AT_ONCE));

fn for_each_core(turns: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(turns * std::thread::available_parallelism().map_or(1, usize::from)))
}

/// How much of its turn somebody has used.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    used: usize,
    /// Whether it is used up, whatever was read.
    over: bool,
    /// Where there has been bulk.
    turns: Option<Box<PollSemaphore>>,
}

impl Pace {
    /// Says that as much was worked as one turn has room for.
    pub(crate) const fn end(&mut self) {
        self.over = true;
    }

    /// Ready when it may go on.
    pub(crate) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // What is left has to be enough for a read that counts.
        if !self.over && self.left() >= BULK_READ_BYTES {
            return Poll::Ready(());
        }
        let turns = self.turns.get_or_insert_with(|| Box::new(PollSemaphore::new(Arc::clone(&BULK))));
        // Nobody closes it.
        if let Some(turn) = ready!(turns.poll_acquire(cx)) {
            give_on(turn);
        }
        (self.used, self.over) = (0, false);
        Poll::Ready(())
    }

    /// What may still be read in this turn.
    const fn left(&self) -> usize {
        TURN_BYTES.saturating_sub(self.used)
    }

    /// So many bytes were read at once.
    const fn read(&mut self, bytes: usize) {
        if bytes >= BULK_READ_BYTES {
            self.used += bytes;
        }
    }
}

/// Gives a turn on when the runtime has looked who else has something to do, whatever becomes of whoever has it: that it
/// waits for somebody else must hold up nobody.
fn give_on(turn: OwnedSemaphorePermit) {
    struct Held(#[expect(dead_code, reason = "it is given back when this is dropped")] OwnedSemaphorePermit);
    impl Wake for Held {
        fn wake(self: Arc<Self>) {}
    }
    // tokio keeps the waker of who yields until it has asked the system what is ready.
    let waker = Waker::from(Arc::new(Held(turn)));
    let _ = pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(&waker));
}

pin_project! {
    /// A handshake, each step of which waits for its turn: keys are made, agreed on and verified in some hundreds of
    /// microseconds, and many who come at once would have everybody else wait for all of them.
    pub(crate) struct ByTurns<F> {
        #[pin]
        handshake: F,
        turns: PollSemaphore,
        steps: u8,
    }
}

impl<F: Future> ByTurns<F> {
    /// Of a tunnel's two ends.
    pub(crate) fn new(handshake: F) -> Self {
        Self { handshake, turns: PollSemaphore::new(Arc::clone(&HANDSHAKES)), steps: 0 }
    }

    /// Of a client that nobody knows yet.
    pub(crate) fn of_stranger(handshake: F) -> Self {
        Self { handshake, turns: PollSemaphore::new(Arc::clone(&STRANGERS)), steps: 0 }
    }
}

impl<F: Future> Future for ByTurns<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if *this.steps < STEPS_MAX {
            // Nobody closes it.
            if let Some(turn) = ready!(this.turns.poll_acquire(cx)) {
                give_on(turn);
            }
            *this.steps += 1;
        }
        this.handshake.poll(cx)
    }
}

/// A connection that is read by turns.
#[derive(Debug)]
pub struct Paced<T> {
    inner: Take<T>,
    pace: Pace,
}

impl<T: AsyncRead> Paced<T> {
    /// Reads `inner` by turns.
    pub fn new(inner: T) -> Self {
        Self { inner: inner.take(0), pace: Pace::default() }
    }
}

impl<T: AsyncRead + Unpin> Paced<T> {
    fn inner(self: Pin<&mut Self>) -> Pin<&mut T> {
        Pin::new(self.get_mut().inner.get_mut())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Paced<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.pace.poll_turn(cx));
        let (before, left) = (buf.filled().len(), self.pace.left());
        self.inner.set_limit(left as u64);
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.pace.read(buf.filled().len() - before);
        read
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Paced<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.inner().poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.get_ref().is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::net::UdpSocket;

    use super::*;

    /// Reads as much as is asked for, at once.
    struct Endless;

    impl AsyncRead for Endless {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let room = buf.remaining();
            buf.put_slice(&vec![0; room]);
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_is_read_in_small_pieces_is_no_bulk() {
        let mut pace = Pace::default();
        for _ in 0..100 {
            pace.read(BULK_READ_BYTES - 1);
        }
        assert_eq!(pace.used, 0);
        pace.read(BULK_READ_BYTES);
        assert_eq!(pace.used, BULK_READ_BYTES);
        assert!(pace.turns.is_none());
    }

    /// However the turn's end falls between reads, the next one is asked for.
    #[tokio::test]
    async fn a_turn_ends_for_readers_of_every_size() {
        for size in [BULK_READ_BYTES, 3000, 4096, 5000, 16_406, 1 << 20] {
            let (mut bulk, mut buffer) = (Paced::new(Endless), vec![0; size]);
            let (mut read, mut least) = (0, usize::MAX);
            while read < 3 * TURN_BYTES {
                let bytes = bulk.read(&mut buffer).await.expect("endless");
                assert!(bytes <= TURN_BYTES && bulk.pace.used <= TURN_BYTES, "{size}");
                (read, least) = (read + bytes, least.min(bytes));
            }
            assert!(bulk.pace.turns.is_some() && least >= BULK_READ_BYTES, "{size}: {least}");
        }
    }

    /// Some who have a lot to do, and one whom a message reaches by the system: how often the others did something before
    /// each message was received.
    fn between_messages<F>(many: usize, worker: impl Fn(Arc<AtomicUsize>) -> F) -> Vec<usize>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        const MESSAGES: usize = 50;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("one");
        let between = runtime.block_on(async {
            let done = Arc::<AtomicUsize>::default();
            for _ in 0..many {
                tokio::spawn(worker(Arc::clone(&done)));
            }
            let asked = tokio::spawn(async move {
                let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
                socket.connect(socket.local_addr().expect("an address")).await.expect("itself");
                let mut between = Vec::new();
                for _ in 0..MESSAGES {
                    let before = done.load(Ordering::Relaxed);
                    socket.send(b"x").await.expect("sent");
                    socket.recv(&mut [0]).await.expect("received");
                    between.push(done.load(Ordering::Relaxed) - before);
                }
                between
            });
            asked.await.expect("it ends")
        });
        runtime.shutdown_background();
        between
    }

    fn cores() -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    /// It is looked for after some turns, not after everybody's.
    #[test]
    fn whoever_has_a_message_waits_for_no_round_of_those_who_move_bulk() {
        const MOVERS: usize = 16;
        let between = between_messages(MOVERS, |turns| async move {
            let (mut bulk, mut buffer) = (Paced::new(Endless), vec![0; TURN_BYTES]);
            loop {
                bulk.read_exact(&mut buffer).await.expect("endless");
                turns.fetch_add(1, Ordering::Relaxed);
            }
        });
        let most = between.iter().max().copied().expect("messages");
        assert!(most < MOVERS.max(2 * cores() + 2), "{between:?}");
    }

    /// What has something to do so many times, each time it is asked.
    fn handshake(steps: u8, done: Arc<AtomicUsize>) -> impl Future<Output = ()> {
        let mut left = steps;
        std::future::poll_fn(move |cx| {
            done.fetch_add(1, Ordering::Relaxed);
            left -= 1;
            if left == 0 {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }

    #[test]
    fn whoever_has_a_message_waits_for_no_round_of_handshakes() {
        let at_once = HANDSHAKES_AT_ONCE * cores();
        let many = 8 * at_once;
        let between = between_messages(many, |steps| async move {
            loop {
                ByTurns::new(handshake(3, Arc::clone(&steps))).await;
            }
        });
        let most = between.iter().max().copied().expect("messages");
        assert!(most < many / 2, "of {many}, {at_once} at once: {between:?}");
    }

    #[tokio::test]
    async fn what_comes_byte_by_byte_gets_no_more_turns_than_a_handshake_needs() {
        let done = Arc::<AtomicUsize>::default();
        let mut slow = Box::pin(ByTurns::of_stranger(handshake(20, Arc::clone(&done))));
        slow.as_mut().await;
        assert_eq!((done.load(Ordering::Relaxed), slow.steps), (20, STEPS_MAX));
    }

    #[tokio::test]
    async fn a_handshake_that_is_given_up_gives_its_turn_back() {
        // As many hold a turn, and as many wait for one.
        for _ in 0..2 * HANDSHAKES_AT_ONCE * cores() {
            let mut given_up = Box::pin(ByTurns::of_stranger(std::future::pending::<()>()));
            assert!(futures_util::poll!(given_up.as_mut()).is_pending());
        }
        let next = tokio::time::timeout(Duration::from_mins(1), ByTurns::of_stranger(async {}));
        assert!(next.await.is_ok(), "no turn is left");
    }
}
