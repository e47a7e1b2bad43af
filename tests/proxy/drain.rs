//! Servers, upstreams and the process are emptied: over a time, politely, and only as long as that is
//! wanted.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::proxy::BINARY;
use crate::harness::relay::open_events;
use crate::harness::upstream::ok;
use crate::harness::websocket::{close, next_frame, open};
use crate::harness::{Named, Proxy, SecretFile, ServerEntry, Upstream, Wire, millis, seconds, soon, within};

const CLOSE: u8 = 0x88;
const OPEN: &str = "steadfast_open_connections";

/// A server of WebSockets that answers every Close, and tells what it was told.
async fn echo() -> Upstream {
    Upstream::start().await
}

async fn json_of(proxy: &Proxy, name: &str, order: Value) -> Value {
    let answer = proxy.order(name, order).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    serde_json::from_str(&answer.text()).expect("it is JSON")
}

/// Answers the Close that comes on a client's end; when it came, and what it said.
async fn closed(mut client: Wire) -> (Instant, (u8, Vec<u8>)) {
    let frame = next_frame(&mut client).await;
    let at = Instant::now();
    client.send([0x88, 0x80, 0, 0, 0, 0]).await;
    client.ends().await;
    (at, frame)
}

#[tokio::test]
async fn ends_are_spread_over_the_window_and_said_to_both_sides() {
    const CLIENTS: usize = 40;
    let (a, b) = (echo().await, Upstream::named("b").await);
    let proxy = Proxy::start()
        .upstream("chat", &[&Named(&a, "a"), &Named(&b, "b")])
        .affinity("[{ header: X-Key }]")
        .balance("{ keyless: round_robin }")
        .upstream("other", &[&Named(&a, "a")])
        .route("{ path: /other, upstream: other }")
        .route("{ upstream: chat }")
        .run()
        .await;
    // Only `a` speaks WebSocket, so there is nobody else for now.
    proxy.order("state", json!({ "upstream": "chat", "server": "b", "state": "maint" })).await;
    let (mut clients, mut servers) = (Vec::new(), JoinSet::new());
    for _ in 0..CLIENTS {
        let (client, mut server) = open(&proxy, &a).await;
        clients.push(client);
        servers.spawn(async move {
            let frame = next_frame(&mut server).await;
            server.send([0x88, 0x00]).await;
            server.ends().await;
            frame
        });
    }
    proxy.order("state", json!({ "upstream": "chat", "server": "b", "state": "ready" })).await;
    let began = Instant::now();
    let mut ends = JoinSet::new();
    clients.into_iter().for_each(|client| drop(ends.spawn(closed(client))));
    let progress = json_of(&proxy, "drain", json!({ "upstream": "chat", "server": "a", "spread": "4s" })).await;
    assert_eq!((&progress["open_before"], &progress["is_over"]), (&json!(CLIENTS), &json!(false)), "{progress}");

    // Whoever is new goes elsewhere.
    for _ in 0..4 {
        assert_eq!(proxy.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.text(), "b");
    }
    let mut histogram = [0; 4];
    while let Some(end) = within(seconds(20), "the clients to be told", ends.join_next()).await {
        let (at, frame) = end.expect("a client is told");
        assert_eq!(frame, (CLOSE, close(1012, "service restart")));
        let second = usize::try_from((at - began).as_secs()).expect("a few seconds");
        histogram[second.min(3)] += 1;
    }
    assert!(histogram.iter().all(|count| (6..=14).contains(count)), "{histogram:?}");
    while let Some(frame) = servers.join_next().await {
        assert_eq!(frame.expect("a server is told"), (CLOSE, close(1001, "going away")));
    }
    proxy.settles(OPEN, &[("server", "a"), ("upstream", "chat")], 0.0).await;
    proxy.heard("drain: server a of upstream chat: done").await;
    let line = proxy.logged_path("/ws").await;
    assert_eq!((&line["end_reason"], &line["close_code"]), (&json!("drained"), &json!(1012)), "{line}");

    let drains: Value = serde_json::from_str(&proxy.admin("/api/v1/drains").await.text()).expect("it is JSON");
    assert_eq!(
        (&drains[0]["server"], &drains[0]["open"], &drains[0]["is_over"]),
        (&json!("a"), &json!(0), &json!(true))
    );
    assert_eq!(proxy.order("undrain", json!({ "upstream": "chat", "server": "a" })).await.status(), 200);
    let (client, server) = Box::pin(soon("a client of the server again", open_balanced(&proxy, &a))).await;
    drop((client, server));
}

/// A WebSocket with a server that is one of two in turn.
async fn open_balanced(proxy: &Proxy, server: &Upstream) -> (Wire, Wire) {
    loop {
        let mut client = proxy.send(crate::harness::websocket_request("/ws", "")).await;
        tokio::select! {
            upstream = server.accept() => return (client, upstream),
            answer = client.response() => assert_eq!(answer.text(), "b"),
        }
    }
}

/// Waits until fewer connections are open than these.
async fn some_have_left(proxy: &Proxy, count: u32) {
    soon("the first ones to leave", async {
        while proxy.metrics().await.sum(OPEN, &[]) >= f64::from(count) {
            tokio::time::sleep(millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn who_has_not_left_stays_when_it_is_undone() {
    let server = echo().await;
    let proxy = Proxy::start().upstream("chat", &[&Named(&server, "a")]).run().await;
    let mut pairs = Vec::new();
    for _ in 0..20 {
        pairs.push(open(&proxy, &server).await);
    }
    json_of(&proxy, "drain", json!({ "upstream": "chat", "server": "a", "spread": "20s" })).await;
    some_have_left(&proxy, 20).await; // Nobody answers, so each takes five seconds.
    assert_eq!(proxy.order("undrain", json!({ "upstream": "chat", "server": "a" })).await.status(), 200);
    tokio::time::sleep(seconds(6)).await; // All that were told to leave have.
    let left = proxy.metrics().await.sum(OPEN, &[]);
    assert!((10.0..=18.0).contains(&left), "{left}");
    tokio::time::sleep(millis(500)).await;
    assert_eq!(proxy.metrics().await.sum(OPEN, &[]), left);
    assert_eq!(proxy.admin("/api/v1/drains").await.text(), "[]\n");
}

#[tokio::test]
async fn an_event_that_has_begun_comes_to_its_end() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("news", &[&server]).sse("{ keepalive: off }").run().await;
    let (mut within_event, mut first) = open_events(&proxy, &server).await;
    let (mut between, mut second) = open_events(&proxy, &server).await;
    first.send("8\r\ndata: a\n\r\n").await;
    within_event.until(b"data: a\n\r\n").await;
    second.send("9\r\ndata: b\n\n\r\n").await;
    between.until(b"data: b\n\n\r\n").await;
    json_of(&proxy, "drain", json!({ "spread": "0s" })).await;
    let rest = String::from_utf8(between.rest().await).expect("text");
    let wait = rest.strip_suffix("\n\n\r\n0\r\n\r\n").and_then(|it| it.rsplit_once("retry: ")).map(|(_, wait)| wait);
    let wait: u64 = wait.and_then(|wait| wait.parse().ok()).unwrap_or_else(|| panic!("{rest:?}"));
    assert!((500..1500).contains(&wait), "{wait}");

    within_event.stays_silent(millis(500)).await;
    first.send("f\r\ndata: c\n\ndata: \r\n").await;
    first.send("3\r\nd\n\n\r\n").await;
    let rest = String::from_utf8(within_event.rest().await).expect("text");
    assert!(rest.contains("data: c\n\ndata: "), "{rest:?}");
    assert!(rest.contains("d\n\n") && rest.contains("retry: ") && rest.ends_with("\n\n\r\n0\r\n\r\n"), "{rest:?}");
    assert_eq!(proxy.logged_path("/events").await["end_reason"], "drained");
}

#[tokio::test]
async fn a_server_that_is_taken_out_is_emptied_where_that_is_wanted_and_kept_when_it_is_back() {
    let (a, b) = (echo().await, Upstream::named("b").await);
    let affinity = "affinity: [{ header: X-None }]";
    let proxy = Proxy::start().upstream("chat", &[&Named(&a, "a")]).affinity("[{ header: X-None }]").run().await;
    let mut pairs = Vec::new();
    for _ in 0..20 {
        pairs.push(open(&proxy, &a).await);
    }
    let entry = |server: &Upstream, name| format!("{{ address: \"{}\", weight: 1, name: {name} }}", server.address());
    let (one, other) = (entry(&a, "a"), entry(&b, "b"));
    let removed = format!("{affinity}\n    drain: {{ removed: drain, spread: 20s }}");
    proxy.reload(&[(affinity, &removed)]).await;
    proxy.reload(&[(&one, &other)]).await;
    proxy.heard("drain: server a of upstream chat: 20 open").await;
    some_have_left(&proxy, 20).await;
    proxy.reload(&[(&other, &one)]).await;
    proxy.heard("it is back").await;
    tokio::time::sleep(seconds(6)).await; // All that were told to leave have.
    let left = proxy.metrics().await.sum(OPEN, &[]);
    assert!((10.0..=18.0).contains(&left), "{left}");
    assert_eq!(proxy.admin("/api/v1/drains").await.text(), "[]\n");
    open(&proxy, &a).await;
}

#[tokio::test]
async fn an_upstream_is_emptied_once_and_who_comes_back_stays() {
    let server = echo().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let (before, _server) = open(&proxy, &server).await;
    json_of(&proxy, "drain", json!({ "upstream": "chat", "spread": "0s" })).await;
    assert_eq!(closed(before).await.1, (CLOSE, close(1012, "service restart")));
    let (mut after, _other) = open(&proxy, &server).await;
    after.stays_silent(seconds(2)).await;
}

#[tokio::test]
async fn a_process_that_is_drained_serves_but_wants_nobody() {
    let server = Upstream::named("a").await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    json_of(&proxy, "drain", json!({ "spread": "0s" })).await;
    assert_eq!(proxy.admin("/readyz").await.status(), 503);
    assert_eq!(proxy.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.text(), "a");
    assert_eq!(proxy.order("undrain", json!({})).await.status(), 200);
    assert_eq!(proxy.admin("/readyz").await.status(), 200);
}

/// A server of Engine.IO by polling, which says who it is.
async fn polling(name: &'static str) -> Upstream {
    Upstream::serving(move |mut wire| async move {
        while let Some(request) = wire.next_request().await {
            let is_of_session = request.head.start.contains("sid=");
            let open = r#"0{"sid":"lv_VI97HAXpY6yYWAAAC","upgrades":[]}"#;
            wire.send(ok(if is_of_session { name } else { open })).await;
        }
    })
    .await
}

#[tokio::test]
async fn sessions_by_polling_are_told_to_begin_again_and_what_they_post_arrives() {
    const SESSIONS: usize = 30;
    let (a, b) = (polling("a").await, polling("b").await);
    let secret = SecretFile::with("sixteen and more bytes");
    let proxy = Proxy::start()
        .secret(&secret)
        .upstream("chat", &[&Named(&a, "a"), &Named(&b, "b")])
        .balance("{ keyless: round_robin }")
        .affinity("[engine_io, { header: X-None }]")
        .run()
        .await;
    let ask = async |method: &str, query: &str| {
        let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
        proxy
            .exchange(format!(
                "{method} /socket.io/?EIO=4&transport=polling{query} HTTP/1.1\r\nHost: a\r\n{length}\r\n"
            ))
            .await
            .text()
    };
    let mut sessions = Vec::new();
    while sessions.len() < SESSIONS {
        let open = ask("GET", "").await;
        let sid = open.split('"').nth(3).expect("a session id").to_owned();
        if ask("GET", &format!("&sid={sid}")).await == "a" {
            sessions.push(sid);
        }
    }
    json_of(&proxy, "drain", json!({ "upstream": "chat", "server": "a", "spread": "4s" })).await;
    let count = async || {
        let mut told = 0;
        for sid in &sessions {
            match ask("GET", &format!("&sid={sid}")).await.as_str() {
                "1" => told += 1,
                other => assert_eq!(other, "a"),
            }
            assert_eq!(ask("POST", &format!("&sid={sid}")).await, "a");
        }
        told
    };
    let mut counts = vec![count().await];
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(1050)).await;
        counts.push(count().await);
    }
    assert!(counts.is_sorted() && counts[0] < SESSIONS && counts[4] == SESSIONS, "{counts:?}");
    let line = proxy.logged(|line| line["end_reason"] == "drained").await;
    assert_eq!(line["status"], 200, "{line}");
}

#[tokio::test]
async fn a_server_is_told_of_a_farewell_as_it_is_told_of_requests() {
    let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let server = Upstream::serving(move |mut wire| {
        let said = said.clone();
        async move {
            let begin = String::from_utf8(wire.until(b"\r\n").await).expect("text");
            assert!(begin.starts_with("PROXY TCP4 127.0.0.1 "), "{begin}");
            while let Some(request) = wire.next_request().await {
                let is_of_session = request.head.start.contains("sid=");
                let open = r#"0{"sid":"lv_VI97HAXpY6yYWAAAC","upgrades":[]}"#;
                wire.send(ok(if is_of_session { "ok" } else { open })).await;
                said.send((request.head.start.clone(), request.text())).expect("the test listens");
            }
        }
    })
    .await;
    let secret = SecretFile::with("sixteen and more bytes");
    let setup = Proxy::start()
        .secret(&secret)
        .upstream("chat", &[&Named(&server, "a")])
        .affinity("[engine_io, { header: X-None }]");
    let proxy = setup.send_proxy_protocol("v1").run().await;
    let ask = async |query: &str| {
        let target = format!("/socket.io/?EIO=4&transport=polling{query}");
        proxy.exchange(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).await.text()
    };
    let sid = ask("").await.split('"').nth(3).expect("a session id").to_owned();
    json_of(&proxy, "drain", json!({ "upstream": "chat", "server": "a", "spread": "0s" })).await;
    assert_eq!(ask(&format!("&sid={sid}")).await, "1");
    heard.recv().await.expect("the handshake");
    let (start, body) = soon("the farewell", heard.recv()).await.expect("the server is there");
    assert_eq!(
        (start.as_str(), body.as_str()),
        ("POST /socket.io/?EIO=4&transport=polling&sid=lv_VI97HAXpY6yYWAAAC HTTP/1.1", "1")
    );
}

#[tokio::test]
async fn the_command_waits_until_it_is_over() {
    let server = echo().await;
    let admin = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port");
    let proxy = Proxy::start().upstream("chat", &[&Named(&server, "a")]).run().await;
    proxy.reload(&[("admin: { bind: \"127.0.0.1:0\"", &format!("admin: {{ bind: \"{admin}\""))]).await;
    proxy.heard(&format!("admin on {admin}")).await;
    let run = async |arguments: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(arguments).arg("-c").arg(proxy.file()).stdin(Stdio::null());
        let output = within(seconds(20), "the command", tokio::task::spawn_blocking(move || command.output())).await;
        let output = output.expect("it does not panic").expect("it starts");
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (client, _upstream) = open(&proxy, &server).await;
    let told = tokio::spawn(closed(client));
    let (code, text) = run(&["drain", "--upstream", "chat", "--server", "a", "--spread", "1s", "--wait"]).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("0s of ") && text.contains("0 of 1 connections open, over"), "{text}");
    told.await.expect("the client is told");
    assert_eq!(run(&["undrain", "--upstream", "chat", "--server", "a"]).await.0, Some(0));
    let (code, text) = run(&["drain", "--upstream", "chut"]).await;
    assert_eq!((code, text.contains("there is no upstream chut")), (Some(1), true), "{text}");
    let (code, text) = run(&["drain", "--spread", "soon"]).await;
    assert_eq!((code, text.contains("not a duration")), (Some(2), true), "{text}");
}
