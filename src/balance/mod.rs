//! Which server serves a client: the one its key leads to, or, without a key, the one that suits.
//!
//! Sees [`Candidate`]s, not servers, and decides only the order in which they are tried: whether a
//! server can be reached, the caller finds out.
//!
//! A server that takes no clients keeps its place: keys walk past it, so only its own move, and
//! they are back as soon as it takes clients again. Its state is asked at every choice.
//!
//! ```text
//! key ──┬─ ketama       as nginx, by address
//!       └─ rendezvous   by name
//!            └─ bounded      past those that hold too much, if wanted
//! none ─── keyless      least_conn, round_robin, random_two
//! ```

mod bounded;
mod ketama;
mod keyless;
mod rendezvous;
#[cfg(test)]
mod tests;

use bounded::{Bound, FullLast};
use ketama::Ring;
use keyless::RoundRobin;
use rendezvous::Rendezvous;

use crate::config::{Balance, Hash, Keyless, Server, State};

/// What balancing needs to know of a server.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Its share against its siblings.
    pub weight: u32,
    /// Its open connections of every kind.
    pub open: usize,
    /// Whether the last try to connect to it failed.
    pub is_failing: bool,
    /// Whether it may get clients at all.
    pub state: State,
}

impl Candidate {
    /// Its share of the clients for whom no key decides.
    fn share(self) -> u32 {
        if self.state.takes_clients() { self.weight } else { 0 }
    }
}

/// What decides for a client without a key, beside load.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chance {
    /// Counts such clients.
    pub turn: usize,
    /// Any random number.
    pub dice: u64,
}

/// Chooses among the servers of one upstream.
#[derive(Debug)]
pub struct Balancer {
    places: Places,
    /// Percent; `None` when load is not bounded.
    factor: Option<u32>,
    choice: Choice,
    count: usize,
}

/// Where keys lead.
#[derive(Debug)]
enum Places {
    Ketama(Ring),
    Rendezvous(Rendezvous),
}

/// How a server is chosen without a key.
#[derive(Debug)]
enum Choice {
    LeastConn,
    RoundRobin(RoundRobin),
    RandomTwo,
}

impl Balancer {
    /// Balances over `servers`; they are told apart by their index.
    pub fn new(balance: Balance, servers: &[Server]) -> Self {
        let by_name = || servers.iter().map(|server| (&server.name, server.weight));
        let by_address = || servers.iter().map(|server| (server.address.to_string(), server.weight));
        Self {
            places: match balance.hash {
                Hash::Ketama => Places::Ketama(Ring::new(by_address())),
                Hash::Rendezvous => Places::Rendezvous(Rendezvous::new(by_name())),
            },
            factor: balance.balance_factor,
            choice: match balance.keyless {
                Keyless::LeastConn => Choice::LeastConn,
                Keyless::RoundRobin => Choice::RoundRobin(RoundRobin::new(servers.iter().map(|server| server.weight))),
                Keyless::RandomTwo => Choice::RandomTwo,
            },
            count: servers.len(),
        }
    }

    /// The servers that take clients in the order in which to try them, each once.
    ///
    /// With a key that order is the key's own, and depends on load only if load is bounded. Without
    /// one it depends on load or on `chance`.
    pub fn order(
        &self,
        key: Option<&[u8]>,
        candidate: impl Fn(usize) -> Candidate + Copy,
        chance: Chance,
    ) -> impl Iterator<Item = usize> {
        let order = match key {
            Some(key) => Either::Left(self.by_key(key, candidate)),
            None => Either::Right(self.keyless(candidate, chance)),
        };
        order.filter(move |server| candidate(*server).state.takes_clients())
    }

    fn by_key(&self, key: &[u8], candidate: impl Fn(usize) -> Candidate + Copy) -> impl Iterator<Item = usize> {
        let bound = self.factor.map(|factor| Bound::new(factor, (0..self.count).map(candidate)));
        let is_full = move |server| bound.is_some_and(|bound| bound.is_full(candidate(server)));
        FullLast::new(self.places.walk(key, self.count), is_full)
    }

    fn keyless(&self, candidate: impl Fn(usize) -> Candidate + Copy, chance: Chance) -> impl Iterator<Item = usize> {
        match &self.choice {
            Choice::LeastConn => Either::Left(keyless::least_loaded(self.count, candidate, chance.turn).into_iter()),
            Choice::RoundRobin(round) => {
                let takes_turns = move |server| candidate(server).share() > 0;
                Either::Right(Either::Left(Distinct::new(round.walk(chance.turn, takes_turns), self.count)))
            }
            Choice::RandomTwo => Either::Right(Either::Right(keyless::random_two(self.count, candidate, chance.dice))),
        }
    }
}

impl Places {
    /// Each of the `count` servers once, in the order in which `key` tries them.
    fn walk(&self, key: &[u8], count: usize) -> impl Iterator<Item = usize> {
        match self {
            Self::Ketama(ring) => Either::Left(Distinct::new(ring.walk(key), count)),
            Self::Rendezvous(rendezvous) => Either::Right(rendezvous.walk(key)),
        }
    }
}

/// One iterator or another.
enum Either<L, R> {
    Left(L),
    Right(R),
}

impl<T, L: Iterator<Item = T>, R: Iterator<Item = T>> Iterator for Either<L, R> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match self {
            Self::Left(left) => left.next(),
            Self::Right(right) => right.next(),
        }
    }
}

/// Passes each number below `count` on once; ends when all have come.
struct Distinct<I> {
    numbers: I,
    count: usize,
    /// The one before, which is not in `seen` yet: most walks end at the first, without a list.
    last: Option<usize>,
    /// Short: past the first, only for servers that could not be reached.
    seen: Vec<usize>,
}

impl<I> Distinct<I> {
    fn new(numbers: I, count: usize) -> Self {
        Self { numbers, count, last: None, seen: Vec::new() }
    }
}

impl<I: Iterator<Item = usize>> Iterator for Distinct<I> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.seen.extend(self.last.take());
        if self.seen.len() == self.count {
            return None;
        }
        self.last = self.numbers.find(|number| !self.seen.contains(number));
        self.last
    }
}
