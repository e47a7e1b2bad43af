//! Clients that break the rules, by mistake or by intent.

use crate::harness::{Proxy, Upstream, millis, show, soon};

#[tokio::test]
async fn a_request_that_is_no_http_is_a_400_or_closed() {
    let server = Upstream::named("a").await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    for request in [
        "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/1.1\r\nHost a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n",
        "GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    ] {
        let mut client = proxy.send(request).await;
        let answer = client.rest().await;
        let refused = answer.is_empty() || answer.starts_with(b"HTTP/1.1 4") || answer.starts_with(b"HTTP/1.1 505");
        assert!(refused, "for {request:?}: {}", show(&answer));
    }
    assert_eq!(server.accepted(), 0, "none of them is the server's business");
}

#[tokio::test]
async fn a_request_that_two_hops_could_read_differently_is_a_400() {
    let server = Upstream::named("a").await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    for fields in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5, 6\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Host: b\r\n",
        "X-Folded: a\r\n b\r\n",
        "Content-Length : 5\r\n",
    ] {
        let mut client = proxy.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\nhello")).await;
        let answer = client.rest().await;
        let refused = answer.is_empty() || answer.starts_with(b"HTTP/1.1 400") || answer.starts_with(b"HTTP/1.1 501");
        assert!(refused, "for {fields:?}: {}", show(&answer));
    }
    assert_eq!(server.accepted(), 0, "none of them is the server's business");
}

#[tokio::test]
async fn a_length_beside_chunks_smuggles_nothing() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy
        .send(
            "POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\nhello\r\n0\r\n\r\n",
        )
        .await;
    // Either it is refused, or the server sees one request with one framing (RFC 9112, 6.3).
    tokio::select! {
        answer = client.response() => assert_eq!(answer.status(), 400),
        mut upstream = server.accept() => {
            let request = upstream.request().await;
            assert_eq!(request.text(), "hello");
            assert_eq!(request.head.field("content-length"), None);
            upstream.send(crate::harness::upstream::ok("")).await;
        }
    }
}

#[tokio::test]
async fn a_page_in_a_browser_cannot_ask_the_admin_address_by_its_own_name() {
    let server = Upstream::named("a").await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    for (path, host, status) in [
        ("/metrics", "localhost:9900", 200),
        ("/api/v1/relays", "127.0.0.1", 200),
        ("/metrics", "evil.example.com", 403),
        ("/api/v1/relays", "evil.example.com:9900", 403),
        ("/healthz", "evil.example.com", 200),
    ] {
        let mut client = proxy.connect_admin().await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(client.response().await.status(), status, "{path} of {host}");
    }
}

#[tokio::test]
async fn an_admin_address_with_a_token_answers_whoever_brings_it() {
    let server = Upstream::named("a").await;
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::io::Write::write_all(&mut file, b"0123456789abcdef\n").expect("the file is ours");
    let setup = Proxy::start().upstream("chat", &[&server]);
    let proxy = setup.admin(&format!("token_file: {}", file.path().display())).run().await;
    for (path, field, status) in [
        ("/metrics", "", 401),
        ("/api/v1/relays", "Authorization: Bearer 0123456789abcdeF\r\n", 401),
        ("/nothing", "Authorization: Basic 0123456789abcdef\r\n", 401),
        ("/metrics", "Authorization: Bearer 0123456789abcdef\r\n", 200),
        ("/api/v1/relays", "Authorization: bearer 0123456789abcdef\r\n", 200),
        ("/healthz", "", 200),
        ("/readyz", "", 200),
    ] {
        let mut client = proxy.connect_admin().await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{field}Connection: close\r\n\r\n")).await;
        let answer = client.response().await;
        assert_eq!(answer.status(), status, "{path} with {field:?}");
        let challenge = (status == 401).then(|| "Bearer realm=\"steadfast\"".to_owned());
        assert_eq!(answer.head.field("www-authenticate"), challenge);
        let problem = (status == 401).then(|| "application/problem+json".to_owned());
        assert_eq!(answer.head.field("content-type").filter(|it| it.contains("json") && status != 200), problem);
    }
    let mut client = proxy.connect_admin().await;
    client.send("DELETE /api/v1/relays/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 401);
}

/// Each of them may take as long as the longest head; meanwhile the others are served, and it costs
/// little memory.
#[tokio::test]
async fn two_thousand_heads_that_drip_hold_up_nobody() {
    const SLOW: usize = 2000;
    let server = Upstream::named("a").await;
    let setup = Proxy::start().upstream("chat", &[&server]).access_log("{ format: off }");
    let proxy = setup.timeouts("{ request_head: 20s }").run().await;
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(proxy.exchange(get).await.status(), 200);
    let before = proxy.memory();
    let mut slow = Vec::with_capacity(SLOW);
    for _ in 0..SLOW {
        slow.push(proxy.send("GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ").await);
    }
    for byte in [b"a", b"b"] {
        for client in &mut slow {
            // The slowest may have been cut off on a busy machine.
            let _ = client.try_send(byte).await;
        }
        assert_eq!(proxy.exchange(get).await.status(), 200);
        assert_eq!(proxy.admin("/healthz").await.status(), 200);
    }
    let each = proxy.memory().saturating_sub(before) / SLOW;
    assert!(each < 32 * 1024, "{each} bytes for each of them");
    drop(slow);
    proxy.settles_empty().await;
}

#[tokio::test]
async fn a_head_that_is_too_long_is_a_431() {
    let server = Upstream::named("a").await;
    let proxy =
        Proxy::start().upstream("chat", &[&server]).line("limits: { head_bytes: 8KiB, headers: 20 }").run().await;
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n", "x".repeat(9000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X-Many: x\r\n".repeat(21));
    for request in [long, many] {
        let answer = proxy.exchange(request).await;
        assert_eq!(answer.status(), 431, "{}", answer.text());
    }
    let fits = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n", "x".repeat(7000));
    assert_eq!(proxy.exchange(fits).await.status(), 200);
    assert_eq!(server.accepted(), 1, "only the request that fits reached the server");
}

#[tokio::test]
async fn a_head_without_an_end_is_not_collected_forever() {
    let server = Upstream::named("a").await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let client = proxy.send("GET / HTTP/1.1\r\nHost: a\r\nX-Long: ").await;
    let (mut client, mut writing) = client.split();
    let flood = tokio::spawn(async move { writing.flood(&[b'x'; 16 * 1024], usize::MAX).await });
    let answer = client.rest().await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", show(&answer));
    drop(client);
    // The proxy may listen on for a moment, so that its answer is not lost in a reset.
    let all_taken = soon("the flood to be refused", flood).await.expect("the flood ends");
    assert!(!all_taken);
}

#[tokio::test]
async fn a_head_that_drips_is_cut_off() {
    let server = Upstream::named("a").await;
    let proxy = Proxy::start().upstream("chat", &[&server]).timeouts("{ request_head: 1s }").run().await;
    let client = proxy.send("GET / HTTP/1.1\r\nHost: a\r\n").await;
    let (mut client, mut writing) = client.split();
    let dripping = tokio::spawn(async move {
        // Each byte comes soon after the last: only a limit on the whole head helps.
        for _ in 0..100 {
            tokio::time::sleep(millis(100)).await;
            if !writing.flood(b"X", 1).await {
                return true;
            }
        }
        false
    });
    let answer = client.rest().await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{}", show(&answer));
    drop(client);
    assert!(dripping.await.expect("the dripping ends"), "it may drip for ever");
}

#[tokio::test]
async fn bytes_behind_a_request_are_never_taken_for_its_body() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let _client = proxy.send("GET /one HTTP/1.1\r\nHost: a\r\n\r\nGARBAGE").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.stays_silent(millis(200)).await;
    assert!(!upstream.recorded().windows(7).any(|window| window == b"GARBAGE"));
}
