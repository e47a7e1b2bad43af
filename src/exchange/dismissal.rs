//! How a session by polling leaves a server that is drained: both sides get the packet that ends it.
//! The server gets it first, as if its client had posted it, so that it can put the session's state
//! where others find it; then the client gets it as the answer to its poll, and begins a new session,
//! which another server gets. What the client posts before still goes to the server that knows it.

use std::time::{Duration, Instant};

use http::Method;
use http::request::Parts;
use pingora::protocols::http::date::get_cached_date;
use pingora::protocols::http::v1::server::HttpSession as ServerSession;
use tokio::time::timeout;
use twox_hash::XxHash64;

use super::Next;
use super::ends::tell;
use crate::affinity::engine_io::{self, Farewell, Session};
use crate::affinity::learned::SessionId;
use crate::observe::Record;
use crate::proxy_protocol::{self, Ends};
use crate::relay::EndReason;
use crate::upstream::Upstream;
use crate::upstream::connect::connect;

/// What becomes of a session whose server is drained.
pub(super) enum Departure {
    /// It stays.
    Stays,
    /// Its requests go to another server from now on.
    Moves,
    /// Its client is told so.
    Told(Farewell),
}

/// Whether the moment of a session has come that `server` holds.
pub(super) fn departure(
    upstream: &Upstream,
    server: usize,
    head: &Parts,
    session: &Session,
    learned: Option<&SessionId>,
) -> Departure {
    let server = &upstream.servers[server];
    if !server.is_leaving() {
        return Departure::Stays;
    }
    let hash = |name: &[u8]| XxHash64::oneshot(0, name);
    let query = head.uri.query().unwrap_or_default();
    let is_engine_io = matches!(session, Session::Tagged { .. } | Session::Issued(_));
    let name = match learned {
        _ if is_engine_io => engine_io::sid(query).map(|sid| hash(sid.as_bytes())),
        Some(id) => Some(hash(id.bytes())),
        None => head.headers.get(http::header::COOKIE).map(|cookies| hash(cookies.as_bytes())),
    };
    if !server.is_left(name.unwrap_or_default(), Instant::now()) {
        return Departure::Stays;
    }
    if !is_engine_io {
        return Departure::Moves;
    }
    // What is posted is for the server that knows the session, and so is an upgrade.
    let farewell = Some(query).filter(|_| head.method == Method::GET).and_then(engine_io::farewell);
    farewell.map_or(Departure::Stays, Departure::Told)
}

/// Tells `server` that the session ends for which `poll` is the head of a request to it, and waits a
/// while until it has heard that. It is told of `client` as with any other request.
pub(super) async fn tell_server(
    upstream: &Upstream,
    server: usize,
    client: Option<(Ends, proxy_protocol::Version)>,
    poll: Vec<u8>,
    farewell: &Farewell,
) {
    const WITHIN: Duration = Duration::from_secs(2);
    let Some(post) = post_of(&poll, farewell) else { return };
    let told = async {
        let server = &upstream.servers[server];
        let socket = Box::pin(connect(server, upstream.tls.as_ref(), upstream.timeouts.connect, client)).await?;
        socket.wire().collect_all(post);
        socket.wire().flush().await?;
        socket.wire().read_ahead().await
    };
    // It finds out by itself, if it is as slow as that: its client does not poll any more.
    let _ = timeout(WITHIN, told).await;
}

/// The request that posts `farewell` to where `poll` polls.
fn post_of(poll: &[u8], Farewell { posted, posted_type, .. }: &Farewell) -> Option<Vec<u8>> {
    let head = poll.strip_prefix(b"GET ")?.strip_suffix(b"\r\n")?;
    let length = posted.len();
    let rest = format!("Content-Type: {posted_type}\r\nContent-Length: {length}\r\n\r\n{posted}");
    Some([b"POST ", head, rest.as_bytes()].concat())
}

/// Answers a poll with `farewell`.
pub(super) async fn dismiss(down: Box<ServerSession>, farewell: &Farewell, mut record: Record) -> Next {
    record.answered(200);
    record.end(EndReason::Drained);
    let Farewell { body, content_type, .. } = farewell;
    let date = get_cached_date();
    let date = date.to_str().unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Type: {content_type}\r\nCache-Control: no-store\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    tell(down, answer.as_bytes()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_farewell_is_posted_where_the_client_polls() {
        let poll = b"GET /socket.io/?EIO=3&transport=polling&sid=a HTTP/1.1\r\nHost: a\r\nCookie: b=c\r\n\r\n";
        let farewell = engine_io::farewell("EIO=3&transport=polling&sid=a").expect("a poll");
        let post = post_of(poll, &farewell).map(|post| String::from_utf8_lossy(&post).into_owned());
        let expected = "POST /socket.io/?EIO=3&transport=polling&sid=a HTTP/1.1\r\nHost: a\r\nCookie: b=c\r\n\
                        Content-Type: text/plain;charset=UTF-8\r\nContent-Length: 3\r\n\r\n1:1";
        assert_eq!(post.as_deref(), Some(expected));
        assert_eq!(post_of(b"POST / HTTP/1.1\r\n\r\n", &farewell), None);
    }
}
