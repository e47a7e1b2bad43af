//! One [`Health`] that all threads share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Clients, Door, FoundBy, Health, Report, Rules, Transition, warmth};
use crate::balance::WARM;

/// The health of one server, for all threads.
///
/// Every request asks and tells it: as long as all is well, that is a few loads.
#[derive(Debug)]
pub struct HealthCell {
    health: Mutex<Health>,
    /// Zero of the times below, which are milliseconds.
    began: Instant,
    /// When it is open to clients again; [`OPEN`] while it is up, [`SHUT`] while nobody can say.
    closed_until: AtomicU64,
    /// Since when it warms up; [`OPEN`] when it does not.
    warming_since: AtomicU64,
    slow_start: AtomicU64,
    /// Whether a success has anything to clear.
    is_troubled: AtomicBool,
}

const OPEN: u64 = 0;
const SHUT: u64 = u64::MAX;

impl HealthCell {
    /// Of a server that is there from the start.
    pub fn new(rules: Rules, now: Instant) -> Self {
        Self::of(Health::new(rules), now)
    }

    /// Of a server that joins others.
    pub fn joined(rules: Rules, now: Instant) -> Self {
        Self::of(Health::joined(rules, now), now)
    }

    pub(super) fn of(health: Health, now: Instant) -> Self {
        let cell = Self {
            health: Mutex::new(health),
            // A time of zero has a meaning of its own.
            began: now.checked_sub(Duration::from_millis(1)).unwrap_or(now),
            closed_until: AtomicU64::new(OPEN),
            warming_since: AtomicU64::new(OPEN),
            slow_start: AtomicU64::new(0),
            is_troubled: AtomicBool::new(false),
        };
        cell.publish(&cell.lock());
        cell
    }

    /// Whether it gets clients at `now`: it is up, or may be tried.
    pub fn is_open(&self, now: Instant) -> bool {
        let until = self.closed_until.load(Ordering::Relaxed);
        until == OPEN || (until != SHUT && until <= self.time(now))
    }

    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        self.closed_until.load(Ordering::Relaxed) == OPEN
    }

    /// The part of its clients that it gets at `now`: [`WARMTH_MIN`](super::WARMTH_MIN) to [`WARM`].
    pub fn warmth(&self, now: Instant) -> u16 {
        let since = self.warming_since.load(Ordering::Relaxed);
        if since == OPEN {
            return WARM;
        }
        let warmth = warmth(
            Duration::from_millis(self.time(now).saturating_sub(since)),
            Duration::from_millis(self.slow_start.load(Ordering::Relaxed)),
        );
        if warmth == WARM {
            // Nobody has to reckon again. Whoever comes up at this very moment starts warm, once.
            let _ = self.warming_since.compare_exchange(since, OPEN, Ordering::Relaxed, Ordering::Relaxed);
        }
        warmth
    }

    /// A client is sent there.
    pub fn tried(&self, now: Instant) {
        self.change(|health| health.tried(now));
    }

    /// Whether clients have met failures that an answer could clear.
    pub fn is_troubled(&self) -> bool {
        self.is_troubled.load(Ordering::Relaxed)
    }

    /// A client was answered.
    pub fn succeeded(&self, now: Instant) -> Option<Transition> {
        self.is_troubled().then(|| self.change(|health| health.succeeded(now)))?
    }

    /// A client could not be served, for the reason given.
    pub fn failed(&self, reason: &str, now: Instant) -> Option<Transition> {
        self.change(|health| health.failed(reason, now))
    }

    /// A check has passed, or failed for the reason given.
    pub fn checked(&self, result: Result<(), &str>, now: Instant) -> Option<Transition> {
        self.change(|health| health.checked(result, now))
    }

    /// Another process had looked after it, and it was down there, since `since`.
    pub fn was_down(&self, why: (FoundBy, &str), since: Instant, now: Instant) -> Option<Transition> {
        self.change(|health| health.was_down(why, since, now))
    }

    /// From now on other rules apply.
    pub fn follow(&self, rules: Rules, now: Instant) -> Option<Transition> {
        self.change(|health| health.follow(rules, now))
    }

    /// Since when it is down, and what has put it down, in words.
    pub fn down(&self) -> Option<(Instant, Box<str>)> {
        self.lock().down().map(|(since, reason)| (since, reason.into()))
    }

    /// How it is at `now`.
    pub fn report(&self, now: Instant) -> Report {
        self.lock().report(now, self.began)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Health) -> T) -> T {
        let mut health = self.lock();
        let changed = change(&mut health);
        self.publish(&health);
        changed
    }

    fn lock(&self) -> MutexGuard<'_, Health> {
        // Each change leaves it whole.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, health: &Health) {
        let closed_until = match health.door() {
            Door::Open => OPEN,
            Door::ShutUntil(until) => self.time(until),
            Door::Shut => SHUT,
        };
        self.closed_until.store(closed_until, Ordering::Relaxed);
        self.warming_since.store(health.warming_since.map_or(OPEN, |since| self.time(since)), Ordering::Relaxed);
        let slow_start = u64::try_from(health.rules.slow_start.as_millis()).unwrap_or(u64::MAX);
        self.slow_start.store(slow_start, Ordering::Relaxed);
        let is_troubled = !matches!(health.clients, Clients::Well { failures: 0, .. });
        self.is_troubled.store(is_troubled, Ordering::Relaxed);
    }

    /// Milliseconds from 1 on, rounded down.
    fn time(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.began).as_millis();
        u64::try_from(since).unwrap_or(SHUT - 1).clamp(1, SHUT - 1)
    }
}
