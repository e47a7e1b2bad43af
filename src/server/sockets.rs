//! Sockets that listen.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::TcpKeepalive;
use crate::socket;

/// `count` sockets that listen on one address together.
pub(super) fn bind_shared(address: SocketAddr, count: usize, keepalive: &TcpKeepalive) -> io::Result<Vec<TcpListener>> {
    // With SO_REUSEPORT alone, a second process of the same user would quietly take half of our
    // connections. One socket without it finds out whether the address is taken.
    let address = listen(address, false, keepalive)?.local_addr()?;
    (0..count).map(|_| listen(address, true, keepalive)).collect()
}

fn listen(address: SocketAddr, is_shared: bool, keepalive: &TcpKeepalive) -> io::Result<TcpListener> {
    const BACKLOG: i32 = 4096;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(is_shared)?;
    // Accepted sockets inherit both.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&socket::keepalive(keepalive))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?; // As nginx does: `0.0.0.0` may stand beside `[::]`.
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
