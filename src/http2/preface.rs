//! What a connection of HTTP/2 begins with (RFC 9113, section 3.4), and no request of HTTP/1 does.
//! Pure.

/// The first bytes that a client sends.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// That cannot be told before there is more.
    Partial,
    /// The preface.
    Http2,
    /// Something else.
    Other,
}

/// Looks at the first bytes of a connection.
pub fn look(bytes: &[u8]) -> Start {
    if bytes.starts_with(PREFACE) {
        Start::Http2
    } else if PREFACE.starts_with(bytes) {
        Start::Partial
    } else {
        Start::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preface_is_told_from_requests() {
        for length in 0..PREFACE.len() {
            assert_eq!(look(&PREFACE[..length]), Start::Partial, "{length} bytes");
        }
        assert_eq!(look(PREFACE), Start::Http2);
        assert_eq!(look(&[PREFACE, b"\0\0\0\x04"].concat()), Start::Http2);
        for other in ["POST / HTTP/1.1\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\nX", "PRI * HTTP/1.1\r\n", "GET", "\r\n", " "]
        {
            assert_eq!(look(other.as_bytes()), Start::Other, "{other:?}");
        }
    }
}
