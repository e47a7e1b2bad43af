//! A response's head, as its server sent it and as the client gets it: hop-by-hop fields end here
//! (RFC 9110, section 7.6.1), an upgrade is the one thing of theirs that is passed on, and only then.
//! Pure.
//!
//! It stays the text that the server has sent, in its order and its spelling. Fields are noted as
//! parts of that text, those that are added stand behind it, and it is written in one go: no map is
//! made only to be looked up a few times.
//!
//! What could be read in two ways is [`Malformed`]: two lengths that differ, or a coding that is not
//! `chunked`. What is merely old is not.

mod name;

use std::mem::MaybeUninit;
use std::ops::Range;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use httparse::{ParserConfig, Status};

use super::headers::{contains_token, is_event_stream_type, is_usual, may_be_dropped};

pub use name::Name;

/// It is no response, or nobody can tell where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed response")]
pub struct Malformed;

impl From<crate::relay::chunked::Malformed> for Malformed {
    fn from(_: crate::relay::chunked::Malformed) -> Self {
        Self
    }
}

/// The head of a response.
#[derive(Clone, Debug)]
pub struct Head {
    /// Its status.
    pub status: StatusCode,
    /// What its sender speaks.
    pub version: Version,
    text: Vec<u8>,
    reason: Part,
    fields: Vec<Field>,
    /// The names that at least one of the fields has, a bit each.
    names: u16,
}

/// Where a part of the text begins and ends. Heads are far shorter than 4 GiB.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    begin: u32,
    end: u32,
}

#[derive(Clone, Copy, Debug)]
struct Field {
    name: Part,
    value: Part,
    known: Option<Name>,
}

/// Most fields of a head.
const FIELDS_MAX: usize = 256;

/// Longest name of a field: what the map takes that some heads become.
const NAME_MAX: usize = (1 << 15) - 1;

/// Bytes and fields that are added on the way, as a rule.
const USUAL_MORE: (usize, usize) = (128, 4);

impl Head {
    /// A head of our own, without fields.
    pub fn new(status: StatusCode) -> Self {
        let text = status.canonical_reason().unwrap_or_default().as_bytes().to_vec();
        let reason = Part::of(0..text.len());
        Self { status, version: Version::HTTP_11, text, reason, fields: Vec::new(), names: 0 }
    }

    /// The head that `bytes` begin with, and its length; `None` while it is not whole. Nothing is
    /// looked for in the first `seen` bytes, which held no end of a head before.
    ///
    /// # Errors
    /// [`Malformed`] when there can be no such head.
    pub fn read(bytes: &[u8], seen: usize) -> Result<Option<(Self, usize)>, Malformed> {
        let Some(end) = end_of_head(bytes, seen.saturating_sub(END.len())) else { return Ok(None) };
        let mut text = Vec::with_capacity(end + USUAL_MORE.0);
        text.extend_from_slice(&bytes[..end]);
        let mut room = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut parsed = httparse::Response::new(&mut []);
        let mut config = ParserConfig::default();
        config.allow_spaces_after_header_name_in_responses(true);
        let length = match config.parse_response_with_uninit_headers(&mut parsed, &text, &mut room) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) | Err(_) => return Err(Malformed),
        };
        let part = |piece: &[u8]| Part::of(offset(&text, piece));
        let mut names = 0;
        let mut fields = Vec::with_capacity(parsed.headers.len() + USUAL_MORE.1);
        for field in parsed.headers.iter() {
            if field.name.len() > NAME_MAX {
                return Err(Malformed);
            }
            let known = Name::of(field.name.as_bytes());
            names |= known.map_or(0, Name::bit);
            fields.push(Field { name: part(field.name.as_bytes()), value: part(field.value), known });
        }
        let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Malformed)?;
        let version = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
        let reason = parsed.reason.filter(|reason| !reason.is_empty());
        let reason = reason.map_or(Part::default(), |reason| part(reason.as_bytes()));
        let mut head = Self { status, version, text, reason, fields, names };
        head.reconcile()?;
        Ok(Some((head, length)))
    }

    /// Leaves one framing: none where there is no body, the coding if there is one, or else one length.
    ///
    /// A server that announces more than one, or a body where there can be none, may mean the next bytes
    /// otherwise than we do: its connection is not used again (RFC 9112, section 6.3).
    fn reconcile(&mut self) -> Result<(), Malformed> {
        let (is_coded, has_length) = (self.has(Name::TransferEncoding), self.has(Name::ContentLength));
        if !is_coded && !has_length {
            return Ok(());
        }
        let has_none = self.status.is_informational() || self.status == StatusCode::NO_CONTENT;
        let is_old = self.version < Version::HTTP_11;
        let is_long = has_length && self.length() != Ok(Some(0));
        if is_coded && (has_length || is_old || has_none) || is_long && has_none {
            self.add(Name::Connection, "close");
        }
        if has_none {
            self.remove(Name::ContentLength);
            self.remove(Name::TransferEncoding);
            return Ok(()); // RFC 9110, section 8.6, and RFC 9112, section 6.1.
        }
        if is_coded {
            self.remove(Name::ContentLength);
            let mut codings = self.all(Name::TransferEncoding);
            let is_chunked = codings.next().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
            return if is_chunked && codings.next().is_none() { Ok(()) } else { Err(Malformed) };
        }
        let length = self.length()?;
        if self.all(Name::ContentLength).nth(1).is_some() || self.plain_length().is_none() {
            self.set(Name::ContentLength, &length.unwrap_or_default().to_string());
        }
        Ok(())
    }

    /// The first length that is announced, if it is written as everybody writes it.
    fn plain_length(&self) -> Option<u64> {
        let digits = self.get(Name::ContentLength)?;
        let is_plain = matches!(digits, [b'0'] | [b'1'..=b'9', ..])
            && digits.len() < "18446744073709551615".len()
            && digits.iter().all(u8::is_ascii_digit);
        is_plain.then(|| digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
    }

    /// The length that is announced, once or as often as somebody likes.
    ///
    /// # Errors
    /// [`Malformed`] when it is none, or not the same one each time.
    pub fn length(&self) -> Result<Option<u64>, Malformed> {
        if let Some(length) = self.plain_length()
            && self.all(Name::ContentLength).nth(1).is_none()
        {
            return Ok(Some(length));
        }
        let mut lengths = self.all(Name::ContentLength).flat_map(|field| field.split(|byte| *byte == b','));
        let Some(first) = lengths.next().map(<[u8]>::trim_ascii) else { return Ok(None) };
        let is_same = first.iter().all(u8::is_ascii_digit) && lengths.all(|other| other.trim_ascii() == first);
        let text = std::str::from_utf8(first).ok().filter(|_| is_same);
        text.and_then(|text| text.parse().ok()).ok_or(Malformed).map(Some)
    }

    /// Whether there is such a field.
    pub fn has(&self, name: Name) -> bool {
        self.names & name.bit() != 0
    }

    /// The values of all such fields.
    pub fn all(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        let fields = if self.has(name) { &self.fields[..] } else { &[] };
        fields.iter().filter(move |field| field.known == Some(name)).map(|field| self.part(field.value))
    }

    /// The value of the first such field.
    pub fn get(&self, name: Name) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// All fields, as they are spelled.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|field| (self.part(field.name), self.part(field.value)))
    }

    /// All fields as a map, for whoever looks up what is not a [`Name`].
    pub fn map(&self) -> HeaderMap {
        let field = |(name, value)| Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?));
        self.fields().filter_map(field).collect()
    }

    /// Whether the field `Connection` names `token`.
    pub fn connection_names(&self, token: &str) -> bool {
        self.all(Name::Connection).any(|field| contains_token(field, token.as_bytes()))
    }

    /// Whether its sender leaves its connection open behind it (RFC 9112, section 9.3).
    pub fn stays_open(&self) -> bool {
        match self.version {
            Version::HTTP_11 => !self.connection_names("close"),
            Version::HTTP_10 => self.connection_names("keep-alive") && !self.connection_names("close"),
            _ => false,
        }
    }

    /// Whether it agrees to the upgrade to `asked`: the same protocol, if it names any.
    pub fn agrees_to(&self, asked: &HeaderValue) -> bool {
        self.get(Name::Upgrade).is_none_or(|got| {
            let mut protocols = asked.as_bytes().split(|byte| *byte == b',');
            protocols.any(|protocol| protocol.trim_ascii().eq_ignore_ascii_case(got.trim_ascii()))
        })
    }

    /// Whether a stream of events is behind it, which may be looked into: one that is whole or coded
    /// passes as it is.
    pub fn is_event_stream(&self) -> bool {
        self.status.is_success() && self.get(Name::ContentType).is_some_and(is_event_stream_type)
    }

    /// Turns it into the one that the client gets. `upgrade` is what was asked for and agreed to.
    ///
    /// `Transfer-Encoding` stays: it says how the body is framed and is seen to by whoever writes it.
    pub fn pass_on(&mut self, upgrade: Option<&HeaderValue>) {
        let protocol = upgrade.map(|asked| self.get(Name::Upgrade).unwrap_or(asked.as_bytes()).to_vec());
        self.drop_named();
        for name in [Name::Connection, Name::KeepAlive, Name::ProxyConnection, Name::Trailer, Name::Upgrade] {
            self.remove(name);
        }
        if let Some(protocol) = protocol {
            self.add(Name::Connection, "Upgrade");
            self.push(Name::Upgrade.text().as_bytes(), &protocol, Some(Name::Upgrade));
        }
    }

    /// Drops the fields that `Connection` names and that may go.
    fn drop_named(&mut self) {
        if self.all(Name::Connection).all(is_usual) {
            return;
        }
        let named: Vec<Vec<u8>> = self
            .all(Name::Connection)
            .flat_map(|field| field.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|name| may_be_dropped(name))
            .map(<[u8]>::to_vec)
            .collect();
        let Self { text, fields, .. } = self;
        fields.retain(|field| !named.iter().any(|name| name.eq_ignore_ascii_case(&text[field.name.range()])));
        self.names = self.fields.iter().filter_map(|field| field.known).fold(0, |names, known| names | known.bit());
    }

    /// Chooses the framing of a body for a client that speaks `client`: what the server's length says,
    /// or chunks for clients that know them, or the end of the connection.
    pub fn frame_for(&mut self, client: Version) {
        let has_no_body =
            self.status.is_informational() || matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if has_no_body || client < Version::HTTP_11 {
            self.remove(Name::TransferEncoding);
        } else if !self.has(Name::ContentLength) && self.get(Name::TransferEncoding) != Some(b"chunked") {
            self.set(Name::TransferEncoding, "chunked");
        }
    }

    /// Asks every hop between here and the client not to hold events back: nginx and its kin by
    /// `X-Accel-Buffering`, CDNs that compress by `no-transform`.
    pub fn promise_events(&mut self) {
        self.set(Name::XAccelBuffering, "no");
        if !self.all(Name::CacheControl).any(|field| contains_token(field, b"no-transform")) {
            self.add(Name::CacheControl, "no-transform");
        }
    }

    /// Has `value` in the place of all such fields.
    pub fn set(&mut self, name: Name, value: &str) {
        self.remove(name);
        self.add(name, value);
    }

    /// One more such field.
    pub fn add(&mut self, name: Name, value: &str) {
        self.push(name.text().as_bytes(), value.as_bytes(), Some(name));
    }

    /// One more `Set-Cookie`.
    pub fn add_cookie(&mut self, value: &str) {
        self.push(b"Set-Cookie", value.as_bytes(), None);
    }

    /// Drops all such fields.
    pub fn remove(&mut self, name: Name) {
        if self.has(name) {
            self.fields.retain(|field| field.known != Some(name));
            self.names &= !name.bit();
        }
    }

    fn push(&mut self, name: &[u8], value: &[u8], known: Option<Name>) {
        let begin = self.text.len();
        for part in [name, b": ", value, b"\r\n"] {
            self.text.extend_from_slice(part);
        }
        let colon = begin + name.len();
        let (name, value) = (Part::of(begin..colon), Part::of(colon + 2..colon + 2 + value.len()));
        self.names |= known.map_or(0, Name::bit);
        self.fields.push(Field { name, value, known });
    }

    /// Writes it behind what stands in `to`, but for the empty line that ends it.
    pub fn write(&self, to: &mut Vec<u8>) {
        to.reserve(self.text.len() + USUAL_MORE.0);
        for part in [b"HTTP/1.1 ", self.status.as_str().as_bytes(), b" ", self.part(self.reason), b"\r\n"] {
            to.extend_from_slice(part);
        }
        // Lines that stand one behind the other as they are to be written are copied together.
        let mut lines = 0..0;
        for field in &self.fields {
            let (name, value) = (field.name.range(), field.value.range());
            let is_plain = self.text[name.end..].starts_with(b": ")
                && value.start == name.end + 2
                && self.text[value.end..].starts_with(b"\r\n");
            if is_plain && name.start == lines.end {
                lines.end = value.end + 2;
                continue;
            }
            to.extend_from_slice(&self.text[lines.clone()]);
            lines = 0..0;
            if is_plain {
                lines = name.start..value.end + 2;
            } else {
                for part in [&self.text[name], b": ", &self.text[value], b"\r\n"] {
                    to.extend_from_slice(part);
                }
            }
        }
        to.extend_from_slice(&self.text[lines]);
    }

    fn part(&self, part: Part) -> &[u8] {
        &self.text[part.range()]
    }
}

impl Part {
    fn of(range: Range<usize>) -> Self {
        let at = |at| u32::try_from(at).expect("a head is bounded");
        Self { begin: at(range.start), end: at(range.end) }
    }

    fn range(self) -> Range<usize> {
        self.begin as usize..self.end as usize
    }
}

/// Where `piece` is in `text`, of which it is a part.
fn offset(text: &[u8], piece: &[u8]) -> Range<usize> {
    if piece.is_empty() {
        return 0..0; // Which may be from anywhere.
    }
    let begin = piece.as_ptr().addr() - text.as_ptr().addr();
    begin..begin + piece.len()
}

/// How heads end, whichever way their lines do.
const END: &[u8] = b"\n\r\n";

/// Where the first empty line at or behind `from` ends, but for those before the head.
fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let from = from.max(bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?);
    memchr::memchr_iter(b'\n', &bytes[from..]).map(|at| from + at + 1).find_map(|next| match bytes[next..] {
        [b'\n', ..] => Some(next + 1),
        [b'\r', b'\n', ..] => Some(next + 2),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
