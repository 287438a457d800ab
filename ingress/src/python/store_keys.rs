//! `turnout_ingress.StoreKeys`: a sequence of keys that is one command already.

use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::accel::store_keys::StoreKeys;

/// The keys of one read of the feature store, as a sequence of bytes.
#[pyclass(frozen, sequence, name = "StoreKeys")]
pub(super) struct PyStoreKeys(pub(super) StoreKeys);

#[pymethods]
impl PyStoreKeys {
    #[new]
    fn new(keys: Vec<Bound<'_, PyBytes>>) -> PyStoreKeys {
        let mut all = StoreKeys::default();
        keys.iter().for_each(|key| all.push(key.as_bytes()));
        PyStoreKeys(all)
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __getitem__<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyBytes>> {
        let key = self.0.get(index).ok_or_else(|| PyIndexError::new_err("no such key"))?;
        Ok(PyBytes::new(py, key))
    }

    /// The command MGET of all keys.
    fn mget<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.mget())
    }
}
