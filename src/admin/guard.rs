//! Who may ask the admin address. Pure.
//!
//! With a token, whoever brings it. Without one it is on this machine only; but a page in a browser on
//! this machine can have its own name resolve to 127.0.0.1, and ask. It cannot help naming itself in
//! `Host`: so without a token only addresses and `localhost` are answered.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{AUTHORIZATION, HOST};

use crate::config::Token;

/// Why somebody is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The token is missing, or another one.
    Token,
    /// The request is for a name that anybody can have.
    Host,
    /// A page in a browser may have sent it.
    Browser,
}

/// Whether a request with `headers` for `path` may be answered.
///
/// # Errors
/// Why not.
pub(super) fn judge(token: Option<&Token>, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    if matches!(path, "/healthz" | "/readyz") {
        return Ok(()); // Balancers ask these, and know no token; they tell nothing that a connection does not.
    }
    match token {
        Some(token) if brings(token, headers) => Ok(()),
        Some(_) => Err(Refusal::Token),
        None if headers.get(HOST).is_none_or(|host| host.to_str().is_ok_and(is_here)) => Ok(()),
        None => Err(Refusal::Host),
    }
}

/// Whether a request that changes something may be answered: one that no page of another site can send
/// without asking first (CORS preflight, Fetch Standard, section 4.8). It brings a token, or a field
/// that is none of the safelisted ones.
///
/// # Errors
/// When it has neither.
pub(super) fn judge_change(headers: &HeaderMap) -> Result<(), Refusal> {
    let is_safe = headers.contains_key(AUTHORIZATION) || headers.contains_key(CHANGE);
    if is_safe { Ok(()) } else { Err(Refusal::Browser) }
}

/// The field that says that no page has sent a request.
const CHANGE: &str = "x-steadfast";

/// Whether `Authorization` is `Bearer` with this token (RFC 6750, section 2.1).
fn brings(token: &Token, headers: &HeaderMap) -> bool {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return false };
    let Some((scheme, given)) = field.as_bytes().split_at_checked("Bearer ".len()) else { return false };
    scheme.eq_ignore_ascii_case(b"Bearer ") && token.is(given.trim_ascii())
}

/// Whether `host` is an address, or a name that no DNS can give to somebody else.
fn is_here(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    address.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &str = "0123456789abcdef";

    fn headers(fields: &[(http::HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value.parse().expect("a valid field"));
        }
        headers
    }

    #[test]
    fn with_a_token_whoever_brings_it_is_answered() {
        let token = Token::new(KNOWN.as_bytes());
        #[track_caller]
        fn check(token: Option<&Token>, authorization: &[&str], expected: Result<(), Refusal>) {
            let mut fields: Vec<_> = authorization.iter().map(|value| (AUTHORIZATION, *value)).collect();
            fields.push((HOST, "admin.example.com"));
            assert_eq!(judge(token, "/metrics", &headers(&fields)), expected, "{authorization:?}");
            for open in ["/healthz", "/readyz"] {
                assert_eq!(judge(token, open, &headers(&fields)), Ok(()));
            }
        }

        check(token.as_ref(), &["Bearer 0123456789abcdef"], Ok(()));
        check(token.as_ref(), &["bearer  0123456789abcdef"], Ok(()));
        for wrong in [
            &[][..],
            &[""],
            &["Bearer"],
            &["Bearer "],
            &["0123456789abcdef"],
            &["Basic 0123456789abcdef"],
            &["Bearer 0123456789abcdeg"],
            &["Bearer 0123456789abcdef0"],
            &["Bearer 0123456789abcdef", "Bearer 0123456789abcdef"],
        ] {
            check(token.as_ref(), wrong, Err(Refusal::Token));
        }
    }

    #[test]
    fn without_a_token_only_this_machine_is_named() {
        for (host, expected) in [
            ("127.0.0.1:9900", true),
            ("127.0.0.1", true),
            ("[::1]:9900", true),
            ("localhost", true),
            ("LOCALHOST.:9900", true),
            ("steadfast.localhost:9900", true),
            ("evil.example.com", false),
            ("evil.example.com:9900", false),
            ("127.0.0.1.evil.example.com", false),
            ("localhost.evil.example.com", false),
            ("evillocalhost", false),
            ("", false),
        ] {
            let expected = if expected { Ok(()) } else { Err(Refusal::Host) };
            assert_eq!(judge(None, "/metrics", &headers(&[(HOST, host)])), expected, "{host:?}");
        }
        assert_eq!(
            judge(None, "/metrics", &HeaderMap::new()),
            Ok(()),
            "HTTP/1.0 has no Host, and no browser speaks it"
        );
    }
}
