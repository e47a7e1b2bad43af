//! Which server serves a client: a key's place on the ring, or the least loaded one.
//!
//! Sees [`Candidate`]s, not servers, and decides only the order in which they are tried: whether a
//! server can be reached, the caller finds out.

mod bounded;
mod ketama;
mod keyless;
mod rendezvous;

pub use bounded::{Bound, FullLast};
pub use ketama::Ring;
pub use keyless::{RoundRobin, least_loaded, random_two};
pub use rendezvous::Rendezvous;

/// What balancing needs to know of a server.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Its share against its siblings.
    pub weight: u32,
    /// Its open connections of every kind.
    pub open: usize,
    /// Whether the last try to connect to it failed.
    pub is_failing: bool,
}

/// The servers in the order in which to try them, each once.
///
/// With a key that order is the ring's and never depends on load. Without one it is by open
/// connections per weight, and `tie`, any number, decides among equals.
pub fn order(
    ring: &Ring,
    key: Option<&[u8]>,
    candidates: impl ExactSizeIterator<Item = Candidate>,
    tie: usize,
) -> impl Iterator<Item = usize> {
    let count = candidates.len();
    let by_key = key.map(|key| Distinct::new(ring.walk(key), count));
    let by_load = match key {
        Some(_) => Vec::new(),
        None => {
            let candidates: Vec<Candidate> = candidates.collect();
            least_loaded(count, |server| candidates[server], tie)
        }
    };
    by_key.into_iter().flatten().chain(by_load)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: Option<&str>, loads: &[(u32, usize)], tie: usize) -> Vec<usize> {
        let addresses = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"];
        let ring = Ring::new(addresses.iter().zip(loads).map(|(address, load)| (*address, load.0)));
        let candidates =
            loads.iter().map(|(weight, open)| Candidate { weight: *weight, open: *open, is_failing: false });
        order(&ring, key.map(str::as_bytes), candidates, tie).collect()
    }

    #[test]
    fn a_key_keeps_its_order_whatever_the_load() {
        let idle = check(Some("user"), &[(1, 0), (1, 0), (1, 0)], 0);
        assert_eq!(check(Some("user"), &[(1, 900), (1, 5), (1, 70)], 7), idle);
        let mut servers = idle;
        servers.sort_unstable();
        assert_eq!(servers, [0, 1, 2]);
    }
}
