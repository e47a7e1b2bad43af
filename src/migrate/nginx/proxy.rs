//! `proxy_*`: where a location leads, and how its servers are spoken to.

use std::time::Duration;

use rustls::pki_types::ServerName;

use super::super::plan::{Anchor, Kind, Upstream, UpstreamTls};
use super::groups::{Group, Uses};
use super::scope::Scope;
use super::syntax::Directive;
use super::{Reader, value};

/// A `proxy_pass`, taken apart.
struct Target {
    is_https: bool,
    /// The name of an upstream, or host and port.
    authority: String,
    /// What stands behind it.
    uri: String,
}

impl<'a> Reader<'a> {
    /// The upstream that the `proxy_pass` of `scope` leads to, with all that the scope says of it. `None`, and a
    /// remark, if it leads nowhere that we could.
    pub(super) fn proxied(&mut self, scope: &Scope<'a>, anchor: &Anchor, path: &str) -> Option<String> {
        let pass = scope.own().iter().copied().find(|it| it.name == "proxy_pass")?;
        if pass.first().contains("://unix:") {
            let text = "servers are reached by TCP here; have this one listen at an address";
            self.remark(pass, anchor.clone(), Kind::Lost, text);
            return None;
        }
        let Some(target) = target(pass.first(), scope) else {
            let text = "where it leads is put together for each request; a route leads to one upstream here";
            self.remark(pass, anchor.clone(), Kind::Lost, text);
            return None;
        };
        let group = self.group_of(&target, pass, scope)?;
        let upstream = self.groups[group].upstream.clone();
        if self.plan.upstream(&upstream).is_none_or(|it| it.servers.is_empty()) {
            return None; // Its block has been spoken of.
        }
        self.tell_of_uri(&target, pass, path, anchor);
        self.note_uses(group, scope, path);
        self.timeouts(scope, &upstream);
        self.fields(scope, pass, &target, anchor);
        self.tell_of_silence(group, scope, pass, path);
        Some(upstream)
    }

    /// The index of the group that a target means. One that is reached both with TLS and without is two.
    fn group_of(&mut self, target: &Target, pass: &Directive, scope: &Scope<'a>) -> Option<usize> {
        let is_it = |it: &Group<'_>| it.name == target.authority;
        let fits = |it: &Group<'_>| is_it(it) && it.is_https.is_none_or(|is| is == target.is_https);
        let found = match self.groups.iter().position(fits) {
            Some(found) => found,
            None => match self.groups.iter().position(is_it) {
                Some(other) => self.twin(other, target.is_https),
                None => self.direct(target, pass)?,
            },
        };
        if self.groups[found].is_https.is_none() {
            self.groups[found].is_https = Some(target.is_https);
            if target.is_https {
                let tls = self.tls(scope, pass, &self.groups[found].upstream.clone());
                if let Some(upstream) = self.plan.upstream(&self.groups[found].upstream.clone()) {
                    upstream.tls = Some(tls);
                }
            }
        }
        Some(found)
    }

    fn twin(&mut self, of: usize, is_https: bool) -> usize {
        let group = self.groups[of].clone();
        let name = self.plan.new_name(&format!("{}-{}", group.upstream, if is_https { "https" } else { "http" }));
        if let Some(upstream) = self.plan.upstream(&group.upstream).cloned() {
            self.plan.upstreams.push(Upstream { name: name.clone(), tls: None, ..upstream });
        }
        self.groups.push(Group { upstream: name, is_https: None, ..group });
        self.groups.len() - 1
    }

    /// An upstream for the one server that `proxy_pass` names.
    fn direct(&mut self, target: &Target, pass: &Directive) -> Option<usize> {
        let upstream = self.plan.new_name(&target.authority.replace(['[', ']'], "").replace(':', "-"));
        let mut group = Group {
            name: target.authority.clone(),
            is_https: None,
            upstream: upstream.clone(),
            block: None,
            other_ring: None,
            uses: Uses::default(),
        };
        self.plan.upstreams.push(Upstream::new(upstream.clone(), pass.place.clone()));
        let server = Directive {
            place: pass.place.clone(),
            name: "server".to_owned(),
            arguments: vec![target.authority.clone()],
            block: None,
        };
        self.server(&server, &mut group, if target.is_https { 443 } else { 80 });
        if self.plan.upstream(&upstream).is_none_or(|it| it.servers.is_empty()) {
            self.plan.upstreams.retain(|it| it.name != upstream);
            for remark in &mut self.plan.remarks {
                if remark.anchor == Anchor::Upstream(upstream.clone()) {
                    remark.anchor = Anchor::Top;
                }
            }
            return None;
        }
        self.groups.push(group);
        Some(self.groups.len() - 1)
    }

    /// How servers are to prove who they are.
    fn tls(&mut self, scope: &Scope<'a>, pass: &Directive, upstream: &str) -> UpstreamTls {
        let anchor = Anchor::Upstream(upstream.to_owned());
        let is_unverified = scope.word("proxy_ssl_verify") != "on";
        if is_unverified {
            let text = "nginx does not ask who its servers are, so tls.verify is off; write tls: { ca: FILE, server_name: NAME } \
                        to ask";
            self.remark(pass, anchor.clone(), Kind::Beware, text);
        }
        let file = |reader: &Self, name: &str| scope.get(name).and_then(|it| reader.path(it.first()));
        let ca = file(self, "proxy_ssl_trusted_certificate").filter(|_| !is_unverified);
        let certificate = file(self, "proxy_ssl_certificate").zip(file(self, "proxy_ssl_certificate_key"));
        let name = scope.word("proxy_ssl_name");
        let name = if name.is_empty() {
            target(pass.first(), scope).map(|it| it.authority).unwrap_or_default()
        } else {
            name.to_owned()
        };
        let name = name.rsplit_once(':').map_or(name.clone(), |(host, _)| host.to_owned());
        let is_asked = !is_unverified || scope.word("proxy_ssl_server_name") == "on";
        let server_name = (is_asked && ServerName::try_from(name.as_str()).is_ok()).then_some(name);
        UpstreamTls { is_unverified, ca, server_name, certificate }
    }

    /// A URI behind the address replaces the location's path.
    fn tell_of_uri(&mut self, target: &Target, pass: &Directive, path: &str, anchor: &Anchor) {
        let is_as_it_came = ["", "$request_uri", "$uri$is_args$args"].contains(&target.uri.as_str());
        if !is_as_it_came && target.uri != path {
            let text = format!(
                "the servers get paths as they came here, and not {} in place of {path}; have them serve {path}",
                target.uri
            );
            self.remark(pass, anchor.clone(), Kind::Lost, text);
        }
    }

    fn note_uses(&mut self, group: usize, scope: &Scope<'a>, path: &str) {
        let uses = &mut self.groups[group].uses;
        uses.has_socket_io |= is_socket_io(path);
        uses.has_upgrades |= header(scope, "Upgrade").is_some();
    }

    /// Time-outs of an upstream are the longest of all its locations.
    fn timeouts(&mut self, scope: &Scope<'a>, upstream: &str) {
        let time = |name: &str| scope.get(name).and_then(|it| value::time(it.first())).filter(|it| !it.is_zero());
        let read = time("proxy_read_timeout");
        let send = time("proxy_send_timeout").max(time("send_timeout"));
        let Some(upstream) = self.plan.upstream(upstream) else { return };
        let longest = |slot: &mut Option<Duration>, time: Option<Duration>, most: Duration| {
            *slot = (*slot).max(time.map(|it| it.min(most)));
        };
        let timeouts = &mut upstream.timeouts;
        longest(&mut timeouts.connect, time("proxy_connect_timeout"), DAY);
        longest(&mut timeouts.request_head, time("client_header_timeout"), DAY);
        longest(&mut timeouts.response_head, read, DAY);
        longest(&mut timeouts.body, read.max(time("client_body_timeout")), DAY);
        longest(&mut timeouts.send, send, DAY);
        // Shorter ones have been no wish for silence to be cut: see `tell_of_silence`.
        longest(&mut timeouts.idle, read.filter(|it| *it > IDLE), 30 * DAY);
        longest(&mut timeouts.keepalive, time("keepalive_timeout"), 30 * DAY);
    }

    /// What servers get to see of a request.
    fn fields(&mut self, scope: &Scope<'a>, pass: &Directive, target: &Target, anchor: &Anchor) {
        let mut has_host = false;
        for field in scope.all("proxy_set_header") {
            has_host |= field.first().eq_ignore_ascii_case("host");
            let value = field.arguments.get(1).map_or("", String::as_str);
            let Some(text) = lost_field(field.first(), value) else { continue };
            self.remark(field, anchor.clone(), Kind::Lost, text);
        }
        if !has_host {
            let text = format!(
                "servers have got Host: {} by nginx's default; here they get what the client has sent",
                target.authority
            );
            self.remark(pass, anchor.clone(), Kind::Note, text);
        }
    }

    /// What nginx did to connections that stay.
    fn tell_of_silence(&mut self, group: usize, scope: &Scope<'a>, pass: &Directive, path: &str) {
        let anchor = Anchor::Upstream(self.groups[group].upstream.clone());
        let upgrades = header(scope, "Upgrade").is_some();
        let is_unbuffered = scope.word("proxy_buffering") == "off";
        if !upgrades && (is_socket_io(path) || is_websocket(path)) {
            let text = "no Upgrade is passed on there, so nginx has broken WebSockets (Socket.IO went on polling); here they work";
            self.remark(pass, anchor.clone(), Kind::Note, text);
        }
        if is_events(path) && !is_unbuffered {
            let text = "nginx has buffered what may be event streams there, unless the servers sent X-Accel-Buffering: no; here \
                        events pass at once";
            self.remark(pass, anchor.clone(), Kind::Note, text);
        }
        let stays = upgrades || is_unbuffered || is_events(path) || is_socket_io(path) || is_websocket(path);
        let read = scope.get("proxy_read_timeout");
        let cuts = read.is_none_or(|it| value::time(it.first()).is_some_and(|it| it < IDLE));
        if !stays || !cuts || self.groups[group].uses.is_told_of_silence {
            return;
        }
        self.groups[group].uses.is_told_of_silence = true;
        let after = read.map_or("60s", |it| it.first());
        let text = format!(
            "nginx has cut what was silent for {after} (proxy_read_timeout); here an event stream gets a comment every 15s \
             (sse.keepalive), and a WebSocket may be silent for 1h (timeouts.idle)"
        );
        self.remark(pass, anchor, Kind::Note, text);
    }
}

const DAY: Duration = Duration::from_secs(86_400);

/// The default of `timeouts.idle`.
const IDLE: Duration = Duration::from_secs(3_600);

/// What is lost with a `proxy_set_header`, if it says anything else than what is so anyway.
pub(in crate::migrate) fn lost_field(name: &str, value: &str) -> Option<&'static str> {
    let as_it_came = ["$scheme", "$host", "$http_host", "$http_x_forwarded_proto", "$http_x_forwarded_host"];
    let hosts = ["$host", "$http_host", "$host:$server_port", "$http_host:$server_port"];
    Some(match (name.to_ascii_lowercase().as_str(), value) {
        ("upgrade" | "connection" | "keep-alive" | "te" | "x-accel-buffering", _) => return None,
        ("host", it) if hosts.contains(&it) => return None,
        ("host", _) => "the servers get the Host that the client has sent",
        ("x-forwarded-for", "$proxy_add_x_forwarded_for") => return None,
        ("x-forwarded-for", _) => {
            "the previous hop's address is added to what a trusted hop has sent; what others sent is dropped"
        }
        ("x-forwarded-proto" | "x-forwarded-host", it) if as_it_came.contains(&it) => return None,
        ("x-forwarded-proto" | "x-forwarded-host", _) => "it is what the client or a trusted hop speaks of here",
        ("x-real-ip", _) => {
            "servers find the client in X-Forwarded-For: let them believe this proxy; what a client sends as \
             X-Real-IP is passed on, so let them not believe that"
        }
        ("accept-encoding", "") => "it is taken off requests for event streams only (sse.accept_encoding)",
        _ => "fields are passed on as they come; what a client sends as this one reaches the servers",
    })
}

/// What `proxy_set_header` says of a field.
fn header<'a>(scope: &Scope<'a>, name: &str) -> Option<&'a Directive> {
    scope.all("proxy_set_header").into_iter().find(|it| it.first().eq_ignore_ascii_case(name))
}

/// Takes a URL apart; variables are looked up as far as they are `set` to one value.
fn target(url: &str, scope: &Scope<'_>) -> Option<Target> {
    if let Some(name) = value::variable(url) {
        return known(scope.variable(name)?);
    }
    let (scheme, rest) = url.split_once("://")?;
    let rest = match rest.strip_prefix('$') {
        None => rest.to_owned(),
        Some(name) => {
            let end = name.find(|it: char| !it.is_ascii_alphanumeric() && it != '_').unwrap_or(name.len());
            format!("{}{}", scope.variable(&name[..end])?, &name[end..])
        }
    };
    known(&format!("{scheme}://{rest}"))
}

fn known(url: &str) -> Option<Target> {
    let (scheme, rest) = url.split_once("://")?;
    let is_https = scheme.eq_ignore_ascii_case("https");
    if !is_https && !scheme.eq_ignore_ascii_case("http") {
        return None;
    }
    let end = rest.find(['/', '$']).unwrap_or(rest.len());
    let (authority, uri) = rest.split_at(end);
    // A variable right behind a name is a part of it, unless it is a whole target.
    let is_whole = !uri.starts_with('$') || ["$request_uri", "$uri$is_args$args"].contains(&uri);
    (!authority.is_empty() && is_whole).then(|| Target {
        is_https,
        authority: authority.to_owned(),
        uri: uri.to_owned(),
    })
}

fn is_socket_io(path: &str) -> bool {
    path.contains("socket.io") || path.contains("engine.io")
}

/// Whether a part of the path says so.
fn has_part(path: &str, parts: &[&str]) -> bool {
    let words = path.split(|it: char| !it.is_ascii_alphanumeric());
    words.into_iter().any(|word| parts.iter().any(|part| word.eq_ignore_ascii_case(part)))
}

fn is_websocket(path: &str) -> bool {
    has_part(path, &["ws", "wss", "websocket", "websockets", "sockjs", "cable"])
}

fn is_events(path: &str) -> bool {
    has_part(path, &["sse", "events", "eventsource", "stream"])
}
