//! What clients say: requests as text, because the text is what is tested.

use super::Message;
use super::wire::Wire;

/// A WebSocket handshake as browsers send it, with more fields if need be.
pub(crate) fn websocket_request(path: &str, fields: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: chat.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
    )
}

/// The answer that accepts [`websocket_request`].
pub(crate) const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
     Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A GET on a kept connection that carries an affinity key in a field.
pub(crate) async fn keyed(wire: &mut Wire, key: &str) -> Message {
    wire.send(format!("GET /keyed HTTP/1.1\r\nHost: chat.example.com\r\nX-Key: {key}\r\n\r\n")).await;
    wire.response().await
}
