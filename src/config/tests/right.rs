//! Right files, and what they mean.

use std::io::Write;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use super::config;
use crate::config::{
    AcceptEncoding, AccessLog, Admin, AffinitySource, Balance, ClientIp, Config, Drain, Find, Hash, HostPattern,
    Ipv6Prefix, Keyless, Learn, Limits, LoadError, LogFormat, LogPath, OnDown, Password, Pick, ProxyProtocol, Redis,
    Route, Server, Session, SessionStore, Share, Shutdown, Sse, State, TcpKeepalive, Timeouts, Tolerance, Traces,
    TrustedProxies, WebSocket, load,
};
use crate::proxy_protocol::Version;
use crate::tls::front;
use crate::tls::tests::Identity;

const SMALLEST: &str = "\
listeners: [{ bind: \"0.0.0.0:8080\" }]
upstreams:
  chat: { servers: [\"10.0.20.11:3000\", \"10.0.20.12:3000\"] }
routes: [{ upstream: chat }]
";

fn smallest_and(more: &str) -> Config {
    config(&format!("{SMALLEST}{more}\n"))
}

fn server(address: &str) -> Server {
    Server { name: address.to_owned(), address: address.parse().unwrap(), weight: 1, state: State::Ready }
}

#[test]
fn the_smallest_file_gets_the_documented_defaults() {
    let config = config(SMALLEST);
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.listeners[0].bind, "0.0.0.0:8080".parse().unwrap());
    assert_eq!(config.listeners[0].proxy_protocol, ProxyProtocol::Off);
    assert!(config.listeners[0].tls.is_none());
    assert_eq!(config.trusted_proxies, TrustedProxies::private());
    assert_eq!(config.client_ip, ClientIp::default());
    assert_eq!(config.routes, [Route { host: HostPattern::Any, path: "/".to_owned(), upstream: 0 }]);
    let [chat] = config.upstreams.as_slice() else {
        panic!("{:?}", config.upstreams);
    };
    assert_eq!(chat.name, "chat");
    assert_eq!(chat.servers, ["10.0.20.11:3000", "10.0.20.12:3000"].map(server));
    assert_eq!(
        chat.affinity,
        [
            AffinitySource::EngineIo,
            AffinitySource::ForwardedFor(Pick::First, Ipv6Prefix::new(64).unwrap()),
            AffinitySource::ClientIp(Ipv6Prefix::new(64).unwrap()),
        ]
    );
    assert_eq!(chat.balance, Balance::default());
    assert_eq!(chat.timeouts, Timeouts::default());
    assert_eq!(chat.sse, Sse::default());
    assert_eq!(config.session_store, SessionStore::default());
    assert_eq!(chat.websocket, WebSocket::default());
    assert_eq!(chat.send_proxy_protocol, None);
    assert!(chat.tls.is_none());
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.tcp_keepalive, TcpKeepalive::default());
    assert_eq!(config.admin, Some(Admin::default()));
    assert_eq!(config.access_log, AccessLog::default());
    assert_eq!(config.traces, None);
    assert_eq!(config.shutdown, Shutdown::default());
    assert_eq!(config.threads, std::thread::available_parallelism().unwrap());
}

#[test]
fn the_defaults_in_the_commented_file_are_the_defaults() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/steadfast.yaml");
    let config = load(path.as_ref()).unwrap();
    assert_eq!(config.listeners[0].proxy_protocol, ProxyProtocol::default());
    assert_eq!(config.upstreams[0].send_proxy_protocol, None);
    assert_eq!(config.trusted_proxies, TrustedProxies::private());
    assert_eq!(config.client_ip, ClientIp::default());
    assert_eq!(config.upstreams[0].balance, Balance::default());
    assert_eq!(config.upstreams[0].timeouts, Timeouts::default());
    assert_eq!(config.upstreams[0].sse, Sse::default());
    assert_eq!(config.session_store, SessionStore::default());
    assert_eq!(config.upstreams[0].websocket, WebSocket::default());
    assert_eq!(config.upstreams[0].tolerance, Some(Tolerance::default()));
    assert_eq!(config.upstreams[0].slow_start, Duration::ZERO);
    assert_eq!(config.upstreams[0].on_down, OnDown::default());
    assert_eq!(config.upstreams[0].drain, Drain::default());
    assert_eq!(config.upstreams[0].rebalance, None);
    assert_eq!(config.upstreams[0].discoveries[0].refresh, config.upstreams[0].discoveries[1].refresh);
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.tcp_keepalive, TcpKeepalive::default());
    assert_eq!(config.admin, Some(Admin::default()));
    assert_eq!(config.access_log, AccessLog::default());
    assert_eq!(config.shutdown, Shutdown::default());
    assert_eq!(config.threads, std::thread::available_parallelism().unwrap());
}

#[test]
fn an_upstream_has_a_pace_if_it_says_one() {
    #[track_caller]
    fn check(written: &str, expected: Option<(u32, u64)>) {
        let config = config(&SMALLEST.replace(":3000\"] }", &format!(":3000\"], limits: {written} }}")));
        let pacing = config.upstreams[0].pacing.map(|it| (it.per_second, it.queue.as_millis() as u64));
        assert_eq!(pacing, expected, "limits: {written}");
    }

    check("{}", None);
    check("{ handshakes_per_second: none }", None);
    check("{ handshakes_per_second: none, queue: 1s }", None);
    check("{ handshakes_per_second: 500 }", Some((500, 1000)));
    check("{ handshakes_per_second: 1, queue: 0s }", Some((1, 0)));
    check("{ handshakes_per_second: 1000000, queue: 1m }", Some((1_000_000, 60_000)));
}

#[test]
fn servers_are_told_of_clients_in_a_version() {
    #[track_caller]
    fn check(written: &str, expected: Option<Version>) {
        let config = config(&SMALLEST.replace(":3000\"] }", &format!(":3000\"], send_proxy_protocol: {written} }}")));
        assert_eq!(config.upstreams[0].send_proxy_protocol, expected, "send_proxy_protocol: {written}");
    }

    check("off", None);
    check("false", None);
    check("v1", Some(Version::V1));
    check("v2", Some(Version::V2));
}

#[test]
fn a_mode_may_be_written_as_a_boolean() {
    #[track_caller]
    fn check(written: &str, expected: ProxyProtocol) {
        let config = config(&SMALLEST.replace("8080\" }", &format!("8080\", proxy_protocol: {written} }}")));
        assert_eq!(config.listeners[0].proxy_protocol, expected, "proxy_protocol: {written}");
    }

    check("off", ProxyProtocol::Off);
    check("false", ProxyProtocol::Off);
    check("on", ProxyProtocol::On);
    check("true", ProxyProtocol::On);
    check("optional", ProxyProtocol::Optional);
}

#[test]
fn hosts_are_compared_in_lower_case() {
    #[track_caller]
    fn check(written: &str, expected: &HostPattern) {
        let config = config(&format!(
            "{{listeners: [{{bind: '[::]:1'}}], upstreams: {{a: {{servers: ['10.0.0.1:1']}}}}, \
             routes: [{{upstream: a, host: {written:?}}}]}}"
        ));
        assert_eq!(config.routes[0].host, *expected, "host: {written:?}");
    }

    let exact = |host: &str| HostPattern::Exact(host.to_owned());
    check("Chat.Example.COM", &exact("chat.example.com"));
    check("localhost", &exact("localhost"));
    check("my_service.internal", &exact("my_service.internal"));
    check("10.0.0.1", &exact("10.0.0.1"));
    check("[2001:DB8::1]", &exact("[2001:db8::1]"));
    check("*.Example.com", &HostPattern::Suffix(".example.com".to_owned()));
}

#[test]
fn routes_lead_to_upstreams_in_the_order_of_the_file() {
    let config = config(
        "
listeners: [{ bind: \"127.0.0.1:0\" }, { bind: \"127.0.0.1:0\" }]
routes:
  - { path: /z, upstream: zebra }
  - { path: /a, upstream: ant }
  - { upstream: zebra }
upstreams:
  zebra: { servers: [\"10.0.0.1:1\"] }
  ant: { servers: [\"10.0.0.1:1\"] }
",
    );
    let upstreams: Vec<_> = config.upstreams.iter().map(|it| it.name.as_str()).collect();
    let routes: Vec<_> = config.routes.iter().map(|it| it.upstream).collect();
    assert_eq!(upstreams, ["zebra", "ant"]);
    assert_eq!(routes, [0, 1, 0]);
}

#[test]
fn an_upstream_is_read_in_full() {
    let config = config(
        "
listeners: [{ bind: \"[::]:8080\" }]
routes: [{ upstream: chat.v2 }]
upstreams:
  chat.v2:
    servers:
      - 10.0.0.1:3000
      - { address: \"[2001:db8::1]:3000\", name: six, weight: 256 }
      - { address: \"10.0.0.2:3000\" }
      - { address: \"10.0.0.3:3000\", state: ready }
      - { address: \"10.0.0.4:3000\", state: drain }
      - { address: \"10.0.0.5:3000\", state: maint }
    affinity:
      - cookie: SID
      - header: X-User-Id
      - query: room
      - cookie: sid
      - session: mcp
      - session: signalr
      - session: { learn: { json: session.id }, find: { cookie: session } }
    balance: { hash: rendezvous, balance_factor: 150, keyless: round_robin }
    timeouts:
      connect: 250ms
      request_head: 1s
      response_head: 24h
      body: 2m
      send: 1d
      idle: 30d
      keepalive: 1ms
      max_age: 365d
    sse: { keepalive: off, comment: \"\", retry: 1d, accept_encoding: pass, early_head: 1s }
    websocket: { ping: 1d, pong_timeout: 100ms }
",
    );
    let chat = &config.upstreams[0];
    let six = Server { name: "six".to_owned(), weight: 256, ..server("[2001:db8::1]:3000") };
    let servers = [
        server("10.0.0.1:3000"),
        six,
        server("10.0.0.2:3000"),
        server("10.0.0.3:3000"),
        Server { state: State::Drain, ..server("10.0.0.4:3000") },
        Server { state: State::Maint, ..server("10.0.0.5:3000") },
    ];
    assert_eq!(chat.servers, servers);
    assert_eq!(
        chat.affinity,
        [
            AffinitySource::Cookie("SID".to_owned()),
            AffinitySource::Header("x-user-id".parse().unwrap()),
            AffinitySource::Query("room".to_owned()),
            AffinitySource::Cookie("sid".to_owned()),
            AffinitySource::Session(Session {
                learn: Learn::ResponseHeader("mcp-session-id".parse().unwrap()),
                find: Find::Header("mcp-session-id".parse().unwrap()),
            }),
            AffinitySource::Session(Session {
                learn: Learn::Json(vec![vec!["connectionToken".to_owned()], vec!["connectionId".to_owned()]]),
                find: Find::Query("id".to_owned()),
            }),
            AffinitySource::Session(Session {
                learn: Learn::Json(vec![vec!["session".to_owned(), "id".to_owned()]]),
                find: Find::Cookie("session".to_owned()),
            }),
        ]
    );
    let balance = Balance { hash: Hash::Rendezvous, balance_factor: Some(150), keyless: Keyless::RoundRobin };
    assert_eq!(chat.balance, balance);
    let day = Duration::from_secs(86_400);
    assert_eq!(
        chat.timeouts,
        Timeouts {
            connect: Duration::from_millis(250),
            request_head: Duration::from_secs(1),
            response_head: day,
            body: Duration::from_secs(120),
            send: day,
            idle: 30 * day,
            keepalive: Duration::from_millis(1),
            max_age: Some(365 * day),
        }
    );
    assert_eq!(chat.sse.keepalive, None);
    assert_eq!(chat.sse.comment, "");
    assert_eq!(chat.sse.retry, Some(day));
    assert_eq!(chat.sse.accept_encoding, AcceptEncoding::Pass);
    assert_eq!(chat.sse.early_head, Some(Duration::from_secs(1)));
    assert_eq!(chat.websocket, WebSocket { ping: Some(day), pong_timeout: Duration::from_millis(100) });
}

#[test]
fn addresses_of_clients_have_a_pick_and_a_prefix() {
    use AffinitySource::{ClientIp, ForwardedFor};
    #[track_caller]
    fn check(written: &str, expected: &[AffinitySource]) {
        let upstreams = format!("upstreams: {{ a: {{ servers: [\"10.0.0.1:1\"], affinity: {written} }} }}");
        let config = config(&format!("listeners: [{{ bind: \"[::]:1\" }}]\nroutes: [{{ upstream: a }}]\n{upstreams}"));
        assert_eq!(config.upstreams[0].affinity, expected, "affinity: {written}");
    }

    let bits = |bits| Ipv6Prefix::new(bits).unwrap();
    let (first, rightmost) = (Pick::First, Pick::RightmostUntrusted);
    check("[forwarded_for, client_ip]", &[ForwardedFor(first, bits(64)), ClientIp(bits(64))]);
    check("[forwarded_for: {}, client_ip: {}]", &[ForwardedFor(first, bits(64)), ClientIp(bits(64))]);
    check("[{ forwarded_for: { ipv6_prefix: 56 } }]", &[ForwardedFor(first, bits(56))]);
    check("[{ client_ip: { ipv6_prefix: 128 } }]", &[ClientIp(bits(128))]);
    check(
        "[{ forwarded_for: { pick: rightmost_untrusted, ipv6_prefix: 1 } }, { forwarded_for: { ipv6_prefix: 48 } }]",
        &[ForwardedFor(rightmost, bits(1)), ForwardedFor(first, bits(48))],
    );
}

#[test]
fn off_is_off_however_yaml_spells_it() {
    for off in ["off", "\"off\"", "false"] {
        let config = smallest_and(&format!("admin: {off}\naccess_log: {off}"));
        assert_eq!(config.admin, None, "off: {off}");
        assert_eq!(config.access_log.format, LogFormat::Off, "off: {off}");

        let config = smallest_and(&format!("access_log: {{ format: {off} }}"));
        assert_eq!(config.access_log.format, LogFormat::Off, "off: {off}");
    }
}

#[test]
fn traces_are_off_until_they_have_somewhere_to_go() {
    #[track_caller]
    fn check(written: &str, expected: Option<&Traces>) {
        assert_eq!(smallest_and(&format!("traces: {written}")).traces.as_ref(), expected, "traces: {written}");
    }

    check("off", None);
    check("false", None);
    let traces = Traces {
        endpoint: "http://127.0.0.1:4318/v1/traces".to_owned(),
        sample: Share::new(10_000).unwrap(),
        service_name: "steadfast".to_owned(),
        propagate: true,
    };
    check("{ endpoint: \"http://127.0.0.1:4318\" }", Some(&traces));
    check("{ endpoint: \"http://127.0.0.1:4318/\" }", Some(&traces));
    let to = |endpoint: &str| Traces { endpoint: endpoint.to_owned(), ..traces.clone() };
    check("{ endpoint: \"http://otel.internal\" }", Some(&to("http://otel.internal/v1/traces")));
    check("{ endpoint: \"http://[::1]:4318/team-a/\" }", Some(&to("http://[::1]:4318/team-a/v1/traces")));
    let all = "{ endpoint: \"http://127.0.0.1:4318\", sample: 0.05%, service_name: edge proxy, propagate: off }";
    let sample = Share::new(500).unwrap();
    check(all, Some(&Traces { sample, service_name: "edge proxy".to_owned(), propagate: false, ..traces }));
}

#[test]
fn every_word_for_balance_has_its_meaning() {
    #[track_caller]
    fn check(written: &str, expected: Balance) {
        let upstreams = format!("upstreams: {{ a: {{ servers: [\"10.0.0.1:1\"], balance: {written} }} }}");
        let config = config(&format!("listeners: [{{ bind: \"[::]:1\" }}]\nroutes: [{{ upstream: a }}]\n{upstreams}"));
        assert_eq!(config.upstreams[0].balance, expected, "balance: {written}");
    }

    let default = Balance::default();
    assert_eq!(default, Balance { hash: Hash::Ketama, balance_factor: None, keyless: Keyless::LeastConn });
    check("{}", default);
    check("{ hash: ketama, balance_factor: off, keyless: least_conn }", default);
    check("{ balance_factor: false }", default);
    check("{ hash: rendezvous }", Balance { hash: Hash::Rendezvous, ..default });
    check("{ balance_factor: 101 }", Balance { balance_factor: Some(101), ..default });
    check("{ balance_factor: 1000 }", Balance { balance_factor: Some(1000), ..default });
    check("{ keyless: round_robin }", Balance { keyless: Keyless::RoundRobin, ..default });
    check("{ keyless: random_two }", Balance { keyless: Keyless::RandomTwo, ..default });
}

#[test]
fn the_rest_of_the_file_is_read() {
    let config = smallest_and(
        "limits: { head_bytes: 4096B, uri_bytes: 1KiB, headers: 256, max_connections: 50000, per_client: none,
          streams: 7, resets: 9 }
tcp_keepalive: { time: 2m, interval: 1000ms, probes: 9 }
admin: { bind: \"[::1]:0\" }
access_log: { path: /var/log/steadfast.log, format: combined }
shutdown: { grace: 0s }
threads: 3",
    );
    assert_eq!(config.limits.head_bytes, 4096);
    assert_eq!(config.limits.headers, 256);
    assert_eq!(config.limits.uri_bytes, 1024);
    assert_eq!((config.limits.max_connections, config.limits.per_client), (Some(50_000), None));
    let seconds = Duration::from_secs;
    assert_eq!(config.tcp_keepalive, TcpKeepalive { time: seconds(120), interval: seconds(1), probes: 9 });
    assert_eq!(config.tcp_keepalive.patience(), seconds(129));
    assert_eq!(TcpKeepalive::default().patience(), seconds(120));
    assert_eq!((config.limits.streams, config.limits.resets), (7, 9));
    assert_eq!(config.admin.unwrap().bind, "[::1]:0".parse().unwrap());
    assert_eq!(config.access_log.path, LogPath::File("/var/log/steadfast.log".into()));
    assert_eq!(config.access_log.format, LogFormat::Combined);
    assert_eq!(config.shutdown.grace, Duration::ZERO);
    assert_eq!(config.threads, NonZeroUsize::new(3).unwrap());
}

#[test]
fn every_way_to_write_a_session_store_has_its_meaning() {
    #[track_caller]
    fn check(written: &str, expected: &SessionStore) {
        let config = smallest_and(&format!("session_store: {written}"));
        assert_eq!(config.session_store, *expected, "session_store: {written}");
        assert!(!format!("{config:?}").contains("s3cr"), "{config:?}");
    }

    let memory = SessionStore::default();
    assert_eq!(memory, SessionStore { sessions: 1_000_000, idle: Duration::from_secs(86_400), redis: None });
    check("memory", &memory);
    check("{}", &memory);
    check("{ url: memory }", &memory);
    check("{ sessions: 1000, idle: 1s }", &SessionStore { sessions: 1000, idle: Duration::from_secs(1), redis: None });

    let redis = Redis {
        host: "10.0.0.5".to_owned(),
        port: 6379,
        db: 0,
        user: None,
        password: None,
        timeout: Duration::from_millis(250),
    };
    let over = |redis: Redis| SessionStore { redis: Some(redis), ..memory.clone() };
    let login = |user: Option<&str>, password: &str| {
        let (user, password) = (user.map(str::to_owned), Some(Password(password.to_owned())));
        over(Redis { user, password, ..redis.clone() })
    };
    check("redis://10.0.0.5:6379", &over(redis.clone()));
    check("redis://10.0.0.5:6379/", &over(redis.clone()));
    check("redis://10.0.0.5:6379/15", &over(Redis { db: 15, ..redis.clone() }));
    check("redis://[::1]:6379", &over(Redis { host: "::1".to_owned(), ..redis.clone() }));
    let named = Redis { host: "redis.default.svc".to_owned(), port: 1, ..redis.clone() };
    check("redis://redis.default.svc:1/0", &over(named));
    check("redis://:s3cret@10.0.0.5:6379/0", &login(None, "s3cret"));
    check("redis://user:s3cret@10.0.0.5:6379", &login(Some("user"), "s3cret"));
    check("redis://user:s3cr%65t%25%40@10.0.0.5:6379", &login(Some("user"), "s3cret%@"));
    check("\"redis://:s3cr@t/?#:@10.0.0.5:6379\"", &login(None, "s3cr@t/?#:"));
    let all = "{ url: \"redis://10.0.0.5:6379/2\", sessions: 100000000, idle: 30d, timeout: 10s }";
    let redis_2 = Redis { db: 2, timeout: Duration::from_secs(10), ..redis.clone() };
    let idle = Duration::from_secs(30 * 86_400);
    check(all, &SessionStore { sessions: 100_000_000, idle, redis: Some(redis_2) });

    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"s3cret\n").unwrap();
    let path = file.path().display();
    check(&format!("{{ url: \"redis://user@10.0.0.5:6379\", password_file: {path} }}"), &login(Some("user"), "s3cret"));
}

#[test]
fn the_clients_address_may_stand_in_any_header() {
    #[track_caller]
    fn check(written: &str, header: &str, pick: Pick) {
        let config = smallest_and(&format!("client_ip: {written}"));
        assert_eq!(config.client_ip, ClientIp { header: header.parse().unwrap(), pick }, "client_ip: {written}");
    }

    check("{}", "x-forwarded-for", Pick::RightmostUntrusted);
    check("{ header: CF-Connecting-IP }", "cf-connecting-ip", Pick::RightmostUntrusted);
    check("{ pick: first }", "x-forwarded-for", Pick::First);
    check("{ header: forwarded, pick: rightmost_untrusted }", "forwarded", Pick::RightmostUntrusted);
}

#[test]
fn private_hops_are_trusted_and_others_are_not() {
    #[track_caller]
    fn check(trusted: &str, hop: &str, expected: bool) {
        let config = smallest_and(&format!("trusted_proxies: {trusted}"));
        let hop: IpAddr = hop.parse().unwrap();
        assert_eq!(config.trusted_proxies.contains(hop), expected, "{hop}");
    }

    for hop in [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.1.1",
        "::1",
        "fd00::1",
        "fe80::1",
        "::ffff:10.0.0.1",
    ] {
        check("[private]", hop, true);
        check("[]", hop, false);
    }
    for hop in ["8.8.8.8", "172.32.0.1", "192.169.0.1", "::2", "2001:db8::1"] {
        check("[private]", hop, false);
        check("[0.0.0.0/0, \"::/0\"]", hop, true);
    }
    check("[203.0.113.7]", "203.0.113.7", true);
    check("[203.0.113.7]", "203.0.113.8", false);
    check("[private, 203.0.113.0/24]", "203.0.113.8", true);
    check("[private, 203.0.113.0/24]", "10.0.0.1", true);
}

#[test]
fn anchors_and_aliases_are_followed() {
    let config = config(
        "
listeners: [{ bind: \"0.0.0.0:8080\" }]
routes: [{ path: /a, upstream: a }, { upstream: b }]
upstreams:
  a: { servers: [\"10.0.0.1:1\"], timeouts: &slow { idle: 5h } }
  b: { servers: [\"10.0.0.2:1\"], timeouts: *slow }
",
    );
    let idle = config.upstreams[1].timeouts.idle;
    assert_eq!(idle, Duration::from_secs(5 * 3600));
}

#[test]
fn a_byte_order_mark_and_foreign_line_ends_are_no_mistakes() {
    config(&format!("\u{feff}{SMALLEST}"));
    config(&SMALLEST.replace('\n', "\r\n"));
    config(&format!("---\n{SMALLEST}...\n"));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("absent.yaml");
    let error = load(&path).unwrap_err();
    assert!(matches!(error, LoadError::Unreadable { .. }));
    assert_eq!(error.to_string(), format!("cannot read {}: No such file or directory (os error 2)", path.display()));
}

#[test]
fn a_file_that_is_no_text_is_told_where() {
    #[track_caller]
    fn check(content: &[u8], expected: &str) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        let error = load(file.path()).unwrap_err();
        assert!(matches!(error, LoadError::Mistakes(_)));
        assert_eq!(error.to_string(), format!("{}:{expected}", file.path().display()));
    }

    check(b"a: 1\nb: \xff\n", "2: not UTF-8; save the file in that encoding");
    check(&b"#".repeat((1 << 20) + 1), "1: the file is larger than 1 MiB; that is no configuration");
    check(b"# \n", "1: the file is empty; it needs at least listeners, routes and upstreams");
}

/// The blocks of the reference that show YAML, under the sections of the file they belong to.
#[test]
fn the_examples_in_the_reference_are_right() {
    let reference = include_str!("../../../conf/README.md");
    let upstreams = "upstreams:
  chat: { servers: [\"10.0.0.1:3000\"] }
  tenants: { servers: [\"10.0.0.1:3000\"] }
  pages: { servers: [\"10.0.0.1:3000\"] }
";
    let blocks = reference.split("```yaml\n").skip(1);
    let blocks: Vec<_> = blocks.map(|it| it.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 12, "{blocks:#?}");
    let folder = tempfile::tempdir().unwrap();
    for name in ["chat", "wildcard", "internal-ca"] {
        Identity::of(&[name]).write(folder.path(), name);
    }
    for block in blocks {
        let block = &block.replace("/etc/steadfast", &folder.path().display().to_string());
        let key = match block.split(':').next().unwrap() {
            "limits" if block.contains("handshakes") => "limits of an upstream",
            key => key,
        };
        let listeners = "listeners: [{ bind: \"0.0.0.0:8080\" }]\n";
        match key {
            "listeners" => config(&format!("{block}{}", &SMALLEST[listeners.len()..])),
            "routes" => config(&format!("{listeners}{upstreams}{block}")),
            "servers"
            | "affinity"
            | "balance"
            | "timeouts"
            | "sse"
            | "websocket"
            | "limits of an upstream"
            | "send_proxy_protocol"
            | "health_check"
            | "max_fails"
            | "drain"
            | "rebalance"
            | "tls" => {
                let servers = match key {
                    "servers" => "",
                    _ => "    servers: [\"10.0.0.1:3000\"]\n",
                };
                let block = block.replace('\n', "\n    ");
                config(&format!(
                    "{listeners}routes: [{{ upstream: chat }}]\n\
                     upstreams:\n  chat:\n{servers}    {block}"
                ))
            }
            _ => smallest_and(block),
        };
    }
}

#[test]
fn listeners_may_speak_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = Identity::of(&["chat.example.com"]).write(folder.path(), "chat");
    let (cert, key) = (cert.display(), key.display());
    let tls_of = |more: &str| {
        let tls = format!("{{ certificates: [{{ cert: {cert}, key: {key} }}]{more} }}");
        let listener = format!("[{{ bind: \"0.0.0.0:8080\", tls: {tls} }}]");
        config(&SMALLEST.replace("[{ bind: \"0.0.0.0:8080\" }]", &listener)).listeners.remove(0).tls.unwrap()
    };
    let plain = tls_of("");
    assert_eq!(plain.certificates[0].names, ["chat.example.com"]);
    assert!(plain.client_ca.is_none());
    assert_eq!(plain.min_version, front::Version::Tls12);
    assert_eq!(tls_of(&format!(", client_ca: {cert}")).client_ca.unwrap().len(), 1);
    for (text, version) in
        [("1.2", front::Version::Tls12), ("\"1.3\"", front::Version::Tls13), ("TLSv1.3", front::Version::Tls13)]
    {
        assert_eq!(tls_of(&format!(", min_version: {text}")).min_version, version, "{text}");
    }
}

#[test]
fn servers_may_speak_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = Identity::of(&["chat.internal"]).write(folder.path(), "chat");
    let (cert, key) = (cert.display(), key.display());
    let tls_of = |value: &str| {
        let servers = "[\"10.0.20.11:3000\", \"10.0.20.12:3000\"]";
        let more = format!("{servers}, tls: {value}");
        config(&SMALLEST.replace(servers, &more)).upstreams.remove(0).tls
    };
    let address = "10.0.0.1".parse().unwrap();
    assert!(tls_of("off").is_none());
    for (value, name) in [
        (format!("{{ ca: {cert} }}"), "10.0.0.1"),
        (format!("{{ ca: {cert}, server_name: chat.internal, verify: on }}"), "chat.internal"),
        (format!("{{ ca: {cert}, server_name: 10.9.9.9 }}"), "10.9.9.9"),
    ] {
        let tls = tls_of(&value).unwrap();
        assert!(tls.is_verified && tls.certificate.is_none(), "{value}");
        assert_eq!(tls.back.name(address).to_str(), name, "{value}");
    }
    assert!(!tls_of("{ verify: off }").unwrap().is_verified);
    let shown = tls_of(&format!("{{ ca: {cert}, cert: {cert}, key: {key} }}")).unwrap();
    assert_eq!(shown.certificate.unwrap().names, ["chat.internal"]);
}
