//! Values to [`Config`]: what each key means, what it may be, and what must fit together.

mod address;
mod affinity;
mod balance;
mod fitness;
mod listeners;
mod routes;
mod servers;
mod session_store;
mod tls;
mod traces;
mod upstreams;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::mistakes::quoted;
use super::reader::{Fields, Item};
use crate::affinity::tag::Secret;

use super::{
    AccessLog, ClientIp, Config, Limits, LogFormat, LogPath, Resolver, Shutdown, TcpKeepalive, TrustedProxies, Written,
    suggest,
};

/// Reads the whole file. What it returns is only good if no complaint was noted.
pub(super) fn config(root: &Item<'_>) -> Option<Config> {
    let right = "write a mapping with at least listeners, routes and upstreams";
    let mut fields = root.fields(right)?;
    let trusted_proxies =
        fields.optional("trusted_proxies").map_or_else(TrustedProxies::private, |item| address::trusted_proxies(&item));
    let listeners = listeners::listeners(&mut fields, &trusted_proxies);
    let client_ip = client_ip(&mut fields, &trusted_proxies);
    let right = "write a mapping of at least one, such as { chat: { servers: [\"10.0.0.1:3000\"] } }";
    let upstreams = fields.required("upstreams", right).and_then(|item| item.entries(right));
    let config = Config {
        routes: routes::routes(&mut fields, upstreams.as_deref()),
        upstreams: upstreams::upstreams(&upstreams.unwrap_or_default(), &listeners, &trusted_proxies),
        admin: listeners::admin(&mut fields, &listeners),
        listeners: listeners.into_iter().map(|(_, it)| it).collect(),
        trusted_proxies,
        client_ip,
        resolver: resolver(&mut fields),
        affinity_secret: fields.optional("affinity_secret_file").and_then(|item| affinity_secret(&item)),
        session_store: session_store::session_store(&mut fields),
        limits: limits(&mut fields),
        tcp_keepalive: tcp_keepalive(&mut fields),
        access_log: access_log(&mut fields),
        traces: traces::traces(&mut fields),
        shutdown: shutdown(&mut fields),
        hand_over: hand_over(&mut fields),
        threads: threads(&mut fields),
        written: Written(Arc::new(root.value().clone())),
    };
    fields.finish(&[]);
    Some(config)
}

/// Who the client is, for logs and limits.
fn client_ip(root: &mut Fields<'_>, trusted_proxies: &TrustedProxies) -> ClientIp {
    let mut client_ip = ClientIp::default();
    let item = root.optional("client_ip");
    let right = "write a mapping such as { header: X-Forwarded-For, pick: rightmost_untrusted }";
    let Some((item, mut fields)) = item.and_then(|item| item.fields(right).map(|fields| (item, fields))) else {
        return client_ip;
    };
    if let Some(item) = fields.optional("header") {
        let name = item.text("write the name of a header, such as X-Forwarded-For");
        let name = name.and_then(|name| item.kept(affinity::header(name, "X-Forwarded-For")));
        client_ip.header = name.unwrap_or(client_ip.header);
    }
    if let Some(item) = fields.optional("pick") {
        client_ip.pick = item.one_of("pick", affinity::PICKS).unwrap_or(client_ip.pick);
    }
    fields.finish(&[]);
    if trusted_proxies.0.is_empty() {
        item.complain("never asked, because trusted_proxies is empty; remove it");
    }
    client_ip
}

/// Who is asked for names.
fn resolver(root: &mut Fields<'_>) -> Resolver {
    let item = root.optional("resolver");
    let Some(mut fields) = item.and_then(|item| item.fields("write a mapping such as { servers: [\"10.0.0.53:53\"] }"))
    else {
        return Resolver::default();
    };
    let right = "write a list of addresses such as [\"10.0.0.53:53\"]";
    let items = fields.required("servers", right).and_then(|item| item.list(right)).unwrap_or_default();
    fields.finish(&[]);
    if let Some(item) = items.get(RESOLVERS_MAX) {
        item.complain(format!("nobody asks so many; write at most {RESOLVERS_MAX}"));
    }
    Resolver { servers: items.iter().filter_map(|item| item.parse(right, address::resolver)).collect() }
}

/// As many as it takes one of them to be up.
const RESOLVERS_MAX: usize = 8;

/// Reads the secret itself: after this nothing can be wrong with it.
fn affinity_secret(item: &Item<'_>) -> Option<Secret> {
    let right = "write the absolute path of a file with at least 16 bytes, the same for all proxies of a fleet";
    let bytes = secret_file(item, right)?;
    if bytes.len() < SECRET_LEN_MIN {
        let shown = quoted(item.text(right)?);
        item.complain(format!("{shown} has fewer than {SECRET_LEN_MIN} bytes; {right}"));
        return None;
    }
    Some(Secret::new(&bytes))
}

/// What the file holds that this is the path of. An editor's line end at its end is no part.
fn secret_file(item: &Item<'_>, right: &str) -> Option<Vec<u8>> {
    let path = item.text(right)?;
    let shown = quoted(path);
    if !path.starts_with('/') {
        item.complain(format!("{shown} is not an absolute path; {right}"));
        return None;
    }
    match std::fs::read(path) {
        Ok(bytes) => Some(bytes.trim_ascii().to_vec()),
        Err(error) => {
            item.complain(format!("{shown} cannot be read: {error}; {right}"));
            None
        }
    }
}

/// Shorter ones can be guessed.
const SECRET_LEN_MIN: usize = 16;

fn limits(root: &mut Fields<'_>) -> Limits {
    let mut limits = Limits::default();
    let item = root.optional("limits");
    let right = "write a mapping such as { max_connections: 50000, per_client: 200 }";
    let Some(mut fields) = item.and_then(|item| item.fields(right)) else {
        return limits;
    };
    if let Some(item) = fields.optional("head_bytes")
        && let Some(bytes) = item.size(1 << 10..=256 << 10)
    {
        limits.head_bytes = bytes;
    }
    if let Some(item) = fields.optional("uri_bytes")
        && let Some(bytes) = item.size(256..=256 << 10)
    {
        limits.uri_bytes = bytes;
    }
    if let Some(item) = fields.optional("headers")
        && let Some(number) = item.number(1..=256, "write a number from 1 to 256")
    {
        limits.headers = number;
    }
    limits.max_connections = fields.optional("max_connections").and_then(|item| connections(&item));
    limits.per_client = fields.optional("per_client").and_then(|item| connections(&item));
    if let Some(item) = fields.optional("streams")
        && let Some(number) = item.number(1..=10_000, "write a number from 1 to 10000")
    {
        limits.streams = u32::try_from(number).unwrap_or(limits.streams);
    }
    if let Some(item) = fields.optional("resets")
        && let Some(number) = item.number(1..=100_000, "write a number from 1 to 100000")
    {
        limits.resets = u32::try_from(number).unwrap_or(limits.resets);
    }
    fields.finish(&[]);
    limits
}

/// A number of connections; no limit where the file says so.
fn connections(item: &Item<'_>) -> Option<usize> {
    if item.as_text() == Some("none") {
        return None;
    }
    item.number(1..=CONNECTIONS_MAX, "write none or a number from 1 to 100000000")
}

/// More than any machine has.
const CONNECTIONS_MAX: usize = 100_000_000;

fn tcp_keepalive(root: &mut Fields<'_>) -> TcpKeepalive {
    let mut keepalive = TcpKeepalive::default();
    let item = root.optional("tcp_keepalive");
    let right = "write a mapping such as { time: 60s, interval: 15s, probes: 4 }";
    let Some(mut fields) = item.and_then(|item| item.fields(right)) else {
        return keepalive;
    };
    if let Some(item) = fields.optional("time") {
        keepalive.time = whole_seconds(&item, PROBES_AFTER_MAX).unwrap_or(keepalive.time);
    }
    if let Some(item) = fields.optional("interval") {
        keepalive.interval = whole_seconds(&item, PROBES_EVERY_MAX).unwrap_or(keepalive.interval);
    }
    if let Some(item) = fields.optional("probes")
        && let Some(number) = item.number(1..=100, "write a number from 1 to 100")
    {
        keepalive.probes = number;
    }
    fields.finish(&[]);
    keepalive
}

/// A duration from a second to `most`, as the kernel keeps it.
fn whole_seconds(item: &Item<'_>, most: Duration) -> Option<Duration> {
    let duration = item.duration(Duration::from_secs(1)..=most)?;
    if duration.subsec_nanos() != 0 {
        item.complain("the kernel counts whole seconds here; write one such as 15s");
        return None;
    }
    Some(duration)
}

/// Linux takes up to 32,767 s for both.
const PROBES_AFTER_MAX: Duration = Duration::from_secs(9 * 3600);
const PROBES_EVERY_MAX: Duration = Duration::from_secs(3600);

fn access_log(root: &mut Fields<'_>) -> AccessLog {
    let mut log = AccessLog::default();
    let Some(item) = root.optional("access_log") else {
        return log;
    };
    if item.is_off() {
        log.format = LogFormat::Off;
        return log;
    }
    let right = "write a mapping such as { path: stdout, format: json }, or off";
    let Some(mut fields) = item.fields(right) else {
        return log;
    };
    if let Some(item) = fields.optional("path") {
        let right = "write stdout, stderr or an absolute path";
        let path = item.text(right).map(log_path);
        log.path = path.and_then(|it| item.kept(it)).unwrap_or(log.path);
    }
    if let Some(item) = fields.optional("format") {
        log.format = log_format(&item).unwrap_or(log.format);
    }
    fields.finish(&[]);
    log
}

fn log_path(text: &str) -> Result<LogPath, String> {
    let shown = quoted(text);
    match text {
        "stdout" => Ok(LogPath::Stdout),
        "stderr" => Ok(LogPath::Stderr),
        _ if !text.starts_with('/') => {
            Err(format!("{shown} is not an absolute path; write stdout, stderr or a path that begins with /"))
        }
        _ if text.ends_with('/') => Err(format!("{shown} is a directory; write the path of a file in it")),
        _ if text.contains('\0') => Err(format!("{shown} has a NUL byte; write a path without one")),
        _ => Ok(LogPath::File(PathBuf::from(text))),
    }
}

fn log_format(item: &Item<'_>) -> Option<LogFormat> {
    if item.is_off() {
        return Some(LogFormat::Off);
    }
    let right = "write json, combined or off";
    match item.text(right)? {
        "json" => Some(LogFormat::Json),
        "combined" => Some(LogFormat::Combined),
        other => {
            let shown = quoted(other);
            item.complain(match suggest::nearest(other, ["json", "combined", "off"]) {
                Some(nearest) => format!("{shown} is no format; did you mean {nearest}?"),
                None => format!("{shown} is no format; {right}"),
            });
            None
        }
    }
}

fn shutdown(root: &mut Fields<'_>) -> Shutdown {
    let mut shutdown = Shutdown::default();
    let item = root.optional("shutdown");
    let right = "write a mapping such as { grace: 30s }";
    let Some(mut fields) = item.and_then(|item| item.fields(right)) else {
        return shutdown;
    };
    if let Some(item) = fields.optional("grace")
        && let Some(grace) = item.duration(Duration::ZERO..=DAY)
    {
        shutdown.grace = grace;
    }
    shutdown.spread = fitness::spread(&mut fields, ("grace", shutdown.grace), shutdown.spread);
    fields.finish(&[]);
    shutdown
}

/// Where the next process asks for the connections of this one.
fn hand_over(root: &mut Fields<'_>) -> Option<PathBuf> {
    let item = root.optional("hand_over").filter(|item| !item.is_off())?;
    let mut fields = item.fields("write a mapping such as { socket: /run/steadfast/hand-over.sock }, or off")?;
    let right = "write the absolute path of a socket in a directory that this user may write to";
    let socket = fields.required("socket", right).and_then(|item| {
        let path = item.text(right)?;
        let shown = quoted(path);
        item.kept(match path {
            _ if !path.starts_with('/') => Err(format!("{shown} is not an absolute path; {right}")),
            _ if path.ends_with('/') => Err(format!("{shown} is a directory; write the path of a socket in it")),
            _ if path.contains('\0') => Err(format!("{shown} has a NUL byte; write a path without one")),
            _ if path.len() > SOCKET_PATH_BYTES_MAX => {
                Err(format!("{shown} is too long for a socket; write at most {SOCKET_PATH_BYTES_MAX} bytes"))
            }
            _ => Ok(PathBuf::from(path)),
        })
    });
    fields.finish(&[]);
    socket
}

/// What Linux has room for, less what it takes to write a new one beside it.
const SOCKET_PATH_BYTES_MAX: usize = 90;

fn threads(root: &mut Fields<'_>) -> NonZeroUsize {
    let auto = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    match root.optional("threads") {
        None => auto(),
        Some(item) if item.as_text() == Some("auto") => auto(),
        Some(item) => item
            .number(1..=256, "write auto or a number from 1 to 256")
            .and_then(NonZeroUsize::new)
            .unwrap_or(NonZeroUsize::MIN),
    }
}

/// The longest time that is still a time-out and not a typing error.
const DAY: Duration = Duration::from_secs(86_400);
