//! How many connections clients may have: all together, each by itself, and as descriptors allow.

use crate::harness::client::SWITCHING;
use crate::harness::upstream::ok;
use crate::harness::{Leaving, Message, Proxy, Upstream, Wire, millis, seconds, soon, websocket_request, within};

const GET: &str = "GET /get HTTP/1.1\r\nHost: a\r\n\r\n";

/// A server that is asked by WebSockets, parked polls and plain requests, by their paths.
async fn server() -> Upstream {
    Upstream::serving(|mut wire| async move {
        while let Some(request) = wire.next_request().await {
            match request.head.start.split(' ').nth(1) {
                Some("/ws") => {
                    wire.send(SWITCHING).await;
                    wire.rest().await;
                    return;
                }
                Some("/parked") => std::future::pending().await,
                Some("/dies") => return,
                _ => wire.send(ok("a")).await,
            }
        }
    })
    .await
}

async fn open_websocket(proxy: &Proxy, fields: &str) -> Wire {
    let mut client = proxy.send(websocket_request("/ws", fields)).await;
    assert_eq!(client.head().await.status(), 101);
    client
}

#[track_caller]
fn check_told_to_come_later(answer: &Message, text: &str) {
    assert_eq!((answer.status(), answer.text().trim_end()), (503, text));
    let seconds: u32 = answer.head.field("retry-after").and_then(|after| after.parse().ok()).expect("a number");
    assert!((5..=15).contains(&seconds), "Retry-After: {seconds}");
    assert_eq!(answer.head.field("connection").as_deref(), Some("close"));
}

/// Asks until there is room again: what ends does so a moment after its client knows.
async fn finds_room(proxy: &Proxy, request: &str) {
    let found = async {
        while proxy.exchange(request).await.status() == 503 {
            tokio::time::sleep(millis(10)).await;
        }
    };
    soon("room to be found again", found).await;
}

#[tokio::test]
async fn beyond_the_limit_clients_are_told_to_come_later() {
    let server = server().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).line("limits: { max_connections: 3 }").run().await;
    let mut open = vec![open_websocket(&proxy, "").await, open_websocket(&proxy, "").await];
    open.push(proxy.send("GET /parked HTTP/1.1\r\nHost: a\r\n\r\n").await);
    proxy.settles("steadfast_client_connections", &[], 3.0).await;

    let full = "too many connections; come again later";
    check_told_to_come_later(&proxy.exchange(GET).await, full);
    check_told_to_come_later(&proxy.exchange(websocket_request("/ws", "")).await, full);
    let head = proxy.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await.rest().await;
    assert!(head.starts_with(b"HTTP/1.1 503 ") && head.ends_with(b"\r\n\r\n"));
    assert_eq!(proxy.admin("/healthz").await.status(), 200);
    let line = proxy.logged_path("/get").await;
    assert_eq!((&line["status"], &line["end_reason"]), (&503.into(), &"refused".into()), "{line}");
    assert_eq!(line["error"], "too_many_connections", "{line}");
    proxy.settles("steadfast_errors_total", &[("error", "too_many_connections")], 3.0).await;

    open.pop();
    finds_room(&proxy, GET).await;
    drop(open);
    proxy.settles_empty().await;
}

#[tokio::test]
async fn an_event_source_comes_back_by_itself() {
    let server = server().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).line("limits: { max_connections: 1 }").run().await;
    let _open = open_websocket(&proxy, "").await;
    let asks = |method, accept| format!("{method} /events HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n");
    for _ in 0..5 {
        let answer = proxy.exchange(asks("GET", "text/event-stream")).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.head.field("content-type").as_deref(), Some("text/event-stream"));
        let text = answer.text();
        let wait = text.strip_prefix("retry: ").and_then(|rest| rest.strip_suffix("\n\n"));
        let wait: u32 = wait.and_then(|wait| wait.parse().ok()).unwrap_or_else(|| panic!("{text:?}"));
        assert!((5_000..15_000).contains(&wait), "{wait} ms");
    }
    assert_eq!(proxy.exchange(asks("POST", "application/json, text/event-stream")).await.status(), 503);
    assert_eq!(proxy.exchange(asks("GET", "*/*")).await.status(), 503);
    let line = proxy.logged_path("/events").await;
    assert_eq!((&line["status"], &line["end_reason"]), (&200.into(), &"refused".into()), "{line}");
}

#[tokio::test]
async fn one_client_cannot_take_the_place_of_others() {
    let server = server().await;
    let setup = Proxy::start().upstream("chat", &[&server]).trusting("[127.0.0.0/8]");
    let proxy = setup.line("limits: { per_client: 2 }").run().await;
    let from = |address: &str| format!("X-Forwarded-For: 6.6.6.6, {address}\r\n");
    let get = |address: &str| format!("GET /get HTTP/1.1\r\nHost: a\r\n{}\r\n", from(address));
    for (client, same, other) in
        [("192.0.2.1", "192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1")]
    {
        let first = open_websocket(&proxy, &from(client)).await;
        let _second = open_websocket(&proxy, &from(same)).await;
        let refused = proxy.exchange(get(client)).await;
        check_told_to_come_later(&refused, "more than 2 connections of one client; come again later");
        assert_eq!(proxy.exchange(get(other)).await.status(), 200, "{other}");
        drop(first);
        finds_room(&proxy, &get(same)).await;
    }
    // A connection that a hop keeps for everybody belongs to who asks.
    let mut kept = proxy.connect().await;
    let mut more = Vec::new();
    for client in 0..20 {
        kept.send(get(&format!("198.51.100.{client}"))).await;
        assert_eq!(kept.response().await.status(), 200);
        let mut idle = proxy.send(get("198.51.100.99")).await;
        assert_eq!(idle.response().await.status(), 200, "connections that are kept are not in use");
        more.push(idle);
    }
    proxy.settles("steadfast_open_connections", &[], 0.0).await;
}

/// Nothing is open any more, and a request is served.
async fn has_room(proxy: &Proxy) {
    proxy.settles("steadfast_client_connections", &[], 0.0).await;
    assert_eq!(proxy.exchange(GET).await.status(), 200);
    proxy.settles("steadfast_client_connections", &[], 0.0).await;
}

/// Every way to end gives back what was taken: one place is enough for all of them, in turn.
#[tokio::test]
async fn whatever_the_end_there_is_room_again() {
    let server = server().await;
    let setup = Proxy::start().upstream("chat", &[&server]).timeouts("{ response_head: 2s }");
    let proxy = setup.line("limits: { max_connections: 1, per_client: 1 }").run().await;
    let request = |path: &str, fields: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    for round in 0..2 {
        for how in Leaving::ALL {
            open_websocket(&proxy, "").await.leave(how);
            has_room(&proxy).await;
            proxy.send(request("/parked", "")).await.leave(how);
            has_room(&proxy).await;
            // Long enough for it to be taken apart.
            let parked = proxy.send(request("/parked", "")).await;
            if round == 0 {
                tokio::time::sleep(millis(1500)).await;
            }
            parked.leave(how);
            has_room(&proxy).await;
            proxy.connect().await.leave(how);
            has_room(&proxy).await;
        }
        for (path, fields, status) in [
            ("/dies", "", 502),
            ("/parked", "", 504),
            ("/damaged", "Sec-WebSocket-Version: 13\r\n", 426),
            ("/get", "Content-Length: x\r\n", 400),
        ] {
            assert_eq!(proxy.exchange(request(path, fields)).await.status(), status, "{path}");
            has_room(&proxy).await;
        }
    }
    proxy.settles_empty().await;
}

/// Three times as many as are let in, all asking: those that were there first are served on.
#[tokio::test]
async fn a_flood_of_connections_holds_up_nobody_who_is_there() {
    const MAX: usize = 300;
    let server = server().await;
    let setup = Proxy::start().access_log("{ format: off }").upstream("chat", &[&server]);
    let proxy = setup.line(&format!("limits: {{ max_connections: {MAX} }}")).run().await;
    let mut good = proxy.send(GET).await;
    assert_eq!(good.response().await.status(), 200);
    let before = proxy.memory();
    let mut flood = Vec::new();
    for _ in 0..3 * MAX {
        flood.push(proxy.send(GET).await);
    }
    for client in &mut flood {
        good.send(GET).await;
        assert_eq!(good.response().await.status(), 200);
        assert!(matches!(client.response().await.status(), 200 | 503));
    }
    assert_eq!(proxy.admin("/healthz").await.status(), 200);
    let told = proxy.metrics().await.sum("steadfast_errors_total", &[("error", "too_many_connections")]);
    assert!(told >= (2 * MAX) as f64, "{told} were told to come later");
    let each = proxy.memory().saturating_sub(before) / (3 * MAX);
    assert!(each < 64 * 1024, "{each} bytes for each of them");
    drop((flood, good));
    proxy.settles_empty().await;
    finds_room(&proxy, GET).await;
}

/// Its descriptors are enough for about 75 clients, and never used up.
#[tokio::test]
async fn descriptors_are_kept_for_admin_and_for_what_is_open() {
    let server = server().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).descriptors(256).run().await;
    let mut open = Vec::new();
    for _ in 0..75 {
        open.push(open_websocket(&proxy, "").await);
    }
    let mut crowd = Vec::new();
    for _ in 0..300 {
        crowd.push(proxy.connect().await);
    }
    for mut client in crowd {
        let answered = async {
            let _ = client.try_send(GET.as_bytes()).await;
            client.rest().await
        };
        let answer = soon("an answer or an end", answered).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 503 "), "{}", String::from_utf8_lossy(&answer));
        assert_eq!(proxy.admin("/healthz").await.status(), 200);
    }
    let untold = proxy.metrics().await.sum("steadfast_untold_connections_total", &[]);
    assert!(untold > 200.0, "{untold} were closed without a word");
    open.pop();
    let found = async {
        loop {
            let mut client = proxy.connect().await;
            let _ = client.try_send(websocket_request("/ws", "").as_bytes()).await;
            if client.try_exactly(13).await.is_ok_and(|begun| begun == b"HTTP/1.1 101 ") {
                return;
            }
            tokio::time::sleep(millis(20)).await;
        }
    };
    within(seconds(30), "room for a WebSocket", found).await;
    drop(open);
    proxy.settles_empty().await;
    assert!(!proxy.said().iter().any(|line| line.contains("cannot accept")), "{:?}", proxy.said());
}
