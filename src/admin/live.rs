//! `/api/v1/live`: the status as a stream of events, one at once and one every second. However many watch,
//! it is put together once a second; who is too slow to read it is let go, and holds nobody up.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{Method, StatusCode, Version};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};

use super::Admin;
use super::answer::line;
use super::status::Status;
use crate::service::stopped;

/// How many watch at most. Each holds a connection, and people look at one or two.
pub(super) const WATCHERS_MAX: usize = 32;

/// How long a watcher may take for one event.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// How long the last event has to get out when the process ends.
const LAST_WITHIN: Duration = Duration::from_secs(1);

/// Who watches, and what they see.
#[derive(Debug)]
pub(super) struct Live {
    seats: Arc<Semaphore>,
    /// The event of a second in the life of the process.
    latest: Mutex<Option<(u64, Bytes)>>,
}

impl Live {
    /// Nobody watches yet.
    pub(super) fn new() -> Self {
        Self { seats: Arc::new(Semaphore::new(WATCHERS_MAX)), latest: Mutex::default() }
    }

    /// A place to watch from, if there is one left.
    pub(super) fn seat(&self) -> Option<OwnedSemaphorePermit> {
        self.seats.clone().try_acquire_owned().ok()
    }

    /// Waits until everybody has seen the last event, but not for long.
    pub(super) async fn end(&self) {
        let all = u32::try_from(WATCHERS_MAX).expect("they are few");
        // Who has not seen it by then is too slow.
        let _ = timeout(LAST_WITHIN, self.seats.acquire_many(all)).await;
    }

    /// The event of this `second`, which is made by the first who asks.
    fn event(&self, second: u64, make: impl FnOnce() -> Status) -> Bytes {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        match &*latest {
            Some((its_second, event)) if *its_second == second => event.clone(),
            _ => {
                let event = event(&make());
                *latest = Some((second, event.clone()));
                event
            }
        }
    }
}

fn event(status: &Status) -> Bytes {
    // JSON on one line needs no more than one `data` field.
    [&b"event: status\ndata: "[..], &line(status), b"\n"].concat().into()
}

/// Serves `request` until its client leaves, another token has to be brought, or the process stops.
pub(super) async fn follow(admin: &Admin, request: &mut ServerSession, _seat: OwnedSemaphorePermit) {
    request.set_keepalive(None);
    let begun = matches!(timeout(READ_WITHIN, begin(request)).await, Ok(Ok(())));
    if !begun || request.req_header().method == Method::HEAD {
        return;
    }
    let (token, mut stopping) = (admin.token.load_full(), admin.service.stopping());
    loop {
        let second = admin.process.began.elapsed().as_secs();
        let latest = admin.live.event(second, || Status::of(admin));
        if !write(request, latest).await {
            return;
        }
        let next = Instant::from_std(admin.process.began + Duration::from_secs(second + 1));
        tokio::select! {
            () = sleep_until(next) => {}
            () = stopped(&mut stopping) => {
                write(request, event(&Status::of(admin))).await;
                break;
            }
            // Nothing more is to come, so this is the end, or something that we need not understand.
            _ = request.read_body_or_idle(true) => return,
        }
        if *admin.token.load() != token {
            break;
        }
    }
    let _ = timeout(READ_WITHIN, request.write_response_body(Bytes::new(), true)).await;
}

async fn begin(request: &mut ServerSession) -> pingora::Result<()> {
    let mut head = ResponseHeader::build(StatusCode::OK, Some(4))?;
    head.insert_header(CONTENT_TYPE, "text/event-stream")?;
    head.insert_header(CACHE_CONTROL, "no-store")?;
    if request.req_header().version == Version::HTTP_11 {
        head.insert_header(TRANSFER_ENCODING, "chunked")?; // To HTTP/1.0 the end of the connection is the end.
    }
    request.write_response_header(Box::new(head)).await
}

/// Whether the client has taken it in time.
async fn write(request: &mut ServerSession, event: Bytes) -> bool {
    matches!(timeout(READ_WITHIN, request.write_response_body(event, false)).await, Ok(Ok(())))
}
