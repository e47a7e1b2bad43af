//! Ingresses of Kubernetes, as ingress-nginx reads them: rules, TLS, annotations; and the Services they lead to, if
//! these stand in the same file.
//!
//! A Service with an address of its own would hide its pods, and with them every affinity. So servers are found by the
//! names of headless Services.

mod annotations;
mod tree;

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use rustls::pki_types::ServerName;

use self::annotations::{PREFIX, Settings};
use self::tree::Node;
use super::nginx::fates::{Fate, fate};
use super::nginx::locations::encoded;
use super::nginx::proxy::lost_field;
use super::nginx::syntax::{self, Directive};
use super::nginx::value::{self, Regex};
use super::plan::{Anchor, At, Kind, Listener, Plan, Route, Server, State, Tls, Upstream, UpstreamTls};
use super::{Imported, Place, Refused};

/// The configuration that says what the Ingresses in `text` say. `file` is its name in remarks.
///
/// # Errors
///
/// When it is no YAML, or no Ingress in it leads anywhere.
pub fn ingress(file: &str, text: &str) -> Result<Imported, Refused> {
    let file: Rc<str> = file.into();
    let documents = tree::documents(&file, text)?;
    let objects: Vec<&Node> = documents.iter().flat_map(objects).collect();
    let of_kind = |kind: &str| objects.iter().copied().filter(move |it| it.text(&["kind"]) == kind).collect::<Vec<_>>();
    let plan = Plan { has_access_log: true, ..Plan::default() };
    let mut reader = Reader { plan, file, services: of_kind("Service"), groups: Vec::new(), has_plain: false };
    for (block, ingress) in of_kind("Ingress").into_iter().enumerate() {
        reader.ingress(ingress, block);
    }
    if reader.plan.routes.is_empty() {
        let place = Place { file: Rc::clone(&reader.file), line: 1 };
        return Err(place.refuse("there is no Ingress in it with a rule that leads to a Service"));
    }
    reader.listen();
    let origin = format!("Written by steadfast import-ingress from {}; each remark names its line there.", reader.file);
    Ok(Imported::of(reader.plan, &origin))
}

/// A document, or the items of a list as `kubectl get` writes it.
fn objects(document: &Node) -> Vec<&Node> {
    match document.items(&["items"]) {
        [] => vec![document],
        items => items.iter().collect(),
    }
}

struct Reader<'a> {
    plan: Plan,
    file: Rc<str>,
    services: Vec<&'a Node>,
    groups: Vec<Group>,
    /// Whether some site is served without TLS.
    has_plain: bool,
}

/// An upstream, and what it is for.
struct Group {
    namespace: String,
    service: String,
    port: String,
    settings: Settings,
    upstream: String,
}

/// Where a rule leads.
struct Backend<'a> {
    service: &'a str,
    /// Its number or name.
    port: &'a str,
    line: usize,
}

impl<'a> Reader<'a> {
    fn place(&self, line: usize) -> Place {
        Place { file: Rc::clone(&self.file), line }
    }

    fn remark(&mut self, line: usize, title: &str, anchor: Anchor, kind: Kind, text: impl Into<String>) {
        let place = self.place(line);
        self.plan.remark(&place, title, anchor, kind, text);
    }

    fn ingress(&mut self, ingress: &'a Node, block: usize) {
        let anchor = Anchor::Routes(block);
        let mut settings = Settings::default();
        let annotations = ingress.at(&["metadata", "annotations"]).map(Node::entries).unwrap_or_default();
        for (name, line, node) in annotations {
            let text = node.text(&[]);
            let Some(name) = name.strip_prefix(PREFIX) else {
                if name.starts_with("nginx.org/") && name != "nginx.org/websocket-services" {
                    let text = "annotations of the other controller, of NGINX Inc., are not read";
                    self.remark(*line, name, anchor.clone(), Kind::Lost, text);
                }
                continue;
            };
            settings.pairs.push((name.to_owned(), text.to_owned()));
            if let Some((kind, remark)) = annotations::remark(name, text) {
                self.remark(
                    *line,
                    &format!("{name}: {}", text.lines().next().unwrap_or("")),
                    anchor.clone(),
                    kind,
                    remark,
                );
            }
        }
        let protocol = settings.get("backend-protocol");
        if settings.is_on("canary") || !["", "HTTP", "HTTPS", "AUTO_HTTP"].contains(&protocol) {
            return;
        }
        let per_client = settings.get("limit-connections").parse::<u64>().ok();
        let per_client = per_client.filter(|it| *it > 0).map(|it| it.min(super::nginx::PER_CLIENT_MAX));
        self.plan.limits.per_client = self.plan.limits.per_client.max(per_client);
        let hosts = self.tls(ingress, &settings, &anchor);
        let default = ingress.at(&["spec", "defaultBackend"]).or_else(|| ingress.at(&["spec", "backend"]));
        for rule in ingress.items(&["spec", "rules"]) {
            self.rule(ingress, rule, &settings, block);
            let host = rule.text(&["host"]);
            self.has_plain |= !hosts.contains(&host) || settings.get("ssl-redirect") == "false";
        }
        if let Some(default) = default.and_then(backend) {
            self.has_plain |= hosts.is_empty();
            self.route(ingress, None, "/", &default, &settings, block);
        }
        self.snippets(ingress, &settings, block);
    }

    /// The certificates of an Ingress, and the hosts they are for.
    fn tls(&mut self, ingress: &'a Node, settings: &Settings, anchor: &Anchor) -> Vec<&'a str> {
        let mut hosts = Vec::new();
        for entry in ingress.items(&["spec", "tls"]) {
            hosts.extend(entry.items(&["hosts"]).iter().map(|it| it.text(&[])));
            let secret = entry.text(&["secretName"]);
            let line = entry.line;
            if secret.is_empty() {
                let text =
                    "without a secret ingress-nginx shows a certificate of its own; write one to listeners[].tls";
                self.remark(line, "tls", anchor.clone(), Kind::Missing, text);
                continue;
            }
            let directory = format!("/etc/steadfast/tls/{secret}");
            let text = format!("mount this secret at {directory}: tls.crt and tls.key are read from there");
            self.remark(line, &format!("secretName {secret}"), Anchor::Listener(TLS), Kind::Beware, text);
            let pair = (format!("{directory}/tls.crt"), format!("{directory}/tls.key"));
            if self.plan.listeners.is_empty() {
                let tls = Some(Tls::default());
                self.plan.listeners.push(Listener { bind: TLS, proxy_protocol: false, tls, h2c: false });
            }
            if let Some(tls) = self.plan.listeners.first_mut().and_then(|it| it.tls.as_mut())
                && !tls.certificates.contains(&pair)
            {
                tls.certificates.push(pair);
            }
        }
        if !hosts.is_empty() && settings.get("ssl-redirect") != "false" {
            let text = "ingress-nginx redirects http to https for these hosts; redirects are not made here, so let something in \
                        front do it";
            let line = ingress.at(&["spec", "tls"]).map_or(ingress.line, |it| it.line);
            self.remark(line, "tls", Anchor::Listener(TLS), Kind::Lost, text);
        }
        hosts
    }

    fn rule(&mut self, ingress: &'a Node, rule: &'a Node, settings: &Settings, block: usize) {
        let host = rule.text(&["host"]).to_ascii_lowercase();
        let is_host = super::nginx::is_host(host.strip_prefix("*.").unwrap_or(&host));
        let anchor = Anchor::Routes(block);
        if !host.is_empty() && !is_host {
            let text = "hosts are exact or *.example.com here";
            return self.remark(rule.line, &format!("host {host}"), anchor, Kind::Lost, text);
        }
        let host = (!host.is_empty()).then_some(host);
        for path in rule.items(&["http", "paths"]) {
            let written = Some(path.text(&["path"])).filter(|it| !it.is_empty()).unwrap_or("/");
            let kind = path.text(&["pathType"]);
            let line = path.at(&["path"]).map_or(path.line, |it| it.line);
            let title = format!("path {written}");
            let paths = self.prefixes(line, &title, written, kind, settings, &anchor);
            let Some(backend) = path.get("backend").and_then(backend) else {
                self.remark(line, &title, anchor.clone(), Kind::Lost, "it leads to no Service");
                continue;
            };
            for path in paths {
                self.route(ingress, host.clone(), &path, &backend, settings, block);
            }
        }
    }

    /// Our paths for one of an Ingress.
    fn prefixes(
        &mut self,
        line: usize,
        title: &str,
        path: &str,
        kind: &str,
        settings: &Settings,
        anchor: &Anchor,
    ) -> Vec<String> {
        let is_regex = settings.is_on("use-regex") || !settings.get("rewrite-target").is_empty();
        let (paths, note) = match kind {
            _ if is_regex && kind != "Exact" => match value::regex(&format!("^{}", path.trim_start_matches('^'))) {
                Regex::Prefixes(paths) => (paths, "a path is a prefix here, and upper case is not lower case"),
                Regex::Other(prefix) => {
                    let more = prefix.map(|it| format!("; path: {it} would take these and more")).unwrap_or_default();
                    self.remark(line, title, anchor.clone(), Kind::Lost, format!("paths are prefixes here{more}"));
                    return Vec::new();
                }
            },
            "Exact" => (vec![path.to_owned()], "a path is a prefix here, so longer paths are taken too"),
            "Prefix" if !path.ends_with('/') => (
                vec![path.to_owned()],
                "a path is a prefix byte for byte here, so it takes what goes on without a / too",
            ),
            _ => (vec![path.to_owned()], ""),
        };
        let paths: Vec<String> = paths.iter().filter_map(|it| encoded(it)).collect();
        if paths.is_empty() {
            self.remark(line, title, anchor.clone(), Kind::Lost, "a path begins with / and has no *, ? or # here");
        } else if !note.is_empty() && paths != [path] || kind == "Exact" || (note.contains("byte") && path != "/") {
            self.remark(line, title, anchor.clone(), Kind::Beware, note);
        }
        paths
    }

    fn route(
        &mut self,
        ingress: &Node,
        host: Option<String>,
        path: &str,
        backend: &Backend<'_>,
        settings: &Settings,
        block: usize,
    ) {
        let namespace = Some(ingress.text(&["metadata", "namespace"])).filter(|it| !it.is_empty()).unwrap_or("default");
        let Some(upstream) = self.upstream(namespace, backend, settings) else { return };
        if path.contains("socket.io") || path.contains("engine.io") {
            let (affinity, keyless) = settings.affinity(true);
            if let Some(upstream) = self.plan.upstream(&upstream) {
                (upstream.affinity, upstream.keyless) = (affinity, keyless);
            }
        }
        let place = self.place(backend.line);
        self.plan.routes.push(Route { host, path: path.to_owned(), upstream, block, place });
    }

    /// The name of the upstream for a Service. One that Ingresses want to be used differently is several.
    fn upstream(&mut self, namespace: &str, backend: &Backend<'_>, settings: &Settings) -> Option<String> {
        let is_it = |it: &&Group| {
            it.namespace == namespace
                && it.service == backend.service
                && it.port == backend.port
                && it.settings == *settings
        };
        if let Some(group) = self.groups.iter().find(is_it) {
            return Some(group.upstream.clone());
        }
        let title = format!("service {}", backend.service);
        let Some((at, note)) = self.server(namespace, backend) else {
            let text = "no port leads to its pods";
            self.remark(backend.line, &title, Anchor::Top, Kind::Lost, text);
            return None;
        };
        let name = self.plan.new_name(backend.service);
        let mut upstream = Upstream::new(name.clone(), self.place(backend.line));
        upstream.servers.push(Server { at, weight: 1, state: State::Ready });
        (upstream.affinity, upstream.keyless) = settings.affinity(false);

        let day = Duration::from_secs(86_400);
        let read = settings.time("proxy-read-timeout");
        upstream.timeouts.connect = settings.time("proxy-connect-timeout").map(|it| it.min(day));
        upstream.timeouts.response_head = read.map(|it| it.min(day));
        upstream.timeouts.body = upstream.timeouts.response_head;
        upstream.timeouts.send = settings.time("proxy-send-timeout").map(|it| it.min(day));
        upstream.timeouts.idle = read.filter(|it| *it > Duration::from_secs(3_600)).map(|it| it.min(30 * day));
        if settings.get("backend-protocol") == "HTTPS" {
            upstream.tls = Some(self.upstream_tls(backend, settings, &name));
        }
        self.plan.upstreams.push(upstream);
        for text in note {
            self.remark(backend.line, &title, Anchor::Upstream(name.clone()), Kind::Beware, text);
        }
        self.groups.push(Group {
            namespace: namespace.to_owned(),
            service: backend.service.to_owned(),
            port: backend.port.to_owned(),
            settings: settings.clone(),
            upstream: name.clone(),
        });
        Some(name)
    }

    fn upstream_tls(&mut self, backend: &Backend<'_>, settings: &Settings, name: &str) -> UpstreamTls {
        let is_unverified = settings.get("proxy-ssl-verify") != "on";
        let anchor = Anchor::Upstream(name.to_owned());
        let text = match is_unverified {
            true => {
                "ingress-nginx does not ask who its servers are, so tls.verify is off; write tls: { ca: FILE, server_name: NAME } to ask"
            }
            false => "mount the authorities of proxy-ssl-secret, and write their path to tls.ca",
        };
        let kind = if is_unverified { Kind::Beware } else { Kind::Missing };
        self.remark(backend.line, "backend-protocol: HTTPS", anchor, kind, text);
        let server_name =
            Some(settings.get("proxy-ssl-name")).filter(|it| ServerName::try_from(*it).is_ok()).map(str::to_owned);
        UpstreamTls { is_unverified, ca: None, server_name, certificate: None }
    }

    /// Where the pods of a Service are found, and what must be so for that.
    fn server(&self, namespace: &str, backend: &Backend<'_>) -> Option<(At, Vec<String>)> {
        let namespace_of = |it: &Node| it.text(&["metadata", "namespace"]).to_owned();
        let is_it = |it: &&&Node| {
            let of = namespace_of(it);
            it.text(&["metadata", "name"]) == backend.service && (of.is_empty() || of == namespace)
        };
        let service = self.services.iter().find(is_it);
        let host = format!("{}.{namespace}.svc.cluster.local.", backend.service);
        if backend.service.is_empty() || !super::nginx::is_host(host.trim_end_matches('.')) {
            return None;
        }
        let mut notes = Vec::new();
        if service.is_none_or(|it| it.text(&["spec", "clusterIP"]) != "None") {
            notes.push("it must be headless (clusterIP: None), or a headless one be made beside it and named here: otherwise its \
                        name is one address for all pods, and affinity is lost".to_owned());
        }
        let ports = service.map(|it| it.items(&["spec", "ports"])).unwrap_or_default();
        let matches = |it: &&Node| it.text(&["port"]) == backend.port || it.text(&["name"]) == backend.port;
        let target = ports.iter().find(matches).map(|it| {
            let target = it.text(&["targetPort"]);
            if target.is_empty() { it.text(&["port"]) } else { target }
        });
        let port = target.unwrap_or(backend.port);
        match port.parse::<u16>() {
            Ok(0) => None,
            Ok(number) => {
                if target.is_none() {
                    notes.push(format!(
                        "port {number} is the Service's; write that of the pods (targetPort), if it is another"
                    ));
                }
                Some((At::Dns(host, number, None), notes))
            }
            // The records of a named port say its number, whatever it is.
            Err(_) => {
                let name = ports.iter().find(matches).map_or(backend.port, |it| it.text(&["name"]));
                let is_name = !name.is_empty() && super::nginx::is_host(name);
                is_name.then(|| (At::Srv(format!("_{name}._tcp.{host}"), None), notes))
            }
        }
    }

    /// Directives of nginx that are written into annotations.
    fn snippets(&mut self, ingress: &'a Node, settings: &Settings, block: usize) {
        let annotations = ingress.at(&["metadata", "annotations"]).map(Node::entries).unwrap_or_default();
        for (name, line, node) in annotations {
            let is_snippet =
                ["configuration-snippet", "server-snippet"].iter().any(|it| name.strip_prefix(PREFIX) == Some(*it));
            if !is_snippet {
                continue;
            }
            match syntax::parse(&self.file, node.text(&[])) {
                Ok(directives) => {
                    // A block of text begins in the line behind its key.
                    let begin = if node.text(&[]).contains('\n') { *line } else { line - 1 };
                    directives.iter().for_each(|it| self.snippet(it, begin + it.place.line, settings, block));
                }
                Err(refused) => {
                    let text = format!("cannot be read: {}", refused.text);
                    self.remark(*line, name, Anchor::Routes(block), Kind::Lost, text);
                }
            }
        }
    }

    fn snippet(&mut self, directive: &Directive, line: usize, settings: &Settings, block: usize) {
        let time = || value::time(directive.first()).filter(|it| !it.is_zero());
        let day = Duration::from_secs(86_400);
        let upstreams: Vec<String> =
            self.groups.iter().filter(|it| it.settings == *settings).map(|it| it.upstream.clone()).collect();
        let text = match directive.name.as_str() {
            "proxy_set_header" => lost_field(directive.first(), directive.arguments.get(1).map_or("", String::as_str)),
            name @ ("proxy_read_timeout" | "proxy_send_timeout" | "proxy_connect_timeout") => {
                for upstream in upstreams {
                    let Some(upstream) = self.plan.upstream(&upstream) else { continue };
                    let timeouts = &mut upstream.timeouts;
                    match name {
                        "proxy_read_timeout" => {
                            timeouts.response_head = time().map(|it| it.min(day));
                            timeouts.body = timeouts.response_head;
                            timeouts.idle =
                                time().filter(|it| *it > Duration::from_secs(3_600)).map(|it| it.min(30 * day));
                        }
                        "proxy_send_timeout" => timeouts.send = time().map(|it| it.min(day)),
                        _ => timeouts.connect = time().map(|it| it.min(day)),
                    }
                }
                None
            }
            _ => match fate(directive) {
                Fate::Lost(text) => Some(text),
                Fate::Meaningless => None,
                Fate::Elsewhere => Some("not in a snippet"),
            },
        };
        if let Some(text) = text {
            self.remark(line, &directive.title(), Anchor::Routes(block), Kind::Lost, text);
        }
    }

    /// Where the controller has listened, for a process without root.
    fn listen(&mut self) {
        if self.has_plain || self.plan.listeners.is_empty() {
            self.plan.listeners.insert(0, Listener { bind: PLAIN, proxy_protocol: false, tls: None, h2c: false });
            if self.plan.listeners.len() > 1 {
                let text = "all hosts can be reached here, those of TLS too: routes do not ask where a request came in";
                self.remark(1, "http", Anchor::Listener(PLAIN), Kind::Beware, text);
            }
        }
    }
}

const PLAIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);
const TLS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8443);

/// The Service that `backend:` names, as of `networking.k8s.io/v1` or the versions before it.
fn backend(node: &Node) -> Option<Backend<'_>> {
    let line = node.line;
    let old = node.text(&["serviceName"]);
    if !old.is_empty() {
        return Some(Backend { service: old, port: node.text(&["servicePort"]), line });
    }
    let service = node.get("service")?;
    let number = service.text(&["port", "number"]);
    let port = if number.is_empty() { service.text(&["port", "name"]) } else { number };
    Some(Backend { service: service.text(&["name"]), port, line })
}
