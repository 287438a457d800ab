//! `turnout_ingress.Trees`, which gateway/models/native_trees.py uses.

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::accel::{onnx_trees, trees};

/// A boosted ensemble of decision trees.
#[pyclass(frozen)]
pub struct Trees(trees::Trees);

#[pymethods]
impl Trees {
    /// Read an ONNX file. ValueError: it is not of the kind that is known here.
    #[new]
    fn new(onnx: &[u8]) -> PyResult<Trees> {
        onnx_trees::read(onnx).map(Trees).map_err(PyValueError::new_err)
    }

    /// The number of inputs of a row.
    #[getter]
    fn width(&self) -> usize {
        self.0.width()
    }

    /// (input, thresholds as float32 bytes), once for each way of missing values.
    fn thresholds<'py>(&self, py: Python<'py>) -> Vec<(usize, Bound<'py, PyBytes>)> {
        let as_bytes = |(feature, values): (usize, Vec<f32>)| {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            (feature, PyBytes::new(py, &bytes))
        };
        self.0.thresholds().map(as_bytes).collect()
    }

    /// The number of trees.
    #[getter]
    fn count(&self) -> usize {
        self.0.count()
    }

    /// Rows that lead to the leaves, (L, F) float32 as bytes, at most `most`: `base` (F) with other values.
    fn leaf_rows<'py>(
        &self,
        py: Python<'py>,
        base: PyBuffer<f32>,
        most: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let base = base.to_vec(py)?;
        if base.len() != self.0.width() {
            return Err(PyValueError::new_err(format!(
                "a row of {} values; {} is the width",
                base.len(),
                self.0.width()
            )));
        }
        let rows = py.detach(|| self.0.leaf_rows(&base, most));
        let bytes: Vec<u8> = rows.iter().flat_map(|value| value.to_le_bytes()).collect();
        Ok(PyBytes::new(py, &bytes))
    }

    /// Score (R, F) float32 and return R float32 as bytes. The GIL is released meanwhile.
    fn run<'py>(&self, py: Python<'py>, matrix: PyBuffer<f32>) -> PyResult<Bound<'py, PyBytes>> {
        if matrix.shape().last() != Some(&self.0.width()) || matrix.dimensions() != 2 {
            return Err(PyValueError::new_err(format!(
                "a matrix of shape {:?}; (R, {}) is scored",
                matrix.shape(),
                self.0.width()
            )));
        }
        let rows = matrix.to_vec(py)?;
        let scores = py.detach(|| self.0.score(&rows));
        let length = scores.len() * 4;
        PyBytes::new_with(py, length, |bytes| {
            for (four, score) in bytes.chunks_exact_mut(4).zip(&scores) {
                four.copy_from_slice(&score.to_le_bytes());
            }
            Ok(())
        })
    }
}
