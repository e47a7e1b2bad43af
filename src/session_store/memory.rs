//! A bounded table of sessions, in the memory of this process.
//!
//! Pure: time is an argument, in whole seconds since the store began. All threads share it, in
//! shards of which each has its own lock, held for a lookup.
//!
//! ```text
//! session ─ hash ─┬─ shard    sessions in chunks, without gaps
//!                 └─ index    where in its shard, five bytes a session
//! ```
//!
//! The *hand* of a shard goes round. Every session that is added moves it a few places on, and
//! what it finds expired is freed; so what was forgotten gives its memory back while others come.
//! In a full shard one more has to go that is still alive: of a few drawn at random the one unused
//! for longest. The hand would not do for that, because sessions that came together stay together.
//!
//! A session takes 38 to 44 bytes: 32 in its chunk and 6 to 11 in the index, depending on how
//! recently that has doubled. By counted allocations: 42 with 10,000 sessions, 38 with 900,000, 42
//! with 1,000,000. A zone of nginx takes about 250.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ahash::RandomState;
use hashbrown::HashTable;

use crate::affinity::learned::{ServerName, SessionId};

/// Whole seconds since the store began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Second(pub u32);

impl Second {
    /// How many seconds after `earlier` this is.
    pub fn since(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }
}

/// What is known of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The server that issued it.
    pub server: ServerName,
    /// When somebody who knows better last said so, if anybody has.
    pub confirmed: Option<Second>,
}

/// Sessions and who issued them.
pub struct Memory {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    /// Sessions in one shard.
    shard_len_max: usize,
    /// A session unused for longer is forgotten.
    idle: u32,
    len: AtomicUsize,
}

impl Memory {
    /// Enough for threads not to wait for each other, and few enough to fill evenly.
    const SHARDS: usize = 16;

    /// An empty table of about `sessions`, each remembered for `idle` after its last use: at least
    /// as long, and at most a second longer.
    pub fn new(sessions: usize, idle: Duration) -> Self {
        Self {
            shards: std::iter::repeat_with(Mutex::default).take(Self::SHARDS).collect(),
            hasher: RandomState::new(),
            shard_len_max: (sessions / Self::SHARDS).clamp(1, u32::MAX as usize),
            idle: seconds_up(idle),
            len: AtomicUsize::new(0),
        }
    }

    /// What is known of `session`, which counts as a use.
    pub fn find(&self, session: SessionId, now: Second) -> Option<Known> {
        self.change(session, |shard, hash| {
            let at = shard.position(session, hash)?;
            let entry = shard.entries.get_mut(at);
            if now.since(entry.used) > self.idle {
                shard.remove(at, &self.hasher);
                return None;
            }
            entry.used = entry.used.max(now);
            Some(Known { server: entry.server, confirmed: entry.confirmed() })
        })
    }

    /// Remembers `known` of `session`, in place of what was known before. Whether a session had to
    /// go that was still alive.
    pub fn learn(&self, session: SessionId, known: Known, now: Second) -> bool {
        let entry = Entry {
            session,
            server: known.server,
            used: now,
            confirmed: known.confirmed.map_or(0, |second| second.0.saturating_add(1)),
        };
        self.change(session, |shard, hash| {
            if let Some(at) = shard.position(session, hash) {
                *shard.entries.get_mut(at) = entry;
                return false;
            }
            shard.free_expired(self.idle, now, &self.hasher);
            let is_full = shard.entries.len >= self.shard_len_max;
            if is_full {
                shard.evict(hash, &self.hasher);
            }
            shard.add(entry, hash, &self.hasher);
            is_full
        })
    }

    /// The sessions that were used within so many seconds before `now`, of one shard after the other: each
    /// is held for as long as it takes to copy it.
    pub fn used_within(&self, seconds: u32, now: Second) -> impl Iterator<Item = (SessionId, Known, Second)> {
        let within = seconds.min(self.idle);
        self.shards.iter().flat_map(move |shard| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let entries = shard.entries.chunks.iter().flatten();
            let recent = entries.filter(|entry| now.since(entry.used) <= within);
            let known = |entry: &Entry| Known { server: entry.server, confirmed: entry.confirmed() };
            recent.map(|entry| (entry.session, known(entry), entry.used)).collect::<Vec<_>>()
        })
    }

    /// How many sessions it holds, forgotten ones included that nobody has come across.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Does something to the shard of `session`, and counts what came of it.
    fn change<T>(&self, session: SessionId, change: impl FnOnce(&mut Shard, u64) -> T) -> T {
        let hash = self.hasher.hash_one(session);
        // The index takes its bits from both ends.
        let shard = &self.shards[(hash >> 32) as usize % self.shards.len()];
        let mut shard: MutexGuard<'_, Shard> = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let before = shard.entries.len;
        let outcome = change(&mut shard, hash);
        // Wraps for fewer, and back again.
        self.len.fetch_add(shard.entries.len.wrapping_sub(before), Ordering::Relaxed);
        outcome
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} sessions)", self.len())
    }
}

/// Whole seconds, of which the last may not be full.
pub(super) fn seconds_up(duration: Duration) -> u32 {
    let begun = u64::from(duration.subsec_nanos() > 0);
    u32::try_from(duration.as_secs().saturating_add(begun)).unwrap_or(u32::MAX)
}

#[derive(Debug, Default)]
struct Shard {
    index: HashTable<u32>,
    entries: Entries,
    hand: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    session: SessionId,
    server: ServerName,
    used: Second,
    /// A second too many, so that 0 means never.
    confirmed: u32,
}

impl Entry {
    fn confirmed(&self) -> Option<Second> {
        self.confirmed.checked_sub(1).map(Second)
    }
}

impl Shard {
    /// Places that the hand goes on when a session is added. What is freed is replaced by the last
    /// session, which is mostly alive, so it takes more than two to free more than is added.
    const STEPS: usize = 4;
    /// Of so many, the one unused for longest makes room.
    const CHOICE: usize = 8;

    fn position(&self, session: SessionId, hash: u64) -> Option<usize> {
        let is_it = |at: &u32| self.entries.get(*at as usize).session == session;
        self.index.find(hash, is_it).map(|at| *at as usize)
    }

    fn free_expired(&mut self, idle: u32, now: Second, hasher: &RandomState) {
        for _ in 0..Self::STEPS {
            match self.under_hand() {
                None => return,
                // The last session takes the place, and is looked at next.
                Some(entry) if now.since(entry.used) > idle => self.remove(self.hand, hasher),
                Some(_) => self.hand += 1,
            }
        }
    }

    fn evict(&mut self, mut seed: u64, hasher: &RandomState) {
        let mut draw = || {
            // Knuth's generator; its upper bits are the good ones.
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 32) as usize % self.entries.len
        };
        let drawn: [usize; Self::CHOICE] = std::array::from_fn(|_| draw());
        if let Some(at) = drawn.into_iter().min_by_key(|at| self.entries.get(*at).used) {
            self.remove(at, hasher);
        }
    }

    fn under_hand(&mut self) -> Option<Entry> {
        if self.hand >= self.entries.len {
            self.hand = 0;
        }
        (self.entries.len > 0).then(|| *self.entries.get(self.hand))
    }

    fn add(&mut self, entry: Entry, hash: u64, hasher: &RandomState) {
        let Self { index, entries, .. } = self;
        let at = u32::try_from(entries.len).expect("a shard is bounded by u32");
        entries.push(entry);
        index.insert_unique(hash, at, |at| hasher.hash_one(entries.get(*at as usize).session));
    }

    /// Takes the session at `at` out; the last one moves to its place.
    fn remove(&mut self, at: usize, hasher: &RandomState) {
        let Self { index, entries, .. } = self;
        let last = entries.len - 1;
        for (from, to) in [(at, None), (last, Some(at))] {
            let hash = hasher.hash_one(entries.get(from).session);
            if let Ok(mut slot) = index.find_entry(hash, |it| *it as usize == from) {
                match to {
                    None => drop(slot.remove()),
                    // Below u32, as `at` came out of the index.
                    Some(to) => *slot.get_mut() = to as u32,
                }
            }
        }
        *entries.get_mut(at) = *entries.get(last);
        entries.pop();
        if index.len() < index.capacity() / 4 {
            index.shrink_to(index.len() * 2, |at| hasher.hash_one(entries.get(*at as usize).session));
        }
    }
}

/// Entries without gaps, in chunks: a plain vector would double, and lie half empty.
#[derive(Debug, Default)]
struct Entries {
    chunks: Vec<Vec<Entry>>,
    len: usize,
}

impl Entries {
    const CHUNK: usize = 64;

    fn get(&self, at: usize) -> &Entry {
        &self.chunks[at / Self::CHUNK][at % Self::CHUNK]
    }

    fn get_mut(&mut self, at: usize) -> &mut Entry {
        &mut self.chunks[at / Self::CHUNK][at % Self::CHUNK]
    }

    fn push(&mut self, entry: Entry) {
        let chunk = self.len / Self::CHUNK;
        if chunk == self.chunks.len() {
            self.chunks.push(Vec::with_capacity(Self::CHUNK));
        }
        self.chunks[chunk].push(entry);
        self.len += 1;
    }

    fn pop(&mut self) {
        self.len -= 1;
        let chunk = self.len / Self::CHUNK;
        self.chunks[chunk].pop();
        // One empty chunk stays, for the next session.
        self.chunks.truncate(chunk + 2);
    }
}

#[cfg(test)]
mod tests;
