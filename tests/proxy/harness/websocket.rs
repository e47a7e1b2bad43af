//! WebSockets written by hand, so that every byte of every frame is chosen.

use super::client::SWITCHING;
use super::{Proxy, Reading, Upstream, Wire, websocket_request};

/// A WebSocket through the proxy: its two ends.
pub(crate) async fn open(proxy: &Proxy, server: &Upstream) -> (Wire, Wire) {
    open_on(proxy.connect().await, server).await
}

/// The same on a connection that is there.
pub(crate) async fn open_on(mut client: Wire, server: &Upstream) -> (Wire, Wire) {
    client.send(websocket_request("/ws", "")).await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send(SWITCHING).await;
    assert_eq!(client.head().await.status(), 101);
    (client, upstream)
}

/// A text frame as servers send it: without a mask.
pub(crate) fn frame(text: &str) -> Vec<u8> {
    short(0x81, text.as_bytes())
}

/// A text frame as clients send it: masked, here with zeros, which leaves the text readable.
pub(crate) fn masked_frame(text: &str) -> Vec<u8> {
    masked(0x81, text.as_bytes(), [0; 4])
}

/// Any short frame as servers send it.
pub(crate) fn short(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).ok().filter(|length| *length < 126);
    [&[first, length.expect("a short payload")], payload].concat()
}

/// Any short frame as clients send it.
pub(crate) fn masked(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let payload: Vec<_> = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    let mut frame = short(first, &payload);
    frame[1] |= 0x80;
    frame.splice(2..2, mask);
    frame
}

/// The next frame of any kind: its first byte and its payload, unmasked.
pub(crate) async fn next_frame(wire: &mut Reading) -> (u8, Vec<u8>) {
    let header = wire.exactly(2).await;
    let length = match header[1] & 0x7F {
        126 => u64::from(u16::from_be_bytes(wire.exactly(2).await.try_into().expect("two bytes"))),
        127 => u64::from_be_bytes(wire.exactly(8).await.try_into().expect("eight bytes")),
        length => length.into(),
    };
    let mask = if header[1] & 0x80 == 0 { vec![0; 4] } else { wire.exactly(4).await };
    let payload = wire.exactly(usize::try_from(length).expect("the test is small")).await;
    (header[0], payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect())
}

/// The payload of a Close.
pub(crate) fn close(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}
