//! Servers written by hand, so that every byte they saw is known and every byte they send is
//! chosen, with its moment.
//!
//! [`Upstream::start`] gives the connections to the test one by one. [`Upstream::serving`] gives
//! each to a function of its own, for tests with many.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::{Wire, millis, soon};

/// How something is written in a list of servers.
pub(crate) trait ServerEntry {
    fn address(&self) -> SocketAddr;

    fn weight(&self) -> u32 {
        1
    }

    fn name(&self) -> Option<&str> {
        None
    }

    fn state(&self) -> Option<&str> {
        None
    }
}

impl ServerEntry for SocketAddr {
    fn address(&self) -> SocketAddr {
        *self
    }
}

/// A server with a weight.
pub(crate) struct Weighted<'a>(pub(crate) &'a dyn ServerEntry, pub(crate) u32);

impl ServerEntry for Weighted<'_> {
    fn address(&self) -> SocketAddr {
        self.0.address()
    }

    fn weight(&self) -> u32 {
        self.1
    }
}

/// A server with a name.
pub(crate) struct Named<'a>(pub(crate) &'a dyn ServerEntry, pub(crate) &'a str);

impl ServerEntry for Named<'_> {
    fn address(&self) -> SocketAddr {
        self.0.address()
    }

    fn weight(&self) -> u32 {
        self.0.weight()
    }

    fn name(&self) -> Option<&str> {
        Some(self.1)
    }
}

/// A server in a state, such as `drain`.
pub(crate) struct InState<'a>(pub(crate) &'a dyn ServerEntry, pub(crate) &'a str);

impl ServerEntry for InState<'_> {
    fn address(&self) -> SocketAddr {
        self.0.address()
    }

    fn weight(&self) -> u32 {
        self.0.weight()
    }

    fn name(&self) -> Option<&str> {
        self.0.name()
    }

    fn state(&self) -> Option<&str> {
        Some(self.1)
    }
}

/// A server that hands its connections to the test.
pub(crate) struct Upstream {
    address: SocketAddr,
    listener: Option<TcpListener>,
    accepted: Arc<AtomicUsize>,
    serving: Option<AbortHandle>,
    tls: Option<TlsAcceptor>,
}

impl ServerEntry for Upstream {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Upstream {
    /// A server whose connections the test takes with [`Upstream::accept`].
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        Self { address, listener: Some(listener), accepted: Arc::default(), serving: None, tls: None }
    }

    /// The same, and its connections are encrypted.
    pub(crate) async fn encrypted(tls: TlsAcceptor) -> Self {
        let mut this = Self::start().await;
        this.tls = Some(tls);
        this
    }

    /// A server that listens somewhere already.
    pub(crate) fn listening(listener: std::net::TcpListener) -> Self {
        listener.set_nonblocking(true).expect("a socket");
        let listener = TcpListener::from_std(listener).expect("a runtime");
        let address = listener.local_addr().expect("a bound socket has an address");
        Self { address, listener: Some(listener), accepted: Arc::default(), serving: None, tls: None }
    }

    /// A server that runs `serve` for every connection, concurrently.
    pub(crate) async fn serving<F, S>(serve: F) -> Self
    where
        F: Fn(Wire) -> S + Send + Sync + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        Self::start().await.serve(serve)
    }

    /// Connections go with the server when it is dropped.
    pub(crate) fn serve<F, S>(mut self, serve: F) -> Self
    where
        F: Fn(Wire) -> S + Send + Sync + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let listener = self.listener.take().expect("it serves but once");
        let accepted = Arc::clone(&self.accepted);
        let tls = self.tls.clone();
        let serve = Arc::new(serve);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a server can accept");
                accepted.fetch_add(1, Ordering::SeqCst);
                let (tls, serve) = (tls.clone(), serve.clone());
                connections.spawn(async move {
                    let wire = match tls {
                        None => Wire::new(stream, "server"),
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => Wire::encrypted(stream, "server"),
                            Err(_) => return, // The proxy may not trust it.
                        },
                    };
                    serve(wire).await;
                });
            }
        });
        self.serving = Some(accepting.abort_handle());
        self
    }

    /// A server that answers every request on a connection with its own name.
    pub(crate) async fn named(name: &'static str) -> Self {
        Self::start().await.naming(name)
    }

    /// The same at the address of `place`, which refuses again when the server is dropped.
    pub(crate) fn named_at(place: &Refusing, name: &'static str) -> Self {
        let socket = reusing(place.address);
        let listener = socket.listen(1024).expect("the port is free");
        Self { address: place.address, listener: Some(listener), accepted: Arc::default(), serving: None, tls: None }
            .naming(name)
    }

    fn naming(self, name: &'static str) -> Self {
        self.serve(move |mut wire| async move {
            while wire.next_request().await.is_some() {
                wire.send(ok(name)).await;
            }
        })
    }

    /// The next connection to this server.
    pub(crate) async fn accept(&self) -> Wire {
        let listener = self.listener.as_ref().expect("a serving server accepts by itself");
        let (stream, _) = soon("a connection to the server", listener.accept()).await.expect("a server can accept");
        self.accepted.fetch_add(1, Ordering::SeqCst);
        match &self.tls {
            None => Wire::new(stream, "server"),
            Some(tls) => {
                let stream = soon("a handshake with the server", tls.accept(stream)).await;
                Wire::encrypted(stream.expect("the proxy trusts the server"), "server")
            }
        }
    }

    /// How many connections it has accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

/// An address that is ours and refuses every connection: bound, never listening.
pub(crate) struct Refusing {
    address: SocketAddr,
    _socket: TcpSocket,
}

impl Refusing {
    pub(crate) fn start() -> Self {
        let socket = reusing(SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = socket.local_addr().expect("a bound socket has an address");
        Self { address, _socket: socket }
    }

    /// Waits until it refuses again.
    pub(crate) async fn refuses(&self) {
        let refused = async {
            while TcpStream::connect(self.address).await.is_ok() {
                tokio::time::sleep(millis(5)).await;
            }
        };
        soon("a server to be gone", refused).await;
    }
}

/// A bound socket beside which another one may listen under its address.
fn reusing(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("a socket can share its address");
    socket.bind(address).expect("a free port");
    socket
}

impl ServerEntry for Refusing {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The usual answer: 200 with a length.
pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
