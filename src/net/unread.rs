//! The client's connection as others need it to be: a client that takes nothing of what waits for it is cut off after a
//! while, for it holds an upstream, and room for what it does not read; and one that sends a lot leaves others a turn.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::pace::Paced;

/// Fails a write that `inner` cannot take for as long as `patience`, and reads by turns.
#[derive(Debug)]
pub struct Unread<T> {
    inner: Paced<T>,
    patience: Duration,
    /// Since when nothing was taken; none while writes are.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<T: AsyncRead> Unread<T> {
    /// Watches the writes to `inner`.
    pub fn new(inner: T, patience: Duration) -> Self {
        Self { inner: Paced::new(inner), patience, waiting: None }
    }
}

impl<T> Unread<T> {
    fn watch<R>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let patience = self.patience;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        waiting.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Unread<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Unread<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.watch(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const PATIENCE: Duration = Duration::from_mins(5);

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stops_fails_the_write_and_a_slow_one_does_not() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let mut ours = Unread::new(ours, PATIENCE);
        let slow = async {
            let mut bytes = [0; 8];
            for _ in 0..8 {
                tokio::time::sleep(PATIENCE.saturating_sub(Duration::from_secs(1))).await;
                theirs.read_exact(&mut bytes).await.expect("bytes");
            }
            theirs
        };
        let (written, _open) = tokio::join!(ours.write_all(&[7; 64]), slow);
        written.expect("slow is not stopped");
        let failed = ours.write_all(&[7; 64]).await.expect_err("nobody reads");
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
    }
}
