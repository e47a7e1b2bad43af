//! Which server a client gets when the file asks for other ways than the usual ones.

use std::collections::BTreeMap;

use crate::harness::upstream::ok;
use crate::harness::{Named, Proxy, Refusing, ServerEntry, Upstream, Weighted, Wire, keyed};

const NAMES: [&str; 3] = ["a", "b", "c"];
const BY_KEY: &str = "[{ header: X-Key }]";

/// Where rendezvous hashing leads `client-0`, `client-1` and so on among [`NAMES`]: computed by
/// another program, and the same for ever.
const OWNERS: [&str; 12] = ["c", "c", "c", "c", "a", "c", "a", "a", "a", "c", "b", "a"];

async fn servers() -> [Upstream; 3] {
    [Upstream::named("a").await, Upstream::named("b").await, Upstream::named("c").await]
}

async fn proxy(servers: &[&dyn ServerEntry], balance: &str) -> Proxy {
    Proxy::start().upstream("chat", servers).affinity(BY_KEY).balance(balance).run().await
}

async fn owners(proxy: &Proxy) -> Vec<String> {
    let mut wire = proxy.connect().await;
    let mut owners = Vec::new();
    for number in 0..OWNERS.len() {
        owners.push(keyed(&mut wire, &format!("client-{number}")).await.text());
    }
    owners
}

/// Who serves each of `count` requests that nothing names.
async fn keyless(proxy: &Proxy, count: usize) -> Vec<String> {
    let mut wire = proxy.connect().await;
    let mut served = Vec::new();
    for _ in 0..count {
        wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        served.push(wire.response().await.text());
    }
    served
}

#[tokio::test]
async fn rendezvous_knows_servers_by_name_alone() {
    for _ in 0..2 {
        // Other ports each time.
        let [a, b, c] = &servers().await;
        let (a, b, c) = (Named(a, "a"), Named(b, "b"), Named(c, "c"));
        for order in [[&a, &b, &c], [&c, &a, &b]] {
            let order = order.map(|server| server as &dyn ServerEntry);
            let proxy = proxy(&order, "{ hash: rendezvous }").await;
            assert_eq!(owners(&proxy).await, OWNERS);
        }
    }
}

#[tokio::test]
async fn rendezvous_moves_only_the_keys_of_a_server_that_is_down() {
    let [a, b, c] = &servers().await;
    let (a, b, c, down) = (Named(a, "a"), Named(b, "b"), Named(c, "c"), Refusing::start());
    let proxy = proxy(&[&a, &Named(&down, "down"), &b, &c], "{ hash: rendezvous }").await;
    assert_eq!(owners(&proxy).await, OWNERS);
}

#[tokio::test]
async fn round_robin_takes_turns_by_weight() {
    let [a, b, c] = &servers().await;
    let proxy = proxy(&[&Weighted(a, 2), b, c], "{ keyless: round_robin }").await;
    assert_eq!(keyless(&proxy, 10).await, ["a", "b", "a", "c", "a", "b", "a", "c", "a", "b"]);
}

#[tokio::test]
async fn a_turn_at_a_server_that_is_down_goes_to_the_next() {
    let ([a, b, _], down) = (&servers().await, Refusing::start());
    let proxy = proxy(&[a, &down, b], "{ keyless: round_robin }").await;
    assert_eq!(keyless(&proxy, 6).await, ["a", "b", "b", "a", "b", "b"]);
}

#[tokio::test]
async fn random_choices_use_every_server() {
    let [a, b, c] = &servers().await;
    let proxy = proxy(&[a, b, c], "{ keyless: random_two }").await;
    let mut loads = BTreeMap::new();
    for name in keyless(&proxy, 100).await {
        *loads.entry(name).or_insert(0) += 1;
    }
    assert_eq!(loads.len(), 3, "{loads:?}");
}

/// A server that lets requests for `/park` wait and answers others with its name.
async fn parking(name: &'static str) -> Upstream {
    Upstream::serving(move |mut wire| async move {
        while let Some(request) = wire.next_request().await {
            if request.head.start.contains("/park") {
                return std::future::pending().await;
            }
            wire.send(ok(name)).await;
        }
    })
    .await
}

/// A proxy before such servers, with the names of [`NAMES`].
async fn parking_proxy(affinity: &str, balance: &str) -> (Vec<Upstream>, Proxy) {
    let mut servers = Vec::new();
    for name in NAMES {
        servers.push(parking(name).await);
    }
    let named: Vec<_> = servers.iter().zip(NAMES).map(|(server, name)| Named(server, name)).collect();
    let entries: Vec<&dyn ServerEntry> = named.iter().map(|server| server as &dyn ServerEntry).collect();
    let proxy = Proxy::start().upstream("chat", &entries).affinity(affinity).balance(balance).run().await;
    (servers, proxy)
}

/// As many requests of `client-0`, parked at `c`, as a server takes before it can be full.
async fn crowd(proxy: &Proxy) -> Vec<Wire> {
    let mut parked = Vec::new();
    for _ in 0..CROWD {
        parked.push(proxy.send("GET /park HTTP/1.1\r\nHost: a\r\nX-Key: client-0\r\n\r\n").await);
    }
    proxy.settles("steadfast_open_connections", &[("server", "c")], CROWD as f64).await;
    parked
}

const CROWD: usize = 100;

#[tokio::test]
async fn a_key_stays_at_its_server_however_crowded() {
    let (_servers, proxy) = parking_proxy(BY_KEY, "{ hash: rendezvous }").await;
    let _parked = crowd(&proxy).await;
    assert_eq!(owners(&proxy).await, OWNERS);
}

#[tokio::test]
async fn with_a_bound_a_key_passes_by_a_full_server_and_returns() {
    let (_servers, proxy) = parking_proxy(BY_KEY, "{ hash: rendezvous, balance_factor: 125 }").await;
    let parked = crowd(&proxy).await;
    // Those of `c` go to their next ones, the others stay.
    assert_eq!(owners(&proxy).await, ["b", "a", "b", "a", "a", "b", "a", "a", "a", "b", "b", "a"]);
    drop(parked);
    proxy.settles("steadfast_open_connections", &[], 0.0).await;
    assert_eq!(owners(&proxy).await, OWNERS);
}

#[tokio::test]
async fn a_bound_turns_away_no_session() {
    let affinity = "[{ sticky_cookie: { name: sticky } }, { header: X-Key }]";
    let (_servers, proxy) = parking_proxy(affinity, "{ hash: rendezvous, balance_factor: 125 }").await;
    let first = proxy.exchange("GET / HTTP/1.1\r\nHost: a\r\nX-Key: client-0\r\n\r\n").await;
    let cookie = first.head.field("set-cookie").expect("a cookie is issued");
    let cookie = cookie.split(';').next().expect("split yields at least one");
    let _parked = crowd(&proxy).await;
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Key: client-0\r\nCookie: {cookie}\r\n\r\n");
    assert_eq!(proxy.exchange(request).await.text(), "c");
    assert_eq!(owners(&proxy).await[0], "b", "without the cookie");
}
