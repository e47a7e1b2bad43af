//! Pings of the proxy's: between frames and nowhere else, answered without the server noticing.

use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::node::NodeServer;
use crate::harness::websocket::{frame, masked, masked_frame, next_frame, open, short};
use crate::harness::{Hop, Node, Proxy, Random, Reading, Upstream, Wire, millis, seconds, show, soon};

const PING: u8 = 0x89;
const PONG: u8 = 0x8A;
const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

async fn proxy_with_pings(server: &Upstream, websocket: &str) -> Proxy {
    Proxy::start().upstream("chat", &[server]).websocket(websocket).run().await
}

/// A client of the package `ws`, connected.
async fn ws_client(address: std::net::SocketAddr, argument: &[(&str, Value)]) -> Node {
    let mut options = json!({ "url": format!("ws://{address}/ws"), "compresses": false, "answers": true });
    for (key, value) in argument {
        options[*key] = value.clone();
    }
    let client = Node::script("websocket_client.js", &options);
    soon("a WebSocket to open", client.says("open")).await;
    client
}

/// The next frame, which is a ping of the proxy's: its payload.
async fn pinged(client: &mut Reading) -> Vec<u8> {
    let (first, payload) = next_frame(client).await;
    assert_eq!((first, payload.len()), (PING, 8));
    payload
}

#[tokio::test]
async fn a_silent_client_survives_behind_a_hop_that_cuts_after_three_seconds() {
    let server = NodeServer::websocket().await;
    let proxy = Proxy::start()
        .upstream("kept", &[&server])
        .websocket("{ ping: 1s }")
        .upstream("left", &[&server])
        .route("{ path: /left, upstream: left }")
        .route("{ upstream: kept }")
        .run()
        .await;
    let hop = Hop::cutting_after(seconds(3), proxy.address()).await;
    let mut kept = ws_client(hop.address(), &[]).await;
    let left = ws_client(hop.address(), &[("url", json!(format!("ws://{}/left", hop.address())))]).await;

    let closed = soon("the one without pings to be cut", left.says("closed")).await;
    assert_eq!(closed["code"], 1006, "the hop does not cut");
    tokio::time::sleep(seconds(8)).await;
    kept.tell(&json!({ "say": ["still here"] }));
    assert_eq!(soon("an echo", kept.says("echoed")).await, json!(["still here"]));
    assert_eq!(hop.cuts(), 1);

    // The server's own ping was answered to it, and no other.
    assert_eq!(server.node.says_all("ponged", 2).await, [json!("of the server"), json!("of the server")]);
    let pings = kept.said("pinged").len();
    assert!((7..30).contains(&pings), "{pings} pings in 11 seconds");
    let counted = proxy.metrics().await.sum("steadfast_websocket_pings_total", &[("upstream", "kept")]);
    assert!(counted >= 7.0, "{counted} counted");
}

#[tokio::test]
async fn compressed_messages_in_fragments_pass_between_pings() {
    let server = NodeServer::websocket().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).websocket("{ ping: 1s }").run().await;
    let mut client = ws_client(proxy.address(), &[("compresses", json!(true))]).await;
    let opened = client.said("open");
    assert_eq!(opened[0]["extensions"], "permessage-deflate", "nothing is compressed");
    let mut random = Random::seeded(11);
    for round in 0..3 {
        let length = |size: usize| "steadfast ".repeat(1 + size);
        let texts: Vec<_> = (0..40).map(|_| length(random.up_to(20_000))).collect();
        client.tell(&json!({ "say": texts }));
        let echoed = client.says_all("echoed", round + 1).await.swap_remove(round);
        assert!(echoed == json!(texts), "round {round}: the messages differ");
        tokio::time::sleep(millis(1500)).await;
    }
    assert!(client.said("pinged").len() >= 3, "{:?}", client.said("pinged"));
    assert_eq!(client.said("failed"), [Value::Null; 0]);
    client.kill();
    proxy.settles("steadfast_websocket_messages_total", &[("direction", "up")], 120.0).await;
    proxy.settles("steadfast_websocket_messages_total", &[("direction", "down")], 120.0).await;
    assert_eq!(server.node.said("failed"), [Value::Null; 0]);
}

#[tokio::test]
async fn a_frame_half_sent_delays_the_ping_to_its_end() {
    let server = Upstream::start().await;
    let proxy = proxy_with_pings(&server, "{ ping: 2s, pong_timeout: 1m }").await;
    let payload = Random::seeded(12).bytes(300_000);
    let big = [&[0x82, 127][..], &300_000_u64.to_be_bytes(), &payload].concat();
    let mut opened: Vec<(usize, Wire, Wire)> = Vec::new();
    for cut in [1, 5, 10, 150_000, 300_009] {
        let (mut client, mut upstream) = open(&proxy, &server).await;
        upstream.send(&big[..cut]).await;
        client.exactly(cut).await;
        opened.push((cut, client, upstream));
    }
    tokio::time::sleep(millis(2500)).await;
    for (cut, client, upstream) in &mut opened {
        client.stays_silent(millis(1)).await;
        let rest = &big[*cut..];
        upstream.send([rest, &frame("next")].concat()).await;
        assert!(client.exactly(rest.len()).await == rest, "the frame differs behind {cut} bytes");
        let ping = pinged(client).await;
        assert_eq!(next_frame(client).await, (0x81, b"next".to_vec()));
        client.send([masked(PONG, &ping, MASK), masked_frame("up")].concat()).await;
        assert_eq!(upstream.exactly(8).await, masked_frame("up"));
    }
}

#[tokio::test]
async fn our_pong_reaches_nobody_however_it_comes() {
    let server = Upstream::start().await;
    let proxy = proxy_with_pings(&server, "{ ping: 1s, pong_timeout: 1m }").await;

    // Byte by byte.
    let (mut client, mut upstream) = open(&proxy, &server).await;
    let ping = pinged(&mut client).await;
    for byte in masked(PONG, &ping, MASK) {
        client.send([byte]).await;
        tokio::time::sleep(millis(5)).await;
    }
    upstream.stays_silent(millis(300)).await;
    client.send(masked_frame("up")).await;
    assert_eq!(upstream.exactly(8).await, masked_frame("up"));

    // Between data frames, with the pong for the server's own ping beside it, split everywhere.
    let theirs = masked(PONG, b"of the server", MASK);
    let before = [masked_frame("before"), theirs].concat();
    let after = [masked(PONG, b"", MASK), masked_frame("after")].concat();
    let (mut client, mut upstream) = open(&proxy, &server).await;
    let ping = pinged(&mut client).await;
    let all = [&before[..], &masked(PONG, &ping, MASK), &after].concat();
    for at in 0..all.len() {
        client.send(&all[..at]).await;
        tokio::time::sleep(millis(3)).await;
        client.send(&all[at..]).await;
        let expected = [&before[..], &after].concat();
        assert_eq!(upstream.exactly(expected.len()).await, expected, "split at {at}");
    }

    // One that is never completed is passed on as what it is: the end of what there was.
    let (mut client, mut upstream) = open(&proxy, &server).await;
    let ping = pinged(&mut client).await;
    let half = &masked(PONG, &ping, MASK)[..9];
    client.send(half).await;
    upstream.stays_silent(millis(200)).await;
    client.finish().await;
    assert_eq!(upstream.rest().await, half);
}

#[tokio::test]
async fn pings_and_pongs_of_others_pass() {
    let server = Upstream::start().await;
    let proxy = proxy_with_pings(&server, "{ ping: 2s, pong_timeout: 1m }").await;
    let (mut client, mut upstream) = open(&proxy, &server).await;
    let ours = pinged(&mut client).await;
    let mut other = ours.clone();
    other[7] ^= 1;
    for payload in [&b"own"[..], b"", &other] {
        upstream.send(short(PING, payload)).await;
        assert_eq!(next_frame(&mut client).await, (PING, payload.to_vec()));
        client.send(masked(PONG, payload, MASK)).await;
        assert_eq!(next_frame(&mut upstream).await, (PONG, payload.to_vec()));
    }
    client.send(masked(PING, &ours, MASK)).await;
    assert_eq!(next_frame(&mut upstream).await, (PING, ours));
}

#[tokio::test]
async fn a_client_that_answers_nothing_is_gone() {
    let server = Upstream::start().await;
    let proxy = proxy_with_pings(&server, "{ ping: 1s, pong_timeout: 1s }").await;
    let (mut client, mut upstream) = open(&proxy, &server).await;
    let began = Instant::now();
    pinged(&mut client).await;
    upstream.ends().await;
    assert!((millis(700)..seconds(8)).contains(&began.elapsed()), "it took {:?}", began.elapsed());
    // It may have been pinged once more, and is told nothing else.
    let rest = client.rest().await;
    assert!(rest.is_empty() || rest.len() == 10 && rest[0] == PING, "{}", show(&rest));
    drop(upstream);
    let line = proxy.logged_path("/ws").await;
    assert_eq!((&line["end_reason"], &line["close_code"]), (&json!("peer_gone"), &Value::Null), "{line}");
    let labels = [("kind", "websocket"), ("end_reason", "peer_gone")];
    proxy.settles("steadfast_ends_total", &labels, 1.0).await;
    proxy.settles("steadfast_websocket_closes_total", &[("code", "none")], 1.0).await;
    proxy.settles_empty().await;
}

#[tokio::test]
async fn a_real_client_that_answers_no_ping_is_gone() {
    let server = NodeServer::websocket().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).websocket("{ ping: 1s, pong_timeout: 500ms }").run().await;
    let client = ws_client(proxy.address(), &[("answers", json!(false))]).await;
    assert_eq!(soon("the client to be cut", client.says("closed")).await["code"], 1006);
    assert_eq!(soon("the server to hear of it", server.node.says("left")).await["code"], 1006);
    assert_eq!(proxy.logged_path("/ws").await["end_reason"], "peer_gone");
}

#[tokio::test]
async fn any_byte_of_the_client_is_a_sign_of_life() {
    let server = Upstream::start().await;
    let proxy = proxy_with_pings(&server, "{ ping: 1s, pong_timeout: 2s }").await;
    let (mut client, mut upstream) = open(&proxy, &server).await;
    // A message so slow that no pong can come before its end.
    let slow = masked_frame("a slow message");
    for byte in &slow {
        client.send([*byte]).await;
        tokio::time::sleep(millis(300)).await;
    }
    assert_eq!(upstream.exactly(slow.len()).await, slow);
    // Nothing went to the client meanwhile, but for pings.
    pinged(&mut client).await;
}

#[tokio::test]
async fn pings_do_not_keep_a_websocket_on_which_nobody_speaks() {
    let server = NodeServer::websocket().await;
    let proxy =
        Proxy::start().upstream("chat", &[&server]).websocket("{ ping: 1s }").timeouts("{ idle: 3s }").run().await;
    let client = ws_client(proxy.address(), &[]).await;
    let closed = soon("the client to be told", client.says("closed")).await;
    assert_eq!(closed, json!({ "code": 1001, "reason": "going away" }));
    assert!(client.said("pinged").len() >= 2);
    assert_eq!(proxy.logged_path("/ws").await["end_reason"], "idle");
}

#[tokio::test]
async fn nothing_is_inserted_into_what_is_no_websocket() {
    let server = Upstream::start().await;
    let proxy = proxy_with_pings(&server, "{ ping: 1s, pong_timeout: 1s }").await;
    let garbage: &[(&[u8], &[u8])] = &[
        (b"\x8Bwhat a client may not send", b""),
        (b"", b"\x81\x80masked as only clients may"),
        (b"", b"\x09\x01"),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    ];
    let mut opened: Vec<(Wire, Wire)> = Vec::new();
    for (up, down) in garbage {
        let (mut client, mut upstream) = open(&proxy, &server).await;
        client.send(up).await;
        assert_eq!(upstream.exactly(up.len()).await, *up);
        upstream.send(down).await;
        assert_eq!(client.exactly(down.len()).await, *down);
        opened.push((client, upstream));
    }
    let request = "GET /t HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: gossip/1\r\n\r\n";
    let mut client = proxy.send(request).await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: gossip/1\r\n\r\n").await;
    client.head().await;
    opened.push((client, upstream));

    for (client, _) in &mut opened {
        client.stays_silent(millis(700)).await;
    }
    for (client, upstream) in &mut opened {
        client.send("\x01\u{2}more").await;
        assert_eq!(upstream.exactly(6).await, b"\x01\x02more");
        upstream.send("less").await;
        assert_eq!(client.exactly(4).await, b"less");
    }
    drop(opened);
    proxy.settles("steadfast_websocket_opaque_total", &[("upstream", "chat")], 4.0).await;
    assert_eq!(proxy.metrics().await.sum("steadfast_websocket_pings_total", &[]), 0.0);
}
