//! Who goes where: the same as with nginx, by the first source that names the client, and without
//! moving when others move.

use std::collections::{BTreeMap, BTreeSet};

use tokio::task::JoinSet;

use crate::harness::{Nginx, Proxy, Refusing, ServerEntry, Upstream, Weighted, Wire, keyed, seconds, within};

const KEYS: usize = 3_000;
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const BY_KEY: &str = "[{ header: X-Key }]";

async fn servers(count: usize) -> Vec<Upstream> {
    let mut servers = Vec::new();
    for name in &NAMES[..count] {
        servers.push(Upstream::named(name).await);
    }
    servers
}

/// A proxy for many short requests, that chooses as nginx does: no log, no bound.
async fn quiet_proxy(servers: &[&dyn ServerEntry]) -> Proxy {
    Proxy::start()
        .upstream("chat", servers)
        .affinity(BY_KEY)
        .balance("{ hash: ketama, balance_factor: off }")
        .access_log("{ format: off }")
        .run()
        .await
}

fn key(number: usize) -> String {
    format!("client-{number}")
}

/// The name of the server that each key leads to, asked over a few kept connections.
async fn owners(connections: Vec<Wire>) -> Vec<String> {
    let lanes = connections.len();
    let mut asking = JoinSet::new();
    for (lane, mut wire) in connections.into_iter().enumerate() {
        asking.spawn(async move {
            let mut owners = Vec::new();
            for number in (lane..KEYS).step_by(lanes) {
                let answer = keyed(&mut wire, &key(number)).await;
                assert_eq!(answer.status(), 200, "{}", answer.text());
                owners.push((number, answer.text()));
            }
            owners
        });
    }
    let owners: BTreeMap<_, _> = asking.join_all().await.into_iter().flatten().collect();
    owners.into_values().collect()
}

async fn owners_through(proxy: &Proxy) -> Vec<String> {
    owners(vec![proxy.connect().await, proxy.connect().await, proxy.connect().await, proxy.connect().await]).await
}

async fn owners_through_nginx(nginx: &Nginx) -> Vec<String> {
    owners(vec![nginx.connect().await, nginx.connect().await, nginx.connect().await, nginx.connect().await]).await
}

/// Each key goes where nginx sends it.
async fn check_like_nginx(weights: &[u32]) {
    let servers = servers(weights.len()).await;
    let weighted: Vec<_> = servers.iter().zip(weights).map(|(server, weight)| Weighted(server, *weight)).collect();
    let entries: Vec<&dyn ServerEntry> = weighted.iter().map(|server| server as &dyn ServerEntry).collect();
    let (proxy, nginx) = (quiet_proxy(&entries).await, Nginx::consistent("$http_x_key", &entries).await);
    let (ours, theirs) = tokio::join!(owners_through(&proxy), owners_through_nginx(&nginx));
    let differing: Vec<_> = (0..KEYS).filter(|number| ours[*number] != theirs[*number]).map(key).collect();
    let addresses: Vec<_> = entries.iter().map(|entry| entry.address()).collect();
    assert!(differing.is_empty(), "{} keys differ with {addresses:?}: {differing:?}", differing.len());
    for name in &NAMES[..weights.len()] {
        assert!(ours.iter().any(|owner| owner == name), "{name} has no key with {addresses:?}");
    }
}

#[tokio::test]
async fn keys_go_where_nginx_sends_them() {
    check_like_nginx(&[1, 1, 1]).await;
}

#[tokio::test]
async fn keys_go_where_nginx_sends_them_with_weights() {
    check_like_nginx(&[1, 2, 5]).await;
}

#[tokio::test]
async fn keys_go_where_nginx_sends_them_among_four_servers() {
    check_like_nginx(&[3, 1, 1, 2]).await;
}

#[tokio::test]
async fn a_server_taken_out_moves_only_its_own_keys() {
    let servers = servers(4).await;
    let all: Vec<&dyn ServerEntry> = servers.iter().map(|server| server as &dyn ServerEntry).collect();
    let before = owners_through(&quiet_proxy(&all).await).await;
    let after = owners_through(&quiet_proxy(&all[1..]).await).await;
    let mut heirs = BTreeMap::new();
    for (number, (before, after)) in before.iter().zip(&after).enumerate() {
        if before == NAMES[0] {
            *heirs.entry(after.as_str()).or_insert(0) += 1;
        } else {
            assert_eq!(before, after, "{} moved without need", key(number));
        }
    }
    assert_eq!(heirs.len(), 3, "they spread over all others: {heirs:?}");
}

#[tokio::test]
async fn a_server_that_is_down_moves_only_its_own_keys() {
    let (servers, down) = (servers(3).await, Refusing::start());
    let with_it = quiet_proxy(&[&servers[0], &servers[1], &servers[2], &down]).await;
    let without_it = quiet_proxy(&[&servers[0], &servers[1], &servers[2]]).await;
    assert_eq!(owners_through(&with_it).await, owners_through(&without_it).await);
}

/// Connections that the proxy keeps to it are gone as well.
#[tokio::test]
async fn clients_of_a_server_that_stops_spread_over_all_others_and_return() {
    let servers = servers(3).await;
    for hash in ["ketama", "rendezvous"] {
        let place = Refusing::start();
        let stops = Upstream::named_at(&place, NAMES[3]);
        let proxy = Proxy::start()
            .upstream("chat", &[&servers[0], &servers[1], &servers[2], &place])
            .affinity(BY_KEY)
            .balance(&format!("{{ hash: {hash} }}"))
            .of_upstream("fail_timeout", "100ms")
            .access_log("{ format: off }")
            .run()
            .await;
        let before = owners_through(&proxy).await;
        drop(stops);
        place.refuses().await;
        let meanwhile = owners_through(&proxy).await;
        let mut heirs = BTreeMap::new();
        for (number, (before, meanwhile)) in before.iter().zip(&meanwhile).enumerate() {
            if before == NAMES[3] {
                *heirs.entry(meanwhile.as_str()).or_insert(0) += 1;
            } else {
                assert_eq!(before, meanwhile, "{} moved without need with {hash}", key(number));
            }
        }
        assert_eq!(heirs.into_keys().collect::<Vec<_>>(), NAMES[..3], "{hash}");
        let _back = Upstream::named_at(&place, NAMES[3]);
        // Somebody has to find out.
        within(seconds(60), "its clients to return", async { while owners_through(&proxy).await != before {} }).await;
    }
}

/// Fields that name the client `who` to each source of [`SOURCES`].
const SOURCES: &str = "[{ cookie: sid }, { header: X-User }, { query: room }, forwarded_for, client_ip]";

async fn log_of(proxy: &Proxy, target: &str, fields: &str) -> (String, String) {
    let answer = proxy.exchange(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
    let path = target.split('?').next().expect("split yields at least one");
    let line = proxy.logged_path(path).await;
    (line["affinity"].as_str().expect("a source").to_owned(), answer.text())
}

#[tokio::test]
async fn the_first_source_that_names_the_client_decides() {
    let servers = servers(3).await;
    let proxy = Proxy::start()
        .upstream("chat", &[&servers[0], &servers[1], &servers[2]])
        .affinity(SOURCES)
        .trusting("[127.0.0.0/8]")
        .run()
        .await;
    for (path, query, fields, expected) in [
        ("/1", "", "", "client_ip"),
        ("/2", "", "X-Forwarded-For: 10.1.1.1\r\n", "forwarded_for"),
        ("/3", "?a=b&room=r", "X-Forwarded-For: 10.1.1.1\r\n", "query"),
        ("/4", "?room=r", "X-User: u\r\n", "header"),
        ("/5", "?room=r", "X-User: u\r\nCookie: a=b; sid=s; c=d\r\n", "cookie"),
        ("/6", "?room=", "X-User: \r\nCookie: sid=\r\n", "client_ip"),
        ("/7", "?xroom=r", "X-Users: u\r\nCookie: xsid=s; ssid=t\r\n", "client_ip"),
        ("/8", "", "X-Forwarded-For: unknown\r\n", "client_ip"),
    ] {
        let (source, _) = log_of(&proxy, &format!("{path}{query}"), fields).await;
        assert_eq!(source, expected, "{path}{query} {fields:?}");
    }
}

#[tokio::test]
async fn a_key_leads_to_the_same_server_wherever_it_stands() {
    let servers = servers(3).await;
    let proxy = Proxy::start()
        .upstream("chat", &[&servers[0], &servers[1], &servers[2]])
        .affinity(SOURCES)
        .trusting("[127.0.0.0/8]")
        .run()
        .await;
    for number in 0..30 {
        let who = key(number);
        let (_, by_header) = log_of(&proxy, &format!("/{number}/header"), &format!("X-User: {who}\r\n")).await;
        for (place, fields) in [
            ("cookie".to_owned(), format!("X-User: somebody-else\r\nCookie: a=b; sid={who}; c=d\r\n")),
            (format!("query?room={who}&room=other"), "X-Forwarded-For: 10.1.1.1\r\n".to_owned()),
            (format!("escaped?room={}", who.replace('-', "%2D")), String::new()),
        ] {
            let (_, owner) = log_of(&proxy, &format!("/{number}/{place}"), &fields).await;
            assert_eq!(owner, by_header, "{who} in {place}");
        }
    }
}

#[tokio::test]
async fn a_strangers_forwarded_address_is_ignored() {
    let servers = servers(3).await;
    let proxy = Proxy::start()
        .upstream("chat", &[&servers[0], &servers[1], &servers[2]])
        .affinity("[forwarded_for, client_ip]")
        .trusting("[10.0.0.0/8]")
        .run()
        .await;
    let (_, home) = log_of(&proxy, "/home", "").await;
    for number in 0..30 {
        let fields = format!("X-Forwarded-For: 10.1.1.{number}\r\n");
        let (source, owner) = log_of(&proxy, &format!("/{number}"), &fields).await;
        assert_eq!((source.as_str(), &owner), ("client_ip", &home));
    }
}

#[tokio::test]
async fn forwarded_addresses_spread_and_stick() {
    let servers = servers(3).await;
    let proxy = Proxy::start()
        .upstream("chat", &[&servers[0], &servers[1], &servers[2]])
        .affinity("[forwarded_for]")
        .trusting("[private]")
        .run()
        .await;
    let mut owners = BTreeMap::new();
    for round in 0..2 {
        for number in 0..60 {
            // Behind the client's own address, the hops between may change.
            let fields = format!("X-Forwarded-For: 203.0.113.{number}, 10.0.0.{round}\r\n");
            let (_, owner) = log_of(&proxy, &format!("/{round}/{number}"), &fields).await;
            assert_eq!(owners.entry(number).or_insert(owner.clone()), &owner);
        }
    }
    for name in &NAMES[..3] {
        assert!(owners.values().any(|owner| owner == name), "{name} has no client: {owners:?}");
    }
}

/// Addresses of one network are one client, of as many as there are networks.
#[tokio::test]
async fn a_network_of_ipv6_is_one_client_as_wide_as_the_file_says() {
    let servers = servers(3).await;
    for (prefix, is_one) in [(48, [true, true]), (64, [true, false]), (128, [false, false])] {
        let proxy = Proxy::start()
            .upstream("chat", &[&servers[0], &servers[1], &servers[2]])
            .affinity(&format!("[{{ forwarded_for: {{ ipv6_prefix: {prefix} }} }}]"))
            .run()
            .await;
        let (mut in_one_network, mut in_one_site) = (BTreeSet::new(), BTreeSet::new());
        for number in 1..40 {
            for (owners, address) in [
                (&mut in_one_network, format!("2001:db8:7:7::{number:x}")),
                (&mut in_one_site, format!("2001:db8:7:{number:x}::1")),
            ] {
                let (_, owner) =
                    log_of(&proxy, &format!("/{address}"), &format!("X-Forwarded-For: {address}\r\n")).await;
                owners.insert(owner);
            }
        }
        assert_eq!([in_one_network, in_one_site].map(|owners| owners.len() == 1), is_one, "/{prefix}");
    }
}

#[tokio::test]
async fn who_names_nobody_still_gets_a_server() {
    let servers = servers(3).await;
    let proxy = Proxy::start().upstream("chat", &[&servers[0], &servers[1], &servers[2]]).affinity(BY_KEY).run().await;
    let mut loads = BTreeMap::new();
    for number in 0..60 {
        let (source, owner) = log_of(&proxy, &format!("/{number}"), "").await;
        assert_eq!(source, "none");
        *loads.entry(owner).or_insert(0) += 1;
    }
    assert_eq!(loads.len(), 3, "nobody's requests use every server: {loads:?}");
}

#[tokio::test]
async fn a_post_a_poll_and_a_websocket_of_one_client_meet() {
    let servers = servers(3).await;
    let proxy = Proxy::start()
        .upstream("chat", &[&servers[0], &servers[1], &servers[2]])
        .affinity(BY_KEY)
        .route("{ path: /api/, upstream: chat }")
        .route("{ path: /socket.io/, upstream: chat }")
        .run()
        .await;
    for number in 0..20 {
        let who = key(number);
        let mut owners = Vec::new();
        for request in [
            format!("POST /api/ HTTP/1.1\r\nHost: a\r\nX-Key: {who}\r\nContent-Length: 1\r\n\r\nx"),
            format!("GET /socket.io/?transport=polling HTTP/1.1\r\nHost: b\r\nX-Key: {who}\r\n\r\n"),
            crate::harness::websocket_request("/socket.io/", &format!("X-Key: {who}\r\n")),
        ] {
            owners.push(proxy.exchange(request).await.text());
        }
        assert!(owners.iter().all(|owner| *owner == owners[0]), "{who}: {owners:?}");
    }
}

/// Sends a request with these cookies; the server that answered, what it saw of them, and what
/// cookie was set.
async fn with_cookies(proxy: &Proxy, cookies: &str) -> (String, Option<String>) {
    let answer = proxy.exchange(&format!("GET / HTTP/1.1\r\nHost: a\r\n{cookies}\r\n")).await;
    (answer.text(), answer.head.field("set-cookie"))
}

#[tokio::test]
async fn a_cookie_of_the_proxys_own_keeps_a_client_at_its_server() {
    let servers = servers(3).await;
    let proxy = Proxy::start()
        .upstream("chat", &[&servers[0], &servers[1], &servers[2]])
        .affinity("[{ sticky_cookie: { name: route, max_age: 1d } }]")
        .run()
        .await;
    for _ in 0..10 {
        let (server, cookie) = with_cookies(&proxy, "").await;
        let cookie = cookie.expect("a cookie is issued");
        assert!(cookie.starts_with("route=") && cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax; Max-Age=86400"));
        let pair = cookie.split(';').next().expect("a pair").to_owned();
        for _ in 0..5 {
            let sent = format!("Cookie: a=b; {pair}\r\n");
            assert_eq!(with_cookies(&proxy, &sent).await, (server.clone(), None), "{sent}");
        }
    }
    // What is forged is as good as none.
    let (_, cookie) = with_cookies(&proxy, "Cookie: route=0000000000000000000\r\n").await;
    assert!(cookie.is_some());
    let (_, cookie) = with_cookies(&proxy, "X-Forwarded-Proto: https\r\n").await;
    assert!(cookie.is_some_and(|cookie| cookie.ends_with("; Secure")));
}

#[tokio::test]
async fn servers_do_not_see_the_proxys_cookie_unless_they_are_meant_to() {
    let cookies = "a=b; steadfast=x; c=d";
    for (source, expected) in [("sticky_cookie", "a=b; c=d"), ("sticky_cookie: { pass_to_servers: on }", cookies)] {
        let server = Upstream::start().await;
        let proxy = Proxy::start().upstream("chat", &[&server]).affinity(&format!("[{source}]")).run().await;
        let _client = proxy.send(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookies}\r\n\r\n")).await;
        let request = server.accept().await.request().await;
        assert_eq!(request.head.field("cookie").as_deref(), Some(expected), "{source}");
    }
}
