//! WebSockets: nothing is added but the frames that are asked for, and nothing is lost.

#![no_main]

use libfuzzer_sys::fuzz_target;
use steadfast::relay::WebSocket;
use steadfast::relay::life::Side;
use steadfast::relay::websocket::{Goodbye, HEADROOM};

/// A Ping of ours to a client: header and mark.
const PING_BYTES: usize = 2 + 8;

fuzz_target!(|input: (u64, Vec<(u8, &[u8])>)| {
    let (mark, steps) = input;
    let mut websocket = WebSocket::new(mark);
    let (mut from_server, mut to_client, mut pings) = (0, 0, 0);
    let (mut from_client, mut to_server) = (Vec::new(), Vec::new());
    let mut is_ending = false;
    for (action, bytes) in steps {
        let side = if action & 1 == 0 { Side::Server } else { Side::Client };
        match action >> 1 & 7 {
            0 => {
                if let Some(ping) = websocket.ping() {
                    assert_eq!(ping.len(), PING_BYTES);
                    pings += 1;
                    to_client += ping.len();
                }
            }
            1 => {
                is_ending = true;
                websocket.close(side, Goodbye::GoingAway);
            }
            _ => {}
        }
        let mut buffer = vec![0; HEADROOM];
        buffer.extend_from_slice(bytes);
        let end = buffer.len();
        let passed = websocket.pass(side, &mut buffer, HEADROOM..end);
        let sent = &buffer[passed.bytes];
        match side {
            Side::Server => {
                pings += usize::from(passed.has_ping);
                from_server += bytes.len();
                to_client += sent.len();
            }
            Side::Client => {
                from_client.extend_from_slice(bytes);
                to_server.extend_from_slice(sent);
            }
        }
    }
    websocket.take_counts();
    if is_ending {
        return;
    }
    to_server.extend(websocket.release());
    assert_eq!(to_client, from_server + pings * PING_BYTES);
    if pings == 0 {
        assert_eq!(to_server, from_client);
    } else {
        // Of the client's nothing but whole Pongs of ours may be missing.
        let missing = from_client.len() - to_server.len();
        assert!(missing.is_multiple_of(2 + 4 + 8));
    }
});
