//! The keys of the file itself and of its sections, but for upstreams.

use super::Shape::{AnyOf, Duration, List, Mapping, Named, Number, Size, Word};
use super::{
    ABSOLUTE_PATH, ADDRESS, HEADER, Key, ON_OR_OFF, PEM_FILE, Required, SERVER_ADDRESS, Section, Shape, Text, Value,
    Words, upstreams,
};

pub(super) static KEYS: &[Key] = &[
    Key::new("listeners", List(&Mapping(&LISTENER), 1, ANY), Required("required"), "where clients connect"),
    Key::new("resolver", Mapping(&RESOLVER), Words(""), "who is asked for names that servers are found by"),
    Key::new(
        "trusted_proxies",
        List(&Shape::Text(&NETWORK), 0, ANY),
        Value("[private]"),
        "the previous hops whose `X-Forwarded-For` and PROXY headers are believed",
    ),
    Key::new("client_ip", Mapping(&CLIENT_IP), Words(""), "who the client is, for the access log and limits"),
    Key::new(
        "routes",
        List(&Mapping(&ROUTE), 1, ANY),
        Required("required"),
        "which requests go to which upstream; the first route that matches wins",
    ),
    Key::new(
        "upstreams",
        Named(&upstreams::UPSTREAM),
        Required("required"),
        "groups of servers that serve the same thing, by name",
    ),
    Key::new(
        "affinity_secret_file",
        Shape::Text(&ABSOLUTE_PATH),
        Words("a secret of this process"),
        "what the tags of `engine_io` and the cookies of `sticky_cookie` are keyed with: a file with at least 16 bytes, \
         the same for all proxies of a fleet",
    ),
    Key::new(
        "session_store",
        AnyOf(&[Shape::Text(&STORE), Mapping(&SESSION_STORE)]),
        Value("memory"),
        "who remembers which server issued a session that carries no tag",
    )
    .kind("`memory`, a URL or a mapping"),
    Key::new(
        "limits",
        Mapping(&LIMITS),
        Words(""),
        "how many connections clients may have, what the head of a request may weigh, and what a connection of HTTP/2 \
         may ask for",
    ),
    Key::new(
        "tcp_keepalive",
        Mapping(&TCP_KEEPALIVE),
        Words(""),
        "how TCP finds out that a peer is gone without a word",
    ),
    Key::new(
        "admin",
        AnyOf(&[Mapping(&ADMIN), Word(&["off"])]),
        Words(""),
        "where metrics, health and relays are served",
    ),
    Key::new("access_log", AnyOf(&[Mapping(&ACCESS_LOG), Word(&["off"])]), Words(""), "one line per request"),
    Key::new(
        "traces",
        AnyOf(&[Word(&["off"]), Mapping(&TRACES)]),
        Value("off"),
        "spans of requests and relays, for a collector of OpenTelemetry",
    ),
    Key::new("shutdown", Mapping(&SHUTDOWN), Words(""), "how the process ends"),
    Key::new(
        "hand_over",
        AnyOf(&[Mapping(&HAND_OVER), Word(&["off"])]),
        Value("off"),
        "where the next process asks this one for everything that it has",
    ),
    Key::new(
        "threads",
        AnyOf(&[Word(&["auto"]), Number(1, 256)]),
        Value("auto"),
        "how many worker threads accept and serve clients; `auto` is one for each CPU that the process may use",
    ),
];

/// No bound of its own: the file has one.
pub(super) const ANY: usize = usize::MAX;

const NETWORK: Text = Text {
    name: "network",
    pattern: r"^(private|[0-9]{1,3}(\.[0-9]{1,3}){3}(/[0-9]{1,2})?|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(/[0-9]{1,3})?)$",
    examples: &["private", "203.0.113.0/24"],
};

static LISTENER: Section = Section::new(
    "listeners",
    &[
        Key::new("bind", Shape::Text(&ADDRESS), Required("required"), "where to listen; port 0 lets the kernel choose"),
        Key::new(
            "proxy_protocol",
            Word(&["off", "on", "optional"]),
            Value("off"),
            "whether hops begin their connections with a PROXY header",
        )
        .explained(),
        Key::new(
            "tls",
            AnyOf(&[Word(&["off"]), Mapping(&LISTENER_TLS)]),
            Value("off"),
            "whether clients encrypt, and what they are shown",
        )
        .kind("`off`, or a mapping")
        .explained(),
        Key::new("h2c", ON_OR_OFF, Value("off"), "whether clients may speak HTTP/2 without TLS").explained(),
    ],
    "{ bind: \"0.0.0.0:8080\" }",
);

static LISTENER_TLS: Section = Section::new(
    "listeners[].tls",
    &[
        Key::new(
            "certificates",
            List(&Mapping(&CERTIFICATE), 1, ANY),
            Required("required, at least one"),
            "what clients are shown: absolute paths of PEM files; `cert` has the certificate first and the ones that \
             vouch for it behind, `key` the private key of the first, not encrypted",
        )
        .kind("list of `{ cert, key }`"),
        Key::new(
            "client_ca",
            Shape::Text(&PEM_FILE),
            Words("none"),
            "a PEM file with authorities; if given, clients must show a certificate that one of them vouches for",
        ),
        Key::new(
            "min_version",
            Shape::Text(&TLS_VERSION),
            Value("\"1.2\""),
            "the oldest version of TLS that is spoken; older ones than these are broken",
        ),
    ],
    "{ certificates: [{ cert: /etc/steadfast/chat.pem, key: /etc/steadfast/chat.key }] }",
);

/// Also as a number, which YAML takes it for without quotes.
pub(super) const TLS_VERSION: Text =
    Text { name: "`\"1.2\"` or `\"1.3\"`", pattern: r"^(TLSv|TLS )?1\.[23]$", examples: &["1.2", "1.3"] };

static CERTIFICATE: Section = Section::new(
    "listeners[].tls.certificates",
    &[
        Key::new(
            "cert",
            Shape::Text(&PEM_FILE),
            Required("required"),
            "a PEM file with the certificate first and the ones that vouch for it behind",
        ),
        Key::new(
            "key",
            Shape::Text(&PEM_FILE),
            Required("required"),
            "a PEM file with the private key of the first, not encrypted",
        ),
    ],
    "{ cert: /etc/steadfast/chat.pem, key: /etc/steadfast/chat.key }",
);

static RESOLVER: Section = Section::new(
    "resolver",
    &[Key::new(
        "servers",
        List(&Shape::Text(&DNS_ADDRESS), 1, 8),
        Required("required"),
        "DNS servers, by UDP, and TCP for long answers; the first that answers counts",
    )
    .kind("list of 1 to 8 addresses")],
    "{ servers: [\"10.0.0.53:53\"] }",
);

const DNS_ADDRESS: Text = Text { examples: &["10.0.0.53:53"], ..ADDRESS };

static CLIENT_IP: Section = Section::new(
    "client_ip",
    &[
        Key::new(
            "header",
            Shape::Text(&HEADER),
            Value("X-Forwarded-For"),
            "where the addresses stand; any name, such as `X-Real-IP` or `CF-Connecting-IP`; of `Forwarded` the `for` \
             parameters, which also stand in where there is no `X-Forwarded-For`",
        ),
        Key::new(
            "pick",
            Word(&["rightmost_untrusted", "first"]),
            Value("rightmost_untrusted"),
            "which of them: from the right, the first that is not a trusted proxy's; or the first of all",
        ),
    ],
    "{ header: CF-Connecting-IP }",
);

static ROUTE: Section = Section::new(
    "routes",
    &[
        Key::new(
            "host",
            Shape::Text(&ROUTE_HOST),
            Words("any host, also none"),
            "compared without port and in lower case; `\"*.example.com\"` is any host that ends in `.example.com`, but \
             not `example.com` itself; international names as `xn--...`; IPv6 addresses in brackets",
        ),
        Key::new(
            "path",
            Shape::Text(&ROUTE_PATH),
            Value("/"),
            "what the path must begin with, byte for byte: `/a` also takes `/ab`, `/a/` does not; no query, no `*`",
        ),
        Key::new("upstream", Shape::Text(&UPSTREAM_NAME), Required("required"), "where the requests go"),
    ],
    "{ host: chat.example.com, path: /socket.io/, upstream: chat }",
);

const ROUTE_HOST: Text = Text {
    name: "a host, or `*.` and a host",
    pattern: r"^((\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\])$",
    examples: &["chat.example.com", "*.example.com"],
};

const ROUTE_PATH: Text =
    Text { name: "text that begins with `/`", pattern: "^/[!-\"$-)+->@-~]*$", examples: &["/socket.io/"] };

const UPSTREAM_NAME: Text = Text { name: "the name of an upstream", ..super::NAME };

const STORE: Text = Text {
    name: "`memory`, or `redis://[[user]:password@]host:port[/db]`",
    pattern: "^(memory|redis://.+)$",
    examples: &["memory", "redis://10.0.0.5:6379/0"],
};

static SESSION_STORE: Section = Section::new(
    "session_store",
    &[
        Key::new(
            "url",
            Shape::Text(&STORE),
            Value("memory"),
            "`memory` is this process alone: sessions do not survive its restart, nor another proxy beside it. A Redis is \
             shared by all proxies that name it",
        )
        .range("db 0 to 65535"),
        Key::new(
            "sessions",
            Number(1000, 100_000_000),
            Value("1000000"),
            "how many sessions the process remembers; beyond, one that was not used for long goes. With Redis, those it \
             has met itself",
        ),
        Key::new(
            "idle",
            Duration("1s", "30d"),
            Value("1d"),
            "how long a session is remembered after its last request",
        ),
        Key::new(
            "timeout",
            Duration("1ms", "10s"),
            Value("250ms"),
            "only with Redis: the longest that one request waits for it, all in all; a pause of Redis that is longer than \
             that loses sessions it alone knows",
        ),
        Key::new(
            "password_file",
            Shape::Text(&ABSOLUTE_PATH),
            Words(""),
            "only with Redis: a file with the password, instead of one in `url`",
        ),
    ],
    "{ url: \"redis://10.0.0.5:6379/0\", idle: 2h }",
);

static LIMITS: Section = Section::new(
    "limits",
    &[
        Key::new(
            "max_connections",
            AnyOf(&[Number(1, 100_000_000), Word(&["none"])]),
            Value("none"),
            "connections of all clients together",
        ),
        Key::new(
            "per_client",
            AnyOf(&[Number(1, 100_000_000), Word(&["none"])]),
            Value("none"),
            "connections of one client that are in use",
        ),
        Key::new(
            "head_bytes",
            Size("1KiB", "256KiB"),
            Value("32KiB"),
            "bytes of request line and header fields together",
        ),
        Key::new(
            "uri_bytes",
            Size("256B", "256KiB"),
            Value("8KiB"),
            "bytes of the request target; a longer one is answered with 414",
        ),
        Key::new("headers", Number(1, 256), Value("100"), "number of header fields"),
        Key::new(
            "streams",
            Number(1, 10_000),
            Value("100"),
            "requests under way at once on a connection of HTTP/2, event streams and WebSockets among them",
        ),
        Key::new(
            "resets",
            Number(1, 100_000),
            Value("200"),
            "requests that a client may take back on a connection of HTTP/2, at once and in each 10 s",
        ),
    ],
    "{ max_connections: 50000, per_client: 200, head_bytes: 64KiB }",
);

static TCP_KEEPALIVE: Section = Section::new(
    "tcp_keepalive",
    &[
        Key::new("time", Duration("1s", "9h"), Value("60s"), "silence on a connection before the first probe")
            .kind("duration, whole seconds"),
        Key::new("interval", Duration("1s", "1h"), Value("15s"), "time between two probes")
            .kind("duration, whole seconds"),
        Key::new("probes", Number(1, 100), Value("4"), "how many go unanswered until the peer is gone"),
    ],
    "{ time: 20s, interval: 5s, probes: 3 }",
);

static ADMIN: Section = Section::new(
    "admin",
    &[
        Key::new(
            "bind",
            Shape::Text(&ADMIN_ADDRESS),
            Value("\"127.0.0.1:9900\""),
            "not one that a listener takes; one that other machines can reach needs a `token_file`",
        ),
        Key::new(
            "token_file",
            Shape::Text(&ABSOLUTE_PATH),
            Words("none"),
            "a file with the token that requests have to bring: at least 16 visible characters",
        ),
    ],
    "{ bind: \"127.0.0.1:9901\" }",
);

const ADMIN_ADDRESS: Text = Text { examples: &["127.0.0.1:9900"], ..SERVER_ADDRESS };

static ACCESS_LOG: Section = Section::new(
    "access_log",
    &[
        Key::new(
            "path",
            Shape::Text(&LOG_PATH),
            Value("stdout"),
            "where the lines go; a file is appended to, and created if need be",
        ),
        Key::new(
            "format",
            Word(&["json", "combined", "off"]),
            Value("json"),
            "one JSON object per line, or the combined format of Apache and nginx with our fields behind it",
        ),
    ],
    "{ path: /var/log/steadfast/access.log, format: combined }",
);

const LOG_PATH: Text = Text {
    name: "`stdout`, `stderr` or an absolute path",
    pattern: "^(stdout|stderr|/.*[^/])$",
    examples: &["stdout", "/var/log/steadfast/access.log"],
};

static TRACES: Section = Section::new(
    "traces",
    &[
        Key::new(
            "endpoint",
            Shape::Text(&COLLECTOR),
            Required("required"),
            "where a collector takes OTLP over HTTP; host names are looked up; `/v1/traces` is added to its path",
        ),
        Key::new(
            "sample",
            Shape::Text(&SHARE),
            Value("1%"),
            "how many of the traces that begin here are sampled: `0%` to `100%`, with up to four digits behind the point",
        ),
        Key::new("service_name", Shape::Text(&SERVICE_NAME), Value("steadfast"), "what spans call the proxy"),
        Key::new(
            "propagate",
            ON_OR_OFF,
            Value("on"),
            "whether the trace of a request goes on here and with its server, by `traceparent`",
        ),
    ],
    "{ endpoint: \"http://127.0.0.1:4318\", sample: 0.5% }",
);

const COLLECTOR: Text =
    Text { name: "`http` URL", pattern: "^http://[^/?#@]+(/[^?#]*)?$", examples: &["http://127.0.0.1:4318"] };

const SHARE: Text =
    Text { name: "share", pattern: r"^(100(\.0{1,4})?|[0-9]{1,2}(\.[0-9]{1,4})?)%$", examples: &["1%", "0.05%"] };

const SERVICE_NAME: Text = Text { name: "1 to 255 characters", pattern: "^.{1,255}$", examples: &["steadfast"] };

static SHUTDOWN: Section = Section::new(
    "shutdown",
    &[
        Key::new("grace", Duration("0ms", "1d"), Value("30s"), "time that exchanges have to finish after SIGTERM"),
        Key::new(
            "spread",
            Duration("0ms", "1d"),
            Words("`20s`, or `grace` if that is less"),
            "over which WebSockets and streams are told to end, evenly, so that clients do not come back all at once",
        )
        .range("up to `grace`"),
    ],
    "{ grace: 2m }",
);

static HAND_OVER: Section = Section::new(
    "hand_over",
    &[Key::new(
        "socket",
        Shape::Text(&SOCKET),
        Required("required"),
        "a Unix socket that the proxy makes, for its own user alone (mode 0600); its directory must be there",
    )],
    "{ socket: /run/steadfast/hand-over.sock }",
);

const SOCKET: Text =
    Text { name: "absolute path", pattern: "^/.{0,88}[^/]$", examples: &["/run/steadfast/hand-over.sock"] };
