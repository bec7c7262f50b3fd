//! Any bytes on an HTTP/1 connection: the guard decides the same wherever they are split, and what it lets pass has one
//! reading: hyper's requests are those of a reader that knows nothing but lengths and chunks.
//!
//! The first byte is the size of the parts.
#![no_main]

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use narrows::net::guard::{Guard, HEADERS_MAX, REFUSED_HEAD, Violation, waits_for_answer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};

/// Never reached: what comes, comes at once.
const HEAD_WITHIN: Duration = Duration::from_secs(3600);

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Builder::new_current_thread().enable_time().build().unwrap());

/// A peer that says all this in parts, then no more, and reads nothing.
struct Parts<'a> {
    left: &'a [u8],
    part: usize,
}

impl AsyncRead for Parts<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let length = self.part.min(buf.remaining()).min(self.left.len());
        let (part, left) = self.left.split_at(length);
        buf.put_slice(part);
        self.left = left;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Parts<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What the guard releases, why it stopped, and whether inside a body. Every answer stays in HTTP.
fn released(bytes: &[u8], part: usize) -> (Vec<u8>, Option<Violation>, bool) {
    let mut guard = Guard::new(Parts { left: bytes, part }, HEAD_WITHIN);
    let state = guard.state();
    let mut context = Context::from_waker(Waker::noop());
    let (mut out, mut room, mut resumed) = (Vec::new(), vec![0; 8192], false);
    loop {
        let mut buf = ReadBuf::new(&mut room);
        match Pin::new(&mut guard).poll_read(&mut context, &mut buf) {
            Poll::Ready(Ok(())) if buf.filled().is_empty() => return (out, state.violation(), false),
            Poll::Ready(Ok(())) => out.extend_from_slice(buf.filled()),
            Poll::Ready(Err(_)) => return (out, state.violation(), true),
            Poll::Pending if state.violation().is_some() || resumed => return (out, state.violation(), false),
            Poll::Pending => {
                state.resume();
                resumed = true;
                continue;
            }
        }
        resumed = false;
    }
}

/// Method, target and whole body of one request.
type Read = (String, String, Vec<u8>);

/// The whole requests that hyper reads behind the guard.
async fn read_by_hyper(bytes: &[u8], part: usize) -> Vec<Read> {
    let guard = Guard::new(Parts { left: bytes, part }, HEAD_WITHIN);
    let state = guard.state();
    let read: Rc<RefCell<Vec<Read>>> = Rc::default();
    let service = service_fn(|request: http::Request<Incoming>| {
        let (state, read) = (state.clone(), read.clone());
        async move {
            let waits = waits_for_answer(&request);
            let (head, body) = request.into_parts();
            if let (Ok(body), None) = (body.collect().await, state.violation()) {
                let body = body.to_bytes().to_vec();
                read.borrow_mut().push((head.method.to_string(), head.uri.to_string(), body));
            }
            if waits {
                state.resume();
            }
            let refused = http::Response::builder().status(403).body(Empty::<&[u8]>::new());
            Ok::<_, Infallible>(refused.unwrap())
        }
    });
    // `Parts` is borrowed, and hyper's server wants nothing that outlives it.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(guard), service).await;
    read.take()
}

/// The whole requests in bytes that the guard released, by lengths and chunks alone.
fn read_simply(mut bytes: &[u8]) -> Vec<Read> {
    let mut found = Vec::new();
    while let Some((read, rest)) = read_one(bytes) {
        found.push(read);
        bytes = rest;
    }
    found
}

fn read_one(bytes: &[u8]) -> Option<(Read, &[u8])> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(bytes).ok()? else { return None };
    let named = |name: &str| head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
    let rest = &bytes[length..];
    let (body, rest) = match (named("transfer-encoding"), named("content-length")) {
        (Some(_), _) => unchunked(rest)?,
        (None, Some(length)) => {
            let length = std::str::from_utf8(length.value).ok()?.parse().ok()?;
            let (body, rest) = rest.split_at_checked(length)?;
            (body.to_vec(), rest)
        }
        (None, None) => (Vec::new(), rest),
    };
    Some(((head.method?.to_owned(), head.path?.to_owned(), body), rest))
}

fn unchunked(mut bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut body = Vec::new();
    loop {
        let (line, rest) = line(bytes)?;
        let digits = line.split(|&byte| byte == b';').next()?;
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        if size == 0 {
            bytes = rest;
            break;
        }
        let (chunk, rest) = rest.split_at_checked(size)?;
        body.extend_from_slice(chunk);
        bytes = rest.strip_prefix(b"\r\n")?;
    }
    loop {
        let (trailer, rest) = line(bytes)?;
        bytes = rest;
        if trailer.is_empty() {
            return Some((body, bytes));
        }
    }
}

fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&bytes[..end], &bytes[end + 2..]))
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&part, bytes)) = bytes.split_first() else { return };
    let part = usize::from(part).max(1);
    RUNTIME.block_on(async {
        let (whole, violation, in_body) = released(bytes, usize::MAX);
        let (split, split_violation, split_in_body) = released(bytes, part);
        assert_eq!(violation, split_violation, "parts of {part}");
        // Of a broken body, what came before the break may have been passed on, its head included.
        if split_in_body {
            let passed = whole.strip_suffix(REFUSED_HEAD).unwrap_or(&whole);
            assert!(split.starts_with(passed), "parts of {part}");
        } else {
            assert_eq!((&whole, in_body), (&split, split_in_body), "parts of {part}");
        }
        let (by_hyper, at_once) = (read_by_hyper(bytes, part).await, read_by_hyper(bytes, usize::MAX).await);
        if violation.is_none() {
            assert_eq!(at_once, by_hyper, "parts of {part}");
        } else {
            // hyper looks ahead, so that what is wrong with one message may end the one before it as well.
            assert!(at_once.starts_with(&by_hyper) || by_hyper.starts_with(&at_once), "parts of {part}");
        }
        let mut simply = read_simply(&split);
        if violation.is_some() && !split_in_body {
            assert!(simply.pop().is_some_and(|(method, target, _)| (&*method, &*target) == ("GET", "/")), "the stand-in");
        }
        // hyper may stop earlier than it must: at a request's target that is none, or when it was told to close.
        assert!(simply.starts_with(&by_hyper), "hyper read {by_hyper:?}, there are {simply:?}");
    });
});
