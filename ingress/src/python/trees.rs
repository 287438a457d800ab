//! `turnout_ingress.Trees`, which gateway/models/native_scorer.py uses.

use std::sync::Arc;

use pyo3::buffer::{Element, PyBuffer};
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

    /// Whether the inputs are float64, and otherwise float32.
    #[getter]
    fn double(&self) -> bool {
        self.0.is_double()
    }

    /// (input, thresholds as float64 bytes) of the inputs that are compared.
    fn thresholds<'py>(&self, py: Python<'py>) -> Vec<(usize, Bound<'py, PyBytes>)> {
        let as_bytes = |(feature, values): (usize, Vec<f64>)| {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            (feature, PyBytes::new(py, &bytes))
        };
        self.0.thresholds().into_iter().map(as_bytes).collect()
    }

    /// Rows as float64 bytes that lead to each leaf that no row of (R, F) float64 leads to, as far as
    /// any row does. None if there are more than `most`. The GIL is released meanwhile.
    fn leaf_rows<'py>(
        &self,
        py: Python<'py>,
        matrix: PyBuffer<f64>,
        most: usize,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let rows = rows_of(py, &matrix, self.0.width())?;
        let found = py.detach(|| self.0.leaf_rows(&rows, most));
        let bytes = |rows: Vec<f64>| {
            PyBytes::new_with(py, rows.len() * 8, |bytes| {
                for (eight, value) in bytes.chunks_exact_mut(8).zip(&rows) {
                    eight.copy_from_slice(&value.to_le_bytes());
                }
                Ok(())
            })
        };
        found.map(bytes).transpose()
    }

    /// Score (R, F) float32, or float64 if `double`, and return (R, K) float32 as bytes. The GIL is
    /// released meanwhile.
    fn run<'py>(
        &self,
        py: Python<'py>,
        matrix: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let scores = if self.0.is_double() {
            let rows = rows_of(py, &PyBuffer::<f64>::get(matrix)?, self.0.width())?;
            py.detach(|| self.0.score_double(&rows))
        } else {
            let rows = rows_of(py, &PyBuffer::<f32>::get(matrix)?, self.0.width())?;
            py.detach(|| self.0.score(&rows))
        };
        float_bytes(py, &scores)
    }
}

/// The values of a matrix with `width` columns.
pub(super) fn rows_of<T: Element>(
    py: Python<'_>,
    matrix: &PyBuffer<T>,
    width: usize,
) -> PyResult<Vec<T>> {
    if matrix.shape().last() != Some(&width) || matrix.dimensions() != 2 {
        return Err(PyValueError::new_err(format!(
            "a matrix of shape {:?}; (R, {width}) is scored",
            matrix.shape(),
        )));
    }
    matrix.to_vec(py)
}

pub(super) fn float_bytes<'py>(py: Python<'py>, values: &[f32]) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, values.len() * 4, |bytes| {
        for (four, value) in bytes.chunks_exact_mut(4).zip(values) {
            four.copy_from_slice(&value.to_le_bytes());
        }
        Ok(())
    })
}
