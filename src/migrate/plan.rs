//! What will be in our file: the little of a configuration that other programs' files can say, with the remarks
//! that belong beside it. [`Plan::finish`] puts it in the order in which our file means the same.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::Place;

/// Something to be told, in the file and on the terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remark {
    pub(super) place: Place,
    /// What stands there, shortened.
    pub(super) title: String,
    pub(super) kind: Kind,
    pub(super) text: String,
    pub(super) anchor: Anchor,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing stands for it in our file.
    Lost,
    /// It is in our file, and works otherwise; or it was a trap already.
    Beware,
    /// Worth knowing.
    Note,
    /// Our file cannot be used until somebody has added what only they know.
    Missing,
}

/// Beside what it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Top,
    Listener(SocketAddr),
    /// By its name.
    Upstream(String),
    /// Beside the first route that comes from this block.
    Routes(usize),
}

/// A configuration of ours, as far as files of others can say it.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) remarks: Vec<Remark>,
    pub(super) listeners: Vec<Listener>,
    /// `None`: the default.
    pub(super) trusted_proxies: Option<Vec<IpNet>>,
    /// `None`: `X-Forwarded-For`.
    pub(super) client_ip_header: Option<String>,
    pub(super) resolver: Vec<SocketAddr>,
    pub(super) limits: Limits,
    pub(super) session_idle: Option<Duration>,
    pub(super) has_access_log: bool,
    pub(super) threads: Option<usize>,
    pub(super) upstreams: Vec<Upstream>,
    pub(super) routes: Vec<Route>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listener {
    pub(super) bind: SocketAddr,
    pub(super) proxy_protocol: bool,
    pub(super) tls: Option<Tls>,
    pub(super) h2c: bool,
}

/// What clients are shown, as paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tls {
    /// Certificate and key.
    pub(super) certificates: Vec<(String, String)>,
    pub(super) client_ca: Option<String>,
    pub(super) is_1_3_only: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) per_client: Option<u64>,
    /// In KiB.
    pub(super) head: Option<u64>,
    /// In bytes.
    pub(super) uri: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upstream {
    pub(super) name: String,
    /// Where it was first named.
    pub(super) place: Place,
    pub(super) servers: Vec<Server>,
    pub(super) affinity: Vec<Source>,
    /// `None`: the default, or no matter.
    pub(super) keyless: Option<&'static str>,
    pub(super) timeouts: Timeouts,
    pub(super) max_fails: Option<u32>,
    pub(super) fail_timeout: Option<Duration>,
    pub(super) slow_start: Option<Duration>,
    pub(super) tls: Option<UpstreamTls>,
    pub(super) health_check: Option<HealthCheck>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) at: At,
    pub(super) weight: u32,
    pub(super) state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum At {
    Address(SocketAddr),
    /// Name and port, and how often to ask.
    Dns(String, u16, Option<Duration>),
    Srv(String, Option<Duration>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    Drain,
    Maint,
}

/// A source of affinity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    EngineIo,
    StickyCookie {
        /// `None`: the default.
        name: Option<String>,
        max_age: Option<Duration>,
    },
    Cookie(String),
    Header(String),
    Query(String),
    /// Learned from this field of a response, found in a request as YAML says it.
    Session {
        learn: String,
        find: String,
    },
    ForwardedFor {
        is_rightmost: bool,
        /// All bits of an IPv6 address, as nginx hashes them.
        is_whole: bool,
    },
    ClientIp {
        is_whole: bool,
    },
}

/// Each `None`: the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Timeouts {
    pub(super) connect: Option<Duration>,
    pub(super) request_head: Option<Duration>,
    pub(super) response_head: Option<Duration>,
    pub(super) body: Option<Duration>,
    pub(super) send: Option<Duration>,
    pub(super) idle: Option<Duration>,
    pub(super) keepalive: Option<Duration>,
}

/// Each `None`: the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct UpstreamTls {
    pub(super) is_unverified: bool,
    pub(super) ca: Option<String>,
    pub(super) server_name: Option<String>,
    /// Certificate and key.
    pub(super) certificate: Option<(String, String)>,
}

/// Each `None`: the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HealthCheck {
    pub(super) path: String,
    pub(super) port: Option<u16>,
    pub(super) interval: Option<Duration>,
    pub(super) rise: Option<u32>,
    pub(super) fall: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// As our file says it; `None`: any.
    pub(super) host: Option<String>,
    pub(super) path: String,
    /// By its name.
    pub(super) upstream: String,
    /// The block that it comes from: one site.
    pub(super) block: usize,
    pub(super) place: Place,
}

impl Upstream {
    /// One without servers, and without affinity.
    pub(super) fn new(name: String, place: Place) -> Self {
        Self {
            name,
            place,
            servers: Vec::new(),
            affinity: Vec::new(),
            keyless: None,
            timeouts: Timeouts::default(),
            max_fails: None,
            fail_timeout: None,
            slow_start: None,
            tls: None,
            health_check: None,
        }
    }

    pub(super) fn anchor(&self) -> Anchor {
        Anchor::Upstream(self.name.clone())
    }
}

impl Plan {
    /// Notes a remark, once.
    pub(super) fn remark(&mut self, place: &Place, title: &str, anchor: Anchor, kind: Kind, text: impl Into<String>) {
        let remark = Remark { place: place.clone(), title: shortened(title), kind, text: text.into(), anchor };
        let is_same = |it: &Remark| it.place == remark.place && it.title == remark.title && it.text == remark.text;
        if !self.remarks.iter().any(is_same) {
            self.remarks.push(remark);
        }
    }

    /// A name for an upstream, like `wanted` and unlike all others.
    pub(super) fn new_name(&self, wanted: &str) -> String {
        let allowed = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
        let name = wanted.chars().map(|it| if allowed(it) { it } else { '-' });
        let name: String = name.collect::<String>().trim_matches('-').chars().take(NAME_BYTES_MAX).collect();
        let name = if name.is_empty() { "upstream".to_owned() } else { name };
        let is_free = |name: &str| self.upstreams.iter().all(|it| it.name != name);
        let numbered = (2_usize..).map(|number| format!("{name}-{number}"));
        let mut names = std::iter::once(name.clone()).chain(numbered);
        names.find(|name| is_free(name)).unwrap_or(name)
    }

    pub(super) fn upstream(&mut self, name: &str) -> Option<&mut Upstream> {
        self.upstreams.iter_mut().find(|it| it.name == name)
    }

    /// Orders routes so that the first that matches is the right one, and takes out what nothing leads to.
    pub(super) fn finish(&mut self) {
        self.order_routes();
        self.tell_of_passed_on();
        self.drop_unused();
        self.part_cookies();
        self.remarks.sort_by(|one, other| one.place.cmp(&other.place));
    }

    /// Exact hosts before wildcards, long ones of these before short ones, any host last; of a host
    /// the longest path first.
    fn order_routes(&mut self) {
        let mut hosts: Vec<Option<String>> = Vec::new();
        let mut routes: Vec<Route> = Vec::new();
        for route in std::mem::take(&mut self.routes) {
            if !hosts.contains(&route.host) {
                hosts.push(route.host.clone());
            }
            let twin = routes.iter().find(|it| it.host == route.host && it.path == route.path);
            match twin.map(|it| (it.upstream != route.upstream, it.place.clone())) {
                None => routes.push(route),
                Some((true, first)) => {
                    let text = format!(
                        "never reached here: {first} has the same host and path, and routes do not ask at which \
                         listener a request came in"
                    );
                    let title = format!("path {}", route.path);
                    self.remark(&route.place, &title, Anchor::Routes(route.block), Kind::Beware, text);
                }
                Some((false, _)) => {}
            }
        }
        let rank = |host: &Option<String>| match host.as_deref() {
            Some(host) if !host.starts_with('*') => (0, 0),
            Some(host) => (1, usize::MAX - host.len()),
            None => (2, 0),
        };
        routes.sort_by_key(|route| {
            let appeared = hosts.iter().position(|it| *it == route.host);
            (rank(&route.host), appeared, usize::MAX - route.path.len())
        });
        self.routes = routes;
    }

    /// A host without a route for `/` goes on to the routes of wider ones: theirs are other sites.
    fn tell_of_passed_on(&mut self) {
        let mut told: Vec<&str> = Vec::new();
        let mut remarks = Vec::new();
        for (index, route) in self.routes.iter().enumerate() {
            let Some(host) = route.host.as_deref().filter(|host| !told.contains(host)) else { continue };
            told.push(host);
            let has_all = self.routes.iter().any(|it| it.host.as_deref() == Some(host) && it.path == "/");
            let wider = self.routes[index..].iter().find(|it| it.block != route.block && is_wider(it, host));
            if let Some(wider) = wider.filter(|_| !has_all) {
                let text = format!(
                    "requests to {host} that none of its routes takes go on to those of {}, upstream {}",
                    wider.host.as_deref().unwrap_or("any host"),
                    wider.upstream
                );
                remarks.push((route.place.clone(), format!("host {host}"), route.block, text));
            }
        }
        for (place, title, block, text) in remarks {
            self.remark(&place, &title, Anchor::Routes(block), Kind::Beware, text);
        }
    }

    /// An upstream without a route is a mistake in our file.
    fn drop_unused(&mut self) {
        let (used, unused) = std::mem::take(&mut self.upstreams)
            .into_iter()
            .partition(|upstream| self.routes.iter().any(|route| route.upstream == upstream.name));
        self.upstreams = used;
        for Upstream { name, place, .. } in unused {
            let anchor = Anchor::Upstream(name.clone());
            self.remarks.retain(|it| it.anchor != anchor);
            let text = "nothing that was carried over leads to it";
            self.remark(&place, &format!("upstream {name}"), Anchor::Top, Kind::Lost, text);
        }
    }

    /// Two upstreams may not issue one cookie: browsers would have but one of them.
    fn part_cookies(&mut self) {
        let mut taken: Vec<Option<String>> = Vec::new();
        let mut renamed = Vec::new();
        for upstream in &mut self.upstreams {
            let sticky = upstream.affinity.iter_mut().find_map(|source| match source {
                Source::StickyCookie { name, .. } => Some(name),
                _ => None,
            });
            let Some(cookie) = sticky else { continue };
            if taken.contains(cookie) {
                let name = format!("{}-{}", cookie.as_deref().unwrap_or("steadfast"), upstream.name);
                renamed.push((upstream.place.clone(), upstream.name.clone(), name.clone()));
                *cookie = Some(name);
            }
            taken.push(cookie.clone());
        }
        for (place, upstream, cookie) in renamed {
            let text = format!("its sticky cookie is {cookie} here: another upstream issues one of that name");
            let title = format!("upstream {upstream}");
            self.remark(&place, &title, Anchor::Upstream(upstream), Kind::Beware, text);
        }
    }
}

/// Whether a request to `host`, exact or a wildcard, may get to `route`, which is for more hosts.
fn is_wider(route: &Route, host: &str) -> bool {
    match route.host.as_deref() {
        None => true,
        Some(pattern) => pattern != host && pattern.strip_prefix('*').is_some_and(|suffix| host.ends_with(suffix)),
    }
}

/// What our file allows.
const NAME_BYTES_MAX: usize = 56;

/// On one line, without what a terminal or YAML would take for more than text.
fn shortened(title: &str) -> String {
    const MOST: usize = 100;
    let mut short: String = title.chars().take(MOST).collect();
    if title.chars().nth(MOST).is_some() {
        short.push_str("...");
    }
    short
}
