//! From a server to a connection with it.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Pool, Server};
use crate::proxy_protocol::{Ends, Version};
use crate::socket::{Socket, Transport};

/// A new connection to `server`, before whose first byte it will be told of `client`, if given: the
/// connection that a request came on.
///
/// # Errors
/// What the kernel says, or `TimedOut` after `within`.
pub async fn connect(server: &Server, within: Duration, client: Option<(Ends, Version)>) -> io::Result<Socket> {
    let connecting = async {
        let mut connected = TcpStream::connect(server.address).await;
        if connected.as_ref().is_err_and(is_out_of_descriptors) {
            Pool::clear(); // Those of idle connections to other servers serve better here.
            connected = TcpStream::connect(server.address).await;
        }
        let tcp = connected?;
        tcp.set_nodelay(true)?;
        let socket = Socket::new(Transport::Tcp(tcp));
        if let Some((ends, version)) = client {
            socket.wire().introduce(&ends.header(version), ends);
        }
        Ok(socket)
    };
    match timeout(within, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {within:?}"))),
    }
}

/// The process, or the system, has as many open files as it may have: `EMFILE`, `ENFILE`.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(24 | 23))
}
