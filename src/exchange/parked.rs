//! A request whose answer takes its time, such as a long-poll: what waits is little more than two
//! sockets.
//!
//! What Pingora's session needs to parse messages is most of what a waiting exchange weighs. So an
//! exchange that has waited for a while is taken apart: two sockets, the head of the request as the
//! client wrote it, and what was decided. When something happens, the session with the client is made
//! again, and reads the same head a second time. Answers that come soon pay nothing for this.

use std::sync::Arc;
use std::time::Duration;

use pingora::protocols::http::v1::server::HttpSession as ServerSession;
use tokio::time::{Instant, timeout_at};

use super::early::Early;
use super::placement::Placement;
use super::{Front, client_session};
use crate::observe::Record;
use crate::relay::EndReason;
use crate::socket::Socket;
use crate::upstream::Upstream;

/// How long an exchange waits as it is.
pub(super) const PARK_AFTER: Duration = Duration::from_secs(1);

/// An exchange that waits for its server's answer. Its request has no body, and is sent; its client
/// has no answer, or the beginning of a stream.
#[derive(Debug)]
pub struct Parked {
    client: Socket,
    server: Socket,
    /// The head of the request, byte for byte.
    head: Box<[u8]>,
    waiting: Waiting,
}

/// What an exchange that waits has to remember beside its connections.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) upstream: Arc<Upstream>,
    /// Which of its servers was asked.
    pub(super) server: usize,
    pub(super) place: Placement,
    pub(super) record: Record,
    /// When the server must have answered.
    pub(super) deadline: Instant,
    /// Whether the stream begins without the server.
    pub(super) early: Early,
}

/// Why an exchange waits no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The server says something.
    Answer,
    /// The server has closed or failed without a word.
    ServerGone,
    /// The client has closed, failed or stalled.
    ClientGone(EndReason),
    /// The client shall wait no longer for a head.
    Early,
    /// The time for an answer is over.
    Late,
}

impl Parked {
    /// Takes the sessions of an exchange apart; `None` when they are not over sockets of ours.
    pub(super) fn new(down: Box<ServerSession>, server: Socket, waiting: Waiting) -> Option<Self> {
        let head = down.get_headers_raw_bytes().to_vec().into_boxed_slice();
        let client = Socket::from_stream(down.into_inner())?;
        Some(Self { client, server, head, waiting })
    }

    /// Waits until something happens.
    pub async fn wait(&mut self) -> Woken {
        let Waiting { upstream, record, deadline, early, .. } = &mut self.waiting;
        tokio::select! {
            biased; // An answer that is there is better than an early head.
            begun = timeout_at(*deadline, self.server.wire().read_ahead()) => match begun {
                Ok(Ok(true)) => Woken::Answer,
                Ok(Ok(false) | Err(_)) => Woken::ServerGone,
                Err(_) => Woken::Late,
            },
            woken = early.wait(self.client.wire(), upstream, record) => woken,
        }
    }

    /// Makes the session with the client again. `None` when it cannot be made, which nothing that was
    /// parked causes.
    pub(super) async fn resume(self, front: &Front) -> (Option<Box<ServerSession>>, Socket, Waiting) {
        let Self { client, server, head, waiting } = self;
        client.wire().put_back(&head);
        let mut down = client_session(front, client);
        // All of it is there, and was read before.
        let is_read = matches!(Box::pin(down.read_request()).await, Ok(Some(_)));
        (is_read.then_some(down), server, waiting)
    }
}
