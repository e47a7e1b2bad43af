//! One cookie's value in the fields of a request or a response (RFC 6265, sections 4.1.1 and 4.2.1).

use http::HeaderMap;
use http::header::{COOKIE, SET_COOKIE};

/// The value of the first cookie called `name`, without surrounding quotes.
pub(super) fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let pairs = headers.get_all(COOKIE).iter().flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    pairs.into_iter().find_map(|pair| value_of(pair, name))
}

/// The value that a response sets the cookie called `name` to; of several, the last, as browsers
/// take them. An empty value takes a cookie away.
pub(super) fn set<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let pairs = headers.get_all(SET_COOKIE).iter().map(|field| {
        let field = field.as_bytes();
        field.split(|byte| *byte == b';').next().unwrap_or(field)
    });
    pairs.filter_map(|pair| value_of(pair, name)).next_back().filter(|value| !value.is_empty())
}

fn value_of<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
    (key == name.as_bytes()).then(|| unquoted(value))
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_found_by_their_exact_name() {
        #[track_caller]
        fn check(fields: &[&str], expected: Option<&str>) {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(COOKIE, field.parse().expect("a valid field"));
            }
            assert_eq!(find(&headers, "sid"), expected.map(str::as_bytes), "{fields:?}");
        }

        check(&["sid=a"], Some("a"));
        check(&["x=1; sid=a; sid=b"], Some("a"));
        check(&["x=1", "sid=a"], Some("a"));
        check(&["sid=\"a b\""], Some("a b"));
        check(&["sid=a=b"], Some("a=b"));
        check(&["sid="], Some(""));

        check(&[], None);
        check(&["xsid=a; sidx=b; SID=c; sid"], None);
        check(&[";;; ;="], None);
    }

    #[test]
    fn a_cookie_is_set_to_its_last_value() {
        #[track_caller]
        fn check(fields: &[&str], expected: Option<&str>) {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(SET_COOKIE, field.parse().expect("a valid field"));
            }
            assert_eq!(set(&headers, "sid"), expected.map(str::as_bytes), "{fields:?}");
        }

        check(&["sid=a"], Some("a"));
        check(&["sid=s%3Aa.b; Path=/; HttpOnly"], Some("s%3Aa.b"));
        check(&["other=x", " sid = \"a\" ;Secure"], Some("a"));
        check(&["sid=a", "sid=b; Path=/"], Some("b"));

        check(&[], None);
        check(&["sid"], None);
        check(&["sid=; Max-Age=0"], None);
        check(&["sid=a", "sid=; Max-Age=0"], None);
        check(&["other=x; sid=a"], None);
        check(&["SID=a"], None);
    }
}
