//! Clients that do not read: what they cost, whom they hold up, and that they can be ended.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::harness::client::SWITCHING;
use crate::harness::relay::open_events;
use crate::harness::websocket::{frame, masked_frame, open};
use crate::harness::{Proxy, Upstream, Wire, seconds, websocket_request};

/// What a relay may hold for a client that does not read: one read and its framing, rounded up by
/// the allocator.
const HELD_MAX: usize = 96 * 1024;

/// What the kernel may hold besides, when the client has little room to receive and the server to
/// send: what is left are the proxy's own two sockets, as far as this machine lets them grow.
fn kernel_max() -> usize {
    const NARROW: usize = 256 * 1024;
    let most = |name: &str| -> usize {
        let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).expect("Linux tells");
        text.split_whitespace().last().and_then(|most| most.parse().ok()).expect("three numbers")
    };
    most("tcp_wmem") + most("tcp_rmem") + NARROW
}

/// Fills the way from a server to a client that does not read: how much went, and the connection.
async fn fill(upstream: Wire) -> (usize, Wire) {
    const PIECE: &[u8] = &[b'x'; 16 * 1024];
    let (reading, mut writing) = upstream.split();
    let mut sent = 0;
    loop {
        let taken = writing.send_until_stopped(PIECE, seconds(1)).await;
        sent += taken;
        if taken < PIECE.len() {
            return (sent, Wire::joined(reading, writing));
        }
    }
}

async fn echoes(client: &mut Wire, upstream: &mut Wire, count: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..count {
        let began = Instant::now();
        client.send(masked_frame("ping")).await;
        upstream.exactly(10).await;
        upstream.send(frame("pong")).await;
        client.exactly(6).await;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    times
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_slow_readers_cost_a_buffer_each_and_hold_up_nobody() {
    const SLOW: usize = 1000;
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).threads(1).run().await;
    let (mut client, mut upstream) = open(&proxy, &server).await;
    let mut slow = Vec::new();
    let mut filling = JoinSet::new();
    for _ in 0..SLOW {
        let mut client = proxy.connect_narrow().await;
        client.send(websocket_request("/slow", "")).await;
        let mut upstream = server.accept().await;
        upstream.narrow();
        upstream.request().await;
        upstream.send(SWITCHING).await;
        // A frame of 2^62 bytes begins.
        upstream.send([&[0x82, 127][..], &(1u64 << 62).to_be_bytes()].concat()).await;
        client.head().await;
        slow.push((client, upstream));
    }
    let before = proxy.memory();
    let (clients, upstreams): (Vec<_>, Vec<_>) = slow.into_iter().unzip();
    for upstream in upstreams {
        filling.spawn(fill(upstream));
    }
    // Beside them while they fill, and when all are full.
    let during = echoes(&mut client, &mut upstream, 100).await;
    let filled = filling.join_all().await;
    let after = echoes(&mut client, &mut upstream, 100).await;
    let held = proxy.memory().saturating_sub(before);
    let most = filled.iter().map(|(sent, _)| *sent).max().unwrap_or_default();
    println!(
        "{SLOW} slow readers: at most {most} bytes were taken for one, the proxy holds {} each; \
         an echo takes {:?} (90 %: {:?}) while they fill and {:?} ({:?}) afterwards",
        held / SLOW,
        during[50],
        during[90],
        after[50],
        after[90],
    );
    assert!(most < kernel_max() + HELD_MAX, "{most} bytes were taken for a client that reads none");
    assert!(held < SLOW * HELD_MAX, "{held} bytes are held for {SLOW} clients");
    assert!(during[90] < Duration::from_secs(2), "an echo takes {:?} beside them", during[90]);
    assert!(after[90] < Duration::from_secs(1), "an echo takes {:?} beside them", after[90]);
    drop((clients, filled));
}

#[tokio::test]
async fn a_full_socket_delays_no_end_beyond_its_bound() {
    let server = Upstream::start().await;
    let mut proxy = Proxy::start()
        .upstream("chat", &[&server])
        .timeouts("{ send: 1h }")
        .line("shutdown: { grace: 2s, spread: 0s }")
        .run()
        .await;
    let mut full = Vec::new();
    for _ in 0..3 {
        let (websocket, upstream) = open(&proxy, &server).await;
        full.push((websocket, fill(upstream).await.1));
        let (events, mut upstream) = open_events(&proxy, &server).await;
        upstream.send("ffffffff\r\n").await;
        full.push((events, fill(upstream).await.1));
    }
    proxy.relays_once(6, "").await;
    for (kind, bound) in [("sse", seconds(6)), ("websocket", seconds(12))] {
        let id = proxy.relays(&format!("kind={kind}&limit=1")).await["relays"][0]["id"].clone();
        let began = Instant::now();
        assert_eq!(proxy.end_relay(&id).await, 202);
        let line = proxy.logged(|line| line["kind"] == kind && line["end_reason"] == "operator").await;
        assert!(began.elapsed() < bound, "{:?}: {line}", began.elapsed());
    }
    let began = Instant::now();
    proxy.terminate();
    assert_eq!(proxy.exit().await.code(), Some(0));
    assert!(began.elapsed() < seconds(12), "it took {:?} to stop", began.elapsed());
    assert!(!proxy.said().iter().any(|line| line.contains("is over")), "the grace had to cut somebody");
    drop(full);
}
