//! The PROXY protocol: hops below HTTP that say who their clients are, and servers that are told.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

use crate::harness::client::SWITCHING;
use crate::harness::proxy::Setup;
use crate::harness::upstream::ok;
use crate::harness::websocket::{frame, masked_frame};
use crate::harness::{
    Haproxy, Message, Nginx, Proxy, ServerEntry, Upstream, Weighted, Wire, millis, seconds, show, soon,
    websocket_request,
};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
const LOCAL: &str = "[127.0.0.0/8]";
const OTHERS: &str = "[10.0.0.0/8]";
const REFUSED: &str = "steadfast_proxy_protocol_refused_total";

fn v1(client: &str) -> Vec<u8> {
    let family = if client.contains(':') { "TCP6" } else { "TCP4" };
    let here = if client.contains(':') { "::1" } else { "192.0.2.99" };
    format!("PROXY {family} {client} {here} 4711 443\r\n").into_bytes()
}

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("a short body").to_be_bytes();
    [SIGNATURE, &[command, family], &length, body].concat()
}

/// Version 2 with an addition behind the addresses.
fn v2_of(client: [u8; 4]) -> Vec<u8> {
    v2(0x21, 0x11, &[&client, &[192, 0, 2, 99], &[0x12, 0x67, 1, 187], b"\x03\0\x04abcd".as_slice()].concat())
}

fn listening(mode: &str, trusted: &str) -> Setup {
    Proxy::start().listening(&format!("proxy_protocol: {mode}")).trusting(trusted)
}

/// A server that answers with the `X-Forwarded-For` that it got.
async fn telling() -> Upstream {
    Upstream::serving(|mut wire| async move {
        while let Some(request) = wire.next_request().await {
            wire.send(ok(&request.head.field("x-forwarded-for").unwrap_or_default())).await;
        }
    })
    .await
}

/// What the server was told when a connection began with these bytes.
async fn told(proxy: &Proxy, header: &[u8]) -> String {
    let answer = proxy.exchange([header, GET.as_bytes()].concat()).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.text()
}

#[tokio::test]
async fn whom_a_header_names_is_the_previous_hop() {
    let server = telling().await;
    for mode in ["on", "optional"] {
        let proxy = listening(mode, LOCAL).upstream("chat", &[&server]).affinity("[client_ip]").run().await;
        assert_eq!(told(&proxy, &v1("203.0.113.7")).await, "203.0.113.7");
        assert_eq!(told(&proxy, &v1("2001:db8::7")).await, "2001:db8::7");
        assert_eq!(told(&proxy, &v1("::ffff:203.0.113.8")).await, "203.0.113.8");
        assert_eq!(told(&proxy, &v2_of([203, 0, 113, 9])).await, "203.0.113.9");
        let line = proxy.logged(|line| line["client"] == "203.0.113.9").await;
        assert_eq!(line["previous_hop"], "203.0.113.9");
        assert_eq!(line["proxied_by"], "127.0.0.1");
        assert_eq!(line["affinity"], "client_ip");
        assert_eq!(proxy.metrics().await.sum(REFUSED, &[]), 0.0);
    }
}

#[tokio::test]
async fn trust_goes_on_from_whom_a_header_names() {
    let server = telling().await;
    let proxy = listening("on", "[127.0.0.0/8, 198.51.100.0/24]").upstream("chat", &[&server]).run().await;
    let get = "GET /x HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n";
    for (named, told, client) in
        [("198.51.100.7", "192.0.2.1, 198.51.100.7", "192.0.2.1"), ("203.0.113.7", "203.0.113.7", "203.0.113.7")]
    {
        let answer = proxy.exchange([&v1(named), get.as_bytes()].concat()).await;
        assert_eq!(answer.text(), told);
        let line = proxy.logged(|line| line["previous_hop"] == named).await;
        assert_eq!(line["client"], client);
    }
}

#[tokio::test]
async fn a_header_that_names_nobody_leaves_the_hop_as_it_is() {
    let server = telling().await;
    let proxy = listening("on", LOCAL).upstream("chat", &[&server]).run().await;
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 203.0.113.7 192.0.2.99 4711 443\r\n".to_vec(),
        v2(0x20, 0, &[]),
        v2(0x20, 0x11, &[203, 0, 113, 7, 192, 0, 2, 99, 0, 80, 0, 80]),
        v2(0x21, 0, &[]),
        v2(0x21, 0x31, &[b'/'; 216]),
    ] {
        assert_eq!(told(&proxy, &header).await, "127.0.0.1", "{}", header.escape_ascii());
    }
    assert_eq!(proxy.logged_path("/x").await["proxied_by"], serde_json::Value::Null);
}

#[tokio::test]
async fn a_header_may_come_in_any_pieces() {
    let server = telling().await;
    let proxy = listening("on", LOCAL).upstream("chat", &[&server]).run().await;
    for header in [v1("203.0.113.7"), v2_of([203, 0, 113, 7])] {
        let bytes = [&header, GET.as_bytes()].concat();
        let mut drops = proxy.connect().await;
        for byte in &bytes {
            drops.send([*byte]).await;
            tokio::time::sleep(millis(1)).await;
        }
        assert_eq!(drops.response().await.text(), "203.0.113.7");
        for cut in [1, 6, 11, 12, 13, 15, 16, 17, header.len() - 1, header.len(), header.len() + 1] {
            let mut halves = proxy.send(&bytes[..cut]).await;
            tokio::time::sleep(millis(5)).await;
            halves.send(&bytes[cut..]).await;
            assert_eq!(halves.response().await.text(), "203.0.113.7", "cut at {cut}");
        }
    }
}

#[tokio::test]
async fn what_is_glued_to_a_header_is_not_lost() {
    let server = Upstream::named("a").await;
    let proxy = listening("on", LOCAL).upstream("chat", &[&server]).run().await;
    // More than one read holds, in the head of a request and then in a batch of them.
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n", "x".repeat(9_000));
    for (requests, count) in [(long, 1), (GET.repeat(300), 300)] {
        let header =
            v2(0x21, 0x11, &[&[203, 0, 113, 7, 192, 0, 2, 99, 0, 80, 0, 80], [0xEE; 4_000].as_slice()].concat());
        let client = proxy.send([&header, requests.as_bytes()].concat()).await;
        let (mut client, _writing) = client.split();
        for _ in 0..count {
            assert_eq!(client.response().await.text(), "a");
        }
    }
}

#[tokio::test]
async fn a_header_holds_for_all_requests_of_its_connection() {
    let server = telling().await;
    let proxy = listening("on", LOCAL).upstream("chat", &[&server]).run().await;
    let mut client = proxy.send(v1("203.0.113.7")).await;
    for _ in 0..3 {
        tokio::time::sleep(millis(20)).await;
        client.send(GET).await;
        assert_eq!(client.response().await.text(), "203.0.113.7");
    }
    // A second one is no request.
    client.send(v1("203.0.113.8")).await;
    assert_eq!(client.response().await.status(), 400);
}

#[tokio::test]
async fn a_header_holds_for_requests_behind_a_stream_and_behind_a_wait() {
    let server = Upstream::start().await;
    let proxy = listening("on", LOCAL).upstream("chat", &[&server]).run().await;
    let mut client = proxy.send([v1("203.0.113.7"), GET.as_bytes().to_vec()].concat()).await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    let stream = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    upstream.send(format!("{stream}9\r\ndata: 1\n\n\r\n0\r\n\r\n")).await;
    assert!(client.response().await.text().ends_with("data: 1\n\n"));
    drop(upstream);

    client.send(GET.replace("/x", "/behind")).await;
    let mut upstream = server.accept().await;
    assert_eq!(upstream.request().await.head.field("x-forwarded-for").as_deref(), Some("203.0.113.7"));
    tokio::time::sleep(millis(1300)).await;
    upstream.send(ok("late")).await;
    assert_eq!(client.response().await.text(), "late");
    let line = proxy.logged_path("/behind").await;
    assert_eq!((&line["previous_hop"], &line["proxied_by"]), (&"203.0.113.7".into(), &"127.0.0.1".into()));
}

#[tokio::test]
async fn what_stays_begins_with_a_header_too() {
    let server = Upstream::start().await;
    let proxy = listening("on", LOCAL).upstream("chat", &[&server]).run().await;
    let mut client = proxy.send([v1("203.0.113.7"), websocket_request("/ws", "").into_bytes()].concat()).await;
    let mut upstream = server.accept().await;
    assert_eq!(upstream.request().await.head.field("x-forwarded-for").as_deref(), Some("203.0.113.7"));
    upstream.send(SWITCHING).await;
    assert_eq!(client.head().await.status(), 101);
    client.send(masked_frame("up")).await;
    assert_eq!(upstream.exactly(masked_frame("up").len()).await, masked_frame("up"));
    upstream.send(frame("down")).await;
    assert_eq!(client.exactly(frame("down").len()).await, frame("down"));
    drop((client, upstream));
    let line = proxy.logged_path("/ws").await;
    assert_eq!((&line["client"], &line["proxied_by"]), (&"203.0.113.7".into(), &"127.0.0.1".into()));

    let mut client = proxy.send([v2_of([203, 0, 113, 8]), GET.as_bytes().to_vec()].concat()).await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n").await;
    assert_eq!(client.head().await.status(), 200);
    assert_eq!(client.chunk().await.as_deref(), Some(b"data: 1\n\n".as_slice()));
    drop((client, upstream));
    let line = proxy.logged(|line| line["kind"] == "sse").await;
    assert_eq!(line["previous_hop"], "203.0.113.8");
    proxy.settles_empty().await;
}

/// How often the log has said something of this kind.
fn said(proxy: &Proxy, words: &str) -> usize {
    proxy.said().iter().filter(|line| line.contains(words)).count()
}

#[tokio::test]
async fn strangers_are_closed_out_where_headers_must_be() {
    let server = telling().await;
    let proxy = listening("on", OTHERS).upstream("chat", &[&server]).run().await;
    for bytes in [&[v1("203.0.113.7"), GET.into()].concat(), GET.as_bytes(), b""] {
        proxy.send(bytes).await.ends().await;
    }
    proxy.settles(REFUSED, &[("reason", "untrusted")], 3.0).await;
    assert_eq!(said(&proxy, "127.0.0.1 is not among trusted_proxies"), 1, "{:?}", proxy.said());
    assert_eq!(server.accepted(), 0);
    proxy.settles_empty().await;
}

#[tokio::test]
async fn a_trusted_hop_must_send_a_header_where_it_must_be() {
    let server = telling().await;
    let proxy = listening("on", LOCAL).upstream("chat", &[&server]).timeouts("{ request_head: 500ms }").run().await;
    for (bytes, reason) in [
        (GET.into(), "missing"),
        (b"\x16\x03\x01\x02\0".to_vec(), "missing"),
        (b"PROXY TCP4 203.0.113.7  192.0.2.99 4711 443\r\n".to_vec(), "malformed"),
        (b"PROXY TCP4 203.0.113.7 192.0.2.99 04711 443\r\n".to_vec(), "malformed"),
        (v2(0x31, 0x11, &[0; 12]), "malformed"),
        (v2(0x21, 0x11, &[0; 11]), "malformed"),
        ([b"PROXY UNKNOWN".as_slice(), &[b' '; 200]].concat(), "too_long"),
        (v2(0x21, 0x11, &[0; 5_000]), "too_long"),
        (v1("203.0.113.7")[..20].to_vec(), "incomplete"),
        (v2_of([1, 2, 3, 4])[..20].to_vec(), "incomplete"),
        (Vec::new(), "silent"),
    ] {
        let before = proxy.metrics().await.sum(REFUSED, &[("reason", reason)]);
        proxy.send(&bytes).await.ends().await;
        let after = proxy.metrics().await.sum(REFUSED, &[("reason", reason)]);
        assert_eq!(after - before, 1.0, "{reason}: {}", show(&bytes));
    }
    assert_eq!(said(&proxy, "sends no PROXY header"), 1, "{:?}", proxy.said());
    assert_eq!(said(&proxy, "makes no sense"), 1, "{:?}", proxy.said());
    assert_eq!(server.accepted(), 0);
    proxy.settles_empty().await;
}

#[tokio::test]
async fn a_header_that_drips_is_cut_off() {
    let server = telling().await;
    let proxy = listening("on", LOCAL).upstream("chat", &[&server]).timeouts("{ request_head: 1s }").run().await;
    let (mut client, mut writing) = proxy.connect().await.split();
    let dripping = tokio::spawn(async move {
        for byte in v1("203.0.113.7").iter().cycle() {
            tokio::time::sleep(millis(100)).await;
            if !writing.flood(&[*byte], 1).await {
                return;
            }
        }
    });
    client.ends().await;
    drop(client);
    soon("the dripping to end", dripping).await.expect("it ends by itself");
    assert_eq!(proxy.metrics().await.sum(REFUSED, &[("reason", "incomplete")]), 1.0);
}

#[tokio::test]
async fn a_health_check_that_only_connects_is_no_refusal() {
    let server = telling().await;
    let proxy = listening("on", LOCAL).upstream("chat", &[&server]).run().await;
    for _ in 0..3 {
        drop(proxy.connect().await);
        proxy.connect().await.reset();
    }
    proxy.settles_empty().await;
    assert_eq!(proxy.metrics().await.sum(REFUSED, &[]), 0.0);
}

#[tokio::test]
async fn a_client_that_has_nothing_to_ask_yet_may_wait() {
    let server = telling().await;
    let proxy = listening("on", LOCAL).upstream("chat", &[&server]).timeouts("{ request_head: 1s }").run().await;
    let mut client = proxy.send(v1("203.0.113.7")).await;
    tokio::time::sleep(millis(700)).await;
    client.send(GET).await;
    assert_eq!(client.response().await.text(), "203.0.113.7");
}

#[tokio::test]
async fn where_headers_are_optional_a_trusted_hop_may_leave_them_out() {
    let server = telling().await;
    let proxy = listening("optional", LOCAL).upstream("chat", &[&server]).run().await;
    assert_eq!(told(&proxy, b"").await, "127.0.0.1");
    // What looks like one for a while.
    let mut client = proxy.send("P").await;
    tokio::time::sleep(millis(20)).await;
    client.send("UT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "127.0.0.1");
    assert_eq!(told(&proxy, b"\r\n").await, "127.0.0.1");
    // What begins as one must be one.
    proxy.send("PROXY / HTTP/1.1\r\nHost: a\r\n\r\n").await.ends().await;
    proxy.settles(REFUSED, &[("reason", "malformed")], 1.0).await;
}

#[tokio::test]
async fn a_stranger_cannot_name_anybody() {
    let server = telling().await;
    for (mode, trusted) in [("optional", OTHERS), ("off", OTHERS), ("off", LOCAL)] {
        let proxy = listening(mode, trusted).upstream("chat", &[&server]).run().await;
        for header in [v1("203.0.113.7"), v2_of([203, 0, 113, 7])] {
            let answer = proxy.exchange([&header, GET.as_bytes()].concat()).await;
            assert_eq!(answer.status(), 400, "{mode}: {}", answer.text());
        }
        assert_eq!(told(&proxy, b"").await, "127.0.0.1");
        assert_eq!(proxy.metrics().await.sum(REFUSED, &[]), 0.0);
    }
    assert!(server.accepted() <= 3, "only the requests without a header reached it");
}

#[tokio::test]
async fn a_connection_without_its_header_does_not_hold_up_the_end() {
    let server = telling().await;
    let mut proxy = listening("on", LOCAL).upstream("chat", &[&server]).run().await;
    let mut waiting = proxy.send("PROXY ").await;
    proxy.settles("steadfast_client_connections", &[], 1.0).await;
    proxy.terminate();
    waiting.ends().await;
    assert!(soon("the proxy to end", proxy.exit()).await.success());
}

/// A client with an address of its own: all of 127/8 is this machine.
async fn client(number: u8, to: SocketAddr) -> Wire {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((Ipv4Addr::new(127, 0, 1, number), 0).into()).expect("an address of this machine");
    Wire::new(soon("a connection", socket.connect(to)).await.expect("somebody listens"), "client")
}

#[tokio::test]
async fn a_real_haproxy_names_its_clients() {
    let server = telling().await;
    for options in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id,crc32c"] {
        let proxy = listening("on", "[127.0.0.1]").upstream("chat", &[&server]).run().await;
        let hop = Haproxy::hop(proxy.address(), options);
        let mut first = client(7, hop.address()).await;
        for _ in 0..2 {
            first.send(GET).await;
            assert_eq!(first.response().await.text(), "127.0.1.7", "{options}");
        }
        let mut other = client(8, hop.address()).await;
        other.send(GET).await;
        assert_eq!(other.response().await.text(), "127.0.1.8", "{options}");
        assert_eq!(proxy.logged(|line| line["client"] == "127.0.1.8").await["proxied_by"], "127.0.0.1");
    }
}

#[tokio::test]
async fn clients_behind_a_hop_below_http_spread_and_stay() {
    let servers = [Upstream::named("a").await, Upstream::named("b").await, Upstream::named("c").await];
    let weighted: Vec<_> = servers.iter().map(|server| Weighted(server, 4)).collect();
    let entries: Vec<&dyn ServerEntry> = weighted.iter().map(|server| server as &dyn ServerEntry).collect();
    let proxy = listening("on", "[127.0.0.1]").upstream("chat", &entries).affinity("[client_ip]").run().await;
    let hop = Haproxy::hop(proxy.address(), "send-proxy-v2");
    let mut used = BTreeSet::new();
    for number in 1..=40 {
        let mut owners = BTreeSet::new();
        for _ in 0..2 {
            let mut wire = client(number, hop.address()).await;
            wire.send(GET).await;
            owners.insert(wire.response().await.text());
        }
        assert_eq!(owners.len(), 1, "client {number}");
        used.extend(owners);
    }
    assert_eq!(used.len(), 3, "{used:?}");
}

/// The header of version 1 on a connection to a server, and the request behind it.
async fn introduced(upstream: &mut Wire) -> (String, Message) {
    let header = String::from_utf8(upstream.until(b"\r\n").await).expect("a header is text");
    (header, upstream.request().await)
}

#[tokio::test]
async fn servers_are_told_of_the_connection_that_is_passed_on() {
    let server = Upstream::start().await;
    let proxy = listening("optional", LOCAL).upstream("chat", &[&server]).send_proxy_protocol("v1").run().await;
    let here = proxy.address().port();
    let forwarded = |by: &str| format!("GET /x HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {by}\r\n\r\n").into_bytes();
    for (request, expected) in [
        // Named by a hop, with both ends.
        ([v1("203.0.113.7"), GET.into()].concat(), "TCP4 203.0.113.7 192.0.2.99 4711 443".to_owned()),
        ([v1("2001:db8::7"), GET.into()].concat(), "TCP6 2001:db8::7 ::1 4711 443".to_owned()),
        // Named by a proxy, which says no port.
        (forwarded("192.0.2.1"), format!("TCP4 192.0.2.1 127.0.0.1 0 {here}")),
        (forwarded("2001:db8::1"), format!("TCP6 2001:db8::1 ::ffff:127.0.0.1 0 {here}")),
    ] {
        let mut client = proxy.send(&request).await;
        let mut upstream = server.accept().await;
        let (header, _) = introduced(&mut upstream).await;
        assert_eq!(header, format!("PROXY {expected}\r\n"));
        upstream.send(ok("fine")).await;
        assert_eq!(client.response().await.text(), "fine");
    }
    // Nobody has named it.
    let _client = proxy.send(GET).await;
    let (header, _) = introduced(&mut server.accept().await).await;
    assert!(header.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 "), "{header}");
    assert!(header.ends_with(&format!(" {here}\r\n")), "{header}");
}

#[tokio::test]
async fn a_server_that_is_told_of_one_client_never_serves_another() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).send_proxy_protocol("v1").threads(1).run().await;
    let mut first = proxy.send(GET).await;
    let mut to_first = server.accept().await;
    introduced(&mut to_first).await;
    to_first.send(ok("1")).await;
    assert_eq!(first.response().await.text(), "1");
    // Another connection of the same address is another client: its port is.
    let mut other = proxy.send(GET).await;
    let mut to_other = server.accept().await;
    introduced(&mut to_other).await;
    to_other.send(ok("2")).await;
    assert_eq!(other.response().await.text(), "2");
    // The first comes back, to its own, which gets no second header.
    first.send(GET).await;
    assert_eq!(to_first.request().await.head.start, "GET /x HTTP/1.1");
    to_first.send(ok("3")).await;
    assert_eq!(first.response().await.text(), "3");
    // Two clients in one connection, as proxies send them.
    let as_client = |by: &str| format!("GET /x HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {by}\r\n\r\n");
    for by in ["192.0.2.1", "192.0.2.2"] {
        first.send(as_client(by)).await;
        let mut upstream = server.accept().await;
        let (header, _) = introduced(&mut upstream).await;
        assert!(header.starts_with(&format!("PROXY TCP4 {by} 127.0.0.1 0 ")), "{header}");
        upstream.send(ok("4")).await;
        assert_eq!(first.response().await.text(), "4");
    }
    assert_eq!(server.accepted(), 4);
}

#[tokio::test]
async fn what_is_kept_for_a_client_is_not_kept_long() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).send_proxy_protocol("v2").run().await;
    let mut client = proxy.send(GET).await;
    let mut upstream = server.accept().await;
    assert_eq!(upstream.exactly(12).await, SIGNATURE);
    assert_eq!(upstream.exactly(4).await, [0x21, 0x11, 0, 12]);
    upstream.exactly(12).await;
    upstream.request().await;
    upstream.send(ok("1")).await;
    assert_eq!(client.response().await.text(), "1");
    upstream.stays_silent(seconds(2)).await;
    upstream.ends().await;
}

#[tokio::test]
async fn a_websocket_to_a_server_begins_with_a_header() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).send_proxy_protocol("v1").run().await;
    let mut client = proxy.send(websocket_request("/ws", "")).await;
    let mut upstream = server.accept().await;
    let (header, _) = introduced(&mut upstream).await;
    assert!(header.starts_with("PROXY TCP4 127.0.0.1 "), "{header}");
    upstream.send(SWITCHING).await;
    assert_eq!(client.head().await.status(), 101);
    client.send(masked_frame("up")).await;
    assert_eq!(upstream.exactly(masked_frame("up").len()).await, masked_frame("up"));
}

#[tokio::test]
async fn a_long_poll_to_a_server_begins_with_one_header() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).send_proxy_protocol("v1").run().await;
    let mut client = proxy.send(GET).await;
    let mut upstream = server.accept().await;
    introduced(&mut upstream).await;
    // Long enough for it to be parked, and made again.
    upstream.stays_silent(millis(1_500)).await;
    upstream.send(ok("late")).await;
    assert_eq!(client.response().await.text(), "late");
    client.send(GET).await;
    assert_eq!(upstream.request().await.head.start, "GET /x HTTP/1.1");
}

#[tokio::test]
async fn a_real_nginx_is_told_of_clients() {
    let nginx = Nginx::telling_clients().await;
    for version in ["v1", "v2"] {
        let proxy = listening("on", "[127.0.0.1]").upstream("chat", &[&nginx]).send_proxy_protocol(version).run().await;
        let get = "GET /told HTTP/1.1\r\nHost: a\r\n\r\n";
        for (header, expected) in [
            (v1("203.0.113.7"), "203.0.113.7 4711 192.0.2.99"),
            (v1("2001:db8::7"), "2001:db8::7 4711 ::1"),
            (v2_of([203, 0, 113, 9]), "203.0.113.9 4711 192.0.2.99"),
        ] {
            let mut client = proxy.send([&header, get.as_bytes()].concat()).await;
            for _ in 0..2 {
                assert_eq!(client.response().await.text(), expected, "{version}");
                client.send(get).await;
            }
        }
    }
}

#[tokio::test]
async fn a_client_is_known_through_two_proxies() {
    let server = telling().await;
    for version in ["v1", "v2"] {
        let inner = listening("on", "[127.0.0.1]").upstream("chat", &[&server]).run().await;
        let outer = listening("on", "[127.0.0.1]")
            .upstream("chat", &[&inner.address()])
            .send_proxy_protocol(version)
            .run()
            .await;
        assert_eq!(told(&outer, &v1("203.0.113.7")).await, "203.0.113.7");
        let line = inner.logged_path("/x").await;
        assert_eq!((&line["client"], &line["proxied_by"]), (&"203.0.113.7".into(), &"127.0.0.1".into()));
    }
}
