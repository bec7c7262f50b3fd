//! The row `tunnel`: CONNECT, then bytes both ways. It sees nothing and is what any proxy at all costs.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

use super::connect;

/// Serves until the process ends.
pub(crate) async fn serve(origin: SocketAddr, listener: TcpListener) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(carry(stream, origin));
    }
}

async fn carry(mut client: TcpStream, origin: SocketAddr) -> std::io::Result<()> {
    connect::accept(&mut client).await?;
    let mut upstream = TcpStream::connect(origin).await?;
    upstream.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut upstream).await?;
    Ok(())
}
