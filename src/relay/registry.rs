//! The relays of one thread: how they are counted and found, woken when time has passed, asked and
//! told to end.
//!
//! A relay belongs to the thread that accepted it, so its place here needs no lock. Whoever wants
//! something of relays on other threads asks those threads (see [`super::inbox`]).
//!
//! Only what relays are found by is kept here. The rest is known to them alone, and told by them
//! when they are asked: an idle relay does not pay for questions that nobody has.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use ahash::{AHashMap, AHashSet};
use tokio::sync::mpsc::Sender;

use super::departures::{Departures, Drain, DrainId, Whose};
use super::inbox::{Answer, Id, Page, Query};
use super::strays::{Choice, Found, Origin, Search, Stray};
use super::timers::{Tick, Ticket, Wheel};
use super::{EndReason, Kind};
use crate::upstream::Upstream;

thread_local! {
    static REGISTRY: RefCell<Registry> = RefCell::new(Registry::new());
}

/// The id of the relay that begins next.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

struct Registry {
    began: Instant,
    now: Tick,
    /// When the relays that were told to end have to be gone.
    ends_by: Tick,
    wheel: Wheel,
    slots: Vec<Option<Occupant>>,
    /// Slots without an occupant.
    free: Vec<u32>,
    /// Who wants to know about the relays in these slots. As many as one page has, and each until
    /// its relay has had its turn.
    questions: AHashMap<u32, Sender<Answer>>,
    departures: Departures,
    /// When newcomers are looked for next, if there is a drain.
    newcomers_at: Tick,
    /// How many relays are to pause and have not had their turn.
    to_pause: usize,
}

struct Occupant {
    id: Id,
    waker: Waker,
    kind: Kind,
    upstream: Arc<Upstream>,
    server: u16,
    origin: Origin,
    began: Tick,
    client: Fingerprint,
    ending: Option<EndReason>,
    is_asked: bool,
    /// It has a moment to leave.
    is_departing: bool,
    is_to_pause: bool,
}

/// A client's address in four bytes: that of IPv4 itself, of others what is left of it. Two may look alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint(u32);

impl Fingerprint {
    fn of(client: IpAddr) -> Self {
        match client.to_canonical() {
            IpAddr::V4(client) => Self(client.to_bits()),
            IpAddr::V6(client) => Self(crc32fast::hash(&client.octets())),
        }
    }
}

/// What a relay is, for whoever looks for it.
#[derive(Clone, Copy, Debug)]
pub struct Features<'a> {
    /// What it carries.
    pub kind: Kind,
    /// Whose it is.
    pub client: IpAddr,
    /// Where its server belongs to.
    pub upstream: &'a Arc<Upstream>,
    /// Which of its servers it is.
    pub server: u16,
    /// What has chosen that.
    pub origin: Origin,
    /// Time since its request.
    pub age: Duration,
}

/// What a relay is told that is to end.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// Why.
    pub reason: EndReason,
    /// When it has to be gone.
    pub by: Tick,
}

/// What others want of a relay.
#[derive(Debug, Default)]
pub struct Wish {
    /// That it describes itself, to this one.
    pub question: Option<Sender<Answer>>,
    /// That it ends.
    pub ending: Option<Ending>,
    /// That it comes to rest, whole, for another process to go on with it.
    pub is_to_pause: bool,
}

/// A relay's place in its thread's registry, given up when dropped.
#[derive(Debug)]
pub struct Place(Ticket);

impl Registry {
    fn new() -> Self {
        let now = Tick::FIRST;
        Self {
            began: Instant::now(),
            now,
            ends_by: Tick::NEVER,
            wheel: Wheel::new(now),
            slots: Vec::new(),
            free: Vec::new(),
            questions: AHashMap::new(),
            departures: Departures::default(),
            newcomers_at: now,
            to_pause: 0,
        }
    }

    /// Has those leave whose moment has come.
    fn see_off(&mut self) {
        while let Some((ticket, drain)) = self.departures.due(self.now) {
            // A stream that has gone on with another server since has left already, and keeps its place.
            let is_there = |it: &&mut Occupant| it.ending.is_none() && it.is_of(&drain.whose);
            if let Some(occupant) = self.occupant(ticket).filter(is_there) {
                occupant.end(drain.reason);
            }
        }
    }

    /// Gives a moment to leave to whoever has begun since a drain did that is about it.
    fn find_newcomers(&mut self) {
        let drains: Vec<_> = self.departures.of_newcomers().cloned().collect();
        for (slot, occupant) in (0..).zip(&mut self.slots) {
            let Some(occupant) = occupant.as_mut().filter(|occupant| occupant.may_depart()) else { continue };
            let Some(drain) = drains.iter().find(|drain| occupant.is_of(&drain.whose)) else { continue };
            occupant.is_departing = true;
            let ticket = Ticket { slot, turn: occupant.id.turn() };
            self.departures.join(drain.id, ticket, self.now, &mut fastrand::Rng::new());
        }
    }

    fn occupant(&mut self, ticket: Ticket) -> Option<&mut Occupant> {
        let occupant = self.slots.get_mut(ticket.slot as usize)?.as_mut()?;
        (occupant.id.turn() == ticket.turn).then_some(occupant)
    }

    /// The question to the relay in `slot`.
    fn take_question(&mut self, slot: u32) -> Option<Sender<Answer>> {
        let question = self.questions.remove(&slot);
        if self.questions.is_empty() {
            self.questions = AHashMap::new(); // A page's capacity is not kept.
        }
        question
    }
}

impl Occupant {
    fn matches(&self, query: &Query, now: Tick) -> bool {
        let is_server = |name: &String| self.upstream.servers[usize::from(self.server)].name == *name;
        query.kind.is_none_or(|kind| kind == self.kind)
            && query.upstream.as_ref().is_none_or(|name| self.upstream.name == *name)
            && query.server.as_ref().is_none_or(is_server)
            && query.id.is_none_or(|id| id == self.id)
            && query.client.is_none_or(|client| Fingerprint::of(client) == self.client)
            && now.since(self.began) >= query.min_age
    }

    fn is_of(&self, whose: &Whose) -> bool {
        match whose {
            Whose::All => true,
            Whose::Upstream(name) => self.upstream.name == *name,
            Whose::Server(id) => self.upstream.servers[usize::from(self.server)].id == *id,
        }
    }

    /// Where it belongs, if that is not where it is.
    fn strays(&self, search: &Search, upstream: &Upstream) -> Option<Stray> {
        let (id, from) = (self.id, self.upstream.servers[usize::from(self.server)].id);
        match self.origin.choice() {
            Choice::Fixed => None,
            Choice::Free => search.is_above(from).then_some(Stray { id, from, to: None }),
            Choice::Key(hash) => {
                let to = upstream.owner(hash)?.id;
                // Where it is at home it stays, also while that is down.
                (to != from && !upstream.is_home(hash, from)).then_some(Stray { id, from, to: Some(to) })
            }
        }
    }

    /// Whether nothing is settled about its end yet.
    fn may_depart(&self) -> bool {
        self.ending.is_none() && !self.is_departing
    }

    fn end(&mut self, reason: EndReason) {
        self.ending = Some(reason);
        self.waker.wake_by_ref();
    }
}

impl Place {
    /// A place for the relay whose task `waker` wakes, under a new id.
    pub fn new(waker: &Waker, features: Features<'_>) -> Self {
        Self::again(Id(NEXT_ID.fetch_add(1, Ordering::Relaxed)), waker, features)
    }

    /// The same under the `id` that it had before it came to rest.
    pub fn again(id: Id, waker: &Waker, features: Features<'_>) -> Self {
        let Features { kind, client, upstream, server, origin, age } = features;
        NEXT_ID.fetch_max(id.0.saturating_add(1), Ordering::Relaxed);
        let (waker, upstream) = (waker.clone(), upstream.clone());
        REGISTRY.with_borrow_mut(|registry| {
            let occupant = Occupant {
                id,
                waker,
                kind,
                upstream,
                server,
                origin,
                began: Tick(registry.now.0.saturating_sub(Tick::count(age))),
                client: Fingerprint::of(client),
                ending: None,
                is_asked: false,
                is_departing: false,
                is_to_pause: false,
            };
            let slot = registry.free.pop().unwrap_or_else(|| {
                registry.slots.push(None);
                u32::try_from(registry.slots.len() - 1).expect("a process has fewer sockets")
            });
            registry.slots[slot as usize] = Some(occupant);
            Self(Ticket { slot, turn: id.turn() })
        })
    }

    /// Has the relay polled again at `due`, or a little before when that is far away; says when.
    pub fn wake_at(&self, due: Tick) -> Tick {
        REGISTRY.with_borrow_mut(|registry| registry.wheel.insert(self.0, due))
    }

    /// The relay's id.
    pub fn id(&self) -> Id {
        REGISTRY.with_borrow_mut(|registry| registry.occupant(self.0).map_or(Id(0), |occupant| occupant.id))
    }

    /// What others want of this relay now. To be asked whenever it is woken.
    pub fn wish(&self) -> Wish {
        REGISTRY.with_borrow_mut(|registry| {
            let by = registry.ends_by;
            let Some(occupant) = registry.occupant(self.0) else { return Wish::default() };
            let ending = occupant.ending.map(|reason| Ending { reason, by });
            let is_asked = std::mem::take(&mut occupant.is_asked);
            let is_to_pause = std::mem::take(&mut occupant.is_to_pause);
            registry.to_pause -= usize::from(is_to_pause);
            let question = is_asked.then(|| registry.take_question(self.0.slot)).flatten();
            Wish { question, ending, is_to_pause }
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // At the end of a thread the registry may be gone before its last relays.
        let _ = REGISTRY.try_with(|registry| {
            let registry = &mut *registry.borrow_mut();
            if let Some(occupant) = registry.occupant(self.0) {
                let (is_asked, is_to_pause) = (occupant.is_asked, occupant.is_to_pause);
                registry.to_pause -= usize::from(is_to_pause);
                if is_asked {
                    registry.take_question(self.0.slot);
                }
                registry.slots[self.0.slot as usize] = None;
                registry.free.push(self.0.slot);
            }
        });
    }
}

/// This thread's time, as of its last [`tick`].
pub fn now() -> Tick {
    REGISTRY.with_borrow(|registry| registry.now)
}

/// Lets time pass: wakes the relays of this thread that have something to do. To be called every
/// [`Tick::LENGTH`].
pub fn tick() {
    let mut due = Vec::new();
    REGISTRY.with_borrow_mut(|registry| {
        registry.now = Tick::after(registry.began.elapsed());
        registry.wheel.turn(registry.now, &mut due);
        for ticket in due {
            if let Some(occupant) = registry.occupant(ticket) {
                occupant.waker.wake_by_ref();
            }
        }
        registry.see_off();
        // Not at every tick of some number: a busy thread leaves some out.
        if registry.newcomers_at <= registry.now && registry.departures.of_newcomers().next().is_some() {
            registry.newcomers_at = registry.now.plus(NEWCOMERS_EVERY);
            registry.find_newcomers();
        }
    });
}

/// How often relays that have begun since are looked for while there is a drain, in ticks.
const NEWCOMERS_EVERY: u32 = 10;

/// Has the relays of this thread end that `drain` is about, each at its moment.
pub fn drain(drain: Arc<Drain>) {
    REGISTRY.with_borrow_mut(|registry| {
        registry.now = Tick::after(registry.began.elapsed());
        let (now, mut relays) = (registry.now, Vec::new());
        let is_about = |it: &&mut Occupant| it.is_of(&drain.whose) && drain.began.is_of(now.since(it.began));
        for (slot, occupant) in (0..).zip(&mut registry.slots) {
            if let Some(occupant) = occupant.as_mut().filter(|it| it.may_depart()).filter(is_about) {
                occupant.is_departing = true;
                relays.push(Ticket { slot, turn: occupant.id.turn() });
            }
        }
        registry.departures.begin(drain, relays, registry.now, &mut fastrand::Rng::new());
        registry.see_off();
    });
}

/// The drain of this `id` is over, or no longer wanted: who has not left stays.
pub fn cancel(id: DrainId) {
    REGISTRY.with_borrow_mut(|registry| {
        for ticket in registry.departures.cancel(id) {
            if let Some(occupant) = registry.occupant(ticket) {
                occupant.is_departing = false;
            }
        }
    });
}

/// Says how many relays of this thread `query` is about, and has those of its page describe
/// themselves, all to `asker`.
pub fn describe(query: &Query, asker: &Sender<Answer>) {
    REGISTRY.with_borrow_mut(|registry| {
        let mut page = Page::new(query);
        let mut count = 0;
        let now = Tick::after(registry.began.elapsed());
        for (slot, occupant) in (0..).zip(&registry.slots) {
            if let Some(occupant) = occupant.as_ref().filter(|occupant| occupant.matches(query, now)) {
                count += 1;
                page.offer(occupant.id, slot);
            }
        }
        // Whoever asks has made room for all answers, or does not wait for them any more.
        let _ = asker.try_send(Answer::Count(count, page.horizon()));
        for slot in page.into_slots() {
            if let Some(occupant) = &mut registry.slots[slot as usize] {
                occupant.is_asked = true;
                occupant.waker.wake_by_ref();
                registry.questions.insert(slot, asker.clone());
            }
        }
    });
}

/// Tells the relay of this `id` to end, for `reason`. `false` when it is not, or no more, on this
/// thread.
pub fn end(id: Id, reason: EndReason) -> bool {
    REGISTRY.with_borrow_mut(|registry| {
        let found = registry.slots.iter_mut().flatten().find(|occupant| occupant.id == id);
        let is_here = found.is_some();
        if let Some(occupant) = found.filter(|occupant| occupant.ending.is_none()) {
            occupant.end(reason);
        }
        is_here
    })
}

/// The relays of this thread that stray from where they belong in `upstream`.
pub fn find_strays(search: &Search, upstream: &Upstream) -> Found {
    REGISTRY.with_borrow(|registry| {
        let mut found = Found::default();
        let min_age = Tick::count(search.min_age);
        for occupant in registry.slots.iter().flatten().filter(|occupant| occupant.upstream.name == search.upstream) {
            found.relays += 1;
            let is_old_enough = occupant.began.plus(min_age) <= registry.now;
            if let Some(stray) = occupant.strays(search, upstream).filter(|_| is_old_enough && occupant.may_depart()) {
                found.strays += 1;
                found.oldest.push(stray);
            }
        }
        found.oldest.sort_unstable_by_key(|stray| stray.id);
        found.oldest.truncate(search.limit);
        found
    })
}

/// Tells those of `ids` to end that are on this thread, for `reason`.
pub fn end_these(ids: &AHashSet<Id>, reason: EndReason) {
    REGISTRY.with_borrow_mut(|registry| {
        for occupant in registry.slots.iter_mut().flatten().filter(|occupant| ids.contains(&occupant.id)) {
            if occupant.ending.is_none() {
                occupant.end(reason);
            }
        }
    });
}

/// Relays of this thread that are told to end have to be gone `within` this time, whatever they wait
/// for.
pub fn end_within(time: Duration) {
    REGISTRY.with_borrow_mut(|registry| registry.ends_by = Tick::after(registry.began.elapsed() + time));
}

/// Tells every relay of this thread to end, for `reason`, and wakes those to do so that do not know
/// yet.
pub fn end_all(reason: EndReason) {
    REGISTRY.with_borrow_mut(|registry| {
        for occupant in registry.slots.iter_mut().flatten().filter(|occupant| occupant.ending != Some(reason)) {
            occupant.end(reason);
        }
    });
}

/// Has every relay of this thread come to rest that can, each in its next turn.
pub fn pause_all() {
    REGISTRY.with_borrow_mut(|registry| {
        let occupants = registry.slots.iter_mut().flatten().filter(|occupant| !occupant.is_to_pause);
        for occupant in occupants {
            occupant.is_to_pause = true;
            occupant.waker.wake_by_ref();
            registry.to_pause += 1;
        }
    });
}

/// Whether relays of this thread have yet to hear that they are to come to rest.
pub fn is_pausing() -> bool {
    REGISTRY.with_borrow(|registry| registry.to_pause > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_relay_is_found_by_is_small() {
        assert!(size_of::<Option<Occupant>>() <= 56, "{} bytes", size_of::<Option<Occupant>>());
    }
}
