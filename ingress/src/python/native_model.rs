//! `turnout_ingress.NativeModel`, which passes over many models score with, and `SharedPage`, in which they
//! mark the version that they score (gateway/isolation/breadcrumbs.py).

use std::os::fd::RawFd;
use std::sync::Arc;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::trees::{float_bytes, rows_of, Trees};
use crate::accel::breadcrumb::Breadcrumb;
use crate::accel::native_model;
use crate::accel::native_model::step::Description;
use crate::sys::shared_page;

/// A step as Python describes it: kind, positions of the values that it reads, integers, numbers,
/// trees.
type StepParts = (String, Vec<usize>, Vec<usize>, Vec<f64>, Option<Py<Trees>>);

/// A model that is scored without Python and without ONNX Runtime.
#[pyclass(frozen)]
pub struct NativeModel(pub(super) Arc<native_model::NativeModel>);

#[pymethods]
impl NativeModel {
    /// A model of rows with `width` inputs, of which the last step computes the scores. ValueError: a
    /// step does not fit, or the model is too large.
    #[new]
    fn new(width: usize, steps: Vec<StepParts>) -> PyResult<NativeModel> {
        let described = |(kind, sources, integers, numbers, trees): StepParts| Description {
            kind,
            sources,
            integers,
            numbers,
            trees: trees.map(|trees| trees.get().0.clone()),
        };
        native_model::NativeModel::new(width, steps.into_iter().map(described).collect())
            .map(|model| NativeModel(Arc::new(model)))
            .map_err(PyValueError::new_err)
    }

    /// The number of inputs of a row.
    #[getter]
    fn width(&self) -> usize {
        self.0.width()
    }

    /// The number of scores of a row.
    #[getter]
    fn outputs(&self) -> usize {
        self.0.outputs()
    }

    /// Whether every step has the bits of ONNX Runtime's operators.
    #[getter]
    fn exact(&self) -> bool {
        self.0.is_exact()
    }

    /// Score (R, F) float32 and return (R, K) float32 as bytes. The GIL is released meanwhile.
    fn run<'py>(&self, py: Python<'py>, matrix: PyBuffer<f32>) -> PyResult<Bound<'py, PyBytes>> {
        let rows = rows_of(py, &matrix, self.0.width())?;
        let scores = py.detach(|| self.0.score(&rows));
        float_bytes(py, &scores)
    }

    /// As `run`, with the vectors that every processor has.
    fn run_portable<'py>(
        &self,
        py: Python<'py>,
        matrix: PyBuffer<f32>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let rows = rows_of(py, &matrix, self.0.width())?;
        float_bytes(py, &self.0.score_portable(&rows))
    }
}

/// The page of a worker, in which plans mark the versions that they score.
#[pyclass(frozen)]
pub struct SharedPage(Arc<shared_page::SharedPage>);

#[pymethods]
impl SharedPage {
    /// Map the first `length` bytes of a file. The caller may close `descriptor` afterwards.
    #[new]
    fn new(descriptor: RawFd, length: usize) -> PyResult<SharedPage> {
        Ok(SharedPage(Arc::new(shared_page::SharedPage::map(descriptor, length)?)))
    }
}

impl SharedPage {
    /// The bytes of one version: that of Python's event loop, and that of the I/O thread.
    pub(super) fn breadcrumb(&self, loop_at: usize, io_at: usize) -> Breadcrumb {
        Breadcrumb {
            page: Arc::clone(&self.0),
            loop_at,
            io_at,
        }
    }
}
