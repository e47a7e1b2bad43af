//! Which server serves a client: the one its key leads to, or, without a key, the one that suits.
//!
//! Sees [`Candidate`]s, not servers, and decides only the order in which they are tried: whether a
//! server can be reached, the caller finds out.
//!
//! A server that takes no clients, or is down, keeps its place: keys walk past it, so only its own
//! move, and they are back as soon as it takes clients again. Its state is asked at every choice.
//! One that was down and warms up has its keys back bit by bit.
//!
//! ```text
//! key ──┬─ ketama       as nginx, by address
//!       └─ rendezvous   by name
//!            └─ bounded      who holds too much, if wanted
//! none ─── keyless      least_conn, round_robin, random_two
//!            └─ ranked       past those that are cold, full or down, who come last
//! ```

mod bounded;
mod ketama;
mod keyless;
mod ranked;
mod rendezvous;
#[cfg(test)]
mod tests;

use std::iter;

use bounded::Bound;
use ketama::Ring;
use keyless::RoundRobin;
use ranked::{Rank, Ranked, belongs_to_the_warm};
use rendezvous::Rendezvous;

use crate::config::{Balance, Hash, Keyless, Server, State};

/// What balancing needs to know of a server.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Its share against its siblings.
    pub weight: u32,
    /// Its open connections of every kind.
    pub open: usize,
    /// Whether it is fit for clients. One that is not comes last.
    pub is_up: bool,
    /// The part of its clients that it gets, 1 to [`WARM`] thousandths; less than all while it warms up.
    pub warmth: u16,
    /// Whether it may get clients at all.
    pub state: State,
}

/// The [warmth](Candidate::warmth) of a server that gets all of its clients.
pub const WARM: u16 = 1000;

impl Candidate {
    /// Its part of the work, in thousandths of its weight.
    fn part(self) -> u32 {
        self.weight * u32::from(self.warmth)
    }

    /// Whether it does any.
    fn works(self) -> bool {
        self.is_up && self.state.takes_clients()
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

    /// What is to be known of `key` in order to find its servers. It means the same to every proxy
    /// whose upstream has the same hash.
    pub fn hash(&self, key: &[u8]) -> u64 {
        match self.places {
            Places::Ketama(_) => ketama::hash(key).into(),
            Places::Rendezvous(_) => rendezvous::hash(key),
        }
    }

    /// The servers that take clients in the order in which to try them, each once; those that are
    /// down come last.
    ///
    /// With a key, of which `key` is the [hash](Self::hash), that order is the key's own, and depends
    /// on load only if load is bounded. Without one it depends on load or on `chance`.
    pub fn order(
        &self,
        key: Option<u64>,
        candidate: impl Fn(usize) -> Candidate + Copy,
        chance: Chance,
    ) -> impl Iterator<Item = usize> {
        let order = match key {
            Some(key) => Either::Left(self.by_key(key, candidate)),
            None => Either::Right(self.keyless(candidate, chance)),
        };
        order.filter(move |server| candidate(*server).state.takes_clients())
    }

    fn by_key(&self, key: u64, candidate: impl Fn(usize) -> Candidate + Copy) -> impl Iterator<Item = usize> {
        let bound = self.factor.map(|factor| Bound::new(factor, (0..self.count).map(candidate)));
        let rank = move |server| {
            let candidate = candidate(server);
            match candidate.is_up {
                false => Rank::Down,
                true if bound.is_some_and(|bound| bound.is_full(candidate)) => Rank::Full,
                true if belongs_to_the_warm(key, candidate.warmth) => Rank::Fit,
                true => Rank::Cold,
            }
        };
        Ranked::new(self.places.walk(key, self.count), rank)
    }

    fn keyless(&self, candidate: impl Fn(usize) -> Candidate + Copy, chance: Chance) -> impl Iterator<Item = usize> {
        let Chance { turn, dice } = chance;
        // When nobody works, all do who take clients.
        let is_any_up = (0..self.count).any(|server| candidate(server).works());
        let part = move |server| {
            let candidate = candidate(server);
            let works = candidate.works() || (!is_any_up && candidate.state.takes_clients());
            if works { candidate.part() } else { 0 }
        };
        let rank = move |server| if part(server) > 0 { Rank::Fit } else { Rank::Down };
        match &self.choice {
            Choice::LeastConn => Either::Left(keyless::least_loaded(self.count, candidate, turn).into_iter()),
            Choice::RoundRobin(round) => {
                let in_turn = round.walk(turn, move |server| part(server) > 0);
                let others = iter::once_with(move || round.walk(turn, |_| true)).flatten();
                let all = Distinct::new(in_turn.chain(others), self.count);
                let is_cold = move |server| !belongs_to_the_warm(dice, candidate(server).warmth);
                let rank = move |server| match rank(server) {
                    Rank::Fit if is_cold(server) => Rank::Cold,
                    rank => rank,
                };
                Either::Right(Either::Left(Ranked::new(all, rank)))
            }
            Choice::RandomTwo if self.count == 0 => Either::Left(Vec::new().into_iter()),
            Choice::RandomTwo => {
                let drawn = keyless::random_two(self.count, candidate, part, dice);
                Either::Right(Either::Right(Ranked::new(drawn, rank)))
            }
        }
    }
}

impl Places {
    /// Each of the `count` servers once, in the order in which `key` tries them.
    fn walk(&self, key: u64, count: usize) -> impl Iterator<Item = usize> {
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
