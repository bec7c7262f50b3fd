//! Where clients connect: a TCP address or a Unix socket.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio_rustls::TlsStream;

/// Clients that wait at a socket until they are accepted; the system may have a lower bound.
const WAITING_MAX: u32 = 1024;

/// Who is at the other end of an accepted connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A process on this machine.
    Unix,
}

impl Peer {
    /// True when what the peer sends cannot be read on a wire: loopback, or a Unix socket.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => super::address::unmapped(address.ip()).is_loopback(),
            Self::Unix => true,
        }
    }
}

impl Peer {
    /// The address, but for a process on this machine.
    #[must_use]
    pub fn ip(&self) -> Option<std::net::IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Unix => None,
        }
    }
}

/// The journal's `client`: `127.0.0.1:53122` or `unix`.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// A bound listener. A Unix socket's file is removed when it is dropped.
#[derive(Debug)]
pub enum Listener {
    /// Listening on a TCP address.
    Tcp(TcpListener),
    /// Listening on a socket file.
    Unix(UnixListener, SocketFile),
}

/// Removes a socket's file when the listener ends, if it is still its own.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// `None` for a file that is another process's to remove.
    inode: Option<u64>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| Some(found.ino()) == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    /// Binds a TCP address; port 0 takes a free one.
    ///
    /// # Errors
    /// The system's, most often that the port is in use.
    pub async fn tcp(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::Tcp(TcpListener::bind(address).await?))
    }

    /// Takes over a bound socket, of another network namespace perhaps.
    ///
    /// # Errors
    /// The system's.
    pub fn inherited(bound: std::net::TcpListener) -> io::Result<Self> {
        bound.set_nonblocking(true)?;
        Ok(Self::Tcp(TcpListener::from_std(bound)?))
    }

    /// Binds a Unix socket whose file has this mode. A socket file that nobody serves is replaced.
    ///
    /// # Errors
    /// `AddrInUse` when another process answers there; else the system's.
    pub async fn unix(path: &Path, mode: u32) -> io::Result<Self> {
        match bind(path, mode) {
            Ok(listener) => Self::own(listener, path, mode),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                // Only a socket that nobody listens on refuses; a busy one has another error.
                let dead = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
                if !UnixStream::connect(path).await.as_ref().is_err_and(dead) {
                    return Err(error);
                }
                std::fs::remove_file(path)?;
                Self::own(bind(path, mode)?, path, mode)
            }
            Err(error) => Err(error),
        }
    }

    fn own(listener: UnixListener, path: &Path, mode: u32) -> io::Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        // What the umask has taken away.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        let inode = std::fs::symlink_metadata(path)?.ino();
        Ok(Self::Unix(listener, SocketFile { path: path.to_owned(), inode: Some(inode) }))
    }

    /// Takes over a TCP listener that another process bound for this one.
    ///
    /// # Errors
    /// The runtime's.
    pub fn passed_tcp(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener).map(Self::Tcp)
    }

    /// Takes over a Unix listener that another process bound for this one at `path`. Its file stays, with its mode.
    ///
    /// # Errors
    /// The runtime's.
    pub fn passed_unix(listener: std::os::unix::net::UnixListener, path: PathBuf) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::Unix(UnixListener::from_std(listener)?, SocketFile { path, inode: None }))
    }

    /// The TCP address that was bound, with the port that port 0 became.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    /// Waits for the next client. `TCP_NODELAY` is set: with Nagle's algorithm a new tunnel waits
    /// 40 ms for a delayed acknowledgement.
    ///
    /// # Errors
    /// The system's; the caller backs off and goes on (a full descriptor table passes).
    pub async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                Ok((Stream::Tcp(stream), Peer::Tcp(address)))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), Peer::Unix))
            }
        }
    }
}

/// Binds a socket whose file has this mode from its first moment on, or less of it: Linux gives it the socket's own, where
/// the umask allows it. Elsewhere a socket has no mode, and its file has the umask's until it is set.
fn bind(path: &Path, mode: u32) -> io::Result<UnixListener> {
    use nix::sys::stat::{Mode, fchmod};
    let socket = UnixSocket::new_stream()?;
    if let Some(mode) = nix::libc::mode_t::try_from(mode).ok().and_then(Mode::from_bits) {
        let _ = fchmod(&socket, mode);
    }
    socket.bind(path)?;
    socket.listen(WAITING_MAX)
}

/// What a `listen` line names: `127.0.0.1:7080` or `unix:/path`.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => write!(f, "{address}"),
                Err(_) => f.write_str("tcp"),
            },
            Self::Unix(_, file) => write!(f, "unix:{}", file.path.display()),
        }
    }
}

/// One client's connection.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
    /// Inside TLS, over one of these.
    Tls(Box<TlsStream<Self>>),
}

impl Stream {
    /// Whether a process of one of these users is at the other end of a Unix socket; of our own, where none is named. The
    /// system says so (`SO_PEERCRED`), and of no other connection.
    #[must_use]
    pub fn is_from(&self, uids: &[u32]) -> bool {
        let Self::Unix(stream) = self else { return false };
        stream.peer_cred().is_ok_and(|peer| {
            let own = uids.is_empty() && peer.uid() == nix::unistd::geteuid().as_raw();
            own || uids.contains(&peer.uid())
        })
    }
}

impl Stream {
    /// The address and port that the client dialled, where the system's packet filter sent the connection here instead;
    /// `None` for one that was dialled to where it arrived.
    #[must_use]
    pub fn original(&self) -> Option<SocketAddr> {
        let Self::Tcp(stream) = self else { return None };
        original(stream).filter(|original| stream.local_addr().is_ok_and(|local| local != *original))
    }
}

/// Where a redirected connection was going (`SO_ORIGINAL_DST`, netfilter).
#[cfg(target_os = "linux")]
fn original(stream: &TcpStream) -> Option<SocketAddr> {
    use nix::sys::socket::{getsockopt, sockopt};
    use std::net::{Ipv4Addr, SocketAddrV4, SocketAddrV6};
    if stream.local_addr().ok()?.is_ipv4() {
        let to = getsockopt(stream, sockopt::OriginalDst).ok()?;
        let ip = Ipv4Addr::from(u32::from_be(to.sin_addr.s_addr));
        return Some(SocketAddrV4::new(ip, u16::from_be(to.sin_port)).into());
    }
    let to = getsockopt(stream, sockopt::Ip6tOriginalDst).ok()?;
    Some(SocketAddrV6::new(to.sin6_addr.s6_addr.into(), u16::from_be(to.sin6_port), 0, 0).into())
}

#[cfg(not(target_os = "linux"))]
fn original(_: &TcpStream) -> Option<SocketAddr> {
    None
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn a_sockets_file_is_at_no_moment_open_to_more_than_it_will_be() {
        let folder = tempfile::tempdir().expect("a folder");
        let mode = |path: &Path| std::fs::symlink_metadata(path).expect("a file").permissions().mode() & 0o777;
        for wanted in [0o600, 0o660, 0o666] {
            let path = folder.path().join(format!("{wanted:o}"));
            let bound = bind(&path, wanted).expect("a socket");
            assert_eq!(mode(&path) & !wanted, 0, "{:o}", mode(&path));
            drop(bound);
            let _listener = Listener::unix(&path, wanted).await.expect("a listener");
            assert_eq!(mode(&path), wanted);
        }
    }
}
