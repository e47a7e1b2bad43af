//! The clients: plain sockets that send prepared bytes and compare what comes back with what must.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::door::{Door, Stream};
use crate::http::{self, Body, header};
use crate::server::{SMALL, event};
use crate::websocket;

/// Something that is done again and again, one after the other, until time is over.
pub(crate) trait Client: Send + 'static {
    /// Does it once.
    fn operate(&mut self) -> impl Future<Output = io::Result<()>> + Send;
}

/// Lets every client operate for `window`, side by side; returns them and how long each operation
/// took, in nanoseconds.
pub(crate) async fn operate_for<C: Client>(window: Duration, clients: Vec<C>) -> io::Result<(Vec<C>, Vec<u32>)> {
    let end = Instant::now() + window;
    let count = clients.len();
    let repeated = clients.into_iter().map(|client| operate_until(end, client));
    let done: io::Result<Vec<_>> = at_most(count, repeated).await.into_iter().collect();
    let (clients, operations): (Vec<_>, Vec<_>) = done?.into_iter().unzip();
    Ok((clients, operations.concat()))
}

async fn operate_until<C: Client>(end: Instant, mut client: C) -> io::Result<(C, Vec<u32>)> {
    let mut operations = Vec::new();
    let mut began = Instant::now();
    while began < end {
        client.operate().await?;
        let ended = Instant::now();
        operations.push(u32::try_from((ended - began).as_nanos()).unwrap_or(u32::MAX));
        began = ended;
    }
    Ok((client, operations))
}

/// Runs the futures, at most `limit` at a time.
pub(crate) async fn at_most<F>(limit: usize, futures: impl Iterator<Item = F>) -> Vec<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let mut waiting = futures.fuse();
    let mut running: JoinSet<F::Output> = waiting.by_ref().take(limit).collect();
    let mut done = Vec::new();
    while let Some(output) = running.join_next().await {
        done.push(output.expect("a client does not panic"));
        if let Some(next) = waiting.next() {
            running.spawn(next);
        }
    }
    done
}

/// Calls `open` as often as asked, a few at a time.
pub(crate) async fn open_all<T, F>(count: usize, open: impl Fn() -> F) -> io::Result<Vec<T>>
where
    F: Future<Output = io::Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let opened = at_most(OPENING_AT_ONCE, (0..count).map(|_| open())).await;
    opened.into_iter().collect()
}

/// Connections that are being opened, or used once, at the same time.
pub(crate) const OPENING_AT_ONCE: usize = 64;

/// An HTTP/1.1 connection.
pub(crate) struct Connection {
    stream: Stream,
    received: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(door: Door) -> io::Result<Self> {
        Ok(Self { stream: door.open().await?, received: Vec::new() })
    }

    /// Asks for something that answers as `/small` does.
    pub(crate) async fn get_small(&mut self, path: &str) -> io::Result<()> {
        self.exchange_small(&request(path, "")).await
    }

    /// Sends the request and expects [`SMALL`].
    async fn exchange_small(&mut self, request: &str) -> io::Result<()> {
        let head = self.exchange_heads(request, 200).await?;
        let mut body = Body::announced_by(&head)?;
        let mut content = Vec::new();
        body.decode(&mut self.received, &mut content)?;
        while !body.is_complete() {
            http::fill(&mut self.stream, &mut self.received).await?;
            body.decode(&mut self.received, &mut content)?;
        }
        expect_same(&content, SMALL)
    }

    async fn exchange_heads(&mut self, request: &str, status: u16) -> io::Result<String> {
        self.stream.write_all(request.as_bytes()).await?;
        let head = http::read_head(&mut self.stream, &mut self.received).await?;
        let is_expected = head.split(' ').nth(1).is_some_and(|word| word.parse() == Ok(status));
        if !is_expected {
            let line = head.lines().next().unwrap_or_default();
            return Err(io::Error::other(format!("answered {line:?} instead of {status}")));
        }
        Ok(head)
    }
}

/// A request head with about the fields that a browser sends; `fields` are added.
fn request(path: &str, fields: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n\
         Accept: */*\r\nAccept-Language: en\r\nCookie: theme=dark\r\n{fields}\r\n"
    )
}

fn expect_same(actual: &[u8], expected: &[u8]) -> io::Result<()> {
    if actual == expected {
        return Ok(());
    }
    Err(io::Error::other(format!("{} bytes arrived that are not the {} expected", actual.len(), expected.len())))
}

/// Repeats a request on a connection that stays.
pub(crate) struct KeepAlive {
    connection: Connection,
    request: String,
}

impl KeepAlive {
    /// Connects; nothing is sent yet.
    pub(crate) async fn open(door: Door, path: &str) -> io::Result<Self> {
        Ok(Self { connection: Connection::open(door).await?, request: request(path, "") })
    }

    /// Operates until that fails.
    pub(crate) async fn operate_forever(mut self) -> io::Error {
        loop {
            if let Err(error) = self.operate().await {
                return error;
            }
        }
    }
}

impl Client for KeepAlive {
    async fn operate(&mut self) -> io::Result<()> {
        self.connection.exchange_small(&self.request).await
    }
}

/// Asks for `/small` on a connection of its own each time.
pub(crate) struct ConnectionPerRequest {
    /// The proxy's.
    pub(crate) door: Door,
}

impl Client for ConnectionPerRequest {
    async fn operate(&mut self) -> io::Result<()> {
        let mut connection = Connection::open(self.door).await?;
        let request = request("/small", "Connection: close\r\n");
        connection.exchange_small(&request).await?;
        match http::fill(&mut connection.stream, &mut connection.received).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            Err(error) => Err(error),
            Ok(()) => Err(io::Error::other("bytes behind the last response")),
        }
    }
}

/// An open WebSocket.
pub(crate) struct WebSocket {
    connection: Connection,
}

impl WebSocket {
    /// Connects and shakes hands.
    pub(crate) async fn open(door: Door) -> io::Result<Self> {
        let mut connection = Connection::open(door).await?;
        let fields = format!(
            "Connection: Upgrade\r\nUpgrade: websocket\r\nOrigin: http://bench.example\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n",
            websocket::KEY
        );
        let head = connection.exchange_heads(&request("/ws", &fields), 101).await?;
        if header(&head, "Sec-WebSocket-Accept") != Some(websocket::ACCEPT) {
            return Err(io::Error::other("a handshake with another key's answer"));
        }
        Ok(Self { connection })
    }

    /// Sends and awaits one message.
    pub(crate) async fn echo(&mut self, message: &Message) -> io::Result<()> {
        let Connection { stream, received } = &mut self.connection;
        stream.write_all(&message.sent).await?;
        while received.len() < message.echoed.len() {
            http::fill(stream, received).await?;
        }
        expect_same(received, &message.echoed)?;
        received.clear();
        Ok(())
    }
}

/// A WebSocket message, as it is sent and as it must come back.
#[derive(Clone)]
pub(crate) struct Message {
    sent: Vec<u8>,
    echoed: Vec<u8>,
}

impl Message {
    /// A message with so many bytes of payload, each different from its neighbours.
    pub(crate) fn with_payload(bytes: usize) -> Self {
        let payload: Vec<u8> = (0..bytes).map(|i| (i * 7 + i / 256) as u8).collect();
        Self {
            sent: websocket::client_frame(websocket::BINARY, &payload),
            echoed: websocket::server_frame(websocket::BINARY, &payload),
        }
    }
}

/// A WebSocket that repeats one message.
pub(crate) struct Echo {
    /// Open.
    pub(crate) websocket: WebSocket,
    /// What it sends.
    pub(crate) message: Message,
}

impl Client for Echo {
    async fn operate(&mut self) -> io::Result<()> {
        self.websocket.echo(&self.message).await
    }
}

/// An open event stream.
pub(crate) struct EventStream {
    connection: Connection,
    body: Body,
}

impl EventStream {
    /// Connects and reads the response's head.
    pub(crate) async fn open(door: Door, path: &str) -> io::Result<Self> {
        let mut connection = Connection::open(door).await?;
        let request = request(path, "Cache-Control: no-cache\r\n");
        let head = connection.exchange_heads(&request, 200).await?;
        let body = Body::announced_by(&head)?;
        Ok(Self { connection, body })
    }

    /// Counts events until the stream fails; it has no good end.
    pub(crate) async fn follow(mut self, events: &Tally) -> io::Error {
        let mut content = Vec::new();
        loop {
            if let Err(error) = self.read(&mut content, events).await {
                return error;
            }
        }
    }

    async fn read(&mut self, content: &mut Vec<u8>, events: &Tally) -> io::Result<()> {
        let Connection { stream, received } = &mut self.connection;
        self.body.decode(received, content)?;
        events.add(take_events(content, &event())?);
        http::fill(stream, received).await
    }
}

/// Takes the complete events out of `content` and counts them.
///
/// Comments and empty lines between them are no events; a proxy may keep a stream alive with them.
fn take_events(content: &mut Vec<u8>, event: &[u8]) -> io::Result<usize> {
    let (mut count, mut taken) = (0, 0);
    loop {
        let rest = &content[taken..];
        if let Some(b':' | b'\n') = rest.first() {
            match rest.iter().position(|byte| *byte == b'\n') {
                Some(end) => taken += end + 1,
                None => break,
            }
        } else if rest.len() >= event.len() {
            expect_same(&rest[..event.len()], event)?;
            count += 1;
            taken += event.len();
        } else {
            expect_same(rest, &event[..rest.len()])?;
            break;
        }
    }
    content.drain(..taken);
    Ok(count)
}

/// Counts what many clients receive.
#[derive(Default)]
pub(crate) struct Tally {
    count: AtomicUsize,
    awaited: AtomicUsize,
    reached: Notify,
}

impl Tally {
    fn add(&self, more: usize) {
        let count = self.count.fetch_add(more, Ordering::SeqCst) + more;
        if more > 0 && count >= self.awaited.load(Ordering::SeqCst) {
            self.reached.notify_one();
        }
    }

    /// Returns when `more` have been counted since the last time; there is one caller.
    ///
    /// # Errors
    /// When more arrived than was sent.
    pub(crate) async fn grow_by(&self, more: usize) -> io::Result<()> {
        let awaited = self.awaited.fetch_add(more, Ordering::SeqCst) + more;
        loop {
            match self.count.load(Ordering::SeqCst) {
                count if count < awaited => self.reached.notified().await,
                count if count == awaited => return Ok(()),
                _ => return Err(io::Error::other("more events arrived than were sent")),
            }
        }
    }
}

/// Bounds `work` in time; the error says what was not done.
pub(crate) async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, work).await.unwrap_or_else(|_| {
        let text = format!("{what} took longer than {} s", limit.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    })
}
