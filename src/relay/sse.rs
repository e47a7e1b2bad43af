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

/// Where an event stream stands between two reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    proptest! {
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
