//! The sockets that we open: for clients, and for whoever watches over us.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use super::address::{self, covers};
use super::tls;
use crate::config::mistakes::quoted;
use crate::config::reader::{Fields, Item};
use crate::config::{Admin, Listener, ProxyProtocol, Token, TrustedProxies};

/// Each listener with the item that gave its address.
pub(super) fn listeners<'a>(root: &mut Fields<'a>, trusted_proxies: &TrustedProxies) -> Vec<(Item<'a>, Listener)> {
    let right = "write a list of at least one, such as [{ bind: \"0.0.0.0:8080\" }]";
    let items = root.required("listeners", right).and_then(|item| item.list(right));
    let mut listeners = Vec::new();
    for item in items.unwrap_or_default() {
        let right = "write a mapping such as { bind: \"0.0.0.0:8080\" }";
        let Some(mut fields) = item.fields(right) else {
            continue;
        };
        let right = "write IP and port, such as \"0.0.0.0:8080\"";
        let bind = fields.required("bind", right);
        let proxy_protocol = proxy_protocol(&mut fields, trusted_proxies);
        let tls = tls::of_listener(&mut fields);
        let h2c = h2c(&mut fields, tls.is_some());
        if let Some(item) = bind
            && let Some(bind) = item.parse(right, |text| address::bind(text, "0.0.0.0:8080"))
        {
            complain_of_overlap(&item, bind, &listeners);
            listeners.push((item, Listener { bind, proxy_protocol, tls, h2c }));
        }
        fields.finish(&[]);
    }
    listeners
}

fn proxy_protocol(listener: &mut Fields<'_>, trusted_proxies: &TrustedProxies) -> ProxyProtocol {
    const WORDS: &[(&str, ProxyProtocol)] =
        &[("off", ProxyProtocol::Off), ("on", ProxyProtocol::On), ("optional", ProxyProtocol::Optional)];
    let Some(item) = listener.optional("proxy_protocol") else { return ProxyProtocol::Off };
    if item.is_off() {
        return ProxyProtocol::Off;
    }
    let chosen = if item.is_on() { Some(ProxyProtocol::On) } else { item.one_of("mode", WORDS) };
    if chosen.is_some() && trusted_proxies.0.is_empty() {
        item.complain("no hop could say who its clients are, because trusted_proxies is empty; name the hop there");
    }
    chosen.unwrap_or_default()
}

fn h2c(listener: &mut Fields<'_>, is_encrypted: bool) -> bool {
    let Some(item) = listener.optional("h2c") else { return false };
    if !item.is_on() && !item.is_off() {
        item.complain_of_type("write on or off");
    } else if item.is_on() && is_encrypted {
        item.complain("this is HTTP/2 without TLS; with TLS clients choose it by themselves; remove it");
    }
    item.is_on()
}

fn complain_of_overlap(item: &Item<'_>, bind: SocketAddr, earlier: &[(Item<'_>, Listener)]) {
    let overlaps = |(_, it): &&(Item<'_>, Listener)| covers(it.bind, bind) || covers(bind, it.bind);
    if let Some((other_item, other)) = earlier.iter().find(overlaps) {
        let (path, other) = (other_item.path(), other.bind);
        item.complain(if other == bind {
            format!("\"{bind}\" is already {path}; remove one")
        } else {
            format!("\"{bind}\" overlaps with {path}, \"{other}\"; remove one")
        });
    }
}

/// Where metrics and health are served: the default address, another one, or nowhere.
pub(super) fn admin(root: &mut Fields<'_>, listeners: &[(Item<'_>, Listener)]) -> Option<Admin> {
    let mut admin = Admin::default();
    let Some(item) = root.optional("admin") else {
        complain_of_clash(None, admin.bind, listeners);
        return Some(admin);
    };
    if item.is_off() {
        return None;
    }
    let mut fields = item.fields("write { bind: \"127.0.0.1:9900\" } or off")?;
    let bind = fields.optional("bind");
    let token_file = fields.optional("token_file");
    fields.finish(&[]);
    admin.token = token_file.as_ref().and_then(token);
    if let Some(item) = &bind {
        let right = "write IP and port, such as \"127.0.0.1:9900\"";
        admin.bind = item.parse(right, |text| admin_bind(text, token_file.is_some()))?;
    }
    complain_of_clash(bind.as_ref(), admin.bind, listeners);
    Some(admin)
}

/// Reads the token itself: after this nothing can be wrong with it.
fn token(item: &Item<'_>) -> Option<Token> {
    let right = "write the absolute path of a file with a token of at least 16 visible characters";
    let bytes = super::secret_file(item, right)?;
    let path = item.text(right)?;
    let token = Token::new(&bytes);
    if token.is_none() {
        item.complain(format!("{} holds no token; {right}", quoted(path)));
    }
    let mode = std::fs::metadata(path).map_or(0, |file| file.permissions().mode());
    if mode & READABLE_BY_OTHERS != 0 {
        tracing::warn!("{path}, the token of the admin address, can be read by every user of this machine");
    }
    token
}

const READABLE_BY_OTHERS: u32 = 0o004;

fn admin_bind(text: &str, has_token: bool) -> Result<SocketAddr, String> {
    let bind = address::bind(text, "127.0.0.1:9900")?;
    if has_token || bind.ip().is_loopback() {
        return Ok(bind);
    }
    let loopback = if bind.is_ipv4() { "127.0.0.1" } else { "[::1]" };
    Err(format!(
        "{} can be reached from other machines; write a token_file beside it, or \"{loopback}:{}\"",
        quoted(text),
        bind.port()
    ))
}

/// `item` is where the file says `admin`; without it, the default is in a listener's way.
fn complain_of_clash(item: Option<&Item<'_>>, admin: SocketAddr, listeners: &[(Item<'_>, Listener)]) {
    let clashes = |(_, it): &&(Item<'_>, Listener)| takes(it.bind, admin);
    let Some((listener_item, listener)) = listeners.iter().find(clashes) else {
        return;
    };
    match item {
        Some(item) => item.complain(format!(
            "\"{admin}\" is taken by {}, \"{}\"; choose another port",
            listener_item.path(),
            listener.bind
        )),
        None => listener_item.complain(format!(
            "\"{}\" takes the default of admin.bind, \"{admin}\"; \
             choose another port, or set admin.bind",
            listener.bind
        )),
    }
}

/// Whether a listener takes what comes in for `admin`; the wildcard of IPv6 takes IPv4 as well.
fn takes(listener: SocketAddr, admin: SocketAddr) -> bool {
    let is_any = listener.is_ipv6() && listener.ip().is_unspecified();
    let same_port = listener.port() == admin.port() && admin.port() != 0;
    covers(listener, admin) || (is_any && same_port)
}
