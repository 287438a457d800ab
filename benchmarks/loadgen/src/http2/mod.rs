//! HTTP/2: frames read and written, and HPACK header blocks.

pub mod frame_writer;
pub mod frames;
pub mod hpack;
