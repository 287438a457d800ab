//! Encodes replies: PredictReply, StreamReply and ModelInferResponse.

use crate::calls::proto::{put_bytes, put_varint, put_varint_field, varint_length};
use crate::calls::refusal::Refusal;

/// The answers of one version, in one role, to C calls with R rows: gateway.columns.Replies.
#[derive(Default)]
pub struct Replies {
    pub model: String,
    /// The version's label.
    pub version: String,
    /// turnout.v1.Role.
    pub role: u32,
    /// (C,) handles of the calls.
    pub handles: Vec<u64>,
    /// (C,) 1 for a call in the holdout, else 0. Empty: no call is.
    pub holdout: Vec<u8>,
    /// 64 bytes for each call.
    pub prediction_ids: Vec<u8>,
    /// (C + 1,) the first row of each call.
    pub row_offsets: Vec<u32>,
    /// (R, K) scores, row by row.
    pub scores: Vec<f32>,
    /// K, the number of scores of a row.
    pub outputs: usize,
    /// (R,) turnout.v1.RowFlag bits.
    pub row_flags: Vec<u32>,
}

/// Bytes of a prediction id.
const ID_BYTES: usize = 64;
/// The names of turnout.v1.Role, for the parameter `role`.
const ROLES: [&str; 5] = ["role_unspecified", "production", "canary", "pinned", "fallback"];

/// The answer to one call.
pub struct Answer<'a> {
    holdout: bool,
    prediction_id: &'a [u8],
    scores: &'a [f32],
    flags: &'a [u32],
}

impl Replies {
    /// Whether the lengths of all columns fit each other.
    pub fn consistent(&self) -> bool {
        let calls = self.handles.len();
        let rows = self.row_offsets.last().copied().unwrap_or(0) as usize;
        self.row_offsets.len() == calls + 1
            && self.row_offsets.windows(2).all(|pair| pair[0] <= pair[1])
            && self.prediction_ids.len() == calls * ID_BYTES
            && (self.holdout.is_empty() || self.holdout.len() == calls)
            && self.scores.len() == rows * self.outputs
            && self.row_flags.len() == rows
    }

    /// The answer to the call at `index`.
    pub fn answer(&self, index: usize) -> Answer<'_> {
        let (first, last) =
            (self.row_offsets[index] as usize, self.row_offsets[index + 1] as usize);
        Answer {
            holdout: self.holdout.get(index).is_some_and(|flag| *flag != 0),
            prediction_id: &self.prediction_ids[index * ID_BYTES..(index + 1) * ID_BYTES],
            scores: &self.scores[first * self.outputs..last * self.outputs],
            flags: &self.row_flags[first..last],
        }
    }

    /// Fields 2 to 4 of a PredictReply, encoded once for all calls.
    pub fn common_fields(&self) -> Vec<u8> {
        let mut common = Vec::with_capacity(self.model.len() + self.version.len() + 8);
        for (number, text) in [(2, &self.model), (3, &self.version)] {
            if !text.is_empty() {
                put_bytes(&mut common, number, text.as_bytes());
            }
        }
        put_varint_field(&mut common, 4, u64::from(self.role));
        common
    }

    /// Append a PredictReply. `common` are the `common_fields`.
    pub fn put_predict(
        &self,
        out: &mut Vec<u8>,
        answer: &Answer,
        request_id: &[u8],
        common: &[u8],
    ) {
        if !request_id.is_empty() {
            put_bytes(out, 1, request_id);
        }
        out.extend_from_slice(common);
        put_bytes(out, 5, answer.prediction_id);
        put_varint_field(out, 6, u64::from(answer.holdout));
        put_floats(out, 7, answer.scores);
        put_varint_field(out, 8, self.outputs as u64);
        if answer.flags.iter().any(|flag| *flag != 0) {
            let lengths = answer.flags.iter().map(|flag| varint_length(u64::from(*flag)));
            let length: usize = lengths.sum();
            put_varint(out, 9 << 3 | 2);
            put_varint(out, length as u64);
            for flag in answer.flags {
                put_varint(out, u64::from(*flag));
            }
        }
    }

    /// Append a StreamReply with a PredictReply. `scratch` is a buffer that is used again.
    pub fn put_stream(
        &self,
        out: &mut Vec<u8>,
        answer: &Answer,
        request_id: &[u8],
        common: &[u8],
        scratch: &mut Vec<u8>,
    ) {
        scratch.clear();
        self.put_predict(scratch, answer, request_id, common);
        if !request_id.is_empty() {
            put_bytes(out, 1, request_id);
        }
        put_bytes(out, 2, scratch);
    }

    /// Append a ModelInferResponse that repeats the request's `id`. With `raw`, the scores go into
    /// raw_output_contents.
    pub fn put_infer(&self, out: &mut Vec<u8>, answer: &Answer, id: &[u8], raw: bool) {
        for (number, text) in [(1, self.model.as_bytes()), (2, self.version.as_bytes()), (3, id)] {
            if !text.is_empty() {
                put_bytes(out, number, text);
            }
        }
        // Parameters: a map from name to InferParameter.
        let mut value = Vec::with_capacity(100);
        let mut entry = Vec::with_capacity(120);
        let mut parameter = |out: &mut Vec<u8>, name: &str, value: &[u8]| {
            entry.clear();
            put_bytes(&mut entry, 1, name.as_bytes());
            put_bytes(&mut entry, 2, value);
            put_bytes(out, 4, &entry);
        };
        put_bytes(&mut value, 3, ROLES[(self.role as usize).min(4)].as_bytes());
        parameter(out, "role", &value);
        value.clear();
        put_bytes(&mut value, 3, base64(answer.prediction_id).as_bytes());
        parameter(out, "prediction_id", &value);
        parameter(out, "holdout", &[1 << 3, u8::from(answer.holdout)]);
        // The output tensor: its name, datatype and shape.
        let mut tensor = Vec::with_capacity(64 + if raw { 0 } else { answer.scores.len() * 4 });
        put_bytes(&mut tensor, 1, b"scores");
        put_bytes(&mut tensor, 2, b"FP32");
        let outputs = self.outputs.max(1);
        let rows = (answer.scores.len() / outputs) as u64;
        let sizes = varint_length(rows) + varint_length(outputs as u64);
        put_varint(&mut tensor, 3 << 3 | 2);
        put_varint(&mut tensor, sizes as u64);
        put_varint(&mut tensor, rows);
        put_varint(&mut tensor, outputs as u64);
        // The scores, typed or raw.
        if !raw {
            let mut contents = Vec::with_capacity(answer.scores.len() * 4 + 8);
            put_floats(&mut contents, 6, answer.scores);
            put_bytes(&mut tensor, 5, &contents);
        }
        put_bytes(out, 5, &tensor);
        if raw {
            put_floats(out, 6, answer.scores);
        }
    }
}

/// Append a StreamReply with a status.
pub fn put_status(out: &mut Vec<u8>, request_id: &[u8], refusal: &Refusal) {
    if !request_id.is_empty() {
        put_bytes(out, 1, request_id);
    }
    let mut status = Vec::with_capacity(refusal.message.len() + 8);
    put_varint_field(&mut status, 1, u64::from(refusal.code));
    put_bytes(&mut status, 2, refusal.message.as_bytes());
    put_bytes(out, 3, &status);
}

/// Append a field of packed floats, unless it is empty.
fn put_floats(out: &mut Vec<u8>, number: u32, values: &[f32]) {
    if values.is_empty() {
        return;
    }
    put_varint(out, u64::from(number << 3 | 2));
    put_varint(out, values.len() as u64 * 4);
    for value in values {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// RFC 4648 base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let number = at(0) << 16 | at(1) << 8 | at(2);
        for index in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * index)) as usize & 63];
            text.push(if index <= three.len() { digit as char } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_pads_its_last_group() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
