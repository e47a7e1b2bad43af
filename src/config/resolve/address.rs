//! Addresses as the file writes them. Host names are not addresses: nothing here resolves them.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::config::TrustedProxies;
use crate::config::mistakes::quoted;
use crate::config::reader::Item;

/// An address to listen on: `IP:port`. Messages refer to `example`.
pub(super) fn bind(text: &str, example: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| no_address(text, example))
}

/// The address of a server: `IP:port`, written the one way that the ring hashes.
pub(super) fn server(text: &str) -> Result<SocketAddr, String> {
    connectable(text).unwrap_or_else(|| Err(no_server(text, "10.0.0.1:3000")))
}

/// The address of a DNS server: `IP:port`.
pub(super) fn resolver(text: &str) -> Result<SocketAddr, String> {
    connectable(text).unwrap_or_else(|| Err(no_address(text, "10.0.0.53:53")))
}

/// An address to connect to, written the shortest way; `None` if it is no address.
fn connectable(text: &str) -> Option<Result<SocketAddr, String>> {
    let address: SocketAddr = text.parse().ok()?;
    Some(checked(text, address))
}

fn checked(text: &str, address: SocketAddr) -> Result<SocketAddr, String> {
    let shown = quoted(text);
    let port = address.port();
    if port == 0 {
        return Err(format!("{shown} has port 0, which nothing listens on; write 1 to 65535"));
    }
    if address.ip().is_unspecified() {
        let loopback = if address.is_ipv4() { "127.0.0.1" } else { "[::1]" };
        return Err(format!("{shown} is no address to connect to; write \"{loopback}:{port}\" for this machine"));
    }
    let written = address.to_string();
    if written != text {
        // The ring hashes the text, so two ways to write one address would be two servers.
        return Err(format!("{shown} is not written the shortest way; write it as \"{written}\""));
    }
    Ok(address)
}

/// Whether a socket bound to `wide` already takes what comes in for `narrow`.
///
/// The wildcard of IPv6 does not count for IPv4 here: whether it does is the system's choice.
pub(super) fn covers(wide: SocketAddr, narrow: SocketAddr) -> bool {
    let same_family = wide.is_ipv4() == narrow.is_ipv4();
    let same_ip = wide.ip() == narrow.ip() || (wide.ip().is_unspecified() && same_family);
    wide.port() == narrow.port() && wide.port() != 0 && same_ip
}

/// The networks of `trusted_proxies`. An empty list is an answer: nobody is trusted.
pub(super) fn trusted_proxies(item: &Item<'_>) -> TrustedProxies {
    let right = "write a list such as [private, 203.0.113.0/24], or [] to trust nobody";
    let Some(items) = item.list_or_empty(right) else {
        return TrustedProxies::private();
    };
    if items.is_empty() {
        return TrustedProxies::default();
    }
    let mut networks = Vec::new();
    for item in items {
        if item.as_text() == Some("private") {
            networks.extend(TrustedProxies::private().0);
        } else if let Some(network) = item.parse("write private, a network or an IP", network) {
            networks.push(network);
        }
    }
    // Not empty because of a mistake: that would be a second one where somebody is to be believed.
    if networks.is_empty() { TrustedProxies::private() } else { TrustedProxies(networks) }
}

/// A network such as `10.0.0.0/8`, or a single address.
fn network(text: &str) -> Result<IpNet, String> {
    let shown = quoted(text);
    let single = text.parse::<IpAddr>().map(IpNet::from);
    let Ok(network) = single.or_else(|_| text.parse::<IpNet>()) else {
        return Err(format!("{shown} is no network; write private, a network such as \"10.0.0.0/8\", or an IP"));
    };
    if network.trunc() != network {
        return Err(format!("{shown} has bits set behind its prefix; write it as \"{}\"", network.trunc()));
    }
    if let IpNet::V6(v6) = network
        && v6.prefix_len() >= 96
        && let Some(v4) = v6.addr().to_ipv4_mapped()
    {
        // Such hops are compared as the IPv4 addresses they are.
        return Err(format!("{shown} is IPv4 in the clothes of IPv6; write it as \"{v4}/{}\"", v6.prefix_len() - 96));
    }
    Ok(network)
}

/// The same as [`no_address`], where a name could be asked for.
fn no_server(text: &str, example: &str) -> String {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, "3000"));
    if is_host_name(host) && is_port(port) && bare_ip(host).is_none() {
        let shown = quoted(text);
        return format!(
            "{shown} is a host name; write IP and port, such as \"{example}\", or {{ dns: \"{host}:{port}\" }} \
             for all addresses of this name"
        );
    }
    no_address(text, example)
}

/// Why `text` is not `IP:port`, and what would be.
fn no_address(text: &str, example: &str) -> String {
    let shown = quoted(text);
    let (example_ip, example_port) = example.split_once(':').unwrap_or((example, ""));
    if let Some(ip) = bare_ip(text) {
        return format!("{shown} has no port; write it as \"{ip}:{example_port}\"");
    }
    if is_port(text) {
        return format!("{shown} is only a port; write it as \"{example_ip}:{text}\"");
    }
    if text.starts_with("unix:") || text.starts_with('/') {
        return format!("{shown} is a Unix socket; only TCP is supported, such as \"{example}\"");
    }
    if text.contains("://") {
        return format!("{shown} has a scheme; write only IP and port, such as \"{example}\"");
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    if (host.is_empty() || host == "*") && is_port(port) {
        return format!("{shown} has no address; write it as \"{example_ip}:{port}\"");
    }
    if bare_ip(host).is_some() {
        let port = quoted(port);
        return format!("{shown} has the port {port}; write a number up to 65535");
    }
    if is_host_name(host) {
        return format!(
            "{shown} is a host name, and host names are not resolved; write IP and port, \
             such as \"{example}\""
        );
    }
    format!("{shown} is no address; write IP and port, such as \"{example}\"")
}

/// An address without a port, in the brackets that IPv6 needs before one.
fn bare_ip(text: &str) -> Option<String> {
    let unbracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match unbracketed.unwrap_or(text).parse() {
        Ok(IpAddr::V4(ip)) if unbracketed.is_none() => Some(ip.to_string()),
        Ok(IpAddr::V6(ip)) => Some(format!("[{ip}]")),
        _ => None,
    }
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

fn is_host_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    text.bytes().all(allowed) && text.bytes().any(|byte| byte.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_its_own_family() {
        #[track_caller]
        fn check(wide: &str, narrow: &str, expected: bool) {
            let covered = covers(wide.parse().unwrap(), narrow.parse().unwrap());
            assert_eq!(covered, expected, "{wide} over {narrow}");
        }

        check("0.0.0.0:80", "0.0.0.0:80", true);
        check("0.0.0.0:80", "10.0.0.1:80", true);
        check("[::]:80", "[::1]:80", true);
        check("10.0.0.1:80", "10.0.0.1:80", true);

        check("10.0.0.1:80", "0.0.0.0:80", false);
        check("0.0.0.0:80", "10.0.0.1:81", false);
        check("[::]:80", "0.0.0.0:80", false);
        // The kernel chooses, and never the same twice.
        check("0.0.0.0:0", "0.0.0.0:0", false);
    }
}
