//! Servers of a walk by how fit they are for whoever walks, and otherwise as they come.
//!
//! Nobody is dropped: a server that is not fit is better than none. When all are down, all are tried
//! in the order in which they would have been.

use std::collections::VecDeque;
use std::iter::Fuse;

use super::WARM;
use super::rendezvous::mixed;

/// How fit a server is for one client, the fittest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// It is theirs.
    Fit,
    /// It warms up, and is not theirs yet.
    Cold,
    /// It holds too much.
    Full,
    /// It is down.
    Down,
}

/// Whether who is known by `number` belongs to the part of its clients that a server of this
/// `warmth`, in thousandths, gets already.
///
/// As warmth grows, each belongs to it from one moment on for ever. The part has nothing to do with
/// the places of servers on a ring, and is the same for all servers: who passes by one that warms up
/// does not fall on the next one that does.
pub fn belongs_to_the_warm(number: u64, warmth: u16) -> bool {
    const SALT: u64 = 0x7761_726D_7468_2121; // Else a rendezvous would have used these very bits.
    warmth >= WARM || ((mixed(number ^ SALT) >> 32) * u64::from(WARM)) >> 32 < u64::from(warmth)
}

/// The servers of a walk, fit ones before others.
#[derive(Debug)]
pub struct Ranked<W, R> {
    walk: Fuse<W>,
    rank: R,
    /// Those passed by, by how unfit they are.
    passed: [VecDeque<usize>; 3],
}

impl<W: Iterator<Item = usize>, R: Fn(usize) -> Rank> Ranked<W, R> {
    /// `rank` is asked once for each server, when the walk comes by.
    pub fn new(walk: W, rank: R) -> Self {
        Self { walk: walk.fuse(), rank, passed: Default::default() }
    }
}

impl<W: Iterator<Item = usize>, R: Fn(usize) -> Rank> Iterator for Ranked<W, R> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let [cold, full, down] = &mut self.passed;
        for server in self.walk.by_ref() {
            match (self.rank)(server) {
                Rank::Fit => return Some(server),
                Rank::Cold => cold.push_back(server),
                Rank::Full => full.push_back(server),
                Rank::Down => down.push_back(server),
            }
        }
        cold.pop_front().or_else(|| full.pop_front()).or_else(|| down.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unfit_come_last_and_in_order() {
        use Rank::{Cold, Down, Fit, Full};

        #[track_caller]
        fn check(ranks: [Rank; 5], expected: [usize; 5]) {
            let order: Vec<usize> = Ranked::new([3, 0, 4, 1, 2].into_iter(), |it| ranks[it]).collect();
            assert_eq!(order, expected, "{ranks:?}");
        }

        check([Fit; 5], [3, 0, 4, 1, 2]);
        check([Fit, Fit, Fit, Full, Fit], [0, 4, 1, 2, 3]);
        check([Fit, Fit, Fit, Full, Full], [0, 1, 2, 3, 4]);
        check([Full, Cold, Down, Down, Fit], [4, 1, 0, 3, 2]);
        for rank in [Cold, Full, Down] {
            check([rank; 5], [3, 0, 4, 1, 2]);
        }
    }

    #[test]
    fn the_part_of_the_warm_grows_and_loses_nobody() {
        let belongs = |warmth| (0..10_000_u64).filter(move |number| belongs_to_the_warm(*number, warmth));
        for (warmth, fewest, most) in [(0, 0, 0), (10, 70, 130), (500, 4_850, 5_150), (1000, 10_000, 10_000)] {
            let count = belongs(warmth).count();
            assert!((fewest..=most).contains(&count), "{count} of 10,000 at {warmth}");
        }
        for warmth in (0..1000).step_by(25) {
            assert!(belongs(warmth).all(|number| belongs_to_the_warm(number, warmth + 25)), "from {warmth} on");
        }
    }
}
