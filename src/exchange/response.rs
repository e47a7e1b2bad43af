//! The body of a server's response, by the framing that its head announces (RFC 9112, section 6.3). Pure.

use http::{Method, StatusCode};

use crate::relay::chunked::Decoder;
use crate::upstream::response::{Head, Malformed, Name};

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
    pub(super) fn of(head: &Head, method: &Method) -> Self {
        let has_none = head.status.is_informational()
            || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || method == Method::HEAD;
        match head.length() {
            _ if has_none => Self::Length(0),
            _ if head.has(Name::TransferEncoding) => Self::Chunked(Decoder::default()),
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

    fn parsed(bytes: &str) -> Head {
        Head::read(bytes.as_bytes(), 0).expect("a response").expect("it is whole").0
    }

    #[test]
    fn one_framing_is_left() {
        #[track_caller]
        fn check(fields: &str, method: &Method, body: &str, lengths: usize) {
            let head = parsed(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"));
            let got = format!("{:?}", Body::of(&head, method));
            assert!(got.starts_with(body), "{fields:?}: {got}");
            assert_eq!(head.all(Name::ContentLength).count(), lengths, "{fields:?}");
        }

        check("Content-Length: 5\r\n", &Method::GET, "Length(5)", 1);
        check("Content-Length: 5\r\n", &Method::HEAD, "Length(0)", 1);
        check("Content-Length: 5, 5\r\n", &Method::GET, "Length(5)", 1);
        check("Content-Length: 5\r\nContent-Length: 5\r\n", &Method::GET, "Length(5)", 1);
        check("Content-Length: 5\r\nTransfer-Encoding: Chunked\r\n", &Method::GET, "Chunked", 0);
        check("", &Method::GET, "UntilClose", 0);
        for status in [101, 103, 204, 304] {
            let head = parsed(&format!("HTTP/1.1 {status} X\r\nContent-Length: 5\r\n\r\n"));
            assert!(Body::of(&head, &Method::GET).is_done(), "{status}");
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
