//! One call: decoding and checking its bytes, admission, the queue, and its reply.

pub mod admission;
pub mod call_columns;
pub mod call_queue;
pub mod callers;
pub mod checks;
pub mod columns;
pub mod decode;
pub mod infer;
pub mod proto;
pub mod refusal;
pub mod reply;
pub mod shape;
