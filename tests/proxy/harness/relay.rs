//! Relays that are no WebSockets, opened: the client's end and the server's.

use super::{Proxy, Upstream, Wire};

/// An open event stream, chunked on both sides: the client's side and the server's.
pub(crate) async fn open_events(proxy: &Proxy, server: &Upstream) -> (Wire, Wire) {
    open_events_on(proxy.connect().await, server).await
}

/// The same on a connection that is there.
pub(crate) async fn open_events_on(mut client: Wire, server: &Upstream) -> (Wire, Wire) {
    client.send("GET /events HTTP/1.1\r\nHost: chat.example.com\r\n\r\n").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    assert_eq!(client.head().await.status(), 200);
    (client, upstream)
}

/// An open tunnel of a protocol that is no WebSocket.
pub(crate) async fn open_tunnel(proxy: &Proxy, server: &Upstream) -> (Wire, Wire) {
    open_tunnel_on(proxy.connect().await, server).await
}

/// The same on a connection that is there.
pub(crate) async fn open_tunnel_on(mut client: Wire, server: &Upstream) -> (Wire, Wire) {
    client.send("GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: gossip/1\r\n\r\n").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: gossip/1\r\n\r\n").await;
    assert_eq!(client.head().await.status(), 101);
    (client, upstream)
}
