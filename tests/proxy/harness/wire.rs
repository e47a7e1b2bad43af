//! One connection, TCP or TLS over it, as raw bytes, with a record of every byte that was read from it.
//!
//! Both ends of the tests speak through it: clients and servers. It parses just enough HTTP/1 to
//! find where a message ends, and hides nothing: heads keep their order, case and white space.

use std::io;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;
use tokio_rustls::TlsStream;

use super::{PATIENCE, soon, within};

/// A connection; what can be read is read through [`Reading`].
pub(crate) struct Wire {
    reading: Reading,
    writing: Writing,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream, who: &'static str) -> Self {
        stream.set_nodelay(true).expect("a TCP socket takes TCP_NODELAY");
        let (read, write) = stream.into_split();
        Self::of(Giver::Tcp(read), Taker::Tcp(write), who)
    }

    /// A connection on which both have shaken hands.
    pub(crate) fn encrypted(stream: impl Into<TlsStream<TcpStream>>, who: &'static str) -> Self {
        let stream = stream.into();
        stream.get_ref().0.set_nodelay(true).expect("a TCP socket takes TCP_NODELAY");
        let (read, write) = tokio::io::split(stream);
        Self::of(Giver::Tls(read), Taker::Tls(write), who)
    }

    fn of(read: Giver, write: Taker, who: &'static str) -> Self {
        let reading = Reading { half: read, who, seen: Vec::new(), taken: 0 };
        Self { reading, writing: Writing { half: write, who } }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.writing.send(bytes).await;
    }

    /// Ends our direction; the other stays open.
    pub(crate) async fn finish(&mut self) {
        self.writing.finish().await;
    }

    /// Like [`Wire::send`], for tests that count failures.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        soon("bytes to be taken", self.writing.half.write_all(bytes)).await
    }

    /// Leaves little room in the kernel for what it sends.
    pub(crate) fn narrow(&self) {
        let socket = socket2::SockRef::from(self.reading.half.tcp());
        socket.set_send_buffer_size(8 * 1024).expect("a socket can be narrow");
    }

    /// The address of this end.
    pub(crate) fn address(&self) -> SocketAddr {
        self.reading.half.tcp().local_addr().expect("it is connected")
    }

    /// Ends both directions with a reset.
    pub(crate) fn reset(self) {
        let linger = Some(Duration::ZERO);
        socket2::SockRef::from(self.reading.half.tcp()).set_linger(linger).expect("a TCP socket takes SO_LINGER");
        if let Taker::Tcp(half) = self.writing.half {
            half.forget();
        }
    }

    /// Goes, in one of the ways there are.
    pub(crate) fn leave(self, how: Leaving) {
        match how {
            Leaving::Closed => drop(self),
            Leaving::Reset => self.reset(),
        }
    }

    /// What [`Wire::split`] gave.
    pub(crate) fn joined(reading: Reading, writing: Writing) -> Self {
        Self { reading, writing }
    }

    /// The two directions, for tests that use both at once.
    pub(crate) fn split(self) -> (Reading, Writing) {
        (self.reading, self.writing)
    }
}

impl Deref for Wire {
    type Target = Reading;

    fn deref(&self) -> &Reading {
        &self.reading
    }
}

impl DerefMut for Wire {
    fn deref_mut(&mut self) -> &mut Reading {
        &mut self.reading
    }
}

/// How somebody ends both directions at once.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Leaving {
    /// As a program does that is done.
    Closed,
    /// As a program does that is killed with unread bytes.
    Reset,
}

impl Leaving {
    pub(crate) const ALL: [Self; 2] = [Self::Closed, Self::Reset];
}

/// The direction towards the other side.
pub(crate) struct Writing {
    half: Taker,
    who: &'static str,
}

impl Writing {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sending = async {
            self.half.write_all(bytes.as_ref()).await?;
            self.half.flush().await
        };
        let sent = soon("bytes to be taken", sending).await;
        sent.unwrap_or_else(|error| panic!("{} could not send: {error}", self.who));
    }

    /// Sends until everything is out or no byte is taken for `stop`; how much went out.
    pub(crate) async fn send_until_stopped(&mut self, bytes: &[u8], stop: Duration) -> usize {
        let mut sent = 0;
        while sent < bytes.len() {
            let Ok(written) = timeout(stop, self.half.write(&bytes[sent..])).await else { break };
            sent += written.unwrap_or_else(|error| panic!("{} could not send: {error}", self.who));
        }
        sent
    }

    /// Sends a piece again and again to somebody who may hang up; whether all was taken.
    pub(crate) async fn flood(&mut self, piece: &[u8], length: usize) -> bool {
        let mut sent = 0;
        while sent < length {
            let written = soon("a flood to be taken or refused", self.half.write_all(piece)).await;
            if written.is_err() {
                return false;
            }
            sent += piece.len();
        }
        true
    }

    /// Ends this direction; the other stays open.
    pub(crate) async fn finish(&mut self) {
        self.half.shutdown().await.expect("the connection is open");
    }
}

/// The direction from the other side, and everything it has said.
pub(crate) struct Reading {
    half: Giver,
    who: &'static str,
    seen: Vec<u8>,
    taken: usize,
}

impl Reading {
    /// Every byte read so far, whether a test has asked for it or not.
    pub(crate) fn recorded(&self) -> &[u8] {
        &self.seen
    }

    /// Gives up the record of what was taken, for tests that move more than memory should hold.
    pub(crate) fn forget(&mut self) {
        self.seen.drain(..self.taken);
        self.taken = 0;
    }

    /// Everything up to and with `end`.
    pub(crate) async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            let rest = &self.seen[self.taken..];
            if let Some(at) = rest.windows(end.len()).position(|window| window == end) {
                return self.take(at + end.len());
            }
            self.more("a delimiter").await;
        }
    }

    pub(crate) async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.seen.len() - self.taken < length {
            self.more("more bytes").await;
        }
        self.take(length)
    }

    /// Like [`Reading::exactly`], for tests that count failures.
    pub(crate) async fn try_exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.seen.len() - self.taken < length {
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.take(length))
    }

    /// What comes next, at least a byte; nothing when the other side has ended its direction.
    pub(crate) async fn some(&mut self) -> Vec<u8> {
        self.forget();
        if self.seen.is_empty() {
            let read = self.fill().await;
            read.unwrap_or_else(|error| panic!("{} could not read: {error}", self.who));
        }
        self.take(self.seen.len())
    }

    /// Everything until the other side ends its direction.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let ended = async { while matches!(self.fill().await, Ok(1..)) {} };
        within(PATIENCE * 4, "the other side to end", ended).await;
        self.take(self.seen.len() - self.taken)
    }

    /// The other side ends, cleanly or by a reset, and says nothing before.
    pub(crate) async fn ends(&mut self) {
        let rest = self.rest().await;
        assert!(rest.is_empty(), "{} expected the end, got {}", self.who, show(&rest));
    }

    /// The other side ends, and says nothing before; whether it has said that this is the end, where
    /// TLS has words for it.
    pub(crate) async fn ends_with_goodbye(&mut self) -> bool {
        let end = self.fill().await;
        assert!(matches!(end, Ok(0) | Err(_)), "{} expected the end, got {}", self.who, show(&self.seen[self.taken..]));
        end.is_ok()
    }

    /// Nothing comes for this long, not even an end. An absence can only be waited for.
    pub(crate) async fn stays_silent(&mut self, time: Duration) {
        let rest = &self.seen[self.taken..];
        assert!(rest.is_empty(), "{} expected silence, had {}", self.who, show(rest));
        let mut buffer = vec![0; 4096];
        if let Ok(read) = timeout(time, self.half.read(&mut buffer)).await {
            let read = read.map(|length| show(&buffer[..length]));
            panic!("{} expected silence, got {read:?}", self.who);
        }
    }

    /// The next head: start line and fields.
    pub(crate) async fn head(&mut self) -> Head {
        Head::parse(&self.until(b"\r\n\r\n").await)
    }

    /// Waits for the next byte, however long it takes; whether one comes.
    pub(crate) async fn comes(&mut self) -> bool {
        self.seen.len() > self.taken || matches!(self.half.read_buf(&mut self.seen).await, Ok(1..))
    }

    /// The next request, however long it takes; `None` when the client leaves first.
    pub(crate) async fn next_request(&mut self) -> Option<Message> {
        if self.comes().await { Some(self.request().await) } else { None }
    }

    /// The next request, with its body.
    pub(crate) async fn request(&mut self) -> Message {
        let head = self.head().await;
        let body = match head.framing() {
            Framing::Length(length) => self.exactly(length).await,
            Framing::Chunked => self.chunks().await,
            Framing::None => Vec::new(),
        };
        Message { interim: Vec::new(), head, body }
    }

    /// The next response to anything but HEAD, with its body and the interim heads before it.
    pub(crate) async fn response(&mut self) -> Message {
        within(PATIENCE * 4, "a whole response", self.whole_response()).await
    }

    async fn whole_response(&mut self) -> Message {
        let mut interim = Vec::new();
        let head = loop {
            let head = self.head().await;
            match head.status() {
                100 | 102..=199 => interim.push(head),
                _ => break head,
            }
        };
        let body = match (head.status(), head.framing()) {
            (101 | 204 | 304, _) => Vec::new(),
            (_, Framing::Length(length)) => self.exactly(length).await,
            (_, Framing::Chunked) => self.chunks().await,
            (_, Framing::None) => self.rest().await,
        };
        Message { interim, head, body }
    }

    /// The next chunk; `None` for the last one, whose trailers are read and dropped.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = String::from_utf8(self.until(b"\r\n").await).expect("a chunk head is ASCII");
        let size = line.trim_end().split(';').next().expect("split yields at least one");
        let size = usize::from_str_radix(size.trim(), 16)
            .unwrap_or_else(|_| panic!("{} got the chunk head {line:?}", self.who));
        if size == 0 {
            while self.until(b"\r\n").await != b"\r\n" {}
            return None;
        }
        let chunk = self.exactly(size).await;
        assert_eq!(self.exactly(2).await, b"\r\n", "the end of a chunk of {size} bytes");
        Some(chunk)
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await {
            body.extend(chunk);
        }
        body
    }

    async fn more(&mut self, wanted: &str) {
        match self.fill().await {
            Ok(1..) => {}
            other => {
                let rest = show(&self.seen[self.taken..]);
                panic!("{} wanted {wanted} and got {other:?} after {rest}", self.who);
            }
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        match timeout(PATIENCE, self.half.read_buf(&mut self.seen)).await {
            Ok(read) => read,
            Err(_) => panic!("{} waited {PATIENCE:?} after {}", self.who, show(&self.seen[self.taken..])),
        }
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let taken = self.seen[self.taken..self.taken + length].to_vec();
        self.taken += length;
        taken
    }
}

/// What bytes are read from.
enum Giver {
    Tcp(OwnedReadHalf),
    Tls(ReadHalf<TlsStream<TcpStream>>),
}

impl Giver {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Tcp(half) => half.as_ref(),
            Self::Tls(_) => panic!("this is for plain connections"),
        }
    }
}

impl AsyncRead for Giver {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_read(cx, buf),
            Self::Tls(half) => Pin::new(half).poll_read(cx, buf),
        }
    }
}

/// What bytes are written to.
enum Taker {
    Tcp(OwnedWriteHalf),
    Tls(WriteHalf<TlsStream<TcpStream>>),
}

impl AsyncWrite for Taker {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_write(cx, bytes),
            Self::Tls(half) => Pin::new(half).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_flush(cx),
            Self::Tls(half) => Pin::new(half).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_shutdown(cx),
            Self::Tls(half) => Pin::new(half).poll_shutdown(cx),
        }
    }
}

/// A start line and fields, as they were on the wire.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) start: String,
    fields: Vec<(String, String)>,
}

enum Framing {
    Length(usize),
    Chunked,
    None,
}

impl Head {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let mut lines = text.trim_end().split("\r\n");
        let start = lines.next().expect("split yields at least one").to_owned();
        let field = |line: &str| {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no field: {line:?}"));
            (name.to_owned(), value.trim().to_owned())
        };
        Self { start, fields: lines.map(field).collect() }
    }

    pub(crate) fn status(&self) -> u16 {
        let code = self.start.split(' ').nth(1).and_then(|code| code.parse().ok());
        code.unwrap_or_else(|| panic!("no status line: {:?}", self.start))
    }

    /// All values of a field, joined as HTTP allows; `None` when it is absent.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let named = |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
        let values: Vec<_> = self.fields.iter().filter(named).map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    fn framing(&self) -> Framing {
        if self.field("transfer-encoding").is_some_and(|coding| coding.ends_with("chunked")) {
            return Framing::Chunked;
        }
        match self.field("content-length") {
            Some(length) => Framing::Length(length.parse().expect("a length is a number")),
            None => Framing::None,
        }
    }
}

/// A whole request or response.
#[derive(Debug)]
pub(crate) struct Message {
    /// The 1xx heads that came first.
    pub(crate) interim: Vec<Head>,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Message {
    pub(crate) fn status(&self) -> u16 {
        self.head.status()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body, which is JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// Bytes for people: escaped, and cut when long.
pub(crate) fn show(bytes: &[u8]) -> String {
    let shown = bytes[..bytes.len().min(600)].escape_ascii();
    format!("{} bytes \"{shown}\"", bytes.len())
}
