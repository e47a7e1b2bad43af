//! The affinity doctor: notices that affinity has collapsed or cannot work, and says why, once.
//!
//! It looks at windows of requests, not of time: a window is judged when it is full, so nothing
//! here reads a clock. What it costs a request is a sketch update and a few relaxed counters; what
//! it remembers is one sketch and one suspect, whatever clients send.
//!
//! ```text
//! asked ──┬─ no session ──▶ window of placed requests ──▶ one_key, no_address, untrusted_hop
//!         └─ tag, cookie ─▶ window of tags ─────────────▶ unknown_servers, foreign_tags
//! answered ── Engine.IO ──▶ window of answers ──────────▶ session_unknown
//! shaken ─────────────────▶ window of handshakes ───────▶ damaged_handshakes
//! ```
//!
//! The sketch only *nominates* a suspect, the key that seems to have most requests. From then on
//! its requests are counted exactly, so collisions in the sketch accuse nobody.

mod judge;

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ahash::RandomState;
use http::HeaderMap;
use http::header::USER_AGENT;
use pingora_limits::estimator::Estimator;

pub use judge::{Finding, Leader, Patient, Placed, Servers, Shaken, Tagged};

use super::forwarded::{self, Missing};
use super::{CLIENT_IP, FORWARDED_FOR, label};
use crate::config::{AffinitySource, Pick, TrustedProxies};
use crate::handshake::Damage;

/// Requests that make a window.
pub const WINDOW: u32 = 1000;

/// Requests that make the first one: something that does not work should be told soon.
pub const FIRST_WINDOW: u32 = 200;

/// WebSocket handshakes that make a window, be it the first or another: one that is refused brings
/// no other requests with it.
pub const HANDSHAKES: u32 = 20;

/// The doctor of one upstream.
pub struct Doctor {
    patient: Patient,
    /// How `forwarded_for` picks, where it is a source, and the sources asked before it.
    forwarded: Option<(Pick, Vec<&'static str>)>,
    hasher: RandomState,
    sketch: Estimator,
    suspect: Suspect,
    placed: Window,
    missing: [AtomicU32; Missing::ALL.len()],
    untrusted: AtomicU32,
    untrusted_hop: Mutex<Option<IpAddr>>,
    tagged: Window,
    unknown: AtomicU32,
    foreign: AtomicU32,
    answered: Window,
    refused: AtomicU32,
    shaken: Window,
    damaged: AtomicU32,
    damage: Mutex<Option<(Damage, IpAddr)>>,
    charts: [Chart; Finding::ALL.len()],
}

/// A request whose place is known.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// Who is connected to us.
    pub previous_hop: IpAddr,
    /// Whose forwarded addresses are believed.
    pub trusted: &'a TrustedProxies,
    /// What decided: the word for logs.
    pub source: &'static str,
    /// It belongs to a session, which names its server.
    pub has_session: bool,
    /// What names its client.
    pub key: Option<&'a [u8]>,
    /// What it carries of ours.
    pub tag: Tag,
}

/// What a request carries that has the shape of our tags and cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tag {
    /// Nothing.
    None,
    /// It names a server.
    Known,
    /// It names a server that the upstream does not have.
    UnknownServer,
    /// It was made with another secret.
    Foreign,
}

/// What a full window has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// About what.
    pub finding: Finding,
    /// Whether it is so now.
    pub is_so: bool,
    /// What to log; `None` when the like has been said before.
    pub line: Option<String>,
}

impl Doctor {
    /// A doctor who has seen nothing yet.
    pub fn new(patient: Patient) -> Self {
        Self::with_sketch(patient, 3, 256)
    }

    fn with_sketch(patient: Patient, rows: usize, columns: usize) -> Self {
        let place = patient.sources.iter().position(|source| matches!(source, AffinitySource::ForwardedFor(..)));
        let forwarded = place.and_then(|place| match patient.sources[place] {
            AffinitySource::ForwardedFor(pick, _) => {
                Some((pick, patient.sources[..=place].iter().map(label).collect()))
            }
            _ => None,
        });
        Self {
            patient,
            forwarded,
            hasher: RandomState::new(),
            sketch: Estimator::new(rows, columns),
            suspect: Suspect::default(),
            placed: Window::of(FIRST_WINDOW, WINDOW),
            missing: Default::default(),
            untrusted: AtomicU32::new(0),
            untrusted_hop: Mutex::new(None),
            tagged: Window::of(FIRST_WINDOW, WINDOW),
            unknown: AtomicU32::new(0),
            foreign: AtomicU32::new(0),
            answered: Window::of(FIRST_WINDOW, WINDOW),
            refused: AtomicU32::new(0),
            shaken: Window::of(HANDSHAKES, HANDSHAKES),
            damaged: AtomicU32::new(0),
            damage: Mutex::new(None),
            charts: Default::default(),
        }
    }

    /// One more request; its place is known. `servers` is asked at the end of a window.
    pub fn asked(&self, asked: &Asked<'_>, servers: impl FnOnce() -> Servers) -> Vec<News> {
        let mut news = Vec::new();
        if asked.tag != Tag::None {
            news.extend(self.count_tag(asked.tag));
        }
        let is_counted = !asked.has_session && self.count_placed(asked);
        if is_counted && let Some(requests) = self.placed.count() {
            let found = self.patient.judge_placed(&self.take_placed(requests), servers());
            news.extend(self.compare(&[Finding::OneKey, Finding::NoAddress, Finding::UntrustedHop], found));
        }
        news
    }

    /// One more answer of a server to a request of Engine.IO.
    pub fn answered(&self, status: u16) -> Vec<News> {
        if status == 400 {
            self.refused.fetch_add(1, Relaxed);
        }
        let Some(answers) = self.answered.count() else { return Vec::new() };
        let found = self.patient.judge_answers(answers, self.refused.swap(0, Relaxed));
        self.compare(&[Finding::SessionUnknown], found)
    }

    /// One more WebSocket handshake of `hop`, whole or damaged.
    pub fn shaken(&self, damage: Option<Damage>, hop: IpAddr) -> Vec<News> {
        if let Some(damage) = damage.filter(|damage| damage.is_of_hop())
            && self.damaged.fetch_add(1, Relaxed) == 0
            && let Ok(mut first) = self.damage.try_lock()
        {
            *first = Some((damage, hop)); // It may stand for all of its window.
        }
        let Some(handshakes) = self.shaken.count() else { return Vec::new() };
        let first = self.damage.lock().unwrap_or_else(PoisonError::into_inner).take();
        let shaken = Shaken { handshakes, damaged: self.damaged.swap(0, Relaxed), first };
        self.compare(&[Finding::DamagedHandshakes], self.patient.judge_handshakes(shaken))
    }

    /// What is so at the moment, each with its sentence as the last window has it.
    pub fn findings(&self) -> Vec<(Finding, String)> {
        let sentence = |finding: Finding| Some((finding, self.charts[finding as usize].sentence()?));
        Finding::ALL.into_iter().filter_map(sentence).collect()
    }

    fn count_tag(&self, tag: Tag) -> Vec<News> {
        match tag {
            Tag::UnknownServer => drop(self.unknown.fetch_add(1, Relaxed)),
            Tag::Foreign => drop(self.foreign.fetch_add(1, Relaxed)),
            Tag::Known | Tag::None => {}
        }
        let Some(requests) = self.tagged.count() else { return Vec::new() };
        let (unknown, foreign) = (self.unknown.swap(0, Relaxed), self.foreign.swap(0, Relaxed));
        let found = self.patient.judge_tags(Tagged { requests, unknown, foreign });
        self.compare(&[Finding::UnknownServers, Finding::ForeignTags], found)
    }

    /// Counts the request; `false` if it can tell nothing: no source finds anything, and none
    /// looks at hops.
    fn count_placed(&self, asked: &Asked<'_>) -> bool {
        let was_sought = self.forwarded.as_ref().filter(|(_, before)| !before.contains(&asked.source));
        if let Some((pick, _)) = was_sought {
            self.count_forwarded(asked, *pick);
        }
        let hash = match asked.key {
            Some(key) => self.hash(&(asked.source, key)),
            None if was_sought.is_some() => self.hash(&asked.previous_hop),
            None => return false,
        };
        let user_agent = asked.headers.get(USER_AGENT).map_or(0, |field| self.hash(field.as_bytes()));
        let estimate = self.sketch.incr(hash, 1);
        self.suspect.count(hash, estimate, user_agent, || described(asked));
        true
    }

    /// Counts why `forwarded_for` found nothing.
    fn count_forwarded(&self, asked: &Asked<'_>, pick: Pick) {
        if asked.trusted.contains(asked.previous_hop) {
            self.missing[forwarded::missing(asked.headers, pick) as usize].fetch_add(1, Relaxed);
        } else if forwarded::is_there(asked.headers) && self.untrusted.fetch_add(1, Relaxed) == 0 {
            // The first one of a window may stand for all.
            if let Ok(mut hop) = self.untrusted_hop.try_lock() {
                *hop = Some(asked.previous_hop);
            }
        }
    }

    fn take_placed(&self, requests: u32) -> Placed {
        self.sketch.reset();
        let hop = self.untrusted_hop.lock().unwrap_or_else(PoisonError::into_inner).take();
        Placed {
            requests,
            leader: self.suspect.take(),
            missing: std::array::from_fn(|reason| self.missing[reason].swap(0, Relaxed)),
            untrusted: self.untrusted.swap(0, Relaxed),
            untrusted_hop: hop.map(|hop| hop.to_canonical().to_string()),
        }
    }

    /// Notes for each of `questions` whether it was `found`, and returns what that changes.
    fn compare(&self, questions: &[Finding], found: impl IntoIterator<Item = (Finding, String)>) -> Vec<News> {
        let mut found: Vec<_> = found.into_iter().collect();
        let note = |finding: &Finding| {
            let sentence = found.iter_mut().find(|(other, _)| other == finding).map(|(_, text)| std::mem::take(text));
            self.charts[*finding as usize].note(*finding, sentence)
        };
        questions.iter().filter_map(note).collect()
    }

    fn hash(&self, what: &(impl Hash + ?Sized)) -> u64 {
        self.hasher.hash_one(what)
    }
}

impl std::fmt::Debug for Doctor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Doctor({})", self.patient.upstream)
    }
}

/// What may be told of the key of `asked`.
fn described(asked: &Asked<'_>) -> Leader {
    let is_hop = asked.key.is_none() || asked.source == CLIENT_IP;
    let address = match asked.key {
        None => Some(asked.previous_hop.to_canonical().to_string()),
        Some(key) if is_hop || asked.source == FORWARDED_FOR => Some(String::from_utf8_lossy(key).into_owned()),
        Some(_) => None,
    };
    let is_trusted = is_hop && asked.trusted.contains(asked.previous_hop);
    Leader { source: asked.source, address, is_trusted, requests: 0, user_agents: 0 }
}

/// Counts up to the end of a window.
struct Window {
    requests: AtomicU32,
    length: AtomicU32,
    /// The length of those behind the first one.
    later: u32,
}

impl Window {
    fn of(first: u32, later: u32) -> Self {
        Self { requests: AtomicU32::new(0), length: AtomicU32::new(first), later }
    }

    /// The length of the window, for the one whose request was its last.
    fn count(&self) -> Option<u32> {
        let length = self.length.load(Relaxed);
        if self.requests.fetch_add(1, Relaxed) + 1 != length {
            return None;
        }
        self.length.store(self.later, Relaxed);
        // Not to zero: others may have begun the next window meanwhile.
        self.requests.fetch_sub(length, Relaxed);
        Some(length)
    }
}

/// The key that seems to have most requests of a window, from its nomination on.
#[derive(Default)]
struct Suspect {
    /// Its hash; 0 when there is none.
    hash: AtomicU64,
    /// How often the sketch believes it was seen.
    estimate: AtomicIsize,
    /// How often it was.
    requests: AtomicU32,
    /// A bit for each `User-Agent`, by its hash: two may share one, none has two.
    user_agents: AtomicU64,
    description: Mutex<Option<Leader>>,
}

impl Suspect {
    fn count(&self, hash: u64, estimate: isize, user_agent: u64, describe: impl FnOnce() -> Leader) {
        let user_agent = 1 << (user_agent % u64::from(u64::BITS));
        if self.hash.load(Relaxed) == hash {
            self.requests.fetch_add(1, Relaxed);
            self.estimate.store(estimate, Relaxed);
            if self.user_agents.load(Relaxed) & user_agent == 0 {
                self.user_agents.fetch_or(user_agent, Relaxed);
            }
        } else if estimate > self.estimate.load(Relaxed)
            && let Ok(mut description) = self.description.try_lock()
        {
            *description = Some(describe());
            self.estimate.store(estimate, Relaxed);
            self.requests.store(1, Relaxed);
            self.user_agents.store(user_agent, Relaxed);
            self.hash.store(hash, Relaxed);
        }
    }

    fn take(&self) -> Option<Leader> {
        let mut description = self.description.lock().unwrap_or_else(PoisonError::into_inner);
        self.hash.store(0, Relaxed);
        self.estimate.store(0, Relaxed);
        let requests = self.requests.swap(0, Relaxed);
        let user_agents = self.user_agents.swap(0, Relaxed).count_ones();
        description.take().map(|leader| Leader { requests, user_agents, ..leader })
    }
}

/// What was found before, of one finding.
#[derive(Default)]
struct Chart {
    is_so: AtomicBool,
    /// Its sentence while it is so.
    sentence: Mutex<Option<String>>,
    /// It has been said,
    is_said: AtomicBool,
    /// and that it is over.
    is_over_said: AtomicBool,
}

impl Chart {
    fn note(&self, finding: Finding, sentence: Option<String>) -> Option<News> {
        let is_so = sentence.is_some();
        self.lock().clone_from(&sentence);
        if self.is_so.swap(is_so, Relaxed) == is_so {
            return None;
        }
        let line = match sentence {
            Some(sentence) => (!self.is_said.swap(true, Relaxed)).then_some(sentence),
            None => (!self.is_over_said.swap(true, Relaxed)).then(|| "no longer so in the last window".to_owned()),
        };
        Some(News { finding, is_so, line })
    }

    fn sentence(&self) -> Option<String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.sentence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
