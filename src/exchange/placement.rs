//! Where a request belongs, from what it says of itself: a session that a server holds, or a key;
//! and what its response says of that, so that the next request finds its way.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};
use pingora::http::RequestHeader;

use super::Front;
use super::dismissal::{Departure, departure};
use crate::affinity::doctor::{self, Tag};
use crate::affinity::engine_io::{self, Farewell, Session, Version};
use crate::affinity::learned::{self, Place, SessionId};
use crate::affinity::tag::Secret;
use crate::affinity::{self, Asker, Finding, sticky};
use crate::config::{AffinitySource, Learn};
use crate::observe::traces::Onward;
use crate::relay::strays::Origin;
use crate::session_store::SessionStore;
use crate::upstream::Upstream;
use crate::upstream::request::{self, Changes};
use crate::upstream::response::{Head, Name};

/// Where a request belongs.
#[derive(Debug)]
pub struct Placement {
    /// What it says of its Engine.IO session.
    session: Session,
    /// The server that holds its session.
    pub holder: Option<usize>,
    /// What names its client; chooses the server when nobody holds a session, or who does cannot be
    /// reached.
    pub key: Option<Vec<u8>>,
    /// What decided: the word for logs.
    pub source: &'static str,
    /// The session whose holder had to be learned.
    learned: Option<SessionId>,
    /// What the body of the response may hold that has to be read.
    reads: Option<Reads>,
    /// What its client is told instead of being served: its session ends.
    pub(super) farewell: Option<Farewell>,
}

/// What the beginning of a response's body may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    /// The open packet of a new Engine.IO session.
    Opening,
    /// The id of a new session, in JSON.
    Json,
}

/// Who holds the session that a source found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// There is no session, or nobody knows whose it is.
    Nobody,
    /// This server.
    Server(usize),
    /// A server of another upstream.
    Elsewhere,
    /// A server that is no longer there.
    Gone,
}

impl Placement {
    /// Finds out, and counts sessions whose server is gone.
    pub(super) async fn of(front: &Front, upstream: &Upstream, head: &RequestHeader, previous_hop: IpAddr) -> Self {
        let session = engine_io_session(upstream, head, &front.secret);
        let asker =
            Asker { request: head, previous_hop, trusted: &front.trusted, secret: &front.secret, engine_io: &session };
        let mut tag = Tag::None;
        let see = |source: &AffinitySource, finding: &Finding<'_>, holder| {
            upstream.metrics.lost_sessions.inc_by((holder == Holder::Gone).into());
            tag = tag.max(tag_of(source, finding, holder, asker));
        };
        let found = find(asker, upstream, &front.upstreams, &front.sessions, see).await;
        let (mut holder, key, source, learned) = (found.holder, found.key, found.source, found.learned);
        let leaving = holder.map(|server| departure(upstream, server, head, &session, learned.as_ref()));
        let farewell = match leaving {
            None | Some(Departure::Stays) => None,
            Some(Departure::Moves) => {
                holder = None;
                None
            }
            Some(Departure::Told(farewell)) => Some(farewell),
        };
        upstream.asked(&doctor::Asked {
            headers: &head.headers,
            previous_hop,
            trusted: &front.trusted,
            source,
            has_session: holder.is_some(),
            key: key.as_deref(),
            tag,
        });
        let key = key.map(Cow::into_owned);
        let reads = reads(upstream, head, &session, learned.is_some());
        Self { session, holder, key, source, learned, reads, farewell }
    }

    /// What has chosen its server, for when it stays. Only what ends with the connection lets its
    /// client go elsewhere: a session of Engine.IO does, a cookie or a learned session does not.
    pub(super) fn origin(&self, upstream: &Upstream) -> Origin {
        let is_bound = self.holder.is_some() && self.source != affinity::label(&AffinitySource::EngineIo);
        match &self.key {
            _ if is_bound || upstream.sticky_cookie().is_some() => Origin::FIXED,
            Some(key) => Origin::key(upstream.hash(key)),
            None => Origin::FREE,
        }
    }

    /// What of the request is between the client and us, and what has the server answer so that we
    /// can read it.
    pub(super) fn changes<'a>(
        &'a self,
        head: &RequestHeader,
        upstream: &'a Upstream,
        trace: Option<Onward>,
    ) -> Changes<'a> {
        let query = match &self.session {
            Session::Tagged { query, .. } => Some(query.as_str()),
            Session::Issued(_) | Session::Handshake(_) | Session::Foreign => None,
        };
        let cookie = upstream.sticky_cookie().filter(|cookie| !cookie.is_passed);
        Changes {
            query,
            drops_cookie: cookie.map(|cookie| cookie.name.as_str()),
            drops_accept_encoding: self.reads.is_some() || request::wants_plain_events(head, &upstream.sse),
            trace,
        }
    }

    /// Whether the body of this response has to be read before it is passed on, and how much of it.
    pub(super) fn reads(&self, response: &Head) -> Option<usize> {
        // The body of an event stream is the relay's to read, and holds no id.
        if response.has(Name::ContentEncoding) || response.is_event_stream() {
            return None;
        }
        match self.reads? {
            Reads::Opening => (response.status == StatusCode::OK).then_some(engine_io::OPENING_MAX),
            Reads::Json => {
                let length = response.length().ok().flatten();
                let fits = length.is_none_or(|length| length <= learned::BODY_MAX as u64);
                let is_json = response.get(Name::ContentType).is_some_and(is_json);
                (response.status.is_success() && is_json && fits).then_some(learned::BODY_MAX)
            }
        }
    }

    /// The body that opens an Engine.IO session at `server`, tagged; `None` when it needs no tag or
    /// cannot have one.
    pub(super) fn tagged(&self, body: &[u8], server: usize, upstream: &Upstream, secret: &Secret) -> Option<Vec<u8>> {
        let is_asked_for = self.session == Session::Handshake(Version::From4);
        is_asked_for.then(|| engine_io::tag_opening(body, secret, upstream.tag(server)))?
    }

    /// Remembers the sessions that `server` issued in its response. `body` is what was read of it,
    /// unless it was tagged.
    pub(super) async fn learn(
        &self,
        store: &SessionStore,
        upstream: &Upstream,
        server: usize,
        response: &Head,
        body: &[u8],
    ) {
        if response.status.is_client_error() || response.status.is_server_error() {
            return;
        }
        for source in &upstream.affinity {
            let issued = match source {
                AffinitySource::EngineIo if self.reads == Some(Reads::Opening) => {
                    engine_io::opening(body).map(|id| Place::EngineIo.session(id.as_bytes()))
                }
                AffinitySource::Session(session) => learned::issued(session, &response.map(), body),
                AffinitySource::Cookie(name) => learned::issued_cookie(name, &response.map()),
                _ => None,
            };
            let is_known = issued == self.learned && self.holder == Some(server);
            if let Some(session) = issued.filter(|_| !is_known) {
                Box::pin(store.learn(session, &upstream.servers[server].name)).await;
            }
        }
    }

    /// Has the client come back to `server`, which answered it, unless its cookie does so already
    /// or something else decided.
    pub(super) fn keep(
        &self,
        front: &Front,
        upstream: &Upstream,
        server: usize,
        request: (&HeaderMap, IpAddr, &str),
        head: &mut Head,
    ) {
        let Some(cookie) = upstream.sticky_cookie() else { return };
        let (headers, previous_hop, scheme) = request;
        let named = sticky::server(headers, cookie, &front.secret).and_then(|tag| upstream.tagged(tag));
        let is_right = named == Some(server) || self.source != affinity::STICKY_COOKIE;
        if named.is_some() && is_right {
            return;
        }
        let told = || headers.get("x-forwarded-proto").filter(|_| front.trusted.contains(previous_hop));
        let is_secure =
            scheme == "https" || told().is_some_and(|scheme| scheme.as_bytes().eq_ignore_ascii_case(b"https"));
        let field = sticky::issue(cookie, &front.secret, upstream.tag(server), fastrand::u32(..), is_secure);
        head.add_cookie(&field);
    }
}

/// What the sources of an upstream find in a request, all of them together.
#[derive(Debug)]
pub struct Found<'a> {
    /// The server that holds its session.
    pub holder: Option<usize>,
    /// What names its client.
    pub key: Option<Cow<'a, [u8]>>,
    /// What decided: the word for logs.
    pub source: &'static str,
    /// The session whose holder had to be learned.
    pub(super) learned: Option<SessionId>,
}

/// Asks the sources of `upstream`, one of `upstreams`, in turn: the first one that finds something
/// decides. When that is a session, a key is still looked for, in case its server cannot be
/// reached. `see` is told what each source that was asked has found.
pub async fn find<'a>(
    asker: Asker<'a>,
    upstream: &Upstream,
    upstreams: &[Arc<Upstream>],
    store: &SessionStore,
    mut see: impl FnMut(&AffinitySource, &Finding<'a>, Holder),
) -> Found<'a> {
    let mut found = Found { holder: None, key: None, source: "none", learned: None };
    for source in &upstream.affinity {
        let finding = affinity::ask(source, asker);
        let holder = match finding {
            _ if found.holder.is_some() => Holder::Nobody,
            Finding::Server(tag) => holder(upstream, upstreams, |upstream| upstream.tagged(tag)),
            Finding::Session(session, _) => match Box::pin(store.find(session)).await {
                Some(name) => holder(upstream, upstreams, |upstream| upstream.named(name)),
                None => Holder::Nobody,
            },
            Finding::Key(_) | Finding::Nothing => Holder::Nobody,
        };
        see(source, &finding, holder);
        if let Holder::Server(server) = holder {
            (found.holder, found.source) = (Some(server), affinity::label(source));
            if let Finding::Session(session, _) = finding {
                found.learned = Some(session);
            }
        }
        if let Finding::Key(key) | Finding::Session(_, Some(key)) = finding {
            found.key = Some(key);
            if found.holder.is_none() {
                found.source = affinity::label(source);
            }
            break;
        }
    }
    found
}

/// Who of `upstream` is `known`, or else whether anybody of the others is.
fn holder(upstream: &Upstream, upstreams: &[Arc<Upstream>], known: impl Fn(&Upstream) -> Option<usize>) -> Holder {
    match known(upstream) {
        Some(server) => Holder::Server(server),
        None if upstreams.iter().any(|other| known(other).is_some()) => Holder::Elsewhere,
        None => Holder::Gone,
    }
}

/// What the request carries of ours, by what `source` has found: for the doctor.
fn tag_of(source: &AffinitySource, finding: &Finding<'_>, holder: Holder, asker: Asker<'_>) -> Tag {
    let is_foreign = || match (source, asker.engine_io) {
        (AffinitySource::EngineIo, Session::Issued(sid)) => engine_io::looks_tagged(sid),
        (AffinitySource::StickyCookie(cookie), _) => sticky::looks_ours(&asker.request.headers, cookie),
        _ => false,
    };
    match (finding, holder) {
        (Finding::Server(_), Holder::Gone) => Tag::UnknownServer,
        (Finding::Server(_), _) => Tag::Known,
        (_, Holder::Nobody) if is_foreign() => Tag::Foreign,
        _ => Tag::None,
    }
}

/// What the request says of its Engine.IO session, where that is asked for.
pub fn engine_io_session(upstream: &Upstream, head: &http::request::Parts, secret: &Secret) -> Session {
    let is_asked_for = upstream.affinity.contains(&AffinitySource::EngineIo);
    let query = head.uri.query().filter(|_| is_asked_for);
    match query.map(|query| Session::of(query, secret)) {
        Some(Session::Handshake(_)) if head.method != Method::GET => Session::Foreign,
        session => session.unwrap_or(Session::Foreign),
    }
}

/// What the body of the response may hold. Sessions whose ids stand in JSON are asked for by POST,
/// by requests that have none yet.
fn reads(upstream: &Upstream, head: &RequestHeader, session: &Session, is_learned: bool) -> Option<Reads> {
    let learns_json = |source: &AffinitySource| {
        let AffinitySource::Session(session) = source else { return false };
        matches!(session.learn, Learn::Json(_)) && Place::of(session).value(head).is_none()
    };
    match session {
        Session::Handshake(_) => Some(Reads::Opening),
        _ if head.method != Method::POST || is_learned => None,
        _ => upstream.affinity.iter().any(learns_json).then_some(Reads::Json),
    }
}

/// `application/json`, or any kind of it (RFC 6839, section 3.1).
fn is_json(kind: &[u8]) -> bool {
    let kind = std::str::from_utf8(kind).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || kind.ends_with("+json")
}
