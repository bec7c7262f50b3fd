//! The guard's other side: what an upstream says on an HTTP/1.1 connection, in front of hyper's client.
//!
//! hyper takes a bare line feed for the end of a line, empty lines in front of a head and white space behind a chunk's size.
//! Another reader of the same bytes may not, so whoever says them has more than one reading (RFC 9112 §2.2, §7.1). Bytes
//! are looked at as they pass; at the first that has no place the connection fails, before hyper has the end of a head. A
//! message that hyper alone can frame, and whose connection is not used again, passes unread behind its head.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use http::Method;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Violation;
use super::chunk::ChunkScan;
use super::head;

/// A head of an answer is at most this many bytes: a header list of 64 KiB, and a status line.
const ANSWER_HEAD_BYTES_MAX: usize = 65 * 1024;
/// What every head of HTTP/1 begins with.
const VERSION: &[u8] = b"HTTP/1.";

/// Values of [`Asked`]; 0 is "nothing since".
const SOMETHING: u8 = 1;
const FOR_A_HEAD: u8 = 2;

/// What the sender of requests tells the guard on their answers.
#[derive(Debug, Default)]
pub struct Asked(AtomicU8);

impl Asked {
    /// Says that a request with this method is about to be sent.
    pub fn ask(&self, method: &Method) {
        self.0.store(if *method == Method::HEAD { FOR_A_HEAD } else { SOMETHING }, Ordering::Release);
    }

    /// Whether it is `HEAD`; `None` where there is no new one.
    fn take(&self) -> Option<bool> {
        if self.0.load(Ordering::Acquire) == 0 {
            return None;
        }
        Some(self.0.swap(0, Ordering::AcqRel) == FOR_A_HEAD)
    }
}

#[derive(Debug)]
enum Expecting {
    /// No request is under way: nothing.
    Nothing,
    /// The answer to a `HEAD` has no content.
    Head {
        to_head: bool,
    },
    Body(u64),
    Chunked(ChunkScan),
    /// What ends with the connection.
    Anything,
    /// After a violation: no more.
    End(Violation),
}

/// Reads answers from `T`, and fails where they break HTTP/1.
#[derive(Debug)]
pub struct AnswerGuard<T> {
    inner: T,
    asked: Arc<Asked>,
    expecting: Expecting,
    /// A copy of what has come of a head that did not come at once.
    begun: BytesMut,
}

impl<T> AnswerGuard<T> {
    /// Guards a connection on which nothing was asked yet.
    pub fn new(inner: T) -> Self {
        Self { inner, asked: Arc::default(), expecting: Expecting::Nothing, begun: BytesMut::new() }
    }

    /// To be told of each request.
    pub fn asked(&self) -> Arc<Asked> {
        Arc::clone(&self.asked)
    }

    /// Something is written: the answer to a new request may come from now on.
    fn writes(&mut self) {
        if let Some(to_head) = self.asked.take() {
            self.expecting = match self.expecting {
                Expecting::Nothing => Expecting::Head { to_head },
                // The answer before has not ended as this guard reads it.
                _ => Expecting::End(Violation::Framing),
            };
        }
    }

    /// Finds how many of `bytes` may be passed on. With a violation, those are what ended before the message that has it.
    fn advance(&mut self, bytes: &[u8]) -> usize {
        let (mut good, mut whole) = (0, 0);
        while let Some(rest) = bytes.get(good..).filter(|rest| !rest.is_empty()) {
            match self.step(rest) {
                Ok(length) => good += length,
                Err(violation) => {
                    self.expecting = Expecting::End(violation);
                    return whole;
                }
            }
            if let Expecting::Nothing | Expecting::Head { .. } = self.expecting {
                whole = good;
            }
        }
        good
    }

    fn step(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        match &mut self.expecting {
            Expecting::Nothing => Err(Violation::Framing),
            Expecting::Head { to_head } => {
                let to_head = *to_head;
                self.head(bytes, to_head)
            }
            Expecting::Body(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= length as u64;
                if *left == 0 {
                    self.expecting = Expecting::Nothing;
                }
                Ok(length)
            }
            Expecting::Chunked(scan) => {
                let (length, ended) = scan.advance(bytes)?;
                if ended {
                    self.expecting = Expecting::Nothing;
                }
                Ok(length)
            }
            Expecting::Anything => Ok(bytes.len()),
            Expecting::End(violation) => Err(*violation),
        }
    }

    fn head(&mut self, bytes: &[u8], to_head: bool) -> Result<usize, Violation> {
        let before = self.begun.len();
        if before > 0 {
            self.begun.extend_from_slice(bytes);
        }
        let all = if before > 0 { &self.begun[..] } else { bytes };
        if !all.iter().zip(VERSION).all(|(byte, wanted)| byte == wanted) {
            return Err(Violation::Framing);
        }
        let Some(length) = head::end(all, before, ANSWER_HEAD_BYTES_MAX)? else {
            if before == 0 {
                self.begun.extend_from_slice(bytes);
            }
            return Ok(bytes.len());
        };
        self.expecting = behind(all.get(..length).unwrap_or_default(), to_head);
        self.begun = BytesMut::new();
        Ok(length.saturating_sub(before))
    }
}

/// What comes behind this head (RFC 9112 §6.3).
fn behind(head: &[u8], to_head: bool) -> Expecting {
    let status = head.get(VERSION.len() + 2..VERSION.len() + 5);
    match status {
        Some(b"101") => Expecting::Anything,
        Some([b'1', ..]) => Expecting::Head { to_head },
        Some(b"204" | b"304") => Expecting::Nothing,
        _ if to_head => Expecting::Nothing,
        _ => content(head),
    }
}

/// The content that a head announces once and plainly, else whatever hyper makes of it.
fn content(head: &[u8]) -> Expecting {
    let (mut announced, mut framing) = (0, Expecting::Anything);
    let mut from = 0;
    for to in memchr::memchr_iter(b'\n', head) {
        let line = head.get(from..to).unwrap_or_default();
        from = to + 1;
        if let Some(length) = value(line, b"content-length") {
            announced += 1;
            framing = match head::content_length(length) {
                Ok(0) => Expecting::Nothing,
                Ok(length) => Expecting::Body(length),
                Err(_) => Expecting::Anything,
            };
        } else if let Some(coding) = value(line, b"transfer-encoding") {
            announced += 1;
            let is_chunked = coding.eq_ignore_ascii_case(b"chunked");
            framing = if is_chunked { Expecting::Chunked(ChunkScan::default()) } else { Expecting::Anything };
        }
    }
    if announced == 1 { framing } else { Expecting::Anything }
}

/// The value of a line's field, where that is its name.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, value) = line.split_at_checked(name.len())?;
    let value = value.strip_prefix(b":")?;
    found.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

impl<T: AsyncRead + Unpin> AsyncRead for AnswerGuard<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let guard = self.get_mut();
        let start = buf.filled().len();
        if !matches!(guard.expecting, Expecting::End(_)) {
            ready!(Pin::new(&mut guard.inner).poll_read(cx, buf))?;
            let good = guard.advance(buf.filled().get(start..).unwrap_or_default());
            buf.set_filled(start + good);
        }
        match guard.expecting {
            Expecting::End(violation) if buf.filled().len() == start => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation)))
            }
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for AnswerGuard<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.writes();
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
        self.writes();
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const PIECES: [usize; 4] = [1, 2, 7, 1 << 20];

    /// What is passed on of an upstream's bytes that come in pieces, and whether they fail.
    async fn passed(method: &Method, said: &[u8], piece: usize) -> (Vec<u8>, bool) {
        // Many small pieces would use up what tokio lets a task do at once, and a read that could be done would wait.
        tokio::task::unconstrained(passed_at_once(method, said, piece)).await
    }

    async fn passed_at_once(method: &Method, said: &[u8], piece: usize) -> (Vec<u8>, bool) {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut guard = AnswerGuard::new(near);
        guard.asked().ask(method);
        guard.write_all(b"a request").await.expect("taken");
        let mut out = Vec::new();
        for part in said.chunks(piece) {
            far.write_all(part).await.expect("taken");
            // More than one read where a part was cut.
            loop {
                let mut buf = vec![0; 128 * 1024];
                match futures_util::poll!(Box::pin(guard.read(&mut buf))) {
                    Poll::Ready(Ok(length)) => out.extend_from_slice(&buf[..length]),
                    Poll::Ready(Err(_)) => return (out, true),
                    Poll::Pending => break,
                }
            }
        }
        (out, false)
    }

    #[tokio::test]
    async fn answers_with_one_reading_pass_byte_for_byte() {
        let good = [
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n",
            "HTTP/1.1 200 \r\nTransfer-Encoding: Chunked\r\n\r\n2;x\r\nok\r\n0\r\nX: y\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 \r\nLink: a\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\nup to\nthe close",
            "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n\n\r\0any",
            // hyper frames these, and their connection is not used again.
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok any",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\nok\r\n0\r\n\r\n",
        ];
        for said in good {
            for piece in PIECES {
                let (out, failed) = passed(&Method::GET, said.as_bytes(), piece).await;
                assert_eq!((String::from_utf8_lossy(&out).as_ref(), failed), (said, false), "in {piece}");
            }
        }
    }

    #[tokio::test]
    async fn what_only_lax_readers_take_fails_before_its_head_ends() {
        let bad = [
            "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\n\r\nok",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok",
            "HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
            "\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/2.0 200 OK\r\n\r\n",
            "<html>",
        ];
        for said in bad {
            for piece in PIECES {
                let (out, failed) = passed(&Method::GET, said.as_bytes(), piece).await;
                assert!(failed && !out.ends_with(b"ok") && out.len() < said.len(), "{said:?} in {piece}");
                assert!(!out.ends_with(b"\n\r\n") && !out.ends_with(b"\n\n"), "{said:?} in {piece}");
            }
        }
    }

    #[tokio::test]
    async fn a_broken_chunk_fails_and_takes_a_head_that_came_with_it_along() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        for body in ["2 \r\nok\r\n0\r\n\r\n", "2\nok\r\n", "2\r\nok\n", "zz\r\n", "2\r\nok\r\n0\r\nX: y\n\r\n"] {
            for piece in PIECES {
                let (out, failed) = passed(&Method::GET, format!("{head}{body}").as_bytes(), piece).await;
                assert!(failed && out.is_empty() == (piece > head.len()), "{body:?} in {piece}");
            }
        }
    }

    #[tokio::test]
    async fn what_follows_an_answer_is_cut_off_and_fails() {
        let one = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let no_content = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
        for (method, answer) in [(Method::GET, one), (Method::HEAD, no_content)] {
            for piece in PIECES {
                let (out, failed) = passed(&method, format!("{answer}{one}").as_bytes(), piece).await;
                assert_eq!((out.as_slice(), failed), (answer.as_bytes(), true), "in {piece}");
            }
        }
    }

    /// What answers are made of, and what breaks them.
    const PIECES_OF_ANSWERS: [&str; 14] = [
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 103 Early Hints\r\n",
        "HTTP/1.1 204 No Content\r\n",
        "Content-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "X: y\r\n",
        "\r\n",
        "abc",
        "3\r\nabc\r\n",
        "3 \r\nabc\r\n",
        "0\r\n\r\n",
        "1;x=y\r\n",
        "\n",
        "\r",
    ];

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(256))]
        /// Wherever the bytes are split, the same fail; of what fails, a split lets through at most more of one message.
        #[test]
        fn a_verdict_does_not_depend_on_splits(
            pieces in proptest::collection::vec(proptest::sample::select(&PIECES_OF_ANSWERS), 1..10),
            piece in 1_usize..40,
            to_head in proptest::bool::ANY,
        ) {
            let (said, method) = (pieces.concat(), if to_head { Method::HEAD } else { Method::GET });
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let (whole, failed) = runtime.block_on(passed(&method, said.as_bytes(), usize::MAX));
            let (split, split_failed) = runtime.block_on(passed(&method, said.as_bytes(), piece));
            proptest::prop_assert_eq!(failed, split_failed);
            let same = if failed { split.starts_with(&whole) } else { split == whole };
            proptest::prop_assert!(same);
        }
    }

    #[tokio::test]
    async fn a_connection_serves_one_request_after_the_other_and_says_nothing_between() {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let mut guard = AnswerGuard::new(near);
        let asked = guard.asked();
        let mut buf = [0; 128];
        for method in [Method::GET, Method::HEAD, Method::POST] {
            let content = if method == Method::HEAD { "" } else { "ok" };
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{content}");
            asked.ask(&method);
            guard.write_all(b"a request").await.expect("taken");
            far.write_all(answer.as_bytes()).await.expect("taken");
            let length = guard.read(&mut buf).await.expect("an answer");
            assert_eq!(&buf[..length], answer.as_bytes());
        }
        // What comes before a request is written answers nothing.
        far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.expect("taken");
        asked.ask(&Method::GET);
        assert!(guard.read(&mut buf).await.is_err());
    }

    #[tokio::test]
    async fn a_head_has_a_bound_to_the_byte() {
        let frame = "HTTP/1.1 200 OK\r\nX: \r\n\r\n".len();
        for (bytes, fits) in [(ANSWER_HEAD_BYTES_MAX, true), (ANSWER_HEAD_BYTES_MAX + 1, false)] {
            let head = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(bytes - frame));
            for piece in [1000, 1 << 20] {
                let (out, failed) = passed(&Method::GET, head.as_bytes(), piece).await;
                assert_eq!((out.len() == head.len(), failed), (fits, !fits), "{bytes} in {piece}");
            }
        }
    }
}
