//! The head of a request: from the field list of HTTP/2 to the text of HTTP/1.1. Pure.
//!
//! The rule: every byte of the text is either written here or has been checked, so that nothing in
//! a field can end its line. What the rules of RFC 9113, section 8, call malformed is no request.

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderMap, SEC_WEBSOCKET_KEY, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// A request as HTTP/1.1 has it.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// The head, its empty line included.
    pub head: Vec<u8>,
    /// How what follows is framed.
    pub body: Body,
}

/// What follows the head of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    None,
    /// As many bytes as the head says; the framing layer has checked that.
    Length,
    /// Chunks.
    Chunked,
    /// The bytes of another protocol.
    Raw,
}

/// The request breaks a rule of HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Translates `request`, of which `protocol` is the pseudo-field of RFC 8441 and `has_body` whether
/// its stream goes on behind the head. `key` is that of a WebSocket handshake, if it is one.
///
/// # Errors
/// [`Malformed`] when it is none of HTTP/2.
pub fn translate(request: &Parts, protocol: Option<&str>, has_body: bool, key: &str) -> Result<Request, Malformed> {
    let is_websocket = protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket"));
    let body = if is_websocket { Body::Raw } else { body(request, has_body)? };
    let mut head = Head::default();
    head.request_line(request, is_websocket)?;
    head.host(request)?;
    for (name, value) in &request.headers {
        if is_of_connection(name) || (name == TE && value != "trailers") {
            return Err(Malformed);
        }
        // The length has been read, and the others are written in their own way.
        let is_ours = [HOST, COOKIE, CONTENT_LENGTH, TE].contains(name) || (is_websocket && name == SEC_WEBSOCKET_KEY);
        if !is_ours {
            head.field(name, value.as_bytes())?;
        }
    }
    head.cookies(&request.headers)?;
    if is_websocket {
        head.field(&CONNECTION, b"Upgrade")?;
        head.field(&UPGRADE, b"websocket")?;
        head.field(&SEC_WEBSOCKET_KEY, key.as_bytes())?;
    } else {
        // One stream is one request: nothing can follow it.
        head.field(&CONNECTION, b"close")?;
    }
    match body {
        Body::Length => head.field(&CONTENT_LENGTH, length(&request.headers)?.unwrap_or("0").as_bytes())?,
        Body::Chunked => head.field(&TRANSFER_ENCODING, b"chunked")?,
        Body::None | Body::Raw => {}
    }
    Ok(Request { head: head.finish(), body })
}

/// Fields that HTTP/2 has no use for, and whose place is in the framing (RFC 9113, section 8.2.2).
fn is_of_connection(name: &HeaderName) -> bool {
    [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE].contains(name)
}

fn body(request: &Parts, has_body: bool) -> Result<Body, Malformed> {
    match (length(&request.headers)?, has_body) {
        (Some(_), true) => Ok(Body::Length),
        (Some(length), false) if length.bytes().any(|digit| digit != b'0') => Err(Malformed),
        // A server may tell a body of no bytes from none at all.
        (Some(_), false) => Ok(Body::Length),
        (None, true) => Ok(Body::Chunked),
        (None, false) => Ok(Body::None),
    }
}

/// What the one `Content-Length` says, if there is one. Not as many of the same: who lets those
/// pass and who does not must agree.
fn length(fields: &HeaderMap) -> Result<Option<&str>, Malformed> {
    let Some(length) = only(fields, &CONTENT_LENGTH)? else { return Ok(None) };
    let length = length.to_str().map_err(|_| Malformed)?;
    let is_number = (1..=LENGTH_DIGITS_MAX).contains(&length.len()) && length.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { Ok(Some(length)) } else { Err(Malformed) }
}

/// Enough for any body; one more may overflow somebody's 64 bits.
const LENGTH_DIGITS_MAX: usize = 18;

/// The value of a field that may not be there twice.
fn only<'a>(fields: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Malformed> {
    let mut values = fields.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() { Err(Malformed) } else { Ok(first) }
}

/// A head while it is written.
#[derive(Default)]
struct Head(Vec<u8>);

impl Head {
    fn request_line(&mut self, request: &Parts, is_websocket: bool) -> Result<(), Malformed> {
        let (method, uri) = (&request.method, &request.uri);
        let target = if *method == Method::CONNECT && !is_websocket {
            // Not a path, and nothing that is served here: it is refused like any other CONNECT.
            uri.authority().ok_or(Malformed)?.as_str()
        } else {
            uri.path_and_query().ok_or(Malformed)?.as_str()
        };
        let is_asterisk = *method == Method::OPTIONS && target == "*";
        if *method != Method::CONNECT && !is_asterisk && !target.starts_with('/') {
            return Err(Malformed); // RFC 9113, section 8.3.1.
        }
        if is_websocket && (*method != Method::CONNECT || !target.starts_with('/')) {
            return Err(Malformed);
        }
        if target.bytes().any(|byte| byte <= b' ' || byte == 0x7F) {
            return Err(Malformed);
        }
        let method = if is_websocket { Method::GET.as_str() } else { method.as_str() };
        for part in [method, " ", target, " HTTP/1.1\r\n"] {
            self.0.extend_from_slice(part.as_bytes());
        }
        Ok(())
    }

    /// One name of the host, whichever of its two places has it; if both have, the same.
    fn host(&mut self, request: &Parts) -> Result<(), Malformed> {
        let authority = request.uri.authority().map(|authority| authority.as_str().as_bytes());
        let host = only(&request.headers, &HOST)?.map(HeaderValue::as_bytes);
        let name = match (authority, host) {
            (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => return Err(Malformed),
            (Some(name), _) | (None, Some(name)) => name,
            (None, None) => return Ok(()), // Refused like any other request without.
        };
        if name.contains(&b'@') {
            return Err(Malformed); // RFC 9113, section 8.3.1.
        }
        self.field(&HOST, name)
    }

    /// What clients send in crumbs, for the sake of compression, is one field (RFC 9113, section
    /// 8.2.3).
    fn cookies(&mut self, fields: &HeaderMap) -> Result<(), Malformed> {
        let crumbs: Vec<&[u8]> = fields.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if crumbs.is_empty() { Ok(()) } else { self.field(&COOKIE, &crumbs.join(&b"; "[..])) }
    }

    /// RFC 9113, section 8.2.1, on what a value may not be.
    fn field(&mut self, name: &HeaderName, value: &[u8]) -> Result<(), Malformed> {
        let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        let ends_line = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
        if is_space(value.first()) || is_space(value.last()) || value.iter().any(ends_line) {
            return Err(Malformed);
        }
        for part in [name.as_str().as_bytes(), b": ", value, b"\r\n"] {
            self.0.extend_from_slice(part);
        }
        Ok(())
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(b"\r\n");
        self.0
    }
}

#[cfg(test)]
mod tests;
