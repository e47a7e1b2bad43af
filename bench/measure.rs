//! Puts one running proxy into one scenario and returns the figures.
//!
//! Each figure is a difference between two moments at which nothing is on its way: all operations
//! that began have ended, and their number is known.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{
    Client, ConnectionPerRequest, Echo, EventStream, KeepAlive, Message, OPENING_AT_ONCE, Tally, WebSocket, at_most,
    open_all, operate_for,
};
use crate::proxies::Running;
use crate::scenario::{Plan, Sizes};
use crate::server::{Server, Waiting};

/// A proxy between clients and server.
#[derive(Clone, Copy)]
pub(crate) struct Bench<'a> {
    /// What is measured.
    pub(crate) proxy: &'a Running,
    /// What is behind it.
    pub(crate) server: &'a Server,
    /// How much.
    pub(crate) sizes: &'a Sizes,
}

/// Clients of the scenarios with short requests.
const REQUESTING: usize = 32;
/// Event streams, and parked requests, of the CPU scenarios.
const WAITING: usize = 1000;
/// Idle event streams that are kept alive.
const KEPT: usize = 9000;
/// Connections made before memory is first weighed, so that what a proxy makes once is there.
const WARMING: usize = 16;
/// The message of the larger WebSocket scenarios.
const LARGE_BYTES: usize = 16 * 1024;
/// The message that tells whether a WebSocket works.
const SMALL_BYTES: usize = 125;

impl Bench<'_> {
    /// The figures of `plan`, in the order of its rows.
    pub(crate) async fn measure(&self, plan: Plan) -> io::Result<Vec<f64>> {
        match plan {
            Plan::IdleWebSockets => self.idle_websockets().await,
            Plan::IdleStreams => self.idle_streams().await,
            Plan::ParkedPolls => self.parked_polls().await,
            Plan::KeptStreams => self.kept_streams().await,
            Plan::Echo { connections, bytes } => self.echo(connections, bytes).await,
            Plan::Events { path } => self.events(path).await,
            Plan::KeepAlive => self.keep_alive().await,
            Plan::ConnectionPerRequest => self.connection_per_request().await,
            Plan::Polls => self.polls().await,
            Plan::Handshakes => self.handshakes().await,
        }
    }

    async fn idle_websockets(&self) -> io::Result<Vec<f64>> {
        let door = self.proxy.door;
        let count = self.sizes.idle_connections;
        drop(open_all(WARMING, || WebSocket::open(door)).await?);
        let before = self.settled_memory().await?;
        let websockets = open_all(count, || WebSocket::open(door)).await?;
        let fresh = self.settled_memory().await?;
        let websockets = echo_once(websockets, LARGE_BYTES).await?;
        let used = self.settled_memory().await?;
        drop(websockets);
        Ok(vec![(fresh - before) / count as f64, (used - before) / count as f64, self.given_back(before, used).await?])
    }

    async fn idle_streams(&self) -> io::Result<Vec<f64>> {
        const PATH: &str = "/sse/chunked";
        let door = self.proxy.door;
        let count = self.sizes.idle_connections;
        drop(open_all(WARMING, || EventStream::open(door, PATH)).await?);
        let before = self.settled_memory().await?;
        let mut audience = Audience::open(self, PATH, count).await?;
        let fresh = self.settled_memory().await?;
        audience.receive_one(self.server).await?;
        let used = self.settled_memory().await?;
        Ok(vec![(fresh - before) / count as f64, (used - before) / count as f64])
    }

    async fn parked_polls(&self) -> io::Result<Vec<f64>> {
        let count = self.sizes.idle_connections;
        self.park(WARMING).await?.answer_all(self.server).await?;
        let before = self.settled_memory().await?;
        let parked = self.park(count).await?;
        let during = self.settled_memory().await?;
        parked.answer_all(self.server).await?;
        Ok(vec![(during - before) / count as f64])
    }

    /// The share of a core that comments take.
    async fn kept_streams(&self) -> io::Result<Vec<f64>> {
        const REST: Duration = Duration::from_secs(3);
        let _audience = Audience::open(self, "/sse/chunked", KEPT).await?;
        sleep(REST).await; // Each gets its first comment at once.
        let (before, began) = (self.proxy.group.cpu()?, Instant::now());
        sleep(self.sizes.idle_window).await;
        let used = self.proxy.group.cpu()?.saturating_sub(before);
        Ok(vec![used.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0])
    }

    async fn echo(&self, connections: usize, bytes: usize) -> io::Result<Vec<f64>> {
        let door = self.proxy.door;
        let message = Message::with_payload(bytes);
        let websockets = open_all(connections, || WebSocket::open(door)).await?;
        let clients = websockets.into_iter().map(|websocket| Echo { websocket, message: message.clone() });
        self.cpu_of(clients.collect()).await
    }

    async fn keep_alive(&self) -> io::Result<Vec<f64>> {
        let door = self.proxy.door;
        let clients = open_all(REQUESTING, || KeepAlive::open(door, "/small")).await?;
        self.cpu_of(clients).await
    }

    async fn connection_per_request(&self) -> io::Result<Vec<f64>> {
        let door = self.proxy.door;
        let clients = (0..REQUESTING).map(|_| ConnectionPerRequest { door });
        self.cpu_of(clients.collect()).await
    }

    async fn events(&self, path: &'static str) -> io::Result<Vec<f64>> {
        let mut audience = Audience::open(self, path, WAITING).await?;
        audience.receive_for(self.warm_up(), self.server).await?;
        let before = self.proxy.group.cpu()?;
        let events = audience.receive_for(self.sizes.window, self.server).await?;
        self.cpu_since(before, events)
    }

    async fn polls(&self) -> io::Result<Vec<f64>> {
        let door = self.proxy.door;
        let mut clients = JoinSet::new();
        for client in open_all(WAITING, || KeepAlive::open(door, "/poll")).await? {
            clients.spawn(client.operate_forever());
        }
        unless_failed(&mut clients, async {
            self.wake_polls_for(self.warm_up()).await?;
            let before = self.proxy.group.cpu()?;
            let answers = self.wake_polls_for(self.sizes.window).await?;
            self.cpu_since(before, answers)
        })
        .await
    }

    /// Wakes all parked requests again and again; returns the answers when all are parked again.
    async fn wake_polls_for(&self, window: Duration) -> io::Result<usize> {
        let end = Instant::now() + window;
        let mut answers = 0;
        while Instant::now() < end {
            self.server.wake(Waiting::Polls, WAITING).await?;
            answers += WAITING;
        }
        self.server.wait_for(Waiting::Polls, WAITING).await?;
        Ok(answers)
    }

    async fn handshakes(&self) -> io::Result<Vec<f64>> {
        const AT_ONCE: usize = 256;
        const LIFE: Duration = Duration::from_secs(2);
        let count = self.sizes.handshakes;
        let door = self.proxy.door;
        let before = self.proxy.group.cpu()?;
        let storm = (0..count).map(|_| timeout(HANDSHAKE, WebSocket::open(door)));
        let outcomes = at_most(AT_ONCE, storm).await;
        let open: Vec<_> = outcomes.into_iter().flatten().flatten().collect();
        let cpu = self.cpu_since(before, open.len())?[0];
        let failed = count - open.len();
        sleep(LIFE).await;
        let died = open.len() - count_working(open).await;
        Ok(vec![cpu, failed as f64, died as f64])
    }

    /// Lets the clients operate for the window; returns the CPU time per operation, and how long half
    /// of them and all but a hundredth took, in microseconds.
    async fn cpu_of<C: Client>(&self, clients: Vec<C>) -> io::Result<Vec<f64>> {
        let (clients, _) = operate_for(self.warm_up(), clients).await?;
        let before = self.proxy.group.cpu()?;
        let (_clients, mut operations) = operate_for(self.sizes.window, clients).await?;
        let mut figures = self.cpu_since(before, operations.len())?;
        operations.sort_unstable();
        let within = |percent| f64::from(operations[(operations.len() - 1) * percent / 100]) / 1e3;
        figures.extend([within(50), within(99)]);
        Ok(figures)
    }

    /// CPU time in microseconds that the proxy used for each of `operations`.
    fn cpu_since(&self, before: Duration, operations: usize) -> io::Result<Vec<f64>> {
        if operations == 0 {
            return Err(io::Error::other("not one operation succeeded"));
        }
        let used = self.proxy.group.cpu()?.saturating_sub(before);
        Ok(vec![used.as_secs_f64() * 1e6 / operations as f64])
    }

    /// How long clients operate before CPU time is counted.
    fn warm_up(&self) -> Duration {
        self.sizes.window / 5
    }

    /// The proxy's memory in bytes once it rests: allocators that give pages back do so within
    /// seconds, and what they still hold of work that is over is none of the connections'.
    async fn settled_memory(&self) -> io::Result<f64> {
        const REST: Duration = Duration::from_secs(3);
        sleep(REST).await;
        Ok(self.proxy.group.memory()? as f64)
    }

    /// The share, in percent, of `peak` above `before` that is given back within the time for it.
    ///
    /// A few requests go on meanwhile: allocators return memory when they are called.
    async fn given_back(&self, before: f64, peak: f64) -> io::Result<f64> {
        const PAUSE: Duration = Duration::from_millis(50);
        const REQUESTS: usize = 10;
        const ALMOST_ALL: f64 = 95.0;
        let end = Instant::now() + self.sizes.give_back;
        loop {
            for _ in 0..REQUESTS {
                sleep(PAUSE).await;
                self.proxy.answer().await?;
            }
            let share = (peak - self.proxy.group.memory()? as f64) / (peak - before) * 100.0;
            if share >= ALMOST_ALL || Instant::now() >= end {
                return Ok(share);
            }
        }
    }

    /// Parks so many requests.
    async fn park(&self, count: usize) -> io::Result<Parked> {
        let door = self.proxy.door;
        let mut requests = JoinSet::new();
        for mut client in open_all(count, || KeepAlive::open(door, "/poll")).await? {
            requests.spawn(async move {
                client.operate().await?;
                Ok(client)
            });
        }
        tokio::select! {
            parked = self.server.wait_for(Waiting::Polls, count) => parked?,
            Some(answered) = requests.join_next() => {
                answered.expect("a client does not panic")?;
                return Err(io::Error::other("a request was answered that should be parked"));
            }
        }
        Ok(Parked { requests })
    }
}

/// How long one handshake of a storm may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Requests that wait for their answers.
struct Parked {
    requests: JoinSet<io::Result<KeepAlive>>,
}

impl Parked {
    /// Has all of them answered.
    async fn answer_all(self, server: &Server) -> io::Result<()> {
        server.wake(Waiting::Polls, self.requests.len()).await?;
        self.requests.join_all().await.into_iter().try_for_each(|answered| answered.map(drop))
    }
}

/// Event streams that are read.
struct Audience {
    streams: JoinSet<io::Error>,
    events: Arc<Tally>,
}

impl Audience {
    /// Opens so many streams; returns when the server has them all.
    async fn open(bench: &Bench<'_>, path: &'static str, count: usize) -> io::Result<Self> {
        let door = bench.proxy.door;
        let events = Arc::new(Tally::default());
        let mut streams = JoinSet::new();
        for stream in open_all(count, || EventStream::open(door, path)).await? {
            let events = Arc::clone(&events);
            streams.spawn(async move { stream.follow(&events).await });
        }
        bench.server.wait_for(Waiting::Streams, count).await?;
        Ok(Self { streams, events })
    }

    /// Has one event sent to all; returns when all received it.
    async fn receive_one(&mut self, server: &Server) -> io::Result<()> {
        let count = self.streams.len();
        let received = async {
            server.wake(Waiting::Streams, count).await?;
            self.events.grow_by(count).await
        };
        unless_failed(&mut self.streams, received).await
    }

    /// Repeats that for `window`; returns the number of events received.
    async fn receive_for(&mut self, window: Duration, server: &Server) -> io::Result<usize> {
        let end = Instant::now() + window;
        let mut received = 0;
        while Instant::now() < end {
            self.receive_one(server).await?;
            received += self.streams.len();
        }
        Ok(received)
    }
}

/// What `work` returns, unless one of the `clients`, which have no good end, ends before.
async fn unless_failed<T>(
    clients: &mut JoinSet<io::Error>,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    tokio::select! {
        result = work => result,
        Some(failure) = clients.join_next() => Err(failure.expect("a client does not panic")),
    }
}

/// Echoes a message of so many bytes on each, a few at a time.
async fn echo_once(websockets: Vec<WebSocket>, bytes: usize) -> io::Result<Vec<WebSocket>> {
    let message = Arc::new(Message::with_payload(bytes));
    let echoes = websockets.into_iter().map(|mut websocket| {
        let message = Arc::clone(&message);
        async move { websocket.echo(&message).await.map(|()| websocket) }
    });
    at_most(OPENING_AT_ONCE, echoes).await.into_iter().collect()
}

/// How many of the open connections are still open and still echo.
async fn count_working(websockets: Vec<WebSocket>) -> usize {
    let message = Arc::new(Message::with_payload(SMALL_BYTES));
    let checks = websockets.into_iter().map(|mut websocket| {
        let message = Arc::clone(&message);
        async move {
            let echo = timeout(HANDSHAKE, websocket.echo(&message));
            matches!(echo.await, Ok(Ok(())))
        }
    });
    at_most(OPENING_AT_ONCE, checks).await.into_iter().filter(|works| *works).count()
}
