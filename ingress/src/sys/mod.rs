//! All `unsafe` code: nghttp2, a few system calls, functions compiled for wider vectors, the steps of a
//! descent in trees, and bytes that are numbers.

pub mod floats;
pub mod nghttp2;
pub mod os;
pub mod records;
pub mod vectors;
