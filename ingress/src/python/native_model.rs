//! `turnout_ingress.NativeModel`, which passes over many models score with.

use pyo3::prelude::*;

use super::trees::Trees;
use crate::accel::native_model;

/// A model that is scored without Python and without ONNX Runtime.
#[pyclass(frozen)]
pub struct NativeModel(pub(super) native_model::NativeModel);

#[pymethods]
impl NativeModel {
    /// A model of trees alone.
    #[new]
    fn new(trees: &Trees) -> NativeModel {
        NativeModel(native_model::NativeModel::of_trees(trees.0.clone()))
    }
}
