//! All `unsafe` code: nghttp2, a few system calls, a shared page, functions compiled for wider vectors,
//! the steps of a descent in trees, and bytes that are numbers.

pub mod floats;
pub mod nghttp2;
pub mod os;
pub mod records;
pub mod shared_page;
pub mod vectors;
