//! All `unsafe` code: nghttp2, a few system calls, a shared page, functions compiled for wider vectors, and the
//! steps of a descent in trees.

pub mod nghttp2;
pub mod os;
pub mod records;
pub mod shared_page;
pub mod vectors;
