//! Bodies: streamed as they come, in either direction or both, and never held beyond a bound.

use crate::harness::upstream::ok;
use crate::harness::{Proxy, Random, Reading, Upstream, Writing, seconds, show};

#[tokio::test]
async fn a_body_arrives_whichever_way_it_is_framed() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.connect().await;
    let mut upstream = None;
    for (fields, body) in [
        ("Content-Length: 11", "hello there"),
        ("Content-Length: 0", ""),
        ("Transfer-Encoding: chunked", "6\r\nhello \r\n5;ext=1\r\nthere\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", "0\r\n\r\n"),
    ] {
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}")).await;
        if upstream.is_none() {
            upstream = Some(server.accept().await);
        }
        let upstream = upstream.as_mut().expect("just accepted");
        let request = upstream.request().await;
        let expected = if body.contains("there") { "hello there" } else { "" };
        assert_eq!(request.text(), expected, "{fields} {body:?}");
        upstream.send(ok("taken")).await;
        assert_eq!(client.response().await.text(), "taken");
    }
    assert_eq!(server.accepted(), 1, "one connection carries them all");
}

#[tokio::test]
async fn an_answer_arrives_whichever_way_it_is_framed() {
    for (fields, body) in [
        ("Content-Length: 11\r\n", "hello there"),
        ("Transfer-Encoding: chunked\r\n", "6\r\nhello \r\n5\r\nthere\r\n0\r\n\r\n"),
        ("", "hello there"),
        ("Connection: close\r\n", "hello there"),
    ] {
        let server = Upstream::start().await;
        let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
        let mut client = proxy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut upstream = server.accept().await;
        upstream.request().await;
        upstream.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}")).await;
        if !fields.contains("Length") && !fields.contains("chunked") {
            drop(upstream);
        }
        assert_eq!(client.response().await.text(), "hello there", "{fields:?}");
    }
}

#[tokio::test]
async fn each_piece_of_an_answer_is_passed_on_at_once() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    assert_eq!(client.head().await.status(), 200, "the head does not wait for a body");
    for piece in ["one", "two", "three"] {
        upstream.send(format!("{:x}\r\n{piece}\r\n", piece.len())).await;
        assert_eq!(client.chunk().await.as_deref(), Some(piece.as_bytes()));
    }
    upstream.send("0\r\n\r\n").await;
    assert_eq!(client.chunk().await, None);
}

#[tokio::test]
async fn each_piece_of_a_request_is_passed_on_at_once() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let mut upstream = server.accept().await;
    upstream.head().await;
    for piece in ["one", "two", "three"] {
        client.send(format!("{:x}\r\n{piece}\r\n", piece.len())).await;
        assert_eq!(upstream.chunk().await.as_deref(), Some(piece.as_bytes()));
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(upstream.chunk().await, None);
    upstream.send(ok("")).await;
    assert_eq!(client.response().await.status(), 200);
}

#[tokio::test]
async fn trailers_are_dropped_and_the_connections_stay_usable() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.connect().await;
    let chunked =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nyes\r\n0\r\nX-Sum: 7\r\n\r\n";
    let mut upstream = None;
    for _ in 0..3 {
        client
            .send(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                 3\r\nabc\r\n0\r\nX-Sum: 6\r\nX-More: x\r\n\r\n",
            )
            .await;
        if upstream.is_none() {
            upstream = Some(server.accept().await);
        }
        let upstream = upstream.as_mut().expect("just accepted");
        assert_eq!(upstream.request().await.text(), "abc");
        upstream.send(chunked).await;
        assert_eq!(client.response().await.text(), "yes");
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_client_that_expects_100_continue_is_told_to_go_on() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client =
        proxy.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    let mut upstream = server.accept().await;
    if upstream.head().await.field("expect").is_some() {
        upstream.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    }
    assert_eq!(client.head().await.status(), 100);
    client.send("hello").await;
    assert_eq!(upstream.exactly(5).await, b"hello");
    upstream.send(ok("taken")).await;
    let answer = client.response().await;
    assert_eq!((answer.status(), answer.text(), answer.interim.len()), (200, "taken".to_owned(), 0));
}

#[tokio::test]
async fn a_client_that_expects_100_continue_can_be_refused() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client =
        proxy.send("POST /huge HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    let mut upstream = server.accept().await;
    upstream.head().await;
    upstream.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nno!").await;
    let answer = client.response().await;
    assert_eq!((answer.status(), answer.text()), (413, "no!".to_owned()));
    // The client may still send the body, or take the connection for lost; either way its next
    // request is never mistaken for that body.
    let mut other = proxy.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = server.accept().await;
    assert!(upstream.request().await.head.start.starts_with("GET /next "));
    upstream.send(ok("next")).await;
    assert_eq!(other.response().await.text(), "next");
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nfirst").await;
    let mut upstream = server.accept().await;
    upstream.head().await;
    upstream.exactly(5).await;
    upstream.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\nConnection: close\r\n\r\nwho").await;
    drop(upstream);
    let answer = client.response().await;
    assert_eq!((answer.status(), answer.text()), (401, "who".to_owned()));
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_in_the_middle_of_a_large_body() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let client = proxy.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n").await;
    let (mut client, mut writing) = client.split();
    let sending = tokio::spawn(async move { writing.flood(&[b'x'; 4096], 1_000_000_000).await });
    let mut upstream = server.accept().await;
    upstream.head().await;
    upstream.exactly(100_000).await;
    upstream.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!").await;
    drop(upstream);
    let answer = client.rest().await;
    assert!(answer.starts_with(b"HTTP/1.1 413 ") && answer.ends_with(b"no!"), "{}", show(&answer));
    assert!(!sending.await.expect("the sending ends"), "all of it was taken");
    proxy.settles_empty().await;
}

const PIECE: usize = 64 * 1024;
const HUGE: usize = 64 * 1024 * 1024;

/// What four socket buffers grow to under Linux's defaults (send 4 MiB, receive 6 MiB), and some room.
const BUFFERED_MAX: usize = 32 * 1024 * 1024;

/// Sends [`HUGE`] pseudo-random bytes to somebody who reads nothing until it has stopped, and
/// everything then.
async fn is_stopped_and_goes_on(mut writing: Writing, mut reading: Reading) -> (Writing, Reading) {
    let mut random = Random::seeded(1);
    let mut sent = 0;
    let mut rest = Vec::new();
    while rest.is_empty() && sent < HUGE {
        let piece = random.bytes(PIECE);
        let taken = writing.send_until_stopped(&piece, seconds(1)).await;
        rest = piece[taken..].to_vec();
        sent += taken;
    }
    assert!(sent < BUFFERED_MAX, "{sent} bytes were taken for somebody who reads none");

    let writing = tokio::spawn(async move {
        writing.send(&rest).await;
        for _ in (sent + rest.len()) / PIECE..HUGE / PIECE {
            writing.send(random.bytes(PIECE)).await;
        }
        writing
    });
    let mut random = Random::seeded(1);
    for piece in 0..HUGE / PIECE {
        assert!(reading.exactly(PIECE).await == random.bytes(PIECE), "piece {piece} differs");
        reading.forget();
    }
    (writing.await.expect("the writer holds"), reading)
}

#[tokio::test]
async fn a_server_that_does_not_read_stops_the_client() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let client = proxy.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {HUGE}\r\n\r\n")).await;
    let mut upstream = server.accept().await;
    upstream.head().await;
    let (mut client, to_proxy) = client.split();
    let (from_proxy, mut upstream) = upstream.split();
    let _open = is_stopped_and_goes_on(to_proxy, from_proxy).await;
    upstream.send(ok("all of it")).await;
    assert_eq!(client.response().await.text(), "all of it");
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_server() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {HUGE}\r\n\r\n")).await;
    client.head().await;
    let (from_proxy, _to_proxy) = client.split();
    let (_from_proxy, to_proxy) = upstream.split();
    is_stopped_and_goes_on(to_proxy, from_proxy).await;
}

#[tokio::test]
async fn a_body_is_answered_while_it_is_still_being_sent() {
    const LENGTH: usize = 20 * 1024 * 1024;
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let mut upstream = server.accept().await;
    upstream.head().await;
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    assert_eq!(client.head().await.status(), 200, "the answer begins before the request has ended");

    let echo = tokio::spawn(async move {
        while let Some(chunk) = upstream.chunk().await {
            upstream.send(framed(&chunk)).await;
            upstream.forget();
        }
        upstream.send("0\r\n\r\n").await;
        upstream
    });
    let (mut client, mut to_proxy) = client.split();
    let sending = tokio::spawn(async move {
        let mut random = Random::seeded(3);
        for _ in 0..LENGTH / PIECE {
            to_proxy.send(framed(&random.bytes(PIECE))).await;
        }
        to_proxy.send("0\r\n\r\n").await;
        to_proxy
    });
    let mut random = Random::seeded(3);
    let (mut expected, mut received) = (Vec::new(), 0);
    while let Some(chunk) = client.chunk().await {
        while expected.len() < chunk.len() {
            expected.extend(random.bytes(PIECE));
        }
        assert!(expected[..chunk.len()] == chunk, "the echo differs after {received} bytes");
        expected.drain(..chunk.len());
        received += chunk.len();
        client.forget();
    }
    assert_eq!(received, LENGTH);
    let _open = (echo.await.expect("the echo holds"), sending.await.expect("the sender holds"));
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend(bytes);
    chunk.extend(b"\r\n");
    chunk
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_look_complete() {
    for (fields, part) in [
        ("Content-Length: 100", "only this"),
        ("Transfer-Encoding: chunked", "9\r\nonly this\r\n"),
        ("Transfer-Encoding: chunked", "20\r\nonly this"),
    ] {
        let server = Upstream::start().await;
        let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
        let mut client = proxy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut upstream = server.accept().await;
        upstream.request().await;
        upstream.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{part}")).await;
        client.head().await;
        // The head is out, so the proxy cannot answer 502 any more.
        upstream.finish().await;
        let rest = client.rest().await;
        assert!(!rest.ends_with(b"0\r\n\r\n") && rest.len() < 100, "{fields}: {}", rest.escape_ascii());
    }
}

#[tokio::test]
async fn a_request_that_breaks_off_never_looks_complete_to_the_server() {
    for (fields, part) in [("Content-Length: 100", "only this"), ("Transfer-Encoding: chunked", "9\r\nonly this\r\n")] {
        let server = Upstream::start().await;
        let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
        let client = proxy.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{part}")).await;
        let mut upstream = server.accept().await;
        upstream.head().await;
        upstream.until(b"only this").await;
        drop(client);
        let rest = upstream.rest().await;
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{fields}: {}", rest.escape_ascii());
    }
}

#[tokio::test]
async fn a_body_that_stands_still_is_given_up() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).timeouts("{ body: 500ms }").run().await;
    let mut client = proxy.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\npart").await;
    let mut upstream = server.accept().await;
    upstream.head().await;
    upstream.exactly(4).await;
    upstream.ends().await;
    let answer = client.rest().await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{}", answer.escape_ascii());

    let mut client = proxy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart").await;
    client.head().await;
    assert_eq!(client.rest().await, b"part");
}
