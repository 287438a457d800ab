//! `turnout_ingress.Trees`: what gateway/trees.py holds in its hands.

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::accel::{onnx_trees as trees_onnx, trees};
use crate::sys;

/// A boosted ensemble, ready to score.
#[pyclass(frozen)]
pub struct Trees(trees::Trees);

#[pymethods]
impl Trees {
    /// Read an ONNX file; ValueError where it is not of the one kind that is known here.
    #[new]
    fn new(onnx: &[u8]) -> PyResult<Trees> {
        trees_onnx::read(onnx).map(Trees).map_err(PyValueError::new_err)
    }

    /// Inputs of a row.
    #[getter]
    fn width(&self) -> usize {
        self.0.width()
    }

    /// (input, thresholds of its nodes as float32), one kind of node at a time.
    fn thresholds<'py>(&self, py: Python<'py>) -> Vec<(usize, Bound<'py, PyBytes>)> {
        let told = |(feature, values): (usize, Vec<f32>)| {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            (feature, PyBytes::new(py, &bytes))
        };
        self.0.thresholds().map(told).collect()
    }

    /// Score (R, F) float32; R float32, as bytes. Lets go of the interpreter meanwhile.
    fn run<'py>(&self, py: Python<'py>, matrix: PyBuffer<f32>) -> PyResult<Bound<'py, PyBytes>> {
        if matrix.shape().last() != Some(&self.0.width()) || matrix.dimensions() != 2 {
            return Err(PyValueError::new_err(format!(
                "a matrix of shape {:?}; (R, {}) is scored",
                matrix.shape(),
                self.0.width()
            )));
        }
        let rows = matrix.to_vec(py)?;
        let scores = py.detach(|| sys::wide::score(&self.0, &rows));
        let length = scores.len() * 4;
        PyBytes::new_with(py, length, |bytes| {
            for (four, score) in bytes.chunks_exact_mut(4).zip(&scores) {
                four.copy_from_slice(&score.to_le_bytes());
            }
            Ok(())
        })
    }
}
