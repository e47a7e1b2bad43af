//! Every odd request there is, one table: what was sent, what the server received to the byte, and
//! what the client got.
//!
//! The rule: a request ends in a refusal and a closed connection, or in one request that every hop
//! reads alike. Nothing of it is ever taken for another one.

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::harness::upstream::ok;
use crate::harness::{Proxy, ServerEntry, Upstream, Wire, seconds, show, soon};

/// What is to come of a request.
enum Outcome {
    /// Its client is told so, nothing reaches a server, and the connection is closed.
    Refused(u16),
    /// The server gets this head and body, and the connection serves the next request.
    Kept(&'static str, &'static str),
    /// The server gets this head and body, and the connection is closed.
    Closed(&'static str, &'static str),
    /// It turns out to be broken when its head is with the server: that never sees its end, and the
    /// client is told with 400.
    Broken,
}

use Outcome::{Broken, Closed, Kept, Refused};

/// A request that nobody may ever see: it stands in the body of others, or behind them.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

const NEXT: &str = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

/// Requests are written without the line that most of them share: `|` stands for a line end, `~` for
/// `Host: a` and its line end, `$` for [`SMUGGLED`].
fn bytes_of(short: &str) -> Vec<u8> {
    let text = short.replace('~', "Host: a|").replace('|', "\r\n").replace('$', SMUGGLED);
    // `U+00E9` and its like stand for the single bytes of Latin-1, which are no UTF-8.
    text.chars().map(|letter| u8::try_from(u32::from(letter)).expect("Latin-1")).collect()
}

/// The same of what a server gets: behind the fields of the client stand those of the proxy.
fn received(head: &str, body: &str, server: &Upstream) -> Vec<u8> {
    let mut text = bytes_of(head);
    let fields = String::from_utf8_lossy(&text).into_owned();
    let host = fields
        .lines()
        .find_map(|line| line.get(..5).filter(|name| name.eq_ignore_ascii_case("host:")).map(|_| line[5..].trim()));
    text.extend_from_slice(b"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n");
    match host {
        Some(host) => text.extend_from_slice(format!("X-Forwarded-Host: {host}\r\n").as_bytes()),
        None => text.extend_from_slice(format!("Host: {}\r\n", server.address()).as_bytes()),
    }
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(&bytes_of(body));
    text
}

/// Whether `bytes` are a whole request.
fn is_whole(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    match length {
        Some(length) => body.len() >= length,
        None if head.contains("\r\ntransfer-encoding: chunked") => body.ends_with("0\r\n\r\n"),
        None => true,
    }
}

/// A server that takes one request on each connection, and tells all that came on it.
async fn recording() -> (Upstream, UnboundedReceiver<Vec<u8>>) {
    let (told, records) = unbounded_channel();
    let server = Upstream::serving(move |mut wire: Wire| {
        let told = told.clone();
        async move {
            let mut bytes = Vec::new();
            while !is_whole(&bytes) {
                let piece = wire.some().await;
                if piece.is_empty() {
                    let _ = told.send(bytes); // It broke off.
                    return;
                }
                bytes.extend(piece);
            }
            wire.send(ok("seen").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
            bytes.extend(wire.rest().await);
            let _ = told.send(bytes);
        }
    });
    (server.await, records)
}

struct Table {
    proxy: Proxy,
    server: Upstream,
    records: UnboundedReceiver<Vec<u8>>,
    wrong: Vec<String>,
}

impl Table {
    async fn new() -> Self {
        let (server, records) = recording().await;
        let setup = Proxy::start().access_log("{ format: off }").upstream("chat", &[&server]).trusting("[]");
        let setup = setup.timeouts("{ request_head: 2s, body: 1s }").line("limits: { headers: 50 }");
        Self { proxy: setup.run().await, server, records, wrong: Vec::new() }
    }

    async fn check(&mut self, short: &str, outcome: &Outcome) {
        let mut wrong = Vec::new();
        let before = self.server.accepted();
        let mut client = self.proxy.send(bytes_of(short)).await;
        match outcome {
            Refused(status) => {
                let answer = said(&mut client).await;
                if !is_refusal(&answer, *status) {
                    wrong.push(format!("the client should get a {status}, got {}", show(&answer)));
                }
                if self.server.accepted() != before {
                    wrong.push("a server was asked".to_owned());
                }
            }
            Broken => {
                let answer = said(&mut client).await;
                if !is_refusal(&answer, 400) {
                    wrong.push(format!("the client should get a 400, got {}", show(&answer)));
                }
                let record = self.record().await;
                let text = String::from_utf8_lossy(&record);
                if is_whole(&record) || text.contains("smuggled") {
                    wrong.push(format!("the server should get part of a request, got {}", show(&record)));
                }
            }
            Kept(head, body) | Closed(head, body) => {
                let is_kept = matches!(outcome, Kept(..));
                let record = tokio::select! {
                    record = self.records.recv() => record.unwrap_or_default(),
                    () = tokio::time::sleep(seconds(5)) => Vec::new(),
                };
                let expected = received(head, body, &self.server);
                if record != expected {
                    wrong.push(format!("the server should get {}, got {}", show(&expected), show(&record)));
                }
                if is_kept && record == expected {
                    let answer = client.response().await;
                    client.send(NEXT).await;
                    let next = client.response().await;
                    let record = self.record().await;
                    let expected = received("GET /next HTTP/1.1|~", "", &self.server);
                    if (answer.text(), next.text(), &record) != ("seen".to_owned(), "seen".to_owned(), &expected) {
                        wrong.push(format!("the next request should be the next one, but was {}", show(&record)));
                    }
                } else {
                    let answer = said(&mut client).await;
                    if !answer.starts_with(b"HTTP/1.1 200 ") || !answer.ends_with(b"\r\n\r\nseen") {
                        wrong.push(format!("the client should get one answer and the end, got {}", show(&answer)));
                    }
                }
            }
        }
        while let Ok(record) = self.records.try_recv() {
            wrong.push(format!("and the server got {}", show(&record)));
        }
        if !wrong.is_empty() {
            self.wrong.push(format!("{}\n    {}", short.escape_default(), wrong.join("\n    ")));
        }
    }

    async fn record(&mut self) -> Vec<u8> {
        soon("the server to tell what came", self.records.recv()).await.expect("the server is there")
    }

    /// All of them, and that nothing is left of them.
    async fn check_all(mut self, cases: &[(&str, Outcome)]) {
        for (short, outcome) in cases {
            self.check(short, outcome).await;
        }
        assert!(self.wrong.is_empty(), "{} of {}:\n{}", self.wrong.len(), cases.len(), self.wrong.join("\n"));
        self.proxy.settles_empty().await;
    }
}

/// All that a client hears before the end; more than that when there is none.
async fn said(client: &mut Wire) -> Vec<u8> {
    match tokio::time::timeout(seconds(10), client.rest()).await {
        Ok(answer) => answer,
        Err(_) => [client.recorded(), b" and no end"].concat(),
    }
}

/// One answer of this status, and the end of the connection.
fn is_refusal(answer: &[u8], status: u16) -> bool {
    let text = String::from_utf8_lossy(answer);
    let is_one = text.matches("HTTP/1.1 ").count() == 1;
    is_one
        && text.starts_with(&format!("HTTP/1.1 {status} "))
        && text.to_ascii_lowercase().contains("connection: close")
}

#[tokio::test]
async fn lengths_that_hops_could_read_differently_go_nowhere() {
    let post = "POST / HTTP/1.1|~Content-Length: 5|";
    let cases = [
        ("POST / HTTP/1.1|~Content-Length: 5||hello", Kept(post, "hello")),
        ("POST / HTTP/1.1|~Content-Length: 05||hello", Kept(post, "hello")),
        ("POST / HTTP/1.1|~Content-Length: 5, 5||hello", Kept(post, "hello")),
        ("POST / HTTP/1.1|~Content-Length: 5|Content-Length: 5||hello", Kept(post, "hello")),
        ("POST / HTTP/1.1|~Content-Length: \t5 \t||hello", Kept(post, "hello")),
        ("POST / HTTP/1.1|~content-LENGTH:5||hello", Kept(post, "hello")),
        ("POST / HTTP/1.1|~Content-Length: 0||", Kept("POST / HTTP/1.1|~Content-Length: 0|", "")),
        ("GET / HTTP/1.1|~Content-Length: 5||hello", Kept("GET / HTTP/1.1|~Content-Length: 5|", "hello")),
        ("HEAD / HTTP/1.0|~Content-Length: 5, 6||hello", Refused(400)),
        ("POST / HTTP/1.1|~Content-Length: +5||hello$", Refused(400)),
        ("POST / HTTP/1.1|~Content-Length: -5||hello$", Refused(400)),
        ("POST / HTTP/1.1|~Content-Length: -0||$", Refused(400)),
        ("POST / HTTP/1.1|~Content-Length: 0x5||hello$", Refused(400)),
        ("POST / HTTP/1.1|~Content-Length: 5.0||hello$", Refused(400)),
        ("POST / HTTP/1.1|~Content-Length: 5e0||hello$", Refused(400)),
        ("POST / HTTP/1.1|~Content-Length: 5 5||hello$", Refused(400)),
        ("POST / HTTP/1.1|~Content-Length: 5;6||hello$", Refused(400)),
        ("POST / HTTP/1.1|~Content-Length: \"5\"||hello$", Refused(400)),
        ("POST / HTTP/1.1|~Content-Length: 5,||hello$", Refused(400)),
        ("POST / HTTP/1.1|~Content-Length: ,5||hello$", Refused(400)),
        ("POST / HTTP/1.1|~Content-Length: 5, 6||hello$", Refused(400)),
        ("POST / HTTP/1.1|~Content-Length: 5|Content-Length: 6||hello$", Refused(400)),
        ("POST / HTTP/1.1|~Content-Length: 5|content-length: 0||hello$", Refused(400)),
        ("POST / HTTP/1.1|~Content-Length: 0|Content-Length: 5||$", Refused(400)),
        ("POST / HTTP/1.1|~Content-Length:||$", Refused(400)),
        ("POST / HTTP/1.1|~Content-Length:  ||$", Refused(400)),
        ("POST / HTTP/1.1|~Content-Length: none||$", Refused(400)),
        ("POST / HTTP/1.1|~Content-Length: \u{b2}||$", Refused(400)),
        ("POST / HTTP/1.1|~Content-Length: 18446744073709551616||hello", Refused(400)),
        ("POST / HTTP/1.1|~Content-Length: 99999999999999999999999999||hello", Refused(400)),
        ("POST / HTTP/1.1|~Content-Length : 5||hello$", Refused(400)),
        ("POST / HTTP/1.1|~Content-Length\t: 5||hello$", Refused(400)),
        ("POST / HTTP/1.1|~ Content-Length: 5||hello$", Refused(400)),
        ("POST / HTTP/1.1|~Content-Length: 5| 6||hello$", Refused(400)),
        ("POST / HTTP/1.1|~Content-\0Length: 5||hello$", Refused(400)),
        ("POST / HTTP/1.1|~Content-Length: 5\0||hello$", Refused(400)),
        ("POST / HTTP/1.1|~Content-Length: 5\u{b}||hello$", Refused(400)),
        ("POST / HTTP/1.1|~Content-Length: 5\r||hello$", Refused(400)),
        // A look-alike frames nothing, here or there.
        ("POST / HTTP/1.1|~Content_Length: 9||", Kept("POST / HTTP/1.1|~", "")),
        ("POST / HTTP/1.1|~Content-Length: 5|Content_Length: 9||hello", Kept(post, "hello")),
        ("POST / HTTP/1.1|~Connection: Content-Length|Content-Length: 5||hello", Kept(post, "hello")),
        ("POST / HTTP/1.1|~Connection: close, content-length|Content-Length: 5||hello", Closed(post, "hello")),
    ];
    Table::new().await.check_all(&cases).await;
}

#[tokio::test]
async fn codings_that_hops_could_read_differently_go_nowhere() {
    let head = "POST / HTTP/1.1|~Transfer-Encoding: chunked|";
    let cases = [
        ("POST / HTTP/1.1|~Transfer-Encoding: chunked||5|hello|0||", Kept(head, "5|hello|0||")),
        ("POST / HTTP/1.1|~transfer-encoding:CHUNKED||5|hello|0||", Kept(head, "5|hello|0||")),
        ("POST / HTTP/1.1|~Transfer-Encoding: \tchunked ||5|hello|0||", Kept(head, "5|hello|0||")),
        (
            "POST / HTTP/1.1|~Connection: Transfer-Encoding|Transfer-Encoding: chunked||5|hello|0||",
            Kept(head, "5|hello|0||"),
        ),
        ("POST / HTTP/1.1|~Transfer_Encoding: chunked||", Kept("POST / HTTP/1.1|~", "")),
        // Chunks win, and the connection is not trusted any further (RFC 9112, section 6.1).
        ("POST / HTTP/1.1|~Content-Length: 4|Transfer-Encoding: chunked||5|hello|0||$", Closed(head, "5|hello|0||")),
        ("POST / HTTP/1.1|~Transfer-Encoding: chunked|Content-Length: 0||5|hello|0||$", Closed(head, "5|hello|0||")),
        ("POST / HTTP/1.1|~Transfer-Encoding: chunked|Content-Length: x||0||$", Closed(head, "0||")),
        ("POST / HTTP/1.1|~Transfer-Encoding: identity|Content-Length: 5||hello$", Refused(400)),
        ("POST / HTTP/1.1|~Transfer-Encoding: x|Content-Length: 5||hello$", Refused(400)),
        ("POST / HTTP/1.1|~Transfer-Encoding:|Content-Length: 5||hello$", Refused(400)),
        ("POST / HTTP/1.1|~Transfer-Encoding||0||$", Refused(400)),
        ("POST / HTTP/1.1|~Transfer-Encoding: gzip||hello$", Refused(400)),
        ("POST / HTTP/1.1|~Transfer-Encoding: gzip, chunked||0||$", Refused(400)),
        ("POST / HTTP/1.1|~Transfer-Encoding: identity, chunked||0||$", Refused(400)),
        ("POST / HTTP/1.1|~Transfer-Encoding: chunked, identity||0||$", Refused(400)),
        ("POST / HTTP/1.1|~Transfer-Encoding: chunked, chunked||0||$", Refused(400)),
        ("POST / HTTP/1.1|~Transfer-Encoding: chunked|Transfer-Encoding: chunked||0||$", Refused(400)),
        ("POST / HTTP/1.1|~Transfer-Encoding: identity|Transfer-Encoding: chunked||0||$", Refused(400)),
        ("POST / HTTP/1.1|~Transfer-Encoding: chunked|Transfer-Encoding: identity||0||$", Refused(400)),
        ("POST / HTTP/1.1|~Transfer-Encoding: chunked;q=1||0||$", Refused(400)),
        ("POST / HTTP/1.1|~Transfer-Encoding: \"chunked\"||0||$", Refused(400)),
        ("POST / HTTP/1.1|~Transfer-Encoding: 'chunked'||0||$", Refused(400)),
        ("POST / HTTP/1.1|~Transfer-Encoding: ,chunked||0||$", Refused(400)),
        ("POST / HTTP/1.1|~Transfer-Encoding: chunked,||0||$", Refused(400)),
        ("POST / HTTP/1.1|~Transfer-Encoding: xchunked||0||$", Refused(400)),
        ("POST / HTTP/1.1|~Transfer-Encoding: chunked x||0||$", Refused(400)),
        ("POST / HTTP/1.1|~Transfer-Encoding: chu nked||0||$", Refused(400)),
        ("POST / HTTP/1.1|~Transfer-Encoding: \u{a0}chunked||0||$", Refused(400)),
        ("POST / HTTP/1.1|~Transfer-Encoding: \u{b}chunked||0||$", Refused(400)),
        ("POST / HTTP/1.1|~Transfer-Encoding: chunked\0||0||$", Refused(400)),
        ("POST / HTTP/1.1|~Transfer-Encoding: chunked\r||0||$", Refused(400)),
        ("POST / HTTP/1.1|~Transfer-Encoding : chunked||0||$", Refused(400)),
        ("POST / HTTP/1.1|~Transfer-Encoding:| chunked||0||$", Refused(400)),
        ("POST / HTTP/1.1|~X: y\rTransfer-Encoding: chunked||0||$", Refused(400)),
        ("POST / HTTP/1.0|~Transfer-Encoding: chunked||0||$", Refused(400)),
        ("POST / HTTP/1.0|~Content-Length: 5|Transfer-Encoding: chunked||0||$", Refused(400)),
        ("GET / HTTP/1.1|~Transfer-Encoding: chunked||0||", Kept("GET / HTTP/1.1|~Transfer-Encoding: chunked|", "0||")),
    ];
    Table::new().await.check_all(&cases).await;
}

#[tokio::test]
async fn chunks_that_hops_could_read_differently_never_end() {
    let head = "POST / HTTP/1.1|~Transfer-Encoding: chunked|";
    let cases = [
        ("||5|hello|0||", Kept(head, "5|hello|0||")),
        ("||05|hello|00||", Kept(head, "5|hello|0||")),
        ("||a|0123456789|0||", Kept(head, "A|0123456789|0||")),
        // What stands beside the data ends here.
        ("||5;x=y|hello|0||", Kept(head, "5|hello|0||")),
        ("||5;x=\"y\"|hello|0;last||", Kept(head, "5|hello|0||")),
        ("||0|X-Trailer: y||", Kept(head, "0||")),
        ("||5|hello|0|Content-Length: 9|Host: b||", Kept(head, "5|hello|0||")),
        ("||0x5|hello|0||$", Broken),
        ("||+5|hello|0||$", Broken),
        ("||-5|hello|0||$", Broken),
        ("||-0||$", Broken),
        ("||5 5|hello|0||$", Broken),
        ("||5_|hello|0||$", Broken),
        ("|| 5|hello|0||$", Broken),
        ("||;5|hello|0||$", Broken),
        ("||g|hello|0||$", Broken),
        ("|||$", Broken),
        ("||\0|hello|0||$", Broken),
        ("||fffffffffffffffff|hello|0||$", Broken),
        ("||ffffffffffffffff|hello|0||$", Broken),
        ("||10000000000000005|hello|0||$", Broken),
        ("||5\rhello|0||$", Broken),
        ("||5\nhello|0||$", Broken),
        ("||5;x\nhello|0||$", Broken),
        ("||5;x\ry|hello|0||$", Broken),
        ("||5|helloX|0||$", Broken),
        ("||5|hello0||$", Broken),
        ("||5|hello\n0||$", Broken),
        ("||5|hello\r0||$", Broken),
        ("||4|hello|0||$", Broken),
        ("||6|hello|0||$", Broken),
    ];
    let cases = cases.map(|(body, outcome)| (format!("POST / HTTP/1.1|~Transfer-Encoding: chunked{body}"), outcome));
    let mut table = Table::new().await;
    for (short, outcome) in &cases {
        table.check(short, outcome).await;
    }
    table.check_all(&[]).await;
}

#[tokio::test]
async fn fields_that_hops_could_read_differently_go_nowhere() {
    let cases = [
        ("GET / HTTP/1.1|~X: y||", Kept("GET / HTTP/1.1|~X: y|", "")),
        ("GET / HTTP/1.1|~X:y||", Kept("GET / HTTP/1.1|~X: y|", "")),
        ("GET / HTTP/1.1|~X: \t y \t||", Kept("GET / HTTP/1.1|~X: y|", "")),
        ("GET / HTTP/1.1|~X:||", Kept("GET / HTTP/1.1|~X: |", "")),
        ("GET / HTTP/1.1|~X: caf\u{e9}||", Kept("GET / HTTP/1.1|~X: caf\u{e9}|", "")),
        ("GET / HTTP/1.1|~X: a: b||", Kept("GET / HTTP/1.1|~X: a: b|", "")),
        ("GET / HTTP/1.1|~X!#$%&'*+.^_`: y||".replace('$', "").leak(), Kept("GET / HTTP/1.1|~X!#%&'*+.^_`: y|", "")),
        ("GET / HTTP/1.1\nHost: a\nX: y\n\n", Kept("GET / HTTP/1.1|~X: y|", "")),
        ("|\n|GET / HTTP/1.1|~||", Kept("GET / HTTP/1.1|~", "")),
        ("GET / HTTP/1.1|~X : y||", Refused(400)),
        ("GET / HTTP/1.1|~X\t: y||", Refused(400)),
        ("GET / HTTP/1.1|~X y: z||", Refused(400)),
        ("GET / HTTP/1.1|~: y||", Refused(400)),
        ("GET / HTTP/1.1|~X||", Refused(400)),
        ("GET / HTTP/1.1|~X: y| z||", Refused(400)),
        ("GET / HTTP/1.1|~X: y|\tz||", Refused(400)),
        ("GET / HTTP/1.1| Host: a||", Refused(400)),
        ("GET / HTTP/1.1|~X\0: y||", Refused(400)),
        ("GET / HTTP/1.1|~X: y\0z||", Refused(400)),
        ("GET / HTTP/1.1|~X: y\rz||", Refused(400)),
        ("GET / HTTP/1.1|~X: y\rInjected: z||", Refused(400)),
        ("GET / HTTP/1.1|~X: y\r\r\n|", Refused(400)),
        ("GET / HTTP/1.1|~X: y\u{7f}||", Refused(400)),
        ("GET / HTTP/1.1|~X: y\u{1b}||", Refused(400)),
        ("GET / HTTP/1.1|~X\u{e9}: y||", Refused(400)),
        ("GET / HTTP/1.1|~\"X\": y||", Refused(400)),
        ("GET / HTTP/1.1|~X(y): z||", Refused(400)),
        // Our fields cannot be named away, or said beside us.
        ("GET / HTTP/1.1|~Connection: X-Forwarded-For, X-Forwarded-Proto, Host||", Kept("GET / HTTP/1.1|~", "")),
        ("GET / HTTP/1.1|~Connection: cookie|Cookie: a=b||", Kept("GET / HTTP/1.1|~Cookie: a=b|", "")),
        ("GET / HTTP/1.1|~Connection: X, close|X: y||", Closed("GET / HTTP/1.1|~", "")),
        ("GET / HTTP/1.1|~Connection: keep-alive|Connection: X|X: y||", Kept("GET / HTTP/1.1|~", "")),
        ("GET / HTTP/1.1|~Connection: ,,X;q=1, \u{e9},|X: y||", Kept("GET / HTTP/1.1|~X: y|", "")),
        ("GET / HTTP/1.1|~X-Forwarded-For: 6.6.6.6|X-Forwarded-For: 7.7.7.7||", Kept("GET / HTTP/1.1|~", "")),
        ("GET / HTTP/1.1|~X_Forwarded_For: 6.6.6.6|X-Forwarded_Host: b||", Kept("GET / HTTP/1.1|~", "")),
        ("GET / HTTP/1.1|~Forwarded: for=6.6.6.6|X-Forwarded-Proto: https||", Kept("GET / HTTP/1.1|~", "")),
        ("GET / HTTP/1.1|~TE: trailers|Trailer: X|Keep-Alive: 9|Proxy-Connection: x||", Kept("GET / HTTP/1.1|~", "")),
        (
            "GET / HTTP/1.1|~Upgrade: h2c|HTTP2-Settings: x|Connection: Upgrade, HTTP2-Settings||",
            Kept("GET / HTTP/1.1|~", ""),
        ),
        ("GET / HTTP/1.1|~Upgrade: h2c||", Kept("GET / HTTP/1.1|~", "")),
        (
            "POST / HTTP/1.1|~Upgrade: x|Connection: Upgrade|Content-Length: 5||hello",
            Kept("POST / HTTP/1.1|~Content-Length: 5|", "hello"),
        ),
        (
            "POST / HTTP/1.1|~Upgrade: x|Connection: Upgrade|Transfer-Encoding: chunked||0||",
            Kept("POST / HTTP/1.1|~Transfer-Encoding: chunked|", "0||"),
        ),
        // A refused upgrade: what is behind it is of another protocol, or nothing.
        (
            "GET / HTTP/1.1|~Upgrade: x|Connection: Upgrade||$",
            Closed("GET / HTTP/1.1|~Connection: Upgrade|Upgrade: x|", ""),
        ),
        ("GET / HTTP/1.1|~Expect: 100-continue||", Kept("GET / HTTP/1.1|~Expect: 100-continue|", "")),
        (
            "POST / HTTP/1.1|~Expect: 100-Continue|Content-Length: 5||hello",
            Kept("POST / HTTP/1.1|~Expect: 100-Continue|Content-Length: 5|", "hello"),
        ),
        ("GET / HTTP/1.1|~Expect: 200-maybe||", Kept("GET / HTTP/1.1|~Expect: 200-maybe|", "")),
        ("GET / HTTP/1.1|~Expect:||", Kept("GET / HTTP/1.1|~Expect: |", "")),
        ("GET / HTTP/1.0|~Expect: 100-continue||", Closed("GET / HTTP/1.1|~Expect: 100-continue|", "")),
    ];
    let mut table = Table::new().await;
    let many = |count: usize| format!("GET / HTTP/1.1|~{}|", "X: y|".repeat(count));
    table.check(&many(50), &Refused(431)).await;
    table.check(&many(300), &Refused(400)).await;
    table.check(&format!("GET / HTTP/1.1|~X: {}||", "y".repeat(32 << 10)), &Refused(431)).await;
    table.check(&format!("GET / HTTP/1.1|~{}: y||", "X".repeat(32 << 10)), &Refused(431)).await;
    table.check_all(&cases).await;
}

#[tokio::test]
async fn targets_and_hosts_that_hops_could_read_differently_go_nowhere() {
    let cases = [
        ("GET /a?b=c HTTP/1.1|~|", Kept("GET /a?b=c HTTP/1.1|~", "")),
        ("GET //a/../b HTTP/1.1|~|", Kept("GET //a/../b HTTP/1.1|~", "")),
        ("GET /%0d%0aX:%20y HTTP/1.1|~|", Kept("GET /%0d%0aX:%20y HTTP/1.1|~", "")),
        ("GET /?a=http://b/ HTTP/1.1|~|", Kept("GET /?a=http://b/ HTTP/1.1|~", "")),
        ("GET http://a/b?c HTTP/1.1|~|", Kept("GET /b?c HTTP/1.1|~", "")),
        ("GET http://a HTTP/1.1|~|", Kept("GET / HTTP/1.1|~", "")),
        ("GET http://a?b HTTP/1.1|~|", Kept("GET /?b HTTP/1.1|~", "")),
        ("OPTIONS * HTTP/1.1|~|", Refused(404)),
        ("BREW /pot HTTP/1.1|~|", Kept("BREW /pot HTTP/1.1|~", "")),
        ("get / HTTP/1.1|~|", Kept("get / HTTP/1.1|~", "")),
        ("M-SEARCH / HTTP/1.1|~|", Kept("M-SEARCH / HTTP/1.1|~", "")),
        ("GET / HTTP/1.0|~|$", Closed("GET / HTTP/1.1|~", "")),
        ("GET / HTTP/1.0|~Connection: keep-alive||", Kept("GET / HTTP/1.1|~", "")),
        ("GET / HTTP/1.0||", Closed("GET / HTTP/1.1|", "")),
        ("GET / HTTP/1.1|Host: A.example.com:8080||", Kept("GET / HTTP/1.1|Host: A.example.com:8080|", "")),
        ("GET / HTTP/1.1|Host: [::1]:80||", Kept("GET / HTTP/1.1|Host: [::1]:80|", "")),
        ("GET / HTTP/1.1||", Refused(400)),
        ("GET http://a/ HTTP/1.1||", Refused(400)),
        ("GET http://a/ HTTP/1.0||", Refused(400)),
        ("GET / HTTP/1.1|Host:||", Refused(400)),
        ("GET / HTTP/1.0|Host:||", Refused(400)),
        ("GET / HTTP/1.1|~Host: b||", Refused(400)),
        ("GET / HTTP/1.1|~host: a||", Refused(400)),
        ("GET / HTTP/1.1|Host: a, b||", Refused(400)),
        ("GET / HTTP/1.1|Host: a b||", Refused(400)),
        ("GET / HTTP/1.1|Host: user@a||", Refused(400)),
        ("GET / HTTP/1.1|Host: a/b||", Refused(400)),
        ("GET / HTTP/1.1|Host: a?b||", Refused(400)),
        ("GET / HTTP/1.1|Host: a#b||", Refused(400)),
        ("GET / HTTP/1.1|Host: a\\b||", Refused(400)),
        ("GET / HTTP/1.1|Host: http://a||", Refused(400)),
        ("GET / HTTP/1.1|Host: a:80:81||", Refused(400)),
        ("GET / HTTP/1.1|Host: a:port||", Refused(400)),
        ("GET / HTTP/1.1|Host: [::1||", Refused(400)),
        ("GET / HTTP/1.1|Host: \u{e9}||", Refused(400)),
        ("GET / HTTP/1.1|Host: a\0||", Refused(400)),
        ("GET / HTTP/1.1|Host: a<script>||", Refused(400)),
        ("GET http://b/ HTTP/1.1|~|", Refused(400)),
        ("GET http://a@b/ HTTP/1.1|Host: b||", Refused(400)),
        ("GET http:///b HTTP/1.1|~|", Refused(400)),
        ("GET http:/a HTTP/1.1|~|", Refused(400)),
        ("GET http:\\\\a HTTP/1.1|~|", Refused(400)),
        ("GET ftp://a/b HTTP/1.1|~|", Refused(400)),
        ("GET file:///etc/passwd HTTP/1.1|~|", Refused(400)),
        ("GET a HTTP/1.1|~|", Refused(400)),
        ("GET a:80 HTTP/1.1|~|", Refused(400)),
        ("GET ?a HTTP/1.1|~|", Refused(400)),
        ("GET * HTTP/1.1|~|", Refused(400)),
        ("CONNECT a:80 HTTP/1.1|~|", Refused(405)),
        ("CONNECT a:443 HTTP/1.1|Host: a:443||", Refused(405)),
        ("CONNECT / HTTP/1.1|~|", Refused(405)),
        ("GET /a#b HTTP/1.1|~|", Refused(400)),
        ("GET /a b HTTP/1.1|~|", Refused(400)),
        ("GET  /a HTTP/1.1|~|", Refused(400)),
        ("GET /a  HTTP/1.1|~|", Refused(400)),
        ("GET /a HTTP/1.1 |~|", Refused(400)),
        (" GET /a HTTP/1.1|~|", Refused(400)),
        ("GET /a HTTP/1.1 HTTP/1.1|~|", Refused(400)),
        ("GET\t/a\tHTTP/1.1|~|", Refused(400)),
        ("GET /a\0 HTTP/1.1|~|", Refused(400)),
        ("GET /a\rX:y HTTP/1.1|~|", Refused(400)),
        ("GET / HTTP/1.1\rHost: a||", Refused(400)),
        ("GET /a\u{7f} HTTP/1.1|~|", Refused(400)),
        ("G@T / HTTP/1.1|~|", Refused(400)),
        ("G\u{e9}T / HTTP/1.1|~|", Refused(400)),
        ("GET: / HTTP/1.1|~|", Refused(400)),
        ("GET /|", Refused(400)),
        ("GET / ||", Refused(400)),
        ("GET /||$", Refused(400)),
        ("GET / HTTP/0.9|~|", Refused(400)),
        ("GET / HTTP/1.2|~|", Refused(400)),
        ("GET / HTTP/1.10|~|", Refused(400)),
        ("GET / HTTP/2.0|~|", Refused(400)),
        ("GET / HTTP/1|~|", Refused(400)),
        ("GET / HTTP/01.1|~|", Refused(400)),
        ("GET / http/1.1|~|", Refused(400)),
        ("GET / HTTPS/1.1|~|", Refused(400)),
        ("GET / ICY/1.1|~|", Refused(400)),
        ("PRI * HTTP/2.0||SM||\0\0\0\u{4}\0\0\0\0\0", Refused(400)),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}||", Refused(400)),
        ("PROXY TCP4 6.6.6.6 127.0.0.1 1 2|GET / HTTP/1.1|~|", Refused(400)),
        ("\0||", Refused(400)),
        ("HTTP/1.1 200 OK|Content-Length: 0||", Refused(400)),
    ];
    let mut table = Table::new().await;
    table.check(&format!("GET /{} HTTP/1.1|~|", "a".repeat(8 << 10)), &Refused(414)).await;
    table.check(&format!("GET /{} HTTP/1.1|~|", "a".repeat(40 << 10)), &Refused(431)).await;
    table.check_all(&cases).await;
}

#[tokio::test]
async fn what_stands_behind_a_request_is_the_next_one_or_none() {
    let (get, next) = ("GET / HTTP/1.1|~|", "GET /next HTTP/1.1|~|");
    for (behind, second, expected) in [
        (next.to_owned(), "HTTP/1.1 200 ", Some("GET /next HTTP/1.1|~")),
        (format!("||{next}"), "HTTP/1.1 200 ", Some("GET /next HTTP/1.1|~")),
        ("GARBAGE||".to_owned(), "HTTP/1.1 400 ", None),
        (format!("hello{next}"), "HTTP/1.1 200 ", Some("helloGET /next HTTP/1.1|~")),
        (format!(" {next}"), "HTTP/1.1 400 ", None),
        (format!("5|hello|0||{next}"), "HTTP/1.1 400 ", None),
    ] {
        let mut table = Table::new().await;
        let mut client = table.proxy.send(bytes_of(&format!("{get}{behind}"))).await;
        assert_eq!(client.response().await.text(), "seen");
        assert_eq!(table.record().await, received("GET / HTTP/1.1|~", "", &table.server), "{behind:?}");
        let begin = client.exactly(second.len()).await;
        assert_eq!(String::from_utf8_lossy(&begin), second, "{behind:?}");
        match expected {
            Some(expected) => assert_eq!(table.record().await, received(expected, "", &table.server), "{behind:?}"),
            None => {
                client.rest().await;
                assert_eq!(table.server.accepted(), 1, "{behind:?}");
            }
        }
    }
}
