//! What operators have ordered, and what was found out about servers, is so in the next process too: who
//! replaces the binary has no server get clients by that.

use std::time::Instant;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::client::SWITCHING;
use crate::harness::websocket::{close, frame, next_frame, open};
use crate::harness::{
    Named, Proxy, Refusing, ServerEntry, Upstream, Wire, millis, seconds, soon, websocket_request, within,
};

const HAND_OVER: &str = "hand_over: { socket: DIRECTORY/hand-over.sock }";
const CLOSE: u8 = 0x88;

async fn ordered(proxy: &Proxy, name: &str, order: Value) {
    let answer = proxy.order(name, order).await;
    assert!(answer.status() < 300, "{name}: {}", answer.text());
}

async fn status(proxy: &Proxy) -> Value {
    proxy.admin("/api/v1/status").await.json()
}

/// What of a status has to stay: everything but times and counts.
fn lasting(status: &Value) -> Value {
    let of_server = |server: &Value| {
        let health = ["reason", "found_by", "checks", "clients"].map(|key| server["health"][key].clone());
        let rest = ["name", "state", "state_by", "is_up", "weight", "weight_by"].map(|key| server[key].clone());
        json!([rest, health])
    };
    let of_upstream = |upstream: &Value| {
        let servers: Vec<_> = upstream["servers"].as_array().expect("a list").iter().map(of_server).collect();
        json!([upstream["name"], upstream["rebalance"]["by"], upstream["rebalance"]["percent_per_minute"], servers])
    };
    let upstreams: Vec<_> = status["upstreams"].as_array().expect("a list").iter().map(of_upstream).collect();
    json!([status["process"]["state"], upstreams])
}

async fn handed_over(proxy: &mut Proxy) {
    let mut old = proxy.hand_over().await;
    assert!(old.exit_within(seconds(2)).await.success());
}

/// The reader of a client that is told to leave: when it was, and how.
async fn told(mut client: Wire) -> (Instant, (u8, Vec<u8>)) {
    let frame = next_frame(&mut client).await;
    let at = Instant::now();
    client.send([CLOSE, 0x80, 0, 0, 0, 0]).await;
    client.ends().await;
    (at, frame)
}

#[tokio::test]
async fn states_weights_and_health_stay() {
    let (a, b, c) = (Upstream::named("a").await, Upstream::named("b").await, Upstream::named("c").await);
    let (dead, failing) = (Refusing::start(), Refusing::start());
    let (a, b, c) = (Named(&a, "a"), Named(&b, "b"), Named(&c, "c"));
    let (dead, failing) = (Named(&dead, "dead"), Named(&failing, "failing"));
    let setup = Proxy::start().line(HAND_OVER).upstream("chat", &[&a, &b, &c, &dead]);
    let setup = setup.balance("{ keyless: round_robin }").affinity("[{ header: X-Key }]");
    let setup = setup.of_upstream("max_fails", "1").of_upstream("fail_timeout", "1h");
    let setup =
        setup.upstream("checked", &[&failing]).of_upstream("health_check", "{ tcp: on, fall: 1, interval: 10s }");
    let setup = setup.route("{ path: /checked, upstream: checked }").route("{ upstream: chat }");
    let mut proxy = setup.run().await;
    ordered(&proxy, "state", json!({ "upstream": "chat", "server": "b", "state": "maint" })).await;
    ordered(&proxy, "weight", json!({ "upstream": "chat", "server": "c", "weight": 3 })).await;
    let down = async {
        while lasting(&status(&proxy).await).to_string().matches("false").count() < 2 {
            proxy.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            tokio::time::sleep(millis(20)).await;
        }
    };
    soon("the dead servers to be down", down).await;
    let before = status(&proxy).await;

    for _ in 0..2 {
        handed_over(&mut proxy).await;
        let after = status(&proxy).await;
        assert_eq!(lasting(&after), lasting(&before));
        let since = |status: &Value| status["upstreams"][0]["servers"][3]["health"]["since_seconds"].as_f64();
        assert!(since(&after) > since(&before), "it has been down for longer");
        // Three parts of four go to `c`, and nobody to those that are away.
        let mut served = std::collections::BTreeMap::new();
        for _ in 0..40 {
            let server = proxy.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.text();
            *served.entry(server).or_insert(0) += 1;
        }
        assert_eq!(served, [("a".to_owned(), 10), ("c".to_owned(), 30)].into());
    }
    // It can still be taken back.
    ordered(&proxy, "state", json!({ "upstream": "chat", "server": "b", "state": "file" })).await;
    ordered(&proxy, "weight", json!({ "upstream": "chat", "server": "c", "weight": "file" })).await;
    handed_over(&mut proxy).await;
    let servers = &status(&proxy).await["upstreams"][0]["servers"];
    assert_eq!((&servers[1]["state"], &servers[1]["state_by"]), (&json!("ready"), &json!("file")), "{servers}");
    assert_eq!((&servers[2]["weight"], &servers[2]["weight_by"]), (&json!(1), &json!("file")), "{servers}");
}

#[tokio::test]
async fn a_drain_goes_on_where_it_stood() {
    const CLIENTS: usize = 24;
    let (a, b) = (Upstream::start().await, Upstream::named("b").await);
    let setup = Proxy::start().line(HAND_OVER).upstream("chat", &[&Named(&a, "a"), &Named(&b, "b")]);
    let mut proxy = setup.affinity("[{ header: X-Key }]").balance("{ keyless: round_robin }").run().await;
    ordered(&proxy, "state", json!({ "upstream": "chat", "server": "b", "state": "maint" })).await;
    let (mut clients, mut servers) = (JoinSet::new(), JoinSet::new());
    for _ in 0..CLIENTS {
        let (client, mut server) = open(&proxy, &a).await;
        clients.spawn(told(client));
        servers.spawn(async move {
            next_frame(&mut server).await;
            server.send([CLOSE, 0]).await;
            server.ends().await;
        });
    }
    ordered(&proxy, "state", json!({ "upstream": "chat", "server": "b", "state": "ready" })).await;
    let began = Instant::now();
    ordered(&proxy, "drain", json!({ "upstream": "chat", "server": "a", "spread": "6s" })).await;
    tokio::time::sleep(seconds(2)).await; // A third of them leaves before.
    handed_over(&mut proxy).await;
    let drain = &proxy.admin("/api/v1/drains").await.json()[0];
    assert_eq!((&drain["server"], &drain["open_before"]), (&json!("a"), &json!(CLIENTS)), "{drain}");
    assert!(drain["elapsed_seconds"].as_f64() >= Some(2.0) && drain["spread_seconds"] == json!(6.0), "{drain}");
    assert_eq!(proxy.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.text(), "b", "nobody new comes to `a`");

    let mut seconds_of = [0; 6];
    while let Some(end) = within(seconds(20), "everybody to be told", clients.join_next()).await {
        let (at, frame) = end.expect("a client is told");
        assert_eq!(frame, (CLOSE, close(1012, "service restart")));
        seconds_of[usize::try_from((at - began).as_secs()).expect("a few seconds").min(5)] += 1;
    }
    assert!(seconds_of[..2].iter().sum::<i32>() >= 5, "before the hand-over: {seconds_of:?}");
    assert!(seconds_of[2..].iter().all(|count| *count >= 1), "evenly behind it: {seconds_of:?}");
    proxy.heard("drain: server a of upstream chat: done").await;
    assert_eq!(proxy.admin("/api/v1/drains").await.json()[0]["is_over"], json!(true));
    ordered(&proxy, "undrain", json!({ "upstream": "chat", "server": "a" })).await;
    assert_eq!(status(&proxy).await["upstreams"][0]["servers"][0]["state"], json!("ready"));
}

#[tokio::test]
async fn who_came_back_to_an_upstream_that_is_drained_is_left_alone() {
    let server = Upstream::start().await;
    let mut proxy = Proxy::start().line(HAND_OVER).upstream("chat", &[&server]).run().await;
    let (client, mut upstream) = open(&proxy, &server).await;
    let answering = tokio::spawn(async move {
        next_frame(&mut upstream).await;
        upstream.send([CLOSE, 0]).await;
    });
    // Ages are known to a tenth of a second: one is older than the drain, the next one is younger.
    tokio::time::sleep(millis(300)).await;
    ordered(&proxy, "drain", json!({ "upstream": "chat", "spread": "3s" })).await;
    tokio::time::sleep(millis(300)).await;
    let mut back = vec![open(&proxy, &server).await];
    is_there(&mut back[0]).await;
    handed_over(&mut proxy).await;
    assert_eq!(within(seconds(10), "the Close", told(client)).await.1, (CLOSE, close(1012, "service restart")));
    answering.await.expect("the server is told");
    proxy.heard("drain: upstream chat: done").await;
    // Also when it is over and not undone.
    back.push(open(&proxy, &server).await);
    is_there(&mut back[1]).await;
    handed_over(&mut proxy).await;
    tokio::time::sleep(seconds(1)).await; // Nothing else tells that nobody is told to leave.
    is_there(&mut back[0]).await;
    is_there(&mut back[1]).await;
}

/// Bytes cross, so it is a relay, and nobody has told it to leave.
async fn is_there((client, upstream): &mut (Wire, Wire)) {
    upstream.send(frame("still here")).await;
    assert_eq!(next_frame(client).await, (0x81, b"still here".to_vec()));
}

#[tokio::test]
async fn rebalancing_goes_on_until_it_is_stopped() {
    let (a, b) = (Upstream::start().await, Upstream::start().await);
    let setup = Proxy::start().line(HAND_OVER).upstream("chat", &[&Named(&a, "a"), &Named(&b, "b")]);
    let mut proxy = setup.affinity("[{ header: X-Key }]").run().await;
    ordered(&proxy, "state", json!({ "upstream": "chat", "server": "b", "state": "maint" })).await;
    let mut relays = Vec::new();
    for key in 0..20 {
        let mut client = proxy.send(websocket_request("/ws", &format!("X-Key: {key}\r\n"))).await;
        let mut upstream = a.accept().await;
        upstream.request().await;
        upstream.send(SWITCHING).await;
        assert_eq!(client.head().await.status(), 101);
        relays.push((client, upstream));
    }
    proxy.relays_once(20, "").await;
    // Some of them belong to `b` now, and at this pace it takes the first one minutes to move there.
    ordered(&proxy, "state", json!({ "upstream": "chat", "server": "b", "state": "ready" })).await;
    ordered(&proxy, "rebalance", json!({ "upstream": "chat", "per_minute": 1 })).await;
    let is_rebalanced = async |proxy: &Proxy| {
        let shown = async {
            loop {
                let rebalance = status(proxy).await["upstreams"][0]["rebalance"].clone();
                if rebalance["strays"].as_u64() > Some(0) {
                    return [rebalance["by"].clone(), rebalance["percent_per_minute"].clone()];
                }
                tokio::time::sleep(millis(20)).await;
            }
        };
        assert_eq!(soon("strays to be found", shown).await, [json!("operator"), json!(1)]);
    };
    is_rebalanced(&proxy).await;
    handed_over(&mut proxy).await;
    is_rebalanced(&proxy).await;
    ordered(&proxy, "rebalance", json!({ "upstream": "chat", "per_minute": "off" })).await;
    handed_over(&mut proxy).await;
    proxy.relays_once(20, "").await;
    assert_eq!(status(&proxy).await["upstreams"][0]["rebalance"], Value::Null);
}

#[tokio::test]
async fn a_server_that_is_taken_out_on_the_way_is_left_as_by_a_reload() {
    let (before, after) = (Upstream::start().await, Upstream::named("after").await);
    let setup = Proxy::start().line(HAND_OVER).upstream("chat", &[&Named(&before, "before")]);
    let mut proxy = setup.of_upstream("drain", "{ spread: 4s, removed: drain }").run().await;
    let (client, first_server) = open(&proxy, &before).await;
    let (other, second_server) = open(&proxy, &before).await;
    let entry = |server: &dyn ServerEntry, name| format!("\"{}\", weight: 1, name: {name}", server.address());
    proxy.rewrite(&[(&entry(&before, "before"), &entry(&after, "after"))]);
    handed_over(&mut proxy).await;
    let first = Instant::now();
    let drains = proxy.admin("/api/v1/drains").await.json();
    assert_eq!((&drains[0]["server"], &drains[0]["open"]), (&json!("before"), &json!(2)), "{drains}");
    // And once more, while that goes on.
    handed_over(&mut proxy).await;
    let drains = proxy.admin("/api/v1/drains").await.json();
    assert_eq!((drains.as_array().map(Vec::len), &drains[0]["open_before"]), (Some(1), &json!(2)), "{drains}");
    for client in [client, other] {
        assert_eq!(within(seconds(20), "the Close", told(client)).await.1, (CLOSE, close(1012, "service restart")));
    }
    drop((first_server, second_server));
    assert!(first.elapsed() < seconds(10), "it took {:?}", first.elapsed());
    proxy.settles_empty().await;
}

#[tokio::test]
async fn a_drain_stays_with_a_server_that_another_one_of_its_name_replaces() {
    let (before, after) = (Upstream::start().await, Upstream::named("after").await);
    let mut proxy = Proxy::start().line(HAND_OVER).upstream("chat", &[&Named(&before, "a")]).run().await;
    let (client, mut server) = open(&proxy, &before).await;
    ordered(&proxy, "drain", json!({ "upstream": "chat", "server": "a", "spread": "3s" })).await;
    let address = |server: &dyn ServerEntry| format!("\"{}\"", server.address());
    proxy.rewrite(&[(&address(&before), &address(&after))]);
    handed_over(&mut proxy).await;
    assert_eq!(proxy.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.text(), "after");
    let servers = &status(&proxy).await["upstreams"][0]["servers"];
    assert_eq!(servers[0]["state"], json!("ready"), "{servers}");
    let (_, frame) = within(seconds(20), "the Close", told(client)).await;
    assert_eq!(frame, (CLOSE, close(1012, "service restart")));
    assert_eq!(next_frame(&mut server).await.0, CLOSE);
    drop(server);
    proxy.settles_empty().await;
}
