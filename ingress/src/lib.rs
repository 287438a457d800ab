//! Turnout's native server: HTTP/2, gRPC and decoding on one thread that never takes the GIL.
//!
//! The folders import each other in one direction: `sys` <- `calls` <- `http2` <- `io_thread` <-
//! `python`. `accel` stands beside `http2`: it uses `sys` and `calls`, and `io_thread` and `python` use it.
//! All `unsafe` code is in `sys`. README.md says what each folder does.
//!
//! Outside this crate, the library is the Python module `turnout_ingress`. The modules are public for
//! the fuzz targets and benchmarks only, and are therefore hidden from the documentation.

#[doc(hidden)]
pub mod accel;
#[doc(hidden)]
pub mod calls;
#[doc(hidden)]
pub mod http2;
#[doc(hidden)]
pub mod io_thread;
#[doc(hidden)]
pub mod sys;

#[cfg(feature = "python")]
mod python;
