//! What a connection, a client and all callers together may have inside.

pub mod budget;
pub mod client;
pub mod decoder;
pub mod inflate;
