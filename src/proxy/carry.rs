//! Carrying bytes both ways once HTTP is left behind: WebSockets and plain tunnels. Counted, metered, and
//! re-authorized every second.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Drain;
use super::body::Meter;
use super::exchange::Exchange;
use super::relay::RECHECK_EVERY;
use crate::capability::Reservation;
use crate::credential::Patterns;
use crate::net::duplex::{End, Failed, copy_both};
use crate::policy::Code;

/// Bytes on their way in one direction. Two of these per tunnel.
const BUFFER_BYTES: usize = 16 * 1024;

/// Why bytes are carried no longer though both ends may have more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The client broke off.
    ByClient,
    /// The upstream, policy or we did.
    For(Code),
}

impl From<Code> for Ended {
    fn from(code: Code) -> Self {
        Self::For(code)
    }
}

impl Ended {
    /// Closes the exchange.
    pub(super) fn close(self, exchange: Box<Exchange>, status: StatusCode) {
        match self {
            // Aborted.
            Self::ByClient => drop(exchange),
            Self::For(code) => exchange.cut(code, status),
        }
    }
}

/// Copies both ways until both ends have closed, authority ends, or the drain is over. `patterns` are kept those of the moment.
pub(super) async fn carry<C, U>(
    exchange: &mut Exchange,
    mut client: C,
    upstream: U,
    patterns: Option<Arc<ArcSwap<Patterns>>>,
    drain: &Drain,
) -> Result<(), Ended>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    exchange.carried();
    let meter = Arc::clone(&exchange.meter);
    let mut upstream =
        Metered { inner: upstream, meter: Arc::clone(&meter), reservation: exchange.reservation(), paid: 0 };
    let mut copying = std::pin::pin!(copy_both(&mut client, &mut upstream, BUFFER_BYTES));
    let mut progress = (0, Instant::now());
    loop {
        tokio::select! {
            ended = copying.as_mut() => {
                exchange.see(Instant::now());
                return match ended {
                    Ok(()) => Ok(()),
                    Err(_) if meter.is_exhausted() => Err(Code::BudgetExhausted.into()),
                    Err(Failed { end: End::First, .. }) => Err(Ended::ByClient),
                    Err(Failed { end: End::Second, .. }) => Err(Code::UpstreamProtocol.into()),
                };
            }
            () = tokio::time::sleep(RECHECK_EVERY) => {
                let now = Instant::now();
                exchange.recheck(now)?;
                if let Some((patterns, now)) = patterns.as_ref().zip(exchange.view().scrubbing()) {
                    patterns.store(Arc::clone(&now.patterns));
                }
                let passed = meter.up() + meter.down();
                if passed != progress.0 {
                    progress = (passed, now);
                }
                if idle_too_long(now.duration_since(progress.1), exchange) {
                    return Err(Code::UpstreamTimeout.into());
                }
            }
            () = drain.over() => return Err(Code::Overloaded.into()),
        }
    }
}

fn idle_too_long(idle: Duration, exchange: &Exchange) -> bool {
    idle > exchange.tunnel.who.proxy.limits.tunnel_idle
}

/// The upstream's end of a carried tunnel.
struct Metered<T> {
    inner: T,
    meter: Arc<Meter>,
    /// Given when some block of the chain has a budget.
    reservation: Option<Arc<Reservation>>,
    /// Bytes that are paid for and not yet taken by `inner`.
    paid: usize,
}

impl<T> Metered<T> {
    /// Takes from the budget before anything is sent.
    fn pay(&mut self, bytes: usize) -> io::Result<()> {
        let unpaid = bytes.saturating_sub(self.paid);
        if self.reservation.as_ref().is_some_and(|taken| !taken.add_up(unpaid as u64)) {
            return Err(self.exhausted());
        }
        self.paid += unpaid;
        Ok(())
    }

    fn sent_up(&mut self, bytes: usize) -> usize {
        self.meter.add_up(bytes);
        self.paid = self.paid.saturating_sub(bytes);
        bytes
    }

    fn exhausted(&self) -> io::Error {
        self.meter.exhaust();
        io::Error::new(io::ErrorKind::QuotaExceeded, "the budget of bytes is used up")
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let bytes = buf.filled().len() - before;
        self.meter.add_down(bytes);
        if self.reservation.as_ref().is_some_and(|taken| !taken.add_down(bytes as u64)) {
            buf.set_filled(before);
            return Poll::Ready(Err(self.exhausted()));
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.pay(buf.len())?;
        let bytes = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        Poll::Ready(Ok(self.sent_up(bytes)))
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
        self.pay(bufs.iter().map(|buf| buf.len()).sum())?;
        let bytes = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, bufs))?;
        Poll::Ready(Ok(self.sent_up(bytes)))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
