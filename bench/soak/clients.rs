//! Clients that come back whatever becomes of their connections, and check everything that they get.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::http::{Body, fill, read_head};
use crate::ledger::{Connection, Kind, Ledger, Seen};
use crate::servers::event;
use crate::talk::{Pace, Phase, Side, talk};

/// How often a WebSocket's client says something.
const EVERY: Duration = Duration::from_secs(4);
/// How long a client stays before it leaves by itself, and how much longer at most.
const STAYS_SECONDS: std::ops::Range<u64> = 60..600;
/// How long a client waits before it comes back.
const RETURNS_MS: std::ops::Range<u64> = 100..1000;
/// How long a head may take, on a busy machine.
const HEAD: Duration = Duration::from_secs(20);

/// What all clients share.
pub(crate) struct World {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) proxy: SocketAddr,
    pub(crate) phase: watch::Receiver<Phase>,
    /// The number of the newest event, which every stream must have got in the end.
    pub(crate) newest: watch::Receiver<u64>,
}

/// Is a client of this kind until everybody leaves.
pub(crate) async fn live(world: Arc<World>, kind: Kind, number: usize, mut random: Rng) {
    // The event that a reader has got last.
    let mut last = None;
    let mut phase = world.phase.clone();
    // Not all of them come in the same moment.
    sleep(Duration::from_millis(random.u64(0..5000))).await;
    while *phase.borrow_and_update() != Phase::Leaving {
        let connection = world.ledger.open(kind);
        let leaves = Instant::now() + Duration::from_secs(random.u64(STAYS_SECONDS));
        let client = Client { world: &world, connection: &connection, number, leaves };
        let seen = match kind {
            Kind::WebSocket => client.websocket().await,
            Kind::Stream => client.stream(&mut last).await,
            Kind::Poll => client.poll().await,
        };
        world.ledger.end(connection, seen.unwrap_or(Seen::Cut));
        sleep(Duration::from_millis(random.u64(RETURNS_MS))).await;
    }
}

struct Client<'a> {
    world: &'a World,
    connection: &'a Connection,
    number: usize,
    leaves: Instant,
}

impl Client<'_> {
    /// A connection on which a request was sent, and the head of the answer: its status, itself, and what
    /// came behind it.
    async fn ask(&self, path: &str, fields: &str) -> io::Result<(TcpStream, u16, String, Vec<u8>)> {
        let mut tcp = TcpStream::connect(self.world.proxy).await?;
        tcp.set_nodelay(true)?;
        let (status, head, received) = self.ask_on(&mut tcp, path, fields, Vec::new()).await?;
        Ok((tcp, status, head, received))
    }

    async fn ask_on(
        &self,
        tcp: &mut TcpStream,
        path: &str,
        fields: &str,
        mut received: Vec<u8>,
    ) -> io::Result<(u16, String, Vec<u8>)> {
        // By their own hop, each client has an address of its own.
        let (high, low) = (self.number / 250, 1 + self.number % 250);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: soak.example\r\nX-Forwarded-For: 198.18.{high}.{low}\r\n{fields}\r\n"
        );
        tcp.write_all(request.as_bytes()).await?;
        let head = timeout(HEAD, read_head(tcp, &mut received)).await??;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.ok_or_else(|| io::Error::other("no status"))?, head, received))
    }

    async fn websocket(&self) -> io::Result<Seen> {
        const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let (tcp, status, _, received) = self.ask(&format!("/ws/{}", self.connection.id), UPGRADE).await?;
        if status != 101 {
            return Ok(Seen::Refused(status));
        }
        let pace = Pace { every: EVERY, leaves: Some(self.leaves), phase: self.world.phase.clone() };
        Ok(talk(tcp, received, (&self.world.ledger, self.connection, Side::Client), pace).await)
    }

    async fn stream(&self, last: &mut Option<u64>) -> io::Result<Seen> {
        let id = last.map(|last| format!("Last-Event-ID: {last}\r\n")).unwrap_or_default();
        let fields = format!("Accept: text/event-stream\r\n{id}");
        let (mut tcp, status, head, mut received) = self.ask(&format!("/sse/{}", self.connection.id), &fields).await?;
        if status != 200 {
            return Ok(Seen::Refused(status));
        }
        self.connection.down.reach(last.unwrap_or_default());
        let (mut body, mut text) = (Body::announced_by(&head)?, Vec::new());
        let mut phase = self.world.phase.clone();
        loop {
            body.decode(&mut received, &mut text)?;
            self.take_events(&mut text, last);
            if body.is_complete() {
                return Ok(Seen::Closed(0));
            }
            // Who leaves has everything, so that what it does not get counts.
            let may_leave = *phase.borrow_and_update() == Phase::Leaving;
            let is_whole = *last == Some(*self.world.newest.borrow());
            if may_leave && is_whole || self.leaves <= Instant::now() {
                return Ok(Seen::Left);
            }
            tokio::select! {
                more = fill(&mut tcp, &mut received) => more?,
                changed = phase.changed() => changed.map_err(io::Error::other)?,
                () = tokio::time::sleep_until(self.leaves) => {}
            }
        }
    }

    /// Checks the events that are whole, and takes them out of `text`.
    fn take_events(&self, text: &mut Vec<u8>, last: &mut Option<u64>) {
        while let Some(end) = text.windows(2).position(|two| two == b"\n\n") {
            let whole: Vec<u8> = text.drain(..end + 2).collect();
            let whole = String::from_utf8_lossy(&whole);
            let field = |name: &str| whole.lines().find_map(|line| line.strip_prefix(name));
            // Comments and times to wait are the proxy's.
            let Some(number) = field("id: ").and_then(|id| id.parse().ok()) else { continue };
            if field("event: ").is_none() {
                let expected = last.map_or(number, |last| last + 1);
                let is_whole = field("data: ") == Some(&event(number));
                self.world.ledger.number(self.connection.id, expected, number, is_whole);
            }
            *last = Some(last.map_or(number, |last| last.max(number)));
            self.connection.down.reach(number);
        }
    }

    async fn poll(&self) -> io::Result<Seen> {
        let mut kept: Option<(TcpStream, Vec<u8>)> = None;
        loop {
            let phase = *self.world.phase.borrow();
            if phase >= Phase::Quiet || self.leaves <= Instant::now() {
                return Ok(self.wait_quietly(kept).await);
            }
            let number = self.connection.up.send();
            let path = format!("/poll/{}/{number}", self.connection.id);
            let (mut tcp, status, head, mut received) = self.ask_again(kept.take(), &path).await?;
            let (mut body, mut text) = (Body::announced_by(&head)?, Vec::new());
            while {
                body.decode(&mut received, &mut text)?;
                !body.is_complete()
            } {
                fill(&mut tcp, &mut received).await?;
            }
            if status != 200 {
                return Ok(Seen::Refused(status));
            }
            let is_whole = text == format!("{} {number}", self.connection.id).as_bytes();
            self.world.ledger.message(self.connection, &self.connection.up, number, is_whole);
            let is_kept = !head.to_ascii_lowercase().contains("connection: close");
            kept = is_kept.then_some((tcp, received));
        }
    }

    /// Asks on a connection that was kept, or on a new one if there is none, or if it was just being closed.
    async fn ask_again(
        &self,
        kept: Option<(TcpStream, Vec<u8>)>,
        path: &str,
    ) -> io::Result<(TcpStream, u16, String, Vec<u8>)> {
        // No server answers as soon as this: what ends later was a request under way.
        const CROSSED: Duration = Duration::from_secs(1);
        if let Some((mut tcp, received)) = kept {
            let began = Instant::now();
            match self.ask_on(&mut tcp, path, "", received).await {
                Ok((status, head, received)) => return Ok((tcp, status, head, received)),
                Err(error) if began.elapsed() > CROSSED => return Err(error),
                Err(_) => {}
            }
        }
        self.ask(path, "").await
    }

    /// Has nothing more to ask, but does not come back before everybody leaves.
    async fn wait_quietly(&self, kept: Option<(TcpStream, Vec<u8>)>) -> Seen {
        let mut phase = self.world.phase.clone();
        while *phase.borrow_and_update() == Phase::Quiet && phase.changed().await.is_ok() {}
        drop(kept);
        Seen::Left
    }
}
