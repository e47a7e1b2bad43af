//! What happens to the bytes of a WebSocket: they are passed on as they are. Pure.
//!
//! Two things are ours, each a whole frame at a place where a frame may stand:
//! - A *Ping* to the client, with a payload of its own. The Pong that answers it is taken out
//!   again; all other Pongs are for the server and pass. While bytes of the client's may still
//!   become such a Pong they are *held back*: 13 at most, and of those only the mask is stored,
//!   because the rest is known.
//! - A *Close* to either side, when the proxy ends the relay itself. Nothing of the other side's
//!   passes behind it; that is read only for the Close that answers.
//!
//! Where a direction is *opaque* (see [`Frames`]) nothing is inserted into it. A Ping needs both
//! directions, as its Pong could not be told from the client's own bytes.

#[cfg(test)]
mod tests;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::frames::{FINAL, Frames, MASK_BYTES, MASKED, opcode};
use super::life::Side;

/// Space that must be free before the bytes given to [`WebSocket::pass`]: for what was held back,
/// and for what is inserted, which moves to the front what comes before it.
pub const HEADROOM: usize = PONG_BYTES + CLOSE_BYTES_MAX;

/// A WebSocket between two reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebSocket {
    /// From the server to the client.
    down: Way,
    /// From the client to the server.
    up: Way,
    /// The payload of our Pings: a random number, so that no Ping of others has it.
    mark: [u8; MARK_BYTES],
    /// How many bytes are held back of a Pong that may be ours, and what is known of its mask.
    held: u8,
    held_mask: [u8; MASK_BYTES],
    has_pinged: bool,
    /// [`WebSocket::take_counts`] has told that a direction is opaque.
    has_told: bool,
    /// Of the first Close, whoever said it.
    code: Option<u16>,
}

/// One direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Way {
    frames: Frames,
    ours: Ours,
}

/// What of ours goes into a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Ours {
    /// Nothing.
    Nothing,
    /// A Ping, as soon as the frame under way is complete.
    Ping,
    /// A Close, likewise.
    Close(Goodbye),
    /// Nothing, and nothing else passes: a Close was said.
    Closed,
}

/// What the proxy tells a side when it ends a WebSocket itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Goodbye {
    /// To a client: come back, another process will be there.
    ServiceRestart,
    /// To a server, and to both when nothing has been said for too long.
    GoingAway,
}

/// What has become of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Where in the buffer now stands what is to be sent.
    pub bytes: Range<usize>,
    /// Whether a Ping is among it.
    pub has_ping: bool,
}

/// What was not yet counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages from the client.
    pub up: u32,
    /// Messages to the client.
    pub down: u32,
    /// Whether it has turned out that a direction is opaque.
    pub is_opaque: bool,
}

impl WebSocket {
    /// A WebSocket of which nothing has been passed on. `mark` is a random number.
    pub fn new(mark: u64) -> Self {
        Self {
            down: Way { frames: Frames::new(Side::Server), ours: Ours::Nothing },
            up: Way { frames: Frames::new(Side::Client), ours: Ours::Nothing },
            mark: mark.to_be_bytes(),
            held: 0,
            held_mask: [0; MASK_BYTES],
            has_pinged: false,
            has_told: false,
            code: None,
        }
    }

    /// Whether it is a state that a WebSocket can be in. One that came from elsewhere may be none.
    pub fn is_sound(&self) -> bool {
        usize::from(self.held) < PONG_BYTES
            && self.down.frames.is_sound(Side::Server)
            && self.up.frames.is_sound(Side::Client)
            && self.up.ours != Ours::Ping
    }

    /// Turns what `from` sent, `buffer[bytes]`, into what the other side gets, in place.
    pub fn pass(&mut self, from: Side, buffer: &mut [u8], bytes: Range<usize>) -> Passed {
        let (way, mask, bytes) = match from {
            Side::Server => (&mut self.down, None, bytes),
            Side::Client => {
                let bytes = if self.has_pinged { self.take_pongs(buffer, bytes) } else { bytes };
                (&mut self.up, Some(mask_of(self.mark)), bytes)
            }
        };
        let (bytes, inserted) = way.pass(buffer, bytes, self.mark, mask);
        self.code = self.code.or(way.frames.close_code());
        let has_ping = inserted == Ours::Ping;
        self.has_pinged |= has_ping;
        Passed { bytes, has_ping }
    }

    /// What is held back, when nothing more comes from the client that could complete it.
    pub fn release(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; usize::from(self.held)];
        self.write_held(&mut bytes);
        self.held = 0;
        self.up.frames.follow(&bytes);
        if self.up.ours == Ours::Closed { Vec::new() } else { bytes }
    }

    /// A Ping for the client, to be sent now. `None` when there can be none, or when it must wait
    /// for the end of a frame, where [`WebSocket::pass`] inserts it.
    pub fn ping(&mut self) -> Option<Vec<u8>> {
        let can_answer = !self.up.frames.is_opaque() && !self.up.frames.is_closed();
        if !can_answer || !matches!(self.down.ours, Ours::Nothing | Ours::Ping) || !self.down.say(Ours::Ping) {
            return None;
        }
        self.has_pinged = true;
        Some(Ours::Ping.frame(self.mark, None))
    }

    /// A Close for `to`, to be sent now. `None` when it has its Close already or can get none, or
    /// when it must wait for the end of a frame, where [`WebSocket::pass`] inserts it.
    pub fn close(&mut self, to: Side, goodbye: Goodbye) -> Option<Vec<u8>> {
        let close = Ours::Close(goodbye);
        let (way, mask) = match to {
            Side::Client => (&mut self.down, None),
            Side::Server => (&mut self.up, Some(mask_of(self.mark))),
        };
        let is_now = way.say(close);
        if way.ours != Ours::Nothing {
            self.code.get_or_insert(goodbye.code());
        }
        is_now.then(|| close.frame(self.mark, mask))
    }

    /// Whether `side` has yet to answer a Close, or to get it.
    pub fn awaits(&self, side: Side) -> bool {
        let (to, from) = match side {
            Side::Client => (&self.down, &self.up),
            Side::Server => (&self.up, &self.down),
        };
        matches!(to.ours, Ours::Close(_) | Ours::Closed) && !from.frames.is_closed()
    }

    /// The code of the first Close, whoever said it, 1005 when that had none; `None` before.
    pub fn close_code(&self) -> Option<u16> {
        self.code
    }

    /// What has happened since this was last asked.
    pub fn take_counts(&mut self) -> Counts {
        let is_opaque = self.up.frames.is_opaque() || self.down.frames.is_opaque();
        let had_told = std::mem::replace(&mut self.has_told, is_opaque);
        Counts {
            up: self.up.frames.take_messages(),
            down: self.down.frames.take_messages(),
            is_opaque: is_opaque && !had_told,
        }
    }

    /// Takes the Pongs out of `buffer[bytes]` that answer our Pings, and holds back what may become
    /// one. What is left is not yet followed.
    fn take_pongs(&mut self, buffer: &mut [u8], bytes: Range<usize>) -> Range<usize> {
        let start = bytes.start - usize::from(self.held);
        self.write_held(&mut buffer[start..bytes.start]);
        self.held = 0;
        let mut frames = self.up.frames;
        let (mut at, mut to) = (start, start);
        while at < bytes.end {
            let rest = &buffer[at..bytes.end];
            if frames.is_at_boundary() {
                match self.find_pong(rest) {
                    Pong::Whole => {
                        at += PONG_BYTES;
                        continue;
                    }
                    Pong::Begun => {
                        self.hold(rest);
                        break;
                    }
                    Pong::No => {}
                }
            }
            let frame = frames.follow_frame(rest);
            if to < at {
                buffer.copy_within(at..at + frame, to);
            }
            at += frame;
            to += frame;
        }
        start..to
    }

    /// What stands at the front of `bytes`, where a frame begins.
    fn find_pong(&self, bytes: &[u8]) -> Pong {
        let bytes = &bytes[..bytes.len().min(PONG_BYTES)];
        let (header, rest) = bytes.split_at(bytes.len().min(PONG_HEADER.len()));
        let (mask, payload) = rest.split_at(rest.len().min(MASK_BYTES));
        let is_ours = payload.iter().enumerate().all(|(at, byte)| byte ^ mask[at % MASK_BYTES] == self.mark[at]);
        match PONG_HEADER.starts_with(header) && is_ours {
            true if bytes.len() == PONG_BYTES => Pong::Whole,
            true => Pong::Begun,
            false => Pong::No,
        }
    }

    fn hold(&mut self, begun: &[u8]) {
        for (at, byte) in begun.iter().skip(PONG_HEADER.len()).take(MASK_BYTES).enumerate() {
            self.held_mask[at] = *byte;
        }
        self.held = u8::try_from(begun.len()).expect("less than a Pong of ours");
    }

    /// Writes into `bytes` what is held back, which is as long.
    fn write_held(&self, bytes: &mut [u8]) {
        let payload = self.mark.iter().zip(self.held_mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        let pong = PONG_HEADER.into_iter().chain(self.held_mask).chain(payload);
        for (to, byte) in bytes.iter_mut().zip(pong) {
            *to = byte;
        }
    }
}

impl Way {
    /// Passes `buffer[bytes]` on, and says what of ours was inserted.
    fn pass(
        &mut self,
        buffer: &mut [u8],
        bytes: Range<usize>,
        mark: [u8; MARK_BYTES],
        mask: Option<[u8; MASK_BYTES]>,
    ) -> (Range<usize>, Ours) {
        let ours = self.ours;
        if ours == Ours::Nothing {
            self.frames.follow(&buffer[bytes.clone()]);
            return (bytes, Ours::Nothing);
        }
        let mut passed = bytes.start..bytes.start;
        let mut inserted = Ours::Nothing;
        if ours != Ours::Closed {
            passed.end += self.frames.follow_frame(&buffer[bytes.clone()]);
            if self.say(ours) {
                inserted = ours;
            }
        }
        self.frames.follow(&buffer[passed.end..bytes.end]);
        if inserted != Ours::Nothing {
            let frame = ours.frame(mark, mask);
            buffer.copy_within(passed.clone(), passed.start - frame.len());
            passed.start -= frame.len();
            buffer[passed.end - frame.len()..passed.end].copy_from_slice(&frame);
        }
        if self.ours != Ours::Closed {
            passed.end = bytes.end;
        }
        (passed, inserted)
    }

    /// Whether `ours` is to be sent here and now. Else it waits, if it can still be sent at all.
    fn say(&mut self, ours: Ours) -> bool {
        let is_now = self.frames.is_at_boundary() && self.ours != Ours::Closed;
        self.ours = match ours {
            _ if self.ours == Ours::Closed => Ours::Closed,
            _ if self.frames.is_opaque() => Ours::Nothing,
            Ours::Close(_) if is_now || self.frames.is_closed() => Ours::Closed,
            Ours::Ping if is_now || self.frames.is_closed() => Ours::Nothing,
            ours => ours,
        };
        is_now
    }
}

impl Ours {
    /// The frame, masked with `mask` when it is for a server.
    fn frame(self, mark: [u8; MARK_BYTES], mask: Option<[u8; MASK_BYTES]>) -> Vec<u8> {
        match self {
            Self::Ping => control(opcode::PING, &mark, mask),
            Self::Close(goodbye) => {
                let payload = [&goodbye.code().to_be_bytes(), goodbye.reason().as_bytes()].concat();
                control(opcode::CLOSE, &payload, mask)
            }
            Self::Nothing | Self::Closed => Vec::new(),
        }
    }
}

impl Goodbye {
    fn code(self) -> u16 {
        match self {
            Self::ServiceRestart => 1012,
            Self::GoingAway => 1001,
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::ServiceRestart => "service restart",
            Self::GoingAway => "going away",
        }
    }
}

const MARK_BYTES: usize = 8;

/// What every Pong of ours begins with, as clients send it; mask and payload follow.
#[expect(clippy::cast_possible_truncation, reason = "it is 8")]
const PONG_HEADER: [u8; 2] = [FINAL | opcode::PONG, MASKED | MARK_BYTES as u8];
const PONG_BYTES: usize = PONG_HEADER.len() + MASK_BYTES + MARK_BYTES;

/// Header, mask, code and the longest reason.
const CLOSE_BYTES_MAX: usize = 2 + MASK_BYTES + 2 + "service restart".len();

/// What stands where a frame of the client begins.
enum Pong {
    /// No Pong of ours.
    No,
    /// The beginning of one.
    Begun,
    /// All of one.
    Whole,
}

/// The mask for what we send to a server. It has to differ from relay to relay, not more: what is
/// masked is the same text always.
fn mask_of(mark: [u8; MARK_BYTES]) -> [u8; MASK_BYTES] {
    std::array::from_fn(|at| mark[at])
}

/// A control frame.
fn control(opcode: u8, payload: &[u8], mask: Option<[u8; MASK_BYTES]>) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("what we say fits a control frame");
    let mut frame = vec![FINAL | opcode, if mask.is_some() { MASKED | length } else { length }];
    frame.extend(mask.iter().flatten());
    let mask = mask.unwrap_or_default();
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
