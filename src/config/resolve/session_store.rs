//! Session store: `memory`, or the URL of a Redis, with or without more about it.
//!
//! A URL may hold a password: no complaint shows what stands before its last `@`.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::config::mistakes::{quoted, without_login};
use crate::config::reader::{Fields, Item};
use crate::config::{Password, Redis, SessionStore, suggest};

use super::{DAY, secret_file};

pub(super) fn session_store(root: &mut Fields<'_>) -> SessionStore {
    let mut store = SessionStore::default();
    let Some(item) = root.optional("session_store") else {
        return store;
    };
    if !item.is_mapping() {
        store.redis = url(&item).flatten();
        complain_of_user(&item, store.redis.as_ref());
        return store;
    }
    let Some(mut fields) = item.fields(RIGHT) else {
        return store;
    };
    let mut is_memory = true;
    if let Some(item) = fields.optional("url") {
        let url = url(&item);
        is_memory = url == Some(None);
        store.redis = url.flatten();
        if !fields.has("password_file") {
            complain_of_user(&item, store.redis.as_ref());
        }
    }
    if let Some(item) = fields.optional("sessions") {
        let sessions = item.number(1_000..=100_000_000, "write a number from 1000 to 100000000");
        store.sessions = sessions.unwrap_or(store.sessions);
    }
    if let Some(item) = fields.optional("idle") {
        store.idle = item.duration(Duration::from_secs(1)..=30 * DAY).unwrap_or(store.idle);
    }
    if let Some(item) = fields.optional("timeout") {
        let timeout = item.duration(Duration::from_millis(1)..=Duration::from_secs(10));
        match (&mut store.redis, timeout) {
            (Some(redis), Some(timeout)) => redis.timeout = timeout,
            (None, Some(_)) if is_memory => item.complain(ONLY_REDIS),
            _ => {}
        }
    }
    if let Some(item) = fields.optional("password_file") {
        match &mut store.redis {
            Some(redis) if redis.password.is_some() => {
                item.complain("the url has a password already; remove one of them");
            }
            Some(redis) => redis.password = password(&item),
            None if is_memory => item.complain(ONLY_REDIS),
            None => {}
        }
    }
    fields.finish(&[]);
    store
}

const RIGHT: &str = "write memory, or the url of a Redis such as redis://10.0.0.5:6379/0";
const ONLY_REDIS: &str = "means something only with Redis; write its url, or remove this";

/// The Redis that a URL names, `Some(None)` for `memory`.
#[expect(clippy::option_option, reason = "a complaint is not the same as no Redis")]
fn url(item: &Item<'_>) -> Option<Option<Redis>> {
    match item.text(RIGHT)? {
        "memory" => Some(None),
        text => item.kept(redis(text)).map(Some),
    }
}

fn complain_of_user(item: &Item<'_>, redis: Option<&Redis>) {
    if redis.is_some_and(|redis| redis.user.is_some() && redis.password.is_none()) {
        item.complain("this url has a user and no password; write redis://user:password@host:port");
    }
}

fn password(item: &Item<'_>) -> Option<Password> {
    let right = "write the absolute path of a file with the password";
    let bytes = secret_file(item, right)?;
    match String::from_utf8(bytes) {
        Ok(text) if text.is_empty() => item.complain(format!("this file is empty; {right}")),
        Ok(text) => return Some(Password(text)),
        Err(_) => item.complain(format!("this file is not UTF-8; {right}")),
    }
    None
}

/// `redis://[[user]:password@]host:port[/db]`. The password may have any character as it is, but
/// for `%`, which begins an escape.
fn redis(text: &str) -> Result<Redis, String> {
    let shown = quoted(&without_login(text));
    let rest = match text.split_once("://") {
        Some(("redis", rest)) => rest,
        _ => return Err(no_redis(text, &shown)),
    };
    let shown = quoted(text);
    let (login, place) = rest.rsplit_once('@').map_or((None, rest), |(login, place)| (Some(login), place));
    let (user, password) = login.map_or(Ok((None, None)), |login| {
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        Ok::<_, String>((unescaped(user)?, unescaped(password)?))
    })?;
    if let Some(at) = place.find(['?', '#']) {
        let known = &place[..at];
        return Err(format!("{shown} has something behind the database; write it as \"redis://{known}\""));
    }
    let (address, db) = place.split_once('/').unwrap_or((place, ""));
    let db = match db {
        "" => 0,
        db => db.parse().map_err(|_| format!("{shown} has the database {}; write a number such as /0", quoted(db)))?,
    };
    let (host, port) = host_and_port(address, &shown)?;
    Ok(Redis { host, port, db, user, password: password.map(Password), timeout: Redis::TIMEOUT })
}

/// Why `text` is not the URL of a Redis, and what would be.
fn no_redis(text: &str, shown: &str) -> String {
    match text.split_once("://") {
        Some(("rediss" | "valkeys", _)) => {
            format!("{shown} asks for TLS, which is not supported in this version; write redis://")
        }
        Some(("valkey", _)) => format!("{shown} is right but for its scheme; write redis://, which Valkey speaks too"),
        Some(("unix" | "redis+unix" | "valkey+unix", _)) => no_unix(shown),
        Some(("", _)) => format!("{shown} has no scheme; {RIGHT}"),
        Some((scheme, _)) => format!("{shown} has the scheme {}; {RIGHT}", quoted(scheme)),
        None if text.starts_with("unix:") || text.starts_with('/') => no_unix(shown),
        None if text.contains(':') || text == "redis" => format!("{shown} has no scheme; {RIGHT}"),
        None => match suggest::nearest(text, ["memory"]) {
            Some(nearest) => format!("{shown} is no session store; did you mean {nearest}?"),
            None => format!("{shown} is no session store; {RIGHT}"),
        },
    }
}

fn no_unix(shown: &str) -> String {
    format!("{shown} is a Unix socket; only TCP is supported, such as redis://10.0.0.5:6379")
}

fn host_and_port(address: &str, shown: &str) -> Result<(String, u16), String> {
    let is_bare = address.ends_with(']') || !address.contains(':') || address.parse::<Ipv6Addr>().is_ok();
    if is_bare && !address.is_empty() {
        return Err(format!("{shown} has no port; write one behind the host, such as :6379"));
    }
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    let unbracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_host = match unbracketed {
        Some(ip) => ip.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()) || is_host_name(host),
    };
    if !is_host {
        return Err(format!("{shown} has no host that can be asked; write a name or an IP, such as 10.0.0.5:6379"));
    }
    match port.parse() {
        Ok(port @ 1..) => Ok((unbracketed.unwrap_or(host).to_owned(), port)),
        _ => Err(format!("{shown} has the port {}; write 1 to 65535", quoted(port))),
    }
}

/// Unlike servers, a Redis may have a name: nothing is hashed by its address.
fn is_host_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=253).contains(&text.len()) && text.bytes().all(allowed)
}

/// A part of a URL as it is meant; `None` for an empty one.
fn unescaped(text: &str) -> Result<Option<String>, String> {
    let wrong = || "the user or password has a % that begins no escape; write %25 for the character itself".to_owned();
    let mut pieces = text.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let (code, rest) = piece.split_at_checked(2).ok_or_else(wrong)?;
        let is_hex = code.bytes().all(|byte| byte.is_ascii_hexdigit());
        bytes.push(u8::from_str_radix(code, 16).ok().filter(|_| is_hex).ok_or_else(wrong)?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong())?;
    Ok((!text.is_empty()).then_some(text))
}
