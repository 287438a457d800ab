//! `turnout_ingress.NativeViewRows` and `assign_arms`: the feature lookup and the traffic split of a batch.

use std::sync::Arc;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::store_keys::PyStoreKeys;
use crate::accel::rows::{RowBatch, ViewRows};
use crate::accel::split::{self, ArmShare};
use crate::accel::store_keys::StoreKeys;

/// The rows of one view in the online store: `features.rows.ViewRows` for a whole batch.
#[pyclass(frozen, name = "NativeViewRows")]
pub(super) struct PyViewRows(pub(super) Arc<ViewRows>);

#[pymethods]
impl PyViewRows {
    #[new]
    fn new(
        view: u64,
        ttl_ms: i64,
        tail: &[u8],
        all_valid: &[u8],
        defaults: &[u8],
    ) -> PyResult<PyViewRows> {
        let rows = ViewRows::new(view, ttl_ms, tail, all_valid, defaults);
        rows.map(|rows| PyViewRows(Arc::new(rows))).ok_or_else(|| {
            PyValueError::new_err(format!(
                "{} bytes of validity do not fit {} of defaults",
                all_valid.len(),
                defaults.len()
            ))
        })
    }

    /// The store's key for each id. Id i is buffer[starts[i]:ends[i]].
    fn store_keys(
        &self,
        py: Python<'_>,
        buffer: &[u8],
        starts: PyBuffer<u32>,
        ends: PyBuffer<u32>,
    ) -> PyResult<PyStoreKeys> {
        let (starts, ends) = offsets(py, &starts, &ends)?;
        let mut keys = StoreKeys::default();
        for (start, end) in starts.iter().zip(&ends) {
            self.0.put_key(item(buffer, *start, *end)?, &mut keys);
        }
        Ok(PyStoreKeys(keys))
    }

    /// Read the store's replies for these ids: ((R, F) float32, (R,) uint32 flags, broken rows).
    fn decode_rows<'py>(
        &self,
        py: Python<'py>,
        replies: Vec<Option<Bound<'py, PyBytes>>>,
        buffer: &[u8],
        starts: PyBuffer<u32>,
        ends: PyBuffer<u32>,
        now_ms: i64,
    ) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>, usize)> {
        let (starts, ends) = offsets(py, &starts, &ends)?;
        if replies.len() != starts.len() {
            return Err(PyValueError::new_err("a reply an id"));
        }
        let mut rows = RowBatch::default();
        rows.values.reserve(replies.len() * self.0.values_bytes());
        for (reply, (start, end)) in replies.iter().zip(starts.iter().zip(&ends)) {
            let reply = reply.as_ref().map(|row| row.as_bytes());
            self.0.read(reply, item(buffer, *start, *end)?, now_ms, &mut rows);
        }
        let flags: Vec<u8> = rows.flags.iter().flat_map(|flags| flags.to_ne_bytes()).collect();
        Ok((PyBytes::new(py, &rows.values), PyBytes::new(py, &flags), rows.broken))
    }
}

/// The arm of each key, one byte each. `canary` and `standby` are (arm, share in basis points).
#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn assign_arms<'py>(
    py: Python<'py>,
    before: &[u8],
    buffer: &[u8],
    starts: PyBuffer<u32>,
    ends: PyBuffer<u32>,
    canary: (u8, u64),
    standby: (u8, u64),
    rest: u8,
) -> PyResult<Bound<'py, PyBytes>> {
    let (starts, ends) = offsets(py, &starts, &ends)?;
    let arm = |(arm, share_bp)| ArmShare {
        arm,
        share_bp,
    };
    let (canary, standby) = (arm(canary), arm(standby));
    let arms = split::arms(before, buffer, &starts, &ends, canary, standby, rest)
        .ok_or_else(|| PyValueError::new_err("a key does not lie in the buffer"))?;
    Ok(PyBytes::new(py, &arms))
}

fn offsets(
    py: Python<'_>,
    starts: &PyBuffer<u32>,
    ends: &PyBuffer<u32>,
) -> PyResult<(Vec<u32>, Vec<u32>)> {
    let (starts, ends) = (starts.to_vec(py)?, ends.to_vec(py)?);
    if starts.len() != ends.len() {
        return Err(PyValueError::new_err("items of the buffer begin and do not end"));
    }
    Ok((starts, ends))
}

fn item(buffer: &[u8], start: u32, end: u32) -> PyResult<&[u8]> {
    buffer
        .get(start as usize..end as usize)
        .ok_or_else(|| PyValueError::new_err("an item does not lie in the buffer"))
}

/// Add the class and the function to the module.
pub fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyViewRows>()?;
    module.add_function(wrap_pyfunction!(assign_arms, module)?)
}
