//! Listeners that a service manager bound for this process and passed on: `sd_listen_fds(3)`.
//!
//! The configuration says where clients connect, and with what care: a socket that was passed is used where it is what the
//! configuration names, and one that it does not name is refused.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use listenfd::ListenFd;
use nix::sys::socket::{getsockopt, sockopt};

use crate::config::Listen;
use crate::net::listener::Listener;

/// More than a home has addresses: a larger number is a mistake.
const COUNT_MAX: usize = 64;

/// Sockets that were passed to this process and that nobody has taken yet.
#[derive(Debug, Default)]
pub struct Passed(Vec<Socket>);

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, PathBuf),
}

impl Passed {
    /// What `LISTEN_FDS` counts, if `LISTEN_PID` is this process. To be called once, while there is one thread: the
    /// variables are removed.
    ///
    /// # Errors
    /// Something was passed that is no stream socket, or too much.
    pub fn take() -> io::Result<Self> {
        // Without it anybody's variables would be taken for ours.
        if std::env::var_os("LISTEN_PID").is_none_or(|pid| pid.is_empty()) {
            return Ok(Self::default());
        }
        let count = std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse::<usize>().ok());
        if count.is_some_and(|count| count > COUNT_MAX) {
            return Err(io::Error::other(format!("more than {COUNT_MAX} sockets were passed")));
        }
        let mut passed = ListenFd::from_env();
        (0..passed.len()).map(|at| Socket::take(&mut passed, at)).collect::<io::Result<Vec<_>>>().map(Self)
    }

    /// The socket that is bound to `at`, if it was passed. Of port 0, one on any port of that address.
    ///
    /// # Errors
    /// The runtime does not take it.
    pub(super) fn listener(&mut self, at: &Listen) -> io::Result<Option<Listener>> {
        let Some(found) = self.0.iter().position(|socket| socket.is_at(at)) else { return Ok(None) };
        match self.0.swap_remove(found) {
            Socket::Tcp(listener, _) => Listener::passed_tcp(listener).map(Some),
            Socket::Unix(listener, path) => Listener::passed_unix(listener, path).map(Some),
        }
    }

    /// One that nobody has taken.
    pub(super) fn left(&self) -> Option<String> {
        self.0.first().map(|socket| match socket {
            Socket::Tcp(_, address) => address.to_string(),
            Socket::Unix(_, path) => Listen::Unix(path.clone()).to_string(),
        })
    }
}

impl Socket {
    fn take(passed: &mut ListenFd, at: usize) -> io::Result<Self> {
        if let Ok(Some(listener)) = passed.take_tcp_listener(at) {
            let address = listener.local_addr()?;
            return of_one_that_listens(&listener).map(|()| Self::Tcp(listener, address));
        }
        if let Ok(Some(listener)) = passed.take_unix_listener(at) {
            let address = listener.local_addr()?;
            let path =
                address.as_pathname().ok_or_else(|| io::Error::other("a Unix socket without a path was passed"))?;
            let path = path.to_owned();
            return of_one_that_listens(&listener).map(|()| Self::Unix(listener, path));
        }
        Err(io::Error::other("what was passed is no stream socket"))
    }

    fn is_at(&self, at: &Listen) -> bool {
        match (self, at) {
            (Self::Tcp(_, bound), Listen::Tcp(wanted)) => {
                bound == wanted || at.is_any_port() && bound.ip() == wanted.ip()
            }
            (Self::Unix(_, bound), Listen::Unix(wanted)) => bound == wanted,
            _ => false,
        }
    }
}

/// `Accept=yes` would pass connections.
fn of_one_that_listens(socket: &impl AsFd) -> io::Result<()> {
    if getsockopt(socket, sockopt::AcceptConn)? {
        return Ok(());
    }
    Err(io::Error::other("a socket was passed that does not listen"))
}
