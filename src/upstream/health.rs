//! Whether a server is fit for clients: what checks find out and what happens to clients, put together.
//!
//! ```text
//! checks   unchecked ── first result ──► passing ◄─ rise in a row ─┐
//!                            └─────────► failing ◄─ fall in a row ─┘
//! clients  well ── max_fails in a row within fail_timeout ──► out, for fail_timeout
//!          out, its time over ── one client tries ──► answered: well
//!                                                └──► failed, or no word: out once more
//! ```
//!
//! A server is *up* while neither says otherwise. Three rules beyond that:
//!
//! - Who was never checked is up, and the first check decides alone (HAProxy's `init-state up`): a
//!   proxy serves at once, and does not go on sending clients to a server that was dead before it.
//! - Behind `fail_timeout` it is on trial: *one* client at a time gets to try it, as with nginx, for a
//!   server that takes connections and never answers would hold all of them for minutes.
//! - After it was down it warms up over `slow_start`. Not when the process starts: then there is
//!   nobody else who could take its clients.
//!
//! What counts as a failure is the caller's to say; the end of a connection that had been answered
//! never does. [`Health`] is pure; [`HealthCell`] shares one between threads, and is read without a
//! lock.

mod cell;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::balance::WARM;
use crate::config::{self, Tolerance};

pub use cell::HealthCell;

/// What a server's health is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// When checks change their mind; `None`: there are none.
    pub checks: Option<Thresholds>,
    /// When failures of clients are too many; `None`: they do not matter.
    pub clients: Option<Tolerance>,
    /// How long it takes a server that comes back to get all of its clients; zero: it does at once.
    pub slow_start: Duration,
}

/// How many checks in a row it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Passed ones until a server is up; at least 1.
    pub rise: u32,
    /// Failed ones until it is down; at least 1.
    pub fall: u32,
}

impl Rules {
    /// As the file says for the servers of `upstream`.
    pub fn of(upstream: &config::Upstream) -> Self {
        let checks = upstream.health_check.as_ref();
        Self {
            checks: checks.map(|check| Thresholds { rise: check.rise, fall: check.fall }),
            clients: upstream.tolerance,
            slow_start: upstream.slow_start,
        }
    }
}

/// Who has found out that a server is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FoundBy {
    /// A check.
    Checks,
    /// Clients who were not served.
    Clients,
}

impl FoundBy {
    /// The word for operators.
    pub fn label(self) -> &'static str {
        match self {
            Self::Checks => "checks",
            Self::Clients => "clients",
        }
    }
}

/// A server has come up or gone down. Each is told once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transition {
    /// It gets clients only when nobody else is up.
    Down {
        /// How that is known.
        found_by: FoundBy,
        /// What has happened last, in words.
        reason: Box<str>,
    },
    /// It gets clients again.
    Up {
        /// How long it did not.
        after: Duration,
    },
}

/// The health of one server. Pure.
#[derive(Clone, Debug)]
pub struct Health {
    rules: Rules,
    checks: Checks,
    clients: Clients,
    /// Since when it is down.
    down_since: Option<Instant>,
    /// Since when it warms up.
    warming_since: Option<Instant>,
    /// When it has come up or gone down last; `None` when it never has.
    turned: Option<Instant>,
    /// Who has put it down last.
    found_by: Option<FoundBy>,
    /// What has put it down last.
    reason: Box<str>,
}

/// How a server is, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether it is up.
    pub is_up: bool,
    /// When it has come up or gone down last, or appeared.
    pub since: Instant,
    /// Who has put it down last, and what happened then, in words; `None`: nobody ever has.
    pub last_down: Option<(FoundBy, Box<str>)>,
    /// What checks say: `unchecked`, `passing` or `failing`; `None`: there are none.
    pub checks: Option<&'static str>,
    /// What clients have met: `well`, `failing` (not often enough yet), `out` or `on_trial`; `None`: their
    /// failures do not matter.
    pub clients: Option<&'static str>,
}

/// What the checks say.
#[derive(Clone, Copy, Debug)]
enum Checks {
    Unchecked,
    /// With so many failed in a row since.
    Passing(u32),
    /// With so many passed in a row since.
    Failing(u32),
}

/// What clients have met.
#[derive(Clone, Copy, Debug)]
enum Clients {
    Well {
        /// In a row.
        failures: u32,
        /// Since the first of them.
        since: Option<Instant>,
    },
    Out {
        until: Instant,
        /// Somebody has been sent there since, and their answer counts.
        is_tried: bool,
    },
}

/// Whether clients get in.
#[derive(Clone, Copy, Debug)]
enum Door {
    Open,
    /// And then for one at a time.
    ShutUntil(Instant),
    /// Until a check says otherwise.
    Shut,
}

impl Clients {
    const WELL: Self = Self::Well { failures: 0, since: None };
}

/// What a server gets the moment it is back: less than nothing would never warm anything.
pub const WARMTH_MIN: u16 = 10;

/// Longest reason that is remembered, in characters.
pub const REASON_MAX: usize = 160;

impl Health {
    /// Of a server that is there from the start: up, and warm.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            checks: Checks::Unchecked,
            clients: Clients::WELL,
            down_since: None,
            warming_since: None,
            turned: None,
            found_by: None,
            reason: "".into(),
        }
    }

    /// Of a server that joins others which are serving already: up, and cold.
    pub fn joined(rules: Rules, now: Instant) -> Self {
        Self { warming_since: Some(now), ..Self::new(rules) }
    }

    /// From now on other rules apply. What can no longer change its mind has none.
    pub fn follow(&mut self, rules: Rules, now: Instant) -> Option<Transition> {
        if rules.checks.is_none() {
            self.checks = Checks::Unchecked;
        }
        if rules.clients.is_none() {
            self.clients = Clients::WELL;
        }
        self.rules = rules;
        self.settle(now, FoundBy::Checks)
    }

    /// Another process had looked after it, and it was down there, since `since`. What is known here
    /// already counts more.
    pub fn was_down(
        &mut self,
        (found_by, reason): (FoundBy, &str),
        since: Instant,
        now: Instant,
    ) -> Option<Transition> {
        match (found_by, self.rules, self.checks, self.clients) {
            (FoundBy::Checks, Rules { checks: Some(_), .. }, Checks::Unchecked, _) => self.checks = Checks::Failing(0),
            (FoundBy::Clients, Rules { clients: Some(tolerance), .. }, _, Clients::Well { failures: 0, .. }) => {
                self.clients = Clients::Out { until: now + tolerance.fail_timeout, is_tried: false };
            }
            _ => return None,
        }
        self.remember(reason);
        let transition = self.settle(now, found_by)?;
        (self.down_since, self.turned) = (Some(since), Some(since));
        Some(transition)
    }

    /// A check has passed, or failed for the reason given.
    pub fn checked(&mut self, result: Result<(), &str>, now: Instant) -> Option<Transition> {
        let Thresholds { rise, fall } = self.rules.checks?;
        self.checks = match (self.checks, result) {
            (Checks::Unchecked | Checks::Passing(_), Ok(())) => Checks::Passing(0),
            (Checks::Passing(failed), Err(_)) if failed + 1 < fall => Checks::Passing(failed + 1),
            (Checks::Failing(passed), Ok(())) if passed + 1 < rise => Checks::Failing(passed + 1),
            (Checks::Failing(_), Ok(())) => Checks::Passing(0),
            (_, Err(reason)) => {
                self.remember(reason);
                Checks::Failing(0)
            }
        };
        self.settle(now, FoundBy::Checks)
    }

    /// A client was answered.
    pub fn succeeded(&mut self, now: Instant) -> Option<Transition> {
        match self.clients {
            // Whoever had been sent there before knows nothing new.
            Clients::Out { is_tried: false, .. } => None,
            Clients::Well { .. } | Clients::Out { .. } => {
                self.clients = Clients::WELL;
                self.settle(now, FoundBy::Clients)
            }
        }
    }

    /// A client could not be served, for the reason given.
    pub fn failed(&mut self, reason: &str, now: Instant) -> Option<Transition> {
        let Tolerance { max_fails, fail_timeout } = self.rules.clients?;
        self.clients = match self.clients {
            Clients::Well { failures, since } => {
                let since = since.filter(|since| now.saturating_duration_since(*since) <= fail_timeout);
                let failures = since.map_or(1, |_| failures + 1);
                match failures < max_fails {
                    true => Clients::Well { failures, since: since.or(Some(now)) },
                    false => Clients::Out { until: now + fail_timeout, is_tried: false },
                }
            }
            Clients::Out { until, .. } => Clients::Out { until: until.max(now + fail_timeout), is_tried: false },
        };
        if matches!(self.clients, Clients::Out { .. }) {
            self.remember(reason);
        }
        self.settle(now, FoundBy::Clients)
    }

    /// A client is sent there: whether on trial or because nobody is up, its answer counts, and the
    /// next one is not sent before it, or before `fail_timeout`.
    pub fn tried(&mut self, now: Instant) {
        if let (Clients::Out { until, is_tried }, Some(tolerance)) = (&mut self.clients, self.rules.clients) {
            *is_tried = true;
            *until = (*until).max(now + tolerance.fail_timeout);
        }
    }

    /// Whether it gets clients at `now`: it is up, or may be tried.
    pub fn is_open(&self, now: Instant) -> bool {
        match self.door() {
            Door::Open => true,
            Door::ShutUntil(until) => until <= now,
            Door::Shut => false,
        }
    }

    /// Whether it is up. One that may be tried is not yet.
    pub fn is_up(&self) -> bool {
        self.down_since.is_none()
    }

    /// Since when it is down, and what has put it down, in words.
    pub fn down(&self) -> Option<(Instant, &str)> {
        self.down_since.map(|since| (since, &*self.reason))
    }

    /// The part of its clients that it gets at `now`: [`WARMTH_MIN`] to [`WARM`].
    pub fn warmth(&self, now: Instant) -> u16 {
        let since = self.warming_since.map(|since| now.saturating_duration_since(since));
        since.map_or(WARM, |since| warmth(since, self.rules.slow_start))
    }

    /// How it is at `now`; it appeared when it `began`.
    pub fn report(&self, now: Instant, began: Instant) -> Report {
        let checks = match self.checks {
            Checks::Unchecked => "unchecked",
            Checks::Passing(_) => "passing",
            Checks::Failing(_) => "failing",
        };
        let clients = match self.clients {
            Clients::Well { failures: 0, .. } => "well",
            Clients::Well { .. } => "failing",
            Clients::Out { until, .. } if until <= now => "on_trial",
            Clients::Out { .. } => "out",
        };
        Report {
            is_up: self.is_up(),
            since: self.turned.unwrap_or(began),
            last_down: self.found_by.map(|found_by| (found_by, self.reason.clone())),
            checks: self.rules.checks.map(|_| checks),
            clients: self.rules.clients.map(|_| clients),
        }
    }

    fn door(&self) -> Door {
        match (self.checks, self.clients) {
            (Checks::Failing(_), _) => Door::Shut,
            (_, Clients::Out { until, .. }) => Door::ShutUntil(until),
            (_, Clients::Well { .. }) => Door::Open,
        }
    }

    fn settle(&mut self, now: Instant, found_by: FoundBy) -> Option<Transition> {
        match (self.down_since, self.door()) {
            (None, Door::Shut | Door::ShutUntil(_)) => {
                self.down_since = Some(now);
                self.turned = Some(now);
                self.found_by = Some(found_by);
                self.warming_since = None;
                Some(Transition::Down { found_by, reason: self.reason.clone() })
            }
            (Some(since), Door::Open) => {
                self.down_since = None;
                self.turned = Some(now);
                self.warming_since = Some(now);
                Some(Transition::Up { after: now.saturating_duration_since(since) })
            }
            _ => None,
        }
    }

    fn remember(&mut self, reason: &str) {
        self.reason = reason.chars().take(REASON_MAX).collect();
    }
}

/// The warmth of who has been back for `since`, linear over `slow_start`.
fn warmth(since: Duration, slow_start: Duration) -> u16 {
    let whole = slow_start.as_millis();
    let part = (since.as_millis() * u128::from(WARM)).checked_div(whole);
    let part = part.and_then(|part| u16::try_from(part).ok()).unwrap_or(WARM);
    part.clamp(WARMTH_MIN, WARM)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    const RULES: Rules = Rules {
        checks: Some(Thresholds { rise: 2, fall: 3 }),
        clients: Some(Tolerance { max_fails: 3, fail_timeout: Duration::from_secs(10) }),
        slow_start: Duration::from_secs(100),
    };

    fn down(found_by: FoundBy, reason: &str) -> Option<Transition> {
        Some(Transition::Down { found_by, reason: reason.into() })
    }

    fn up(seconds: u64) -> Option<Transition> {
        Some(Transition::Up { after: Duration::from_secs(seconds) })
    }

    #[test]
    fn the_first_check_decides_alone() {
        let now = Instant::now();
        let mut health = Health::new(RULES);
        assert!(health.is_up() && health.is_open(now));
        assert_eq!(health.checked(Err("503"), now), down(FoundBy::Checks, "503"));
        assert!(!health.is_up() && !health.is_open(now + 1000 * S));

        let mut health = Health::new(RULES);
        assert_eq!(health.checked(Ok(()), now), None);
        assert_eq!(health.checked(Err("503"), now), None);
    }

    #[test]
    fn checks_have_to_agree_in_a_row() {
        /// `+` and `-` are checks; `U` and `D` what they bring about.
        #[track_caller]
        fn check(story: &str) {
            let now = Instant::now();
            let mut health = Health::new(RULES);
            let mut steps = story.chars().peekable();
            while let Some(step) = steps.next() {
                let told = health.checked(if step == '+' { Ok(()) } else { Err("refused") }, now);
                let expected = match steps.next_if(|next| next.is_alphabetic()) {
                    Some('U') => up(0),
                    Some(_) => down(FoundBy::Checks, "refused"),
                    None => None,
                };
                assert_eq!(told, expected, "at {step}, before {:?} of {story}", steps.collect::<String>());
            }
        }

        check("+--+--+---D");
        check("+---D---");
        check("+---D+-+-+-++U");
        check("-D++U--+---D");
        check("-D+-++U");
    }

    #[test]
    fn failures_count_in_a_row_and_within_their_time() {
        let now = Instant::now();
        let fail = |health: &mut Health, at: u64| health.failed("refused", now + at as u32 * S).is_some();

        let mut health = Health::new(RULES);
        assert_eq!([0, 5, 10].map(|at| fail(&mut health, at)), [false, false, true]);

        // The third comes too late for the first, and begins anew.
        let mut health = Health::new(RULES);
        assert_eq!([0, 5, 11, 12, 13].map(|at| fail(&mut health, at)), [false, false, false, false, true]);

        let mut health = Health::new(RULES);
        assert_eq!([0, 1].map(|at| fail(&mut health, at)), [false, false]);
        assert_eq!(health.succeeded(now), None);
        assert_eq!([2, 3, 4].map(|at| fail(&mut health, at)), [false, false, true]);
    }

    #[test]
    fn one_client_at_a_time_tries_a_server() {
        let now = Instant::now();
        let rules = Rules { clients: Some(Tolerance { max_fails: 1, fail_timeout: 10 * S }), ..RULES };
        let mut health = Health::new(rules);
        assert_eq!(health.failed("reset", now), down(FoundBy::Clients, "reset"));
        assert!(!health.is_open(now + 9 * S) && health.is_open(now + 10 * S));
        assert!(!health.is_up());
        health.tried(now + 10 * S);
        assert!(!health.is_open(now + 11 * S), "somebody is trying");
        assert_eq!(health.failed("refused", now + 12 * S), None, "it was down all the time");
        assert_eq!(health.down(), Some((now, "refused")));
        assert!(!health.is_open(now + 21 * S) && health.is_open(now + 22 * S));
        health.tried(now + 25 * S);
        assert!(health.is_open(now + 35 * S), "no word for so long: somebody else may");
        health.tried(now + 35 * S);
        assert_eq!(health.succeeded(now + 36 * S), up(36));
        assert!(health.is_up() && health.is_open(now + 36 * S));
    }

    #[test]
    fn who_was_down_elsewhere_is_down_here_until_the_same_would_end_it() {
        let before = Instant::now();
        let now = before + 60 * S;
        let mut health = Health::new(RULES);
        assert_eq!(health.was_down((FoundBy::Checks, "503"), before, now), down(FoundBy::Checks, "503"));
        assert_eq!(health.down(), Some((before, "503")));
        assert_eq!([Ok(()), Ok(())].map(|passed| health.checked(passed, now)), [None, up(60)]);

        let mut health = Health::new(RULES);
        assert_eq!(health.was_down((FoundBy::Clients, "reset"), before, now), down(FoundBy::Clients, "reset"));
        assert!(!health.is_open(now + 9 * S) && health.is_open(now + 10 * S));
        health.tried(now + 10 * S);
        assert_eq!(health.succeeded(now + 11 * S), up(71));

        // What was found out here is newer, and what nothing could end does not begin.
        let mut health = Health::new(RULES);
        health.checked(Ok(()), now);
        assert_eq!(health.was_down((FoundBy::Checks, "503"), before, now), None);
        let mut health = Health::new(Rules { checks: None, clients: None, ..RULES });
        for found_by in [FoundBy::Checks, FoundBy::Clients] {
            assert_eq!(health.was_down((found_by, "503"), before, now), None);
            assert!(health.is_up());
        }
    }

    #[test]
    fn only_who_was_sent_there_since_can_clear_it() {
        let now = Instant::now();
        let rules = Rules { clients: Some(Tolerance { max_fails: 1, fail_timeout: 10 * S }), ..RULES };
        let mut health = Health::new(rules);
        health.failed("refused", now);
        assert_eq!(health.succeeded(now + S), None, "an answer that was under way");
        // Nobody else was up.
        health.tried(now + 2 * S);
        assert_eq!(health.succeeded(now + 3 * S), up(3));
    }

    #[test]
    fn it_is_down_if_either_says_so() {
        let now = Instant::now();
        let rules = Rules { clients: Some(Tolerance { max_fails: 1, fail_timeout: 10 * S }), ..RULES };
        let mut health = Health::new(rules);
        assert_eq!(health.failed("refused", now), down(FoundBy::Clients, "refused"));
        assert_eq!(health.checked(Err("503"), now + S), None, "is already");
        health.tried(now + 11 * S);
        assert_eq!(health.succeeded(now + 12 * S), None, "checks still say so");
        assert_eq!(health.checked(Ok(()), now + 13 * S), None);
        assert_eq!(health.checked(Ok(()), now + 14 * S), up(14));
    }

    #[test]
    fn what_is_switched_off_says_nothing() {
        let now = Instant::now();
        let none = Rules { checks: None, clients: None, slow_start: Duration::ZERO };
        let mut health = Health::new(none);
        for _ in 0..100 {
            assert_eq!(health.failed("refused", now), None);
            assert_eq!(health.checked(Err("refused"), now), None);
        }
        assert_eq!(health.warmth(now), WARM);

        let mut health = Health::new(RULES);
        health.checked(Err("503"), now);
        assert_eq!(health.follow(none, now + S), up(1));
        assert_eq!(health.follow(RULES, now + S), None);
        assert!(health.is_up());
    }

    #[test]
    fn a_server_that_is_back_warms_up() {
        #[track_caller]
        fn check(health: &Health, now: Instant, expected: [u16; 6]) {
            let at = [0, 1, 50, 99, 100, 1_000_000].map(|at| health.warmth(now + at * S));
            assert_eq!(at, expected);
        }

        let now = Instant::now();
        let warming = [WARMTH_MIN, 10, 500, 990, WARM, WARM];
        let mut health = Health::new(RULES);
        check(&health, now, [WARM; 6]);
        check(&Health::joined(RULES, now), now, warming);
        health.checked(Err("503"), now);
        health.checked(Ok(()), now);
        health.checked(Ok(()), now);
        check(&health, now, warming);
        check(&Health::joined(Rules { slow_start: Duration::ZERO, ..RULES }, now), now, [WARM; 6]);
    }

    #[test]
    fn a_report_tells_who_says_what_and_since_when() {
        let began = Instant::now();
        let mut health = Health::new(RULES);
        let words = |health: &Health, now: Instant| {
            let Report { checks, clients, .. } = health.report(now, began);
            (checks.unwrap_or("none"), clients.unwrap_or("none"))
        };
        assert_eq!(words(&health, began), ("unchecked", "well"));
        let report = health.report(began + S, began);
        assert_eq!((report.is_up, report.since, report.last_down), (true, began, None));
        health.failed("refused", began);
        assert_eq!(words(&health, began), ("unchecked", "failing"));
        for second in 1..3 {
            health.failed("refused", began + S * second);
        }
        let report = health.report(began + S * 5, began);
        assert_eq!((report.is_up, report.since), (false, began + S * 2));
        assert_eq!(report.last_down, Some((FoundBy::Clients, "refused".into())));
        assert_eq!((words(&health, began + S * 11).1, words(&health, began + S * 12).1), ("out", "on_trial"));
        health.tried(began + S * 12);
        health.succeeded(began + S * 13);
        let report = health.report(began + S * 14, began);
        assert_eq!((report.is_up, report.since), (true, began + S * 13));
        assert!(report.last_down.is_some(), "what it was is worth knowing");
        health.checked(Err("silent"), began + S * 15);
        assert_eq!(words(&health, began + S * 15), ("failing", "well"));
        assert_eq!(health.report(began, began).last_down, Some((FoundBy::Checks, "silent".into())));
        health.follow(Rules { checks: None, clients: None, ..RULES }, began + S * 16);
        assert_eq!(words(&health, began + S * 16), ("none", "none"));
    }

    #[test]
    fn reasons_are_bounded() {
        let mut health = Health::new(RULES);
        health.checked(Err(&"é".repeat(10_000)), Instant::now());
        assert_eq!(health.down().unwrap().1.chars().count(), REASON_MAX);
    }

    proptest! {
        /// The cell tells what the state behind it would, to the millisecond.
        #[test]
        fn the_cell_is_the_state(steps in prop::collection::vec((0..6_u8, 0..4_000_u64), 1..200), joins: bool) {
            let mut now = Instant::now();
            let mut health = if joins { Health::joined(RULES, now) } else { Health::new(RULES) };
            let cell = HealthCell::of(health.clone(), now);
            for (step, wait) in steps {
                now += Duration::from_millis(wait);
                let (one, other) = match step {
                    0 => (health.checked(Ok(()), now), cell.checked(Ok(()), now)),
                    1 => (health.checked(Err("503"), now), cell.checked(Err("503"), now)),
                    2 | 3 => (health.failed("refused", now), cell.failed("refused", now)),
                    4 => (health.succeeded(now), cell.succeeded(now)),
                    _ => {
                        health.tried(now);
                        cell.tried(now);
                        (None, None)
                    }
                };
                prop_assert_eq!(one, other);
                prop_assert_eq!(health.is_up(), cell.is_up());
                prop_assert_eq!(health.is_open(now), cell.is_open(now));
                prop_assert_eq!(health.warmth(now), cell.warmth(now));
                prop_assert_eq!(health.down().map(|(since, _)| since), cell.down().map(|(since, _)| since));
            }
        }
    }
}
