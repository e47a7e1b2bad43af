//! Where the head of an HTTP/1 request ends. Pure and incremental.
//!
//! It must find the very byte at which `httparse` stops: a head begins behind any empty lines,
//! ends with the first empty line after that, and a line ends with LF or CRLF.
//!
//! The first line is looked at on the way: behind the gate Pingora mends what is no request line, and
//! makes of white space in a target what no other hop makes of it.

use std::io;

/// Lets the bytes of one head through and stops those behind it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeadGate {
    state: State,
    /// Bytes that the head may still have.
    bytes_left: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// No head is being read: everything passes.
    #[default]
    Open,
    /// Before the head: empty lines.
    Before,
    /// In the first line, behind so many spaces.
    Start { spaces: u8 },
    /// Behind the CR that must end it.
    StartEnd,
    /// In a line.
    Line,
    /// Behind the LF of a line.
    LineEnd,
    /// Behind the CR of a line that may be empty.
    MaybeEmpty,
    /// The head was longer than allowed.
    TooLong,
    /// The first line is not a method, a target and a version with one space between them.
    Malformed,
}

impl HeadGate {
    /// A gate for a head of at most `bytes_max`.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { state: State::Before, bytes_left: bytes_max }
    }

    /// The gate behind which nothing good can come.
    pub(super) fn malformed() -> Self {
        Self { state: State::Malformed, bytes_left: 0 }
    }

    pub(super) fn is_too_long(&self) -> bool {
        self.state == State::TooLong
    }

    pub(super) fn is_malformed(&self) -> bool {
        self.state == State::Malformed
    }

    /// How many of `bytes` may pass: all, or those up to the end of the head.
    ///
    /// # Errors
    /// When the head is longer than allowed, or begins with no request line.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.state == State::Open {
            return Ok(bytes.len());
        }
        let mut at = 0;
        while at < bytes.len() {
            // Most bytes are in the middle of lines.
            let next = match self.state {
                State::Line => memchr::memchr(b'\n', &bytes[at..]),
                State::Start { .. } => bytes[at..].iter().position(|byte| !is_plain(*byte)),
                _ => Some(0),
            };
            let skipped = next.unwrap_or(bytes.len() - at);
            self.spend(skipped)?;
            at += skipped;
            if at == bytes.len() {
                break;
            }
            self.spend(1)?;
            let is_end = self.step(bytes[at]);
            if self.is_malformed() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the head begins with no request line"));
            }
            at += 1;
            if is_end {
                return Ok(at);
            }
        }
        Ok(at)
    }

    /// Takes one byte; `true` when it is the last of the head.
    fn step(&mut self, byte: u8) -> bool {
        self.state = match (self.state, byte) {
            (State::Before, b'\r' | b'\n') => State::Before,
            (State::Before, 0..=b' ' | 0x7F) => State::Malformed,
            (State::Before, _) => State::Start { spaces: 0 },
            (State::Start { spaces: SPACES }, b'\r') => State::StartEnd,
            (State::Start { spaces: SPACES } | State::StartEnd, b'\n') => State::LineEnd,
            (State::Start { spaces: spaces @ ..SPACES }, b' ') => State::Start { spaces: spaces + 1 },
            (State::StartEnd, _) | (State::Start { .. }, 0..=b' ' | 0x7F) => State::Malformed,
            // A fragment is nobody's business but the client's, and not every hop cuts it off.
            (State::Start { spaces: 1 }, b'#') => State::Malformed,
            (State::Line, b'\n') => State::LineEnd,
            (State::LineEnd, b'\r') => State::MaybeEmpty,
            (State::LineEnd | State::MaybeEmpty, b'\n') => {
                self.state = State::Open;
                return true;
            }
            (State::LineEnd | State::MaybeEmpty, _) => State::Line,
            (state, _) => state,
        };
        false
    }

    fn spend(&mut self, bytes: usize) -> io::Result<()> {
        match self.bytes_left.checked_sub(bytes) {
            Some(left) => {
                self.bytes_left = left;
                Ok(())
            }
            None => {
                self.state = State::TooLong;
                Err(io::Error::new(io::ErrorKind::InvalidData, "the head is longer than allowed"))
            }
        }
    }
}

/// Whether it may stand in a method, a target or a version wherever it likes.
fn is_plain(byte: u8) -> bool {
    byte > b' ' && byte != 0x7F && byte != b'#'
}

/// Between a method, a target and a version.
const SPACES: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_head_ends_with_its_empty_line() {
        #[track_caller]
        fn check(bytes: &str, head: &str) {
            for cut in 0..=bytes.len() {
                let mut gate = HeadGate::new(1000);
                let mut passed = gate.pass(&bytes.as_bytes()[..cut]).expect("short enough");
                if passed == cut {
                    let rest = if gate.state == State::Open { &[] } else { &bytes.as_bytes()[cut..] };
                    passed += gate.pass(rest).expect("short enough");
                }
                assert_eq!(&bytes[..passed], head, "cut at {cut}");
            }
        }

        check("GET / HTTP/1.1\r\nHost: a\r\n\r\nbody", "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        check("GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\n\r\n");
        check("GET / HTTP/1.1\n\nbody", "GET / HTTP/1.1\n\n");
        check("GET / HTTP/1.1\n\r\nbody", "GET / HTTP/1.1\n\r\n");
        check("\r\n\nGET / HTTP/1.1\r\n\r\nbody", "\r\n\nGET / HTTP/1.1\r\n\r\n");
        check("GET / HTTP/1.1\r\na\r\r\n\r\nbody", "GET / HTTP/1.1\r\na\r\r\n\r\n");
    }

    #[test]
    fn a_long_head_is_refused() {
        let head = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert!(HeadGate::new(head.len()).pass(head.as_bytes()).is_ok());
        let mut gate = HeadGate::new(head.len() - 1);
        assert!(gate.pass(head.as_bytes()).is_err());
        assert!(gate.is_too_long());
    }

    #[test]
    fn a_head_begins_with_a_request_line() {
        for (line, expected) in [
            ("GET / HTTP/1.1\r\n", true),
            ("GET / HTTP/1.1\n", true),
            ("\r\nGET /\u{e9} HTTP/1.1\r\n", true),
            ("GET /\r\n", false),
            ("GET\r\n", false),
            (" GET / HTTP/1.1\r\n", false),
            ("GET  / HTTP/1.1\r\n", false),
            ("GET /a b HTTP/1.1\r\n", false),
            ("GET /a\tb HTTP/1.1\r\n", false),
            ("GET\t/ HTTP/1.1\r\n", false),
            ("GET /a\0 HTTP/1.1\r\n", false),
            ("GET /a\x7F HTTP/1.1\r\n", false),
            ("GET /a#b HTTP/1.1\r\n", false),
            ("M#N / HTTP/1.1\r\n", true),
            ("GET / HTTP/1.1 \r\n", false),
            ("GET / HTTP/1.1\rX: y\r\n", false),
            ("GET / HTTP/1.1\r\r\n", false),
        ] {
            let mut gate = HeadGate::new(1000);
            let passed = gate.pass(line.as_bytes()).is_ok();
            assert_eq!((passed, gate.is_malformed()), (expected, !expected), "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn the_end_is_where_httparse_finds_it(text in "(\r?\n){0,2}GET / HTTP/1.1\r?\n(a: b\r?\n){0,3}\r?\n[a\r\n]{0,6}") {
            let mut fields = [httparse::EMPTY_HEADER; 8];
            if let Ok(httparse::Status::Complete(end)) = httparse::Request::new(&mut fields).parse(text.as_bytes()) {
                prop_assert_eq!(HeadGate::new(1000).pass(text.as_bytes()).ok(), Some(end));
            }
        }
    }
}
