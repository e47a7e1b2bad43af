//! One connection of HTTP/2: takes its streams, and ends it.
//!
//! The framing, the compression of fields and the windows are the work of the crate `h2`, which
//! bounds what a client may have it do: see [`settings`]. What it leaves open is bounded here.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::ext::Protocol;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use tokio::time::{Instant, sleep_until, timeout};

use super::lingering::Lingering;
use super::link::Link;
use super::request::{self, Body, Malformed};
use super::stream::{HELD_MAX, Stream};
use crate::config::Limits;
use crate::connection::{self, Open};
use crate::handshake;
use crate::proxy_protocol::Ends;
use crate::service::{Service, stopped};
use crate::socket::{Socket, Transport};

/// How much of a request's body a client may send ahead of its taker.
const WINDOW: u32 = 64 * 1024;

/// How long a client may take to acknowledge that its connection ends.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves what comes on `socket`, the preface first.
pub async fn serve(service: Arc<Service>, socket: Socket, previous_hop: IpAddr, open: Open) {
    let wire = socket.wire();
    let passed_on = wire.passed_on();
    let front = service.front();
    // What fails here has failed already, which the handshake will find out.
    let _ = wire.limit_silence(front.send.max(front.tcp_keepalive.patience()));
    let metrics = front.observer.metrics.http2();
    let link = Arc::new(Link::new(wire, open, metrics, front.limits.resets));
    let handshake = timeout(front.request_head, settings(&front.limits).handshake(Lingering::new(socket)));
    let mut stopping = service.stopping();
    let connection = tokio::select! {
        connection = handshake => connection,
        () = stopped(&mut stopping) => return,
    };
    match connection {
        Ok(Ok(connection)) => {
            let driver = Driver { service, link, previous_hop, passed_on };
            Box::pin(driver.run(connection)).await;
        }
        Ok(Err(error)) => tracing::debug!("{previous_hop}: no HTTP/2: {error}"),
        Err(_) => tracing::debug!("{previous_hop}: the preface of HTTP/2 has not come in time"),
    }
}

/// What a client is allowed.
fn settings(limits: &Limits) -> Builder {
    let mut settings = Builder::new();
    settings
        .max_concurrent_streams(limits.streams)
        .initial_window_size(WINDOW)
        // One that is not read must not hold up the others.
        .initial_connection_window_size(limits.streams.saturating_mul(WINDOW).min(WINDOWS_MAX))
        .max_send_buffer_size(HELD_MAX)
        .max_header_list_size(list_size_max(limits))
        .enable_connect_protocol()
        // Streams that were reset before they could be taken count as those that were taken do.
        .max_pending_accept_reset_streams(limits.resets as usize)
        .max_local_error_reset_streams(Some(limits.resets as usize));
    settings
}

/// The largest window there is (RFC 9113, section 6.9.1).
const WINDOWS_MAX: u32 = (1 << 31) - 1;

/// As fields are counted here each weighs 32 bytes more than its text, the pseudo-fields included.
/// So whatever is short enough for HTTP/1.1 comes through, and what is a little too long is told so
/// as there.
fn list_size_max(limits: &Limits) -> u32 {
    const PER_FIELD: usize = 32;
    const PSEUDO_FIELDS: usize = 5;
    let bytes = limits.head_bytes + PER_FIELD * (limits.headers + PSEUDO_FIELDS);
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

type Framing = Connection<Lingering, Bytes>;

/// What the streams of a connection need.
struct Driver {
    service: Arc<Service>,
    link: Arc<Link>,
    previous_hop: IpAddr,
    /// Whom a PROXY header has named.
    passed_on: Option<Ends>,
}

/// What may happen to a connection beside its framing.
enum Event {
    /// A stream has ended.
    Fewer,
    /// Nothing has been asked for so long that it ends.
    Idle,
    /// The process is stopping.
    Stopping,
}

impl Driver {
    async fn run(self, mut framing: Framing) {
        // As with HTTP/1.1, the first request has less time to come than those after it.
        let mut patience = self.service.front().request_head;
        let mut stopping = self.service.stopping();
        let mut quiet_since = Instant::now();
        let mut is_leaving = false;
        loop {
            let idle_at = (self.link.streams() == 0).then_some(quiet_since + patience);
            let event = tokio::select! {
                biased; // What has been asked for is served before anything is said to be over.
                accepted = framing.accept() => match accepted {
                    Some(Ok((request, respond))) => {
                        self.begin(request, respond);
                        continue;
                    }
                    Some(Err(error)) => return tracing::debug!("{}: HTTP/2 has failed: {error}", self.previous_hop),
                    None => return,
                },
                () = self.link.fewer() => Event::Fewer,
                () = sleep_until(idle_at.unwrap_or(quiet_since)), if idle_at.is_some() => Event::Idle,
                () = stopped(&mut stopping), if !is_leaving => Event::Stopping,
            };
            match event {
                Event::Fewer if self.link.is_flooded() => return self.throw_out(framing).await,
                Event::Fewer => {
                    quiet_since = Instant::now();
                    if !is_leaving {
                        patience = self.service.front().keepalive;
                    }
                }
                Event::Idle if is_leaving => return,
                Event::Idle | Event::Stopping => {
                    // Says that no more is taken, takes what is on its way, and closes.
                    framing.graceful_shutdown();
                    is_leaving = true;
                    (quiet_since, patience) = (Instant::now(), FAREWELL);
                }
            }
        }
    }

    /// Has the one request of a stream served as if it had come on a connection of its own.
    fn begin(&self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        // The first stream has come instead of a connection, and the others as well as it.
        let is_first = self.link.streams() == 0;
        let front = self.service.front();
        let ticket = if is_first { None } else { Some(front.admission.ticket()) };
        let is_served = match &ticket {
            None => self.link.open().is_served(),
            Some(Some(ticket)) => ticket.is_served() && self.link.open().is_served(),
            Some(None) => {
                front.observer.metrics.connections_untold.inc();
                return respond.send_reset(Reason::REFUSED_STREAM);
            }
        };
        let (parts, incoming) = request.into_parts();
        let protocol = parts.extensions.get::<Protocol>().map(Protocol::as_str);
        let has_body = !incoming.is_end_stream();
        let request = request::translate(&parts, protocol, has_body, &handshake::new_key());
        let request = request.unwrap_or_else(|Malformed| request::Request { head: NO_HEAD.into(), body: Body::None });
        self.link.begun();
        let stream = Stream::new(self.link.clone(), &parts.method, request, incoming, respond);
        let socket = Socket::new(Transport::Http2(Box::new(stream)));
        socket.wire().introduced(0, self.passed_on);
        let held = (self.link.clone(), ticket);
        tokio::spawn(connection::serve_one(self.service.clone(), front, socket, self.previous_hop, is_served, held));
    }

    /// Closes a connection whose client keeps on asking for what it does not want.
    async fn throw_out(&self, mut framing: Framing) {
        self.link.flooded();
        tracing::debug!("{}: reset too many streams", self.previous_hop);
        framing.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        // It is closed whether the client takes the news or not.
        let _ = timeout(FAREWELL, std::future::poll_fn(|cx| framing.poll_closed(cx))).await;
    }
}

/// What a request that breaks the rules of HTTP/2 becomes: no request of HTTP/1.1 either, so that
/// it is answered, counted and logged as one.
const NO_HEAD: &[u8] = b"-\r\n\r\n";
