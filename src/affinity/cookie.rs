//! One cookie's value in the `Cookie` fields of a request (RFC 6265, section 4.2.1).

use http::HeaderMap;
use http::header::COOKIE;

/// The value of the first cookie called `name`, without surrounding quotes.
pub(super) fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    headers.get_all(COOKIE).iter().flat_map(|field| field.as_bytes().split(|byte| *byte == b';')).find_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
        (key == name.as_bytes()).then(|| unquoted(value))
    })
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
}
