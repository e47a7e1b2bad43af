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
//! A session over WebSocket alone is one connection and needs no tag. Up to version 3 applications
//! see the id, so nothing is appended to it: who issued it is learned, and so it is where an open
//! packet cannot be tagged. Protocol: <https://github.com/socketio/engine.io-protocol>.

use std::borrow::Cow;

use serde::Deserialize;

use super::tag::{self, LENGTH, Secret, ServerTag};

/// What stands between an id and its tag. Neither servers' ids nor base64 hold it, and no client
/// escapes it: it is unreserved (RFC 3986, section 2.3).
const SEPARATOR: char = '~';

/// What a request's query says of its Engine.IO session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Session {
    /// It is no request of Engine.IO, or of a session that is a single connection.
    Foreign,
    /// It asks for a new session by polling; the answer will hold its id.
    Handshake(Version),
    /// It belongs to the session that this server issued.
    Tagged {
        /// The server that the tag names, be it known or not.
        server: ServerTag,
        /// The query as the server knows it: without the tag.
        query: String,
    },
    /// It belongs to the session with this id, which has no tag of ours.
    Issued(String),
}

/// A version of the protocol, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// That of Socket.IO 1 and 2, whose applications see the session's id.
    UpTo3,
    /// That of Socket.IO 3 and later, where only the transport uses it.
    From4,
}

impl Session {
    /// Reads `query`, as it stands in the request's target.
    pub fn of(query: &str, secret: &Secret) -> Self {
        let (mut version, mut transport, mut sid) = (None, None, None);
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let wanted = match key.as_ref() {
                "EIO" => &mut version,
                "transport" => &mut transport,
                "sid" => &mut sid,
                _ => continue,
            };
            wanted.get_or_insert(value);
        }
        let version = match version.as_deref() {
            Some("4") => Version::From4,
            Some("3" | "2") => Version::UpTo3,
            _ => return Self::Foreign,
        };
        let Some(sid) = sid else {
            let is_polling = transport.as_deref() == Some("polling");
            return if is_polling { Self::Handshake(version) } else { Self::Foreign };
        };
        match opened(&sid, secret).filter(|_| version == Version::From4) {
            Some((id, server)) => Self::Tagged { server, query: with_sid(query, id) },
            None if sid.is_empty() => Self::Foreign,
            None => Self::Issued(sid.into_owned()),
        }
    }
}

/// Whether `query` is that of a request of Engine.IO, whatever the version.
pub fn is_asked(query: &str) -> bool {
    query.as_bytes().split(|byte| *byte == b'&').any(|pair| pair.starts_with(b"EIO="))
}

/// Whether the session id `sid` ends in what looks like a tag, whoever made it.
pub fn looks_tagged(sid: &str) -> bool {
    sid.rsplit_once(SEPARATOR).is_some_and(|(_, tag)| tag::looks_sealed(tag))
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

/// The session id in `query`, as it stands in the request's target.
pub fn sid(query: &str) -> Option<Cow<'_, str>> {
    form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "sid").map(|(_, sid)| sid)
}

/// What answers a poll and ends its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Farewell {
    /// The packet for the client, as the version that is spoken frames it.
    pub body: String,
    /// What that is.
    pub content_type: &'static str,
    /// The same for the server, as a client posts it.
    pub posted: &'static str,
    /// What that is.
    pub posted_type: &'static str,
}

/// What ends the session that polls with `query`; `None` when that is no poll.
pub fn farewell(query: &str) -> Option<Farewell> {
    let value =
        |wanted: &str| form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == wanted).map(|(_, it)| it);
    if value("transport")? != "polling" {
        return None;
    }
    let is_new = value("EIO")? == "4";
    let packet = if is_new { "1" } else { "1:1" };
    let script = value("j").filter(|page| !page.is_empty() && page.bytes().all(|byte| byte.is_ascii_digit()));
    Some(match script {
        Some(page) => Farewell {
            body: format!("___eio[{page}](\"{packet}\");"),
            content_type: "text/javascript; charset=UTF-8",
            posted: if is_new { "d=1" } else { "d=1%3A1" },
            posted_type: "application/x-www-form-urlencoded",
        },
        None => Farewell { body: packet.to_owned(), content_type: TEXT, posted: packet, posted_type: TEXT },
    })
}

const TEXT: &str = "text/plain;charset=UTF-8";

/// The longest body of a response in which an open packet is looked for.
pub const OPENING_MAX: usize = 16 * 1024;

/// The session id in `body`, the answer to a handshake; `None` when it holds no open packet that
/// we understand.
///
/// ```text
/// 0{"sid":"…",…}                  version 4
/// 97:0{"sid":"…",…}2:40           version 3: lengths before packets
/// 00 09 07 FF 0{"sid":"…",…}      version 3, binary: the length as digits, a byte each
/// ___eio[0]("0{\"sid\":\"…\",…}");  JSONP: any of them as a script
/// ```
pub fn opening(body: &[u8]) -> Option<Cow<'_, str>> {
    match script(body) {
        Some(text) => session_id(text.as_bytes()).map(|id| Cow::Owned(id.to_owned())),
        None => session_id(body).map(Cow::Borrowed),
    }
}

/// What a script of JSONP hands to its page.
fn script(body: &[u8]) -> Option<String> {
    let call = body.strip_prefix(b"___eio[")?;
    let argument = call.iter().position(|byte| *byte == b'(')? + 1;
    first_json(&call[argument..])
}

/// The session id in the first packet, if that is an open packet. Borrowed from the text, so the id
/// stands there as it is, without escapes.
fn session_id(payload: &[u8]) -> Option<&str> {
    #[derive(Deserialize)]
    struct Open<'a> {
        sid: &'a str,
    }

    let Open { sid } = first_json(first_packet(payload)?.strip_prefix(b"0")?)?;
    (!sid.is_empty()).then_some(sid)
}

fn first_packet(payload: &[u8]) -> Option<&[u8]> {
    /// Longer lengths are those of larger bodies than are looked at.
    const DIGITS_MAX: usize = 6;
    let behind = |end: u8| {
        let at = payload.iter().take(1 + DIGITS_MAX + 1).position(|byte| *byte == end)?;
        payload.get(at + 1..)
    };
    match payload.first()? {
        b'0' => Some(payload),
        b'1'..=b'9' => behind(b':'),
        0 => behind(0xFF),
        _ => None,
    }
}

/// The first JSON value in `text`, whatever stands behind it.
fn first_json<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Option<T> {
    serde_json::Deserializer::from_slice(text).into_iter().next()?.ok()
}

/// `body`, the answer to a handshake, with the session id in its open packet tagged for `server`.
/// `None` when it holds no open packet that we understand, or an id that we had better not touch.
pub fn tag_opening(body: &[u8], secret: &Secret, server: ServerTag) -> Option<Vec<u8>> {
    let sid = opening(body)?;
    if !sid.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return None;
    }
    let end = match &sid {
        Cow::Borrowed(sid) => sid.as_ptr().addr() - body.as_ptr().addr() + sid.len(),
        Cow::Owned(sid) => end_in_script(body, sid)?,
    };
    let tag = secret.seal(sid.as_bytes(), server);
    let (before, behind) = body.split_at_checked(end)?;
    Some([before, SEPARATOR.to_string().as_bytes(), tag.as_bytes(), behind].concat())
}

/// Where `sid` ends in a script, whose string has the packet's quotes escaped.
fn end_in_script(body: &[u8], sid: &str) -> Option<usize> {
    let quoted = format!(r#"\"sid\":\"{sid}\""#);
    let at = body.windows(quoted.len()).position(|text| text == quoted.as_bytes())?;
    Some(at + quoted.len() - 2)
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
    fn a_poll_is_ended_as_its_version_has_it() {
        #[track_caller]
        fn check(query: &str, expected: Option<&str>) {
            assert_eq!(farewell(query).map(|farewell| farewell.body).as_deref(), expected, "{query}");
        }

        check("EIO=4&transport=polling&sid=a&t=x", Some("1"));
        check("EIO=3&transport=polling&sid=a", Some("1:1"));
        check("EIO=3&transport=polling&sid=a&j=2", Some("___eio[2](\"1:1\");"));
        check("EIO=4&transport=polling&sid=a&j=0%5D%3Balert(1)", Some("1"));
        check("EIO=4&transport=websocket&sid=a", None);
        check("transport=polling", None);
        check("", None);
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

        let issued = |sid: &str| Session::Issued(sid.to_owned());

        check("EIO=4&transport=polling", &Session::Handshake(Version::From4));
        check("transport=polling&t=x&EIO=4", &Session::Handshake(Version::From4));
        check("EIO=3&transport=polling&b64=1", &Session::Handshake(Version::UpTo3));
        check("EIO=4&transport=websocket", &Session::Foreign);
        check("EIO=3&transport=websocket", &Session::Foreign);
        check("EIO=5&transport=polling", &Session::Foreign);
        check("transport=polling", &Session::Foreign);
        check("", &Session::Foreign);
        check(&format!("transport=polling&sid={sid}"), &Session::Foreign);
        check("EIO=4&sid=", &Session::Foreign);

        check(&format!("EIO=3&sid={sid}"), &issued(&sid));
        check(&format!("sid={ID}&EIO=4"), &issued(ID));
        check("EIO=3&transport=websocket&sid=a%2Bb+c", &issued("a+b c"));
        check(&format!("EIO=4&sid={ID}~AAAAAAAAAAA"), &issued(&format!("{ID}~AAAAAAAAAAA")));
        check(&format!("EIO=4&sid=x{sid}"), &issued(&format!("x{sid}")));
        check(&format!("EIO=4&sid={}", &sid[..sid.len() - 1]), &issued(&sid[..sid.len() - 1]));
        check("EIO=4&sid=~", &issued("~"));
    }

    #[test]
    fn a_tag_is_known_by_its_shape() {
        assert!(looks_tagged(&tagged(ID)) && looks_tagged(&format!("{ID}~AAAAAAAAAAA")));
        for sid in ["", "~", ID, &format!("{}x", tagged(ID)), &format!("{ID}~AAAAAA.AAAA")] {
            assert!(!looks_tagged(sid), "{sid}");
        }
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

        check(
            &format!(r#"___eio[12]("0{{\"sid\":\"{ID}\",\"pingInterval\":25000}}");"#),
            Some(&format!(r#"___eio[12]("0{{\"sid\":\"{sid}\",\"pingInterval\":25000}}");"#)),
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

    #[test]
    fn the_id_is_found_in_every_framing() {
        #[track_caller]
        fn check(body: &[u8], expected: Option<&str>) {
            assert_eq!(opening(body).as_deref(), expected, "{}", body.escape_ascii());
        }
        let open = format!(r#"0{{"sid":"{ID}","upgrades":["websocket"],"pingTimeout":5000}}"#);
        let script = serde_json::to_string(&format!("85:{open}2:40")).expect("text becomes JSON");

        check(open.as_bytes(), Some(ID));
        check(format!("{open}\x1e40").as_bytes(), Some(ID));
        check(format!("85:{open}2:40").as_bytes(), Some(ID));
        check(&[b"\x00\x08\x05\xff", open.as_bytes(), b"\x00\x02\xff40"].concat(), Some(ID));
        check(&[open.as_bytes(), b"\xff\xfe"].concat(), Some(ID));
        check(format!("___eio[0]({script});").as_bytes(), Some(ID));
        check(br#"97:0{"sid":"/#strange one"}"#, Some("/#strange one"));

        check(b"", None);
        check(b"2:40", None);
        check(b"97:", None);
        check(b"97", None);
        check(b"1234567890:0{}", None);
        check(b"\x00\x08\x05", None);
        check(b"\x00", None);
        check(br#"2:400{"sid":"a"}"#, None);
        check(br#"97:0{"sid":["a"]}"#, None);
        check(b"___eio[0](", None);
        check(b"___eio[0](\"0{", None);
        check(b"___eio", None);
    }
}
