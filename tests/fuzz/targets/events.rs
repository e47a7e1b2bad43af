//! Event streams: what goes to the client is chunked framing, and without comments in it the data
//! is the server's.

#![no_main]

use libfuzzer_sys::fuzz_target;
use steadfast::relay::chunked::Decoder;
use steadfast::relay::events::{Events, HEADROOM, TAILROOM};
use steadfast::relay::{ClientFraming, ServerFraming};

fuzz_target!(|input: (bool, bool, Vec<(&[u8], bool)>)| {
    let (is_chunked, has_comments, pieces) = input;
    let server = if is_chunked { ServerFraming::Chunked } else { ServerFraming::UntilClose };
    let mut events = Events::new(server, ClientFraming::Chunked);
    let (mut from_server, mut sent) = (Vec::new(), Vec::new());
    for (piece, has_comment) in pieces {
        if has_comments && has_comment && !events.is_done() {
            sent.extend(events.comment("k").unwrap_or_default());
        }
        let end = HEADROOM + piece.len();
        let mut buffer = vec![0; end + TAILROOM];
        buffer[HEADROOM..end].copy_from_slice(piece);
        let Ok(range) = events.pass(&mut buffer, HEADROOM..end) else { return };
        sent.extend_from_slice(&buffer[range]);
        from_server.extend_from_slice(piece);
        if events.is_done() {
            break;
        }
    }
    let was_done = events.is_done();
    let range = Decoder::default().decode(&mut from_server.clone());
    let mut decoder = Decoder::default();
    let data = decoder.decode(&mut sent).expect("what the client gets is chunked framing");
    assert_eq!(decoder.is_done(), was_done);
    if has_comments {
        return;
    }
    if is_chunked {
        let range = range.expect("it was passed on");
        let mut whole = from_server;
        let _ = Decoder::default().decode(&mut whole);
        assert_eq!(sent[data], whole[range]);
    } else {
        assert_eq!(sent[data], from_server);
    }
});
