//! nginx's files: what of them is a proxy's.
//!
//! ```text
//! text ─ syntax    directives and blocks, with their lines
//!      ─ include   one tree of all files
//!      ─ sites     server blocks: listeners, hosts, locations ─ proxy: what is proxied, and how
//!      ─ groups    upstream blocks: servers ─ affinity: ip_hash, hash, sticky
//!      ─ fates     everything else, and what to say of it
//! ```

mod affinity;
pub(super) mod fates;
mod groups;
mod include;
mod listen;
pub(super) mod locations;
pub(super) mod proxy;
mod scope;
mod sites;
pub(super) mod syntax;
pub(super) mod value;

use std::net::{IpAddr, SocketAddr};

use http::HeaderName;
use ipnet::IpNet;

use self::fates::Fate;
use self::groups::Group;
use self::include::{Absent, expanded};
use self::scope::Scope;
use self::syntax::Directive;
use super::plan::{Anchor, Kind, Plan};
use super::{Imported, Place, Refused};

pub(super) use self::groups::is_host;
pub use self::include::File;
pub(super) use self::sites::PER_CLIENT_MAX;

/// The configuration that says what the nginx file `text` says.
///
/// `file` is its name in remarks. `directory` is where nginx looks for files that are named without a path, such
/// as `/etc/nginx`; it stands in the paths of certificates. `find` gives the files of an `include`, of which there
/// may be none for a pattern.
///
/// # Errors
///
/// When nginx would refuse the syntax, a file cannot be had, or nothing in it is proxied.
pub fn nginx(
    file: &str,
    text: &str,
    directory: &str,
    find: &mut dyn FnMut(&str) -> Result<Vec<File>, String>,
) -> Result<Imported, Refused> {
    let (tree, absent) = expanded(file, text, find)?;
    if let Some(open) = everywhere(&tree).into_iter().find(|it| it.block.is_some() && fates::is_without_block(&it.name))
    {
        return Err(open.place.refuse(&format!("\"{}\" does not end in \";\"", open.name)));
    }
    let start = Place { file: file.into(), line: 1 };
    let mut reader = Reader::new(&tree, directory);
    reader.absent(absent);
    reader.process(&tree);
    reader.real_ip(&tree);
    reader.groups();
    reader.sites()?;
    reader.affinities();
    reader.http();

    if reader.plan.routes.is_empty() {
        return Err(start.refuse("nothing in it is proxied by proxy_pass to servers that can be reached from here"));
    }
    Ok(Imported::of(
        reader.plan,
        &format!("Written by steadfast import-nginx from {file}; each remark names its line there."),
    ))
}

/// What is known while the tree is read.
struct Reader<'a> {
    plan: Plan,
    /// The directives of `http`, or of a file that is meant for it.
    http: Vec<&'a Directive>,
    directory: &'a str,
    real_ip: RealIp,
    groups: Vec<Group<'a>>,
    /// Where the maps stand that have a source of affinity in their place.
    used_maps: Vec<Place>,
}

/// How nginx learns the client's address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RealIp {
    /// Where it stands.
    header: RealIpHeader,
    is_recursive: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum RealIpHeader {
    /// Nowhere: it is the previous hop's.
    Nowhere,
    ProxyProtocol,
    ForwardedFor,
    Other(String),
}

impl<'a> Reader<'a> {
    fn new(tree: &'a [Directive], directory: &'a str) -> Self {
        let is_whole = tree.iter().any(|it| it.name == "http");
        let http = match is_whole {
            true => tree.iter().filter(|it| it.name == "http").flat_map(Directive::children).collect(),
            false => tree.iter().collect(),
        };
        let plan = Plan { has_access_log: true, ..Plan::default() };
        let real_ip = RealIp { header: RealIpHeader::Nowhere, is_recursive: false };
        Self { plan, http, directory, real_ip, groups: Vec::new(), used_maps: Vec::new() }
    }

    fn scope(&self) -> Scope<'a> {
        Scope::of(self.http.clone())
    }

    fn remark(&mut self, directive: &Directive, anchor: Anchor, kind: Kind, text: impl Into<String>) {
        self.plan.remark(&directive.place, &directive.title(), anchor, kind, text);
    }

    /// Files that were not found: nginx may have had some.
    fn absent(&mut self, absent: Vec<Absent>) {
        for Absent { include, problem } in absent {
            match problem {
                Some(problem) => {
                    let text = format!("{problem}; what it says is missing here: import again with that file in place");
                    self.remark(&include, Anchor::Top, Kind::Missing, text);
                }
                None => {
                    let text = "there is no such file here; if nginx has one, import where it is, or with --prefix";
                    self.remark(&include, Anchor::Top, Kind::Note, text);
                }
            }
        }
    }

    /// What concerns the whole process.
    fn process(&mut self, tree: &'a [Directive]) {
        let is_whole = tree.iter().any(|it| it.name == "http");
        for directive in tree {
            match directive.name.as_str() {
                "worker_processes" if directive.first() != "auto" => match directive.first().parse() {
                    Ok(threads @ 1..=THREADS_MAX) => self.plan.threads = Some(threads),
                    _ => self.remark(directive, Anchor::Top, Kind::Lost, "threads are 1 to 256; it is auto here"),
                },
                "stream" | "mail" => {
                    let text = "only HTTP is proxied here; keep nginx for it";
                    self.plan.remark(&directive.place, &directive.name, Anchor::Top, Kind::Lost, text);
                }
                _ if is_whole && directive.name != "http" => self.tell_fate(directive, &Anchor::Top),
                _ => {}
            }
        }
    }

    /// What stands in `http` for all sites.
    fn http(&mut self) {
        for directive in self.http.clone() {
            match directive.name.as_str() {
                "access_log" if directive.first() == "off" => self.plan.has_access_log = false,
                "large_client_header_buffers" => self.head_limits(directive),
                "map" if self.used_maps.contains(&directive.place) => {}
                _ => self.tell_fate(directive, &Anchor::Top),
            }
        }
    }

    /// `large_client_header_buffers 4 16k`: a field and the request line fit into one each.
    fn head_limits(&mut self, directive: &Directive) {
        let number = directive.first().parse::<u64>().ok();
        let size = directive.arguments.get(1).and_then(|it| value::size(it));
        let Some((number, size)) = number.zip(size) else {
            return self.remark(directive, Anchor::Top, Kind::Lost, "no number and size");
        };
        self.plan.limits.uri = Some(size.clamp(256, HEAD_KIB_MAX << 10));
        self.plan.limits.head = Some((number.saturating_mul(size) >> 10).clamp(1, HEAD_KIB_MAX));
    }

    /// Says of a directive what becomes of it, if it is not carried over elsewhere.
    fn tell_fate(&mut self, directive: &Directive, anchor: &Anchor) {
        match fates::fate(directive) {
            Fate::Elsewhere | Fate::Meaningless => {}
            Fate::Lost(text) => self.remark(directive, anchor.clone(), Kind::Lost, text),
        }
    }

    /// `set_real_ip_from` and its kin, wherever they stand: there is one list here.
    fn real_ip(&mut self, tree: &'a [Directive]) {
        let all = everywhere(tree);
        let hops: Vec<&Directive> = all.iter().copied().filter(|it| it.name == "set_real_ip_from").collect();
        let header = all.iter().find(|it| it.name == "real_ip_header");
        if hops.is_empty() {
            if let Some(header) = header {
                let text = "without set_real_ip_from nginx believes nobody; here trusted_proxies are private networks";
                self.remark(header, Anchor::Top, Kind::Beware, text);
            }
            return;
        }
        let mut networks = Vec::new();
        for hop in hops {
            match network(hop.first()) {
                Some(network) if !networks.contains(&network) => networks.push(network),
                Some(_) => {}
                None => self.remark(hop, Anchor::Top, Kind::Lost, "trusted_proxies are networks and addresses only"),
            }
        }
        self.plan.trusted_proxies = (!networks.is_empty()).then_some(networks);
        let name = header.map_or("X-Real-IP", |it| it.first());
        self.real_ip.is_recursive = all.iter().any(|it| it.name == "real_ip_recursive" && it.first() == "on");
        self.real_ip.header = match name.to_ascii_lowercase().as_str() {
            "x-forwarded-for" => RealIpHeader::ForwardedFor,
            "proxy_protocol" => RealIpHeader::ProxyProtocol,
            _ if HeaderName::from_bytes(name.as_bytes()).is_err() => {
                if let Some(header) = header {
                    self.remark(header, Anchor::Top, Kind::Lost, "it is no name of a field");
                }
                RealIpHeader::Nowhere
            }
            _ => {
                self.plan.client_ip_header = Some(name.to_owned());
                RealIpHeader::Other(name.to_owned())
            }
        };
    }
}

const THREADS_MAX: usize = 256;

/// The largest `limits.head_bytes`.
const HEAD_KIB_MAX: u64 = 256;

/// All directives, those in blocks too.
fn everywhere(tree: &[Directive]) -> Vec<&Directive> {
    let mut all = Vec::new();
    let mut rest: Vec<&Directive> = tree.iter().rev().collect();
    while let Some(directive) = rest.pop() {
        all.push(directive);
        rest.extend(directive.children().iter().rev());
    }
    all
}

/// A network or address, as ours are written.
fn network(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpAddr>().map(IpNet::from).or_else(|_| text.parse::<IpNet>()).ok()?.trunc();
    match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 && v6.addr().to_ipv4_mapped().is_some() => None,
        _ => Some(network),
    }
}

/// An address of somebody to connect to, with this port where none is written.
fn address(text: &str, port: u16) -> Option<SocketAddr> {
    let in_brackets = |text: &str| text.strip_prefix('[').and_then(|it| it.strip_suffix(']')).map(str::to_owned);
    let ip = text.parse::<IpAddr>().ok().filter(IpAddr::is_ipv4).or_else(|| in_brackets(text)?.parse().ok());
    let address: SocketAddr = ip.map_or_else(|| text.parse().ok(), |ip| Some(SocketAddr::new(ip, port)))?;
    Some(address)
}
