//! Chunked framing: however it is split, the same data comes out, or the same refusal.

#![no_main]

use libfuzzer_sys::fuzz_target;
use steadfast::relay::chunked::{Decoder, Malformed};

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

fuzz_target!(|input: (&[u8], Vec<u8>)| {
    let (bytes, sizes) = input;
    let (mut rest, mut pieces) = (bytes, Vec::new());
    for size in sizes {
        let (piece, after) = rest.split_at(rest.len().min(size.into()));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    assert_eq!(decode(&pieces), decode(&[bytes]));
});
