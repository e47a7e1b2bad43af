//! TLS with servers: who they must be, and what becomes of those who are somebody else.

use crate::harness::proxy::Setup;
use crate::harness::upstream::ok;
use crate::harness::{Authority, Named, Proxy, Upstream, soon};

const GET: &str = "GET /x HTTP/1.1\r\nHost: chat.example.com\r\n\r\n";
const FAILURES: &str = "steadfast_connect_failures_total";

/// A server that shows a certificate for these names, and answers with its own name.
async fn named(authority: &Authority, names: &[&str], name: &'static str) -> Upstream {
    let server = Upstream::encrypted(authority.server(&authority.vouch_for(names))).await;
    server.serve(move |mut wire| async move {
        while wire.next_request().await.is_some() {
            wire.send(ok(name)).await;
        }
    })
}

/// A proxy of this server that asks it for a certificate of `authority`, and for what `more` says.
fn asking(server: &Upstream, authority: &Authority, more: &str) -> Setup {
    let ca = authority.file().display();
    Proxy::start().upstream("chat", &[server]).tls(&format!("{{ ca: {ca}{more} }}"))
}

#[tokio::test]
async fn a_server_is_known_by_its_address_or_by_the_name_it_should_have() {
    let authority = Authority::new();
    for (names, more) in [
        (&["127.0.0.1"][..], ""),
        (&["chat.internal"], ", server_name: chat.internal"),
        (&["*.chat.internal"], ", server_name: red.chat.internal"),
        (&["chat.internal"], ", server_name: chat.internal, verify: on"),
    ] {
        let server = named(&authority, names, "red").await;
        let proxy = asking(&server, &authority, more).run().await;
        let mut client = proxy.connect().await;
        for _ in 0..5 {
            client.send(GET).await;
            assert_eq!(client.response().await.text(), "red", "{names:?} {more}");
        }
        // An idle connection is used again, whatever tickets came behind the handshake.
        assert_eq!(server.accepted(), 1);
        assert_eq!(proxy.metrics().await.sum(FAILURES, &[]), 0.0);
    }
}

#[tokio::test]
async fn a_server_that_is_somebody_else_is_not_asked() {
    let authority = Authority::new();
    let others = Authority::new();
    let cases = [
        (others.vouch_for(&["127.0.0.1"]), "", "set tls.ca of the upstream"),
        (authority.vouch_for(&["chat.internal"]), "", "set tls.server_name of the upstream"),
        (authority.vouch_for(&["127.0.0.1"]), ", server_name: chat.internal", "set tls.server_name of the upstream"),
        (authority.vouch_until(&["127.0.0.1"], 2001), "", "xpired"),
    ];
    for (files, more, says) in cases {
        let server = Upstream::encrypted(authority.server(&files)).await;
        let server = server.serve(|mut wire| async move {
            assert!(wire.next_request().await.is_none(), "nobody may ask it anything");
        });
        let proxy = asking(&server, &authority, more).run().await;
        let answer = proxy.exchange(GET).await;
        assert_eq!(answer.status(), 502, "{}", answer.text());
        let line = proxy.heard("cannot connect to server").await;
        assert!(line.contains(says), "{line}");
        assert_eq!(proxy.metrics().await.sum(FAILURES, &[]), 1.0);
    }
}

#[tokio::test]
async fn the_next_server_stands_in_for_one_that_is_somebody_else() {
    let authority = Authority::new();
    let wrong = named(&Authority::new(), &["127.0.0.1"], "wrong").await;
    let right = named(&authority, &["127.0.0.1"], "right").await;
    let ca = authority.file().display();
    let servers = [Named(&wrong, "wrong"), Named(&right, "right")];
    let proxy =
        Proxy::start().upstream("chat", &[&servers[0], &servers[1]]).tls(&format!("{{ ca: {ca} }}")).run().await;
    for _ in 0..6 {
        assert_eq!(proxy.exchange(GET).await.text(), "right");
    }
}

#[tokio::test]
async fn a_server_may_be_anyone_if_the_file_says_so() {
    let server = named(&Authority::new(), &["somebody.example"], "red").await;
    let proxy = Proxy::start().upstream("chat", &[&server]).tls("{ verify: off }").run().await;
    assert_eq!(proxy.exchange(GET).await.text(), "red");
    proxy.heard("tls.verify is off").await;
}

#[tokio::test]
async fn the_authorities_of_the_system_do_not_know_the_servers_of_a_test() {
    let server = named(&Authority::new(), &["127.0.0.1"], "red").await;
    let proxy = Proxy::start().upstream("chat", &[&server]).tls("on").run().await;
    assert_eq!(proxy.exchange(GET).await.status(), 502);
    proxy.heard("set tls.ca of the upstream").await;
}

#[tokio::test]
async fn a_server_is_shown_a_certificate_if_it_wants_one() {
    let authority = Authority::new();
    let files = authority.vouch_for(&["127.0.0.1"]);
    let ours = authority.vouch_for(&["proxy.internal"]);
    let server = Upstream::encrypted(authority.strict_server(&files)).await;
    let server = server.serve(|mut wire| async move {
        while wire.next_request().await.is_some() {
            wire.send(ok("red")).await;
        }
    });
    let shown = format!(", cert: {}, key: {}", ours.cert.display(), ours.key.display());
    let proxy = asking(&server, &authority, &shown).run().await;
    assert_eq!(proxy.exchange(GET).await.text(), "red");
    // Without one there is no answer.
    let proxy = asking(&server, &authority, "").run().await;
    assert_eq!(proxy.exchange(GET).await.status(), 502);
}

#[tokio::test]
async fn a_server_in_plain_text_or_in_silence_is_no_server() {
    let authority = Authority::new();
    let plain = Upstream::named("red").await;
    let proxy = asking(&plain, &authority, "").run().await;
    assert_eq!(proxy.exchange(GET).await.status(), 502);
    let silent = Upstream::start().await;
    let proxy = asking(&silent, &authority, "").timeouts("{ connect: 1s }").run().await;
    assert_eq!(proxy.exchange(GET).await.status(), 502);
    proxy.heard("no answer within 1s").await;
    proxy.settles_empty().await;
}

#[tokio::test]
async fn a_proxy_header_comes_before_the_handshake_with_a_server() {
    let authority = Authority::new();
    let acceptor = authority.server(&authority.vouch_for(&["127.0.0.1"]));
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = server.local_addr().expect("it is bound");
    let ca = authority.file().display();
    let proxy = Proxy::start()
        .upstream("chat", &[&address])
        .tls(&format!("{{ ca: {ca} }}"))
        .send_proxy_protocol("v1")
        .run()
        .await;
    let mut client = proxy.connect().await;
    client.send(GET).await;
    let (mut tcp, _) = soon("a connection", server.accept()).await.expect("a connection");
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(tokio::io::AsyncReadExt::read_u8(&mut tcp).await.expect("a header"));
    }
    assert!(line.starts_with(b"PROXY TCP4 127.0.0.1 "), "{}", line.escape_ascii());
    let mut wire = crate::harness::Wire::encrypted(acceptor.accept(tcp).await.expect("a handshake"), "server");
    wire.request().await;
    wire.send(ok("red")).await;
    assert_eq!(client.response().await.text(), "red");
    // And the connection is used again for the same client only.
    client.send(GET).await;
    wire.request().await;
    wire.send(ok("red")).await;
    assert_eq!(client.response().await.text(), "red");
}

#[tokio::test]
async fn a_body_that_is_cut_off_is_not_taken_for_whole() {
    let authority = Authority::new();
    let files = authority.vouch_for(&["127.0.0.1"]);
    for goodbye in [true, false] {
        let server = Upstream::encrypted(authority.server(&files)).await;
        let server = server.serve(move |mut wire| async move {
            wire.request().await;
            wire.send("HTTP/1.1 200 OK\r\n\r\nhalf of it").await;
            if goodbye {
                wire.finish().await;
            }
        });
        let proxy = asking(&server, &authority, "").run().await;
        let mut client = proxy.send(GET).await;
        client.head().await;
        client.until(b"A\r\nhalf of it\r\n").await;
        if goodbye {
            assert_eq!(client.chunk().await, None);
        } else {
            client.ends().await;
        }
        let reason = if goodbye { "complete" } else { "server_error" };
        assert_eq!(proxy.logged_path("/x").await["end_reason"], reason);
    }
}

#[tokio::test]
async fn a_pooled_connection_that_its_server_has_closed_is_not_used() {
    let authority = Authority::new();
    let files = authority.vouch_for(&["127.0.0.1"]);
    let server = Upstream::encrypted(authority.server(&files)).await;
    let server = server.serve(|mut wire| async move {
        wire.request().await;
        wire.send(ok("once")).await;
        wire.finish().await;
        wire.rest().await;
    });
    let proxy = asking(&server, &authority, "").run().await;
    let mut client = proxy.connect().await;
    for _ in 0..5 {
        client.send(GET).await;
        assert_eq!(soon("an answer", client.response()).await.text(), "once");
    }
    assert_eq!(server.accepted(), 5);
}
