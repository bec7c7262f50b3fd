//! The one timer of a client's connection: for its end, the beat of its requests, and how long it may idle.
//!
//! It is set for the soonest of the three, and what has moved since is looked at when it fires: a busy connection sets
//! it twice a second, one that idles every `client_idle`. Requests never touch it.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use super::beat::{Beat, EVERY};

/// For a connection that nothing bounds the timer is looked at this often.
const AT_LEAST_EVERY: Duration = Duration::from_hours(24);

/// How long a connection may last and idle; `None` for what something else bounds.
pub(super) struct Bounds {
    pub(super) end: Option<Instant>,
    pub(super) idle: Option<Duration>,
}

/// Keeps a connection's beat. Returns when the connection has to end.
pub(super) async fn keep(beat: Arc<Beat>, bounds: Bounds) {
    let mut idle_end = bounds.idle.map(|idle| now() + idle);
    let mut coming: Option<Instant> = None;
    let mut look = now() + AT_LEAST_EVERY;
    let mut timer = pin!(sleep_until(look.into()));
    poll_fn(move |cx| {
        loop {
            if coming.is_none() && beat.is_asked(cx) {
                coming = Some(now() + EVERY);
            }
            let soonest = [coming, idle_end, bounds.end].into_iter().flatten().min();
            let soonest = soonest.unwrap_or(look).into();
            if timer.deadline() != soonest {
                timer.as_mut().reset(soonest);
            }
            ready!(timer.as_mut().poll(cx));
            let now = now();
            look = now + AT_LEAST_EVERY;
            if bounds.end.is_some_and(|end| end <= now) {
                return Poll::Ready(());
            }
            if coming.is_some_and(|coming| coming <= now) {
                coming = None;
                beat.strike();
                // For requests that this task polls.
                cx.waker().wake_by_ref();
            }
            if let Some((end, idle)) = idle_end.as_mut().zip(bounds.idle) {
                *end = beat.idle_since().unwrap_or(now) + idle;
                if *end <= now {
                    return Poll::Ready(());
                }
            }
        }
    })
    .await;
}

/// The clock of the runtime, which tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use super::super::beat::Wait;
    use super::*;

    const IDLE: Duration = Duration::from_mins(3);
    const LONG: Duration = Duration::from_hours(1);
    /// The first look, the one that its own call brings, and the one at the end.
    const LOOKS: u32 = 3;

    /// Keeps a beat to the end in stopped time, polled after the requests of the connection, as hyper's server is.
    /// How long it took, and how often it was looked at.
    async fn kept(beat: &Arc<Beat>, bounds: Bounds, mut requests: impl FnMut(&mut Context<'_>)) -> (Duration, u32) {
        let (began, mut looks) = (now(), 0);
        let mut keeping = pin!(keep(Arc::clone(beat), bounds));
        poll_fn(|cx| {
            looks += 1;
            requests(cx);
            keeping.as_mut().poll(cx)
        })
        .await;
        (now() - began, looks)
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_looked_at_who_does_not_wait() {
        let bounds = Bounds { end: Some(now() + LONG), idle: None };
        let (took, looks) = kept(&Beat::alone(now()), bounds, |_| {}).await;
        assert!(took >= LONG && looks <= LOOKS, "{looks} in {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_nothing_bounds_is_looked_at_once_a_day() {
        let (beat, mut looks) = (Beat::alone(now()), 0);
        let kept = kept(&beat, Bounds { end: None, idle: None }, |_| {
            looks += 1;
            // One for each timer that is waited for, and the first.
            assert!(looks <= LOOKS + 3, "it spins");
        });
        assert!(tokio::time::timeout(AT_LEAST_EVERY * 3 + LONG, kept).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn one_beat_follows_a_request_that_waited_and_then_none() {
        let beat = Beat::alone(now());
        let mut wait = Some(Wait::new(&beat));
        let bounds = Bounds { end: Some(now() + LONG), idle: None };
        let (took, looks) = kept(&beat, bounds, |cx| {
            if let Some(mut wait) = wait.take() {
                assert!(wait.poll(cx).is_pending());
            }
        })
        .await;
        // The request's call to the keeper, the beat, and the call that follows it.
        assert!(took >= LONG && looks <= LOOKS + 3, "{looks} in {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_woken_every_second() {
        let beat = Beat::alone(now());
        let (mut wait, mut beats) = (Wait::new(&beat), Vec::new());
        let began = now();
        let bounds = Bounds { end: Some(began + EVERY * 10 + EVERY / 2), idle: None };
        kept(&beat, bounds, |cx| {
            while wait.poll(cx).is_ready() {
                beats.push((now() - began).as_secs());
            }
        })
        .await;
        assert_eq!(beats, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_may_idle_between_requests_and_not_longer() {
        let beat = Beat::alone(now());
        let ended_at = now() + IDLE + EVERY;
        beat.begin();
        let mut request = pin!(async {
            sleep_until(ended_at.into()).await;
            beat.rest(ended_at);
        });
        let mut waits = true;
        let bounds = Bounds { end: Some(now() + LONG), idle: Some(IDLE) };
        kept(&beat, bounds, |cx| waits = waits && request.as_mut().poll(cx).is_pending()).await;
        assert_eq!((now() - ended_at).as_secs(), IDLE.as_secs());
    }
}
