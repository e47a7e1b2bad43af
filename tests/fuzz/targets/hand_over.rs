//! What another process says at a hand-over: relays in whatever state it claims go on, or are refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use steadfast::handover::message::{FromNew, FromOld, decode, decode_relay, encode};
use steadfast::relay::Protocol;
use steadfast::relay::life::Side;

/// Space before what is passed on, and behind it.
const ROOM: usize = 64;

fuzz_target!(|input: (&[u8], &[u8])| {
    let (message, carried) = input;
    if let Ok(message) = decode::<FromOld>(message) {
        assert_eq!(decode(&encode(&message)).as_ref(), Ok(&message));
    }
    if let Ok(message) = decode::<FromNew>(message) {
        assert_eq!(decode(&encode(&message)).as_ref(), Ok(&message));
    }
    let Ok(frozen) = decode_relay(message) else { return };
    assert_eq!(decode_relay(&encode(&frozen)).as_ref(), Ok(&frozen));
    let buffer = [&[0; ROOM], carried, &[0; ROOM]].concat();
    let bytes = ROOM..ROOM + carried.len();
    match frozen.relay.protocol().clone() {
        Protocol::Events(mut events, _) => {
            let _ = events.pass(&mut buffer.clone(), bytes);
            events.comment("k");
            events.end(None);
        }
        Protocol::WebSocket(mut websocket) => {
            websocket.ping();
            for side in [Side::Client, Side::Server] {
                websocket.pass(side, &mut buffer.clone(), bytes.clone());
            }
            websocket.release();
        }
        Protocol::Unknown => {}
    }
});
