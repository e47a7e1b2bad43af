//! Where the head of an HTTP/1 message ends. Pure and incremental.
//!
//! It must find the very byte at which `httparse` stops: a head begins behind any empty lines,
//! ends with the first empty line after that, and a line ends with LF or CRLF.

use std::io;

/// Lets the bytes of one head through and stops those behind it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeadGate {
    state: State,
    /// Bytes that the head may still have.
    bytes_left: usize,
    has_begun: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// No head is being read: everything passes.
    #[default]
    Open,
    /// Before the head: empty lines.
    Before,
    /// Within its first line, behind this many bytes that look like those of an informational
    /// response.
    First { informational: u8 },
    /// In any other line.
    Line { informational: bool },
    /// Behind the LF of a line.
    LineEnd { informational: bool },
    /// Behind the CR of a line that may be empty.
    MaybeEmpty { informational: bool },
    /// The head was longer than allowed.
    TooLong,
}

/// How a head begins after which another one follows. 101 is no such: it is the last.
const INFORMATIONAL: &[u8; 10] = b"HTTP/1.x 1";

impl HeadGate {
    /// A gate for a head of at most `bytes_max`.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { state: State::Before, bytes_left: bytes_max, has_begun: false }
    }

    /// Whether any byte has passed.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    pub(super) fn is_too_long(&self) -> bool {
        self.state == State::TooLong
    }

    /// How many of `bytes` may pass: all, or those up to the end of the head.
    ///
    /// # Errors
    /// When the head is longer than allowed.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.state == State::Open {
            return Ok(bytes.len());
        }
        self.has_begun |= !bytes.is_empty();
        let mut at = 0;
        while at < bytes.len() {
            // Most bytes are in the middle of lines.
            if let State::Line { .. } = self.state {
                let to_lf = memchr::memchr(b'\n', &bytes[at..]);
                let skipped = to_lf.unwrap_or(bytes.len() - at);
                self.spend(skipped)?;
                at += skipped;
                if at == bytes.len() {
                    break;
                }
            }
            self.spend(1)?;
            let is_end = self.step(bytes[at]);
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
            (State::Before, byte) => first(0, byte),
            (State::First { .. }, b'\n') => State::LineEnd { informational: false },
            (State::First { informational }, byte) => first(informational, byte),
            (State::Line { informational }, b'\n') => State::LineEnd { informational },
            (State::LineEnd { informational }, b'\r') => State::MaybeEmpty { informational },
            (State::LineEnd { informational } | State::MaybeEmpty { informational }, b'\n') => {
                self.state = if informational { State::Before } else { State::Open };
                return true;
            }
            (State::LineEnd { informational } | State::MaybeEmpty { informational }, _) => {
                State::Line { informational }
            }
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

/// Behind `seen` bytes of the first line, all as in an informational response, comes `byte`.
fn first(seen: u8, byte: u8) -> State {
    /// "HTTP/1.1 1xx": the digits that tell 101 from the others.
    const CODE_END: u8 = 12;
    let position = usize::from(seen);
    let fits = match INFORMATIONAL.get(position) {
        Some(b'x') => byte.is_ascii_digit(),
        Some(expected) => byte == *expected,
        None => byte.is_ascii_digit(),
    };
    // 101 is told by its last two digits; a code such as 11x is informational as well.
    match (fits, seen) {
        (true, 10) if byte == b'0' => State::First { informational: 11 },
        (true, 10) => State::Line { informational: true },
        (true, 11) => State::Line { informational: byte != b'1' },
        (true, seen) if seen < CODE_END => State::First { informational: seen + 1 },
        _ => State::Line { informational: false },
    }
}

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
        check("HTTP/1.1 101 Switching\r\n\r\nframe", "HTTP/1.1 101 Switching\r\n\r\n");
        check("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n");
    }

    #[test]
    fn another_head_follows_an_informational_one() {
        #[track_caller]
        fn check(first: &str, another_follows: bool) {
            let head = format!("{first}\r\nLink: x\r\n\r\n");
            let mut gate = HeadGate::new(1000);
            assert_eq!(gate.pass(format!("{head}rest").as_bytes()).ok(), Some(head.len()));
            assert_eq!(gate.state == State::Before, another_follows, "{first}");
        }

        check("HTTP/1.1 100 Continue", true);
        check("HTTP/1.1 102 Processing", true);
        check("HTTP/1.1 103 Early Hints", true);
        check("HTTP/1.0 100 Continue", true);
        check("HTTP/1.1 199 x", true);
        check("HTTP/1.1 101 Switching Protocols", false);
        check("HTTP/1.1 200 OK", false);
        check("GET /HTTP/1.1 HTTP/1.1", false);
    }

    #[test]
    fn a_long_head_is_refused() {
        let head = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert!(HeadGate::new(head.len()).pass(head.as_bytes()).is_ok());
        let mut gate = HeadGate::new(head.len() - 1);
        assert!(gate.pass(head.as_bytes()).is_err());
        assert!(gate.is_too_long());
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
