//! From a server to a connection with it.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Server;
use crate::socket::Socket;

/// A new connection to `server`.
///
/// # Errors
/// What the kernel says, or `TimedOut` after `within`.
pub async fn connect(server: &Server, within: Duration) -> io::Result<Socket> {
    let connecting = async {
        let tcp = TcpStream::connect(server.address).await?;
        tcp.set_nodelay(true)?;
        Ok(Socket::new(tcp))
    };
    match timeout(within, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {within:?}"))),
    }
}
