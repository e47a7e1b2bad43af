//! What connections come back to for each of their requests: the configuration in force.
//!
//! A request is served by one [`Front`] from its head to its end, whatever happens meanwhile. The next
//! one on the same connection finds whatever is in force then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::exchange::Front;
use crate::observe::Observer;

/// What all threads share for as long as the process lives.
#[derive(Debug)]
pub struct Service {
    front: ArcSwap<Front>,
    /// Where everything reports to.
    pub observer: Arc<Observer>,
    stopping: watch::Receiver<bool>,
    /// Balancers are told to send nobody, though whoever comes is served.
    is_drained: AtomicBool,
}

impl Service {
    /// Serves by `front` for now.
    pub fn new(front: Arc<Front>) -> Self {
        let (observer, stopping) = (front.observer.clone(), front.stopping.clone());
        Self { front: ArcSwap::new(front), observer, stopping, is_drained: AtomicBool::new(false) }
    }

    /// What is in force now. To be asked again for each request, and kept until its end.
    pub fn front(&self) -> Arc<Front> {
        self.front.load_full()
    }

    /// Puts `front` in force, for requests that begin from now on.
    pub fn replace(&self, front: Arc<Front>) {
        self.front.store(front);
    }

    /// Whether nobody should be sent here any more: the process is stopping, or drained.
    pub fn is_leaving(&self) -> bool {
        *self.stopping.borrow() || self.is_drained.load(Ordering::Relaxed)
    }

    /// Whether balancers are told to send nobody because the process is drained.
    pub fn is_drained(&self) -> bool {
        self.is_drained.load(Ordering::Relaxed)
    }

    /// Whether the process is drained.
    pub fn drain(&self, is_drained: bool) {
        self.is_drained.store(is_drained, Ordering::Relaxed);
    }

    /// Turns `true` when the process is stopping: see [`stopped`].
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.clone()
    }
}

/// Waits until the process is stopping.
pub async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that nobody is left to say so: the process has stopped.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}
