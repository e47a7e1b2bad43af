//! Servers that are down, as checks and as clients find out, and what becomes of their clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::harness::client::SWITCHING;
use crate::harness::relay::open_events;
use crate::harness::upstream::ok;
use crate::harness::websocket::{frame, next_frame, open_on};
use crate::harness::{
    Authority, Leaving, Named, Proxy, Refusing, ServerEntry, Upstream, keyed, millis, seconds, soon, websocket_request,
};

const KEYS: usize = 150;
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const BY_KEY: &str = "[{ header: X-Key }]";
const CHECK: &str = "{ path: /healthz, interval: 100ms, rise: 2, fall: 2 }";

/// A server that answers with its name, and to checks as it feels; and lets WebSockets stand.
struct Patient {
    server: Upstream,
    is_well: Arc<AtomicBool>,
    checks: Arc<AtomicUsize>,
}

impl Patient {
    async fn start(name: &'static str) -> Self {
        let (is_well, checks) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let (feels, counts) = (is_well.clone(), checks.clone());
        let server = Upstream::serving(move |mut wire| {
            let (feels, counts) = (feels.clone(), counts.clone());
            async move {
                while let Some(request) = wire.next_request().await {
                    if request.head.start.starts_with("GET /ws ") {
                        wire.send(SWITCHING).await;
                        wire.send(frame(name)).await;
                        return wire.ends().await;
                    }
                    if !request.head.start.starts_with("GET /healthz ") {
                        wire.send(ok(name)).await;
                        continue;
                    }
                    counts.fetch_add(1, Ordering::SeqCst);
                    let is_well = feels.load(Ordering::SeqCst);
                    let answer = if is_well { ok("") } else { ok("").replace("200 OK", "503 Away") };
                    wire.send(answer).await;
                }
            }
        });
        Self { server: server.await, is_well, checks }
    }

    fn is_well(&self, is_well: bool) {
        self.is_well.store(is_well, Ordering::SeqCst);
    }
}

impl ServerEntry for Patient {
    fn address(&self) -> std::net::SocketAddr {
        self.server.address()
    }
}

/// The server that each key leads to.
async fn owners(proxy: &Proxy) -> Vec<String> {
    let mut wire = proxy.connect().await;
    let mut owners = Vec::new();
    for number in 0..KEYS {
        owners.push(keyed(&mut wire, &format!("client-{number}")).await.text());
    }
    owners
}

fn share(owners: &[String], name: &str) -> usize {
    owners.iter().filter(|owner| *owner == name).count()
}

async fn is_up(proxy: &Proxy, server: &str, is_up: bool) {
    proxy.settles("steadfast_server_up", &[("server", server)], is_up.into()).await;
}

#[tokio::test]
async fn who_fails_checks_loses_its_keys_and_they_return() {
    let (a, b) = (Patient::start("a").await, Patient::start("b").await);
    let setup = Proxy::start().upstream("chat", &[&Named(&a, "a"), &Named(&b, "b")]).affinity(BY_KEY);
    let proxy = setup.of_upstream("health_check", CHECK).run().await;
    let before = owners(&proxy).await;
    assert!(share(&before, "a") > KEYS / 5 && share(&before, "b") > KEYS / 5, "{before:?}");
    // Whoever is there stays, whatever checks say.
    let mut client = proxy.connect().await;
    client.send(websocket_request("/ws", "X-Key: client-0\r\n")).await;
    assert_eq!(client.head().await.status(), 101);
    let holder = if before[0] == "a" { "a" } else { "b" };
    assert_eq!(next_frame(&mut client).await, (0x81, holder.as_bytes().to_vec()));
    for _ in 0..2 {
        let (sick, well) = if holder == "a" { (&a, "b") } else { (&b, "a") };
        sick.is_well(false);
        is_up(&proxy, holder, false).await;
        assert_eq!(share(&owners(&proxy).await, well), KEYS, "all keys are with the other");
        sick.is_well(true);
        is_up(&proxy, holder, true).await;
        assert_eq!(owners(&proxy).await, before);
    }
    proxy.settles("steadfast_open_connections", &[("kind", "websocket")], 1.0).await;
    let metrics = proxy.metrics().await;
    let of = |to| [("server", holder), ("to", to)];
    let turns = ["up", "down"].map(|to| metrics.sum("steadfast_server_transitions_total", &of(to)));
    assert_eq!(turns, [2.0, 2.0]);
    let failed = metrics.sum("steadfast_server_health_checks_total", &[("server", holder), ("result", "failed")]);
    assert!(failed >= 4.0, "{failed} checks failed");
    let line = proxy.heard("is down, by a health check: 503 instead of 200-399").await;
    assert!(line.contains(&format!("upstream chat: server {holder} at 127.0.0.1:")), "{line}");
    proxy.heard("is up again after").await;
}

#[tokio::test]
async fn when_all_are_down_all_are_tried() {
    let (a, b) = (Patient::start("a").await, Patient::start("b").await);
    let setup = Proxy::start().upstream("chat", &[&Named(&a, "a"), &Named(&b, "b")]).affinity(BY_KEY);
    let proxy = setup.of_upstream("health_check", CHECK).run().await;
    let before = owners(&proxy).await;
    [&a, &b].into_iter().for_each(|patient| patient.is_well(false));
    proxy.settles("steadfast_server_up", &[], 0.0).await;
    proxy.heard("upstream chat: no server is up, so all are tried, down or not").await;
    assert_eq!(owners(&proxy).await, before, "each by its own keys");
    a.is_well(true);
    is_up(&proxy, "a", true).await;
    proxy.heard("upstream chat: a server is up again").await;
    assert_eq!(share(&owners(&proxy).await, "a"), KEYS);
}

#[tokio::test]
async fn a_server_that_is_gone_is_left_alone_after_some_failures_and_tried_by_one() {
    let (up, place) = (Upstream::named("up").await, Refusing::start());
    let setup = Proxy::start().upstream("chat", &[&Named(&up, "up"), &Named(&place, "gone")]).affinity(BY_KEY);
    let setup = setup.of_upstream("max_fails", "2").of_upstream("fail_timeout", "1s");
    let proxy = setup.run().await;
    let failures = async || proxy.metrics().await.sum("steadfast_connect_failures_total", &[("server", "gone")]);
    assert_eq!(share(&owners(&proxy).await, "up"), KEYS, "nobody has noticed");
    is_up(&proxy, "gone", false).await;
    proxy.heard("server gone at 127.0.0.1:").await;
    // Two at first, and then one in each second.
    let began = std::time::Instant::now();
    let before = failures().await;
    while began.elapsed() < millis(2_500) {
        assert_eq!(share(&owners(&proxy).await, "up"), KEYS);
    }
    let tries = failures().await - before;
    assert!((1.0..=4.0).contains(&tries), "{tries} tries within 2.5 s");
    let back = Upstream::named_at(&place, "back");
    let served = soon("its clients to return", async {
        loop {
            let owners = owners(&proxy).await;
            if share(&owners, "back") > 0 && share(&owners, "back") == share(&self::owners(&proxy).await, "back") {
                return owners;
            }
            tokio::time::sleep(millis(20)).await;
        }
    });
    assert!(share(&served.await, "back") > KEYS / 5);
    is_up(&proxy, "gone", true).await;
    drop(back);
}

#[tokio::test]
async fn a_server_that_never_answers_holds_up_one_client_at_a_time() {
    let (up, silent) =
        (Upstream::named("up").await, Upstream::serving(|mut wire| async move { drop(wire.rest().await) }).await);
    let servers: [&dyn ServerEntry; 2] = [&Named(&up, "up"), &Named(&silent, "silent")];
    let setup = Proxy::start().upstream("chat", &servers).affinity(BY_KEY).timeouts("{ response_head: 500ms }");
    let proxy = setup.of_upstream("max_fails", "1").of_upstream("fail_timeout", "8s").run().await;
    // All of them come within the time that the server is left alone, however busy the machine is.
    let statuses = async || {
        let mut late = 0;
        for number in 0..40 {
            let mut wire = proxy.connect().await;
            late += usize::from(keyed(&mut wire, &format!("client-{number}")).await.status() == 504);
        }
        late
    };
    assert_eq!(statuses().await, 1, "the first has found out");
    proxy.heard("server silent at 127.0.0.1:").await;
    tokio::time::sleep(seconds(8)).await;
    assert_eq!(statuses().await, 1, "one of them has tried again");
}

#[tokio::test]
async fn an_answer_that_says_that_others_are_away_counts_and_others_do_not() {
    for (status, is_failure) in [("502", true), ("504", true), ("500", false), ("503", false), ("404", false)] {
        let answer = ok("").replace("200 OK", &format!("{status} So"));
        let bad = Upstream::serving(move |mut wire| {
            let answer = answer.clone();
            async move {
                while wire.next_request().await.is_some() {
                    wire.send(&answer).await;
                }
            }
        });
        let bad = bad.await;
        let proxy = Proxy::start().upstream("chat", &[&Named(&bad, "bad")]).run().await;
        for _ in 0..5 {
            // It is the only one, so it is tried in any case.
            assert_eq!(proxy.exchange(GET).await.status().to_string(), status);
        }
        is_up(&proxy, "bad", !is_failure).await;
        let down = proxy.metrics().await.sum("steadfast_server_transitions_total", &[("to", "down")]);
        assert_eq!(down, f64::from(u8::from(is_failure)), "{status}");
    }
}

#[tokio::test]
async fn the_end_of_what_was_answered_never_counts() {
    let server = Upstream::start().await;
    let setup = Proxy::start().upstream("chat", &[&Named(&server, "a")]).timeouts("{ idle: 500ms }");
    let proxy = setup.of_upstream("max_fails", "1").run().await;
    for how in Leaving::ALL {
        for is_server in [true, false] {
            let (mut client, mut upstream) = open_on(proxy.connect().await, &server).await;
            if is_server {
                upstream.leave(how);
                client.rest().await;
            } else {
                client.leave(how);
                upstream.rest().await;
            }
            let (mut client, mut upstream) = open_events(&proxy, &server).await;
            if is_server {
                upstream.leave(how);
                client.rest().await;
            } else {
                client.leave(how);
                upstream.rest().await;
            }
        }
        // A poll whose client goes while it waits.
        let client = proxy.send("GET /poll HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut upstream = server.accept().await;
        upstream.request().await;
        client.leave(how);
        upstream.ends().await;
    }
    // One that is silent for too long.
    let (mut client, _upstream) = open_events(&proxy, &server).await;
    client.rest().await;
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("steadfast_server_transitions_total", &[]), 0.0);
    assert_eq!(metrics.sum("steadfast_server_up", &[("server", "a")]), 1.0);
}

#[tokio::test]
async fn a_server_that_is_back_gets_its_keys_bit_by_bit() {
    let (a, b) = (Patient::start("a").await, Patient::start("b").await);
    let setup = Proxy::start().upstream("chat", &[&Named(&a, "a"), &Named(&b, "b")]).affinity(BY_KEY);
    let proxy = setup.of_upstream("health_check", CHECK).of_upstream("slow_start", "6s").run().await;
    let before = owners(&proxy).await;
    assert!(share(&before, "b") > KEYS / 5, "the start is not slow: {before:?}");
    b.is_well(false);
    is_up(&proxy, "b", false).await;
    b.is_well(true);
    is_up(&proxy, "b", true).await;
    let (mut last, mut shares) = (Vec::new(), Vec::new());
    let began = std::time::Instant::now();
    while last != before {
        assert!(began.elapsed() < millis(15_000), "never warm: {shares:?}");
        let now = owners(&proxy).await;
        for (number, was) in last.iter().enumerate() {
            assert!(was == "a" || now[number] == "b", "client-{number} has left again: {shares:?}");
        }
        shares.push(share(&now, "b"));
        last = now;
        tokio::time::sleep(millis(300)).await;
    }
    assert!(shares[0] < share(&before, "b") / 2, "all at once: {shares:?}");
    assert!(shares.len() > 4, "too fast: {shares:?}");
}

#[tokio::test]
async fn relays_of_a_server_that_is_down_are_closed_where_the_file_says_so() {
    let (a, b) = (Patient::start("a").await, Patient::start("b").await);
    let setup = Proxy::start().upstream("chat", &[&Named(&a, "a"), &Named(&b, "b")]).affinity(BY_KEY);
    let setup = setup.of_upstream("health_check", CHECK).of_upstream("on_down", "close");
    let proxy = setup.of_upstream("drain", "{ spread: 0s }").run().await;
    let mut clients = Vec::new();
    for number in 0..12 {
        let mut client = proxy.connect().await;
        client.send(websocket_request("/ws", &format!("X-Key: client-{number}\r\n"))).await;
        assert_eq!(client.head().await.status(), 101);
        let (_, name) = next_frame(&mut client).await;
        clients.push((client, name));
    }
    let of_b = clients.iter().filter(|(_, name)| name == b"b").count();
    assert!((1..12).contains(&of_b), "{of_b} of 12");
    b.is_well(false);
    for (client, name) in &mut clients {
        if name == b"b" {
            let (kind, payload) = next_frame(client).await;
            assert_eq!((kind, &payload[..2]), (0x88, &1012_u16.to_be_bytes()[..]));
        }
    }
    proxy.settles("steadfast_open_connections", &[("server", "a")], (12 - of_b) as f64).await;
    clients.retain(|(_, name)| name == b"a");
    proxy.settles("steadfast_ends_total", &[("end_reason", "server_down")], of_b as f64).await;
    let a_well = proxy.metrics().await.sum("steadfast_open_connections", &[("server", "a")]);
    assert_eq!(a_well, (12 - of_b) as f64, "nobody else was told to go");
}

#[tokio::test]
async fn checks_know_whom_they_ask() {
    let (authority, others) = (Authority::new(), Authority::new());
    let [good, bad] = [&authority, &others].map(|by| by.vouch_for(&["127.0.0.1"]));
    let answering = |server: Upstream| {
        server.serve(|mut wire| async move {
            while wire.next_request().await.is_some() {
                wire.send(ok("")).await;
            }
        })
    };
    let good = answering(Upstream::encrypted(authority.server(&good)).await);
    let bad = answering(Upstream::encrypted(others.server(&bad)).await);
    for check in ["{ path: /, interval: 100ms, fall: 1 }", "{ tcp: on, interval: 100ms, fall: 1 }"] {
        let setup = Proxy::start().upstream("chat", &[&Named(&good, "good"), &Named(&bad, "bad")]);
        let setup = setup.tls(&format!("{{ ca: {} }}", authority.file().display()));
        let proxy = setup.of_upstream("health_check", check).run().await;
        is_up(&proxy, "bad", false).await;
        proxy.heard("is down, by a health check: TLS: ").await;
        let passed = [("server", "good"), ("result", "passed")];
        soon("a check to pass", async {
            while proxy.metrics().await.sum("steadfast_server_health_checks_total", &passed) == 0.0 {
                tokio::time::sleep(millis(20)).await;
            }
        })
        .await;
        let metrics = proxy.metrics().await;
        assert_eq!(metrics.sum("steadfast_server_transitions_total", &[("server", "good")]), 0.0);
    }
}

#[tokio::test]
async fn checks_go_on_through_other_configurations_and_what_is_known_stays() {
    let (a, b) = (Patient::start("a").await, Patient::start("b").await);
    let setup = Proxy::start().upstream("chat", &[&Named(&a, "a"), &Named(&b, "b")]).affinity(BY_KEY);
    let proxy = setup.of_upstream("health_check", CHECK).timeouts("{ idle: 1h }").run().await;
    b.is_well(false);
    is_up(&proxy, "b", false).await;
    for (from, to) in [("idle: 1h", "idle: 2h"), ("interval: 100ms", "interval: 110ms"), ("fall: 2", "fall: 3")] {
        assert_eq!(proxy.reload(&[(from, to)]).await.status(), 200);
        assert_eq!(share(&owners(&proxy).await, "a"), KEYS, "it is still down behind {to}");
        let checks = b.checks.load(Ordering::SeqCst);
        soon("another check", async {
            while b.checks.load(Ordering::SeqCst) == checks {
                tokio::time::sleep(millis(10)).await;
            }
        })
        .await;
    }
    // Nobody checks any more, so nobody can say that it is down.
    assert_eq!(proxy.reload(&[("health_check: {", "health_check: off\n    slow_start: off # {")]).await.status(), 200);
    is_up(&proxy, "b", true).await;
    let checks = b.checks.load(Ordering::SeqCst);
    tokio::time::sleep(millis(500)).await;
    assert!(b.checks.load(Ordering::SeqCst) <= checks + 1);
}
