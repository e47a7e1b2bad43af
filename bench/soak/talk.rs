//! The messages of WebSockets, as both ends send and check them, and the body of events.
//!
//! A message is made of nothing but its connection, its direction and its number, so that whoever gets
//! it can tell every byte of it.

use std::io::{self, Cursor};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::http::fill;
use crate::ledger::{Connection, Ledger, Seen, Way};

/// What everybody does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Sends.
    Talking,
    /// Sends no more, and waits for what is under way.
    Quiet,
    /// Leaves.
    Leaving,
}

/// An end of a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// When an end of a WebSocket does what.
pub(crate) struct Pace {
    /// How often it sends.
    pub(crate) every: Duration,
    /// When it leaves by itself; a server does not.
    pub(crate) leaves: Option<Instant>,
    /// What everybody does.
    pub(crate) phase: watch::Receiver<Phase>,
}

/// How long a peer may take to answer a Close.
const FAREWELL: Duration = Duration::from_secs(20);
const NORMAL: u16 = 1000;
/// The masks of clients. It only has to be there.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The message of this number.
pub(crate) fn message(id: u64, side: Side, number: u64) -> Vec<u8> {
    // Now and then one that no buffer holds as a whole.
    let length = if (id + number).is_multiple_of(97) { 24 * 1024 } else { (id * 7 + number * 13) % 300 };
    let direction = if side == Side::Client { "up" } else { "down" };
    let mut text = format!("{direction} {id} {number} ").into_bytes();
    let filler = (0..length).map(|at| b'a' + ((id + number + at) % 26) as u8);
    text.extend(filler);
    text
}

/// The number that a message says it has.
fn number_of(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.split(' ').nth(2)?.parse().ok()
}

/// Talks over an open WebSocket until it ends; `received` is what has come behind its head.
pub(crate) async fn talk(
    tcp: TcpStream,
    received: Vec<u8>,
    (ledger, connection, side): (&Ledger, &Connection, Side),
    mut pace: Pace,
) -> Seen {
    let (reading, writing) = tokio::io::split(tcp);
    let mut frames = Frames { reading, received };
    let mut end = End { writing, side };
    let (out, into) = match side {
        Side::Client => (&connection.up, &connection.down),
        Side::Server => (&connection.down, &connection.up),
    };
    let mut next = Instant::now() + pace.every.mul_f64((connection.id % 100) as f64 / 100.0);
    loop {
        let phase = *pace.phase.borrow_and_update();
        let is_time = pace.leaves.is_some_and(|leaves| leaves <= Instant::now());
        if side == Side::Client && (phase == Phase::Leaving || is_time) {
            return leave(frames, end, (ledger, connection, into)).await;
        }
        let happened = tokio::select! {
            frame = frames.next() => match frame {
                Ok((OpCode::Control(Control::Close), payload)) => return end.answer(&payload).await,
                Ok(frame) => end.take(frame, (ledger, connection, into)).await,
                Err(_) => return Seen::Cut,
            },
            () = sleep_until(next), if phase == Phase::Talking => {
                next += pace.every;
                end.send(OpCode::Data(Data::Text), message(connection.id, side, out.send())).await
            }
            () = sleep_until(pace.leaves.unwrap_or(next)), if pace.leaves.is_some() => Ok(()),
            changed = pace.phase.changed() => changed.map_err(io::Error::other),
        };
        if happened.is_err() {
            // What has come before it ended tells more.
            return match timeout(FAREWELL, frames.close(side, (ledger, connection, into))).await {
                Ok(Ok(code)) => Seen::Closed(code),
                _ => Seen::Cut,
            };
        }
    }
}

/// Closes as a client that has no more to say, and takes what still comes.
async fn leave(mut frames: Frames, mut end: End, checks: (&Ledger, &Connection, &Way)) -> Seen {
    if end.send(OpCode::Control(Control::Close), NORMAL.to_be_bytes().to_vec()).await.is_err() {
        return Seen::Cut;
    }
    match timeout(FAREWELL, frames.close(Side::Client, checks)).await {
        Ok(Ok(NORMAL)) => Seen::Left,
        Ok(Ok(code)) => Seen::Closed(code),
        _ => Seen::Cut,
    }
}

/// The writing half of an end.
struct End {
    writing: WriteHalf<TcpStream>,
    side: Side,
}

impl End {
    async fn send(&mut self, opcode: OpCode, mut payload: Vec<u8>) -> io::Result<()> {
        let mask = (self.side == Side::Client).then_some(MASK);
        let header = FrameHeader { opcode, mask, ..FrameHeader::default() };
        let mut frame = Vec::with_capacity(payload.len() + 14);
        header.format(payload.len() as u64, &mut frame).map_err(io::Error::other)?;
        apply(mask, &mut payload);
        frame.append(&mut payload);
        self.writing.write_all(&frame).await
    }

    /// Takes a frame that is no Close.
    async fn take(&mut self, (opcode, payload): Frame, checks: (&Ledger, &Connection, &Way)) -> io::Result<()> {
        match opcode {
            OpCode::Control(Control::Ping) => self.send(OpCode::Control(Control::Pong), payload).await,
            OpCode::Control(_) => Ok(()),
            OpCode::Data(_) => {
                check(&payload, self.side, checks);
                Ok(())
            }
        }
    }

    /// Answers a Close with the same code, and waits until the other side has gone.
    async fn answer(mut self, payload: &[u8]) -> Seen {
        let code = code_of(payload);
        // The other side may be gone already: it has said all that counts.
        let _ = self.send(OpCode::Control(Control::Close), payload.to_vec()).await;
        let _ = self.writing.shutdown().await;
        Seen::Closed(code)
    }
}

/// Compares a message that this side got with the one that was sent.
fn check(payload: &[u8], side: Side, (ledger, connection, into): (&Ledger, &Connection, &Way)) {
    let from = if side == Side::Client { Side::Server } else { Side::Client };
    let number = number_of(payload);
    let is_whole = number.is_some_and(|number| payload == message(connection.id, from, number));
    ledger.message(connection, into, number.unwrap_or(into.expected()), is_whole);
}

fn code_of(payload: &[u8]) -> u16 {
    payload.first_chunk().map_or(0, |code| u16::from_be_bytes(*code))
}

fn apply(mask: Option<[u8; 4]>, payload: &mut [u8]) {
    let Some(mask) = mask else { return };
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

type Frame = (OpCode, Vec<u8>);

/// The reading half of an end.
struct Frames {
    reading: ReadHalf<TcpStream>,
    received: Vec<u8>,
}

impl Frames {
    /// The next frame. May be dropped and asked again.
    async fn next(&mut self) -> io::Result<Frame> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(frame);
            }
            fill(&mut self.reading, &mut self.received).await?;
        }
    }

    /// A frame that has come as a whole.
    fn take(&mut self) -> io::Result<Option<Frame>> {
        let mut cursor = Cursor::new(&self.received);
        let Some((header, length)) = FrameHeader::parse(&mut cursor).map_err(io::Error::other)? else {
            return Ok(None);
        };
        let (from, length) = (cursor.position() as usize, usize::try_from(length).map_err(io::Error::other)?);
        if self.received.len() < from + length {
            return Ok(None);
        }
        let mut payload = self.received[from..from + length].to_vec();
        self.received.drain(..from + length);
        apply(header.mask, &mut payload);
        Ok(Some((header.opcode, payload)))
    }

    /// Checks what still comes, until a Close; returns its code.
    async fn close(&mut self, side: Side, checks: (&Ledger, &Connection, &Way)) -> io::Result<u16> {
        loop {
            match self.next().await? {
                (OpCode::Control(Control::Close), payload) => return Ok(code_of(&payload)),
                (OpCode::Data(_), payload) => check(&payload, side, checks),
                _ => {}
            }
        }
    }
}
