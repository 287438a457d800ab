//! `turnout_ingress.SharedPage`, which gateway/isolation/breadcrumbs.py uses.

use std::os::fd::RawFd;
use std::sync::Arc;

use pyo3::prelude::*;

use crate::accel::breadcrumb::Breadcrumb;
use crate::sys::shared_page;

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
