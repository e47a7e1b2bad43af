//! The keys of upstreams.

use super::Shape::{AnyOf, Duration, List, Mapping, Number, Word};
use super::process::ANY;
use super::{
    HEADER, Key, NAME, ON_OR_OFF, PEM_FILE, Required, Rule, SERVER_ADDRESS, Section, Shape, Source, Text, Value, Words,
};

pub(super) static UPSTREAM: Section = Section::new(
    "upstreams.NAME",
    &[
        Key::new("servers", SERVERS, Required("required, at least one"), "who serves").explained(),
        Key::new(
            "affinity",
            List(&Shape::Source(SOURCES), 1, ANY),
            Value("[engine_io, forwarded_for, client_ip]"),
            "what keeps a client at its server",
        )
        .explained(),
        Key::new("balance", Mapping(&BALANCE), Words(""), "which server a client gets").explained(),
        Key::new("timeouts", Mapping(&TIMEOUTS), Words(""), "how long each phase may take").explained(),
        Key::new("sse", Mapping(&SSE), Words(""), "what is done for event streams").explained(),
        Key::new("websocket", Mapping(&WEBSOCKET), Words(""), "what is done for WebSockets").explained(),
        Key::new("limits", Mapping(&LIMITS), Words(""), "how fast it takes those who come to stay").explained(),
        Key::new("send_proxy_protocol", Word(&["off", "v1", "v2"]), Value("off"), "how connections to servers begin")
            .explained(),
        Key::new(
            "tls",
            AnyOf(&[ON_OR_OFF, Mapping(&TLS)]),
            Value("off"),
            "whether connections to servers are encrypted, and who servers must be",
        )
        .kind("`off`, `on`, or a mapping")
        .explained(),
        Key::new(
            "health_check",
            AnyOf(&[Mapping(&HEALTH_CHECK), Word(&["off"])]),
            Value("off"),
            "what servers are asked to find out who is down",
        )
        .explained(),
        Key::new("max_fails", Number(0, 1000), Value("3"), "so many failures in a row put a server down; 0 for none")
            .explained(),
        Key::new("fail_timeout", Duration("100ms", "1h"), Value("10s"), "within this time, and then for so long")
            .explained(),
        Key::new(
            "slow_start",
            AnyOf(&[Word(&["off"]), Duration("1s", "1h")]),
            Value("off"),
            "how long a server that is back takes until it has all of its clients",
        ),
        Key::new(
            "on_down",
            Word(&["keep", "close"]),
            Value("keep"),
            "what becomes of WebSockets and streams whose server is down",
        ),
        Key::new("drain", Mapping(&DRAIN), Words(""), "how servers are emptied").explained(),
        Key::new(
            "rebalance",
            AnyOf(&[Mapping(&REBALANCE), Word(&["off"])]),
            Value("off"),
            "whether what is open moves to servers that are new",
        )
        .explained(),
    ],
    "{ servers: [\"10.0.0.1:3000\", \"10.0.0.2:3000\"] }",
);

const SERVERS: Shape =
    List(&AnyOf(&[Shape::Text(&SERVER_ADDRESS), Mapping(&SERVER), Mapping(&DNS), Mapping(&SRV)]), 1, ANY);

const STATES: Shape = Word(&["ready", "drain", "maint"]);

static SERVER: Section = Section::new(
    "upstreams.NAME.servers",
    &[
        Key::new("address", Shape::Text(&SERVER_ADDRESS), Required("required"), "where the server listens")
            .range("port 1 to 65535"),
        Key::new(
            "name",
            Shape::Text(&NAME),
            Words("the address"),
            "its name in logs and metrics, and for `hash: rendezvous`",
        ),
        Key::new("weight", Number(1, 256), Value("1"), "its share of the clients against the others"),
        Key::new("state", STATES, Value("ready"), "what it may get; see below"),
    ],
    "{ address: \"10.0.0.1:3000\", name: chat-1, weight: 2 }",
);

static DNS: Section = Section::new(
    "upstreams.NAME.servers (dns)",
    &[
        Key::new(
            "dns",
            Shape::Text(&NAME_AND_PORT),
            Required("required"),
            "each address of the name (A, AAAA) is a server at this port",
        )
        .range("port 1 to 65535"),
        REFRESH,
        Key::new("weight", Number(1, 256), Value("1"), "of each server that is found"),
        STATE_OF_FOUND,
    ],
    "{ dns: \"chat.default.svc.cluster.local.:3000\", refresh: 5s }",
);

static SRV: Section = Section::new(
    "upstreams.NAME.servers (srv)",
    &[
        Key::new(
            "srv",
            Shape::Text(&SRV_NAME),
            Required("required"),
            "each target of its SRV records is a server, with port and weight from there",
        ),
        REFRESH,
        STATE_OF_FOUND,
    ],
    "{ srv: \"_http._tcp.backup.internal\" }",
);

const REFRESH: Key = Key::new("refresh", Duration("100ms", "1h"), Value("5s"), "how often to ask");

const STATE_OF_FOUND: Key = Key::new("state", STATES, Value("ready"), "of each server that is found");

const NAME_AND_PORT: Text = Text {
    name: "host name and port",
    pattern: r"^[A-Za-z0-9_.-]*[A-Za-z][A-Za-z0-9_.-]*:[0-9]{1,5}$",
    examples: &["chat.internal:3000"],
};

const SRV_NAME: Text = Text {
    name: "name",
    pattern: r"^[A-Za-z0-9_.-]*[A-Za-z][A-Za-z0-9_.-]*$",
    examples: &["_http._tcp.chat.internal"],
};

static SOURCES: &[Source] = &[
    Source {
        name: "engine_io",
        shown: "`engine_io`",
        is_word: true,
        value: None,
        meaning: "the Socket.IO session that the request belongs to, and so the server that issued it; see below",
    },
    Source {
        name: "sticky_cookie",
        shown: "`sticky_cookie`",
        is_word: true,
        value: Some(Mapping(&STICKY_COOKIE)),
        meaning: "the server that a cookie of Steadfast's own names; a response to a request without one sets it. Or \
                  `sticky_cookie: { name: steadfast, max_age: 1d }`: its name, and how long browsers keep it, 1s to \
                  400d; left out, until they close",
    },
    Source {
        name: "session",
        shown: "`session: KIND`",
        is_word: false,
        value: Some(AnyOf(&[Word(&["mcp", "signalr"]), Mapping(&SESSION)])),
        meaning: "a session that a server issued otherwise: `mcp`, `signalr`, or any other in words; see below",
    },
    Source {
        name: "cookie",
        shown: "`cookie: NAME`",
        is_word: false,
        value: Some(Shape::Text(&COOKIE)),
        meaning: "the session that a server issued by setting that cookie; the value itself is a key if none did",
    },
    Source {
        name: "header",
        shown: "`header: NAME`",
        is_word: false,
        value: Some(Shape::Text(&HEADER)),
        meaning: "the value of that request header, as it stands",
    },
    Source {
        name: "query",
        shown: "`query: NAME`",
        is_word: false,
        value: Some(Shape::Text(&QUERY)),
        meaning: "the value of that query parameter",
    },
    Source {
        name: "forwarded_for",
        shown: "`forwarded_for`",
        is_word: true,
        value: Some(Mapping(&FORWARDED_FOR)),
        meaning: "an address in `X-Forwarded-For`, or in `Forwarded` where there is no other, if the previous hop is \
                  among `trusted_proxies`: the first one, or with `forwarded_for: { pick: rightmost_untrusted }` the \
                  last one that is not a trusted proxy's",
    },
    Source {
        name: "client_ip",
        shown: "`client_ip`",
        is_word: true,
        value: Some(Mapping(&CLIENT_IP)),
        meaning: "the address of the previous hop, or of whom that names by `proxy_protocol`",
    },
];

const COOKIE: Text = Text { name: "the name of a cookie", examples: &["sid"], ..HEADER };

const QUERY: Text = Text { name: "the name of a query parameter", pattern: r"^[^?&=#\s]+$", examples: &["room"] };

static STICKY_COOKIE: Section = Section::new(
    "upstreams.NAME.affinity[].sticky_cookie",
    &[
        Key::new("name", Shape::Text(&COOKIE), Value("steadfast"), "the name of the cookie"),
        Key::new("max_age", Duration("1s", "400d"), Words("until they close"), "how long browsers keep it"),
        Key::new("pass_to_servers", ON_OR_OFF, Value("off"), "whether servers get to see it"),
    ],
    "{ name: steadfast, max_age: 1d }",
);

static SESSION: Section = Section::new(
    "upstreams.NAME.affinity[].session",
    &[
        Key::new(
            "learn",
            Mapping(&LEARN),
            Required("required"),
            "where a response has the id of a session that its server issues",
        ),
        Key::new("find", Mapping(&FIND), Required("required"), "where later requests have it"),
    ],
    "{ learn: { response_header: X-Session }, find: { header: X-Session } }",
);

static LEARN: Section = Section::new(
    "upstreams.NAME.affinity[].session.learn",
    &[
        Key::new("response_header", Shape::Text(&HEADER), Words(""), "that header of a response"),
        Key::new(
            "json",
            AnyOf(&[Shape::Text(&MEMBER), List(&Shape::Text(&MEMBER), 1, ANY)]),
            Words(""),
            "that member of a JSON answer to a POST: `id`, or `session.id` within an object, or a list of which the \
             first that is there counts",
        ),
    ],
    "{ json: session.id }",
)
.with(Rule::Single);

const MEMBER: Text = Text { name: "member", pattern: r"^[^.]+(\.[^.]+)*$", examples: &["session.id"] };

static FIND: Section = Section::new(
    "upstreams.NAME.affinity[].session.find",
    &[
        Key::new("header", Shape::Text(&HEADER), Words(""), "that header of a request"),
        Key::new("query", Shape::Text(&QUERY), Words(""), "that query parameter"),
        Key::new("cookie", Shape::Text(&COOKIE), Words(""), "that cookie"),
    ],
    "{ query: id }",
)
.with(Rule::Single);

static FORWARDED_FOR: Section = Section::new(
    "upstreams.NAME.affinity[].forwarded_for",
    &[
        Key::new(
            "pick",
            Word(&["first", "rightmost_untrusted"]),
            Value("first"),
            "which address: the first, or the last one that is not a trusted proxy's",
        ),
        IPV6_PREFIX,
    ],
    "{ pick: rightmost_untrusted, ipv6_prefix: 56 }",
);

static CLIENT_IP: Section = Section::new("upstreams.NAME.affinity[].client_ip", &[IPV6_PREFIX], "{ ipv6_prefix: 56 }");

const IPV6_PREFIX: Key =
    Key::new("ipv6_prefix", Number(1, 128), Value("64"), "how many of the first bits of an IPv6 address are the key");

static BALANCE: Section = Section::new(
    "upstreams.NAME.balance",
    &[
        Key::new("hash", Word(&["ketama", "rendezvous"]), Value("ketama"), "where a key leads"),
        Key::new(
            "balance_factor",
            AnyOf(&[Number(101, 1000), Word(&["off"])]),
            Value("off"),
            "percent of its fair share of open connections at which a server counts as full, and keys pass it by",
        ),
        Key::new(
            "keyless",
            Word(&["least_conn", "round_robin", "random_two"]),
            Value("least_conn"),
            "who serves a request in which `affinity` finds no key",
        ),
    ],
    "{ hash: rendezvous, keyless: round_robin }",
);

static HEALTH_CHECK: Section = Section::new(
    "upstreams.NAME.health_check",
    &[
        Key::new("path", Shape::Text(&CHECK_PATH), Words("this or `tcp`"), "GET this; the status decides")
            .range("up to 2048 bytes"),
        Key::new(
            "tcp",
            ON_OR_OFF,
            Value("off"),
            "in place of `path`: taking a connection is enough (with `tls`, a handshake)",
        ),
        Key::new(
            "status",
            List(&AnyOf(&[Number(100, 599), Shape::Text(&STATUSES)]), 1, ANY),
            Value("[\"200-399\"]"),
            "the statuses that are good",
        )
        .kind("list of numbers and ranges")
        .range("100 to 599"),
        Key::new("host", Shape::Text(&HOST), Words("the server's address"), "what `Host` says"),
        Key::new("port", Number(1, 65_535), Words("the server's"), "another port of the server to ask"),
        Key::new("interval", Duration("100ms", "1h"), Value("5s"), "from the end of a check to the next"),
        Key::new("timeout", Duration("1ms", "1m"), Value("2s"), "for the whole of a check"),
        Key::new("rise", Number(1, 100), Value("2"), "good checks in a row until a server that is down is up"),
        Key::new("fall", Number(1, 100), Value("3"), "bad ones in a row until a server that is up is down"),
    ],
    "{ path: /healthz, interval: 2s, status: [200] }",
)
.with(Rule::OneOf(&["path", "tcp"]));

const CHECK_PATH: Text =
    Text { name: "path, with or without a query", pattern: "^/[!-\"$-~]{0,2047}$", examples: &["/healthz"] };

const STATUSES: Text = Text { name: "range", pattern: "^[1-5][0-9]{2}( *- *[1-5][0-9]{2})?$", examples: &["200-399"] };

const HOST: Text = Text { name: "host", pattern: r"^[A-Za-z0-9._:\[\]-]{1,255}$", examples: &["chat.example.com"] };

static DRAIN: Section = Section::new(
    "upstreams.NAME.drain",
    &[
        Key::new("timeout", Duration("0ms", "1d"), Value("60s"), "how long it may take in all"),
        Key::new(
            "spread",
            Duration("0ms", "1d"),
            Words("`30s`, or `timeout` if that is less"),
            "over which clients are told, evenly, so that they do not come back all at once",
        )
        .range("up to `timeout`"),
        Key::new(
            "removed",
            Word(&["keep", "drain"]),
            Value("keep"),
            "what becomes of what is open to a server that is no longer in the file, or no longer found",
        ),
    ],
    "{ timeout: 5m, spread: 4m, removed: drain }",
);

static REBALANCE: Section = Section::new(
    "upstreams.NAME.rebalance",
    &[
        Key::new(
            "per_minute",
            Number(1, 100),
            Value("5"),
            "percent of what is open to the upstream that is moved in a minute, at most",
        ),
        Key::new("min_age", Duration("0ms", "30d"), Value("5m"), "what is younger stays"),
    ],
    "{ per_minute: 5, min_age: 5m }",
);

static TIMEOUTS: Section = Section::new(
    "upstreams.NAME.timeouts",
    &[
        Key::new(
            "connect",
            Duration("1ms", "1d"),
            Value("2s"),
            "until a server accepts the connection, and with `tls` has shaken hands",
        ),
        Key::new(
            "request_head",
            Duration("1ms", "1d"),
            Value("10s"),
            "until the head of a request is complete, from its first byte",
        ),
        Key::new(
            "response_head",
            Duration("1ms", "1d"),
            Value("2m"),
            "until the server answers with a head; a parked long-poll waits here",
        ),
        Key::new("body", Duration("1ms", "1d"), Value("1m"), "between two pieces of a body, in either direction"),
        Key::new("send", Duration("1ms", "1d"), Value("1m"), "until a peer takes a byte that waits for it"),
        Key::new(
            "idle",
            Duration("1ms", "30d"),
            Value("1h"),
            "without a byte in either direction, until a WebSocket or an event stream is ended",
        ),
        Key::new(
            "max_age",
            AnyOf(&[Duration("1s", "365d"), Word(&["none"])]),
            Value("none"),
            "that a WebSocket, another upgraded connection or an event stream may live, however busy it is",
        ),
        Key::new("keepalive", Duration("1ms", "30d"), Value("75s"), "between two requests on a client's connection"),
    ],
    "{ response_head: 5m, idle: 1d, max_age: 12h }",
)
.headed("how long");

static SSE: Section = Section::new(
    "upstreams.NAME.sse",
    &[
        Key::new(
            "keepalive",
            AnyOf(&[Duration("1ms", "1d"), Word(&["off"])]),
            Value("15s"),
            "silence towards the client after which a comment line is inserted",
        ),
        Key::new(
            "comment",
            Shape::Text(&COMMENT),
            Value("keepalive"),
            "the text of that comment; clients do not see it as an event",
        )
        .range("at most 256 bytes, no line break"),
        Key::new(
            "retry",
            AnyOf(&[Duration("1ms", "1d"), Word(&["none"])]),
            Value("none"),
            "what clients are told to wait before they connect again after a stream has ended",
        ),
        Key::new(
            "accept_encoding",
            Word(&["remove", "pass"]),
            Value("remove"),
            "what becomes of that field in requests that accept `text/event-stream`: into a stream that a server has \
             compressed nothing can be inserted",
        ),
        Key::new(
            "early_head",
            AnyOf(&[Duration("1s", "1d"), Word(&["off"])]),
            Value("off"),
            "how long a request for nothing but events waits before Steadfast itself begins the stream",
        )
        .range("1s to 1d, less than `timeouts.response_head`"),
        Key::new(
            "resume",
            ON_OR_OFF,
            Value("off"),
            "whether another server is asked to go on with a stream whose server is lost or drained, by `Last-Event-ID`",
        ),
        Key::new("resume_attempts", Number(1, 10), Value("3"), "how many servers are asked; only with `resume: on`"),
    ],
    "{ keepalive: 10s, comment: still here, retry: 3s }",
);

const COMMENT: Text = Text { name: "text", pattern: r"^[^\r\n]{0,256}$", examples: &["keepalive"] };

static WEBSOCKET: Section = Section::new(
    "upstreams.NAME.websocket",
    &[
        Key::new(
            "ping",
            AnyOf(&[Duration("1s", "1d"), Word(&["off"])]),
            Value("off"),
            "silence between client and proxy, in either direction, after which a ping is inserted towards the client",
        ),
        Key::new(
            "pong_timeout",
            Duration("100ms", "1d"),
            Value("10s"),
            "silence from the client behind a ping after which it counts as gone",
        ),
    ],
    "{ ping: 30s, pong_timeout: 20s }",
);

static LIMITS: Section = Section::new(
    "upstreams.NAME.limits",
    &[
        Key::new(
            "handshakes_per_second",
            AnyOf(&[Number(1, 1_000_000), Word(&["none"])]),
            Value("none"),
            "how many are let through each second",
        ),
        Key::new("queue", Duration("0s", "1m"), Value("1s"), "how long one of them waits for its turn"),
    ],
    "{ handshakes_per_second: 500, queue: 2s }",
);

static TLS: Section = Section::new(
    "upstreams.NAME.tls",
    &[
        Key::new(
            "ca",
            Shape::Text(&PEM_FILE),
            Words("the authorities of the system"),
            "a PEM file with the authorities that vouch for the servers; only these count then",
        ),
        Key::new(
            "server_name",
            Shape::Text(&SERVER_NAME),
            Words("the IP of each server"),
            "who every server must be, by its certificate; also what it is asked for (SNI)",
        ),
        Key::new(
            "cert",
            Shape::Text(&PEM_FILE),
            Words("none"),
            "a certificate in PEM, for servers that want one from us; only with `key`",
        ),
        Key::new("key", Shape::Text(&PEM_FILE), Words("none"), "the key of that certificate, in PEM; only with `cert`"),
        Key::new(
            "verify",
            ON_OR_OFF,
            Value("on"),
            "`off`: whoever answers is taken for the server; the log says so at the start",
        ),
    ],
    "{ ca: /etc/steadfast/internal-ca.pem, server_name: chat.internal }",
);

const SERVER_NAME: Text =
    Text { name: "a name, or an IP", pattern: "^[A-Za-z0-9._:-]{1,253}$", examples: &["chat.internal"] };
