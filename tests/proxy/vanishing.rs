//! Peers that vanish without a word: no FIN, no reset, nothing more. Found by pings where there are
//! any, and by TCP otherwise.

use std::time::{Duration, Instant};

use crate::harness::network::Vanishing;
use crate::harness::proxy::Setup;
use crate::harness::relay::{open_events_on, open_tunnel_on};
use crate::harness::websocket::{frame, masked, masked_frame, next_frame, open, open_on};
use crate::harness::{Network, Proxy, Upstream, millis, seconds};

/// Three seconds, less than any test should wait and as little as TCP can be told.
const SHORT: &str = "tcp_keepalive: { time: 1s, interval: 1s, probes: 2 }";

/// What notices is quick, and this machine may be slow.
const NOTICED_BY: Duration = seconds(12);

fn proxy(server: &Upstream) -> Setup {
    Proxy::start().bind(Network::HERE).upstream("chat", &[server])
}

/// The proxy's account of who is gone: so many, for this reason, and nothing left open.
async fn check_gone(proxy: &Proxy, count: usize) {
    proxy.settles_empty().await;
    let reasons: Vec<_> = proxy.log().iter().map(|line| reason_of(line)).collect();
    assert_eq!(reasons, vec!["peer_gone"; count]);
}

fn reason_of(line: &str) -> String {
    let line: serde_json::Value = serde_json::from_str(line).expect("it is JSON");
    line["end_reason"].as_str().expect("every line has one").to_owned()
}

#[tokio::test]
async fn a_client_that_vanishes_is_gone_by_its_pings() {
    let Some(mut network) = Network::of_its_own(a_client_that_vanishes_is_gone_by_its_pings).await else { return };
    let server = Upstream::start().await;
    let proxy = proxy(&server).websocket("{ ping: 1s, pong_timeout: 1s }").run().await;
    let client = network.connect(proxy.address()).await;
    let (mut client, mut upstream) = open_on(client, &server).await;
    for _ in 0..2 {
        let (first, ping) = next_frame(&mut client).await;
        assert_eq!(first, 0x89);
        client.send(masked(0x8A, &ping, [0; 4])).await;
    }
    network.vanish(Vanishing::OnTheWay).await;
    let began = Instant::now();
    upstream.ends().await;
    drop(upstream);
    let took = began.elapsed();
    println!("gone after {took:?} with pings");
    assert!(took < NOTICED_BY, "{took:?}");
    check_gone(&proxy, 1).await;
}

/// Relays of every kind on which nobody speaks, whose clients vanish.
async fn check_silent_clients(mut network: Network, how: Vanishing) {
    let server = Upstream::start().await;
    let proxy = proxy(&server).line(SHORT).timeouts("{ send: 2s }").sse("{ keepalive: off }").run().await;
    let websocket = open_on(network.connect(proxy.address()).await, &server).await;
    let tunnel = open_tunnel_on(network.connect(proxy.address()).await, &server).await;
    let (events, mut upstream) = open_events_on(network.connect(proxy.address()).await, &server).await;
    upstream.send("2\r\n:\n\r\n").await; // Or the proxy would say something soon.
    let mut open = [websocket, tunnel, (events, upstream)];
    proxy.relays_once(open.len(), "").await;
    // Longer than it will take: those who only say nothing stay.
    tokio::time::sleep(seconds(5)).await;
    proxy.relays_once(open.len(), "").await;
    network.vanish(how).await;
    let began = Instant::now();
    for (_, upstream) in &mut open {
        upstream.ends().await;
    }
    let took = began.elapsed();
    println!("gone after {took:?} by TCP, {how:?}");
    assert!(took < NOTICED_BY, "{took:?}");
    let count = open.len();
    drop(open);
    check_gone(&proxy, count).await;
}

#[tokio::test]
async fn silent_clients_whose_packets_are_dropped_are_gone_by_tcp() {
    let network = Network::of_its_own(silent_clients_whose_packets_are_dropped_are_gone_by_tcp).await;
    if let Some(network) = network {
        check_silent_clients(network, Vanishing::OnTheWay).await;
    }
}

#[tokio::test]
async fn silent_clients_whose_machine_is_off_are_gone_by_tcp() {
    if let Some(network) = Network::of_its_own(silent_clients_whose_machine_is_off_are_gone_by_tcp).await {
        check_silent_clients(network, Vanishing::NextDoor).await;
    }
}

#[tokio::test]
async fn silent_clients_to_whom_no_way_leads_are_gone_by_tcp() {
    if let Some(network) = Network::of_its_own(silent_clients_to_whom_no_way_leads_are_gone_by_tcp).await {
        check_silent_clients(network, Vanishing::OnThisSide).await;
    }
}

#[tokio::test]
async fn a_client_that_vanishes_is_gone_also_with_bytes_on_their_way_to_it() {
    let test = a_client_that_vanishes_is_gone_also_with_bytes_on_their_way_to_it;
    let Some(mut network) = Network::of_its_own(test).await else { return };
    let server = Upstream::start().await;
    let proxy = proxy(&server).line(SHORT).timeouts("{ send: 2s }").run().await;
    let (mut client, mut upstream) = open_on(network.connect(proxy.address()).await, &server).await;
    upstream.send(frame("before")).await;
    client.exactly(8).await;
    network.vanish(Vanishing::OnTheWay).await;
    let began = Instant::now();
    // Sent again and again by the kernel, and followed by more of it.
    loop {
        if upstream.try_send(&frame("into nowhere")).await.is_err() {
            break;
        }
        tokio::time::sleep(millis(100)).await;
    }
    let took = began.elapsed();
    println!("gone after {took:?} with bytes on their way");
    assert!(took < NOTICED_BY, "{took:?}");
    drop(upstream);
    check_gone(&proxy, 1).await;
}

#[tokio::test]
async fn servers_that_vanish_are_gone_whether_something_is_on_its_way_to_them_or_not() {
    let test = servers_that_vanish_are_gone_whether_something_is_on_its_way_to_them_or_not;
    let Some(mut network) = Network::of_its_own(test).await else { return };
    let server = network.server().await;
    let proxy = proxy(&server).line(SHORT).timeouts("{ send: 2s }").run().await;
    let (mut silent, _silent_upstream) = open(&proxy, &server).await;
    let (mut talking, mut upstream) = open(&proxy, &server).await;
    talking.send(masked_frame("before")).await;
    upstream.exactly(12).await;
    proxy.relays_once(2, "").await;
    network.vanish(Vanishing::OnTheWay).await;
    let began = Instant::now();
    talking.send(masked_frame("into nowhere")).await;
    silent.ends().await;
    talking.ends().await;
    let took = began.elapsed();
    println!("servers gone after {took:?}");
    assert!(took < NOTICED_BY, "{took:?}");
    drop((silent, talking));
    check_gone(&proxy, 2).await;
}

#[tokio::test]
async fn a_poll_whose_client_vanishes_is_waited_for_no_longer() {
    let test = a_poll_whose_client_vanishes_is_waited_for_no_longer;
    let Some(mut network) = Network::of_its_own(test).await else { return };
    let server = Upstream::start().await;
    let proxy = proxy(&server).line(SHORT).run().await;
    let mut client = network.connect(proxy.address()).await;
    client.send("GET /poll HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    network.vanish(Vanishing::OnTheWay).await;
    let began = Instant::now();
    upstream.ends().await;
    let took = began.elapsed();
    println!("a poll was given up after {took:?}");
    assert!(took < NOTICED_BY, "{took:?}");
    drop(upstream);
    check_gone(&proxy, 1).await;
}

#[tokio::test]
async fn both_sockets_of_every_relay_are_watched_as_the_file_says() {
    for (line, time, interval, probes, unanswered) in [
        ("", 60, 15, 4, 120),
        ("tcp_keepalive: { time: 20s, interval: 5s, probes: 3 }", 20, 5, 3, 60), // The time-out `send`.
        ("tcp_keepalive: { time: 5m, interval: 1m, probes: 9 }", 300, 60, 9, 840),
    ] {
        let server = Upstream::start().await;
        let proxy = Proxy::start().upstream("chat", &[&server]).line(line).run().await;
        let (client, upstream) = open(&proxy, &server).await;
        proxy.relays_once(1, "").await;
        for (peer, whose) in [(client.address(), "client"), (upstream.address(), "server")] {
            let Some(socket) = proxy.socket_to(peer) else { return };
            let seen = (
                socket.keepalive().expect("an option"),
                socket.tcp_keepalive_time().expect("an option"),
                socket.tcp_keepalive_interval().expect("an option"),
                socket.tcp_keepalive_retries().expect("an option"),
                socket.tcp_user_timeout().expect("an option"),
            );
            let expected = (true, seconds(time), seconds(interval), probes, Some(seconds(unanswered)));
            assert_eq!(seen, expected, "towards the {whose} with {line:?}");
        }
    }
}
