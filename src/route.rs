//! Which rule owns this host and path? The first that matches.

use http::request::Parts;

use crate::config::{HostPattern, Route};

/// The index of the first route for `host` and `path`.
pub fn find(routes: &[Route], host: &str, path: &str) -> Option<usize> {
    routes.iter().position(|route| matches_host(&route.host, host) && path.starts_with(&route.path))
}

/// The host that `request` asks for: that of an absolute request target, or else the `Host` field
/// (RFC 9112, section 3.2.2). Lower case, without port and final dot; empty when there is none.
pub fn host(request: &Parts) -> String {
    let authority = match request.uri.authority() {
        Some(authority) => authority.as_str(),
        None => request.headers.get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or(""),
    };
    // Userinfo does not belong here, but an address in brackets has colons of its own.
    let host = memchr::memrchr(b'@', authority.as_bytes()).map_or(authority, |at| &authority[at + 1..]);
    let host = match memchr::memrchr(b':', host.as_bytes()) {
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    };
    host.trim_end_matches('.').to_ascii_lowercase()
}

fn matches_host(pattern: &HostPattern, host: &str) -> bool {
    match pattern {
        HostPattern::Any => true,
        HostPattern::Exact(name) => name == host,
        HostPattern::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_matches_wins() {
        let rule = |host: HostPattern, path: &str, upstream| Route { host, path: path.into(), upstream };
        let routes = [
            rule(HostPattern::Exact("a.example.com".into()), "/socket.io/", 0),
            rule(HostPattern::Suffix(".example.com".into()), "/", 1),
            rule(HostPattern::Any, "/events", 2),
        ];
        #[track_caller]
        fn check(routes: &[Route], host: &str, path: &str, expected: Option<usize>) {
            assert_eq!(find(routes, host, path), expected, "{host}{path}");
        }

        check(&routes, "a.example.com", "/socket.io/", Some(0));
        check(&routes, "a.example.com", "/socket.io", Some(1));
        check(&routes, "b.example.com", "/socket.io/", Some(1));
        check(&routes, "b.a.example.com", "/", Some(1));
        check(&routes, "example.com", "/events/1", Some(2));
        check(&routes, ".example.com", "/", None);
        check(&routes, "", "/events", Some(2));
        check(&routes, "", "/", None);
    }

    #[test]
    fn the_host_is_read_as_routing_needs_it() {
        #[track_caller]
        fn check(target: &str, field: Option<&str>, expected: &str) {
            let mut request = http::Request::builder().uri(target);
            if let Some(field) = field {
                request = request.header("Host", field);
            }
            let (parts, ()) = request.body(()).expect("a valid request").into_parts();
            assert_eq!(host(&parts), expected, "{target} {field:?}");
        }

        check("/", None, "");
        check("/", Some("Chat.Example.COM"), "chat.example.com");
        check("/", Some("chat.example.com:8080"), "chat.example.com");
        check("/", Some("chat.example.com.:8080"), "chat.example.com");
        check("/", Some("[::1]:8080"), "[::1]");
        check("/", Some("[::1]"), "[::1]");
        check("/", Some("127.0.0.1:80"), "127.0.0.1");
        check("http://b.example.com:80/x", Some("a.example.com"), "b.example.com");
    }
}
