//! Why a request was refused, or could not be served.

use std::net::IpAddr;

use http::HeaderName;
use http::header::{CONNECTION, SEC_WEBSOCKET_VERSION, UPGRADE};

use crate::handshake::Damage;

/// Every way the proxy itself fails a request before a response has begun.
///
/// A failure gets a variant when someone acts on it: the client by its status, the operator by
/// its label. Its text goes to the client, so it names no address but that of the hop which is to
/// blame, and which speaks to us.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// The head of the request is not HTTP.
    #[error("the request is malformed")]
    Malformed,
    /// HTTP/1.1 without a `Host`.
    #[error("the request has no Host field")]
    NoHost,
    /// The head took too long.
    #[error("the head of the request took too long")]
    HeadTimeout,
    /// The head is longer than `limits.head_bytes`.
    #[error("the head of the request is longer than {bytes_max} bytes")]
    HeadTooLong {
        /// The limit.
        bytes_max: usize,
    },
    /// The target is longer than `limits.uri_bytes`.
    #[error("the target of the request is longer than {bytes_max} bytes")]
    UriTooLong {
        /// The limit.
        bytes_max: usize,
    },
    /// The head has more fields than `limits.headers`.
    #[error("the request has more than {max} header fields")]
    TooManyFields {
        /// The limit.
        max: usize,
    },
    /// As many connections are open as `limits.max_connections`, or the descriptors, allow.
    #[error("too many connections; come again later")]
    TooManyConnections,
    /// As many connections of the client are in use as `limits.per_client`.
    #[error("more than {max} connections of one client; come again later")]
    TooManyOfClient {
        /// The limit.
        max: usize,
    },
    /// More come to stay than `limits.handshakes_per_second` of the upstream lets through, and wait.
    #[error("too many come at once; come again later")]
    TooManyAtOnce,
    /// A method that makes no sense here: CONNECT.
    #[error("the method is not allowed")]
    MethodNotAllowed,
    /// What is left of a WebSocket handshake.
    #[error("{}", damage.text(*previous_hop))]
    DamagedHandshake {
        /// What is wrong with it.
        damage: Damage,
        /// Who sent it to us.
        previous_hop: IpAddr,
    },
    /// No rule matches the request.
    #[error("no route for host {host:?} and this path")]
    NoRoute {
        /// The host the client asked for.
        host: String,
    },
    /// The body of the request stopped coming.
    #[error("the body of the request took too long")]
    BodyTimeout,
    /// The framing of the request's body is broken.
    #[error("the body of the request is malformed")]
    BodyMalformed,
    /// No server of the upstream could be connected to.
    #[error("no server of upstream {upstream:?} could be reached")]
    NoServer {
        /// The upstream.
        upstream: String,
    },
    /// The server closed, failed or spoke nonsense instead of a response.
    #[error("the server of upstream {upstream:?} gave no valid response")]
    NoResponse {
        /// The upstream.
        upstream: String,
    },
    /// The server did not answer in time.
    #[error("the server of upstream {upstream:?} did not answer within {seconds} s")]
    ResponseTimeout {
        /// The upstream.
        upstream: String,
        /// The time-out `response_head`.
        seconds: u64,
    },
}

impl ProxyError {
    /// The status the client sees.
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed | Self::NoHost | Self::BodyMalformed => 400,
            Self::NoRoute { .. } => 404,
            Self::MethodNotAllowed => 405,
            Self::HeadTimeout | Self::BodyTimeout => 408,
            Self::UriTooLong { .. } => 414,
            Self::DamagedHandshake { damage, .. } => damage.status(),
            Self::HeadTooLong { .. } | Self::TooManyFields { .. } => 431,
            Self::TooManyConnections | Self::TooManyOfClient { .. } | Self::TooManyAtOnce => 503,
            Self::NoServer { .. } | Self::NoResponse { .. } => 502,
            Self::ResponseTimeout { .. } => 504,
        }
    }

    /// Whether the same request may be served soon.
    pub fn is_for_now(&self) -> bool {
        matches!(self, Self::TooManyConnections | Self::TooManyOfClient { .. } | Self::TooManyAtOnce)
    }

    /// What else the head of the answer says. The connection is closed behind it.
    pub fn fields(&self) -> &'static [(HeaderName, &'static str)] {
        match self {
            Self::DamagedHandshake { damage: Damage::Version, .. } => &VERSION_REQUIRED,
            Self::DamagedHandshake { .. } if self.status() == 426 => &UPGRADE_REQUIRED,
            _ => &[(CONNECTION, "close")],
        }
    }

    /// A fixed word for logs and metric labels; never holds request data.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NoHost => "no_host",
            Self::HeadTimeout => "head_timeout",
            Self::HeadTooLong { .. } => "head_too_long",
            Self::UriTooLong { .. } => "uri_too_long",
            Self::TooManyFields { .. } => "too_many_fields",
            Self::TooManyConnections => "too_many_connections",
            Self::TooManyOfClient { .. } => "too_many_of_client",
            Self::TooManyAtOnce => "too_many_at_once",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::DamagedHandshake { .. } => "damaged_handshake",
            Self::NoRoute { .. } => "no_route",
            Self::BodyTimeout => "body_timeout",
            Self::BodyMalformed => "body_malformed",
            Self::NoServer { .. } => "no_server",
            Self::NoResponse { .. } => "no_response",
            Self::ResponseTimeout { .. } => "response_timeout",
        }
    }
}

/// Who sends `Upgrade` names it in `Connection` (RFC 9110, section 7.8).
const UPGRADE_REQUIRED: [(HeaderName, &str); 2] = [(CONNECTION, "Upgrade, close"), (UPGRADE, "websocket")];

const VERSION_REQUIRED: [(HeaderName, &str); 3] =
    [(CONNECTION, "Upgrade, close"), (UPGRADE, "websocket"), (SEC_WEBSOCKET_VERSION, "13")];
