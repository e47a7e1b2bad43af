//! The demo's application servers: one page that stays connected in three ways.
//!
//! Each server serves the same page and says its own name on every connection, so that a visitor
//! sees where Steadfast put each of them, and that they stay there. Nothing here knows Steadfast:
//! any application on Socket.IO, server-sent events and WebSocket would do in its place, and the
//! page needs no internet.
//!
//! | path | what lives there |
//! |---|---|
//! | `/` | the page |
//! | `/socket.io/` | Socket.IO 4: polling first, then WebSocket |
//! | `/events` | server-sent events, with long silences |
//! | `/echo` | WebSocket |
//! | `/whoami` | the server's name and the forwarded headers it received |
//! | `/healthz` | `ok` |

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::sse::{Event, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt as _;
use futures_util::stream::{self, Stream};
use serde_json::{Value, json};
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, Data, SocketRef};
use socketioxide::layer::SocketIoLayer;

/// Runs the demo server called `name` on a socket that is bound.
///
/// Accepts until the future is dropped, whatever clients do; connections then still open live as
/// long as the runtime.
///
/// # Errors
/// When the runtime cannot take the socket.
pub async fn serve(listener: std::net::TcpListener, name: &'static str) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?.tap_io(|stream| {
        // A socket that is already gone shows itself at its first read.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, application(name)).await
}

fn application(name: &'static str) -> Router {
    // Outside /socket.io*, which the Socket.IO layer takes for itself.
    Router::new()
        .route("/", get(|| async { Html(include_str!("page.html")) }))
        .route("/client.js", get(socket_io_client))
        .route("/whoami", get(whoami))
        .route("/events", get(events))
        .route("/echo", get(echo))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(name)
        .layer(socket_io(name))
}

/// The Socket.IO client for browsers, kept here because the demo works offline.
async fn socket_io_client() -> impl IntoResponse {
    let script = include_str!("socket.io.min.js");
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], script)
}

/// Says who answered, and what it was told about the client's way here.
async fn whoami(State(name): State<&'static str>, headers: HeaderMap) -> String {
    let mut text = format!("server {name}\n");
    for (header, value) in headers.iter().filter(|(name, _)| is_about_the_way(name)) {
        let value = String::from_utf8_lossy(value.as_bytes());
        writeln!(text, "{header}: {value}").expect("writing to a string cannot fail");
    }
    text
}

fn is_about_the_way(header: &HeaderName) -> bool {
    let header = header.as_str();
    header.starts_with("x-forwarded-") || ["forwarded", "via", "x-real-ip", "x-request-id"].contains(&header)
}

/// A hello, then an event now and then.
///
/// The server sends no keepalives of its own, so those seen in the silences are the proxy's.
async fn events(State(name): State<&'static str>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    Sse::new(stream::unfold(0_u64, move |sent| async move {
        let event = if sent == 0 {
            Event::default().event("hello").data(json!({ "server": name }).to_string())
        } else {
            tokio::time::sleep(EVENT_INTERVAL).await;
            Event::default().event("tick").data(json!({ "server": name, "tick": sent }).to_string())
        };
        Some((Ok(event), sent + 1))
    }))
}

async fn echo(State(name): State<&'static str>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.max_message_size(ECHO_BYTES_MAX).on_upgrade(move |socket| greet_and_echo(socket, name))
}

/// Talks to one WebSocket until either side fails or closes.
async fn greet_and_echo(mut socket: WebSocket, name: &'static str) {
    let mut answer = Some(Message::text(format!("server {name}")));
    loop {
        if let Some(message) = answer.take()
            && socket.send(message).await.is_err()
        {
            return;
        }
        answer = match socket.recv().await {
            Some(Ok(Message::Text(text))) => Some(Message::text(format!("{name}: {text}"))),
            Some(Ok(Message::Binary(bytes))) => Some(Message::Binary(bytes)),
            // The library answers pings and closes by itself.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_))) => None,
            Some(Err(_)) | None => return,
        };
    }
}

/// Socket.IO on the namespace `/`: a `welcome` at the start, then every `message` comes back.
fn socket_io(name: &'static str) -> SocketIoLayer {
    let (layer, io) = SocketIo::new_layer();
    io.ns("/", async move |socket: SocketRef| {
        // A client that vanished is noticed by the library; there is nobody left to tell.
        let _ = socket.emit("welcome", &json!({ "server": name }));
        socket.on("message", async move |socket: SocketRef, Data::<Value>(data), ack: AckSender| {
            let answer = json!({ "server": name, "echo": data });
            let _ = socket.emit("message", &answer);
            let _ = ack.send(&answer);
        });
    });
    layer
}

/// Longer than the proxy's default keepalive, so that one can be seen between two events.
const EVENT_INTERVAL: Duration = Duration::from_secs(20);
/// One message of one visitor; the library would take 64 MiB.
const ECHO_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    /// Starts a server called "red", sends it `request` and reads until `expected` has come.
    async fn talk(request: impl AsRef<[u8]>, expected: impl AsRef<[u8]>) -> TcpStream {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, "red"));
        let mut stream = TcpStream::connect(address).await.unwrap();
        say(&mut stream, request, expected).await;
        stream
    }

    async fn say(stream: &mut TcpStream, request: impl AsRef<[u8]>, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        stream.write_all(request.as_ref()).await.unwrap();
        let mut answer = Vec::new();
        let arrived = async {
            while !answer.windows(expected.len()).any(|window| window == expected) {
                if stream.read_buf(&mut answer).await.unwrap() == 0 {
                    return false;
                }
            }
            true
        };
        let arrived = tokio::time::timeout(PATIENCE, arrived).await;
        assert!(
            matches!(arrived, Ok(true)),
            "{:?} is not in {:?}",
            String::from_utf8_lossy(expected),
            String::from_utf8_lossy(&answer)
        );
    }

    fn get(path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: demo\r\n\r\n")
    }

    #[tokio::test]
    async fn whoami_names_the_server_and_the_forwarded_headers() {
        let request = b"GET /whoami?client=7 HTTP/1.1\r\nHost: demo\r\nCookie: secret\r\n\
                        X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: \xffhttps\r\n\r\n";
        let expected = "\r\n\r\nserver red\nx-forwarded-for: 203.0.113.9\nx-forwarded-proto: \u{fffd}https\n";
        talk(request, expected).await;
    }

    #[tokio::test]
    async fn the_page_and_all_it_loads_come_from_here() {
        let mut stream = talk(get("/"), "</html>").await;
        say(&mut stream, get("/client.js"), "Released under the MIT License").await;
        for outside in ["http:", "https:", "src=\"//"] {
            assert!(!include_str!("page.html").contains(outside), "the page loads something by {outside}");
        }
    }

    #[tokio::test]
    async fn socket_io_starts_with_polling() {
        let handshake = "/socket.io/?EIO=4&transport=polling&client=7";
        let mut stream = talk(get(handshake), "\r\n\r\n0{\"sid\":\"").await;
        // A session nobody knows is refused, and the connection lives on.
        let unknown = format!("{handshake}&sid=AAAAAAAAAAAAAAAA");
        say(&mut stream, get(&unknown), "HTTP/1.1 400").await;
    }

    #[tokio::test]
    async fn an_event_stream_begins_with_hello() {
        talk(get("/events"), "event: hello\ndata: {\"server\":\"red\"}\n\n").await;
    }

    #[tokio::test]
    async fn the_echo_greets_and_echoes() {
        let handshake = "GET /echo HTTP/1.1\r\nHost: demo\r\n\
                         Connection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let mut stream = talk(handshake, b"\r\n\r\n\x81\x0aserver red").await;
        // Masked with zeros.
        say(&mut stream, b"\x81\x82\0\0\0\0hi", b"\x81\x07red: hi").await;
        // A frame with a reserved bit set is no WebSocket: the server lets go.
        stream.write_all(b"\xf1\x80\0\0\0\0").await.unwrap();
        let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
        assert!(end.is_ok(), "the connection outlived a broken frame");
    }
}
