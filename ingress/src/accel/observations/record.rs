//! Journal records of the answers that were served, and copies of rows for shadows to score.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use crate::accel::ids::ID_BYTES;
use crate::accel::observations::counts::KEY_RESIDUES;
use crate::accel::observations::{CallRef, FaultFreeBatches, Participant};
use crate::calls::proto::{put_bytes, put_varint};

/// All buckets, in basis points.
const ALL_BP: u64 = 10_000;

/// What a shadow is to score, each column as its bytes: gateway.telemetry.shadow_copies.ShadowCopies.
/// C calls with R rows of E entity ids.
#[derive(Default)]
pub struct Copies {
    /// (R, F) float32, with the columns that the shadow takes.
    pub matrix: Vec<u8>,
    /// (C + 1,) uint32, the first row of each call.
    pub row_offsets: Vec<u8>,
    /// (C,) uint64, hashes of evidence keys.
    pub key_hash: Vec<u8>,
    /// (R, K) float32, the scores of production.
    pub expected: Vec<u8>,
    /// (R,) uint32, turnout.v1.RowFlag bits.
    pub flags: Vec<u8>,
    /// (C,) int64, the Unix time at which the features were read.
    pub read_unix_ns: Vec<u8>,
    /// 64 bytes a call, the prediction id of its answer.
    pub prediction_ids: Vec<u8>,
    /// The entity ids of all rows, one behind the other.
    pub entity_ids: Vec<u8>,
    /// (R x E + 1,) uint32, where each entity id begins.
    pub entity_offsets: Vec<u8>,
}

impl FaultFreeBatches<'_> {
    /// The answers of one participant as a turnout.v1.ServedBatch. None: no call is in the sample.
    ///
    /// `head` has the encoded fields that are not columns. A call is in the sample if the hash of its
    /// key, modulo 65,536, is below `sample_below`. `columns` are the columns of the matrix that the
    /// version takes, or None for all of them.
    pub fn record(
        &self,
        participant: Participant,
        head: &[u8],
        role: u8,
        sample_below: u64,
        columns: Option<&[usize]>,
    ) -> Option<Vec<u8>> {
        // Choose the calls.
        let mut calls = self.calls_of(participant);
        calls.retain(|call| self.key_hash(call) % KEY_RESIDUES < sample_below);
        if calls.is_empty() {
            return None;
        }
        // Allocate the record once.
        let count = calls.len();
        let rows: usize = calls.iter().map(|call| call.rows as usize).sum();
        let (outputs, width) = (self.outputs, self.width);
        let row_bytes = 4 * columns.map_or(width, <[usize]>::len);
        let batch = |call: &CallRef| &self.batches[call.batch as usize];
        let column_bytes = 85 * count + (8 + row_bytes + 8 * outputs + 24 * self.entities) * rows;
        let mut record = RecordWriter {
            out: Vec::with_capacity(head.len() + 64 + column_bytes),
            calls: &calls,
        };
        record.out.extend_from_slice(head);
        // Columns of calls: read_unix_ns, role, rows, prediction ids, key hashes.
        record.put(5, 8 * count, |call, out| {
            let unix_ns = batch(call).read_unix_ns.at(call.call as usize);
            out.extend_from_slice(&unix_ns.to_le_bytes());
        });
        record.put(6, count, |_, out| out.push(role));
        record.put(7, 4 * count, |call, out| out.extend_from_slice(&call.rows.to_le_bytes()));
        record.put(8, ID_BYTES * count, |call, out| {
            let start = call.index as usize * ID_BYTES;
            out.extend_from_slice(&self.result(call, participant).ids[start..start + ID_BYTES]);
        });
        record.put(9, 8 * count, |call, out| {
            out.extend_from_slice(&self.key_hash(call).to_le_bytes());
        });
        // Columns of rows: flags, matrix, scores, entity ids.
        record.put(10, 4 * rows, |call, out| {
            out.extend_from_slice(batch(call).flags.bytes(span(call, 1)));
        });
        record.put(12, row_bytes * rows, |call, out| {
            put_columns(out, batch(call).matrix.bytes(span(call, width)), width, columns);
        });
        record.put(14, 4 * outputs * rows, |call, out| {
            let first = call.scored_row as usize * outputs;
            let scored = first..first + call.rows as usize * outputs;
            out.extend_from_slice(self.result(call, participant).scores.bytes(scored));
        });
        // Production scored the rows of the canary, too.
        if participant == Participant::Canary {
            record.put(17, 4 * outputs * rows, |call, out| {
                out.extend_from_slice(batch(call).production.scores.bytes(span(call, outputs)));
            });
        }
        for call in &calls {
            for entity in span(call, self.entities) {
                put_bytes(&mut record.out, 15, batch(call).entities.at(entity));
            }
        }
        Some(record.out)
    }

    /// The rows that one shadow is to score. None: no call is in its sample.
    ///
    /// A call is in the sample if xxh3 of `prefix` and its sticky key, modulo 10,000, is below
    /// `sample_bp`. `columns` are the columns of the matrix that the shadow takes, or None for all.
    pub fn copies(
        &self,
        prefix: &[u8],
        sample_bp: u64,
        columns: Option<&[usize]>,
    ) -> Option<Copies> {
        let width = self.width;
        let mut copies = Copies::default();
        let (mut key, mut copied_rows) = (prefix.to_vec(), 0);
        copies.row_offsets.extend_from_slice(&u32::to_le_bytes(copied_rows));
        copies.entity_offsets.extend_from_slice(&u32::to_le_bytes(0));
        for batch in &self.batches {
            let mut ids = batch.ids_by_call();
            for call in 0..batch.key_hash.len() {
                let prediction_id = ids.next().unwrap_or(&[0; ID_BYTES]);
                // Skip calls outside the sample.
                key.truncate(prefix.len());
                key.extend_from_slice(batch.keys.at(call));
                if sample_bp < ALL_BP && xxh3_64(&key) % ALL_BP >= sample_bp {
                    continue;
                }
                // Copy the call's rows, and production's scores of each.
                let first = batch.row_offsets.at(call) as usize;
                let rows = first..batch.row_offsets.at(call + 1) as usize;
                let matrix = batch.matrix.bytes(rows.start * width..rows.end * width);
                put_columns(&mut copies.matrix, matrix, width, columns);
                let scored = rows.start * self.outputs..rows.end * self.outputs;
                copies.expected.extend_from_slice(batch.production.scores.bytes(scored));
                for entity in rows.start * self.entities..rows.end * self.entities {
                    copies.entity_ids.extend_from_slice(batch.entities.at(entity));
                    let end = copies.entity_ids.len() as u32;
                    copies.entity_offsets.extend_from_slice(&end.to_le_bytes());
                }
                copied_rows += rows.len() as u32;
                copies.flags.extend_from_slice(batch.flags.bytes(rows));
                copies.row_offsets.extend_from_slice(&copied_rows.to_le_bytes());
                // Copy what names the call.
                copies.key_hash.extend_from_slice(batch.key_hash.bytes(call..call + 1));
                copies.read_unix_ns.extend_from_slice(&batch.read_unix_ns.at(call).to_le_bytes());
                copies.prediction_ids.extend_from_slice(prediction_id);
            }
        }
        (copied_rows > 0).then_some(copies)
    }
}

/// Writes a ServedBatch, one column after the other.
struct RecordWriter<'a> {
    out: Vec<u8>,
    calls: &'a [CallRef],
}

impl RecordWriter<'_> {
    /// Append a field of `bytes` bytes, to which `put` appends the part of each call.
    fn put(&mut self, number: u32, bytes: usize, put: impl Fn(&CallRef, &mut Vec<u8>)) {
        if bytes == 0 {
            return;
        }
        put_varint(&mut self.out, u64::from(number << 3 | 2));
        put_varint(&mut self.out, bytes as u64);
        for call in self.calls {
            put(call, &mut self.out);
        }
    }
}

/// The range of a call's items in a column with `per_row` items for each row.
fn span(call: &CallRef, per_row: usize) -> Range<usize> {
    call.row as usize * per_row..(call.row + call.rows) as usize * per_row
}

/// Append the given columns of rows with `width` numbers of four bytes each.
fn put_columns(out: &mut Vec<u8>, rows: &[u8], width: usize, columns: Option<&[usize]>) {
    let Some(columns) = columns else {
        out.extend_from_slice(rows);
        return;
    };
    for row in rows.chunks_exact((4 * width).max(1)) {
        for column in columns {
            out.extend_from_slice(&row[4 * column..4 * column + 4]);
        }
    }
}
