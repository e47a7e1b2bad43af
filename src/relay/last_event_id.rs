//! The last event id of a stream, as its client knows it: by it another server can go on. Pure.
//!
//! The rule (HTML standard, section 9.2.6): a field `id` counts from the end of its event on, an empty
//! line, and until another one does. One that holds a NUL is no id. All else of an event is skipped:
//! only the beginnings of lines are looked at.
//!
//! An id that cannot stand in a request names nothing for us: an empty one, which is what a server
//! says that takes its ids back, one with control characters, or one of more than [`ID_MAX`] bytes.

use memchr::memchr2;
use serde::{Deserialize, Serialize};

/// The longest id that is kept, in bytes.
pub const ID_MAX: usize = 1024;

/// Where a stream stands, as far as its ids go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastEventId {
    /// That of the events that are complete.
    last: Id,
    /// The one that counts from the next empty line on.
    next: Id,
    at: At,
    /// What has come of the value of a field `id`, and at most one byte more than may be.
    value: Vec<u8>,
    /// The value holds a NUL.
    has_nul: bool,
    /// The event that has begun has data.
    has_data: bool,
    /// An event was complete.
    has_passed: bool,
    /// The same, since the stream began or went on.
    has_passed_lately: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Id {
    /// None was ever said.
    #[default]
    Unsaid,
    /// This one.
    Usable(Vec<u8>),
    /// One that names nothing.
    Useless,
}

/// Where the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum At {
    /// At the very beginning, behind so many bytes of a byte order mark.
    Beginning { bom: u8 },
    /// Where a line begins; behind CR an LF belongs to the one before.
    LineStart { is_behind_cr: bool },
    /// Within a line that is so far the beginning of a name that matters.
    Name { name: Name, seen: u8 },
    /// Behind `id:`, where one space does not count.
    Colon,
    /// Within the value of `id`.
    Value,
    /// Within a line whose rest does not matter.
    Rest,
}

impl Default for At {
    fn default() -> Self {
        Self::Beginning { bom: 0 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Name {
    Id,
    Data,
}

impl Name {
    fn text(self) -> &'static [u8] {
        match self {
            Self::Id => b"id",
            Self::Data => b"data",
        }
    }
}

const BOM: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// From where another server can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From<'a> {
    /// From where the request says: nothing has passed since.
    Request,
    /// Behind the event of this id.
    Id(&'a [u8]),
}

impl LastEventId {
    /// From where another server can go on; `None` when nobody could say what the client has got.
    pub fn from(&self) -> Option<From<'_>> {
        match &self.last {
            Id::Usable(id) => Some(From::Id(id)),
            Id::Unsaid if !self.has_passed => Some(From::Request),
            Id::Unsaid | Id::Useless => None,
        }
    }

    /// Whether an event has passed since the stream began, or since it [went on](Self::go_on).
    pub fn has_passed_lately(&self) -> bool {
        self.has_passed_lately
    }

    /// Whether it is a state that a stream can be in. One that came from elsewhere may be none.
    pub fn is_sound(&self) -> bool {
        let fits = |id: &Id| !matches!(id, Id::Usable(id) if !is_usable(id));
        let is_somewhere = match self.at {
            At::Beginning { bom } => usize::from(bom) < BOM.len(),
            At::Name { name, seen } => (1..=name.text().len()).contains(&usize::from(seen)),
            At::LineStart { .. } | At::Colon | At::Value | At::Rest => true,
        };
        fits(&self.last) && fits(&self.next) && is_somewhere && self.value.len() <= ID_MAX + 1
    }

    /// What follows is sent by another server, behind a whole event.
    pub fn go_on(&mut self) {
        let (last, next) = (std::mem::take(&mut self.last), std::mem::take(&mut self.next));
        *self = Self { last, next, has_passed: self.has_passed, ..Self::default() };
    }

    /// Takes note of `data` that is sent next.
    pub fn pass(&mut self, mut data: &[u8]) {
        while let Some(byte) = data.first() {
            let taken = match self.at {
                At::Beginning { bom } => self.begin(usize::from(bom), *byte),
                At::LineStart { is_behind_cr: true } if *byte == b'\n' => {
                    self.move_to(At::LineStart { is_behind_cr: false })
                }
                At::LineStart { .. } => self.begin_line(*byte),
                At::Name { name, seen } => self.name(name, usize::from(seen), *byte),
                At::Colon => {
                    self.at = At::Value;
                    usize::from(*byte == b' ')
                }
                At::Value => self.value(data),
                At::Rest => match memchr2(b'\r', b'\n', data) {
                    Some(end) => end + self.end_line(data[end]),
                    None => data.len(),
                },
            };
            data = &data[taken..];
        }
    }

    fn begin(&mut self, bom: usize, byte: u8) -> usize {
        if byte == BOM[bom] {
            #[expect(clippy::cast_possible_truncation, reason = "less than three")]
            let seen = bom as u8 + 1;
            let is_whole = usize::from(seen) == BOM.len();
            return self.move_to(if is_whole {
                At::LineStart { is_behind_cr: false }
            } else {
                At::Beginning { bom: seen }
            });
        }
        // What looked like a mark is the beginning of a line that does not matter.
        self.at = if bom == 0 { At::LineStart { is_behind_cr: false } } else { At::Rest };
        0
    }

    fn begin_line(&mut self, byte: u8) -> usize {
        match byte {
            b'\r' | b'\n' => {
                self.end_event();
                self.end_line(byte)
            }
            b'i' => self.move_to(At::Name { name: Name::Id, seen: 1 }),
            b'd' => self.move_to(At::Name { name: Name::Data, seen: 1 }),
            _ => self.move_to(At::Rest),
        }
    }

    fn name(&mut self, name: Name, seen: usize, byte: u8) -> usize {
        let text = name.text();
        if text.get(seen) == Some(&byte) {
            #[expect(clippy::cast_possible_truncation, reason = "names are short")]
            return self.move_to(At::Name { name, seen: seen as u8 + 1 });
        }
        let is_end = matches!(byte, b'\r' | b'\n');
        let is_whole = seen == text.len() && (is_end || byte == b':');
        match name {
            Name::Id if is_whole => {
                (self.value, self.has_nul) = (Vec::new(), false);
                if !is_end {
                    return self.move_to(At::Colon);
                }
                self.end_value();
            }
            Name::Data if is_whole => self.has_data = true,
            Name::Id | Name::Data => {}
        }
        if is_end { self.end_line(byte) } else { self.move_to(At::Rest) }
    }

    fn value(&mut self, data: &[u8]) -> usize {
        let end = memchr2(b'\r', b'\n', data);
        let piece = &data[..end.unwrap_or(data.len())];
        self.has_nul |= piece.contains(&0);
        let room = (ID_MAX + 1).saturating_sub(self.value.len());
        self.value.extend_from_slice(&piece[..piece.len().min(room)]);
        match end {
            Some(end) => {
                self.end_value();
                end + self.end_line(data[end])
            }
            None => data.len(),
        }
    }

    fn end_value(&mut self) {
        let value = std::mem::take(&mut self.value);
        if !self.has_nul {
            self.next = if is_usable(&value) { Id::Usable(value) } else { Id::Useless };
        }
    }

    fn end_line(&mut self, byte: u8) -> usize {
        self.move_to(At::LineStart { is_behind_cr: byte == b'\r' })
    }

    fn end_event(&mut self) {
        if self.last != self.next {
            self.last.clone_from(&self.next);
        }
        let has_passed = std::mem::take(&mut self.has_data);
        self.has_passed |= has_passed;
        self.has_passed_lately |= has_passed;
    }

    /// One byte on.
    fn move_to(&mut self, at: At) -> usize {
        self.at = at;
        1
    }
}

/// Whether `id` can be the value of a field of a request.
fn is_usable(id: &[u8]) -> bool {
    let is_control = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7F;
    (1..=ID_MAX).contains(&id.len()) && !id.iter().any(is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seen(stream: &[u8], cuts: &[usize]) -> LastEventId {
        let mut ids = LastEventId::default();
        let mut from = 0;
        for cut in cuts.iter().copied().chain([stream.len()]) {
            ids.pass(&stream[from..cut]);
            from = cut;
            assert!(ids.is_sound(), "{ids:?}");
        }
        ids
    }

    /// The same as the standard says it, of the whole text at once: the id that was set last, if any, and
    /// whether an event was dispatched.
    fn plain(stream: &[u8]) -> (Option<Vec<u8>>, bool) {
        let stream = stream.strip_prefix(&BOM).unwrap_or(stream);
        let (mut lines, mut line, mut bytes) = (Vec::new(), Vec::new(), stream.iter().peekable());
        while let Some(byte) = bytes.next() {
            match byte {
                b'\r' => {
                    bytes.next_if(|next| **next == b'\n');
                    lines.push(std::mem::take(&mut line));
                }
                b'\n' => lines.push(std::mem::take(&mut line)),
                byte => line.push(*byte),
            }
        }
        let (mut last, mut next, mut has_data, mut has_passed) = (None, None, false, false);
        for line in lines {
            let colon = line.iter().position(|byte| *byte == b':');
            let (name, value) = (&line[..colon.unwrap_or(line.len())], &line[colon.map_or(line.len(), |at| at + 1)..]);
            let value = value.strip_prefix(b" ").unwrap_or(value);
            match name {
                b"" if line.is_empty() => {
                    last.clone_from(&next);
                    has_passed |= std::mem::take(&mut has_data);
                }
                b"id" if !value.contains(&0) => next = Some(value.to_vec()),
                b"data" => has_data = true,
                _ => {}
            }
        }
        (last, has_passed)
    }

    #[track_caller]
    fn check(stream: &str, expected: Option<From<'_>>) {
        for cut in 0..=stream.len() {
            assert_eq!(seen(stream.as_bytes(), &[cut]).from(), expected, "{stream:?} cut at {cut}");
        }
    }

    #[test]
    fn an_id_counts_from_the_end_of_its_event_on() {
        let id = |text: &'static str| Some(From::Id(text.as_bytes()));
        check("", Some(From::Request));
        check(": hello\n\nretry: 7\n\n", Some(From::Request));
        check("data: a\n", Some(From::Request));
        check("data: a\n\n", None);
        check("id: 1\ndata: a\n", Some(From::Request));
        check("id: 1\ndata: a\n\n", id("1"));
        check("id: 1\r\ndata: a\r\n\r\n", id("1"));
        check("id: 1\rdata: a\r\r", id("1"));
        check("data: a\nid:1\n\n", id("1"));
        check("id: 1\ndata: a\n\nid: 2\ndata: b\n", id("1"));
        check("id: 1\ndata: a\n\ndata: b\n\n", id("1"));
        check("id:  1 \n\n", id(" 1 "));
        check("\u{FEFF}id: 1\n\n", id("1"));
        check("\u{FEFF}\u{FEFF}id: 1\n\n", Some(From::Request));
        check(" id: 1\nidx: 2\ni: 3\nID: 4\n:id: 5\n\n", Some(From::Request));
        check("id: 1\n\nid: 2\0\ndata: a\n\n", id("1"));
        check("id: grün\n\n", id("grün"));
        // Taken back, and what no request can say.
        for useless in ["id\n\n", "id:\n\n", "id: \n\n", "id: a\u{1}b\n\n"] {
            check(useless, None);
            check(&format!("id: 1\ndata: a\n\n{useless}"), None);
        }
        check("id\n\nid: 2\n\n", id("2"));
    }

    #[test]
    fn an_id_is_only_so_long() {
        for (length, is_known) in [(ID_MAX, true), (ID_MAX + 1, false), (100 * ID_MAX, false)] {
            let ids = seen(format!("id: {}\ndata: a\n\n", "x".repeat(length)).as_bytes(), &[7, 700]);
            assert_eq!(ids.from().is_some(), is_known, "{length}");
            assert!(ids.value.capacity() <= 2 * ID_MAX + 2);
        }
    }

    #[test]
    fn another_server_begins_anew_behind_the_same_event() {
        let mut ids = seen(b"id: 1\ndata: a\n\n", &[]);
        assert!(ids.has_passed_lately());
        ids.go_on();
        assert!(!ids.has_passed_lately());
        assert_eq!(ids.from(), Some(From::Id(b"1")));
        ids.pass("\u{FEFF}id: 2\n\n".as_bytes());
        assert_eq!(ids.from(), Some(From::Id(b"2")));
        assert!(!ids.has_passed_lately(), "there was no data");
    }

    proptest! {
        #[test]
        fn any_stream_in_any_pieces_is_read_as_the_standard_says(
            tokens in prop::collection::vec(prop::sample::select(vec![
                "id", "data", ":", " ", "1", "x", "\n", "\r", "\r\n", "\n\n", "id: 2", "\0", "\u{FEFF}", "i", "d", "\u{1}",
            ]), 0..40),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let stream = tokens.concat().into_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.sort_unstable();
            let ids = seen(&stream, &cuts);
            let (last, has_passed) = plain(&stream);
            let expected = match &last {
                Some(id) if is_usable(id) => Some(From::Id(id)),
                None if !has_passed => Some(From::Request),
                _ => None,
            };
            prop_assert_eq!(ids.from(), expected);
            prop_assert_eq!(ids.has_passed_lately(), has_passed);
        }
    }
}
