//! WebSocket handshakes that a hop has damaged: answered at once, by the proxy alone, and told to
//! whoever is in charge of that hop.

use serde_json::json;

use crate::harness::client::SWITCHING;
use crate::harness::{Nginx, Proxy, Upstream, websocket_request};

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
const UPGRADE: &str = "Upgrade: websocket\r\n";
const CONNECTION: &str = "Connection: Upgrade\r\n";
const COUNTED: &str = "steadfast_damaged_handshakes_total";

#[tokio::test]
async fn what_is_left_of_a_handshake_is_answered_at_once_and_never_passed_on() {
    let server = Upstream::named("a").await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let whole = [KEY, VERSION, UPGRADE, CONNECTION].concat();
    let wrong = |version| whole.replace("13", version);
    let without = |field| whole.replace(field, "");
    for (line, fields, status, kind, text) in [
        ("GET /ws HTTP/1.0", whole.clone(), 426, "http_1_0", "in HTTP/1.0"),
        ("GET /ws HTTP/1.0", [KEY, VERSION].concat(), 426, "http_1_0", "in HTTP/1.0"),
        ("GET /ws HTTP/1.1", [KEY, VERSION].concat(), 426, "no_upgrade", "without Upgrade; let it speak HTTP/1.1"),
        ("GET /ws HTTP/1.1", without(UPGRADE), 426, "no_upgrade", "proxy_set_header Upgrade $http_upgrade;"),
        ("GET /ws HTTP/1.1", without(CONNECTION), 426, "no_connection", "without Connection: upgrade"),
        ("GET /ws?EIO=4&transport=websocket HTTP/1.1", String::new(), 426, "no_upgrade", "without Upgrade"),
        ("GET /ws HTTP/1.1", wrong("8"), 426, "version", "without Sec-WebSocket-Version: 13"),
        ("POST /ws HTTP/1.1", whole.clone(), 400, "method", "a method other than GET"),
        ("GET /ws HTTP/1.1", without(KEY), 400, "key", "without one valid Sec-WebSocket-Key"),
        ("GET /ws HTTP/1.1", whole.replace("ZQ==", "Z==="), 400, "key", "without one valid Sec-WebSocket-Key"),
    ] {
        let before = proxy.metrics().await.sum(COUNTED, &[("kind", kind), ("hop", "127.0.0.1")]);
        let mut client = proxy.send(format!("{line}\r\nHost: a\r\n{fields}\r\n")).await;
        let answer = client.response().await;
        assert_eq!(answer.status(), status, "{line} {fields:?}");
        let said = answer.text();
        assert!(said.starts_with("a WebSocket handshake came from 127.0.0.1 ") && said.contains(text), "{said}");
        let upgrade = (status == 426).then(|| "websocket".to_owned());
        assert_eq!(answer.head.field("upgrade"), upgrade, "{line} {fields:?}");
        let connection = if status == 426 { "Upgrade, close" } else { "close" };
        assert_eq!(answer.head.field("connection").as_deref(), Some(connection));
        let version = (kind == "version").then(|| "13".to_owned());
        assert_eq!(answer.head.field("sec-websocket-version"), version);
        client.ends().await;
        proxy.settles(COUNTED, &[("kind", kind), ("hop", "127.0.0.1")], before + 1.0).await;
    }
    proxy.settles("steadfast_errors_total", &[("error", "damaged_handshake")], 10.0).await;
    proxy.settles_empty().await;
    assert_eq!(server.accepted(), 0, "none of them is the server's business");
}

#[tokio::test]
async fn a_damaged_handshake_can_be_found_by_its_key_in_the_logs_of_every_hop() {
    let server = Upstream::named("a").await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    proxy.exchange(format!("GET /ws HTTP/1.0\r\nHost: a\r\n{KEY}{VERSION}\r\n")).await;
    let line = proxy.logged_path("/ws").await;
    for (name, value) in [
        ("sec_websocket_key", json!("dGhlIHNhbXBsZSBub25jZQ==")),
        ("upgrade", json!(null)),
        ("protocol", json!("HTTP/1.0")),
        ("previous_hop", json!("127.0.0.1")),
        ("status", json!(426)),
        ("upstream", json!("chat")),
        ("server", json!("")),
        ("end_reason", json!("refused")),
        ("error", json!("damaged_handshake")),
    ] {
        assert_eq!(line[name], value, "{name} in {line}");
    }
}

#[tokio::test]
async fn a_handshake_that_is_whole_passes_however_its_lists_are_written() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    for lists in [
        "connection: keep-alive, upgrade\r\nupgrade: WebSocket\r\n",
        "Connection: keep-alive\r\nConnection: UPGRADE\r\nUpgrade: websocket\r\n",
        "Connection: , ,Upgrade ,, keep-alive\r\nUpgrade:  websocket \r\n",
    ] {
        let mut client = proxy.send(format!("GET /ws HTTP/1.1\r\nHost: a\r\n{lists}{KEY}{VERSION}\r\n")).await;
        let mut upstream = server.accept().await;
        let request = upstream.request().await;
        assert!(request.head.field("upgrade").is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket")));
        assert_eq!(request.head.field("connection").as_deref(), Some("Upgrade"));
        upstream.send(SWITCHING).await;
        assert_eq!(client.head().await.status(), 101, "{lists:?}");
    }
    assert_eq!(proxy.metrics().await.sum(COUNTED, &[]), 0.0);
}

#[tokio::test]
async fn ordinary_requests_are_never_taken_for_handshakes() {
    let server = Upstream::named("a").await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    for request in [
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nUpgrade: h2c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: TLS/1.0\r\n\r\n",
        "POST /?EIO=4&transport=polling HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nContent-Length: 1\r\n\r\n6",
        "OPTIONS /?EIO=4&transport=websocket HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let answer = proxy.exchange(request).await;
        assert_eq!((answer.status(), answer.text()), (200, "a".to_owned()), "{request:?}");
    }
    assert_eq!(proxy.metrics().await.sum(COUNTED, &[]), 0.0);
}

/// Report P1, with the hop that most people have.
#[tokio::test]
async fn a_hop_that_was_not_told_of_websockets_is_named_by_the_doctor() {
    let server = Upstream::named("a").await;
    for (version, state) in [("1.0", "in HTTP/1.0, which has no upgrades"), ("1.1", "without Upgrade")] {
        let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
        let hop = Nginx::without_websockets(proxy.address(), version).await;
        for _ in 0..20 {
            let mut client = hop.connect().await;
            client.send(websocket_request("/ws", "")).await;
            let answer = client.response().await;
            assert_eq!(answer.status(), 426, "{}", answer.text());
            assert!(answer.text().contains(state), "{}", answer.text());
        }
        let labels = [("finding", "damaged_handshakes"), ("upstream", "chat")];
        proxy.settles("steadfast_affinity_findings", &labels, 1.0).await;
        let sentence =
            format!("previous hop 127.0.0.1 passes WebSocket handshakes {state}, so 100 % of the last 20 were");
        proxy.heard(&sentence).await;
    }
    assert_eq!(server.accepted(), 0);
}
