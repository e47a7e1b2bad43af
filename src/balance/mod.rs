//! Which server serves a client: a key's place on the ring, or the least loaded one.
//!
//! Sees [`Candidate`]s, not servers, and decides only the order in which they are tried: whether a
//! server can be reached, the caller finds out.

mod bounded;
mod ketama;
mod rendezvous;

pub use bounded::{Bound, FullLast};
pub use ketama::Ring;
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
        None => least_loaded(candidates, tie),
    };
    by_key.into_iter().flatten().chain(by_load)
}

fn least_loaded(candidates: impl ExactSizeIterator<Item = Candidate>, tie: usize) -> Vec<usize> {
    let count = candidates.len();
    // One more connection than there are, so that empty servers compare by weight.
    let mut servers: Vec<(f64, usize, usize)> = candidates
        .enumerate()
        .map(|(server, Candidate { weight, open, .. })| {
            #[expect(clippy::cast_precision_loss, reason = "no process has 2^52 connections")]
            let load = (open + 1) as f64 / f64::from(weight);
            (load, (server + tie) % count, server)
        })
        .collect();
    servers.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    servers.into_iter().map(|(_, _, server)| server).collect()
}

/// Passes each number below `count` on once; ends when all have come.
struct Distinct<I> {
    numbers: I,
    count: usize,
    /// Short: past the first, only for servers that could not be reached.
    seen: Vec<usize>,
}

impl<I> Distinct<I> {
    fn new(numbers: I, count: usize) -> Self {
        Self { numbers, count, seen: Vec::new() }
    }
}

impl<I: Iterator<Item = usize>> Iterator for Distinct<I> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.seen.len() == self.count {
            return None;
        }
        let number = self.numbers.find(|number| !self.seen.contains(number))?;
        self.seen.push(number);
        Some(number)
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

    #[test]
    fn without_a_key_the_least_loaded_comes_first() {
        assert_eq!(check(None, &[(1, 3), (1, 1), (1, 2)], 0), [1, 2, 0]);
        // 4 of weight 4 are less than 2 of weight 1.
        assert_eq!(check(None, &[(1, 2), (4, 4), (1, 3)], 0), [1, 0, 2]);
        // A heavier server takes the first connection.
        assert_eq!(check(None, &[(1, 0), (2, 0), (1, 0)], 0)[0], 1);
    }

    #[test]
    fn equals_take_turns() {
        let firsts: Vec<usize> = (0..3).map(|tie| check(None, &[(1, 0), (1, 0), (1, 0)], tie)[0]).collect();
        assert_eq!(firsts, [0, 2, 1]);
    }
}
