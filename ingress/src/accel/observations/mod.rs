//! Batches without a fault, counted, kept and copied together in one pass: what gateway/clean.py and
//! gateway/tally.py do column by column, to the same bits (tests/gateway/test_clean.py).

pub mod counts;
pub mod record;

use crate::accel::ids;
use crate::calls::columns::Column;

/// turnout.v1.Arm.
const ARM_PRODUCTION: u8 = 1;
const ARM_CANARY: u8 = 2;
/// Whose calls.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Participant {
    /// Scored every row of every batch, and answered its own.
    Production,
    /// Scored and answered its own.
    Canary,
}

/// What one version did in a batch.
#[derive(Clone, Copy)]
pub struct ParticipantResult<'a> {
    /// Production: (R, K) of the batch. The canary: of its own rows.
    pub scores: Column<'a, f32>,
    /// When its callers were answered.
    pub answered_ns: i64,
    /// By what arms are compared.
    pub done_ns: i64,
    /// It took longer than a canary may.
    pub overdue: bool,
    /// 64 bytes for each of its calls.
    pub ids: &'a [u8],
}

/// Items that lie in a buffer: item i is buffer[starts[i]..ends[i]].
#[derive(Clone, Copy)]
pub struct Slices<'a> {
    /// All of them.
    pub buffer: &'a [u8],
    /// Where each begins.
    pub starts: Column<'a, u32>,
    /// And ends.
    pub ends: Column<'a, u32>,
}

impl<'a> Slices<'a> {
    fn consistent(&self, count: usize) -> bool {
        let within = |(start, end)| start <= end && end as usize <= self.buffer.len();
        self.starts.len() == count
            && self.ends.len() == count
            && self.starts.iter().zip(self.ends.iter()).all(within)
    }

    /// One of them.
    pub fn at(&self, place: usize) -> &'a [u8] {
        &self.buffer[self.starts.at(place) as usize..self.ends.at(place) as usize]
    }
}

/// C calls, R rows.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    /// (C,) turnout.v1.Arm; None: all are production's.
    pub arms: Option<&'a [u8]>,
    /// (C,) evidence keys.
    pub key_hash: Column<'a, u64>,
    /// (C,).
    pub arrived_ns: Column<'a, i64>,
    /// (C + 1,).
    pub row_offsets: Column<'a, u32>,
    /// (C,) not 0: in the control group; None: nobody.
    pub held_out: Option<&'a [u8]>,
    /// (R,) turnout.v1.RowFlag.
    pub flags: Column<'a, u32>,
    /// (R,) those of the lookup alone.
    pub lookup_flags: Column<'a, u32>,
    /// (R, W).
    pub matrix: Column<'a, f32>,
    /// When its features were judged for staleness.
    pub read_unix_ns: i64,
    /// (R x entities).
    pub entities: Slices<'a>,
    /// (C,) sticky keys.
    pub keys: Slices<'a>,
    /// Of all rows.
    pub production: ParticipantResult<'a>,
    /// None: it has no calls here.
    pub canary: Option<ParticipantResult<'a>>,
}

/// One call of one version.
#[derive(Clone, Copy)]
struct CallRef {
    batch: u32,
    call: u32,
    /// Its place among its version's calls of the batch.
    own: u32,
    /// Its rows in the batch.
    row: u32,
    rows: u32,
    /// Its first row among those that its version scored.
    scored: u32,
}

/// Several batches of one model at one revision, as if they had been one.
pub struct FaultFreeBatches<'a> {
    batches: Vec<Batch<'a>>,
    outputs: usize,
    entities: usize,
    width: usize,
}

impl<'a> FaultFreeBatches<'a> {
    /// Look at batches whose columns fit each other: `sound` was asked of them.
    ///
    /// outputs: K; entities: of a row; width: W.
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

    /// Whether columns fit each other; where they do not, everything else here panics.
    pub fn consistent(&self) -> bool {
        let consistent = |batch: &Batch| {
            let (calls, rows) = (batch.key_hash.len(), batch.flags.len());
            batch.arms.is_none_or(|arms| arms.len() == calls)
                && batch.held_out.is_none_or(|out| out.len() == calls)
                && batch.arrived_ns.len() == calls
                && batch.row_offsets.len() == calls + 1
                && batch.row_offsets.at(0) == 0
                && batch
                    .row_offsets
                    .iter()
                    .zip(batch.row_offsets.iter().skip(1))
                    .all(|(a, b)| a < b)
                && batch.row_offsets.at(calls) as usize == rows
                && batch.lookup_flags.len() == rows
                && batch.matrix.len() == rows * self.width
                && batch.entities.consistent(rows * self.entities)
                && batch.keys.consistent(calls)
                && batch.production.scores.len() == rows * self.outputs
        };
        let drawn = |participant| {
            let mut owns = vec![(0, 0); self.batches.len()];
            for pick in self.calls_of(participant) {
                let own = &mut owns[pick.batch as usize];
                *own = (own.0 + 1, own.1 + pick.rows as usize);
            }
            owns
        };
        if self.outputs == 0 || !self.batches.iter().all(consistent) {
            return false;
        }
        let (production, canary) = (drawn(Participant::Production), drawn(Participant::Canary));
        let mut each = self.batches.iter().zip(production.into_iter().zip(canary));
        each.all(|(batch, (own, theirs))| {
            let canary = batch.canary.map_or((0, 0), |done| (done.ids.len(), done.scores.len()));
            batch.production.ids.len() == own.0 * ids::ID_BYTES
                && canary == (theirs.0 * ids::ID_BYTES, theirs.1 * self.outputs)
        })
    }

    /// The calls of one version, in order.
    fn calls_of(&self, participant: Participant) -> Vec<CallRef> {
        let wanted =
            if participant == Participant::Production { ARM_PRODUCTION } else { ARM_CANARY };
        let mut calls_of = Vec::with_capacity(self.batches.iter().map(|b| b.key_hash.len()).sum());
        for (place, batch) in self.batches.iter().enumerate() {
            let (mut own, mut own_row) = (0, 0);
            for call in 0..batch.key_hash.len() {
                if batch.arms.map_or(ARM_PRODUCTION, |arms| arms[call]) != wanted {
                    continue;
                }
                let row = batch.row_offsets.at(call);
                let rows = batch.row_offsets.at(call + 1) - row;
                calls_of.push(CallRef {
                    batch: place as u32,
                    call: call as u32,
                    own,
                    row,
                    rows,
                    scored: if participant == Participant::Production { row } else { own_row },
                });
                own += 1;
                own_row += rows;
            }
        }
        calls_of
    }

    fn done(&self, pick: &CallRef, participant: Participant) -> ParticipantResult<'a> {
        let batch = &self.batches[pick.batch as usize];
        match participant {
            Participant::Production => batch.production,
            Participant::Canary => batch.canary.unwrap_or(batch.production), // sound: it has calls here
        }
    }

    fn key_hash(&self, pick: &CallRef) -> u64 {
        self.batches[pick.batch as usize].key_hash.at(pick.call as usize)
    }
}
