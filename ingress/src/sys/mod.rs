//! All `unsafe` code: nghttp2, a few system calls, and functions compiled for wider vectors.

pub mod nghttp2;
pub mod os;
pub mod vectors;
