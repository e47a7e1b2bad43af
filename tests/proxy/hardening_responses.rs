//! Every odd response there is, one table: what the server sent, what its client got, and that
//! nothing of it is left for the next exchange, on either side.

use std::sync::Arc;

use crate::harness::upstream::ok;
use crate::harness::{Proxy, Upstream, Wire, seconds, websocket_request};

/// What is to come of a response.
enum Outcome {
    /// Its client is told so with 502, and of the response it gets nothing.
    Bad,
    /// Its client gets this, and the next one is the next one.
    Passed(&'static str),
    /// Its client gets this, and then the connection is cut: that is no end.
    Cut(&'static str),
}

use Outcome::{Bad, Cut, Passed};

/// What the server does behind its response.
#[derive(Clone, Copy)]
enum Then {
    Closes,
    Waits,
}

use Then::{Closes, Waits};

/// A response that nobody may ever see.
const SPLIT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nSPLIT";

/// `|` stands for a line end, `~` for the usual status line with its line end, `$` for [`SPLIT`], and
/// letters of Latin-1 for single bytes.
fn bytes_of(short: &str) -> Vec<u8> {
    let text = short.replace('~', "HTTP/1.1 200 OK|").replace('|', "\r\n").replace('$', SPLIT);
    text.chars().map(|letter| u8::try_from(u32::from(letter)).expect("Latin-1")).collect()
}

/// The answer without what differs from day to day.
fn undated(answer: &[u8]) -> String {
    let text: String = answer.iter().map(|byte| char::from(*byte)).collect();
    text.split_inclusive("\r\n").filter(|line| !line.starts_with("Date: ")).collect()
}

/// A server that answers `/next` as usual, and `/3` with the third response of the table.
async fn answering(responses: Vec<(Vec<u8>, Then)>) -> Upstream {
    let responses = Arc::new(responses);
    Upstream::serving(move |mut wire: Wire| {
        let responses = responses.clone();
        async move {
            while let Some(request) = wire.next_request().await {
                let path = request.head.start.split(' ').nth(1).unwrap_or_default();
                let Some((response, then)) = path[1..].parse().ok().and_then(|at: usize| responses.get(at)) else {
                    wire.send(ok("next")).await;
                    continue;
                };
                // The proxy may have had enough before the end.
                let _ = wire.try_send(response).await;
                if matches!(then, Closes) {
                    return;
                }
            }
        }
    })
    .await
}

/// Sends each response to a client that wants no more, and if it is passed on, to one that stays.
async fn check_all(request: &str, cases: &[(&str, Then, Outcome)]) {
    let responses = cases.iter().map(|(short, then, _)| (bytes_of(short), *then)).collect();
    let server = answering(responses).await;
    let setup = Proxy::start().access_log("{ format: off }").threads(1).upstream("chat", &[&server]);
    let proxy = setup.timeouts("{ response_head: 2s, body: 1s, idle: 1s }").run().await;
    let mut wrong = Vec::new();
    for (at, (short, _, outcome)) in cases.iter().enumerate() {
        let asked = request.replace("/path", &format!("/{at}"));
        let mut client = proxy.send(asked.replace("Host", "Connection: close\r\nHost")).await;
        let answer = match tokio::time::timeout(seconds(10), client.rest()).await {
            Ok(answer) => undated(&answer),
            Err(_) => undated(client.recorded()) + " and no end",
        };
        let is_right = match outcome {
            Bad => answer.starts_with("HTTP/1.1 502 ") && answer.matches("HTTP/1.1 ").count() == 1,
            Passed(expected) | Cut(expected) => answer == undated(&bytes_of(expected)),
        };
        if !is_right || answer.contains("SPLIT") {
            let answer = &answer[..answer.len().min(400)];
            wrong.push(format!(
                "{:?}\n    got {}",
                &short[..short.len().min(200)],
                answer.replace("\r\n", "|").escape_default()
            ));
        }
        for _ in 0..2 {
            let next = proxy.exchange("GET /next HTTP/1.1\r\nHost: a\r\n\r\n").await;
            if (next.status(), next.text().as_str()) != (200, "next") {
                wrong.push(format!("{short:?}\n    the next client got {} {:?}", next.status(), next.text()));
            }
        }
        if matches!(outcome, Passed(_)) && !asked.starts_with("HEAD") {
            let mut client = proxy.send(&asked).await;
            client.response().await;
            // It may have been closed; if not, the next answer is the next one's.
            if client.try_send(b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.is_ok() {
                let next = undated(&client.rest().await);
                if !next.is_empty() && next != undated(&bytes_of("~Content-Length: 4|Connection: close||next")) {
                    wrong.push(format!("{short:?}\n    the same client got {next:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    proxy.settles_empty().await;
}

const GET: &str = "GET /path HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn what_is_no_response_is_a_502() {
    let flood = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(8000);
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "y".repeat(300 << 10));
    let many = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "X: y\r\n".repeat(300));
    let cases = [
        ("", Closes, Bad),
        ("|", Closes, Bad),
        ("HTTP/1.1 200", Closes, Bad),
        ("~Content-Length: 5|", Closes, Bad),
        ("hello", Closes, Bad),
        ("<html>hello</html>||", Closes, Bad),
        ("SSH-2.0-OpenSSH_9.2||", Waits, Bad),
        ("\u{15}\u{3}\u{1}\0\u{2}\u{2}F||", Closes, Bad),
        ("PRI * HTTP/2.0||SM||", Waits, Bad),
        ("\0\0\u{12}\u{4}\0\0\0\0\0\0\u{3}\0\0\0||d", Closes, Bad),
        ("GET / HTTP/1.1|Host: a||", Waits, Bad),
        ("HTTP/2.0 200 OK|Content-Length: 0||", Waits, Bad),
        ("HTTP/0.9 200 OK|Content-Length: 0||", Waits, Bad),
        ("HTTP/1.2 200 OK|Content-Length: 0||", Waits, Bad),
        ("ICY 200 OK|Content-Length: 0||", Waits, Bad),
        ("http/1.1 200 OK|Content-Length: 0||", Waits, Bad),
        ("HTTP/1.1 20 OK|Content-Length: 0||", Waits, Bad),
        ("HTTP/1.1 2000 OK|Content-Length: 0||", Waits, Bad),
        ("HTTP/1.1 000 OK|Content-Length: 0||", Waits, Bad),
        ("HTTP/1.1 -20 OK|Content-Length: 0||", Waits, Bad),
        ("HTTP/1.1 2x0 OK|Content-Length: 0||", Waits, Bad),
        ("HTTP/1.1 200 O\0K|Content-Length: 0||", Waits, Bad),
        ("HTTP/1.1 200 O\rK|Content-Length: 0||", Waits, Bad),
        ("~X: y\rSet-Cookie: z|Content-Length: 0||", Waits, Bad),
        ("~X: y\0|Content-Length: 0||", Waits, Bad),
        ("~X: y| z|Content-Length: 0||", Waits, Bad),
        ("~X y: z|Content-Length: 0||", Waits, Bad),
        ("~X|Content-Length: 0||", Waits, Bad),
        ("~: y|Content-Length: 0||", Waits, Bad),
        ("~\u{e9}: y|Content-Length: 0||", Waits, Bad),
        ("~ X: y|Content-Length: 0||", Waits, Bad),
        ("~Content-Length: +5||hello", Waits, Bad),
        ("~Content-Length: -1||", Waits, Bad),
        ("~Content-Length: 0x5||hello", Waits, Bad),
        ("~Content-Length:||$", Waits, Bad),
        ("~Content-Length: 5 5||hello", Waits, Bad),
        ("~Content-Length: 5, 6||hello$", Waits, Bad),
        ("~Content-Length: 5|Content-Length: 0||hello", Waits, Bad),
        ("~Content-Length: 99999999999999999999||hello", Waits, Bad),
        ("~Transfer-Encoding: gzip||hello", Closes, Bad),
        ("~Transfer-Encoding: gzip, chunked||0||", Waits, Bad),
        ("~Transfer-Encoding: chunked, identity||0||", Waits, Bad),
        ("~Transfer-Encoding: identity|Content-Length: 5||hello", Waits, Bad),
        ("~Transfer-Encoding: chunked|Transfer-Encoding: chunked||0||", Waits, Bad),
        ("~Transfer-Encoding: xchunked||0||", Waits, Bad),
        ("~Transfer-Encoding:||0||", Waits, Bad),
        // Nobody has asked for another protocol.
        ("HTTP/1.1 101 Switching Protocols|Connection: Upgrade|Upgrade: websocket||$", Waits, Bad),
        ("HTTP/1.1 101 Switching Protocols||$", Waits, Bad),
        (long.as_str(), Waits, Bad),
        (many.as_str(), Waits, Bad),
    ];
    check_all(GET, &cases).await;
    // Informational heads have been passed on, so it cannot be told any more.
    let server = answering(vec![(flood.into_bytes(), Waits)]).await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let answer = proxy.send(GET.replace("/path", "/0")).await.rest().await;
    assert!(answer.len() < 512 << 10, "{} bytes of informational heads", answer.len());
    assert_eq!(proxy.exchange(GET.replace("/path", "/next")).await.text(), "next");
}

#[tokio::test]
async fn what_is_merely_odd_is_passed_on_plainly() {
    let hello = "~Content-Length: 5|Connection: close||hello";
    let chunked = "~Transfer-Encoding: chunked|Connection: close||5|hello|0||";
    let cases = [
        ("~Content-Length: 5||hello", Waits, Passed(hello)),
        ("~Content-Length: 5|Content-Length: 5||hello", Waits, Passed(hello)),
        ("~Content-Length: 5, 5||hello", Waits, Passed(hello)),
        ("~Content-Length : 5||hello", Waits, Passed(hello)),
        ("HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", Waits, Passed(hello)),
        ("HTTP/1.0 200 OK|Content-Length: 5||hello", Closes, Passed(hello)),
        (
            "HTTP/1.1 200|Content-Length: 5||hello",
            Waits,
            Passed("HTTP/1.1 200 |Content-Length: 5|Connection: close||hello"),
        ),
        (
            "HTTP/1.1 200 caf\u{e9}|Content-Length: 0||",
            Waits,
            Passed("HTTP/1.1 200 |Content-Length: 0|Connection: close||"),
        ),
        ("~X: caf\u{e9}|Content-Length: 0||", Waits, Passed("~X: caf\u{e9}|Content-Length: 0|Connection: close||")),
        // Behind the end of a response there is none that anybody has asked for.
        ("~Content-Length: 5||hello$", Waits, Passed(hello)),
        ("~Content-Length: 5||helloGARBAGE", Waits, Passed(hello)),
        ("~Content-Length: 0||$", Waits, Passed("~Content-Length: 0|Connection: close||")),
        ("~Transfer-Encoding: chunked||5|hello|0||$", Waits, Passed(chunked)),
        ("~Transfer-Encoding: chunked|Content-Length: 3||5|hello|0||", Waits, Passed(chunked)),
        (
            "~Transfer-Encoding: Chunked||5;x=y|hello|0|X: y||",
            Waits,
            Passed("~Transfer-Encoding: chunked|Connection: close||5|hello|0||"),
        ),
        ("HTTP/1.0 200 OK|Connection: keep-alive|Transfer-Encoding: chunked||5|hello|0||$", Waits, Passed(chunked)),
        ("~|hello", Closes, Passed(chunked)),
        (
            "HTTP/1.1 204 No Content|Content-Length: 5||hello",
            Waits,
            Passed("HTTP/1.1 204 No Content|Connection: close||"),
        ),
        (
            "HTTP/1.1 204 No Content|Transfer-Encoding: chunked||5|hello|0||",
            Waits,
            Passed("HTTP/1.1 204 No Content|Connection: close||"),
        ),
        ("HTTP/1.1 204 No Content||$", Waits, Passed("HTTP/1.1 204 No Content|Connection: close||")),
        (
            "HTTP/1.1 304 Not Modified|Content-Length: 5||$",
            Waits,
            Passed("HTTP/1.1 304 Not Modified|Content-Length: 5|Connection: close||"),
        ),
        (
            "HTTP/1.1 103 Early Hints|Link: </a>||~Content-Length: 5||hello",
            Waits,
            Passed("HTTP/1.1 103 Early Hints|Link: </a>||~Content-Length: 5|Connection: close||hello"),
        ),
        (
            "HTTP/1.1 103 X|Content-Length: 5|Transfer-Encoding: chunked||~Content-Length: 5||hello",
            Waits,
            Passed("HTTP/1.1 103 X||~Content-Length: 5|Connection: close||hello"),
        ),
        ("~Connection: Content-Length, Set-Cookie|Content-Length: 5||hello", Waits, Passed(hello)),
        (
            "~Keep-Alive: timeout=5|Proxy-Connection: x|Trailer: X|Upgrade: h2c|Content-Length: 5||hello",
            Waits,
            Passed(hello),
        ),
        // What breaks in the middle has no end for the client either; if nothing had left yet, nothing does.
        ("~Content-Length: 9||hello", Closes, Cut("~Content-Length: 9|Connection: close||hello")),
        (
            "~Transfer-Encoding: chunked||5|hello|",
            Closes,
            Cut("~Transfer-Encoding: chunked|Connection: close||5|hello|"),
        ),
        ("~Transfer-Encoding: chunked||5|hello|0x1|$", Waits, Cut("")),
        ("~Transfer-Encoding: chunked||-5|hello|0||", Waits, Cut("")),
        ("~Transfer-Encoding: chunked||;5|hello|0||", Waits, Cut("")),
        ("~Transfer-Encoding: chunked|||$", Waits, Cut("")),
        ("~Transfer-Encoding: chunked||5\nhello|0||", Waits, Cut("")),
        ("~Transfer-Encoding: chunked||fffffffffffffffff|hello", Waits, Cut("")),
    ];
    check_all(GET, &cases).await;
    let head = "HEAD /path HTTP/1.1\r\nHost: a\r\n\r\n";
    let passed = Passed("~Content-Length: 5|Connection: close||");
    check_all(head, &[("~Content-Length: 5||$", Waits, passed)]).await;
}

#[tokio::test]
async fn a_switch_to_what_was_not_asked_for_is_a_502() {
    let switching = "HTTP/1.1 101 Switching Protocols|Connection: Upgrade|";
    for (answer, status) in [
        (format!("{switching}Upgrade: h2c||$"), 502),
        (format!("{switching}Upgrade: foo, websocket||$"), 502),
        ("HTTP/1.0 200 OK|Upgrade: websocket|Content-Length: 0||$".to_owned(), 200),
        ("HTTP/1.1 200 OK|Upgrade: websocket|Content-Length: 0||$".to_owned(), 200),
        ("HTTP/1.1 403 No|Content-Length: 0||$".to_owned(), 403),
        ("HTTP/1.1 100 Continue||HTTP/1.1 403 No|Content-Length: 0||$".to_owned(), 403),
    ] {
        let server = answering(vec![(bytes_of(&answer), Waits)]).await;
        let proxy = Proxy::start().threads(1).upstream("chat", &[&server]).run().await;
        let mut client = proxy.send(websocket_request("/0", "") + "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let response = client.response().await;
        assert_eq!(response.status(), status, "{answer:?}");
        assert_eq!(client.rest().await, b"", "{answer:?}");
        assert!(!response.text().contains("SPLIT"), "{answer:?}");
        assert_eq!(proxy.exchange(GET.replace("/path", "/next")).await.text(), "next");
        proxy.settles_empty().await;
    }
}
