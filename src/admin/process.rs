//! What operators are told of the process itself. The main thread notes it here as it happens, so that whoever
//! asks has to wait for nobody.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use time::OffsetDateTime;

use crate::command::Reloaded;
use crate::config::Config;

/// What is known of it.
#[derive(Debug)]
pub struct Process {
    /// When it began.
    pub(super) began: Instant,
    /// The same by the clock.
    pub(super) began_at: OffsetDateTime,
    in_force: ArcSwapOption<InForce>,
    last_reload: Mutex<Option<Reload>>,
    is_handing_over: AtomicBool,
}

/// A configuration, and what it is served at.
#[derive(Debug)]
pub struct InForce {
    /// What the file says.
    pub config: Arc<Config>,
    /// Where clients connect, in the order of the file, with the ports that the kernel chose.
    pub addresses: Vec<SocketAddr>,
}

/// What became of a configuration that was to be put in force.
#[derive(Clone, Debug)]
pub(super) struct Reload {
    pub(super) at: OffsetDateTime,
    pub(super) result: Reloaded,
}

impl Process {
    /// One that begins now.
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            began_at: OffsetDateTime::now_utc(),
            in_force: ArcSwapOption::empty(),
            last_reload: Mutex::default(),
            is_handing_over: AtomicBool::new(false),
        }
    }

    /// What is in force from now on.
    pub fn puts_in_force(&self, in_force: InForce) {
        self.in_force.store(Some(Arc::new(in_force)));
    }

    /// The configuration was read again.
    pub fn reloaded(&self, result: &Reloaded) {
        let reload = Reload { at: OffsetDateTime::now_utc(), result: result.clone() };
        *self.last_reload.lock().unwrap_or_else(PoisonError::into_inner) = Some(reload);
    }

    /// Whether the next process is being given what there is.
    pub fn hands_over(&self, is_handing_over: bool) {
        self.is_handing_over.store(is_handing_over, Ordering::Relaxed);
    }

    pub(super) fn in_force(&self) -> Option<Arc<InForce>> {
        self.in_force.load_full()
    }

    pub(super) fn last_reload(&self) -> Option<Reload> {
        self.last_reload.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn is_handing_over(&self) -> bool {
        self.is_handing_over.load(Ordering::Relaxed)
    }
}
