//! A TCP proxy on the way. The impatient kind cuts a connection when it has carried nothing to the
//! client for a while, as content delivery networks and balancers do; the slow kind is a long way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};

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
        Self::start(Manner::CutAfter(silence), to).await
    }

    /// Leads to `to`; everything comes back later by `by`, and no less of it.
    pub(crate) async fn delaying(by: Duration, to: SocketAddr) -> Self {
        Self::start(Manner::Delay(by), to).await
    }

    async fn start(manner: Manner, to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let cuts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&cuts);
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.expect("a hop can accept");
                let cuts = Arc::clone(&counted);
                tokio::spawn(async move {
                    if carry(client, to, manner).await.is_err() {
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

/// What a hop does to a connection.
#[derive(Clone, Copy)]
enum Manner {
    CutAfter(Duration),
    Delay(Duration),
}

/// A connection was silent for too long.
struct Cut;

async fn carry(client: TcpStream, to: SocketAddr, manner: Manner) -> Result<(), Cut> {
    let Ok(server) = TcpStream::connect(to).await else { return Ok(()) };
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let up = tokio::spawn(async move { copy(&mut from_client, &mut to_server).await });
    let outcome = match manner {
        Manner::CutAfter(silence) => carry_or_cut(from_server, to_client, silence).await,
        Manner::Delay(by) => {
            carry_late(from_server, to_client, by).await;
            Ok(())
        }
    };
    up.abort();
    outcome
}

async fn carry_or_cut(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, silence: Duration) -> Result<(), Cut> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(read) = timeout(silence, from.read(&mut buffer)).await else { return Err(Cut) };
        let Ok(length @ 1..) = read else { return Ok(()) };
        if to.write_all(&buffer[..length]).await.is_err() {
            return Ok(());
        }
    }
}

async fn carry_late(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, by: Duration) {
    let (read, mut pieces) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let piece = buffer[..length].to_vec();
            if read.send((Instant::now() + by, piece)).is_err() {
                return;
            }
        }
    });
    while let Some((due, piece)) = pieces.recv().await {
        sleep_until(due).await;
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
}
