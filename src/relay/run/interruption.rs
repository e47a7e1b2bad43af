//! An event stream whose server is lost, or is to be left: it stands still between two events until
//! another server goes on with it, and its client notices nothing.
//!
//! ```text
//! flows ── lost, or left, between two events ──▶ sought: the relay runs on without a server ─┬─ found: flows
//!   │                                              (comments, the client's leave, orders)    └─ given up: ends whole
//!   └───── lost within an event ──▶ ends whole: an EventSource comes back with its own id
//! ```
//!
//! The rule: the client never gets an event twice, nor a part of one and then another. Who is asked,
//! and how often, is not decided here.

use std::sync::Arc;

use super::farewell::come_again;
use super::{Lane, Protocol, Relay, Standing, Step, StepResult, Stopped, registry};
use crate::proxy_protocol::Ends;
use crate::relay::last_event_id::From;
use crate::relay::life::Side;
use crate::relay::resumable::{Course, Resumable, Resumption};
use crate::relay::timers::Tick;
use crate::relay::{EndReason, ServerFraming};
use crate::socket::Parts;
use crate::upstream::{ServerId, Upstream};

/// What another server has to know, and who it may be.
#[derive(Clone, Debug)]
pub struct Quest {
    /// The upstream, by name.
    pub upstream: String,
    /// The server that is lost or left.
    pub from: ServerId,
    /// Why.
    pub reason: EndReason,
    /// The head of the request, as the lost server got it.
    pub head: Vec<u8>,
    /// The last event that the client has got; `None`: it has got none.
    pub last_event_id: Option<Vec<u8>>,
    /// What names its client to the balance.
    pub key: Option<Vec<u8>>,
    /// The connection that servers are told of.
    pub ends: Option<Ends>,
    /// How many servers were asked since an event has passed.
    pub asked: u32,
}

/// A server that goes on with a stream.
#[derive(Debug)]
pub struct NextServer {
    /// Its connection, and what it has sent behind its head.
    pub connection: Parts,
    /// How it delimits the stream.
    pub framing: ServerFraming,
    /// What it belongs to.
    pub upstream: Arc<Upstream>,
    /// Which of the upstream's servers it is.
    pub server: usize,
}

/// What can become of a stream whose server is lost.
enum Prospect {
    /// What it does when nothing is to be resumed.
    None,
    /// It ends as if it was whole.
    Whole,
    /// Another server may go on.
    Resumed,
}

impl Relay {
    /// The server is lost for `reason`; what came before has been passed on.
    pub(super) fn server_lost(&mut self, reason: EndReason) -> StepResult {
        match self.prospect() {
            Prospect::None => {
                self.life.close(reason);
                self.down.break_off();
                Ok(Step::Moved)
            }
            Prospect::Whole => {
                if self.life.closing().is_some_and(EndReason::is_ours) {
                    return Err(reason); // That ends it whole anyway.
                }
                self.end_whole(reason)?;
                Ok(Step::Moved)
            }
            Prospect::Resumed => Err(self.interrupt(reason)),
        }
    }

    fn prospect(&self) -> Prospect {
        let Protocol::Events(events, _) = &self.protocol else { return Prospect::None };
        let Some(resumable) = events.resumable() else { return Prospect::None };
        let metrics = &self.upstream.metrics;
        if resumable.ids.from().is_none() {
            metrics.resumed(Resumption::NoId);
            Prospect::None
        } else if events.is_between() {
            Prospect::Resumed
        } else {
            metrics.resumed(Resumption::MidEvent);
            Prospect::Whole
        }
    }

    fn interrupt(&mut self, reason: EndReason) -> EndReason {
        if let Some(resumable) = self.resumable_mut() {
            resumable.course = Course::Interrupted(reason);
        }
        reason
    }

    /// It leaves its server for `reason` between two events. Where another one may go on, it is
    /// interrupted by that.
    pub(super) fn part(&mut self, reason: EndReason) -> EndReason {
        let Some(resumable) = self.resumable().filter(|_| is_of_server(reason)) else { return reason };
        match resumable.ids.from() {
            Some(_) => self.interrupt(reason),
            None => {
                self.upstream.metrics.resumed(Resumption::NoId);
                reason
            }
        }
    }

    /// Why it stops, when that is because it has lost its server.
    pub(super) fn interrupted(&self) -> Option<EndReason> {
        match self.resumable()?.course {
            Course::Interrupted(reason) => Some(reason),
            Course::Flows | Course::Sought(_) => None,
        }
    }

    /// Whether it has no server, and another one is sought.
    pub(super) fn is_sought(&self) -> bool {
        self.resumable().is_some_and(|resumable| matches!(resumable.course, Course::Sought(_)))
    }

    /// Whether `reason` to end is one that it has given way to already.
    pub(super) fn has_given_way(&self, reason: EndReason) -> bool {
        self.is_sought() && is_of_server(reason)
    }

    /// Stands still: from now on it runs without a server.
    pub(super) fn stand_still(mut self, reason: EndReason) -> Self {
        if let Some(resumable) = self.resumable_mut() {
            resumable.course = Course::Sought(reason);
            if resumable.ids.has_passed_lately() || is_of_server(reason) {
                resumable.asked = 0;
            }
        }
        self.count();
        self.server.cut();
        self.up = Lane::default();
        self.life = self.life.begun_again(registry::now());
        self.change_tasks();
        self
    }

    fn resumable(&self) -> Option<&Resumable> {
        let Protocol::Events(events, _) = &self.protocol else { return None };
        events.resumable()
    }

    fn resumable_mut(&mut self) -> Option<&mut Resumable> {
        let Protocol::Events(events, _) = &mut self.protocol else { return None };
        events.resumable_mut()
    }

    /// Whoever runs it next has another waker.
    fn change_tasks(&mut self) {
        self.place = match std::mem::replace(&mut self.place, Standing::New) {
            Standing::Here(place) => Standing::Again(place.id()),
            other => other,
        };
        self.wakes_at = Tick::default();
    }

    /// Whom it needs while it stands still; `None` when it does not.
    pub fn quest(&self) -> Option<Quest> {
        let resumable = self.resumable()?;
        let Course::Sought(reason) = resumable.course else { return None };
        let last_event_id = match resumable.ids.from()? {
            From::Id(id) => Some(id.to_vec()),
            From::Request => None,
        };
        Some(Quest {
            upstream: self.upstream.name.clone(),
            from: self.upstream.servers[usize::from(self.record.server_index())].id,
            reason,
            head: resumable.head.clone(),
            last_event_id,
            key: resumable.key.clone(),
            ends: resumable.ends,
            asked: resumable.asked,
        })
    }

    /// Goes on with another server, which was found when so many had been `asked`.
    pub fn go_on(mut self, next: NextServer, asked: u32) -> Self {
        let NextServer { connection, framing, upstream, server } = next;
        self.change_tasks();
        if let Protocol::Events(events, _) = &mut self.protocol {
            events.go_on(framing, asked);
        }
        self.record.moved(&upstream, server);
        upstream.metrics.resumed(Resumption::Resumed);
        self.upstream = upstream;
        self.server = connection.transport;
        self.up = Lane::new(connection.unsent);
        self.life.heard(registry::now());
        self.read_ahead(&connection.unread);
        self
    }

    /// Nobody goes on with it: it ends, as if it was whole. Returns it where there is more to be run.
    ///
    /// # Errors
    /// How it has stopped, which is no failure.
    pub fn give_up(self) -> Result<Self, Stopped> {
        self.upstream.metrics.resumed(Resumption::Failed);
        self.let_go()
    }

    /// The same where nobody is to go on with it, so that it is no failure that nobody does.
    ///
    /// # Errors
    /// How it has stopped, which is no failure.
    pub fn let_go(mut self) -> Result<Self, Stopped> {
        let Some(Course::Sought(reason)) = self.resumable().map(|resumable| resumable.course) else { return Ok(self) };
        if let Some(resumable) = self.resumable_mut() {
            resumable.course = Course::Flows;
        }
        self.change_tasks();
        if reason.is_ours() {
            return Err(self.end(reason).map_or(Stopped::Ended, Stopped::Freed));
        }
        match self.end_whole(reason) {
            Ok(()) => Ok(self),
            Err(reason) => Err(self.end(reason).map_or(Stopped::Ended, Stopped::Freed)),
        }
    }

    /// Ends the stream so that its client comes back, with the id that it knows, and may use the same
    /// connection for that.
    fn end_whole(&mut self, reason: EndReason) -> Result<(), EndReason> {
        let Protocol::Events(events, next) = &self.protocol else { return Err(reason) };
        let end = events.end(Some(come_again(self.upstream.sse.retry, fastrand::u32(..))));
        self.life.close(reason);
        self.life.sent(Side::Server, registry::now());
        if next.is_some() {
            self.down.free_taker();
        } else {
            self.down.end();
        }
        self.up.abandon();
        self.send_down(&end)
    }
}

/// Whether it is its server that a relay has to leave, and not the proxy.
fn is_of_server(reason: EndReason) -> bool {
    matches!(reason, EndReason::Drained | EndReason::Rebalanced | EndReason::ServerDown)
}
