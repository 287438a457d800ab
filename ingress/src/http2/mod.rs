//! HTTP/2 and gRPC: listeners, connections, streams, and the limits on what a peer may send.

pub mod accept;
pub mod bounds;
pub mod conn;
pub mod frame_limits;
pub mod grpc;
pub mod request_head;
pub mod service;
pub mod socket;
pub mod stream;
pub mod stream_events;
pub mod stream_holds;
pub mod streams;
pub mod tls;
