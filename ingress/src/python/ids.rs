//! Functions of `turnout_ingress` that make ids, hashes and repeated fields for a whole batch.

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::accel::ids;
use crate::calls::proto::put_bytes;

/// The prediction ids of the calls of one answer, 64 bytes each.
#[pyfunction]
#[pyo3(signature = (key, body, first, key_hashes, held_out, sealing_key))]
fn prediction_ids<'py>(
    py: Python<'py>,
    key: &[u8],
    body: &[u8],
    first: u32,
    key_hashes: PyBuffer<u64>,
    held_out: Option<&[u8]>,
    sealing_key: Option<&[u8]>,
) -> PyResult<Bound<'py, PyBytes>> {
    let (Ok(key), Ok(body)) = (key.try_into(), body.try_into()) else {
        return Err(PyValueError::new_err(format!(
            "a key of {} and a body of {} bytes; 32 and {} are taken",
            key.len(),
            body.len(),
            ids::BODY_BYTES
        )));
    };
    let Ok(sealing_key) = sealing_key.map(TryInto::try_into).transpose() else {
        return Err(PyValueError::new_err("a sealing key has 32 bytes"));
    };
    let key_hashes = key_hashes.to_vec(py)?;
    let held_out = held_out.unwrap_or_default();
    if !(held_out.is_empty() || held_out.len() == key_hashes.len()) {
        return Err(PyValueError::new_err(
            "the holdout column needs one byte for each call, or no bytes at all",
        ));
    }
    let ids = ids::prediction_ids(key, body, first, &key_hashes, held_out, sealing_key);
    Ok(PyBytes::new(py, &ids))
}

/// xxh3_64 of `before` and each item of `buffer`: uint64, as bytes. Item i is
/// buffer[starts[i]:ends[i]].
#[pyfunction]
fn hashes<'py>(
    py: Python<'py>,
    before: &[u8],
    buffer: &[u8],
    starts: PyBuffer<u32>,
    ends: PyBuffer<u32>,
) -> PyResult<Bound<'py, PyBytes>> {
    let (starts, ends) = (starts.to_vec(py)?, ends.to_vec(py)?);
    let hashes = ids::hashes(before, buffer, &starts, &ends)
        .ok_or_else(|| PyValueError::new_err("an item does not lie in the buffer"))?;
    let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.to_ne_bytes()).collect();
    Ok(PyBytes::new(py, &bytes))
}

/// The items of `buffer` as the repeated field `number` of a message, encoded.
#[pyfunction]
fn repeated_field<'py>(
    py: Python<'py>,
    number: u32,
    buffer: &[u8],
    starts: PyBuffer<u32>,
    ends: PyBuffer<u32>,
) -> PyResult<Bound<'py, PyBytes>> {
    let (starts, ends) = (starts.to_vec(py)?, ends.to_vec(py)?);
    if starts.len() != ends.len() {
        return Err(PyValueError::new_err("items of the buffer begin and do not end"));
    }
    let mut field = Vec::with_capacity(buffer.len() + 3 * starts.len());
    for (start, end) in starts.iter().zip(&ends) {
        let item = buffer
            .get(*start as usize..*end as usize)
            .ok_or_else(|| PyValueError::new_err("an item does not lie in the buffer"))?;
        put_bytes(&mut field, number, item);
    }
    Ok(PyBytes::new(py, &field))
}

/// Add the functions to the module.
pub fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(prediction_ids, module)?)?;
    module.add_function(wrap_pyfunction!(hashes, module)?)?;
    module.add_function(wrap_pyfunction!(repeated_field, module)?)
}
