//! Pingora's sessions over our sockets. They parse the heads that come and frame the bodies that go.
//! The head of a request is not theirs to write: see [`crate::upstream::request`].

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use pingora::http::RequestHeader;
pub(super) use pingora::protocols::http::v1::client::HttpSession as ClientSession;
pub(super) use pingora::protocols::http::v1::server::HttpSession as ServerSession;

use super::Front;
use crate::socket::Socket;
use crate::upstream::headers;

/// A session with the client at the other end of `socket`, about to read a head.
pub(super) fn of_client(front: &Front, socket: Socket) -> Box<ServerSession> {
    socket.wire().expect_head(front.limits.head_bytes);
    let mut down = Box::new(ServerSession::new(Box::new(socket)));
    down.set_pipelining_enabled(true);
    down.set_read_timeout(None); // Each phase has its own.
    down
}

/// A session with the server at the other end of `socket`, which believes to have written the head of
/// a request as `asked` for. It is told what the answer and the body depend on, and need not know
/// more: the method, an upgrade, and the framing of a body that is still to be sent, if it `has_body`.
///
/// # Errors
/// When such a request cannot be written.
pub(super) async fn of_server(
    socket: Socket,
    asked: &RequestHeader,
    has_body: bool,
) -> pingora::Result<Box<ClientSession>> {
    let mut request = Box::new(RequestHeader::build_no_case(asked.method.clone(), b"/", None)?);
    if let Some(protocol) = headers::upgrade_of(asked) {
        request.insert_header(CONNECTION, "Upgrade")?;
        request.insert_header(UPGRADE, protocol)?;
    }
    for name in [CONTENT_LENGTH, TRANSFER_ENCODING] {
        for field in asked.headers.get_all(&name).iter().filter(|_| has_body) {
            request.append_header(&name, field)?;
        }
    }
    let wire = socket.wire().clone();
    let mut up = Box::new(ClientSession::new(Box::new(socket)));
    // While we hold the wire, what a session writes is collected; this goes nowhere.
    let unsent = wire.take_unsent();
    let written = up.write_request_header(request).await;
    wire.take_unsent();
    wire.collect(&unsent);
    written.map(|_| up)
}
