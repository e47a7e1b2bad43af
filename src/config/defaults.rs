//! What applies where the file says nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http::HeaderName;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::affinity::forwarded::X_FORWARDED_FOR;

use super::{
    AcceptEncoding, AccessLog, Admin, AffinitySource, Balance, ClientIp, Discovery, Drain, Find, Hash, HealthCheck,
    Ipv6Prefix, Keyless, Learn, Limits, LogFormat, LogPath, Pacing, Pick, Probe, Rebalance, Redis, Removed, Session,
    SessionStore, Share, Shutdown, Sse, StickyCookie, TcpKeepalive, Timeouts, Tolerance, Traces, TrustedProxies,
    WebSocket,
};

impl TrustedProxies {
    /// What `private` stands for: loopback, RFC 1918, RFC 4193 and link-local addresses.
    pub fn private() -> Self {
        let v4 = [
            (Ipv4Addr::new(127, 0, 0, 0), 8),
            (Ipv4Addr::new(10, 0, 0, 0), 8),
            (Ipv4Addr::new(172, 16, 0, 0), 12),
            (Ipv4Addr::new(192, 168, 0, 0), 16),
            (Ipv4Addr::new(169, 254, 0, 0), 16),
        ];
        let v6 = [
            (Ipv6Addr::LOCALHOST, 128),
            (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
            (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
        ];
        let v4 = v4.map(|(address, prefix)| IpNet::V4(Ipv4Net::new_assert(address, prefix)));
        let v6 = v6.map(|(address, prefix)| IpNet::V6(Ipv6Net::new_assert(address, prefix)));
        Self(v4.into_iter().chain(v6).collect())
    }
}

impl Default for ClientIp {
    /// What nobody can forge.
    fn default() -> Self {
        Self { header: X_FORWARDED_FOR, pick: Pick::RightmostUntrusted }
    }
}

impl AffinitySource {
    /// The sources of an upstream that names none.
    pub(super) fn defaults() -> Vec<Self> {
        vec![
            Self::EngineIo,
            Self::ForwardedFor(Pick::First, Ipv6Prefix::default()),
            Self::ClientIp(Ipv6Prefix::default()),
        ]
    }
}

impl Default for Ipv6Prefix {
    /// What providers give to one network.
    fn default() -> Self {
        Self(64)
    }
}

impl Session {
    /// Model Context Protocol, Streamable HTTP transport, section "Session Management":
    /// <https://modelcontextprotocol.io/specification/2025-06-18/basic/transports>.
    pub(super) fn mcp() -> Self {
        const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
        Self { learn: Learn::ResponseHeader(SESSION_ID), find: Find::Header(SESSION_ID) }
    }

    /// SignalR: the answer to `POST …/negotiate` has a `connectionToken` from version 1 on, and before
    /// that only a `connectionId`; `id` brings it back.
    /// <https://github.com/dotnet/aspnetcore/blob/main/src/SignalR/docs/specs/TransportProtocols.md>
    pub(super) fn signalr() -> Self {
        let member = |name: &str| vec![name.to_owned()];
        let learn = Learn::Json(vec![member("connectionToken"), member("connectionId")]);
        Self { learn, find: Find::Query("id".to_owned()) }
    }
}

impl Default for StickyCookie {
    fn default() -> Self {
        Self { name: "steadfast".to_owned(), max_age: None, is_passed: false }
    }
}

impl Default for Balance {
    /// No bound: a key whose server is full would leave its session behind.
    fn default() -> Self {
        Self { hash: Hash::Ketama, balance_factor: None, keyless: Keyless::LeastConn }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            request_head: Duration::from_secs(10),
            response_head: Duration::from_secs(120),
            body: Duration::from_secs(60),
            send: Duration::from_secs(60),
            idle: Duration::from_secs(3600),
            max_age: None,
            keepalive: Duration::from_secs(75),
        }
    }
}

impl Default for Sse {
    fn default() -> Self {
        Self {
            keepalive: Some(Duration::from_secs(15)),
            comment: "keepalive".to_owned(),
            retry: None,
            accept_encoding: AcceptEncoding::default(),
            early_head: None,
            resume: None,
        }
    }
}

impl Sse {
    /// How many servers are asked to go on with a stream where the file does not say.
    pub(super) const RESUME_ATTEMPTS: u32 = 3;
}

impl Discovery {
    /// As often as new pods are worth waiting for, and what CoreDNS lets others remember.
    pub(super) const REFRESH: Duration = Duration::from_secs(5);
}

impl HealthCheck {
    /// Of a server that is asked `probe`; HAProxy's thresholds.
    pub(super) fn new(probe: Probe) -> Self {
        Self { probe, port: None, interval: Duration::from_secs(5), timeout: Duration::from_secs(2), rise: 2, fall: 3 }
    }
}

impl Default for Tolerance {
    /// nginx's time, and more patience than its single failure: a single one has many causes.
    fn default() -> Self {
        Self { max_fails: 3, fail_timeout: Duration::from_secs(10) }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(60), spread: Duration::from_secs(30), removed: Removed::default() }
    }
}

impl Default for Rebalance {
    fn default() -> Self {
        Self { per_minute: 5, min_age: Duration::from_secs(300) }
    }
}

impl Default for SessionStore {
    fn default() -> Self {
        Self { sessions: 1_000_000, idle: Duration::from_secs(86_400), redis: None }
    }
}

impl Redis {
    /// How long a request waits for Redis where the file does not say: nobody notices that long,
    /// and a Redis nearby answers a hundred times faster.
    pub(super) const TIMEOUT: Duration = Duration::from_millis(250);
}

impl Default for WebSocket {
    /// No Pings: to most clients they are news.
    fn default() -> Self {
        Self { ping: None, pong_timeout: Duration::from_secs(10) }
    }
}

impl Pacing {
    /// How long somebody waits for their turn where the file does not say: nobody minds, and a storm
    /// of reconnects is over or needs more than patience.
    pub(super) const QUEUE: Duration = Duration::from_secs(1);
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 32 << 10,
            uri_bytes: 8 << 10,
            headers: 100,
            max_connections: None,
            per_client: None,
            streams: 100,
            resets: 200,
        }
    }
}

impl Default for TcpKeepalive {
    /// Two minutes in all: short enough for what a connection costs, and longer than a train is in a
    /// tunnel.
    fn default() -> Self {
        Self { time: Duration::from_secs(60), interval: Duration::from_secs(15), probes: 4 }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { bind: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9900), token: None }
    }
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { path: LogPath::Stdout, format: LogFormat::Json }
    }
}

impl Default for Traces {
    /// Of what a proxy sees, one in a hundred says enough of how it is.
    fn default() -> Self {
        let sample = Share::new(10_000).expect("one per cent is a share");
        Self { endpoint: String::new(), sample, service_name: "steadfast".to_owned(), propagate: true }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { grace: Duration::from_secs(30), spread: Duration::from_secs(20) }
    }
}
