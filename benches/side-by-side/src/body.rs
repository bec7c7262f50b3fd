//! Bodies that cost their maker next to nothing.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::measure::monotonic_ns;

/// One frame of [`Repeated`].
static CHUNK: [u8; 64 * 1024] = [b'x'; 64 * 1024];

/// What requests and answers carry here.
pub(crate) type AnyBody = UnsyncBoxBody<Bytes, Infallible>;

pub(crate) fn empty() -> AnyBody {
    Empty::new().boxed_unsync()
}

pub(crate) fn full(text: impl Into<Bytes>) -> AnyBody {
    Full::new(text.into()).boxed_unsync()
}

/// This many bytes.
pub(crate) fn repeated(bytes: u64) -> AnyBody {
    Repeated { left: bytes }.boxed_unsync()
}

/// Events with the moment of their making, `interval` apart.
pub(crate) fn ticks(count: u64, apart: Duration) -> AnyBody {
    let mut interval = interval(apart);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Ticks { left: count, interval }.boxed_unsync()
}

struct Repeated {
    left: u64,
}

impl Body for Repeated {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let now = self.left.min(CHUNK.len() as u64);
        self.left -= now;
        let chunk = Bytes::from_static(&CHUNK[..now as usize]);
        Poll::Ready((now > 0).then(|| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

struct Ticks {
    left: u64,
    interval: Interval,
}

impl Body for Ticks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        ready!(self.interval.poll_tick(cx));
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(format!("data: {}\n\n", monotonic_ns()).into()))))
    }
}
