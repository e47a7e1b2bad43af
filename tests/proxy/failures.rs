//! Servers that cannot be reached, say nothing, say nonsense or say it too late; clients that leave
//! meanwhile.

use std::time::Instant;

use crate::harness::upstream::ok;
use crate::harness::{Leaving, Message, Proxy, Refusing, Upstream, millis, seconds};

/// A failure is told by the status and a short text; never by a page.
#[track_caller]
fn check_failure(answer: &Message, status: u16) {
    assert_eq!(answer.status(), status, "{}", answer.text());
    let kind = answer.head.field("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/plain"), "Content-Type: {kind}");
    assert!((1..500).contains(&answer.body.len()), "body: {:?}", answer.text());
}

#[tokio::test]
async fn a_server_that_refuses_is_passed_over_with_the_body_intact() {
    let (down, up) = (Refusing::start(), Upstream::start().await);
    let proxy = Proxy::start().upstream("chat", &[&down, &up]).affinity("[{ header: X-Key }]").run().await;
    let mut client = proxy.connect().await;
    let mut upstream = None;
    // Some of these keys belong to the server that is down, whatever its port is.
    for key in 0..40 {
        let body = format!("body of {key}");
        let request =
            format!("POST / HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        client.send(request).await;
        if upstream.is_none() {
            upstream = Some(up.accept().await);
        }
        let upstream = upstream.as_mut().expect("just accepted");
        assert_eq!(upstream.request().await.text(), body);
        upstream.send(ok("taken")).await;
        assert_eq!(client.response().await.text(), "taken", "key {key}");
    }
}

#[tokio::test]
async fn without_any_server_the_client_hears_it_at_once() {
    let (a, b) = (Refusing::start(), Refusing::start());
    let proxy = Proxy::start().upstream("chat", &[&a, &b]).run().await;
    let began = Instant::now();
    let answer = proxy.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    check_failure(&answer, 502);
    assert!(began.elapsed() < seconds(2), "it took {:?}", began.elapsed());
    let line = proxy.logged_path("/").await;
    assert_eq!((&line["status"], &line["end_reason"]), (&502.into(), &"refused".into()), "{line}");
}

#[tokio::test]
async fn a_server_that_closes_without_an_answer_is_a_502() {
    for how in Leaving::ALL {
        let server = Upstream::start().await;
        let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
        let mut client = proxy.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").await;
        let mut upstream = server.accept().await;
        upstream.request().await;
        upstream.leave(how);
        check_failure(&client.response().await, 502);
        assert_eq!(server.accepted(), 1, "a request that was sent is not sent again");
    }
}

#[tokio::test]
async fn nonsense_from_a_server_is_a_502() {
    for nonsense in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n0123456789",
    ] {
        let server = Upstream::start().await;
        let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
        let mut client = proxy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut upstream = server.accept().await;
        upstream.request().await;
        upstream.send(nonsense).await;
        upstream.finish().await;
        let answer = client.response().await;
        assert_eq!(answer.status(), 502, "for {nonsense:?}");
        check_failure(&answer, 502);
    }
}

#[tokio::test]
async fn a_server_that_breaks_off_within_its_head_is_a_502() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Le").await;
    drop(upstream);
    check_failure(&client.response().await, 502);
}

#[tokio::test]
async fn a_server_that_is_too_slow_is_a_504() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).timeouts("{ response_head: 500ms }").run().await;
    let mut client = proxy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    check_failure(&client.response().await, 504);
    upstream.ends().await;
    let line = proxy.logged_path("/slow").await;
    assert_eq!(line["status"], 504, "{line}");
}

#[tokio::test]
async fn a_client_that_leaves_while_parked_frees_its_server_at_once() {
    for how in Leaving::ALL {
        let server = Upstream::start().await;
        let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
        let client = proxy.send("GET /poll HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut upstream = server.accept().await;
        upstream.request().await;
        client.leave(how);
        upstream.ends().await;
        let line = proxy.logged_path("/poll").await;
        assert_eq!(line["end_reason"], "client_closed", "{line}");
        proxy.settles_empty().await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_within_an_answer_frees_its_server() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
    client.head().await;
    client.chunk().await;
    client.reset();
    upstream.ends().await;
    let line = proxy.logged_path("/stream").await;
    assert_eq!(line["end_reason"], "client_closed", "{line}");
}

#[tokio::test]
async fn a_lost_answer_is_logged_as_the_servers_error() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.send("GET /lost HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart").await;
    client.head().await;
    upstream.reset();
    client.rest().await;
    let line = proxy.logged_path("/lost").await;
    let reason = line["end_reason"].as_str().unwrap_or_default();
    assert!(["server_error", "server_closed"].contains(&reason), "{line}");
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_in_time_is_given_up() {
    // A listener whose queue is full drops every further handshake, as an overloaded machine does.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let full = socket.listen(1).expect("it can listen");
    let address = full.local_addr().expect("a bound socket has an address");
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(millis(200), tokio::net::TcpStream::connect(address)).await {
        waiting.push(stream);
    }
    let proxy = Proxy::start().upstream("chat", &[&address]).timeouts("{ connect: 500ms }").run().await;
    let began = Instant::now();
    let answer = proxy.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!([502, 504].contains(&answer.status()), "{}", answer.status());
    assert!((millis(400)..seconds(5)).contains(&began.elapsed()), "it took {:?}", began.elapsed());
}

#[tokio::test]
async fn interim_heads_without_end_are_cut_off() {
    for body in ["", "Content-Length: 5\r\n"] {
        let server = Upstream::start().await;
        let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
        let mut client = proxy.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{body}\r\n")).await;
        let upstream = server.accept().await;
        let (_reading, mut writing) = upstream.split();
        let hint = format!("HTTP/1.1 103 Early Hints\r\nLink: <{}>\r\n\r\n", "x".repeat(8000));
        // Far more than all socket buffers on the way hold, to a client that reads none of it.
        assert!(!writing.flood(hint.as_bytes(), 256 * 1024 * 1024).await, "all of it was taken");
        let answer = client.response().await;
        assert_eq!((answer.status(), answer.interim.len()), (502, 32));
        assert_eq!(proxy.logged_path("/").await["end_reason"], "refused");
        drop(client);
        proxy.settles_empty().await;
    }
}
