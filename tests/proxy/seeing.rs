//! What operators get to see: the access log, metrics, health.

use serde_json::{Value, json};

use crate::harness::client::SWITCHING;
use crate::harness::upstream::ok;
use crate::harness::websocket::{frame, masked_frame, open};
use crate::harness::{Proxy, Refusing, Upstream, millis, soon, websocket_request};

/// The line has these fields with these values, and the fields that every line has.
#[track_caller]
fn check_line(line: &Value, expected: &Value) {
    for (name, value) in expected.as_object().expect("an object of fields") {
        assert_eq!(&line[name], value, "{name} in {line}");
    }
    let time = line["time"].as_str().unwrap_or_default();
    assert!(time.starts_with("20") && time.contains('T'), "time in {line}");
    assert!(line["duration_ms"].is_number(), "duration_ms in {line}");
}

#[tokio::test]
async fn a_request_is_logged_with_everything_that_is_known() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).trusting("[127.0.0.0/8]").run().await;
    let mut client = proxy
        .send(
            "POST /path?secret=1 HTTP/1.0\r\nHost: Chat.Example.com:8080\r\nX-Forwarded-For: 203.0.113.9\r\n\
             Content-Length: 5\r\n\r\nhello",
        )
        .await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    tokio::time::sleep(millis(50)).await;
    upstream.send(ok("hello there")).await;
    client.response().await;
    let line = proxy.logged_path("/path").await;
    check_line(
        &line,
        &json!({
            "client": "203.0.113.9",
            "previous_hop": "127.0.0.1",
            "method": "POST",
            "host": "chat.example.com",
            "status": 200,
            "protocol": "HTTP/1.0",
            "upstream_protocol": "HTTP/1.1",
            "upgrade": null,
            "sec_websocket_key": null,
            "kind": "http",
            "upstream": "chat",
            "affinity": "forwarded_for",
            "bytes_in": 5,
            "bytes_out": 11,
            "end_reason": "complete",
        }),
    );
    assert!(line["server"].as_str().is_some_and(|server| server.starts_with("127.0.0.1:")), "{line}");
    assert!(line["time_to_head_ms"].as_u64() >= Some(50), "{line}");
    assert!(!line.to_string().contains("secret"), "queries carry session ids: {line}");
}

#[tokio::test]
async fn the_client_in_the_log_is_who_the_file_says() {
    let server = Upstream::named("a").await;
    let fields = "X-Forwarded-For: 6.6.6.6, 203.0.113.9, 127.0.0.2\r\nForwarded: for=203.0.113.8\r\n\
                  CF-Connecting-IP: 2001:db8::1\r\n";
    for (rule, trusted, fields, client) in [
        ("{}", "[127.0.0.0/8]", fields, "203.0.113.9"),
        ("{ pick: first }", "[127.0.0.0/8]", fields, "6.6.6.6"),
        ("{ header: Forwarded }", "[127.0.0.0/8]", fields, "203.0.113.8"),
        ("{ header: cf-connecting-ip }", "[127.0.0.0/8]", fields, "2001:db8::1"),
        ("{ header: CF-Connecting-IP, pick: first }", "[10.0.0.0/8]", fields, "127.0.0.1"),
        ("{ header: CF-Connecting-IP }", "[127.0.0.0/8]", "X-Forwarded-For: 6.6.6.6\r\n", "127.0.0.1"),
    ] {
        let setup = Proxy::start().upstream("chat", &[&server]).affinity("[forwarded_for, client_ip]");
        let proxy = setup.trusting(trusted).line(&format!("client_ip: {rule}")).run().await;
        proxy.exchange(format!("GET /who HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
        let line = proxy.logged_path("/who").await;
        check_line(&line, &json!({ "client": client, "previous_hop": "127.0.0.1" }));
        // Affinity has a rule of its own.
        let source = if trusted == "[10.0.0.0/8]" { "client_ip" } else { "forwarded_for" };
        check_line(&line, &json!({ "affinity": source }));
    }
}

#[tokio::test]
async fn a_websocket_is_logged_with_its_key_when_it_has_ended() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.send(websocket_request("/ws", "")).await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send(SWITCHING).await;
    client.head().await;
    client.send("12345").await;
    upstream.exactly(5).await;
    upstream.send("1234567").await;
    client.exactly(7).await;
    tokio::time::sleep(millis(100)).await;
    assert!(proxy.log().is_empty(), "it is still open: {:?}", proxy.log());
    drop(client);
    upstream.ends().await;
    drop(upstream);
    let line = proxy.logged_path("/ws").await;
    check_line(
        &line,
        &json!({
            "method": "GET",
            "status": 101,
            "upgrade": "websocket",
            "sec_websocket_key": "dGhlIHNhbXBsZSBub25jZQ==",
            "kind": "websocket",
            "bytes_in": 5,
            "bytes_out": 7,
            "end_reason": "client_closed",
        }),
    );
    assert!(line["duration_ms"].as_u64() >= Some(100), "{line}");
}

#[tokio::test]
async fn bytes_are_counted_by_upstream_and_direction_and_not_only_at_the_end() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let proxy = Proxy::start()
        .upstream("pages", &[&one])
        .upstream("chat", &[&two])
        .websocket("{ ping: 1s, pong_timeout: 1m }") // So that its timer comes soon.
        .route("{ path: /pages, upstream: pages }")
        .route("{ upstream: chat }")
        .run()
        .await;
    let check = async |upstream, up, down| {
        proxy.settles("steadfast_bytes_total", &[("upstream", upstream), ("direction", "up")], up).await;
        proxy.settles("steadfast_bytes_total", &[("upstream", upstream), ("direction", "down")], down).await;
    };

    // A body that is not yet complete.
    let mut client = proxy.send("POST /pages HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde").await;
    let mut upstream = one.accept().await;
    upstream.request().await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n").await;
    upstream.send(vec![b'x'; 40_000]).await;
    client.head().await;
    client.exactly(40_000).await;
    check("pages", 5.0, 40_000.0).await;
    upstream.send(vec![b'x'; 60_000]).await;
    client.exactly(60_000).await;
    check("pages", 5.0, 100_000.0).await;

    // A WebSocket that stays: two messages, and the first ping.
    let (mut client, mut upstream) = open(&proxy, &two).await;
    client.send(masked_frame("up")).await;
    upstream.exactly(8).await;
    upstream.send(frame("down")).await;
    client.exactly(6 + 10).await;
    proxy.settles("steadfast_bytes_total", &[("upstream", "chat"), ("direction", "up")], 8.0).await;
    let down = proxy.metrics().await.sum("steadfast_bytes_total", &[("upstream", "chat"), ("direction", "down")]);
    assert!(down >= 6.0 && (down - 6.0) % 10.0 == 0.0, "{down}"); // More pings may have followed.
    client.send(masked_frame("more")).await;
    upstream.exactly(10).await;
    let relay = &proxy.relays("").await["relays"][0];
    assert_eq!(relay["bytes_in"], 18, "what is counted and what is not yet: {relay}");
    drop((client, upstream));
    let line = proxy.logged_path("/ws").await;
    assert_eq!(line["bytes_in"], 18, "{line}");
    check("chat", 18.0, line["bytes_out"].as_f64().expect("a number")).await;
}

#[tokio::test]
async fn what_the_proxy_itself_refuses_is_logged_too() {
    let down = Refusing::start();
    let proxy = Proxy::start().upstream("chat", &[&down]).route("{ host: a, upstream: chat }").run().await;
    proxy.exchange("GET /down HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let line = proxy.logged_path("/down").await;
    check_line(&line, &json!({ "status": 502, "upstream": "chat", "end_reason": "refused", "kind": "http" }));
    proxy.exchange("GET /nowhere HTTP/1.1\r\nHost: b\r\n\r\n").await;
    let line = proxy.logged_path("/nowhere").await;
    check_line(&line, &json!({ "status": 404, "upstream": "", "server": "", "end_reason": "refused" }));
}

#[tokio::test]
async fn every_request_has_one_line() {
    let server = Upstream::named("a").await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.connect().await;
    for number in 0..100 {
        client.send(format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        client.response().await;
    }
    proxy.logged_path("/99").await;
    assert_eq!(proxy.log().len(), 100);
}

#[tokio::test]
async fn nobody_can_write_lines_of_their_own() {
    let server = Upstream::named("a").await;
    for format in ["json", "combined"] {
        let proxy = Proxy::start()
            .upstream("chat", &[&server])
            .access_log(&format!("{{ path: stdout, format: {format} }}"))
            .run()
            .await;
        let forged = "GET /%0Aforged HTTP/1.1\r\nHost: a\r\nUser-Agent: \"\\ \tforged\r\nReferer: \"\r\n\r\n";
        proxy.exchange(forged).await;
        proxy.exchange("GET /last HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let logged = async {
            while proxy.log().len() < 2 {
                tokio::time::sleep(millis(10)).await;
            }
        };
        soon("two lines", logged).await;
        let lines = proxy.log();
        assert_eq!(lines.len(), 2, "{lines:?}");
        if format == "json" {
            lines.iter().for_each(|line| drop(serde_json::from_str::<Value>(line).expect("a line of JSON")));
        } else {
            assert!(!lines[0].contains("\"\\ "), "the quote is escaped: {}", lines[0]);
        }
    }
}

#[tokio::test]
async fn the_combined_format_is_what_other_tools_read() {
    let server = Upstream::named("a").await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("access.log");
    let proxy = Proxy::start()
        .upstream("chat", &[&server])
        .access_log(&format!("{{ path: \"{}\", format: combined }}", path.display()))
        .run()
        .await;
    proxy.exchange("GET /x HTTP/1.1\r\nHost: a\r\nUser-Agent: curl/8.0\r\nReferer: http://b/\r\n\r\n").await;
    let written = async {
        loop {
            match std::fs::read_to_string(&path) {
                Ok(text) if text.ends_with('\n') => return text,
                _ => tokio::time::sleep(millis(10)).await,
            }
        }
    };
    let line = soon("a line in the file", written).await;
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    assert!(line.contains("] \"GET /x HTTP/1.1\" 200 1 \"http://b/\" \"curl/8.0\" "), "{line}");
    for field in ["upstream=chat", "kind=http", "end_reason=complete", "affinity="] {
        assert!(line.contains(field), "{field} in {line}");
    }
}

#[tokio::test]
async fn metrics_count_what_is_open_and_what_has_ended() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut open = Vec::new();
    for (kind, request, answer) in [
        ("http", "GET /parked HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), String::new()),
        ("websocket", websocket_request("/ws", ""), SWITCHING.to_owned()),
        (
            "tunnel",
            websocket_request("/t", "").replace("Upgrade: websocket", "Upgrade: gossip"),
            SWITCHING.replace("websocket", "gossip"),
        ),
        (
            "sse",
            "GET /events HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
        ),
    ] {
        let client = proxy.send(request).await;
        let mut upstream = server.accept().await;
        upstream.request().await;
        upstream.send(answer).await;
        proxy.settles("steadfast_open_connections", &[("kind", kind), ("upstream", "chat")], 1.0).await;
        open.push((kind, client, upstream));
    }
    proxy.settles("steadfast_client_connections", &[], 4.0).await;
    for (kind, client, mut upstream) in open {
        drop(client);
        upstream.ends().await;
        drop(upstream);
        let labels = [("kind", kind), ("upstream", "chat"), ("end_reason", "client_closed")];
        proxy.settles("steadfast_ends_total", &labels, 1.0).await;
        proxy.settles("steadfast_duration_seconds_count", &[("kind", kind)], 1.0).await;
        // The parked one has had no head.
        let heads = if kind == "http" { 0.0 } else { 1.0 };
        proxy.settles("steadfast_response_head_seconds_count", &[("kind", kind)], heads).await;
    }
    proxy.settles_empty().await;
    proxy.settles("steadfast_requests_total", &[("upstream", "chat"), ("status", "1xx")], 2.0).await;
    proxy.settles("steadfast_requests_total", &[("upstream", "chat"), ("status", "2xx")], 1.0).await;
}

#[tokio::test]
async fn the_admin_address_tells_health_and_explains_its_metrics() {
    let server = Upstream::named("a").await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    for (path, status) in [("/healthz", 200), ("/readyz", 200), ("/nothing", 404)] {
        assert_eq!(proxy.admin(path).await.status(), status, "{path}");
    }
    let page = proxy.admin("/metrics").await;
    assert!(page.head.field("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
    let text = page.text();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().expect("split yields at least one");
        let family = ["_bucket", "_sum", "_count"].iter().fold(name, |name, end| name.trim_end_matches(end));
        assert!(text.contains(&format!("# HELP {family} ")), "no help for {name}");
        assert!(name.starts_with("steadfast_") || name.starts_with("process_"), "{name}");
    }
}
