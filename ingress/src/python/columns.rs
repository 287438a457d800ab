//! The columns of a batch as Python takes them: bytes, which numpy reads without a copy.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::calls::call_columns::CallColumns;

/// The columns of a batch, as `pop_calls` returns them.
pub(super) fn columns_tuple<'py>(
    py: Python<'py>,
    columns: &CallColumns,
) -> PyResult<Bound<'py, PyTuple>> {
    let bytes = |column: &[u8]| PyBytes::new(py, column);
    let texts = |(text, offsets): &(Vec<u8>, Vec<u32>)| (bytes(text), bytes(&le_u32(offsets)));
    let batch = (
        (columns.shape.model.as_str(), columns.shape.width()),
        bytes(&le_u64(&columns.handles)),
        bytes(&le_i64(&columns.arrived_ns)),
        bytes(&le_i64(&columns.deadline_ns)),
        bytes(&columns.criticality),
        bytes(&le_u32(&columns.row_offsets)),
        texts(&columns.sticky),
        texts(&columns.request_ids),
        columns.pins.clone(),
        texts(&columns.entity_ids),
        bytes(&columns.inputs),
    );
    batch.into_pyobject(py)
}

fn le_u64(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn le_i64(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn le_u32(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
