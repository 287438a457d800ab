//! Work on whole batches that Python would do more slowly. The I/O thread answers usual calls by it.

pub mod answered_group;
pub mod breadcrumb;
pub mod ids;
pub mod mget_replies;
pub mod native_model;
pub mod observations;
pub mod plan;
pub mod rows;
pub mod score_code;
pub mod split;
pub mod store_keys;
pub mod trees;
pub mod turn;
