//! A server's response as bytes: its head, and the body by the framing that the head announces
//! (RFC 9112, section 6.3). Pure.
//!
//! What could be read in two ways is [`Malformed`]: two lengths that differ, or a coding that is not
//! `chunked`. What is merely old is not.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use httparse::{ParserConfig, Status};
use pingora::http::ResponseHeader;

use crate::relay::chunked::Decoder;

/// It is no response, or nobody can tell where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed response")]
pub(super) struct Malformed;

impl From<crate::relay::chunked::Malformed> for Malformed {
    fn from(_: crate::relay::chunked::Malformed) -> Self {
        Self
    }
}

/// Most fields of a head.
const FIELDS_MAX: usize = 256;

/// The head that `bytes` begin with, and its length; `None` while it is not whole. Nothing is looked
/// for in the first `seen` bytes, which held no end of a head before.
pub(super) fn head(bytes: &[u8], seen: usize) -> Result<Option<(Box<ResponseHeader>, usize)>, Malformed> {
    let Some(end) = end_of_head(bytes, seen.saturating_sub(END.len())) else { return Ok(None) };
    // Names and values are parts of this copy.
    let head = Bytes::copy_from_slice(&bytes[..end]);
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let mut config = ParserConfig::default();
    config.allow_spaces_after_header_name_in_responses(true);
    let length = match config.parse_response_with_uninit_headers(&mut parsed, &head, &mut fields) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) | Err(_) => return Err(Malformed),
    };
    let mut response = ResponseHeader::build(parsed.code.ok_or(Malformed)?, Some(parsed.headers.len() + USUAL_MORE))
        .map_err(|_| Malformed)?;
    response.set_version(if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 });
    response.set_reason_phrase(parsed.reason).map_err(|_| Malformed)?;
    for field in parsed.headers.iter() {
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value)).map_err(|_| Malformed)?;
        response.append_header(head.slice_ref(field.name.as_bytes()), value).map_err(|_| Malformed)?;
    }
    reconcile(&mut response)?;
    Ok(Some((Box::new(response), length)))
}

/// Fields that are added on the way, as a rule.
const USUAL_MORE: usize = 4;

/// How heads end, whichever way their lines do.
const END: &[u8] = b"\n\r\n";

/// Where the first empty line at or behind `from` ends, but for those before the head.
fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let from = from.max(bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?);
    memchr::memchr_iter(b'\n', &bytes[from..]).map(|at| from + at + 1).find_map(|next| match bytes[next..] {
        [b'\n', ..] => Some(next + 1),
        [b'\r', b'\n', ..] => Some(next + 2),
        _ => None,
    })
}

/// Leaves one framing: none where there is no body, the coding if there is one, or else one length.
///
/// A server that announces more than one, or a body where there can be none, may mean the next bytes
/// otherwise than we do: its connection is not used again (RFC 9112, section 6.3).
fn reconcile(response: &mut ResponseHeader) -> Result<(), Malformed> {
    let is_coded = response.headers.contains_key(TRANSFER_ENCODING);
    let has_length = response.headers.contains_key(CONTENT_LENGTH);
    let has_none = response.status.is_informational() || response.status == StatusCode::NO_CONTENT;
    let is_old = response.version < Version::HTTP_11;
    let is_long = has_length && length(&response.headers) != Ok(Some(0));
    if is_coded && (has_length || is_old || has_none) || is_long && has_none {
        response.append_header(CONNECTION, "close").map_err(|_| Malformed)?;
    }
    if has_none {
        response.remove_header(&CONTENT_LENGTH);
        response.remove_header(&TRANSFER_ENCODING);
        return Ok(()); // RFC 9110, section 8.6, and RFC 9112, section 6.1.
    }
    let mut codings = response.headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let is_chunked = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
        response.remove_header(&CONTENT_LENGTH);
        return if is_chunked { Ok(()) } else { Err(Malformed) };
    }
    let length = length(&response.headers)?;
    let is_plain = |length: &u64| {
        let mut fields = response.headers.get_all(CONTENT_LENGTH).iter();
        fields.next().is_some_and(|field| field.as_bytes() == length.to_string().as_bytes()) && fields.next().is_none()
    };
    if let Some(length) = length.filter(|length| !is_plain(length)) {
        response.insert_header(CONTENT_LENGTH, length).map_err(|_| Malformed)?;
    }
    Ok(())
}

/// The length that is announced, once or as often as somebody likes.
fn length(headers: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let mut lengths =
        headers.get_all(CONTENT_LENGTH).iter().flat_map(|field| field.as_bytes().split(|byte| *byte == b','));
    let Some(first) = lengths.next().map(<[u8]>::trim_ascii) else { return Ok(None) };
    let is_same = first.iter().all(u8::is_ascii_digit) && lengths.all(|other| other.trim_ascii() == first);
    let text = std::str::from_utf8(first).ok().filter(|_| is_same);
    text.and_then(|text| text.parse().ok()).ok_or(Malformed).map(Some)
}

/// What is still to come of a body.
#[derive(Debug)]
pub(super) enum Body {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Decoder),
    /// Whatever comes before the end of the connection.
    UntilClose,
}

impl Body {
    /// The one behind `head`, which answers a request by `method`.
    pub(super) fn of(head: &ResponseHeader, method: &Method) -> Self {
        let has_none = head.status.is_informational()
            || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || method == Method::HEAD;
        match length(&head.headers) {
            _ if has_none => Self::Length(0),
            _ if head.headers.contains_key(TRANSFER_ENCODING) => Self::Chunked(Decoder::default()),
            Ok(Some(length)) => Self::Length(length),
            Ok(None) | Err(Malformed) => Self::UntilClose,
        }
    }

    /// Whether all of it has come.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(decoder) => decoder.is_done(),
            Self::UntilClose => false,
        }
    }

    /// Makes of `bytes` what is of the body, and returns what is behind it.
    pub(super) fn take(&mut self, bytes: &mut Vec<u8>) -> Result<Vec<u8>, Malformed> {
        match self {
            Self::Length(left) => {
                let taken = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= taken as u64;
                Ok(bytes.split_off(taken))
            }
            Self::Chunked(decoder) => {
                let (data, length) = decoder.decode_all(bytes)?;
                let behind = bytes.split_off(length);
                bytes.truncate(data.end);
                bytes.drain(..data.start);
                Ok(behind)
            }
            Self::UntilClose => Ok(Vec::new()),
        }
    }

    /// Whether the server ends it by closing.
    pub(super) fn ends_by_closing(&self) -> bool {
        matches!(self, Self::UntilClose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(bytes: &str) -> Option<(Box<ResponseHeader>, usize)> {
        head(bytes.as_bytes(), 0).expect("a response")
    }

    #[test]
    fn a_head_is_read_when_it_is_whole() {
        #[track_caller]
        fn check(bytes: &str, status: u16, reason: &str, version: Version, fields: &[(&str, &str)]) {
            let whole = format!("{bytes}body");
            for end in 0..bytes.len() {
                for seen in [0, end / 2, end] {
                    let earlier = head(&whole.as_bytes()[..end], seen.min(end)).expect("a response so far");
                    assert!(earlier.is_none(), "{bytes:?} after {end} bytes");
                }
            }
            let (head, length) = parsed(&whole).expect("it is whole");
            assert_eq!((length, head.status.as_u16(), head.version), (bytes.len(), status, version));
            assert_eq!(head.get_reason_phrase().unwrap_or_default(), reason);
            let got = head.case_header_iter();
            let got = got.map(|(name, value)| (name.as_slice().to_vec(), value.as_bytes().to_vec()));
            let fields = fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
            assert_eq!(got.collect::<Vec<_>>(), fields.collect::<Vec<_>>(), "{bytes:?}");
        }

        let (old, new) = (Version::HTTP_10, Version::HTTP_11);
        check("HTTP/1.1 200 OK\r\n\r\n", 200, "OK", new, &[]);
        check("HTTP/1.0 200 Fine\r\n\r\n", 200, "Fine", old, &[]);
        check("HTTP/1.1 299\r\n\r\n", 299, "", new, &[]);
        check("HTTP/1.1 200 OK\nX-a: b\n\n", 200, "OK", new, &[("X-a", "b")]);
        for before in ["\r\n", "\n\n", "\r\n\r\n", "\n\r\n\r\n\n"] {
            check(&format!("{before}HTTP/1.1 200 OK\r\n\r\n"), 200, "OK", new, &[]);
        }
        let fields = [("content-LENGTH", "4"), ("X", "1"), ("x", "2")];
        check("HTTP/1.1 200 OK\r\ncontent-LENGTH:4\r\nX: 1\r\nx : 2 \r\n\r\n", 200, "OK", new, &fields);
    }

    #[test]
    fn what_is_no_response_is_malformed() {
        for bytes in [
            "SSH-2.0-OpenSSH_9.2\r\n\r\n",
            "HTTP/1.1 abc\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert_eq!(head(bytes.as_bytes(), 0).map(|_| ()), Err(Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn one_framing_is_left() {
        #[track_caller]
        fn check(fields: &str, method: &Method, body: &str, lengths: usize) {
            let (head, _) = parsed(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).expect("it is whole");
            let got = format!("{:?}", Body::of(&head, method));
            assert!(got.starts_with(body), "{fields:?}: {got}");
            assert_eq!(head.headers.get_all(CONTENT_LENGTH).iter().count(), lengths, "{fields:?}");
        }

        check("Content-Length: 5\r\n", &Method::GET, "Length(5)", 1);
        check("Content-Length: 5\r\n", &Method::HEAD, "Length(0)", 1);
        check("Content-Length: 5, 5\r\n", &Method::GET, "Length(5)", 1);
        check("Content-Length: 5\r\nContent-Length: 5\r\n", &Method::GET, "Length(5)", 1);
        check("Content-Length: 5\r\nTransfer-Encoding: Chunked\r\n", &Method::GET, "Chunked", 0);
        check("", &Method::GET, "UntilClose", 0);
        for status in [101, 103, 204, 304] {
            let (head, _) = parsed(&format!("HTTP/1.1 {status} X\r\nContent-Length: 5\r\n\r\n")).expect("it is whole");
            assert!(Body::of(&head, &Method::GET).is_done(), "{status}");
        }
    }

    #[test]
    fn a_server_that_frames_oddly_is_not_asked_again() {
        #[track_caller]
        fn check(start: &str, fields: &str, expected: bool) {
            let (head, _) = parsed(&format!("{start}\r\n{fields}\r\n")).expect("it is whole");
            assert_eq!(crate::upstream::headers::stays_open(&head), expected, "{start} {fields:?}");
        }

        let ok = "HTTP/1.1 200 OK";
        check(ok, "Content-Length: 5\r\n", true);
        check(ok, "Transfer-Encoding: chunked\r\n", true);
        check(ok, "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", false);
        check("HTTP/1.0 200 OK", "Connection: keep-alive\r\nContent-Length: 5\r\n", true);
        check("HTTP/1.0 200 OK", "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n", false);
        check("HTTP/1.1 204 X", "", true);
        check("HTTP/1.1 204 X", "Content-Length: 0\r\n", true);
        check("HTTP/1.1 204 X", "Content-Length: 5\r\n", false);
        check("HTTP/1.1 204 X", "Transfer-Encoding: chunked\r\n", false);
        check("HTTP/1.1 304 X", "Content-Length: 5\r\n", true);
        for status in [103, 204] {
            let fields = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
            let (head, _) = parsed(&format!("HTTP/1.1 {status} X\r\n{fields}\r\n")).expect("it is whole");
            assert!(!head.headers.contains_key(CONTENT_LENGTH) && !head.headers.contains_key(TRANSFER_ENCODING));
        }
    }

    #[test]
    fn a_body_ends_where_its_framing_says() {
        #[track_caller]
        fn check(begin: impl Fn() -> Body, bytes: &str, expected: &str, behind: &str, is_done: bool) {
            for split in 0..=bytes.len() {
                let mut body = begin();
                let (mut got, mut rest) = (Vec::new(), Vec::new());
                for piece in [&bytes[..split], &bytes[split..]] {
                    let mut piece = piece.as_bytes().to_vec();
                    if body.is_done() {
                        rest.append(&mut piece);
                        continue;
                    }
                    rest.append(&mut body.take(&mut piece).expect("a body"));
                    got.append(&mut piece);
                }
                assert_eq!(
                    (got.as_slice(), rest.as_slice()),
                    (expected.as_bytes(), behind.as_bytes()),
                    "split at {split}"
                );
                assert_eq!(body.is_done(), is_done);
            }
        }

        check(|| Body::Length(5), "hello", "hello", "", true);
        check(|| Body::Length(5), "helloHTTP/1.1", "hello", "HTTP/1.1", true);
        check(|| Body::Length(6), "hello", "hello", "", false);
        check(|| Body::UntilClose, "hello", "hello", "", false);
        let chunked = || Body::Chunked(Decoder::default());
        check(chunked, "2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nT: x\r\n\r\n", "hello", "", true);
        check(chunked, "2\r\nhe\r\n0\r\n\r\nHTTP/1.1", "he", "HTTP/1.1", true);
        check(chunked, "2\r\nhe\r\n0\r\n", "he", "", false);
        let mut nonsense = b"2\r\nhello\r\n".to_vec();
        assert_eq!(chunked().take(&mut nonsense), Err(Malformed));
    }
}
