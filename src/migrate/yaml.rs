//! Writes a [`Plan`] as a file of ours: keys always in the same order, remarks above what they are about.

use std::fmt::{self, Write};
use std::time::Duration;

use super::plan::{
    Anchor, At, HealthCheck, Kind, Limits, Listener, Plan, Remark, Route, Server, Source, State, Timeouts, Upstream,
    UpstreamTls,
};

/// The file. `origin` says in the first line where it comes from.
pub(super) fn write(plan: &Plan, origin: &str) -> String {
    let mut out = format!("# {}\n", printable(origin));
    // A string takes everything, so nothing can fail.
    let _ = Writer { out: &mut out, plan }.all();
    out
}

/// A remark as one line of text.
pub(super) fn line(remark: &Remark) -> String {
    let Remark { place, title, kind, text, .. } = remark;
    let kind = match kind {
        Kind::Lost => "not carried over: ",
        Kind::Missing => "to do: ",
        Kind::Beware | Kind::Note => "",
    };
    printable(&format!("{place}: {title}: {kind}{text}"))
}

struct Writer<'a> {
    out: &'a mut String,
    plan: &'a Plan,
}

impl Writer<'_> {
    fn all(&mut self) -> fmt::Result {
        let plan = self.plan;
        self.remarks(0, |anchor| is_homeless(anchor, plan))?;
        self.out.write_str("\nlisteners:\n")?;
        for listener in &plan.listeners {
            self.remarks(1, |anchor| *anchor == Anchor::Listener(listener.bind))?;
            self.listener(listener)?;
        }
        self.globals()?;
        self.out.write_str("\nupstreams:\n")?;
        for upstream in &plan.upstreams {
            self.remarks(1, |anchor| *anchor == upstream.anchor())?;
            self.upstream(upstream)?;
        }
        self.out.write_str("\nroutes:\n")?;
        let mut told = Vec::new();
        for route in &plan.routes {
            if !told.contains(&route.block) {
                told.push(route.block);
                self.remarks(1, |anchor| *anchor == Anchor::Routes(route.block))?;
            }
            self.route(route)?;
        }
        Ok(())
    }

    fn remarks(&mut self, depth: usize, belongs: impl Fn(&Anchor) -> bool) -> fmt::Result {
        for remark in self.plan.remarks.iter().filter(|it| belongs(&it.anchor)) {
            writeln!(self.out, "{:width$}# {}", "", line(remark), width = 2 * depth)?;
        }
        Ok(())
    }

    fn listener(&mut self, listener: &Listener) -> fmt::Result {
        writeln!(self.out, "  - bind: \"{}\"", listener.bind)?;
        if listener.proxy_protocol {
            writeln!(self.out, "    proxy_protocol: on")?;
        }
        if listener.h2c {
            writeln!(self.out, "    h2c: on")?;
        }
        let Some(tls) = &listener.tls else { return Ok(()) };
        writeln!(self.out, "    tls:\n      certificates:")?;
        if tls.certificates.is_empty() {
            // Not in plain text until somebody has written the right ones.
            writeln!(self.out, "        - {{ cert: /etc/steadfast/to-do.pem, key: /etc/steadfast/to-do.key }}")?;
        }
        for (cert, key) in &tls.certificates {
            writeln!(self.out, "        - {{ cert: {}, key: {} }}", scalar(cert), scalar(key))?;
        }
        if let Some(ca) = &tls.client_ca {
            writeln!(self.out, "      client_ca: {}", scalar(ca))?;
        }
        if tls.is_1_3_only {
            writeln!(self.out, "      min_version: \"1.3\"")?;
        }
        Ok(())
    }

    /// What stands once in the file.
    fn globals(&mut self) -> fmt::Result {
        let Plan { trusted_proxies, client_ip_header, resolver, limits, session_idle, threads, .. } = self.plan;
        let mut lines = Vec::new();
        if let Some(networks) = trusted_proxies {
            let networks: Vec<String> = networks.iter().map(|it| scalar(&it.to_string())).collect();
            lines.push(format!("trusted_proxies: [{}]", networks.join(", ")));
        }
        if let Some(header) = client_ip_header {
            lines.push(format!("client_ip: {{ header: {} }}", scalar(header)));
        }
        if !resolver.is_empty() {
            let servers: Vec<String> = resolver.iter().map(|it| format!("\"{it}\"")).collect();
            lines.push(format!("resolver: {{ servers: [{}] }}", servers.join(", ")));
        }
        if let Some(idle) = session_idle {
            lines.push(format!("session_store: {{ url: memory, idle: {} }}", duration(*idle)));
        }
        let Limits { per_client, head, uri } = limits;
        let per_client = per_client.map(|it| format!("per_client: {it}"));
        let head = head.map(|it| format!("head_bytes: {it}KiB"));
        let uri =
            uri.map(
                |it| if it % 1024 == 0 { format!("uri_bytes: {}KiB", it / 1024) } else { format!("uri_bytes: {it}B") },
            );
        lines.extend(mapping("limits", [per_client, head, uri]));
        if self.admin_clashes() {
            lines.push(
                "admin: off   # its usual address, 127.0.0.1:9900, is a listener's; give it another one".to_owned(),
            );
        }
        if !self.plan.has_access_log {
            lines.push("access_log: off".to_owned());
        }
        if let Some(threads) = threads {
            lines.push(format!("threads: {threads}"));
        }
        if !lines.is_empty() {
            writeln!(self.out, "\n{}", lines.join("\n"))?;
        }
        Ok(())
    }

    fn admin_clashes(&self) -> bool {
        self.plan.listeners.iter().any(|listener| {
            let ip = listener.bind.ip();
            listener.bind.port() == 9900 && ip.is_ipv4() && (ip.is_unspecified() || ip.is_loopback())
        })
    }

    fn upstream(&mut self, upstream: &Upstream) -> fmt::Result {
        writeln!(self.out, "  {}:\n    servers:", scalar(&upstream.name))?;
        for server in &upstream.servers {
            writeln!(self.out, "      - {}", server_text(server))?;
        }
        writeln!(self.out, "    affinity:")?;
        for source in &upstream.affinity {
            writeln!(self.out, "      - {}", source_text(source))?;
        }
        let mut lines = Vec::new();
        lines.extend(upstream.keyless.map(|keyless| format!("balance: {{ keyless: {keyless} }}")));
        let Timeouts { connect, request_head, response_head, body, send, idle, keepalive } = upstream.timeouts;
        let pair = |key: &str, value: Option<Duration>| value.map(|it| format!("{key}: {}", duration(it)));
        lines.extend(mapping(
            "timeouts",
            [
                pair("connect", connect),
                pair("request_head", request_head),
                pair("response_head", response_head),
                pair("body", body),
                pair("send", send),
                pair("idle", idle),
                pair("keepalive", keepalive),
            ],
        ));
        lines.extend(upstream.health_check.as_ref().map(health_check));
        lines.extend(upstream.max_fails.map(|it| format!("max_fails: {it}")));
        lines.extend(pair("fail_timeout", upstream.fail_timeout));
        lines.extend(pair("slow_start", upstream.slow_start));
        lines.extend(upstream.tls.as_ref().map(upstream_tls));
        lines.iter().try_for_each(|line| writeln!(self.out, "    {line}"))
    }

    fn route(&mut self, route: &Route) -> fmt::Result {
        let host = route.host.as_ref().map(|it| format!("host: {}, ", scalar(it))).unwrap_or_default();
        let path = if route.path == "/" { String::new() } else { format!("path: {}, ", scalar(&route.path)) };
        writeln!(self.out, "  - {{ {host}{path}upstream: {} }}", scalar(&route.upstream))
    }
}

/// Whether what a remark is beside is nowhere in the file, so that it stands at the top.
fn is_homeless(anchor: &Anchor, plan: &Plan) -> bool {
    match anchor {
        Anchor::Top => true,
        Anchor::Listener(bind) => plan.listeners.iter().all(|it| it.bind != *bind),
        Anchor::Upstream(name) => plan.upstreams.iter().all(|it| it.name != *name),
        Anchor::Routes(block) => plan.routes.iter().all(|it| it.block != *block),
    }
}

fn mapping<const N: usize>(key: &str, pairs: [Option<String>; N]) -> Option<String> {
    let pairs: Vec<String> = pairs.into_iter().flatten().collect();
    (!pairs.is_empty()).then(|| format!("{key}: {{ {} }}", pairs.join(", ")))
}

fn health_check(check: &HealthCheck) -> String {
    let HealthCheck { path, port, interval, rise, fall } = check;
    let pairs = [
        Some(format!("path: {}", scalar(path))),
        port.map(|it| format!("port: {it}")),
        interval.map(|it| format!("interval: {}", duration(it))),
        rise.map(|it| format!("rise: {it}")),
        fall.map(|it| format!("fall: {it}")),
    ];
    mapping("health_check", pairs).unwrap_or_default()
}

fn upstream_tls(tls: &UpstreamTls) -> String {
    let UpstreamTls { is_unverified, ca, server_name, certificate } = tls;
    let pairs = [
        is_unverified.then(|| "verify: off".to_owned()),
        ca.as_ref().map(|it| format!("ca: {}", scalar(it))),
        server_name.as_ref().map(|it| format!("server_name: {}", scalar(it))),
        certificate.as_ref().map(|(cert, key)| format!("cert: {}, key: {}", scalar(cert), scalar(key))),
    ];
    mapping("tls", pairs).unwrap_or_else(|| "tls: on".to_owned())
}

fn server_text(server: &Server) -> String {
    let refresh = |it: &Option<Duration>| it.map(|it| format!(", refresh: {}", duration(it))).unwrap_or_default();
    let at = match &server.at {
        At::Address(address) if server.weight == 1 && server.state == State::Ready => return format!("\"{address}\""),
        At::Address(address) => format!("address: \"{address}\""),
        At::Dns(name, port, every) => format!("dns: \"{name}:{port}\"{}", refresh(every)),
        At::Srv(name, every) => format!("srv: {}{}", scalar(name), refresh(every)),
    };
    let weight = if server.weight == 1 { String::new() } else { format!(", weight: {}", server.weight) };
    let state = match server.state {
        State::Ready => "",
        State::Drain => ", state: drain",
        State::Maint => ", state: maint",
    };
    format!("{{ {at}{weight}{state} }}")
}

fn source_text(source: &Source) -> String {
    let prefix = |is_whole: bool| is_whole.then(|| "ipv6_prefix: 128".to_owned());
    match source {
        Source::EngineIo => "engine_io".to_owned(),
        Source::StickyCookie { name, max_age } => {
            let name = name.as_ref().map(|it| format!("name: {}", scalar(it)));
            let max_age = max_age.map(|it| format!("max_age: {}", duration(it)));
            mapping("sticky_cookie", [name, max_age]).unwrap_or_else(|| "sticky_cookie".to_owned())
        }
        Source::Cookie(name) => format!("cookie: {}", scalar(name)),
        Source::Header(name) => format!("header: {}", scalar(name)),
        Source::Query(name) => format!("query: {}", scalar(name)),
        Source::Session { learn, find } => {
            format!("session: {{ learn: {{ response_header: {} }}, find: {{ {find} }} }}", scalar(learn))
        }
        Source::ForwardedFor { is_rightmost, is_whole } => {
            let pick = is_rightmost.then(|| "pick: rightmost_untrusted".to_owned());
            mapping("forwarded_for", [pick, prefix(*is_whole)]).unwrap_or_else(|| "forwarded_for".to_owned())
        }
        Source::ClientIp { is_whole } => {
            mapping("client_ip", [prefix(*is_whole)]).unwrap_or_else(|| "client_ip".to_owned())
        }
    }
}

/// A text that YAML reads as this text: plain where that is certain, in quotes otherwise.
pub(super) fn scalar(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte);
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'/');
    // What YAML 1.1 or 1.2 takes for something other than text.
    let word = text.to_ascii_lowercase();
    let is_word = ["on", "off", "yes", "no", "y", "n", "true", "false", "null", "none"].contains(&word.as_str());
    if begins && text.bytes().all(is_plain) && !is_word {
        return text.to_owned();
    }
    let mut out = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            _ if is_printable(character) => out.push(character),
            _ => out.push_str(&format!("\\U{:08X}", u32::from(character))),
        }
    }
    out.push('"');
    out
}

/// The shortest way to write a whole number of milliseconds.
pub(super) fn duration(duration: Duration) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let milliseconds = duration.as_millis();
    let fits = |(_, factor): &&(&str, u128)| milliseconds.is_multiple_of(*factor);
    match units.iter().find(fits) {
        Some((unit, factor)) if milliseconds > 0 => format!("{}{unit}", milliseconds / factor),
        _ => "0ms".to_owned(),
    }
}

/// `text` for a comment or a terminal.
fn printable(text: &str) -> String {
    let show = |character: char| match is_printable(character) {
        true => character.to_string(),
        false => character.escape_unicode().to_string(),
    };
    text.chars().map(show).collect()
}

/// Neither a control nor what turns the direction of text, nor what YAML forbids or breaks lines at.
fn is_printable(character: char) -> bool {
    let is_forbidden = matches!(character,
        '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}' | '\u{FFFE}' | '\u{FFFF}');
    !character.is_control() && !is_forbidden
}
