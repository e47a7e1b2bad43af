//! Cookies: found in anything that a header may hold, and gone when they are taken out.

#![no_main]

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use steadfast::affinity::tag::Secret;
use steadfast::affinity::{learned, sticky};
use steadfast::config::StickyCookie;

fuzz_target!(|fields: Vec<&str>| {
    let (cookie, secret) = (StickyCookie::default(), Secret::new(b"0123456789abcdef"));
    let (mut headers, mut others) = (HeaderMap::new(), HeaderMap::new());
    for field in fields {
        let Ok(value) = HeaderValue::from_str(field) else { continue };
        headers.append(SET_COOKIE, value.clone());
        headers.append(COOKIE, value);
        if let Some(rest) = sticky::without(field, &cookie.name) {
            others.append(COOKIE, HeaderValue::from_str(&rest).expect("a part of a field is a field"));
        }
    }
    let _ = sticky::server(&headers, &cookie, &secret);
    let _ = learned::issued_cookie("sid", &headers);
    assert!(!sticky::looks_ours(&others, &cookie), "the cookie is still there");
});
