//! A response: from the bytes of HTTP/1.1 to heads and data. Pure and incremental.
//!
//! The rule: it gives out no more data than there is room for, and takes no more bytes than it
//! has given out. So whoever writes to it is held back exactly as far as the client is, and what
//! it holds itself is a head at the most.

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, SEC_WEBSOCKET_ACCEPT, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderName, HeaderValue, Response, StatusCode};

use super::request::Body;
use crate::relay::chunked;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Takes a response, write by write.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// The request was for the head alone.
    is_head_only: bool,
    /// The request was for a WebSocket.
    is_websocket: bool,
    /// And got it.
    has_switched: bool,
}

#[derive(Debug)]
enum State {
    /// In a head, of which this is the beginning.
    Head(Vec<u8>),
    /// In the data of a body.
    Body(Framing),
    /// Behind its end.
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked(chunked::Decoder),
    UntilClose,
}

/// The next thing of a response.
#[derive(Debug)]
pub enum Piece {
    /// Nothing before more is written, or there is room.
    Nothing,
    /// The head of an informational response: another one comes.
    Informational(Response<()>),
    /// The head.
    Head(Response<()>),
    /// Data, for which there was room.
    Data(Bytes),
}

/// The bytes were no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed response")]
pub struct Malformed;

impl Decoder {
    /// Longest head; those that a session writes are shorter.
    pub const HEAD_MAX: usize = 512 * 1024;

    /// For the response to a request by `method`, behind which comes `body`.
    pub fn new(method: &http::Method, body: Body) -> Self {
        let is_head_only = *method == http::Method::HEAD;
        let is_websocket = body == Body::Raw;
        Self { state: State::Head(Vec::new()), is_head_only, is_websocket, has_switched: false }
    }

    /// Whether the response has been taken to its end.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Whether what follows the head is another protocol.
    pub fn has_switched(&self) -> bool {
        self.has_switched
    }

    /// Takes the beginning of `bytes` up to the next piece, of which there is `room` for so many
    /// bytes; says how many it took.
    ///
    /// # Errors
    /// [`Malformed`] when they are no response.
    pub fn take(&mut self, bytes: &[u8], room: usize) -> Result<(usize, Piece), Malformed> {
        match &mut self.state {
            State::Head(_) => self.take_head(bytes),
            State::Body(framing) => {
                let (taken, data) = framing.take(bytes, room)?;
                if framing.is_done() {
                    self.state = State::Done;
                }
                Ok((taken, if data.is_empty() { Piece::Nothing } else { Piece::Data(data) }))
            }
            State::Done if bytes.is_empty() => Ok((0, Piece::Nothing)),
            State::Done => Err(Malformed),
        }
    }

    /// Nothing more is written: whether that is the end of the response.
    ///
    /// # Errors
    /// [`Malformed`] when it is not.
    pub fn close(&mut self) -> Result<(), Malformed> {
        match self.state {
            State::Body(Framing::UntilClose) | State::Done => {
                self.state = State::Done;
                Ok(())
            }
            State::Head(_) | State::Body(_) => Err(Malformed),
        }
    }

    fn take_head(&mut self, bytes: &[u8]) -> Result<(usize, Piece), Malformed> {
        let State::Head(begun) = &mut self.state else { return Err(Malformed) };
        let before = begun.len();
        begun.extend_from_slice(bytes);
        // The end may have begun before.
        let searched = before.saturating_sub(HEAD_END.len() - 1);
        let end = begun[searched..].windows(HEAD_END.len()).position(|window| window == HEAD_END);
        let Some(length) = end.map(|at| searched + at + HEAD_END.len()) else {
            return if begun.len() > Self::HEAD_MAX { Err(Malformed) } else { Ok((bytes.len(), Piece::Nothing)) };
        };
        begun.truncate(length);
        let head = std::mem::take(begun);
        Ok((length - before, self.head(&head)?))
    }

    /// Reads a whole head.
    fn head(&mut self, text: &[u8]) -> Result<Piece, Malformed> {
        let (mut head, is_http11) = parse(text)?;
        let status = head.status();
        let is_switching = status == StatusCode::SWITCHING_PROTOCOLS;
        let framing = match () {
            () if is_switching && self.is_websocket => Some(Framing::UntilClose),
            () if is_switching => return Err(Malformed),
            () if status.is_informational() => None,
            () if self.is_head_only || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) => {
                Some(Framing::Length(0))
            }
            () => Some(framing(head.headers(), is_http11)?),
        };
        let fields = head.headers_mut();
        for name in [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE] {
            fields.remove(name);
        }
        if is_switching {
            // What HTTP/1.1 switches to is what the stream has connected to (RFC 8441, section 5).
            fields.remove(SEC_WEBSOCKET_ACCEPT);
            fields.remove(CONTENT_LENGTH);
            *head.status_mut() = StatusCode::OK;
            self.has_switched = true;
        }
        match framing {
            None => Ok(Piece::Informational(head)),
            Some(framing) => {
                self.state = if framing.is_done() { State::Done } else { State::Body(framing) };
                Ok(Piece::Head(head))
            }
        }
    }
}

const HEAD_END: &[u8] = b"\r\n\r\n";

/// Most fields of a response: as many as a session reads from its server, and ours.
const FIELDS_MAX: usize = 512;

/// The head that `text` is, and whether it is of HTTP/1.1.
fn parse(text: &[u8]) -> Result<(Response<()>, bool), Malformed> {
    let mut room = vec![httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut room);
    match parsed.parse(text) {
        Ok(httparse::Status::Complete(length)) if length == text.len() => {}
        _ => return Err(Malformed),
    }
    let mut head = Response::new(());
    *head.status_mut() = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Malformed)?;
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| Malformed)?;
        head.headers_mut().append(name, value);
    }
    Ok((head, parsed.version == Some(1)))
}

/// How the body behind a head with these `fields` is framed.
fn framing(fields: &HeaderMap, is_http11: bool) -> Result<Framing, Malformed> {
    let mut codings = fields.get_all(TRANSFER_ENCODING).iter();
    let mut lengths = fields.get_all(CONTENT_LENGTH).iter();
    match (codings.next(), lengths.next()) {
        (None, None) => Ok(Framing::UntilClose),
        (None, Some(length)) if lengths.next().is_none() => {
            let length = length.to_str().map_err(|_| Malformed)?;
            let is_number = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
            length.parse().ok().filter(|_| is_number).map(Framing::Length).ok_or(Malformed)
        }
        (Some(coding), None) if is_http11 && codings.next().is_none() => {
            let is_chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
            if is_chunked { Ok(Framing::Chunked(chunked::Decoder::default())) } else { Err(Malformed) }
        }
        _ => Err(Malformed),
    }
}

impl Framing {
    fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(decoder) => decoder.is_done(),
            Self::UntilClose => false,
        }
    }

    fn take(&mut self, bytes: &[u8], room: usize) -> Result<(usize, Bytes), Malformed> {
        let fits = bytes.len().min(room);
        match self {
            Self::UntilClose => Ok((fits, Bytes::copy_from_slice(&bytes[..fits]))),
            Self::Length(left) => {
                let fits = usize::try_from(*left).map_or(fits, |left| left.min(fits));
                *left -= fits as u64;
                Ok((fits, Bytes::copy_from_slice(&bytes[..fits])))
            }
            Self::Chunked(decoder) => take_chunks(decoder, bytes, room),
        }
    }
}

/// Takes framing off, up to the end of the body, or of the room for data. What frames the data goes
/// along with it: the end of a body needs no room.
fn take_chunks(decoder: &mut chunked::Decoder, bytes: &[u8], room: usize) -> Result<(usize, Bytes), Malformed> {
    let mut data = Vec::new();
    let mut at = 0;
    while at < bytes.len() && !decoder.is_done() {
        let here = match decoder.data_left() {
            Some(left) => {
                let fits = (bytes.len() - at).min(room - data.len());
                usize::try_from(left).map_or(fits, |left| left.min(fits))
            }
            None => 1,
        };
        if here == 0 {
            break;
        }
        let begin = data.len();
        data.extend_from_slice(&bytes[at..at + here]);
        let decoded = decoder.decode(&mut data[begin..]).map_err(|chunked::Malformed| Malformed)?;
        data.truncate(begin + decoded.len());
        at += here;
    }
    Ok((at, data.into()))
}

#[cfg(test)]
mod tests;
