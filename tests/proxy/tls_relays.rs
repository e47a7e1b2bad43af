//! Connections that stay, on TLS on one side or on both.

use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use serde_json::json;

use crate::harness::client::SWITCHING;
use crate::harness::node::NodeServer;
use crate::harness::tls::listening;
use crate::harness::websocket::{close, frame, masked, masked_frame, next_frame, short};
use crate::harness::{
    Authority, Node, Proxy, Random, Shaking, Upstream, Wire, millis, seconds, soon, websocket_request, within,
};

const NAME: &str = "chat.example.com";
const EVENTS: &str = "GET /events HTTP/1.1\r\nHost: chat.example.com\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A proxy between TLS and TLS.
struct Between {
    proxy: Proxy,
    server: Upstream,
    client: Shaking,
    _authority: Authority,
}

impl Between {
    async fn with(setup: impl FnOnce(crate::harness::proxy::Setup) -> crate::harness::proxy::Setup) -> Self {
        let authority = Authority::new();
        let server = Upstream::encrypted(authority.server(&authority.vouch_for(&["127.0.0.1"]))).await;
        let start = Proxy::start().listening(&listening(&[&authority.vouch_for(&[NAME])]));
        let start = start.upstream("chat", &[&server]).tls(&format!("{{ ca: {} }}", authority.file().display()));
        let proxy = setup(start).run().await;
        Self { client: authority.client(), proxy, server, _authority: authority }
    }

    async fn websocket(&self) -> (Wire, Wire) {
        let mut client = self.client.connect(&self.proxy, NAME).await;
        client.send(websocket_request("/ws", "")).await;
        let mut upstream = self.server.accept().await;
        upstream.request().await;
        upstream.send(SWITCHING).await;
        assert_eq!(client.head().await.status(), 101);
        (client, upstream)
    }

    async fn events(&self, request: &str, head: &str) -> (Wire, Wire) {
        let mut client = self.client.connect(&self.proxy, NAME).await;
        client.send(request).await;
        let mut upstream = self.server.accept().await;
        upstream.request().await;
        upstream.send(head).await;
        assert_eq!(client.head().await.status(), 200);
        (client, upstream)
    }

    async fn ends_as(&self, path: &str, reason: &str) {
        assert_eq!(self.proxy.logged_path(path).await["end_reason"], reason);
        self.proxy.settles_empty().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn megabytes_cross_both_ways_in_random_pieces() {
    const LENGTH: usize = 8 << 20;
    let between = Between::with(|setup| setup).await;
    for round in 0..2_u64 {
        let (client, upstream) = between.websocket().await;
        let ((mut client_in, client_out), (mut upstream_in, upstream_out)) = (client.split(), upstream.split());
        let begin = [&[0x82, 127][..], &(1u64 << 40).to_be_bytes()].concat();
        let masked_begin = [&[0x82, 255][..], &(1u64 << 40).to_be_bytes(), &[0; 4]].concat();
        let feed = move |mut out: crate::harness::Writing, begin: Vec<u8>, seed: u64| async move {
            let mut random = Random::seeded(seed);
            out.send(&begin).await;
            let mut sent = 0_usize;
            while sent < LENGTH {
                let piece = random.up_to(40_000).min(LENGTH - sent);
                let bytes: Vec<u8> = (sent..sent + piece).map(|at| (at % 249) as u8).collect();
                out.send(&bytes).await;
                sent += piece;
            }
            out
        };
        let up = tokio::spawn(feed(client_out, masked_begin.clone(), 2 * round));
        let down = tokio::spawn(feed(upstream_out, begin.clone(), 2 * round + 1));
        let check = |begin: Vec<u8>, bytes: Vec<u8>| {
            assert_eq!(&bytes[..begin.len()], begin);
            assert!(bytes[begin.len()..].iter().enumerate().all(|(at, byte)| *byte == (at % 249) as u8));
        };
        let both = async {
            tokio::join!(client_in.exactly(begin.len() + LENGTH), upstream_in.exactly(masked_begin.len() + LENGTH))
        };
        let (at_client, at_server) = within(seconds(120), "megabytes", both).await;
        check(begin, at_client);
        check(masked_begin, at_server);
        drop((up.await.expect("it was sent"), down.await.expect("it was sent")));
    }
    between.proxy.settles_empty().await;
}

#[tokio::test]
async fn keepalives_are_inserted_on_tls() {
    let between = Between::with(|setup| setup.sse("{ keepalive: 1s }").websocket("{ ping: 1s }")).await;
    let (mut client, mut upstream) = between.events(EVENTS, CHUNKED).await;
    client.until(b":keepalive\n").await;
    upstream.send("9\r\ndata: 1\n\n\r\n").await;
    client.until(b"data: 1\n\n").await;
    client.until(b":keepalive\n").await;
    drop((client, upstream));
    let (mut client, upstream) = between.websocket().await;
    let (first, payload) = next_frame(&mut client).await;
    assert_eq!(first, 0x89);
    client.send(masked(0x8a, &payload, [1, 2, 3, 4])).await;
    assert_eq!(next_frame(&mut client).await.0, 0x89);
    drop((client, upstream));
    between.proxy.settles_empty().await;
}

#[tokio::test]
async fn either_side_may_leave_with_or_without_a_goodbye() {
    let between = Between::with(|setup| setup).await;
    // The client: a browser closes as it pleases.
    for goodbye in [true, false] {
        let (mut client, mut upstream) = between.websocket().await;
        client.send(masked_frame("last words")).await;
        if goodbye {
            client.finish().await;
        } else {
            drop(client);
        }
        upstream.exactly(16).await;
        assert!(upstream.ends_with_goodbye().await);
        drop(upstream);
    }
    between.proxy.settles("steadfast_ends_total", &[("end_reason", "client_closed")], 2.0).await;
    // The server: a WebSocket says itself whether it is whole.
    for goodbye in [true, false] {
        let (mut client, mut upstream) = between.websocket().await;
        upstream.send(frame("last words")).await;
        if goodbye {
            upstream.finish().await;
        } else {
            drop(upstream);
        }
        client.exactly(12).await;
        assert!(client.ends_with_goodbye().await);
        drop(client);
    }
    between.proxy.settles("steadfast_ends_total", &[("end_reason", "server_closed")], 2.0).await;
    between.proxy.settles_empty().await;
}

#[tokio::test]
async fn one_direction_may_end_before_the_other() {
    let between = Between::with(|setup| setup).await;
    let (mut client, mut upstream) = between.websocket().await;
    client.finish().await;
    assert!(upstream.ends_with_goodbye().await);
    upstream.send(frame("still here")).await;
    assert_eq!(client.exactly(12).await, frame("still here"));
    upstream.finish().await;
    assert!(client.ends_with_goodbye().await);
    drop((client, upstream));
    between.ends_as("/ws", "client_closed").await;
}

#[tokio::test]
async fn a_stream_that_is_cut_off_is_not_taken_for_whole() {
    let between = Between::with(|setup| setup).await;
    let old = "GET /old HTTP/1.0\r\nHost: chat.example.com\r\n\r\n";
    let until_close = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    for (request, path) in [(EVENTS, "/events"), (old, "/old")] {
        for goodbye in [true, false] {
            let (mut client, mut upstream) = between.events(request, until_close).await;
            upstream.send("data: 1\n\n").await;
            client.until(b"data: 1\n\n").await;
            if goodbye {
                upstream.finish().await;
            } else {
                drop(upstream);
            }
            let reason = if goodbye { "server_closed" } else { "server_error" };
            let has_ended = |line: &serde_json::Value| line["path"] == path && line["end_reason"] == reason;
            if path == "/old" {
                // Its end is all there is to tell.
                assert_eq!(client.ends_with_goodbye().await, goodbye);
            } else if goodbye {
                client.until(b"0\r\n\r\n").await;
            } else {
                let rest = client.rest().await;
                assert!(!rest.ends_with(b"0\r\n\r\n"), "{}", rest.escape_ascii());
            }
            drop(client);
            between.proxy.logged(has_ended).await;
        }
    }
    between.proxy.settles_empty().await;
}

#[tokio::test]
async fn a_stream_leaves_the_connection_as_it_was() {
    let between = Between::with(|setup| setup).await;
    let (mut client, mut upstream) = between.events(EVENTS, CHUNKED).await;
    for round in 0..3 {
        upstream.send("9\r\ndata: 1\n\n\r\n0\r\n\r\n").await;
        client.until(b"0\r\n\r\n").await;
        client.send(EVENTS).await;
        if round < 2 {
            upstream = between.server.accept().await;
            upstream.request().await;
            upstream.send(CHUNKED).await;
            assert_eq!(client.head().await.status(), 200);
        }
    }
    drop((client, upstream));
    between.proxy.settles_empty().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_its_server_and_costs_a_buffer() {
    let between = Between::with(|setup| setup.timeouts("{ send: 3s }")).await;
    let tcp = {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(8 * 1024).expect("a socket can be narrow");
        socket.connect(between.proxy.address()).await.expect("the proxy listens")
    };
    let mut client = between.client.over(tcp, NAME).await.expect("a handshake");
    client.send(websocket_request("/slow", "")).await;
    let mut upstream = between.server.accept().await;
    upstream.request().await;
    upstream.send(SWITCHING).await;
    client.head().await;
    let before = between.proxy.memory();
    upstream.send([&[0x82, 127][..], &(1u64 << 62).to_be_bytes()].concat()).await;
    let (reading, mut writing) = upstream.split();
    let mut taken = 0;
    loop {
        let more = writing.send_until_stopped(&[b'x'; 16 * 1024], millis(700)).await;
        taken += more;
        assert!(taken < 64 << 20, "nothing stops the server");
        if more < 16 * 1024 {
            break;
        }
    }
    let held = between.proxy.memory().saturating_sub(before);
    assert!(held < 512 * 1024, "{held} bytes are held for one slow reader");
    let line = between.proxy.logged_path("/slow").await;
    assert_eq!(line["end_reason"], "client_stalled");
    drop((client, reading, writing));
    between.proxy.settles_empty().await;
}

#[tokio::test]
async fn a_drained_relay_says_its_close_and_goodbye() {
    let mut between = Between::with(|setup| setup).await;
    let (mut client, mut upstream) = between.websocket().await;
    let (mut listener, stream) = between.events(EVENTS, CHUNKED).await;
    between.proxy.terminate();
    assert_eq!(next_frame(&mut client).await, (0x88, close(1012, "service restart")));
    client.send(masked(0x88, &close(1012, ""), [0; 4])).await;
    assert_eq!(next_frame(&mut upstream).await.0, 0x88);
    upstream.send(short(0x88, &close(1001, ""))).await;
    listener.until(b"0\r\n\r\n").await;
    assert!(listener.ends_with_goodbye().await);
    drop((client, upstream, listener, stream));
    soon("the proxy to end", between.proxy.exit()).await;
}

#[tokio::test]
async fn a_long_poll_is_parked_and_answered_on_tls() {
    let between = Between::with(|setup| setup).await;
    for version in [&TLS12, &TLS13] {
        let client = between.client.clone().only(&between._authority, version);
        let mut client = client.connect(&between.proxy, NAME).await;
        client.send("GET /poll HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut upstream = between.server.accept().await;
        upstream.request().await;
        tokio::time::sleep(Duration::from_millis(1600)).await;
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
        assert_eq!(client.response().await.text(), "hello");
        // One that leaves is noticed, with or without a goodbye.
        client.send("GET /left HTTP/1.1\r\nHost: a\r\n\r\n").await;
        upstream.request().await;
        tokio::time::sleep(Duration::from_millis(1300)).await;
        drop(client);
        assert!(!upstream.ends_with_goodbye().await);
        assert_eq!(between.proxy.logged_path("/left").await["end_reason"], "client_closed");
    }
    between.proxy.settles_empty().await;
}

/// The environment of a Node that trusts `authority`.
fn trusting(authority: &Authority) -> [(&'static str, String); 1] {
    [("NODE_EXTRA_CA_CERTS", authority.file().display().to_string())]
}

#[tokio::test]
async fn a_real_websocket_client_and_server_meet_over_tls() {
    let authority = Authority::new();
    let server = NodeServer::websocket().await;
    let files = authority.vouch_for(&["127.0.0.1", "localhost"]);
    let proxy = Proxy::start().listening(&listening(&[&files])).upstream("chat", &[&server]).run().await;
    let url = format!("wss://localhost:{}/ws", proxy.address().port());
    let argument = json!({ "url": url, "compresses": true });
    let mut client = Node::script_with("websocket_client.js", &argument, &trusting(&authority));
    soon("the client to open", client.says("open")).await;
    let texts: Vec<_> = (0..20).map(|number| "x".repeat(number * 997)).collect();
    client.tell(&json!({ "say": texts }));
    let echoed = soon("the echoes", client.says("echoed")).await;
    assert_eq!(echoed, json!(texts));
    client.kill();
    proxy.settles_empty().await;
}

#[tokio::test]
async fn a_real_event_source_follows_a_stream_over_tls() {
    let authority = Authority::new();
    let server = Upstream::serving(|mut wire| async move {
        wire.request().await;
        wire.send(CHUNKED).await;
        for number in 0..5 {
            tokio::time::sleep(millis(400)).await;
            wire.send(format!("9\r\ndata: {number}\n\n\r\n")).await;
        }
        wire.send("0\r\n\r\n").await;
    })
    .await;
    let files = authority.vouch_for(&["localhost"]);
    let setup = Proxy::start().listening(&listening(&[&files])).upstream("chat", &[&server]);
    let proxy = setup.sse("{ keepalive: 1s }").run().await;
    let urls = json!({ "urls": [format!("https://localhost:{}/events", proxy.address().port())] });
    let client = Node::script_with("event_source.js", &urls, &trusting(&authority));
    let events = within(seconds(30), "the events", client.says("events")).await;
    let data: Vec<_> = events[0].as_array().expect("events").iter().map(|event| event["data"].clone()).collect();
    assert_eq!(json!(data), json!(["0", "1", "2", "3", "4"]));
}

#[tokio::test]
async fn real_socket_io_clients_talk_to_servers_over_tls_on_both_sides() {
    const CLIENTS: usize = 20;
    let authority = Authority::new();
    let files = authority.vouch_for(&["127.0.0.1", "localhost"]);
    let identity = (files.cert.display().to_string(), files.key.display().to_string());
    let mut servers = Vec::new();
    for name in ["red", "green"] {
        let argument = json!({ "name": name, "cert": identity.0, "key": identity.1 });
        servers.push(NodeServer::listening(Node::script("socket_io_server.js", &argument)).await);
    }
    let ca = authority.file().display();
    let setup = Proxy::start().listening(&listening(&[&files])).upstream("chat", &[&servers[0], &servers[1]]);
    let proxy = setup.tls(&format!("{{ ca: {ca} }}")).run().await;
    for (network, mode) in ["polling", "upgrade", "websocket"].into_iter().enumerate() {
        let argument = json!({
            "url": format!("https://localhost:{}", proxy.address().port()),
            "mode": mode,
            "network": network,
            "count": CLIENTS,
            "messages": 4,
        });
        let clients = Node::script_with("socket_io_clients.js", &argument, &trusting(&authority));
        let reports = within(seconds(60), "the clients to talk", clients.says("talked")).await;
        let reports = reports.as_array().expect("a list").clone();
        assert_eq!(reports.len(), CLIENTS);
        for report in &reports {
            assert_eq!((&report["disconnects"], &report["errors"]), (&json!(0), &json!([])), "{mode}: {report}");
        }
        clients.kill();
    }
    let refused: usize = servers.iter().map(|server| server.node.said("refused").len()).sum();
    assert_eq!(refused, 0);
    proxy.settles_empty().await;
}
