//! Sessions that a server issues and that carry no tag of ours: who issued them must be learned.
//!
//! What names such a session may be a secret, and may be long, so nobody remembers it: a store
//! gets [`SessionId`]s and [`ServerName`]s, which are digests of a fixed size, and the same on
//! every machine and in every version. They say nothing of the upstream: upstreams whose servers
//! have the same names know each other's sessions.

use std::borrow::Cow;

use http::request::Parts;
use http::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use twox_hash::XxHash64;

use super::{cookie, query};
use crate::config::{Find, Learn, Session};

/// Names a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// The session that `value` names where it was found: in `cookie:sid`, for one. Half of the
    /// SHA-256 digest of both.
    pub fn of(place: &str, value: &[u8]) -> Self {
        let digest = Sha256::new().chain_update(place).chain_update([0]).chain_update(value).finalize();
        Self(std::array::from_fn(|at| digest[at]))
    }

    /// Its bytes, each as good as random.
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Stands for the name of a server: its XXH64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServerName(u64);

impl ServerName {
    /// What stands for `name`.
    pub fn of(name: &str) -> Self {
        Self(XxHash64::oneshot(0, name.as_bytes()))
    }
}

/// Where the id of a session stands in requests; a part of what names it, because the same text in
/// another place is another session.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// In the query of Engine.IO requests.
    EngineIo,
    /// In this cookie.
    Cookie(&'a str),
    /// In this field.
    Header(&'a HeaderName),
    /// In this parameter of the query.
    Query(&'a str),
}

impl<'a> Place<'a> {
    /// Where requests of `session` have its id.
    pub fn of(session: &'a Session) -> Self {
        match &session.find {
            Find::Header(name) => Self::Header(name),
            Find::Query(name) => Self::Query(name),
            Find::Cookie(name) => Self::Cookie(name),
        }
    }

    /// The session that `value` names here.
    pub fn session(self, value: &[u8]) -> SessionId {
        match self {
            Self::EngineIo => SessionId::of("engine_io", value),
            Self::Cookie(name) => SessionId::of(&format!("cookie:{name}"), value),
            Self::Header(name) => SessionId::of(&format!("header:{name}"), value),
            Self::Query(name) => SessionId::of(&format!("query:{name}"), value),
        }
    }

    /// The value that `request` has here, if it has one.
    pub fn value(self, request: &Parts) -> Option<Cow<'_, [u8]>> {
        let value = match self {
            Self::EngineIo => None,
            Self::Cookie(name) => cookie::find(&request.headers, name).map(Cow::Borrowed),
            Self::Header(name) => request.headers.get(name).map(|value| Cow::Borrowed(value.as_bytes())),
            Self::Query(name) => query(request, name),
        };
        value.filter(|value| !value.is_empty())
    }
}

/// The longest body of a response in which an id is looked for.
pub const BODY_MAX: usize = 16 * 1024;

/// The session of this kind that a response issues.
pub fn issued(session: &Session, head: &HeaderMap, body: &[u8]) -> Option<SessionId> {
    let id = match &session.learn {
        Learn::ResponseHeader(name) => head.get(name)?.as_bytes().to_vec(),
        Learn::Json(members) => member(body, members)?.into_bytes(),
    };
    (!id.is_empty()).then(|| Place::of(session).session(&id))
}

/// The session that a response issues by setting the cookie `name`.
pub fn issued_cookie(name: &str, head: &HeaderMap) -> Option<SessionId> {
    cookie::set(head, name).map(|value| Place::Cookie(name).session(value))
}

/// The first of `paths` that leads to text or a number in the JSON object `body`.
fn member(body: &[u8], paths: &[Vec<String>]) -> Option<String> {
    let object: Value = serde_json::from_slice(body).ok()?;
    paths.iter().find_map(|path| match path.iter().try_fold(&object, |value, name| value.get(name))? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_named_by_its_place_and_its_value() {
        let id = SessionId::of("cookie:sid", b"a");
        assert_eq!(id, SessionId::of("cookie:sid", b"a"));
        for (place, value) in [("cookie:sid", "b"), ("cookie:si", "a"), ("cookie:", "sid\0a"), ("query:sid", "a")] {
            assert_ne!(id, SessionId::of(place, value.as_bytes()), "{place} {value}");
        }
    }

    #[test]
    fn names_are_the_same_everywhere() {
        // printf 'cookie:sid\0lv_VI97HAXpY6yYWAAAC' | sha256sum
        let id = SessionId::of("cookie:sid", b"lv_VI97HAXpY6yYWAAAC");
        let hex: String = id.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "ec84dd3d470bd0aee4bf7bd64ddfc670");
        assert_eq!(ServerName::of("chat-1"), ServerName(0xf493_9f0a_0edb_ec0f));
    }

    #[test]
    fn ids_are_found_in_json() {
        #[track_caller]
        fn check(body: &str, expected: Option<&str>) {
            let paths = ["token", "session.id"].map(|path| path.split('.').map(str::to_owned).collect());
            assert_eq!(member(body.as_bytes(), &paths).as_deref(), expected, "{body}");
        }

        check(r#"{"token":"a"}"#, Some("a"));
        check(r#" { "x": [1], "token" : "\u0061\/b" } "#, Some("a/b"));
        check(r#"{"session":{"id":"b"}}"#, Some("b"));
        check(r#"{"session":{"id":"b"},"token":"a"}"#, Some("a"));
        check(r#"{"session":{"id":"b"},"token":""}"#, Some("b"));
        check(r#"{"token":null,"session":{"id":7}}"#, Some("7"));

        check("", None);
        check("{", None);
        check("[]", None);
        check(r#""token""#, None);
        check(r#"{"token":{"id":"a"}}"#, None);
        check(r#"{"session":"id"}"#, None);
        check(r#"{"token":"a"} and more"#, None);
    }

    #[test]
    fn what_is_issued_is_found_again() {
        let mcp = Session {
            learn: Learn::ResponseHeader(HeaderName::from_static("mcp-session-id")),
            find: Find::Header(HeaderName::from_static("mcp-session-id")),
        };
        let signalr =
            Session { learn: Learn::Json(vec![vec!["connectionToken".into()]]), find: Find::Query("id".into()) };
        let request = http::Request::get("/hub?id=a%2Bb&id=c").header("Mcp-Session-Id", "m").header("Cookie", "s=t");
        let (request, ()) = request.body(()).expect("a valid request").into_parts();
        let found = |place: Place<'_>| place.value(&request).map(|value| place.session(&value));
        let head = |name: &'static str, value: &'static str| {
            HeaderMap::from_iter([(HeaderName::from_static(name), http::HeaderValue::from_static(value))])
        };

        let none = HeaderMap::new();
        assert_eq!(issued(&mcp, &head("mcp-session-id", "m"), b""), found(Place::of(&mcp)));
        assert_eq!(issued(&mcp, &head("mcp-session-id", ""), b""), None);
        assert_eq!(issued(&signalr, &none, br#"{"connectionToken":"a+b"}"#), found(Place::of(&signalr)));
        assert_eq!(issued(&signalr, &none, b""), None);
        assert_eq!(issued_cookie("s", &head("set-cookie", "s=t; Path=/")), found(Place::Cookie("s")));
        assert_eq!(issued_cookie("t", &head("set-cookie", "s=t; Path=/")), None);
    }
}
