//! Counts the observations of one participant, as gateway/telemetry/observations.py does.

use crate::accel::observations::scale::{ScoreScale, SCORE_BINS};
use crate::accel::observations::{
    Batch, CallRef, FaultFreeBatches, Participant, ParticipantResult,
};
use crate::calls::proto::{put_bytes, put_varint};

/// Samples of keys are taken by the residue of a key's hash modulo this (gateway/key_column.py).
pub const KEY_RESIDUES: u64 = 65_536;
const NOT_COMPARED: u64 = SCORE_BINS as u64 - 1;
/// turnout.v1.RowFlag: MISSING, STALE, DEFAULTED, DEGRADED.
const ROW_FLAGS: [u32; 4] = [1, 2, 4, 8];
/// A row with MISSING or DEGRADED is not compared between arms.
const NOT_COMPARABLE: u32 = 1 | 8;
/// Field numbers of turnout.v1.Records.
const KEY_HASH: u32 = 2;
const BIN: u32 = 3;
const EXPECTED_BIN: u32 = 4;
const BATCH_CALLS: u32 = 5;

/// The observations of one participant.
pub struct ObservationCounts {
    /// Calls, all of which were answered.
    pub calls: u64,
    /// Calls in the holdout.
    pub held_out: u64,
    /// Rows of all calls.
    pub rows: u64,
    /// Rows that have each of ROW_FLAGS.
    pub flags: [u64; 4],
    /// Calls by latency bin.
    pub latency: Vec<i64>,
    /// Rows by score bin.
    pub scores: [i64; SCORE_BINS],
    /// Evidence by key, as encoded turnout.v1.Records: scores, latencies, timeouts.
    pub records: [Vec<u8>; 3],
}

/// Latency bins between growing edges in ns. Bin i holds values with edges[i - 1] < value <= edges[i].
///
/// A table by a value's leading six bits gives a bin near the right one, so that a value costs a few
/// comparisons and no binary search.
pub struct LatencyBins {
    edges: Vec<i64>,
    /// For each combination of leading bits, the bin of the smallest value that has them.
    first_bins: Vec<u16>,
}

/// Bits behind a value's highest bit by which the table is indexed.
const MANTISSA_BITS: u32 = 5;

impl LatencyBins {
    /// Bins between `edges`, of which there are less than 65,535.
    pub fn new(edges: Vec<i64>) -> LatencyBins {
        let mut first_bins = Vec::with_capacity(63 << MANTISSA_BITS);
        for bits in 0..63 {
            for mantissa in 0..1_u64 << MANTISSA_BITS {
                let value = ((1 << MANTISSA_BITS | mantissa) << bits) >> MANTISSA_BITS;
                let value = i64::try_from(value).unwrap_or(i64::MAX);
                first_bins.push(edges.partition_point(|edge| *edge < value) as u16);
            }
        }
        LatencyBins {
            edges,
            first_bins,
        }
    }

    /// The number of bins.
    pub fn len(&self) -> usize {
        self.edges.len() + 1
    }

    /// False: there is at least one bin.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The bin of a latency.
    pub fn bin(&self, ns: i64) -> usize {
        if ns < 1 << MANTISSA_BITS {
            return self.edges.partition_point(|edge| *edge < ns);
        }
        let bits = 63 - ns.leading_zeros();
        let mantissa = (ns >> (bits - MANTISSA_BITS)) as usize & ((1 << MANTISSA_BITS) - 1);
        let mut bin = usize::from(self.first_bins[(bits as usize) << MANTISSA_BITS | mantissa]);
        while bin < self.edges.len() && self.edges[bin] < ns {
            bin += 1;
        }
        bin
    }
}

impl FaultFreeBatches<'_> {
    /// Count the calls of one participant. None: it has none.
    ///
    /// `scale` has as many outputs as the batches. A call is evidence if the hash of its key, modulo
    /// 65,536, is below `evidence_below`. None: no call is.
    pub fn count(
        &self,
        participant: Participant,
        latencies: &LatencyBins,
        scale: &ScoreScale,
        evidence_below: Option<u64>,
    ) -> Option<ObservationCounts> {
        let calls = self.calls_of(participant);
        if calls.is_empty() {
            return None;
        }
        let mut counts = ObservationCounts {
            calls: calls.len() as u64,
            held_out: 0,
            rows: 0,
            flags: [0; 4],
            latency: vec![0; latencies.len()],
            scores: [0; SCORE_BINS],
            records: [Vec::new(), Vec::new(), Vec::new()],
        };
        let evidence_calls = if evidence_below.is_some() { calls.len() } else { 0 };
        let (mut scores, mut latency_evidence) =
            (Evidence::new(evidence_calls), Evidence::new(evidence_calls));
        let mut overdue = Evidence::new(0);
        for call in &calls {
            // Count the call and its rows.
            let batch = &self.batches[call.batch as usize];
            let (result, call_index) = (self.result(call, participant), call.call as usize);
            let arrived_ns = batch.arrived_ns.at(call_index);
            counts.latency[latencies.bin(result.answered_ns - arrived_ns)] += 1;
            counts.rows += u64::from(call.rows);
            let first_bin = self.count_rows(call, batch, &result, scale, &mut counts);
            let held_out = batch.held_out.is_some_and(|out| out[call_index] != 0);
            counts.held_out += u64::from(held_out);
            // Record the evidence, unless the call is in the holdout. Timeouts are never sampled.
            let (Some(sample_below), false) = (evidence_below, held_out) else {
                continue;
            };
            let (key, batch_calls) = (batch.key_hash.at(call_index), batch.key_hash.len() as u64);
            if result.overdue {
                overdue.add(key, 0);
                put_varint(&mut overdue.batch_calls, batch_calls);
            }
            if key % KEY_RESIDUES >= sample_below {
                continue;
            }
            let comparable = batch.flags.at(call.row as usize) & NOT_COMPARABLE == 0;
            // Record the first row's score and the latency.
            scores.add(key, if comparable { first_bin as u64 } else { NOT_COMPARED });
            if participant == Participant::Canary {
                let expected = scale.bin(&batch.production.scores, call.row as usize);
                put_varint(&mut scores.expected, expected as u64);
            }
            latency_evidence.add(key, latencies.bin(result.done_ns - arrived_ns) as u64);
            put_varint(&mut latency_evidence.batch_calls, batch_calls);
        }
        counts.records = [scores.fields(), latency_evidence.fields(), overdue.fields()];
        Some(counts)
    }

    /// Count the rows of one call. Returns the score bin of its first row.
    fn count_rows(
        &self,
        call: &CallRef,
        batch: &Batch,
        result: &ParticipantResult,
        scale: &ScoreScale,
        counts: &mut ObservationCounts,
    ) -> usize {
        let mut first_bin = 0;
        for row in 0..call.rows as usize {
            let flags = batch.flags.at(call.row as usize + row);
            if flags != 0 {
                for (count, flag) in counts.flags.iter_mut().zip(ROW_FLAGS) {
                    *count += u64::from(flags & flag != 0);
                }
            }
            let bin = scale.bin(&result.scores, call.scored_row as usize + row);
            counts.scores[bin] += 1;
            if row == 0 {
                first_bin = bin;
            }
        }
        first_bin
    }
}

/// The evidence of one metric, column by column.
struct Evidence {
    keys: Vec<u8>,
    bins: Vec<u8>,
    expected: Vec<u8>,
    batch_calls: Vec<u8>,
}

impl Evidence {
    fn new(calls: usize) -> Evidence {
        Evidence {
            keys: Vec::with_capacity(8 * calls),
            bins: Vec::with_capacity(2 * calls),
            expected: Vec::new(),
            batch_calls: Vec::with_capacity(calls),
        }
    }

    fn add(&mut self, key_hash: u64, bin: u64) {
        self.keys.extend_from_slice(&key_hash.to_le_bytes());
        put_varint(&mut self.bins, bin);
    }

    /// The encoded turnout.v1.Records, without empty fields.
    fn fields(&self) -> Vec<u8> {
        let columns = [
            (KEY_HASH, &self.keys),
            (BIN, &self.bins),
            (EXPECTED_BIN, &self.expected),
            (BATCH_CALLS, &self.batch_calls),
        ];
        let mut out = Vec::with_capacity(columns.iter().map(|(_, column)| column.len() + 8).sum());
        for (number, column) in columns {
            if !column.is_empty() {
                put_bytes(&mut out, number, column);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_bins_agree_with_a_search_of_the_edges() {
        let edges: Vec<i64> =
            (0..690).map(|step| (100_000.0 * 1.0202_f64.powi(step)).round() as i64).collect();
        let bins = LatencyBins::new(edges.clone());
        let near = edges.iter().flat_map(|edge| [edge - 1, *edge, edge + 1]);
        let far = [i64::MIN, -1, 0, 1, 31, 32, 33, i64::MAX, i64::MAX - 1];
        for ns in near.chain(far).chain((0..62).map(|bits| 1 << bits)) {
            assert_eq!(bins.bin(ns), edges.partition_point(|edge| *edge < ns), "{ns}");
        }
    }
}
