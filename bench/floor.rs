//! A relay that knows nothing: what the kernel takes to move the bytes, with nothing decided about
//! them. It accepts, connects, and passes on what comes, one read and one write for each piece, in
//! one thread that waits for edges as all the others do.
//!
//! A proxy whose bytes go through user space by such calls cannot take less, so what is above this is
//! all there is to be gained. It is no proxy: it does not know where a request ends, so each connection
//! of a client has one to the server.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};

const LISTENER: Token = Token(usize::MAX);
const EVENTS_MAX: usize = 1024;
const READ_MAX: usize = 64 * 1024;

/// Passes on between clients at `listen` and `server` until it is killed.
pub(crate) fn relay(listen: SocketAddr, server: SocketAddr) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let registry = poll.registry().try_clone()?;
    let mut listener = TcpListener::bind(listen)?;
    registry.register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut relay = Relay { ends: Vec::new(), free: Vec::new(), buffer: vec![0; READ_MAX] };
    let mut events = Events::with_capacity(EVENTS_MAX);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => other?,
        }
        for event in &events {
            match event.token() {
                LISTENER => relay.accept(&listener, server, &registry)?,
                Token(at) => relay.turn(at, event),
            }
        }
    }
}

/// One end of a connection that is passed on.
struct End {
    socket: TcpStream,
    /// What it has not taken yet. While there is any, nothing is read for it.
    unsent: Vec<u8>,
    /// It says nothing more.
    has_ended: bool,
}

struct Relay {
    /// A client's end has an even number, its server's the next one.
    ends: Vec<Option<End>>,
    /// Numbers of clients without one. A late event about a former one does no harm.
    free: Vec<usize>,
    buffer: Vec<u8>,
}

impl Relay {
    fn accept(&mut self, listener: &TcpListener, server: SocketAddr, registry: &Registry) -> io::Result<()> {
        loop {
            let client = match listener.accept() {
                Ok((client, _)) => client,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let server = std::net::TcpStream::connect(server)?; // On loopback nobody waits for it.
            server.set_nonblocking(true)?;
            let client_at = self.free.pop().unwrap_or_else(|| {
                self.ends.extend([None, None]);
                self.ends.len() - 2
            });
            for (at, mut socket) in [(client_at, client), (client_at + 1, TcpStream::from_std(server))] {
                socket.set_nodelay(true)?;
                registry.register(&mut socket, Token(at), Interest::READABLE | Interest::WRITABLE)?;
                self.ends[at] = Some(End { socket, unsent: Vec::new(), has_ended: false });
            }
        }
    }

    fn turn(&mut self, at: usize, event: &Event) {
        let [Some(end), Some(other)] = self.ends.get_disjoint_mut([at, at ^ 1]).expect("ends come in pairs") else {
            return;
        };
        let buffer = &mut self.buffer[..];
        let mut went_on = Ok(());
        if event.is_writable() && !end.unsent.is_empty() {
            went_on = end.flush().and_then(|()| pass(other, end, true, buffer));
        }
        if event.is_readable() || event.is_read_closed() {
            went_on = went_on.and_then(|()| pass(end, other, event.is_read_closed(), buffer));
        }
        let is_done = end.has_ended && other.has_ended && end.unsent.is_empty() && other.unsent.is_empty();
        if went_on.is_err() || is_done {
            (self.ends[at], self.ends[at ^ 1]) = (None, None);
            self.free.push(at & !1);
        }
    }
}

impl End {
    /// Sends what waits, as far as it is taken.
    fn flush(&mut self) -> io::Result<()> {
        let taken = would_block_is_zero(self.socket.write(&self.unsent))?;
        self.unsent.drain(..taken);
        Ok(())
    }
}

/// Passes on what `from` has said. A read that does not fill the buffer was the last one, unless `is_more`.
fn pass(from: &mut End, to: &mut End, is_more: bool, buffer: &mut [u8]) -> io::Result<()> {
    while to.unsent.is_empty() && !from.has_ended {
        let read = match from.socket.read(buffer) {
            Ok(0) => {
                from.has_ended = true;
                return to.socket.shutdown(Shutdown::Write);
            }
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let taken = would_block_is_zero(to.socket.write(&buffer[..read]))?;
        to.unsent.extend_from_slice(&buffer[taken..read]);
        if read < buffer.len() && !is_more {
            return Ok(());
        }
    }
    Ok(())
}

fn would_block_is_zero(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}
