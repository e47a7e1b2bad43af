//! What would become of a request, and why, without sending it: by a configuration alone, or by all that
//! the running proxy knows. Nobody is counted, learned or told anything for it; only a learned session that
//! is asked for counts as used.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::request::Parts;
use serde::{Deserialize, Serialize};

use super::Front;
use super::dismissal::{Departure, departure};
use super::placement::{self, Holder};
use crate::affinity::engine_io::{Session, Version};
use crate::affinity::tag::Secret;
use crate::affinity::{self, Asker, Finding};
use crate::config::{AffinitySource, HostPattern, Route, State, TrustedProxies};
use crate::route;
use crate::session_store::SessionStore;
use crate::upstream::{Server, Upstream};

/// What a request is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// In the order of the file.
    pub routes: &'a [Route],
    /// What the routes refer to.
    pub upstreams: &'a [Arc<Upstream>],
    /// Whose forwarded fields are believed.
    pub trusted: &'a TrustedProxies,
    /// What tags are keyed with; `None`: nobody here knows.
    pub secret: Option<&'a Secret>,
    /// Who issued the sessions that carry no tag.
    pub sessions: &'a SessionStore,
    /// Whether these are all sessions that the proxy knows.
    pub knows_sessions: bool,
}

impl<'a> From<&'a Front> for Scene<'a> {
    /// That of the running proxy.
    fn from(front: &'a Front) -> Self {
        Self {
            routes: &front.routes,
            upstreams: &front.upstreams,
            trusted: &front.trusted,
            secret: Some(&front.secret),
            sessions: &front.sessions,
            knows_sessions: true,
        }
    }
}

/// What would become of a request. As text it is for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Who would send it.
    pub previous_hop: IpAddr,
    /// Whether it is believed whose request it passes on.
    pub is_trusted: bool,
    /// The host that it is for, without port.
    pub host: String,
    /// The path that it is for.
    pub path: String,
    /// What owns these; `null`: nothing, and the answer is 404.
    pub route: Option<Owner>,
    /// What each entry of `affinity` finds, in order.
    pub affinity: Vec<Source>,
    /// The servers in the order in which they are tried.
    pub servers: Vec<Choice>,
    /// Those that are not.
    pub not_tried: Vec<Choice>,
}

/// The route of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Its place in the file, from 0 on.
    pub number: usize,
    /// The hosts that it is for, in words.
    pub host: String,
    /// What paths begin with.
    pub path: String,
    /// Where it leads.
    pub upstream: String,
}

/// What an entry of `affinity` finds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its word for logs.
    pub source: String,
    /// What it finds, in words.
    pub finding: String,
    /// Whether it settles where the request belongs.
    pub decides: bool,
}

/// A server, and what there is to say of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Why it is not tried, or tried all the same, or late.
    pub note: Option<String>,
}

impl Explanation {
    /// Of `request`, if `previous_hop` sent it.
    pub async fn of(scene: Scene<'_>, request: &Parts, previous_hop: IpAddr) -> Self {
        let (host, path) = (route::host(request), request.uri.path().to_owned());
        let number = route::find(scene.routes, &host, &path);
        let mut explanation = Self {
            previous_hop,
            is_trusted: scene.trusted.contains(previous_hop),
            host: host.to_string(),
            path,
            route: None,
            affinity: Vec::new(),
            servers: Vec::new(),
            not_tried: Vec::new(),
        };
        if let Some(number) = number {
            let (route, upstream) = (&scene.routes[number], &scene.upstreams[scene.routes[number].upstream]);
            explanation.route = Some(Owner::of(number, route, upstream));
            explanation.ask(scene, upstream, request).await;
        }
        explanation
    }

    async fn ask(&mut self, scene: Scene<'_>, upstream: &Upstream, request: &Parts) {
        let nobodys = Secret::new(b"");
        let secret = scene.secret.unwrap_or(&nobodys);
        let engine_io = placement::engine_io_session(upstream, request, secret);
        let asker =
            Asker { request, previous_hop: self.previous_hop, trusted: scene.trusted, secret, engine_io: &engine_io };
        let words = Words { scene, upstream, engine_io: &engine_io, is_trusted: self.is_trusted };
        let mut sources = Vec::new();
        let see = |source: &AffinitySource, finding: &Finding<'_>, holder| {
            sources.push((words.of(source, finding, holder), is_decisive(finding, holder)));
        };
        let found = placement::find(asker, upstream, scene.upstreams, scene.sessions, see).await;
        // Those behind the one that decides were not asked, but what they would say is worth knowing.
        for source in &upstream.affinity[sources.len()..] {
            sources.push((words.of(source, &affinity::ask(source, asker), Holder::Nobody), false));
        }
        let decides = sources.iter().position(|(_, is_decisive)| *is_decisive);
        let source = |(at, (source, (finding, _))): (usize, (&AffinitySource, (String, bool)))| Source {
            source: affinity::label(source).to_owned(),
            finding,
            decides: Some(at) == decides,
        };
        self.affinity = upstream.affinity.iter().zip(sources).enumerate().map(source).collect();

        let leaving = found.holder.map(|it| departure(upstream, it, request, &engine_io, found.learned.as_ref()));
        let holder = found.holder.filter(|_| !matches!(leaving, Some(Departure::Moves)));
        let note = |server: &Server| match (server.state().takes_clients(), &leaving, server.down()) {
            (false, Some(Departure::Told(_)), _) => Some("drained: its session is told to end".to_owned()),
            (false, ..) => Some("state drain, but it holds the session".to_owned()),
            (true, _, Some((_, reason))) => Some(format!("down: {reason}")),
            (true, _, None) => None,
        };
        let tried: Vec<_> = upstream.candidates(holder, found.key.as_deref()).collect();
        self.servers =
            tried.iter().map(|at| Choice::of(&upstream.servers[*at], note(&upstream.servers[*at]))).collect();
        let why_not = |server: &Server| match server.state() {
            State::Drain => "state drain, so only the sessions that it holds",
            State::Maint => "state maint, so nothing",
            State::Ready => "down",
        };
        let others = upstream.servers.iter().enumerate().filter(|(at, _)| !tried.contains(at));
        self.not_tried = others.map(|(_, server)| Choice::of(server, Some(why_not(server).to_owned()))).collect();
    }
}

impl Owner {
    fn of(number: usize, route: &Route, upstream: &Upstream) -> Self {
        let host = match &route.host {
            HostPattern::Any => "any host".to_owned(),
            HostPattern::Exact(host) => format!("host {host}"),
            HostPattern::Suffix(suffix) => format!("host *{suffix}"),
        };
        Self { number, host, path: route.path.clone(), upstream: upstream.name.clone() }
    }
}

impl Choice {
    fn of(server: &Server, note: Option<String>) -> Self {
        Self { name: server.name.clone(), address: server.address, note }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trust = if self.is_trusted { "trusted" } else { "not among trusted_proxies" };
        writeln!(f, "previous hop  {} ({trust})", self.previous_hop)?;
        let Some(Owner { number, host, path, upstream }) = &self.route else {
            return writeln!(f, "route         none for host {:?} and path {:?}: 404", self.host, self.path);
        };
        writeln!(f, "route         routes[{number}]: {host}, path {path} -> upstream {upstream}")?;
        for Source { source, finding, decides } in &self.affinity {
            let mark = if *decides { "  <- decides" } else { "" };
            writeln!(f, "affinity      {source}: {finding}{mark}")?;
        }
        if self.affinity.iter().all(|source| !source.decides) {
            writeln!(f, "affinity      nothing found: a server by balance.keyless")?;
        }
        let note = |choice: &Choice| choice.note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
        for (place, choice) in self.servers.iter().enumerate() {
            writeln!(f, "server {:<6} {} ({}){}", place + 1, choice.name, choice.address, note(choice))?;
        }
        for choice in &self.not_tried {
            writeln!(f, "not tried     {} ({}){}", choice.name, choice.address, note(choice))?;
        }
        Ok(())
    }
}

/// What is known where words are looked for.
#[derive(Clone, Copy)]
struct Words<'a> {
    scene: Scene<'a>,
    upstream: &'a Upstream,
    engine_io: &'a Session,
    is_trusted: bool,
}

impl Words<'_> {
    /// What `source` has found.
    fn of(self, source: &AffinitySource, finding: &Finding<'_>, holder: Holder) -> String {
        match (holder, finding) {
            (Holder::Server(server), _) => format!("a session of server {}", self.upstream.servers[server].name),
            (Holder::Gone, _) => "a session of a server that is not there, or in maint".to_owned(),
            (Holder::Elsewhere, _) => "a session of a server of another upstream".to_owned(),
            (Holder::Nobody, Finding::Key(key) | Finding::Session(_, Some(key))) => {
                format!("{:?}", String::from_utf8_lossy(key))
            }
            (Holder::Nobody, Finding::Session(_, None)) if self.scene.knows_sessions => {
                "a session that nobody has learned".to_owned()
            }
            (Holder::Nobody, Finding::Session(_, None)) => {
                "a session; who issued it, the running proxy may have learned".to_owned()
            }
            (Holder::Nobody, Finding::Server(_)) => "a session".to_owned(),
            (Holder::Nobody, Finding::Nothing) => self.why_nothing(source).to_owned(),
        }
    }

    fn why_nothing(self, source: &AffinitySource) -> &'static str {
        match source {
            AffinitySource::EngineIo => match self.engine_io {
                Session::Handshake(Version::From4) => "a new session, whose id will be tagged",
                Session::Handshake(Version::UpTo3) => "a new session, whose server will be learned",
                _ => "no session",
            },
            AffinitySource::StickyCookie(_) if self.scene.secret.is_none() => {
                "no cookie that can be read without affinity_secret_file"
            }
            AffinitySource::StickyCookie(_) => "no cookie of ours; one will be issued",
            AffinitySource::ForwardedFor(..) if !self.is_trusted => {
                "not asked: the previous hop is not among trusted_proxies"
            }
            AffinitySource::ForwardedFor(..) => "no address in X-Forwarded-For or Forwarded",
            AffinitySource::Cookie(_) => "no such cookie",
            AffinitySource::Header(_) => "no such field",
            AffinitySource::Query(_) => "no such parameter",
            AffinitySource::Session(_) => "no session",
            AffinitySource::ClientIp(_) => "nothing",
        }
    }
}

/// Whether this settles where the request belongs.
fn is_decisive(finding: &Finding<'_>, holder: Holder) -> bool {
    matches!(holder, Holder::Server(_)) || matches!(finding, Finding::Key(_) | Finding::Session(_, Some(_)))
}
