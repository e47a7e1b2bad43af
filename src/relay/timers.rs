//! Coarse time for thousands of relays: ticks, and one wheel per thread.
//!
//! A relay has one entry in the wheel, for the earliest thing that may be due. Activity does not
//! touch the wheel: when the entry comes up, the relay looks at its own state and enters itself
//! again. So a message costs nothing here, and an idle relay a few bytes a minute.

use std::time::Duration;

/// A point in time, in steps of [`Tick::LENGTH`]; a thread begins at [`Tick::FIRST`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub u32);

impl Tick {
    /// How coarse time is.
    pub const LENGTH: Duration = Duration::from_millis(100);

    /// Where the clock of a thread begins: so that relays may be older than their thread, by years.
    pub const FIRST: Self = Self(1 << 31);

    /// No process lives that long.
    pub const NEVER: Self = Self(u32::MAX);

    /// The tick that `elapsed` since the thread began lies in.
    pub fn after(elapsed: Duration) -> Self {
        Self::FIRST.plus(clamp(elapsed.as_millis() / Self::LENGTH.as_millis()))
    }

    /// How many ticks fit `duration`, rounded up, so that nothing is early by a whole tick.
    pub fn count(duration: Duration) -> u32 {
        clamp(duration.as_millis().div_ceil(Self::LENGTH.as_millis()))
    }

    /// The time from `earlier` to this point, to a tick.
    pub fn since(self, earlier: Self) -> Duration {
        Self::LENGTH * self.0.saturating_sub(earlier.0)
    }

    /// This point plus `ticks`.
    #[must_use]
    pub fn plus(self, ticks: u32) -> Self {
        Self(self.0.saturating_add(ticks))
    }
}

/// Years of ticks are enough.
fn clamp(ticks: u128) -> u32 {
    u32::try_from(ticks).unwrap_or(u32::MAX)
}

/// Names one relay of a thread while it lives; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Where the registry keeps it.
    pub slot: u32,
    /// Which of the slot's occupants it is: part of its id.
    pub turn: u32,
}

/// Tickets by the tick at which they come up.
///
/// Its size is bounded by the relays that begin within one round, 51 seconds: a relay that ends
/// leaves its entry behind until it comes up, and then the entry names nobody.
#[derive(Debug)]
pub struct Wheel {
    spokes: Vec<Vec<Ticket>>,
    now: Tick,
}

impl Wheel {
    const SPOKES: u32 = 512;

    /// An empty wheel that stands at `now`.
    pub fn new(now: Tick) -> Self {
        Self { spokes: vec![Vec::new(); Self::SPOKES as usize], now }
    }

    /// Enters `ticket` to come up at `due`, or sooner when `due` is further away than one round;
    /// returns when.
    pub fn insert(&mut self, ticket: Ticket, due: Tick) -> Tick {
        let first = self.now.plus(1);
        let last = self.now.plus(Self::SPOKES - 1);
        let at = due.clamp(first, last);
        self.spokes[(at.0 % Self::SPOKES) as usize].push(ticket);
        at
    }

    /// Turns to `now` and moves what has come up into `due`.
    pub fn turn(&mut self, now: Tick, due: &mut Vec<Ticket>) {
        let steps = now.0.saturating_sub(self.now.0).min(Self::SPOKES);
        for step in 1..=steps {
            let spoke = (self.now.0.wrapping_add(step) % Self::SPOKES) as usize;
            due.append(&mut self.spokes[spoke]);
            self.spokes[spoke] = Vec::new(); // A storm's capacity is not kept.
        }
        self.now = self.now.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(slot: u32) -> Ticket {
        Ticket { slot, turn: 0 }
    }

    fn turn(wheel: &mut Wheel, now: u32) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.turn(Tick(now), &mut due);
        due.iter().map(|ticket| ticket.slot).collect()
    }

    #[test]
    fn tickets_come_up_when_due() {
        let mut wheel = Wheel::new(Tick(1000));
        wheel.insert(ticket(1), Tick(1005));
        wheel.insert(ticket(2), Tick(1010));
        wheel.insert(ticket(3), Tick(990)); // Late already: at the next tick.
        assert_eq!(turn(&mut wheel, 1000), [0; 0]);
        assert_eq!(turn(&mut wheel, 1001), [3]);
        assert_eq!(turn(&mut wheel, 1005), [1]);
        assert_eq!(turn(&mut wheel, 1020), [2]);
        assert_eq!(turn(&mut wheel, 3000), [0; 0]);
    }

    #[test]
    fn far_away_comes_up_within_a_round() {
        let mut wheel = Wheel::new(Tick(0));
        wheel.insert(ticket(1), Tick(36_000));
        assert_eq!(turn(&mut wheel, 510), [0; 0]);
        assert_eq!(turn(&mut wheel, 511), [1]);
    }

    #[test]
    fn a_long_sleep_loses_nothing() {
        let mut wheel = Wheel::new(Tick(7));
        for slot in 0..500 {
            wheel.insert(ticket(slot), Tick(8 + slot));
        }
        assert_eq!(turn(&mut wheel, 100_000).len(), 500);
    }

    #[test]
    fn durations_round_up_to_ticks() {
        assert_eq!(Tick::count(Duration::from_millis(250)), 3);
        assert_eq!(Tick::count(Duration::MAX), u32::MAX);
        assert_eq!(Tick::after(Duration::from_millis(250)), Tick::FIRST.plus(2));
    }
}
