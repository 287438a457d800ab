//! Everything that is `unsafe`: nghttp2 behind a safe session, five system calls, and code compiled
//! for wider vectors. Nowhere else.

pub mod nghttp2;
pub mod os;
pub mod wide;
