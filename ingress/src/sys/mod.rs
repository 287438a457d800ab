//! All `unsafe` code: nghttp2, a few system calls, functions compiled for wider vectors, and the
//! steps of a descent in trees.

pub mod nghttp2;
pub mod os;
pub mod records;
pub mod vectors;
