//! What one version did, counted: gateway/tally.py's `tally` of batches without a fault.

use crate::accel::observations::{
    Batch, CallRef, FaultFreeBatches, Participant, ParticipantResult,
};
use crate::calls::proto::{put_bytes, put_varint};

/// Of so many residues of a key's hash: thinning that leaves nothing out (gateway/keys.py).
pub const KEY_RESIDUES: u64 = 65_536;
/// Bins of scores: gateway/tally.py's JOINT_STRIDE; the last one says that a score is not compared.
pub const SCORE_BINS: usize = 64;
const NOT_COMPARED: u64 = SCORE_BINS as u64 - 1;
/// turnout.v1.RowFlag: MISSING, STALE, DEFAULTED, DEGRADED.
const ROW_FLAGS: [u32; 4] = [1, 2, 4, 8];
const NOT_COMPARABLE: u32 = 1 | 8;
/// Fields of turnout.v1.Records.
const KEY_HASH: u32 = 2;
const BIN: u32 = 3;
const EXPECTED_BIN: u32 = 4;
const BATCH_CALLS: u32 = 5;

/// What was counted: gateway.tally.Tally.
pub struct ObservationCounts {
    /// All answered.
    pub calls: u64,
    /// Of them in the control group.
    pub held_out: u64,
    /// Theirs.
    pub rows: u64,
    /// Rows that bear each of ROW_FLAGS.
    pub flags: [u64; 4],
    /// By bin.
    pub latency: Vec<i64>,
    /// By bin.
    pub scores: [i64; SCORE_BINS],
    /// Evidence by key, as fields of a turnout.v1.Records: scores, latencies, timeouts.
    pub records: [Vec<u8>; 3],
}

/// Bins by edges in ns that grow: bin i holds edges[i - 1] < v <= edges[i].
pub struct LatencyBins {
    edges: Vec<i64>,
    /// By a number's leading six bits: the bin of the least such number.
    least: Vec<u16>,
}

const LEADING: u32 = 5;

impl LatencyBins {
    /// Lay the table out.
    pub fn new(edges: Vec<i64>) -> LatencyBins {
        let mut least = Vec::with_capacity(63 << LEADING);
        for bits in 0..63 {
            for mantissa in 0..1_u64 << LEADING {
                let value = ((1 << LEADING | mantissa) << bits) >> LEADING;
                let value = i64::try_from(value).unwrap_or(i64::MAX);
                least.push(edges.partition_point(|edge| *edge < value) as u16);
            }
        }
        LatencyBins {
            edges,
            least,
        }
    }

    /// How many bins there are.
    pub fn len(&self) -> usize {
        self.edges.len() + 1
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The bin of one.
    pub fn of(&self, ns: i64) -> usize {
        if ns < 1 << LEADING {
            return self.edges.partition_point(|edge| *edge < ns);
        }
        let bits = 63 - ns.leading_zeros();
        let mantissa = (ns >> (bits - LEADING)) as usize & ((1 << LEADING) - 1);
        let mut bin = usize::from(self.least[(bits as usize) << LEADING | mantissa]);
        while bin < self.edges.len() && self.edges[bin] < ns {
            bin += 1;
        }
        bin
    }
}

/// The reference bin of a score: gateway.tally.score_bins.
fn score_bin(score: f32, edges: &[f32]) -> usize {
    if score.is_finite() {
        return edges.partition_point(|edge| *edge < score);
    }
    let after = edges.len() + 1;
    if score.is_nan() {
        after
    } else if score > 0.0 {
        after + 1
    } else {
        after + 2
    }
}

impl FaultFreeBatches<'_> {
    /// Count the calls of one version; None: it has none.
    ///
    /// edges: between the reference bins of scores, less than SCORE_BINS - 3.
    /// evidence_keep: of a key's 65,536 residues, those whose calls are evidence; None: nobody's.
    pub fn count(
        &self,
        participant: Participant,
        latencies: &LatencyBins,
        edges: &[f32],
        evidence_below: Option<u64>,
    ) -> Option<ObservationCounts> {
        let calls_of = self.calls_of(participant);
        if calls_of.is_empty() {
            return None;
        }
        let mut counts = ObservationCounts {
            calls: calls_of.len() as u64,
            held_out: 0,
            rows: 0,
            flags: [0; 4],
            latency: vec![0; latencies.len()],
            scores: [0; SCORE_BINS],
            records: [Vec::new(), Vec::new(), Vec::new()],
        };
        let room = if evidence_below.is_some() { calls_of.len() } else { 0 };
        let (mut scores, mut took) = (Evidence::new(room), Evidence::new(room));
        let mut overdue = Evidence::new(0);
        for pick in &calls_of {
            let batch = &self.batches[pick.batch as usize];
            let (done, call) = (self.done(pick, participant), pick.call as usize);
            let arrived_ns = batch.arrived_ns.at(call);
            counts.latency[latencies.of(done.answered_ns - arrived_ns)] += 1;
            counts.rows += u64::from(pick.rows);
            let first = self.count_rows(pick, batch, &done, edges, &mut counts);
            let held_out = batch.held_out.is_some_and(|out| out[call] != 0);
            counts.held_out += u64::from(held_out);
            let (Some(sample_below), false) = (evidence_below, held_out) else {
                continue;
            };
            let (key, batch_calls) = (batch.key_hash.at(call), batch.key_hash.len() as u64);
            if done.overdue {
                overdue.add(key, 0);
                put_varint(&mut overdue.batch_calls, batch_calls);
            }
            if key % KEY_RESIDUES >= sample_below {
                continue;
            }
            let whole = batch.flags.at(pick.row as usize) & NOT_COMPARABLE == 0;
            scores.add(key, if whole { first as u64 } else { NOT_COMPARED });
            if participant == Participant::Canary {
                let expected = batch.production.scores.at(pick.row as usize * self.outputs);
                put_varint(&mut scores.expected, score_bin(expected, edges) as u64);
            }
            took.add(key, latencies.of(done.done_ns - arrived_ns) as u64);
            put_varint(&mut took.batch_calls, batch_calls);
        }
        counts.records = [scores.fields(), took.fields(), overdue.fields()];
        Some(counts)
    }

    /// Count one call's rows; returns the bin of its first one's score.
    fn count_rows(
        &self,
        pick: &CallRef,
        batch: &Batch,
        done: &ParticipantResult,
        edges: &[f32],
        counts: &mut ObservationCounts,
    ) -> usize {
        let mut first = 0;
        for place in 0..pick.rows as usize {
            let flags = batch.flags.at(pick.row as usize + place);
            if flags != 0 {
                for (count, flag) in counts.flags.iter_mut().zip(ROW_FLAGS) {
                    *count += u64::from(flags & flag != 0);
                }
            }
            let bin =
                score_bin(done.scores.at((pick.scored as usize + place) * self.outputs), edges);
            counts.scores[bin] += 1;
            if place == 0 {
                first = bin;
            }
        }
        first
    }
}

/// Evidence of one metric while it is gathered.
struct Evidence {
    keys: Vec<u8>,
    bins: Vec<u8>,
    expected: Vec<u8>,
    batch_calls: Vec<u8>,
}

impl Evidence {
    fn new(room: usize) -> Evidence {
        Evidence {
            keys: Vec::with_capacity(8 * room),
            bins: Vec::with_capacity(2 * room),
            expected: Vec::new(),
            batch_calls: Vec::with_capacity(room),
        }
    }

    fn add(&mut self, key_hash: u64, bin: u64) {
        self.keys.extend_from_slice(&key_hash.to_le_bytes());
        put_varint(&mut self.bins, bin);
    }

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
    fn a_latency_falls_where_a_search_of_the_edges_says() {
        let edges: Vec<i64> =
            (0..690).map(|step| (100_000.0 * 1.0202_f64.powi(step)).round() as i64).collect();
        let bins = LatencyBins::new(edges.clone());
        let near = edges.iter().flat_map(|edge| [edge - 1, *edge, edge + 1]);
        let far = [i64::MIN, -1, 0, 1, 31, 32, 33, i64::MAX, i64::MAX - 1];
        for ns in near.chain(far).chain((0..62).map(|bits| 1 << bits)) {
            assert_eq!(bins.of(ns), edges.partition_point(|edge| *edge < ns), "{ns}");
        }
    }

    #[test]
    fn scores_that_are_no_numbers_have_bins_of_their_own() {
        let edges = [0.25, 0.5];
        let scores = [0.25, 0.3, 0.9, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        assert_eq!(scores.map(|score| score_bin(score, &edges)), [0, 1, 2, 3, 4, 5]);
    }
}
