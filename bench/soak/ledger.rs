//! What every connection has carried and how it ended, and who ended it.
//!
//! Whatever ends has to be explained twice: by what its client saw, and by the one line that the proxy wrote
//! about it. What is not is a loss, and so is a message that did not come where nobody was killed or told
//! to leave.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Messages both ways.
    WebSocket,
    /// Events with ids.
    Stream,
    /// One request behind the other, each answered when it has waited.
    Poll,
}

impl Kind {
    /// How it is written in the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "WebSocket",
            Self::Stream => "event stream",
            Self::Poll => "long-poll",
        }
    }
}

/// One direction of a connection.
#[derive(Default)]
pub(crate) struct Way {
    sent: AtomicU64,
    got: AtomicU64,
}

impl Way {
    /// The number of the next message, which is about to be sent.
    pub(crate) fn send(&self) -> u64 {
        self.sent.fetch_add(1, Ordering::Relaxed)
    }

    /// The number that the next message must have.
    pub(crate) fn expected(&self) -> u64 {
        self.got.load(Ordering::Relaxed)
    }

    /// What must follow has this number, at least.
    pub(crate) fn reach(&self, next: u64) {
        self.got.fetch_max(next, Ordering::Relaxed);
    }

    /// How many messages are under way.
    pub(crate) fn under_way(&self) -> u64 {
        self.sent.load(Ordering::Relaxed).saturating_sub(self.expected())
    }
}

/// A connection as both its ends see it.
pub(crate) struct Connection {
    /// Given once; it stands in the path of its requests.
    pub(crate) id: u64,
    pub(crate) kind: Kind,
    /// To the server.
    pub(crate) up: Way,
    /// To the client. A stream, whose ids go on from one connection to the next, only reaches them.
    pub(crate) down: Way,
    /// When its server was last killed, in milliseconds of the run.
    killed: AtomicU64,
}

const NEVER: u64 = u64::MAX;

/// How a client saw a connection end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It went by itself, and properly.
    Left,
    /// A WebSocket was closed with this code.
    Closed(u16),
    /// It just ended.
    Cut,
    /// A request was refused with this status.
    Refused(u16),
}

struct Ended {
    connection: Arc<Connection>,
    seen: Seen,
    at: u64,
}

/// Messages that did not come as they should.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) altered: u64,
}

/// Everything that happens to connections.
pub(crate) struct Ledger {
    began: Instant,
    next: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Connection>>>,
    ended: Mutex<Vec<Ended>>,
    wrong: Mutex<(Wrong, Vec<String>)>,
    messages: AtomicU64,
    /// When servers were killed, in milliseconds of the run.
    kills: Mutex<Vec<u64>>,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            next: AtomicU64::new(1),
            open: Mutex::default(),
            ended: Mutex::default(),
            wrong: Mutex::default(),
            messages: AtomicU64::new(0),
            kills: Mutex::default(),
        }
    }

    /// Milliseconds since the run began.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(NEVER)
    }

    /// A connection that its client is about to make.
    pub(crate) fn open(&self, kind: Kind) -> Arc<Connection> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (up, down) = Default::default();
        let connection = Arc::new(Connection { id, kind, up, down, killed: AtomicU64::new(NEVER) });
        lock(&self.open).insert(id, connection.clone());
        connection
    }

    /// The connection that a server was asked for.
    pub(crate) fn find(&self, id: u64) -> Option<Arc<Connection>> {
        lock(&self.open).get(&id).cloned()
    }

    /// How many are open, or about to be.
    pub(crate) fn count_open(&self) -> usize {
        lock(&self.open).len()
    }

    /// Messages that are still under way on what is open, when nobody sends and `newest` is the last event.
    pub(crate) fn under_way(&self, newest: u64) -> u64 {
        let of = |it: &Arc<Connection>| match it.kind {
            Kind::WebSocket => it.up.under_way() + it.down.under_way(),
            Kind::Stream => newest.saturating_sub(it.down.expected()),
            Kind::Poll => it.up.under_way(),
        };
        lock(&self.open).values().map(of).sum()
    }

    /// How its client saw it end.
    pub(crate) fn end(&self, connection: Arc<Connection>, seen: Seen) {
        lock(&self.open).remove(&connection.id);
        lock(&self.ended).push(Ended { at: self.now(), connection, seen });
    }

    /// A message came on one way of a connection, with this number and as it was sent or not.
    pub(crate) fn message(&self, connection: &Connection, way: &Way, number: u64, is_whole: bool) {
        self.number(connection.id, way.expected(), number, is_whole);
        way.reach(number + 1);
    }

    /// A message came where `expected` should have come, in connection `id`.
    pub(crate) fn number(&self, id: u64, expected: u64, number: u64, is_whole: bool) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        if number == expected && is_whole {
            return;
        }
        let wrong = Wrong {
            lost: number.saturating_sub(expected),
            doubled: u64::from(number < expected),
            altered: u64::from(!is_whole),
        };
        self.is_wrong(wrong, format!("connection {id}: {number} in the place of {expected}, {wrong:?}"));
    }

    /// Counts what is wrong; of the first few the report tells.
    pub(crate) fn is_wrong(&self, wrong: Wrong, what: String) {
        const TOLD: usize = 20;
        let (sum, told) = &mut *lock(&self.wrong);
        sum.lost += wrong.lost;
        sum.doubled += wrong.doubled;
        sum.altered += wrong.altered;
        if told.len() < TOLD {
            told.push(what);
        }
    }

    /// A server was killed that had these.
    pub(crate) fn kill(&self, connections: &[Arc<Connection>]) {
        let now = self.now();
        lock(&self.kills).push(now);
        for connection in connections {
            connection.killed.store(now, Ordering::Relaxed);
        }
    }

    /// Messages that came so far.
    pub(crate) fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    /// What was wrong with them, and some of it in words.
    pub(crate) fn wrong(&self) -> (Wrong, Vec<String>) {
        lock(&self.wrong).clone()
    }

    /// Who ended what, by what the clients saw and by what the proxy logged (`reasons`, by id).
    pub(crate) fn ends(&self, reasons: &HashMap<u64, String>) -> Ends {
        let mut ends = Ends::default();
        for Ended { connection, seen, at } in &*lock(&self.ended) {
            let reason = reasons.get(&connection.id).map(String::as_str);
            // A request may be on its way to a server that dies before it has read it.
            let of_any = matches!(seen, Seen::Refused(_));
            let is_soon_behind = |killed: u64| killed <= *at && at - killed <= AFTERMATH.as_millis() as u64;
            let was_killed = is_soon_behind(connection.killed.load(Ordering::Relaxed))
                || of_any && lock(&self.kills).iter().any(|killed| is_soon_behind(*killed));
            let by = who(connection.kind, seen, reason, was_killed);
            *ends.counts.entry((connection.kind, by)).or_default() += 1;
            match by {
                Who::Nobody => ends.unexplained.push(format!(
                    "{} {} at {:.1} s: its client saw {seen:?}, the proxy logged {reason:?}",
                    connection.kind.name(),
                    connection.id,
                    *at as f64 / 1e3
                )),
                Who::Client if connection.kind == Kind::WebSocket => {
                    ends.left_behind += connection.up.under_way() + connection.down.under_way();
                }
                _ => ends.cut_off += connection.up.under_way() + connection.down.under_way(),
            }
        }
        ends
    }
}

/// How long what a killed server had may take to end: a client sees it at once, on a busy machine later.
const AFTERMATH: Duration = Duration::from_secs(5);

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    /// Its client, as we had it do.
    Client,
    /// Its server, which we killed.
    Kill,
    /// The proxy, because we drained its server.
    Drain,
    /// The proxy, because we changed where it belongs.
    Rebalance,
    /// Nobody who had a reason: a loss.
    Nobody,
}

impl Who {
    /// All of them, in the order of the report, and how they are called there.
    pub(crate) const ALL: [(Self, &'static str); 5] = [
        (Self::Client, "its client left"),
        (Self::Kill, "its server was killed"),
        (Self::Drain, "drained"),
        (Self::Rebalance, "rebalanced"),
        (Self::Nobody, "unexplained"),
    ];
}

/// Who has ended a connection that its client saw end like this, and of which the proxy logged `reason`.
fn who(kind: Kind, seen: &Seen, reason: Option<&str>, was_killed: bool) -> Who {
    const GOING_AWAY: u16 = 1001;
    const SERVICE_RESTART: u16 = 1012;
    // Of a WebSocket the client must have been told; leaving may cross that on its way.
    let was_told = match kind {
        Kind::WebSocket => matches!(seen, Seen::Closed(SERVICE_RESTART | GOING_AWAY) | Seen::Left),
        Kind::Stream => true,
        Kind::Poll => false,
    };
    match (reason, seen) {
        (Some("drained"), _) if was_told => Who::Drain,
        (Some("rebalanced"), _) if was_told => Who::Rebalance,
        // A poll is a request of many, each with a line of its own.
        (_, Seen::Left) if kind == Kind::Poll => Who::Client,
        (Some("client_closed" | "server_closed" | "complete"), Seen::Left) => Who::Client,
        // It drops its socket, which is reset if a comment has come that it has not read.
        (Some("client_error"), Seen::Left) if kind == Kind::Stream => Who::Client,
        (Some("server_closed" | "server_error" | "refused" | "complete"), _) if was_killed => Who::Kill,
        (_, Seen::Cut | Seen::Refused(502 | 504)) if kind == Kind::Poll && was_killed => Who::Kill,
        _ => Who::Nobody,
    }
}

/// What has become of all connections.
#[derive(Default)]
pub(crate) struct Ends {
    /// How many of each kind each has ended.
    pub(crate) counts: BTreeMap<(Kind, Who), u64>,
    /// Those that nobody had a reason to end, in words.
    pub(crate) unexplained: Vec<String>,
    /// Messages under way on connections whose clients left properly: a loss.
    pub(crate) left_behind: u64,
    /// Messages under way on connections that were ended for a reason: no loss.
    pub(crate) cut_off: u64,
}

/// What a panic of another thread has left is good enough to be reported.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
