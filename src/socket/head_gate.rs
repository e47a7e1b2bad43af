//! Where the head of an HTTP/1 request ends. Pure and incremental.
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
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// No head is being read: everything passes.
    #[default]
    Open,
    /// Before the head: empty lines.
    Before,
    /// In a line.
    Line,
    /// Behind the LF of a line.
    LineEnd,
    /// Behind the CR of a line that may be empty.
    MaybeEmpty,
    /// The head was longer than allowed.
    TooLong,
}

impl HeadGate {
    /// A gate for a head of at most `bytes_max`.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { state: State::Before, bytes_left: bytes_max }
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
        let mut at = 0;
        while at < bytes.len() {
            // Most bytes are in the middle of lines.
            if self.state == State::Line {
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
            (State::Line, b'\n') => State::LineEnd,
            (State::LineEnd, b'\r') => State::MaybeEmpty,
            (State::LineEnd | State::MaybeEmpty, b'\n') => {
                self.state = State::Open;
                return true;
            }
            (State::Before | State::LineEnd | State::MaybeEmpty, _) => State::Line,
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
