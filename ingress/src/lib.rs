//! Turnout's native front door: HTTP/2, gRPC and decoding on one thread that never takes the GIL.
//!
//! Folders import each other in one direction only:
//! `sys` <- `calls` <- `http2` <- `io_thread` <- `python`. `accel` stands beside them: it uses `calls`,
//! and `python` uses it. All `unsafe` code is in `sys`.

pub mod accel;
pub mod calls;
pub mod http2;
pub mod io_thread;
pub mod sys;

#[cfg(feature = "python")]
mod python;
