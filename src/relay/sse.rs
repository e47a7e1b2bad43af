//! Where something may be inserted into an event stream. Pure and incremental.
//!
//! The rule (HTML standard, section 9.2.6): a line that begins with a colon is a comment, which
//! every parser ignores, even between the fields of one event. So a comment may stand wherever a
//! line may begin, and nowhere else.
//!
//! Only the last byte of what was sent decides that, except at two places:
//! - Behind a CR the line has ended, but an LF may follow that belongs to it. The comment is then
//!   written as LF, comment, CR: together with the LF that may come it reads as two CRLF, without
//!   it as CRLF, comment, CR. Either way the stream stands behind a CR again, as before.
//! - A byte order mark counts only as the very first thing. When something was inserted before
//!   the server's first byte, a BOM that comes later is dropped.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where an event stream stands between two reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// Nothing has been sent yet.
    Start,
    /// Only lines of ours have been sent, and this many bytes of a BOM were dropped.
    Ours {
        /// 0, 1 or 2.
        bom: u8,
    },
    /// Behind LF.
    LineStart,
    /// Behind CR: the line has ended, but an LF may belong to it.
    BehindCr,
    /// Within a line.
    InLine,
}

const BOM: [u8; 3] = [0xEF, 0xBB, 0xBF];

impl Place {
    /// Whether a stream can be there. A place that came from elsewhere may be none.
    pub fn is_sound(self) -> bool {
        !matches!(self, Self::Ours { bom } if usize::from(bom) >= BOM.len())
    }

    /// Takes note of `data` that is to be sent next, and returns how much of its front must be
    /// dropped, and what must be sent before the rest because it was dropped too early.
    pub fn pass(&mut self, data: &[u8]) -> Pass {
        let mut pass = Pass { skip: 0, owed: &[] };
        if let Self::Ours { bom } = *self {
            let seen = usize::from(bom);
            let fits = data.iter().zip(&BOM[seen..]).take_while(|(byte, mark)| byte == mark).count();
            if seen + fits == BOM.len() {
                *self = Self::LineStart;
                pass.skip = fits;
            } else if fits == data.len() {
                #[expect(clippy::cast_possible_truncation, reason = "less than three")]
                let bom = (seen + fits) as u8;
                *self = Self::Ours { bom };
                pass.skip = fits;
                return pass;
            } else {
                pass.owed = &BOM[..seen];
            }
        }
        match data[pass.skip..].last() {
            Some(b'\n') => *self = Self::LineStart,
            Some(b'\r') => *self = Self::BehindCr,
            Some(_) => *self = Self::InLine,
            None => {}
        }
        pass
    }

    /// The line that tells the client how long to wait before it connects again. Only in front of
    /// everything else: behind it the server's own would not win.
    pub fn retry(&mut self, wait: Duration) -> Option<Vec<u8>> {
        if *self != Self::Start {
            return None;
        }
        *self = Self::Ours { bom: 0 };
        Some(format!("retry: {}\n", wait.as_millis()).into_bytes())
    }

    /// The bytes that tell the client here how long to wait before it connects again, when nothing
    /// else is to follow; none within a line.
    pub fn farewell(self, wait: Duration) -> Vec<u8> {
        let line = format!("retry: {}\n\n", wait.as_millis());
        match self {
            Self::Start | Self::Ours { .. } | Self::LineStart => line.into_bytes(),
            Self::BehindCr => format!("\n{line}").into_bytes(),
            Self::InLine => Vec::new(),
        }
    }

    /// The bytes that put `comment` here, or `None` where nothing may be inserted.
    ///
    /// `comment` must not hold a line break.
    pub fn comment(&mut self, comment: &str) -> Option<Vec<u8>> {
        let line = match self {
            Self::Start | Self::Ours { bom: 0 } => {
                *self = Self::Ours { bom: 0 };
                format!(":{comment}\n")
            }
            Self::LineStart => format!(":{comment}\n"),
            Self::BehindCr => format!("\n:{comment}\r"),
            Self::Ours { .. } | Self::InLine => return None,
        };
        Some(line.into_bytes())
    }
}

/// Whether an event stream stands between two events: where nothing is lost when it ends.
///
/// Behind an empty line it does, and comments change nothing. Only the end of what was sent is looked
/// at: a comment that came in pieces is taken for part of an event, which is the safe side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    is_between: bool,
    at: At,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum At {
    LineStart,
    BehindCr,
    InLine,
}

impl Default for Gap {
    /// In front of the first event.
    fn default() -> Self {
        Self { is_between: true, at: At::LineStart }
    }
}

impl Gap {
    /// Whether no event has begun that is not complete.
    pub fn is_between(self) -> bool {
        self.is_between && self.at != At::InLine
    }

    /// Takes note of `data` that is sent next.
    pub fn pass(&mut self, data: &[u8]) {
        // The LF of a CRLF that was cut in two ends no line of its own.
        let data = if self.at == At::BehindCr { data.strip_prefix(b"\n").unwrap_or(data) } else { data };
        let Some(last) = data.last() else {
            return;
        };
        let before = *self;
        self.at = match last {
            b'\n' => At::LineStart,
            b'\r' => At::BehindCr,
            _ => At::InLine,
        };
        self.is_between = match self.at {
            At::InLine => false,
            At::LineStart | At::BehindCr => before.ends_event(data),
        };
    }

    /// Whether the last line of `data` that is no comment is empty. `data` ends with a line.
    fn ends_event(self, data: &[u8]) -> bool {
        let mut rest = data;
        loop {
            let text = rest.strip_suffix(b"\n").unwrap_or(rest);
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            let start = text.iter().rposition(|byte| matches!(byte, b'\r' | b'\n')).map_or(0, |at| at + 1);
            let is_begun = start == 0 && self.at == At::InLine;
            match text[start..].first() {
                _ if is_begun => return false,
                None => return true,
                Some(b':') if start == 0 => return self.is_between,
                Some(b':') => rest = &text[..start],
                Some(_) => return false,
            }
        }
    }
}

/// What [`Place::pass`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Bytes at the front of the data that must not be sent: part of a BOM.
    pub skip: usize,
    /// Bytes that were dropped before and were no BOM after all: to be sent first.
    pub owed: &'static [u8],
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Sends `pieces`, with a try to insert a comment before, between and behind them.
    fn send(pieces: &[&[u8]]) -> Vec<u8> {
        let mut place = Place::Start;
        let mut sent = place.comment("k").unwrap_or_default();
        for piece in pieces {
            let pass = place.pass(piece);
            sent.extend_from_slice(pass.owed);
            sent.extend_from_slice(&piece[pass.skip..]);
            sent.extend(place.comment("k").unwrap_or_default());
        }
        sent
    }

    /// The lines of a stream as the HTML standard reads them, comments left out; what follows the
    /// last line end is the last element.
    fn lines(stream: &[u8]) -> Vec<Vec<u8>> {
        let stream = stream.strip_prefix(&BOM).unwrap_or(stream);
        let mut lines = vec![Vec::new()];
        let mut bytes = stream.iter().peekable();
        while let Some(byte) = bytes.next() {
            match byte {
                b'\r' => {
                    bytes.next_if(|next| **next == b'\n');
                    lines.push(Vec::new());
                }
                b'\n' => lines.push(Vec::new()),
                byte => lines.last_mut().expect("never empty").push(*byte),
            }
        }
        lines.retain(|line| line.first() != Some(&b':'));
        lines
    }

    #[test]
    fn comments_stand_between_lines_only() {
        #[track_caller]
        fn check(pieces: &[&str], sent: &str) {
            let pieces: Vec<&[u8]> = pieces.iter().map(|piece| piece.as_bytes()).collect();
            assert_eq!(String::from_utf8_lossy(&send(&pieces)), sent);
        }

        check(&[], ":k\n");
        check(&["data: a\n"], ":k\ndata: a\n:k\n");
        check(&["data: a", "b\n\n"], ":k\ndata: ab\n\n:k\n");
        check(&["data: a\r", "\n"], ":k\ndata: a\r\n:k\r\n:k\n");
        check(&["data: a\r", "data: b\r"], ":k\ndata: a\r\n:k\rdata: b\r\n:k\r");
    }

    #[test]
    fn a_late_byte_order_mark_is_dropped() {
        #[track_caller]
        fn check(pieces: &[&[u8]], sent: &[u8]) {
            assert_eq!(send(pieces), sent);
        }

        check(&[b"\xEF\xBB\xBFdata: a\n"], b":k\ndata: a\n:k\n");
        check(&[b"\xEF", b"\xBB", b"\xBF", b"data: a\n"], b":k\n:k\ndata: a\n:k\n");
        check(&[b"\xEF\xBB", b"\xBFx"], b":k\nx");
        // No mark after all: what was held back is owed.
        check(&[b"\xEF", b"\xBBx\n"], b":k\n\xEF\xBBx\n:k\n");
        check(&[b"\xEF", b"x\n"], b":k\n\xEFx\n:k\n");
    }

    #[test]
    fn a_time_to_wait_is_told_first_or_never() {
        let wait = Duration::from_millis(1500);
        let mut place = Place::Start;
        assert_eq!(place.retry(wait).as_deref(), Some(&b"retry: 1500\n"[..]));
        assert_eq!(place.retry(wait), None);
        assert_eq!(place.pass(b"\xEF\xBB\xBFretry: 1\n"), Pass { skip: 3, owed: &[] });
        assert_eq!(place.retry(wait), None);
        let mut place = Place::Start;
        place.comment("k");
        assert_eq!(place.retry(wait), None);
    }

    #[test]
    fn a_byte_order_mark_that_comes_first_is_kept() {
        let mut place = Place::Start;
        assert_eq!(place.pass(b"\xEF\xBB\xBFdata"), Pass { skip: 0, owed: &[] });
    }

    #[test]
    fn what_stands_between_events_is_told() {
        #[track_caller]
        fn check(pieces: &[&str], expected: bool) {
            let mut gap = Gap::default();
            pieces.iter().for_each(|piece| gap.pass(piece.as_bytes()));
            assert_eq!(gap.is_between(), expected, "{pieces:?}");
        }

        check(&[], true);
        check(&["data: a\n"], false);
        check(&["data: a\n\n"], true);
        check(&["data: a\n", "\n"], true);
        check(&["data: a\r", "\n"], false);
        check(&["data: a\r", "\r"], true);
        check(&["data: a\r", "\n\r", "\n"], true);
        check(&["data: a\r\n\r", "\n"], true);
        check(&["data: a\r\n\r\n"], true);
        check(&["data: a\n\n", ":ping\n"], true);
        check(&["data: a\n\n:ping\n:ping\r\n"], true);
        check(&["data: a\n", ":ping\n"], false);
        check(&["data: a\n:ping\n"], false);
        check(&["data: a\n\nid: 7\n"], false);
        check(&["data: a\n\n:pi"], false);
        // The safe side.
        check(&["data: a\n\n:pi", "ng\n"], false);
    }

    #[test]
    fn a_farewell_is_a_line_of_its_own() {
        let wait = Duration::from_millis(1200);
        for (place, expected) in [
            (Place::Start, "retry: 1200\n\n"),
            (Place::LineStart, "retry: 1200\n\n"),
            (Place::BehindCr, "\nretry: 1200\n\n"),
            (Place::InLine, ""),
        ] {
            assert_eq!(place.farewell(wait), expected.as_bytes(), "{place:?}");
        }
    }

    /// Whether a whole stream ends between two events, read line by line.
    fn is_between(stream: &[u8]) -> bool {
        let mut all = lines(stream);
        all.pop().is_none_or(|open| open.is_empty()) && all.last().is_none_or(Vec::is_empty)
    }

    proptest! {
        /// What is said to stand between events does, and is found in one piece.
        #[test]
        fn a_gap_is_a_gap(
            stream in "[a:\r\n]{0,30}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let stream = stream.as_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let (mut cut, mut whole) = (Gap::default(), Gap::default());
            cuts.windows(2).for_each(|at| cut.pass(&stream[at[0]..at[1]]));
            whole.pass(stream);
            // An open comment is no event, yet within a line; it is not asked for.
            let open_comment = stream.rsplit(|byte| matches!(byte, b'\r' | b'\n')).next().is_some_and(|line| line.starts_with(b":"));
            if !open_comment {
                prop_assert_eq!(whole.is_between(), is_between(stream));
                prop_assert!(!cut.is_between() || is_between(stream));
            }
        }

        #[test]
        fn no_insertion_changes_what_a_parser_reads(
            stream in "(\u{FEFF})?[a:\r\n\u{20AC}]{0,40}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let stream = stream.as_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            cuts.dedup();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).collect();
            prop_assert_eq!(lines(&send(&pieces)), lines(stream));
        }
    }
}
