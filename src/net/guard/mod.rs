//! A guard on the raw bytes of an HTTP/1 connection, in front of hyper.
//!
//! hyper accepts some heads that another reader frames differently (`Content-Length` beside
//! `Transfer-Encoding`, `cow, chunked`, equal duplicates, bare line feeds) and does not tell its
//! service. The guard releases bytes only after it has found the one framing they have (RFC 9112 §6);
//! a message that has none is withheld and [`REFUSED_HEAD`] is released instead, with the reason and what was read in
//! [`GuardState`], so that the refusal takes the same way as every other answer. Only a body of which the head was
//! released before ends with an error.
//!
//! It also stops after a head that asks to leave HTTP (CONNECT, `Upgrade`): what follows is released
//! only when the answer stayed in HTTP ([`GuardState::resume`]), and never parsed as a request before.

mod answer;
mod chunk;
mod head;
mod refused;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use http::header::UPGRADE;
use http::{Method, Request, Version};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};
use tokio::time::Sleep;

use chunk::ChunkScan;
use head::Framing;

pub use answer::{AnswerGuard, Asked};
pub use head::{HEAD_BYTES_MAX, HEADERS_MAX};
pub use refused::{ReadHead, Refused};

/// What hyper reads in place of a message that was refused. Its answer closes the connection.
pub const REFUSED_HEAD: &[u8] = b"GET / HTTP/1.1\r\nhost: refused.invalid\r\nconnection: close\r\n\r\n";

/// Why bytes were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The message has no framing, or more than one reading (RFC 9112 §6.3, §2.2, §5).
    #[error("the message's framing is ambiguous")]
    Framing,
    /// The head is longer than its bound ([`HEAD_BYTES_MAX`], less in a tunnel) or has more fields than [`HEADERS_MAX`].
    #[error("the message's head is too large")]
    HeadTooLarge,
}

/// Whether the guard releases nothing after this request's head until it is told of the answer: true for a CONNECT, and
/// for an `Upgrade` without a body. Said of another request, the answer would be taken for that of the next.
pub fn waits_for_answer<B: Body>(request: &Request<B>) -> bool {
    let upgrade = request.headers().contains_key(UPGRADE) && request.body().is_end_stream();
    request.version() <= Version::HTTP_11 && (*request.method() == Method::CONNECT || upgrade)
}

/// Values of [`GuardState::answered`]; 0 is "not yet".
const STAYS_IN_HTTP: u8 = 1;
const LEAVES_HTTP: u8 = 2;

/// What the guard of a connection and the service on it tell each other.
#[derive(Debug, Default)]
pub struct GuardState {
    /// Set at most once: nothing is released after it but the stand-in.
    refused: OnceLock<Box<Refused>>,
    answered: AtomicU8,
    waker: AtomicWaker,
}

impl GuardState {
    /// What was refused: the message that a stand-in is read in place of, or the body under way. The service asks when it
    /// is called: while it works, hyper may read on.
    #[must_use]
    pub fn refused(&self) -> Option<&Refused> {
        self.refused.get().map(|refused| &**refused)
    }

    /// Why, alone.
    #[must_use]
    pub fn violation(&self) -> Option<Violation> {
        self.refused().map(|refused| refused.violation)
    }

    /// Says that the answer to a request that [`waits_for_answer`] stays in HTTP: the next bytes are a head again.
    pub fn resume(&self) {
        self.answer(STAYS_IN_HTTP);
    }

    /// Says that the answer left HTTP: all that follows passes unread.
    pub fn leave(&self) {
        self.answer(LEAVES_HTTP);
    }

    fn answer(&self, answer: u8) {
        self.answered.store(answer, Ordering::Release);
        self.waker.wake();
    }
}

/// After an answer that came before its request had ended, the rest of the request is read and dropped for at most
/// this long, so that the peer reads the answer and not a reset (RFC 9112 §9.6).
const LINGER_FOR: Duration = Duration::from_secs(2);

/// The end of a connection.
#[derive(Debug)]
enum Closing {
    /// Not yet.
    No,
    /// The write half is closed; the peer may read what it was sent.
    Lingering(Pin<Box<Sleep>>),
    Done,
}

#[derive(Debug)]
enum Expecting {
    Head,
    Body(u64),
    Chunked(ChunkScan),
    /// After CONNECT or `Upgrade`: nothing, until the service says what the answer was.
    Answer,
    /// After an upgrade: anything.
    Anything,
    /// After a refusal: nothing, for good.
    End,
}

/// What is wrong, and where.
enum Fault {
    /// In a message of which nothing was released.
    Message(Box<Refused>),
    /// In a body whose head was.
    Body(Violation),
}

impl Fault {
    fn unread(violation: Violation) -> Self {
        Self::Message(Box::new(Refused { violation, read: None }))
    }

    fn message(violation: Violation, head: &[u8]) -> Self {
        Self::Message(Box::new(Refused { violation, read: ReadHead::of(head) }))
    }
}

/// Reads from `T`, releasing only what has one framing. Writes pass unchanged.
#[derive(Debug)]
pub struct Guard<T> {
    inner: Take<T>,
    /// Read, and not yet found good.
    held: BytesMut,
    /// How much of `held` is known to hold no end of a head.
    searched: usize,
    /// Found good, and not yet handed over.
    good: Bytes,
    expecting: Expecting,
    /// From the first byte of a head to its last.
    head_within: Duration,
    head_bytes_max: usize,
    /// Set while a head is incomplete.
    deadline: Option<Pin<Box<Sleep>>>,
    closing: Closing,
    state: Arc<GuardState>,
}

impl<T: AsyncRead> Guard<T> {
    /// Guards a connection from its first byte. A head that has begun must be whole within `head_within`; hyper's own
    /// timer cannot see that, and bounds how long the connection is idle.
    pub fn new(inner: T, head_within: Duration) -> Self {
        Self {
            inner: inner.take(u64::MAX),
            held: BytesMut::new(),
            searched: 0,
            good: Bytes::new(),
            expecting: Expecting::Head,
            head_within,
            head_bytes_max: HEAD_BYTES_MAX,
            deadline: None,
            closing: Closing::No,
            state: Arc::default(),
        }
    }

    /// The same for a connection inside a tunnel, whose heads are shorter: nobody shows credentials there.
    pub fn in_tunnel(inner: T, head_within: Duration) -> Self {
        Self { head_bytes_max: head::TUNNEL_HEAD_BYTES_MAX, ..Self::new(inner, head_within) }
    }

    /// The state shared with the service on this connection.
    pub fn state(&self) -> Arc<GuardState> {
        Arc::clone(&self.state)
    }

    /// The connection itself, and what was read from it and not handed over: the bytes after a CONNECT.
    pub fn into_parts(self) -> (Bytes, T) {
        let mut left = BytesMut::from(&self.good[..]);
        left.extend_from_slice(&self.held);
        (left.freeze(), self.inner.into_inner())
    }

    /// Finds how many of `bytes` may be released, up to the end of the message that they are in.
    /// Zero means that a head is still incomplete.
    fn advance(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let mut good = 0;
        // The head of a message that begins in `bytes`: none of it is released yet.
        let mut head = None;
        while let Some(rest) = bytes.get(good..).filter(|rest| !rest.is_empty()) {
            match &mut self.expecting {
                Expecting::Head => {
                    let end = head::end(rest, self.searched, self.head_bytes_max);
                    let Some(length) = end.map_err(Fault::unread)? else {
                        self.searched = rest.len();
                        return Ok(good);
                    };
                    self.searched = 0;
                    let found = rest.get(..length).unwrap_or_default();
                    self.expecting = match head::framing(found).map_err(|why| Fault::message(why, found))? {
                        Framing::None => return Ok(good + length),
                        Framing::Length(length) => Expecting::Body(length),
                        Framing::Chunked => Expecting::Chunked(ChunkScan::default()),
                        Framing::LeavesHttp => Expecting::Answer,
                    };
                    head = Some(found);
                    good += length;
                }
                Expecting::Body(left) => {
                    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= length as u64;
                    good += length;
                    if *left == 0 {
                        self.expecting = Expecting::Head;
                        return Ok(good);
                    }
                }
                Expecting::Chunked(scan) => {
                    let scanned = scan.advance(rest);
                    let (length, ended) =
                        scanned.map_err(|why| head.map_or(Fault::Body(why), |head| Fault::message(why, head)))?;
                    good += length;
                    if ended {
                        self.expecting = Expecting::Head;
                        return Ok(good);
                    }
                }
                Expecting::Anything => return Ok(bytes.len()),
                Expecting::Answer | Expecting::End => return Ok(good),
            }
        }
        Ok(good)
    }

    /// Ends the connection's input: with a stand-in head when nothing was released of this message, with
    /// an error inside a body.
    fn refuse(&mut self, fault: Fault) -> io::Result<()> {
        self.expecting = Expecting::End;
        self.held.clear();
        let (refused, ended) = match fault {
            Fault::Message(refused) => {
                self.good = Bytes::from_static(REFUSED_HEAD);
                (refused, Ok(()))
            }
            Fault::Body(violation) => {
                let ended = Err(io::Error::new(io::ErrorKind::InvalidData, violation));
                (Box::new(Refused { violation, read: None }), ended)
            }
        };
        let _ = self.state.refused.set(refused);
        ended
    }

    fn poll_answered(&self, cx: &Context<'_>) -> Poll<Expecting> {
        self.state.waker.register(cx.waker());
        match self.state.answered.swap(0, Ordering::AcqRel) {
            STAYS_IN_HTTP => Poll::Ready(Expecting::Head),
            LEAVES_HTTP => Poll::Ready(Expecting::Anything),
            _ => Poll::Pending,
        }
    }
}

impl<T: AsyncRead + Unpin> Guard<T> {
    /// True when the peer has more to send of a request that was answered.
    fn is_within_message(&self) -> bool {
        match self.expecting {
            Expecting::Body(_) | Expecting::Chunked(_) | Expecting::End => true,
            Expecting::Head | Expecting::Answer => !self.held.is_empty(),
            Expecting::Anything => false,
        }
    }

    /// Reads and drops, until the peer ends its half or a bound is met.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Closing::Lingering(until) = &mut self.closing {
            let mut bytes = [0; 4096];
            let mut buf = ReadBuf::new(&mut bytes);
            let ended = until.as_mut().poll(cx).is_ready() || {
                let read = ready!(Pin::new(self.inner.get_mut()).poll_read(cx, &mut buf));
                read.is_err() || buf.filled().is_empty()
            };
            if ended {
                self.closing = Closing::Done;
            }
        }
        Poll::Ready(())
    }

    /// Releases from `held`; reads more of a head that is not complete. `Ready(false)` at the end.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let held = std::mem::take(&mut self.held);
        let advanced = self.advance(&held);
        self.held = held;
        match advanced {
            Ok(0) => {
                let within = self.head_within;
                let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(within)));
                if deadline.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                self.inner.set_limit(self.head_bytes_max as u64 + 1);
                let inner = Pin::new(&mut self.inner);
                let read = ready!(tokio_util::io::poll_read_buf(inner, cx, &mut self.held))?;
                Poll::Ready(Ok(read > 0))
            }
            Ok(good) => {
                self.deadline = None;
                self.good = self.held.split_to(good).freeze();
                Poll::Ready(Ok(true))
            }
            Err(fault) => Poll::Ready(self.refuse(fault).map(|()| true)),
        }
    }

    /// The common case: the bytes go straight into the reader's buffer and are looked at there; what
    /// must not be released yet is taken out again.
    fn poll_direct(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let start = buf.filled().len();
        // Within a body of known length nothing past its end is read, so nothing is ever copied.
        self.inner.set_limit(if let Expecting::Body(left) = self.expecting { left } else { u64::MAX });
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let filled = buf.filled().get(start..).unwrap_or_default();
        if filled.is_empty() {
            return Poll::Ready(Ok(true));
        }
        match self.advance(filled) {
            Ok(good) => {
                self.held.extend_from_slice(filled.get(good..).unwrap_or_default());
                buf.set_filled(start + good);
                Poll::Ready(Ok(good > 0))
            }
            Err(fault) => {
                buf.set_filled(start);
                Poll::Ready(self.refuse(fault).map(|()| false))
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guard<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let guard = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if guard.good.has_remaining() {
                let length = guard.good.len().min(buf.remaining());
                buf.put_slice(&guard.good.split_to(length));
                return Poll::Ready(Ok(()));
            }
            match guard.expecting {
                Expecting::End => return Poll::Pending,
                Expecting::Answer => guard.expecting = ready!(guard.poll_answered(cx)),
                _ if guard.held.is_empty() => {
                    if ready!(guard.poll_direct(cx, buf))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                _ => {
                    if !ready!(guard.poll_held(cx))? {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self.inner.get_mut()).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.inner.get_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let guard = self.get_mut();
        if let Closing::No = guard.closing {
            ready!(Pin::new(guard.inner.get_mut()).poll_shutdown(cx))?;
            guard.closing = if guard.is_within_message() {
                Closing::Lingering(Box::pin(tokio::time::sleep(LINGER_FOR)))
            } else {
                Closing::Done
            };
        }
        guard.poll_linger(cx).map(Ok)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.inner.get_mut()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.get_ref().is_write_vectored()
    }
}

#[cfg(test)]
mod tests;
