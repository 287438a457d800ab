//! Functions of `turnout_ingress` that make ids, hashes and repeated fields for a whole batch, and the
//! id of one call.

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::accel::ids::{self, AnswerIds};
use crate::accel::score_code::ScoreRule;
use crate::calls::proto::put_bytes;

/// The prediction ids of the calls of one answer, 64 bytes each.
///
/// `scores` has the K scores of each row, and `row_offsets` the first row of each call. `rule` is
/// (whether the first output is a probability, the threshold of decisions).
#[pyfunction]
#[pyo3(signature = (key, body, first, key_hashes, held_out, scores, row_offsets, rule, masking_key, sealing_key))]
#[allow(clippy::too_many_arguments)]
fn prediction_ids<'py>(
    py: Python<'py>,
    key: &[u8],
    body: &[u8],
    first: u32,
    key_hashes: PyBuffer<u64>,
    held_out: Option<&[u8]>,
    scores: PyBuffer<f32>,
    row_offsets: PyBuffer<u32>,
    rule: (bool, f64),
    masking_key: &[u8],
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
    let (Ok(masking_key), Ok(sealing_key)) =
        (masking_key.try_into(), sealing_key.map(TryInto::try_into).transpose())
    else {
        return Err(PyValueError::new_err("a masking key and a sealing key have 32 bytes"));
    };
    let key_hashes = key_hashes.to_vec(py)?;
    let held_out = held_out.unwrap_or_default();
    if !(held_out.is_empty() || held_out.len() == key_hashes.len()) {
        return Err(PyValueError::new_err(
            "the holdout column needs one byte for each call, or no bytes at all",
        ));
    }
    let (first_scores, rows) = first_rows(py, &scores, &row_offsets, key_hashes.len())
        .ok_or_else(|| PyValueError::new_err("the rows of a call are not among the scores"))?;
    let answer = AnswerIds {
        key,
        body,
        first,
        key_hashes: &key_hashes,
        held_out,
        scores: &first_scores,
        rows: &rows,
        rule: ScoreRule {
            probability: rule.0,
            threshold: rule.1,
        },
        masking_key,
    };
    Ok(PyBytes::new(py, &ids::prediction_ids(answer, sealing_key)))
}

/// The prediction id of one call, 64 bytes. `score` is the first output of its first row.
#[pyfunction]
#[pyo3(signature = (key, body, sequence, key_hash, rows, rule, masking_key, sealing_key, score))]
#[allow(clippy::too_many_arguments)]
fn prediction_id<'py>(
    py: Python<'py>,
    key: [u8; 32],
    body: &[u8],
    sequence: u32,
    key_hash: u64,
    rows: u16,
    rule: (bool, f64),
    masking_key: [u8; 32],
    sealing_key: Option<[u8; 32]>,
    score: f32,
) -> PyResult<Bound<'py, PyBytes>> {
    let body = body.try_into().map_err(|_| {
        PyValueError::new_err(format!(
            "a body of {} bytes; {} are taken",
            body.len(),
            ids::BODY_BYTES
        ))
    })?;
    let answer = AnswerIds {
        key: &key,
        body,
        first: sequence,
        key_hashes: &[key_hash],
        held_out: &[],
        scores: &[score],
        rows: &[rows],
        rule: ScoreRule {
            probability: rule.0,
            threshold: rule.1,
        },
        masking_key: &masking_key,
    };
    Ok(PyBytes::new(py, &ids::prediction_ids(answer, sealing_key.as_ref())))
}

/// The first score and the number of rows of each call. None: a call has no row, or too many, or they
/// are not in `scores`, which are (R, K).
fn first_rows(
    py: Python<'_>,
    scores: &PyBuffer<f32>,
    row_offsets: &PyBuffer<u32>,
    calls: usize,
) -> Option<(Vec<f32>, Vec<u16>)> {
    let [_, outputs] = *scores.shape() else {
        return None;
    };
    let (scores, offsets) = (scores.to_vec(py).ok()?, row_offsets.to_vec(py).ok()?);
    if offsets.len() != calls + 1 {
        return None;
    }
    let call = |ends: &[u32]| {
        let rows = u16::try_from(ends[1].checked_sub(ends[0])?).ok().filter(|rows| *rows > 0)?;
        Some((*scores.get(ends[0] as usize * outputs)?, rows))
    };
    offsets.windows(2).map(call).collect()
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
    module.add_function(wrap_pyfunction!(prediction_id, module)?)?;
    module.add_function(wrap_pyfunction!(hashes, module)?)?;
    module.add_function(wrap_pyfunction!(repeated_field, module)?)
}
