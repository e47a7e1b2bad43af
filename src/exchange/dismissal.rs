//! How a session by polling leaves a server that is drained: its next poll is answered with the
//! packet that ends it, by us, so that its client begins a new one, which another server gets. What
//! the client posts still goes to the server that knows the session.

use std::time::{Duration, Instant};

use http::Method;
use pingora::http::RequestHeader;
use pingora::protocols::http::date::get_cached_date;
use pingora::protocols::http::v1::server::HttpSession as ServerSession;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use twox_hash::XxHash64;

use super::Next;
use crate::affinity::engine_io::{self, Farewell, Session};
use crate::affinity::learned::SessionId;
use crate::observe::Record;
use crate::relay::EndReason;
use crate::socket::Socket;
use crate::upstream::Upstream;

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
    head: &RequestHeader,
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

/// Answers a poll with `farewell`.
pub(super) async fn dismiss(down: Box<ServerSession>, farewell: &Farewell, mut record: Record) -> Next {
    const WITHIN: Duration = Duration::from_secs(5);
    record.answered(200);
    record.end(EndReason::Drained);
    let Some(mut socket) = Socket::from_stream(down.into_inner()) else { return Next::Close };
    let Farewell { body, content_type } = farewell;
    let date = get_cached_date();
    let date = date.to_str().unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Type: {content_type}\r\nCache-Control: no-store\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let told = async {
        socket.write_all(answer.as_bytes()).await?;
        socket.flush().await
    };
    if let Ok(Ok(())) = timeout(WITHIN, told).await {
        socket.wire().say_goodbye();
    }
    Next::Close
}
