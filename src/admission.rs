//! Who is let in: how many connections clients may have, all together and each by itself.
//!
//! ```text
//! accept ─ ticket ─┬─ there is room: requests are served, and each of them has
//!                  │       a seat ─┬─ its client has few: served
//!                  │               └─ its client has too many: told to come later
//!                  ├─ full: told to come later, at the first request
//!                  └─ too many to be told: closed
//! ```
//!
//! A connection counts from its accept to its end. A *client's* connection counts while it is in
//! use, from the head of a request to the end of its answer or relay: whose it is nobody knows
//! before, and what a hop keeps open between two requests belongs to nobody.
//!
//! The rule: a ticket or a seat is given back once, when it is dropped, whatever the end.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::{AHashMap, RandomState};

use crate::config::{Ipv6Prefix, Limits};

/// The counts of a process.
#[derive(Debug)]
pub struct Admission {
    /// Connections that are served.
    max: AtomicUsize,
    /// Connections that are open, those to be told included.
    open_max: AtomicUsize,
    open: AtomicUsize,
    /// The most there can be stands for no limit.
    per_client: AtomicUsize,
    hasher: RandomState,
    /// Connections in use by client: only those that have any.
    clients: [Mutex<AHashMap<IpAddr, usize>>; SHARDS],
}

/// Threads seldom wait for each other with so many.
const SHARDS: usize = 16;

/// Most connections that are let in only to be told to come later.
const TOLD_MAX: usize = 1024;

/// Descriptors that clients and their servers' connections never take: for admin, logs, the
/// session store, and what each thread needs.
const RESERVE: usize = 64;

/// That of each thread: its reactor.
const RESERVE_PER_THREAD: usize = 4;

impl Admission {
    /// Lets in what `limits` allow, and what `descriptors` are enough for.
    pub fn new(limits: &Limits, descriptors: Descriptors) -> Self {
        let this = Self {
            max: AtomicUsize::default(),
            open_max: AtomicUsize::default(),
            open: AtomicUsize::new(0),
            per_client: AtomicUsize::default(),
            hasher: RandomState::new(),
            clients: Default::default(),
        };
        this.change(limits, descriptors);
        this
    }

    /// Lets in what these allow from now on. Whoever is in already stays.
    pub fn change(&self, limits: &Limits, descriptors: Descriptors) {
        let spare = descriptors.spare();
        // Of 32 descriptors 30 are for 15 clients and their servers' connections, two for telling.
        let enough = (spare / 32 * 15).max(1);
        let max = limits.max_connections.unwrap_or(usize::MAX).min(enough);
        self.max.store(max, Ordering::Relaxed);
        self.open_max.store(max + spare.saturating_sub(2 * max).clamp(1, TOLD_MAX), Ordering::Relaxed);
        self.per_client.store(limits.per_client.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// How many connections are served at once.
    pub fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    fn open_max(&self) -> usize {
        self.open_max.load(Ordering::Relaxed)
    }

    /// One more connection; `None` when not even an answer can be spared for it.
    pub fn ticket(self: &Arc<Self>) -> Option<Ticket> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let ticket = Ticket { admission: self.clone(), is_served: before < self.max() };
        (before < self.open_max()).then_some(ticket)
    }

    /// A connection that another process has let in: it stays, however many there are.
    pub fn ticket_of_arrival(self: &Arc<Self>) -> Ticket {
        self.open.fetch_add(1, Ordering::Relaxed);
        Ticket { admission: self.clone(), is_served: true }
    }

    /// The same for the seat of its `client`.
    pub fn seat_of_arrival(self: &Arc<Self>, client: IpAddr) -> Box<Seat> {
        let client = network(client);
        *self.clients(client).entry(client).or_default() += 1;
        Box::new(Seat { admission: self.clone(), client })
    }

    /// One more connection in use by `client`; `None` when it has as many as it may have.
    pub fn seat(self: &Arc<Self>, client: IpAddr) -> Option<Box<Seat>> {
        let client = network(client);
        let mut clients = self.clients(client);
        let count = clients.get(&client).copied().unwrap_or_default();
        if count >= self.per_client.load(Ordering::Relaxed) {
            return None;
        }
        clients.insert(client, count + 1);
        Some(Box::new(Seat { admission: self.clone(), client }))
    }

    fn clients(&self, client: IpAddr) -> MutexGuard<'_, AHashMap<IpAddr, usize>> {
        let shard = self.hasher.hash_one(client) as usize % SHARDS;
        // A panic elsewhere leaves whole counts behind.
        self.clients[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a client is counted by: of IPv6 the network, in which one client has many addresses.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Prefix::default().network(address).addr().into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Descriptors of the process, and what it needs some for beside connections.
#[derive(Clone, Copy, Debug)]
pub struct Descriptors {
    /// How many it may have.
    pub max: usize,
    /// Its worker threads.
    pub threads: usize,
    /// Addresses that clients connect to; each thread has a socket on every one.
    pub listeners: usize,
}

impl Descriptors {
    fn spare(self) -> usize {
        self.max.saturating_sub(RESERVE + self.threads * (RESERVE_PER_THREAD + self.listeners))
    }
}

/// A connection that is let in, until it is dropped.
#[derive(Debug)]
pub struct Ticket {
    admission: Arc<Admission>,
    is_served: bool,
}

impl Ticket {
    /// Whether its requests are served, or only told to come later.
    pub fn is_served(&self) -> bool {
        self.is_served
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.admission.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection in use by a client, until it is dropped.
#[derive(Debug)]
pub struct Seat {
    admission: Arc<Admission>,
    client: IpAddr,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut clients = self.admission.clients(self.client);
        match clients.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(clients.remove(&self.client)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn admission(max_connections: Option<usize>, per_client: Option<usize>, descriptors: usize) -> Arc<Admission> {
        let limits = Limits { max_connections, per_client, ..Limits::default() };
        Arc::new(Admission::new(&limits, Descriptors { max: descriptors, threads: 2, listeners: 1 }))
    }

    #[test]
    fn descriptors_are_kept_in_reserve() {
        #[track_caller]
        fn check(max_connections: Option<usize>, descriptors: usize, served: usize, told: usize) {
            let admission = admission(max_connections, None, descriptors);
            assert_eq!((admission.max(), admission.open_max() - admission.max()), (served, told));
            assert!(2 * served + told + RESERVE <= descriptors.max(RESERVE + 3), "{descriptors} descriptors");
        }

        check(None, 1 << 20, 491_475, 1024);
        check(None, 1024, 435, 80);
        check(None, 256, 75, 32);
        check(None, 0, 1, 1);
        check(Some(3), 1024, 3, 944);
        check(Some(1000), 1024, 435, 80);
        check(Some(1000), 1 << 20, 1000, 1024);
    }

    #[test]
    fn beyond_the_limit_connections_are_told_and_then_closed() {
        let admission = admission(Some(1), None, 78);
        let tickets: Vec<_> = (0..4).map(|_| admission.ticket()).collect();
        let served: Vec<_> = tickets.iter().map(|ticket| ticket.as_ref().map(Ticket::is_served)).collect();
        assert_eq!(served, [Some(true), Some(false), Some(false), None]);
        drop(tickets);
        assert!(admission.ticket().is_some_and(|ticket| ticket.is_served()));
    }

    #[test]
    fn limits_that_change_leave_in_who_is_in() {
        let admission = admission(Some(2), Some(2), 1024);
        let (tickets, seats) = ([admission.ticket(), admission.ticket()], [admission.seat([10, 0, 0, 1].into())]);
        let limits = Limits { max_connections: Some(1), per_client: Some(1), ..Limits::default() };
        admission.change(&limits, Descriptors { max: 1024, threads: 2, listeners: 1 });
        assert!(tickets.iter().flatten().all(Ticket::is_served) && seats[0].is_some());
        assert!(admission.ticket().is_some_and(|ticket| !ticket.is_served()));
        assert!(admission.seat([10, 0, 0, 1].into()).is_none());
        drop((tickets, seats));
        assert!(admission.ticket().is_some_and(|ticket| ticket.is_served()));
        assert!(admission.seat([10, 0, 0, 1].into()).is_some());
    }

    #[test]
    fn who_was_let_in_by_another_process_stays_and_counts() {
        let admission = admission(Some(1), Some(1), 1024);
        let client = [10, 0, 0, 1].into();
        let tickets = [admission.ticket_of_arrival(), admission.ticket_of_arrival()];
        let seats = [admission.seat_of_arrival(client), admission.seat_of_arrival(client)];
        assert!(tickets.iter().all(Ticket::is_served));
        assert!(admission.ticket().is_some_and(|ticket| !ticket.is_served()) && admission.seat(client).is_none());
        drop((tickets, seats));
        assert!(admission.ticket().is_some_and(|ticket| ticket.is_served()) && admission.seat(client).is_some());
    }

    #[test]
    fn a_client_is_an_address_or_a_network() {
        let admission = admission(None, Some(1), 1024);
        let seat = |client: &str| admission.seat(client.parse().unwrap());
        let taken = [seat("192.0.2.1"), seat("2001:db8::1"), seat("2001:db8:0:1::1"), seat("192.0.2.2")];
        assert!(taken.iter().all(Option::is_some));
        for client in ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "2001:db8::ffff:1"] {
            assert!(seat(client).is_none(), "{client}");
        }
        drop(taken);
        assert!(seat("192.0.2.1").is_some());
    }

    proptest! {
        /// The limits hold at every moment, and every count returns to zero.
        #[test]
        fn counts_return_to_zero(steps in prop::collection::vec((0..4_u8, any::<prop::sample::Index>()), 0..200)) {
            let admission = admission(Some(5), Some(3), 90);
            let (mut tickets, mut seats): (Vec<Ticket>, Vec<(u8, Box<Seat>)>) = Default::default();
            for (client, which) in steps {
                if which.index(2) == 0 {
                    tickets.extend(admission.ticket());
                    seats.extend(admission.seat([10, 0, 0, client].into()).map(|seat| (client, seat)));
                } else {
                    if !tickets.is_empty() {
                        tickets.swap_remove(which.index(tickets.len()));
                    }
                    if !seats.is_empty() {
                        seats.swap_remove(which.index(seats.len()));
                    }
                }
                prop_assert!(tickets.len() <= admission.open_max());
                prop_assert_eq!(admission.open.load(Ordering::Relaxed), tickets.len());
                for client in 0..4 {
                    prop_assert!(seats.iter().filter(|(of, _)| *of == client).count() <= 3);
                }
            }
            drop((tickets, seats));
            prop_assert_eq!(admission.open.load(Ordering::Relaxed), 0);
            prop_assert!(admission.clients.iter().all(|clients| clients.lock().unwrap().is_empty()));
        }
    }
}
