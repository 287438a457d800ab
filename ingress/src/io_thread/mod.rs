//! The I/O thread, and what it shares with Python's event loop.

pub mod answer_records;
pub mod answering;
pub mod answering_reads;
pub mod batch_timing;
pub mod clients;
pub mod commands;
pub mod io;
pub mod server_state;
pub mod shared;
pub mod store_connection;
pub mod usual_calls;
pub mod usual_groups;
pub mod waiting;
