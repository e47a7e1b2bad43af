//! Routes, and which of them no request can reach.

use std::net::Ipv6Addr;

use crate::config::mistakes::quoted;
use crate::config::reader::{Fields, Item};
use crate::config::suggest;
use crate::config::{HostPattern, Route};

/// Reads the routes. `names` are the upstreams there are; `None` when they could not be read, and
/// then no reference to them can be checked.
pub(super) fn routes(root: &mut Fields<'_>, names: Option<&[(&str, Item<'_>)]>) -> Vec<Route> {
    let right = "write a list of at least one, such as [{ upstream: chat }]";
    let items = root.required("routes", right).and_then(|item| item.list(right));
    let Some(items) = items else {
        return Vec::new();
    };
    let mut usage = Usage::new(names);
    let mut routes = Vec::new();
    for item in items {
        if let Some(route) = route(&item, &mut usage) {
            routes.push((item, route));
        }
    }
    usage.complain_of_unused();
    complain_of_unreachable(&routes);
    routes.into_iter().map(|(_, route)| route).collect()
}

fn route(item: &Item<'_>, usage: &mut Usage<'_>) -> Option<Route> {
    let Some(mut fields) = item.fields("write a mapping such as { upstream: chat }") else {
        usage.is_complete = false;
        return None;
    };
    let host = match fields.optional("host") {
        None => Some(HostPattern::Any),
        Some(item) => item
            .text("write one host, such as chat.example.com or \"*.example.com\"")
            .and_then(|text| item.kept(host(text))),
    };
    let path = match fields.optional("path") {
        None => Some("/".to_owned()),
        Some(item) => item.text("write a prefix such as /socket.io/").and_then(|text| item.kept(path(text))),
    };
    let upstream = fields.required("upstream", "write the name of an upstream").and_then(|item| usage.find(&item));
    usage.is_complete &= upstream.is_some();
    fields.finish(&["headers"]);
    Some(Route { host: host?, path: path?, upstream: upstream? })
}

fn host(text: &str) -> Result<HostPattern, String> {
    let host = text.to_ascii_lowercase();
    let in_brackets = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if is_host(&host) || in_brackets.is_some_and(is_ipv6) {
        return Ok(HostPattern::Exact(host));
    }
    match host.strip_prefix("*.") {
        Some(parent) if is_host(parent) => Ok(HostPattern::Suffix(format!(".{parent}"))),
        _ => Err(no_host(text, &host)),
    }
}

/// Why `text`, in lower case `host`, is not a host, and what would be.
fn no_host(text: &str, host: &str) -> String {
    let shown = quoted(text);
    if host == "*" {
        return format!("{shown} is not a host; leave the key out for any host");
    }
    if host.contains('/') {
        return format!("{shown} is more than a host; write only the host, such as chat.example.com");
    }
    if is_ipv6(host) {
        return format!("{shown} has no brackets; write it as \"[{host}]\"");
    }
    if let Some((name, _)) = host.rsplit_once(':') {
        let name = quoted(name);
        return format!("{shown} has a port, which is not compared; write {name}");
    }
    if host.strip_prefix("*.").unwrap_or(host).contains('*') {
        return format!(
            "{shown} has a * in the wrong place; it can only stand in front, as in \
             \"*.example.com\""
        );
    }
    match host.strip_suffix('.') {
        Some(name) if is_host(name) => {
            format!("{shown} ends in a dot; write {}", quoted(name))
        }
        _ => format!(
            "{shown} is not a host; write letters, digits, dots and dashes, such as \
             chat.example.com (international names as xn--...)"
        ),
    }
}

fn is_ipv6(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok()
}

/// Underscores are in no standard, but in many internal names.
pub(super) fn is_host(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(allowed);
    text.len() <= 253 && text.split('.').all(is_label)
}

fn path(text: &str) -> Result<String, String> {
    let shown = quoted(text);
    if !text.starts_with('/') {
        return Err(format!("{shown} does not begin with /; write a prefix such as \"/socket.io/\""));
    }
    if let Some((before, _)) = text.split_once(['?', '#']) {
        return Err(format!("{shown} has a query or fragment, which is not compared; write {}", quoted(before)));
    }
    if let Some((before, _)) = text.split_once('*') {
        return Err(format!("{shown} has a *, and a path is a prefix anyway; write {}", quoted(before)));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("{shown} has blanks or characters beyond ASCII; write them %-encoded, as in a URL"));
    }
    Ok(text.to_owned())
}

/// Which upstreams the routes lead to.
struct Usage<'a> {
    names: Option<&'a [(&'a str, Item<'a>)]>,
    is_used: Vec<bool>,
    /// Whether each route so far told its upstream. A slip in a name is not a second mistake at
    /// the upstream it was meant for.
    is_complete: bool,
}

impl<'a> Usage<'a> {
    fn new(names: Option<&'a [(&'a str, Item<'a>)]>) -> Self {
        Self { names, is_used: vec![false; names.map_or(0, <[_]>::len)], is_complete: true }
    }

    fn find(&mut self, item: &Item<'_>) -> Option<usize> {
        let wanted = item.text("write the name of an upstream")?;
        let names = self.names.filter(|names| !names.is_empty())?;
        let found = names.iter().position(|(name, _)| *name == wanted);
        match found {
            Some(index) => self.is_used[index] = true,
            None => item.complain(unknown_upstream(wanted, names)),
        }
        found
    }

    fn complain_of_unused(&self) {
        let names = self.names.unwrap_or_default();
        for ((_, item), is_used) in names.iter().zip(&self.is_used) {
            if self.is_complete && !is_used {
                item.complain("no route leads to this upstream; add one or remove it");
            }
        }
    }
}

fn unknown_upstream(wanted: &str, names: &[(&str, Item<'_>)]) -> String {
    let names = || names.iter().map(|(name, _)| *name);
    let shown = quoted(wanted);
    match suggest::nearest(wanted, names()) {
        Some(nearest) => format!("no upstream is named {shown}; did you mean \"{nearest}\"?"),
        None => {
            let first: Vec<_> = names().take(NAMES_SHOWN_MAX).collect();
            let more = if names().count() > NAMES_SHOWN_MAX { ", ..." } else { "" };
            format!("no upstream is named {shown}; there are: {}{more}", first.join(", "))
        }
    }
}

const NAMES_SHOWN_MAX: usize = 10;

/// The first match wins, so a route behind one that matches all it matches is dead.
fn complain_of_unreachable(routes: &[(Item<'_>, Route)]) {
    for (index, (item, route)) in routes.iter().enumerate() {
        let Some((winner, earlier)) = routes[..index].iter().find(|(_, it)| covers(it, route)) else {
            continue;
        };
        let winner = winner.path();
        item.complain(if earlier.host == route.host && earlier.path == route.path {
            format!("never reached, because {winner} has the same host and path; remove one")
        } else {
            format!("never reached, because {winner} takes all it would; move it before that one")
        });
    }
}

fn covers(wide: &Route, narrow: &Route) -> bool {
    let host = match (&wide.host, &narrow.host) {
        (HostPattern::Any, _) => true,
        (HostPattern::Exact(wide), HostPattern::Exact(narrow)) => wide == narrow,
        (HostPattern::Suffix(wide), HostPattern::Exact(narrow) | HostPattern::Suffix(narrow)) => {
            narrow.ends_with(wide.as_str())
        }
        (HostPattern::Exact(_), _) | (HostPattern::Suffix(_), HostPattern::Any) => false,
    };
    host && narrow.path.starts_with(&wide.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_covers_what_is_narrower() {
        #[track_caller]
        fn check(wide: (&str, &str), narrow: (&str, &str), expected: bool) {
            let route = |(host_text, path): (&str, &str)| Route {
                host: match host_text {
                    "" => HostPattern::Any,
                    text => host(text).unwrap(),
                },
                path: path.to_owned(),
                upstream: 0,
            };
            let covered = covers(&route(wide), &route(narrow));
            assert_eq!(covered, expected, "{wide:?} over {narrow:?}");
        }

        check(("", "/"), ("", "/"), true);
        check(("", "/"), ("a.b", "/x"), true);
        check(("", "/x"), ("a.b", "/xy"), true);
        check(("a.b", "/"), ("A.B", "/"), true);
        check(("*.b", "/"), ("a.b", "/"), true);
        check(("*.b", "/"), ("*.a.b", "/x"), true);
        check(("*.b", "/"), ("*.b", "/"), true);

        check(("", "/x"), ("", "/"), false);
        check(("", "/x"), ("", "/y"), false);
        check(("a.b", "/"), ("", "/"), false);
        check(("a.b", "/"), ("*.b", "/"), false);
        check(("*.b", "/"), ("b", "/"), false);
        check(("*.b", "/"), ("ab", "/"), false);
        check(("*.a.b", "/"), ("*.b", "/"), false);
        check(("*.b", "/"), ("", "/"), false);
    }
}
