//! What operators see of requests: one log line and a few counters each, and spans of those that are traced.

pub mod access_log;
pub mod metrics;
mod record;
mod said;
pub mod traces;

pub use record::{Account, Asked, Observer, Record};
pub use said::Sayings;
