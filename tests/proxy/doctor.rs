//! The affinity doctor: what it says of hops, servers and secrets that do not fit, and that it says
//! nothing of those that do.

use crate::harness::upstream::ok;
use crate::harness::{Named, Nginx, Proxy, Refusing, SecretFile, Telling, Upstream, Wire, keyed, millis, soon};

const FINDINGS: &str = "steadfast_affinity_findings";
const FIRST_WINDOW: usize = 200;
const SECRET: &str = "sixteen and more bytes";
const DEFAULTS: &str = "[engine_io, forwarded_for, client_ip]";

/// Sends so many requests over one connection, by browsers of twenty kinds; `target` makes each.
async fn crowd(wire: &mut Wire, requests: usize, target: impl Fn(usize) -> String) {
    for number in 0..requests {
        let (target, kind) = (target(number), number % 20);
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nUser-Agent: Browser/{kind}\r\n\r\n")).await;
        wire.response().await;
    }
}

fn page(_: usize) -> String {
    "/".to_owned()
}

/// What the doctor has said so far.
fn said(proxy: &Proxy) -> Vec<String> {
    let lines = proxy.said().into_iter().filter(|line| line.contains(": affinity "));
    lines.map(|line| line.split_once(": affinity ").map(|(_, rest)| rest.to_owned()).unwrap_or_default()).collect()
}

/// This and nothing else was said, once, and is shown.
async fn check_says(proxy: &Proxy, finding: &str, parts: &[&str]) {
    proxy.settles(FINDINGS, &[("finding", finding), ("upstream", "chat")], 1.0).await;
    proxy.settles(FINDINGS, &[], 1.0).await;
    // The log has its own way here.
    let spoken = async {
        while said(proxy).is_empty() {
            tokio::time::sleep(millis(10)).await;
        }
    };
    soon("the doctor to speak", spoken).await;
    let said = said(proxy);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with(&format!("{finding}: ")), "{said:?}");
    for part in parts {
        assert!(said[0].contains(part), "{part:?} in {said:?}");
    }
}

async fn check_says_nothing(proxy: &Proxy) {
    proxy.settles(FINDINGS, &[], 0.0).await;
    assert_eq!(said(proxy), [""; 0]);
}

#[tokio::test]
async fn a_hop_with_one_address_for_all_is_told_once() {
    let (a, b) = (Upstream::named("a").await, Upstream::named("b").await);
    let proxy = Proxy::start().upstream("chat", &[&a, &b]).run().await;
    let hop = Nginx::in_turn(&[proxy.address()], Telling::OneAddress).await;
    crowd(&mut hop.connect().await, FIRST_WINDOW + 1000, page).await;
    check_says(
        &proxy,
        "one_key",
        &[
            "100 % of the last 200 requests without a session have 192.0.2.1 as their client in X-Forwarded-For, with \
             at least ",
            " different User-Agents, so a hop hides many clients behind that address, or they share one network, and one \
             server gets them all; have that hop pass on their addresses, or leave only engine_io or sticky_cookie in \
             upstreams.chat.affinity",
        ],
    )
    .await;

    // The hop is mended.
    let hop = Nginx::in_turn(&[proxy.address()], Telling::AnotherAddress).await;
    crowd(&mut hop.connect().await, 1000, page).await;
    proxy.settles(FINDINGS, &[], 0.0).await;
    assert_eq!(said(&proxy)[1..], ["one_key: no longer so in the last window"]);
}

#[tokio::test]
async fn a_hop_that_hides_addresses_is_named() {
    let (a, b) = (Upstream::named("a").await, Upstream::named("b").await);
    let proxy = Proxy::start().upstream("chat", &[&a, &b]).run().await;
    let hop = Nginx::in_turn(&[proxy.address()], Telling::Nothing).await;
    crowd(&mut hop.connect().await, FIRST_WINDOW, page).await;
    check_says(&proxy, "no_address", &["came from 127.0.0.1 without X-Forwarded-For"]).await;
}

#[tokio::test]
async fn a_crowd_of_one_kind_shows_in_its_connections() {
    let parking = || {
        Upstream::serving(|mut wire| async move {
            while let Some(request) = wire.next_request().await {
                if request.head.start.contains("/parked") {
                    return std::future::pending().await;
                }
                wire.send(ok("")).await;
            }
        })
    };
    let (a, b) = (parking().await, parking().await);
    let proxy = Proxy::start().upstream("chat", &[&a, &b]).affinity("[client_ip]").run().await;
    let mut parked = Vec::new();
    for _ in 0..60 {
        parked.push(proxy.send("GET /parked HTTP/1.1\r\nHost: a\r\n\r\n").await);
    }
    proxy.settles("steadfast_open_connections", &[], 60.0).await;
    let mut client = proxy.connect().await;
    for _ in 0..FIRST_WINDOW {
        keyed(&mut client, "x").await;
    }
    check_says(
        &proxy,
        "one_key",
        &[
            "came from 127.0.0.1, while one server holds 6",
            "have 127.0.0.1 send X-Forwarded-For, and put forwarded_for",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_hop_that_forwards_but_is_not_trusted_is_named() {
    let (a, b) = (Upstream::named("a").await, Upstream::named("b").await);
    let proxy = Proxy::start().upstream("chat", &[&a, &b]).trusting("[10.0.0.0/8]").run().await;
    let hop = Nginx::in_turn(&[proxy.address()], Telling::AnotherAddress).await;
    crowd(&mut hop.connect().await, FIRST_WINDOW, page).await;
    check_says(&proxy, "untrusted_hop", &["such as 127.0.0.1", "add 127.0.0.1 to trusted_proxies if it is"]).await;
}

#[tokio::test]
async fn servers_that_do_not_know_sessions_are_told_by_what_would_help() {
    for (affinity, cure) in [
        ("[header: x-key, client_ip]", "; put engine_io first in upstreams.chat.affinity"),
        (DEFAULTS, " a port and an entry of its own in upstreams.chat.servers"),
    ] {
        let server = Upstream::serving(|mut wire| async move {
            while wire.next_request().await.is_some() {
                wire.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
            }
        })
        .await;
        let proxy = Proxy::start().upstream("chat", &[&server]).affinity(affinity).run().await;
        let mut client = proxy.connect().await;
        crowd(&mut client, 50, page).await;
        let sessions = |number| format!("/socket.io/?EIO=4&transport=polling&sid=lv_VI97HAXpY6yYWAAA{number}");
        crowd(&mut client, FIRST_WINDOW, sessions).await;
        check_says(&proxy, "session_unknown", &["100 % of the last 200 Engine.IO requests with 400", cure]).await;
    }
}

/// The session id that a server behind this proxy gives out, as its clients know it.
async fn opened(proxy: &Proxy) -> String {
    let answer = proxy.exchange("GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: a\r\n\r\n").await.text();
    answer.split('"').nth(3).expect("an open packet has an id").to_owned()
}

async fn engine() -> Upstream {
    Upstream::serving(|mut wire| async move {
        while wire.next_request().await.is_some() {
            wire.send(ok(r#"0{"sid":"lv_VI97HAXpY6yYWAAAC"}"#)).await;
        }
    })
    .await
}

#[tokio::test]
async fn sessions_of_another_secret_or_of_other_servers_are_told() {
    let (server, other) = (engine().await, Refusing::start());
    let secret = SecretFile::with(SECRET);
    let opening = Proxy::start().secret(&secret).upstream("chat", &[&Named(&server, "red")]).run().await;
    let sid = opened(&opening).await;
    assert!(sid.contains('~'), "{sid}");
    let follow = |_| format!("/socket.io/?EIO=4&transport=polling&sid={sid}");

    let same = Proxy::start().secret(&secret).upstream("chat", &[&Named(&server, "red"), &other]).run().await;
    crowd(&mut same.connect().await, FIRST_WINDOW, follow).await;
    check_says_nothing(&same).await;

    let another = SecretFile::with("another secret of enough bytes");
    let foreign = Proxy::start().secret(&another).upstream("chat", &[&Named(&server, "red")]).run().await;
    crowd(&mut foreign.connect().await, FIRST_WINDOW, follow).await;
    let parts = ["100 % of the last 200 session tags and cookies were made with", "the same affinity_secret_file"];
    check_says(&foreign, "foreign_tags", &parts).await;

    let renamed = Proxy::start().secret(&secret).upstream("chat", &[&Named(&server, "green")]).run().await;
    crowd(&mut renamed.connect().await, FIRST_WINDOW, follow).await;
    check_says(&renamed, "unknown_servers", &["name servers that upstream chat does not have"]).await;
    assert!(!said(&foreign)[0].contains(&sid) && !said(&renamed)[0].contains(&sid));
}

#[tokio::test]
async fn cookies_of_another_secret_are_told() {
    let server = Upstream::named("a").await;
    let sticky = |secret: &SecretFile| {
        Proxy::start().secret(secret).upstream("chat", &[&Named(&server, "red")]).affinity("[sticky_cookie]")
    };
    let (ours, another) = (SecretFile::with(SECRET), SecretFile::with("another secret of ours"));
    let (issuing, asked) = (sticky(&ours).run().await, sticky(&another).run().await);
    let issued = issuing.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.head.field("set-cookie");
    let cookie = issued.as_deref().and_then(|cookie| cookie.split(';').next()).expect("a cookie").to_owned();
    for (proxy, finding) in [(&issuing, None), (&asked, Some("foreign_tags"))] {
        let mut client = proxy.connect().await;
        for _ in 0..FIRST_WINDOW {
            client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n")).await;
            client.response().await;
        }
        match finding {
            Some(finding) => check_says(proxy, finding, &[]).await,
            None => check_says_nothing(proxy).await,
        }
    }
    assert!(!said(&asked)[0].contains(&cookie));
}

#[tokio::test]
async fn healthy_traffic_and_a_client_alone_are_no_news() {
    let (a, b) = (Upstream::named("a").await, Upstream::named("b").await);
    let proxy = Proxy::start().upstream("chat", &[&a, &b]).run().await;
    let hop = Nginx::in_turn(&[proxy.address()], Telling::AnotherAddress).await;
    crowd(&mut hop.connect().await, FIRST_WINDOW + 1000, page).await;
    check_says_nothing(&proxy).await;

    let proxy = Proxy::start().upstream("chat", &[&a, &b]).run().await;
    let mut developer = proxy.connect().await;
    for _ in 0..FIRST_WINDOW + 1000 {
        keyed(&mut developer, "x").await;
    }
    check_says_nothing(&proxy).await;
}
