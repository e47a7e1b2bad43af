//! The relays of one thread: how they are woken when time has passed, and told to end.
//!
//! A relay belongs to the thread that accepted it, so its place here needs no lock. Whoever wants
//! something of relays on other threads asks those threads (see [`crate::server`]).

use std::cell::RefCell;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::EndReason;
use super::timers::{Tick, Ticket, Wheel};

thread_local! {
    static REGISTRY: RefCell<Registry> = RefCell::new(Registry::new());
}

struct Registry {
    began: Instant,
    now: Tick,
    /// When the relays that were told to end have to be gone.
    ends_by: Tick,
    wheel: Wheel,
    slots: Vec<Slot>,
    /// Slots without an occupant.
    free: Vec<u32>,
}

#[derive(Default)]
struct Slot {
    /// Counts the occupants, so that a ticket of an earlier one names nobody.
    turn: u32,
    waker: Option<Waker>,
    order: Option<EndReason>,
}

/// What a relay is told that is to end.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// Why.
    pub reason: EndReason,
    /// When it has to be gone.
    pub by: Tick,
}

/// A relay's place in its thread's registry, given up when dropped.
#[derive(Debug)]
pub struct Place(Ticket);

impl Registry {
    fn new() -> Self {
        let now = Tick::default();
        Self { began: Instant::now(), now, ends_by: now, wheel: Wheel::new(now), slots: Vec::new(), free: Vec::new() }
    }

    fn slot(&mut self, ticket: Ticket) -> Option<&mut Slot> {
        self.slots.get_mut(ticket.slot as usize).filter(|slot| slot.turn == ticket.turn)
    }
}

impl Place {
    /// A place for the relay whose task `waker` wakes.
    pub fn new(waker: &Waker) -> Self {
        REGISTRY.with_borrow_mut(|registry| {
            let slot = registry.free.pop().unwrap_or_else(|| {
                registry.slots.push(Slot::default());
                u32::try_from(registry.slots.len() - 1).expect("a process has fewer sockets")
            });
            let place = &mut registry.slots[slot as usize];
            place.waker = Some(waker.clone());
            Self(Ticket { slot, turn: place.turn })
        })
    }

    /// Has the relay polled again at `due`, or a little before when that is far away; says when.
    pub fn wake_at(&self, due: Tick) -> Tick {
        REGISTRY.with_borrow_mut(|registry| registry.wheel.insert(self.0, due))
    }

    /// The order to end that this relay was given, if any.
    pub fn order(&self) -> Option<Order> {
        REGISTRY.with_borrow_mut(|registry| {
            let reason = registry.slot(self.0)?.order?;
            Some(Order { reason, by: registry.ends_by })
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // At the end of a thread the registry may be gone before its last relays.
        let _ = REGISTRY.try_with(|registry| {
            let registry = &mut *registry.borrow_mut();
            if let Some(slot) = registry.slot(self.0) {
                *slot = Slot { turn: slot.turn.wrapping_add(1), ..Slot::default() };
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
            if let Some(Slot { waker: Some(waker), .. }) = registry.slot(ticket) {
                waker.wake_by_ref();
            }
        }
    });
}

/// Tells every relay of this thread to end `within` a time, for `reason`, and wakes those to do so
/// that do not know yet.
pub fn end_all(reason: EndReason, within: Duration) {
    REGISTRY.with_borrow_mut(|registry| {
        registry.ends_by = Tick::after(registry.began.elapsed() + within);
        for slot in &mut registry.slots {
            if let (Some(waker), None) = (&slot.waker, slot.order) {
                slot.order = Some(reason);
                waker.wake_by_ref();
            }
        }
    });
}
