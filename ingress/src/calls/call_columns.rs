//! Calls of one model as columns, as batches and turns take them.

use std::sync::Arc;

use crate::calls::call_queue::WaitingCall;
use crate::calls::shape::ModelShape;

/// The columns of one batch: gateway.columns.Calls. C calls with R rows of one model.
pub struct CallColumns {
    /// The calls' model.
    pub shape: Arc<ModelShape>,
    /// (C,) by which the calls are answered.
    pub handles: Vec<u64>,
    /// (C,) monotonic.
    pub arrived_ns: Vec<i64>,
    /// (C,) monotonic.
    pub deadline_ns: Vec<i64>,
    /// (C,) turnout.v1.Criticality.
    pub criticality: Vec<u8>,
    /// (C + 1,) the first row of each call.
    pub row_offsets: Vec<u32>,
    /// UTF-8, and (C + 1,) offsets into it.
    pub sticky: (Vec<u8>, Vec<u32>),
    /// UTF-8, and (C + 1,) offsets into it.
    pub request_ids: (Vec<u8>, Vec<u32>),
    /// gateway.columns.Pin: index of the call, version, and whether its caller may pin every version.
    pub pins: Vec<(usize, String, bool)>,
    /// UTF-8, and (R x E + 1,) offsets into it.
    pub entity_ids: (Vec<u8>, Vec<u32>),
    /// (R, W) little-endian float32.
    pub inputs: Vec<u8>,
}

/// Lay calls of one shape with `rows` rows out as columns. Every column is allocated once.
pub fn columns(shape: Arc<ModelShape>, taken: &[(u64, WaitingCall)], rows: usize) -> CallColumns {
    let calls = taken.len();
    let offsets = |count: usize| {
        let mut offsets = Vec::with_capacity(count + 1);
        offsets.push(0);
        offsets
    };
    // Allocate the columns. A block has inputs and ids, so ids have at most the rest of it.
    let bytes: usize = taken.iter().map(|(_, waiting)| waiting.call.block.len()).sum();
    let input_bytes = rows * shape.width() * 4;
    let mut columns = CallColumns {
        handles: Vec::with_capacity(calls),
        arrived_ns: Vec::with_capacity(calls),
        deadline_ns: Vec::with_capacity(calls),
        criticality: Vec::with_capacity(calls),
        row_offsets: offsets(calls),
        sticky: (Vec::new(), offsets(calls)),
        request_ids: (Vec::new(), offsets(calls)),
        pins: Vec::new(),
        entity_ids: (Vec::with_capacity(bytes - input_bytes), offsets(rows * shape.entities)),
        inputs: Vec::with_capacity(input_bytes),
        shape,
    };
    // Append the calls, one after the other.
    let (mut row, mut id_end) = (0, 0_u32);
    for (index, (handle, waiting)) in taken.iter().enumerate() {
        let [inputs, id_lengths, ids, sticky, request_id, pin] = waiting.call.parts();
        columns.handles.push(*handle);
        columns.arrived_ns.push(waiting.arrived_ns);
        columns.deadline_ns.push(waiting.deadline_ns);
        columns.criticality.push(waiting.call.criticality);
        row += waiting.call.rows;
        columns.row_offsets.push(row);
        let texts = [(&mut columns.sticky, sticky), (&mut columns.request_ids, request_id)];
        for ((bytes, offsets), text) in texts {
            bytes.extend_from_slice(text);
            offsets.push(bytes.len() as u32);
        }
        if !pin.is_empty() {
            let version = String::from_utf8_lossy(pin).into_owned();
            columns.pins.push((index, version, waiting.call.any_version));
        }
        for length in id_lengths {
            id_end += u32::from(*length);
            columns.entity_ids.1.push(id_end);
        }
        columns.entity_ids.0.extend_from_slice(ids);
        columns.inputs.extend_from_slice(inputs);
    }
    columns
}
