//! The configuration, checked and resolved: what everyone else sees.
//!
//! [`load`] reads a file into a [`Config`] or into [`Mistakes`], all of them at once. Past that
//! point there are only types: nothing after it can find a configuration mistake. Nothing here
//! opens a socket, or a file other than the one it was given and the secrets and certificates that
//! this one names.
//!
//! ```text
//! text ─ value    serde_yaml's value, with the line of each key from lines
//!      ─ reader   one typed look at a time; complaints go to mistakes
//!      ─ resolve  what keys mean and what must fit together
//!      ─ Config
//! ```
//!
//! The catalogue describes every key once more, for people and editors.

mod catalogue;
mod defaults;
mod difference;
mod discovery;
mod file;
mod fitness;
mod lines;
mod mistakes;
mod reader;
mod resolve;
mod suggest;
#[cfg(test)]
mod tests;
mod token;
mod traces;
mod units;
mod value;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use ipnet::{IpNet, Ipv6Net};
use rustls::RootCertStore;
use serde::{Deserialize, Serialize};

use crate::affinity::tag::Secret;
use crate::proxy_protocol::Version;
use crate::tls::{self, Back, Certificate};

pub use self::catalogue::schema;
pub use self::difference::difference;
pub use self::discovery::{Discovery, Found, Records, Resolver};
pub use self::file::{LoadError, load, parse};
pub use self::fitness::{Drain, HealthCheck, OnDown, Probe, Rebalance, Removed, Tolerance};
pub use self::mistakes::Mistakes;
pub use self::token::Token;
pub use self::traces::{Share, Traces};
pub use self::units::duration_within;

/// Everything one configuration file says.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect; at least one.
    pub listeners: Vec<Listener>,
    /// The previous hops whose forwarded headers are believed.
    pub trusted_proxies: TrustedProxies,
    /// Who the client is, for logs and limits.
    pub client_ip: ClientIp,
    /// Who is asked for the names of servers.
    pub resolver: Resolver,
    /// In the order of the file; the first match wins. At least one.
    pub routes: Vec<Route>,
    /// In the order of the file; a [`Route`] refers to them by index. At least one.
    pub upstreams: Vec<Upstream>,
    /// What tags are keyed with; the same for all proxies of a fleet. `None`: one of this process.
    pub affinity_secret: Option<Secret>,
    /// Who remembers which server issued a session.
    pub session_store: SessionStore,
    /// What a request may weigh, and how many connections clients may have.
    pub limits: Limits,
    /// How TCP finds out that a silent peer is gone.
    pub tcp_keepalive: TcpKeepalive,
    /// Metrics and health; `None` when switched off.
    pub admin: Option<Admin>,
    /// One line per request.
    pub access_log: AccessLog,
    /// Spans of requests and relays, for a collector; `None`: nothing is traced.
    pub traces: Option<Traces>,
    /// How the process ends.
    pub shutdown: Shutdown,
    /// Where the next process asks for the connections of this one; `None`: nowhere.
    pub hand_over: Option<PathBuf>,
    /// Worker threads, each with its own accept loop.
    pub threads: NonZeroUsize,
    /// The file as it is written, to tell what another one changes.
    pub written: Written,
}

/// A file as it is written, passwords included.
#[derive(Clone)]
pub struct Written(pub Arc<serde_yaml::Value>);

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Written")
    }
}

/// One address that clients connect to.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Address and port; port 0 lets the kernel choose.
    pub bind: SocketAddr,
    /// Whether hops name their clients before the first request. On or optional only where
    /// somebody is trusted.
    pub proxy_protocol: ProxyProtocol,
    /// How its clients encrypt; `None`: not at all.
    pub tls: Option<Tls>,
    /// Whether clients may begin with the preface of HTTP/2.
    pub h2c: bool,
}

/// How a listener speaks TLS.
#[derive(Clone, Debug)]
pub struct Tls {
    /// What clients are shown; at least one. The first is for those that ask for no name, or for an
    /// unknown one.
    pub certificates: Vec<Certificate>,
    /// Who vouches for the clients; `None`: they need no certificate.
    pub client_ca: Option<Arc<RootCertStore>>,
    /// The oldest version that is spoken.
    pub min_version: tls::front::Version,
}

/// Whether the [`TrustedProxies`] begin their connections with a PROXY header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// They do not, and it would be no request.
    #[default]
    Off,
    /// They all do, and nobody else may connect.
    On,
    /// They may.
    Optional,
}

/// Networks of proxies whose word is taken on who the client is.
///
/// None by [`Default`]; a file that does not say gets [`TrustedProxies::private`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(pub Vec<IpNet>);

impl TrustedProxies {
    /// Whether `hop` may tell us about its clients. An IPv4-mapped IPv6 address counts as IPv4.
    pub fn contains(&self, hop: IpAddr) -> bool {
        let hop = hop.to_canonical();
        self.0.iter().any(|network| network.contains(&hop))
    }
}

/// Where a request says who its client is, as far as [`TrustedProxies`] are to be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIp {
    /// The header with the addresses. Where there is no `X-Forwarded-For`, `Forwarded` stands in.
    pub header: HeaderName,
    /// Which of them is the client's.
    pub pick: Pick,
}

/// Which requests go to which upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The host it is for.
    pub host: HostPattern,
    /// What the path must begin with, byte for byte; starts with `/`. `/a` also takes `/ab`.
    pub path: String,
    /// Index into [`Config::upstreams`].
    pub upstream: usize,
}

/// What the `Host` of a request must be. Lower case, without port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// Any host, also none.
    Any,
    /// Exactly this host; an IPv6 address stands in brackets.
    Exact(String),
    /// Any host that ends in this suffix, which starts with a dot: `*.example.com` is `.example.com`.
    Suffix(String),
}

/// A group of servers that serve the same thing, and how they are used.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Its key in the file; a label of metrics and logs.
    pub name: String,
    /// Those that the file names; addresses and names are each unique. If there are none, there are
    /// discoveries.
    pub servers: Vec<Server>,
    /// Where more servers are found; no two alike.
    pub discoveries: Vec<Discovery>,
    /// How servers are checked; `None`: not at all.
    pub health_check: Option<HealthCheck>,
    /// How many failures of clients put a server down; `None`: they do not.
    pub tolerance: Option<Tolerance>,
    /// How long a server that comes up takes until it gets all of its clients; zero: no time.
    pub slow_start: Duration,
    /// What becomes of relays whose server goes down.
    pub on_down: OnDown,
    /// How its servers are emptied.
    pub drain: Drain,
    /// How relays move to where they belong after servers have come or gone; `None`: they stay.
    pub rebalance: Option<Rebalance>,
    /// Tried in order; the first that yields a key decides. At least one, no two alike.
    pub affinity: Vec<AffinitySource>,
    /// Which server a client gets.
    pub balance: Balance,
    /// How long each phase may take.
    pub timeouts: Timeouts,
    /// What is done for event streams.
    pub sse: Sse,
    /// What is done for WebSockets.
    pub websocket: WebSocket,
    /// How fast it takes those who come to stay; `None`: as fast as they come.
    pub pacing: Option<Pacing>,
    /// How connections to its servers begin: with a PROXY header of this version, or `None`.
    pub send_proxy_protocol: Option<Version>,
    /// How connections to its servers are encrypted; `None`: not at all.
    pub tls: Option<UpstreamTls>,
}

/// How servers are spoken to over TLS.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    /// Who they must be, and what they are shown.
    pub back: Back,
    /// Whether it matters who they are.
    pub is_verified: bool,
    /// What they are shown if they ask for it.
    pub certificate: Option<Certificate>,
}

/// How fast an upstream takes those who come to stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pacing {
    /// How many each second; 1 to 1,000,000.
    pub per_second: u32,
    /// How long one of them waits for its turn; up to a minute, zero for not at all.
    pub queue: Duration,
}

/// One server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its name in logs and metrics; the address as written when the file gives none.
    pub name: String,
    /// Where it listens. The file must write it as [`SocketAddr`] displays it, so the text that the
    /// ring hashes is `address.to_string()`.
    pub address: SocketAddr,
    /// Share of the keys against its siblings; 1 to 256.
    pub weight: u32,
    /// What it may get. At least one server or discovery of an upstream is ready.
    pub state: State,
}

/// What a server may get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Everybody.
    #[default]
    Ready,
    /// Only the sessions that it holds.
    Drain,
    /// Nobody.
    Maint,
}

impl State {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::Ready, Self::Drain, Self::Maint];

    /// Whether keys lead there, and clients without a key.
    pub fn takes_clients(self) -> bool {
        self == Self::Ready
    }

    /// Whether sessions that are pinned to it still lead there.
    pub fn keeps_sessions(self) -> bool {
        self != Self::Maint
    }
}

/// Where an affinity key is looked for in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AffinitySource {
    /// The Engine.IO session that a server issued, by the tag that the proxy gave it.
    EngineIo,
    /// A cookie that the proxy issues, and that names the server.
    StickyCookie(StickyCookie),
    /// A session that a server issues, and that the proxy learns when it does.
    Session(Session),
    /// The value of this cookie: learned if a server sets it, hashed otherwise.
    Cookie(String),
    /// The value of this request header, hashed as it stands.
    Header(HeaderName),
    /// The value of this query parameter, hashed.
    Query(String),
    /// An address in `X-Forwarded-For` or `Forwarded`, believed only from [`TrustedProxies`].
    ForwardedFor(Pick, Ipv6Prefix),
    /// The address of the previous hop.
    ClientIp(Ipv6Prefix),
}

impl AffinitySource {
    /// The cookie that one of `sources` has the proxy issue; there is one at the most.
    pub fn sticky_cookie(sources: &[Self]) -> Option<&StickyCookie> {
        sources.iter().find_map(|source| match source {
            Self::StickyCookie(cookie) => Some(cookie),
            _ => None,
        })
    }
}

/// A cookie that the proxy issues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickyCookie {
    /// Its name.
    pub name: String,
    /// How long clients keep it; `None`: until they close.
    pub max_age: Option<Duration>,
    /// Whether servers get to see it.
    pub is_passed: bool,
}

/// A session that a server issues: where its id stands when it is new, and where in later requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Where a server's response has the id.
    pub learn: Learn,
    /// Where later requests have it.
    pub find: Find,
}

/// Where the id of a new session stands in a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Learn {
    /// In this field of the head.
    ResponseHeader(HeaderName),
    /// In the first of these members of a JSON object; each a path through objects.
    Json(Vec<Vec<String>>),
}

/// Where the id of a session stands in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Find {
    /// In this field of the head.
    Header(HeaderName),
    /// In this parameter of the query.
    Query(String),
    /// In this cookie.
    Cookie(String),
}

/// Which of the addresses that proxies on the way have noted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pick {
    /// The first: what the proxy next to the client saw, if nobody forged it. Good enough to
    /// spread clients, and the same for all hops behind.
    #[default]
    First,
    /// From the right, the first that is not one of [`TrustedProxies`]: nobody can forge it.
    RightmostUntrusted,
}

/// How many bits of an IPv6 address name a client, who has many addresses in its network; 1 to 128.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Prefix(u8);

impl Ipv6Prefix {
    /// `None` when there are no such prefixes.
    pub fn new(bits: u8) -> Option<Self> {
        (1..=128).contains(&bits).then_some(Self(bits))
    }

    /// The network of `address`.
    pub fn network(self, address: Ipv6Addr) -> Ipv6Net {
        Ipv6Net::new_assert(address, self.0).trunc()
    }
}

/// Which server a client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// Where a key leads.
    pub hash: Hash,
    /// Percent of its fair share of open connections beyond which a server gets no more clients by
    /// key, 101 to 1000; `None` when off.
    pub balance_factor: Option<u32>,
    /// Who serves a client without a key.
    pub keyless: Keyless,
}

/// How keys are mapped to servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// The ring of nginx's `hash <key> consistent`, by addresses.
    Ketama,
    /// Weighted rendezvous hashing, by names.
    Rendezvous,
}

/// How a server is chosen for a client without a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keyless {
    /// The one with the fewest open connections per weight.
    LeastConn,
    /// In turn, by weight.
    RoundRobin,
    /// The better of two drawn at random.
    RandomTwo,
}

/// How long each phase of an exchange may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Until a server accepts the connection.
    pub connect: Duration,
    /// Until the head of a request is complete, from its first byte. The route is not yet known
    /// then, so the largest of all upstreams applies.
    pub request_head: Duration,
    /// Until the server answers with a head. A parked long-poll waits here.
    pub response_head: Duration,
    /// Between two pieces of a body, in either direction.
    pub body: Duration,
    /// Until a peer takes a byte that waits for it; then it counts as stalled.
    pub send: Duration,
    /// Silence in both directions that ends a relay.
    pub idle: Duration,
    /// How long a relay lives at most; `None`: as long as both sides like.
    pub max_age: Option<Duration>,
    /// How long a client's connection waits for its next request: that of the upstream which had
    /// the last one.
    pub keepalive: Duration,
}

/// What is done for event streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sse {
    /// Silence towards the client after which a comment is inserted; `None` when off.
    pub keepalive: Option<Duration>,
    /// The text of that comment; no line break.
    pub comment: String,
    /// How long clients wait before they connect again, which every stream begins by telling them;
    /// `None`: it is left to the servers.
    pub retry: Option<Duration>,
    /// What becomes of `Accept-Encoding` in requests for event streams.
    pub accept_encoding: AcceptEncoding,
    /// How long a request for nothing but events waits before the proxy itself begins the stream;
    /// `None` when off. Shorter than [`Timeouts::response_head`].
    pub early_head: Option<Duration>,
    /// How many servers are asked to go on with a stream whose server is lost; 1 to 10. `None`: the
    /// stream ends.
    pub resume: Option<u32>,
}

/// Whether servers may compress what nothing can be inserted into then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AcceptEncoding {
    /// They are not told that the client would take it.
    #[default]
    Remove,
    /// They are.
    Pass,
}

/// Who remembers which server issued a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionStore {
    /// How many sessions the process remembers; with Redis, the ones it has met itself. 1000 to
    /// 100,000,000.
    pub sessions: usize,
    /// How long a session is remembered after its last request; a second to 30 days.
    pub idle: Duration,
    /// What several proxies share; `None`: each has only its own memory.
    pub redis: Option<Redis>,
}

/// A Redis that remembers sessions for several proxies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    /// A name, or an IP without brackets.
    pub host: String,
    /// Not 0.
    pub port: u16,
    /// The number of the database.
    pub db: u16,
    /// Who to log in as; `None`: Redis's default user. Never without a password.
    pub user: Option<String>,
    /// What to log in with.
    pub password: Option<Password>,
    /// The longest that one request waits for it, all in all.
    pub timeout: Duration,
}

/// A secret that no log and no message may show.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(***)")
    }
}

/// What is done for WebSockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WebSocket {
    /// Silence from or towards the client after which a Ping is inserted; `None` when off.
    pub ping: Option<Duration>,
    /// Silence from the client behind a Ping after which it counts as gone.
    pub pong_timeout: Duration,
}

/// What the head of a request may weigh, how many connections clients may have, and what one of
/// HTTP/2 may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of request line and header fields together.
    pub head_bytes: usize,
    /// Bytes of the request target.
    pub uri_bytes: usize,
    /// Number of header fields.
    pub headers: usize,
    /// Connections of all clients together; `None`: as many as there are descriptors for.
    pub max_connections: Option<usize>,
    /// Connections in use by one client; `None`: any number.
    pub per_client: Option<usize>,
    /// Requests under way at once on a connection of HTTP/2; 1 to 10,000.
    pub streams: u32,
    /// Requests that a client may take back on such a connection, at once and in each ten seconds;
    /// 1 to 100,000.
    pub resets: u32,
}

/// How TCP finds out that a silent peer is gone: by probes that it has to acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Silence before the first probe; whole seconds, a second to 9 hours.
    pub time: Duration,
    /// Time between two probes; whole seconds, a second to an hour.
    pub interval: Duration,
    /// How many go unanswered; 1 to 100.
    pub probes: u32,
}

impl TcpKeepalive {
    /// The silence after which a peer counts as gone.
    pub fn patience(&self) -> Duration {
        self.time + self.interval * self.probes
    }
}

/// Where metrics and health are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// An address that no listener takes; port 0 lets the kernel choose. One that other machines can
    /// reach comes with a token.
    pub bind: SocketAddr,
    /// What requests have to bring.
    pub token: Option<Token>,
}

/// Where and how requests are logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Where the lines go.
    pub path: LogPath,
    /// How a line looks.
    pub format: LogFormat,
}

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPath {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended to this file, which is created if need be. An absolute path.
    File(PathBuf),
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// The combined format of Apache and nginx, with our fields behind it.
    Combined,
    /// No lines.
    Off,
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// Time that exchanges have to finish after SIGTERM.
    pub grace: Duration,
    /// The part of that over which relays are told to end; no more than `grace`.
    pub spread: Duration,
}
