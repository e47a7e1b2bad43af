//! What is measured: the scenarios, their sizes, the rows they fill and the goals of those.

use std::time::Duration;

use crate::proxies::Proxy;

/// One situation that every proxy is put into.
pub(crate) struct Scenario {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// What the clients speak.
    pub(crate) over: Over,
    /// What happens.
    pub(crate) plan: Plan,
    /// The figures that come out, in the order of the plan.
    pub(crate) rows: &'static [Row],
}

/// What the clients of a scenario speak with the proxy; it speaks TCP with the server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// Plain text.
    Tcp,
    /// TLS 1.3.
    Tls,
}

/// What happens in a scenario.
#[derive(Clone, Copy)]
pub(crate) enum Plan {
    /// Memory of WebSockets: fresh, used, closed.
    IdleWebSockets,
    /// Memory of event streams: fresh, used.
    IdleStreams,
    /// Memory of parked requests.
    ParkedPolls,
    /// CPU of event streams on which nothing is said but the proxy's comments.
    KeptStreams,
    /// CPU of WebSocket messages that come back, and how long that takes them.
    Echo { connections: usize, bytes: usize },
    /// CPU of events that go to all streams.
    Events { path: &'static str },
    /// CPU of requests on connections that stay, and how long they take.
    KeepAlive,
    /// CPU of requests on connections of their own, and how long they take.
    ConnectionPerRequest,
    /// CPU of requests that are parked for a while.
    Polls,
    /// CPU of many WebSocket handshakes at once, and what was lost.
    Handshakes,
}

/// One figure of a scenario.
pub(crate) struct Row {
    /// What it is, in the table.
    pub(crate) title: &'static str,
    /// How it is shown.
    pub(crate) unit: Unit,
    /// What Steadfast should reach.
    pub(crate) goal: Goal,
}

/// What a figure counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Bytes per connection.
    Bytes,
    /// A share, in percent.
    Percent,
    /// Time per operation in microseconds; shown as ratio to nginx.
    Microseconds,
    /// A share of one core, in percent.
    Core,
    /// Connections, added up over the rounds.
    Connections,
}

/// What Steadfast should reach.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
    /// No more than this times the better of nginx and HAProxy.
    TimesBest(f64),
    /// To be seen.
    None,
}

/// How much of everything.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    /// How often the CPU scenarios are run.
    pub(crate) rounds: usize,
    /// How often the memory scenarios are run.
    pub(crate) memory_rounds: usize,
    /// How long operations are counted in one CPU scenario.
    pub(crate) window: Duration,
    /// Connections of a memory scenario.
    pub(crate) idle_connections: usize,
    /// How long streams are kept alive.
    pub(crate) idle_window: Duration,
    /// Handshakes of a storm.
    pub(crate) handshakes: usize,
    /// How long memory is waited for after connections were closed.
    pub(crate) give_back: Duration,
}

impl Sizes {
    /// What the table in the README is made with.
    pub(crate) const FULL: Self = Self {
        rounds: 12,
        memory_rounds: 1,
        window: Duration::from_millis(300),
        idle_connections: 4000,
        idle_window: Duration::from_secs(45),
        handshakes: 5000,
        give_back: Duration::from_secs(15),
    };
    /// Enough to see whether something is badly wrong.
    pub(crate) const QUICK: Self = Self {
        rounds: 2,
        memory_rounds: 1,
        window: Duration::from_millis(300),
        idle_connections: 4000,
        idle_window: Duration::from_secs(15),
        handshakes: 1000,
        give_back: Duration::from_secs(5),
    };
}

impl Plan {
    /// Whether the figures are times of operations. Those need rounds; memory hardly varies, and what
    /// keeps streams alive takes long enough to be measured once.
    pub(crate) fn measures_operations(self) -> bool {
        !matches!(self, Self::IdleWebSockets | Self::IdleStreams | Self::ParkedPolls | Self::KeptStreams)
    }
}

impl Scenario {
    /// Whether there is anything to measure of `proxy`: the others insert no comments. The bare relay
    /// knows neither TLS nor anything that it would remember of a connection, and what others keep open to
    /// the server it has to open each time.
    pub(crate) fn concerns(&self, proxy: Proxy) -> bool {
        let is_bare = self.over == Over::Tcp
            && self.plan.measures_operations()
            && !matches!(self.plan, Plan::ConnectionPerRequest);
        match proxy {
            Proxy::Steadfast => true,
            Proxy::Bare => is_bare,
            Proxy::Nginx | Proxy::Haproxy | Proxy::Envoy | Proxy::Caddy => !matches!(self.plan, Plan::KeptStreams),
        }
    }
}

const fn cpu(title: &'static str, times_best: f64) -> Row {
    Row { title, unit: Unit::Microseconds, goal: Goal::TimesBest(times_best) }
}

const fn latency(title: &'static str) -> Row {
    Row { title, unit: Unit::Microseconds, goal: Goal::None }
}

const fn memory(title: &'static str, bytes_max: f64) -> Row {
    Row { title, unit: Unit::Bytes, goal: Goal::AtMost(bytes_max) }
}

const fn lost(title: &'static str) -> Row {
    Row { title, unit: Unit::Connections, goal: Goal::AtMost(0.0) }
}

/// All scenarios.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "memory-websocket",
        over: Over::Tcp,
        plan: Plan::IdleWebSockets,
        rows: &[
            memory("memory: idle WebSocket, fresh", 2000.0),
            memory("memory: idle WebSocket, after 16 KiB each way", 2000.0),
            Row { title: "memory: given back after closing", unit: Unit::Percent, goal: Goal::AtLeast(80.0) },
        ],
    },
    Scenario {
        name: "memory-sse",
        over: Over::Tcp,
        plan: Plan::IdleStreams,
        rows: &[
            memory("memory: idle event stream, fresh", 2000.0),
            memory("memory: idle event stream, after an event", 2000.0),
        ],
    },
    Scenario {
        name: "memory-poll",
        over: Over::Tcp,
        plan: Plan::ParkedPolls,
        rows: &[memory("memory: parked long-poll", 9800.0)],
    },
    Scenario {
        name: "cpu-kept-streams",
        plan: Plan::KeptStreams,
        rows: &[Row {
            title: "CPU: 9,000 idle streams, a comment each 15 s",
            unit: Unit::Core,
            goal: Goal::AtMost(1.0),
        }],
        over: Over::Tcp,
    },
    Scenario {
        name: "cpu-echo-125-100",
        over: Over::Tcp,
        plan: Plan::Echo { connections: 100, bytes: 125 },
        rows: &[
            cpu("CPU: WebSocket echo, 125 B, 100 connections", 0.9),
            latency("p50: WebSocket echo, 125 B, 100 connections"),
            latency("p99: WebSocket echo, 125 B, 100 connections"),
        ],
    },
    Scenario {
        name: "cpu-echo-125-1000",
        over: Over::Tcp,
        plan: Plan::Echo { connections: 1000, bytes: 125 },
        rows: &[
            cpu("CPU: WebSocket echo, 125 B, 1,000 connections", 0.9),
            latency("p50: WebSocket echo, 125 B, 1,000 connections"),
            latency("p99: WebSocket echo, 125 B, 1,000 connections"),
        ],
    },
    Scenario {
        name: "cpu-echo-16k-100",
        over: Over::Tcp,
        plan: Plan::Echo { connections: 100, bytes: 16 * 1024 },
        rows: &[
            cpu("CPU: WebSocket echo, 16 KiB, 100 connections", 0.9),
            latency("p50: WebSocket echo, 16 KiB, 100 connections"),
            latency("p99: WebSocket echo, 16 KiB, 100 connections"),
        ],
    },
    Scenario {
        name: "cpu-sse-chunked",
        over: Over::Tcp,
        plan: Plan::Events { path: "/sse/chunked" },
        rows: &[cpu("CPU: event to 1,000 streams, chunked", 0.9)],
    },
    Scenario {
        name: "cpu-sse-close",
        over: Over::Tcp,
        plan: Plan::Events { path: "/sse" },
        rows: &[cpu("CPU: event to 1,000 streams, until close", 0.9)],
    },
    Scenario {
        name: "cpu-keepalive",
        over: Over::Tcp,
        plan: Plan::KeepAlive,
        rows: &[
            cpu("CPU: keep-alive request, 32 connections", 1.2),
            latency("p50: keep-alive request, 32 connections"),
            latency("p99: keep-alive request, 32 connections"),
        ],
    },
    Scenario {
        name: "cpu-connection",
        over: Over::Tcp,
        plan: Plan::ConnectionPerRequest,
        rows: &[
            cpu("CPU: connection per request, 32 at a time", 1.2),
            latency("p50: connection per request, 32 at a time"),
            latency("p99: connection per request, 32 at a time"),
        ],
    },
    Scenario {
        name: "cpu-poll",
        over: Over::Tcp,
        plan: Plan::Polls,
        rows: &[cpu("CPU: long-poll, 1,000 parked", 1.2)],
    },
    Scenario {
        name: "cpu-handshake",
        over: Over::Tcp,
        plan: Plan::Handshakes,
        rows: &[
            cpu("CPU: WebSocket handshake in a storm", 1.0),
            lost("storm: handshakes that failed"),
            lost("storm: connections that died after the 101"),
        ],
    },
    Scenario {
        name: "tls-memory-websocket",
        over: Over::Tls,
        plan: Plan::IdleWebSockets,
        rows: &[
            memory("TLS memory: idle WebSocket, fresh", 5000.0),
            memory("TLS memory: idle WebSocket, after 16 KiB each way", 5000.0),
            Row { title: "TLS memory: given back after closing", unit: Unit::Percent, goal: Goal::AtLeast(80.0) },
        ],
    },
    Scenario {
        name: "tls-memory-sse",
        over: Over::Tls,
        plan: Plan::IdleStreams,
        rows: &[
            memory("TLS memory: idle event stream, fresh", 5000.0),
            memory("TLS memory: idle event stream, after an event", 5000.0),
        ],
    },
    Scenario {
        name: "tls-cpu-echo-125-100",
        over: Over::Tls,
        plan: Plan::Echo { connections: 100, bytes: 125 },
        rows: &[cpu("TLS CPU: WebSocket echo, 125 B, 100 connections", 1.0)],
    },
    Scenario {
        name: "tls-cpu-echo-16k-100",
        over: Over::Tls,
        plan: Plan::Echo { connections: 100, bytes: 16 * 1024 },
        rows: &[cpu("TLS CPU: WebSocket echo, 16 KiB, 100 connections", 1.0)],
    },
    Scenario {
        name: "tls-cpu-connection",
        over: Over::Tls,
        plan: Plan::ConnectionPerRequest,
        rows: &[cpu("TLS CPU: connection per request, 32 at a time", 1.2)],
    },
];
