//! The frames of a WebSocket on their way to the client (RFC 6455 §5), scrubbed.
//!
//! A message's secret is found across its fragments; lengths stay, so heads stay true. What ends a message is never
//! held. Compressed frames (RSV bits, which only an extension may set) end the connection: none was agreed on.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arc_swap::ArcSwap;
use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::credential::{Patterns, Scrubber, Turn};
use crate::net::pace::Pace;

/// RFC 6455 §5.5.
const CONTROL_BYTES_MAX: u64 = 125;
/// Two bytes, and eight of length.
const HEAD_BYTES_MAX: usize = 10;
/// Heads and control frames that may come while the end of a fragment is held, in bytes: five hundred pings.
const BETWEEN_BYTES_MAX: usize = 64 * 1024;
/// What it takes to read a head or a part of a frame besides its bytes, in steps of a [`Turn`].
const STEP_STEPS: u64 = 16;
/// What is read at once.
const READ_BYTES: usize = 16 * 1024;

/// What is no frame that a server may send, or one that cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the upstream's WebSocket frames cannot be scanned")]
pub(super) struct BadFrame;

/// Scrubs frames as they pass.
pub(super) struct Frames {
    patterns: Arc<Patterns>,
    scrubber: Scrubber,
    /// What came and was not looked at.
    input: Bytes,
    /// The head of the next frame, as much of it as is there.
    head: BytesMut,
    place: Place,
    /// Bytes that came between parts of the text while some of it was held.
    between: usize,
    out: VecDeque<Bytes>,
}

enum Place {
    Head,
    /// So many bytes of a data frame are left.
    Data {
        left: u64,
        last: bool,
    },
    /// A control frame, collected whole with its head.
    Control {
        frame: BytesMut,
        left: u64,
    },
}

impl Frames {
    pub(super) fn new(patterns: Arc<Patterns>) -> Self {
        let scrubber = Scrubber::new(Arc::clone(&patterns));
        Self {
            patterns,
            scrubber,
            input: Bytes::new(),
            head: BytesMut::new(),
            place: Place::Head,
            between: 0,
            out: VecDeque::new(),
        }
    }

    /// Takes what the upstream sent, however it is split; only when [`Self::read`] has read all before.
    pub(super) fn push(&mut self, bytes: Bytes) {
        self.input = bytes;
    }

    /// Reads on, as far as one turn goes. True when all is read.
    pub(super) fn read(&mut self, turn: &mut Turn) -> Result<bool, BadFrame> {
        let mut bytes = std::mem::take(&mut self.input);
        while !bytes.is_empty() && !turn.is_over() {
            turn.take(STEP_STEPS);
            match &mut self.place {
                Place::Head => self.read_head(&mut bytes)?,
                Place::Data { left, last } => {
                    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    let mut part = bytes.slice(..length);
                    let first = self.scrubber.push_some(&mut part, false, turn);
                    let taken = length - part.len();
                    bytes.advance(taken);
                    *left -= taken as u64;
                    let (ended, last) = (*left == 0, *last);
                    self.collect(first);
                    if self.scrubber.is_overrun() {
                        return Err(BadFrame);
                    }
                    if ended {
                        self.end_frame(last);
                    }
                }
                Place::Control { frame, left } => {
                    frame.extend_from_slice(&take(&mut bytes, left));
                    if *left == 0 {
                        let frame = std::mem::take(frame).freeze();
                        turn.take(frame.len() as u64);
                        self.control(frame)?;
                    }
                }
            }
        }
        self.input = bytes;
        Ok(self.input.is_empty())
    }

    /// Goes on with the secrets of another moment, a message as soon as nothing of it is held.
    pub(super) fn renew(&mut self, patterns: &Arc<Patterns>) {
        self.scrubber.renew(patterns);
        if !Arc::ptr_eq(&self.patterns, patterns) {
            self.patterns = Arc::clone(patterns);
        }
    }

    /// What is ready to be sent.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        self.out.pop_front()
    }

    /// Whether something is.
    fn has_ready(&self) -> bool {
        !self.out.is_empty()
    }

    /// The upstream has ended, within a message or not.
    pub(super) fn finish(&mut self) {
        let first = self.scrubber.finish();
        self.collect(first);
        if let Place::Control { frame, .. } = std::mem::replace(&mut self.place, Place::Head) {
            // The end is said all the same.
            let _ = self.control(frame.freeze());
        }
    }

    fn collect(&mut self, first: Option<Bytes>) {
        self.out.extend(std::iter::successors(first, |_| self.scrubber.ready()));
    }

    fn read_head(&mut self, bytes: &mut Bytes) -> Result<(), BadFrame> {
        let wanted = match self.head.get(1).map(|second| second & 0x7f) {
            Some(126) => 4,
            Some(127) => HEAD_BYTES_MAX,
            Some(_) | None => 2,
        };
        let missing = bytes.split_to(bytes.len().min(wanted - self.head.len()));
        self.head.extend_from_slice(&missing);
        let &[first, second, ref length @ ..] = &*self.head else { return Ok(()) };
        // RSV bits belong to extensions; only clients mask (§5.1).
        if first & 0x70 != 0 || second & 0x80 != 0 {
            return Err(BadFrame);
        }
        let left = match (second & 0x7f, length) {
            (126, &[a, b]) => u64::from(u16::from_be_bytes([a, b])),
            (127, length) if length.len() == 8 => length.iter().fold(0, |length, &byte| length << 8 | u64::from(byte)),
            (126 | 127, _) => return Ok(()),
            (length, _) => u64::from(length),
        };
        let (last, opcode) = (first & 0x80 != 0, first & 0x0f);
        let head = std::mem::take(&mut self.head);
        if opcode >= 8 {
            if left > CONTROL_BYTES_MAX || !last {
                return Err(BadFrame);
            }
            if left == 0 {
                self.control(head.freeze())?;
            } else {
                self.place = Place::Control { frame: head, left };
            }
            return Ok(());
        }
        self.between(head.freeze())?;
        self.place = Place::Data { left, last };
        if left == 0 {
            self.end_frame(last);
        }
        Ok(())
    }

    fn end_frame(&mut self, last: bool) {
        self.place = Place::Head;
        if last {
            let first = self.scrubber.finish();
            self.collect(first);
        }
    }

    /// A control frame may stand between the fragments of a message; it is a text of its own.
    fn control(&mut self, frame: Bytes) -> Result<(), BadFrame> {
        self.place = Place::Head;
        let clean = self.patterns.scrub(frame.get(2..).unwrap_or_default());
        let frame = match clean {
            Some(payload) => [frame.get(..2).unwrap_or_default(), &payload].concat().into(),
            None => frame,
        };
        self.between(frame)
    }

    /// What is no part of the text waits for what is held of it, within bounds.
    fn between(&mut self, bytes: Bytes) -> Result<(), BadFrame> {
        let length = bytes.len();
        let first = self.scrubber.push_between(bytes);
        self.collect(first);
        self.between = if self.scrubber.is_idle() { 0 } else { self.between + length };
        if self.between > BETWEEN_BYTES_MAX { Err(BadFrame) } else { Ok(()) }
    }
}

/// As many bytes as are left of a frame, and there.
fn take(bytes: &mut Bytes, left: &mut u64) -> Bytes {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
    *left -= length as u64;
    bytes.split_to(length)
}

/// The upstream's end of a WebSocket; what is read from it was scrubbed, where there is something to scrub.
pub(super) struct Scrubbed<T> {
    inner: T,
    frames: Option<Frames>,
    /// Of this moment.
    patterns: Option<Arc<ArcSwap<Patterns>>>,
    turn: Turn,
    pace: Pace,
    unread: Bytes,
    ended: bool,
}

impl<T> Scrubbed<T> {
    /// What must not come back may change on the way.
    pub(super) fn new(inner: T, patterns: Option<Arc<ArcSwap<Patterns>>>) -> Self {
        let frames = patterns.as_ref().map(|patterns| Frames::new(patterns.load_full()));
        Self { inner, frames, patterns, turn: Turn::new(), pace: Pace::default(), unread: Bytes::new(), ended: false }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Scrubbed<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some((frames, patterns)) = this.frames.as_mut().zip(this.patterns.as_ref()) else {
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        };
        loop {
            if this.unread.is_empty() {
                this.unread = frames.next().unwrap_or_default();
            }
            if !this.unread.is_empty() {
                let part = this.unread.split_to(this.unread.len().min(buf.remaining()));
                buf.put_slice(&part);
                return Poll::Ready(Ok(()));
            }
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            if this.turn.is_over() {
                // Others have a turn.
                this.turn = Turn::new();
                this.pace.end();
            }
            ready!(this.pace.poll_turn(cx));
            let bad = |bad| io::Error::new(io::ErrorKind::InvalidData, bad);
            if !frames.read(&mut this.turn).map_err(bad)? || frames.has_ready() {
                continue;
            }
            let mut read = vec![0; READ_BYTES];
            let mut read_buf = ReadBuf::new(&mut read);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut read_buf))?;
            let length = read_buf.filled().len();
            frames.renew(&patterns.load());
            if length == 0 {
                this.ended = true;
                frames.finish();
            } else {
                read.truncate(length);
                frames.push(read.into());
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Scrubbed<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
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
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::Secret;

    const SECRET: &[u8] = b"sk-real-0123456789";

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let length = payload.len();
        let head = match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short @ ..=125), _) => vec![first, short],
            (_, Ok(medium)) => [&[first, 126][..], &medium.to_be_bytes()].concat(),
            _ => [&[first, 127][..], &(length as u64).to_be_bytes()].concat(),
        };
        [&head, payload].concat()
    }

    fn passed(bytes: &[u8], part: usize) -> Result<Vec<u8>, BadFrame> {
        let secret = Secret::new(SECRET.to_vec()).expect("a secret");
        let mut frames = Frames::new(Arc::new(Patterns::new(&[&secret], None, None).expect("a secret")));
        let mut out = Vec::new();
        for part in bytes.chunks(part) {
            frames.push(Bytes::copy_from_slice(part));
            while !frames.read(&mut Turn::new())? {}
            std::iter::from_fn(|| frames.next()).for_each(|bytes| out.extend_from_slice(&bytes));
        }
        frames.finish();
        std::iter::from_fn(|| frames.next()).for_each(|bytes| out.extend_from_slice(&bytes));
        Ok(out)
    }

    #[test]
    fn a_secret_is_found_across_fragments_and_control_frames_are_texts_of_their_own() {
        let long = [&*vec![b'.'; 70_000], SECRET].concat();
        let masked = [&*vec![b'.'; 70_000], &[b'*'; 18]].concat();
        let (half, rest) = SECRET.split_at(9);
        let sent = [
            frame(0x81, SECRET),
            frame(0x01, half),
            frame(0x89, SECRET),
            frame(0x8a, b""),
            frame(0x00, &rest[..1]),
            frame(0x80, &rest[1..]),
            frame(0x82, &long),
            frame(0x81, half),
            frame(0x81, rest),
            frame(0x88, b"\x03\xe8bye"),
        ];
        let clean = [
            frame(0x81, &[b'*'; 18]),
            frame(0x01, &[b'*'; 9]),
            frame(0x89, &[b'*'; 18]),
            frame(0x8a, b""),
            frame(0x00, b"*"),
            frame(0x80, &[b'*'; 8]),
            frame(0x82, &masked),
            frame(0x81, half),
            frame(0x81, rest),
            frame(0x88, b"\x03\xe8bye"),
        ];
        let sent = sent.concat();
        for part in [1, 2, 3, 17, 1000, sent.len()] {
            assert!(passed(&sent, part) == Ok(clean.concat()), "in parts of {part}");
        }
    }

    #[test]
    fn a_turn_ends_in_the_middle_of_a_frame() {
        let sent = frame(0x82, &vec![b'.'; 300_000]);
        let secret = Secret::new(SECRET.to_vec()).expect("a secret");
        let mut frames = Frames::new(Arc::new(Patterns::new(&[&secret], None, None).expect("a secret")));
        frames.push(Bytes::from(sent.clone()));
        let (mut out, mut turns) = (Vec::new(), 1);
        while !frames.read(&mut Turn::new()).expect("frames") {
            turns += 1;
        }
        std::iter::from_fn(|| frames.next()).for_each(|bytes| out.extend_from_slice(&bytes));
        assert!(out == sent && turns > 4, "{turns}");
    }

    #[test]
    fn what_waits_for_a_fragment_is_bounded() {
        for (held, allowed) in [(&SECRET[..4], false), (&b"sk\n"[..], true)] {
            let begun = frame(0x01, held);
            let empty = frame(0x00, b"").repeat(BETWEEN_BYTES_MAX);
            let pings = frame(0x89, &[0; 125]).repeat(BETWEEN_BYTES_MAX / 125);
            for flood in [empty, pings] {
                let sent = [&*begun, &flood].concat();
                assert!(passed(&sent, 1000) == if allowed { Ok(sent) } else { Err(BadFrame) });
            }
        }
    }

    #[test]
    fn what_cannot_be_read_ends_it() {
        for bytes in [frame(0xc1, b"x"), frame(0x89, &[0; 126]), frame(0x09, b"x"), vec![0x81, 0x81, 0, 0, 0, 0, 1]] {
            assert_eq!(passed(&bytes, 1), Err(BadFrame), "{:?}", &bytes[..2]);
        }
        assert_eq!(passed(&frame(0x81, b"x"), 1), Ok(frame(0x81, b"x")));
    }
}
