//! `turnout_ingress.Trees`, which gateway/models/native_trees.py uses.

use std::sync::Arc;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::accel::trees;

/// An ensemble of decision trees.
#[pyclass(frozen)]
pub struct Trees(pub(super) Arc<trees::Trees>);

#[pymethods]
impl Trees {
    /// Read an ONNX file. With `picked` these of its scores are returned, in this order. ValueError: it
    /// is not of the kind that is known here.
    #[new]
    #[pyo3(signature = (onnx, picked=None))]
    fn new(onnx: &[u8], picked: Option<Vec<usize>>) -> PyResult<Trees> {
        let read = trees::onnx::read(onnx, picked.as_deref());
        read.map(|trees| Trees(Arc::new(trees))).map_err(PyValueError::new_err)
    }

    /// The number of inputs of a row.
    #[getter]
    fn width(&self) -> usize {
        self.0.width()
    }

    /// The number of scores of a row.
    #[getter]
    fn outputs(&self) -> usize {
        self.0.outputs().count()
    }

    /// (input, thresholds as float32 bytes) of the inputs that are compared.
    fn thresholds<'py>(&self, py: Python<'py>) -> Vec<(usize, Bound<'py, PyBytes>)> {
        let as_bytes = |(feature, values): (usize, Vec<f32>)| {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            (feature, PyBytes::new(py, &bytes))
        };
        self.0.thresholds().into_iter().map(as_bytes).collect()
    }

    /// Rows as float32 bytes that lead to each leaf that no row of (R, F) float32 leads to, as far as
    /// any row does. None if there are more than `most`. The GIL is released meanwhile.
    fn leaf_rows<'py>(
        &self,
        py: Python<'py>,
        matrix: PyBuffer<f32>,
        most: usize,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let rows = self.rows(py, &matrix)?;
        let found = py.detach(|| self.0.leaf_rows(&rows, most));
        found.map(|rows| float_bytes(py, &rows)).transpose()
    }

    /// Score (R, F) float32 and return (R, K) float32 as bytes. The GIL is released meanwhile.
    fn run<'py>(&self, py: Python<'py>, matrix: PyBuffer<f32>) -> PyResult<Bound<'py, PyBytes>> {
        let rows = self.rows(py, &matrix)?;
        let scores = py.detach(|| self.0.score(&rows));
        float_bytes(py, &scores)
    }
}

impl Trees {
    /// The values of a matrix, which has to have a column for each input.
    fn rows(&self, py: Python<'_>, matrix: &PyBuffer<f32>) -> PyResult<Vec<f32>> {
        if matrix.shape().last() != Some(&self.0.width()) || matrix.dimensions() != 2 {
            return Err(PyValueError::new_err(format!(
                "a matrix of shape {:?}; (R, {}) is scored",
                matrix.shape(),
                self.0.width()
            )));
        }
        matrix.to_vec(py)
    }
}

fn float_bytes<'py>(py: Python<'py>, values: &[f32]) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, values.len() * 4, |bytes| {
        for (four, value) in bytes.chunks_exact_mut(4).zip(values) {
            four.copy_from_slice(&value.to_le_bytes());
        }
        Ok(())
    })
}
