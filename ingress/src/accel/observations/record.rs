//! What was served, as the journal keeps it, and what shadows are to score.

use std::ops::Range;

use crate::accel::ids;
use crate::accel::observations::counts::KEY_RESIDUES;
use crate::accel::observations::{CallRef, FaultFreeBatches, Participant};
use crate::calls::proto::{put_bytes, put_varint};
use xxhash_rust::xxh3::xxh3_64;

const ALL_BP: u64 = 10_000;

/// What a shadow is to score: gateway.shadows.Copies, each column as its bytes.
#[derive(Default)]
pub struct Copies {
    /// (R, F) float32 as the shadow wants it.
    pub matrix: Vec<u8>,
    /// (C + 1,) uint32.
    pub row_offsets: Vec<u8>,
    /// (C,) uint64.
    pub key_hash: Vec<u8>,
    /// (R,) float32: production's first output.
    pub expected: Vec<u8>,
    /// (R,) uint32.
    pub flags: Vec<u8>,
}

impl FaultFreeBatches<'_> {
    /// One version's answers as a ServedBatch, of keys whose hash ends below `keep`; None: none.
    ///
    /// head: its fields that are no columns. columns: of the matrix those that the version sees;
    /// None: as it stands.
    pub fn record(
        &self,
        participant: Participant,
        head: &[u8],
        role: u8,
        sample_below: u64,
        columns: Option<&[usize]>,
    ) -> Option<Vec<u8>> {
        let mut calls_of = self.calls_of(participant);
        calls_of.retain(|pick| self.key_hash(pick) % KEY_RESIDUES < sample_below);
        if calls_of.is_empty() {
            return None;
        }
        let calls = calls_of.len();
        let rows: usize = calls_of.iter().map(|pick| pick.rows as usize).sum();
        let (outputs, width) = (self.outputs, self.width);
        let wide = 4 * columns.map_or(width, <[usize]>::len);
        let of = |pick: &CallRef| &self.batches[pick.batch as usize];
        let room = 85 * calls + (8 + wide + 4 * outputs + 24 * self.entities) * rows;
        let mut record = Record {
            out: Vec::with_capacity(head.len() + 64 + room),
            calls_of: &calls_of,
        };
        record.out.extend_from_slice(head);
        record.put(5, 8 * calls, |pick, out| {
            out.extend_from_slice(&of(pick).read_unix_ns.to_le_bytes());
        });
        record.put(6, calls, |_, out| out.push(role));
        record.put(7, 4 * calls, |pick, out| out.extend_from_slice(&pick.rows.to_le_bytes()));
        record.put(8, ids::ID_BYTES * calls, |pick, out| {
            let at = pick.own as usize * ids::ID_BYTES;
            out.extend_from_slice(&self.done(pick, participant).ids[at..at + ids::ID_BYTES]);
        });
        record.put(9, 8 * calls, |pick, out| {
            out.extend_from_slice(&self.key_hash(pick).to_le_bytes());
        });
        record.put(10, 4 * rows, |pick, out| {
            out.extend_from_slice(of(pick).flags.bytes(span(pick, 1)));
        });
        record.put(12, wide * rows, |pick, out| {
            put_seen(out, of(pick).matrix.bytes(span(pick, width)), width, columns);
        });
        record.put(14, 4 * outputs * rows, |pick, out| {
            let first = pick.scored as usize * outputs;
            let places = first..first + pick.rows as usize * outputs;
            out.extend_from_slice(self.done(pick, participant).scores.bytes(places));
        });
        for pick in &calls_of {
            for place in span(pick, self.entities) {
                put_bytes(&mut record.out, 15, of(pick).entities.at(place));
            }
        }
        Some(record.out)
    }

    /// What one shadow is to score of production's rows; None: nothing.
    ///
    /// before: what its sample hashes before each key; sample_bp: of 10,000 buckets.
    pub fn copies(
        &self,
        before: &[u8],
        sample_bp: u64,
        columns: Option<&[usize]>,
    ) -> Option<Copies> {
        let width = self.width;
        let mut copies = Copies::default();
        let (mut key, mut copied) = (before.to_vec(), 0);
        copies.row_offsets.extend_from_slice(&u32::to_le_bytes(copied));
        for batch in &self.batches {
            for call in 0..batch.key_hash.len() {
                key.truncate(before.len());
                key.extend_from_slice(batch.keys.at(call));
                if sample_bp < ALL_BP && xxh3_64(&key) % ALL_BP >= sample_bp {
                    continue;
                }
                let first = batch.row_offsets.at(call) as usize;
                let rows = first..batch.row_offsets.at(call + 1) as usize;
                let seen = batch.matrix.bytes(rows.start * width..rows.end * width);
                put_seen(&mut copies.matrix, seen, width, columns);
                for row in rows.clone() {
                    let place = row * self.outputs;
                    let score = batch.production.scores.bytes(place..place + 1);
                    copies.expected.extend_from_slice(score);
                }
                copied += rows.len() as u32;
                copies.flags.extend_from_slice(batch.lookup_flags.bytes(rows));
                copies.row_offsets.extend_from_slice(&copied.to_le_bytes());
                copies.key_hash.extend_from_slice(batch.key_hash.bytes(call..call + 1));
            }
        }
        (copied > 0).then_some(copies)
    }
}

/// A ServedBatch while it is laid out, column by column.
struct Record<'a> {
    out: Vec<u8>,
    calls_of: &'a [CallRef],
}

impl Record<'_> {
    /// Append a field of `bytes` bytes, each call's by `put`.
    fn put(&mut self, number: u32, bytes: usize, put: impl Fn(&CallRef, &mut Vec<u8>)) {
        if bytes == 0 {
            return;
        }
        put_varint(&mut self.out, u64::from(number << 3 | 2));
        put_varint(&mut self.out, bytes as u64);
        for pick in self.calls_of {
            put(pick, &mut self.out);
        }
    }
}

fn span(pick: &CallRef, each: usize) -> Range<usize> {
    pick.row as usize * each..(pick.row + pick.rows) as usize * each
}

/// Append rows, `width` numbers of four bytes each, as a version sees them.
fn put_seen(out: &mut Vec<u8>, rows: &[u8], width: usize, columns: Option<&[usize]>) {
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
