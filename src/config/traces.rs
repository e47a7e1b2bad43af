//! Which requests are traced, and where their spans go.

/// What there is to know of tracing when it is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces {
    /// Where a collector takes spans by OTLP over HTTP: an `http` URL, its path included.
    pub endpoint: String,
    /// How many of the traces that begin here are sampled.
    pub sample: Share,
    /// What spans call the proxy.
    pub service_name: String,
    /// Whether the trace that a request belongs to goes on here, and with its server.
    pub propagate: bool,
}

/// A part of a whole, none and all included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u32);

impl Share {
    /// All of it.
    pub const WHOLE: Self = Self(1_000_000);

    /// So many millionths; `None` for more than there are.
    pub const fn new(millionths: u32) -> Option<Self> {
        if millionths > Self::WHOLE.0 { None } else { Some(Self(millionths)) }
    }

    /// How many millionths it is.
    pub const fn millionths(self) -> u32 {
        self.0
    }
}
