//! Relays that are with another server than the one where they belong by now: after servers have come
//! or gone, or because theirs holds more than its share. Pure but for what it is told.
//!
//! The rule: only those are strays whose client would get another server if it came back. Whom a
//! cookie of ours or a learned session leads back to the same server is at home there.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::inbox::Id;
use crate::upstream::ServerId;

/// What has chosen the server of a relay, in eight bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin(u64);

impl Origin {
    /// Something that would choose it again.
    pub const FIXED: Self = Self(0);
    /// Load, or chance: another server would do as well.
    pub const FREE: Self = Self(1);

    /// The key of this hash.
    pub fn key(hash: u64) -> Self {
        Self(hash.max(2)) // Two keys of four billion lead elsewhere for it: they are no strays then, or early ones.
    }

    /// What it is.
    pub fn choice(self) -> Choice {
        match self {
            Self::FIXED => Choice::Fixed,
            Self::FREE => Choice::Free,
            Self(hash) => Choice::Key(hash),
        }
    }
}

/// What an [`Origin`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Something that would choose the same server again.
    Fixed,
    /// Load, or chance.
    Free,
    /// A key, by its hash.
    Key(u64),
}

/// Which relays are looked for.
#[derive(Debug)]
pub struct Search {
    /// Of the upstream of this name.
    pub upstream: String,
    /// Younger ones are left alone.
    pub min_age: Duration,
    /// How many at most of each thread; the oldest.
    pub limit: usize,
    /// How far each server is above its share.
    pub excess: Vec<(ServerId, usize)>,
}

impl Search {
    /// Whether the relays of `server` that could be anywhere should be elsewhere.
    pub fn is_above(&self, server: ServerId) -> bool {
        self.excess.iter().any(|(above, count)| *above == server && *count > 0)
    }
}

/// One that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Which relay it is; smaller ones are older.
    pub id: Id,
    /// Where it is.
    pub from: ServerId,
    /// Where it belongs; `None`: anywhere else.
    pub to: Option<ServerId>,
}

/// Those of one thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Relays of the upstream.
    pub relays: usize,
    /// Those of them that stray, on the list or not.
    pub strays: usize,
    /// The oldest of them.
    pub oldest: Vec<Stray>,
}

impl Found {
    /// Those of several threads together, of which the `limit` oldest are kept; of those that belong
    /// anywhere else no more than `excess` from each server.
    pub fn merge(all: impl IntoIterator<Item = Self>, limit: usize, excess: &[(ServerId, usize)]) -> Self {
        let mut merged = Self::default();
        for found in all {
            merged.relays += found.relays;
            merged.strays += found.strays;
            merged.oldest.extend(found.oldest);
        }
        merged.oldest.sort_unstable_by_key(|stray| stray.id);
        let mut left = excess.to_vec();
        merged.oldest.retain(|stray| {
            if stray.to.is_some() {
                return true;
            }
            let Some((_, left)) = left.iter_mut().find(|(server, left)| *server == stray.from && *left > 0) else {
                return false;
            };
            *left -= 1;
            true
        });
        merged.oldest.truncate(limit);
        merged
    }
}

/// How many may move, while time passes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    /// Moves that are allowed and have not happened; below one between two calls.
    credit: f64,
}

impl Budget {
    /// How many of `relays` may move after `elapsed` at `percent` of them a minute. What was not used
    /// is not saved up: a pace is none if it can be made up for.
    pub fn take(&mut self, relays: usize, percent: u32, elapsed: Duration) -> usize {
        let allowed = relays as f64 * f64::from(percent) / 100.0 * elapsed.as_secs_f64() / 60.0;
        self.credit = self.credit.fract() + allowed;
        self.credit as usize // Neither negative nor larger than what there is.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_it_was_made_of() {
        assert_eq!(Origin::default().choice(), Choice::Fixed);
        assert_eq!(Origin::FREE.choice(), Choice::Free);
        assert_eq!(Origin::key(u64::MAX).choice(), Choice::Key(u64::MAX));
        assert_eq!(Origin::key(0).choice(), Choice::Key(2));
    }

    #[test]
    fn the_oldest_of_all_threads_move_and_no_more_than_are_too_many() {
        let servers = crate::upstream::Servers::ids(3);
        let stray = |id, from: usize, to: Option<usize>| Stray {
            id: Id(id),
            from: servers[from],
            to: to.map(|to| servers[to]),
        };
        let one = Found {
            relays: 10,
            strays: 3,
            oldest: vec![stray(4, 0, Some(1)), stray(9, 0, None), stray(7, 1, Some(2))],
        };
        let two = Found { relays: 5, strays: 3, oldest: vec![stray(2, 0, None), stray(3, 0, None), stray(8, 2, None)] };
        let merged = Found::merge([one, two], 3, &[(servers[0], 1), (servers[1], 5)]);
        assert_eq!((merged.relays, merged.strays), (15, 6));
        assert_eq!(merged.oldest.iter().map(|stray| stray.id.0).collect::<Vec<_>>(), [2, 4, 7]);
    }

    #[test]
    fn a_pace_is_kept_to_the_relay() {
        let mut budget = Budget::default();
        let six_seconds = Duration::from_secs(6);
        // 5 percent of 300 are 15 a minute: three every twelve seconds.
        let moves: Vec<_> = (0..10).map(|_| budget.take(300, 5, six_seconds)).collect();
        assert_eq!(moves.iter().sum::<usize>(), 15, "{moves:?}");
        assert!(moves.iter().all(|moves| (1..=2).contains(moves)), "{moves:?}");
        assert_eq!(Budget::default().take(0, 100, six_seconds), 0);
        assert_eq!(Budget::default().take(7, 100, Duration::from_secs(60)), 7);
    }
}
