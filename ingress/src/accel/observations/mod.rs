//! Batches in which no call failed: their observations, journal records and shadow copies, each made
//! for several batches in one pass over their columns.
//!
//! The bytes are those that gateway/telemetry/observations.py and
//! gateway/telemetry/native_observations.py describe (tests/gateway/telemetry/test_fault_free.py).

pub mod counts;
pub mod record;
pub mod scale;

use crate::accel::ids::ID_BYTES;
use crate::calls::columns::Column;

/// turnout.v1.Arm.
const ARM_PRODUCTION: u8 = 1;
const ARM_CANARY: u8 = 2;

/// The version whose calls are meant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Participant {
    /// Production scored every row of every batch, and answered the calls of its arm.
    Production,
    /// The canary scored and answered the calls of its arm only.
    Canary,
}

/// The result of one participant in a batch.
#[derive(Clone, Copy)]
pub struct ParticipantResult<'a> {
    /// Production: (R, K) scores of all rows. The canary: (rows of its calls, K).
    pub scores: Column<'a, f32>,
    /// Monotonic time at which its calls were answered.
    pub answered_ns: i64,
    /// Monotonic time by which the latencies of the arms are compared.
    pub done_ns: i64,
    /// It took longer than the canary's budget.
    pub overdue: bool,
    /// The prediction ids of its calls, 64 bytes each.
    pub ids: &'a [u8],
}

/// Byte strings that lie in one buffer. Item i is buffer[starts[i]..ends[i]].
#[derive(Clone, Copy)]
pub struct Slices<'a> {
    pub buffer: &'a [u8],
    /// Where each item starts.
    pub starts: Column<'a, u32>,
    /// Where each item ends.
    pub ends: Column<'a, u32>,
}

impl<'a> Slices<'a> {
    /// Whether there are `count` items, and all of them lie in the buffer.
    fn consistent(&self, count: usize) -> bool {
        let within = |(start, end)| start <= end && end as usize <= self.buffer.len();
        self.starts.len() == count
            && self.ends.len() == count
            && self.starts.iter().zip(self.ends.iter()).all(within)
    }

    /// The item at `index`.
    pub fn at(&self, index: usize) -> &'a [u8] {
        &self.buffer[self.starts.at(index) as usize..self.ends.at(index) as usize]
    }
}

/// The Unix times at which the features of C calls were read.
#[derive(Clone, Copy)]
pub enum ReadTimes<'a> {
    /// All at this time.
    Batch(i64),
    /// (C,) each call by itself.
    Calls(Column<'a, i64>),
}

impl ReadTimes<'_> {
    /// The time of the call at `index`.
    fn at(&self, index: usize) -> i64 {
        match self {
            ReadTimes::Batch(unix_ns) => *unix_ns,
            ReadTimes::Calls(column) => column.at(index),
        }
    }

    fn consistent(&self, calls: usize) -> bool {
        match self {
            ReadTimes::Batch(_) => true,
            ReadTimes::Calls(column) => column.len() == calls,
        }
    }
}

/// One batch of C calls with R rows, as columns. A row has E entity ids and W model inputs.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    /// (C,) turnout.v1.Arm. None: all calls are production's.
    pub arms: Option<&'a [u8]>,
    /// (C,) hashes of evidence keys.
    pub key_hash: Column<'a, u64>,
    /// (C,) monotonic.
    pub arrived_ns: Column<'a, i64>,
    /// (C + 1,) the first row of each call.
    pub row_offsets: Column<'a, u32>,
    /// (C,) not 0 for a call in the holdout. None: no call is.
    pub held_out: Option<&'a [u8]>,
    /// (R,) turnout.v1.RowFlag bits.
    pub flags: Column<'a, u32>,
    /// (R, W) float32.
    pub matrix: Column<'a, f32>,
    /// When the features were read.
    pub read_unix_ns: ReadTimes<'a>,
    /// (R x E,) entity ids.
    pub entities: Slices<'a>,
    /// (C,) sticky keys.
    pub keys: Slices<'a>,
    /// Production's result.
    pub production: ParticipantResult<'a>,
    /// The canary's result. None: it has no calls in this batch.
    pub canary: Option<ParticipantResult<'a>>,
}

impl<'a> Batch<'a> {
    /// The prediction id of each call in order, from the version that answered it.
    fn ids_by_call(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (arms, calls) = (self.arms, self.key_hash.len());
        let mut production = self.production.ids.chunks_exact(ID_BYTES);
        let mut canary = self.canary.map_or(&[][..], |canary| canary.ids).chunks_exact(ID_BYTES);
        (0..calls).map_while(move |call| {
            let is_canary = arms.is_some_and(|arms| arms[call] == ARM_CANARY);
            if is_canary { &mut canary } else { &mut production }.next()
        })
    }
}

/// One call, by indexes into its batch.
#[derive(Clone, Copy)]
struct CallRef {
    /// The index of the batch.
    batch: u32,
    /// The index of the call in the batch.
    call: u32,
    /// Its index among the participant's calls of the batch.
    index: u32,
    /// Its first row in the batch, and the number of its rows.
    row: u32,
    rows: u32,
    /// Its first row in the participant's scores.
    scored_row: u32,
}

/// Several batches of one model at one revision, treated as if they were one.
pub struct FaultFreeBatches<'a> {
    batches: Vec<Batch<'a>>,
    outputs: usize,
    entities: usize,
    width: usize,
}

impl<'a> FaultFreeBatches<'a> {
    /// Batches with K `outputs` of a row, E `entities` of a row and W = `width`. Ask `consistent`
    /// before anything else.
    pub fn new(
        batches: Vec<Batch<'a>>,
        outputs: usize,
        entities: usize,
        width: usize,
    ) -> FaultFreeBatches<'a> {
        FaultFreeBatches {
            batches,
            outputs,
            entities,
            width,
        }
    }

    /// Whether the lengths of all columns fit each other. If they do not, the other functions panic.
    pub fn consistent(&self) -> bool {
        // The columns of calls and rows.
        let columns_fit = |batch: &Batch| {
            let (calls, rows) = (batch.key_hash.len(), batch.flags.len());
            batch.arms.is_none_or(|arms| arms.len() == calls)
                && batch.held_out.is_none_or(|out| out.len() == calls)
                && batch.arrived_ns.len() == calls
                && batch.read_unix_ns.consistent(calls)
                && batch.row_offsets.len() == calls + 1
                && batch.row_offsets.at(0) == 0
                && batch
                    .row_offsets
                    .iter()
                    .zip(batch.row_offsets.iter().skip(1))
                    .all(|(a, b)| a < b)
                && batch.row_offsets.at(calls) as usize == rows
                && batch.matrix.len() == rows * self.width
                && batch.entities.consistent(rows * self.entities)
                && batch.keys.consistent(calls)
                && batch.production.scores.len() == rows * self.outputs
        };
        if self.outputs == 0 || !self.batches.iter().all(columns_fit) {
            return false;
        }
        // The ids and scores of each participant, against the calls of its arm.
        let (production, canary) =
            (self.sizes(Participant::Production), self.sizes(Participant::Canary));
        let mut each = self.batches.iter().zip(production.into_iter().zip(canary));
        each.all(|(batch, ((production_calls, _), (canary_calls, canary_rows)))| {
            let canary =
                batch.canary.map_or((0, 0), |result| (result.ids.len(), result.scores.len()));
            batch.production.ids.len() == production_calls * ID_BYTES
                && canary == (canary_calls * ID_BYTES, canary_rows * self.outputs)
        })
    }

    /// The numbers of a participant's calls and rows in each batch.
    fn sizes(&self, participant: Participant) -> Vec<(usize, usize)> {
        let mut sizes = vec![(0, 0); self.batches.len()];
        for call in self.calls_of(participant) {
            let (calls, rows) = &mut sizes[call.batch as usize];
            *calls += 1;
            *rows += call.rows as usize;
        }
        sizes
    }

    /// The calls of one participant, in order.
    fn calls_of(&self, participant: Participant) -> Vec<CallRef> {
        let arm = if participant == Participant::Production { ARM_PRODUCTION } else { ARM_CANARY };
        let mut calls = Vec::with_capacity(self.batches.iter().map(|b| b.key_hash.len()).sum());
        for (batch_index, batch) in self.batches.iter().enumerate() {
            let (mut index, mut arm_row) = (0, 0);
            for call in 0..batch.key_hash.len() {
                if batch.arms.map_or(ARM_PRODUCTION, |arms| arms[call]) != arm {
                    continue;
                }
                let row = batch.row_offsets.at(call);
                let rows = batch.row_offsets.at(call + 1) - row;
                calls.push(CallRef {
                    batch: batch_index as u32,
                    call: call as u32,
                    index,
                    row,
                    rows,
                    scored_row: if participant == Participant::Production { row } else { arm_row },
                });
                index += 1;
                arm_row += rows;
            }
        }
        calls
    }

    /// The result that a call was answered from.
    fn result(&self, call: &CallRef, participant: Participant) -> ParticipantResult<'a> {
        let batch = &self.batches[call.batch as usize];
        match participant {
            Participant::Production => batch.production,
            // `consistent` has checked that a canary with calls has a result.
            Participant::Canary => batch.canary.unwrap_or(batch.production),
        }
    }

    fn key_hash(&self, call: &CallRef) -> u64 {
        self.batches[call.batch as usize].key_hash.at(call.call as usize)
    }
}
