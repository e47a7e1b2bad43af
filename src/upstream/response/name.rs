//! The fields of a response that mean something to whoever passes it on. Pure.

/// A field that means something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// `Cache-Control`
    CacheControl,
    /// `Connection`
    Connection,
    /// `Content-Encoding`
    ContentEncoding,
    /// `Content-Length`
    ContentLength,
    /// `Content-Type`
    ContentType,
    /// `Date`
    Date,
    /// `Keep-Alive`
    KeepAlive,
    /// `Proxy-Connection`
    ProxyConnection,
    /// `Trailer`
    Trailer,
    /// `Transfer-Encoding`
    TransferEncoding,
    /// `Upgrade`
    Upgrade,
    /// `X-Accel-Buffering`
    XAccelBuffering,
}

impl Name {
    /// As it is written.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::CacheControl => "Cache-Control",
            Self::Connection => "Connection",
            Self::ContentEncoding => "Content-Encoding",
            Self::ContentLength => "Content-Length",
            Self::ContentType => "Content-Type",
            Self::Date => "Date",
            Self::KeepAlive => "Keep-Alive",
            Self::ProxyConnection => "Proxy-Connection",
            Self::Trailer => "Trailer",
            Self::TransferEncoding => "Transfer-Encoding",
            Self::Upgrade => "Upgrade",
            Self::XAccelBuffering => "X-Accel-Buffering",
        }
    }

    /// The one that is spelled `name`. Few have the same length.
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        let candidates: &[Self] = match name.len() {
            4 => &[Self::Date],
            7 => &[Self::Upgrade, Self::Trailer],
            10 => &[Self::Connection, Self::KeepAlive],
            12 => &[Self::ContentType],
            13 => &[Self::CacheControl],
            14 => &[Self::ContentLength],
            16 => &[Self::ContentEncoding, Self::ProxyConnection],
            17 => &[Self::TransferEncoding, Self::XAccelBuffering],
            _ => &[],
        };
        candidates.iter().copied().find(|known| known.text().as_bytes().eq_ignore_ascii_case(name))
    }

    /// Stands for it in a set.
    pub(super) fn bit(self) -> u16 {
        1 << self as u16
    }
}
