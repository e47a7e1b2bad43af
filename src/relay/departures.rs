//! Who leaves when: the relays of one thread that are to end, spread over a time, so that neither
//! their servers nor those that they come back to are met by all of them at once. Pure.
//!
//! ```text
//! a drain begins ── each relay that it is about gets a moment of its own within `spread`
//!   a relay that begins meanwhile, if it is about those as well: a moment within what is left of
//!   it, or at once behind it
//! it is cancelled ── whoever has not left stays
//! ```

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::EndReason;
use super::timers::{Tick, Ticket};
use crate::upstream::ServerId;

/// Names a drain in the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DrainId(pub u64);

/// Relays that are to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Which drain it is.
    pub id: DrainId,
    /// Whose relays.
    pub whose: Whose,
    /// Why.
    pub reason: EndReason,
    /// Over what time their ends are spread.
    pub spread: Duration,
    /// Which of them, by when they began.
    pub began: Began,
}

/// When relays began that a drain is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Began {
    /// At any time, also while it goes on.
    AnyTime,
    /// At least so long before the drain was told to a worker.
    Before(Duration),
}

impl Began {
    /// When they were there when it begins.
    pub const ALREADY: Self = Self::Before(Duration::ZERO);

    /// Whether it is about a relay of this age.
    pub fn is_of(self, age: Duration) -> bool {
        match self {
            Self::AnyTime => true,
            Self::Before(least) => age >= least,
        }
    }
}

/// Whose relays a drain is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Those of the process.
    All,
    /// Those of the upstream of this name.
    Upstream(String),
    /// Those with this server.
    Server(ServerId),
}

/// The drains that a thread knows of, and the moments that its relays got.
#[derive(Debug, Default)]
pub struct Departures {
    drains: Vec<Known>,
    /// The earliest on top.
    queue: BinaryHeap<Reverse<(Tick, DrainId, u32, u32)>>,
}

#[derive(Debug)]
struct Known {
    drain: Arc<Drain>,
    until: Tick,
}

impl Departures {
    /// `drain` begins at `now` with these `relays`.
    pub fn begin(&mut self, drain: Arc<Drain>, mut relays: Vec<Ticket>, now: Tick, rng: &mut Rng) {
        let spread = Tick::count(drain.spread);
        rng.shuffle(&mut relays); // Their order in the registry is that of their age.
        let count = relays.len() as u64;
        for (nth, ticket) in (0..).zip(relays) {
            // Anywhere within the part of the time that is its own.
            let part = |at: u64| u32::try_from(u64::from(spread) * at / count.max(1)).unwrap_or(u32::MAX);
            let at = part(nth) + rng.u32(0..=(part(nth + 1) - part(nth)).saturating_sub(1));
            self.queue.push(Reverse((now.plus(at), drain.id, ticket.slot, ticket.turn)));
        }
        self.drains.push(Known { drain, until: now.plus(spread) });
    }

    /// Gives a relay a moment that has begun since `drain` did.
    pub fn join(&mut self, drain: DrainId, ticket: Ticket, now: Tick, rng: &mut Rng) {
        let Some(known) = self.drains.iter().find(|known| known.drain.id == drain) else { return };
        let left = known.until.0.saturating_sub(now.0);
        self.queue.push(Reverse((now.plus(rng.u32(0..=left)), drain, ticket.slot, ticket.turn)));
    }

    /// `drain` is over, or no longer wanted: returns those that have not left.
    pub fn cancel(&mut self, drain: DrainId) -> Vec<Ticket> {
        self.drains.retain(|known| known.drain.id != drain);
        let (cancelled, queue): (Vec<_>, Vec<_>) = self.queue.drain().partition(|Reverse((_, of, ..))| *of == drain);
        self.queue = queue.into();
        cancelled.into_iter().map(|Reverse((_, _, slot, turn))| Ticket { slot, turn }).collect()
    }

    /// The next relay that has to leave at `now`, and by which drain. Whoever is none of its relays any more
    /// stays, which is for the caller to see.
    pub fn due(&mut self, now: Tick) -> Option<(Ticket, Arc<Drain>)> {
        let Reverse((at, id, slot, turn)) = *self.queue.peek()?;
        if at > now {
            return None;
        }
        self.queue.pop();
        let drain = self.drains.iter().find(|known| known.drain.id == id).map(|known| known.drain.clone())?;
        Some((Ticket { slot, turn }, drain))
    }

    /// The drains that are about newcomers as well.
    pub fn of_newcomers(&self) -> impl Iterator<Item = &Arc<Drain>> {
        self.drains.iter().map(|known| &known.drain).filter(|drain| drain.began == Began::AnyTime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(id: u64, seconds: u64) -> Arc<Drain> {
        let spread = Duration::from_secs(seconds);
        Arc::new(Drain {
            id: DrainId(id),
            whose: Whose::All,
            reason: EndReason::Drained,
            spread,
            began: Began::AnyTime,
        })
    }

    fn relays(count: u32) -> Vec<Ticket> {
        (0..count).map(|slot| Ticket { slot, turn: slot }).collect()
    }

    /// How many leave in each tick.
    fn leave(departures: &mut Departures, ticks: std::ops::Range<u32>) -> Vec<usize> {
        ticks.map(|now| std::iter::from_fn(|| departures.due(Tick(now))).count()).collect()
    }

    #[test]
    fn ends_are_spread_evenly_and_in_no_order() {
        for seed in 0..50 {
            let mut departures = Departures::default();
            departures.begin(drain(1, 10), relays(1000), Tick(7), &mut Rng::with_seed(seed));
            let mut order = Vec::new();
            for now in 7..107 {
                let before = order.len();
                while let Some((ticket, due)) = departures.due(Tick(now)) {
                    assert_eq!(due.id, DrainId(1));
                    order.push(ticket.slot);
                }
                assert_eq!(order.len() - before, 10, "at {now} with seed {seed}");
            }
            assert!(!order.is_sorted(), "seed {seed}");
            order.sort_unstable();
            assert_eq!(order, (0..1000).collect::<Vec<_>>(), "seed {seed}");
        }
    }

    #[test]
    fn few_have_a_part_of_the_time_each() {
        for seed in 0..200 {
            let mut departures = Departures::default();
            departures.begin(drain(1, 10), relays(4), Tick(0), &mut Rng::with_seed(seed));
            let counts = leave(&mut departures, 0..100);
            assert!(counts.chunks(25).all(|part| part.iter().sum::<usize>() == 1), "seed {seed}: {counts:?}");
        }
    }

    #[test]
    fn no_time_is_at_once() {
        let mut departures = Departures::default();
        departures.begin(drain(1, 0), relays(5), Tick(3), &mut Rng::with_seed(1));
        assert_eq!(leave(&mut departures, 3..5), [5, 0]);
    }

    #[test]
    fn who_comes_later_leaves_with_the_others() {
        for seed in 0..200 {
            let (mut departures, mut rng) = (Departures::default(), Rng::with_seed(seed));
            departures.begin(drain(1, 10), Vec::new(), Tick(0), &mut rng);
            departures.join(DrainId(1), relays(1)[0], Tick(60), &mut rng);
            assert_eq!(leave(&mut departures, 60..101).iter().sum::<usize>(), 1, "seed {seed}");
            departures.join(DrainId(1), relays(1)[0], Tick(300), &mut rng);
            assert_eq!(leave(&mut departures, 300..301), [1], "seed {seed}");
            departures.join(DrainId(2), relays(1)[0], Tick(300), &mut rng);
            assert_eq!(leave(&mut departures, 0..1000).iter().sum::<usize>(), 0, "there is no such drain");
        }
    }

    #[test]
    fn who_has_not_left_stays_when_it_is_cancelled() {
        let (mut departures, mut rng) = (Departures::default(), Rng::with_seed(9));
        departures.begin(drain(1, 10), relays(10), Tick(0), &mut rng);
        departures.begin(drain(2, 10), relays(10), Tick(0), &mut rng);
        let left = leave(&mut departures, 0..50).iter().sum::<usize>();
        assert_eq!(left, 10);
        assert_eq!(departures.cancel(DrainId(1)).len(), 5);
        assert_eq!(departures.of_newcomers().map(|drain| drain.id.0).collect::<Vec<_>>(), [2]);
        assert_eq!(leave(&mut departures, 50..100).iter().sum::<usize>(), 5);
    }
}
