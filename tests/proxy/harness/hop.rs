//! A previous hop of the impatient kind: a TCP proxy that cuts a connection when it has carried
//! nothing to the client for a while, as content delivery networks and balancers do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::{Wire, proxy};

/// The hop; gone when dropped.
pub(crate) struct Hop {
    address: SocketAddr,
    cuts: Arc<AtomicUsize>,
    accepting: AbortHandle,
}

impl Hop {
    /// Leads to `to`, and cuts whatever stays silent towards the client for `silence`.
    pub(crate) async fn cutting_after(silence: Duration, to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let cuts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&cuts);
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.expect("a hop can accept");
                let cuts = Arc::clone(&counted);
                tokio::spawn(async move {
                    if carry(client, to, silence).await.is_err() {
                        cuts.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        Self { address, cuts, accepting: accepting.abort_handle() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn connect(&self) -> Wire {
        proxy::connect(self.address).await
    }

    /// How many connections it has cut.
    pub(crate) fn cuts(&self) -> usize {
        self.cuts.load(Ordering::SeqCst)
    }
}

impl Drop for Hop {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A connection was silent for too long.
struct Cut;

async fn carry(client: TcpStream, to: SocketAddr, silence: Duration) -> Result<(), Cut> {
    let Ok(server) = TcpStream::connect(to).await else { return Ok(()) };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = tokio::spawn(async move { copy(&mut from_client, &mut to_server).await });
    let mut buffer = vec![0; 16 * 1024];
    let outcome = loop {
        let Ok(read) = timeout(silence, from_server.read(&mut buffer)).await else { break Err(Cut) };
        let Ok(length @ 1..) = read else { break Ok(()) };
        if to_client.write_all(&buffer[..length]).await.is_err() {
            break Ok(());
        }
    };
    up.abort();
    outcome
}
