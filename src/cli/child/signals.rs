//! Signals to `capctl run` are meant for the command.

use std::fs::File;
use std::io;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpgrp, tcgetpgrp};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// The signals that are passed on, in the order of `Signals::streams`.
const PASSED: [Signal; 7] = [
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGWINCH,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];
/// The first so many come from a terminal to its whole foreground group, the child among it.
const OF_THE_TERMINAL: usize = 3;

/// Caught from the moment it is made, so none is lost while the child starts.
pub(in crate::cli) struct Signals {
    streams: Vec<Stream>,
}

impl Signals {
    pub(in crate::cli) fn catch() -> io::Result<Self> {
        let kinds = PASSED.iter().map(|passed| signal(SignalKind::from_raw(*passed as i32)));
        Ok(Self { streams: kinds.collect::<io::Result<_>>()? })
    }

    /// Passes signals on for ever.
    pub(in crate::cli) async fn pass_to(&mut self, child: u32) {
        let Ok(pid) = i32::try_from(child) else { return std::future::pending().await };
        loop {
            let at = self.next().await;
            // The terminal has sent it to the child already; twice Ctrl-C means something else to many programs.
            if at < OF_THE_TERMINAL && in_foreground() {
                continue;
            }
            if let Some(signal) = PASSED.get(at) {
                let _ = kill(Pid::from_raw(pid), *signal);
            }
        }
    }

    /// Ends with the next signal that is meant to end something; only a resized window is not.
    pub(in crate::cli) async fn any(&mut self) {
        while PASSED.get(self.next().await) == Some(&Signal::SIGWINCH) {}
    }

    /// The place in [`PASSED`] of the next signal.
    async fn next(&mut self) -> usize {
        std::future::poll_fn(|cx| {
            let ready = |stream: &mut Stream| stream.poll_recv(cx).is_ready();
            self.streams.iter_mut().position(ready).map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        })
        .await
    }
}

/// Whether our process group is the one that the controlling terminal talks to.
fn in_foreground() -> bool {
    File::open("/dev/tty").is_ok_and(|tty| tcgetpgrp(tty).is_ok_and(|foreground| foreground == getpgrp()))
}
