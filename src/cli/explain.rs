//! `steadfast explain`: what would become of a request, and why, without sending it.

use std::fmt::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use http::request::Parts;

use super::{Done, FAILED, WRONG, load};
use crate::affinity::engine_io::{Session, Version};
use crate::affinity::tag::Secret;
use crate::affinity::{self, Asker, Finding};
use crate::config::{AffinitySource, Config, HostPattern, State};
use crate::exchange::placement::{self, Holder};
use crate::observe::metrics::Metrics;
use crate::route;
use crate::session_store::SessionStore;
use crate::upstream::discovery::{Discoveries, Findings};
use crate::upstream::{Servers, Upstream};

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

    /// The servers that have to be asked for, as far as they are found soon.
    async fn found(&self, metrics: &Metrics) -> Findings {
        const WITHIN: Duration = Duration::from_secs(5);
        let discoveries = Discoveries::start(self.config, None, metrics);
        discoveries.first_answers(WITHIN).await;
        discoveries.findings().borrow().clone()
    }

    fn write_upstream(&self, out: &mut String, upstream: usize) -> fmt::Result {
        let secret = self.config.affinity_secret.clone().unwrap_or_else(|| Secret::new(b""));
        let metrics = Metrics::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|_| fmt::Error)?;
        let found = runtime.block_on(self.found(&metrics));
        let upstreams = Upstream::all(self.config, &found, &secret, &metrics, &Servers::default(), &[]);
        let upstream = &upstreams[upstream];
        let store = SessionStore::new(&self.config.session_store, &metrics);
        let engine_io = placement::engine_io_session(upstream, self.request, &secret);
        let asker = Asker {
            request: self.request,
            previous_hop: self.previous_hop,
            trusted: &self.config.trusted_proxies,
            secret: &secret,
            engine_io: &engine_io,
        };
        let mut lines = Vec::new();
        let see = |source: &AffinitySource, finding: &Finding<'_>, holder| {
            lines.push((self.says(source, finding, holder, upstream, &engine_io), is_decisive(finding, holder)));
        };
        let found = runtime.block_on(placement::find(asker, upstream, &upstreams, &store, see));
        // Those behind the one that decides were not asked, but what they would say is worth knowing.
        for source in &upstream.affinity[lines.len()..] {
            let finding = affinity::ask(source, asker);
            lines.push((self.says(source, &finding, Holder::Nobody, upstream, &engine_io), false));
        }
        let decides = lines.iter().position(|(_, is_decisive)| *is_decisive);
        for (number, (source, (text, _))) in upstream.affinity.iter().zip(&lines).enumerate() {
            let mark = if Some(number) == decides { "  <- decides" } else { "" };
            writeln!(out, "affinity      {}: {text}{mark}", affinity::label(source))?;
        }
        if decides.is_none() {
            writeln!(out, "affinity      nothing found: a server by balance.keyless")?;
        }
        for (place, server) in upstream.candidates(found.holder, found.key.as_deref()).enumerate() {
            let server = &upstream.servers[server];
            let state = if server.state().takes_clients() { "" } else { ": state drain, but it holds the session" };
            writeln!(out, "server {:<6} {} ({}){state}", place + 1, server.name, server.address)?;
        }
        for (number, server) in upstream.servers.iter().enumerate() {
            let why = match server.state() {
                State::Drain if found.holder != Some(number) => "state drain, so only the sessions that it holds",
                State::Maint => "state maint, so nothing",
                State::Drain | State::Ready => continue,
            };
            writeln!(out, "not tried     {} ({}): {why}", server.name, server.address)?;
        }
        Ok(())
    }

    /// What `source` has found, in words.
    fn says(
        &self,
        source: &AffinitySource,
        finding: &Finding<'_>,
        holder: Holder,
        upstream: &Upstream,
        engine_io: &Session,
    ) -> String {
        match (holder, finding) {
            (Holder::Server(server), _) => format!("a session of server {}", upstream.servers[server].name),
            (Holder::Gone, _) => "a session of a server that is not there, or in maint".to_owned(),
            (Holder::Elsewhere, _) => "a session of a server of another upstream".to_owned(),
            (Holder::Nobody, Finding::Key(key) | Finding::Session(_, Some(key))) => {
                format!("{:?}", String::from_utf8_lossy(key))
            }
            (Holder::Nobody, Finding::Session(_, None)) if self.config.session_store.redis.is_some() => {
                "a session that nobody has learned".to_owned()
            }
            (Holder::Nobody, Finding::Session(_, None)) => {
                "a session; who issued it, the running proxy may have learned".to_owned()
            }
            (Holder::Nobody, Finding::Server(_)) => "a session".to_owned(),
            (Holder::Nobody, Finding::Nothing) => self.why_nothing(source, engine_io).to_owned(),
        }
    }

    fn why_nothing(&self, source: &AffinitySource, engine_io: &Session) -> &'static str {
        match source {
            AffinitySource::EngineIo => match engine_io {
                Session::Handshake(Version::From4) => "a new session, whose id will be tagged",
                Session::Handshake(Version::UpTo3) => "a new session, whose server will be learned",
                _ => "no session",
            },
            AffinitySource::StickyCookie(_) if self.config.affinity_secret.is_none() => {
                "no cookie that can be read without affinity_secret_file"
            }
            AffinitySource::StickyCookie(_) => "no cookie of ours; one will be issued",
            AffinitySource::ForwardedFor(..) if !self.config.trusted_proxies.contains(self.previous_hop) => {
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
