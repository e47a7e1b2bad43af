//! From a server to a connection with it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Pool, Server};
use crate::proxy_protocol::{Ends, Version};
use crate::socket::{Encrypted, HandshakeError, Socket, Transport};
use crate::tls::session::Failure;
use crate::tls::{Back, back};

/// A new connection to `server`, encrypted if `tls` says how. Before its first byte it will be told
/// of `client`, if given: the connection that a request came on.
///
/// # Errors
/// What the kernel says, that it is not the right server, or `TimedOut` after `within`.
pub async fn connect(
    server: &Server,
    tls: Option<&Back>,
    within: Duration,
    client: Option<(Ends, Version)>,
) -> io::Result<Socket> {
    let header = client.map(|(ends, version)| ends.header(version)).unwrap_or_default();
    match timeout(within, open(server.address, tls, header)).await {
        Ok(Ok(socket)) => {
            socket.wire().introduced(0, client.map(|(ends, _)| ends));
            Ok(socket)
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {within:?}"))),
    }
}

/// A new connection to `address`, which begins with `header`.
///
/// # Errors
/// What the kernel says, or that it is not the right server.
pub async fn open(address: SocketAddr, tls: Option<&Back>, header: Vec<u8>) -> io::Result<Socket> {
    let mut connected = TcpStream::connect(address).await;
    if connected.as_ref().is_err_and(is_out_of_descriptors) {
        Pool::clear(); // Those of idle connections to other servers serve better here.
        connected = TcpStream::connect(address).await;
    }
    let tcp = connected?;
    tcp.set_nodelay(true)?;
    if let Some(tls) = tls {
        return Box::pin(encrypt(tcp, address, tls, header)).await;
    }
    let socket = Socket::new(Transport::Tcp(tcp));
    if !header.is_empty() {
        socket.wire().collect_all(header);
    }
    Ok(socket)
}

async fn encrypt(mut tcp: TcpStream, address: SocketAddr, tls: &Back, header: Vec<u8>) -> io::Result<Socket> {
    if !header.is_empty() {
        tcp.write_all(&header).await?; // Nobody needs a key to read that.
    }
    let shaken = Encrypted::connect(tcp, tls.name(address.ip()), tls.config()).await;
    Ok(Socket::new(Transport::Tls(Box::new(shaken.map_err(explained)?))))
}

fn explained(error: HandshakeError) -> io::Error {
    match error {
        HandshakeError::Io(error) => error,
        HandshakeError::Closed => io::Error::new(io::ErrorKind::ConnectionAborted, format!("TLS: {error}")),
        HandshakeError::Session(failure) => {
            let advice = if let Failure::Protocol(error) = &failure { back::advice(error) } else { "" };
            io::Error::new(io::ErrorKind::InvalidData, format!("TLS: {failure}{advice}"))
        }
    }
}

/// The process, or the system, has as many open files as it may have: `EMFILE`, `ENFILE`.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(24 | 23))
}
