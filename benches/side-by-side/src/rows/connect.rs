//! The CONNECT of the rows that do nothing else with it.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A head that is longer is not this bench's.
const HEAD_BYTES_MAX: usize = 4096;

/// Reads a CONNECT, whatever it says, and accepts it.
pub(crate) async fn accept(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut head = [0; HEAD_BYTES_MAX];
    let mut filled = 0;
    while !head[..filled].ends_with(b"\r\n\r\n") {
        let read = stream.read(&mut head[filled..]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await
}
