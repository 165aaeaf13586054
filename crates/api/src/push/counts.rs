//! What a receiver of metrics speaks, and what became of the samples for it.

use std::sync::atomic::AtomicU64;

use http::{HeaderMap, HeaderValue, StatusCode, header};

/// What a receiver speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushProtocol {
    /// Prometheus remote write 1.0.
    RemoteWrite,
    /// OTLP over HTTP with protobuf.
    Otlp,
}

impl PushProtocol {
    /// As metrics and settings call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RemoteWrite => "remote_write",
            Self::Otlp => "otlp",
        }
    }

    /// Whether what was answered so may be tried again. OTLP names the few codes; with remote write
    /// it is the server's fault, or haste.
    pub(super) fn is_passing(self, status: StatusCode) -> bool {
        match self {
            Self::RemoteWrite => {
                status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Otlp => matches!(status.as_u16(), 429 | 502 | 503 | 504),
        }
    }

    pub(super) fn describe(self, headers: &mut HeaderMap) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let encoding = match self {
            Self::RemoteWrite => {
                headers
                    .insert("x-prometheus-remote-write-version", HeaderValue::from_static("0.1.0"));
                "snappy"
            }
            Self::Otlp => "gzip",
        };
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
}

/// What became of the samples for one receiver.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) protocol: PushProtocol,
    pub(crate) sent: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) waiting_bytes: AtomicU64,
    /// Milliseconds since the epoch; 0 before the first.
    pub(crate) last_success: AtomicU64,
}

impl Counts {
    pub(crate) fn new(protocol: PushProtocol) -> Self {
        let zero = AtomicU64::default;
        Self {
            protocol,
            sent: zero(),
            refused: zero(),
            dropped: zero(),
            failures: zero(),
            waiting_bytes: zero(),
            last_success: zero(),
        }
    }
}
