//! Sessions that servers issue and that carry no tag: the proxy learns from the response who issued
//! them, and every later request goes there, whoever asks.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::harness::proxy::Setup;
use crate::harness::upstream::ok;
use crate::harness::{Hop, Message, Named, Proxy, Redis, ServerEntry, Upstream, millis, seconds, soon};

/// What a server answers to somebody who asks for a new session; gets an id that is used once, and
/// begins with the name of the server.
type Issue = fn(&str) -> Vec<u8>;

/// A server that issues sessions at `/new`, and says its name everywhere else.
async fn issuing(name: &'static str, issue: Issue) -> Upstream {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    Upstream::serving(move |mut wire| async move {
        while let Some(request) = wire.next_request().await {
            let is_new = request.head.start.contains("/new");
            let id = format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
            wire.send(if is_new { issue(&id) } else { ok(name).into_bytes() }).await;
        }
    })
    .await
}

async fn servers(issue: Issue) -> [Upstream; 3] {
    [issuing("a", issue).await, issuing("b", issue).await, issuing("c", issue).await]
}

/// A proxy over three servers, by their names, that knows clients by `source` or by their address.
fn over([a, b, c]: &[Upstream; 3], source: &str) -> Setup {
    let [a, b, c] = [Named(a, "a"), Named(b, "b"), Named(c, "c")];
    let sources = format!("[{source}, forwarded_for, client_ip]");
    let proxy = Proxy::start().upstream("chat", &[&a, &b, &c]).affinity(&sources);
    proxy.balance("{ hash: rendezvous }").trusting("[127.0.0.0/8]")
}

/// A request of a client with this address.
fn from(address: usize, method: &str, target: &str, fields: &str) -> String {
    format!(
        "{method} {target} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.{address}.1\r\n\
         Content-Length: 0\r\n{fields}\r\n"
    )
}

/// The first id of a session in the head or the body of `answer`.
#[track_caller]
fn id(answer: &Message) -> String {
    let all = format!("{:?} {}", answer.head, answer.text());
    let is_id = |word: &&str| {
        word.split_once('-').is_some_and(|(name, number)| name.len() == 1 && number.parse::<u32>().is_ok())
    };
    let mut words = all.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.find(is_id).unwrap_or_else(|| panic!("no id in {all}")).to_owned()
}

/// Everybody opens a session with a request `opening`, method and target, and asks on with the target
/// and the fields that `following` makes of its id: from another address each time. All of a session
/// reach the server that issued it, and the servers share the sessions.
async fn check_led(proxy: &Proxy, opening: (&str, &str), following: fn(&str) -> (String, String)) {
    let mut homes = BTreeSet::new();
    for client in 0..24 {
        let (method, target) = opening;
        let id = id(&proxy.exchange(from(client, method, target, "")).await);
        let (target, fields) = following(&id);
        for other in 100..106 {
            let answer = proxy.exchange(from(other, "GET", &target, &fields)).await.text();
            assert_eq!(answer, id[..1], "client {client} of {id}: {target} {fields:?}");
        }
        homes.insert(id[..1].to_owned());
    }
    assert_eq!(homes.len(), 3, "{homes:?}");
}

fn with_length(body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

fn open_packet(id: &str) -> String {
    format!(r#"0{{"sid":"{id}","upgrades":["websocket"],"pingInterval":25000}}"#)
}

fn with_lengths(packet: &str) -> String {
    format!("{}:{packet}2:40", packet.len())
}

/// In the binary framing lengths are digits, a byte each, that end in FF.
fn binary(packet: &str) -> Vec<u8> {
    let digits: Vec<u8> = packet.len().to_string().bytes().map(|digit| digit - b'0').collect();
    [&[0], &digits[..], &[0xFF], packet.as_bytes(), b"\0\x02\xFF40"].concat()
}

#[tokio::test]
async fn version_3_of_engine_io_stays_with_its_server_in_every_framing() {
    let framings: [Issue; 4] = [
        |id| with_length(with_lengths(&open_packet(id)).as_bytes()),
        |id| with_length(&binary(&open_packet(id))),
        |id| {
            let script = with_lengths(&open_packet(id)).replace('"', "\\\"");
            with_length(format!("___eio[7](\"{script}\");").as_bytes())
        },
        |id| {
            let body = with_lengths(&open_packet(id));
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
                .into()
        },
    ];
    for framing in framings {
        let servers = servers(framing).await;
        let proxy = over(&servers, "engine_io").run().await;
        let following = |id: &str| (format!("/x?transport=polling&EIO=3&sid={id}"), String::new());
        check_led(&proxy, ("GET", "/new?EIO=3&transport=polling"), following).await;
        assert_eq!(proxy.logged_path("/x").await["affinity"], "engine_io");
    }
}

#[tokio::test]
async fn what_is_learned_from_passes_untouched() {
    let servers = servers(|id| with_length(&binary(&open_packet(id)))).await;
    let proxy = over(&servers, "engine_io").run().await;
    let answer = proxy.exchange(from(1, "GET", "/new?EIO=3&transport=polling", "")).await;
    assert_eq!(answer.body, binary(&open_packet(&id(&answer))));
    assert_eq!(answer.head.field("content-length"), Some(answer.body.len().to_string()));
}

#[tokio::test]
async fn scripts_of_version_4_are_tagged() {
    let servers =
        servers(|id| with_length(format!("___eio[0](\"{}\");", open_packet(id).replace('"', "\\\"")).as_bytes())).await;
    let proxy = over(&servers, "engine_io").run().await;
    let answer = proxy.exchange(from(1, "GET", "/new?EIO=4&transport=polling&j=0", "")).await;
    let tagged = answer.text().replace('\\', "");
    let (id, tag) = tagged.split_once("sid\":\"").and_then(|(_, rest)| rest.split_once('~')).expect("a tag");
    let query = format!("/x?EIO=4&transport=polling&j=1&sid={id}~{}", &tag[..11]);
    for other in 100..106 {
        assert_eq!(proxy.exchange(from(other, "GET", &query, "")).await.text(), id[..1], "{tagged}");
    }
}

#[tokio::test]
async fn a_cookie_that_a_server_sets_leads_back_to_it() {
    let servers = servers(|id| {
        let cookies = format!("Set-Cookie: other=x\r\nSet-Cookie: sid={id}; Path=/; HttpOnly");
        format!("HTTP/1.1 302 Found\r\nLocation: /\r\n{cookies}\r\nContent-Length: 0\r\n\r\n").into()
    })
    .await;
    let proxy = over(&servers, "cookie: sid").run().await;
    check_led(&proxy, ("POST", "/new"), |id| ("/x".to_owned(), format!("Cookie: a=b; sid={id}\r\n"))).await;
    assert_eq!(proxy.logged_path("/x").await["affinity"], "cookie");

    // One that no server has set is the client's own, and a key.
    let mut homes = BTreeSet::new();
    for client in 0..24 {
        let mut seen = BTreeSet::new();
        for address in 0..4 {
            seen.insert(
                proxy.exchange(from(address, "GET", "/x", &format!("Cookie: sid=own-{client}x\r\n"))).await.text(),
            );
        }
        assert_eq!(seen.len(), 1, "{seen:?}");
        homes.extend(seen);
    }
    assert_eq!(homes.len(), 3, "{homes:?}");
}

#[tokio::test]
async fn a_session_in_a_header_leads_back_to_its_server() {
    let servers = servers(|id| {
        format!(
            "HTTP/1.1 200 OK\r\nMcp-Session-Id: {id}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
        )
        .into()
    })
    .await;
    let proxy = over(&servers, "session: mcp").run().await;
    check_led(&proxy, ("POST", "/new"), |id| ("/x".to_owned(), format!("Mcp-Session-Id: {id}\r\n"))).await;
    assert_eq!(proxy.logged_path("/x").await["affinity"], "session");
}

#[tokio::test]
async fn a_session_opened_by_an_event_stream_leads_back_to_its_server() {
    let servers = servers(|id| {
        let head = format!("HTTP/1.1 200 OK\r\nMcp-Session-Id: {id}\r\nContent-Type: text/event-stream");
        format!("{head}\r\nTransfer-Encoding: chunked\r\n\r\n7\r\ndata:1\n\r\n0\r\n\r\n").into()
    })
    .await;
    let proxy = over(&servers, "session: mcp").run().await;
    check_led(&proxy, ("GET", "/new"), |id| ("/x".to_owned(), format!("mcp-session-id: {id}\r\n"))).await;
}

fn json(body: &str) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8";
    format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into()
}

#[tokio::test]
async fn a_session_in_json_leads_back_to_its_server() {
    let servers =
        servers(|id| json(&format!(r#"{{"negotiateVersion":1,"connectionId":"public","connectionToken":"{id}"}}"#)))
            .await;
    let proxy = over(&servers, "session: signalr").run().await;
    check_led(&proxy, ("POST", "/new"), |id| (format!("/x?id={id}"), String::new())).await;
    assert_eq!(proxy.logged_path("/x").await["affinity"], "session");
}

#[tokio::test]
async fn upstreams_with_the_same_server_names_know_each_others_sessions() {
    let servers = servers(|id| json(&format!(r#"{{"session":{{"id":"{id}"}}}}"#))).await;
    let others = self::servers(json).await;
    let source = "session: { learn: { json: session.id }, find: { query: session } }";
    let [a, b, c] = &others;
    let [c, a, b] = [Named(c, "c"), Named(a, "a"), Named(b, "b")];
    let proxy = over(&servers, source).upstream("push", &[&c, &a, &b]).affinity(&format!("[{source}]"));
    let proxy = proxy.route("{ path: /push, upstream: push }").route("{ upstream: chat }").run().await;
    check_led(&proxy, ("POST", "/new"), |id| (format!("/push?session={id}"), String::new())).await;
}

#[tokio::test]
async fn answers_that_refuse_teach_nothing() {
    let servers =
        servers(|id| format!("HTTP/1.1 404 Not Found\r\nMcp-Session-Id: {id}\r\nContent-Length: 0\r\n\r\n").into())
            .await;
    let proxy = over(&servers, "session: mcp").run().await;
    let mut homes = BTreeSet::new();
    let id = id(&proxy.exchange(from(1, "POST", "/new", "")).await);
    for other in 100..124 {
        homes.insert(proxy.exchange(from(other, "GET", "/x", &format!("Mcp-Session-Id: {id}\r\n"))).await.text());
    }
    assert_eq!(homes.len(), 3, "{homes:?}");
}

#[tokio::test]
async fn a_session_whose_server_cannot_be_reached_goes_on_elsewhere() {
    let (a, b) = (Upstream::start().await, Upstream::named("b").await);
    let servers: [&dyn ServerEntry; 2] = [&Named(&a, "a"), &Named(&b, "b")];
    let proxy = Proxy::start().upstream("chat", &servers).affinity("[session: signalr]");
    // One thread, so that the server is asked again on the connection that it has.
    let proxy = proxy.balance("{ keyless: round_robin }").threads(1).run().await;
    let asks_on = || proxy.exchange(from(1, "GET", "/x?id=token", ""));

    let mut client = proxy.send(from(1, "POST", "/new", "")).await;
    let mut upstream = a.accept().await;
    upstream.request().await;
    upstream.send(json(r#"{"connectionToken":"token"}"#)).await;
    client.response().await;
    let serve = async {
        upstream.request().await;
        upstream.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na").await;
    };
    // By turns, this one would go to the other server.
    assert_eq!(tokio::join!(asks_on(), serve).0.text(), "a");
    drop((a, upstream));
    for _ in 0..3 {
        assert_eq!(asks_on().await.text(), "b");
    }
}

#[tokio::test]
async fn only_answers_that_may_hold_an_id_are_asked_for_without_compression() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).affinity("[session: signalr]").run().await;
    let mut client = proxy.connect().await;
    let (mut upstream, gzip) = (None, Some("gzip".to_owned()));
    for (method, target, expected) in [
        ("POST", "/negotiate", None),
        ("POST", "/hub?id=a", gzip.clone()),
        ("GET", "/negotiate", gzip.clone()),
        ("PUT", "/negotiate", gzip),
    ] {
        client.send(from(1, method, target, "Accept-Encoding: gzip\r\n")).await;
        if upstream.is_none() {
            upstream = Some(server.accept().await);
        }
        let upstream = upstream.as_mut().expect("just accepted");
        assert_eq!(upstream.request().await.head.field("accept-encoding"), expected, "{method} {target}");
        upstream.send(ok("fine")).await;
        assert_eq!(client.response().await.text(), "fine");
    }
}

#[tokio::test]
async fn no_answer_is_held_back_that_cannot_hold_an_id() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).affinity("[session: signalr]").run().await;
    let long = 1_000_000;
    for (fields, first) in [
        ("Content-Type: text/html\r\nTransfer-Encoding: chunked", "5\r\n<html\r\n".to_owned()),
        (
            "Content-Type: application/json\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked",
            "5\r\n{\"a\":\r\n".to_owned(),
        ),
        ("Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked", "5\r\n{\"a\":\r\n".to_owned()),
        (&format!("Content-Type: application/json\r\nContent-Length: {long}"), "{\"a\":".to_owned()),
        ("Content-Type: application/json\r\nTransfer-Encoding: chunked", format!("8000\r\n{}\r\n", "[".repeat(0x8000))),
    ] {
        let mut client = proxy.send(from(1, "POST", "/negotiate", "")).await;
        let mut upstream = server.accept().await;
        upstream.request().await;
        upstream.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{first}")).await;
        assert_eq!(client.head().await.status(), 200, "{fields}");
    }
}

/// What requests under load came to.
#[derive(Debug, Default)]
struct Load {
    /// Sessions that were opened and asked on with.
    sessions: usize,
    /// Those whose second request went to another server.
    strayed: usize,
    /// The longest that a request took.
    slowest: Duration,
}

/// Opens sessions at one proxy and asks on at the other, over and over, until `over` is.
async fn load(fleet: &[Proxy; 2], over: impl Future<Output = ()>) -> Load {
    let (mut load, stop) = (Load::default(), Cell::new(false));
    let work = async {
        let mut wires = [fleet[0].connect().await, fleet[1].connect().await];
        for turn in 0.. {
            let begun = Instant::now();
            wires[turn % 2].send(from(turn % 200, "POST", "/new", "")).await;
            let opening = wires[turn % 2].response().await;
            let opened = begun.elapsed();
            assert_eq!(opening.status(), 200, "{opening:?}");
            let id = id(&opening);
            let begun = Instant::now();
            wires[(turn + 1) % 2]
                .send(from((turn + 100) % 200, "GET", "/x", &format!("Mcp-Session-Id: {id}\r\n")))
                .await;
            let answer = wires[(turn + 1) % 2].response().await;
            assert_eq!(answer.status(), 200, "{answer:?}");
            load.sessions += 1;
            load.strayed += usize::from(answer.text() != id[..1]);
            load.slowest = load.slowest.max(opened).max(begun.elapsed());
            if stop.get() {
                break;
            }
        }
    };
    tokio::join!(work, async {
        over.await;
        stop.set(true);
    });
    load
}

#[tokio::test]
async fn no_request_fails_or_waits_for_long_when_redis_is_away_or_slow() {
    const BOUND: Duration = millis(100);
    /// What a busy machine adds to it.
    const NOISE: Duration = seconds(2);
    let mut redis = Redis::start().await;
    let slow = Hop::delaying(millis(400), redis.address()).await;
    let servers = servers(|id| {
        let head = format!("HTTP/1.1 200 OK\r\nMcp-Session-Id: {id}");
        format!("{head}\r\nContent-Length: 0\r\n\r\n").into()
    })
    .await;
    let member = |redis: SocketAddr| {
        let store = format!("session_store: {{ url: \"redis://{redis}\", timeout: 100ms }}");
        over(&servers, "session: mcp").line(&store).run()
    };
    let fleet = [member(redis.address()).await, member(redis.address()).await];
    let check = |load: Load, what: &str| {
        eprintln!("{what}: {load:?}");
        assert!(load.slowest < BOUND + NOISE, "{what}: {load:?}");
        load
    };

    let there = check(load(&fleet, sleep(millis(500))).await, "there");
    assert_eq!(there.strayed, 0, "{there:?}");

    redis.kill();
    let gone = check(load(&fleet, sleep(seconds(2))).await, "stopped");
    assert!(gone.strayed > 0, "nothing was shared: {gone:?}");
    redis.restart().await;
    is_shared_again(&fleet).await;

    redis.pause();
    check(load(&fleet, sleep(seconds(2))).await, "hanging");
    redis.go_on();
    is_shared_again(&fleet).await;

    let behind = [member(slow.address()).await, member(slow.address()).await];
    let slowed = check(load(&behind, sleep(seconds(2))).await, "slow");
    assert!(slowed.strayed > 0, "nothing was shared: {slowed:?}");
    for proxy in fleet.iter().chain(&behind) {
        assert!(proxy.metrics().await.sum("steadfast_session_store_errors_total", &[]) > 0.0);
    }
}

/// Waits until sessions that are opened at one proxy are known at the other.
async fn is_shared_again(fleet: &[Proxy; 2]) {
    let shared = async { while load(fleet, sleep(millis(100))).await.strayed > 0 {} };
    soon("sessions to be shared again", shared).await;
}
