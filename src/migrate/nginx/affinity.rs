//! `ip_hash`, `hash`, `sticky` and the rest: which of our sources finds the same client, whether the ring is the
//! same, and what has been a trap all along.

use std::time::Duration;

use super::super::plan::{Anchor, At, Kind, Server, Source};
use super::super::yaml::scalar;
use super::groups::Group;
use super::syntax::Directive;
use super::{Reader, RealIpHeader, value};

/// What the default of our file says.
const DEFAULT: [Source; 3] = [
    Source::EngineIo,
    Source::ForwardedFor { is_rightmost: false, is_whole: false },
    Source::ClientIp { is_whole: false },
];

impl<'a> Reader<'a> {
    /// Decides for each upstream, once it is known what leads to it.
    pub(super) fn affinities(&mut self) {
        for group in self.groups.clone() {
            let method = |name: &str| group.block.into_iter().flat_map(Directive::children).find(|it| it.name == name);
            let keyless = self.keyless(&group, method);
            let sources = match (method("sticky"), method("ip_hash"), method("hash")) {
                (Some(sticky), ..) => self.sticky(sticky, &group),
                (None, Some(ip_hash), _) => self.ip_hash(ip_hash, &group),
                (None, None, Some(hash)) => self.hash(hash, &group),
                (None, None, None) => self.without(&group),
            };
            let has_key_always = sources.iter().any(|it| matches!(it, Source::ClientIp { .. }));
            if let Some(upstream) = self.plan.upstream(&group.upstream) {
                upstream.affinity = sources;
                upstream.keyless = keyless.filter(|_| !has_key_always);
            }
        }
        self.resolver();
    }

    fn of(&mut self, directive: &Directive, group: &Group<'_>, kind: Kind, text: &str) {
        self.remark(directive, Anchor::Upstream(group.upstream.clone()), kind, text);
    }

    /// Who serves a client without a key.
    fn keyless<'b>(
        &mut self,
        group: &Group<'b>,
        method: impl Fn(&str) -> Option<&'b Directive>,
    ) -> Option<&'static str> {
        if let Some(least_time) = method("least_time") {
            let text = "no time is measured here; it is least_conn, the fewest open connections";
            self.of(least_time, group, Kind::Beware, text);
            return None;
        }
        if let Some(random) = method("random") {
            if random.first() != "two" {
                self.of(
                    random,
                    group,
                    Kind::Beware,
                    "here two servers are drawn, and the one with fewer connections is taken",
                );
            } else if random.arguments.get(1).is_some_and(|it| it.starts_with("least_time")) {
                self.of(
                    random,
                    group,
                    Kind::Beware,
                    "of the two the one with fewer connections is taken; no time is measured here",
                );
            }
            return Some("random_two");
        }
        if method("least_conn").is_some() { None } else { Some("round_robin") }
    }

    /// Nothing keeps a client at its server.
    fn without(&mut self, group: &Group<'_>) -> Vec<Source> {
        if group.uses.has_socket_io
            && let Some(block) = group.block
            && block.children().iter().filter(|it| it.name == "server").count() > 1
        {
            let text = "nothing has kept a client at its server, so Socket.IO's polling has failed with 400 Session ID \
                        unknown; engine_io keeps each session at its server now";
            let title = format!("upstream {}", group.name);
            self.plan.remark(&block.place, &title, Anchor::Upstream(group.upstream.clone()), Kind::Beware, text);
        }
        vec![Source::EngineIo]
    }

    fn ip_hash(&mut self, ip_hash: &Directive, group: &Group<'_>) -> Vec<Source> {
        let text = "another hash than here: clients get other servers than with nginx, so move all at once, or have \
                    nginx hash consistently first; it hashes only the first three bytes of an IPv4 address, so that \
                    256 neighbours share a server; here each address counts";
        self.of(ip_hash, group, Kind::Beware, text);
        match self.real_ip.header.clone() {
            RealIpHeader::Nowhere => {
                let text = "without set_real_ip_from it sees the previous hop: behind a proxy all clients are one; here \
                            forwarded_for finds them if that proxy is among trusted_proxies (private networks, unless you name \
                            others)";
                self.of(ip_hash, group, Kind::Beware, text);
                DEFAULT.to_vec()
            }
            RealIpHeader::Other(header) => {
                vec![Source::EngineIo, Source::Header(header), Source::ClientIp { is_whole: false }]
            }
            RealIpHeader::ProxyProtocol | RealIpHeader::ForwardedFor => DEFAULT.to_vec(),
        }
    }

    fn hash(&mut self, hash: &Directive, group: &Group<'_>) -> Vec<Source> {
        let is_consistent = hash.arguments.get(1).is_some_and(|it| it == "consistent");
        let Some((mut sources, is_same_key)) = self.key(hash, group) else {
            let text = "no single field, cookie, parameter or address; clients are told apart by their address here";
            self.of(hash, group, Kind::Lost, text);
            return DEFAULT.to_vec();
        };
        if !is_consistent {
            let text = "not consistent: nginx moves nearly everybody when a server is added or taken out; here only the \
                        clients of that server move; everybody gets another server once, when moving here";
            self.of(hash, group, Kind::Beware, text);
        }
        match (is_consistent, is_same_key, group.other_ring) {
            (true, Ok(()), None) => {
                let text = "the same ring, point for point: nginx and this proxy send each client to the same server, so \
                            a fleet can be moved machine by machine; put engine_io first in affinity when no nginx is left";
                self.of(hash, group, Kind::Note, text);
            }
            (true, Err(why), _) | (true, Ok(()), Some(why)) => {
                let text = format!("not the same ring as nginx's, so clients get other servers once: {why}");
                self.of(hash, group, Kind::Beware, &text);
                sources = freed(sources);
            }
            (false, ..) => sources = freed(sources),
        }
        let mut seen = Vec::new();
        sources.retain(|source| {
            let is_new = !seen.contains(source);
            seen.push(source.clone());
            is_new
        });
        sources
    }

    /// The sources of a key, and whether it is the text that nginx hashes.
    fn key(&mut self, hash: &Directive, group: &Group<'_>) -> Option<(Vec<Source>, Result<(), &'static str>)> {
        let variable = value::variable(hash.first())?;
        if let Some(map) = self.map_of(variable) {
            self.used_maps.push(map.place.clone());
            return self.mapped(map).map(|sources| (sources, Err("the key is put together by a map")));
        }
        if variable == "request_uri" || variable == "uri" {
            return None;
        }
        let key = self.source(variable)?;
        match &key.0[..] {
            [Source::Header(name), ..] if name == "X-Forwarded-For" => {
                let text = "hashes the whole header: a client behind another chain of hops gets another server, and anybody \
                            can send another value with each request; forwarded_for takes only the first address, from hops \
                            you trust";
                self.of(hash, group, Kind::Beware, text);
            }
            [Source::Query(name), ..] if name == "sid" => {
                let text = "the session id is issued by a server that was chosen without it: its hash names another one; \
                            engine_io leads to the one that issued it";
                self.of(hash, group, Kind::Beware, text);
                return Some((DEFAULT.to_vec(), Err("engine_io leads by the session and not by its hash")));
            }
            [Source::Cookie(name), ..] if name == "io" => {
                let text = "a cookie that servers issue once they are chosen: its hash names another server; engine_io and \
                            cookie lead to the one that issued it";
                self.of(hash, group, Kind::Beware, text);
                return Some((
                    vec![Source::EngineIo, Source::Cookie(name.clone())],
                    Err("sessions are not hashed here"),
                ));
            }
            [Source::Cookie(_), ..] => {
                let text = "a request without it has no key; if the servers set it, its hash names another server than the \
                            one that did, so here the one that did is remembered, and what no server was seen to set is \
                            hashed; upper case is not lower case here";
                self.of(hash, group, Kind::Beware, text);
            }
            _ => {}
        }
        Some(key)
    }

    /// The sources that stand for a variable, and whether its text is the key here too.
    fn source(&self, variable: &str) -> Option<(Vec<Source>, Result<(), &'static str>)> {
        let binary = Err("nginx hashes the bytes of the address, and here it is the text");
        Some(match variable {
            "remote_addr" => (self.client(true), self.is_same_client()),
            "binary_remote_addr" => (self.client(false), binary),
            "realip_remote_addr" | "proxy_protocol_addr" => (vec![Source::ClientIp { is_whole: true }], Ok(())),
            _ => (vec![value::source(variable)?], Ok(())),
        })
    }

    /// Who nginx takes for the client.
    fn client(&self, is_whole: bool) -> Vec<Source> {
        match self.real_ip.header.clone() {
            RealIpHeader::Nowhere | RealIpHeader::ProxyProtocol => vec![Source::ClientIp { is_whole }],
            RealIpHeader::ForwardedFor => {
                vec![Source::ForwardedFor { is_rightmost: true, is_whole }, Source::ClientIp { is_whole }]
            }
            RealIpHeader::Other(header) => vec![Source::Header(header), Source::ClientIp { is_whole }],
        }
    }

    fn is_same_client(&self) -> Result<(), &'static str> {
        match self.real_ip.header {
            RealIpHeader::ForwardedFor if !self.real_ip.is_recursive => Err(
                "without real_ip_recursive nginx takes the last address, and here it is the last that is not trusted",
            ),
            RealIpHeader::Other(_) => Err("the header is hashed as it stands, and nginx takes the address out of it"),
            _ => Ok(()),
        }
    }

    fn map_of(&self, variable: &str) -> Option<&'a Directive> {
        let is_it = |it: &&&Directive| {
            it.name == "map" && it.arguments.get(1).and_then(|it| value::variable(it)) == Some(variable)
        };
        self.http.iter().find(is_it).copied()
    }

    /// A map that takes a field if it is there, and something else if it is not; or the first address of
    /// `X-Forwarded-For`.
    fn mapped(&self, map: &Directive) -> Option<Vec<Source>> {
        let source = value::variable(map.first())?;
        let entry = |wanted: &str| map.children().iter().find(|it| it.name == wanted).map(Directive::first);
        let other = entry("").or_else(|| entry("default").filter(|it| value::variable(it) != Some(source)));
        let others = match other.and_then(value::variable) {
            Some(variable) => self.source(variable)?.0,
            None => Vec::new(),
        };
        let is_first_address = map.children().iter().any(|it| it.name.starts_with('~'));
        let mut sources = match source {
            "http_x_forwarded_for" if is_first_address => DEFAULT[1..2].to_vec(),
            _ if entry("default").and_then(value::variable) == Some(source) => self.source(source)?.0,
            _ => return None,
        };
        sources.extend(others);
        Some(sources)
    }

    fn sticky(&mut self, sticky: &Directive, group: &Group<'_>) -> Vec<Source> {
        let has_polling = group.uses.has_socket_io || group.uses.has_upgrades;
        let sources = match sticky.first() {
            "route" => self.sticky_route(sticky, group),
            "learn" => self.sticky_learn(sticky, group),
            _ => Some(vec![self.sticky_cookie(sticky, group, has_polling)]),
        };
        let Some(mut sources) = sources else {
            let text =
                "no cookie, header or parameter that it is found in; clients are told apart by their address here";
            self.of(sticky, group, Kind::Lost, text);
            return DEFAULT.to_vec();
        };
        if has_polling {
            sources.insert(0, Source::EngineIo);
        }
        sources
    }

    fn sticky_cookie(&mut self, sticky: &Directive, group: &Group<'_>, has_polling: bool) -> Source {
        let text = "the cookies that nginx has issued are not read here: clients get a new one, and a server, once";
        self.of(sticky, group, Kind::Beware, text);
        if has_polling {
            let text = "a client that keeps no cookies loses its server between two polls, browsers on other sites and \
                        many libraries among them; engine_io keeps a session without any";
            self.of(sticky, group, Kind::Beware, text);
        }
        let mut arguments = sticky.arguments.iter().map(String::as_str);
        let first = arguments.next().unwrap_or_default();
        // The module of that name that is built in from outside takes name=, and no word before it.
        let (mut name, mut max_age) = match first {
            "cookie" => (arguments.next().map(str::to_owned), None),
            _ => (Some("route".to_owned()), None),
        };
        for argument in (first != "cookie" && !first.is_empty()).then_some(first).into_iter().chain(arguments) {
            match argument.split_once('=') {
                Some(("name", text)) => name = Some(text.to_owned()),
                Some(("expires", "max")) => max_age = Some(LONGEST),
                Some(("expires", text)) => max_age = value::time(text),
                _ if ["httponly", "samesite=lax", "path=/"].contains(&argument.to_ascii_lowercase().as_str()) => {}
                _ => {
                    let text = "the cookie is for the host and path /, HttpOnly, SameSite=Lax, and Secure on TLS";
                    self.plan.remark(
                        &sticky.place,
                        &format!("sticky {argument}"),
                        Anchor::Upstream(group.upstream.clone()),
                        Kind::Lost,
                        text,
                    );
                }
            }
        }
        let is_name =
            |it: &String| !it.is_empty() && it.bytes().all(|it| it.is_ascii_alphanumeric() || b"_-.".contains(&it));
        let max_age = max_age.map(|it| it.clamp(Duration::from_secs(1), LONGEST));
        Source::StickyCookie { name: name.filter(is_name), max_age }
    }

    fn sticky_route(&mut self, sticky: &Directive, group: &Group<'_>) -> Option<Vec<Source>> {
        let text = "servers are not named by route= here: who issued a session is learned from its Set-Cookie; \
                    write the cookie's name as servers do, upper case is not lower case here";
        self.of(sticky, group, Kind::Beware, text);
        let mut sources = Vec::new();
        for argument in sticky.arguments.iter().skip(1) {
            let variable = value::variable(argument)?;
            let map = self.map_of(variable);
            self.used_maps.extend(map.map(|it| it.place.clone()));
            let variable = map.and_then(|it| value::variable(it.first())).unwrap_or(variable);
            sources.extend(self.source(variable).map(|it| it.0).unwrap_or_default());
        }
        sources.retain(|it| matches!(it, Source::Cookie(_) | Source::Header(_) | Source::Query(_)));
        (!sources.is_empty()).then_some(sources)
    }

    fn sticky_learn(&mut self, sticky: &Directive, group: &Group<'_>) -> Option<Vec<Source>> {
        let argument = |key: &str| sticky.arguments.iter().find_map(|it| it.strip_prefix(key));
        let create = value::variable(argument("create=")?)?;
        let lookup = value::variable(argument("lookup=")?)?;
        let (learn, find) = (create.strip_prefix("upstream_")?, lookup);
        if learn.ends_with('_') || find.ends_with('_') {
            return None;
        }
        let idle = argument("timeout=").and_then(value::time);
        let idle = idle.map(|it| it.clamp(Duration::from_secs(1), Duration::from_secs(30 * 86_400)));
        self.plan.session_idle = self.plan.session_idle.max(idle);
        let text = "sessions that nginx has learned are learned anew, and several proxies share a session_store; write names of \
                    cookies as servers do, upper case is not lower case here";
        self.of(sticky, group, Kind::Note, text);
        if let (Some(learned), Some(found)) = (learn.strip_prefix("cookie_"), find.strip_prefix("cookie_"))
            && learned == found
        {
            return Some(vec![Source::Cookie(found.to_owned())]);
        }
        let learn = value::field(learn.strip_prefix("http_")?);
        let find = match find.split_once('_')? {
            ("cookie", name) => format!("cookie: {}", scalar(name)),
            ("http", name) => format!("header: {}", value::field(name)),
            ("arg", name) => format!("query: {}", scalar(name)),
            _ => return None,
        };
        Some(vec![Source::Session { learn, find }])
    }

    /// Whom names of servers are asked of, if there are any.
    fn resolver(&mut self) {
        let is_needed = |it: &Server| !matches!(it.at, At::Address(_));
        if !self.plan.upstreams.iter().any(|it| it.servers.iter().any(is_needed)) {
            return;
        }
        let blocks = self.groups.iter().filter_map(|it| it.block).flat_map(Directive::children);
        let inner = blocks.filter(|it| it.name == "resolver");
        let Some(resolver) = self.http.iter().copied().chain(inner).find(|it| it.name == "resolver") else { return };
        let (place, title) = (resolver.place.clone(), resolver.title());
        for argument in resolver.arguments.iter().filter(|it| !it.contains('=')) {
            match super::address(argument, 53) {
                Some(address) if self.plan.resolver.len() < RESOLVERS_MAX => self.plan.resolver.push(address),
                _ => {
                    let text = "name servers are addresses here, 8 at most; without any, whom the system asks is asked";
                    self.plan.remark(&place, &title, Anchor::Top, Kind::Lost, text);
                }
            }
        }
    }
}

/// The better sources, where there is no ring to keep.
fn freed(sources: Vec<Source>) -> Vec<Source> {
    if sources.contains(&Source::Header("X-Forwarded-For".to_owned())) {
        return DEFAULT.to_vec();
    }
    std::iter::once(Source::EngineIo).chain(sources).collect()
}

/// For how long browsers keep a cookie at the most.
const LONGEST: Duration = Duration::from_secs(400 * 86_400);

/// As many as our file takes.
const RESOLVERS_MAX: usize = 8;
