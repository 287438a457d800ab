//! Work on whole batches that Python would do more slowly. The native server does not use it.

pub mod answered_group;
pub mod ids;
pub mod observations;
pub mod rows;
pub mod score_code;
pub mod split;
pub mod store_keys;
pub mod trees;
pub mod turn;
