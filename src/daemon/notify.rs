//! What the service manager is told of this process: `sd_notify(3)`, a datagram to the socket that `NOTIFY_SOCKET` names.
//!
//! Without the variable nothing happens. A manager that does not listen costs a second and a line in the log, never more.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// How long a manager may leave its socket full.
const PATIENCE: Duration = Duration::from_secs(1);

/// Tells it `state`: assignments, one a line, such as `READY=1`.
pub fn notify(state: &str) {
    let Some(manager) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return };
    if let Err(error) = send(&manager, state) {
        tracing::warn!(%error, "the service manager cannot be told what this process does");
    }
}

fn send(manager: &OsStr, state: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.send_to_addr(state.as_bytes(), &address(manager)?).map(drop)
}

/// A path, or after `@` a name that is no file.
fn address(manager: &OsStr) -> io::Result<SocketAddr> {
    match manager.as_bytes() {
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => {
            use std::os::linux::net::SocketAddrExt as _;
            SocketAddr::from_abstract_name(name)
        }
        [b'/', ..] => SocketAddr::from_pathname(manager),
        _ => Err(io::Error::other("NOTIFY_SOCKET names no Unix socket")),
    }
}
