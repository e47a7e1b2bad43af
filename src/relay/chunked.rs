//! Chunked framing, taken off and put on (RFC 9112, section 7.1). Pure and incremental.
//!
//! A relay re-frames event streams instead of passing chunks through: one read becomes one chunk.
//! So an insertion never has to wait for the end of a chunk that the server began long ago, and
//! sizes, extensions and trailers of odd shapes end here.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Takes chunked framing off, read by read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decoder {
    state: State,
    /// Bytes of the current line that carry nothing: extensions or trailers. Bounded.
    overhead: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    /// In the hexadecimal size; how many digits were there.
    Size { value: u64, digits: u8 },
    /// Behind the size, before its line feed: white space or an extension.
    Extension { size: u64 },
    /// Behind the carriage return of a size line.
    SizeEnd { size: u64 },
    /// In data, with this many bytes to come; at least one.
    Data { left: u64 },
    /// Behind the data, before its CRLF.
    DataEnd,
    /// Behind the carriage return that ends the data.
    DataEndLf,
    /// At the start of a line of the trailer section.
    TrailerStart,
    /// Within a trailer field.
    Trailer,
    /// Behind the carriage return of the empty line that ends everything.
    LastLf,
    /// The message is complete.
    Done,
}

/// The framing was not chunked framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed chunked framing")]
pub struct Malformed;

impl Decoder {
    /// Longest chunk extension, and longest trailer section, that is read over; in bytes.
    const OVERHEAD_MAX: u16 = 16 * 1024;
    /// Hexadecimal digits in a size; fifteen keep every sum below 2^63.
    const DIGITS_MAX: u8 = 15;

    /// Whether it is a state that framing can be in. One that came from elsewhere may be none.
    pub fn is_sound(&self) -> bool {
        let is_size = |size: u64| size >> (4 * Self::DIGITS_MAX) == 0;
        let is_place = match self.state {
            State::Size { value, digits } => digits <= Self::DIGITS_MAX && is_size(value),
            State::Extension { size } | State::SizeEnd { size } => is_size(size),
            State::Data { left } => left > 0 && is_size(left),
            State::DataEnd | State::DataEndLf | State::TrailerStart | State::Trailer | State::LastLf | State::Done => {
                true
            }
        };
        is_place && self.overhead <= Self::OVERHEAD_MAX
    }

    /// Whether the last chunk and the trailers have been read.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// How many bytes of data come next, at least one; `None` when it is framing that does.
    pub fn data_left(&self) -> Option<u64> {
        match self.state {
            State::Data { left } => Some(left),
            _ => None,
        }
    }

    /// Decodes `bytes` in place and says where the data now stands.
    ///
    /// The data of a single chunk is not moved; that of further chunks is moved up to it. What
    /// comes after the end of the message is not looked at.
    ///
    /// # Errors
    /// [`Malformed`] when the bytes cannot be chunked framing.
    pub fn decode(&mut self, bytes: &mut [u8]) -> Result<Range<usize>, Malformed> {
        self.decode_all(bytes).map(|(data, _)| data)
    }

    /// The same, and how many of `bytes` were looked at: all, or those up to the end of the message.
    ///
    /// # Errors
    /// [`Malformed`] when the bytes cannot be chunked framing.
    pub fn decode_all(&mut self, bytes: &mut [u8]) -> Result<(Range<usize>, usize), Malformed> {
        let mut data = 0..0;
        let mut at = 0;
        while at < bytes.len() && !self.is_done() {
            let State::Data { left } = self.state else {
                self.framing(bytes[at])?;
                at += 1;
                continue;
            };
            let here = bytes.len() - at;
            let taken = usize::try_from(left).map_or(here, |left| left.min(here));
            if data.is_empty() {
                data = at..at;
            }
            if data.end != at {
                bytes.copy_within(at..at + taken, data.end);
            }
            data.end += taken;
            at += taken;
            self.state = match left - taken as u64 {
                0 => State::DataEnd,
                left => State::Data { left },
            };
        }
        Ok((data, at))
    }

    /// How many of `bytes` are of the message: all, or those up to its end. Leaves them as they are.
    ///
    /// # Errors
    /// [`Malformed`] when the bytes cannot be chunked framing.
    pub fn follow(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < bytes.len() && !self.is_done() {
            let State::Data { left } = self.state else {
                self.framing(bytes[at])?;
                at += 1;
                continue;
            };
            let here = bytes.len() - at;
            let taken = usize::try_from(left).map_or(here, |left| left.min(here));
            at += taken;
            self.state = match left - taken as u64 {
                0 => State::DataEnd,
                left => State::Data { left },
            };
        }
        Ok(at)
    }

    /// One byte that is not data.
    fn framing(&mut self, byte: u8) -> Result<(), Malformed> {
        self.state = match (self.state, byte) {
            (State::Size { value, digits }, byte) if byte.is_ascii_hexdigit() => {
                if digits == Self::DIGITS_MAX {
                    return Err(Malformed);
                }
                let digit = (byte as char).to_digit(16).ok_or(Malformed)?;
                State::Size { value: value * 16 + u64::from(digit), digits: digits + 1 }
            }
            (State::Size { digits: 0, .. }, _) => return Err(Malformed),
            (State::Size { value: size, .. }, b'\r') => State::SizeEnd { size },
            (State::Size { value: size, .. }, b';' | b' ' | b'\t') => State::Extension { size },
            (State::Extension { size }, b'\r') => State::SizeEnd { size },
            (State::Extension { size }, byte) if byte != b'\n' => {
                self.spend()?;
                State::Extension { size }
            }
            (State::SizeEnd { size: 0 }, b'\n') => {
                self.overhead = 0;
                State::TrailerStart
            }
            (State::SizeEnd { size: left }, b'\n') => {
                self.overhead = 0;
                State::Data { left }
            }
            (State::DataEnd, b'\r') => State::DataEndLf,
            (State::DataEndLf, b'\n') => State::Size { value: 0, digits: 0 },
            (State::TrailerStart, b'\r') => State::LastLf,
            (State::LastLf, b'\n') => State::Done,
            (State::Trailer, b'\n') => State::TrailerStart,
            (State::TrailerStart | State::Trailer, _) => {
                self.spend()?;
                State::Trailer
            }
            _ => return Err(Malformed),
        };
        Ok(())
    }

    fn spend(&mut self) -> Result<(), Malformed> {
        self.overhead += 1;
        if self.overhead > Self::OVERHEAD_MAX { Err(Malformed) } else { Ok(()) }
    }
}

impl Default for Decoder {
    /// At the start of a chunked body.
    fn default() -> Self {
        Self { state: State::Size { value: 0, digits: 0 }, overhead: 0 }
    }
}

/// What ends a chunked message.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What ends the data of a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";

/// Room that [`write_size_before`] may need.
pub const SIZE_ROOM: usize = 18;

/// Writes the size line of a chunk of `size` bytes so that it ends right before `buffer[end]`,
/// and returns where it begins.
///
/// # Panics
/// When `end` is less than [`SIZE_ROOM`].
pub fn write_size_before(buffer: &mut [u8], end: usize, size: usize) -> usize {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut at = end - 2;
    buffer[at..end].copy_from_slice(CHUNK_END);
    let mut left = size;
    loop {
        at -= 1;
        buffer[at] = DIGITS[left % 16];
        left /= 16;
        if left == 0 {
            return at;
        }
    }
}

/// `data` as one chunk.
pub fn encode(data: &[u8]) -> Vec<u8> {
    let mut chunk = vec![0; SIZE_ROOM];
    let start = write_size_before(&mut chunk, SIZE_ROOM, data.len());
    chunk.drain(..start);
    chunk.extend_from_slice(data);
    chunk.extend_from_slice(CHUNK_END);
    chunk
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Decodes `pieces` one after the other.
    fn decode(pieces: &[&[u8]]) -> Result<(Vec<u8>, bool), Malformed> {
        let mut decoder = Decoder::default();
        let mut data = Vec::new();
        for piece in pieces {
            let mut piece = piece.to_vec();
            let range = decoder.decode(&mut piece)?;
            data.extend_from_slice(&piece[range]);
        }
        Ok((data, decoder.is_done()))
    }

    #[test]
    fn framing_comes_off() {
        #[track_caller]
        fn check(framed: &str, expected: Result<(&str, bool), Malformed>) {
            let expected = expected.map(|(data, done)| (data.as_bytes().to_vec(), done));
            assert_eq!(decode(&[framed.as_bytes()]), expected, "{framed:?}");
        }

        check("", Ok(("", false)));
        check("5\r\nhello\r\n0\r\n\r\n", Ok(("hello", true)));
        check("5\r\nhello\r\n6\r\n world\r\n", Ok(("hello world", false)));
        check("A\r\n0123456789\r\n", Ok(("0123456789", false)));
        check("5;name=value\r\nhello\r\n", Ok(("hello", false)));
        check("5 \r\nhello\r\n", Ok(("hello", false)));
        check("0\r\nTrailer: x\r\nOther: y\r\n\r\n", Ok(("", true)));
        check("0\r\n\r\nafter the end", Ok(("", true)));
        check("100\r\npart", Ok(("part", false)));

        check("\r\n", Err(Malformed));
        check("x\r\n", Err(Malformed));
        check("5\nhello", Err(Malformed));
        check("-5\r\nhello", Err(Malformed));
        check("5\r\nhelloworld", Err(Malformed));
        check("5\r\nhello\n", Err(Malformed));
        check("1000000000000000\r\n", Err(Malformed));
        check(&format!("5;{}\r\n", "x".repeat(20_000)), Err(Malformed));
        check(&format!("0\r\n{}\r\n", "x".repeat(20_000)), Err(Malformed));
    }

    #[test]
    fn sizes_are_written_before_the_data() {
        #[track_caller]
        fn check(size: usize, line: &str) {
            let mut buffer = [0; SIZE_ROOM];
            let start = write_size_before(&mut buffer, SIZE_ROOM, size);
            assert_eq!(&buffer[start..], line.as_bytes());
        }

        check(0, "0\r\n");
        check(15, "f\r\n");
        check(16, "10\r\n");
        check(65_536, "10000\r\n");
        check(usize::MAX, "ffffffffffffffff\r\n");
    }

    proptest! {
        /// Who follows comes to the same end as who decodes, or to the same refusal.
        #[test]
        fn following_is_decoding(bytes in "([0-3;x]{0,2}\r?\n){0,4}0?\r?\n?\r?\n?[a-z]{0,4}", split in 0..8_usize) {
            let bytes = bytes.into_bytes();
            let (mut decoder, mut follower) = (Decoder::default(), Decoder::default());
            for piece in [&bytes[..split.min(bytes.len())], &bytes[split.min(bytes.len())..]] {
                let decoded = decoder.decode_all(&mut piece.to_vec()).map(|(_, length)| length);
                let followed = follower.follow(piece);
                prop_assert_eq!(decoded, followed);
                if followed.is_err() {
                    break;
                }
                prop_assert_eq!(decoder, follower);
            }
        }

        #[test]
        fn any_split_gives_back_the_data(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut framed: Vec<u8> = chunks.iter().flat_map(|chunk| encode(chunk)).collect();
            framed.extend_from_slice(LAST_CHUNK);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(framed.len() + 1)).collect();
            cuts.extend([0, framed.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &framed[cut[0]..cut[1]]).collect();
            prop_assert_eq!(decode(&pieces), Ok((chunks.concat(), true)));
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&[&bytes]);
        }
    }
}
