//! A cookie of our own that names a client's server.
//!
//! Its value is a nonce and a tag made for it, so it tells nobody but us which server it names,
//! nor which clients share one. Servers do not see it, unless the file says so.

use std::time::Duration;

use http::HeaderMap;

use super::cookie;
use super::tag::{self, LENGTH, Secret, ServerTag};
use crate::config::StickyCookie;

/// Characters of a nonce.
const NONCE: usize = 8;

/// The server that the request's cookie names, if the cookie is ours.
pub fn server(headers: &HeaderMap, cookie: &StickyCookie, secret: &Secret) -> Option<ServerTag> {
    let (nonce, tag) = parts(headers, cookie)?;
    secret.open(nonce.as_bytes(), tag)
}

/// Whether the request's cookie has the shape of ours, whoever made it.
pub fn looks_ours(headers: &HeaderMap, cookie: &StickyCookie) -> bool {
    let is_hex = |nonce: &str| nonce.bytes().all(|byte| byte.is_ascii_hexdigit());
    parts(headers, cookie).is_some_and(|(nonce, tag)| is_hex(nonce) && tag::looks_sealed(tag))
}

/// The nonce and the tag in the value of the cookie, if it is as long as ours.
fn parts<'a>(headers: &'a HeaderMap, cookie: &StickyCookie) -> Option<(&'a str, &'a str)> {
    let value = std::str::from_utf8(cookie::find(headers, &cookie.name)?).ok()?;
    if value.len() != NONCE + LENGTH {
        return None;
    }
    value.split_at_checked(NONCE)
}

/// The `Set-Cookie` field that has a client come back to `server`. `nonce` is any number.
pub fn issue(cookie: &StickyCookie, secret: &Secret, server: ServerTag, nonce: u32, is_secure: bool) -> String {
    let nonce = format!("{nonce:08x}");
    let tag = secret.seal(nonce.as_bytes(), server);
    let age = cookie.max_age.map(|age: Duration| format!("; Max-Age={}", age.as_secs())).unwrap_or_default();
    let secure = if is_secure { "; Secure" } else { "" };
    format!("{}={nonce}{tag}; Path=/; HttpOnly; SameSite=Lax{age}{secure}", cookie.name)
}

/// A `Cookie` field without the cookie called `name`, and not a byte else; `None` when nothing is
/// left.
pub fn without(field: &str, name: &str) -> Option<String> {
    let is_other = |pair: &&str| pair.split_once('=').is_none_or(|(key, _)| key.trim() != name);
    let left: Vec<&str> = field.split(';').filter(is_other).collect();
    let left = left.join(";");
    let left = left.trim_start();
    (!left.is_empty()).then(|| left.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::COOKIE;

    fn sticky(max_age: Option<u64>) -> StickyCookie {
        StickyCookie { max_age: max_age.map(Duration::from_secs), ..StickyCookie::default() }
    }

    #[test]
    fn a_client_comes_back_with_what_was_issued() {
        let secret = Secret::new(b"0123456789abcdef");
        let field = issue(&sticky(None), &secret, secret.server("red"), 7, false);
        let (value, attributes) = field.split_once("; ").expect("it has attributes");
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
        let field = format!("a=b; {value}; c=d").parse().expect("a valid field");
        let headers = HeaderMap::from_iter([(COOKIE, field)]);
        assert_eq!(server(&headers, &sticky(None), &secret), Some(secret.server("red")));
        assert_eq!(server(&headers, &sticky(None), &Secret::new(b"another")), None);
        assert!(looks_ours(&headers, &sticky(None)), "whatever the secret");
    }

    #[test]
    fn attributes_are_as_asked_for() {
        let secret = Secret::new(b"0123456789abcdef");
        let field = issue(&sticky(Some(86_400)), &secret, secret.server("red"), 7, true);
        assert!(field.ends_with("; Path=/; HttpOnly; SameSite=Lax; Max-Age=86400; Secure"), "{field}");
    }

    #[test]
    fn what_is_not_ours_names_nobody() {
        let secret = Secret::new(b"0123456789abcdef");
        for value in ["", "x", "0000000000000000000", "\"\"", &"\u{e9}".repeat(10), &"a".repeat(5000)] {
            let Ok(field) = http::HeaderValue::from_bytes(format!("steadfast={value}").as_bytes()) else { continue };
            let headers = HeaderMap::from_iter([(COOKIE, field)]);
            assert_eq!(server(&headers, &sticky(None), &secret), None, "{value}");
            assert!(!looks_ours(&headers, &sticky(None)) || value.bytes().all(|byte| byte == b'0'), "{value}");
        }
    }

    #[test]
    fn servers_do_not_see_it() {
        #[track_caller]
        fn check(field: &str, expected: Option<&str>) {
            assert_eq!(without(field, "steadfast").as_deref(), expected, "{field}");
        }

        check("steadfast=x", None);
        check("steadfast=x; a=b", Some("a=b"));
        check("a=b; steadfast=x; c=\"d\";e", Some("a=b; c=\"d\";e"));
        check("a=b; steadfast=x", Some("a=b"));
        check("a=b;  c=d", Some("a=b;  c=d"));
        check("steadfastly=x", Some("steadfastly=x"));
    }
}
