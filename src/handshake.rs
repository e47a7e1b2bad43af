//! WebSocket handshakes: whether one has come through the hops before us as its client sent it.
//!
//! A hop that does not know WebSockets drops `Upgrade` and `Connection`, which end at every hop, or
//! goes on in HTTP/1.0; `Sec-WebSocket-Key` is passed on by all of them. Servers do not know what
//! to make of the rest, and some never answer it. So it is answered here, at once, and the hop is
//! named. Pure.
//!
//! The rule: nothing but a WebSocket handshake is judged. No browser lets a page set
//! `Sec-WebSocket-*`, and requests that offer other protocols, as `Upgrade: h2c`, pass.

use std::net::IpAddr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Version};
use sha1::{Digest, Sha1};

/// What a request is, as far as WebSockets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// Something else.
    None,
    /// A handshake as RFC 6455, section 4.1, has it.
    Whole,
    /// What is left of one.
    Damaged(Damage),
}

/// What is wrong with a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// HTTP/1.0, in which nothing can be upgraded.
    Http10,
    /// No `Upgrade`.
    NoUpgrade,
    /// An `Upgrade` that `Connection` does not name.
    NoConnection,
    /// A method other than GET.
    Method,
    /// Another version than 13, or none.
    Version,
    /// A `Sec-WebSocket-Key` that is none, missing, or there more than once.
    Key,
}

/// Judges the head of a request.
pub fn judge(request: &Parts) -> Handshake {
    let headers = &request.headers;
    let has_fields = headers.contains_key(SEC_WEBSOCKET_KEY) || headers.contains_key(SEC_WEBSOCKET_VERSION);
    let asks = lists(headers, &UPGRADE, |protocol| protocol.eq_ignore_ascii_case(b"websocket"));
    let is_engine_io = request.method == Method::GET && request.uri.query().is_some_and(asks_engine_io);
    if !has_fields && !asks && !is_engine_io {
        return Handshake::None;
    }
    let asks_other = !asks && lists(headers, &UPGRADE, |protocol| !protocol.is_empty());
    let is_named = lists(headers, &CONNECTION, |option| option.eq_ignore_ascii_case(b"upgrade"));
    match request.version {
        Version::HTTP_09 | Version::HTTP_10 => Handshake::Damaged(Damage::Http10),
        Version::HTTP_11 if !asks && (!asks_other || is_engine_io) => Handshake::Damaged(Damage::NoUpgrade),
        Version::HTTP_11 if !is_named => Handshake::Damaged(Damage::NoConnection),
        Version::HTTP_11 if asks => wrong(request).map_or(Handshake::Whole, Handshake::Damaged),
        // HTTP/2 has handshakes of its own (RFC 8441).
        _ => Handshake::None,
    }
}

/// What is wrong with a handshake that has come through whole.
fn wrong(request: &Parts) -> Option<Damage> {
    let only = |name: &HeaderName| {
        let mut fields = request.headers.get_all(name).iter();
        fields.next().filter(|_| fields.next().is_none()).map(|field| field.as_bytes().trim_ascii())
    };
    if request.method != Method::GET {
        // 400 and not 405: the resource may well take this method (RFC 9110, section 15.5.6).
        Some(Damage::Method)
    } else if only(&SEC_WEBSOCKET_VERSION) != Some(b"13") {
        Some(Damage::Version)
    } else if !only(&SEC_WEBSOCKET_KEY).is_some_and(is_key) {
        Some(Damage::Key)
    } else {
        None
    }
}

/// 16 bytes in base64. What the last two bits are is up to the server, as in `ws`.
fn is_key(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/".contains(byte);
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(is_digit)
}

/// A key for a handshake that a client makes in another way (RFC 8441), and a server must get.
pub fn new_key() -> String {
    let nonce: [u8; 16] = std::array::from_fn(|_| fastrand::u8(..));
    BASE64_STANDARD.encode(nonce)
}

/// Whether the head of a response proves that its server has understood the handshake of `request`
/// (RFC 6455, section 4.2.2).
pub fn is_proven(request: &HeaderMap, response: &HeaderMap) -> bool {
    let key = request.get(SEC_WEBSOCKET_KEY).map(|key| key.as_bytes().trim_ascii());
    let proof = response.get(SEC_WEBSOCKET_ACCEPT).map(|proof| proof.as_bytes().trim_ascii());
    let (Some(key), Some(proof)) = (key, proof) else { return false };
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    BASE64_STANDARD.encode(digest).as_bytes() == proof
}

/// What servers of WebSockets know, and others do not.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Whether it is Engine.IO over WebSocket that `query` is for: never a plain request, which servers
/// answer with 400 "Transport unknown" or "Bad request".
fn asks_engine_io(query: &str) -> bool {
    let mut pairs = query.split('&');
    pairs.clone().any(|pair| pair.starts_with("EIO=")) && pairs.any(|pair| pair == "transport=websocket")
}

/// Whether an item of the list in the fields called `name` is what is sought.
fn lists(headers: &HeaderMap, name: &HeaderName, is_sought: impl Fn(&[u8]) -> bool) -> bool {
    let lists_it = |list: &[u8]| list.split(|byte| *byte == b',').any(|item| is_sought(item.trim_ascii()));
    headers.get_all(name).iter().any(|field| lists_it(field.as_bytes()))
}

impl Damage {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Http10, Self::NoUpgrade, Self::NoConnection, Self::Method, Self::Version, Self::Key];

    /// The word for metric labels.
    pub fn label(self) -> &'static str {
        match self {
            Self::Http10 => "http_1_0",
            Self::NoUpgrade => "no_upgrade",
            Self::NoConnection => "no_connection",
            Self::Method => "method",
            Self::Version => "version",
            Self::Key => "key",
        }
    }

    /// The status that says so: what an upgrade would mend is 426 (RFC 9110, section 15.5.22), as is
    /// another version (RFC 6455, section 4.4).
    pub fn status(self) -> u16 {
        match self {
            Self::Http10 | Self::NoUpgrade | Self::NoConnection | Self::Version => 426,
            Self::Method | Self::Key => 400,
        }
    }

    /// Whether a hop did it, and not the client.
    pub fn is_of_hop(self) -> bool {
        matches!(self, Self::Http10 | Self::NoUpgrade | Self::NoConnection)
    }

    /// In what state the handshake came.
    pub fn state(self) -> &'static str {
        match self {
            Self::Http10 => "in HTTP/1.0, which has no upgrades",
            Self::NoUpgrade => "without Upgrade",
            Self::NoConnection => "without Connection: upgrade",
            Self::Method => "with a method other than GET",
            Self::Version => "without Sec-WebSocket-Version: 13",
            Self::Key => "without one valid Sec-WebSocket-Key",
        }
    }

    /// What has to be done, if a hop did it, by whoever is in charge of that hop.
    pub fn cure(self) -> &'static str {
        if self.is_of_hop() {
            "let it speak HTTP/1.1 to this proxy and pass Upgrade and Connection on; in nginx: proxy_http_version 1.1; \
             proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\";"
        } else {
            "see RFC 6455, section 4.1"
        }
    }

    /// All of that, for the client of a handshake that `hop` has sent us.
    pub fn text(self, hop: IpAddr) -> String {
        let (hop, state, cure) = (hop.to_canonical(), self.state(), self.cure());
        format!("a WebSocket handshake came from {hop} {state}; {cure}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const KEY: (&str, &str) = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    const VERSION: (&str, &str) = ("Sec-WebSocket-Version", "13");
    const UPGRADE: (&str, &str) = ("Upgrade", "websocket");
    const CONNECTION: (&str, &str) = ("Connection", "Upgrade");

    fn request(line: &str, fields: &[(&str, &str)]) -> Parts {
        let (method, rest) = line.split_once(' ').expect("a method");
        let (target, version) = rest.split_once(' ').unwrap_or((rest, "1.1"));
        let version = if version == "1.0" { Version::HTTP_10 } else { Version::HTTP_11 };
        let request = http::Request::builder().method(method).uri(target).version(version);
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(()).expect("a valid request").into_parts().0
    }

    #[track_caller]
    fn check(line: &str, fields: &[(&str, &str)], expected: Handshake) {
        assert_eq!(judge(&request(line, fields)), expected, "{line} {fields:?}");
    }

    #[test]
    fn a_handshake_that_is_whole_passes_in_every_spelling() {
        let check = |fields: &[(&str, &str)]| check("GET /ws", fields, Handshake::Whole);
        check(&[KEY, VERSION, UPGRADE, CONNECTION]);
        check(&[KEY, VERSION, ("Upgrade", "WebSocket"), ("Connection", "keep-alive, upgrade")]);
        check(&[KEY, VERSION, UPGRADE, ("Connection", "keep-alive"), ("Connection", "UPGRADE")]);
        check(&[KEY, VERSION, ("Upgrade", ",websocket ,"), ("Connection", ", ,Upgrade,, close")]);
        check(&[KEY, VERSION, ("Upgrade", "h2c"), UPGRADE, CONNECTION]);
        check(&[("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAB=="), VERSION, UPGRADE, CONNECTION]);
        check(&[KEY, VERSION, UPGRADE, CONNECTION, ("Sec-WebSocket-Protocol", "a"), ("Content-Length", "0")]);
    }

    #[test]
    fn what_is_left_of_a_handshake_is_told_by_what_is_missing() {
        let check = |line, fields: &[(&str, &str)], damage| check(line, fields, Handshake::Damaged(damage));
        check("GET /ws 1.0", &[KEY, VERSION, UPGRADE, CONNECTION], Damage::Http10);
        check("GET /ws 1.0", &[KEY, VERSION], Damage::Http10);
        check("GET /ws 1.0", &[UPGRADE], Damage::Http10);
        check("GET /ws", &[KEY, VERSION], Damage::NoUpgrade);
        check("GET /ws", &[KEY], Damage::NoUpgrade);
        check("GET /ws", &[VERSION], Damage::NoUpgrade);
        check("POST /ws", &[KEY, VERSION], Damage::NoUpgrade);
        // What nginx sends when there is no `map` behind its `$connection_upgrade`.
        check("GET /ws", &[KEY, VERSION, CONNECTION], Damage::NoUpgrade);
        check("GET /ws", &[KEY, VERSION, CONNECTION, ("Upgrade", "")], Damage::NoUpgrade);
        check("GET /ws", &[KEY, VERSION, UPGRADE], Damage::NoConnection);
        check("GET /ws", &[KEY, VERSION, UPGRADE, ("Connection", "close")], Damage::NoConnection);
        check("GET /ws", &[UPGRADE, ("Connection", "keep-alive, upgrades")], Damage::NoConnection);
        check("GET /ws", &[KEY, VERSION, ("Upgrade", "h2c")], Damage::NoConnection);

        check("POST /ws", &[KEY, VERSION, UPGRADE, CONNECTION], Damage::Method);
        for version in ["8", "14", "013", "13, 8", ""] {
            check("GET /ws", &[KEY, ("Sec-WebSocket-Version", version), UPGRADE, CONNECTION], Damage::Version);
        }
        check("GET /ws", &[KEY, UPGRADE, CONNECTION], Damage::Version);
        check("GET /ws", &[KEY, VERSION, VERSION, UPGRADE, CONNECTION], Damage::Version);
        check("GET /ws", &[VERSION, UPGRADE, CONNECTION], Damage::Key);
        check("GET /ws", &[KEY, KEY, VERSION, UPGRADE, CONNECTION], Damage::Key);
        for key in ["", "x", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ=a", "dGhlIHNhbXBsZSBub25j-Q=="] {
            check("GET /ws", &[("Sec-WebSocket-Key", key), VERSION, UPGRADE, CONNECTION], Damage::Key);
        }
    }

    #[test]
    fn engine_io_over_websocket_is_no_plain_request() {
        let damaged = Handshake::Damaged;
        let target = "/socket.io/?EIO=4&transport=websocket";
        check(&format!("GET {target}"), &[], damaged(Damage::NoUpgrade));
        check(&format!("GET {target}&sid=abc 1.0"), &[], damaged(Damage::Http10));
        check(&format!("GET {target}"), &[("Upgrade", "h2c"), CONNECTION], damaged(Damage::NoUpgrade));
        check(&format!("GET {target}"), &[KEY, VERSION, UPGRADE, CONNECTION], Handshake::Whole);
        // A preflight, and what others mean by that.
        check(&format!("OPTIONS {target}"), &[], Handshake::None);
        check("GET /?transport=websocket", &[], Handshake::None);
        check("GET /?EIO=4&transport=websockets", &[], Handshake::None);
        check("GET /?EIO=4&transport=polling", &[], Handshake::None);
        check("POST /?EIO=4&transport=polling 1.0", &[], Handshake::None);
    }

    #[test]
    fn other_requests_are_not_judged() {
        for line in ["GET /", "POST /", "GET / 1.0", "HEAD /", "OPTIONS *"] {
            check(line, &[], Handshake::None);
            check(line, &[("Connection", "keep-alive")], Handshake::None);
            // What nginx sends with every request, if it is told to.
            check(line, &[CONNECTION], Handshake::None);
            check(line, &[CONNECTION, ("Upgrade", "")], Handshake::None);
            // What Java's client sends with every request, and what hops make of that.
            let settings = ("HTTP2-Settings", "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA");
            let h2c = ("Upgrade", "h2c");
            check(line, &[h2c, ("Connection", "Upgrade, HTTP2-Settings"), settings], Handshake::None);
            check(line, &[h2c], Handshake::None);
            check(line, &[("Upgrade", "TLS/1.0, HTTP/1.1"), CONNECTION], Handshake::None);
            check(line, &[("Upgrade", "websockets"), CONNECTION], Handshake::None);
        }
        // Another protocol may use such fields as it likes.
        check("GET /", &[KEY, VERSION, CONNECTION, ("Upgrade", "gossip/1")], Handshake::None);
    }

    #[test]
    fn a_proof_is_checked() {
        #[track_caller]
        fn check(key: &'static str, proof: &'static str, expected: bool) {
            let fields = |name, value| HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
            let (request, response) = (fields(SEC_WEBSOCKET_KEY, key), fields(SEC_WEBSOCKET_ACCEPT, proof));
            assert_eq!(is_proven(&request, &response), expected, "{key} {proof}");
            assert!(!is_proven(&request, &HeaderMap::new()));
            assert!(!is_proven(&HeaderMap::new(), &response));
        }

        // The example of RFC 6455, section 1.3.
        check("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", true);
        check("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo", false);
        check("dGhlIHNhbXBsZSBub25jZg==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", false);
    }

    #[test]
    fn keys_of_ours_are_keys_and_differ() {
        let (first, second) = (new_key(), new_key());
        assert!(is_key(first.as_bytes()), "{first}");
        assert_ne!(first, second);
    }
}
