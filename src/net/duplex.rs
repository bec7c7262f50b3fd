//! Copying bytes both ways between two ends until both have said all they had to say.
//!
//! An end that takes nothing more may still have something to say: a server that answers early and closes
//! (RFC 9112 §9.6) has its answer in flight when the client's next write to it fails. So after a refused write
//! what still comes for that end is read and dropped, until the other direction has ended and a moment more: closed with
//! something unread, a socket resets its peer. A failed read, or any other error, ends both. An end that leaves TLS without
//! its goodbye has only ended, for what is carried says itself whether it is whole; and so has one that breaks off when the
//! other has ended: who left does not miss it.

use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What comes for an end that takes no more is read this long after the other direction has ended.
const LINGER_FOR: Duration = Duration::from_secs(2);

/// One of the two ends that bytes are copied between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The one that was named first.
    First,
    /// The other.
    Second,
}

/// An end failed.
#[derive(Debug, thiserror::Error)]
#[error("one end of a connection failed")]
pub struct Failed {
    /// Which one.
    pub end: End,
    /// How.
    pub source: io::Error,
}

/// Copies both ways, with a buffer of `buffer_bytes` for each.
///
/// # Errors
/// The first error of either end. What the other direction still had was delivered when an end only refused to take
/// more.
pub async fn copy_both<A, B>(a: &mut A, b: &mut B, buffer_bytes: usize) -> Result<(), Failed>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut there, mut back) = (Way::new(buffer_bytes), Way::new(buffer_bytes));
    let mut linger = None;
    poll_fn(|cx| {
        let (there_done, back_done) = (there.done, back.done);
        let there_ended =
            there.poll(cx, a, b, back_done).map_err(|broken| broken.between(End::First, End::Second))?.is_ready();
        let back_ended = back
            .poll(cx, b, a, there_done || there_ended)
            .map_err(|broken| broken.between(End::Second, End::First))?
            .is_ready();
        match (there_ended, back_ended) {
            (true, true) => return Poll::Ready(Ok(())),
            (true, false) if back.refused.is_some() => {}
            (false, true) if there.refused.is_some() => {}
            _ => return Poll::Pending,
        }
        linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER_FOR))).as_mut().poll(cx).map(Ok)
    })
    .await?;
    let refused = |refused: Option<io::Error>, end| refused.map(|source| Failed { end, source });
    let failed = refused(there.refused, End::Second).or(refused(back.refused, End::First));
    failed.map_or(Ok(()), Err)
}

/// One direction.
struct Way {
    buffer: Box<[u8]>,
    /// What was read and not yet written.
    unwritten: std::ops::Range<usize>,
    unflushed: bool,
    read_all: bool,
    done: bool,
    /// Why the far end takes nothing more.
    refused: Option<io::Error>,
}

impl Way {
    fn new(buffer_bytes: usize) -> Self {
        let buffer = vec![0; buffer_bytes].into_boxed_slice();
        Self { buffer, unwritten: 0..0, unflushed: false, read_all: false, done: false, refused: None }
    }

    /// Ready when this direction has ended. Only an error that ends the other one too is returned. `alone`: the other has
    /// ended.
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W, alone: bool) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        while !self.done {
            if self.refused.is_some() {
                return self.poll_drop(cx, from).map(Ok);
            }
            let step = if self.unwritten.is_empty() && !self.read_all {
                ready!(self.poll_fill(cx, from, to))
            } else {
                ready!(self.poll_pass_on(cx, to))
            };
            match step {
                Ok(()) => {}
                Err(Broken::Write(error)) if takes_no_more(&error) => {
                    self.refused = Some(error);
                }
                Err(Broken::Read(error)) if alone && takes_no_more(&error) => self.read_all = true,
                Err(broken) => return Poll::Ready(Err(broken)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads and drops until there is nothing more.
    fn poll_drop<R: AsyncRead + Unpin>(&mut self, cx: &mut Context<'_>, from: &mut R) -> Poll<()> {
        loop {
            let mut buffer = ReadBuf::new(&mut self.buffer);
            let read = ready!(Pin::new(&mut *from).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                self.done = true;
                return Poll::Ready(());
            }
        }
    }

    /// Reads; while there is nothing to read, what was written is pushed out.
    fn poll_fill<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut buffer = ReadBuf::new(&mut self.buffer);
        let read = match Pin::new(from).poll_read(cx, &mut buffer) {
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(()),
            read => read.map_err(Broken::Read)?.map(|()| ()),
        };
        if read.is_pending() {
            if self.unflushed {
                ready!(Pin::new(to).poll_flush(cx)).map_err(Broken::Write)?;
                self.unflushed = false;
            }
            return Poll::Pending;
        }
        self.unwritten = 0..buffer.filled().len();
        self.read_all = self.unwritten.is_empty();
        Poll::Ready(Ok(()))
    }

    /// Writes what was read, or ends the far half when all was.
    fn poll_pass_on<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, to: &mut W) -> Poll<Result<(), Broken>> {
        let Some(bytes) = self.buffer.get(self.unwritten.clone()).filter(|bytes| !bytes.is_empty()) else {
            match ready!(Pin::new(to).poll_shutdown(cx)) {
                // It had all there was: that it has closed before it was told so is nobody's loss.
                Err(error) if !takes_no_more(&error) => return Poll::Ready(Err(Broken::Write(error))),
                Ok(()) | Err(_) => self.done = true,
            }
            return Poll::Ready(Ok(()));
        };
        let written = ready!(Pin::new(to).poll_write(cx, bytes)).map_err(Broken::Write)?;
        if written == 0 {
            return Poll::Ready(Err(Broken::Write(io::ErrorKind::WriteZero.into())));
        }
        self.unwritten.start += written;
        self.unflushed = true;
        Poll::Ready(Ok(()))
    }
}

enum Broken {
    Read(io::Error),
    Write(io::Error),
}

impl Broken {
    fn between(self, from: End, to: End) -> Failed {
        match self {
            Self::Read(source) => Failed { end: from, source },
            Self::Write(source) => Failed { end: to, source },
        }
    }
}

/// True when the peer has closed, and not when we may not go on.
fn takes_no_more(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    /// Takes nothing, for this reason; still says what `inner` says.
    struct Closed {
        inner: DuplexStream,
        why: io::ErrorKind,
    }

    impl AsyncRead for Closed {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Closed {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(self.why.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(self.why.into()))
        }
    }

    #[tokio::test]
    async fn halves_close_alone_and_all_bytes_arrive() {
        let (mut left, mut near_left) = duplex(7);
        let (mut right, mut near_right) = duplex(5);
        let copying = tokio::spawn(async move { copy_both(&mut near_left, &mut near_right, 3).await });
        left.write_all(b"ab").await.expect("taken");
        left.shutdown().await.expect("ended");
        let mut said = String::new();
        right.read_to_string(&mut said).await.expect("read to the end");
        assert_eq!(said, "ab");
        right.write_all(b"still here").await.expect("taken");
        drop(right);
        said.clear();
        left.read_to_string(&mut said).await.expect("read to the end");
        assert_eq!(said, "still here");
        copying.await.expect("no panic").expect("both ended");
    }

    /// What the agent gets of an answer when the server takes nothing more for this reason.
    async fn answer_of_a_server_that_fails_with(why: io::ErrorKind) -> String {
        let (mut agent, mut near) = duplex(64);
        let (mut server, inner) = duplex(64);
        let mut far = Closed { inner, why };
        agent.write_all(b"the rest of a body").await.expect("taken");
        let copying = tokio::spawn(async move { copy_both(&mut near, &mut far, 16).await });
        tokio::task::yield_now().await;
        let _ = server.write_all(b"early answer").await;
        drop(server);
        let mut said = String::new();
        agent.read_to_string(&mut said).await.expect("read to the end");
        assert_eq!(copying.await.expect("no panic").expect_err("a direction failed").source.kind(), why);
        said
    }

    #[tokio::test]
    async fn an_end_that_takes_no_more_is_still_heard() {
        let said = answer_of_a_server_that_fails_with(io::ErrorKind::BrokenPipe).await;
        assert_eq!(said, "early answer");
    }

    #[tokio::test]
    async fn any_other_error_ends_both() {
        let said = answer_of_a_server_that_fails_with(io::ErrorKind::QuotaExceeded).await;
        assert_eq!(said, "");
    }
}
