//! Where the frames of one direction of a WebSocket begin and end (RFC 6455, section 5.2). Pure
//! and incremental.
//!
//! A frame is a header of 2 to 14 bytes and a payload. Of the header everything is looked at but
//! the mask, of the payload nothing but the code in a Close: the rest is counted and passed over,
//! so what this costs depends on the number of frames, not on their size.
//!
//! The rule: what cannot be a frame is not guessed at. From there on the direction is *opaque*,
//! and nobody may insert anything into it any more. Reserved bits say nothing, because extensions
//! use them (permessage-deflate does), nor does whether fragments follow each other as they should:
//! that is for the two ends to judge, and does not move a boundary.

use serde::{Deserialize, Serialize};

use super::life::Side;

/// Follows what one side sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frames {
    /// Bytes of mask and payload still to come; in an extended length, the part of it that is known.
    left: u64,
    place: Place,
    sender: Side,
    opcode: u8,
    is_final: bool,
    /// Of the Close that came or is coming. While it comes, its mask is mixed in.
    code: [u8; 2],
    /// Whole messages since they were last asked for.
    #[serde(skip)]
    messages: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Place {
    /// Between two frames.
    Boundary,
    /// Behind the first byte of a header.
    Length,
    /// In an extended length, of which so many bytes are to come.
    ExtendedLength(u8),
    /// In mask or payload, with at least one byte to come.
    Payload,
    /// In mask or payload of a Close, of which so many bytes have come.
    Close(u8),
    /// Behind a Close: what follows means nothing.
    Closed,
    /// In what is no frame.
    Opaque,
}

/// What a frame is, by the low four bits of its first byte.
pub mod opcode {
    /// A further fragment of a message.
    pub const CONTINUATION: u8 = 0x0;
    /// A text message, or its first fragment.
    pub const TEXT: u8 = 0x1;
    /// A binary message, or its first fragment.
    pub const BINARY: u8 = 0x2;
    /// The last frame of a direction.
    pub const CLOSE: u8 = 0x8;
    /// To be answered with a Pong of the same payload.
    pub const PING: u8 = 0x9;
    /// An answer to a Ping, or a sign of life by itself.
    pub const PONG: u8 = 0xA;
}

/// The bit of the first byte that says that no fragment follows.
pub const FINAL: u8 = 0x80;
/// The bit of the second byte that says that there is a mask.
pub const MASKED: u8 = 0x80;
/// Bytes of a mask.
pub const MASK_BYTES: usize = 4;
/// The most payload that a control frame may have.
const CONTROL_BYTES_MAX: u64 = 125;
/// What a Close without a code stands for (RFC 6455, section 7.1.5).
const NO_CODE: u16 = 1005;

impl Frames {
    /// What `sender` sends, before its first byte.
    pub fn new(sender: Side) -> Self {
        Self { left: 0, place: Place::Boundary, sender, opcode: 0, is_final: false, code: [0; 2], messages: 0 }
    }

    /// Whether it is a state that what `sender` sends can be in. One that came from elsewhere may be
    /// none.
    pub fn is_sound(&self, sender: Side) -> bool {
        let is_place = match self.place {
            Place::ExtendedLength(to_come) => (1..=8).contains(&to_come),
            Place::Payload => (1..1 << 63).contains(&self.left),
            Place::Close(seen) => {
                self.left > 0 && self.left.saturating_add(seen.into()) <= CONTROL_BYTES_MAX + MASK_BYTES as u64
            }
            Place::Boundary | Place::Length | Place::Closed | Place::Opaque => true,
        };
        is_place && self.sender == sender
    }

    /// Whether a frame may be inserted here: the last one is complete, and was no Close.
    pub fn is_at_boundary(&self) -> bool {
        self.place == Place::Boundary
    }

    /// Whether a Close has come, whole.
    pub fn is_closed(&self) -> bool {
        self.place == Place::Closed
    }

    /// Whether something came that was no frame.
    pub fn is_opaque(&self) -> bool {
        self.place == Place::Opaque
    }

    /// The code of the Close that has come; 1005 when it had none.
    pub fn close_code(&self) -> Option<u16> {
        self.is_closed().then(|| u16::from_be_bytes(self.code))
    }

    /// How many messages have come to their end since this was last asked.
    pub fn take_messages(&mut self) -> u32 {
        std::mem::take(&mut self.messages)
    }

    /// Follows `bytes`, which come next.
    pub fn follow(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            at += self.follow_frame(&bytes[at..]);
        }
    }

    /// Follows `bytes` to the end of the frame they are in, or to their own, and says how many
    /// these are.
    pub fn follow_frame(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            match self.place {
                Place::Payload => {
                    at += self.pass_payload(bytes.len() - at);
                }
                Place::Closed | Place::Opaque => return bytes.len(),
                place => {
                    self.place = self.after(place, *byte);
                    at += 1;
                }
            }
            if self.is_at_boundary() {
                break;
            }
        }
        at
    }

    /// Passes over as much of `available` bytes as is payload.
    fn pass_payload(&mut self, available: usize) -> usize {
        let taken = usize::try_from(self.left).map_or(available, |left| left.min(available));
        self.left -= taken as u64;
        if self.left == 0 {
            self.place = self.ended();
        }
        taken
    }

    /// Where `byte` leads, which is not passed over.
    fn after(&mut self, place: Place, byte: u8) -> Place {
        match place {
            Place::Boundary => {
                self.opcode = byte & 0x0F;
                self.is_final = byte & FINAL != 0;
                match self.opcode {
                    opcode::CONTINUATION | opcode::TEXT | opcode::BINARY => Place::Length,
                    opcode::CLOSE | opcode::PING | opcode::PONG if self.is_final => Place::Length,
                    _ => Place::Opaque,
                }
            }
            Place::Length => {
                if (byte & MASKED != 0) != self.is_masked() {
                    return Place::Opaque;
                }
                match byte & !MASKED {
                    126 => self.extended(2),
                    127 => self.extended(8),
                    length => self.body(length.into()),
                }
            }
            Place::ExtendedLength(to_come) => {
                self.left = self.left << 8 | u64::from(byte);
                if to_come > 1 { Place::ExtendedLength(to_come - 1) } else { self.body(self.left) }
            }
            Place::Close(seen) => self.after_close(seen, byte),
            Place::Payload | Place::Closed | Place::Opaque => place,
        }
    }

    fn extended(&mut self, bytes: u8) -> Place {
        self.left = 0;
        if self.is_control() { Place::Opaque } else { Place::ExtendedLength(bytes) }
    }

    /// The length is known.
    fn body(&mut self, length: u64) -> Place {
        if length >> 63 != 0 || self.is_control() && length > CONTROL_BYTES_MAX {
            return Place::Opaque;
        }
        self.left = length + self.mask_bytes() as u64;
        match (self.opcode, self.left) {
            (opcode::CLOSE, 0) => {
                self.code = NO_CODE.to_be_bytes();
                Place::Closed
            }
            (opcode::CLOSE, _) => Place::Close(0),
            (_, 0) => self.ended(),
            _ => Place::Payload,
        }
    }

    /// The code is the first two bytes of the payload, masked by the first two of the mask.
    fn after_close(&mut self, seen: u8, byte: u8) -> Place {
        let mask = self.mask_bytes();
        match usize::from(seen) {
            at @ (0 | 1) => self.code[at] ^= byte,
            at if (mask..mask + 2).contains(&at) => self.code[at - mask] ^= byte,
            _ => {}
        }
        self.left -= 1;
        if self.left > 0 {
            return Place::Close(seen + 1);
        }
        if usize::from(seen) + 1 < mask + 2 {
            self.code = NO_CODE.to_be_bytes();
        }
        Place::Closed
    }

    /// A frame is complete, and was no Close.
    fn ended(&mut self) -> Place {
        self.messages += u32::from(self.is_final && !self.is_control());
        Place::Boundary
    }

    fn is_control(&self) -> bool {
        self.opcode & 0x8 != 0
    }

    fn is_masked(&self) -> bool {
        self.sender == Side::Client
    }

    fn mask_bytes(&self) -> usize {
        if self.is_masked() { MASK_BYTES } else { 0 }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame as `sender` writes it, the mask being `mask`.
    pub(in crate::relay) fn frame(sender: Side, first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let mask_bit = if sender == Side::Client { MASKED } else { 0 };
        let mut frame = vec![first];
        match payload.len() {
            length @ 0..126 => frame.push(mask_bit | u8::try_from(length).expect("it is small")),
            length @ 126..65_536 => {
                frame.push(mask_bit | 126);
                frame.extend(u16::try_from(length).expect("it is small").to_be_bytes());
            }
            length => {
                frame.push(mask_bit | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        if sender == Side::Client {
            frame.extend(mask);
            frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        } else {
            frame.extend(payload);
        }
        frame
    }

    #[test]
    fn what_cannot_be_a_frame_is_not_guessed_at() {
        #[track_caller]
        fn check(sender: Side, bytes: &[u8], is_opaque: bool) {
            let mut frames = Frames::new(sender);
            frames.follow(bytes);
            assert_eq!(frames.is_opaque(), is_opaque, "{sender:?}: {bytes:02x?}");
            frames.follow(&[0x81, 0x00]);
            assert!(frames.is_opaque() || !is_opaque, "it is for good");
        }
        use Side::{Client, Server};

        check(Server, &[0x81, 0x01, b'a'], false);
        check(Client, &[0x81, 0x81, 1, 2, 3, 4, b'a'], false);
        // Extensions use reserved bits; on control frames as well.
        check(Server, &[0xC1, 0x01, b'a'], false);
        check(Server, &[0xF9, 0x00], false);
        // Masked towards the client, unmasked towards the server.
        check(Server, &[0x81, 0x81], true);
        check(Client, &[0x81, 0x01], true);
        // Reserved opcodes.
        for opcode in [0x3, 0x7, 0xB, 0xF] {
            check(Server, &[0x80 | opcode], true);
        }
        // Control frames: fragmented, too long, with a length of the long kind.
        check(Server, &[0x09], true);
        check(Server, &[0x89, 0x7E], true);
        check(Server, &[0x88, 0x7F], true);
        check(Server, &[0x89, 0x7D], false);
        // No frame is that long.
        check(Server, &[0x82, 0x7F, 0x80, 0, 0, 0, 0, 0, 0, 0], true);
        check(Server, &[0x82, 0x7F, 0x7F, 0, 0, 0, 0, 0, 0, 0], false);
        check(Client, &[0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], false);
        // What is no WebSocket at all.
        check(Client, b"GET / HTTP/1.1\r\n", true);
    }

    #[test]
    fn a_close_is_the_last_frame_and_has_a_code() {
        #[track_caller]
        fn check(payload: &[u8], code: u16) {
            for sender in [Side::Client, Side::Server] {
                let close = frame(sender, 0x88, payload, [0x11, 0x22, 0x33, 0x44]);
                let mut frames = Frames::new(sender);
                for byte in &close {
                    assert_eq!(frames.close_code(), None, "not before it is whole");
                    frames.follow(&[*byte]);
                }
                assert_eq!(frames.close_code(), Some(code), "{sender:?}: {payload:?}");
                frames.follow(b"whatever");
                assert!(frames.is_closed() && !frames.is_at_boundary());
            }
        }

        check(&[0x03, 0xE8], 1000);
        check(&[0x03, 0xF4], 1012);
        check(b"\x0F\xA0and the reason why", 4000);
        check(&[&[0x03, 0xE9][..], &[b'x'; 123]].concat(), 1001);
        check(&[], 1005);
        check(&[0x03], 1005);
    }

    /// One frame of a stream, as the generator chose it.
    #[derive(Clone, Debug)]
    pub(in crate::relay) struct Chosen {
        pub first: u8,
        pub payload: Vec<u8>,
        pub mask: [u8; 4],
    }

    pub(in crate::relay) fn chosen() -> impl Strategy<Value = Chosen> {
        let length = prop_oneof![0..4_usize, 120..130_usize, Just(126), Just(65_535), Just(65_536), 0..70_000_usize];
        let data = (any::<[bool; 2]>(), 0..3_u8, length).prop_map(|([is_final, is_reserved], opcode, length)| {
            (u8::from(is_final) << 7 | u8::from(is_reserved) << 6 | opcode, length)
        });
        let control = (prop_oneof![Just(0x89), Just(0x8A)], 0..126_usize);
        (prop_oneof![data, control], any::<u8>(), any::<[u8; 4]>()).prop_map(|((first, length), fill, mask)| Chosen {
            first,
            payload: vec![fill; length],
            mask,
        })
    }

    /// Whole messages and what is behind the last boundary, read from the start to the end of all
    /// of it: as the RFC draws a frame, without any state between two of them.
    fn read_whole(mut stream: &[u8], is_masked: bool) -> (Vec<usize>, u32) {
        let (whole, mut boundaries, mut messages) = (stream.len(), vec![0], 0);
        while stream.len() >= 2 {
            let bytes = match stream[1] & 0x7F {
                126 => 2,
                127 => 8,
                _ => 0,
            };
            let Some(extended) = stream.get(2..2 + bytes) else { break };
            let short = u64::from(stream[1] & 0x7F);
            let length =
                extended.iter().fold(if bytes == 0 { short } else { 0 }, |sum, byte| sum << 8 | u64::from(*byte));
            let total = 2 + bytes + if is_masked { 4 } else { 0 } + usize::try_from(length).expect("the test is small");
            let Some(rest) = stream.get(total..) else { break };
            messages += u32::from(stream[0] & 0x80 != 0 && stream[0] & 0x08 == 0);
            stream = rest;
            boundaries.push(whole - stream.len());
        }
        (boundaries, messages)
    }

    proptest! {
        #[test]
        fn every_split_finds_the_same_boundaries(
            frames in prop::collection::vec(chosen(), 0..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
            cut_off in any::<prop::sample::Index>(),
            sender in prop_oneof![Just(Side::Client), Just(Side::Server)],
        ) {
            let mut stream: Vec<u8> =
                frames.iter().flat_map(|it| frame(sender, it.first, &it.payload, it.mask)).collect();
            stream.truncate(cut_off.index(stream.len() + 1).max(stream.len() / 2));
            let (boundaries, messages) = read_whole(&stream, sender == Side::Client);

            // Cuts anywhere, and everywhere around the ends of frames, where headers are.
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.extend(boundaries.iter().step_by(2).flat_map(|at| *at..(at + 15).min(stream.len())));
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            cuts.dedup();

            let (mut whole, mut found) = (Frames::new(sender), vec![0]);
            for cut in cuts.windows(2) {
                let mut at = cut[0];
                while at < cut[1] {
                    at += whole.follow_frame(&stream[at..cut[1]]);
                    if whole.is_at_boundary() {
                        found.push(at);
                    }
                }
            }
            prop_assert_eq!(found, boundaries);
            prop_assert_eq!(whole.take_messages(), messages);
            prop_assert!(!whole.is_opaque());

            let mut unsplit = Frames::new(sender);
            unsplit.follow(&stream);
            prop_assert_eq!((unsplit.take_messages(), unsplit.is_at_boundary()), (messages, whole.is_at_boundary()));
        }

        #[test]
        fn nothing_a_peer_sends_confuses_it(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
            sender in prop_oneof![Just(Side::Client), Just(Side::Server)],
        ) {
            let (mut split, mut whole) = (Frames::new(sender), Frames::new(sender));
            for piece in &pieces {
                split.follow(piece);
            }
            whole.follow(&pieces.concat());
            prop_assert_eq!(split.place, whole.place);
            prop_assert_eq!(split.close_code(), whole.close_code());
            prop_assert_eq!(split.messages, whole.messages);
        }
    }
}
