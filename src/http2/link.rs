//! What the streams of one connection share.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::calm::Calm;
use crate::connection::Open;
use crate::observe::metrics::Http2Metrics;
use crate::proxy_protocol::Ends;
use crate::socket::{Agreed, Wire};

/// A connection, as its streams know it. It counts as open until the last of them has ended.
#[derive(Debug)]
pub struct Link {
    ends: Option<Ends>,
    encryption: Option<Agreed>,
    metrics: Http2Metrics,
    open: Open,
    streams: AtomicUsize,
    calm: Mutex<Calm>,
    /// More streams have been reset than a client has reason to.
    is_flooded: AtomicBool,
    /// A stream has ended.
    fewer: Notify,
}

impl Link {
    /// Of the connection on `wire`, that may reset `resets` streams at a time.
    pub fn new(wire: &Wire, open: Open, metrics: Http2Metrics, resets: u32) -> Self {
        metrics.connections.inc();
        Self {
            ends: wire.ends().ok(),
            encryption: wire.encryption(),
            metrics,
            open,
            streams: AtomicUsize::new(0),
            calm: Mutex::new(Calm::new(resets, Instant::now())),
            is_flooded: AtomicBool::new(false),
            fewer: Notify::new(),
        }
    }

    /// The ends of the connection.
    ///
    /// # Errors
    /// When it had failed before it was asked.
    pub fn ends(&self) -> io::Result<Ends> {
        self.ends.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// What was agreed on with the peer so that nobody on the way can read what crosses.
    pub fn encryption(&self) -> Option<Agreed> {
        self.encryption
    }

    /// What counts it as open.
    pub fn open(&self) -> &Open {
        &self.open
    }

    /// One more stream; how many there were before.
    pub fn begun(&self) -> usize {
        self.metrics.streams.inc();
        self.streams.fetch_add(1, Ordering::Relaxed)
    }

    /// One stream less.
    pub fn ended(&self, was_reset: bool) {
        self.metrics.streams.dec();
        self.streams.fetch_sub(1, Ordering::Relaxed);
        if was_reset {
            self.metrics.resets.inc();
            let mut calm = self.calm.lock().unwrap_or_else(PoisonError::into_inner);
            if !calm.reset(Instant::now()) {
                self.is_flooded.store(true, Ordering::Relaxed);
            }
        }
        self.fewer.notify_one();
    }

    /// How many streams there are.
    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// Whether its client has reset more streams than it has reason to.
    pub fn is_flooded(&self) -> bool {
        self.is_flooded.load(Ordering::Relaxed)
    }

    /// It is closed for that.
    pub fn flooded(&self) {
        self.metrics.floods.inc();
    }

    /// Waits until a stream has ended.
    pub async fn fewer(&self) {
        self.fewer.notified().await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}
