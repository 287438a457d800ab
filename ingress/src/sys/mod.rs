//! Everything that is `unsafe`: nghttp2 behind a safe session, and four system calls. Nowhere else.

pub mod nghttp2;
pub mod os;
