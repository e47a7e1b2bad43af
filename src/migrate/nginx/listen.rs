//! `listen` and `ssl_*`: where clients connect, and what they are shown.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::super::plan::{Anchor, Kind, Listener, Tls};
use super::scope::Scope;
use super::syntax::Directive;
use super::{Reader, address};

/// A `listen` of a site.
#[derive(Clone, Debug)]
pub(super) struct Listen<'a> {
    /// `None` where nobody wrote one: port 80.
    pub(super) directive: Option<&'a Directive>,
    pub(super) bind: SocketAddr,
    /// Whether hosts that no site names belong to this one, because it says so.
    pub(super) is_default: bool,
    pub(super) is_ssl: bool,
    is_http2: bool,
    is_proxy_protocol: bool,
}

impl<'a> Reader<'a> {
    /// Where a site is listened for. What cannot be carried over is told at `anchor`.
    pub(super) fn listens(&mut self, scope: &Scope<'a>, anchor: &Anchor) -> Vec<Listen<'a>> {
        let directives: Vec<&Directive> = scope.own().iter().copied().filter(|it| it.name == "listen").collect();
        let mut listens = Vec::new();
        if directives.is_empty() {
            let bind = (Ipv4Addr::UNSPECIFIED, 80).into();
            let http2 = scope.word("http2") == "on";
            listens.push(Listen {
                directive: None,
                bind,
                is_default: false,
                is_ssl: false,
                is_http2: http2,
                is_proxy_protocol: false,
            });
        }
        for directive in directives {
            let parameters = &directive.arguments.get(1..).unwrap_or_default();
            let has = |name: &str| parameters.iter().any(|it| it == name);
            if has("quic") {
                self.remark(directive, anchor.clone(), Kind::Lost, "HTTP/3 is not spoken here");
                continue;
            }
            let Some(bind) = bind(directive.first()) else {
                let text = "a listener has an IP and a port here";
                self.remark(directive, anchor.clone(), Kind::Lost, text);
                continue;
            };
            let listen = Listen {
                directive: Some(directive),
                bind,
                is_default: has("default_server") || has("default"),
                is_ssl: has("ssl") || scope.word("ssl") == "on",
                is_http2: has("http2") || scope.word("http2") == "on",
                is_proxy_protocol: has("proxy_protocol"),
            };
            if has("ipv6only=off") && bind.ip() == Ipv6Addr::UNSPECIFIED {
                let bind = SocketAddr::from((Ipv4Addr::UNSPECIFIED, bind.port()));
                listens.push(Listen { bind, ..listen.clone() });
            }
            listens.push(listen);
        }
        listens
    }

    /// Opens what a site listens at, unless it is open.
    pub(super) fn open(&mut self, listen: &Listen<'a>, scope: &Scope<'a>, place: &'a Directive) {
        let directive = listen.directive.unwrap_or(place);
        let anchor = Anchor::Listener(listen.bind);
        let overlaps = |it: &&Listener| {
            let (one, other) = (it.bind, listen.bind);
            let is_wild = one.ip().is_unspecified() || other.ip().is_unspecified();
            one != other && one.port() == other.port() && one.is_ipv4() == other.is_ipv4() && is_wild
        };
        if let Some(other) = self.plan.listeners.iter().find(overlaps).map(|it| it.bind) {
            let text = format!("{other} and it overlap, and routes do not ask where a request came in; one is enough");
            return self.remark(directive, Anchor::Listener(other), Kind::Lost, text);
        }
        if self.plan.listeners.iter().all(|it| it.bind != listen.bind) {
            let proxy_protocol = listen.is_proxy_protocol;
            if proxy_protocol && self.plan.trusted_proxies.is_none() {
                let text = "PROXY headers are believed only from trusted_proxies, which are private networks here: name the \
                            balancer if it is elsewhere; nginx takes them from anybody";
                self.remark(directive, anchor.clone(), Kind::Beware, text);
            }
            let h2c = listen.is_http2 && !listen.is_ssl;
            self.plan.listeners.push(Listener { bind: listen.bind, proxy_protocol, tls: None, h2c });
        }
        if listen.is_ssl {
            self.encrypt(listen, scope, directive);
        }
    }

    /// Adds the site's certificates to the listener.
    fn encrypt(&mut self, listen: &Listen<'a>, scope: &Scope<'a>, directive: &'a Directive) {
        let anchor = Anchor::Listener(listen.bind);
        let (certs, keys) = (scope.all("ssl_certificate"), scope.all("ssl_certificate_key"));
        let mut pairs = Vec::new();
        for (cert, key) in certs.iter().zip(&keys) {
            match self.path(cert.first()).zip(self.path(key.first())) {
                Some(pair) => pairs.push(pair),
                None => {
                    let text =
                        "certificates and keys are files here; write their paths to listeners[].tls.certificates";
                    self.remark(cert, anchor.clone(), Kind::Missing, text);
                }
            }
        }
        if certs.is_empty() {
            let text = "there is no ssl_certificate for it; write one to listeners[].tls.certificates";
            self.remark(directive, anchor.clone(), Kind::Missing, text);
        }
        let protocols = scope.get("ssl_protocols");
        let speaks = |version: &str| protocols.is_some_and(|it| it.arguments.iter().any(|it| it == version));
        if let Some(protocols) = protocols.filter(|_| speaks("TLSv1") || speaks("TLSv1.1") || speaks("SSLv3")) {
            let text = "TLS 1.2 and 1.3 only; older versions are broken";
            self.remark(protocols, anchor.clone(), Kind::Lost, text);
        }
        let client_ca = match scope.word("ssl_verify_client") {
            "on" => {
                let ca = scope.get("ssl_client_certificate").and_then(|it| self.path(it.first()));
                if ca.is_none() {
                    let text = "clients' certificates need ssl_client_certificate; write its path to listeners[].tls.client_ca";
                    self.remark(directive, anchor.clone(), Kind::Missing, text);
                }
                ca
            }
            "" | "off" => None,
            _ => {
                let text = "clients' certificates are required here (listeners[].tls.client_ca) or not asked for";
                if let Some(verify) = scope.get("ssl_verify_client") {
                    self.remark(verify, anchor.clone(), Kind::Lost, text);
                }
                None
            }
        };
        let is_1_3_only = speaks("TLSv1.3") && !speaks("TLSv1.2") && !speaks("TLSv1.1") && !speaks("TLSv1");
        let Some(listener) = self.plan.listeners.iter_mut().find(|it| it.bind == listen.bind) else { return };
        listener.h2c = false;
        let first = listener.tls.is_none();
        let tls = listener.tls.get_or_insert_with(Tls::default);
        // One listener has one rule for all names; the first site's is that of nginx, too, for versions.
        let differs = !first && (tls.client_ca != client_ca || tls.is_1_3_only != is_1_3_only);
        if first {
            (tls.client_ca, tls.is_1_3_only) = (client_ca, is_1_3_only);
        }
        pairs.retain(|pair| !tls.certificates.contains(pair));
        if listen.is_default {
            tls.certificates.splice(0..0, pairs);
        } else {
            tls.certificates.append(&mut pairs);
        }
        if differs {
            let text = "versions and clients' certificates are the listener's here, for all names: those of its first site hold";
            self.remark(directive, anchor, Kind::Beware, text);
        }
    }

    /// The absolute path of a file that nginx names; `None` for what is no file.
    pub(super) fn path(&self, text: &str) -> Option<String> {
        let is_other =
            text.is_empty() || text.contains('$') || text.starts_with("data:") || text.starts_with("engine:");
        match text {
            _ if is_other || text.starts_with("store:") => None,
            _ if text.starts_with('/') => Some(text.to_owned()),
            _ => Some(format!("{}/{text}", self.directory.trim_end_matches('/'))),
        }
    }
}

/// Where `listen` listens.
fn bind(text: &str) -> Option<SocketAddr> {
    let any = |port: &str| Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port.parse::<u16>().ok()?)));
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return any(text);
    }
    if let Some(port) = text.strip_prefix("*:") {
        return any(port);
    }
    match text {
        "*" => any("80"),
        "localhost" => Some((Ipv4Addr::LOCALHOST, 80).into()),
        _ => match text.strip_prefix("localhost:") {
            Some(port) => Some((Ipv4Addr::LOCALHOST, port.parse().ok()?).into()),
            None => address(text, 80),
        },
    }
}
