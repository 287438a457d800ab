//! One call: its bytes decoded and checked, its admission, its place in the queue, its reply.

pub mod admission;
pub mod call_queue;
pub mod columns;
pub mod decode;
pub mod infer;
pub mod proto;
pub mod reply;
pub mod shape;
