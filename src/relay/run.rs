//! A relay as a task: two sockets, polled until one reason ends both, or until it comes to rest.

mod farewell;
mod frozen;
mod interruption;

use std::future::Future;
use std::io;
use std::mem;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::events::Events;
use super::inbox::{Answer, Description, Id};
use super::lane::{self, HEADROOM, Lane};
use super::life::{Due, Life, Limits, Side};
use super::registry::{self, Features, Place, Wish};
use super::strays::Origin;
use super::timers::Tick;
use super::websocket::WebSocket;
use super::{EndReason, chunked};
use crate::observe::Record;
use crate::socket::{self, Parts, Transport};
use crate::upstream::Upstream;

use farewell::come_again;
#[cfg(test)]
pub(crate) use frozen::tests::sample;
pub use frozen::{Frozen, Home, NewHome, Unsound};
pub use interruption::{NextServer, Quest};

/// What an exchange hands over when its connection stays.
#[derive(Debug)]
pub struct Handover {
    /// The client's connection.
    pub client: Transport,
    /// What the client sent that nobody has read.
    pub client_unread: Vec<u8>,
    /// What was written for the client and not yet sent: the response's head, for one.
    pub client_unsent: Vec<u8>,
    /// The server's connection.
    pub server: Transport,
    /// What was written for the server and not yet sent: the end of the request's body.
    pub server_unsent: Vec<u8>,
    /// What the server sent behind its head.
    pub server_unread: Vec<u8>,
    /// What it carries.
    pub protocol: Protocol,
    /// How long it may do what.
    pub limits: Limits,
    /// How long the client has been sent nothing.
    pub quiet_for: Duration,
    /// Whose it is, as far as trusted proxies tell.
    pub client_address: IpAddr,
    /// What has chosen the server.
    pub origin: Origin,
    /// Where the server belongs to.
    pub upstream: Arc<Upstream>,
    /// Accounts for the exchange; its end is the relay's end.
    pub record: Record,
}

/// What is known of the bytes that a relay carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// An event stream. What the client sends is its next request, which waits here if the
    /// connection is to outlive the stream; else it goes nowhere.
    Events(Events, Option<Vec<u8>>),
    /// A WebSocket.
    WebSocket(WebSocket),
    /// Nothing: they are passed on.
    Unknown,
}

/// A connection that stays.
#[derive(Debug)]
pub struct Relay {
    client: Transport,
    server: Transport,
    /// From the client to the server.
    up: Lane,
    /// From the server to the client.
    down: Lane,
    /// The client has said that it sends nothing more.
    client_ended: bool,
    protocol: Protocol,
    life: Life,
    limits: Limits,
    place: Standing,
    origin: Origin,
    /// When the wheel wakes it next.
    wakes_at: Tick,
    client_address: IpAddr,
    upstream: Arc<Upstream>,
    record: Record,
}

/// How a relay stands in its thread's registry.
#[derive(Debug)]
enum Standing {
    /// Not yet.
    New,
    /// Under this id before it came to rest, and not since.
    Again(Id),
    /// Here.
    Here(Place),
}

/// What the client may send of its next request before no more of it is read. What TCP holds back
/// then is not lost either, only a close behind it is seen later.
const NEXT_REQUEST_MAX: usize = 16 * 1024;

/// How a relay has stopped to run.
#[derive(Debug)]
pub enum Stopped {
    /// It has ended.
    Ended,
    /// It has ended, and left its client's connection.
    Freed(Freed),
    /// It rests: nothing has ended, and [`Relay::run`] goes on with it.
    Paused(Box<Relay>),
    /// It has no server any more, and another one can go on with it: see [`Relay::quest`].
    Interrupted(Box<Relay>),
}

/// A client's connection that the relay leaves as it found it.
#[derive(Debug)]
pub struct Freed {
    /// The connection, with what has been read of the next request.
    pub client: Parts,
    /// How long that request may take to come.
    pub patience: Duration,
}

/// How often a relay goes on before others have their turn: it bounds a turn to about a megabyte.
const ROUNDS_MAX: usize = 16;

/// What one look at a direction brought.
enum Step {
    /// Bytes moved: look again.
    Moved,
    /// Nothing to do until a socket or the clock wakes the relay.
    Waiting,
}

type StepResult = Result<Step, EndReason>;

/// What comes of a turn that is not the last.
enum Turn {
    /// It waits for its sockets and the clock.
    GoesOn,
    /// It does nothing more until it is run again.
    Rests,
}

impl Relay {
    /// Begins with what the HTTP sessions had read ahead.
    pub fn new(mut handover: Handover) -> Self {
        let now = registry::now();
        let mut relay = Self {
            client: handover.client,
            server: handover.server,
            up: Lane::new(handover.server_unsent),
            down: Lane::new(handover.client_unsent),
            client_ended: false,
            protocol: handover.protocol,
            life: Life::new(now),
            limits: handover.limits,
            place: Standing::New,
            origin: handover.origin,
            wakes_at: Tick::default(),
            client_address: handover.client_address,
            upstream: handover.upstream,
            record: handover.record,
        };
        relay.life.quiet_for(Tick::count(handover.quiet_for));
        let unread = 0..handover.client_unread.len();
        if let Protocol::WebSocket(websocket) = &mut relay.protocol {
            websocket.pass(Side::Client, &mut handover.client_unread, unread); // Nothing is inserted yet.
        }
        if let Protocol::Events(events, next) = &mut relay.protocol {
            let begin = events.begin(relay.upstream.sse.retry);
            relay.down.keep(&begin);
            if let Some(next) = next {
                *next = handover.client_unread;
            }
        } else {
            relay.up.keep(&handover.client_unread);
        }
        relay.read_ahead(&handover.server_unread);
        if let Protocol::Events(events, _) = &relay.protocol
            && events.is_untouched()
        {
            relay.life.greet();
        }
        relay
    }

    /// Goes on until it ends.
    pub fn run(self) -> Running {
        Running(Some(self))
    }

    /// Takes what the server sent behind its head as if it had just been read.
    fn read_ahead(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(lane::READ_MAX) {
            let failed = lane::with_buffer(|buffer| {
                buffer[HEADROOM..HEADROOM + piece.len()].copy_from_slice(piece);
                self.deliver(buffer, piece.len())
            });
            if self.interrupted().is_some() {
                return;
            }
            if let Err(reason) = failed {
                self.life.close(reason);
                self.down.break_off();
                return;
            }
        }
    }

    /// Passes on to the client what stands in `buffer`: `read` bytes of the server's.
    fn deliver(&mut self, buffer: &mut [u8], read: usize) -> Result<(), EndReason> {
        let mut bytes = HEADROOM..HEADROOM + read;
        match &mut self.protocol {
            Protocol::Events(events, _) => {
                bytes = match events.pass(buffer, bytes) {
                    Ok(bytes) => bytes,
                    Err(chunked::Malformed) if events.resumable().is_some() => {
                        return self.server_lost(EndReason::ServerError).map(drop);
                    }
                    Err(chunked::Malformed) => return Err(EndReason::ServerError),
                };
                if !bytes.is_empty() {
                    self.life.greeted();
                }
                if events.is_done() {
                    self.complete();
                }
            }
            Protocol::WebSocket(websocket) => {
                let passed = websocket.pass(Side::Server, buffer, bytes);
                if passed.has_ping {
                    self.life.pinged(registry::now());
                    self.upstream.metrics.pings.inc();
                }
                bytes = passed.bytes;
            }
            Protocol::Unknown => {}
        }
        self.send_down(&buffer[bytes])
    }

    /// Server to client.
    fn step_down(&mut self, cx: &mut Context<'_>) -> StepResult {
        let mut took = false;
        let flushed = self.down.poll_flush(&self.client, cx, &mut took);
        self.note_sent(Side::Client, took);
        if took {
            self.life.client_lives(registry::now());
        }
        match flushed {
            Poll::Pending => return Ok(Step::Waiting),
            Poll::Ready(Err(error)) => return Err(lost(Side::Client, &error)),
            Poll::Ready(Ok(())) if !self.down.is_open() || self.is_sought() => return Ok(Step::Waiting),
            Poll::Ready(Ok(())) => {}
        }
        lane::with_buffer(|buffer| match lane::poll_read(&mut self.server, buffer, cx) {
            Poll::Pending => Ok(Step::Waiting),
            Poll::Ready(Ok(0)) => self.server_closed(),
            Poll::Ready(Ok(read)) => {
                self.life.heard(registry::now());
                self.deliver(buffer, read)?;
                Ok(Step::Moved)
            }
            // A WebSocket says by itself whether it has come to its end.
            Poll::Ready(Err(error)) if is_cut(&error) && matches!(self.protocol, Protocol::WebSocket(_)) => {
                self.server_closed()
            }
            Poll::Ready(Err(error)) => {
                // What came before still goes to the client.
                self.up.abandon();
                self.server_lost(lost(Side::Server, &error))
            }
        })
    }

    fn server_closed(&mut self) -> StepResult {
        let last = match &self.protocol {
            Protocol::Events(events, _) => events.closed(),
            Protocol::WebSocket(_) | Protocol::Unknown => Ok(&[][..]),
        };
        match last {
            Ok(last) => {
                self.complete();
                self.send_down(last)?;
            }
            Err(chunked::Malformed) => {
                self.up.end();
                return self.server_lost(EndReason::ServerError);
            }
        }
        Ok(Step::Moved)
    }

    /// The server has said all: the client gets what is left of it, and then its connection ends as
    /// well, unless it may be used again.
    fn complete(&mut self) {
        self.life.close(EndReason::ServerClosed);
        match &self.protocol {
            Protocol::Events(_, Some(_)) => self.down.free_taker(),
            Protocol::Events(_, None) | Protocol::WebSocket(_) | Protocol::Unknown => self.down.end(),
        }
        if self.is_event_stream() {
            self.up.end();
        }
    }

    fn is_event_stream(&self) -> bool {
        matches!(self.protocol, Protocol::Events(..))
    }

    /// Client to server.
    fn step_up(&mut self, cx: &mut Context<'_>) -> StepResult {
        let mut took = false;
        let flushed = self.up.poll_flush(&self.server, cx, &mut took);
        self.note_sent(Side::Server, took);
        match flushed {
            Poll::Pending => return Ok(Step::Waiting),
            Poll::Ready(Err(error)) => return self.server_takes_nothing(&error),
            Poll::Ready(Ok(())) => {}
        }
        let next_is_full = matches!(&self.protocol, Protocol::Events(_, Some(next)) if next.len() >= NEXT_REQUEST_MAX);
        if self.client_ended || next_is_full {
            return Ok(Step::Waiting);
        }
        lane::with_buffer(|buffer| match lane::poll_read(&mut self.client, buffer, cx) {
            Poll::Pending => Ok(Step::Waiting),
            Poll::Ready(Ok(0)) => self.client_closed(),
            // Browsers close as they please, and no server takes what is missing for whole.
            Poll::Ready(Err(error)) if is_cut(&error) => self.client_closed(),
            Poll::Ready(Ok(read)) => self.forward(buffer, read),
            Poll::Ready(Err(error)) => Err(lost(Side::Client, &error)),
        })
    }

    /// Passes on to the server what stands in `buffer`: `read` bytes of the client's.
    fn forward(&mut self, buffer: &mut [u8], read: usize) -> StepResult {
        let mut bytes = HEADROOM..HEADROOM + read;
        if let Protocol::WebSocket(websocket) = &mut self.protocol {
            self.life.client_lives(registry::now());
            bytes = websocket.pass(Side::Client, buffer, bytes).bytes;
        }
        if let Protocol::Events(_, Some(next)) = &mut self.protocol {
            next.extend_from_slice(&buffer[bytes.clone()]);
        }
        if self.is_discarding() || bytes.is_empty() {
            return Ok(Step::Moved);
        }
        self.life.heard(registry::now());
        self.send_up(&buffer[bytes])
    }

    fn send_up(&mut self, bytes: &[u8]) -> StepResult {
        match self.up.send(&self.server, bytes) {
            Ok(took) => self.note_sent(Side::Server, took),
            Err(error) => return self.server_takes_nothing(&error),
        }
        Ok(Step::Moved)
    }

    fn send_down(&mut self, bytes: &[u8]) -> Result<(), EndReason> {
        let took = self.down.send(&self.client, bytes).map_err(|error| lost(Side::Client, &error))?;
        self.note_sent(Side::Client, took);
        Ok(())
    }

    /// Whether what the client sends has no taker. It is still read: behind the last request of a
    /// connection nothing can follow that means anything, behind a server's end nothing that
    /// reaches anyone, and what is left unread would turn our close into a reset.
    fn is_discarding(&self) -> bool {
        self.is_event_stream() || !self.up.is_open()
    }

    fn client_closed(&mut self) -> StepResult {
        self.client_ended = true;
        if self.is_event_stream() {
            return Err(EndReason::ClientClosed);
        }
        self.life.close(EndReason::ClientClosed);
        if let Protocol::WebSocket(websocket) = &mut self.protocol {
            let held = websocket.release();
            if !self.is_discarding() {
                self.send_up(&held)?;
            }
        }
        self.up.end();
        Ok(Step::Moved)
    }

    /// The server is gone for what the client sends; what it sent itself may still be on its way.
    fn server_takes_nothing(&mut self, error: &io::Error) -> StepResult {
        self.life.close(lost(Side::Server, error));
        self.up.abandon();
        Ok(Step::Moved)
    }

    fn note_sent(&mut self, side: Side, took: bool) {
        let lane = match side {
            Side::Client => &self.down,
            Side::Server => &self.up,
        };
        if took {
            self.life.sent(side, registry::now());
        }
        if lane.is_blocked() {
            self.life.stalled(side, registry::now());
        }
    }

    /// Looks at both directions until both wait.
    fn advance(&mut self, cx: &mut Context<'_>) -> StepResult {
        for _ in 0..ROUNDS_MAX {
            let down = self.step_down(cx)?;
            let up = self.step_up(cx)?;
            if self.client_ended && self.up.has_ended() && self.down.has_ended() {
                return Err(EndReason::ServerClosed);
            }
            if self.down.has_freed_taker() {
                return Err(EndReason::ServerClosed);
            }
            if self.has_taken_leave() {
                return Err(self.part(self.life.closing().unwrap_or(EndReason::Shutdown)));
            }
            if matches!((down, up), (Step::Waiting, Step::Waiting)) {
                return Ok(Step::Waiting);
            }
        }
        Ok(Step::Moved)
    }

    /// Does what time demands, and has itself woken when the next thing is due.
    fn mind_the_clock(&mut self, cx: &Context<'_>) -> Result<(), EndReason> {
        let now = registry::now();
        let due = loop {
            match self.life.due(now, &self.limits) {
                Due::End(reason) if reason.is_ours() && !self.life.is_leaving() => {
                    self.leave(reason, Tick::NEVER)?;
                    cx.waker().wake_by_ref(); // For the answers.
                }
                Due::End(reason) => return Err(reason),
                Due::Keepalive => self.keep_alive(now, cx)?,
                Due::Later(due) => break due,
            }
        };
        if let Standing::Here(place) = &self.place
            && (due < self.wakes_at || self.wakes_at <= now)
        {
            let has_come_up = self.wakes_at <= now;
            self.wakes_at = place.wake_at(due);
            if has_come_up {
                self.count();
            }
        }
        Ok(())
    }

    /// Adds up what has happened. Not at every message: the counters belong to all threads.
    fn count(&mut self) {
        self.record.add_bytes(mem::take(&mut self.up.sent), mem::take(&mut self.down.sent));
        if let Protocol::WebSocket(websocket) = &mut self.protocol {
            let counts = websocket.take_counts();
            self.record.add_messages(counts.up, counts.down);
            self.upstream.metrics.carried(counts);
        }
    }

    fn keep_alive(&mut self, now: Tick, cx: &Context<'_>) -> Result<(), EndReason> {
        let inserted = match &mut self.protocol {
            Protocol::Events(events, _) => events.comment(&self.upstream.sse.comment),
            Protocol::WebSocket(websocket) => websocket.ping(),
            Protocol::Unknown => None,
        };
        // Within a line there is nothing to be done but to try again an interval later; within a
        // frame the Ping goes out with its end.
        self.life.kept_alive(now);
        let Some(inserted) = inserted else { return Ok(()) };
        self.send_down(&inserted)?;
        if self.is_event_stream() {
            self.upstream.metrics.keepalives.inc();
        } else {
            self.upstream.metrics.pings.inc();
            self.life.pinged(now);
        }
        if self.down.is_blocked() {
            cx.waker().wake_by_ref(); // To wait for the client to take the rest.
        }
        Ok(())
    }

    fn describe(&self, id: Id) -> Description {
        let (bytes_in, bytes_out) = self.record.bytes();
        Description {
            id,
            kind: self.record.kind(),
            client: self.client_address,
            upstream: self.upstream.clone(),
            server: self.record.server_index(),
            age: self.record.age(),
            idle: registry::now().since(self.life.quiet_since()),
            bytes_in: bytes_in + self.up.sent,
            bytes_out: bytes_out + self.down.sent,
            ending: self.life.closing(),
        }
    }

    /// What others want of it now. It has its place from the first time on that it looks.
    fn wish(&mut self, cx: &Context<'_>) -> (Id, Wish) {
        let features = || Features {
            kind: self.record.kind(),
            client: self.client_address,
            upstream: &self.upstream,
            server: self.record.server_index(),
            origin: self.origin,
            age: self.record.age(),
        };
        let place = match mem::replace(&mut self.place, Standing::New) {
            Standing::Here(place) => place,
            Standing::Again(id) => Place::again(id, cx.waker(), features()),
            Standing::New => Place::new(cx.waker(), features()),
        };
        let (id, wish) = (place.id(), place.wish());
        self.place = Standing::Here(place);
        (id, wish)
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Result<Turn, EndReason> {
        let (id, wish) = self.wish(cx);
        if let Some(reason) = self.interrupted() {
            return Err(reason);
        }
        if let Some(asker) = wish.question {
            // Whoever asks has made room for all answers, or does not wait for them any more.
            let _ = asker.try_send(Answer::Relay(self.describe(id)));
        }
        if let Some(ending) = wish.ending {
            self.leave(ending.reason, ending.by)?;
        }
        if wish.is_to_pause && self.can_pause() {
            self.pause(id);
            return Ok(Turn::Rests);
        }
        if let Step::Moved = self.advance(cx)? {
            cx.waker().wake_by_ref(); // The others first.
        }
        self.mind_the_clock(cx)?;
        Ok(Turn::GoesOn)
    }

    /// Accounts for it. Of its two connections, that of the client may be left.
    fn end(mut self, reason: EndReason) -> Option<Freed> {
        let reason = self.life.closing().unwrap_or(reason);
        if let Protocol::Events(events, _) = &self.protocol
            && reason.is_ours()
            && !self.down.is_blocked()
        {
            // What the server broke off must not look finished; what we end is. As far as the
            // socket takes it at once: the connection ends in any case.
            let retry = reason.is_move().then(|| come_again(self.upstream.sse.retry, fastrand::u32(..)));
            let _ = self.down.send(&self.client, &events.end(retry));
        }
        if reason.is_ours() && !self.down.is_blocked() {
            self.client.say_goodbye();
        }
        self.count();
        if let Protocol::WebSocket(websocket) = &self.protocol {
            let code = websocket.close_code();
            self.upstream.metrics.closed(code);
            self.record.closed(code);
        }
        self.record.end(reason);
        let Protocol::Events(_, Some(next)) = self.protocol else { return None };
        let client = Parts { transport: self.client, unread: next, unsent: Vec::new() };
        self.down.has_freed_taker().then_some(Freed { client, patience: self.upstream.timeouts.keepalive })
    }
}

/// A relay as a future.
#[derive(Debug)]
pub struct Running(Option<Relay>);

impl Running {
    /// Takes it back between two turns; `None` when it has stopped.
    pub fn into_relay(self) -> Option<Relay> {
        self.0
    }
}

impl Future for Running {
    type Output = Stopped;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Stopped> {
        let relay = self.0.as_mut().expect("a future that has ended is not polled");
        let turn = relay.turn(cx);
        if let Ok(Turn::GoesOn) = turn {
            return Poll::Pending;
        }
        let relay = self.0.take().expect("it has just had its turn");
        Poll::Ready(match turn {
            Ok(_) => Stopped::Paused(Box::new(relay)),
            Err(reason) => match relay.interrupted() {
                Some(reason) => Stopped::Interrupted(Box::new(relay.stand_still(reason))),
                None => relay.end(reason).map_or(Stopped::Ended, Stopped::Freed),
            },
        })
    }
}

/// Whether the connection has ended as TLS does not end one.
fn is_cut(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof
}

/// The reason that an error on one side's socket is.
fn lost(side: Side, error: &io::Error) -> EndReason {
    match side {
        _ if socket::is_peer_gone(error) => EndReason::PeerGone,
        Side::Client => EndReason::ClientError,
        Side::Server => EndReason::ServerError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_relay_is_small() {
        // What a connection costs for hours, beside two sockets and a task's own 130 bytes. With
        // these tokio rounds it up to a multiple of 128, so up to 496 it costs 640.
        assert!(size_of::<Running>() <= 496, "{} bytes", size_of::<Running>());
    }
}
