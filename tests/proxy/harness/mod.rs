//! What the tests stand on: the proxy as a real process, servers and clients whose every byte is
//! seen, previous hops, and real programs of the field (nginx, HAProxy, Redis,
//! Node, Python).
//!
//! Nothing here has a fixed port, leaves a process behind or waits without a bound.

pub(crate) mod chromium;
pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod collector;
pub(crate) mod crowd;
pub(crate) mod dns;
pub(crate) mod haproxy;
pub(crate) mod hop;
pub(crate) mod http2;
pub(crate) mod metrics;
pub(crate) mod network;
pub(crate) mod nginx;
pub(crate) mod node;
pub(crate) mod page;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod python;
pub(crate) mod random;
pub(crate) mod redis;
pub(crate) mod relay;
pub(crate) mod sequences;
pub(crate) mod tls;
pub(crate) mod upstream;
pub(crate) mod websocket;
pub(crate) mod wire;

use std::future::Future;
use std::time::Duration;

pub(crate) use chromium::Chromium;
pub(crate) use client::{keyed, websocket_request};
pub(crate) use cluster::Cluster;
pub(crate) use collector::Collector;
pub(crate) use crowd::Crowd;
pub(crate) use haproxy::Haproxy;
pub(crate) use hop::Hop;
pub(crate) use http2::Http2;
pub(crate) use network::Network;
pub(crate) use nginx::{Nginx, Telling};
pub(crate) use node::Node;
pub(crate) use page::Page;
pub(crate) use proxy::{Proxy, SecretFile};
pub(crate) use python::Python;
pub(crate) use random::Random;
pub(crate) use redis::Redis;
pub(crate) use sequences::Sequences;
pub(crate) use tls::{Authority, Files, Shaking};
pub(crate) use upstream::{InState, Named, Refusing, ServerEntry, Upstream, Weighted};
pub(crate) use wire::{Leaving, Message, Reading, Wire, Writing, show};

/// How long anything that should happen at once may take, on a busy machine and a debug build.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Waits for something that must happen within [`PATIENCE`].
pub(crate) async fn soon<T>(what: &str, happening: impl Future<Output = T>) -> T {
    within(PATIENCE, what, happening).await
}

/// Waits for something that must happen within `limit`.
pub(crate) async fn within<T>(limit: Duration, what: &str, happening: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, happening).await {
        Ok(value) => value,
        Err(_) => panic!("waited {limit:?} for {what}"),
    }
}

/// A duration in the tests' usual unit.
pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A duration in milliseconds.
pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
