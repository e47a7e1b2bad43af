//! Where a request belongs, from what it says of itself: a session that a server holds, or a key.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::SET_COOKIE;
use http::{HeaderMap, Method};
use pingora::http::{RequestHeader, ResponseHeader};

use super::Front;
use crate::affinity::doctor::{self, Tag};
use crate::affinity::engine_io::{self, Session};
use crate::affinity::tag::ServerTag;
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
        let tagged = match &session {
            Session::Tagged { server, .. } => Some(*server),
            Session::Foreign | Session::Handshake => None,
        };
        let issuer = tagged.and_then(known);
        let cookie = upstream.sticky_cookie();
        let in_cookie = cookie.and_then(|cookie| sticky::server(&head.headers, cookie, &front.secret));
        let sticky = in_cookie.and_then(known);
        let asker = Asker { request: head, previous_hop, trusted: &front.trusted, engine_io: issuer, sticky };
        let affinity = affinity::find(&upstream.affinity, asker);
        let place = Self {
            session,
            sticky,
            holder: affinity.as_ref().and_then(|affinity| affinity.server),
            source: affinity.as_ref().map_or("none", |affinity| affinity.source),
            key: affinity.and_then(|affinity| affinity.key).map(Cow::into_owned),
        };
        let tag_of_id = seen(tagged, issuer, || query(upstream, head).is_some_and(engine_io::looks_tagged));
        let looks_ours = || cookie.is_some_and(|cookie| sticky::looks_ours(&head.headers, cookie));
        let tag_of_cookie = seen(in_cookie, sticky, looks_ours);
        upstream.asked(&doctor::Asked {
            headers: &head.headers,
            previous_hop,
            trusted: &front.trusted,
            source: place.source,
            has_session: place.holder.is_some(),
            key: place.key.as_deref(),
            tag: tag_of_id.max(tag_of_cookie),
        });
        place
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

/// What a request carries of ours that names `tag`, which stands for `server`.
fn seen(tag: Option<ServerTag>, server: Option<usize>, looks_ours: impl FnOnce() -> bool) -> Tag {
    match (tag, server) {
        (Some(_), Some(_)) => Tag::Known,
        (Some(_), None) => Tag::UnknownServer,
        (None, _) if looks_ours() => Tag::Foreign,
        (None, _) => Tag::None,
    }
}

/// What the request says of its Engine.IO session, where that is asked for.
fn session(front: &Front, upstream: &Upstream, head: &RequestHeader) -> Session {
    match query(upstream, head).map(|query| Session::of(query, &front.secret)) {
        Some(Session::Handshake) if head.method != Method::GET => Session::Foreign,
        session => session.unwrap_or(Session::Foreign),
    }
}

/// The query, where Engine.IO sessions are asked for.
fn query<'a>(upstream: &Upstream, head: &'a RequestHeader) -> Option<&'a str> {
    head.uri.query().filter(|_| upstream.affinity.contains(&AffinitySource::EngineIo))
}
