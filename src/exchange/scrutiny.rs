//! What a request must be before anything routes on it: readable in one way only. Pure.
//!
//! Pingora's parser has been here before and refuses most of what is wrong: two lengths that differ,
//! two hosts, white space around names, control characters. What it lets through for the sake of old
//! clients, but two hops could read differently, is refused here: whoever is in front of us and
//! whoever is behind us must agree on where a request ends, and on whom it is for.

use http::Method;
use http::header::{HOST, TRANSFER_ENCODING};
use pingora::http::RequestHeader;

/// Two hops could read the request differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ambiguous;

/// Looks at a parsed head.
///
/// # Errors
/// [`Ambiguous`], which the client hears as a malformed request.
pub(super) fn scrutinize(head: &RequestHeader) -> Result<(), Ambiguous> {
    let has_one_coding = {
        let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
        codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
            && codings.next().is_none()
    };
    let has_host = head.headers.get(HOST).is_none_or(|host| is_host(host.as_bytes()));
    let is_whole = has_one_coding && has_host && is_target(head);
    if is_whole { Ok(()) } else { Err(Ambiguous) }
}

/// Whether the target has one of the forms that its method may have (RFC 9112, section 3.2). CONNECT
/// has one of its own, and is refused anyway.
fn is_target(head: &RequestHeader) -> bool {
    let target = head.raw_path();
    match target {
        [b'/', ..] => true,
        b"*" => head.method == Method::OPTIONS,
        _ if head.method == Method::CONNECT => true,
        // The absolute form. What it names is what `Host` names, as Pingora has seen to.
        _ => {
            let scheme = target.split(|byte| *byte == b':').next().unwrap_or_default();
            let is_http = scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https");
            is_http && target[scheme.len()..].starts_with(b"://") && head.headers.contains_key(HOST)
        }
    }
}

/// Whether `host` is a name or an address, with a port or without: no list, no userinfo, no path.
fn is_host(host: &[u8]) -> bool {
    let (name, rest) = match host {
        [b'[', in_brackets @ ..] => {
            let Some(end) = memchr::memchr(b']', in_brackets) else { return false };
            let (address, rest) = (&in_brackets[..end], &in_brackets[end + 1..]);
            if !address.iter().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(byte)) {
                return false;
            }
            (address, rest)
        }
        _ => host.split_at(memchr::memchr(b':', host).unwrap_or(host.len())),
    };
    let is_port = matches!(rest, [] | [b':', ..]) && rest.iter().skip(1).all(u8::is_ascii_digit);
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%:".contains(byte);
    !name.is_empty() && name.iter().all(is_name) && is_port
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrutinized(method: &str, target: &str, fields: &[(&str, &str)]) -> bool {
        let mut head = RequestHeader::build(method, target.as_bytes(), None).expect("a valid request");
        for (name, value) in fields {
            head.append_header((*name).to_owned(), *value).expect("a valid field");
        }
        scrutinize(&head).is_ok()
    }

    #[test]
    fn a_host_is_a_name_or_an_address() {
        for (host, expected) in [
            ("a", true),
            ("Chat.Example.com:8080", true),
            ("chat_1.example.com.", true),
            ("192.0.2.1:80", true),
            ("[2001:db8::1]:80", true),
            ("[::1]", true),
            ("a:", true),
            ("", false),
            (":80", false),
            ("a b", false),
            ("a,b", false),
            ("a@b", false),
            ("a/b", false),
            ("a\\b", false),
            ("a:80:81", false),
            ("a:8x", false),
            ("[::1", false),
            ("[]", false),
            ("[::1]x", false),
            ("[a b]", false),
            ("a?b", false),
        ] {
            assert_eq!(scrutinized("GET", "/", &[("Host", host)]), expected, "{host:?}");
        }
    }

    #[test]
    fn a_body_has_one_coding() {
        for (codings, expected) in [
            (&["chunked"][..], true),
            (&["Chunked"], true),
            (&["chunked", "chunked"], false),
            (&["gzip, chunked"], false),
            (&["gzip", "chunked"], false),
            (&["identity"], false),
            (&["chunked,"], false),
            (&[",chunked"], false),
            (&["chunked;q=1"], false),
            (&[""], false),
        ] {
            let mut fields = vec![("Host", "a")];
            fields.extend(codings.iter().map(|coding| ("Transfer-Encoding", *coding)));
            assert_eq!(scrutinized("POST", "/", &fields), expected, "{codings:?}");
        }
    }

    #[test]
    fn a_target_has_the_form_of_its_method() {
        for (method, target, expected) in [
            ("GET", "/", true),
            ("GET", "//a//b?c=/d", true),
            ("GET", "http://a/b", true),
            ("GET", "https://a", true),
            ("GET", "ftp://a/b", false),
            ("GET", "http:a", false),
            ("GET", "*", false),
            ("OPTIONS", "*", true),
            ("OPTIONS", "/a", true),
            ("GET", "a:80", false),
            ("CONNECT", "a:80", true),
        ] {
            assert_eq!(scrutinized(method, target, &[("Host", "a")]), expected, "{method} {target}");
        }
    }
}
