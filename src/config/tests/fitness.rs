//! Right files: where servers are found, when they are fit, and how connections leave them.

use std::time::Duration;

use super::config;
use crate::config::{
    Config, Discovery, Drain, Found, HealthCheck, OnDown, Probe, Rebalance, Records, Removed, Resolver, Server,
    Shutdown, State, Tolerance,
};

const S: Duration = Duration::from_secs(1);

/// A file whose upstream has these servers and more keys.
#[track_caller]
fn chat(servers: &str, more: &str) -> Config {
    config(&format!(
        "listeners: [{{ bind: \"0.0.0.0:8080\" }}]\nroutes: [{{ upstream: chat }}]\n\
         upstreams: {{ chat: {{ servers: [{servers}], {more} }} }}\n"
    ))
}

const FIXED: &str = "\"10.0.0.1:3000\"";

#[test]
fn what_is_not_written_has_its_default() {
    let config = chat(FIXED, "");
    let chat = &config.upstreams[0];
    assert_eq!(chat.discoveries, []);
    assert_eq!(chat.health_check, None);
    assert_eq!(chat.tolerance, Some(Tolerance { max_fails: 3, fail_timeout: 10 * S }));
    assert_eq!(chat.slow_start, Duration::ZERO);
    assert_eq!(chat.on_down, OnDown::Keep);
    assert_eq!(chat.drain, Drain { timeout: 60 * S, spread: 30 * S, removed: Removed::Keep });
    assert_eq!(chat.rebalance, None);
    assert_eq!(chat.sse.resume, None);
    assert_eq!(config.resolver, Resolver::default());
    assert_eq!(config.shutdown, Shutdown { grace: 30 * S, spread: 20 * S });
}

#[test]
fn whatever_is_written_counts() {
    let config = chat(
        FIXED,
        "max_fails: 1, fail_timeout: 1h, slow_start: 30s, on_down: close, \
         drain: { timeout: 10s, spread: 10s, removed: drain }, rebalance: { per_minute: 100, min_age: 0s }, \
         sse: { resume: on, resume_attempts: 10 }",
    );
    let chat = &config.upstreams[0];
    assert_eq!(chat.tolerance, Some(Tolerance { max_fails: 1, fail_timeout: 3600 * S }));
    assert_eq!(chat.slow_start, 30 * S);
    assert_eq!(chat.on_down, OnDown::Close);
    assert_eq!(chat.drain, Drain { timeout: 10 * S, spread: 10 * S, removed: Removed::Drain });
    assert_eq!(chat.rebalance, Some(Rebalance { per_minute: 100, min_age: Duration::ZERO }));
    assert_eq!(chat.sse.resume, Some(10));
}

#[test]
fn what_can_be_switched_off_can_be() {
    let config = chat(FIXED, "max_fails: 0, slow_start: off, rebalance: off, health_check: off, sse: { resume: off }");
    let chat = &config.upstreams[0];
    assert_eq!((chat.tolerance, chat.slow_start, chat.rebalance), (None, Duration::ZERO, None));
    assert_eq!((&chat.health_check, chat.sse.resume), (&None, None));
    assert_eq!(self::chat(FIXED, "rebalance: {}").upstreams[0].rebalance, Some(Rebalance::default()));
    assert_eq!(self::chat(FIXED, "sse: { resume: on }").upstreams[0].sse.resume, Some(3));
}

#[test]
fn a_spread_that_is_not_written_fits() {
    let text = |shutdown| {
        format!(
            "listeners: [{{ bind: \"[::]:1\" }}]\nroutes: [{{ upstream: a }}]\n\
             upstreams: {{ a: {{ servers: [{FIXED}] }} }}\nshutdown: {shutdown}\n"
        )
    };
    assert_eq!(config(&text("{ grace: 5s }")).shutdown, Shutdown { grace: 5 * S, spread: 5 * S });
    assert_eq!(config(&text("{ spread: 0s }")).shutdown, Shutdown { grace: 30 * S, spread: Duration::ZERO });
    assert_eq!(chat(FIXED, "drain: { timeout: 5s }").upstreams[0].drain.spread, 5 * S);
}

#[test]
fn a_check_is_read_in_full() {
    #[track_caller]
    fn check(written: &str, expected: HealthCheck) {
        let config = chat(FIXED, &format!("health_check: {written}"));
        assert_eq!(config.upstreams[0].health_check, Some(expected), "health_check: {written}");
    }

    let http = |path: &str, status| Probe::Http { path: path.to_owned(), host: None, status };
    let default = HealthCheck { probe: Probe::Tcp, port: None, interval: 5 * S, timeout: 2 * S, rise: 2, fall: 3 };
    check("{ tcp: on }", default.clone());
    check("{ path: /healthz }", HealthCheck { probe: http("/healthz", vec![200..=399]), ..default.clone() });
    check(
        "{ path: \"/?a=b\", tcp: off, status: [200, 204, \"300-399\"] }",
        HealthCheck { probe: http("/?a=b", vec![200..=200, 204..=204, 300..=399]), ..default },
    );
    check(
        "{ path: /, host: \"chat:80\", port: 9000, interval: 100ms, timeout: 1ms, rise: 1, fall: 100 }",
        HealthCheck {
            probe: Probe::Http {
                path: "/".to_owned(),
                host: Some("chat:80".parse().unwrap()),
                status: vec![200..=399],
            },
            port: Some(9000),
            interval: Duration::from_millis(100),
            timeout: Duration::from_millis(1),
            rise: 1,
            fall: 100,
        },
    );
}

#[test]
fn names_stand_beside_addresses() {
    let config = chat(
        "{ dns: \"Chat.Internal.:3000\" }, \"10.0.0.1:3000\", \
         { dns: \"chat-2:3000\", refresh: 100ms, weight: 7, state: drain }, { srv: _http._tcp.chat, refresh: 1h }",
        "",
    );
    let chat = &config.upstreams[0];
    assert_eq!(chat.servers.len(), 1);
    let addresses = |name: &str, weight| Records::Addresses { name: name.to_owned(), port: 3000, weight };
    let services = Records::Services { name: "_http._tcp.chat".to_owned() };
    assert_eq!(
        chat.discoveries,
        [
            Discovery { records: addresses("chat.internal.", 1), refresh: 5 * S, state: State::Ready },
            Discovery { records: addresses("chat-2", 7), refresh: Duration::from_millis(100), state: State::Drain },
            Discovery { records: services, refresh: 3600 * S, state: State::Ready },
        ]
    );
    let config = self::chat("{ dns: \"chat:3000\" }", "");
    assert_eq!(config.upstreams[0].servers, []);
}

#[test]
fn upstreams_of_one_name_share_a_cookie() {
    config(
        "listeners: [{ bind: \"127.0.0.1:8080\" }]\nroutes: [{ path: /a, upstream: api }, { upstream: chat }]\n\
         upstreams:\n  api: { servers: [{ dns: \"chat:80\" }], affinity: [sticky_cookie] }\n  \
         chat: { servers: [{ dns: \"chat:80\" }], affinity: [sticky_cookie] }\n",
    );
}

#[test]
fn who_is_found_joins_those_of_the_file() {
    let config = chat(
        "{ dns: \"a:1\", state: drain }, { address: \"10.0.0.5:1\", name: five, weight: 3 }, { dns: \"b:1\" }",
        "",
    );
    let found = |address: &str, weight| Found { address: address.parse().unwrap(), weight };
    let chat = &config.upstreams[0];
    assert_eq!(chat.servers_with(&[]), chat.servers);

    let a = [found("10.0.0.9:1", 2), found("10.0.0.5:1", 1), found("10.0.0.7:1", 2)];
    let b = [found("[::1]:1", 1), found("10.0.0.10:1", 1), found("10.0.0.9:1", 9), found("10.0.0.8:1", 1)];
    let server = |address: &str, weight, state| Server {
        name: address.to_owned(),
        address: address.parse().unwrap(),
        weight,
        state,
    };
    let expected = [
        Server { name: "five".to_owned(), ..server("10.0.0.5:1", 3, State::Ready) },
        server("10.0.0.7:1", 2, State::Drain),
        server("10.0.0.9:1", 2, State::Drain),
        server("10.0.0.8:1", 1, State::Ready),
        server("10.0.0.10:1", 1, State::Ready),
        server("[::1]:1", 1, State::Ready),
    ];
    assert_eq!(chat.servers_with(&[a.to_vec(), b.to_vec()]), expected);
    let (mut a, mut b) = (a.to_vec(), b.to_vec());
    a.reverse();
    b.rotate_left(2);
    assert_eq!(chat.servers_with(&[a, b]), expected, "whatever the order of the answers");
}
