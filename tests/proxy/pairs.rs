//! Upstreams of the same servers: programs that take POSTs on one port and push on another. What is
//! posted through one route must reach the program that holds the client's stream.

use tokio::sync::broadcast;

use crate::harness::upstream::ok;
use crate::harness::{Named, Proxy, ServerEntry, Upstream, Wire};

const CLIENTS: usize = 20;

/// A program with two ports, that pushes to the streams of one what is posted to the other.
struct Program {
    api: Upstream,
    push: Upstream,
}

impl Program {
    async fn start(name: &'static str) -> Self {
        let (posts, _) = broadcast::channel::<Vec<u8>>(1_000);
        let streams = posts.clone();
        let api = Upstream::serving(move |mut wire| {
            let posts = posts.clone();
            async move {
                while let Some(request) = wire.next_request().await {
                    let _nobody_listens = posts.send(request.body);
                    wire.send(ok(name)).await;
                }
            }
        });
        let push = Upstream::serving(move |wire| push(name, wire, streams.clone()));
        Self { api: api.await, push: push.await }
    }
}

/// A handshake of Engine.IO, or a stream that begins with the program's name.
async fn push(name: &'static str, mut wire: Wire, posts: broadcast::Sender<Vec<u8>>) {
    while let Some(request) = wire.next_request().await {
        if request.head.start.contains("transport=polling") {
            wire.send(ok(&format!("0{{\"sid\":\"{name}-0123456789\"}}"))).await;
            continue;
        }
        let mut posts = posts.subscribe();
        wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n").await;
        wire.send(format!("data: {name}\n\n")).await;
        while let Ok(post) = posts.recv().await {
            wire.send([b"data: ", post.as_slice(), b"\n\n"].concat()).await;
        }
    }
}

/// A proxy with both upstreams. Their servers have the same names, in another order.
async fn proxy(programs: &[Program; 3], affinity: &str, balance: &str) -> Proxy {
    let [a, b, c] = programs;
    let api: [&dyn ServerEntry; 3] = [&Named(&a.api, "a"), &Named(&b.api, "b"), &Named(&c.api, "c")];
    let push: [&dyn ServerEntry; 3] = [&Named(&c.push, "c"), &Named(&a.push, "a"), &Named(&b.push, "b")];
    let setup = Proxy::start().upstream("api", &api).affinity(affinity).balance(balance);
    let setup = setup.upstream("push", &push).affinity(affinity).balance(balance).trusting("[127.0.0.0/8]");
    setup.route("{ path: /api/, upstream: api }").route("{ path: /push/, upstream: push }").run().await
}

async fn programs() -> [Program; 3] {
    [Program::start("a").await, Program::start("b").await, Program::start("c").await]
}

/// The data of the next event.
async fn event(stream: &mut Wire) -> String {
    let mut text = String::new();
    while !text.ends_with("\n\n") {
        let chunk = stream.chunk().await.expect("the stream goes on");
        text += std::str::from_utf8(&chunk).expect("an event is text");
    }
    text.strip_prefix("data: ").and_then(|rest| rest.strip_suffix("\n\n")).expect("an event").to_owned()
}

/// A client that says `query` and `fields` about itself opens a stream, posts and gets its push.
/// Returns the name of the program.
async fn check_push(proxy: &Proxy, query: &str, fields: &str) -> String {
    let mut stream = proxy.send(format!("GET /push/events?{query} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
    assert_eq!(stream.head().await.status(), 200);
    let pushing = event(&mut stream).await;
    let post =
        format!("POST /api/messages?{query} HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {}\r\n\r\n", query.len());
    let answer = proxy.exchange(post + query).await;
    assert_eq!(answer.text(), pushing, "{query} {fields:?}");
    assert_eq!(event(&mut stream).await, query, "{fields:?}");
    pushing
}

#[track_caller]
fn check_all_took_part(mut names: Vec<String>) {
    names.sort_unstable();
    names.dedup();
    assert_eq!(names, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_forwarded_address_leads_to_the_same_name_in_both() {
    let programs = programs().await;
    let proxy = proxy(&programs, "[forwarded_for]", "{ hash: rendezvous }").await;
    let mut names = Vec::new();
    for client in 0..CLIENTS {
        let fields = format!("X-Forwarded-For: 203.0.113.{client}\r\n");
        names.push(check_push(&proxy, &format!("client={client}"), &fields).await);
    }
    check_all_took_part(names);
}

#[tokio::test]
async fn a_cookie_that_one_issued_leads_to_the_same_name_in_the_other() {
    let programs = programs().await;
    let proxy = proxy(&programs, "[sticky_cookie]", "{ keyless: round_robin }").await;
    let mut names = Vec::new();
    for client in 0..CLIENTS {
        // The first to be asked issues it.
        let path = if client % 2 == 0 { "/api/login" } else { "/push/?transport=polling" };
        let first = proxy.exchange(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let cookie = first.head.field("set-cookie").expect("a cookie is issued");
        let fields = format!("Cookie: {}\r\n", cookie.split(';').next().expect("split yields at least one"));
        let name = check_push(&proxy, &format!("client={client}"), &fields).await;
        assert!(first.text().contains(&name), "{} issued it, {name} got it", first.text());
        names.push(name);
    }
    check_all_took_part(names);
}

#[tokio::test]
async fn a_session_that_one_opened_leads_to_the_same_name_in_the_other() {
    let programs = programs().await;
    let proxy = proxy(&programs, "[engine_io]", "{ keyless: round_robin }").await;
    let mut names = Vec::new();
    for _ in 0..CLIENTS {
        let opened = proxy.exchange("GET /push/?EIO=4&transport=polling HTTP/1.1\r\nHost: a\r\n\r\n").await.text();
        let sid = opened.split('"').nth(3).expect("a session id");
        let name = check_push(&proxy, &format!("EIO=4&sid={sid}"), "").await;
        assert!(sid.starts_with(&format!("{name}-")), "{sid} belongs to {name}");
        names.push(name);
    }
    check_all_took_part(names);
}
