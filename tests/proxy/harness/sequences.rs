//! Relays in full traffic, each message of which has a number: so that one that is lost, doubled or out
//! of order shows, and how long each has taken.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::relay::open_events;
use super::websocket::{self, frame, masked_frame, next_frame};
use super::{Proxy, Reading, Upstream, Wire, Writing, seconds, within};

/// Relays that carry numbers, until they are told to end.
pub(crate) struct Sequences {
    clock: Arc<Clock>,
    stop: watch::Sender<bool>,
    writers: JoinSet<(u64, Writing)>,
    readers: JoinSet<(u64, Vec<Duration>, Reading)>,
}

/// What has become of the numbers: all of them came.
pub(crate) struct Whole {
    /// How many messages were carried.
    pub(crate) messages: u64,
    /// How long each has taken, the shortest first.
    pub(crate) latencies: Vec<Duration>,
    /// The ends of all relays, which are still open.
    pub(crate) ends: (Vec<Reading>, Vec<Writing>),
}

/// When all of them began, and how often each end speaks.
struct Clock {
    began: Instant,
    every: Duration,
}

/// What ends a sequence.
const LAST: &str = "last";

impl Sequences {
    /// Opens so many relays through `proxy`, with a message in each direction that there is `every` so
    /// often.
    pub(crate) async fn begin(
        proxy: &Proxy,
        server: &Upstream,
        (websockets, streams): (usize, usize),
        every: Duration,
    ) -> Self {
        let (stop, _) = watch::channel(false);
        let clock = Arc::new(Clock { began: Instant::now(), every });
        let mut this = Self { clock, stop, writers: JoinSet::new(), readers: JoinSet::new() };
        for _ in 0..websockets {
            let (client, server) = websocket::open(proxy, server).await;
            this.add_websocket(client, server);
        }
        for _ in 0..streams {
            let (client, server) = open_events(proxy, server).await;
            this.add_stream(client, server);
        }
        this
    }

    /// Has an open WebSocket carry numbers both ways.
    pub(crate) fn add_websocket(&mut self, client: Wire, server: Wire) {
        let ((from_server, to_server), (from_client, to_client)) = (client.split(), server.split());
        self.write(to_server, masked_frame);
        self.write(to_client, frame);
        self.read(from_server, Form::Frames);
        self.read(from_client, Form::Frames);
    }

    /// Has an open event stream carry numbers.
    pub(crate) fn add_stream(&mut self, client: Wire, server: Wire) {
        let ((reading, writing), (unread, to_client)) = (client.split(), server.split());
        self.write(to_client, |text| format!("{:x}\r\ndata:{text}\n\n\r\n", text.len() + 7).into_bytes());
        self.read(reading, Form::Events);
        // The other direction stays open, and silent.
        self.writers.spawn(async { (0, writing) });
        self.readers.spawn(async { (0, Vec::new(), unread) });
    }

    fn write(&mut self, mut writing: Writing, form: impl Fn(&str) -> Vec<u8> + Send + 'static) {
        let (clock, mut stop) = (self.clock.clone(), self.stop.subscribe());
        self.writers.spawn(async move {
            let mut number = 0;
            while !*stop.borrow_and_update() {
                writing.send(form(&format!("{number} {}", clock.began.elapsed().as_micros()))).await;
                number += 1;
                tokio::select! {
                    () = sleep(clock.every) => {}
                    _ = stop.changed() => {}
                }
            }
            writing.send(form(LAST)).await;
            (number, writing)
        });
    }

    fn read(&mut self, mut reading: Reading, form: Form) {
        let clock = self.clock.clone();
        self.readers.spawn(async move {
            let (mut expected, mut latencies) = (0, Vec::new());
            loop {
                let text = form.next(&mut reading).await;
                reading.forget();
                let Some((number, sent)) = text.split_once(' ') else {
                    assert_eq!(text, LAST);
                    return (expected, latencies, reading);
                };
                assert_eq!(number.parse(), Ok(expected), "a number is missing, doubled or out of order");
                expected += 1;
                let sent = Duration::from_micros(sent.parse().expect("a time"));
                latencies.push(clock.began.elapsed().saturating_sub(sent));
            }
        });
    }

    /// Has all of them come to their end, and sees that every message has come, once and in order.
    pub(crate) async fn end(self) -> Whole {
        self.stop.send_replace(true);
        let (written, read) = within(seconds(60), "all numbers to come", async {
            (self.writers.join_all().await, self.readers.join_all().await)
        })
        .await;
        let sent: u64 = written.iter().map(|(count, _)| count).sum();
        let came: u64 = read.iter().map(|(count, ..)| count).sum();
        assert_eq!(sent, came);
        let mut latencies: Vec<_> = read.iter().flat_map(|(_, latencies, _)| latencies.iter().copied()).collect();
        latencies.sort_unstable();
        let ends = (
            read.into_iter().map(|(.., reading)| reading).collect(),
            written.into_iter().map(|(_, writing)| writing).collect(),
        );
        Whole { messages: came, latencies, ends }
    }
}

/// How messages come.
#[derive(Clone, Copy)]
enum Form {
    Frames,
    Events,
}

impl Form {
    async fn next(self, reading: &mut Reading) -> String {
        let text = match self {
            Self::Frames => next_frame(reading).await.1,
            Self::Events => {
                reading.until(b"data:").await;
                let event = reading.until(b"\n\n").await;
                event[..event.len() - 2].to_vec()
            }
        };
        String::from_utf8(text).expect("it is text")
    }
}
