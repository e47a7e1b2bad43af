//! How other threads reach the relays of a worker: each worker has an inbox, and obeys what comes
//! in at once, also when all its relays are silent.
//!
//! ```text
//! admin ── Workers ─┬─ Order ─▶ Inbox of worker 0 ─▶ registry ─ wakes ─▶ relay ─┐
//!                   └─ Order ─▶ Inbox of worker n ─▶ ...                        │
//!       ◀─ Answer ──────────────────────────────────────────────────────────────┘
//! ```
//!
//! The rule: nobody waits for a worker without a bound, and no worker waits for anybody. An inbox
//! that is full belongs to a worker that is stuck; what it does not answer is said to be missing.

use std::collections::BinaryHeap;
use std::fmt;
use std::net::IpAddr;
use std::num::ParseIntError;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashSet;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

use super::departures::{Drain, DrainId};
use super::strays::{Found, Search};
use super::{EndReason, Kind, registry};
use crate::upstream::Upstream;

/// Names a relay in the life of the process; a later relay has a larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub u64);

impl Id {
    /// What tells it from others that had the same place within some time.
    #[expect(clippy::cast_possible_truncation, reason = "four billion relays later it comes again")]
    pub fn turn(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Id {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        text.parse().map(Self)
    }
}

/// Which relays somebody wants to know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Only of this kind.
    pub kind: Option<Kind>,
    /// Only of this upstream.
    pub upstream: Option<String>,
    /// Only with the server of this name.
    pub server: Option<String>,
    /// Only this one.
    pub id: Option<Id>,
    /// Only of this client.
    pub client: Option<IpAddr>,
    /// Only those that are as old as this, to a tenth of a second.
    pub min_age: Duration,
    /// Which come first.
    pub first: First,
    /// Only those behind this one, in that order.
    pub after: Option<Id>,
    /// How many at most: 1 to [`Query::LIMIT_MAX`].
    pub limit: usize,
}

impl Query {
    /// The longest page.
    pub const LIMIT_MAX: usize = 1000;
}

impl Default for Query {
    fn default() -> Self {
        Self {
            kind: None,
            upstream: None,
            server: None,
            id: None,
            client: None,
            min_age: Duration::ZERO,
            first: First::Newest,
            after: None,
            limit: 100,
        }
    }
}

/// Which relays come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// Those that began last.
    Newest,
    /// Those that began first.
    Oldest,
}

impl First {
    /// Smaller comes first.
    fn rank(self, id: Id) -> u64 {
        match self {
            Self::Newest => u64::MAX - id.0,
            Self::Oldest => id.0,
        }
    }

    /// Which one has this rank.
    fn id(self, rank: u64) -> Id {
        match self {
            Self::Newest => Id(u64::MAX - rank),
            Self::Oldest => Id(rank),
        }
    }
}

/// The first relays of a query, by id, while all are looked through.
#[derive(Debug)]
pub struct Page<'a> {
    query: &'a Query,
    /// Rank and slot; the last one on top.
    best: BinaryHeap<(u64, u32)>,
    /// There are others behind these.
    is_cut: bool,
}

impl<'a> Page<'a> {
    /// An empty page of `query`.
    pub fn new(query: &'a Query) -> Self {
        Self { query, best: BinaryHeap::new(), is_cut: false }
    }

    /// Puts the relay `id` in `slot` on the page, if it belongs there.
    pub fn offer(&mut self, id: Id, slot: u32) {
        let rank = self.query.first.rank(id);
        if self.query.after.is_some_and(|after| rank <= self.query.first.rank(after)) {
            return;
        }
        if self.best.len() < self.query.limit {
            self.best.push((rank, slot));
            return;
        }
        self.is_cut = true;
        if let Some(mut last) = self.best.peek_mut()
            && rank < last.0
        {
            *last = (rank, slot);
        }
    }

    /// The rank of the last one on the page, if there are others behind it.
    pub fn horizon(&self) -> Option<u64> {
        self.best.peek().filter(|_| self.is_cut).map(|(rank, _)| *rank)
    }

    /// Where they are.
    pub fn into_slots(self) -> impl Iterator<Item = u32> {
        self.best.into_iter().map(|(_, slot)| slot)
    }
}

/// What a relay tells of itself.
#[derive(Clone, Debug)]
pub struct Description {
    /// Which it is.
    pub id: Id,
    /// What it carries.
    pub kind: Kind,
    /// Whose it is, as far as trusted proxies tell.
    pub client: IpAddr,
    /// Where its server belongs to.
    pub upstream: Arc<Upstream>,
    /// Which of its servers it is.
    pub server: u16,
    /// Time since its request.
    pub age: Duration,
    /// Time since a byte came from either side.
    pub idle: Duration,
    /// Bytes from the client that the server has taken.
    pub bytes_in: u64,
    /// Bytes that the client has taken.
    pub bytes_out: u64,
    /// Why it is about to end, when it is.
    pub ending: Option<EndReason>,
}

/// What comes back to whoever asked about relays.
#[derive(Debug)]
pub enum Answer {
    /// From a worker: of how many of its relays the question was; and up to which rank it lists all of them, if not
    /// to the last.
    Count(usize, Option<u64>),
    /// From a relay.
    Relay(Description),
}

/// What a worker is asked to do.
#[derive(Debug)]
enum Order {
    /// To have relays describe themselves.
    Describe(Arc<Query>, mpsc::Sender<Answer>),
    /// To end a relay, and to say whether it has it.
    End(Id, EndReason, mpsc::Sender<bool>),
    /// To have relays end, each at its moment.
    Drain(Arc<Drain>),
    /// To let those stay that have not left for this one.
    Cancel(DrainId),
    /// To find the relays that stray from where they belong in an upstream.
    FindStrays(Arc<Search>, Arc<Upstream>, mpsc::Sender<Found>),
    /// To end these.
    EndThese(Arc<AHashSet<Id>>, EndReason),
    /// To do something on its thread, where its relays are.
    Do(Errand),
}

/// Something to be done on the thread of a worker, at once; it may spawn what takes longer.
struct Errand(Box<dyn FnOnce() + Send>);

impl fmt::Debug for Errand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Errand")
    }
}

/// The workers of the process, as seen from other threads.
#[derive(Debug)]
pub struct Workers {
    inboxes: Vec<mpsc::Sender<Order>>,
    /// One question at a time: so many relays are woken by it, and no more.
    asking: Mutex<()>,
}

/// What a worker is asked to do, in order.
#[derive(Debug)]
pub struct Inbox(mpsc::Receiver<Order>);

/// Some of the relays there are.
#[derive(Debug)]
pub struct Listing {
    /// In the order that was asked for.
    pub relays: Vec<Description>,
    /// How many the query is about, on this page or not.
    pub count: usize,
    /// Behind which one the next page begins; `None`: this is the last.
    pub next: Option<Id>,
    /// Every worker and every relay has answered in time.
    pub is_complete: bool,
}

/// What became of the wish to end a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It knows.
    Told,
    /// There is none of this id, or no more.
    Unknown,
    /// None was found, but not every worker has answered.
    Unanswered,
}

/// A worker that cannot be told anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a worker has ended or is stuck")]
pub struct Unheard;

/// How long a worker may take to answer: longer than any turn of a relay, shorter than a patience.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// How many orders may wait for one worker.
const ORDERS_MAX: usize = 16;

impl Workers {
    /// So many workers, and the inbox of each.
    pub fn new(count: usize) -> (Self, Vec<Inbox>) {
        let (inboxes, receivers) = (0..count).map(|_| mpsc::channel(ORDERS_MAX)).unzip::<_, _, Vec<_>, Vec<_>>();
        (Self { inboxes, asking: Mutex::new(()) }, receivers.into_iter().map(Inbox).collect())
    }

    /// The first relays that `query` is about.
    pub async fn list(&self, query: Query) -> Listing {
        let _asking = self.asking.lock().await;
        let query = Arc::new(query);
        let (asker, mut answers) = mpsc::channel(self.inboxes.len() * (query.limit + 1));
        let mut unheard = self.tell(|| Order::Describe(query.clone(), asker.clone()));
        drop(asker);
        let mut listing = Listing { relays: Vec::new(), count: 0, next: None, is_complete: true };
        let mut horizon = None;
        let collected = timeout(ANSWERS_WITHIN, async {
            while let Some(answer) = answers.recv().await {
                match answer {
                    Answer::Count(count, its_horizon) => {
                        listing.count += count;
                        horizon = horizon.into_iter().chain(its_horizon).min();
                        unheard = unheard.saturating_sub(1);
                    }
                    Answer::Relay(description) => listing.relays.push(description),
                }
            }
        });
        listing.is_complete = collected.await.is_ok() && unheard == 0;
        listing.cut(&query, horizon);
        listing
    }

    /// Has the relay of this `id` end, for `reason`.
    pub async fn end(&self, id: Id, reason: EndReason) -> Ended {
        let (asker, mut answers) = mpsc::channel(self.inboxes.len());
        let mut unheard = self.tell(|| Order::End(id, reason, asker.clone()));
        drop(asker);
        let found = timeout(ANSWERS_WITHIN, async {
            while let Some(is_here) = answers.recv().await {
                unheard = unheard.saturating_sub(1);
                if is_here {
                    return true;
                }
            }
            false
        });
        match found.await {
            Ok(true) => Ended::Told,
            Ok(false) if unheard == 0 => Ended::Unknown,
            Ok(false) | Err(_) => Ended::Unanswered,
        }
    }

    /// Has the relays end that `drain` is about; `false` when not every worker has heard of it.
    pub async fn drain(&self, drain: &Arc<Drain>) -> bool {
        self.order(|| Order::Drain(drain.clone())).await
    }

    /// Lets those stay that have not left for the drain of this `id`; `false` when not every worker
    /// has heard of it.
    pub async fn cancel(&self, id: DrainId) -> bool {
        self.order(|| Order::Cancel(id)).await
    }

    /// The relays that stray from where they belong in `upstream`, as far as workers tell in time.
    pub async fn find_strays(&self, search: Search, upstream: &Arc<Upstream>) -> Found {
        let (asker, mut answers) = mpsc::channel(self.inboxes.len());
        let search = Arc::new(search);
        self.tell(|| Order::FindStrays(search.clone(), upstream.clone(), asker.clone()));
        drop(asker);
        let mut found = Vec::new();
        // Who does not answer has none to move.
        let _ = timeout(ANSWERS_WITHIN, async {
            while let Some(answer) = answers.recv().await {
                found.push(answer);
            }
        })
        .await;
        Found::merge(found, search.limit, &search.excess)
    }

    /// Has these relays end, for `reason`; `false` when not every worker has heard of it.
    pub async fn end_these(&self, ids: AHashSet<Id>, reason: EndReason) -> bool {
        let ids = Arc::new(ids);
        self.order(|| Order::EndThese(ids.clone(), reason)).await
    }

    /// Puts an order into every inbox, and waits a while for room in it.
    async fn order(&self, order: impl Fn() -> Order) -> bool {
        let mut is_heard = true;
        for inbox in &self.inboxes {
            // A worker that has ended has no relays.
            is_heard &= timeout(ANSWERS_WITHIN, inbox.send(order())).await.is_ok();
        }
        is_heard
    }

    /// How many workers there were at the start.
    pub fn count(&self) -> usize {
        self.inboxes.len()
    }

    /// Has `work` done on the thread of `worker`; what takes longer it may spawn there.
    ///
    /// # Errors
    /// [`Unheard`] when the worker has ended, or its inbox stays full: then nothing is done.
    pub async fn have_done(&self, worker: usize, work: impl FnOnce() + Send + 'static) -> Result<(), Unheard> {
        let order = Order::Do(Errand(Box::new(work)));
        let inbox = self.inboxes.get(worker).ok_or(Unheard)?;
        inbox.send_timeout(order, ANSWERS_WITHIN).await.map_err(|_| Unheard)
    }

    /// Puts an order into every inbox, and says how many workers should answer. One that has ended
    /// has no relays.
    fn tell(&self, order: impl Fn() -> Order) -> usize {
        let is_there = |inbox: &&mpsc::Sender<Order>| match inbox.try_send(order()) {
            Ok(()) | Err(TrySendError::Full(_)) => true,
            Err(TrySendError::Closed(_)) => false,
        };
        self.inboxes.iter().filter(is_there).count()
    }
}

impl Listing {
    /// Brings it in order, and leaves what belongs on later pages to them. Behind the `horizon` a worker may have
    /// relays that it has not listed: also when some that it has chosen for this page have ended since.
    fn cut(&mut self, query: &Query, horizon: Option<u64>) {
        let first = query.first;
        self.relays.sort_unstable_by_key(|relay| first.rank(relay.id));
        self.relays.retain(|relay| horizon.is_none_or(|horizon| first.rank(relay.id) <= horizon));
        let is_cut = self.relays.len() > query.limit;
        self.relays.truncate(query.limit);
        let last = self.relays.last().map(|relay| relay.id).filter(|_| is_cut);
        self.next = last.or(horizon.map(|rank| first.id(rank)));
        // Relays are looked for by a fingerprint of the client, which others may have too.
        let listed = self.relays.len();
        self.relays
            .retain(|relay| query.client.is_none_or(|client| relay.client.to_canonical() == client.to_canonical()));
        self.count = self.count.saturating_sub(listed - self.relays.len());
    }
}

impl Inbox {
    /// Does what comes in, on the thread whose relays are meant, for as long as anybody can ask.
    pub async fn obey(mut self) {
        while let Some(order) = self.0.recv().await {
            match order {
                Order::Describe(query, asker) => registry::describe(&query, &asker),
                Order::End(id, reason, asker) => {
                    // There is room for one answer of each worker.
                    let _ = asker.try_send(registry::end(id, reason));
                }
                Order::Drain(drain) => registry::drain(drain),
                Order::Cancel(id) => registry::cancel(id),
                Order::FindStrays(search, upstream, asker) => {
                    // There is room for one answer of each worker.
                    let _ = asker.try_send(registry::find_strays(&search, &upstream));
                }
                Order::EndThese(ids, reason) => registry::end_these(&ids, reason),
                Order::Do(Errand(work)) => work(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_the_first_of_its_order_behind_the_last_page() {
        #[track_caller]
        fn check(first: First, after: Option<u64>, limit: usize, expected: &[u32]) {
            let query = Query { first, after: after.map(Id), limit, ..Query::default() };
            let mut page = Page::new(&query);
            for id in [5, 2, 9, 1, 7] {
                page.offer(Id(id.into()), id);
            }
            let mut slots: Vec<_> = page.into_slots().collect();
            slots.sort_unstable();
            assert_eq!(slots, expected, "{query:?}");
        }

        check(First::Oldest, None, 3, &[1, 2, 5]);
        check(First::Oldest, Some(5), 3, &[7, 9]);
        check(First::Oldest, Some(6), 1, &[7]);
        check(First::Oldest, Some(9), 3, &[]);
        check(First::Newest, None, 2, &[7, 9]);
        check(First::Newest, Some(7), 2, &[2, 5]);
        check(First::Newest, Some(1), 2, &[]);
        check(First::Newest, None, 10, &[1, 2, 5, 7, 9]);
    }

    #[test]
    fn a_page_ends_where_a_worker_may_have_more() {
        #[track_caller]
        fn check(listed: &[u64], limit: usize, horizon: Option<u64>, expected: &[u64], next: Option<u64>) {
            let query = Query { first: First::Oldest, limit, ..Query::default() };
            let mut listing = Listing { relays: Vec::new(), count: 9, next: None, is_complete: true };
            listing.relays = listed.iter().map(|id| description(*id)).collect();
            listing.cut(&query, horizon);
            let ids: Vec<_> = listing.relays.iter().map(|relay| relay.id.0).collect();
            assert_eq!((&*ids, listing.next, listing.count), (expected, next.map(Id), 9), "{listed:?} {horizon:?}");
        }

        check(&[], 3, None, &[], None);
        check(&[5, 1, 3], 3, None, &[1, 3, 5], None);
        check(&[5, 1, 3, 7], 3, None, &[1, 3, 5], Some(5));
        check(&[5, 1, 3, 7], 3, Some(7), &[1, 3, 5], Some(5));
        // 2 and 4 were chosen and have ended; what follows 4 on their thread is older than 7, and not known yet.
        check(&[1, 7, 9], 3, Some(4), &[1], Some(4));
        check(&[7, 9], 3, Some(4), &[], Some(4));
    }

    #[test]
    fn of_clients_that_look_alike_only_one_is_meant() {
        let client: IpAddr = [192, 0, 2, 7].into();
        let query = Query { client: Some(client), ..Query::default() };
        let other = Description { client: [192, 0, 2, 8].into(), ..description(2) };
        let mapped = Description { client: "::ffff:192.0.2.7".parse().expect("an address"), ..description(3) };
        let relays = vec![Description { client, ..description(1) }, other, mapped];
        let mut listing = Listing { relays, count: 3, next: None, is_complete: true };
        listing.cut(&query, None);
        let ids: Vec<_> = listing.relays.iter().map(|relay| relay.id.0).collect();
        assert_eq!((ids, listing.count), (vec![3, 1], 2));
    }

    fn description(id: u64) -> Description {
        Description {
            id: Id(id),
            kind: Kind::Tunnel,
            client: [10, 0, 0, 1].into(),
            upstream: upstream(),
            server: 0,
            age: Duration::ZERO,
            idle: Duration::ZERO,
            bytes_in: 0,
            bytes_out: 0,
            ending: None,
        }
    }

    fn upstream() -> Arc<Upstream> {
        use crate::affinity::tag::Secret;
        use crate::observe::metrics::Metrics;
        let file = "{ listeners: [{ bind: '127.0.0.1:1' }], routes: [{ upstream: a }], \
                    upstreams: { a: { servers: ['127.0.0.1:2'] } } }";
        let config = crate::config::parse(file, "test.yaml").expect("a right file");
        let (servers, secret) = (crate::upstream::Servers::default(), Secret::new(b""));
        Upstream::all(&config, &Default::default(), &secret, &Metrics::new(), &servers, &[]).remove(0)
    }

    #[tokio::test]
    async fn a_worker_that_does_not_answer_is_said_to_be_missing() {
        let (workers, inboxes) = Workers::new(2);
        // One is stuck: it never looks into its inbox.
        let mut inboxes = inboxes.into_iter();
        let (_stuck, obeys) = (inboxes.next(), inboxes.next().expect("there are two"));
        tokio::spawn(obeys.obey());
        let workers = Arc::new(workers);
        let (asked, listed) = (workers.clone(), workers.clone());
        let listing = tokio::spawn(async move { listed.list(Query::default()).await });
        // More than wait in its inbox.
        let ends: Vec<_> = (0..2 * ORDERS_MAX)
            .map(|_| {
                let workers = asked.clone();
                tokio::spawn(async move { workers.end(Id(1), EndReason::Operator).await })
            })
            .collect();
        for end in ends {
            assert_eq!(end.await.expect("it ends"), Ended::Unanswered);
        }
        assert!(!listing.await.expect("it ends").is_complete);
    }

    #[tokio::test]
    async fn a_worker_that_has_ended_has_no_relays() {
        let (workers, inboxes) = Workers::new(2);
        drop(inboxes);
        let listing = workers.list(Query::default()).await;
        assert!(listing.is_complete && listing.count == 0 && listing.relays.is_empty());
        assert_eq!(workers.end(Id(1), EndReason::Operator).await, Ended::Unknown);
    }
}
