//! Random traffic of every kind, every byte of it compared: sizes from one byte to a MiB, split and
//! paused anywhere, with Pings and comments of the proxy's own inserted.
//!
//! 64 MiB by default. More with `STEADFAST_TRAFFIC_MIB=1024`; a failure prints its seed, which
//! `STEADFAST_SEED` repeats.

use std::sync::Arc;
use std::time::Duration;

use crc32fast::Hasher;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::harness::relay::{open_events, open_tunnel};
use crate::harness::websocket::{masked, open};
use crate::harness::{Proxy, Random, Reading, Upstream, Writing, millis};

/// What goes through the proxy, all in all.
const MIB: usize = 64;

/// How many of each kind there are, so that some share a thread.
const RELAYS: usize = 2;

/// Directions of one of each kind: two of a WebSocket, two of a tunnel, one of an event stream.
const DIRECTIONS: usize = 5;

/// Longest message.
const MESSAGE_MAX: usize = 1 << 20;

/// How often a direction falls silent for long enough that the proxy inserts something.
const SILENCES: usize = 4;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// What is random about one direction.
struct Dice {
    random: Random,
    /// What messages are cut from, a random part each.
    pool: Arc<[u8]>,
}

impl Dice {
    /// 1 to `most`, small as often as large.
    fn size(&mut self, most: usize) -> usize {
        let bits = self.random.up_to(most.ilog2() as usize + 1);
        self.random.up_to((1 << bits).min(most))
    }

    fn message(&mut self, most: usize) -> Vec<u8> {
        let size = self.size(most);
        let at = self.random.up_to(self.pool.len() - size + 1) - 1;
        self.pool[at..at + size].to_vec()
    }
}

/// What went in or came out.
#[derive(Default)]
struct Sum {
    hasher: Hasher,
    length: usize,
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.length += bytes.len();
    }

    fn end(self) -> (usize, u32) {
        (self.length, self.hasher.finalize())
    }
}

/// Sends in random pieces, with random pauses.
struct Sender {
    writing: Writing,
    dice: Dice,
    total: usize,
    sum: Sum,
    silences: usize,
    silence: Duration,
}

impl Sender {
    fn new(writing: Writing, dice: Dice, total: usize, silence: Duration) -> Self {
        Self { writing, dice, total, sum: Sum::default(), silences: 0, silence }
    }

    fn left(&self) -> usize {
        self.total.saturating_sub(self.sum.length)
    }

    async fn send(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let size = self.dice.size(rest.len());
            let (piece, after) = rest.split_at(size);
            self.writing.send(piece).await;
            rest = after;
            if self.dice.random.up_to(400) == 1 {
                tokio::time::sleep(millis(self.dice.random.next() % 8)).await;
            }
            if self.silences % 2 == 1 {
                self.rest().await;
            }
        }
    }

    /// Falls silent if it is time: by turns here, between two messages, and within one.
    async fn between_messages(&mut self) {
        if self.silences.is_multiple_of(2) {
            self.rest().await;
        }
    }

    async fn rest(&mut self) {
        if self.sum.length * SILENCES >= self.total * self.silences {
            self.silences += 1;
            tokio::time::sleep(self.silence).await;
        }
    }
}

/// Bytes as they are.
async fn send_bytes(mut sender: Sender) -> (usize, u32) {
    while sender.left() > 0 {
        sender.between_messages().await;
        let message = sender.dice.message(MESSAGE_MAX);
        sender.sum.add(&message);
        sender.send(&message).await;
    }
    sender.writing.finish().await;
    sender.sum.end()
}

async fn receive_bytes(mut reading: Reading) -> (usize, u32) {
    let mut sum = Sum::default();
    loop {
        let bytes = reading.some().await;
        if bytes.is_empty() {
            return sum.end();
        }
        sum.add(&bytes);
    }
}

/// Frames, masked ones with a random mask; and what `pongs` brings, which does not count.
async fn send_frames(mut sender: Sender, is_client: bool, mut pongs: mpsc::UnboundedReceiver<Vec<u8>>) -> (usize, u32) {
    while sender.left() > 0 {
        sender.between_messages().await;
        while let Ok(payload) = pongs.try_recv() {
            let mask = (sender.dice.random.next() as u32).to_be_bytes();
            let pong = masked(0x8A, &payload, mask);
            sender.send(&pong).await;
        }
        let payload = sender.dice.message(MESSAGE_MAX);
        let mut frame = vec![[0x01, 0x00, 0x80, 0x81, 0x82][sender.dice.random.up_to(5) - 1]];
        let mask_bit = if is_client { 0x80 } else { 0 };
        match payload.len() {
            length @ 0..126 => frame.push(mask_bit | length as u8),
            length @ 126..65536 => {
                frame.push(mask_bit | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(mask_bit | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        if is_client {
            frame.extend((sender.dice.random.next() as u32).to_be_bytes());
        }
        frame.extend(payload);
        sender.sum.add(&frame);
        sender.send(&frame).await;
    }
    sender.writing.finish().await;
    sender.sum.end()
}

/// All but Pings, whose payloads go to `pings`: no test server sends any.
async fn receive_frames(mut reading: Reading, pings: mpsc::UnboundedSender<Vec<u8>>) -> (usize, u32) {
    let (mut sum, mut header, mut left, mut is_ping) = (Sum::default(), Vec::new(), 0, false);
    loop {
        let bytes = reading.some().await;
        if bytes.is_empty() {
            assert!(header.is_empty() && left == 0, "it ended within a frame");
            return sum.end();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            if left == 0 {
                header.push(rest[0]);
                rest = &rest[1..];
                let needed = match header.get(1) {
                    None => continue,
                    Some(126) => 4,
                    Some(127) => 10,
                    Some(_) => 2,
                };
                if header.len() < needed {
                    continue;
                }
                left = match header[1] {
                    126 => u64::from(u16::from_be_bytes([header[2], header[3]])),
                    127 => u64::from_be_bytes(header[2..10].try_into().expect("eight bytes")),
                    length => length.into(),
                };
                is_ping = header[0] == 0x89;
                if is_ping {
                    header.clear();
                } else {
                    sum.add(&std::mem::take(&mut header));
                }
            } else {
                let taken = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let payload;
                (payload, rest) = rest.split_at(taken);
                left -= taken as u64;
                if !is_ping {
                    sum.add(payload);
                    continue;
                }
                header.extend(payload);
                if left == 0 {
                    // Once everything is sent nobody takes it.
                    let _ = pings.send(std::mem::take(&mut header));
                }
            }
        }
    }
}

/// Lines in chunks that end anywhere.
async fn send_events(mut sender: Sender) -> (usize, u32) {
    while sender.left() > 0 {
        sender.between_messages().await;
        let mut line = b"data: ".to_vec();
        line.extend(sender.dice.message(MESSAGE_MAX / 8).iter().map(|byte| b'a' + byte % 26));
        line.extend(if sender.dice.random.up_to(2) == 1 { &b"\n"[..] } else { b"\n\n" });
        sender.sum.add(&line);
        let mut rest = &line[..];
        while !rest.is_empty() {
            let size = sender.dice.size(rest.len());
            let (piece, after) = rest.split_at(size);
            rest = after;
            let chunk = [format!("{size:x}\r\n").as_bytes(), piece, b"\r\n"].concat();
            sender.send(&chunk).await;
        }
    }
    sender.writing.send("0\r\n\r\n").await;
    sender.sum.end()
}

/// All lines but comments, of which there must be some.
async fn receive_events(mut reading: Reading) -> (usize, u32) {
    let (mut sum, mut is_line_start, mut is_comment, mut comments) = (Sum::default(), true, false, 0);
    while let Some(chunk) = reading.chunk().await {
        reading.forget();
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            if is_line_start {
                is_comment = part[0] == b':';
                comments += usize::from(is_comment);
            }
            is_line_start = part.ends_with(b"\n");
            if !is_comment {
                sum.add(part);
            }
        }
    }
    assert!(comments > 0, "no comment was inserted");
    sum.end()
}

#[tokio::test]
async fn random_traffic_arrives_byte_for_byte() {
    let seed = number("STEADFAST_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let mib = number("STEADFAST_TRAFFIC_MIB").map_or(MIB, |mib| usize::try_from(mib).expect("it fits"));
    println!("STEADFAST_SEED={seed} STEADFAST_TRAFFIC_MIB={mib} repeats this");
    let each = (mib << 20) / RELAYS / DIRECTIONS;
    let mut seeds = Random::seeded(seed);
    let pool: Arc<[u8]> = Random::seeded(seed).bytes(2 * MESSAGE_MAX).into();
    let mut dice = || Dice { random: Random::seeded(seeds.next()), pool: pool.clone() };
    let server = Upstream::start().await;
    let proxy = Proxy::start()
        .upstream("chat", &[&server])
        .sse("{ keepalive: 100ms }")
        .websocket("{ ping: 1s, pong_timeout: 1m }")
        .run()
        .await;

    let (mut sums, began) = (JoinSet::new(), std::time::Instant::now());
    let mut compare = |what: &'static str, sent: JoinSet<(usize, u32)>| {
        sums.spawn(async move { (what, sent.join_all().await) });
    };
    for _ in 0..RELAYS {
        let (client, upstream) = open(&proxy, &server).await;
        let ((from_server, to_server), (from_client, to_client)) = (client.split(), upstream.split());
        let (pings, pongs) = mpsc::unbounded_channel();
        let silence = millis(1300);
        let mut up = JoinSet::new();
        up.spawn(send_frames(Sender::new(to_server, dice(), each, silence), true, pongs));
        up.spawn(receive_bytes(from_client));
        compare("WebSocket, up", up);
        let mut down = JoinSet::new();
        down.spawn(send_frames(Sender::new(to_client, dice(), each, silence), false, mpsc::unbounded_channel().1));
        down.spawn(receive_frames(from_server, pings));
        compare("WebSocket, down", down);

        let (client, upstream) = open_tunnel(&proxy, &server).await;
        let ((from_server, to_server), (from_client, to_client)) = (client.split(), upstream.split());
        for (what, writing, reading) in
            [("tunnel, up", to_server, from_client), ("tunnel, down", to_client, from_server)]
        {
            let mut direction = JoinSet::new();
            direction.spawn(send_bytes(Sender::new(writing, dice(), each, millis(10))));
            direction.spawn(receive_bytes(reading));
            compare(what, direction);
        }

        let (client, upstream) = open_events(&proxy, &server).await;
        let ((from_server, to_server), (from_client, to_client)) = (client.split(), upstream.split());
        let mut events = JoinSet::new();
        let sender = Sender::new(to_client, dice(), each, millis(500));
        events.spawn(async move {
            let sum = send_events(sender).await;
            drop(from_client);
            sum
        });
        events.spawn(async move {
            let sum = receive_events(from_server).await;
            drop(to_server);
            sum
        });
        compare("events, down", events);
    }
    while let Some(compared) = sums.join_next().await {
        let (what, sums) = compared.expect("a direction failed");
        assert_eq!(sums[0], sums[1], "{what}: length and CRC of what was sent and of what came");
        assert!(sums[0].0 >= each, "{what}: only {} bytes", sums[0].0);
    }
    let pings = proxy.metrics().await.sum("steadfast_websocket_pings_total", &[]);
    println!("{mib} MiB in {:?}, with {pings} Pings inserted", began.elapsed());
    assert!(pings > 0.0, "no Ping was inserted");
}
