//! What happens to the bytes of an event stream on their way to the client. Pure.
//!
//! One read from the server becomes one write to the client: framing off, place noted, framing
//! on, all within the thread's buffer. [`HEADROOM`] before the bytes and [`TAILROOM`] behind them
//! leave space for what is added.

use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::chunked::{self, Decoder, Malformed};
use super::resumable::{Course, Resumable};
use super::sse::{Gap, Place};

/// Space that must be free before the bytes given to [`Events::pass`].
pub const HEADROOM: usize = chunked::SIZE_ROOM + 2;

/// Space that must be free behind them.
pub const TAILROOM: usize = chunked::CHUNK_END.len() + chunked::LAST_CHUNK.len();

/// How the server delimits the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerFraming {
    /// Chunked transfer coding.
    Chunked,
    /// By closing the connection.
    UntilClose,
}

/// How the client is told where the stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientFraming {
    /// Chunked transfer coding, which every HTTP/1.1 client knows.
    Chunked,
    /// By closing the connection: HTTP/1.0.
    UntilClose,
}

/// Why an event stream is passed on as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untouched {
    /// `Content-Length`: it is over soon, and not a byte longer than it says.
    Length,
    /// `Content-Encoding`: there are no lines to see.
    Encoding,
    /// There is only a head: `HEAD` was asked, or the status allows no body.
    Head,
}

impl Untouched {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::Length, Self::Encoding, Self::Head];

    /// The word for metric labels.
    pub fn label(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Encoding => "encoding",
            Self::Head => "head",
        }
    }
}

/// The state of one event stream between two reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    decoder: Option<Decoder>,
    client: ClientFraming,
    place: Place,
    gap: Gap,
    /// What it takes to go on with another server, where that is wanted. Few streams have it, so it is
    /// boxed.
    resumable: Option<Box<Resumable>>,
}

impl Events {
    /// A stream of which nothing has been passed on.
    pub fn new(server: ServerFraming, client: ClientFraming) -> Self {
        let decoder = (server == ServerFraming::Chunked).then(Decoder::default);
        Self { decoder, client, place: Place::Start, gap: Gap::default(), resumable: None }
    }

    /// A stream of which only lines of ours have been passed on.
    pub fn behind_ours(server: ServerFraming, client: ClientFraming) -> Self {
        Self { place: Place::Ours { bom: 0 }, ..Self::new(server, client) }
    }

    /// Whether it is a state that a stream can be in. One that came from elsewhere may be none.
    pub fn is_sound(&self) -> bool {
        self.decoder.is_none_or(|decoder| decoder.is_sound())
            && self.place.is_sound()
            && self.resumable.as_ref().is_none_or(|resumable| resumable.is_sound())
    }

    /// Has what it takes to go on with another server. To be called before anything of the server's has
    /// passed.
    pub fn keep(&mut self, resumable: Option<Box<Resumable>>) {
        self.resumable = resumable;
    }

    /// What it takes to go on with another server, where that is wanted.
    pub fn resumable(&self) -> Option<&Resumable> {
        self.resumable.as_deref()
    }

    /// The same, to be changed.
    pub fn resumable_mut(&mut self) -> Option<&mut Resumable> {
        self.resumable.as_deref_mut()
    }

    /// Goes on with what another server sends, as `server` delimits it, in the same stream for the client.
    /// So many servers were `asked` for that. To be called between two events.
    pub fn go_on(&mut self, server: ServerFraming, asked: u32) {
        let mut resumable = self.resumable.take();
        if let Some(resumable) = &mut resumable {
            resumable.ids.go_on();
            (resumable.course, resumable.asked) = (Course::Flows, asked);
        }
        *self = Self { resumable, ..Self::behind_ours(server, self.client) };
    }

    /// Frames what follows otherwise than before; returns how it was framed.
    pub fn frame(&mut self, client: ClientFraming) -> ClientFraming {
        std::mem::replace(&mut self.client, client)
    }

    /// Turns what the server sent, `buffer[bytes]`, into what the client gets, in place.
    ///
    /// # Errors
    /// [`Malformed`] when the server's chunked framing is broken.
    pub fn pass(&mut self, buffer: &mut [u8], bytes: Range<usize>) -> Result<Range<usize>, Malformed> {
        let mut data = bytes.clone();
        if let Some(decoder) = &mut self.decoder {
            let decoded = decoder.decode(&mut buffer[bytes.clone()])?;
            data = bytes.start + decoded.start..bytes.start + decoded.end;
        }
        if !data.is_empty() {
            self.gap.pass(&buffer[data.clone()]);
            if let Some(resumable) = &mut self.resumable {
                resumable.ids.pass(&buffer[data.clone()]);
            }
            let pass = self.place.pass(&buffer[data.clone()]);
            data.start += pass.skip;
            data.start -= pass.owed.len();
            buffer[data.start..data.start + pass.owed.len()].copy_from_slice(pass.owed);
        }
        if self.client == ClientFraming::Chunked && !data.is_empty() {
            let size = data.len();
            data.start = chunked::write_size_before(buffer, data.start, size);
            append(buffer, &mut data, chunked::CHUNK_END);
        }
        if self.is_done() && self.client == ClientFraming::Chunked {
            append(buffer, &mut data, chunked::LAST_CHUNK);
        }
        Ok(data)
    }

    /// Whether the server has said that the stream is over.
    pub fn is_done(&self) -> bool {
        self.decoder.is_some_and(|decoder| decoder.is_done())
    }

    /// The server closed its connection: what ends the stream for the client, or [`Malformed`]
    /// when the server had not finished, and the client must not believe that it had.
    pub fn closed(&self) -> Result<&'static [u8], Malformed> {
        match (self.decoder, self.client) {
            (Some(decoder), _) if !decoder.is_done() => Err(Malformed),
            (None, ClientFraming::Chunked) => Ok(chunked::LAST_CHUNK),
            _ => Ok(&[]),
        }
    }

    /// What begins the stream, if clients are to be told how long to wait before they connect again.
    pub fn begin(&mut self, retry: Option<Duration>) -> Vec<u8> {
        let line = retry.and_then(|wait| self.place.retry(wait));
        line.map_or_else(Vec::new, |line| self.framed(line))
    }

    /// Whether nothing has been sent yet.
    pub fn is_untouched(&self) -> bool {
        self.place == Place::Start
    }

    /// Whether no event has begun that is not complete.
    pub fn is_between(&self) -> bool {
        self.gap.is_between()
    }

    /// What inserts `comment` now, or `None` where the stream is within a line.
    pub fn comment(&mut self, comment: &str) -> Option<Vec<u8>> {
        let line = self.place.comment(comment)?;
        Some(self.framed(line))
    }

    fn framed(&self, line: Vec<u8>) -> Vec<u8> {
        match self.client {
            ClientFraming::Chunked => chunked::encode(&line),
            ClientFraming::UntilClose => line,
        }
    }

    /// What ends the stream on the proxy's own account. The client is told how long to wait before it
    /// connects again, if that is to be its pace.
    pub fn end(&self, retry: Option<Duration>) -> Vec<u8> {
        if self.is_done() {
            return Vec::new();
        }
        let mut line = retry.map(|wait| self.place.farewell(wait)).filter(|line| !line.is_empty());
        if let Some(line) = line.as_mut().filter(|_| !self.is_between()) {
            line.pop(); // An empty line would pass a part of an event off as the whole.
        }
        let mut end = line.map_or_else(Vec::new, |line| self.framed(line));
        if self.client == ClientFraming::Chunked {
            end.extend_from_slice(chunked::LAST_CHUNK);
        }
        end
    }
}

fn append(buffer: &mut [u8], data: &mut Range<usize>, bytes: &[u8]) {
    buffer[data.end..data.end + bytes.len()].copy_from_slice(bytes);
    data.end += bytes.len();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::last_event_id::From;

    /// Passes `pieces` on, with a comment wherever "#" stands among them.
    fn relay(server: ServerFraming, client: ClientFraming, pieces: &[&str]) -> Result<String, Malformed> {
        let mut events = Events::new(server, client);
        let mut sent = Vec::new();
        for piece in pieces {
            if *piece == "#" {
                sent.extend(events.comment("k").unwrap_or_default());
                continue;
            }
            let end = HEADROOM + piece.len();
            let mut buffer = vec![0; end + TAILROOM];
            buffer[HEADROOM..end].copy_from_slice(piece.as_bytes());
            let range = events.pass(&mut buffer, HEADROOM..end)?;
            sent.extend_from_slice(&buffer[range]);
        }
        Ok(String::from_utf8(sent).expect("tests are text"))
    }

    #[test]
    fn every_framing_becomes_the_clients() {
        #[track_caller]
        fn check(server: ServerFraming, client: ClientFraming, pieces: &[&str], sent: &str) {
            assert_eq!(relay(server, client, pieces).as_deref(), Ok(sent), "{pieces:?}");
        }
        use ClientFraming as To;
        use ServerFraming as By;

        check(By::Chunked, To::Chunked, &["3\r\na\n\n\r\n"], "3\r\na\n\n\r\n");
        check(By::Chunked, To::Chunked, &["2\r\na\n\r\n1\r\n\n\r\n"], "3\r\na\n\n\r\n");
        check(By::Chunked, To::Chunked, &["3\r\na\n\n\r\n0\r\n\r\n"], "3\r\na\n\n\r\n0\r\n\r\n");
        check(By::Chunked, To::Chunked, &["3\r\n", "a", "\n\n", "\r\n"], "1\r\na\r\n2\r\n\n\n\r\n");
        check(By::Chunked, To::Chunked, &["0\r\n", "\r\n"], "0\r\n\r\n");
        check(By::Chunked, To::UntilClose, &["3\r\na\n\n\r\n0\r\n\r\n"], "a\n\n");
        check(By::UntilClose, To::Chunked, &["a\n\n"], "3\r\na\n\n\r\n");
        check(By::UntilClose, To::UntilClose, &["a\n\n"], "a\n\n");

        // Comments, also where the server paused within a chunk of its own.
        check(By::Chunked, To::Chunked, &["ff\r\na\n", "#", "b"], "2\r\na\n\r\n3\r\n:k\n\r\n1\r\nb\r\n");
        check(By::UntilClose, To::UntilClose, &["#", "a", "#", "\n", "#"], ":k\na\n:k\n");
        check(By::UntilClose, To::Chunked, &["#", "\u{FEFF}"], "3\r\n:k\n\r\n");
    }

    #[test]
    fn a_byte_order_mark_that_was_none_is_given_back() {
        let mut events = Events::new(ServerFraming::UntilClose, ClientFraming::UntilClose);
        assert!(events.comment("k").is_some());
        let mut buffer = vec![0; HEADROOM + 1 + TAILROOM];
        buffer[HEADROOM] = 0xEF;
        assert_eq!(events.pass(&mut buffer, HEADROOM..HEADROOM + 1).map(|range| range.len()), Ok(0));
        buffer[HEADROOM] = b'x';
        let range = events.pass(&mut buffer, HEADROOM..HEADROOM + 1).expect("no framing to break");
        assert_eq!(buffer[range], *b"\xEFx");
    }

    #[test]
    fn a_stream_behind_lines_of_ours_has_begun() {
        let mut events = Events::behind_ours(ServerFraming::UntilClose, ClientFraming::UntilClose);
        assert!(!events.is_untouched());
        assert!(events.begin(Some(Duration::from_secs(1))).is_empty());
        let mut buffer = [&[0; HEADROOM], "\u{FEFF}a\n".as_bytes(), &[0; TAILROOM]].concat();
        let range = events.pass(&mut buffer, HEADROOM..HEADROOM + 5).expect("no framing to break");
        assert_eq!(buffer[range], *b"a\n");
    }

    #[test]
    fn a_stream_that_we_end_says_when_to_come_again() {
        use ClientFraming::{Chunked, UntilClose};
        let wait = Some(Duration::from_millis(700));
        let end = |client, retry| Events::new(ServerFraming::UntilClose, client).end(retry);
        assert_eq!(end(Chunked, wait), b"c\r\nretry: 700\n\n\r\n0\r\n\r\n");
        assert_eq!(end(UntilClose, wait), b"retry: 700\n\n");
        assert_eq!(end(Chunked, None), b"0\r\n\r\n");
        assert_eq!(end(UntilClose, None), b"");
    }

    #[test]
    fn an_event_that_is_not_complete_is_not_dispatched_at_the_end() {
        #[track_caller]
        fn check(sent: &str, expected: &str) {
            let mut events = Events::new(ServerFraming::UntilClose, ClientFraming::UntilClose);
            let end = HEADROOM + sent.len();
            let mut buffer = vec![0; end + TAILROOM];
            buffer[HEADROOM..end].copy_from_slice(sent.as_bytes());
            events.pass(&mut buffer, HEADROOM..end).expect("no framing to break");
            assert_eq!(events.end(Some(Duration::from_millis(700))), expected.as_bytes(), "{sent:?}");
        }

        check("data: a\n\n", "retry: 700\n\n");
        check("data: a\r\r", "\nretry: 700\n\n");
        check("data: a\n", "retry: 700\n");
        check("data: a\r", "\nretry: 700\n");
        check("data: a", "");
    }

    #[test]
    fn another_server_goes_on_with_the_same_stream() {
        let mut events = Events::new(ServerFraming::Chunked, ClientFraming::Chunked);
        events.keep(Resumable::new(b"GET / HTTP/1.1\r\n\r\n".to_vec(), None, None).map(Box::new));
        let pass = |events: &mut Events, sent: &str| {
            let end = HEADROOM + sent.len();
            let mut buffer = vec![0; end + TAILROOM];
            buffer[HEADROOM..end].copy_from_slice(sent.as_bytes());
            let range = events.pass(&mut buffer, HEADROOM..end).expect("the framing is right");
            String::from_utf8(buffer[range].to_vec()).expect("tests are text")
        };
        assert_eq!(pass(&mut events, "7\r\nid: 1\n\n\r\nff\r\n"), "7\r\nid: 1\n\n\r\n");
        events.go_on(ServerFraming::UntilClose, 1);
        assert_eq!(pass(&mut events, "\u{FEFF}id: 2\n\n"), "7\r\nid: 2\n\n\r\n");
        let resumable = events.resumable().expect("it is kept");
        assert_eq!((resumable.ids.from(), resumable.asked), (Some(From::Id(b"2")), 1));
        assert_eq!(events.closed(), Ok(&b"0\r\n\r\n"[..]));
    }

    #[test]
    fn a_stream_that_breaks_off_does_not_look_finished() {
        #[track_caller]
        fn check(server: ServerFraming, client: ClientFraming, expected: Result<&[u8], Malformed>) {
            assert_eq!(Events::new(server, client).closed(), expected);
        }

        check(ServerFraming::Chunked, ClientFraming::Chunked, Err(Malformed));
        check(ServerFraming::Chunked, ClientFraming::UntilClose, Err(Malformed));
        check(ServerFraming::UntilClose, ClientFraming::Chunked, Ok(b"0\r\n\r\n"));
        check(ServerFraming::UntilClose, ClientFraming::UntilClose, Ok(b""));
    }
}
