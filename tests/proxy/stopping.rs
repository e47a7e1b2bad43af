//! SIGTERM: nothing new, everything running to its end or to the end of the grace, exit code 0.

use std::time::Instant;

use crate::harness::client::SWITCHING;
use crate::harness::upstream::ok;
use crate::harness::{Proxy, Upstream, Wire, keyed, millis, seconds, show, soon, websocket_request};

async fn proxy_with_grace(server: &Upstream, grace: &str) -> Proxy {
    Proxy::start().upstream("chat", &[server]).line(&format!("shutdown: {{ grace: {grace}, spread: 0s }}")).run().await
}

#[track_caller]
fn check_ended_well(status: std::process::ExitStatus) {
    assert_eq!(status.code(), Some(0), "{status}");
}

#[tokio::test]
async fn a_running_request_is_finished() {
    let server = Upstream::start().await;
    let mut proxy = proxy_with_grace(&server, "30s").await;
    let mut client = proxy.send("POST /run HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").await;
    let mut upstream = server.accept().await;
    upstream.head().await;
    proxy.terminate();
    proxy.is_stopping().await;

    client.send("there").await;
    assert_eq!(upstream.exactly(10).await, b"hellothere");
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf").await;
    client.head().await;
    upstream.send("full").await;
    assert_eq!(client.exactly(8).await, b"halffull");
    client.ends().await;
    check_ended_well(proxy.exit().await);
    assert_eq!(proxy.logged_path("/run").await["end_reason"], "complete");
}

#[tokio::test]
async fn a_parked_request_still_gets_its_answer() {
    let server = Upstream::start().await;
    let mut proxy = proxy_with_grace(&server, "30s").await;
    let mut client = proxy.send("GET /poll HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    proxy.terminate();
    proxy.is_stopping().await;
    upstream.send(ok("news")).await;
    let answer = client.response().await;
    assert_eq!(answer.text(), "news");
    let options = answer.head.field("connection").unwrap_or_default();
    assert!(options.eq_ignore_ascii_case("close"), "the client is told not to come back here: {options:?}");
    check_ended_well(proxy.exit().await);
}

#[tokio::test]
async fn a_request_that_outlasts_the_grace_is_cut() {
    let server = Upstream::start().await;
    let mut proxy = proxy_with_grace(&server, "1s").await;
    let mut client = proxy.send("GET /poll HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    let began = Instant::now();
    proxy.terminate();
    client.rest().await;
    upstream.ends().await;
    check_ended_well(proxy.exit().await);
    assert!((seconds(1)..seconds(8)).contains(&began.elapsed()), "it took {:?}", began.elapsed());
    assert_eq!(proxy.logged_path("/poll").await["end_reason"], "shutdown");
}

#[tokio::test]
async fn idle_connections_do_not_hold_it_up() {
    let server = Upstream::named("a").await;
    let mut proxy = proxy_with_grace(&server, "30s").await;
    let mut used = proxy.connect().await;
    assert_eq!(keyed(&mut used, "k").await.text(), "a");
    let mut unused = proxy.connect().await;
    proxy.settles("steadfast_client_connections", &[], 2.0).await;
    let began = Instant::now();
    proxy.terminate();
    used.ends().await;
    unused.ends().await;
    check_ended_well(proxy.exit().await);
    assert!(began.elapsed() < seconds(8), "it took {:?}", began.elapsed());
}

#[tokio::test]
async fn nobody_new_is_let_in() {
    let server = Upstream::start().await;
    let mut proxy = proxy_with_grace(&server, "30s").await;
    let mut client = proxy.send("GET /poll HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    assert_eq!(proxy.admin("/readyz").await.status(), 200);
    proxy.terminate();
    proxy.is_stopping().await;
    let refused = async {
        // The address that says so is another thread's than those that accept.
        while let Ok(connected) = tokio::net::TcpStream::connect(proxy.address()).await {
            drop(connected);
            tokio::time::sleep(millis(10)).await;
        }
    };
    soon("new connections to be refused", refused).await;
    upstream.send(ok("news")).await;
    assert_eq!(client.response().await.text(), "news");
    check_ended_well(proxy.exit().await);
}

#[tokio::test]
async fn long_lived_connections_end_within_the_grace() {
    let server = Upstream::start().await;
    let mut proxy = proxy_with_grace(&server, "2s").await;
    let websocket = websocket_request("/ws", "");
    let events = "GET /events HTTP/1.1\r\nHost: a\r\n\r\n".to_owned();
    let stream = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
                  9\r\ndata: a\n\n\r\n";
    let mut open: Vec<(Wire, Wire)> = Vec::new();
    for (request, answer) in [(websocket, SWITCHING), (events, stream)] {
        let mut client = proxy.send(request).await;
        let mut upstream = server.accept().await;
        upstream.request().await;
        upstream.send(answer).await;
        client.head().await;
        open.push((client, upstream));
    }
    let began = Instant::now();
    proxy.terminate();
    for (client, upstream) in &mut open {
        let rest = client.rest().await;
        assert!(rest.len() < 100, "{}", show(&rest));
        upstream.rest().await;
    }
    check_ended_well(proxy.exit().await);
    assert!(began.elapsed() < seconds(8), "it took {:?}", began.elapsed());
    for path in ["/ws", "/events"] {
        assert_eq!(proxy.logged_path(path).await["end_reason"], "shutdown", "{path}");
    }
}

#[tokio::test]
async fn no_line_of_the_log_is_lost() {
    let server = Upstream::named("a").await;
    let mut proxy = proxy_with_grace(&server, "30s").await;
    let mut client = proxy.connect().await;
    for _ in 0..500 {
        keyed(&mut client, "k").await;
    }
    proxy.terminate();
    check_ended_well(proxy.exit().await);
    assert_eq!(proxy.log().len(), 500);
}

#[tokio::test]
async fn a_second_signal_stops_it_at_once() {
    let server = Upstream::start().await;
    let mut proxy = proxy_with_grace(&server, "1h").await;
    let _client = proxy.send("GET /poll HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    proxy.terminate();
    proxy.is_stopping().await;
    let began = Instant::now();
    proxy.terminate();
    check_ended_well(proxy.exit().await);
    assert!(began.elapsed() < seconds(8), "it took {:?}", began.elapsed());
}
