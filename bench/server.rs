//! The server behind the proxies, in a process of its own.
//!
//! ```text
//! /ws            WebSocket; echoes every frame
//! /sse           event stream that ends with its connection   ─┐ one event
//! /sse/chunked   event stream in chunks, as most servers send ─┘ per wake
//! /poll          answers at the next wake
//! /small         answers at once
//! /control/await/{streams|polls}/N   answers when N of them wait
//! /control/wake/{streams|polls}/N    waits for N of them, then wakes them all
//! ```
//!
//! The benchmark steers it over `/control`, not through a proxy. It lives as long as its standard
//! input is open, so it cannot outlive the benchmark.

use std::io::{self, BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

use crate::client::Connection;
use crate::door::Door;
use crate::http::{self, header};
use crate::process::Group;
use crate::scenario::Over;
use crate::websocket::{self, ClientFrame};

/// The body of `/small` and `/poll`.
pub(crate) const SMALL: &[u8] = b"Hello, world!";

/// One event: 125 bytes of data, as in the smaller WebSocket scenarios.
pub(crate) fn event() -> Vec<u8> {
    format!("data: {}\n\n", "e".repeat(125)).into_bytes()
}

/// The server's process, as the benchmark holds it. It ends when this is dropped.
pub(crate) struct Server {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    _group: Group,
}

/// Connections of the server that wait to be woken.
#[derive(Clone, Copy)]
pub(crate) enum Waiting {
    /// Event streams; each sends one event at a wake and waits again.
    Streams,
    /// Parked requests; each is answered at a wake.
    Polls,
}

impl Server {
    /// Starts this very program again, as the server.
    pub(crate) fn start() -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--serve");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut group = Group::spawn(&mut command)?;
        let output = group.take_stdout().expect("the standard output is a pipe, taken once");
        let mut port = String::new();
        BufReader::new(output).read_line(&mut port)?;
        let port: u16 = port.trim().parse().map_err(|_| io::Error::other("the server did not start"))?;
        let address = (Ipv4Addr::LOCALHOST, port).into();
        Ok(Self { address, _group: group })
    }

    /// Returns when `count` connections wait.
    pub(crate) async fn wait_for(&self, who: Waiting, count: usize) -> io::Result<()> {
        self.control("await", who, count).await
    }

    /// Wakes those that wait as soon as `count` do.
    pub(crate) async fn wake(&self, who: Waiting, count: usize) -> io::Result<()> {
        self.control("wake", who, count).await
    }

    async fn control(&self, action: &str, who: Waiting, count: usize) -> io::Result<()> {
        let who = match who {
            Waiting::Streams => "streams",
            Waiting::Polls => "polls",
        };
        let path = format!("/control/{action}/{who}/{count}");
        Connection::open(Door { address: self.address, over: Over::Tcp }).await?.get_small(&path).await
    }
}

/// Runs the server until its standard input ends.
pub(crate) async fn serve() -> io::Result<()> {
    const BACKLOG: u32 = 4096;
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let listener = socket.listen(BACKLOG)?;
    println!("{}", listener.local_addr()?.port());
    std::thread::spawn(end_with_standard_input);
    accept(&listener).await
}

fn end_with_standard_input() {
    // An error ends it as well: either way nobody is there to steer the server.
    let _ = io::stdin().read_to_end(&mut Vec::new());
    std::process::exit(0);
}

async fn accept(listener: &TcpListener) -> io::Result<()> {
    let rooms = Arc::new(WaitingRooms::default());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let rooms = Arc::clone(&rooms);
        // How a connection ends is the client's to judge.
        tokio::spawn(async move { serve_connection(stream, &rooms).await });
    }
}

/// Where connections wait.
#[derive(Default)]
struct WaitingRooms {
    streams: WaitingRoom,
    polls: WaitingRoom,
}

/// Connections that wait to be woken together.
#[derive(Default)]
struct WaitingRoom {
    /// How many wait.
    waiting: watch::Sender<usize>,
    /// How often they were woken.
    wakes: watch::Sender<u64>,
}

impl WaitingRoom {
    /// Waits for a wake; `false` when the connection ended before.
    async fn wait(&self, stream: &TcpStream) -> bool {
        let mut wakes = self.wakes.subscribe();
        self.waiting.send_modify(|waiting| *waiting += 1);
        let mut byte = [0];
        tokio::select! {
            biased;
            _ = wakes.changed() => true,
            _ = stream.peek(&mut byte) => {
                self.waiting.send_modify(|waiting| *waiting -= 1);
                false
            }
        }
    }

    /// Returns when `count` connections wait.
    async fn filled(&self, count: usize) {
        let mut waiting = self.waiting.subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        let _ = waiting.wait_for(|waiting| *waiting >= count).await;
    }

    fn wake(&self) {
        self.waiting.send_replace(0);
        self.wakes.send_modify(|wakes| *wakes += 1);
    }
}

async fn serve_connection(mut stream: TcpStream, rooms: &WaitingRooms) -> io::Result<()> {
    let mut received = Vec::new();
    loop {
        let head = http::read_head(&mut stream, &mut received).await?;
        let path = head.split(' ').nth(1).unwrap_or_default();
        match path {
            "/small" => respond(&mut stream).await?,
            "/poll" => {
                if !rooms.polls.wait(&stream).await {
                    return Ok(());
                }
                respond(&mut stream).await?;
            }
            "/ws" => return echo_frames(stream, received, &head).await,
            "/sse" => return stream_events(stream, &rooms.streams, Framing::UntilClose).await,
            "/sse/chunked" => return stream_events(stream, &rooms.streams, Framing::Chunked).await,
            path => {
                control(path, rooms).await?;
                respond(&mut stream).await?;
            }
        }
        if header(&head, "Connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            return Ok(());
        }
    }
}

/// Answers with [`SMALL`].
async fn respond(stream: &mut TcpStream) -> io::Result<()> {
    let mut answer =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", SMALL.len()).into_bytes();
    answer.extend_from_slice(SMALL);
    stream.write_all(&answer).await
}

async fn control(path: &str, rooms: &WaitingRooms) -> io::Result<()> {
    let unknown = || io::Error::other(format!("unknown path {path}"));
    let mut words = path.split('/').skip(1);
    let (Some("control"), Some(action), Some(who), Some(count)) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(unknown());
    };
    let room = match who {
        "streams" => &rooms.streams,
        "polls" => &rooms.polls,
        _ => return Err(unknown()),
    };
    room.filled(count.parse().map_err(|_| unknown())?).await;
    if action == "wake" {
        room.wake();
    }
    Ok(())
}

/// How an event stream is framed.
#[derive(Clone, Copy)]
enum Framing {
    UntilClose,
    Chunked,
}

async fn stream_events(mut stream: TcpStream, room: &WaitingRoom, framing: Framing) -> io::Result<()> {
    let framing_header = match framing {
        Framing::UntilClose => "Connection: close",
        Framing::Chunked => "Transfer-Encoding: chunked",
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\
         {framing_header}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut piece = event();
    if let Framing::Chunked = framing {
        piece.splice(..0, format!("{:x}\r\n", piece.len()).into_bytes());
        piece.extend_from_slice(b"\r\n");
    }
    while room.wait(&stream).await {
        stream.write_all(&piece).await?;
    }
    Ok(())
}

async fn echo_frames(mut stream: TcpStream, mut received: Vec<u8>, head: &str) -> io::Result<()> {
    let key = header(head, "Sec-WebSocket-Key").unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        websocket::accept(key)
    );
    stream.write_all(answer.as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        http::fill(&mut stream, &mut received).await?;
        let is_closing = echo_complete(&mut received, &mut answer);
        stream.write_all(&answer).await?;
        answer.clear();
        if is_closing {
            return Ok(());
        }
    }
}

/// Takes the complete frames out of `received` and appends their echoes; `true` after a close.
fn echo_complete(received: &mut Vec<u8>, answer: &mut Vec<u8>) -> bool {
    let (mut taken, mut is_closing) = (0, false);
    while let Some(frame) = ClientFrame::parse(&received[taken..]) {
        frame.echo(&received[taken..], answer);
        is_closing |= frame.opcode == websocket::CLOSE;
        taken += frame.bytes();
    }
    received.drain(..taken);
    is_closing
}
