//! `upstream` blocks: the servers, and how their failures count. Which of them a client gets is `affinity`.

use std::time::Duration;

use super::super::plan::{Anchor, At, HealthCheck, Kind, Server, State, Upstream};
use super::syntax::Directive;
use super::{Reader, address, value};

/// An upstream that there will be.
#[derive(Clone, Debug)]
pub(super) struct Group<'a> {
    /// What `proxy_pass` calls it.
    pub(super) name: String,
    /// Whether it is reached over TLS; `None`: nobody has asked yet.
    pub(super) is_https: Option<bool>,
    /// What it is called here.
    pub(super) upstream: String,
    /// Its block; `None` when `proxy_pass` names an address by itself.
    pub(super) block: Option<&'a Directive>,
    /// Why its ring is another one here than in nginx, if it is.
    pub(super) other_ring: Option<&'static str>,
    pub(super) uses: Uses,
}

/// What the locations that lead to an upstream are for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Uses {
    pub(super) has_socket_io: bool,
    pub(super) has_upgrades: bool,
    /// Whether silence has been spoken of.
    pub(super) is_told_of_silence: bool,
}

impl<'a> Reader<'a> {
    /// All upstream blocks.
    pub(super) fn groups(&mut self) {
        for block in self.http.clone().into_iter().filter(|it| it.name == "upstream") {
            self.group(block);
        }
    }

    fn group(&mut self, block: &'a Directive) {
        let name = self.plan.new_name(block.first());
        let anchor = Anchor::Upstream(name.clone());
        self.plan.upstreams.push(Upstream::new(name.clone(), block.place.clone()));
        if name != block.first() {
            let text = format!("it is called {name} here; names are 1 to 64 of A-Z a-z 0-9 . _ -, and all different");
            self.plan.remark(&block.place, &format!("upstream {}", block.first()), anchor.clone(), Kind::Note, text);
        }
        let mut group = Group {
            name: block.first().to_owned(),
            is_https: None,
            upstream: name,
            block: Some(block),
            other_ring: None,
            uses: Uses::default(),
        };
        for directive in block.children() {
            match directive.name.as_str() {
                "server" => self.server(directive, &mut group, 80),
                // What `affinity` reads.
                "ip_hash" | "hash" | "sticky" | "least_conn" | "random" | "least_time" | "resolver" => {}
                "keepalive" | "keepalive_requests" | "keepalive_time" | "keepalive_timeout" | "zone" | "state"
                | "resolver_timeout" => {}
                "queue" => {
                    let text = "who comes to stay waits in upstreams.NAME.limits.queue, with handshakes_per_second";
                    self.remark(directive, anchor.clone(), Kind::Lost, text);
                }
                _ => self.remark(directive, anchor.clone(), Kind::Lost, "there is nothing like it here"),
            }
        }
        self.even_out(&mut group);
        self.groups.push(group);
    }

    /// One server with its parameters.
    pub(super) fn server(&mut self, directive: &Directive, group: &mut Group<'_>, port: u16) {
        let anchor = Anchor::Upstream(group.upstream.clone());
        let mut parameters = Parameters::default();
        for parameter in directive.arguments.iter().skip(1) {
            if let Err(text) = parameters.take(parameter) {
                let title = format!("server {} {parameter}", directive.first());
                self.plan.remark(&directive.place, &title, anchor.clone(), Kind::Lost, text);
            }
        }
        let title = format!("server {}", directive.first());
        let Some(at) = self.place_of(directive, &parameters, group, port) else {
            let text = "a server is an IP or a name, and a port";
            return self.plan.remark(&directive.place, &title, anchor, Kind::Lost, text);
        };
        if parameters.is_backup {
            let text = "a backup; it is in state maint here, and gets nobody until you write state: ready, or \
                        POST /state of the admin address says so";
            self.plan.remark(&directive.place, &title, anchor.clone(), Kind::Beware, text);
        }
        let weight = parameters.weight.clamp(1, WEIGHT_MAX);
        if weight != parameters.weight {
            group.other_ring = Some("a weight is more than 256");
            let text = "weights are 1 to 256; write all of them smaller";
            self.plan.remark(&directive.place, &title, anchor.clone(), Kind::Beware, text);
        }
        let state = parameters.state();
        let refresh = self.valid_for().filter(|_| !matches!(at, At::Address(_)));
        let at = match at {
            At::Dns(name, port, _) => At::Dns(name, port, refresh),
            At::Srv(name, _) => At::Srv(name, refresh),
            At::Address(_) => at,
        };
        let weight = if matches!(at, At::Srv(..)) { 1 } else { weight };
        let Some(upstream) = self.plan.upstream(&group.upstream) else { return };
        upstream.max_fails = upstream.max_fails.max(parameters.max_fails);
        upstream.fail_timeout = upstream.fail_timeout.max(parameters.fail_timeout);
        upstream.slow_start = upstream.slow_start.max(parameters.slow_start);
        if let Some(twin) = upstream.servers.iter_mut().find(|it| it.at == at) {
            twin.weight = (twin.weight + weight).min(WEIGHT_MAX);
            let text = "it is there already, and has the weight of both";
            return self.plan.remark(&directive.place, &title, anchor, Kind::Note, text);
        }
        upstream.servers.push(Server { at, weight, state });
    }

    /// Where a server is; notes whether that is the text that nginx hashes.
    fn place_of(
        &mut self,
        directive: &Directive,
        parameters: &Parameters,
        group: &mut Group<'_>,
        port: u16,
    ) -> Option<At> {
        let text = directive.first();
        if let Some(address) = address(text, port) {
            if address.port() == 0 || address.ip().is_unspecified() {
                return None;
            }
            if address.to_string() != text {
                group.other_ring = Some(
                    "nginx hashes a server as it is written, and one is written without port or not the shortest way",
                );
            }
            return Some(At::Address(address));
        }
        let (name, written) = text.rsplit_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
        let port = written.map_or(Some(port), |it| it.parse().ok()).filter(|port| *port > 0)?;
        if name == "localhost" && parameters.service.is_none() {
            group.other_ring = Some("nginx hashes a server as it is written, and one is localhost");
            return Some(At::Address(([127, 0, 0, 1], port).into()));
        }
        if !is_host(name.strip_suffix('.').unwrap_or(name)) || !name.bytes().any(|it| it.is_ascii_alphabetic()) {
            return None;
        }
        group.other_ring =
            Some("nginx hashes a server as it is written, and one is a name; found servers are hashed by address");
        let name = name.to_ascii_lowercase();
        let service = match &parameters.service {
            Some(service) if service.contains('.') => format!("{service}.{name}"),
            Some(service) => format!("_{service}._tcp.{name}"),
            None => return Some(At::Dns(name, port, None)),
        };
        is_host(service.strip_suffix('.').unwrap_or(&service)).then_some(At::Srv(service, None))
    }

    /// What `valid=` of the resolver says.
    fn valid_for(&self) -> Option<Duration> {
        let resolver = self.scope().get("resolver")?;
        let valid = resolver.arguments.iter().find_map(|it| it.strip_prefix("valid="))?;
        value::time(valid).map(|it| it.clamp(Duration::from_millis(100), Duration::from_secs(3_600)))
    }

    /// What nginx says of each server is said once for all of them here.
    fn even_out(&mut self, group: &mut Group<'_>) {
        let Some(block) = group.block else { return };
        for (key, known) in
            [("max_fails=", "max_fails"), ("fail_timeout=", "fail_timeout"), ("slow_start=", "slow_start")]
        {
            let servers = block.children().iter().filter(|it| it.name == "server");
            let said: Vec<Option<&str>> =
                servers.map(|it| it.arguments.iter().find_map(|argument| argument.strip_prefix(key))).collect();
            if said.windows(2).any(|pair| pair[0] != pair[1]) {
                let text = format!("{known} holds for all servers of an upstream here, and is the largest of theirs");
                let anchor = Anchor::Upstream(group.upstream.clone());
                self.plan.remark(&block.place, &format!("upstream {}", group.name), anchor, Kind::Beware, text);
            }
        }
        let title = format!("upstream {}", group.name);
        let anchor = Anchor::Upstream(group.upstream.clone());
        let Some(upstream) = self.plan.upstream(&group.upstream) else { return };
        upstream.max_fails = upstream.max_fails.map(|it| it.min(FAILS_MAX));
        let within = |it: Duration, least: Duration| it.clamp(least, Duration::from_secs(3_600));
        upstream.fail_timeout = upstream.fail_timeout.map(|it| within(it, Duration::from_millis(100)));
        upstream.slow_start =
            upstream.slow_start.filter(|it| !it.is_zero()).map(|it| within(it, Duration::from_secs(1)));
        if upstream.servers.is_empty() {
            let text = "none of its servers can be reached from here; write them yourself";
            self.plan.remark(&block.place, &title, Anchor::Top, Kind::Missing, text);
        } else if upstream.servers.iter().all(|it| it.state != State::Ready) {
            upstream.servers[0].state = State::Ready;
            let text = "all its servers are down or backups; the first one is ready here, because there must be one";
            self.plan.remark(&block.place, &title, anchor, Kind::Missing, text);
        }
    }

    /// `health_check` of a location, as the commercial nginx has it.
    pub(super) fn health_check(&mut self, directive: &Directive, upstream: &str) {
        let argument = |key: &str| directive.arguments.iter().find_map(|it| it.strip_prefix(key));
        let number = |key: &str| argument(key).and_then(|it| it.parse::<u32>().ok()).map(|it| it.clamp(1, 100));
        let clamp = |it: Duration| it.clamp(Duration::from_millis(100), Duration::from_secs(3_600));
        let check = HealthCheck {
            path: argument("uri=").filter(is_path).unwrap_or("/").to_owned(),
            port: argument("port=").and_then(|it| it.parse().ok()).filter(|it| *it > 0),
            interval: argument("interval=").and_then(value::time).map(clamp),
            rise: number("passes="),
            fall: number("fails="),
        };
        if argument("match=").is_some() {
            let text = "a status of 200 to 399 is good, or what health_check.status says";
            let anchor = Anchor::Upstream(upstream.to_owned());
            self.plan.remark(&directive.place, "match of health_check", anchor, Kind::Lost, text);
        }
        if let Some(upstream) = self.plan.upstream(upstream) {
            upstream.health_check.get_or_insert(check);
        }
    }
}

/// The largest weight here.
const WEIGHT_MAX: u32 = 256;

/// The largest `max_fails` here.
const FAILS_MAX: u32 = 1_000;

/// What stands behind a server's address.
#[derive(Debug)]
struct Parameters {
    weight: u32,
    max_fails: Option<u32>,
    fail_timeout: Option<Duration>,
    slow_start: Option<Duration>,
    service: Option<String>,
    is_down: bool,
    is_backup: bool,
    is_drained: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            weight: 1,
            max_fails: None,
            fail_timeout: None,
            slow_start: None,
            service: None,
            is_down: false,
            is_backup: false,
            is_drained: false,
        }
    }
}

impl Parameters {
    /// Reads one; an error says what is lost.
    fn take(&mut self, parameter: &str) -> Result<(), &'static str> {
        const NO_NUMBER: &str = "its value cannot be read";
        let (key, text) = parameter.split_once('=').unwrap_or((parameter, ""));
        match key {
            "weight" => self.weight = text.parse().map_err(|_| NO_NUMBER)?,
            "max_fails" => self.max_fails = Some(text.parse().map_err(|_| NO_NUMBER)?),
            "fail_timeout" => self.fail_timeout = Some(value::time(text).ok_or(NO_NUMBER)?),
            "slow_start" => self.slow_start = Some(value::time(text).ok_or(NO_NUMBER)?),
            "service" => self.service = Some(text.to_owned()),
            "down" => self.is_down = true,
            "backup" => self.is_backup = true,
            "drain" => self.is_drained = true,
            "resolve" => {}
            "max_conns" => return Err("no server has a bound of its own here; balance.balance_factor spreads by load"),
            "route" => return Err("a server is named by an opaque cookie or tag here, not by a route"),
            _ => return Err("there is nothing like it here"),
        }
        Ok(())
    }

    fn state(&self) -> State {
        match self {
            Self { is_down: true, .. } | Self { is_backup: true, .. } => State::Maint,
            Self { is_drained: true, .. } => State::Drain,
            _ => State::Ready,
        }
    }
}

/// Whether our file takes this for what a health check asks for.
fn is_path(text: &&str) -> bool {
    const BYTES_MAX: usize = 2_048;
    text.starts_with('/') && text.len() <= BYTES_MAX && text.bytes().all(|it| it.is_ascii_graphic() && it != b'#')
}

/// Whether our file takes this for a host.
pub(in crate::migrate) fn is_host(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(allowed);
    text.len() <= 253 && text.split('.').all(is_label)
}
