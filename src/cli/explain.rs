//! `steadfast explain`: what would become of a request, and why, without sending it.

use std::fmt::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use http::request::Parts;

use super::{Done, FAILED, WRONG, load};
use crate::affinity::engine_io::Session;
use crate::affinity::tag::Secret;
use crate::affinity::{self, Asker, sticky};
use crate::config::{AffinitySource, Config, HostPattern, State};
use crate::observe::metrics::Metrics;
use crate::route;
use crate::upstream::Upstream;

/// The request to explain.
#[derive(Debug, clap::Args)]
pub(super) struct Request {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// A header field of the request, as curl takes it; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    fields: Vec<String>,
    /// The address of the previous hop
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    from: IpAddr,
    /// Path and query of the request
    #[arg(value_name = "TARGET", default_value = "/")]
    target: String,
}

/// Says route, affinity and servers in order.
pub(super) fn explain(request: &Request) -> Done {
    let config = load(&request.config)?;
    let parts = parse(request).map_err(|problem| {
        eprintln!("steadfast: {problem}");
        ExitCode::from(WRONG)
    })?;
    let explanation = Explanation { config: &config, request: &parts, previous_hop: request.from };
    let mut text = String::new();
    explanation.write(&mut text).map_err(|fmt::Error| ExitCode::from(FAILED))?;
    print!("{text}");
    Ok(())
}

fn parse(request: &Request) -> Result<Parts, String> {
    let mut builder = http::Request::builder().uri(&request.target);
    for field in &request.fields {
        let (name, value) =
            field.split_once(':').ok_or_else(|| format!("-H {field:?} has no colon; write it as 'Name: value'"))?;
        builder = builder.header(name.trim(), value.trim());
    }
    let request = builder.body(()).map_err(|error| format!("that is no request: {error}"))?;
    Ok(request.into_parts().0)
}

struct Explanation<'a> {
    config: &'a Config,
    request: &'a Parts,
    previous_hop: IpAddr,
}

impl Explanation<'_> {
    fn write(&self, out: &mut String) -> fmt::Result {
        let host = route::host(self.request);
        let path = self.request.uri.path();
        let is_trusted = self.config.trusted_proxies.contains(self.previous_hop);
        let trust = if is_trusted { "trusted" } else { "not among trusted_proxies" };
        writeln!(out, "previous hop  {} ({trust})", self.previous_hop)?;
        let Some(number) = route::find(&self.config.routes, &host, path) else {
            return writeln!(out, "route         none for host {host:?} and path {path:?}: 404");
        };
        let route = &self.config.routes[number];
        let pattern = match &route.host {
            HostPattern::Any => "any host".to_owned(),
            HostPattern::Exact(host) => format!("host {host}"),
            HostPattern::Suffix(suffix) => format!("host *{suffix}"),
        };
        let name = &self.config.upstreams[route.upstream].name;
        writeln!(out, "route         routes[{number}]: {pattern}, path {} -> upstream {name}", route.path)?;
        self.write_upstream(out, route.upstream)
    }

    fn write_upstream(&self, out: &mut String, upstream: usize) -> fmt::Result {
        let secret = self.config.affinity_secret.clone().unwrap_or_else(|| Secret::new(b""));
        let upstreams = Upstream::all(&self.config.upstreams, &secret, &Metrics::new());
        let upstream = &upstreams[upstream];
        let session = self.request.uri.query().map_or(Session::Foreign, |query| Session::of(query, &secret));
        let holder = match &session {
            Session::Tagged { server, .. } => upstream.tagged(*server),
            Session::Foreign | Session::Handshake => None,
        };
        let asker = Asker {
            request: self.request,
            previous_hop: self.previous_hop,
            trusted: &self.config.trusted_proxies,
            engine_io: holder,
            sticky: upstream
                .sticky_cookie()
                .and_then(|cookie| sticky::server(&self.request.headers, cookie, &secret))
                .and_then(|tag| upstream.tagged(tag)),
        };
        let decides = affinity::find(&upstream.affinity, asker);
        let mut is_decided = false;
        for source in &upstream.affinity {
            let found = affinity::find(std::slice::from_ref(source), asker);
            let mut text = match &found {
                Some(found) => found.key.as_ref().map_or_else(
                    || "the server that issued the session".to_owned(),
                    |key| format!("{:?}", String::from_utf8_lossy(key)),
                ),
                None => self.why_nothing(source, &session).to_owned(),
            };
            if found.is_some() && !std::mem::replace(&mut is_decided, true) {
                text += "  <- decides";
            }
            writeln!(out, "affinity      {}: {text}", affinity::label(source))?;
        }
        if decides.is_none() {
            writeln!(out, "affinity      nothing found: a server by balance.keyless")?;
        }
        let key = decides.as_ref().and_then(|found| found.key.as_deref());
        let holder = decides.as_ref().and_then(|found| found.server);
        for (place, server) in upstream.candidates(holder, key).enumerate() {
            let server = &upstream.servers[server];
            let state = if server.state().takes_clients() { "" } else { ": state drain, but it holds the session" };
            writeln!(out, "server {:<6} {} ({}){state}", place + 1, server.name, server.address)?;
        }
        for (index, server) in upstream.servers.iter().enumerate() {
            let why = match server.state() {
                State::Drain if holder != Some(index) => "state drain, so only the sessions that it holds",
                State::Maint => "state maint, so nothing",
                State::Drain | State::Ready => continue,
            };
            writeln!(out, "not tried     {} ({}): {why}", server.name, server.address)?;
        }
        Ok(())
    }

    fn why_nothing(&self, source: &AffinitySource, session: &Session) -> &'static str {
        match source {
            AffinitySource::EngineIo => match session {
                Session::Handshake => "a new session, whose id will be tagged",
                Session::Tagged { .. } => "the session's tag names a server that is not there, or in maint",
                Session::Foreign if self.config.affinity_secret.is_none() => {
                    "no session that can be read without affinity_secret_file"
                }
                Session::Foreign => "no session with a tag of ours",
            },
            AffinitySource::StickyCookie(_) => "no cookie of ours whose server may be used; one will be issued",
            AffinitySource::ForwardedFor(..) if !self.config.trusted_proxies.contains(self.previous_hop) => {
                "not asked: the previous hop is not among trusted_proxies"
            }
            AffinitySource::ForwardedFor(..) => "no address in X-Forwarded-For or Forwarded",
            AffinitySource::Cookie(_) => "no such cookie",
            AffinitySource::Header(_) => "no such field",
            AffinitySource::Query(_) => "no such parameter",
            AffinitySource::ClientIp(_) => "nothing",
        }
    }
}
