//! Servers that can be killed: WebSockets, event streams and long-polls, each with its number in the path.
//!
//! They live in this process, and a killed one loses all its sockets at once, as the kernel does it to a
//! process: the proxy sees no difference, and what was on them is known.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use crate::http::{fill, header, read_head};
use crate::ledger::{Connection, Ledger, lock};
use crate::talk::{Pace, Phase, Side, talk};

/// How often a WebSocket's server says something.
pub(crate) const EVERY: Duration = Duration::from_secs(4);
/// How often there is an event, the same for all streams at all servers.
const EVENTS_EVERY: Duration = Duration::from_secs(3);
/// The answer to the key that all our clients send (RFC 6455, section 1.3).
const UPGRADED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const STREAM: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// What all servers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) phase: watch::Receiver<Phase>,
    /// The number of the newest event.
    pub(crate) newest: watch::Receiver<u64>,
}

/// Counts events as long as everybody talks.
pub(crate) async fn count_events(newest: watch::Sender<u64>, phase: watch::Receiver<Phase>) {
    loop {
        sleep(EVENTS_EVERY).await;
        if *phase.borrow() == Phase::Talking {
            newest.send_modify(|number| *number += 1);
        }
    }
}

/// The text of an event.
pub(crate) fn event(number: u64) -> String {
    format!("event {number} {}", "x".repeat((number % 50) as usize))
}

/// One server, which may be there or not.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    shared: Shared,
    carried: Arc<Carried>,
    running: Option<JoinHandle<()>>,
}

/// What a server has at the moment, from its start to its end.
#[derive(Default)]
struct Carried(Mutex<State>);

#[derive(Default)]
struct State {
    connections: HashMap<u64, Arc<Connection>>,
    is_killed: bool,
}

/// One of that; gone with its task, however that ends.
struct Holding(Arc<Carried>, u64);

impl Holding {
    fn new(carried: &Arc<Carried>, connection: &Arc<Connection>, ledger: &Ledger) -> Self {
        let mut state = lock(&carried.0);
        state.connections.insert(connection.id, connection.clone());
        if state.is_killed {
            ledger.kill(std::slice::from_ref(connection)); // It has come just before the end.
        }
        Self(carried.clone(), connection.id)
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        lock(&self.0.0).connections.remove(&self.1);
    }
}

impl Server {
    /// Starts a server at an address that it will have for good.
    pub(crate) fn start(name: &str, shared: &Shared) -> io::Result<Self> {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = listener.local_addr()?;
        let (shared, carried) = (shared.clone(), Arc::default());
        let mut this = Self { name: name.to_owned(), address, shared, carried, running: None };
        this.run(listener);
        Ok(this)
    }

    /// Whether it is there.
    pub(crate) fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// Ends it without a farewell.
    pub(crate) async fn kill(&mut self) {
        let Some(running) = self.running.take() else { return };
        {
            let mut state = lock(&self.carried.0);
            state.is_killed = true;
            let carried: Vec<_> = state.connections.values().cloned().collect();
            self.shared.ledger.kill(&carried);
        }
        running.abort();
        let _ = running.await; // It was cancelled; its listener is closed when it is gone.
    }

    /// Has it listen again, with nothing of what it had.
    pub(crate) fn come_back(&mut self) -> io::Result<()> {
        self.run(listen(self.address)?);
        Ok(())
    }

    fn run(&mut self, listener: TcpListener) {
        self.carried = Arc::default();
        let (shared, carried) = (self.shared.clone(), self.carried.clone());
        self.running = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            // With too few open files it would end, and show by ends that nobody explains.
            while let Ok((tcp, _)) = listener.accept().await {
                connections.spawn(serve(tcp, shared.clone(), carried.clone()));
                while connections.try_join_next().is_some() {}
            }
        }));
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    const BACKLOG: u32 = 4096;
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves the requests of a connection; where it fails, whoever sent them sees that.
async fn serve(mut tcp: TcpStream, shared: Shared, carried: Arc<Carried>) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut received = Vec::new();
    loop {
        let head = read_head(&mut tcp, &mut received).await?;
        let mut path = head.split(' ').nth(1).unwrap_or_default().split('/').skip(1);
        let (kind, id) = (path.next(), path.next().and_then(|id| id.parse().ok()));
        let Some(connection) = id.and_then(|id| shared.ledger.find(id)) else {
            return Err(io::Error::other("a path of nobody's"));
        };
        let _holding = Holding::new(&carried, &connection, &shared.ledger);
        match kind {
            Some("ws") => {
                tcp.write_all(UPGRADED.as_bytes()).await?;
                let pace = Pace { every: EVERY, leaves: None, phase: shared.phase.clone() };
                talk(tcp, received, (&shared.ledger, &connection, Side::Server), pace).await;
                return Ok(());
            }
            Some("sse") => {
                let last = header(&head, "Last-Event-ID").and_then(|last| last.parse().ok());
                return stream(tcp, shared, connection.id, last).await;
            }
            _ => {
                let number = path.next().unwrap_or_default().to_owned();
                answer(&mut tcp, &mut received, &connection, &number).await?;
            }
        }
    }
}

/// Sends every event behind `last`, until the proxy goes.
async fn stream(mut tcp: TcpStream, mut shared: Shared, id: u64, last: Option<u64>) -> io::Result<()> {
    tcp.write_all(STREAM.as_bytes()).await?;
    let mut last = match last {
        Some(last) => last,
        None => {
            // Who is new knows at once what it goes on behind.
            let newest = *shared.newest.borrow();
            tcp.write_all(&chunk(&format!("event: begin\nid: {newest}\ndata: {newest}\n\n"))).await?;
            newest
        }
    };
    let mut nothing = Vec::new();
    loop {
        let newest = *shared.newest.borrow_and_update();
        if last < newest {
            // Not all of them in the same moment.
            sleep(Duration::from_millis(id * 37 % 1000)).await;
            let events = (last + 1..=newest).map(|number| format!("id: {number}\ndata: {}\n\n", event(number)));
            tcp.write_all(&chunk(&events.collect::<String>())).await?;
            last = newest;
            continue;
        }
        tokio::select! {
            changed = shared.newest.changed() => changed.map_err(io::Error::other)?,
            // Nothing comes here but the end.
            end = fill(&mut tcp, &mut nothing) => end?,
        }
    }
}

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

/// Answers a poll with its own number when it has waited; unless who asked goes first.
async fn answer(tcp: &mut TcpStream, received: &mut Vec<u8>, connection: &Connection, number: &str) -> io::Result<()> {
    let wait = Duration::from_millis(2000 + connection.id * 7919 % 6000);
    tokio::select! {
        () = sleep(wait) => {}
        end = fill(tcp, received) => end?,
    }
    let body = format!("{} {number}", connection.id);
    tcp.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await
}
