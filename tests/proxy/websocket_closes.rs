//! WebSockets that the proxy ends itself: with a code, behind a whole frame, within a bounded time.

use std::time::Instant;

use serde_json::json;

use crate::harness::node::NodeServer;
use crate::harness::websocket::{close, frame, masked, masked_frame, next_frame, open, short};
use crate::harness::{Node, Proxy, Upstream, millis, seconds, soon};

const CLOSE: u8 = 0x88;
const MASK: [u8; 4] = [1, 2, 3, 4];

async fn proxy_with_grace(server: &Upstream, grace: &str) -> Proxy {
    Proxy::start().upstream("chat", &[server]).line(&format!("shutdown: {{ grace: {grace}, spread: 0s }}")).run().await
}

fn restart() -> (u8, Vec<u8>) {
    (CLOSE, close(1012, "service restart"))
}

fn going_away() -> (u8, Vec<u8>) {
    (CLOSE, close(1001, "going away"))
}

async fn stopped_within(proxy: &mut Proxy, began: Instant, limit: std::time::Duration) {
    assert_eq!(proxy.exit().await.code(), Some(0));
    assert!(began.elapsed() < limit, "it took {:?}", began.elapsed());
}

#[tokio::test]
async fn real_clients_and_servers_are_told_that_the_proxy_stops() {
    const CLIENTS: usize = 8;
    let server = NodeServer::websocket().await;
    let mut proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let url = format!("ws://{}/ws", proxy.address());
    let client = |_| Node::script("websocket_client.js", &json!({ "url": url, "compresses": true, "answers": true }));
    let clients: Vec<_> = (0..CLIENTS).map(client).collect();
    for client in &clients {
        client.says("open").await;
    }
    let began = Instant::now();
    proxy.terminate();
    for client in &clients {
        let closed = soon("a client to be told", client.says("closed")).await;
        assert_eq!(closed, json!({ "code": 1012, "reason": "service restart" }));
    }
    // Everybody has answered, so nothing had to be waited for.
    stopped_within(&mut proxy, began, seconds(4)).await;
    let left = server.node.says_all("left", CLIENTS).await;
    assert!(left.iter().all(|left| *left == json!({ "code": 1001, "reason": "going away" })), "{left:?}");
    let line = proxy.logged_path("/ws").await;
    assert_eq!((&line["end_reason"], &line["close_code"]), (&json!("shutdown"), &json!(1012)), "{line}");
}

#[tokio::test]
async fn what_is_under_way_comes_to_its_end_first() {
    let server = Upstream::start().await;
    let mut proxy = proxy_with_grace(&server, "30s").await;
    let (mut client, mut upstream) = open(&proxy, &server).await;
    let (down, up) = (frame("from the server"), masked_frame("from the client"));
    upstream.send(&down[..9]).await;
    assert_eq!(client.exactly(9).await, &down[..9]);
    client.send(&up[..3]).await;
    assert_eq!(upstream.exactly(3).await, &up[..3]);
    let began = Instant::now();
    proxy.terminate();
    client.stays_silent(millis(300)).await;
    upstream.stays_silent(millis(300)).await;

    // The rest, and frames behind it, which come too late.
    upstream.send([&down[9..], &frame("late")].concat()).await;
    assert_eq!(client.exactly(down.len() - 9).await, &down[9..]);
    assert_eq!(next_frame(&mut client).await, restart());
    client.send([&up[3..], &masked_frame("late")].concat()).await;
    assert_eq!(upstream.exactly(up.len() - 3).await, &up[3..]);
    assert_eq!(next_frame(&mut upstream).await, going_away());
    assert_ne!(upstream.recorded()[upstream.recorded().len() - 11..], *b"\x03\xE9going away", "it is masked");

    // The answers end it.
    client.send(masked(CLOSE, &close(1012, ""), MASK)).await;
    client.stays_silent(millis(200)).await;
    upstream.send(short(CLOSE, &close(1001, ""))).await;
    client.ends().await;
    upstream.ends().await;
    stopped_within(&mut proxy, began, seconds(5)).await;
}

#[tokio::test]
async fn who_never_answers_is_waited_for_five_seconds_and_no_longer_than_the_grace() {
    for (grace, least, most) in [("1m", millis(4500), seconds(9)), ("2s", millis(1500), millis(4500))] {
        let server = Upstream::start().await;
        let mut proxy = proxy_with_grace(&server, grace).await;
        let (mut client, mut upstream) = open(&proxy, &server).await;
        let (mut cut, mut half) = open(&proxy, &server).await;
        half.send(&frame("never sent to its end")[..5]).await;
        cut.exactly(5).await;
        let began = Instant::now();
        proxy.terminate();
        assert_eq!(next_frame(&mut client).await, restart());
        assert_eq!(next_frame(&mut upstream).await, going_away());
        client.send(masked_frame("no")).await;
        client.ends().await;
        upstream.ends().await;
        assert!(began.elapsed() > least, "grace {grace}: it took {:?}", began.elapsed());
        assert_eq!(cut.rest().await, b"");
        stopped_within(&mut proxy, began, most).await;
        for _ in 0..2 {
            assert_eq!(proxy.logged_path("/ws").await["end_reason"], "shutdown");
        }
        assert!(!proxy.said().iter().any(|line| line.contains("is over")), "the grace had to cut somebody");
    }
}

#[tokio::test]
async fn a_close_that_was_said_already_is_not_said_again() {
    let server = Upstream::start().await;
    let mut proxy = proxy_with_grace(&server, "30s").await;
    let (mut client, mut upstream) = open(&proxy, &server).await;
    client.send(masked(CLOSE, &close(4321, "bye"), MASK)).await;
    assert_eq!(next_frame(&mut upstream).await, (CLOSE, close(4321, "bye")));
    let began = Instant::now();
    proxy.terminate();
    assert_eq!(next_frame(&mut client).await, restart());
    upstream.send(short(CLOSE, &close(4321, ""))).await;
    client.ends().await;
    upstream.ends().await;
    stopped_within(&mut proxy, began, seconds(4)).await;
    assert_eq!(proxy.logged_path("/ws").await["close_code"], 4321);
}

#[tokio::test]
async fn silence_is_ended_with_a_close_to_both() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).timeouts("{ idle: 1s }").run().await;
    let (mut client, mut upstream) = open(&proxy, &server).await;
    assert_eq!(next_frame(&mut client).await, going_away());
    assert_eq!(next_frame(&mut upstream).await, going_away());
    // One answers, the other just goes.
    client.send(masked(CLOSE, &close(1001, ""), MASK)).await;
    drop(upstream);
    client.ends().await;
    let line = proxy.logged_path("/ws").await;
    assert_eq!((&line["end_reason"], &line["close_code"]), (&json!("idle"), &json!(1001)), "{line}");
    proxy.settles_empty().await;
}

#[tokio::test]
async fn codes_are_counted_by_who_says_them_first() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    for (payload, label) in [
        (close(1000, "done"), "1000"),
        (close(1011, ""), "1011"),
        (close(3001, ""), "3xxx"),
        (close(4999, ""), "4xxx"),
        (close(1016, ""), "other"),
        (close(5000, ""), "other"),
        (Vec::new(), "1005"),
    ] {
        let before = proxy.metrics().await.sum("steadfast_websocket_closes_total", &[("code", label)]);
        let (mut client, mut upstream) = open(&proxy, &server).await;
        upstream.send(short(CLOSE, &payload)).await;
        assert_eq!(next_frame(&mut client).await, (CLOSE, payload));
        client.send(masked(CLOSE, &close(1000, ""), MASK)).await;
        assert_eq!(next_frame(&mut upstream).await, (CLOSE, close(1000, "")));
        drop(upstream);
        client.ends().await;
        drop(client);
        proxy.settles("steadfast_websocket_closes_total", &[("code", label)], before + 1.0).await;
    }
    let (client, upstream) = open(&proxy, &server).await;
    drop((client, upstream));
    proxy.settles("steadfast_websocket_closes_total", &[("code", "none")], 1.0).await;
}
