//! Why a call is refused: a gRPC status.

/// gRPC status codes.
pub mod code {
    pub const OK: u32 = 0;
    pub const INVALID_ARGUMENT: u32 = 3;
    pub const DEADLINE_EXCEEDED: u32 = 4;
    pub const NOT_FOUND: u32 = 5;
    pub const PERMISSION_DENIED: u32 = 7;
    pub const RESOURCE_EXHAUSTED: u32 = 8;
    pub const FAILED_PRECONDITION: u32 = 9;
    pub const UNIMPLEMENTED: u32 = 12;
    pub const INTERNAL: u32 = 13;
    pub const UNAVAILABLE: u32 = 14;
    pub const UNAUTHENTICATED: u32 = 16;
}

/// The status with which a call is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The gRPC status code.
    pub code: u32,
    /// grpc-message: what is so, what was promised, and the way out.
    pub message: String,
    /// grpc-retry-pushback-ms: after how long the caller may retry.
    pub pushback_ms: Option<u32>,
}

impl Refusal {
    /// A refusal without a pushback.
    pub fn new(code: u32, message: impl Into<String>) -> Refusal {
        Refusal {
            code,
            message: message.into(),
            pushback_ms: None,
        }
    }

    /// INVALID_ARGUMENT: the caller has made a mistake.
    pub fn invalid(message: impl Into<String>) -> Refusal {
        Refusal::new(code::INVALID_ARGUMENT, message)
    }
}
