//! Engine.IO sessions, byte by byte: the id in the open packet of a handshake by polling gets a
//! tag, later requests follow it, and the server never sees it.

use std::collections::BTreeSet;

use crate::harness::client::SWITCHING;
use crate::harness::proxy::Setup;
use crate::harness::upstream::ok;
use crate::harness::{
    InState, Leaving, Message, Proxy, Random, SecretFile, ServerEntry, Upstream, Wire, show, websocket_request,
};

const ID: &str = "lv_VI97HAXpY6yYWAAAC";
const OPEN: &str =
    r#"0{"sid":"lv_VI97HAXpY6yYWAAAC","upgrades":["websocket"],"pingInterval":25000,"maxPayload":1000000}"#;
const SECRET: &str = "sixteen and more bytes";

/// A proxy of a fleet whose secret is in `file`.
fn member(file: &SecretFile, servers: &[&dyn ServerEntry]) -> Setup {
    Proxy::start().secret(file).upstream("chat", servers).trusting("[127.0.0.0/8]")
}

async fn proxy(server: &Upstream) -> Proxy {
    member(&SecretFile::with(SECRET), &[server]).run().await
}

/// A request that a browser might send, for `query`.
fn get(query: &str) -> String {
    format!(
        "GET /socket.io/?{query} HTTP/1.1\r\nHost: chat.example.com\r\nAccept: */*\r\n\
         Accept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n\r\n"
    )
}

fn handshake() -> String {
    get("EIO=4&transport=polling&t=kx2v1p9z")
}

/// A request for `query` by a client that has this address.
fn get_from(address: &str, query: &str) -> String {
    format!("GET /socket.io/?{query} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {address}\r\n\r\n")
}

/// A server that opens sessions and says under which name it saw which request.
async fn engine(name: &'static str) -> Upstream {
    Upstream::serving(move |mut wire| async move {
        while let Some(request) = wire.next_request().await {
            let query = query(&request);
            let answer = match query.contains("sid=") || query.contains("EIO=3") {
                true => format!("{name} {query}"),
                false => OPEN.to_owned(),
            };
            wire.send(ok(&answer)).await;
        }
    })
    .await
}

fn query(request: &Message) -> String {
    let target = request.head.start.split(' ').nth(1).expect("a request line has a target");
    target.split_once('?').map(|(_, query)| query.to_owned()).unwrap_or_default()
}

/// The session id in an open packet.
#[track_caller]
fn sid(body: &str) -> String {
    let rest = body.split_once(r#""sid":""#).map(|(_, rest)| rest);
    let sid = rest.and_then(|rest| rest.split('"').next());
    sid.unwrap_or_else(|| panic!("no session id in {body:?}")).to_owned()
}

/// The session id of a new session.
async fn opened(proxy: &Proxy) -> String {
    sid(&proxy.exchange(handshake()).await.text())
}

/// `answer` holds `body` with a tag behind the id, of the length that it says.
#[track_caller]
fn check_tagged(answer: &Message, body: &str) {
    let text = answer.text();
    let sid = sid(&text);
    let tag = sid.strip_prefix(ID).and_then(|rest| rest.strip_prefix('~'));
    assert_eq!(tag.map(str::len), Some(11), "{sid}");
    assert_eq!(text, body.replacen(ID, &sid, 1));
    assert_eq!(answer.head.field("content-length"), Some(text.len().to_string()), "{:?}", answer.head);
    assert_eq!(answer.head.field("transfer-encoding"), None, "{:?}", answer.head);
}

fn chunks(pieces: &[&str]) -> String {
    let chunks = pieces.iter().map(|piece| format!("{:x}\r\n{piece}\r\n", piece.len()));
    chunks.collect::<String>() + "0\r\n\r\n"
}

#[tokio::test]
async fn an_open_packet_is_tagged_whichever_way_it_is_framed() {
    let length = format!("Content-Length: {}", OPEN.len());
    let (start, end) = OPEN.split_at(15);
    for (fields, body) in [
        (length.as_str(), OPEN.to_owned()),
        ("Transfer-Encoding: chunked", chunks(&[OPEN])),
        ("Transfer-Encoding: chunked", chunks(&[start, end])),
        ("Connection: close", OPEN.to_owned()),
        ("Transfer-Encoding: chunked\r\nConnection: close", chunks(&[start, end])),
    ] {
        let server = Upstream::start().await;
        let proxy = proxy(&server).await;
        for request in [
            handshake(),
            handshake().replace("HTTP/1.1", "HTTP/1.0"),
            handshake().replace("HTTP/1.1", "HTTP/1.0").replace("keep-alive", "close"),
        ] {
            let mut client = proxy.send(request).await;
            let mut upstream = server.accept().await;
            upstream.request().await;
            upstream.send(format!("HTTP/1.1 200 OK\r\nSet-Cookie: io={ID}\r\n{fields}\r\n\r\n{body}")).await;
            drop(upstream);
            let answer = client.response().await;
            check_tagged(&answer, OPEN);
            assert_eq!(answer.head.field("set-cookie"), Some(format!("io={ID}")), "{fields}");
        }
    }
}

#[tokio::test]
async fn an_open_packet_is_tagged_in_whichever_pieces_it_comes() {
    let server = Upstream::start().await;
    let proxy = proxy(&server).await;
    let mut client = proxy.send(handshake()).await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    for byte in ok(OPEN).bytes() {
        upstream.send([byte]).await;
    }
    check_tagged(&client.response().await, OPEN);
}

#[tokio::test]
async fn only_the_open_packet_is_tagged_among_several() {
    let body = format!("{OPEN}\x1e40{{\"sid\":\"{ID}\"}}\x1e2");
    let server = Upstream::start().await;
    let proxy = proxy(&server).await;
    let mut client = proxy.send(handshake()).await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send(ok(&body)).await;
    check_tagged(&client.response().await, &body);
}

#[tokio::test]
async fn connections_on_both_sides_carry_on_after_a_handshake() {
    let server = Upstream::start().await;
    let proxy = proxy(&server).await;
    let mut client = proxy.send(handshake()).await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send(ok(OPEN)).await;
    check_tagged(&client.response().await, OPEN);

    // Nobody knows what length the answer to a GET would have.
    client.send(handshake().replace("GET", "HEAD")).await;
    upstream.request().await;
    upstream.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", OPEN.len())).await;
    assert_eq!(client.head().await.status(), 200);

    client.send(handshake()).await;
    upstream.request().await;
    upstream.send(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}", chunks(&[OPEN]))).await;
    check_tagged(&client.response().await, OPEN);

    client.send(get("EIO=4&transport=polling&sid=other")).await;
    upstream.request().await;
    upstream.send(ok("6")).await;
    assert_eq!(client.response().await.text(), "6");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn only_handshakes_are_asked_for_without_compression() {
    let server = Upstream::start().await;
    let proxy = proxy(&server).await;
    let (mut client, mut upstream) = (proxy.connect().await, None::<Wire>);
    let compressed = Some("gzip, deflate".to_owned());
    for (query, expected) in [
        ("EIO=4&transport=polling", None),
        ("transport=polling&t=a&EIO=4", None),
        ("EIO=4&transport=polling&sid=abc", compressed.clone()),
        ("EIO=3&transport=polling", None),
        ("EIO=3&transport=polling&sid=abc", compressed.clone()),
        ("transport=polling", compressed.clone()),
        ("", compressed),
    ] {
        client.send(get(query)).await;
        if upstream.is_none() {
            upstream = Some(server.accept().await);
        }
        let upstream = upstream.as_mut().expect("just accepted");
        let request = upstream.request().await;
        assert_eq!(request.head.field("accept-encoding"), expected, "{query:?}");
        assert_eq!(request.head.field("accept"), Some("*/*".to_owned()), "{query:?}");
        upstream.send(ok("fine")).await;
        assert_eq!(client.response().await.text(), "fine");
    }
}

#[tokio::test]
async fn a_server_sees_the_id_that_it_issued() {
    let server = engine("a").await;
    let proxy = proxy(&server).await;
    let tagged = opened(&proxy).await;
    let spelled: String = tagged.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let mut client = proxy.connect().await;
    for sid in [&tagged, &tagged.replace('~', "%7E"), &tagged.replace('~', "%7e"), &spelled] {
        for query in [
            "EIO=4&transport=polling&sid=@",
            "sid=@&EIO=4&transport=polling",
            "EIO=4&sid=@&transport=polling&t=kx2v1p9z",
            "b64=1&EIO=4&t=a%20b+c&t=&&x&transport=polling&sid=@&y=~%7E%c3%A4&t",
            "transport=polling&insid=x&EIO=4&s%69d=@&sidecar=1",
        ] {
            let seen = format!("a {}", query.replace('@', ID));
            client.send(get(&query.replace('@', sid))).await;
            assert_eq!(client.response().await.text(), seen, "GET {query} with {sid}");
            let post = get(&query.replace('@', sid))
                .replace("GET", "POST")
                .replace("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\n42");
            client.send(post).await;
            assert_eq!(client.response().await.text(), seen, "POST {query} with {sid}");
        }
    }
}

#[tokio::test]
async fn a_session_is_upgraded_under_the_id_that_its_server_issued() {
    let server = Upstream::start().await;
    let proxy = proxy(&server).await;
    let mut client = proxy.send(handshake()).await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send(ok(OPEN)).await;
    let tagged = sid(&client.response().await.text());

    let target = |sid: &str| format!("/socket.io/?EIO=4&transport=websocket&sid={sid}");
    client.send(websocket_request(&target(&tagged), "")).await;
    let request = upstream.request().await;
    assert_eq!(request.head.start, format!("GET {} HTTP/1.1", target(ID)));
    upstream.send(SWITCHING).await;
    assert_eq!(client.response().await.status(), 101);
    client.send("2probe").await;
    assert_eq!(upstream.exactly(6).await, b"2probe");
    upstream.send("3probe").await;
    assert_eq!(client.exactly(6).await, b"3probe");
}

#[tokio::test]
async fn every_proxy_of_a_fleet_leads_a_session_home_whoever_asks() {
    let (a, b, c) = (engine("a").await, engine("b").await, engine("c").await);
    let secret = SecretFile::with(SECRET);
    let servers: [&dyn ServerEntry; 3] = [&a, &b, &c];
    let fleet = [member(&secret, &servers).run().await, member(&secret, &servers).run().await];
    let mut homes = BTreeSet::new();
    for client in 0..24 {
        let address = |request: usize| format!("10.{client}.{request}.1");
        let opening = fleet[client % 2].exchange(get_from(&address(0), "EIO=4&transport=polling")).await;
        let tagged = sid(&opening.text());
        let mut seen = BTreeSet::new();
        for request in 1..6 {
            let query = format!("EIO=4&transport=polling&sid={tagged}");
            let answer = fleet[request % 2].exchange(get_from(&address(request), &query)).await;
            seen.insert(answer.text());
        }
        assert_eq!(seen.len(), 1, "one session, several servers: {seen:?}");
        homes.extend(seen);
    }
    let expected = ["a", "b", "c"].map(|name| format!("{name} EIO=4&transport=polling&sid={ID}"));
    assert_eq!(homes, BTreeSet::from(expected));
}

/// Who answers, and under which query, once nothing but the address tells.
async fn answer(proxy: &Proxy, address: &str, sid: &str) -> String {
    proxy.exchange(get_from(address, &format!("EIO=4&transport=polling&sid={sid}"))).await.text()
}

#[tokio::test]
async fn what_is_no_tag_of_this_session_changes_nothing() {
    let (a, b, c) = (engine("a").await, engine("b").await, engine("c").await);
    let servers: [&dyn ServerEntry; 3] = [&a, &b, &c];
    let proxy = member(&SecretFile::with(SECRET), &servers).run().await;
    let stranger = member(&SecretFile::with("another secret of another fleet"), &servers).run().await;
    let tagged = opened(&proxy).await;
    let tag = tagged.strip_prefix(ID).expect("a tag behind the id");
    let shorter = &tagged[..tagged.len() - 1];
    let foreign = opened(&stranger).await;
    for sid in [
        ID,
        "~",
        tag,
        shorter,
        &format!("{tagged}A"),
        &format!("{tagged}~"),
        &format!("{ID}~AAAAAAAAAAA"),
        &format!("{ID}~..........."),
        &format!("mv_VI97HAXpY6yYWAAAC{tag}"),
        &foreign,
    ] {
        for client in 0..4 {
            let address = format!("10.0.{client}.1");
            let by_address = answer(&proxy, &address, "plain").await;
            let expected = by_address.replace("plain", sid);
            assert_eq!(answer(&proxy, &address, sid).await, expected, "{sid}");
        }
    }
}

#[tokio::test]
async fn a_tag_of_a_server_that_is_gone_leads_somewhere_else() {
    let (gone, stays) = (engine("gone").await, engine("stays").await);
    let secret = SecretFile::with(SECRET);
    let tagged = opened(&member(&secret, &[&gone]).run().await).await;
    let proxy = member(&secret, &[&stays]).run().await;
    let answer = answer(&proxy, "10.0.0.1", &tagged).await;
    assert!(answer.starts_with("stays "), "{answer}");
    proxy.settles("steadfast_lost_sessions_total", &[], 1.0).await;
}

/// Who answers a poll of the session `sid` by this client.
async fn home(proxy: &Proxy, address: &str, sid: &str) -> String {
    let answer = answer(proxy, address, sid).await;
    answer.split(' ').next().expect("split yields at least one").to_owned()
}

/// While a fleet gets its new configuration, proxy by proxy.
#[tokio::test]
async fn a_server_that_drains_keeps_its_sessions_and_gets_no_others() {
    let (a, b, c) = (engine("a").await, engine("b").await, engine("c").await);
    let secret = SecretFile::with(SECRET);
    let old = member(&secret, &[&a, &b, &c]).run().await;
    let new = member(&secret, &[&a, &InState(&b, "drain"), &c]).run().await;
    let mut drained = 0;
    for client in 0..24 {
        let (address, moved) = (format!("10.{client}.0.1"), format!("10.{client}.0.2"));
        let open = get_from(&address, "EIO=4&transport=polling");
        let tagged = sid(&old.exchange(open.clone()).await.text());
        let opened_at = home(&old, &address, &tagged).await;
        drained += usize::from(opened_at == "b");
        for address in [&address, &moved] {
            assert_eq!(home(&new, address, &tagged).await, opened_at);
        }
        // The same client opens another one, where it is known that the server drains.
        let tagged = sid(&new.exchange(open).await.text());
        let opened_at_new = home(&new, &address, &tagged).await;
        assert_ne!(opened_at_new, "b");
        assert!(opened_at == "b" || opened_at == opened_at_new, "{address} moved from {opened_at}");
        assert_eq!(home(&old, &address, &tagged).await, opened_at_new);
    }
    assert!(drained > 0, "nobody was there");
    for proxy in [&old, &new] {
        assert_eq!(proxy.metrics().await.sum("steadfast_lost_sessions_total", &[]), 0.0);
    }
}

#[tokio::test]
async fn a_session_of_a_server_in_maint_goes_to_the_next_source() {
    let (a, b, c) = (engine("a").await, engine("b").await, engine("c").await);
    let secret = SecretFile::with(SECRET);
    let tagged = opened(&member(&secret, &[&b]).run().await).await;
    let proxy = member(&secret, &[&a, &InState(&b, "maint"), &c]).run().await;
    for client in 0..24 {
        let address = format!("10.{client}.0.1");
        let by_address = home(&proxy, &address, "plain").await;
        assert_ne!(by_address, "b");
        assert_eq!(home(&proxy, &address, &tagged).await, by_address);
    }
    proxy.settles("steadfast_lost_sessions_total", &[], 24.0).await;
    assert!(proxy.log().iter().all(|line| line.contains("\"affinity\":\"forwarded_for\"")));
}

#[tokio::test]
async fn version_3_passes_untouched() {
    let server = engine("a").await;
    let proxy = proxy(&server).await;
    let tagged = opened(&proxy).await;
    let query = format!("EIO=3&transport=polling&sid={tagged}");
    assert_eq!(proxy.exchange(get(&query)).await.text(), format!("a {query}"));

    let server = Upstream::start().await;
    let proxy = self::proxy(&server).await;
    for (query, body) in [("EIO=3&transport=polling", format!("96:{OPEN}2:40")), ("transport=polling", OPEN.to_owned())]
    {
        let mut client = proxy.send(get(query)).await;
        let mut upstream = server.accept().await;
        upstream.request().await;
        upstream.send(ok(&body)).await;
        drop(upstream);
        assert_eq!(client.response().await.text(), body, "{query}");
    }
}

#[tokio::test]
async fn what_is_no_open_packet_passes_untouched() {
    let server = Upstream::start().await;
    let proxy = proxy(&server).await;
    let unknown = r#"{"code":0,"message":"Transport unknown"}"#;
    let page = "<!doctype html><title>0</title>".to_owned();
    for (status, fields, body) in [
        ("400 Bad Request", "Content-Type: application/json\r\n", unknown.to_owned()),
        ("400 Bad Request", "", OPEN.to_owned()),
        ("503 Service Unavailable", "", page.clone()),
        ("302 Found", "Location: /login\r\n", page.clone()),
        ("200 OK", "", page),
        ("200 OK", "", String::new()),
        ("200 OK", "", "0".to_owned()),
        ("200 OK", "", "ok".to_owned()),
        ("200 OK", "", OPEN[1..].to_owned()),
        ("200 OK", "", OPEN[..OPEN.len() - 1].to_owned()),
        ("200 OK", "", OPEN.replace(ID, "")),
        ("200 OK", "", OPEN.replace(ID, r#"a\"b"#)),
        ("200 OK", "", format!("40{OPEN}")),
        // Against what it was asked.
        ("200 OK", "Content-Encoding: gzip\r\n", "\u{1f}\u{8}0{\"sid\":\"abc\"}".to_owned()),
    ] {
        let mut client = proxy.send(handshake()).await;
        let mut upstream = server.accept().await;
        upstream.request().await;
        let length = body.len();
        upstream.send(format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {length}\r\n\r\n{body}")).await;
        drop(upstream);
        let answer = client.response().await;
        assert!(answer.head.start.ends_with(status), "{:?}", answer.head);
        assert_eq!(answer.text(), body, "{status} {fields:?}");
        assert_eq!(answer.head.field("content-length"), Some(length.to_string()), "{status} {fields:?} {body:?}");
    }
}

#[tokio::test]
async fn an_answer_without_a_body_passes_untouched() {
    let server = Upstream::start().await;
    let proxy = proxy(&server).await;
    let mut client = proxy.send(handshake()).await;
    let mut upstream = server.accept().await;
    for status in [204, 304, 204] {
        upstream.request().await;
        upstream.send(format!("HTTP/1.1 {status} Fine\r\nETag: x\r\n\r\n")).await;
        let answer = client.response().await;
        assert_eq!((answer.status(), answer.head.field("etag")), (status, Some("x".to_owned())));
        client.send(handshake()).await;
    }
}

#[tokio::test]
async fn an_answer_too_long_for_an_open_packet_is_not_held_back() {
    const HALF: usize = 512 * 1024;
    let body = [OPEN.as_bytes(), &Random::seeded(4).bytes(2 * HALF - OPEN.len())].concat();
    let server = Upstream::start().await;
    let proxy = proxy(&server).await;
    let length = format!("Content-Length: {}", body.len());
    for framing in [length.as_str(), "Transfer-Encoding: chunked", "Connection: close"] {
        let mut client = proxy.send(handshake()).await;
        let mut upstream = server.accept().await;
        upstream.request().await;
        upstream.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n")).await;
        let (mut got, mut is_chunked) = (Vec::new(), false);
        for half in body.chunks(HALF) {
            let piece = match framing.ends_with("chunked") {
                true => [format!("{HALF:x}\r\n").as_bytes(), half, b"\r\n"].concat(),
                false => half.to_vec(),
            };
            // The second half is sent when the first has arrived.
            let receive = async {
                if got.is_empty() {
                    let head = client.head().await;
                    assert_eq!(head.status(), 200);
                    is_chunked = head.field("transfer-encoding").is_some();
                }
                let wanted = got.len() + HALF;
                while got.len() < wanted {
                    match is_chunked {
                        true => got.extend(client.chunk().await.expect("more chunks")),
                        false => got.extend(client.exactly(wanted - got.len()).await),
                    }
                }
            };
            tokio::join!(upstream.send(piece), receive);
        }
        assert!(got == body, "with {framing}: {}", show(&got));
    }
}

/// The head of an answer to a handshake, and less of its body than it says.
fn broken_off() -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", OPEN.len(), &OPEN[..30])
}

#[tokio::test]
async fn a_server_that_dies_within_the_open_packet_is_a_bad_gateway() {
    for answer in
        [broken_off(), format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1e\r\n{}\r\n", &OPEN[..30])]
    {
        let server = Upstream::start().await;
        let proxy = proxy(&server).await;
        let mut client = proxy.send(handshake()).await;
        let mut upstream = server.accept().await;
        upstream.request().await;
        upstream.send(&answer).await;
        drop(upstream);
        assert_eq!(client.response().await.status(), 502, "{answer:?}");
        assert_eq!(proxy.logged_path("/socket.io/").await["status"], 502);
        proxy.settles_empty().await;
    }
}

#[tokio::test]
async fn a_server_that_stops_within_the_open_packet_is_a_gateway_timeout() {
    let server = Upstream::start().await;
    let proxy = member(&SecretFile::with(SECRET), &[&server]).timeouts("{ body: 300ms }").run().await;
    let mut client = proxy.send(handshake()).await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send(broken_off()).await;
    assert_eq!(client.response().await.status(), 504);
    assert_eq!(proxy.logged_path("/socket.io/").await["status"], 504);
    upstream.ends().await;
}

#[tokio::test]
async fn a_client_that_leaves_within_the_open_packet_takes_its_request_along() {
    for how in Leaving::ALL {
        let server = Upstream::start().await;
        let proxy = proxy(&server).await;
        let client = proxy.send(handshake()).await;
        let mut upstream = server.accept().await;
        upstream.request().await;
        upstream.send(broken_off()).await;
        client.leave(how);
        upstream.ends().await;
        assert_eq!(proxy.logged_path("/socket.io/").await["end_reason"], "client_closed", "{how:?}");
    }
}
