//! Event streams whose server is lost, or has to be left: another one goes on with them, and clients
//! notice nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::http2;
use crate::harness::tls::listening;
use crate::harness::{
    Authority, Http2, Leaving, Named, Node, Proxy, Random, Refusing, ServerEntry, Upstream, Wire, millis, seconds,
    soon, within,
};

const REQUEST: &str = "GET /events HTTP/1.1\r\nHost: a\r\nX-Own: 1\r\nAccept: text/event-stream\r\n\r\n";
const STREAM: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const UNTIL_CLOSE: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
const RESUMED: &str = "steadfast_sse_resumed_total";
const OPEN: &str = "steadfast_open_connections";
const ON: &str = "{ keepalive: off, resume: on }";

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// The next chunks of the client's, as far as `text` is long.
async fn expect(client: &mut Wire, text: &str) {
    let mut got = String::new();
    while got.len() < text.len() {
        let chunk = client.chunk().await.unwrap_or_else(|| panic!("the stream ended after {got:?}"));
        got += &String::from_utf8(chunk).expect("these chunks are text");
    }
    assert_eq!(got, text);
}

/// The stream ends whole, and its client is told when to come again.
async fn expect_return(client: &mut Wire) {
    let last = client.chunk().await.expect("a last word");
    let last = String::from_utf8(last).expect("it is text");
    let wait = last.strip_prefix("retry: ").unwrap_or_else(|| panic!("{last:?}")).trim_end();
    assert!((500..=1500).contains(&wait.parse::<u32>().expect("a time")), "{last:?}");
    assert_eq!(client.chunk().await, None);
}

/// A server's end of a stream that the proxy asks for; what it says is the last event.
async fn asked(server: &Upstream) -> (Wire, Option<String>) {
    let mut wire = server.accept().await;
    let head = wire.request().await.head;
    assert_eq!((head.start.as_str(), head.field("x-own").as_deref()), ("GET /events HTTP/1.1", Some("1")));
    assert!(head.field("x-forwarded-for").is_some_and(|hops| hops == "127.0.0.1"), "{head:?}");
    (wire, head.field("last-event-id"))
}

/// A stream over `server`: its client's end and the server's.
async fn open(proxy: &Proxy, server: &Upstream, head: &str) -> (Wire, Wire) {
    let mut client = proxy.send(REQUEST).await;
    let (mut upstream, last) = asked(server).await;
    assert_eq!(last, None);
    upstream.send(head).await;
    assert_eq!(client.head().await.status(), 200);
    (client, upstream)
}

async fn counted(proxy: &Proxy, expected: [(&str, f64); 2]) {
    for (result, count) in expected {
        proxy.settles(RESUMED, &[("upstream", "chat"), ("result", result)], count).await;
    }
    proxy.settles(RESUMED, &[], expected.iter().map(|(_, count)| count).sum()).await;
}

/// A proxy before two servers, of which `a` gets the first stream.
async fn before_two(a: &Upstream, b: &Upstream, sse: &str) -> Proxy {
    let proxy = Proxy::start().upstream("chat", &[&Named(a, "a"), &Named(b, "b")]).sse(sse).run().await;
    proxy.order("state", json!({ "upstream": "chat", "server": "b", "state": "maint" })).await;
    proxy
}

async fn is_ready(proxy: &Proxy, server: &str) {
    assert_eq!(
        proxy.order("state", json!({ "upstream": "chat", "server": server, "state": "ready" })).await.status(),
        200
    );
}

#[tokio::test]
async fn a_stream_goes_on_behind_the_last_event_when_its_server_is_lost() {
    for (head, event, how) in [
        (STREAM, chunk("id: 1\ndata: a\n\n"), Leaving::Closed),
        (STREAM, chunk("id: 1\ndata: a\n\n"), Leaving::Reset),
        // Where the end of the connection is that of the stream, only a reset is a loss.
        (UNTIL_CLOSE, "id: 1\ndata: a\n\n".to_owned(), Leaving::Reset),
    ] {
        let (a, b) = (Upstream::start().await, Upstream::start().await);
        let proxy = before_two(&a, &b, ON).await;
        let (mut client, mut upstream) = open(&proxy, &a, head).await;
        upstream.send(event).await;
        expect(&mut client, "id: 1\ndata: a\n\n").await;
        is_ready(&proxy, "b").await;
        upstream.leave(how);

        let (mut upstream, last) = asked(&b).await;
        assert_eq!(last.as_deref(), Some("1"));
        // Its head and its own byte order mark stay here.
        upstream.send(format!("{STREAM}{}", chunk("\u{FEFF}id: 2\ndata: b\n\n"))).await;
        expect(&mut client, "id: 2\ndata: b\n\n").await;
        counted(&proxy, [("resumed", 1.0), ("failed", 0.0)]).await;
        for (server, count) in [("a", 0.0), ("b", 1.0)] {
            proxy.settles(OPEN, &[("kind", "sse"), ("server", server)], count).await;
        }
        let relays = proxy.relays_once(1, "server=b").await;
        assert_eq!(relays["relays"][0]["server"], "b", "{relays}");

        // A clean end is one. The line is of the whole, and the connection as good as before.
        upstream.send("0\r\n\r\n").await;
        assert_eq!(client.chunk().await, None);
        let line = proxy.logged_path("/events").await;
        let said = (&line["server"], &line["end_reason"], &line["status"]);
        assert_eq!(said, (&json!("b"), &json!("server_closed"), &json!(200)));
        let framed = chunk("id: 1\ndata: a\n\n").len() + chunk("id: 2\ndata: b\n\n").len() + "0\r\n\r\n".len();
        assert!(line["bytes_out"].as_u64().is_some_and(|bytes| bytes >= framed as u64), "{line}");
        assert_eq!(proxy.log().iter().filter(|line| line.contains("/events")).count(), 1);
        proxy.order("state", json!({ "upstream": "chat", "server": "a", "state": "maint" })).await;
        client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut upstream = b.accept().await;
        assert_eq!(upstream.request().await.head.start, "GET /next HTTP/1.1");
        upstream.send(crate::harness::upstream::ok("b")).await;
        assert_eq!(client.response().await.text(), "b");
    }
}

#[tokio::test]
async fn a_stream_without_an_event_goes_on_with_what_its_client_has_said() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).sse(ON).run().await;
    for field in ["", "Last-Event-ID: 41\r\n"] {
        let mut client = proxy.send(REQUEST.replace("X-Own", &format!("{field}X-Own"))).await;
        let (mut upstream, last) = asked(&server).await;
        upstream.send(STREAM.to_owned() + &chunk(": hello\n\n")).await;
        client.head().await;
        expect(&mut client, ": hello\n\n").await;
        drop(upstream);
        // The one that was lost is asked again when there is no other.
        let (mut upstream, again) = asked(&server).await;
        assert_eq!((last.as_deref().unwrap_or_default(), &last), (if field.is_empty() { "" } else { "41" }, &again));
        upstream.send(STREAM.to_owned() + &chunk("id: 42\ndata: a\n\n")).await;
        expect(&mut client, "id: 42\ndata: a\n\n").await;
        drop(upstream);
        let (mut upstream, last) = asked(&server).await;
        assert_eq!(last.as_deref(), Some("42"));
        upstream.send(STREAM.to_owned() + "0\r\n\r\n").await;
        assert_eq!(client.chunk().await, None);
    }
    counted(&proxy, [("resumed", 4.0), ("failed", 0.0)]).await;
}

#[tokio::test]
async fn a_stream_that_breaks_within_an_event_ends_whole_without_it() {
    for begun in ["id: 2\ndata: half", "id: 2\ndata: half\n", "id: 2\r\ndata: half\r"] {
        let server = Upstream::start().await;
        let proxy = Proxy::start().upstream("chat", &[&server]).sse(ON).run().await;
        let (mut client, mut upstream) = open(&proxy, &server, STREAM).await;
        upstream.send(chunk("id: 1\ndata: a\n\n") + &chunk(begun)).await;
        expect(&mut client, &format!("id: 1\ndata: a\n\n{begun}")).await;
        drop(upstream);
        // An empty line would have half an event dispatched.
        let mut rest = String::new();
        while let Some(chunk) = client.chunk().await {
            rest += &String::from_utf8(chunk).expect("it is text");
        }
        let retry = rest.trim_start_matches('\n');
        assert_eq!(retry.is_empty(), begun.ends_with("half"), "{rest:?}");
        assert!(retry.is_empty() || (retry.starts_with("retry: ") && !retry.ends_with("\n\n")), "{rest:?}");
        counted(&proxy, [("mid_event", 1.0), ("resumed", 0.0)]).await;
        assert_eq!(proxy.logged_path("/events").await["end_reason"], "server_error");
        // It comes back on the same connection.
        client.send(REQUEST.replace("X-Own", "Last-Event-ID: 1\r\nX-Own")).await;
        let (mut upstream, last) = asked(&server).await;
        assert_eq!(last.as_deref(), Some("1"));
        upstream.send(STREAM).await;
        assert_eq!(client.head().await.status(), 200);
    }
}

#[tokio::test]
async fn nobody_can_go_on_with_events_that_have_no_ids() {
    for events in ["data: a\n\n", "id: 1\ndata: a\n\nid:\ndata: b\n\n", &format!("id: {}\n\n", "x".repeat(1025))] {
        let server = Upstream::start().await;
        let proxy = Proxy::start().upstream("chat", &[&server]).sse(ON).run().await;
        let (mut client, mut upstream) = open(&proxy, &server, STREAM).await;
        upstream.send(chunk(events)).await;
        expect(&mut client, events).await;
        drop(upstream);
        client.ends().await; // Without a last chunk.
        counted(&proxy, [("no_id", 1.0), ("resumed", 0.0)]).await;
        assert_eq!(server.accepted(), 1);
    }
}

#[tokio::test]
async fn an_end_is_an_end_and_a_post_is_not_repeated() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).sse(ON).run().await;
    let (mut client, mut upstream) = open(&proxy, &server, UNTIL_CLOSE).await;
    upstream.send("id: 1\ndata: a\n\n").await;
    drop(upstream);
    expect(&mut client, "id: 1\ndata: a\n\n").await;
    assert_eq!(client.chunk().await, None);

    let mut client = proxy.send("POST /ask HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send(STREAM.to_owned() + &chunk("id: 1\ndata: a\n\n")).await;
    client.head().await;
    expect(&mut client, "id: 1\ndata: a\n\n").await;
    drop(upstream);
    client.ends().await;
    assert_eq!(server.accepted(), 2);
    proxy.settles(RESUMED, &[], 0.0).await;
}

#[tokio::test]
async fn servers_are_asked_so_often_and_no_more() {
    const NOT_A_STREAM: [&str; 6] = [
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 8\r\n\r\nid: 9\n\n",
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 nonsense\r\n\r\n",
    ];
    for answer in NOT_A_STREAM {
        let server = Upstream::start().await;
        let sse = "{ keepalive: off, resume: on, resume_attempts: 2 }";
        let proxy = Proxy::start().upstream("chat", &[&server]).sse(sse).run().await;
        let (mut client, mut upstream) = open(&proxy, &server, STREAM).await;
        upstream.send(chunk("id: 1\ndata: a\n\n")).await;
        expect(&mut client, "id: 1\ndata: a\n\n").await;
        drop(upstream);
        for _ in 0..2 {
            let (mut upstream, last) = asked(&server).await;
            assert_eq!(last.as_deref(), Some("1"));
            upstream.send(answer).await;
        }
        expect_return(&mut client).await;
        counted(&proxy, [("failed", 1.0), ("resumed", 0.0)]).await;
        assert_eq!(
            (server.accepted(), proxy.logged_path("/events").await["end_reason"].as_str()),
            (3, Some("server_error"))
        );
        client.finish().await;
        proxy.settles_empty().await;
    }
}

#[tokio::test]
async fn a_server_that_takes_streams_and_drops_them_is_not_asked_for_ever() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).sse(ON).run().await;
    let (mut client, mut upstream) = open(&proxy, &server, STREAM).await;
    // Each event that passes counts anew.
    for id in 1..=2 {
        let event = format!("id: {id}\ndata: a\n\n");
        upstream.send(chunk(&event)).await;
        expect(&mut client, &event).await;
        for _ in 0..3 {
            drop(upstream);
            (upstream, _) = asked(&server).await;
            upstream.send(STREAM).await;
        }
    }
    drop(upstream);
    expect_return(&mut client).await;
    counted(&proxy, [("failed", 1.0), ("resumed", 6.0)]).await;
    assert_eq!(server.accepted(), 7);
}

#[tokio::test]
async fn while_a_server_is_sought_the_client_is_kept_and_heard() {
    let server = Upstream::start().await;
    let sse = "{ keepalive: 300ms, resume: on }";
    let proxy = Proxy::start().upstream("chat", &[&server]).sse(sse).run().await;
    let (mut client, mut upstream) = open(&proxy, &server, STREAM).await;
    upstream.send(chunk("id: 1\ndata: a\n\n")).await;
    expect(&mut client, "id: 1\ndata: a\n\n").await;
    drop(upstream);
    let (mut upstream, _) = asked(&server).await;
    expect(&mut client, ":keepalive\n:keepalive\n").await;
    client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n").await;
    expect(&mut client, ":keepalive\n:keepalive\n").await;
    upstream.send(STREAM.to_owned() + &chunk("id: 2\ndata: b\n\n") + "0\r\n\r\n").await;
    let mut text = String::new();
    while let Some(chunk) = client.chunk().await {
        text += &String::from_utf8(chunk).expect("it is text");
    }
    assert_eq!(text.replace(":keepalive\n", ""), "id: 2\ndata: b\n\n");
    let mut upstream = server.accept().await;
    assert_eq!(upstream.request().await.head.start, "GET /next HTTP/1.1");
    upstream.send(STREAM.to_owned() + &chunk("id: 3\n\n")).await;
    client.head().await;

    // One that leaves meanwhile is gone, and its server is told.
    expect(&mut client, "id: 3\n\n").await;
    drop(upstream);
    let mut upstream = server.accept().await;
    upstream.request().await;
    drop(client);
    upstream.ends().await;
    proxy.settles_empty().await;
    assert_eq!(proxy.logged_path("/next").await["end_reason"], "client_closed");
    // So is one whose stream somebody ends.
    let (mut client, mut upstream) = open(&proxy, &server, STREAM).await;
    upstream.send(chunk("id: 1\ndata: a\n\n")).await;
    expect(&mut client, "id: 1\ndata: a\n\n").await;
    drop(upstream);
    let _asked = asked(&server).await;
    let relays = proxy.relays_once(1, "").await;
    assert_eq!(proxy.end_relay(&relays["relays"][0]["id"]).await, 202);
    while client.chunk().await.is_some_and(|chunk| chunk == b":keepalive\n") {}
    client.ends().await;
}

#[tokio::test]
async fn a_drained_server_is_left_between_two_events() {
    let (a, b) = (Upstream::start().await, Upstream::start().await);
    let proxy = before_two(&a, &b, ON).await;
    let (mut client, mut upstream) = open(&proxy, &a, STREAM).await;
    upstream.send(chunk("id: 1\ndata: a\n\nid: 2\n")).await;
    expect(&mut client, "id: 1\ndata: a\n\nid: 2\n").await;
    is_ready(&proxy, "b").await;
    assert_eq!(proxy.order("drain", json!({ "upstream": "chat", "server": "a", "spread": "0s" })).await.status(), 200);
    tokio::time::sleep(millis(300)).await;
    assert_eq!(b.accepted(), 0, "an event has begun");
    upstream.send(chunk("data: b\n\n")).await;
    expect(&mut client, "data: b\n\n").await;
    let (mut next, last) = asked(&b).await;
    assert_eq!(last.as_deref(), Some("2"));
    upstream.ends().await;
    next.send(STREAM.to_owned() + &chunk("id: 3\ndata: c\n\n")).await;
    expect(&mut client, "id: 3\ndata: c\n\n").await;
    counted(&proxy, [("resumed", 1.0), ("failed", 0.0)]).await;

    // Where all of them are to be left, it ends.
    assert_eq!(proxy.order("drain", json!({ "upstream": "chat", "spread": "0s" })).await.status(), 200);
    expect_return(&mut client).await;
    assert_eq!(proxy.logged_path("/events").await["end_reason"], "drained");
    next.ends().await;
    counted(&proxy, [("resumed", 1.0), ("failed", 0.0)]).await;
    assert_eq!((a.accepted(), b.accepted()), (1, 1));
}

#[tokio::test]
async fn a_stream_that_has_gone_on_elsewhere_has_no_part_in_the_drain_of_its_first_server() {
    const STREAMS: u8 = 8;
    const SPREAD: Duration = seconds(2);
    let (a, b) = (Upstream::start().await, Upstream::start().await);
    let proxy = before_two(&a, &b, ON).await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let (mut client, mut upstream) = open(&proxy, &a, STREAM).await;
        upstream.send(chunk("id: 1\ndata: a\n\n")).await;
        expect(&mut client, "id: 1\ndata: a\n\n").await;
        streams.push((client, upstream));
    }
    is_ready(&proxy, "b").await;
    // Each gets a moment to leave, and is lost before that.
    let began = tokio::time::Instant::now();
    assert_eq!(proxy.order("drain", json!({ "upstream": "chat", "server": "a", "spread": "2s" })).await.status(), 200);
    let mut clients = Vec::new();
    for (client, upstream) in streams {
        drop(upstream);
        clients.push(client);
    }
    let mut upstreams = Vec::new();
    for _ in 0..STREAMS {
        let (mut upstream, last) = asked(&b).await;
        assert_eq!(last.as_deref(), Some("1"));
        upstream.send(STREAM.to_owned() + &chunk("id: 2\ndata: b\n\n")).await;
        upstreams.push(upstream);
    }
    // Nothing tells that nothing happens but that the last moment is over.
    tokio::time::sleep_until(began + SPREAD + millis(500)).await;
    for upstream in &mut upstreams {
        upstream.send(chunk("id: 3\ndata: c\n\n")).await;
    }
    for client in &mut clients {
        expect(client, "id: 2\ndata: b\n\nid: 3\ndata: c\n\n").await;
    }
    counted(&proxy, [("resumed", f64::from(STREAMS)), ("failed", 0.0)]).await;
    assert_eq!((a.accepted(), b.accepted()), (usize::from(STREAMS), usize::from(STREAMS)));
}

#[tokio::test]
async fn streams_stay_with_a_server_that_was_taken_out_and_is_back() {
    // It is back behind the time-out of its drain, or before.
    tokio::join!(is_taken_out_and_back("0s"), is_taken_out_and_back("1m"));
}

async fn is_taken_out_and_back(timeout: &str) {
    let (a, b) = (Upstream::start().await, Upstream::start().await);
    let drain = format!("{{ removed: drain, spread: 0s, timeout: {timeout} }}");
    let proxy = before_two(&a, &b, &format!("{ON}\n    drain: {drain}")).await;
    let (mut client, mut upstream) = open(&proxy, &a, STREAM).await;
    upstream.send(chunk("id: 1\ndata: a\n\n")).await;
    expect(&mut client, "id: 1\ndata: a\n\n").await;
    is_ready(&proxy, "b").await;
    // A server is the same one as long as somebody knows it: here a relay that began when it was one of all.
    proxy.order("state", json!({ "upstream": "chat", "server": "a", "state": "maint" })).await;
    let _other = open(&proxy, &b, STREAM).await;
    is_ready(&proxy, "a").await;
    let entry = |server: &Upstream, name| format!("{{ address: \"{}\", weight: 1, name: {name} }}", server.address());
    let (both, rest) = (format!("{}, {}", entry(&a, "a"), entry(&b, "b")), entry(&b, "b"));
    assert_eq!(proxy.reload(&[(&both, &rest)]).await.status(), 200);
    let (mut upstream, last) = asked(&b).await;
    assert_eq!(last.as_deref(), Some("1"));
    upstream.send(STREAM.to_owned() + &chunk("id: 2\ndata: b\n\n")).await;
    expect(&mut client, "id: 2\ndata: b\n\n").await;
    proxy.heard("drain: server a of upstream chat: done").await;

    assert_eq!(proxy.reload(&[(&rest, &both)]).await.status(), 200);
    proxy.order("state", json!({ "upstream": "chat", "server": "b", "state": "maint" })).await;
    let (mut newcomer, mut newcomers) = open(&proxy, &a, STREAM).await;
    newcomers.send(chunk("id: 3\ndata: c\n\n")).await;
    expect(&mut newcomer, "id: 3\ndata: c\n\n").await;
    // A drain that goes on finds newcomers within a second.
    tokio::time::sleep(millis(1500)).await;
    newcomers.send(chunk("id: 4\ndata: d\n\n")).await;
    expect(&mut newcomer, "id: 4\ndata: d\n\n").await;
    counted(&proxy, [("resumed", 1.0), ("failed", 0.0)]).await;
}

#[tokio::test]
async fn a_stream_on_its_server_ends_when_nobody_else_is_there() {
    let a = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&Named(&a, "a")]).sse(ON).run().await;
    let (mut client, mut upstream) = open(&proxy, &a, STREAM).await;
    upstream.send(chunk("id: 1\ndata: a\n\n")).await;
    expect(&mut client, "id: 1\ndata: a\n\n").await;
    assert_eq!(proxy.order("drain", json!({ "upstream": "chat", "server": "a", "spread": "0s" })).await.status(), 200);
    expect_return(&mut client).await;
    counted(&proxy, [("failed", 1.0), ("resumed", 0.0)]).await;
    assert_eq!(a.accepted(), 1);
}

#[tokio::test]
async fn servers_that_come_with_another_configuration_are_asked() {
    let (a, b) = (Upstream::start().await, Upstream::start().await);
    let proxy = Proxy::start().upstream("chat", &[&Named(&a, "a")]).sse(ON).run().await;
    let (mut client, mut upstream) = open(&proxy, &a, STREAM).await;
    upstream.send(chunk("id: 1\ndata: a\n\n")).await;
    expect(&mut client, "id: 1\ndata: a\n\n").await;
    let entry = |server: &Upstream| format!("address: \"{}\"", server.address());
    assert_eq!(proxy.reload(&[(&entry(&a), &entry(&b)), ("name: a", "name: b")]).await.status(), 200);
    drop(upstream);
    let (mut upstream, last) = asked(&b).await;
    assert_eq!(last.as_deref(), Some("1"));
    upstream.send(STREAM.to_owned() + &chunk("id: 2\n\n") + "0\r\n\r\n").await;
    expect(&mut client, "id: 2\n\n").await;
    assert_eq!(client.chunk().await, None);
    assert_eq!(proxy.logged_path("/events").await["server"], "b");
}

#[tokio::test]
async fn clients_on_tls_and_http2_and_http_1_0_notice_nothing_either() {
    const NAME: &str = "chat.example.com";
    let authority = Authority::new();
    let server = Upstream::encrypted(authority.server(&authority.vouch_for(&["127.0.0.1"]))).await;
    let setup = Proxy::start().listening(&listening(&[&authority.vouch_for(&[NAME])])).upstream("chat", &[&server]);
    let proxy = setup.tls(&format!("{{ ca: {} }}", authority.file().display())).sse(ON).run().await;
    let one = "id: 1\ndata: a\n\n";
    let two = "id: 2\ndata: b\n\n";
    // Each server's end is gone without a word of TLS.
    let resumed = async || {
        let (mut upstream, last) = asked(&server).await;
        assert_eq!(last.as_deref(), Some("1"));
        upstream.send(STREAM.to_owned() + &chunk(two) + "0\r\n\r\n").await;
        upstream
    };

    let mut client = authority.client().connect(&proxy, NAME).await;
    client.send(REQUEST).await;
    let (mut upstream, _) = asked(&server).await;
    upstream.send(STREAM.to_owned() + &chunk(one)).await;
    client.head().await;
    expect(&mut client, one).await;
    drop(upstream);
    let _upstream = resumed().await;
    expect(&mut client, two).await;
    assert_eq!(client.chunk().await, None);

    let mut client = Http2::connect_encrypted(&proxy, &authority.client().speaking(b"h2"), NAME).await;
    let asking = client.ask(http2::request("GET", "/events", &[("x-own", "1")]), true).await;
    let (mut upstream, _) = asked(&server).await;
    upstream.send(STREAM.to_owned() + &chunk(one)).await;
    let mut answered = asking.answer().await;
    assert_eq!(answered.exactly(one.len()).await, one.as_bytes());
    drop(upstream);
    let _upstream = resumed().await;
    assert_eq!(answered.rest().await.expect("no reset"), two.as_bytes());

    let mut client = authority.client().connect(&proxy, NAME).await;
    client.send(REQUEST.replace("HTTP/1.1", "HTTP/1.0")).await;
    let (mut upstream, _) = asked(&server).await;
    upstream.send(STREAM.to_owned() + &chunk(one)).await;
    client.head().await;
    assert_eq!(client.exactly(one.len()).await, one.as_bytes());
    drop(upstream);
    let _upstream = resumed().await;
    assert_eq!(client.rest().await, two.as_bytes());
    counted(&proxy, [("resumed", 3.0), ("failed", 0.0)]).await;
    drop(answered);
    proxy.settles("steadfast_open_connections", &[], 0.0).await;
}

/// Servers of one log, at addresses of their own, of which some run.
struct LogServers {
    places: Vec<(Refusing, Option<Node>)>,
    start: u128,
}

impl LogServers {
    /// Between two events, in milliseconds.
    const EVERY: u128 = 50;

    async fn start(count: usize) -> Self {
        let start = SystemTime::now().duration_since(UNIX_EPOCH).expect("a sane clock").as_millis();
        let mut this = Self { places: (0..count).map(|_| (Refusing::start(), None)).collect(), start };
        for at in 0..count {
            this.run(at).await;
        }
        this
    }

    async fn run(&mut self, at: usize) {
        let (place, node) = &mut self.places[at];
        let port = place.address().port();
        let argument = json!({ "port": port, "start": self.start, "every": Self::EVERY });
        let running = Node::script("sse_log_server.js", &argument);
        soon("a server to listen", running.says("port")).await;
        *node = Some(running);
    }

    /// Kills a random one that runs, if it is not the only one, or has it run again if it does not.
    async fn disturb(&mut self, random: &mut Random) {
        let at = random.up_to(self.places.len()) - 1;
        let running = self.places.iter().filter(|(_, node)| node.is_some()).count();
        match &self.places[at].1 {
            None => self.run(at).await,
            Some(_) if running == 1 => {}
            Some(node) => {
                node.kill();
                self.places[at].1 = None;
            }
        }
    }

    fn newest(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a sane clock").as_millis();
        u64::try_from((now - self.start) / Self::EVERY).expect("the test is short")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reader_of_a_log_gets_every_event_once_whoever_is_killed() {
    const READERS: usize = 40;
    const DISTURBED: Duration = seconds(30);
    let seed = u64::from(std::process::id()) ^ LogServers::start(0).await.start as u64;
    println!("seed {seed}");
    let mut random = Random::seeded(seed);
    let mut servers = LogServers::start(3).await;
    let entries: Vec<_> = servers.places.iter().map(|(place, _)| place as &dyn ServerEntry).collect();
    let sse = "{ keepalive: 1s, retry: 200ms, resume: on, resume_attempts: 10 }";
    let proxy = Proxy::start().upstream("chat", &entries).sse(sse).timeouts("{ connect: 2s }").run().await;
    let url = format!("http://{}/log", proxy.address());
    let mut readers = Node::script("sse_log_readers.js", &json!({ "url": url, "readers": READERS }));
    soon("the readers to be there", readers.says("open")).await;

    let began = tokio::time::Instant::now();
    let mut next = began;
    while began.elapsed() < DISTURBED {
        servers.disturb(&mut random).await;
        next += seconds(1);
        // Events are torn for a part of the time between two, which is a part of a second: at the same
        // moment of each second all of them would be torn, or none.
        let later = Duration::from_millis(random.up_to(LogServers::EVERY as usize) as u64);
        tokio::time::sleep_until(next + later).await;
    }
    readers.tell(&json!({ "until": servers.newest() }));
    let report = within(seconds(60), "the readers to have read everything", readers.says("report")).await;
    let reports = report.as_array().expect("a list");
    let sum = async |result| proxy.metrics().await.sum(RESUMED, &[("result", result)]);
    let wrong: Vec<&Value> = reports.iter().filter(|reader| reader["wrong"] != json!([])).collect();
    assert!(wrong.is_empty(), "seed {seed}: {wrong:?}");
    assert!(reports.iter().all(|reader| reader["last"].as_u64() > Some(500)), "seed {seed}: {report}");
    let opens: u64 = reports.iter().filter_map(|reader| reader["opens"].as_u64()).sum();
    let (resumed, mid_event) = (sum("resumed").await, sum("mid_event").await);
    println!("{READERS} readers: {resumed} streams went on, {mid_event} came back, seed {seed}");
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let returns = (opens - READERS as u64) as f64;
    // Nobody has noticed but whose event was torn.
    assert_eq!((returns, sum("failed").await, sum("no_id").await), (mid_event, 0.0, 0.0), "seed {seed}");
    assert!(resumed > 20.0, "seed {seed}: {resumed} resumed");
}
