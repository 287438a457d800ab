//! Turnout's native front door: HTTP/2, gRPC and decoding on one thread that never takes the GIL.
//!
//! `io` is the thread; `bridge` is what it shares with Python's event loop; `python` is the module
//! `turnout_ingress`. Everything unsafe is in `sys`.

pub mod admission;
pub mod bridge;
pub mod calm;
pub mod clean;
pub mod columns;
pub mod conn;
pub mod grpc;
pub mod house;
pub mod ids;
pub mod infer;
pub mod intake;
pub mod io;
pub mod pace;
pub mod predict;
pub mod proto;
pub mod reply;
pub mod rows;
pub mod shape;
pub mod socket;
pub mod split;
pub mod stream;
pub mod streams;
pub mod sys;
pub mod tls;
pub mod trees;
pub mod trees_onnx;

#[cfg(feature = "python")]
mod python;
#[cfg(feature = "python")]
mod python_clean;
#[cfg(feature = "python")]
mod python_columns;
#[cfg(feature = "python")]
mod python_ids;
#[cfg(feature = "python")]
mod python_trees;
