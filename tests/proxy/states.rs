//! Servers that are not ready: what they keep, what they get no more, and who moves.

use std::collections::BTreeMap;

use crate::harness::{InState, Named, Proxy, Refusing, SecretFile, ServerEntry, Upstream, Wire, keyed};

const KEYS: usize = 1_000;
const STATES: [&str; 2] = ["drain", "maint"];

async fn servers() -> [Upstream; 4] {
    [Upstream::named("a").await, Upstream::named("b").await, Upstream::named("c").await, Upstream::named("d").await]
}

/// A proxy in front of four servers, of which `b` is in `state`.
async fn proxy(servers: &[Upstream; 4], state: &str, affinity: &str, balance: &str) -> Proxy {
    let [a, b, c, d] = servers;
    let (a, b, c, d) = (Named(a, "a"), Named(b, "b"), Named(c, "c"), Named(d, "d"));
    let servers: [&dyn ServerEntry; 4] = [&a, &InState(&b, state), &c, &d];
    Proxy::start().upstream("chat", &servers).affinity(affinity).balance(balance).run().await
}

/// The name of the server that each key leads to.
async fn owners(proxy: &Proxy) -> Vec<String> {
    let mut wire = proxy.connect().await;
    let mut owners = Vec::new();
    for number in 0..KEYS {
        owners.push(keyed(&mut wire, &format!("client-{number}")).await.text());
    }
    owners
}

/// Who serves each of `count` requests that nothing names.
async fn keyless(wire: &mut Wire, count: usize) -> BTreeMap<String, usize> {
    let mut served = BTreeMap::new();
    for _ in 0..count {
        wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        *served.entry(wire.response().await.text()).or_default() += 1;
    }
    served
}

#[tokio::test]
async fn only_the_keys_of_a_server_that_is_not_ready_move_and_to_all_others() {
    let servers = servers().await;
    for hash in ["ketama", "rendezvous"] {
        let balance = format!("{{ hash: {hash} }}");
        let proxy = async |state| proxy(&servers, state, "[{ header: X-Key }]", &balance).await;
        let before = owners(&proxy("ready").await).await;
        for state in STATES {
            let after = owners(&proxy(state).await).await;
            let mut heirs = BTreeMap::new();
            for (number, (before, after)) in before.iter().zip(&after).enumerate() {
                match before.as_str() {
                    "b" => *heirs.entry(after.as_str()).or_insert(0) += 1,
                    _ => assert_eq!(before, after, "client-{number} moved without need: {hash}, {state}"),
                }
            }
            let heirs: Vec<_> = heirs.into_keys().collect();
            assert_eq!(heirs, ["a", "c", "d"], "{hash}, {state}");
        }
        assert_eq!(owners(&proxy("ready").await).await, before, "they return");
    }
}

#[tokio::test]
async fn who_names_nobody_is_shared_by_the_servers_that_are_ready() {
    let servers = servers().await;
    for state in STATES {
        for (choice, is_even) in [("least_conn", true), ("round_robin", true), ("random_two", false)] {
            let balance = format!("{{ keyless: {choice} }}");
            let proxy = proxy(&servers, state, "[{ header: X-Key }]", &balance).await;
            let served = keyless(&mut proxy.connect().await, 60).await;
            assert_eq!(served.keys().collect::<Vec<_>>(), ["a", "c", "d"], "{choice}, {state}");
            assert!(!is_even || served.values().all(|count| *count == 20), "{choice}, {state}: {served:?}");
        }
    }
}

#[tokio::test]
async fn a_cookie_holds_a_client_at_a_server_that_drains_but_not_in_maint() {
    let servers = servers().await;
    let secret = SecretFile::with("sixteen and more bytes");
    let [a, b, c, d] = &servers;
    let (a, b, c, d) = (Named(a, "a"), Named(b, "b"), Named(c, "c"), Named(d, "d"));
    let member = async |state| {
        let servers: [&dyn ServerEntry; 4] = [&a, &InState(&b, state), &c, &d];
        let setup = Proxy::start().secret(&secret).upstream("chat", &servers);
        setup.affinity("[sticky_cookie]").balance("{ keyless: round_robin }").run().await
    };
    let ready = member("ready").await;
    let cookie = loop {
        let answer = ready.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let cookie = answer.head.field("set-cookie").expect("a cookie is issued");
        if answer.text() == "b" {
            break cookie.split(';').next().expect("split yields at least one").to_owned();
        }
    };
    let returning = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n");

    let draining = member("drain").await;
    for _ in 0..8 {
        let answer = draining.exchange(&returning).await;
        assert_eq!((answer.text().as_str(), answer.head.field("set-cookie")), ("b", None));
        assert_ne!(draining.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.text(), "b");
    }
    assert_eq!(draining.metrics().await.sum("steadfast_lost_sessions_total", &[]), 0.0);

    let in_maint = member("maint").await;
    let answer = in_maint.exchange(&returning).await;
    assert_ne!(answer.text(), "b");
    in_maint.settles("steadfast_lost_sessions_total", &[], 1.0).await;
    let cookie = answer.head.field("set-cookie").expect("another cookie");
    let cookie = cookie.split(';').next().expect("split yields at least one");
    let returning = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n");
    for proxy in [&in_maint, &ready] {
        assert_eq!(proxy.exchange(&returning).await.text(), answer.text(), "its new server");
    }
}

/// Not even when nobody else can: then the client is told so.
#[tokio::test]
async fn a_server_that_drains_gets_no_client_of_a_server_that_is_down() {
    let (drains, down) = (Upstream::named("drains").await, Refusing::start());
    let servers: [&dyn ServerEntry; 2] = [&InState(&drains, "drain"), &down];
    let proxy = Proxy::start().upstream("chat", &servers).run().await;
    assert_eq!(proxy.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.status(), 502);
    assert_eq!(drains.accepted(), 0);
}
