//! HTTP/2 and gRPC: connections, their streams, and what bounds them.

pub mod accept;
pub mod conn;
pub mod frame_limits;
pub mod grpc;
pub mod socket;
pub mod stream;
pub mod stream_events;
pub mod streams;
pub mod tls;
