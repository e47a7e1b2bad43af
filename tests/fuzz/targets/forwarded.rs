//! Addresses in forwarded fields: from anything that a header may hold.

#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use steadfast::affinity::forwarded;
use steadfast::config::{ClientIp, Pick, TrustedProxies};

fuzz_target!(|fields: Vec<(bool, &[u8])>| {
    let mut headers = HeaderMap::new();
    for (is_standard, value) in fields {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(if is_standard { FORWARDED } else { forwarded::X_FORWARDED_FOR }, value);
        }
    }
    let hop = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let trusted = TrustedProxies::private();
    let found = forwarded::rightmost_untrusted(&headers, hop, &trusted);
    let first = forwarded::first(&headers);
    assert_eq!(found, forwarded::client(&ClientIp::default(), &headers, hop, &trusted));
    if !forwarded::is_there(&headers) {
        assert_eq!((first, found), (None, hop));
    }
    for pick in [Pick::First, Pick::RightmostUntrusted] {
        let _ = forwarded::missing(&headers, pick);
    }
});
