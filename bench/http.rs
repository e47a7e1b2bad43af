//! Just enough HTTP/1.1 for both ends of the benchmark: heads, and the three framings of a body.
//!
//! Nothing is interpreted beyond what the scenarios need, so that the ends cost little beside the
//! proxies between them. What arrives damaged is an error, never skipped.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Appends what has arrived to `buffer`.
///
/// # Errors
/// Also when the peer has closed the connection: both ends of the benchmark know when to expect that.
pub(crate) async fn fill(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> io::Result<()> {
    const READ_BYTES_MIN: usize = 4 * 1024;
    buffer.reserve(READ_BYTES_MIN);
    match stream.read_buf(buffer).await? {
        0 => Err(closed()),
        _ => Ok(()),
    }
}

/// The peer closed the connection where more was expected.
fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed too early")
}

/// Reads a whole head and takes it out of `buffer`; what follows it stays.
pub(crate) async fn read_head(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> io::Result<String> {
    const HEAD_BYTES_MAX: usize = 32 * 1024;
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = buffer.drain(..end + 4).collect();
            return String::from_utf8(head).map_err(io::Error::other);
        }
        if buffer.len() > HEAD_BYTES_MAX {
            return Err(io::Error::other("a head without end"));
        }
        fill(stream, buffer).await?;
    }
}

/// The value of the first header field of that name.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// A response's body as it arrives.
pub(crate) enum Body {
    /// So many bytes are still to come.
    Length(usize),
    /// In chunks.
    Chunked(Chunk),
    /// Until the connection closes.
    UntilClose,
}

/// Where in the chunked framing a body stands.
pub(crate) enum Chunk {
    /// In the line that tells the size of the next chunk.
    Size { value: usize, in_extension: bool },
    /// In the bytes of a chunk; so many are left.
    Data { left: usize },
    /// Behind them, before the line break.
    DataEnd,
    /// Behind the last chunk, in a trailer line.
    Trailer { is_empty: bool },
    /// Behind everything.
    Done,
}

impl Body {
    /// What the head of a response announces.
    pub(crate) fn announced_by(head: &str) -> io::Result<Self> {
        if header(head, "Transfer-Encoding").is_some_and(|value| value == "chunked") {
            return Ok(Self::Chunked(Chunk::START));
        }
        match header(head, "Content-Length") {
            Some(length) => length.parse().map(Self::Length).map_err(io::Error::other),
            None => Ok(Self::UntilClose),
        }
    }

    /// Whether nothing more belongs to it.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::Done))
    }

    /// Takes what belongs to the body out of `received` and appends its content to `content`.
    pub(crate) fn decode(&mut self, received: &mut Vec<u8>, content: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Length(left) => {
                let taken = received.len().min(*left);
                *left -= taken;
                content.extend(received.drain(..taken));
            }
            Self::Chunked(chunk) => {
                let mut taken = 0;
                while taken < received.len() && !matches!(chunk, Chunk::Done) {
                    taken += chunk.decode(&received[taken..], content)?;
                }
                received.drain(..taken);
            }
            Self::UntilClose => content.append(received),
        }
        Ok(())
    }
}

impl Chunk {
    const START: Self = Self::Size { value: 0, in_extension: false };

    /// Decodes one step of `input`, which is not empty; returns how many bytes that took.
    fn decode(&mut self, input: &[u8], content: &mut Vec<u8>) -> io::Result<usize> {
        if let Self::Data { left } = self {
            let taken = input.len().min(*left);
            content.extend_from_slice(&input[..taken]);
            *left -= taken;
            if *left == 0 {
                *self = Self::DataEnd;
            }
            return Ok(taken);
        }
        self.framing(input[0])?;
        Ok(1)
    }

    /// Moves past one byte that is framing, not content.
    fn framing(&mut self, byte: u8) -> io::Result<()> {
        match (&mut *self, byte) {
            (Self::Size { value: 0, .. }, b'\n') => *self = Self::Trailer { is_empty: true },
            (Self::Size { value, .. }, b'\n') => *self = Self::Data { left: *value },
            (Self::Size { in_extension, .. }, b';') => *in_extension = true,
            (Self::Size { value, in_extension: false }, digit) if digit != b'\r' => {
                let digit = char::from(digit).to_digit(16).ok_or_else(|| io::Error::other("a chunk without a size"))?;
                *value = *value * 16 + digit as usize;
            }
            (Self::DataEnd, b'\n') => *self = Self::START,
            (Self::Trailer { is_empty: true }, b'\n') => *self = Self::Done,
            (Self::Trailer { is_empty }, byte) if byte != b'\r' => *is_empty = byte == b'\n',
            (Self::DataEnd, byte) if byte != b'\r' => {
                return Err(io::Error::other("a chunk longer than its size"));
            }
            _ => {}
        }
        Ok(())
    }
}
