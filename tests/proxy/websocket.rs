//! Upgraded connections: nothing lost at the switch, both directions on their own, and every way
//! to end.

use crate::harness::client::SWITCHING;
use crate::harness::upstream::ok;
use crate::harness::websocket::{frame, masked_frame, open};
use crate::harness::{Leaving, Proxy, Random, Reading, Upstream, Writing, millis, seconds, websocket_request};

#[tokio::test]
async fn a_handshake_is_answered_as_the_server_answered_it() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.send(websocket_request("/ws", "Sec-WebSocket-Protocol: a, b\r\n")).await;
    let mut upstream = server.accept().await;
    let request = upstream.request().await;
    assert_eq!(request.head.field("sec-websocket-protocol").as_deref(), Some("a, b"));
    upstream.send(SWITCHING.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: b\r\n\r\n")).await;
    let head = client.head().await;
    assert_eq!(head.status(), 101);
    for (name, value) in [
        ("upgrade", "websocket"),
        ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ("sec-websocket-protocol", "b"),
    ] {
        assert_eq!(head.field(name).as_deref(), Some(value), "{name}");
    }
    assert!(head.field("connection").is_some_and(|options| options.eq_ignore_ascii_case("upgrade")));
    assert_eq!((head.field("content-length"), head.field("transfer-encoding")), (None, None));
}

#[tokio::test]
async fn a_frame_in_the_same_packet_as_the_101_arrives() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    for length in [1, 20, 100] {
        let mut client = proxy.send(websocket_request("/ws", "")).await;
        let mut upstream = server.accept().await;
        upstream.request().await;
        let first = frame(&"x".repeat(length));
        upstream.send([SWITCHING.as_bytes(), &first].concat()).await;
        assert_eq!(client.head().await.status(), 101);
        assert_eq!(client.exactly(first.len()).await, first);
    }
}

#[tokio::test]
async fn much_in_the_same_packet_as_the_101_arrives() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.send(websocket_request("/ws", "")).await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    let much = Random::seeded(4).bytes(200_000);
    upstream.send([SWITCHING.as_bytes(), &much].concat()).await;
    assert_eq!(client.head().await.status(), 101);
    assert!(client.exactly(much.len()).await == much, "the bytes behind the head differ");
}

#[tokio::test]
async fn a_client_that_does_not_wait_for_the_101_is_heard_once_and_in_order() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    // The first bytes look like a request, to see that nobody reads them as one.
    let early = "GET /second HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = proxy.send(websocket_request("/ws", "") + early).await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    client.send(masked_frame("early")).await;
    upstream.send(SWITCHING).await;
    assert_eq!(client.head().await.status(), 101);
    client.send(masked_frame("late")).await;
    let expected = [early.as_bytes(), &masked_frame("early"), &masked_frame("late")].concat();
    assert_eq!(upstream.exactly(expected.len()).await, expected);
    upstream.stays_silent(millis(100)).await;
    assert_eq!(server.accepted(), 1, "the early bytes were taken for a request");
}

#[tokio::test]
async fn a_handshake_that_is_refused_leaves_plain_http() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.send(websocket_request("/ws", "")).await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
    let answer = client.response().await;
    assert_eq!((answer.status(), answer.text()), (403, "no".to_owned()));
    let mut other = proxy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    // The server's connection may be kept or not; the next request works.
    tokio::select! {
        request = upstream.request() => { drop(request); upstream.send(ok("yes")).await; }
        mut fresh = server.accept() => { fresh.request().await; fresh.send(ok("yes")).await; }
    }
    assert_eq!(other.response().await.text(), "yes");
}

/// What the client said too early is of a protocol that was refused: no request, and nobody's.
#[tokio::test]
async fn frames_before_a_refusal_are_no_second_request() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).threads(1).run().await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for early in [masked_frame(smuggled), smuggled.into(), masked_frame("early")] {
        let mut client = proxy.send([websocket_request("/ws", "").as_bytes(), &early].concat()).await;
        let mut upstream = server.accept().await;
        upstream.request().await;
        client.send(&early).await;
        upstream.send("HTTP/1.1 403 Forbidden\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nno").await;
        client.send(&early).await;
        let answer = client.response().await;
        assert_eq!((answer.status(), answer.text()), (403, "no".to_owned()));
        assert_eq!(answer.head.field("connection").as_deref(), Some("close"));
        client.ends().await;

        // The server's connection may serve others, and has seen nothing of it.
        let mut other = proxy.send("GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let request = upstream.request().await;
        assert!(request.head.start.starts_with("GET /next "), "{:?}", request.head);
        upstream.send(ok("yes")).await;
        assert_eq!(other.response().await.text(), "yes");
        upstream.stays_silent(millis(100)).await;
        drop(upstream);
    }
    assert!(!proxy.log().iter().any(|line| line.contains("smuggled")), "{:?}", proxy.log());
}

#[tokio::test]
async fn another_protocol_is_a_tunnel() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.send("GET /t HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: gossip/1\r\n\r\n").await;
    let mut upstream = server.accept().await;
    assert_eq!(upstream.request().await.head.field("upgrade").as_deref(), Some("gossip/1"));
    upstream.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: gossip/1\r\n\r\npsst").await;
    assert_eq!(client.head().await.field("upgrade").as_deref(), Some("gossip/1"));
    assert_eq!(client.exactly(4).await, b"psst");
    client.send("what?").await;
    assert_eq!(upstream.exactly(5).await, b"what?");
    proxy.settles("steadfast_open_connections", &[("kind", "tunnel")], 1.0).await;
    drop(client);
    upstream.ends().await;
    drop(upstream);
    assert_eq!(proxy.logged_path("/t").await["kind"], "tunnel");
}

#[tokio::test]
async fn one_direction_may_end_before_the_other() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;

    let (mut client, mut upstream) = open(&proxy, &server).await;
    client.send(masked_frame("last")).await;
    client.finish().await;
    assert_eq!(upstream.rest().await, masked_frame("last"));
    upstream.send(frame("still here")).await;
    assert_eq!(client.exactly(12).await, frame("still here"));
    drop(upstream);
    client.ends().await;

    let (mut client, mut upstream) = open(&proxy, &server).await;
    upstream.send(frame("last")).await;
    upstream.finish().await;
    assert_eq!(client.rest().await, frame("last"));
    client.send(masked_frame("still here")).await;
    assert_eq!(upstream.exactly(16).await, masked_frame("still here"));
    drop(client);
    upstream.ends().await;
    proxy.settles_empty().await;
}

#[tokio::test]
async fn a_server_that_dies_takes_its_clients_along_at_once() {
    for how in Leaving::ALL {
        let server = Upstream::start().await;
        let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
        let (mut client, upstream) = open(&proxy, &server).await;
        upstream.leave(how);
        client.ends().await;
        drop(client);
        let line = proxy.logged_path("/ws").await;
        let reason = line["end_reason"].as_str().unwrap_or_default();
        assert!(["server_closed", "server_error"].contains(&reason), "{line}");
        proxy.settles_empty().await;
    }
}

#[tokio::test]
async fn a_client_that_vanishes_is_gone_for_the_server_at_once() {
    for how in Leaving::ALL {
        let server = Upstream::start().await;
        let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
        let (client, mut upstream) = open(&proxy, &server).await;
        client.leave(how);
        upstream.ends().await;
        drop(upstream);
        let line = proxy.logged_path("/ws").await;
        let reason = line["end_reason"].as_str().unwrap_or_default();
        assert!(["client_closed", "client_error"].contains(&reason), "{line}");
        proxy.settles_empty().await;
    }
}

#[tokio::test]
async fn silence_in_both_directions_ends_it_and_a_byte_in_either_does_not() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).timeouts("{ idle: 2s }").run().await;
    let (mut client, mut upstream) = open(&proxy, &server).await;
    for turn in 0..4 {
        tokio::time::sleep(seconds(1)).await;
        if turn % 2 == 0 {
            client.send(masked_frame("up")).await;
            upstream.exactly(8).await;
        } else {
            upstream.send(frame("down")).await;
            client.exactly(6).await;
        }
    }
    client.stays_silent(millis(1500)).await;
    client.rest().await;
    upstream.rest().await;
    assert_eq!(proxy.logged_path("/ws").await["end_reason"], "idle");
    proxy.settles_empty().await;
}

#[tokio::test]
async fn an_open_connection_outlives_every_other_timeout() {
    let server = Upstream::start().await;
    let timeouts = "{ request_head: 500ms, response_head: 500ms, body: 500ms, keepalive: 500ms, send: 500ms }";
    let proxy = Proxy::start().upstream("chat", &[&server]).timeouts(timeouts).run().await;
    let (mut client, mut upstream) = open(&proxy, &server).await;
    client.stays_silent(seconds(3)).await;
    client.send(masked_frame("up")).await;
    upstream.exactly(8).await;
    upstream.send(frame("down")).await;
    client.exactly(6).await;
}

/// Sends `length` pseudo-random bytes in pieces of random size.
async fn send_random(mut writing: Writing, seed: u64, length: usize) -> Writing {
    let (mut bytes, mut sizes) = (Random::seeded(seed), Random::seeded(seed + 100));
    let mut left = length;
    while left > 0 {
        let block = bytes.bytes(left.min(BLOCK));
        let mut rest = &block[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(sizes.up_to(rest.len()));
            writing.send(piece).await;
            rest = after;
        }
        left -= block.len();
    }
    writing
}

/// Receives what [`send_random`] sent and compares every byte.
async fn receive_random(mut reading: Reading, seed: u64, length: usize) -> Reading {
    let mut bytes = Random::seeded(seed);
    let mut received = 0;
    while received < length {
        let block = bytes.bytes((length - received).min(BLOCK));
        assert!(reading.exactly(block.len()).await == block, "differs behind {received} bytes, seed {seed}");
        reading.forget();
        received += block.len();
    }
    reading
}

const BLOCK: usize = 128 * 1024;

#[tokio::test]
async fn much_goes_both_ways_at_once_unharmed() {
    const LENGTH: usize = 32 * 1024 * 1024;
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let (client, upstream) = open(&proxy, &server).await;
    let ((down, to_server), (up, to_client)) = (client.split(), upstream.split());
    let (to_server, to_client, up, down) = tokio::join!(
        tokio::spawn(send_random(to_server, 5, LENGTH)),
        tokio::spawn(send_random(to_client, 6, LENGTH)),
        tokio::spawn(receive_random(up, 5, LENGTH)),
        tokio::spawn(receive_random(down, 6, LENGTH)),
    );
    let ends = (to_server, to_client, up, down);
    assert!(matches!(ends, (Ok(_), Ok(_), Ok(_), Ok(_))), "a direction failed");
    drop(ends);
    let line = proxy.logged_path("/ws").await;
    let length = LENGTH as u64;
    assert!(line["bytes_in"].as_u64() >= Some(length) && line["bytes_out"].as_u64() >= Some(length), "{line}");
}

#[tokio::test]
async fn a_slow_reader_holds_up_its_sender_and_nobody_else() {
    const LENGTH: usize = 48 * 1024 * 1024;
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).threads(1).run().await;
    let (slow_client, slow_upstream) = open(&proxy, &server).await;
    let (mut client, mut upstream) = open(&proxy, &server).await;
    let ((slow, _to_server), (_from_client, mut to_client)) = (slow_client.split(), slow_upstream.split());
    let block = Random::seeded(7).bytes(LENGTH);
    let sent = to_client.send_until_stopped(&block, seconds(1)).await;
    assert!(sent < 32 * 1024 * 1024, "{sent} bytes were taken for a client that reads none");

    for _ in 0..20 {
        client.send(masked_frame("ping")).await;
        upstream.exactly(10).await;
        upstream.send(frame("pong")).await;
        client.exactly(6).await;
    }
    let rest = block[sent..].to_vec();
    let sending = tokio::spawn(async move {
        to_client.send(&rest).await;
        to_client
    });
    receive_random(slow, 7, LENGTH).await;
    sending.await.expect("the sender holds");
}

#[tokio::test]
async fn a_client_that_stops_reading_is_given_up_after_the_send_timeout() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).timeouts("{ send: 1s }").run().await;
    let (client, upstream) = open(&proxy, &server).await;
    let (_from_client, mut to_client) = upstream.split();
    let all = to_client.flood(&[b'x'; 65536], 64 * 1024 * 1024).await;
    assert!(!all, "64 MiB were taken for a client that reads none");
    let line = proxy.logged_path("/ws").await;
    assert_eq!(line["end_reason"], "client_stalled", "{line}");
    drop(client);
    proxy.settles_empty().await;
}
