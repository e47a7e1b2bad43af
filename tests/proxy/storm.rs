//! Everybody comes at once, as after the restart of something in front.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::harness::client::SWITCHING;
use crate::harness::process::allow_many_files;
use crate::harness::{PATIENCE, Proxy, Upstream, Wire, millis, websocket_request, within};

const HANDSHAKES: usize = 5_000;
const AT_ONCE: usize = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_handshakes_loses_nobody() {
    allow_many_files();
    let server = Upstream::serving(echo).await;
    let proxy = Proxy::start().upstream("chat", &[&server]).access_log("{ format: off }").run().await;
    for storm in 0..4 {
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        let mut clients = JoinSet::new();
        for client in 0..HANDSHAKES {
            let slots = Arc::clone(&slots);
            let address = proxy.address();
            clients.spawn(async move {
                let _slot = slots.acquire_owned().await.expect("the semaphore stays open");
                talk(address, client).await
            });
        }
        let mut failures = Vec::new();
        let all = async {
            while let Some(outcome) = clients.join_next().await {
                failures.extend(outcome.expect("a client ends").err());
            }
        };
        within(PATIENCE * 4, "a storm to pass", all).await;
        let first = failures.first();
        assert!(failures.is_empty(), "storm {storm}: {} of {HANDSHAKES} failed; {first:?}", failures.len());
    }
    proxy.settles_empty().await;
    let requests = proxy.metrics().await.sum("steadfast_requests_total", &[("status", "1xx")]);
    assert!((requests - 4.0 * HANDSHAKES as f64).abs() < 0.5, "{requests} handshakes counted");
}

/// A handshake, a while of silence, a message and its echo.
async fn talk(address: SocketAddr, client: usize) -> Result<(), String> {
    let stream = TcpStream::connect(address).await.map_err(|error| format!("connect: {error}"))?;
    let mut wire = Wire::new(stream, "client");
    let answered = async {
        wire.try_send(websocket_request("/ws", "").as_bytes()).await?;
        wire.try_exactly(ACCEPTED.len()).await
    };
    let start = answered.await.map_err(|error| format!("handshake: {error}"))?;
    if start != ACCEPTED {
        return Err(format!("handshake: {}", start.escape_ascii()));
    }
    wire.until(b"\r\n\r\n").await;
    tokio::time::sleep(millis(300)).await;
    let message = format!("{client:010}");
    let echoed = async {
        wire.try_send(message.as_bytes()).await?;
        wire.try_exactly(message.len()).await
    };
    match echoed.await {
        Ok(echo) if echo == message.as_bytes() => Ok(()),
        Ok(echo) => Err(format!("echo: {}", echo.escape_ascii())),
        Err(error) => Err(format!("echo: {error}")),
    }
}

const ACCEPTED: &[u8] = b"HTTP/1.1 101 ";

async fn echo(mut wire: Wire) {
    if wire.next_request().await.is_none() {
        return;
    }
    wire.send(SWITCHING).await;
    while let Ok(message) = wire.try_exactly(10).await {
        if wire.try_send(&message).await.is_err() {
            return;
        }
    }
}
