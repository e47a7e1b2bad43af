//! Where a request belongs, from what it says of itself: a session that a server holds, or a key.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::SET_COOKIE;
use http::{HeaderMap, Method};
use pingora::http::{RequestHeader, ResponseHeader};

use super::Front;
use crate::affinity::engine_io::Session;
use crate::affinity::{self, Asker, sticky};
use crate::config::AffinitySource;
use crate::upstream::Upstream;
use crate::upstream::headers;

/// Where a request belongs.
pub(super) struct Placement {
    /// What it says of its Engine.IO session.
    pub(super) session: Session,
    /// The server that its cookie of ours names.
    sticky: Option<usize>,
    /// The server that holds its session.
    pub(super) holder: Option<usize>,
    /// What names its client.
    pub(super) key: Option<Vec<u8>>,
    /// What decided.
    pub(super) source: &'static str,
}

impl Placement {
    /// Finds out, and counts sessions whose server is gone.
    pub(super) fn of(front: &Front, upstream: &Upstream, head: &RequestHeader, previous_hop: IpAddr) -> Self {
        let session = session(front, upstream, head);
        let known = |tag| {
            let server = upstream.tagged(tag);
            upstream.metrics.lost_sessions.inc_by(server.is_none().into());
            server
        };
        let engine_io = match &session {
            Session::Tagged { server, .. } => known(*server),
            Session::Foreign | Session::Handshake => None,
        };
        let cookie = upstream.sticky_cookie();
        let sticky = cookie.and_then(|cookie| sticky::server(&head.headers, cookie, &front.secret)).and_then(known);
        let asker = Asker { request: head, previous_hop, trusted: &front.trusted, engine_io, sticky };
        let affinity = affinity::find(&upstream.affinity, asker);
        Self {
            session,
            sticky,
            holder: affinity.as_ref().and_then(|affinity| affinity.server),
            source: affinity.as_ref().map_or("none", |affinity| affinity.source),
            key: affinity.and_then(|affinity| affinity.key).map(Cow::into_owned),
        }
    }

    /// Takes off the request what is between the client and us.
    pub(super) fn prepare(&self, head: &mut RequestHeader, upstream: &Upstream) -> pingora::Result<()> {
        headers::for_session(head, &self.session)?;
        match upstream.sticky_cookie() {
            Some(cookie) => headers::drop_cookie(head, &cookie.name),
            None => Ok(()),
        }
    }

    /// Has the client come back to `server`, which answered it, unless its cookie does so already
    /// or something else decided.
    pub(super) fn keep(
        &self,
        front: &Front,
        upstream: &Upstream,
        server: usize,
        request: (&HeaderMap, IpAddr),
        head: &mut ResponseHeader,
    ) -> pingora::Result<()> {
        let Some(cookie) = upstream.sticky_cookie() else { return Ok(()) };
        let is_lost = self.source == affinity::STICKY_COOKIE && self.sticky != Some(server);
        if self.sticky.is_some() && !is_lost {
            return Ok(());
        }
        let (headers, previous_hop) = request;
        let is_secure = front.trusted.contains(previous_hop)
            && headers.get("x-forwarded-proto").is_some_and(|scheme| scheme.as_bytes().eq_ignore_ascii_case(b"https"));
        let field = sticky::issue(cookie, &front.secret, upstream.tag(server), fastrand::u32(..), is_secure);
        head.append_header(SET_COOKIE, field)?;
        Ok(())
    }
}

/// What the request says of its Engine.IO session, where that is asked for.
fn session(front: &Front, upstream: &Upstream, head: &RequestHeader) -> Session {
    let is_asked_for = upstream.affinity.contains(&AffinitySource::EngineIo);
    let query = head.uri.query().filter(|_| is_asked_for);
    match query.map(|query| Session::of(query, &front.secret)) {
        Some(Session::Handshake) if head.method != Method::GET => Session::Foreign,
        session => session.unwrap_or(Session::Foreign),
    }
}
