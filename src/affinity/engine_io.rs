//! Engine.IO, the transport under Socket.IO: a session id that the server issues, and every later
//! request carries in its query.
//!
//! Such an id must not be hashed: the request that has none yet goes anywhere, and the hash of
//! what is issued there names another server. So the proxy appends a tag of the server to the id
//! in the open packet of a handshake by polling (protocol version 4), and takes it off again on
//! the way up. Client and server never notice, and no proxy has to remember anything:
//!
//! ```text
//! server ──  0{"sid":"lv_VI97HAXpY6yYWAAAC",…}             ──▶ proxy
//! proxy  ──  0{"sid":"lv_VI97HAXpY6yYWAAAC~b6h4J1sy_JQ",…} ──▶ client
//! client ──  ?EIO=4&transport=polling&sid=lv_…AAAC~b6h…    ──▶ any proxy
//! proxy  ──  ?EIO=4&transport=polling&sid=lv_…AAAC         ──▶ the same server
//! ```
//!
//! A session over WebSocket alone is one connection and needs no tag. Version 3 shows its id to
//! applications, so nothing is appended to it. Protocol:
//! <https://github.com/socketio/engine.io-protocol>.

use std::borrow::Cow;

use serde::Deserialize;

use super::tag::{self, LENGTH, Secret, ServerTag};

/// What stands between an id and its tag. Neither servers' ids nor base64 hold it, and no client
/// escapes it: it is unreserved (RFC 3986, section 2.3).
const SEPARATOR: char = '~';

/// What a request's query says of its Engine.IO session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Session {
    /// It is no request of Engine.IO, or its session is not ours to route.
    Foreign,
    /// It asks for a new session by polling; the answer will hold its id.
    Handshake,
    /// It belongs to the session that this server issued.
    Tagged {
        /// The server that the tag names, be it known or not.
        server: ServerTag,
        /// The query as the server knows it: without the tag.
        query: String,
    },
}

impl Session {
    /// Reads `query`, as it stands in the request's target.
    pub fn of(query: &str, secret: &Secret) -> Self {
        let value =
            |name| form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value);
        if value("EIO").as_deref() != Some("4") {
            return Self::Foreign;
        }
        match value("sid") {
            None if value("transport").as_deref() == Some("polling") => Self::Handshake,
            None => Self::Foreign,
            Some(sid) => match opened(&sid, secret) {
                Some((id, server)) => Self::Tagged { server, query: with_sid(query, id) },
                None => Self::Foreign,
            },
        }
    }
}

/// Whether `query` is that of a request of Engine.IO, whatever the version.
pub fn is_asked(query: &str) -> bool {
    query.as_bytes().split(|byte| *byte == b'&').any(|pair| pair.starts_with(b"EIO="))
}

/// Whether the session id in `query` ends in what looks like a tag, whoever made it.
pub fn looks_tagged(query: &str) -> bool {
    // Almost no query has the separator, and then there is nothing to decode.
    if !query.bytes().any(|byte| byte == SEPARATOR as u8 || byte == b'%') {
        return false;
    }
    let has_version = form_urlencoded::parse(query.as_bytes()).any(|(key, value)| key == "EIO" && value == "4");
    let sid = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "sid");
    has_version && sid.is_some_and(|(_, sid)| sid.rsplit_once(SEPARATOR).is_some_and(|(_, tag)| tag::looks_sealed(tag)))
}

/// The id and the server of a tagged session id.
fn opened<'a>(sid: &'a str, secret: &Secret) -> Option<(&'a str, ServerTag)> {
    let (id, tag) = sid.rsplit_once(SEPARATOR)?;
    let server = (tag.len() == LENGTH).then(|| secret.open(id.as_bytes(), tag))??;
    Some((id, server))
}

/// `query` with the value of `sid` replaced, and not a byte else.
fn with_sid(query: &str, id: &str) -> String {
    let pairs = query.split('&').map(|pair| {
        let key = pair.split('=').next().unwrap_or_default();
        let is_sid = form_urlencoded::parse(key.as_bytes()).next().is_some_and(|(key, _)| key == "sid");
        if !is_sid {
            return Cow::Borrowed(pair);
        }
        let id: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
        Cow::Owned(format!("{key}={id}"))
    });
    pairs.collect::<Vec<_>>().join("&")
}

/// The longest body of a response in which an open packet is looked for.
pub const OPENING_MAX: usize = 16 * 1024;

/// `body`, the answer to a handshake, with the session id in its open packet tagged for `server`.
/// `None` when it holds no open packet that we understand.
pub fn tag_opening(body: &[u8], secret: &Secret, server: ServerTag) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    struct Open<'a> {
        sid: &'a str,
    }
    /// Between packets of one body.
    const RECORD_SEPARATOR: u8 = 0x1E;

    let packet = body.split(|byte| *byte == RECORD_SEPARATOR).next()?;
    let json = std::str::from_utf8(packet.strip_prefix(b"0")?).ok()?;
    // Borrowed from the text, so the id stands there as it is, without escapes.
    let Open { sid } = serde_json::from_str(json).ok()?;
    let is_plain = !sid.is_empty() && sid.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !is_plain {
        return None;
    }
    let end = sid.as_ptr().addr() - body.as_ptr().addr() + sid.len();
    let tag = secret.seal(sid.as_bytes(), server);
    let (before, behind) = body.split_at_checked(end)?;
    Some([before, SEPARATOR.to_string().as_bytes(), tag.as_bytes(), behind].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "lv_VI97HAXpY6yYWAAAC";

    fn secret() -> Secret {
        Secret::new(b"0123456789abcdef")
    }

    fn tagged(id: &str) -> String {
        format!("{id}~{}", secret().seal(id.as_bytes(), secret().server("red")))
    }

    #[test]
    fn the_tag_comes_off_and_nothing_else_changes() {
        let sid = tagged(ID);
        let encoded = sid.replace('~', "%7E");
        #[track_caller]
        fn check(query: &str, expected: &str) {
            let server = secret().server("red");
            assert_eq!(Session::of(query, &secret()), Session::Tagged { server, query: expected.to_owned() });
        }

        check(&format!("EIO=4&transport=polling&sid={sid}"), &format!("EIO=4&transport=polling&sid={ID}"));
        check(&format!("sid={sid}&EIO=4"), &format!("sid={ID}&EIO=4"));
        check(&format!("EIO=4&sid={sid}&t=a%20b+c&t=&&x"), &format!("EIO=4&sid={ID}&t=a%20b+c&t=&&x"));
        check(&format!("EIO=4&sid={encoded}&y"), &format!("EIO=4&sid={ID}&y"));
        check(&format!("EIO=4&s%69d={sid}"), &format!("EIO=4&s%69d={ID}"));
        check(&format!("EIO=4&transport=websocket&sid={sid}"), &format!("EIO=4&transport=websocket&sid={ID}"));
    }

    #[test]
    fn only_what_is_ours_is_touched() {
        #[track_caller]
        fn check(query: &str, expected: &Session) {
            assert_eq!(&Session::of(query, &secret()), expected, "{query}");
        }
        let sid = tagged(ID);

        check("EIO=4&transport=polling", &Session::Handshake);
        check("transport=polling&t=x&EIO=4", &Session::Handshake);
        check("EIO=4&transport=websocket", &Session::Foreign);
        check("EIO=3&transport=polling", &Session::Foreign);
        check("transport=polling", &Session::Foreign);
        check("", &Session::Foreign);
        check(&format!("transport=polling&sid={sid}"), &Session::Foreign);
        check(&format!("EIO=3&sid={sid}"), &Session::Foreign);
        check(&format!("EIO=4&sid={ID}"), &Session::Foreign);
        check(&format!("EIO=4&sid={ID}~AAAAAAAAAAA"), &Session::Foreign);
        check(&format!("EIO=4&sid=x{sid}"), &Session::Foreign);
        check(&format!("EIO=4&sid={}", &sid[..sid.len() - 1]), &Session::Foreign);
        check("EIO=4&sid=~", &Session::Foreign);
        check("EIO=4&sid=", &Session::Foreign);
    }

    #[test]
    fn a_tag_is_known_by_its_shape() {
        #[track_caller]
        fn check(query: &str, expected: bool) {
            assert_eq!(looks_tagged(query), expected, "{query}");
        }
        let sid = tagged(ID);

        check(&format!("EIO=4&transport=polling&sid={sid}"), true);
        check(&format!("sid={}&EIO=4", sid.replace('~', "%7E")), true);
        check(&format!("EIO=4&sid={ID}~AAAAAAAAAAA"), true);
        check(&format!("EIO=3&sid={sid}"), false);
        check(&format!("sid={sid}"), false);
        check(&format!("EIO=4&sid={ID}"), false);
        check(&format!("EIO=4&sid={sid}x"), false);
        check(&format!("EIO=4&sid={ID}~AAAAAA.AAAA"), false);
        check("EIO=4&sid=~", false);
        check("EIO=4&transport=polling&t=~", false);
    }

    #[test]
    fn requests_of_every_version_are_known() {
        assert!(is_asked("EIO=4&transport=polling") && is_asked("t=1&EIO=3"));
        assert!(!is_asked("") && !is_asked("XEIO=4") && !is_asked("transport=polling"));
    }

    #[test]
    fn the_open_packet_is_tagged_in_place() {
        #[track_caller]
        fn check(body: &str, expected: Option<&str>) {
            let actual = tag_opening(body.as_bytes(), &secret(), secret().server("red"));
            assert_eq!(
                actual.map(|body| String::from_utf8(body).expect("tests are text")),
                expected.map(str::to_owned)
            );
        }
        let sid = tagged(ID);

        check(
            &format!(r#"0{{"sid":"{ID}","upgrades":["websocket"]}}"#),
            Some(&format!(r#"0{{"sid":"{sid}","upgrades":["websocket"]}}"#)),
        );
        check(
            &format!(r#"0{{ "pingInterval":25000, "sid" : "{ID}" }}"#),
            Some(&format!(r#"0{{ "pingInterval":25000, "sid" : "{sid}" }}"#)),
        );
        check(
            &format!("0{{\"sid\":\"{ID}\"}}\x1e40{{\"sid\":\"x\"}}"),
            Some(&format!("0{{\"sid\":\"{sid}\"}}\x1e40{{\"sid\":\"x\"}}")),
        );

        check("", None);
        check("0", None);
        check("ok", None);
        check(r#"{"code":0,"message":"Transport unknown"}"#, None);
        check(r#"0{"sid":7}"#, None);
        check(r#"0{"sid":""}"#, None);
        check(r#"0{"sid":"a\u0062c"}"#, None);
        check(r#"0{"sid":"a b"}"#, None);
        check(r#"4{"sid":"abc"}"#, None);
        check(r#"0{"sid":"abc""#, None);
    }
}
