//! Just enough of WebSocket (RFC 6455) for both ends of the benchmark: the handshake's proof and
//! unfragmented frames.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// The key of RFC 6455, section 1.3, which the clients send.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The answer to [`KEY`] that the RFC gives, which the clients expect.
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The opcode of a frame that carries bytes.
pub(crate) const BINARY: u8 = 0x2;
/// The opcode of a frame that ends the connection.
pub(crate) const CLOSE: u8 = 0x8;

/// The mask of every client frame. It only has to be there: nothing between the ends reads it.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

const MASKED_BIT: u8 = 0x80;
const FINAL_BIT: u8 = 0x80;

/// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key`.
pub(crate) fn accept(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

/// A frame as a server sends it.
pub(crate) fn server_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    push_head(&mut frame, opcode, payload.len(), 0);
    frame.extend_from_slice(payload);
    frame
}

/// A frame as a client sends it, masked.
pub(crate) fn client_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 14);
    push_head(&mut frame, opcode, payload.len(), MASKED_BIT);
    frame.extend_from_slice(&MASK);
    push_masked(&mut frame, payload, MASK);
    frame
}

fn push_head(frame: &mut Vec<u8>, opcode: u8, length: usize, masked_bit: u8) {
    frame.push(FINAL_BIT | opcode);
    if length < 126 {
        frame.push(masked_bit | length as u8);
    } else if let Ok(length) = u16::try_from(length) {
        frame.push(masked_bit | 126);
        frame.extend_from_slice(&length.to_be_bytes());
    } else {
        frame.push(masked_bit | 127);
        frame.extend_from_slice(&(length as u64).to_be_bytes());
    }
}

/// Masks, or unmasks, `payload`, eight bytes at a time.
fn push_masked(frame: &mut Vec<u8>, payload: &[u8], mask: [u8; 4]) {
    let mask_word = u64::from_ne_bytes(std::array::from_fn(|i| mask[i % 4]));
    let (words, rest) = payload.as_chunks::<8>();
    for word in words {
        frame.extend_from_slice(&(u64::from_ne_bytes(*word) ^ mask_word).to_ne_bytes());
    }
    frame.extend(rest.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b));
}

/// The head of a frame that a client sent.
pub(crate) struct ClientFrame {
    /// What the frame is.
    pub(crate) opcode: u8,
    mask: [u8; 4],
    head_bytes: usize,
    payload_bytes: usize,
}

impl ClientFrame {
    /// Reads the head at the start of `received`; `None` while the whole frame is not there.
    pub(crate) fn parse(received: &[u8]) -> Option<Self> {
        let (opcode, length) = (received.first()? & 0x0f, received.get(1)? & 0x7f);
        let (payload_bytes, mask_at) = match length {
            126 => (u16::from_be_bytes(array(received, 2)?).into(), 4),
            127 => (u64::from_be_bytes(array(received, 2)?) as usize, 10),
            length => (length.into(), 2),
        };
        let frame = Self { opcode, mask: array(received, mask_at)?, head_bytes: mask_at + 4, payload_bytes };
        (received.len() >= frame.bytes()).then_some(frame)
    }

    /// Head and payload together.
    pub(crate) fn bytes(&self) -> usize {
        self.head_bytes + self.payload_bytes
    }

    /// Appends a server frame with the same opcode and payload to `answer`.
    pub(crate) fn echo(&self, received: &[u8], answer: &mut Vec<u8>) {
        push_head(answer, self.opcode, self.payload_bytes, 0);
        push_masked(answer, &received[self.head_bytes..self.bytes()], self.mask);
    }
}

/// The `N` bytes of `bytes` from `start` on, if they are there.
fn array<const N: usize>(bytes: &[u8], start: usize) -> Option<[u8; N]> {
    bytes.get(start..start + N)?.try_into().ok()
}
