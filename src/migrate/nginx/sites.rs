//! `server` blocks: for which hosts, where they are listened for, and which of them gets what no name asks for.

use std::net::{Ipv4Addr, SocketAddr};

use super::super::Refused;
use super::super::plan::{Anchor, Kind, Listener, Route};
use super::groups::is_host;
use super::listen::Listen;
use super::locations::{Taken, leads_to_named};
use super::scope::Scope;
use super::syntax::Directive;
use super::{Reader, value};

/// A `server` block of which something is proxied.
struct Site<'a> {
    directive: &'a Directive,
    scope: Scope<'a>,
    /// Numbers the blocks.
    block: usize,
    listens: Vec<Listen<'a>>,
    /// As our routes say them.
    hosts: Vec<String>,
    paths: Vec<Taken>,
}

impl<'a> Reader<'a> {
    /// All sites.
    pub(super) fn sites(&mut self) -> Result<(), Refused> {
        let blocks: Vec<&Directive> = self.http.iter().copied().filter(|it| it.name == "server").collect();
        // Whatever it is, the first at an address is its default, unless another says that it is.
        let mut firsts: Vec<(SocketAddr, usize, bool)> = Vec::new();
        let mut sites = Vec::new();
        for (block, directive) in blocks.into_iter().enumerate() {
            if directive.block.is_none() {
                return Err(directive.place.refuse("\"server\" has no opening \"{\""));
            }
            let scope = self.scope().within(directive.children());
            let anchor = Anchor::Routes(block);
            let listens = self.listens(&scope, &anchor);
            for listen in &listens {
                match firsts.iter_mut().find(|it| it.0 == listen.bind) {
                    None => firsts.push((listen.bind, block, listen.is_default)),
                    Some(first) if listen.is_default && !first.2 => *first = (listen.bind, block, true),
                    Some(_) => {}
                }
            }
            // Behind this no location is asked.
            let answers = directive.children().iter().any(|it| it.name == "return");
            let paths = if answers { Vec::new() } else { self.paths(&scope, directive, block)? };
            if paths.is_empty() {
                let what = self.what_instead(&scope);
                self.plan.remark(&directive.place, &title(directive), Anchor::Top, Kind::Lost, what);
                continue;
            }
            let hosts = self.hosts(directive, &anchor);
            sites.push(Site { directive, scope, block, listens, hosts, paths });
        }
        self.loose_locations(&mut sites)?;
        let default = self.default_site(&sites, &firsts);
        for (number, site) in sites.iter().enumerate() {
            self.site(site, default == Some(number), &sites);
        }
        if let Some(first) = sites.first().filter(|_| self.plan.listeners.is_empty()) {
            self.missing_listener(first.directive);
        }
        self.tell_of_many_listeners(&sites);
        if sites.is_empty() {
            self.bare_upstreams();
        }
        Ok(())
    }

    /// A fragment may be locations alone, to be included in a server block that is elsewhere.
    fn loose_locations(&mut self, sites: &mut Vec<Site<'a>>) -> Result<(), Refused> {
        let Some(first) = self.http.iter().copied().find(|it| it.name == "location") else { return Ok(()) };
        let block = self.http.len();
        let scope = Scope::of(Vec::new()).within(self.http.clone());
        let paths = self.paths(&scope, first, block)?;
        if !paths.is_empty() {
            sites.push(Site { directive: first, scope, block, listens: Vec::new(), hosts: Vec::new(), paths });
        }
        Ok(())
    }

    /// A fragment may be upstreams alone.
    fn bare_upstreams(&mut self) {
        let reachable = self.plan.upstreams.iter().filter(|it| !it.servers.is_empty());
        let names: Vec<_> = reachable.map(|it| (it.name.clone(), it.place.clone())).collect();
        let Some(first) = self.http.iter().copied().find(|it| it.name == "upstream") else { return };
        if self.http.iter().any(|it| it.name == "server") {
            return;
        }
        self.missing_listener(first);
        for (number, (name, place)) in names.into_iter().enumerate() {
            let path = if number == 0 { "/".to_owned() } else { format!("/{name}/") };
            let text = format!(
                "no location leads to it in these files; requests for {path} do here: write the right host and path"
            );
            let block = usize::MAX - number;
            self.plan.remark(&place, &format!("upstream {name}"), Anchor::Routes(block), Kind::Missing, text);
            self.plan.routes.push(Route { host: None, path, upstream: name, block, place });
        }
    }

    fn missing_listener(&mut self, directive: &Directive) {
        let bind = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080));
        let text = "no server block says where to listen; write the right address to listeners[].bind";
        self.plan.remark(&directive.place, &title(directive), Anchor::Listener(bind), Kind::Missing, text);
        self.plan.listeners.push(Listener { bind, proxy_protocol: false, tls: None, h2c: false });
    }

    /// The site that gets requests for hosts that no site names.
    fn default_site(&mut self, sites: &[Site<'a>], firsts: &[(SocketAddr, usize, bool)]) -> Option<usize> {
        let is_default = |site: &Site<'a>| {
            firsts.iter().any(|(bind, block, _)| *block == site.block && site.listens.iter().any(|it| it.bind == *bind))
        };
        let says_so = |site: &Site<'a>| site.listens.iter().any(|it| it.is_default);
        let found =
            sites.iter().position(|it| says_so(it) && is_default(it)).or_else(|| sites.iter().position(is_default));
        for (number, site) in sites.iter().enumerate() {
            if found != Some(number) && is_default(site) && !site.hosts.is_empty() {
                let text = "the default of its own listener in nginx, for any host; here only for its names, because \
                            routes do not ask where a request came in";
                self.plan.remark(
                    &site.directive.place,
                    &title(site.directive),
                    Anchor::Routes(site.block),
                    Kind::Beware,
                    text,
                );
            }
        }
        found
    }

    fn site(&mut self, site: &Site<'a>, is_default: bool, sites: &[Site<'a>]) {
        for listen in &site.listens {
            self.open(listen, &site.scope, site.directive);
        }
        let anchor = Anchor::Routes(site.block);
        for directive in site.directive.children().iter().filter(|it| it.name != "location" && !leads_to_named(it)) {
            self.tell_fate(directive, &anchor);
        }
        self.tell_of_files(&site.scope, &anchor);
        self.limit_conn(&site.scope, &anchor);
        let others = || sites.iter().filter(|it| it.block != site.block).flat_map(|it| &it.hosts);
        let mut hosts: Vec<Option<String>> = site.hosts.iter().cloned().map(Some).collect();
        if is_default || hosts.is_empty() {
            // A name needs a route of its own only where another site's wildcard would take it.
            hosts.retain(|host| others().any(|it| is_wildcard_over(it, host.as_deref().unwrap_or_default())));
            hosts.push(None);
            if is_default && !site.hosts.is_empty() {
                let text = format!(
                    "{} and any host that no other site names: it is the default at its address in nginx",
                    site.hosts.join(", ")
                );
                self.plan.remark(&site.directive.place, &title(site.directive), anchor, Kind::Note, text);
            }
        }
        for host in hosts {
            for Taken { path, upstream, place } in &site.paths {
                self.plan.routes.push(Route {
                    host: host.clone(),
                    path: path.clone(),
                    upstream: upstream.clone(),
                    block: site.block,
                    place: place.clone(),
                });
            }
        }
    }

    /// `server_name`, as hosts of our routes.
    fn hosts(&mut self, server: &Directive, anchor: &Anchor) -> Vec<String> {
        let mut hosts: Vec<String> = Vec::new();
        for directive in server.children().iter().filter(|it| it.name == "server_name") {
            for name in &directive.arguments {
                let lower = name.to_ascii_lowercase();
                let lower = lower.strip_suffix('.').unwrap_or(&lower);
                let found = match lower {
                    "" | "_" => Vec::new(),
                    _ if is_host(lower) => vec![lower.to_owned()],
                    _ if lower.strip_prefix("*.").is_some_and(is_host) => vec![lower.to_owned()],
                    _ => match lower.strip_prefix('.').filter(|it| is_host(it)) {
                        Some(parent) => vec![parent.to_owned(), format!("*.{parent}")],
                        None => {
                            let text =
                                "hosts are exact or *.example.com here; write a route for each that it stands for";
                            let title = format!("server_name {name}");
                            self.plan.remark(&directive.place, &title, anchor.clone(), Kind::Lost, text);
                            continue;
                        }
                    },
                };
                for host in found {
                    if !hosts.contains(&host) {
                        hosts.push(host);
                    }
                }
            }
        }
        hosts
    }

    /// Who does what a site does of which nothing is proxied.
    fn what_instead(&self, scope: &Scope<'a>) -> String {
        let answer = scope.own().iter().find(|it| ["return", "rewrite"].contains(&it.name.as_str()));
        match answer {
            Some(it) if it.arguments.iter().any(|it| it.starts_with("https://")) => {
                "redirects to https are not made here: keep nginx for this address, or let a CDN do it".to_owned()
            }
            Some(it) => format!("nothing in it is proxied ({}); keep nginx for it", it.title()),
            None => "nothing in it is proxied; keep nginx or a CDN for it".to_owned(),
        }
    }

    /// Sites that are apart in nginx because of their ports are not apart here.
    fn tell_of_many_listeners(&mut self, sites: &[Site<'a>]) {
        let ports = |site: &Site<'a>| {
            let mut ports: Vec<u16> = site.listens.iter().map(|it| it.bind.port()).collect();
            ports.sort_unstable();
            ports.dedup();
            ports
        };
        let Some(first) = sites.first() else { return };
        for site in &sites[1..] {
            if ports(site) != ports(first) && !site.listens.is_empty() {
                let text = "it listens elsewhere than the sites before it; here every route holds for every listener, so all of \
                            them can be reached at all addresses: run one Steadfast for each if they must be apart";
                self.plan.remark(
                    &site.directive.place,
                    &title(site.directive),
                    Anchor::Routes(site.block),
                    Kind::Beware,
                    text,
                );
                return;
            }
        }
    }

    /// `limit_conn`, where it counts connections of one client.
    pub(super) fn limit_conn(&mut self, scope: &Scope<'a>, anchor: &Anchor) {
        for limit in scope.all("limit_conn") {
            let zone = format!("zone={}:", limit.first());
            let is_it =
                |it: &&Directive| it.name == "limit_conn_zone" && it.arguments.iter().any(|it| it.starts_with(&zone));
            let of = self.http.iter().copied().find(is_it).and_then(|it| value::variable(it.first()));
            let number = limit.arguments.get(1).and_then(|it| it.parse::<u64>().ok());
            let number = number.filter(|it| *it > 0).map(|it| it.min(PER_CLIENT_MAX));
            match (of, number) {
                (Some("binary_remote_addr" | "remote_addr"), Some(number)) => {
                    let before = self.plan.limits.per_client;
                    self.plan.limits.per_client = before.max(Some(number));
                    let text = "limits.per_client counts all connections of a client that are in use, whatever they are for; it \
                                is the largest of all limit_conn";
                    self.remark(limit, Anchor::Top, Kind::Note, text);
                }
                _ => {
                    let text = "connections are counted by client (limits.per_client) or all together (limits.max_connections)";
                    self.remark(limit, anchor.clone(), Kind::Lost, text);
                }
            }
        }
    }
}

/// The largest `limits.per_client`.
pub(in crate::migrate) const PER_CLIENT_MAX: u64 = 100_000_000;

/// A site by its names.
fn title(server: &Directive) -> String {
    let names = server.children().iter().filter(|it| it.name == "server_name").flat_map(|it| &it.arguments);
    let names: Vec<&str> = names.map(String::as_str).collect();
    if names.is_empty() { server.name.clone() } else { format!("{} {}", server.name, names.join(" ")) }
}

fn is_wildcard_over(pattern: &str, host: &str) -> bool {
    pattern != host && pattern.strip_prefix('*').is_some_and(|suffix| host.ends_with(suffix))
}
