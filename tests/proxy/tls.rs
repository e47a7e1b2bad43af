//! TLS with clients: certificates by name, versions, certificates of theirs, and who does not get in.

use std::process::{Command, Stdio};

use rustls::version::{TLS12, TLS13};
use tokio::task::JoinSet;

use crate::harness::proxy::Setup;
use crate::harness::tls::listening;
use crate::harness::upstream::ok;
use crate::harness::{Authority, Files, Proxy, Shaking, Upstream, soon};

const GET: &str = "GET /x HTTP/1.1\r\nHost: chat.example.com\r\n\r\n";
const REFUSED: &str = "steadfast_tls_refused_total";
const SHAKEN: &str = "steadfast_tls_handshakes_total";
const NAME: &str = "chat.example.com";

/// A listener that shows one certificate, for [`NAME`].
fn one(authority: &Authority) -> (Setup, Shaking) {
    (Proxy::start().listening(&listening(&[&authority.vouch_for(&[NAME])])), authority.client())
}

/// A server that answers with the scheme that it is told of.
async fn telling() -> Upstream {
    Upstream::serving(|mut wire| async move {
        while let Some(request) = wire.next_request().await {
            wire.send(ok(&request.head.field("x-forwarded-proto").unwrap_or_default())).await;
        }
    })
    .await
}

/// What a program prints that is run with these arguments, and nothing to read.
async fn printed(program: &'static str, arguments: Vec<String>) -> String {
    let run = move || {
        let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
        let output = output.unwrap_or_else(|error| panic!("{program} is missing: {error}"));
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    soon(program, tokio::task::spawn_blocking(run)).await.expect("it does not panic")
}

/// What `openssl s_client` says of a connection.
async fn s_client(proxy: &Proxy, arguments: &[&str]) -> String {
    let connect = ["s_client".to_owned(), "-connect".to_owned(), proxy.address().to_string()];
    printed("openssl", connect.into_iter().chain(arguments.iter().map(ToString::to_string)).collect()).await
}

#[tokio::test]
async fn requests_are_answered_over_both_versions_and_servers_are_told() {
    let authority = Authority::new();
    let server = telling().await;
    let (setup, client) = one(&authority);
    let proxy = setup.upstream("chat", &[&server]).run().await;
    for (version, label) in [(&TLS12, "1.2"), (&TLS13, "1.3")] {
        let mut client = client.clone().only(&authority, version).connect(&proxy, NAME).await;
        for _ in 0..3 {
            client.send(GET).await;
            assert_eq!(client.response().await.text(), "https");
        }
        let shaken = proxy.metrics().await.sum(SHAKEN, &[("version", label), ("resumed", "no")]);
        assert_eq!(shaken, 1.0, "{label}");
        proxy.logged(|line| line["tls"] == format!("TLSv{label}")).await;
    }
    assert_eq!(proxy.metrics().await.sum(REFUSED, &[]), 0.0);
    proxy.settles_empty().await;
}

#[tokio::test]
async fn a_name_gets_its_certificate_and_a_stranger_the_first() {
    let authority = Authority::new();
    let server = Upstream::named("a").await;
    let files: Vec<Files> = [&["first.example"][..], &["chat.example.com"], &["*.example.com"]]
        .map(|names| authority.vouch_for(names))
        .into();
    let shown = listening(&files.iter().collect::<Vec<_>>());
    let proxy = Proxy::start().listening(&shown).upstream("chat", &[&server]).run().await;
    let client = authority.client();
    // The client checks what it is shown.
    for name in ["first.example", "chat.example.com", "other.example.com"] {
        let mut client = client.connect(&proxy, name).await;
        client.send(GET).await;
        assert_eq!(client.response().await.status(), 200, "{name}");
    }
    for name in ["a.b.example.com", "example.com", "unknown.example"] {
        assert!(client.try_connect(proxy.address(), name).await.is_err(), "{name}");
    }
    // Whoever does not trust what it is shown says so.
    proxy.settles(REFUSED, &[("reason", "alert")], 3.0).await;
    proxy.heard("as a rule it does not trust the certificate").await;
    let ca = authority.file().display().to_string();
    let name = ["-verify_hostname", "first.example", "-CAfile", &ca];
    let text = s_client(&proxy, &[&["-noservername"][..], &name].concat()).await;
    assert!(text.contains("Verify return code: 0 (ok)"), "{text}");
    proxy.settles_empty().await;
}

#[tokio::test]
async fn openssl_and_curl_get_in_and_old_versions_do_not() {
    let authority = Authority::new();
    let server = telling().await;
    let (setup, _) = one(&authority);
    let proxy = setup.upstream("chat", &[&server]).run().await;
    for (flag, says) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let text = s_client(&proxy, &[flag, "-servername", NAME, "-alpn", "http/1.1"]).await;
        assert!(text.contains(says) && text.contains("ALPN protocol: http/1.1"), "{text}");
        let text = s_client(&proxy, &[flag, "-servername", NAME, "-alpn", "http/1.1,h2"]).await;
        assert!(text.contains(says) && text.contains("ALPN protocol: h2"), "{text}");
    }
    let text = s_client(&proxy, &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]).await;
    assert!(text.contains("SSL alert number"), "{text}");
    proxy.settles(REFUSED, &[("reason", "version")], 1.0).await;
    let text = s_client(&proxy, &["-alpn", "gossip/1"]).await;
    assert!(text.contains("alert no application protocol") || text.contains("alert number 120"), "{text}");
    proxy.settles(REFUSED, &[("reason", "parameters")], 1.0).await;
    let (port, ca) = (proxy.address().port(), authority.file().display().to_string());
    let arguments = ["-sS", "--http1.1", "--cacert", &ca, "--resolve", &format!("{NAME}:{port}:127.0.0.1")];
    let arguments = arguments.map(str::to_owned).into_iter();
    let text = printed("curl", arguments.chain([format!("https://{NAME}:{port}/x")]).collect()).await;
    assert_eq!(text, "https");
    proxy.settles_empty().await;
}

#[tokio::test]
async fn versions_older_than_wanted_are_refused() {
    let authority = Authority::new();
    let server = Upstream::named("a").await;
    let files = authority.vouch_for(&[NAME]);
    let keys = format!("tls: {{ certificates: [{}], min_version: 1.3 }}", files.entry());
    let proxy = Proxy::start().listening(&keys).upstream("chat", &[&server]).run().await;
    let client = authority.client();
    let old = client.clone().only(&authority, &TLS12);
    assert!(old.try_connect(proxy.address(), NAME).await.is_err());
    proxy.settles(REFUSED, &[("reason", "version")], 1.0).await;
    client.connect(&proxy, NAME).await.send(GET).await;
}

#[tokio::test]
async fn clients_need_a_certificate_where_an_authority_is_named() {
    let authority = Authority::new();
    let others = Authority::new();
    let server = Upstream::named("a").await;
    let files = authority.vouch_for(&[NAME]);
    let ca = authority.file().display();
    let keys = format!("tls: {{ certificates: [{}], client_ca: {ca} }}", files.entry());
    let proxy = Proxy::start().listening(&keys).upstream("chat", &[&server]).run().await;
    let known = authority.client().showing(&authority, &authority.vouch_for(&["alice"]));
    for _ in 0..2 {
        let mut client = known.connect(&proxy, NAME).await;
        client.send(GET).await;
        assert_eq!(client.response().await.status(), 200);
    }
    let strangers = [
        authority.client(),
        authority.client().showing(&authority, &others.vouch_for(&["mallory"])),
        authority.client().showing(&authority, &authority.vouch_until(&["bob"], 2001)),
    ];
    for (refused, stranger) in strangers.iter().enumerate() {
        // With TLS 1.3 a client hears of it only when it listens.
        if let Ok(mut client) = stranger.try_connect(proxy.address(), NAME).await {
            let _ = client.try_send(GET.as_bytes()).await;
            assert!(client.try_exactly(1).await.is_err());
        }
        proxy.settles(REFUSED, &[("reason", "client_certificate")], (refused + 1) as f64).await;
    }
    proxy.heard("it has shown no certificate that client_ca vouches for").await;
    proxy.settles_empty().await;
}

#[tokio::test]
async fn a_client_that_comes_again_need_not_shake_hands_in_full() {
    let authority = Authority::new();
    let server = Upstream::named("a").await;
    let (setup, client) = one(&authority);
    let proxy = setup.upstream("chat", &[&server]).run().await;
    for version in [&TLS12, &TLS13] {
        let client = client.clone().only(&authority, version).kept();
        for _ in 0..4 {
            let mut client = client.connect(&proxy, NAME).await;
            client.send(GET).await;
            assert_eq!(client.response().await.status(), 200);
        }
    }
    // Whichever worker it comes to.
    let metrics = proxy.metrics().await;
    assert_eq!((metrics.sum(SHAKEN, &[("resumed", "no")]), metrics.sum(SHAKEN, &[("resumed", "yes")])), (2.0, 6.0));
}

#[tokio::test]
async fn nothing_may_be_sent_ahead_of_the_handshake() {
    let authority = Authority::new();
    let server = Upstream::named("a").await;
    let (setup, client) = one(&authority);
    let proxy = setup.upstream("chat", &[&server]).run().await;
    let client = client.hasty().kept();
    for _ in 0..2 {
        let mut client = client.connect(&proxy, NAME).await;
        client.send(GET).await;
        assert_eq!(client.response().await.status(), 200);
    }
    assert_eq!(proxy.metrics().await.sum(SHAKEN, &[("resumed", "yes")]), 1.0);
    assert!(!client.may_hurry(NAME));
}

#[tokio::test]
async fn a_request_in_plain_text_is_told_what_to_do() {
    let authority = Authority::new();
    let server = Upstream::named("a").await;
    let (setup, _) = one(&authority);
    let proxy = setup.upstream("chat", &[&server]).run().await;
    for request in [GET, "OPTIONS * HTTP/1.0\r\n\r\n"] {
        let answer = proxy.exchange(request).await;
        assert_eq!(answer.status(), 400);
        assert!(answer.text().contains("https://"), "{}", answer.text());
    }
    proxy.settles(REFUSED, &[("reason", "plain_http")], 2.0).await;
    let mut client = proxy.send("PROXY".to_lowercase()).await;
    client.ends().await;
    proxy.settles(REFUSED, &[("reason", "not_tls")], 1.0).await;
    assert_eq!(server.accepted(), 0);
    proxy.settles_empty().await;
}

#[tokio::test]
async fn handshakes_that_do_not_come_to_their_end_are_counted_and_hold_up_nobody() {
    const HALF_OPEN: usize = 200;
    let authority = Authority::new();
    let server = Upstream::named("a").await;
    let (setup, client) = one(&authority);
    let setup = setup.upstream("chat", &[&server]).timeouts("{ request_head: 3s }");
    let proxy = setup.run().await;
    let mut half = Vec::new();
    for _ in 0..HALF_OPEN {
        // A record is promised that never comes.
        half.push(proxy.send([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).await);
    }
    let silent = proxy.connect().await;
    let mut good = JoinSet::new();
    for _ in 0..20 {
        let (client, address) = (client.clone(), proxy.address());
        good.spawn(async move {
            let mut client = client.try_connect(address, NAME).await.expect("others are no matter");
            client.send(GET).await;
            client.response().await.status()
        });
    }
    while let Some(status) = good.join_next().await {
        assert_eq!(status.expect("no panic"), 200);
    }
    drop(half.split_off(HALF_OPEN / 2));
    proxy.settles(REFUSED, &[("reason", "closed")], (HALF_OPEN / 2) as f64).await;
    proxy.settles(REFUSED, &[("reason", "timeout")], (HALF_OPEN / 2) as f64).await;
    for mut client in half {
        client.ends().await;
    }
    drop(silent);
    proxy.settles_empty().await;
    // Once a minute is enough to know it.
    assert_eq!(proxy.said().iter().filter(|line| line.contains("took longer than the time-out")).count(), 1);
    assert_eq!(proxy.metrics().await.sum(REFUSED, &[]), HALF_OPEN as f64);
}

#[tokio::test]
async fn what_is_no_handshake_is_refused_with_a_reason() {
    let authority = Authority::new();
    let server = Upstream::named("a").await;
    let (setup, _) = one(&authority);
    let proxy = setup.upstream("chat", &[&server]).run().await;
    // A record of a handshake that is none.
    let mut client = proxy.send([22, 3, 1, 0, 5, 99, 0, 0, 1, 0]).await;
    let alert = client.rest().await;
    assert_eq!(alert.first(), Some(&21), "{alert:?}");
    proxy.settles(REFUSED, &[("reason", "malformed")], 1.0).await;
    // One that never ends: a hello of sixteen megabytes.
    let mut client = proxy.send([22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff]).await;
    let _ = client.try_send(&[0; 0x4000]).await;
    client.rest().await;
    proxy.settles(REFUSED, &[("reason", "malformed")], 2.0).await;
    proxy.settles_empty().await;
}

#[tokio::test]
async fn a_proxy_header_comes_before_the_handshake() {
    let authority = Authority::new();
    let server = Upstream::serving(|mut wire| async move {
        while let Some(request) = wire.next_request().await {
            wire.send(ok(&request.head.field("x-forwarded-for").unwrap_or_default())).await;
        }
    })
    .await;
    let keys = format!("proxy_protocol: on, {}", listening(&[&authority.vouch_for(&[NAME])]));
    let proxy = Proxy::start().listening(&keys).trusting("[127.0.0.0/8]").upstream("chat", &[&server]).run().await;
    let mut tcp = tokio::net::TcpStream::connect(proxy.address()).await.expect("the proxy listens");
    let header = b"PROXY TCP4 203.0.113.7 192.0.2.99 4711 443\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut tcp, header).await.expect("the proxy reads");
    let mut client = authority.client().over(tcp, NAME).await.expect("the handshake is as ever");
    client.send(GET).await;
    assert_eq!(client.response().await.text(), "203.0.113.7");
    let line = proxy.logged_path("/x").await;
    assert_eq!((line["previous_hop"].as_str(), line["proxied_by"].as_str()), (Some("203.0.113.7"), Some("127.0.0.1")));
    drop(client);
    proxy.settles_empty().await;
}

#[tokio::test]
async fn the_sticky_cookie_of_a_client_on_tls_is_secure() {
    let authority = Authority::new();
    let server = Upstream::named("a").await;
    let (setup, client) = one(&authority);
    let proxy = setup.upstream("chat", &[&server]).affinity("[sticky_cookie]").run().await;
    let mut client = client.connect(&proxy, NAME).await;
    client.send(GET).await;
    let cookie = client.response().await.head.field("set-cookie").expect("a cookie");
    assert!(cookie.ends_with("; Secure"), "{cookie}");
}

#[tokio::test]
async fn an_idle_connection_is_closed_with_a_goodbye() {
    let authority = Authority::new();
    let server = Upstream::named("a").await;
    let (setup, client) = one(&authority);
    let proxy = setup.upstream("chat", &[&server]).timeouts("{ keepalive: 1s }").run().await;
    let mut client = client.connect(&proxy, NAME).await;
    client.send(GET).await;
    client.response().await;
    assert!(client.ends_with_goodbye().await);
    proxy.settles_empty().await;
}

#[tokio::test]
async fn a_response_that_ends_with_its_connection_ends_with_a_goodbye() {
    let authority = Authority::new();
    let (setup, client) = one(&authority);
    let server = Upstream::serving(|mut wire| async move {
        wire.request().await;
        wire.send("HTTP/1.1 200 OK\r\n\r\nall of it").await;
    })
    .await;
    let proxy = setup.upstream("chat", &[&server]).run().await;
    let mut client = client.connect(&proxy, NAME).await;
    client.send("GET /x HTTP/1.0\r\nHost: chat.example.com\r\n\r\n").await;
    client.head().await;
    assert_eq!(client.exactly(9).await, b"all of it");
    assert!(client.ends_with_goodbye().await);
    // And so does what the proxy says by itself.
    let mut client = authority.client().connect(&proxy, NAME).await;
    client.send("GET /x HTTP/1.1\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 400);
    assert!(client.ends_with_goodbye().await);
}
