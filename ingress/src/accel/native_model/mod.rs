//! What scores the rows of a model without Python and without ONNX Runtime.
//!
//! Before a version answers calls, `gateway/models/native_scorer.py` compares it with ONNX Runtime.

use std::sync::Arc;

use crate::accel::trees::Trees;

/// A model that scores (R, width) float32 rows.
#[derive(Clone, Debug)]
pub struct NativeModel {
    trees: Arc<Trees>,
}

impl NativeModel {
    /// A model of trees alone.
    pub fn of_trees(trees: Arc<Trees>) -> NativeModel {
        NativeModel {
            trees,
        }
    }

    /// The number of inputs of a row.
    pub fn width(&self) -> usize {
        self.trees.width()
    }

    /// The number of scores of a row.
    pub fn outputs(&self) -> usize {
        self.trees.outputs().count()
    }

    /// Score rows. `rows` is (R, width) flat, and the result is (R, outputs) flat.
    pub fn score(&self, rows: &[f32]) -> Vec<f32> {
        self.trees.score(rows)
    }
}
